"""The bag commands, run as a person types them."""

import os
from pathlib import Path

import av
import cv2
from karmma_ros.cli.main import main
from karmma_ros.data.labels.label_file import read_label_file
from karmma_ros.data.synthetic_kitchen.vocabulary import Domain
import numpy as np
import pytest
from rosbags.rosbag2 import Reader
import soundfile


def counts(path):
    with Reader(path) as bag:
        return {connection.topic: connection.msgcount for connection in bag.connections}


@pytest.fixture
def video(tmp_path):
    """Return 1.5 s of a moving square at 20 frames a second, and its audio at 44.1 kHz."""
    path = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 20, (64, 48))
    for index in range(30):
        frame = np.full((48, 64, 3), 40, np.uint8)
        frame[10:30, index:index + 20] = 0, 0, 255
        writer.write(frame)
    writer.release()
    times = np.arange(66_150) / 44_100
    stereo = 0.3 * np.sin(2 * np.pi * 440 * times)[:, None].repeat(2, axis=1)
    soundfile.write(tmp_path / 'video.wav', stereo, 44_100)
    return path


def test_synthetic_writes_every_topic(tmp_path):
    out = tmp_path / 'kitchen.mcap'
    words = ['bag', 'synthetic', str(out), '--episodes', '2', '--seconds', '1', '--rate', '15',
             '--size', '64x48']
    assert main(words) == 0
    assert counts(out) == {'/ground_truth': 2, '/image': 30, '/audio': 64, '/detections': 20}


def test_synthetic_is_the_same_from_the_same_seed(tmp_path):
    words = ['--episodes', '1', '--seconds', '0.2', '--size', '32x24', '--seed']
    for name, seed in (('a', '5'), ('b', '5'), ('c', '6')):
        assert main(['bag', 'synthetic', str(tmp_path / f'{name}.mcap'), *words, seed]) == 0
    assert messages(tmp_path / 'a.mcap') == messages(tmp_path / 'b.mcap')
    assert messages(tmp_path / 'a.mcap') != messages(tmp_path / 'c.mcap')


def test_synthetic_may_be_of_the_garage(tmp_path, capsys):
    words = ['--episodes', '3', '--seconds', '0.2', '--rate', '10', '--domain']
    for domain in Domain:
        out = tmp_path / f'{domain}.mcap'
        assert main(['bag', 'synthetic', str(out), *words, str(domain)]) == 0
        truths = [data for topic, _, data in messages(out) if topic == '/ground_truth']
        assert len(truths) == 3
        for truth in truths:
            assert any(noun.encode() in truth for noun in domain.nouns)
    assert main(['bag', 'synthetic', str(tmp_path / 'o.mcap'), *words, 'cellar']) == 2
    assert "--domain is 'cellar'" in capsys.readouterr().err


def test_synthetic_may_be_of_some_classes(tmp_path, capsys):
    out, words = tmp_path / 'o.mcap', ['--seconds', '0.2', '--size', '32x24', '--rate', '15']
    assert main(['bag', 'synthetic', str(out), '--episodes', '4', *words, '--verbs', 'cut', 'mix',
                 '--nouns', 'pan', 'cup']) == 0
    main(['data', 'labels', str(out), '--out', str(tmp_path / 'labels.csv')])
    labels = read_label_file(tmp_path / 'labels.csv').labels
    assert sorted(x.text for x in labels) == ['cut/cup', 'cut/pan', 'mix/cup', 'mix/pan']
    assert main(['bag', 'synthetic', str(tmp_path / 'p.mcap'), *words, '--verbs', 'fry']) == 2
    assert "--verbs is 'fry'; expected wash, cut" in capsys.readouterr().err


def test_synthetic_may_be_idle(tmp_path):
    out = tmp_path / 'idle.mcap'
    words = ['--episodes', '2', '--seconds', '0.2', '--size', '32x24', '--idle', '1']
    assert main(['bag', 'synthetic', str(out), *words]) == 0
    truths = [data for topic, _, data in messages(out) if topic == '/ground_truth']
    assert len(truths) == 2 and all(each.count(b'nothing') == 2 for each in truths)


def messages(path):
    with Reader(path) as bag:
        return [(c.topic, t, bytes(data)) for c, t, data in bag.messages()]


def test_a_video_keeps_its_frames_colours_and_length(tmp_path, video):
    out = tmp_path / 'video.mcap'
    audio = str(video.with_suffix('.wav'))
    assert main(['bag', 'from-video', str(video), '--audio', audio, str(out)]) == 0
    messages = counts(out)
    assert messages['/image'] == 30
    # 1.5 s at 16 kHz in messages of 512 samples.
    assert messages['/audio'] == 47
    with Reader(out) as bag:
        assert bag.duration / 1e9 == pytest.approx(1.5, abs=0.06)
        image = next(data for c, _, data in bag.messages() if c.topic == '/image')
    red, green, blue = np.frombuffer(image[-48 * 64 * 3:], np.uint8).reshape(48, 64, 3)[20, 10]
    assert red > 200 and green < 60 and blue < 60


