"""Check the unit of boxes, and the size of the image that they lie in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from karmma_ros.clip import NANOSECONDS
from karmma_ros.modalities.content_check import Finding, Persistence
import numpy as np
from numpy.typing import NDArray

_CORNER = 2
"""Boxes up to this coordinate may be fractions of the image; beyond it they are pixels."""
_UNIT_NS = 600_000_000
"""Found before the modality is available, for a window of two seconds."""
_LEAST_IMAGE = 32
"""In a smaller image boxes near the corner may well be pixels."""
_SPAN_NS, _MOST = 30 * NANOSECONDS, 1000
_CHECK_PERIOD_NS = NANOSECONDS
_LEAST_NS, _LEAST_BOXES = 3 * NANOSECONDS, 20
_OUTSIDE, _BEYOND, _FEW = 0.05, 0.25, 5
"""Fractions of the boxes that lie outside of the image or end beyond it, and the least count."""
_MARGIN = 0.1
"""A detector that does not clip its boxes to the image may exceed it by less than this part."""
_SMALLER, _AT_EDGE = 0.8, 10
_DETECTOR_SIZES = (224, 256, 300, 320, 384, 416, 448, 480, 512, 544, 576, 608, 640, 720, 736, 768,
                   800, 960, 1024, 1280)


@dataclass(frozen=True)
class BoxFrame:
    """How the coordinates of boxes are read."""

    size: tuple[int, int]
    """Width and height of the image that they lie in, in their pixels."""
    normalised: bool = False
    """Whether they are fractions of the image instead of pixels."""
    offset: tuple[float, float] = (0.0, 0.0)
    """Added to x and y, in their unit."""


@dataclass(frozen=True, eq=False)
class _Boxes:
    """The boxes of one message, pixels `[n, 4]`."""

    time_ns: int
    corners: NDArray[np.float64]


class BoxCheck:
    """
    Find boxes in fractions instead of pixels, the other way round, or of another image size.

    Fractions read as pixels are a point in the corner of the image, and boxes of another size lie
    outside of it, or in a part of it.
    """

    def __init__(self) -> None:
        self.unit: Finding | None = None
        """Not usable: fractions read as pixels, or pixels read as fractions."""
        self.size: Finding | None = None
        self._frame: BoxFrame | None = None
        self._restart()

    def update(self, corners: NDArray[np.float64], frame: BoxFrame, now_ns: int) -> None:
        """
        Take the boxes of one message, `[n, 4]` (x1, y1, x2, y2), as the detector sent them.

        :param frame: how they are read.
        """
        if self._frame != frame:
            self._frame, self.unit, self.size = frame, None, None
            self._restart()
        if not len(corners) or not np.isfinite(corners).all():
            return
        self._check_unit(corners, frame, now_ns)
        if self.unit is None and not frame.normalised:
            self._check_size(_Boxes(now_ns, corners + frame.offset * 2), frame)
        else:
            self.size = None

    def _restart(self) -> None:
        self._persistence = Persistence(_UNIT_NS, 5)
        self._recent: deque[_Boxes] = deque(maxlen=_MOST)
        self._checked_ns = 0

    def _check_unit(self, corners: NDArray[np.float64], frame: BoxFrame, now_ns: int) -> None:
        width, height = frame.size
        most = float(np.abs(corners).max())
        # What is left of a box that leaves the image by its corner begins in the corner itself.
        inside = bool((corners[:, :2] > 0).any())
        suspicious = most > _CORNER if frame.normalised else (
            inside and most <= _CORNER and min(width, height) >= _LEAST_IMAGE)
        if not self._persistence.update(suspicious, now_ns):
            self.unit = None
        elif self.unit is None and frame.normalised:
            self.unit = Finding(
                f'boxes reach {most:.0f}, expected fractions of the image in 0..1: set '
                'detections.normalised to false', usable=False)
        elif self.unit is None:
            self.unit = Finding(
                f'all boxes lie within {_CORNER} pixels of the corner of the {width} x {height} '
                'image: they seem to be fractions of the image, expected pixels: set '
                'detections.normalised to true', usable=False)

    def _check_size(self, boxes: _Boxes, frame: BoxFrame) -> None:
        recent = self._recent
        if recent and boxes.time_ns < recent[-1].time_ns:
            recent.clear()
            self._checked_ns = 0
        recent.append(boxes)
        while recent[-1].time_ns - recent[0].time_ns > _SPAN_NS:
            recent.popleft()
        if boxes.time_ns - self._checked_ns < _CHECK_PERIOD_NS:
            return
        self._checked_ns = boxes.time_ns
        corners = np.concatenate([each.corners for each in recent])
        if recent[-1].time_ns - recent[0].time_ns < _LEAST_NS or len(corners) < _LEAST_BOXES:
            return
        text = _exceeding(corners, frame.size, self.size is not None) or _within(
            corners, frame.size)
        if not text:
            self.size = None
        elif self.size is None:
            self.size = Finding(text)


def _exceeding(corners: NDArray[np.float64], size: tuple[int, int], established: bool) -> str:
    """
    Return what is wrong when boxes lie outside of the image; '' otherwise.

    :param established: whether it was so before: half as many keep the finding.
    """
    width, height = size
    outside = ((corners[:, 2:] <= 0) | (corners[:, :2] >= size)).any(axis=1)
    margin = _MARGIN * np.array(size)
    beyond = outside | ((corners[:, 2:] > size + margin) | (corners[:, :2] < -margin)).any(axis=1)
    least = 0.5 if established else 1.0
    for chosen, what, fraction in ((outside, 'lie outside of', _OUTSIDE),
                                   (beyond, 'end beyond', _BEYOND)):
        count = int(np.count_nonzero(chosen))
        if count >= _FEW and count >= least * fraction * len(corners):
            low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
            text = (f'{count} of {len(corners)} boxes {what} the {width} x {height} image '
                    f'(x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f}): set '
                    'detections.image_width and detections.image_height to the size of the '
                    "detector's image")
            return text + (', or detections.offset_x and detections.offset_y'
                           if (low < -margin).any() else '')
    return ''


def _within(corners: NDArray[np.float64], size: tuple[int, int]) -> str:
    """
    Return what is wrong when the edge of a smaller image shows in the boxes; '' otherwise.

    Detectors clip boxes to their image: many boxes then end exactly at the size of a detector's
    input, though they begin at different places, and none ends beyond.
    """
    reach = corners[:, 2:].max(axis=0)
    if (reach > _SMALLER * np.array(size)).any():
        return ''
    for axis in (0, 1):
        at_edge = corners[:, 2 + axis] >= reach[axis] - 0.5
        common = any(abs(reach[axis] - each) <= 1 for each in _DETECTOR_SIZES)
        spread = float(np.std(corners[at_edge, axis]))
        if common and np.count_nonzero(at_edge) >= _AT_EDGE and spread > 0.01 * size[axis]:
            return (f'all boxes lie within {reach[0]:.0f} x {reach[1]:.0f} of the {size[0]} x '
                    f'{size[1]} image and {np.count_nonzero(at_edge)} of {len(corners)} end '
                    'exactly there: set detections.image_width and detections.image_height to the '
                    "size of the detector's image")
    return ''
