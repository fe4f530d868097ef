"""
The raw bytes of a `sensor_msgs/Image` to an RGB image.

cv_bridge is not used: it silently shears the image when the row padding is not a multiple of the
pixel's size, it copies the full frame before it can be resized, and it is not installed
everywhere. OpenCV, which it calls, is.

Shape legend: h height, w width, c channels, r rows of b bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
from karmma_ros.clip import CropSize
from karmma_ros.errors import InvalidSampleError, printable
from karmma_ros.preprocess.resize import resize_and_crop
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

WIDE = 16
"""Bits of a value of the encodings with more than eight."""

# Luma and both chromas, 16 to 235 and 16 to 240 (BT.601), as OpenCV takes the other YUVs.
_YUV_TO_RGB = np.array([[1.164, 0, 1.596], [1.164, -0.391, -0.813], [1.164, 2.018, 0]])
_YUV_ZERO = np.array([16, 128, 128])
_YUV_MATRIX = np.column_stack([_YUV_TO_RGB, -_YUV_TO_RGB @ _YUV_ZERO])


@dataclass(frozen=True)
class _Layout:
    """How an encoding lies in memory, and how it becomes RGB."""

    to_rgb: Callable[[Bytes, CropSize | None], Bytes]
    """Rows of bytes `[r, b]` to RGB `[h, w, 3]`, at the size given."""
    pixel: int = 1
    """Bytes a pixel takes in a row, which are what `step` counts."""
    half_rows: int = 2
    """Rows of bytes for two rows of pixels: more where planes follow each other."""
    even: tuple[bool, bool] = (False, False)
    """Whether height and width must be even."""


def decode_image(
    data: Any,
    *,
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool = False,
    size: CropSize | None = None,
    bits: int = WIDE,
) -> Bytes:
    """
    Decode a raw image to RGB uint8 `[h, w, 3]`, in memory of its own.

    `data` is any bytes-like object or a uint8 array and is read in place. With `size` the
    image is resized and centre-cropped first and its channels are swapped afterwards, where
    possible, so that the expensive step handles the small image. Of 16-bit channels the high
    byte is kept, or with fewer significant `bits` the highest eight of those: a camera may send
    values up to 1023, 10 bits, in 16.

    :raises InvalidSampleError: for an unknown encoding, an empty image, a step shorter
        than a row, or a number of bytes other than the encoding has.
    """
    layout = _layout(encoding, bool(is_bigendian))
    flat = flat_bytes(data)
    check_layout(encoding, height, width, step, layout.pixel, layout.half_rows, flat.size)
    if (layout.even[0] and height % 2) or (layout.even[1] and width % 2):
        raise InvalidSampleError(
            f'image size: got {width} x {height}; expected even numbers, for '
            f'{encoding} shares its colours among neighbours')
    rows: Bytes = np.ndarray(
        (height * layout.half_rows // 2, width * layout.pixel), np.uint8, flat,
        strides=(step, 1))
    if is_wide(encoding) and bits < WIDE:
        narrow = narrow_values(_values(rows, is_bigendian), bits)
        return _layout(encoding.replace('16', '8'), False).to_rgb(narrow, size)
    return layout.to_rgb(rows, size)


def is_wide(encoding: str) -> bool:
    """Whether the channels of an encoding have 16 bits, of which fewer may be significant."""
    return '16' in encoding


def narrow_values(values: NDArray[np.uint16], bits: int) -> Bytes:
    """Return the highest eight of so many significant bits; larger values become 255."""
    return np.asarray(np.minimum(values >> (bits - 8), 255), np.uint8)


def largest_value(
    data: Any, *, encoding: str, height: int, width: int, step: int, is_bigendian: bool = False,
) -> int:
    """Return the largest value of an image of 16 bit channels that `decode_image` takes."""
    pixel = _layout(encoding, bool(is_bigendian)).pixel
    rows: Bytes = np.ndarray(
        (height, width * pixel), np.uint8, flat_bytes(data), strides=(step, 1))
    values = _values(rows, is_bigendian)
    if pixel == 8:  # opacity is not a colour
        values = values.reshape(height, width, 4)[..., :3]
    return int(values.max())


def _values(rows: Bytes, is_bigendian: bool) -> NDArray[np.uint16]:
    return rows.view('>u2' if is_bigendian else '<u2')


def flat_bytes(data: Any) -> Bytes:
    """
    View a message's data as uint8 `[n]`, without a copy.

    :raises InvalidSampleError: for anything but bytes.
    """
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8:
            raise InvalidSampleError(f'image data: got {data.dtype}; expected uint8')
        return data.reshape(-1)
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError) as error:
        # numpy also refuses an empty buffer here, for which `check_layout` has a better error.
        if isinstance(data, (bytes, bytearray)) or getattr(data, 'typecode', '') == 'B':
            return np.empty(0, np.uint8)
        raise InvalidSampleError(
            f'image data: got a {type(data).__name__}; expected bytes or a uint8 array'
        ) from error


def check_layout(
    encoding: str, height: int, width: int, step: int, pixel: int, half_rows: int,
    num_bytes: int,
) -> None:
    """
    Check the fields of an image for consistency; see `_Layout`.

    :raises InvalidSampleError: naming the field that does not fit.
    """
    if height <= 0 or width <= 0:
        raise InvalidSampleError(f'image size: got {width} x {height}; expected 1 x 1 or more')
    row, rows = width * pixel, height * half_rows // 2
    if step < row:
        raise InvalidSampleError(
            f'image step: got {step}; expected {row} or more bytes a row '
            f'({width} pixels of {encoding})')
    if num_bytes != step * rows:
        planes = '' if half_rows == 2 else f' x {half_rows / 2:g} for {encoding}'
        raise InvalidSampleError(
            f'image data: got {num_bytes} bytes; expected {step * rows} '
            f'(step {step} x height {height}{planes})')


def _interleaved(
    rows: Bytes, size: CropSize | None, *, channels: int, code: int | None, high: int | None,
) -> Bytes:
    """Read pixels of channels of one byte, or of two of which one is the high one."""
    size_of = 1 if high is None else 2
    view: Bytes = rows.reshape(len(rows), -1, channels, size_of)[..., high or 0]
    image = view if size is None else resize_and_crop(view, *size)
    if code is None:
        return np.array(image, np.uint8, order='C')
    return _convert(image, code)


def _mosaic(rows: Bytes, size: CropSize | None, *, code: int, high: int | None) -> Bytes:
    """Read a Bayer mosaic; its neighbours must meet before it may shrink."""
    if min(len(rows), rows.shape[1] // (1 if high is None else 2)) < 3:
        raise InvalidSampleError('image size: a Bayer mosaic may have 3 x 3 pixels or more')
    return _fit(_convert(rows if high is None else rows[:, high::2], code), size)


def _packed_yuv(rows: Bytes, size: CropSize | None, *, code: int) -> Bytes:
    return _fit(_convert(rows.reshape(len(rows), -1, 2), code), size)


def _planar_yuv(rows: Bytes, size: CropSize | None, *, code: int) -> Bytes:
    return _fit(_convert(rows, code), size)


def _full_yuv(rows: Bytes, size: CropSize | None) -> Bytes:
    """Read NV24: a plane of luma, then one of chroma whose rows are twice as long."""
    height = len(rows) // 3
    chroma = np.concatenate([rows[height::2], rows[height + 1::2]], 1)
    view = np.dstack([rows[:height], chroma.reshape(height, -1, 2)])
    image = view if size is None else resize_and_crop(view, *size)
    return np.asarray(cv2.transform(image, _YUV_MATRIX), np.uint8)


def _convert(image: Bytes, code: int) -> Bytes:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), code), np.uint8)


def _fit(image: Bytes, size: CropSize | None) -> Bytes:
    return image if size is None else resize_and_crop(image, *size)


_COLOURS: dict[str, tuple[int, int | None]] = {
    'rgb': (3, None),
    'bgr': (3, cv2.COLOR_BGR2RGB),
    'rgba': (4, cv2.COLOR_RGBA2RGB),
    'bgra': (4, cv2.COLOR_BGRA2RGB),
    'mono': (1, cv2.COLOR_GRAY2RGB),
}
# ROS names the first two rows; OpenCV the second row from its second pixel on.
_BAYER = {
    'bayer_rggb': cv2.COLOR_BayerBG2RGB,
    'bayer_bggr': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg': cv2.COLOR_BayerGB2RGB,
}
_PACKED_YUV = {
    'yuv422': cv2.COLOR_YUV2RGB_UYVY,
    'uyvy': cv2.COLOR_YUV2RGB_UYVY,
    'yuv422_yuy2': cv2.COLOR_YUV2RGB_YUY2,
    'yuyv': cv2.COLOR_YUV2RGB_YUY2,
}
_PLANAR_YUV = {'nv12': cv2.COLOR_YUV2RGB_NV12, 'nv21': cv2.COLOR_YUV2RGB_NV21}
_OPENCV_TYPES = {
    '8UC1': 'mono8', '8UC3': 'bgr8', '8UC4': 'bgra8',
    '16UC1': 'mono16', '16UC3': 'bgr16', '16UC4': 'bgra16',
}
"""OpenCV's types carry no colours; it takes them for BGR itself."""


