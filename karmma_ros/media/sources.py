"""
Sources of recordings: what each gives, and the settings by which files are opened.

Shape legend: t frames, h height, w width, n samples or boxes, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
import math
from typing import Any, Protocol

from karmma_ros.clip import ClipSpec, CropSize
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import is_modality
from karmma_ros.preprocess.resize import crop_unless_cropped
import numpy as np
from numpy.typing import NDArray


class Source(Protocol):
    """
    The recording of one modality; cheap to pickle, and equal to another of the same data.

    One may have a method `remarks`, the peculiarities of a file and how it is read.
    """

    def problem(self) -> str | None:
        """Return why nothing can be read, by a check of the disk; None if it can."""
        ...


class VideoSource(Source, Protocol):
    """Frames of a recording."""

    def frames(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """
        Return the RGB frames at ascending times, `[t, h, w, 3]`, of any size.

        A time after the last frame gives the last one.

        :raises DataError: for a frame that is missing or cannot be read, or when the
            recording ends before the first time.
        """
        ...


class FlowSource(Source, Protocol):
    """Optical flow that was computed before."""

    def flow(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """
        Return flow at ascending times, `[t, h, w, 2]`: u and v, 128 for none.

        A time after the last frame gives the last one.

        :raises DataError: as `VideoSource.frames`.
        """
        ...


class AudioSource(Source, Protocol):
    """Audio of a recording."""

    def samples(self, start_s: float, duration_s: float, rate: int) -> NDArray[np.float32]:
        """
        Return mono audio at `rate` Hz, exactly `[round(duration_s * rate)]`, zeros outside.

        :raises DataError: when it cannot be read, or ends before `start_s`.
        """
        ...


class BoxSource(Source, Protocol):
    """Boxes of hands and objects."""

    def boxes(self, times_s: Sequence[float]) -> list[NDArray[np.float32]]:
        """
        Return one `[n, 5]` for each of the ascending times: x1, y1, x2, y2 in 0..1, category.

        :raises DataError: when they cannot be read.
        """
        ...


class SeriesSource(Source, Protocol):
    """Timed vectors or arrays, such as those of an inertial sensor."""

    def values(
        self, start_s: float, end_s: float,
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """
        Return the ascending times `[n]`, seconds, and values `[n, …]` of an interval.

        The last sample before it and the first one after it are included, so that values at its
        borders can be interpolated.

        :raises DataError: when they cannot be read, or none is in the interval.
        """
        ...


class DepthSource(Source, Protocol):
    """Depth images of a recording."""

    def depth(self, times_s: Sequence[float]) -> NDArray[np.float32]:
        """
        Return the images at ascending times, `[t, h, w]` in metres, NaN without a return.

        A time after the last image gives the last one.

        :raises DataError: as `VideoSource.frames`.
        """
        ...


@dataclass(frozen=True)
class FlowFromVideo:
    """
    Flow that is computed from the frames of the clip, as a robot without a flow topic does.

    Where an equal video is the segment's RGB source, it is decoded only once.
    """

    video: VideoSource

    def problem(self) -> str | None:
        """Return why the video cannot be read; None if it can."""
        return self.video.problem()

    def remarks(self) -> tuple[str, ...]:
        """Return remarks on how the video is read."""
        own = getattr(self.video, 'remarks', None)
        return () if own is None else own()


class SharedFrames:
    """The frames of one window: those that several modalities need are read once."""

    def __init__(self) -> None:
        self._read: list[tuple[Any, NDArray[np.uint8]]] = []

    def cropped(
        self, video: VideoSource, times_s: Sequence[float], size: CropSize,
    ) -> NDArray[np.uint8]:
        """Return RGB frames `[t, h, w, 3]` at ascending times, cropped to (height, width)."""
        wanted = video, list(times_s), size
        for known, frames in self._read:
            if known == wanted:
                return frames
        frames = crop_all(video.frames(times_s), size)
        self._read.append((wanted, frames))
        return frames


def crop_all(frames: NDArray[np.uint8], size: CropSize) -> NDArray[np.uint8]:
    """Resize and crop `[t, h, w, c]` to a height and width; copy nothing of that size."""
    if frames.shape[1:3] == size[:2]:
        return frames
    return np.stack([crop_unless_cropped(frame, size) for frame in frames])


def frame_times(start_s: float, clip: ClipSpec) -> list[float]:
    """
    Return the starts of the `num_frames` equal slots of the window, seconds.

    >>> from karmma_ros.clip import ClipSpec, CropSize
    >>> from karmma_ros.media.sources import frame_times
    >>> frame_times(1.0, ClipSpec(duration=2.0, num_frames=4))
    [1.0, 1.5, 2.0, 2.5]
    """
    return [start_s + i * clip.duration / clip.num_frames for i in range(clip.num_frames)]


@dataclass(frozen=True)
class DepthSettings:
    """How the values of depth images become metres: `scale` · value + `offset`."""

    scale: float = 0.0
    """Metres of a unit; 0: 0.001 of 16 bit values, 1 of floating-point ones. A video has 8 bit
    values, whose unit must be set."""
    offset: float = 0.0
    """Metres added."""
    invalid: float = 0.0
    """Value where the sensor has no return."""
    frames: str = '{:06d}.png'
    """File name of an image, counted from 1, where `depth` is a folder."""

    def __post_init__(self) -> None:
        for name in ('scale', 'offset', 'invalid'):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise InvalidSettingError(f'manifest.depth.{name}', value, 'a finite number')
        _check_pattern('manifest.depth.frames', self.frames)


@dataclass(frozen=True)
class SourceSettings:
    """How the files and folders of recordings are read."""

    frames: str = '{:06d}.jpg'
    """File name of a frame, counted from 1, where `rgb` or `flow` is a folder."""
    frame_rate: float = 30.0
    """Frames a second in those folders."""
    detections_rate: float = 0.0
    """Frames a second in which boxes were detected; 0: from the median time between them."""
    rates: dict[str, float] = field(default_factory=dict)
    """Modality → samples a second of its files without times, as `{imu: 50}`; 0: in an array,
    the first column is the time. Of folders, in place of `frame_rate`."""
    scale: dict[str, list[float]] = field(default_factory=dict)
    """Modality → factors of the channels of its series, one for all or one for each."""
    depth: DepthSettings = field(default_factory=DepthSettings)
    """How the values of depth images become metres."""

    def __post_init__(self) -> None:
        if not self.frame_rate > 0:
            raise InvalidSettingError('manifest.frame_rate', self.frame_rate, 'a number above 0')
        _check_pattern('manifest.frames', self.frames)
        if self.detections_rate < 0:
            raise InvalidSettingError(
                'manifest.detections_rate', self.detections_rate, 'a number from 0 on')
        for name, rate in self.rates.items():
            _check_modality('manifest.rates', name)
            if not 0 <= rate < math.inf:
                raise InvalidSettingError(
                    f'manifest.rates.{name}', rate, 'samples a second, or 0')
        for name, factors in self.scale.items():
            _check_modality('manifest.scale', name)
            if not factors or not all(math.isfinite(each) and each for each in factors):
                raise InvalidSettingError(
                    f'manifest.scale.{name}', factors, 'a factor, or one for each channel')


@dataclass(frozen=True)
class SourceOptions(SourceSettings):
    """How the sources of clips are opened."""

    clip: ClipSpec = field(default_factory=ClipSpec)
    """Frames are cropped to its sizes while they are read."""

    def folder_rate(self, modality: str) -> float:
        """Return the frames a second in the folders of a modality."""
        return self.rates.get(modality) or self.frame_rate


def has_number_field(pattern: str, name: str = '') -> bool:
    """
    Whether a pattern has a field for a number.

    :param name: of the field; empty: it has none, as in `{:06d}.jpg`.
    """
    try:
        one, two = (pattern.format(**{name: n}) if name else pattern.format(n) for n in (1, 2))
    except (LookupError, ValueError):
        return False
    return one != two


def _check_pattern(name: str, pattern: str) -> None:
    if not has_number_field(pattern):
        raise InvalidSettingError(name, pattern, 'a name with a field for the number: {:06d}.jpg')


def _check_modality(name: str, modality: str) -> None:
    if not is_modality(modality):
        raise InvalidSettingError(name, modality, 'names of modalities, such as imu')
