from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from karmma_ros.clip import BOX_HAND, BOX_OBJECT, ClipSpec, DetectionSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities.detection_buffer import DetectionBuffer
import numpy as np
import pytest

MS = 1_000_000
SPEC = ClipSpec(duration=0.8, num_frames=8, detections=DetectionSpec(max_boxes=2))
"""Slots of 100 ms, centred on 50, 150 …; a quarter of the window is 200 ms."""


def filled(*stamps_ms: int) -> DetectionBuffer:
    buffer = DetectionBuffer(SPEC)
    for stamp in stamps_ms:
        buffer.add(np.array([[0.1, 0.1, 0.2, 0.2, BOX_OBJECT]], np.float32), stamp * MS)
    return buffer


def chosen(buffer: DetectionBuffer, end_ms: int) -> list[int | None]:
    """Return the stamp in ms of the message of each slot."""
    indices = buffer.select(end_ms * MS)
    return [None if p < 0 else buffer.stamps_ns([p])[0] // MS for p in indices]


def test_each_slot_takes_the_nearest_message():
    buffer = filled(*range(40, 840, 100))
    assert chosen(buffer, 740) == list(range(40, 840, 100))


def test_slow_detector_serves_the_slots_around():
    assert chosen(filled(100, 300, 500, 700), 750) == [100, 100, 300, 300, 500, 500, 700, 700]


def test_silent_detector_leaves_slots_empty():
    assert chosen(filled(*range(0, 300, 50)), 790) == [50, 150, 250, 250, None, None, None, None]


def test_very_slow_detector_reaches_a_quarter_of_the_window():
    assert chosen(filled(0, 800), 890) == [0, None, None, None, None, 800, 800, 800]


def test_messages_after_the_end_are_not_seen():
    assert chosen(filled(50, 150, 250), 150)[-2:] == [50, 150]


def test_messages_in_any_order_once_each():
    buffer = filled(250, 50, 150, 150)
    assert buffer.newest_ns == 250 * MS
    assert chosen(buffer, 250)[-3:] == [50, 150, 250]


def test_empty_message_is_a_message():
    buffer = DetectionBuffer(SPEC)
    buffer.add(np.zeros((0, 5), np.float32), 50 * MS)
    indices = buffer.select(50 * MS)
    assert indices[-1] == 0
    np.testing.assert_array_equal(buffer.boxes(indices)[-1], 0)
    assert buffer.boxes([-1])[0].shape == (0, 5)


def test_keeps_what_the_network_can_be_given():
    rows = [[0.1 * i, 0.1, 0.1 * i + 0.1, 0.2, BOX_OBJECT] for i in range(5)]
    rows.append([0.7, 0.1, 0.8, 0.2, BOX_HAND])
    buffer = DetectionBuffer(SPEC)
    buffer.add(np.array(rows, np.float32), 0)
    np.testing.assert_allclose(buffer.boxes([0])[0], [rows[-1], rows[0]])


def test_a_detector_in_a_frenzy_is_bounded():
    buffer = filled(*range(500))
    assert buffer.nbytes == 16 * 8 * 2 * 5 * 4 and buffer.newest_ns == 499 * MS
    assert chosen(buffer, 499)[-1] == 450


def test_cleared_buffer_has_nothing():
    buffer = filled(50, 150)
    buffer.clear()
    assert buffer.newest_ns is None and buffer.nbytes == 0 and set(chosen(buffer, 150)) == {None}


@pytest.mark.parametrize('rows', [
    [[0.1, 0.1, np.nan, 0.2, 1]], [[0.5, 0.1, 0.2, 0.2, 1]], [[0.1, 0.1, 20, 30, 1]],
    [[0.1, 0.1, 0.2, 0.2, 9]], [[0.1, 0.1, 0.2, 0.2]]])
def test_refuses_bad_boxes_and_is_unchanged(rows):
    buffer = filled(50)
    with pytest.raises(InvalidSampleError):
        buffer.add(np.array(rows, np.float32), 150 * MS)
    assert buffer.newest_ns == 50 * MS


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4000), min_size=1, max_size=300), st.integers(-300, 300))
def test_agrees_with_a_search_through_all_messages(stamps, end):
    buffer = filled(*stamps)
    assert buffer.nbytes <= 16 * 8 * 2 * 5 * 4
    end = max(stamps) + end
    kept = sorted({s.item() for s in np.array(buffer.stamps_ns(range(len(buffer._stamps)))) // MS})
    assert set(kept) <= set(stamps) and kept[-1] == max(stamps)
    gaps = sorted(b - a for a, b in zip(kept, kept[1:]))
    reach = max(100, min(200, gaps[len(gaps) // 2])) if gaps else 100
    last = end // 100
    for slot, got in zip(range(last - 7, last + 1), chosen(buffer, end)):
        away = [abs(s - (100 * slot + 50)) for s in kept if s <= end]
        if got is None:
            assert not away or min(away) > reach
        else:
            assert got <= end and abs(got - (100 * slot + 50)) == min(away) <= reach
