"""Flow messages of any size and rate become the flow that training saw."""

from __future__ import annotations

from karmma_ros.clip import ClipSpec, FlowSpec, VideoSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities.flow import FlowBuffer
import numpy as np
import pytest

MS = 1_000_000
SPEC = ClipSpec(duration=0.4, num_frames=4, video=VideoSpec(height=8, width=8),
                flow=FlowSpec(bound=12.75))
"""Slots of 100 ms; ten steps of the image are one pixel a slot."""


def field(dx: float, dy: float = 0.0, height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 2), (dx, dy), np.float32)


def filled(*messages: tuple[int, float]) -> FlowBuffer:
    """Return a buffer of (stamp in milliseconds, rightward pixels) messages."""
    buffer = FlowBuffer(SPEC)
    for stamp, dx in messages:
        buffer.add(field(dx), stamp * MS)
    return buffer


def speeds(buffer: FlowBuffer, end_ms: int) -> list[float]:
    """Return the rightward pixels a slot that the clip shows."""
    return [(int(flow.image[0, 0, 0]) - 128) / 10 for flow in buffer.select(end_ms * MS)]


def test_a_message_a_slot_is_shown_as_it_is():
    buffer = filled((10, 9.0), (110, 1.0), (210, 2.0), (310, 3.0), (410, 4.0), (510, 5.0))
    assert speeds(buffer, 510) == [3, 3, 4, 5]
    assert buffer.filled_slots(510 * MS) == 4 and buffer.newest_ns == 510 * MS


def test_the_first_repeats_the_second_as_in_training():
    buffer = filled((10, 9.0), (110, 1.0), (210, 2.0), (310, 3.0), (410, 4.0))
    assert speeds(buffer, 410) == [2, 2, 3, 4]


@pytest.mark.parametrize(('hertz', 'pixels'), [(30, 1.0), (20, 1.5), (10, 3.0), (8, 3.75)])
def test_vectors_are_stretched_to_the_time_between_frames_of_the_clip(hertz, pixels):
    stamps = [round(1000 * i / hertz) for i in range(hertz + 1)]
    buffer = filled(*((stamp, pixels) for stamp in stamps))
    assert speeds(buffer, stamps[-1]) == pytest.approx([3] * 4, abs=0.11)


def test_a_frame_that_came_late_at_the_source_moved_for_longer():
    buffer = filled((0, 1.0), (100, 1.0), (200, 1.0), (330, 1.3), (430, 1.0))
    assert speeds(buffer, 430) == [1, 1, 1, 1]


def test_dropped_messages_do_not_slow_the_world_down():
    """Of a source at 50 Hz only every fifth message arrives, after some that all did."""
    buffer = filled(*((stamp, 1.0) for stamp in range(0, 201, 20)), (300, 1.0), (400, 1.0))
    assert speeds(buffer, 400) == [5, 5, 5, 5]


def test_a_pause_of_the_source_is_no_slow_movement():
    buffer = filled((0, 1.0), (100, 1.0), (200, 1.0), (300, 1.0), (9000, 2.0))
    assert speeds(buffer, 9000)[-1] == 2


def test_the_first_message_only_sets_the_time():
    buffer = filled((0, 1.0))
    assert buffer.newest_ns is None and buffer.select(0) == () and buffer.filled_slots(0) == 0
    buffer.add(field(1.0), 0)
    assert buffer.newest_ns is None


def test_a_message_out_of_order_has_the_usual_time():
    buffer = filled((0, 1.0), (100, 1.0), (300, 1.0), (400, 1.0), (210, 1.0))
    assert speeds(buffer, 400) == [1, 1, 1, 1]


def test_a_slot_without_a_message_goes_on_as_before():
    buffer = filled((0, 1.0), (100, 2.0), (200, 3.0), (400, 6.0))
    assert speeds(buffer, 400) == [3, 3, 3, 6]
    assert buffer.filled_slots(400 * MS) == 3


def test_vectors_are_scaled_and_cropped_with_the_image():
    buffer = FlowBuffer(SPEC)
    wide = np.full((16, 40, 2), 99, np.float32)
    wide[:, 12:28] = 4, -2
    for stamp in (0, 100, 200):
        buffer.add(wide, stamp * MS)
    flow = buffer.select(200 * MS)[-1]
    np.testing.assert_array_equal(flow.image, np.tile(np.uint8([148, 118]), (8, 8, 1)))


def test_movement_is_clipped_at_the_bound():
    buffer = filled((0, 0.0), (100, 5000.0), (200, -5000.0), (300, 0.0))
    assert speeds(buffer, 300) == [12.7, 12.7, -12.8, 0]


def test_a_image_is_never_written_to_again_and_memory_is_bounded():
    buffer = filled(*((stamp, 1.0) for stamp in range(0, 5000, 50)))
    assert buffer.nbytes == 6 * 8 * 8 * 2
    with pytest.raises(ValueError, match='read-only'):
        buffer.select(5000 * MS)[0].image[:] = 0
    buffer.clear()
    assert buffer.nbytes == 0 and buffer.newest_ns is None


@pytest.mark.parametrize('bad', [
    np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 2)), np.zeros((0, 8, 2), np.float32), None,
    np.full((8, 8, 2), np.nan, np.float32)])
def test_what_is_no_flow_is_refused(bad):
    buffer = filled((0, 1.0))
    with pytest.raises(InvalidSampleError, match='flow: got'):
        buffer.add(bad, 100 * MS)
