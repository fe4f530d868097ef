from __future__ import annotations

from karmma_ros.clip import AudioSpec, ClipSpec, VideoSpec
from karmma_ros.modalities import flow as flow_module
from karmma_ros.modalities.audio_buffer import SpectrogramCache, StoredAudio
from karmma_ros.modalities.detection_buffer import StoredBoxes
from karmma_ros.modalities.flow import ComputedFlow, FlowCache
from karmma_ros.modalities.rgb import Frame, FrameBuffer
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.preprocess.optical_flow import clip_flow
from karmma_ros.stream.window import Window
import numpy as np
import pytest

MS = 1_000_000
SPEC = ClipSpec(
    duration=0.4, num_frames=4, video=VideoSpec(height=16, width=16),
    audio=AudioSpec(tiles=2, tile_steps=20, n_mels=8))
RANDOM = np.random.default_rng(0)


def random_image() -> np.ndarray:
    return RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.fixture
def calls(monkeypatch):
    """Record the pairs whose flow is really computed."""
    pairs = []
    estimate = flow_module.estimate_flow

    def counted(previous, current, bound):
        pairs.append((previous.tobytes(), current.tobytes()))
        return estimate(previous, current, bound)

    monkeypatch.setattr(flow_module, 'estimate_flow', counted)
    return pairs


def flow_of(frames: tuple[Frame, ...]) -> np.ndarray:
    return clip_flow(np.stack([frame.image for frame in frames]), 20.0)


def test_flow_is_that_of_the_clip_and_each_pair_is_computed_once(calls):
    buffer, cache = FrameBuffer(SPEC), FlowCache(20.0)
    for stamp in [*range(0, 1000, 100), 1300, 1400, 1500, 1900, 2000, 9000]:
        buffer.add(random_image(), stamp * MS)
        frames = buffer.select(stamp * MS)
        np.testing.assert_array_equal(cache.clip_flow(frames), flow_of(frames))
        assert cache.nbytes <= 3 * 16 * 16 * 2
    assert len(calls) == len(set(calls)) == 14  # the last is too far from the one before


def test_late_frame_changes_its_two_pairs_only(calls):
    buffer, cache = FrameBuffer(SPEC), FlowCache(20.0)
    for stamp in (0, 100, 300):
        buffer.add(random_image(), stamp * MS)
    cache.clip_flow(buffer.select(300 * MS))
    buffer.add(random_image(), 200 * MS)
    before = len(calls)
    frames = buffer.select(300 * MS)
    np.testing.assert_array_equal(cache.clip_flow(frames), flow_of(frames))
    assert len(calls) - before == 2


def test_same_stamps_with_other_images_are_other_frames():
    buffer, cache = FrameBuffer(SPEC), FlowCache(20.0)
    for _ in range(2):
        for stamp in (0, 100, 200, 300):
            buffer.add(random_image(), stamp * MS)
        frames = buffer.select(300 * MS)
        np.testing.assert_array_equal(cache.clip_flow(frames), flow_of(frames))
        buffer.clear()


def test_single_frame_does_not_move():
    buffer = FrameBuffer(SPEC)
    buffer.add(random_image(), 0)
    np.testing.assert_array_equal(FlowCache(20.0).clip_flow(buffer.select(0)), 128)
    np.testing.assert_array_equal(FlowCache(20.0).clip_flow(buffer.select(0)[:1]), 128)


def make_window() -> Window:
    buffer = FrameBuffer(SPEC)
    for stamp in (0, 100, 200, 300):
        buffer.add(random_image(), stamp * MS)
    frames = buffer.window(300 * MS)
    return Window(
        SPEC, -100 * MS, 300 * MS, PAPER_MODALITIES, (), {
            Modality.RGB: frames, Modality.FLOW: ComputedFlow(frames, FlowCache(20.0)),
            Modality.AUDIO: StoredAudio(
                RANDOM.uniform(-1, 1, 6400).astype(np.float32), np.ones(6400, np.bool_), 0,
                (-50 * MS, 290 * MS), SpectrogramCache(SPEC.audio)),
            Modality.DETECTIONS: StoredBoxes(
                (np.zeros((0, 5), np.float32),) * 4, (0, 100 * MS))})


def test_clip_has_every_modality_in_its_shape():
    clip = make_window().clip()
    assert clip.modalities == PAPER_MODALITIES
    assert all(clip.inputs[m].shape == SPEC.input_shape(m) for m in PAPER_MODALITIES)


def test_clip_prepares_only_what_is_kept(calls):
    clip = make_window().clip([Modality.AUDIO, Modality.RGB])
    assert clip.modalities == (Modality.RGB, Modality.AUDIO) and not calls


def test_stamps_are_those_of_all_modalities():
    window = make_window()
    assert (window.oldest_ns, window.newest_ns) == (-50 * MS, 300 * MS)
