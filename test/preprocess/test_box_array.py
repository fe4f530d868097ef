from __future__ import annotations

from karmma_ros.clip import BOX_HAND, BOX_OBJECT, DetectionSpec
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.preprocess.box_array import CategoryMap, detection_input, normalise_boxes
import numpy as np
import pytest

NONE = np.zeros((0, 5), np.float32)


def box(x: float, category: int) -> list[float]:
    return [x, 0.2, x + 0.1, 0.4, category]


def frame(*boxes: list[float]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 5)


@pytest.mark.parametrize(('class_id', 'category'), [
    ('hand', BOX_HAND), ('Left_Hand', BOX_HAND), ('hands 2', BOX_HAND), ('hand1', BOX_HAND),
    ('handbag', BOX_OBJECT), ('pan handle', BOX_OBJECT), ('39', BOX_OBJECT), ('', BOX_OBJECT),
])
def test_a_hand_is_a_word(class_id, category):
    assert CategoryMap()(class_id) == category


def test_mapping_comes_first():
    categories = CategoryMap({'0': 'hand', 'hand': 'object'})
    assert categories('0') == BOX_HAND
    assert categories('hand') == BOX_OBJECT
    assert categories('right hand') == BOX_HAND


def test_mapping_to_no_category_is_refused():
    with pytest.raises(InvalidSettingError, match="category of '0' is 'foot'; expected hand or"):
        CategoryMap({'0': 'foot'})


def test_boxes_are_divided_by_the_size_and_clipped():
    boxes = np.array([[32, 12, 64, 24], [-10, 0, 80, 48], [70, 50, 90, 60]], np.float32)
    np.testing.assert_allclose(
        normalise_boxes(boxes, 64, 48),
        [[0.5, 0.25, 1, 0.5], [0, 0, 1, 1], [1, 1, 1, 1]])
    assert normalise_boxes(NONE[:, :4], 64, 48).shape == (0, 4)


@pytest.mark.parametrize(('boxes', 'size', 'text'), [
    ([[0, 0, np.nan, 1]], (64, 48), 'NaN or infinity'),
    ([[0, 0, np.inf, 1]], (64, 48), 'NaN or infinity'),
    ([[5, 0, 4, 1]], (64, 48), r'corners \(5, 0\), \(4, 1\), a negative size'),
    ([[0, 5, 4, 1]], (64, 48), 'a negative size'),
    ([[0, 0, 4, 1]], (0, 48), 'image size for boxes: got 0 x 48'),
    ([[0, 0, 4, 1]], (64, -1), 'got 64 x -1'),
    ([[0, 0, 4]], (64, 48), r'boxes: got float64 \[1, 3\]; expected float64 \[n, 4\]'),
    ([0, 0, 4, 1], (64, 48), r'boxes: got float64 \[4\]'),
])
def test_refuses_impossible_boxes(boxes, size, text):
    with pytest.raises(InvalidSampleError, match=text):
        normalise_boxes(np.array(boxes, np.float32), *size)


def test_hands_come_first_and_the_rest_is_padding():
    spec = DetectionSpec(max_boxes=4)
    got = detection_input([
        frame(box(0.1, BOX_OBJECT), box(0.2, BOX_HAND), box(0.3, BOX_OBJECT), box(0.4, BOX_HAND)),
        NONE,
        frame(box(0.5, BOX_OBJECT)),
    ], spec)
    assert got.shape == (3, 4, 5) and got.dtype == np.float32
    np.testing.assert_allclose(got[0, :, 0], [0.2, 0.4, 0.1, 0.3])
    np.testing.assert_array_equal(got[0, :, 4], [1, 1, 2, 2])
    np.testing.assert_array_equal(got[1], 0)
    np.testing.assert_array_equal(got[2, 1:], 0)


def test_surplus_boxes_drop_the_last_objects():
    boxes = frame(*(box(i / 10, BOX_OBJECT) for i in range(5)), box(0.7, BOX_HAND))
    got = detection_input([boxes], DetectionSpec(max_boxes=3))
    np.testing.assert_allclose(got[0, :, 0], [0.7, 0.0, 0.1], atol=1e-6)


def test_padding_goes_in_and_out():
    spec = DetectionSpec(max_boxes=3)
    once = detection_input([frame(box(0.1, BOX_OBJECT), box(0.2, BOX_HAND)), NONE], spec)
    np.testing.assert_array_equal(detection_input(list(once), spec), once)


@pytest.mark.parametrize(('boxes', 'text'), [
    (frame([0.1, 0.1, 0.2, 0.2, 7]), r'category: got 7; expected 1 \(hand\), 2 \(object\)'),
    (frame([0.1, 0.1, 0.2, np.nan, 1]), 'NaN'),
    (frame([0.1, 0.1, 0.2, 0.2, np.nan]), 'NaN'),
    (frame([0.3, 0.1, 0.2, 0.2, 1]), 'negative size'),
    (frame([-0.1, 0.1, 0.2, 0.2, 1]), 'coordinate of -0.1; expected 0 to 1'),
    (frame([10, 10, 200, 20, 1]), 'coordinate of 200'),
    (np.zeros((1, 4), np.float32), r'expected float32 \[n, 5\]'),
    (np.zeros((1, 5)), 'got float64'),
])
def test_refuses_boxes_that_are_not_normalised(boxes, text):
    with pytest.raises(InvalidSampleError, match=text):
        detection_input([NONE, boxes], DetectionSpec())


def test_refuses_no_frames():
    with pytest.raises(InvalidSampleError, match='detection frames: got none'):
        detection_input([], DetectionSpec())
