"""
The bytes of a `sensor_msgs/CompressedImage` to an RGB picture.

JPEG and PNG only: both tell their size in a header that is read before anything is
decoded, so that a few bytes cannot ask for gigabytes.

Shape legend: h height, w width.
"""

from __future__ import annotations

from typing import Any

import cv2
from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.image import Bytes, decode_image, flat_bytes, Size
from karmma_ros.preprocess.video import resize_and_crop
import numpy as np

MAX_PIXELS = 50_000_000
"""Larger pictures are refused; 8K has 33 million."""

_JPEG, _PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_JPEG_END, _PNG_END = b'\xff\xd9', b'IEND\xaeB`\x82'
# Start-of-frame markers; C4, C8 and CC in their midst are tables and an extension.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: TEM, RST0..7, SOI, EOI.
_JPEG_BARE = frozenset([0x01, *range(0xD0, 0xDA)])
_REMEDY = 'set the image transport of the publisher to jpeg or png (compressed.format)'


def decode_compressed(
    data: Any, *, description: str, size: Size | None = None,
) -> tuple[Bytes, Size]:
    """
    Decode a JPEG or PNG to RGB uint8 `[h, w, 3]`, resized and cropped to `size` if given.

    Also gives the height and width of the whole picture. A JPEG that says how the camera
    was held comes out upright. `description` is the message's `format`: what it says of
    the codec is not believed, the bytes are; what it says of the colours is.

    :raises InvalidSampleError: for another codec, a picture above `MAX_PIXELS`, or one that
        is cut off or damaged.
    """
    _check_description(description)
    flat = flat_bytes(data)
    _check_size(flat)
    source, _, codec = description.partition(';')
    is_mosaic = source.startswith('bayer_') and flat[:8].tobytes() == _PNG
    picture = _decode(flat, cv2.IMREAD_GRAYSCALE if is_mosaic else cv2.IMREAD_COLOR)
    height, width = picture.shape[:2]
    if is_mosaic:  # OpenCV has made eight bits of sixteen
        picture = decode_image(
            picture, encoding=source.strip().replace('16', '8'), height=height, width=width,
            step=width, size=size)
    else:
        picture = picture if size is None else resize_and_crop(picture, *size)
        # What was given to the encoder as if it were BGR comes back as what it was.
        if 'compressed rgb' not in codec:
            picture = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
    return picture, (height, width)


def _check_description(description: str) -> None:
    if 'compresseddepth' in description.lower():
        raise InvalidSampleError(
            f'image format: got {description[:40]!r}; it may be jpeg or png: compressedDepth is '
            'no picture: remap image to the colour topic of the camera')


def _check_size(flat: Bytes) -> None:
    """Read the header, and refuse what is too large or not whole before decoding it."""
    head = flat[:24].tobytes()
    if head.startswith(_PNG):
        width, height = (int.from_bytes(head[at:at + 4], 'big') for at in (16, 20))
        end = _PNG_END
    elif head.startswith(_JPEG):
        width, height = _jpeg_size(flat)
        end = _JPEG_END
    else:
        raise InvalidSampleError(
            f'image data: got {flat.size} bytes that start with {head[:8].hex(" ") or "nothing"}; '
            f'it may be a jpeg or a png: {_REMEDY}')
    if not 0 < width * height <= MAX_PIXELS:
        raise InvalidSampleError(
            f'image size: got {width} x {height}; it may be 1 x 1 to {MAX_PIXELS:,} pixels')
    # Cameras fill up the last packet with zeros.
    if not flat[-65_536:].tobytes().rstrip(b'\0').endswith(end):
        raise InvalidSampleError(
            f'image data: got {flat.size} bytes without an end; it may be a whole picture: part '
            'of it was lost')


def _jpeg_size(flat: Bytes) -> tuple[int, int]:
    """Give width and height; (0, 0) when there is no frame header."""
    at = 2
    while at + 9 <= flat.size and flat[at] == 0xFF:
        marker = int(flat[at + 1])
        if marker in _JPEG_FRAMES:
            height, width = flat[at + 5:at + 9].reshape(2, 2) @ [256, 1]
            return int(width), int(height)
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        else:
            at += 2 + int(flat[at + 2]) * 256 + int(flat[at + 3])
    return 0, 0


def _decode(flat: Bytes, flags: int) -> Bytes:
    try:
        picture = cv2.imdecode(flat, flags)
    except cv2.error as error:
        raise InvalidSampleError(f'image data: damaged: {error.err}') from None
    if picture is None:
        raise InvalidSampleError(
            f'image data: got {flat.size} bytes that cannot be decoded; it may be a whole jpeg or '
            'png')
    return np.asarray(picture, np.uint8)
