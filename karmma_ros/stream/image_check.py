"""Whether the values of images and of flow use the range that their encoding states."""

from __future__ import annotations

from collections.abc import Callable

from karmma_ros.clip import NANOSECONDS
from karmma_ros.preprocess.image import WIDE
from karmma_ros.stream.availability import Finding
from karmma_ros.stream.persistence import Persistence
import numpy as np
from numpy.typing import NDArray

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

    def note(
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
        if not self._persistence.note(suspicious, now_ns):
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

    def note(self, flow: NDArray[np.float32], now_ns: int) -> None:
        """Take displacements in pixels, `[h, w, 2]`."""
        mean = float(np.abs(flow).mean())
        if not self._persistence.note(mean > max(flow.shape[:2]), now_ns):
            self.finding = None
        elif self.finding is None:
            self.finding = Finding(
                f'flow is {mean / flow.shape[1]:.1f} times the width of the image on average, '
                'expected pixels from the frame before to this one: have its publisher send '
                'pixels per frame', usable=False)
