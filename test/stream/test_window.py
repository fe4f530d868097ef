from __future__ import annotations

from dataclasses import replace

from karmma_ros.clip import AudioSpec, ClipSpec, FlowSpec, VideoSpec
from karmma_ros.data.synthetic_kitchen.episode import clip_spec, render_clip
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.modalities import flow as flow_module
from karmma_ros.modalities import modality_type
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

    def counted(previous, current, **how):
        pairs.append((previous.tobytes(), current.tobytes()))
        return estimate(previous, current, **how)

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


def test_flow_of_a_stream_is_that_of_training_for_each_way_to_estimate_it():
    flow = FlowSpec(20.0, preset='fast', scale=2)
    spec = replace(SPEC, flow=flow, video=VideoSpec(32, 48))
    own, buffer = modality_type(Modality.FLOW), FrameBuffer(spec)
    for stamp in (0, 100, 200, 300):
        buffer.add(RANDOM.integers(0, 256, (32, 48, 3), dtype=np.uint8), stamp * MS)
    frames = buffer.window(300 * MS)
    live = own.prepare(own.derivation(spec)(frames).arrays(), spec)
    trained = own.prepare(clip_flow(frames.arrays(), *flow.estimation), spec)
    np.testing.assert_array_equal(live, trained)
    assert live.shape == spec.input_shape(Modality.FLOW) == (3, 4, 16, 24)


def test_flow_of_a_topic_has_the_values_of_the_movement_at_each_size():
    values = []
    for scale in (1, 2):
        spec = replace(SPEC, flow=FlowSpec(20.0, scale=scale))
        buffer = modality_type(Modality.FLOW).buffer(spec)
        for stamp in (100, 200, 300, 400):
            buffer.add(np.full((2 * SPEC.video.height, 2 * SPEC.video.width, 2), 8.0, np.float32),
                       stamp * MS)
        shown = buffer.window(400 * MS).arrays()
        assert shown.shape[1] == SPEC.video.height // scale
        values.append(int(np.median(shown[-1])))
    assert values[0] == values[1] > 128


def test_the_kitchen_renders_flow_at_its_own_size_and_old_specifications_are_unchanged():
    spec = clip_spec()
    assert 'scale' not in spec.to_dict()['flow'] and 'preset' not in spec.to_dict()['flow']
    half = replace(spec, flow=replace(spec.flow, preset='fast', scale=2))
    assert ClipSpec.from_dict(half.to_dict()) == half
    rendered = render_clip(Split.TEST, 0, 0, half)
    assert rendered.flow.shape == (16, 20, 20, 2) and rendered.rgb.shape == (16, 40, 40, 3)
    np.testing.assert_array_equal(
        rendered.flow, clip_flow(rendered.rgb, *half.flow.estimation))


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
