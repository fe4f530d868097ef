"""
Recorded depth: a grey video, numbered PNGs of 16 bits, or an array.

Shape legend: t images, h height, w width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
import math
from pathlib import Path
from typing import Any

from karmma_ros.errors import DataError
from karmma_ros.media.frames import frame_numbers, FrameFolder, ImageFolder, read_numbered
from karmma_ros.media.series_file import map_array
from karmma_ros.media.sources import DepthSettings, SourceOptions
from karmma_ros.media.video_file import later_times, VIDEO_SUFFIXES, VideoFile
from karmma_ros.media.video_reader import VideoReader
from karmma_ros.preprocess.compressed_image import decode_depth_png
import numpy as np
from numpy.typing import NDArray

_MILLIMETRE = 0.001


@dataclass(frozen=True)
class DepthFile(ABC):
    """Depth images of any kind: a `DepthSource`."""

    path: Path
    settings: DepthSettings = field(default_factory=DepthSettings)

    def depth(self, times_s: Sequence[float]) -> NDArray[np.float32]:
        """Return `[t, h, w]` in metres, NaN without a return, see `DepthSource`."""
        values = self.images(times_s)
        scale = self.settings.scale
        if not scale:
            if values.dtype == np.uint8:
                raise DataError(self.path, 'its values have 8 bits; expected a setting that makes '
                                'them metres', 'set manifest.depth.scale')
            scale = _MILLIMETRE if values.dtype.kind == 'u' else 1.0
        if values.dtype == np.uint8:  # a table of its 256 values costs a sixth
            every: NDArray[np.float32] = self._metres(np.arange(256, dtype=np.uint8), scale)
            return every[values]
        return self._metres(values, scale)

    def _metres(self, values: NDArray[Any], scale: float) -> NDArray[np.float32]:
        metres = values.astype(np.float32) * np.float32(scale) + np.float32(self.settings.offset)
        metres[(values == self.settings.invalid) | ~np.isfinite(metres)] = np.nan
        return metres

    @abstractmethod
    def images(self, times_s: Sequence[float]) -> NDArray[Any]:
        """Return the images as stored, `[t, h, w]`, at ascending times."""

    @abstractmethod
    def problem(self) -> str | None:
        """Return why nothing can be read, by a check of the disk; None if it can."""


@dataclass(frozen=True)
class DepthVideo(DepthFile):
    """A video whose brightness is the depth, of 8 or 16 bits; colours do not count."""

    def images(self, times_s: Sequence[float]) -> NDArray[Any]:
        """Return the brightness, from 0 to the largest value, of the frames at the times."""
        return _GreyVideo(self.path).frames(times_s)

    def problem(self) -> str | None:
        """Return why nothing can be read, as far as the directory shows; None if it can."""
        return _GreyVideo(self.path).problem()

    def remarks(self) -> tuple[str, ...]:
        """Return peculiarities of the file, and how it is read."""
        return _GreyVideo(self.path).remarks()


class _GreyVideo(VideoFile):
    def _pixels(self, reader: VideoReader, frame: Any) -> NDArray[Any]:
        return reader.grey(frame)


@dataclass(frozen=True)
class DepthFolder(DepthFile):
    """A folder of grey PNGs of 16 bits; image n is shown from (n - 1) / fps on."""

    fps: float = 30.0

    def images(self, times_s: Sequence[float]) -> NDArray[Any]:
        """Return the images at the times, uint16."""
        return read_numbered(
            ImageFolder(self.path, self.settings.frames), '',
            frame_numbers(later_times(times_s, self.fps), self.fps), _decode)

    def problem(self) -> str | None:
        """Return why nothing can be read; None if it can."""
        return FrameFolder(self.path, self.fps).problem()


def _decode(data: bytes) -> NDArray[np.uint16]:
    return decode_depth_png(np.frombuffer(data, np.uint8))


@dataclass(frozen=True)
class DepthArray(DepthFile):
    """
    An array `[n, h, w]` in a `.npy` file; image n, from 0, is shown from n / fps on.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from karmma_ros.media.depth_video import DepthArray
    >>> import numpy as np
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, 'depth.npy')
    ...     np.save(path, np.array([[[0, 1500]], [[0, 2000]]], np.uint16))
    ...     DepthArray(path, fps=2.0).depth([0.0, 0.5]).round(3).tolist()
    [[[nan, 1.5]], [[nan, 2.0]]]
    """

    fps: float = 30.0

    def images(self, times_s: Sequence[float]) -> NDArray[Any]:
        """Return the images at the times, as they are stored."""
        stored = self._mapped()
        first = math.floor(times_s[0] * self.fps)
        if first >= len(stored):
            raise DataError(self.path, f'it ends after {len(stored) / self.fps:.2f} s, before '
                            f'{times_s[0]:.2f} s', 'correct the segment')
        return np.stack([stored[min(len(stored) - 1, math.floor(t * self.fps + 1e-6))]
                         for t in times_s])

    def problem(self) -> str | None:
        """Return why nothing can be read, as far as its first bytes show; None if it can."""
        try:
            self._mapped()
        except DataError as error:
            return f'{self.path}: {error.problem}: {error.remedy}'
        return None

    def _mapped(self) -> NDArray[Any]:
        stored = map_array(self.path)
        if stored.ndim != 3 or stored.dtype.kind == 'i':
            raise DataError(
                self.path, f'it holds {stored.dtype} {list(stored.shape)}; expected uint16 '
                '(millimetres) or float32 (metres) [n, h, w]', 'store it anew: numpy.save')
        return stored


def open_depth(path: Path, modality: str, options: SourceOptions) -> DepthFile:
    """
    Open recorded depth.

    :raises DataError: for a video without a unit, and an array whose rate is not set.
    """
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        if not options.depth.scale:
            raise DataError(path, 'expected the unit of its values',
                            'set manifest.depth.scale, the metres of one unit')
        return DepthVideo(path, options.depth)
    if suffix != '.npy':
        return DepthFolder(path, options.depth, options.folder_rate(modality))
    rate = options.rates.get(modality)
    if not rate:
        raise DataError(path, 'expected the images in a second',
                        f'set manifest.rates.{modality}')
    return DepthArray(path, options.depth, rate)
