"""
Depth images to metres, and to the network's channels.

Depth is resized by picking pixels, not by averaging: between a person and the wall behind there is
nothing.

Shape legend: t frames, h height, w width; H and W of the image as received.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Any

from karmma_ros.errors import InvalidSampleError, printable, UninformativeSampleError
from karmma_ros.preprocess.compressed_image import decode_depth_png
from karmma_ros.preprocess.image import check_layout, flat_bytes
import numpy as np
from numpy.typing import NDArray

MILLIMETRES, METRES = '16UC1', '32FC1'
"""Encodings of REP 118: 0 has no return in the first, NaN or infinity in the second."""
LEAST_METRES, MOST_METRES = 0.02, 100.0
"""A frame whose median lies outside has another unit."""
_COMPRESSED_DEPTH = 'compressedDepth'
_HEADER = Struct('<iff')
"""ConfigHeader of compressed_depth_image_transport: format, and both parameters of the depth."""
_OVERSAMPLED = 4
"""What is stored of an image has this many times the height of the crop of a person."""
_FEWEST_RETURNS = 0.01
"""Fraction of the columns that have a return in a row that belongs to the person."""
_MOST_RELATIVE = 4.0


def depth_values(
    data: Any, *, encoding: str, height: int, width: int, step: int, is_bigendian: bool = False,
) -> NDArray[Any]:
    """
    View the data of a raw depth image as uint16 or float32 `[H, W]`, in place.

    :raises InvalidSampleError: for another encoding, or fields that do not make an image.
    """
    if encoding not in (MILLIMETRES, METRES):
        raise InvalidSampleError(
            f'depth encoding: got {printable(repr(encoding), 60)}; expected {MILLIMETRES} or '
            f'{METRES}: remap depth to the depth topic of the camera')
    dtype = np.dtype('u2' if encoding == MILLIMETRES else 'f4').newbyteorder(
        '>' if is_bigendian else '<')
    flat = flat_bytes(data)
    check_layout(encoding, height, width, step, dtype.itemsize, 2, flat.size)
    return np.ndarray((height, width), dtype, flat, strides=(step, dtype.itemsize))


def compressed_depth_values(data: Any, description: str) -> NDArray[Any]:
    """
    Decode a compressed depth image to uint16 or float32 `[H, W]`.

    32FC1 was quantised as inverse depth (compressed_depth_image_transport): it is the first
    parameter divided by the stored value minus the second one. A PNG of image_transport's
    `compressed`, which has no header, is decoded too.

    :param description: the message's `format`, such as `16UC1; compressedDepth png`.
    :raises InvalidSampleError: for another codec or encoding, an image that is too costly to
        decode, cut off or damaged.
    """
    encoding, _, codec = (part.strip() for part in description.partition(';'))
    flat = flat_bytes(data)
    if encoding not in (MILLIMETRES, METRES) or not _is_png(codec):
        raise InvalidSampleError(
            f'depth format: got {printable(repr(description), 60)}; expected 16UC1 or 32FC1; '
            'compressedDepth png: set the parameter compressedDepth.format of the publisher to '
            'png, or depth.transport to raw')
    if _COMPRESSED_DEPTH not in codec:
        return decode_depth_png(flat)
    if flat.size <= _HEADER.size:
        raise InvalidSampleError(
            f'depth data: got {flat.size} bytes; expected a header of {_HEADER.size} and a png')
    _, first, second = _HEADER.unpack_from(flat[:_HEADER.size].tobytes())
    stored = decode_depth_png(flat[_HEADER.size:])
    if encoding == MILLIMETRES:
        return stored
    if not (np.isfinite(first) and np.isfinite(second)):
        raise InvalidSampleError(
            f'depth parameters: got {first} and {second}; expected finite numbers')
    with np.errstate(divide='ignore'):
        metres = np.float32(first) / (stored.astype(np.float32) - np.float32(second))
    return np.where(stored == 0, np.float32(np.nan), metres)


def _is_png(codec: str) -> bool:
    """Whether a codec is PNG; that of old compressed_depth_image_transport has no name."""
    return codec.startswith('png') or codec in (_COMPRESSED_DEPTH, f'{_COMPRESSED_DEPTH} png')


def fit_depth(values: NDArray[Any], height: int, width: int, person: bool) -> NDArray[Any]:
    """
    Pick the pixels that are stored of images `[…, H, W]`; applied twice it changes nothing more.

    :param person: False: the largest centred crop of the aspect ratio, `[…, height, width]`. True:
        all of the image, at most four times as high as the crop will be.
    """
    rows, columns = values.shape[-2:]
    if person:
        stored = min(rows, _OVERSAMPLED * height)
        return pick(values, (0, rows), (0, columns), (stored, max(1, columns * stored // rows)))
    crop_rows = min(rows, max(1, round(columns * height / width)))
    crop_columns = min(columns, max(1, round(rows * width / height)))
    top, left = (rows - crop_rows) // 2, (columns - crop_columns) // 2
    return pick(values, (top, top + crop_rows), (left, left + crop_columns), (height, width))


def pick(
    values: NDArray[Any], rows: tuple[int, int], columns: tuple[int, int], size: tuple[int, int],
) -> NDArray[Any]:
    """
    Pick the pixels nearest to an even grid in the last two axes; start and end of each.

    Columns beyond the image are NaN.
    """
    height, width = values.shape[-2:]
    if (rows, columns, size) == ((0, height), (0, width), (height, width)):
        return values
    down, across = (first + (np.arange(count) * 2 + 1) * (last - first) // (2 * count)
                    for (first, last), count in zip((rows, columns), size))
    pixels = down[:, None] * width + np.clip(across, 0, width - 1)
    picked = values.reshape(*values.shape[:-2], -1).take(pixels, axis=-1, mode='clip')
    beyond = (across < 0) | (across >= width)
    if beyond.any():
        picked[..., beyond] = np.nan
    return picked


def depth_metres(
    values: NDArray[Any], near: float, far: float, scale: float = 0.0, min_returns: float = 0.0,
) -> NDArray[np.float16]:
    """
    Return metres, NaN where there is no return between `near` and `far`.

    :param values: uint16, float16 or float32 of any shape.
    :param scale: metres in one unit; 0: those of REP 118, 0.001 for uint16 and 1 for others.
    :param min_returns: fraction of the pixels that must have a return, of any distance.
    :raises UninformativeSampleError: without any return at all, or with fewer.
    :raises InvalidSampleError: for a median that no depth has.
    """
    return stored_metres(checked_metres(values, scale, min_returns), near, far)


def checked_metres(
    values: NDArray[Any], scale: float = 0.0, min_returns: float = 0.0,
) -> NDArray[np.float32]:
    """Return metres of any sign, NaN and infinity included; see `depth_metres`."""
    unit = scale or (0.001 if values.dtype.kind == 'u' else 1.0)
    with np.errstate(over='ignore'):
        metres: NDArray[np.float32] = values.astype(np.float32) * np.float32(unit)
    _check_depth(metres, min_returns)
    return metres


def stored_metres(
    metres: NDArray[np.float32], near: float, far: float
) -> NDArray[np.float16]:
    """Return what is stored: NaN where there is no return."""
    return np.where(
        has_return(metres, near, far), metres, np.float32(np.nan)).astype(np.float16)


def has_return(metres: NDArray[np.float32], near: float, far: float) -> NDArray[np.bool_]:
    """Return which metres are above 0 and, rounded to float16, from `near` to `far`."""
    first, last = _limits(near, far)
    return (metres > 0) & (metres >= first) & (metres <= last)


@lru_cache
def _limits(near: float, far: float) -> tuple[np.float32, np.float32]:
    """Return the float32 between which metres are from `near` to `far` when they are rounded."""
    limits = []
    for limit, beyond in ((np.float16(near), -np.inf), (np.float16(far), np.inf)):
        neighbour = np.nextafter(limit, np.float16(beyond))
        middle = (np.float32(limit) + np.float32(neighbour)) / np.float32(2)
        inside = np.float16(middle) == limit
        limits.append(middle if inside else np.nextafter(middle, np.float32(limit)))
    return limits[0], limits[1]


def _check_depth(metres: NDArray[np.float32], min_returns: float) -> None:
    least, most = np.float32(LEAST_METRES), np.float32(MOST_METRES)
    measured = np.isfinite(metres) & (metres > 0)
    count = np.count_nonzero(measured)
    if not count:
        raise UninformativeSampleError(
            'depth: got no return (0, NaN or infinity in all pixels); expected some: is the lens '
            'covered, or all nearer than the sensor measures?')
    if count < min_returns * metres.size:
        raise UninformativeSampleError(
            f'depth: got returns in {count} of {metres.size} pixels; expected '
            f'{min_returns * metres.size:.0f} or more: is the lens covered? Else set '
            'depth.min_returns')
    # With less than half of them on either side, the median lies between: it is seldom computed.
    nearer = np.count_nonzero(measured & (metres <= least))
    farther = np.count_nonzero(measured & (metres > most))
    if 2 * max(nearer, farther) < count:
        return
    median = float(np.median(metres[measured]))
    if not LEAST_METRES <= median <= MOST_METRES:
        raise InvalidSampleError(
            f'depth: the median of a frame is {median:.3g} m; expected {LEAST_METRES} to '
            f'{MOST_METRES:g} m: set depth.scale to the metres in one unit of the sensor (0.001 '
            'for millimetres; 16UC1 has millimetres and 32FC1 metres by REP 118)')


def person_crop(
    metres: NDArray[Any], returns: NDArray[np.bool_], height: int, width: int
) -> NDArray[Any]:
    """
    Crop a square around the returns of a window, as high as they reach in any frame.

    It is centred on the median column of the returns; what it has beyond the image has no return.
    Without any return all of it has none.

    :param metres: `[t, h, w]`.
    :param returns: which of them are one, `[t, h, w]`.
    :returns: `[t, height, width]`.
    """
    valid = returns.any(0)
    counts = valid.sum(1)
    rows = np.flatnonzero(counts >= max(1.0, _FEWEST_RETURNS * valid.shape[1]))
    rows = rows if len(rows) else np.flatnonzero(counts)
    if not len(rows):
        return np.full((len(metres), height, width), np.nan, metres.dtype)
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    side = bottom - top
    left = int(np.median(np.nonzero(valid)[1])) - side // 2
    return pick(metres, (top, bottom), (left, left + side), (height, width))


def depth_input(frames: NDArray[np.float16], spread: float) -> NDArray[np.float32]:
    """
    Return silhouette, relative depth and its change of a window's frames.

    The depth is relative to the median of the window: where the person stands does not matter.

    :param frames: `[t, h, w]`, metres, NaN without a return.
    :param spread: metres that become 1.
    :returns: `[3, t, h, w]`.
    """
    metres = frames.astype(np.float32)
    valid = np.isfinite(metres)
    middle = float(np.median(metres[valid])) if valid.any() else 0.0
    relative = np.where(
        valid, np.clip((metres - middle) / spread, -_MOST_RELATIVE, _MOST_RELATIVE), 0)
    change = np.diff(relative, axis=0, prepend=relative[:1])
    return np.stack([valid, relative, change]).astype(np.float32)
