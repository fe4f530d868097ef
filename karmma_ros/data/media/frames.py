"""
Numbered pictures, loose in a folder or packed in a tar: RGB frames and released flow.

Sources hold paths and numbers alone, so that they travel to the workers of a loader; what
they must know of a tar is read once in each process.

A JPEG of 456 x 256 costs about 1 ms on one core, half to decode it and half to shrink it to
224 x 224; whether it lies in a folder or a tar makes no difference.

Shape legend: t pictures, h height, w width, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
import math
import os
from pathlib import Path
from typing import Any, Protocol

import cv2
from karmma_ros.data.media.tar import tar_index
from karmma_ros.errors import DataError, InvalidSampleError
from karmma_ros.files import open_data_file, read_data_file
from karmma_ros.preprocess.compressed_image import decode_bounded
from karmma_ros.preprocess.image_headers import is_jpeg_or_png
from karmma_ros.preprocess.resize import resize_and_crop
import numpy as np
from numpy.typing import NDArray

PATTERN = 'frame_{:010d}.jpg'
"""How Epic-Kitchens names its pictures."""

U, V = 'u', 'v'
"""The folders of a flow's horizontal and vertical part."""

MAX_BYTES = 64 << 20
"""Of an encoded image."""

AGAIN = 'fetch or unpack it again'


