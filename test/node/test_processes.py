"""The node and the sensors as processes of their own; this one listens."""

from pathlib import Path
import signal
import subprocess
import sys
import time

from karmma_msgs.msg import ModalityStatus, ModelInfo
from karmma_ros.data.synthetic_kitchen.vocabulary import VERBS
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
import yaml

# Half of the window of 0.8 s still covered: the timeout alone decides.
AUDIO_TIMEOUT_S, RATE_HZ = 0.3, 10.0
# What a busy machine may add, to the node's own reaction and to that of three processes.
HICCUP_S, SLACK_S = 0.15, 0.5
CONFIG = Path(__file__).parents[2] / 'config' / 'node' / 'karmma.yaml'
ALL = ['rgb', 'flow', 'audio', 'detections']


def start(*arguments, **options):
    return subprocess.Popen([sys.executable, *map(str, arguments)], **options)


@pytest.fixture
def executor():
    """Return the node's executor, unless a test has its own."""
    return 'auto'


@pytest.fixture
def node(ros, bundle, executor):
    """Run the node with the shipped parameters but for a few; it is active by itself."""
    process = start(
        '-m', 'karmma_ros.node', '--ros-args', '--params-file', CONFIG, '-p', f'model:={bundle}',
        '-p', 'autostart:=true', '-p', f'rate:={RATE_HZ}', '-p', 'threads:=1',
        '-p', f'audio.timeout:={AUDIO_TIMEOUT_S}', '-p', 'subject_id:=anna',
        '-p', f'executor:={executor}')
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def sender(ros):
    """Run the sensors; return a function that switches them and returns the time."""
    process = start(Path(__file__).parents[1] / 'helpers' / 'sender.py',
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def switch(*sensors):
        process.stdin.write(' '.join(sensors) + '\n')
        process.stdin.flush()
        return float(process.stdout.readline().split()[-1])

    yield switch
    process.kill()
    process.wait()


def wait_for(stage, node, condition):
    """Wait for something of the node's, as long as it lives."""
    assert stage.until(lambda: condition() or node.poll() is not None, 60)
    assert node.poll() is None


def used(result):
    return [s.name for s in result.modalities if s.used]


def fresh(stage, wanted, timeout_s=10.0):
    """Wait for a result resting on `wanted`; give it and the moment of its receipt."""
    stage.results.clear()
    assert stage.until(lambda: stage.results and used(stage.results[-1]) == wanted, timeout_s), (
        stage.availabilities[-1:])
    return stage.results[-1], time.monotonic()


@pytest.mark.parametrize('executor', ['events', 'single_threaded'])
def test_sensors_come_and_go_and_the_mask_follows(stage, node, sender):
    wait_for(stage, node, lambda: stage.node.count_publishers('action_recognition'))
    sender('image', 'audio', 'detections')
    result, _ = fresh(stage, ALL, 30)
    check_result(result)

    stopped = sender('image', 'detections')
    result, fallen = fresh(stage, ['rgb', 'flow', 'detections'])
    audio = next(s for s in result.modalities if s.name == 'audio')
    assert AUDIO_TIMEOUT_S < audio.age <= AUDIO_TIMEOUT_S + 1 / RATE_HZ + HICCUP_S
    assert AUDIO_TIMEOUT_S - 0.1 < fallen - stopped < AUDIO_TIMEOUT_S + 1 / RATE_HZ + SLACK_S

    sender('image', 'audio', 'detections')
    fresh(stage, ALL)

    sender('audio')
    fresh(stage, ['audio'])

    sender()
    states = ('rgb', 'flow', 'audio', 'detections')
    assert stage.until(lambda: all(
        stage.status(name).state == ModalityStatus.STALE for name in states))
    assert stage.until(lambda: not stage.availabilities[-1].inference_possible)
    for name in states:
        assert 'timeout' in stage.status(name).detail
    stage.results.clear()
    stage.until(lambda: False, 1.0)
    assert stage.results == []
    # Silence is explained again and again, at least once a second.
    stage.availabilities.clear()
    stage.until(lambda: False, 3.0)
    assert len(stage.availabilities) >= 3

    sender('image', 'audio', 'detections')
    fresh(stage, ALL)
    check_no_window_twice(stage)


def check_result(result):
    assert len(result.verbs) == len(result.nouns) == len(result.actions) == 5
    scores = [label.score for label in result.verbs]
    assert scores == sorted(scores, reverse=True) and 0 < scores[0] < 1
    best = result.actions[0]
    assert (best.verb, best.noun) == (result.verbs[0].class_name, result.nouns[0].class_name)
    assert result.header.stamp == result.window_end
    assert result.header.frame_id == 'image_frame'
    assert result.subject_id == 'anna'
    assert result.model_id.startswith('random@')
    assert 0 < result.inference_latency < 1
    assert 0 < result.end_to_end_latency < 1
    window_s = (result.window_end.sec - result.window_start.sec
                + (result.window_end.nanosec - result.window_start.nanosec) * 1e-9)
    assert window_s == pytest.approx(0.8, abs=1e-6)


def check_no_window_twice(stage):
    stage.results.clear()
    stage.until(lambda: len(stage.results) >= 15, 10)
    ends = [(r.window_end.sec, r.window_end.nanosec) for r in stage.results]
    numbers = [r.sequence for r in stage.results]
    assert len(set(ends)) == len(ends) >= 15 and ends == sorted(ends)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_what_it_loaded_and_that_it_survives_an_impossible_transition(stage, node, sender):
    infos = []
    stage.node.create_subscription(ModelInfo, 'karmma/model_info', infos.append, QoSProfile(
        depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    wait_for(stage, node, lambda: infos)
    info, = infos
    assert list(info.modalities) == ALL and list(info.verbs) == list(VERBS)
    assert info.model_id == f'random@{info.sha256[:8]}'
    assert (info.device, info.num_frames, info.audio_sample_rate) == ('cpu', 8, 16_000)
    client = stage.node.create_client(ChangeState, 'karmma/change_state')
    assert client.wait_for_service(timeout_sec=10)
    refused = client.call_async(ChangeState.Request(transition=Transition(
        id=Transition.TRANSITION_ACTIVATE)))
    assert stage.until(refused.done, 5) and not refused.result().success
    sender('audio')
    fresh(stage, ['audio'], 30)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_active_ends_it_in_order(stage, node, sender, number):
    wait_for(stage, node, lambda: stage.node.count_publishers('action_recognition'))
    sender('image', 'audio')
    fresh(stage, ['rgb', 'flow', 'audio'], 30)
    node.send_signal(number)
    assert node.wait(timeout=15) == 0


def test_autostart_with_a_wrong_setting_ends_with_a_sentence(ros):
    process = start('-m', 'karmma_ros.node', '--ros-args', '-p', 'model:=nowhere', '-p',
                    'autostart:=true', '-p', 'rate:=2', stderr=subprocess.PIPE, text=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "configure failed: model is 'nowhere'" in err


def test_an_integer_in_yaml_serves_for_a_double_and_other_types_do_not(ros, bundle, tmp_path):
    file = tmp_path / 'karmma.yaml'
    values = {'model': str(bundle), 'autostart': True, 'rate': 2, 'audio': {'timeout': 'short'}}
    file.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}))
    process = start('-m', 'karmma_ros.node', '--ros-args', '--params-file', file,
                    stderr=subprocess.PIPE, text=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert ("configure failed: audio.timeout is 'short'; expected a number from 0.05 to 60.0: "
            'write it as in `audio.timeout: 0.5`') in err
    assert 'rate' not in err


def test_an_unreadable_parameter_file_is_a_sentence(ros, tmp_path):
    (tmp_path / 'bad.yaml').write_text('karmma: [')
    process = start('-m', 'karmma_ros.node', '--ros-args', '--params-file', tmp_path / 'bad.yaml',
                    stderr=subprocess.PIPE, text=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert 'karmma: the ROS arguments cannot be used' in err and 'Traceback' not in err
