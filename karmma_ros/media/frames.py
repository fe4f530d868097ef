"""
Numbered images, as files in a folder or members of a tar: RGB frames and released flow.

Sources hold paths and numbers alone, so that they are cheap to pickle for the workers of a loader;
the index of a tar is read once in each process.

A JPEG of 456 x 256 costs about 1 ms on one core, half to decode it and half to shrink it to
224 x 224; a tar is as fast as a folder.

Shape legend: t images, h height, w width, c channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
import math
import os
from pathlib import Path
from typing import Any, Protocol

import cv2
from karmma_ros.clip import CropSize
from karmma_ros.errors import DataError, InvalidSampleError
from karmma_ros.files import open_data_file, read_data_file
from karmma_ros.media.tar import tar_index
from karmma_ros.preprocess.compressed_image import decode_bounded
from karmma_ros.preprocess.image_headers import is_jpeg_or_png
from karmma_ros.preprocess.resize import resize_and_crop
import numpy as np
from numpy.typing import NDArray

PATTERN = 'frame_{:010d}.jpg'
"""File names of Epic-Kitchens."""

U, V = 'u', 'v'
"""The folders of a flow's horizontal and vertical part."""

MAX_BYTES = 64 << 20
"""Of an encoded image."""

_REMEDY = 'fetch or unpack it again'


