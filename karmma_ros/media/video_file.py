"""
Video files as a source of frames, found by their own times.

Reading 32 frames from h264 of 1280 x 720 with a key frame each second, and cropping them to 224 x
224, takes 0.28 s on one core, by OpenCV 0.36 s; the pixels are the same. Frames of BT.709 and of
full range are converted as they state, which OpenCV does not do.

Frames that ffmpeg extracted from a video are numbered from 1: frame 1 is that of second 0.
Epic-Kitchens counts otherwise (`karmma_ros.media.frames.frame_numbers`).

Shape legend: t frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
import os
from pathlib import Path
from typing import Any, NamedTuple

import cv2
from karmma_ros.clip import CropSize
from karmma_ros.errors import DataError, InvalidSampleError
from karmma_ros.files import file_problem, no_such_file, open_data_file, read_data_file
from karmma_ros.media.frames import decode_image, FlowFolder, FrameFolder, MAX_BYTES
from karmma_ros.media.probe import check_tables, examine, TRUNCATED_S, VideoInfo
from karmma_ros.media.video_reader import PLAYER, VideoReader
from karmma_ros.preprocess.resize import resize_and_crop
import numpy as np
from numpy.typing import NDArray

VIDEO_SUFFIXES = frozenset({
    '.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.ts', '.mts', '.m2ts', '.mpg', '.mpeg',
    '.3gp', '.flv', '.wmv', '.mxf', '.ogv'})
"""What the names of video files end with."""


@contextmanager
def open_video(path: Path) -> Iterator[tuple[VideoReader, VideoInfo]]:
    """
    Open a video file to read its frames by their times, and describe what it holds.

    :raises DataError: when it is missing, cannot be read or has no video that can be decoded.
    """
    try:
        with open_data_file(path) as file:
            status = os.fstat(file.fileno())
            info = _probe(path, (status.st_dev, status.st_ino, status.st_size,
                                 status.st_mtime_ns))
            with VideoReader(path, file) as reader:
                reader.first_pts, reader.offset_s = info.first_pts, info.offset_s
                reader.seekable = info.seekable
                yield reader, info
    except FileNotFoundError:
        raise no_such_file(path) from None


def probe_video(path: Path) -> VideoInfo:
    """
    Read what a video file holds; of a small one every packet, of all the first frame.

    :raises DataError: as `open_video`.
    """
    with open_video(path) as (_, info):
        return info


@dataclass(frozen=True)
class VideoFile:
    """
    A video file of any container and codec that FFmpeg decodes: a `VideoSource`.

    The frame at a time is the one that is shown then, by the frames' own times; before the first
    frame it is the first. Second 0 is where the file begins, audio included. Each call seeks once
    and then decodes every frame up to the last one.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import cv2
    >>> from karmma_ros.media.video_file import VideoFile
    >>> import numpy as np
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, 'short.avi')
    ...     writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    ...     for _ in range(10):
    ...         writer.write(np.zeros((48, 64, 3), np.uint8))
    ...     writer.release()
    ...     VideoFile(path).frames([0.0, 0.5]).shape
    (2, 48, 64, 3)
    """

    path: Path
    size: CropSize | None = None
    """How frames are resized and cropped while reading; None: not at all."""

    def frames(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """Return the RGB frames `[t, h, w, 3]` of ascending times, as `VideoSource` states."""
        with open_video(self.path) as (reader, info):
            frames = list(self._shown(reader, info, times_s))
        shapes = {frame.shape for frame in frames}
        if len(shapes) > 1:
            raise DataError(self.path, f'its frames have different sizes, {sorted(shapes)}',
                            'split it where the size changes')
        return np.stack(frames)

    def problem(self) -> str | None:
        """Return why nothing can be read, as far as the directory shows; None if it can."""
        return file_problem(self.path)

    def remarks(self) -> tuple[str, ...]:
        """Return peculiarities of the file, and how it is read; a `DataError` if it cannot be."""
        return probe_video(self.path).notes

    def _shown(self, reader: VideoReader, info: VideoInfo, times_s: Sequence[float],
               ) -> Iterator[NDArray[np.uint8]]:
        """Yield the frame shown at each time."""
        left, slack_s = list(times_s[::-1]), reader.slack_s
        current, pixels, previous_s = None, None, 0.0
        for second, frame in reader.frames(times_s[0]):
            while current is not None and left and left[-1] + slack_s < second:
                pixels = self._pixels(reader, current) if pixels is None else pixels
                yield pixels
                left.pop()
            if not left:
                return
            current, pixels, previous_s = frame, None, second
        if current is None:
            raise DataError(self.path, 'no frame of it can be decoded', PLAYER)
        self._check_end(reader, info, previous_s + _length_s(reader, info, current), times_s)
        pixels = self._pixels(reader, current) if pixels is None else pixels
        yield from (pixels for _ in left)

    def _check_end(self, reader: VideoReader, info: VideoInfo, end_s: float,
                   times_s: Sequence[float]) -> None:
        """Refuse times after the end of the last frame that was decoded."""
        stated_s = info.truncated_s or info.duration_s
        if stated_s - end_s > TRUNCATED_S and times_s[-1] >= end_s:
            raise DataError(self.path, f'it breaks off after {end_s:.2f} s of {stated_s:.2f} s',
                            PLAYER)
        if times_s[0] + reader.slack_s >= end_s:
            raise DataError(self.path, f'it ends after {end_s:.2f} s, before {times_s[0]:.2f} s',
                            PLAYER)

    def _pixels(self, reader: VideoReader, frame: Any) -> NDArray[np.uint8]:
        pixels = reader.rgb(frame)
        return pixels if self.size is None else np.asarray(
            resize_and_crop(pixels, *self.size), np.uint8)


def _length_s(reader: VideoReader, info: VideoInfo, frame: Any) -> float:
    """Return for how long the last frame is shown."""
    length = float((frame.duration or 0) * reader.tick)
    return length or (1 / info.rate if info.rate else 0.0)


@lru_cache(maxsize=1024)
def _probe(path: Path, version: tuple[int, ...]) -> VideoInfo:
    """Examine a file once in each process, and again when `version` changes."""
    with open_data_file(path) as file:
        check_tables(path, file, version[2])
        with VideoReader(path, file) as reader:
            return examine(reader, version[2])


_ROUNDING = 1e-6
"""Fraction of a frame by which rounding may put the time of a frame before it."""


@dataclass(frozen=True)
class ExtractedFrames:
    """A `VideoSource` over a folder whose frame n is shown from (n - 1) / fps on."""

    folder: FrameFolder

    def frames(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """Return the RGB frames `[t, h, w, 3]` at ascending times, see `VideoSource`."""
        return self.folder.frames(later_times(times_s, self.folder.fps))

    def problem(self) -> str | None:
        """Return why nothing can be read; None if it can."""
        return self.folder.problem()


@dataclass(frozen=True)
class ExtractedFlow:
    """A `FlowSource` over the folders u and v, whose image n is of the time (n - 1) / fps."""

    folder: FlowFolder

    def flow(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """Return the flow `[t, h, w, 2]` at ascending times, see `FlowSource`."""
        return self.folder.flow(later_times(times_s, self.folder.fps))

    def problem(self) -> str | None:
        """Return why nothing can be read; None if it can."""
        return self.folder.problem()


def open_frames(
    path: Path, size: CropSize, pattern: str, fps: float,
) -> VideoFile | ExtractedFrames:
    """
    Open a video file, or a folder of frames that were extracted from one.

    :param size: height and width to crop to while reading.
    :param pattern: file name of a frame in a folder, and how many there are a second.
    """
    if path.is_file() or path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoFile(path, size)
    return ExtractedFrames(FrameFolder(path, fps, pattern, size=size))


class VideoExtent(NamedTuple):
    """Length and size of a video or of a folder of its frames; zeros if unknown."""

    duration_s: float
    width: int
    height: int


def video_extent(path: Path) -> VideoExtent:
    """
    Read length and size of a video, upright; of a small file at the cost of reading it once.

    Of a damaged one, what its header states: its boxes may be used nevertheless.
    """
    try:
        info = probe_video(path)
        return VideoExtent(info.truncated_s or info.duration_s, info.width, info.height)
    except DataError:
        return _stated(path)


def _stated(path: Path) -> VideoExtent:
    try:
        with open_data_file(path) as file:
            check_tables(path, file, path.stat().st_size)
            with VideoReader(path, file) as reader:
                size = reader.stream.codec_context
                return VideoExtent(reader.length_s, size.width, size.height)
    except (DataError, FileNotFoundError):
        return VideoExtent(0.0, 0, 0)


@lru_cache(maxsize=1024)
def folder_extent(path: Path, pattern: str, fps: float) -> VideoExtent:
    """Return the length of a folder of frames, and the size of the first."""
    first = path / pattern.format(1)
    try:
        frame = decode_image(read_data_file(first, MAX_BYTES), cv2.IMREAD_COLOR)
    except (DataError, FileNotFoundError, InvalidSampleError):
        return VideoExtent(0.0, 0, 0)
    count = sum(entry.name.endswith(first.suffix) for entry in os.scandir(path))
    return VideoExtent(count / fps, frame.shape[1], frame.shape[0])


def later_times(times_s: Sequence[float], fps: float) -> list[float]:
    """Move times by one frame: the folder itself gives frame floor(t · fps)."""
    return [time_s + (1 + _ROUNDING) / fps for time_s in times_s]
