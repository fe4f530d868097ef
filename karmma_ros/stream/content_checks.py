"""
Content checks: find messages that decode without an error, and hold other data than expected.

Each check evaluates the messages of some seconds, never one message, and keeps its finding until
there is evidence against it. The same checks run live and in the replay of a bag.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.modality import Modality
from karmma_ros.preprocess.image import WIDE
from karmma_ros.stream.audio_rate import AudioFormat, AudioRateCheck
from karmma_ros.stream.availability import Finding
from karmma_ros.stream.sensor_stream import SensorStream
import numpy as np
from numpy.typing import NDArray


class Persistence:
    """Whether a condition holds for all messages of some time, or no longer does."""

    def __init__(self, least_ns: int, least_messages: int, least_against: int = 3) -> None:
        """
        Start with the condition not established.

        :param least_ns: it must have held for this long,
        :param least_messages: and for so many messages.
        :param least_against: it no longer holds after so many messages in a row.
        """
        self._least = least_ns, least_messages
        self._least_against = least_against
        self._since_ns: int | None = None
        self._messages = self._against = 0
        self.established = False

    def update(self, holds: bool, now_ns: int) -> bool:
        """Take a message received now; return whether the condition is established."""
        if not holds:
            self._since_ns, self._messages = None, 0
            self._against += 1
            self.established = self.established and self._against < self._least_against
            return self.established
        if self._since_ns is None or now_ns < self._since_ns:
            self._since_ns, self._messages = now_ns, 0
        self._messages += 1
        self._against = 0
        least_ns, least_messages = self._least
        if now_ns - self._since_ns >= least_ns and self._messages >= least_messages:
            self.established = True
        return self.established


_DARK = 16
"""Of 256: a sixteenth of the range."""
_USUAL_BITS = (8, 10, 12, 14, 16)
_MAY_BE_DEPTH = ('mono16', '16UC1')
_SECONDS, _MESSAGES = 3 * NANOSECONDS, 5


class ValueRangeCheck:
    """
    Find images of 16 bit channels whose values use fewer bits than that, or more than `rgb.bits`.

    Cameras send 10 or 12 bit values in 16 bit; taken for 16 bit they are nearly black.
    """

    def __init__(self) -> None:
        self.finding: Finding | None = None
        self._bits = WIDE
        self._value, self._encoding = 0, ''
        self._restart()

    def update(
        self, image: NDArray[np.uint8], bits: int, largest: Callable[[], tuple[int, str]],
        now_ns: int,
    ) -> None:
        """
        Take an image of 16 bit channels as it was decoded, RGB `[h, w, 3]`.

        :param bits: significant bits that it was decoded with.
        :param largest: gives the largest value of its data and its encoding. It is called for
            images that are suspicious only.
        """
        if bits != self._bits:
            self._bits, self.finding = bits, None
            self._restart()
        brightest = int(image.max())
        suspicious = brightest < _DARK if bits == WIDE else brightest == 255
        if suspicious and self.finding is None:
            value, self._encoding = largest()
            suspicious = value > 0 if bits == WIDE else value >= 1 << bits
            self._value = max(self._value, value)
        if not suspicious:
            self._value = 0
        if not self._persistence.update(suspicious, now_ns):
            self.finding = None
        elif self.finding is None:
            self.finding = Finding(self._text())

    def _restart(self) -> None:
        self._persistence = Persistence(_SECONDS, _MESSAGES)
        self._value, self._encoding = 0, ''

    def _text(self) -> str:
        bits = next(each for each in _USUAL_BITS if self._value < 1 << each)
        most = (1 << self._bits) - 1
        if self._bits < WIDE:
            return (f'largest value {self._value} in {self._encoding} images, expected up to '
                    f'{most} with rgb.bits {self._bits}: set rgb.bits ({bits})')
        depth = (', or remap image if this topic is depth' if self._encoding in _MAY_BE_DEPTH
                 else '')
        return (f'images are nearly black: largest value {self._value} of {most} '
                f'({self._encoding}); the camera probably sends {bits} bit values: set rgb.bits '
                f'({bits}){depth}')


class FlowCheck:
    """Find flow of another unit: movements that are larger than the image."""

    def __init__(self) -> None:
        self.finding: Finding | None = None
        self._persistence = Persistence(NANOSECONDS, _MESSAGES)

    def update(self, flow: NDArray[np.float32], now_ns: int) -> None:
        """Take displacements in pixels, `[h, w, 2]`."""
        mean = float(np.abs(flow).mean())
        if not self._persistence.update(mean > max(flow.shape[:2]), now_ns):
            self.finding = None
        elif self.finding is None:
            self.finding = Finding(
                f'flow is {mean / flow.shape[1]:.1f} times the width of the image on average, '
                'expected pixels from the frame before to this one: have its publisher send '
                'pixels per frame', usable=False)


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


class ContentChecks:
    """The checks of all inputs; a stream is notified of each change of a finding."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        """
        Start without findings.

        :param lock: guards the stream.
        """
        self._lock = lock
        self._stream: SensorStream | None = None
        self._known: dict[tuple[Modality, str], Finding] = {}
        self._reset()

    def feed(self, stream: SensorStream) -> None:
        """Notify another stream from now on, beginning with what is known."""
        self._stream = stream
        for (source, check), finding in self._known.items():
            with self._lock:
                stream.set_finding(source, check, finding)

    def reset(self) -> None:
        """Withdraw all findings and start anew."""
        self._reset()
        for source, check in list(self._known):
            self._report(source, check, None)

    def audio(
        self, samples: int, audio_format: AudioFormat, stamp_ns: int, now_ns: int,
    ) -> None:
        """Check the rate of audio; see `AudioRateCheck.update`."""
        self._audio_rate.update(samples, audio_format, stamp_ns, now_ns)
        self._report(Modality.AUDIO, 'rate', self._audio_rate.finding)

    def boxes(self, corners: NDArray[np.float64], frame: BoxFrame, now_ns: int) -> None:
        """Check the unit of boxes; see `BoxCheck.update`."""
        self._boxes.update(corners, frame, now_ns)
        self._report(Modality.DETECTIONS, 'unit', self._boxes.unit)
        self._report(Modality.DETECTIONS, 'size', self._boxes.size)

    def image(
        self, image: NDArray[np.uint8], bits: int, largest: Callable[[], tuple[int, str]],
        now_ns: int,
    ) -> None:
        """Check the range of an image's values; see `ValueRangeCheck.update`."""
        self._range.update(image, bits, largest, now_ns)
        self._report(Modality.RGB, 'range', self._range.finding)

    def flow(self, flow: NDArray[np.float32], now_ns: int) -> None:
        """Check the unit of flow; see `FlowCheck.update`."""
        self._flow.update(flow, now_ns)
        self._report(Modality.FLOW, 'unit', self._flow.finding)

    def _reset(self) -> None:
        self._audio_rate, self._boxes = AudioRateCheck(), BoxCheck()
        self._range, self._flow = ValueRangeCheck(), FlowCheck()

    def _report(self, source: Modality, check: str, finding: Finding | None) -> None:
        if self._known.get((source, check)) is finding:
            return
        if finding is None:
            del self._known[source, check]
        else:
            self._known[source, check] = finding
        if self._stream is not None:
            with self._lock:
                self._stream.set_finding(source, check, finding)