@dataclass(frozen=True)
class FrameFolder:
    """RGB frames as files in a folder: a `VideoSource`."""

    path: Path
    fps: float
    """Frames a second."""
    pattern: str = PATTERN
    """File name with a field for the number, as in `str.format`."""
    first: int = 1
    """The lowest number; a frame's number is max(first, floor(t · fps))."""
    size: CropSize | None = None
    """How frames are resized and cropped while reading; None: not at all."""

    def frames(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """Return the RGB frames `[t, h, w, 3]` at ascending times, see `VideoSource`."""
        numbers = frame_numbers(times_s, self.fps, first=self.first)
        return read_rgb(self._images(), numbers, self.size)

    def problem(self) -> str | None:
        """Return why nothing can be read; None if it can."""
        return _folder_problem(self.path)

    def _images(self) -> NumberedImages:
        return ImageFolder(self.path, self.pattern)


class FrameTar(FrameFolder):
    """RGB frames as in `FrameFolder`, in a tar that is not unpacked."""

    def problem(self) -> str | None:
        """Return why nothing can be read; None if it can."""
        return _file_problem(self.path)

    def _images(self) -> NumberedImages:
        return ImageTar(self.path, self.pattern)


@dataclass(frozen=True)
class FlowFolder:
    """
    Flow as grey images in the folders u and v: a `FlowSource`.

    There is one flow image for `stride` RGB frames: its number is that of the RGB frame divided by
    the stride and rounded down, but not below `first`.
    """

    path: Path
    fps: float
    """RGB frames a second."""
    stride: int = 1
    """RGB frames for each flow image."""
    pattern: str = PATTERN
    """File name with a field for the number, as in `str.format`."""
    first: int = 1
    """The lowest number."""
    size: CropSize | None = None
    """How frames are resized and cropped while reading; None: not at all."""

    def flow(self, times_s: Sequence[float]) -> NDArray[np.uint8]:
        """Return the flow `[t, h, w, 2]` at ascending times, see `FlowSource`."""
        numbers = frame_numbers(times_s, self.fps, self.stride, self.first)
        return read_flow(self._images(), numbers, self.size)

    def problem(self) -> str | None:
        """Return why nothing can be read; None if it can."""
        return _folder_problem(self.path / U) or _folder_problem(self.path / V)

    def _images(self) -> NumberedImages:
        return ImageFolder(self.path, self.pattern)


class FlowTar(FlowFolder):
    """Flow as in `FlowFolder`, with u/ and v/ in a tar that is not unpacked."""

    def problem(self) -> str | None:
        """Return why nothing can be read; None if it can."""
        return _file_problem(self.path)

    def _images(self) -> NumberedImages:
        return ImageTar(self.path, self.pattern)


def frame_numbers(times_s: Sequence[float], fps: float, stride: int = 1, first: int = 1,
                  ) -> list[int]:
    """
    Return the numbers of the images at ascending times: max(first, floor(t · fps)).

    This is the rule of Epic-Kitchens. With `first` 1 it gives the image before the one that is
    shown at t, and exactly the start_frame and stop_frame of the annotations.
    """
    return [max(first, math.floor(t * fps) // stride) for t in times_s]


class NumberedImages(Protocol):
    """Encoded images by number, in groups (the RGB frames are the group '')."""

    path: Path

    def read(self, group: str, number: int) -> bytes | None:
        """Return the bytes of an image; None if it does not exist."""
        ...

    def last(self, group: str) -> int:
        """Return the highest number of a group; -1 if it is empty."""
        ...

    def breaks_off(self) -> bool:
        """Whether images are known to be missing at the end."""
        ...

    def name(self, group: str, number: int) -> str:
        """Return the file name of an image, for a message."""
        ...


class ImageFolder:
    """Images as files; groups are sub-folders."""

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
    """Images in a tar; their groups are the folders directly above them."""

    def __init__(self, path: Path, pattern: str) -> None:
        self.path, self._pattern = path, pattern

    def read(self, group: str, number: int) -> bytes | None:
        position = tar_index(self.path, self._pattern).find(group, number)
        if position is None:
            return None
        offset, size = position
        with open_data_file(self.path) as file:
            file.seek(offset)
            return file.read(size)

    def last(self, group: str) -> int:
        return tar_index(self.path, self._pattern).last(group)

    def breaks_off(self) -> bool:
        return tar_index(self.path, self._pattern).breaks_off

    def name(self, group: str, number: int) -> str:
        return os.path.join(group, self._pattern.format(number))


def read_rgb(images: NumberedImages, numbers: Sequence[int], size: CropSize | None,
             ) -> NDArray[np.uint8]:
    """
    Read images by ascending numbers: RGB `[t, h, w, 3]`.

    Numbers after the last image give the last one.

    :raises DataError: for an image that is missing or damaged, or when the first number is above
        that of the last image.
    """
    return _read_all(images, '', numbers, cv2.IMREAD_COLOR, size)


def read_flow(images: NumberedImages, numbers: Sequence[int], size: CropSize | None,
              ) -> NDArray[np.uint8]:
    """
    Read the u and v images of ascending numbers: `[t, h, w, 2]`.

    :raises DataError: as `read_rgb`.
    """
    parts = [_read_all(images, group, numbers, cv2.IMREAD_GRAYSCALE, size)
             for group in (U, V)]
    if parts[0].shape != parts[1].shape:
        raise DataError(images.path, f'the images of u and v are {parts[0].shape[1:3]} and '
                        f'{parts[1].shape[1:3]} pixels', _REMEDY)
    return np.concatenate(parts, axis=3)


def decode_image(data: bytes, flags: int) -> NDArray[np.uint8]:
    """
    Decode an image file to `[h, w, c]`, BGR if coloured.

    :raises InvalidSampleError: when it is no image, is truncated, or is too costly to decode.
    """
    flat = np.frombuffer(data, np.uint8)
    if is_jpeg_or_png(flat):
        image: Any = decode_bounded(flat, flags)
    else:
        image = cv2.imdecode(flat, flags) if data else None
    if image is None:
        raise InvalidSampleError(f'got {len(data)} bytes; expected an image that OpenCV decodes')
    return np.asarray(image if image.ndim == 3 else image[..., None], np.uint8)


def _read_all(images: NumberedImages, group: str, numbers: Sequence[int], flags: int,
              size: CropSize | None) -> NDArray[np.uint8]:
    def decode(data: bytes) -> NDArray[np.uint8]:
        image = decode_image(data, flags)
        if size is not None:
            image = resize_and_crop(image, *size)
        if flags == cv2.IMREAD_COLOR:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        return image

    return read_numbered(images, group, numbers, decode)


def read_numbered(images: NumberedImages, group: str, numbers: Sequence[int],
                  decode: Callable[[bytes], NDArray[Any]]) -> NDArray[Any]:
    """
    Read images of a group by ascending numbers: `[t, …]`.

    :param decode: from the bytes of a file to an image.
    :raises DataError: as `read_rgb`, and where `decode` raises an `InvalidSampleError`.
    """
    out: NDArray[Any] | None = None
    previous = None
    for row, wanted in enumerate(numbers):
        number, data = _present(images, group, wanted, numbers[0], previous)
        if data is None:
            assert out is not None
            out[row] = out[row - 1]
            continue
        previous = number
        try:
            image = decode(data)
        except InvalidSampleError as error:
            raise DataError(images.path, f'{images.name(group, number)}: {error}',
                            _REMEDY) from None
        if out is None:
            out = np.empty((len(numbers), *image.shape), image.dtype)
        if image.shape != out.shape[1:]:
            raise DataError(
                images.path, f'{images.name(group, number)} has {image.shape[:2]} pixels '
                f'where those before it have {out.shape[1:3]}', _REMEDY)
        out[row] = image
    assert out is not None
    return out


def _present(images: NumberedImages, group: str, number: int, first: int, previous: int | None,
             ) -> tuple[int, bytes | None]:
    """Read an image, or the last one for a number after it; no bytes if it was read before."""
    if number == previous:
        return number, None
    data = images.read(group, number)
    if data is not None:
        return number, data
    if images.breaks_off():
        name = images.name(group, number)
        raise DataError(images.path, f'it breaks off before {name}', _REMEDY)
    last = images.last(group)
    if not first <= last < number:
        problem = f'{images.name(group, number)} is missing'
        raise DataError(images.path, f'{problem}; the last is {last}' if last < number
                        else problem, _REMEDY)
    return last, None if last == previous else images.read(group, last)


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