def test_a_video_keeps_its_own_audio(tmp_path):
    path = tmp_path / 'with_audio.mkv'
    with av.open(str(path), 'w') as out:
        video, audio = out.add_stream('mpeg4', rate=10), out.add_stream('pcm_s16le', rate=16_000)
        video.width, video.height, video.pix_fmt = 64, 48, 'yuv420p'
        audio.layout = 'mono'
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), 'rgb24')
            frame.pts = number
            out.mux(video.encode(frame))
        samples = av.AudioFrame.from_ndarray(np.full((1, 16_000), 8192, np.int16), 's16', 'mono')
        samples.rate, samples.pts = 16_000, 0
        for packet in (*audio.encode(samples), *audio.encode(None), *video.encode(None)):
            out.mux(packet)
    for words, expected in (([], 32), (['--rate', '5'], 0)):
        bag = tmp_path / f'{len(words)}.mcap'
        assert main(['bag', 'from-video', str(path), str(bag), *words]) == 0
        sent = [data for topic, _, data in messages(bag) if topic == '/audio']
        assert len(sent) == expected
        assert all(each[-1024:] == np.full(512, 8192, '<i2').tobytes() for each in sent[:30])


def test_a_video_can_be_scaled(tmp_path, video):
    out = tmp_path / 'small.mcap'
    assert main(['bag', 'from-video', str(video), str(out), '--size', '32x32']) == 0
    with Reader(out) as bag:
        _, _, data = next(bag.messages())
    assert 32 * 32 * 3 < len(data) < 32 * 32 * 3 + 200


def test_a_missing_video_is_a_sentence(tmp_path, capsys):
    assert main(['bag', 'from-video', str(tmp_path / 'no.avi'), str(tmp_path / 'o.mcap')]) == 2
    assert 'a video file that exists' in capsys.readouterr().err


def test_a_file_that_is_no_video_is_a_sentence(tmp_path, capsys):
    (tmp_path / 'no.avi').write_text('not a video')
    assert main(['bag', 'from-video', str(tmp_path / 'no.avi'), str(tmp_path / 'o.mcap')]) == 2
    assert 'a video that FFmpeg can decode' in capsys.readouterr().err
    assert not (tmp_path / 'o.mcap').exists()


def test_a_file_that_is_no_audio_is_a_sentence(tmp_path, video, capsys):
    (tmp_path / 'no.wav').write_text('not audio')
    words = ['bag', 'from-video', str(video), '--audio', str(tmp_path / 'no.wav'),
             str(tmp_path / 'o.mcap')]
    assert main(words) == 2
    assert 'an audio file that libsndfile can read' in capsys.readouterr().err


@pytest.mark.parametrize(('words', 'sentence'), [
    (['--episodes', '0'], '--episodes is 0; expected a number above 0'),
    (['--seconds', '-1'], '--seconds is -1.0; expected a number above 0'),
    (['--rate', '0'], '--rate is 0.0; expected a number above 0'),
    (['--idle', '1.5'], '--idle is 1.5; expected a fraction of the episodes, 0 to 1'),
])
def test_impossible_numbers_are_refused(tmp_path, capsys, words, sentence):
    assert main(['bag', 'synthetic', str(tmp_path / 'o.mcap'), *words]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize('size', ['320', '0x5', 'axb'])
def test_an_impossible_size_is_refused(tmp_path, capsys, size):
    assert main(['bag', 'synthetic', str(tmp_path / 'o.mcap'), '--size', size]) == 2
    assert f'--size is {size!r}; expected ' in capsys.readouterr().err


def test_an_unknown_command_is_an_error_that_lists_the_commands(capsys):
    assert main(['bake']) == 2
    assert "no command 'bake'; there are: bag, " in capsys.readouterr().err


def test_replay_hands_on_the_players_status(tmp_path, capfd):
    assert main(['replay', str(tmp_path / 'none.mcap')]) == 2
    assert 'a readable rosbag2 bag' in capfd.readouterr().err


@pytest.mark.skipif('KARMMA_TEST_CLIP' not in os.environ, reason='KARMMA_TEST_CLIP names no video')
def test_a_real_video_with_audio(tmp_path):
    clip = Path(os.environ['KARMMA_TEST_CLIP'])
    out = tmp_path / 'real.mcap'
    words = ['bag', 'from-video', str(clip), '--audio', str(clip.with_suffix('.wav')), str(out)]
    assert main(words) == 0
    assert counts(out)['/image'] > 0 and counts(out)['/audio'] > 0
