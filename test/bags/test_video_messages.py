"""A video file beside bags is read as the bag that `karmma bag from-video` makes of it."""

from dataclasses import replace

import av
from karmma_ros.bags.bag_message import BagFrames
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.training_clips import extract_recordings, find_bags
from karmma_ros.bags.video_messages import START_NS
from karmma_ros.cli.main import main
from karmma_ros.clip import NANOSECONDS
from karmma_ros.data.labels.label_file import ActionLabel, write_label_file
from karmma_ros.data.recordings import BagSettings, WindowClips
from karmma_ros.data.synthetic_kitchen.episode import clip_spec, episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.errors import BagError
from karmma_ros.modality import Modality
import numpy as np
import pytest
import soundfile

SPEC = replace(clip_spec(), num_frames=4, video=replace(clip_spec().video, height=24, width=24))
CHOP, WASH = {'action': 'chop'}, {'action': 'wash'}


def write_video(path, number=0, seconds=6, with_audio=True):
    """Write an episode of the synthetic kitchen with its audio."""
    shown = episode(Split.TEST, 0, number)
    with av.open(str(path), 'w') as out:
        video = out.add_stream('mpeg4', rate=10)
        audio = out.add_stream('aac', rate=16_000) if with_audio else None
        video.width, video.height, video.pix_fmt = 64, 48, 'yuv420p'
        if audio is not None:
            audio.layout = 'mono'
        for i in range(10 * seconds):
            frame = av.VideoFrame.from_ndarray(shown.frame(i / 10, 48, 64), 'rgb24')
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio is not None:
            samples = shown.audio(0.0, seconds, 16_000)
            for first in range(0, len(samples) - 1023, 1024):
                block = av.AudioFrame.from_ndarray(
                    samples[None, first:first + 1024].astype(np.float32), 'fltp', 'mono')
                block.sample_rate, block.pts = 16_000, first
                out.mux(audio.encode(block))
            out.mux(audio.encode())


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    for number, name in enumerate(('monday', 'tuesday')):
        write_video(folder / f'{name}.mp4', number)
    (folder / 'as_bags').mkdir()
    assert main(['bag', 'from-video', str(folder / 'monday.mp4'),
                 str(folder / 'as_bags' / 'monday.mcap')]) == 0
    return folder


def messages(path):
    with Bag(path) as bag:
        return [(each.topic.name, each.received_ns, bag.reader(each.topic)(each.data))
                for each in bag.messages(bag.topics.values())]


def test_the_messages_are_those_that_from_video_writes(folder):
    own, other = messages(folder / 'monday.mp4'), messages(folder / 'as_bags' / 'monday.mcap')
    assert len(own) == len(other) > 200
    for (topic, time_ns, message), (name, same_ns, same) in zip(own, other):
        assert (topic, time_ns, repr(message.header)) == (name, same_ns, repr(same.header))
        data, expected = (x.data if topic == '/image' else x.audio.data for x in (message, same))
        assert np.array_equal(data, expected)


