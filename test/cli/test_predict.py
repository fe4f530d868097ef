"""`karmma predict` on videos, and on files that are none."""

import json
from types import SimpleNamespace

import cv2
from karmma_ros.cli.predict import main as predict
from karmma_ros.cli.predict import sliding_windows, VideoClips
from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.data.synthetic_kitchen.episode import episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.errors import InvalidSettingError, KarmmaError
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import save_bundle
from karmma_ros.model.presets import only, preset
from karmma_ros.prediction import Vocabulary
import numpy as np
import pytest
import soundfile

SECONDS, RATE = 4.5, 24


def write_video(path, frames, rate=RATE):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), rate, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


@pytest.fixture(scope='module')
def shown():
    return episode(Split.TEST, 0, 3)


@pytest.fixture(scope='module')
def video(tmp_path_factory, shown):
    """Return a video of one held-out action of the kitchen, its audio beside it."""
    path = tmp_path_factory.mktemp('video') / 'action.avi'
    write_video(path, [shown.frame(i / RATE, 120, 160) for i in range(round(SECONDS * RATE))])
    soundfile.write(path.with_suffix('.wav'), shown.audio(0.0, SECONDS, 44_100), 44_100)
    return path


def predicted(capsys, *words):
    assert predict([*map(str, words), '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_a_held_out_action_is_recognised_with_its_audio(capsys, video, shown):
    result = predicted(capsys, video, '--audio', video.with_suffix('.wav'))
    assert result['sensors'] == 'V+F+A'
    best = {head: labels[0] for head, labels in result['prediction'].items()}
    assert (best['verb']['class'], best['noun']['class']) == (shown.verb, shown.noun)
    assert result['notes'] == ['without detections: a video has no boxes']


def test_inputs_that_no_video_has_are_noted(capsys, tmp_path, video):
    clip = ClipSpec(num_frames=4, video=VideoSpec(32, 32))
    config = only(preset('tiny'), ['rgb', 'imu'])
    vocabulary = Vocabulary({'action': ('wave', 'walk')})
    save_bundle(tmp_path / 'm', build(config, clip, vocabulary), config, clip, vocabulary,
                dataset='ours', card='')
    result = predicted(capsys, video, '--model', tmp_path / 'm')
    assert (result['sensors'], result['notes']) == ('V', ['without imu: a video has no imu'])


def test_windows_follow_by_half_and_the_last_ends_with_the_video(capsys, video):
    result = predicted(capsys, video)
    starts = [window['start_s'] for window in result['windows']]
    assert starts == [0.0, 1.0, 2.0, 2.5]
    assert result['windows'][-1]['end_s'] == result['seconds'] == SECONDS
    assert result['sensors'] == 'V+F' and 'subsets' not in result


def test_the_video_is_the_mean_of_its_windows(capsys, video):
    result = predicted(capsys, video)
    best = result['prediction']['verb'][0]
    scores = [label['score'] for window in result['windows'] for label in window['verb']
              if label['class'] == best['class']]
    assert len(scores) == len(result['windows'])
    assert best['score'] == pytest.approx(np.mean(scores), abs=1e-5)


def test_every_subset_is_predicted_and_the_largest_is_the_prediction(capsys, video):
    result = predicted(capsys, video, '--audio', video.with_suffix('.wav'), '--subsets')
    assert list(result['subsets']) == ['V+F+A', 'V+F', 'V+A', 'F+A', 'V', 'F', 'A']
    assert result['subsets']['V+F+A'] == result['prediction']
    assert result['subsets']['V+F'] == predicted(capsys, video)['prediction']
    scores = {tuple(label['score'] for label in s['verb']) for s in result['subsets'].values()}
    assert len(scores) == 7


def test_a_person_reads_lines(capsys, video, shown):
    words = [str(video), '--audio', str(video.with_suffix('.wav')), '--subsets']
    assert predict(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ['0.0', '1.0', '2.0', '2.5']
    assert f'{video}: 4.5 s, 24 frames a second, 4 windows of 2 s' in lines[4]
    assert lines[-2].startswith(f'verb: {shown.verb} ')
    assert lines[-1].startswith(f'noun: {shown.noun} ')
    assert sum(line.startswith(('  V', '  F', '  A')) for line in lines) == 7


def test_a_short_video_is_one_window_with_a_note(capsys, tmp_path, shown):
    write_video(tmp_path / 'short.avi', [shown.frame(0.5, 48, 64)] * 6, 12)
    result = predicted(capsys, tmp_path / 'short.avi')
    assert [w['start_s'] for w in result['windows']] == [0.0]
    assert any('shorter than the window of 2 s' in note for note in result['notes'])


def test_a_slow_video_repeats_its_frames(tmp_path, shown):
    write_video(tmp_path / 'slow.avi', [shown.frame(t, 48, 64) for t in (0, 0.5, 1, 1.5)], 2)
    with VideoClips(tmp_path / 'slow.avi', None) as video:
        serials = [frame.serial for frame in video.frames(ClipSpec(duration=2.0, num_frames=8))]
    assert serials == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_fast_video_is_resampled_to_the_frames_of_training(tmp_path, shown):
    write_video(tmp_path / 'fast.avi', [shown.frame(0, 48, 64)] * 50, 25)
    with VideoClips(tmp_path / 'fast.avi', None) as video:
        serials = [frame.serial for frame in video.frames(ClipSpec(duration=2.0, num_frames=8))]
    assert serials == [0, 6, 12, 18, 25, 31, 37, 43]


@pytest.mark.parametrize(('count', 'starts'), [
    (1, [0]), (4, [0]), (5, [0, 1]), (6, [0, 2]), (9, [0, 2, 4, 5]), (0, [])])
def test_windows_cover_every_frame(count, starts):
    slots = [SimpleNamespace(serial=i) for i in range(count)]
    result = list(sliding_windows(iter(slots), 4))
    assert [start for start, _ in result] == starts
    assert all(len(frames) == 4 for _, frames in result)
    assert {frame.serial for _, frames in result for frame in frames} == set(range(count))


def rejection(*words):
    with pytest.raises(KarmmaError) as caught:
        predict([str(word) for word in words])
    return str(caught.value)


def test_what_is_no_video_is_a_sentence(tmp_path):
    assert 'a video file that exists' in rejection(tmp_path / 'no.avi')
    (tmp_path / 'text.avi').write_text('not a video')
    assert 'a video that FFmpeg can decode' in rejection(tmp_path / 'text.avi')


def test_a_video_without_frames_is_a_sentence(tmp_path, video):
    write_video(tmp_path / 'video.avi', [np.zeros((48, 64, 3), np.uint8)] * 3)
    content = bytearray((tmp_path / 'video.avi').read_bytes())
    start = content.index(b'movi') + 4
    content[start:] = bytes(len(content) - start)
    (tmp_path / 'video.avi').write_bytes(content)
    assert 'VIDEO is' in rejection(tmp_path / 'video.avi')


def test_an_unknown_model_is_an_error_that_lists_the_models(video):
    assert 'synthetic_kitchen' in rejection(video, '--model', 'nothing')


def test_an_impossible_rate_is_a_sentence(video):
    with pytest.raises(InvalidSettingError, match='frame rate is 0.0'):
        predict([str(video), '--rate', '0'])


def test_audio_that_does_not_fit_is_a_sentence(tmp_path, video):
    assert 'an audio file that exists' in rejection(video, '--audio', tmp_path / 'no.wav')
    (tmp_path / 'text.wav').write_text('no audio')
    assert 'libsndfile can read' in rejection(video, '--audio', tmp_path / 'text.wav')
    assert 'an audio file is a recording for `karmma bag evaluate`' in rejection(
        tmp_path / 'text.wav')
    for seconds in (2, 9):
        soundfile.write(tmp_path / 'other.wav', np.zeros(seconds * 8000), 8000)
        sentence = rejection(video, '--audio', tmp_path / 'other.wav')
        assert f'as long as the video, 4.5 s; it lasts {seconds}.0 s' in sentence
    soundfile.write(tmp_path / 'empty.wav', np.zeros(0), 8000)
    assert 'it lasts 0.0 s' in rejection(video, '--audio', tmp_path / 'empty.wav')
