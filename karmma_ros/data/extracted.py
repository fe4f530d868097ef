"""
Pictures that were taken out of a film, as ffmpeg does: picture 1 is that of second 0.

Epic-Kitchens counts otherwise (`karmma_ros.data.media.frames.frame_numbers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
import os
from pathlib import Path
from typing import NamedTuple

import cv2
from karmma_ros.data.media import FlowFolder, FrameFolder
from karmma_ros.data.media.frames import decode_picture, MAX_BYTES
from karmma_ros.data.media.mp4 import check_tables
from karmma_ros.data.media.video import probe_video
from karmma_ros.data.media.video_reader import VideoReader
from karmma_ros.errors import InvalidSampleError
from karmma_ros.errors_data import DataError
from karmma_ros.files import open_regular, read_regular
import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-6
"""Share of a frame by which a time that is a picture's own may lie before it."""


@dataclass(frozen=True)
class ExtractedFrames:
    """A `VideoSource` over a folder whose picture n is shown from (n - 1) / fps on."""

    folder: FrameFolder

    def frames(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """Give the RGB pictures `[t, h, w, 3]` of ascending times, as `VideoSource` says."""
        return self.folder.frames(_later(times_s, self.folder.fps))

    def problem(self) -> str | None:
        """Say why nothing can be read; None if it can."""
        return self.folder.problem()


@dataclass(frozen=True)
class ExtractedFlow:
    """A `FlowSource` over the folders u and v, whose picture n is of the time (n - 1) / fps."""

    folder: FlowFolder

    def flow(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """Give the flow pictures `[t, h, w, 2]` of ascending times, as `FlowSource` says."""
        return self.folder.flow(_later(times_s, self.folder.fps))

    def problem(self) -> str | None:
        """Say why nothing can be read; None if it can."""
        return self.folder.problem()


class Look(NamedTuple):
    """What a film or a folder of pictures says of itself; zeros if it says nothing."""

    duration_s: float
    width: int
    height: int


def look_at_film(path: Path) -> Look:
    """
    Read length and size of a video, upright; of a small file at the cost of reading it once.

    Of one that is damaged, what its header states: its boxes may be used all the same.
    """
    try:
        info = probe_video(path)
        return Look(info.cut_s or info.duration_s, info.width, info.height)
    except DataError:
        return _stated(path)


def _stated(path: Path) -> Look:
    try:
        with open_regular(path) as file:
            check_tables(path, file, path.stat().st_size)
            with VideoReader(path, file) as reader:
                size = reader.stream.codec_context
                return Look(reader.length_s, size.width, size.height)
    except (DataError, FileNotFoundError):
        return Look(0.0, 0, 0)


@lru_cache(maxsize=1024)
def look_at_folder(path: Path, pattern: str, fps: float) -> Look:
    """Count the pictures of a folder and measure the first."""
    first = path / pattern.format(1)
    try:
        picture = decode_picture(read_regular(first, MAX_BYTES), cv2.IMREAD_COLOR)
    except (DataError, FileNotFoundError, InvalidSampleError):
        return Look(0.0, 0, 0)
    count = sum(entry.name.endswith(first.suffix) for entry in os.scandir(path))
    return Look(count / fps, picture.shape[1], picture.shape[0])


def fills_in(pattern: str, name: str = '') -> bool:
    """
    Tell whether a number can be filled into a pattern, and makes a difference.

    :param name: of the place for the number; empty: it has none, as in `{:06d}.jpg`.
    """
    try:
        one, two = (pattern.format(**{name: n}) if name else pattern.format(n) for n in (1, 2))
    except (LookupError, ValueError):
        return False
    return one != two


def _later(times_s: Sequence[float], fps: float) -> list[float]:
    """Move times by one picture, for the folder itself gives picture floor(t · fps)."""
    return [time_s + (1 + _ROUNDING) / fps for time_s in times_s]
