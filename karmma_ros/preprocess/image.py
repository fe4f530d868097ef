"""
The raw bytes of a `sensor_msgs/Image` to an RGB picture.

cv_bridge is not used: it shears the picture, without a word, when the row padding is
not a multiple of the pixel's size, and it copies the full frame before we can shrink it.

Shape legend: h height, w width, c channels.
"""

from __future__ import annotations

from typing import Any

import cv2
from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.video import resize_and_crop
import numpy as np
from numpy.typing import NDArray

_TO_RGB: dict[str, int | None] = {
    'rgb8': None,
    'bgr8': cv2.COLOR_BGR2RGB,
    'rgba8': cv2.COLOR_RGBA2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB,
    'mono8': cv2.COLOR_GRAY2RGB,
    'mono16': cv2.COLOR_GRAY2RGB,
}
_PIXEL_BYTES = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1, 'mono16': 2}


def decode_image(
    data: Any,
    *,
    encoding: str,
    height: int,
    width: int,
    step: int,
    is_bigendian: bool = False,
    size: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """
    Decode a raw image to RGB uint8 `[h, w, 3]`, in memory of its own.

    `data` is any bytes-like object or a uint8 array and is read in place. With `size`
    (height, width) the picture is resized and centre-cropped first and its channels are
    swapped afterwards, so that the expensive step sees the small picture. Of a 16-bit
    picture the high byte is kept.

    :raises InvalidSampleError: for an unknown encoding, an empty picture, a step shorter
        than a row, or a number of bytes other than step × height.
    """
    pixel = _pixel_bytes(encoding)
    flat = _flat_bytes(data)
    _check_layout(encoding, height, width, step, pixel, flat.size)
    view: NDArray[np.uint8] = np.ndarray(
        (height, width, pixel), np.uint8, flat, strides=(step, pixel, 1))
    if encoding == 'mono16':
        high = 0 if is_bigendian else 1
        view = view[:, :, high:high + 1]
    picture = view if size is None else resize_and_crop(view, *size)
    return _to_rgb(picture, encoding)


def _pixel_bytes(encoding: str) -> int:
    try:
        return _PIXEL_BYTES[encoding]
    except (KeyError, TypeError):
        raise InvalidSampleError(
            f'image encoding: got {encoding!r}; it may be {", ".join(_PIXEL_BYTES)}: '
            'convert others (bayer, yuv) upstream, for instance with image_proc'
        ) from None


def _flat_bytes(data: Any) -> NDArray[np.uint8]:
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8:
            raise InvalidSampleError(f'image data: got {data.dtype}; it may be uint8')
        return data.reshape(-1)
    try:
        return np.frombuffer(data, np.uint8)
    except (TypeError, ValueError) as error:
        # numpy also refuses an empty buffer here, which `_check_layout` says better.
        if isinstance(data, (bytes, bytearray)) or getattr(data, 'typecode', '') == 'B':
            return np.empty(0, np.uint8)
        raise InvalidSampleError(
            f'image data: got a {type(data).__name__}; it may be bytes or a uint8 array'
        ) from error


def _check_layout(
    encoding: str, height: int, width: int, step: int, pixel: int, num_bytes: int,
) -> None:
    if height <= 0 or width <= 0:
        raise InvalidSampleError(f'image size: got {width} x {height}; it may be 1 x 1 or more')
    row = width * pixel
    if step < row:
        raise InvalidSampleError(
            f'image step: got {step}; it may be {row} or more bytes a row '
            f'({width} pixels of {encoding})')
    if num_bytes != step * height:
        raise InvalidSampleError(
            f'image data: got {num_bytes} bytes; it may be {step * height} '
            f'(step {step} x height {height})')


def _to_rgb(picture: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    code = _TO_RGB[encoding]
    if code is None:
        return np.array(picture, np.uint8, order='C')
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), code), np.uint8)
