from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
from karmma_ros.clip import FLOW_PRESETS, FlowSpec, VideoSpec
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.preprocess import optical_flow as flow_module
from karmma_ros.preprocess.optical_flow import (
    clip_flow,
    decode_flow,
    estimate_flow,
    flow_input,
    quantise_flow,
)
import numpy as np
import pytest


def texture(seed: int = 0, side: int = 120) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def sliding(count: int, dx: int, dy: int, side: int = 64) -> np.ndarray:
    """Return frames in which everything moves by (dx, dy) pixels a frame."""
    image, start = texture(), 28
    return np.stack([
        image[start - i * dy:start - i * dy + side, start - i * dx:start - i * dx + side]
        for i in range(count)
    ])


@pytest.mark.parametrize(('dx', 'dy'), [(3, 0), (0, -2), (-4, 3)])
def test_finds_a_known_shift(dx, dy):
    frames = sliding(2, dx, dy)
    image = estimate_flow(*frames, bound=20.0)
    pixels = (image[8:-8, 8:-8].astype(float) - 128) * 20 / 127.5
    np.testing.assert_allclose(np.median(pixels, (0, 1)), (dx, dy), atol=0.2)


def test_quantises_to_the_full_range():
    displacement = np.array([[[0, 20], [-20, 10], [99, -99], [1e-3, -1e-3]]], np.float32)
    np.testing.assert_array_equal(
        quantise_flow(displacement, 20.0)[0], [[128, 255], [0, 192], [255, 0], [128, 128]])


def test_equal_frames_move_nothing_and_cost_nothing(monkeypatch):
    monkeypatch.setattr(flow_module, '_flow_between', lambda *_: pytest.fail('DIS was called'))
    frame = texture(side=32)
    np.testing.assert_array_equal(estimate_flow(frame, frame.copy(), 20.0), 128)
    np.testing.assert_array_equal(clip_flow(np.stack([frame] * 3), 20.0), 128)


def test_clip_is_its_pairs():
    frames = sliding(4, 2, 1)
    frames[2] = frames[1]
    flow = clip_flow(frames, 20.0)
    assert flow.shape == (4, 64, 64, 2) and flow.dtype == np.uint8
    for i in range(1, 4):
        np.testing.assert_array_equal(flow[i], estimate_flow(frames[i - 1], frames[i], 20.0))
    np.testing.assert_array_equal(flow[0], flow[1])


def test_single_frame_does_not_move():
    np.testing.assert_array_equal(clip_flow(sliding(1, 0, 0), 20.0), 128)


def test_threads_agree_with_one_thread():
    pairs = [(texture(i, 64), texture(i + 1, 64)) for i in range(6)]
    alone = [estimate_flow(a, b, 20.0) for a, b in pairs]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda pair: estimate_flow(*pair, 20.0), pairs * 4))
    for got, wanted in zip(together, alone * 4):
        np.testing.assert_array_equal(got, wanted)


def test_images_of_other_sizes_leave_no_trace():
    frames = sliding(2, 3, 1)
    before = estimate_flow(*frames, 20.0)
    for side in (16, 20, 120):
        estimate_flow(texture(1, side), texture(2, side), 20.0)
    np.testing.assert_array_equal(estimate_flow(*frames, 20.0), before)


def test_input_is_the_normalised_image_u_v_0():
    spec = FlowSpec(mean=(0.5, 0.25, 0.4), std=(0.5, 1.0, 0.2))
    flow = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 2), dtype=np.uint8)
    got = flow_input(flow, spec)
    image = np.concatenate([flow, np.zeros((2, 3, 4, 1), np.uint8)], 3) / 255.0
    wanted = (image - np.array(spec.mean)) / np.array(spec.std)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted.transpose(3, 0, 1, 2), atol=1e-6)


def test_smallest_size_works_and_smaller_ones_are_refused():
    wide = np.random.default_rng(0).integers(0, 256, (2, 16, 300, 3), dtype=np.uint8)
    assert clip_flow(wide, 20.0).shape == (2, 16, 300, 2)
    assert clip_flow(wide[:, :, :16].copy(), 20.0).shape == (2, 16, 16, 2)
    with pytest.raises(InvalidSampleError, match='frame size for flow: got 300 x 15; expected'):
        clip_flow(wide[:, :15].copy(), 20.0)


@pytest.mark.parametrize(('call', 'text'), [
    (lambda: estimate_flow(texture(side=16), texture(side=17), 20.0),
     r'current frame: got uint8 \[17, 17, 3\]; expected uint8 \[16, 16, 3\]'),
    (lambda: clip_flow(np.zeros((2, 16, 16, 1), np.uint8), 20.0), 'frames: got'),
    (lambda: flow_input(np.zeros((2, 16, 16, 3), np.uint8), FlowSpec()), 'flow: got'),
    (lambda: quantise_flow(np.full((2, 2, 2), np.nan, np.float32), 20.0), 'NaN'),
])
def test_refuses_what_it_cannot_use(call, text):
    with pytest.raises(InvalidSampleError, match=text):
        call()


