"""
Hand and object boxes to the network's box array.

Shape legend: t frames, n boxes of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import re
from typing import Any

from karmma_ros.clip import BOX_HAND, BOX_OBJECT, BOX_PAD, DetectionSpec
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.preprocess.arrays import check_array
import numpy as np
from numpy.typing import NDArray

CATEGORIES: Mapping[str, int] = {'hand': BOX_HAND, 'object': BOX_OBJECT}

# A word of its own: a handbag and a handle are objects.
_HAND = re.compile(r'(?<![a-z])hands?(?![a-z])', re.IGNORECASE)


@dataclass(frozen=True)
class CategoryMap:
    """
    Map a detector's class id to hand or object; it is a string such as `left_hand` or `39`.

    :raises InvalidSettingError: when the mapping names a category that does not exist.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    """Class id to `hand` or `object`. Others are hands if they hold that word, else objects."""

    def __post_init__(self) -> None:
        for class_id, category in self.mapping.items():
            if category not in CATEGORIES:
                raise InvalidSettingError(
                    f'category of {class_id!r}', category, ' or '.join(CATEGORIES))

    def __call__(self, class_id: str) -> int:
        """Return `BOX_HAND` or `BOX_OBJECT`."""
        category = self.mapping.get(class_id)
        if category is None:
            return BOX_HAND if _HAND.search(class_id) else BOX_OBJECT
        return CATEGORIES[category]


def normalise_boxes(
    boxes: NDArray[np.floating[Any]], width: int, height: int,
) -> NDArray[np.float32]:
    """
    Divide boxes `[n, 4]` (x1, y1, x2, y2, pixels) by the image's size and clip to 0..1.

    A box beyond the image's border becomes a line on it.

    :raises InvalidSampleError: for NaN, infinity, a negative size or an image without size.
    """
    pixels = np.asarray(boxes, np.float64)
    _check_rows(pixels, 4)
    if width <= 0 or height <= 0:
        raise InvalidSampleError(
            f'image size for boxes: got {width} x {height}; expected 1 x 1 or more')
    return np.asarray(np.clip(pixels / [width, height, width, height], 0, 1), np.float32)


def detection_input(
    frames: Sequence[NDArray[np.float32]], spec: DetectionSpec,
) -> NDArray[np.float32]:
    """
    Stack the boxes of t frames to float32 `[t, max_boxes, 5]`, padded with zeros.

    A frame is `[n, 5]`: x1, y1, x2, y2 in 0..1 and the category. Its boxes come by
    descending score; hands are put first, surplus boxes are dropped. Padding rows
    (category `BOX_PAD`) are passed over.

    :raises InvalidSampleError: for NaN, infinity, a negative size or an unknown category.
    """
    if len(frames) == 0:
        raise InvalidSampleError('detection frames: got none; expected one or more')
    out = np.zeros((len(frames), spec.max_boxes, 5), np.float32)
    for boxes in frames:
        check_array('boxes', boxes, np.float32, ('n', 5), allow_empty=True)
    check_boxes(np.concatenate(frames))  # once: a check of each frame took longer than all else
    for row, boxes in zip(out, frames):
        chosen = boxes[boxes[:, 4] != BOX_PAD]
        first = np.argsort(chosen[:, 4] != BOX_HAND, kind='stable')[:spec.max_boxes]
        row[:len(first)] = chosen[first]
    return out


def check_boxes(boxes: NDArray[np.float32]) -> None:
    """
    Check the boxes of one frame, `[n, 5]`, for `detection_input`.

    :raises InvalidSampleError: for NaN, infinity, a negative size, coordinates outside of
        0..1 or an unknown category.
    """
    check_array('boxes', boxes, np.float32, ('n', 5), allow_empty=True)
    _check_rows(boxes, 5)
    if (boxes[:, :4] < 0).any() or (boxes[:, :4] > 1).any():
        raise InvalidSampleError(
            f'boxes: got a coordinate of {_furthest(boxes[:, :4])}; expected 0 to 1: '
            'divide by the image size first')
    known = boxes[:, 4] == BOX_PAD
    for category in CATEGORIES.values():
        known |= boxes[:, 4] == category
    if not known.all():
        raise InvalidSampleError(
            f'box category: got {boxes[~known, 4][0]:g}; expected {BOX_HAND} (hand), '
            f'{BOX_OBJECT} (object) or {BOX_PAD} (padding)')


def _check_rows(boxes: NDArray[np.floating[Any]], columns: int) -> None:
    check_array('boxes', boxes, boxes.dtype.type, ('n', columns), allow_empty=True)
    if not np.isfinite(boxes).all():
        raise InvalidSampleError('boxes: got NaN or infinity; expected finite numbers')
    inverted = (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    if inverted.any():
        x1, y1, x2, y2 = boxes[inverted][0, :4]
        raise InvalidSampleError(
            f'boxes: got corners ({x1:g}, {y1:g}), ({x2:g}, {y2:g}), a negative size; '
            'expected x1 <= x2 and y1 <= y2')


def _furthest(values: NDArray[np.float32]) -> str:
    return f'{values.flat[np.argmax(np.abs(values - 0.5))]:g}'
