"""The demo's score, and a short demo."""

import subprocess
import sys

from karmma_msgs.msg import (
    ActionAnnotation,
    ActionRecognition,
    LabelScore,
    ModalityAvailability,
    ModalityStatus,
)
from karmma_ros.node import demo
from karmma_ros.node.messages import time_message
from karmma_ros.node.watch import Changes, modality_mask, recognition_line
import pytest

SECOND = 1_000_000_000
NAMES = ('rgb', 'flow', 'audio', 'detections')


def truth(start_s, stop_s, verb='wash', noun='plate'):
    message = ActionAnnotation(end=time_message(round(stop_s * SECOND)), verb=verb, noun=noun)
    message.header.stamp = time_message(round(start_s * SECOND))
    return message


def recognition(start_s, stop_s, verb='wash', noun='plate', used=NAMES, disabled=()):
    state = {True: ModalityStatus.DISABLED, False: ModalityStatus.AVAILABLE}
    message = ActionRecognition(
        window_start=time_message(round(start_s * SECOND)),
        window_end=time_message(round(stop_s * SECOND)),
        verbs=[LabelScore(class_name=verb, score=0.5)],
        nouns=[LabelScore(class_name=noun, score=0.5)],
        modalities=[ModalityStatus(name=n, used=n in used, state=state[n in disabled])
                    for n in NAMES],
        end_to_end_latency=0.05)
    message.header.stamp = message.window_end
    return message


@pytest.fixture
def score():
    return demo.DemoScore(truths=[truth(0, 4), truth(4, 8, 'cut', 'bread')])


@pytest.mark.parametrize(('window', 'action', 'expected'), [
    ((0, 2), ('wash', 'plate'), True),
    ((2, 4), ('wash', 'plate'), True),
    ((5, 7), ('cut', 'bread'), True),
    ((5, 7), ('cut', 'plate'), False),
    ((5, 7), ('wash', 'bread'), False),
    ((3, 5), ('wash', 'plate'), None),
    ((7, 9), ('cut', 'bread'), None),
])
def test_a_result_is_scored_where_one_action_fills_its_window(score, window, action, expected):
    assert score.add(recognition(*window, *action)) is expected
    assert (score.recognitions, score.scored, score.correct) == (
        1, expected is not None, expected is True)


def test_only_results_of_all_sensors_count(score):
    assert score.add(recognition(0, 2, used=NAMES[:3])) is True
    assert score.scored == 0
    assert score.add(recognition(0, 2, used=NAMES[:3], disabled=NAMES[3:])) is True
    assert (score.scored, score.correct) == (1, 1)


def test_the_last_line_and_the_verdict(score):
    for end in range(2, 22):
        score.add(recognition(0, 2, used=NAMES[:max(1, end % 5)]))
    score.add(recognition(0, 2, 'cut'))
    assert score.line() == 'demo: 21 recognitions, 4 of 5 correct with all sensors, 4 masks seen'
    assert score.passed
    score.correct = 3
    assert not score.passed


@pytest.mark.parametrize('lack', [{'recognitions': 19}, {'scored': 0, 'correct': 0},
                                  {'masks': {('rgb',), ('audio',), ()}}])
def test_too_little_is_no_success(lack):
    enough = {'recognitions': 20, 'scored': 10, 'correct': 8,
              'masks': {('rgb',), ('audio',), (), ('flow',)}}
    assert demo.DemoScore(**enough).passed
    assert not demo.DemoScore(**{**enough, **lack}).passed


def test_the_mask_shows_what_a_result_rests_on():
    assert modality_mask(recognition(0, 2, used=('rgb', 'detections')).modalities) == 'V - - D'
    others = [ModalityStatus(name=name, used=True) for name in ('imu', 'rgb_wrist', 'smell')]
    assert modality_mask(others) == 'I V_wrist S'
    line = recognition_line(recognition(8, 10), 4.0)
    assert line.split() == ['6.0', 's', 'V', 'F', 'A', 'D', 'wash', 'plate', '0.25', '50', 'ms']


def test_only_changes_of_the_sensors_are_printed_with_the_reason():
    changes = Changes()
    message = ModalityAvailability(modalities=[
        ModalityStatus(name='rgb', state=ModalityStatus.AVAILABLE),
        ModalityStatus(name='audio', state=ModalityStatus.STALE, detail='last 2 s ago')])
    assert changes.lines(message) == ['rgb: available', 'audio: stale (last 2 s ago)']
    message.modalities[1].detail = 'last 3 s ago'
    assert changes.lines(message) == []
    message.modalities[1].state = ModalityStatus.AVAILABLE
    assert changes.lines(message) == ['audio: available (last 3 s ago)']
    message.modalities[0].state = 99
    assert changes.lines(message) == ['rgb: unknown state 99']


def run_demo(folder, model, **constants):
    """Run the demo as a process with other constants; give its status, output and errors."""
    settings = ''.join(f'demo.{name} = {value!r}; ' for name, value in constants.items())
    process = subprocess.run(
        [sys.executable, '-c', 'import sys; from karmma_ros.node import demo; '
         f'{settings}sys.exit(demo.main(sys.argv[1:]))',
         '--model', str(model), '--cache', str(folder), '--speed', '0.5'],
        capture_output=True, text=True, timeout=120)
    return process.returncode, process.stdout.splitlines(), process.stderr


def test_a_short_demo(ros, bundle, tmp_path):
    """Random weights recognise nothing, so that it ends with its line but without success."""
    status, lines, err = run_demo(
        tmp_path, bundle, EPISODES=3, EPISODE_S=1.5, MUTES=(('camera', 1.5, 2.4),),
        CORRUPTIONS=(('microphone', 'silence', 2.8, 4.4),))
    assert status == 1, err
    output = '\n'.join(lines)
    assert 'microphone sends silence' in output and 'audio: shows nothing' in output, output
    assert 'V F A D' in output and '- - A D' in output and 'rgb: stale' in output, output
    words = lines[-1].split()
    assert words[0] == 'demo:' and int(words[1]) >= 5
    assert lines[-1].endswith(' masks seen') and int(words[-3]) >= 2


def test_an_absent_model_ends_the_demo_with_a_sentence(ros, tmp_path):
    status, _, err = run_demo(tmp_path, tmp_path / 'none', EPISODES=1, EPISODE_S=0.1)
    assert status == 1
    assert 'expected the path of a model directory' in err
    assert 'demo: the node rejected configure; its log above has the reason' in err