def flow_fields(**changes):
    field = np.random.default_rng(0).normal(0, 3, (6, 8, 2)).astype('<f4')
    return field, {'data': field.tobytes(), 'encoding': '32FC2', 'height': 6, 'width': 8,
                   'step': 64, 'size': (6, 8), **changes}


def test_a_flow_image_is_read_with_its_padding_and_byte_order():
    field, plain = flow_fields()
    np.testing.assert_array_equal(decode_flow(**plain), field)
    rows = np.pad(field.astype('>f4').view(np.uint8).reshape(6, 64), ((0, 0), (0, 3)))
    swapped = {**plain, 'data': rows.tobytes(), 'step': 67, 'is_bigendian': True}
    np.testing.assert_array_equal(decode_flow(**swapped), field)


def test_flow_is_resized_as_the_video_and_scaled_along():
    """An image of 40 x 20 is cropped to its middle 20 x 20, which become 10 x 10."""
    field = np.zeros((20, 40, 2), '<f4')
    field[:, 10:30] = [6, -4]
    decoded = decode_flow(field.tobytes(), encoding='32FC2', height=20, width=40, step=320,
                          size=(10, 10))
    np.testing.assert_allclose(decoded, np.tile([3, -2], (10, 10, 1)))


@pytest.mark.parametrize('unknown', [np.nan, np.inf, -np.inf, 1e9, -1e9, 1.7e38])
def test_unknown_movement_is_none(unknown):
    field, fields = flow_fields()
    field[1, 2, 1] = unknown
    decoded = decode_flow(**{**fields, 'data': field.tobytes()})
    field[1, 2] = 0
    np.testing.assert_array_equal(decoded, field)


@pytest.mark.parametrize(('changes', 'text'), [
    ({'encoding': 'rgb8'}, "flow encoding: got 'rgb8'; expected 32FC2.*flow.source to computed"),
    ({'encoding': '32FC1'}, 'flow encoding'),
    ({'step': 60}, 'step: got 60; expected 64'),
    ({'width': 0}, 'size: got 0 x 6'),
    ({'data': bytes(100)}, 'got 100 bytes; expected 384'),
    ({'data': np.full((6, 8, 2), np.nan, '<f4').tobytes()}, 'got 0 of 48 pixels with a finite'),
])
def test_flow_images_that_are_none(changes, text):
    with pytest.raises(InvalidSampleError, match=text):
        decode_flow(**flow_fields(**changes)[1])


@pytest.mark.parametrize('spec', [
    FlowSpec(20.0, preset='fast'), FlowSpec(20.0, preset='ultrafast'), FlowSpec(20.0, scale=2),
    FlowSpec(20.0, preset='fast', scale=2)])
@pytest.mark.parametrize(('dx', 'dy'), [(4, 0), (-4, 6)])
def test_a_cheaper_estimate_has_the_same_values_at_its_own_size(spec, dx, dy):
    frames = sliding(2, dx, dy)
    image = estimate_flow(*frames, *spec.estimation)
    assert image.shape == (64 // spec.scale, 64 // spec.scale, 2)
    np.testing.assert_array_equal(clip_flow(frames, *spec.estimation)[1], image)
    inner = image[8:-8, 8:-8].astype(float) - 128
    np.testing.assert_allclose(np.median(inner, (0, 1)) * 20 / 127.5, (dx, dy), atol=0.4)


def test_each_preset_is_another_estimate():
    frames = np.stack([texture(1, 64), texture(2, 64)])
    estimates = [clip_flow(frames, 20.0, preset) for preset in FLOW_PRESETS]
    assert all((a != b).any() for a, b in zip(estimates, estimates[1:]))
    np.testing.assert_array_equal(estimates[-1], clip_flow(frames, 20.0))


@pytest.mark.parametrize(('settings', 'text'), [
    ({'preset': 'slow'}, "clip.flow.preset is 'slow'; expected ultrafast, fast, medium"),
    ({'scale': 0}, 'clip.flow.scale is 0; expected a number above 0')])
def test_an_unknown_way_to_estimate_is_refused(settings, text):
    with pytest.raises(InvalidSettingError, match=text):
        FlowSpec(**settings)


def test_frames_that_are_too_small_for_the_scale_are_refused():
    with pytest.raises(InvalidSettingError, match='height of the model is 40; expected 48 pixels'):
        flow_module.check_video_size(VideoSpec(40, 40), 3)
