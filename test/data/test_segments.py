"""Segments → samples: where the window lies, what is read, and what happens when it cannot be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
import pickle
import warnings

from karmma_ros.data.segments import LabelledSegment, SegmentDataset, window_start
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.media.sources import FlowFromVideo, frame_times
from karmma_ros.modalities import make_clip
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.preprocess.optical_flow import clip_flow
from karmma_ros.preprocess.resize import resize_and_crop
import numpy as np
import pytest

V, F, A, D = PAPER_MODALITIES


@dataclass
class Video:
    """A video whose frames depend on their times; it records the times that are read."""

    height: int = 24
    width: int = 32
    read_times: list[list[float]] = field(default_factory=list)

    def frame(self, t):
        rng = np.random.default_rng(round(t * 1e6))
        return rng.integers(0, 256, (self.height, self.width, 3), np.uint8)

    def frames(self, times_s):
        self.read_times.append(list(times_s))
        return np.stack([self.frame(t) for t in times_s])

    def problem(self):
        return None


class Sensors(Video):
    """Flow, audio and boxes; each audio sample is its time."""

    def flow(self, times_s):
        return np.stack([self.frame(t)[..., :2] for t in times_s])

    def samples(self, start_s, duration_s, rate):
        self.read_times.append([start_s])
        return (start_s + np.arange(round(duration_s * rate)) / rate).astype(np.float32)

    def boxes(self, times_s):
        return [np.array([[0, 0, t / 100, 1, 1]], np.float32) for t in times_s]


class Broken:
    """A source that fails when read."""

    def frames(self, times_s):
        raise DataError('video.mp4', 'it breaks off', 'fetch it again')

    samples = flow = frames

    def problem(self):
        return None


def segment(start=10.0, stop=13.0, **sources):
    given = {Modality.parse(name): source for name, source in sources.items()}
    return LabelledSegment('P01_01_0', start, stop, {'verb': 1, 'noun': 2}, given)


@pytest.mark.parametrize(('start', 'stop', 'position', 'wanted'), [
    (10, 13, 0.0, 10), (10, 13, 0.5, 10.5), (10, 13, 1.0, 11),
    (10, 11, 0.0, 9.5), (10, 11, 1.0, 9.5),  # shorter: centred, wherever it is wanted
    (10, 12, 0.7, 10), (0.2, 0.6, 0.5, 0), (5, 5, 0.5, 4)])
def test_the_start_of_the_window(start, stop, position, wanted):
    assert window_start(start, stop, 2.0, position) == pytest.approx(wanted)


def test_frames_are_taken_at_the_starts_of_even_slots(spec):
    assert frame_times(3.0, spec) == [3.0, 3.25, 3.5, 3.75]


def test_a_sample_is_what_the_robot_would_make(spec):
    video, sensors = Video(), Sensors()
    sample = SegmentDataset(
        [segment(rgb=video, flow=sensors, audio=sensors, detections=sensors)], spec)[0]
    start = 11.0
    times = frame_times(start, spec)
    wanted = make_clip(
        spec, {
            V: np.stack([resize_and_crop(video.frame(t), 16, 16) for t in times]),
            F: np.stack([resize_and_crop(video.frame(t)[..., :2], 16, 16) for t in times]),
            A: sensors.samples(start, 1.0, 16_000), D: sensors.boxes(times)})
    assert sample.clip.modalities == (V, F, A, D)
    for modality in PAPER_MODALITIES:
        np.testing.assert_array_equal(
            sample.clip.inputs[modality], wanted.inputs[modality])
        assert sample.clip.inputs[modality].shape == spec.input_shape(modality)
    assert (sample.labels, sample.index) == ({'verb': 1, 'noun': 2}, 0)


def test_scoring_reads_the_centre_and_training_another_position_each_epoch(spec):
    sensors = Sensors()
    clips = SegmentDataset([segment(audio=sensors), segment(audio=sensors)], spec, seed=4)
    starts = {}
    for epoch in range(200):
        clips.training_sample(1, epoch)
        starts[epoch] = sensors.read_times.pop()[0]
    values = np.array(list(starts.values()))
    assert len(set(values)) == 200
    assert ((values >= 10) & (values <= 12)).all()
    assert values.mean() == pytest.approx(11, abs=0.15) and values.std() > 0.5
    for make, wanted in (
        (lambda: clips[1], 11.0),
        (lambda: clips.training_sample(1, 7), starts[7]),
    ):
        make()
        assert sensors.read_times.pop()[0] == wanted
    clips.training_sample(0, 7)
    assert sensors.read_times.pop()[0] != starts[7]
    SegmentDataset(clips.segments, spec, seed=5).training_sample(1, 7)
    assert sensors.read_times.pop()[0] != starts[7]


def test_computed_flow_is_that_of_the_cropped_frames_decoded_once(spec):
    video = Video()
    sample = SegmentDataset([segment(rgb=video, flow=FlowFromVideo(video))], spec)[0]
    frames = np.stack([resize_and_crop(video.frame(t), 16, 16)
                       for t in frame_times(11.0, spec)])
    wanted = make_clip(spec, {F: clip_flow(frames, spec.flow.bound)})
    np.testing.assert_array_equal(sample.clip.inputs[F], wanted.inputs[F])
    assert len(video.read_times) == 1
    alone = SegmentDataset([segment(flow=FlowFromVideo(video))], spec)[0]
    assert alone.clip.modalities == (F,)
    np.testing.assert_array_equal(alone.clip.inputs[F], wanted.inputs[F])


def test_an_equal_video_is_the_same_video(spec):
    calls = []

    @dataclass(frozen=True)
    class Named:
        name: str

        def frames(self, times_s):
            calls.append(self.name)
            return Video().frames(times_s)

        def problem(self):
            return None

    SegmentDataset([segment(rgb=Named('a'), flow=FlowFromVideo(Named('a')))], spec)[0]
    assert calls == ['a']
    SegmentDataset([segment(rgb=Named('a'), flow=FlowFromVideo(Named('b')))], spec)[0]
    assert calls == ['a', 'a', 'b']


def test_no_alignment_is_needed_and_nothing_at_all_is_left_out(spec):
    clips = SegmentDataset(
        [segment(rgb=Video()), segment(), segment(audio=Sensors()), segment()], spec)
    assert (len(clips), clips.left_out) == (2, 2)
    assert [clips[i].clip.modalities for i in range(2)] == [(V,), (A,)]
    for index in (2, -1):
        with pytest.raises(IndexError, match=f'segment {index} of 2'):
            clips[index]


def test_what_cannot_be_read_is_left_out_of_its_sample_and_named_once(spec):
    clips = SegmentDataset([segment(rgb=Broken(), audio=Sensors())], spec)
    with pytest.warns(UserWarning, match=r'video.mp4: it breaks off \(segment P01_01_0, rgb\)'):
        assert clips[0].clip.modalities == (A,)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        clips.training_sample(0, 3)
    assert clips.unreadable == {'video.mp4': 2}


def test_invalid_audio_is_left_out_too(spec):
    class Nonsense(Sensors):
        def samples(self, start_s, duration_s, rate):
            return np.full(round(duration_s * rate), np.nan, np.float32)

    clips = SegmentDataset([segment(rgb=Video(), audio=Nonsense())], spec)
    with pytest.warns(UserWarning, match='NaN or infinity'):
        assert clips[0].clip.modalities == (V,)


def test_nothing_left_or_nothing_forgiven_is_an_error(spec):
    sentence = (r'data video.mp4: it breaks off \(segment P01_01_0, rgb\): fetch it again')
    with pytest.warns(UserWarning), pytest.raises(DataError, match=sentence):
        SegmentDataset([segment(rgb=Broken())], spec)[0]
    strict = SegmentDataset([segment(rgb=Broken(), audio=Sensors())], spec, skip_unreadable=False)
    with pytest.raises(DataError, match=sentence):
        strict[0]


@pytest.mark.parametrize(('start', 'stop'), [(-1, 2), (3, 2), (float('nan'), 2)])
def test_a_segment_that_runs_backwards_is_refused(start, stop):
    with pytest.raises(InvalidSettingError, match='segment P01_01_0'):
        segment(start, stop)


def test_frames_of_the_right_size_are_not_copied(spec):
    video = Video(16, 16)
    small = SegmentDataset([segment(rgb=video)], spec)[0]
    large = SegmentDataset([segment(rgb=Video())], spec)[0]
    assert small.clip.inputs[V].shape == large.clip.inputs[V].shape
    frames = np.stack([video.frame(t) for t in frame_times(11.0, spec)])
    np.testing.assert_array_equal(
        small.clip.inputs[V], make_clip(spec, {V: frames}).inputs[V])


def test_an_error_travels_between_processes():
    error = DataError('a/b.csv', 'it is empty', 'fetch it')
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == 'data a/b.csv: it is empty: fetch it'
    assert again.path == error.path


def test_clips_travel_to_a_worker(spec):
    clips = SegmentDataset([segment(audio=Sensors())], replace(spec, duration=0.5), seed=9)
    again = pickle.loads(pickle.dumps(clips))
    for one, other in (
        (again[0], clips[0]),
        (again.training_sample(0, 2), clips.training_sample(0, 2)),
    ):
        np.testing.assert_array_equal(one.clip.inputs[A], other.clip.inputs[A])


def test_what_is_not_taken_is_not_read(spec):
    video, sensors = Video(), Sensors()
    clips = SegmentDataset([segment(rgb=video, audio=sensors), segment(rgb=video)], spec)
    audible = clips.with_modalities([A])
    assert set(audible[0].clip.inputs) == {A} and not video.read_times
    assert not audible[1].clip.inputs and audible[1].labels == clips[1].labels
    assert set(clips[0].clip.inputs) == {V, A}  # the clips themselves are as they were