def test_a_part_of_it_has_the_messages_of_that_time(folder):
    with Bag(folder / 'monday.mp4') as bag:
        every = [(m.topic.name, m.received_ns) for m in bag.messages(bag.topics.values())]
        start_ns, stop_ns = START_NS + 2 * NANOSECONDS, START_NS + 3 * NANOSECONDS
        part = [(m.topic.name, m.received_ns)
                for m in bag.messages(bag.topics.values(), start_ns, stop_ns)]
        assert part == [each for each in every if start_ns <= each[1] < stop_ns] != []
        assert bag.files.storage == 'video' and bag.start_ns == START_NS
        assert bag.end_ns - START_NS == pytest.approx(6 * NANOSECONDS, abs=NANOSECONDS // 5)
    frame, = BagFrames(folder / 'monday.mp4', '/image', 'sensor_msgs/msg/Image')(
        [START_NS + 3 * NANOSECONDS])
    assert frame.shape == (48, 64, 3)


def test_clips_for_training_are_those_of_the_bag(folder, tmp_path):
    write_label_file(tmp_path / 'labels.csv', [ActionLabel('monday', 0.5, 5.5, CHOP)])
    clips = []
    for path in (folder / 'monday.mp4', folder / 'as_bags' / 'monday.mcap'):
        settings = BagSettings((str(path),), str(tmp_path / 'labels.csv'))
        recording, = extract_recordings(settings, SPEC, tmp_path / path.suffix)
        clips.append(WindowClips(recording, 5))
    assert len(clips[0]) == len(clips[1]) == 5
    for own, same in zip(*([each[i].clip for i in range(5)] for each in clips)):
        assert set(own.inputs) == set(same.inputs) >= {Modality.RGB, Modality.AUDIO}
        for modality, x in own.inputs.items():
            assert np.array_equal(x, same.inputs[modality])


def test_videos_of_a_folder_are_recordings_unless_a_bag_has_their_name(folder, tmp_path):
    assert find_bags([str(folder)]) == {
        name: folder / f'{name}.mp4' for name in ('monday', 'tuesday')}
    assert find_bags([str(folder / 'tuesday.mp4'), str(folder / 'as_bags')]) == {
        'tuesday': folder / 'tuesday.mp4', 'monday': folder / 'as_bags' / 'monday.mcap'}
    (tmp_path / 'monday.mp4').write_bytes((folder / 'monday.mp4').read_bytes())
    (tmp_path / 'monday.mcap').write_bytes((folder / 'as_bags' / 'monday.mcap').read_bytes())
    assert find_bags([str(tmp_path)]) == {'monday': tmp_path / 'monday.mcap'}


AUDIO = {'wav': ('PCM_16', 8_000), 'flac': ('PCM_24', 44_100), 'aiff': ('PCM_16', 48_000),
         'ogg': ('VORBIS', 22_050)}
"""Suffix → encoding and rate."""


@pytest.mark.parametrize('suffix', AUDIO)
def test_an_audio_file_is_a_recording_of_a_microphone(tmp_path, suffix):
    encoding, rate = AUDIO[suffix]
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * rate) / rate)
    stereo = np.stack([tone, np.zeros_like(tone)], 1)
    soundfile.write(tmp_path / f'a.{suffix}', stereo, rate, subtype=encoding)
    with Bag(tmp_path / f'a.{suffix}') as bag:
        assert [name for name, _ in bag.topics] == ['/audio'] and bag.files.storage == 'audio'
        assert bag.end_ns - bag.start_ns == pytest.approx(3 * NANOSECONDS, abs=NANOSECONDS // 20)
        samples = np.concatenate([
            np.frombuffer(bag.reader(m.topic)(m.data).audio.data, '<i2')
            for m in bag.messages(bag.topics.values())]) / 32768
    middle = samples[8_000:24_000]
    assert np.abs(np.fft.rfft(middle)).argmax() == 440
    assert np.abs(middle).max() == pytest.approx(0.25, abs=0.02)  # the mean of both channels


def test_an_audio_file_beside_a_bag_or_a_video_of_its_name_is_left_out(folder, tmp_path):
    for name in ('monday.mp4', 'monday.wav', 'friday.WAV', 'friday.txt'):
        (tmp_path / name).touch()
    assert find_bags([str(tmp_path)]) == {
        'monday': tmp_path / 'monday.mp4', 'friday': tmp_path / 'friday.WAV'}
    (tmp_path / 'friday.WAV').write_bytes(b'no audio')
    with pytest.raises(BagError, match='friday.WAV cannot be read: its audio cannot be read'):
        Bag(tmp_path / 'friday.WAV').__enter__()


@pytest.mark.parametrize(('start_s', 'stop_s'), [(0.0, 0.3), (5.7, 6.0)])
def test_a_short_segment_at_the_edge_of_a_recording_has_clips(tmp_path, start_s, stop_s):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / 'a.wav', 0.1 * rng.normal(size=6 * 16_000), 16_000)
    write_label_file(tmp_path / 'labels.csv', [ActionLabel('a', start_s, stop_s, CHOP)])
    settings = BagSettings((str(tmp_path / 'a.wav'),), str(tmp_path / 'labels.csv'))
    recording, = extract_recordings(settings, SPEC, tmp_path / 'cache')
    clips = WindowClips(recording, 5)
    assert len(clips) == 1 and clips[0].clip.modalities == (Modality.AUDIO,)


def test_a_video_without_audio_and_one_that_is_none(tmp_path):
    write_video(tmp_path / 'silent.mp4', seconds=1, with_audio=False)
    with Bag(tmp_path / 'silent.mp4') as bag:
        assert [name for name, _ in bag.topics] == ['/image']
    (tmp_path / 'none.mp4').write_bytes(b'no video')
    with pytest.raises(BagError, match='none.mp4 cannot be read: .*video'):
        Bag(tmp_path / 'none.mp4').__enter__()


def test_a_model_is_fine_tuned_on_videos_and_scored_on_one(folder, tmp_path, capsys):
    labels = [ActionLabel(name, start, start + 2.5, classes) for name in ('monday', 'tuesday')
              for start, classes in ((0.2, CHOP), (3.2, WASH))]
    write_label_file(tmp_path / 'labels.csv', labels)
    assert main(['finetune', str(folder), '--labels', str(tmp_path / 'labels.csv'), '--from',
                 'synthetic_kitchen', '--out', str(tmp_path / 'model'), '--steps', '20',
                 '--cache', str(tmp_path / 'cache')]) == 0
    assert 'no recording has detections' in capsys.readouterr().out
    assert main(['bag', 'evaluate', str(folder / 'tuesday.mp4'), '--model',
                 str(tmp_path / 'model'), '--ground-truth', str(tmp_path / 'labels.csv'), '--out',
                 str(tmp_path / 'report')]) == 0
    assert 'video' in capsys.readouterr().out and (tmp_path / 'report' / 'report.json').is_file()
