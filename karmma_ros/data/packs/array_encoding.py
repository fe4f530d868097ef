"""
Arrays of one window as bytes: 8-bit images as JPEG or as they are, everything else without loss.

Shape legend: t images, h height, w width, c channels.
"""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LOSSLESS = 0
"""In place of a JPEG quality: 8-bit images are stored as they are."""
_RAW, _JPEG = b'R', b'J'
_SHAPE = struct.Struct('<5I')  # t, h, w, c and the number of JPEGs
_LENGTH = struct.Struct('<I')
_TALLEST = 65_000
"""Rows of a JPEG; the format ends at 65,535."""
_BLOCK = 16
"""Rows of a JPEG's block: each image begins with one, so that none bleeds into the next."""


def encode_array(array: NDArray[Any], quality: int) -> bytes:
    """
    Return an array as bytes.

    :param quality: JPEG quality of uint8 images `[t, h, w, c]` with up to 3 channels, 1 to 100;
        `LOSSLESS` stores them as they are.
    """
    images = array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] in (1, 2, 3)
    if quality != LOSSLESS and images and array.size:
        return _encode_images(array, quality)
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return _RAW + file.getvalue()


def decode_array(data: bytes) -> NDArray[Any]:
    """
    Return the array that `encode_array` made bytes from.

    :raises ValueError: for damaged bytes.
    """
    try:
        if data[:1] == _JPEG:
            return _decode_images(data)
        if data[:1] == _RAW:
            array: NDArray[Any] = np.load(io.BytesIO(data[1:]), allow_pickle=False)
            return array
    except (ValueError, EOFError, OSError, struct.error, cv2.error) as error:
        raise ValueError(f'it cannot be decoded ({error})') from error
    raise ValueError('it does not begin as an array of a pack does')


def _encode_images(images: NDArray[np.uint8], quality: int) -> bytes:
    """
    Encode all images of a window as one JPEG, one below the other.

    A channel of images that are no colours is a JPEG of its own, in grey.
    """
    t, h, w, c = images.shape
    padded = np.pad(images, ((0, 0), (0, -h % _BLOCK), (0, 0), (0, 0)), 'edge')
    rows = padded if c == 3 else np.moveaxis(padded, 3, 0).reshape(-1, padded.shape[1], w)
    parts = np.array_split(rows, math.ceil(len(rows) * padded.shape[1] / _TALLEST))
    encoded = []
    for part in parts:
        tall = part.reshape(-1, *part.shape[2:])
        if c == 3:
            tall = cv2.cvtColor(tall, cv2.COLOR_RGB2BGR)
        encoded.append(cv2.imencode('.jpg', tall, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
    sizes = b''.join(_LENGTH.pack(len(each)) for each in encoded)
    return b''.join([_JPEG, _SHAPE.pack(t, h, w, c, len(parts)), sizes,
                     *(each.tobytes() for each in encoded)])


def _decode_images(data: bytes) -> NDArray[np.uint8]:
    t, h, w, c, count = _SHAPE.unpack_from(data, 1)
    first = 1 + _SHAPE.size
    sizes = [_LENGTH.unpack_from(data, first + i * _LENGTH.size)[0] for i in range(count)]
    offset = first + count * _LENGTH.size
    flag = cv2.IMREAD_COLOR_RGB if c == 3 else cv2.IMREAD_GRAYSCALE
    parts = []
    for size in sizes:
        part = cv2.imdecode(np.frombuffer(data, np.uint8, size, offset), flag)
        if part is None:
            raise ValueError('a JPEG is damaged')
        parts.append(part)
        offset += size
    tall = parts[0] if count == 1 else np.concatenate(parts)
    padded = h + -h % _BLOCK
    if c == 3:
        return np.asarray(tall.reshape(t, padded, w, 3)[:, :h], np.uint8)
    merged = cv2.merge(np.split(tall, c)).reshape(t, padded, w, c)
    return np.ascontiguousarray(merged[:, :h])