def _layouts(big_endian: bool) -> dict[str, _Layout]:
    """Return the layout of every encoding."""
    high = 0 if big_endian else 1
    layouts = {}
    for name, (channels, code) in _COLOURS.items():
        for bits, byte in ((8, None), (16, high)):
            layouts[f'{name}{bits}'] = _Layout(
                partial(_interleaved, channels=channels, code=code, high=byte),
                channels * bits // 8)
    for name, code in _BAYER.items():
        layouts[f'{name}8'] = _Layout(partial(_mosaic, code=code, high=None))
        layouts[f'{name}16'] = _Layout(partial(_mosaic, code=code, high=high), 2)
    for name, code in _PACKED_YUV.items():
        layouts[name] = _Layout(partial(_packed_yuv, code=code), 2, even=(False, True))
    for name, code in _PLANAR_YUV.items():
        layouts[name] = _Layout(partial(_planar_yuv, code=code), half_rows=3, even=(True, True))
    layouts['nv24'] = _Layout(_full_yuv, half_rows=6)
    return {**layouts, **{name: layouts[same] for name, same in _OPENCV_TYPES.items()}}


_LAYOUTS = {big_endian: _layouts(big_endian) for big_endian in (False, True)}

ENCODINGS = tuple(_LAYOUTS[False])
"""What `sensor_msgs/Image.encoding` may be."""

_KNOWN = (
    'rgb8, bgr8, rgba8, bgra8, mono8, 8UC1, 8UC3, 8UC4, bayer_rggb8 or another pattern, all of '
    'them also with 16, yuv422, uyvy, yuv422_yuy2, yuyv, nv12, nv21, nv24')
"""`ENCODINGS`, in few enough words for a status."""

_REMEDIES = {
    '32FC2': 'that is optical flow: set flow.source to topic and remap flow to this topic',
    '32FC1': 'that is depth: remap image to the colour topic of the camera',
    'jpeg': 'set rgb.transport to compressed and have the driver publish CompressedImage',
}
_CONVERT = 'convert others upstream, for instance with image_proc'


def _layout(encoding: str, big_endian: bool) -> _Layout:
    try:
        return _LAYOUTS[big_endian][encoding]
    except (KeyError, TypeError):
        remedy = _REMEDIES.get(str(encoding), _CONVERT)
        raise InvalidSampleError(
            f'image encoding: got {printable(repr(encoding), 60)}; expected {_KNOWN}: {remedy}'
        ) from None
