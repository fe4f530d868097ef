from __future__ import annotations

import json
from types import SimpleNamespace

from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities.message_types import IMAGE
from karmma_ros.modalities.rgb import FrameBuffer, Rgb
from karmma_ros.modality import Modality
from karmma_ros.preprocess.resize import resize_and_crop
import numpy as np
import pytest

MS = 1_000_000
SPEC = ClipSpec(duration=0.4, num_frames=4, video=VideoSpec(height=12, width=16))
"""Slots of 100 ms."""


def grey(value: int) -> np.ndarray:
    return np.full((12, 16, 3), value, np.uint8)


def filled(*stamps_ms: int) -> FrameBuffer:
    """Return a buffer of frames whose brightness is their number in order of arrival."""
    buffer = FrameBuffer(SPEC)
    for i, stamp in enumerate(stamps_ms):
        buffer.add(grey(i + 1), stamp * MS)
    return buffer


def shown(buffer: FrameBuffer, end_ms: int) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in buffer.select(end_ms * MS)]


def test_gives_one_frame_a_slot_oldest_first():
    buffer = filled(110, 210, 310, 410)
    assert shown(buffer, 410) == [1, 2, 3, 4]
    assert [f.stamp_ns for f in buffer.select(410 * MS)] == [s * MS for s in (110, 210, 310, 410)]
    assert buffer.filled_slots(410 * MS) == 4


def test_first_frame_of_a_slot_stays():
    buffer = filled(110, 199, 100, 210)
    assert shown(buffer, 210)[-2:] == [1, 4]
    assert not buffer.wants(150 * MS) and buffer.wants(300 * MS)


def test_late_frames_fill_their_slot():
    assert shown(filled(410, 110, 310, 210), 410) == [2, 4, 3, 1]


def test_holes_repeat_the_frame_before_else_the_one_after():
    buffer = filled(210, 410)
    assert shown(buffer, 410) == [1, 1, 1, 2]
    assert buffer.filled_slots(410 * MS) == 2


def test_a_hole_at_the_start_shows_an_older_frame_if_any():
    assert shown(filled(10, 210, 310, 410), 410) == [1, 2, 3, 4]


def test_a_silent_camera_repeats_its_last_frame():
    buffer = filled(110, 210)
    assert shown(buffer, 450) == [1, 2, 2, 2]
    assert buffer.filled_slots(450 * MS) == 2 and buffer.filled_slots(10_000 * MS) == 0


def test_empty_buffer_has_nothing():
    buffer = FrameBuffer(SPEC)
    assert buffer.select(0) == () and buffer.newest_ns is None and buffer.filled_slots(0) == 0


def test_old_slots_are_discarded_and_refused():
    buffer = filled(*range(10, 3000, 100))
    assert buffer.nbytes == 6 * 12 * 16 * 3
    assert not buffer.wants(10 * MS)
    buffer.add(grey(99), 3110 * MS)
    assert buffer.wants(3010 * MS) and buffer.nbytes == 5 * 12 * 16 * 3
    assert not buffer.wants(2599 * MS) and not buffer.wants(2500 * MS)
    buffer = filled(*range(10, 3000, 100))
    before = shown(buffer, 2910)
    buffer.add(grey(99), 10 * MS)
    assert shown(buffer, 2910) == before and buffer.nbytes == 6 * 12 * 16 * 3


def test_far_future_leaves_one_frame():
    buffer = filled(110, 210, 10 ** 12)
    assert buffer.newest_ns == 10 ** 18 and shown(buffer, 10 ** 12) == [3, 3, 3, 3]


def test_frames_are_copies_that_nobody_writes_to():
    buffer, image = FrameBuffer(SPEC), grey(7)
    buffer.add(image, 0)
    image[:] = 0
    kept = buffer.select(0)[-1].image
    np.testing.assert_array_equal(kept, 7)
    with pytest.raises(ValueError, match='read-only'):
        kept[:] = 1


def test_frames_are_resized_before_they_are_kept():
    image = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    buffer = FrameBuffer(SPEC)
    buffer.add(image, 0)
    np.testing.assert_array_equal(buffer.select(0)[-1].image, resize_and_crop(image, 12, 16))


def test_a_resized_frame_is_cropped_once():
    """A buffer gets frames that were cropped as they were decoded."""
    spec = ClipSpec(num_frames=4, video=VideoSpec(16, 16, resize=(20,)))
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    message = SimpleNamespace(height=20, width=20, encoding='rgb8', step=60, is_bigendian=0,
                              data=image.tobytes())
    rgb = Rgb(Modality.RGB)
    decoded, size = rgb.read(message, IMAGE, spec, {'rgb.bits': 16})
    buffer = rgb.buffer(spec)
    buffer.add(decoded, 0)
    np.testing.assert_array_equal(buffer.select(0)[-1].image, image[2:18, 2:18])
    assert size == (20, 20)


def test_a_specification_without_resize_is_stored_as_before():
    spec = ClipSpec(video=VideoSpec(16, 16), inputs={'rgb_wrist': VideoSpec(8, 8)})
    stored = spec.to_dict()
    assert 'resize' not in stored['video'] and 'resize' not in stored['inputs']['rgb_wrist']
    resized = ClipSpec(video=VideoSpec(16, 16, resize=(20,)), inputs={
        'rgb_wrist': VideoSpec(8, 8, resize=(9, 12))})
    for each in (spec, resized):
        assert ClipSpec.from_dict(json.loads(json.dumps(each.to_dict()))) == each


def test_cleared_buffer_starts_anew_with_new_serials():
    buffer = filled(110)
    serial = buffer.select(110 * MS)[0].serial
    buffer.clear()
    assert buffer.newest_ns is None and buffer.nbytes == 0
    buffer.add(grey(1), 110 * MS)
    assert buffer.select(110 * MS)[0].serial != serial


def test_refuses_what_is_no_image():
    with pytest.raises(InvalidSampleError, match='image: got float32'):
        FrameBuffer(SPEC).add(np.zeros((4, 4, 3), np.float32), 0)


def test_frames_that_are_kept_longer_are_of_earlier_windows_only():
    usual, longer = filled(), filled()
    longer.keep_longer(3 * longer._period_ns)
    for stamp_ms in range(0, 3000, 100):
        for buffer in (usual, longer):
            if buffer.wants(stamp_ms * MS):
                buffer.add(grey(stamp_ms // 100), stamp_ms * MS)
    assert shown(longer, 2900) == shown(usual, 2900)
    assert len({*shown(longer, 2500)}) == len(shown(longer, 2500)) > len({*shown(usual, 2500)})
