"""
Video files, decoded by OpenCV.

Shape legend: t pictures, h height, w width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any

import cv2
from karmma_ros.data.errors import DataError
from karmma_ros.preprocess.video import resize_and_crop
import numpy as np
from numpy.typing import NDArray

_SHORT_OF_THE_END_S = 1.0
"""Seconds by which a container may overstate its length; what fails earlier is damage."""

_REMEDY = 'see whether a player plays it; else fetch it again'


@dataclass(frozen=True)
class VideoFile:
    """
    A film of whatever container and codec OpenCV reads (mp4, webm, avi): a `VideoSource`.

    Of a time t the picture floor(t · fps) is taken, counted from 0, at the rate that the file
    itself states; a film of changing rate is not for this. Each call seeks once and then
    decodes every picture up to the last one wanted.
    """

    path: Path
    size: tuple[int, int] | None = None
    """Height and width to crop to while reading; None gives whole pictures."""

    def frames(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """Give the RGB pictures `[t, h, w, 3]` of ascending times, as `VideoSource` says."""
        film: Any = cv2.VideoCapture(str(self.path))
        try:
            return self._read(film, times_s)
        finally:
            film.release()

    def problem(self) -> str | None:
        """Say why nothing can be read; None if it can."""
        return None if self.path.is_file() else f'{self.path}: there is no such file'

    def _read(self, film: Any, times_s: Sequence[float]) -> NDArray[np.uint8]:
        fps, count = film.get(cv2.CAP_PROP_FPS), int(film.get(cv2.CAP_PROP_FRAME_COUNT))
        if not film.isOpened() or not 0 < fps < 1e4:
            problem = self.problem()
            raise DataError(self.path, 'there is no such file' if problem else
                            'it cannot be opened as a film', _REMEDY)
        # A time that is a picture's own may lie a rounding error before it.
        wanted = [math.floor(t * fps + 1e-6) for t in times_s]
        if 0 < count <= wanted[0]:
            raise DataError(self.path, f'it ends after {count / fps:.2f} s, before '
                            f'{times_s[0]:.2f} s', _REMEDY)
        if count > 0:
            wanted = [min(number, count - 1) for number in wanted]
        if wanted[0] > 0:
            film.set(cv2.CAP_PROP_POS_FRAMES, wanted[0])
        found, end = self._decode(film, wanted)
        if not found or (end <= wanted[-1] and end < count - _SHORT_OF_THE_END_S * fps):
            raise DataError(self.path, f'it breaks off at picture {end} of {count}', _REMEDY)
        return np.stack([found[min(number, max(found))] for number in wanted])

    def _decode(self, film: Any, wanted: Sequence[int],
                ) -> tuple[dict[int, NDArray[np.uint8]], int]:
        """Give number → picture of ascending numbers, and the number before which it ended."""
        found: dict[int, NDArray[np.uint8]] = {}
        numbers = set(wanted)
        for number in range(wanted[0], wanted[-1] + 1):
            if not film.grab():
                return found, number
            if number in numbers:
                found[number] = self._picture(film)
        return found, wanted[-1] + 1

    def _picture(self, film: Any) -> NDArray[np.uint8]:
        decoded, bgr = film.retrieve()
        if not decoded:
            raise DataError(self.path, 'a picture cannot be decoded', _REMEDY)
        if self.size is not None:
            bgr = resize_and_crop(bgr, *self.size)
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