@dataclass(frozen=True)
class FrameFolder:
    """RGB frames as files in a folder: a `VideoSource`."""

    path: Path
    fps: float
    """Frames a second."""
    pattern: str = PATTERN
    """File name with the place of the number, in the words of `str.format`."""
    first: int = 1
    """The lowest number; a frame's number is max(first, floor(t · fps))."""
    size: tuple[int, int] | None = None
    """Height and width to crop to while reading; None gives whole pictures."""

    def frames(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """Return the RGB pictures `[t, h, w, 3]` of ascending times, as `VideoSource` says."""
        numbers = frame_numbers(times_s, self.fps, first=self.first)
        return read_rgb(self._pictures(), numbers, self.size)

    def problem(self) -> str | None:
        """Say why nothing can be read; None if it can."""
        return _folder_problem(self.path)

    def _pictures(self) -> NumberedImages:
        return ImageFolder(self.path, self.pattern)


class FrameTar(FrameFolder):
    """RGB frames as in `FrameFolder`, in a tar that is not unpacked."""

    def problem(self) -> str | None:
        """Say why nothing can be read; None if it can."""
        return _file_problem(self.path)

    def _pictures(self) -> NumberedImages:
        return ImageTar(self.path, self.pattern)


@dataclass(frozen=True)
class FlowFolder:
    """
    Flow as grey pictures in the folders u and v: a `FlowSource`.

    Of `stride` RGB frames one flow picture was made: its number is that of the RGB frame
    divided by the stride and rounded down, but not below `first`.
    """

    path: Path
    fps: float
    """RGB frames a second."""
    stride: int = 1
    """RGB frames for each flow picture."""
    pattern: str = PATTERN
    """File name with the place of the number, in the words of `str.format`."""
    first: int = 1
    """The lowest number."""
    size: tuple[int, int] | None = None
    """Height and width to crop to while reading; None gives whole pictures."""

    def flow(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """Return the flow pictures `[t, h, w, 2]` of ascending times, as `FlowSource` says."""
        numbers = frame_numbers(times_s, self.fps, self.stride, self.first)
        return read_flow(self._pictures(), numbers, self.size)

    def problem(self) -> str | None:
        """Say why nothing can be read; None if it can."""
        return _folder_problem(self.path / U) or _folder_problem(self.path / V)

    def _pictures(self) -> NumberedImages:
        return ImageFolder(self.path, self.pattern)


class FlowTar(FlowFolder):
    """Flow as in `FlowFolder`, with u/ and v/ in a tar that is not unpacked."""

    def problem(self) -> str | None:
        """Say why nothing can be read; None if it can."""
        return _file_problem(self.path)

    def _pictures(self) -> NumberedImages:
        return ImageTar(self.path, self.pattern)


def frame_numbers(times_s: Sequence[float], fps: float, stride: int = 1, first: int = 1,
                  ) -> list[int]:
    """
    Return the pictures of ascending times by Epic-Kitchens' rule, max(first, floor(t · fps)).

    With `first` 1 that is one picture (1 / fps) earlier than the one on the screen at t; it
    gives the start_frame and stop_frame of the annotations exactly, without any rounding.
    """
    return [max(first, math.floor(t * fps) // stride) for t in times_s]


class NumberedImages(Protocol):
    """Encoded pictures by number, in groups (the RGB frames are the group '')."""

    path: Path

    def read(self, group: str, number: int) -> bytes | None:
        """Return the bytes of a picture; None if it is not there."""
        ...

    def last(self, group: str) -> int:
        """Return the highest number of a group; -1 if it is empty."""
        ...

    def breaks_off(self) -> bool:
        """Whether images are known to have been cut off at the end."""
        ...

    def name(self, group: str, number: int) -> str:
        """Return the name under which a picture is filed, for a message."""
        ...


class ImageFolder:
    """Pictures as files; groups are sub-folders."""

    def __init__(self, path: Path, pattern: str) -> None:
        self.path, self._pattern = path, pattern

    def read(self, group: str, number: int) -> bytes | None:
        try:
            return read_data_file(self.path / self.name(group, number), MAX_BYTES)
        except FileNotFoundError:
            return None

    def last(self, group: str) -> int:
        return _last_in_folder(self.path / group, self._pattern)

    def breaks_off(self) -> bool:
        return False

    def name(self, group: str, number: int) -> str:
        return os.path.join(group, self._pattern.format(number))


class ImageTar:
    """Pictures in a tar; groups are the folders directly above them, whatever lies above."""

    def __init__(self, path: Path, pattern: str) -> None:
        self.path, self._pattern = path, pattern

    def read(self, group: str, number: int) -> bytes | None:
        found = tar_index(self.path, self._pattern).find(group, number)
        if found is None:
            return None
        offset, size = found
        with open_data_file(self.path) as file:
            file.seek(offset)
            return file.read(size)

    def last(self, group: str) -> int:
        return tar_index(self.path, self._pattern).last(group)

    def breaks_off(self) -> bool:
        return tar_index(self.path, self._pattern).breaks_off

    def name(self, group: str, number: int) -> str:
        return os.path.join(group, self._pattern.format(number))


def read_rgb(pictures: NumberedImages, numbers: Sequence[int], size: tuple[int, int] | None,
             ) -> NDArray[np.uint8]:
    """
    Read pictures by ascending numbers: RGB `[t, h, w, 3]`.

    Numbers after the last picture give the last one.

    :raises DataError: for a picture that is missing or broken, or if the first of the
        numbers lies after the last picture.
    """
    return _read_all(pictures, '', numbers, cv2.IMREAD_COLOR, size)


def read_flow(pictures: NumberedImages, numbers: Sequence[int], size: tuple[int, int] | None,
              ) -> NDArray[np.uint8]:
    """
    Read the u and v pictures of ascending numbers: `[t, h, w, 2]`.

    :raises DataError: as `read_rgb`.
    """
    parts = [_read_all(pictures, group, numbers, cv2.IMREAD_GRAYSCALE, size)
             for group in (U, V)]
    if parts[0].shape != parts[1].shape:
        raise DataError(pictures.path, f'the pictures of u and v are {parts[0].shape[1:3]} and '
                        f'{parts[1].shape[1:3]} pixels', AGAIN)
    return np.concatenate(parts, axis=3)


def decode_picture(data: bytes, flags: int) -> NDArray[np.uint8]:
    """
    Decode an image file to `[h, w, c]`, BGR if coloured.

    :raises InvalidSampleError: when it is none, is cut off, or is too costly to decode.
    """
    flat = np.frombuffer(data, np.uint8)
    if is_jpeg_or_png(flat):
        picture: Any = decode_bounded(flat, flags)
    else:
        picture = cv2.imdecode(flat, flags) if data else None
    if picture is None:
        raise InvalidSampleError(f'got {len(data)} bytes; expected an image that OpenCV decodes')
    return np.asarray(picture if picture.ndim == 3 else picture[..., None], np.uint8)


def _read_all(pictures: NumberedImages, group: str, numbers: Sequence[int], flags: int,
              size: tuple[int, int] | None) -> NDArray[np.uint8]:
    out: NDArray[np.uint8] | None = None
    previous = None
    for row, wanted in enumerate(numbers):
        number, data = _present(pictures, group, wanted, numbers[0], previous)
        if data is None:
            assert out is not None
            out[row] = out[row - 1]
            continue
        previous = number
        try:
            picture = decode_picture(data, flags)
        except InvalidSampleError as error:
            raise DataError(pictures.path, f'{pictures.name(group, number)}: {error}',
                            AGAIN) from None
        if size is not None:
            picture = resize_and_crop(picture, *size)
        if flags == cv2.IMREAD_COLOR:
            picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
        if out is None:
            out = np.empty((len(numbers), *picture.shape), np.uint8)
        if picture.shape != out.shape[1:]:
            raise DataError(
                pictures.path, f'{pictures.name(group, number)} has {picture.shape[:2]} pixels '
                f'where those before it have {out.shape[1:3]}', AGAIN)
        out[row] = picture
    assert out is not None
    return out


def _present(pictures: NumberedImages, group: str, number: int, first: int, previous: int | None,
             ) -> tuple[int, bytes | None]:
    """Read a picture, or the last one for a number after it; no bytes if it was read before."""
    if number == previous:
        return number, None
    data = pictures.read(group, number)
    if data is not None:
        return number, data
    if pictures.breaks_off():
        name = pictures.name(group, number)
        raise DataError(pictures.path, f'it breaks off before {name}', AGAIN)
    last = pictures.last(group)
    if not first <= last < number:
        problem = f'{pictures.name(group, number)} is missing'
        raise DataError(pictures.path, f'{problem}; the last is {last}' if last < number
                        else problem, AGAIN)
    return last, None if last == previous else pictures.read(group, last)


@lru_cache(maxsize=256)
def _last_in_folder(folder: Path, pattern: str) -> int:
    before, after = pattern[:pattern.index('{')], pattern[pattern.index('}') + 1:]
    middle = slice(len(before), -len(after) or None)
    try:
        names = os.listdir(folder)
    except OSError:
        return -1
    return max((int(name[middle]) for name in names if name.isascii() and name[middle].isdecimal()
                and name.startswith(before) and name.endswith(after)), default=-1)


def _folder_problem(path: Path) -> str | None:
    if not path.is_dir():
        return f'{path}: there is no such folder'
    with os.scandir(path) as entries:
        return None if next(entries, None) else f'{path}: it is empty'


def _file_problem(path: Path) -> str | None:
    return None if path.is_file() else f'{path}: there is no such file'
