"""
The bytes of a `sensor_msgs/CompressedImage` to an RGB image.

JPEG and PNG only: their cost is known before anything is decoded (`image_headers.py`), so that
a few bytes cannot take gigabytes or minutes.

Shape legend: h height, w width, c channels.
"""

from __future__ import annotations

from typing import Any

import cv2
from karmma_ros.clip import CropSize
from karmma_ros.errors import InvalidSampleError, printable
from karmma_ros.preprocess.image import (
    Bytes,
    decode_image,
    flat_bytes,
    narrow_values,
    WIDE,
)
from karmma_ros.preprocess.image_headers import EncodedImage, PNG, read_header
from karmma_ros.preprocess.resize import resize_and_crop
import numpy as np
from numpy.typing import NDArray

_LARGE_PIXELS = 10_000_000
"""A larger JPEG, above 4K, is decoded at a fraction of its size where the crop allows it."""
_OVERSAMPLED = 4
"""The fraction still has this many times the pixels of the crop, across and down."""
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8}


def decode_compressed(
    data: Any, *, description: str, size: CropSize | None = None, bits: int = WIDE,
) -> tuple[Bytes, tuple[int, int]]:
    """
    Decode a JPEG or PNG to RGB uint8 `[h, w, 3]`, resized and cropped to `size` if given.

    Also return the height and width before that. A JPEG with an EXIF orientation comes out
    upright. `description` is the message's `format`; the codec is read from the bytes instead,
    the order of the colours from the format. Bytes behind
    the end of the image are ignored: cameras fill up their last packet or buffer. `bits` are
    the significant ones of a PNG with 16 for a value, as `decode_image` takes them.

    :raises InvalidSampleError: for another codec, an image that is too costly to decode (see
        `read_header`), or one that is cut off or damaged.
    """
    _check_description(description)
    encoded = read_header(flat_bytes(data))
    source, _, codec = description.partition(';')
    is_mosaic = source.startswith('bayer_') and encoded.is_png
    if is_mosaic:  # OpenCV has made eight bits of sixteen
        image = _decode_values(encoded, cv2.IMREAD_GRAYSCALE, bits)
        height, width = full_size = image.shape[0], image.shape[1]
        image = decode_image(
            image, encoding=source.strip().replace('16', '8'), height=height, width=width,
            step=width, size=size)
    else:
        scale = _scale(encoded, size)
        image = _decode_values(encoded, _REDUCED.get(scale, cv2.IMREAD_COLOR), bits, scale)
        full_size = _full_size(encoded, image, scale)
        image = image if size is None else resize_and_crop(image, *size)
        # RGB that was encoded as if it were BGR is decoded to RGB.
        if 'compressed rgb' not in codec:
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    return image, full_size


def decode_bounded(data: Any, flags: int) -> Bytes:
    """
    Decode a JPEG or PNG to `[h, w]` or BGR `[h, w, 3]`, as cv2.imdecode does with `flags`.

    :param flags: `cv2.IMREAD_COLOR` or `cv2.IMREAD_GRAYSCALE`.
    :raises InvalidSampleError: as `decode_compressed`.
    """
    return np.asarray(_decode(read_header(flat_bytes(data)), flags), np.uint8)


def decode_depth_png(data: Any) -> NDArray[np.uint16]:
    """
    Decode a grey PNG of 16 bits to uint16 `[h, w]`.

    :raises InvalidSampleError: for anything else, and as `decode_compressed`.
    """
    encoded = read_header(flat_bytes(data))
    # Bits and colour type of its header.
    if not encoded.is_png or encoded.data[24:26].tobytes() != b'\x10\x00':
        raise InvalidSampleError(
            'depth data: got an image that is not grey with 16 bits; expected a 16 bit png: '
            'publish compressedDepth with png, or set depth.transport to raw')
    return np.asarray(_decode(encoded, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH), np.uint16)


def _check_description(description: str) -> None:
    if 'compresseddepth' in description.lower():
        raise InvalidSampleError(
            f'image format: got {printable(description, 40)!r}; expected jpeg or png: '
            'compressedDepth is no colour image: remap image to the colour topic of the camera')


def _scale(encoded: EncodedImage, size: CropSize | None) -> int:
    """Return by how much both sides of an image may be divided while it is decoded."""
    if encoded.is_png or size is None or encoded.width * encoded.height <= _LARGE_PIXELS:
        return 1
    largest = max(size[:2] if len(size) == 2 else (*size[:2], *size[2]))
    most = min(encoded.width, encoded.height) // (_OVERSAMPLED * largest)
    return max((scale for scale in (1, *_REDUCED) if scale <= most), default=1)


def is_wide_png(data: Any) -> bool:
    """Whether an image is a PNG with 16 bits for a value."""
    head = flat_bytes(data)[:25].tobytes()
    return head.startswith(PNG) and head[24:] == b'\x10'


def largest_png_value(data: Any) -> int:
    """
    Return the largest value of a PNG with 16 bits for a value.

    :raises InvalidSampleError: when it cannot be decoded.
    """
    encoded = read_header(flat_bytes(data))
    return int(_decode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH).max())


def _decode_values(encoded: EncodedImage, flags: int, bits: int, scale: int = 1) -> Bytes:
    """Decode to eight bits: the highest ones, or those of the significant `bits`."""
    if bits < WIDE and is_wide_png(encoded.data):
        return narrow_values(_decode(encoded, flags | cv2.IMREAD_ANYDEPTH), bits)
    return np.asarray(_decode(encoded, flags, scale), np.uint8)


def _decode(encoded: EncodedImage, flags: int, scale: int = 1) -> NDArray[Any]:
    try:
        image = cv2.imdecode(encoded.data, flags)
    except cv2.error as error:
        raise InvalidSampleError(f'image data: damaged: {error.err}') from None
    if image is None:
        raise InvalidSampleError(
            f'image data: got {encoded.data.size} bytes that cannot be decoded; expected a '
            'complete jpeg or png')
    stored = -(-encoded.width // scale), -(-encoded.height // scale)
    if sorted(stored) != sorted(image.shape[:2]):
        raise InvalidSampleError(
            f'image size: got {image.shape[1]} x {image.shape[0]} from the decoder; expected '
            f'{stored[0]} x {stored[1]} as the header has it')
    return np.asarray(image)


def _full_size(encoded: EncodedImage, image: Bytes, scale: int) -> tuple[int, int]:
    """Return height and width of the image as it is shown: EXIF may have turned it."""
    stored = encoded.height, encoded.width
    upright = image.shape[0] == -(-encoded.height // scale)
    return stored if upright else stored[::-1]
