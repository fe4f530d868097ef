"""
The cost of decoding a JPEG or PNG, from its structure as the decoders read it.

A decoder allocates what the header states and reads every scan, so a few hundred bytes can take
gigabytes or minutes. The walk follows the decoders' own rules (libjpeg's next_marker,
libpng's chunks): what they skip is skipped here, so that a header cannot be hidden from it.
What is handed to a decoder ends at the end of the image; what follows is padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import re
from struct import Struct

from karmma_ros.errors import InvalidSampleError
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

MAX_PIXELS = 36_000_000
"""Larger images are refused; 8192 x 4320 has 35 million."""
MAX_SCANS = 100
"""Scans of one JPEG; an encoder writes about 10 for a progressive one."""
MAX_SCANNED = 256_000_000
"""Samples of all scans of one JPEG together; a progressive one costs about 9 a pixel."""
MAX_PNG_BYTES = 75_000_000
"""Unpacked bytes of one PNG, which is slower than a JPEG: 25 million pixels of rgb8."""

JPEG, PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
# A marker is FF and a code, where FF may be repeated. FF 00 is data or skipped; restarts (D0 to
# D7) and TEM (01) have no content and change nothing.
_MARKER = re.compile(rb'\xff[^\x00\x01\xd0-\xd7\xff]')
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_FRAMES = {0xC0, 0xC1, 0xC2}
"""Baseline, extended and progressive, which is what encoders write."""
_OTHER_FRAMES = {0xC3, *range(0xC5, 0xD0)} - {0xC8, 0xCC}
_MAX_SEGMENTS = 4_000
_MAX_CHUNKS = 40_000
_CHUNK = Struct('>I4s')
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_INCOMPLETE = 'expected a complete image: part of it was lost'


@dataclass(frozen=True)
class EncodedImage:
    """A JPEG or PNG that may be decoded."""

    data: Bytes
    """Up to its end, without chunks that a decoder should not read."""
    width: int
    """As stored, before any turning by EXIF."""
    height: int
    is_png: bool


def read_header(flat: Bytes) -> EncodedImage:
    """
    Find size and end of a JPEG or PNG `[n]`, and refuse what is too costly to decode.

    :raises InvalidSampleError: for another codec, an image that is cut off or damaged, or one
        above `MAX_PIXELS`, `MAX_SCANS`, `MAX_SCANNED` or `MAX_PNG_BYTES`.
    """
    flat = np.ascontiguousarray(flat)
    head = flat[:8].tobytes()
    if head == PNG:
        return _read_png(flat)
    if head.startswith(JPEG):
        return _JpegWalk(flat).read()
    raise InvalidSampleError(
        f'image data: got {flat.size} bytes that start with {head.hex(" ") or "nothing"}; '
        f'expected a jpeg or a png: {_remedy(flat)}')


def is_jpeg_or_png(flat: Bytes) -> bool:
    """Whether these bytes begin as a JPEG or PNG does."""
    return flat[:8].tobytes().startswith((JPEG, PNG))


def _remedy(flat: Bytes) -> str:
    start = flat[:65_536].tobytes().find(JPEG)
    if start > 0:
        return f'a jpeg begins at byte {start}; publish it without the bytes before it'
    return 'set the image transport of the publisher to jpeg or png (compressed.format)'


@dataclass
class _JpegWalk:
    """Walk the markers of a JPEG, as libjpeg's read_markers does."""

    flat: Bytes
    size: tuple[int, int] | None = None
    """Width and height of the frame, once its header was met."""
    planes: Mapping[int, float] = field(default_factory=dict)
    """Component → its samples for each pixel of the image."""
    scans: int = 0
    scanned: float = 0.0

    def read(self) -> EncodedImage:
        """
        Walk to the end of the image.

        :raises InvalidSampleError: see `read_header`.
        """
        view, at = memoryview(self.flat.data), 2
        for _ in range(_MAX_SEGMENTS):
            marker = _MARKER.search(view, at)
            if marker is None:
                break
            code, at = view[marker.end() - 1], marker.end()
            if code == _EOI:
                return self._ended(at)
            if code == _SOI:
                raise InvalidSampleError(
                    f'image data: another jpeg begins at byte {at - 2} before the end of the '
                    f'first; {_INCOMPLETE}')
            length = int.from_bytes(view[at:at + 2], 'big')
            if at + max(2, length) > len(view):
                break
            self._segment(code, bytes(view[at + 2:at + length]), length)
            at += length
        else:
            raise InvalidSampleError(
                f'image data: got a jpeg of more than {_MAX_SEGMENTS:,} segments; expected '
                f'fewer: {_INCOMPLETE}')
        raise InvalidSampleError(
            f'image data: got {self.flat.size} bytes of a jpeg without an end (FF D9); '
            f'{_INCOMPLETE}')

    def _segment(self, code: int, content: bytes, length: int) -> None:
        if code in _OTHER_FRAMES:
            raise InvalidSampleError(
                f'image data: got a jpeg of process {code:02X}; expected a baseline or '
                'progressive one with Huffman codes')
        if length < 2 or code < 0xC0:
            raise InvalidSampleError(
                f'image data: damaged: jpeg marker FF {code:02X} of length {length}')
        if code in _FRAMES:
            self._frame(content)
        elif code == _SOS:
            self._scan(content)

    def _frame(self, content: bytes) -> None:
        parts = [content[i:i + 3] for i in range(6, len(content), 3)]
        if self.size is not None or len(content) < 9 or len(parts) != content[5]:
            raise InvalidSampleError('image data: damaged: frame header of a jpeg')
        height, width = (int.from_bytes(content[i:i + 2], 'big') for i in (1, 3))
        _check_size(width, height)
        self.size = width, height
        across, down = (max(1, *(factor(p) for p in parts)) for factor in (_across, _down))
        self.planes = {p[0]: _across(p) * _down(p) / (across * down) for p in parts}

    def _scan(self, content: bytes) -> None:
        if self.size is None or len(content) < 3:
            raise InvalidSampleError('image data: damaged: scan header of a jpeg')
        self.scans += 1
        chosen = content[1:1 + 2 * content[0]:2]
        self.scanned += self.size[0] * self.size[1] * sum(self.planes.get(i, 1) for i in chosen)
        if self.scans > MAX_SCANS or self.scanned > MAX_SCANNED:
            width, height = self.size
            raise InvalidSampleError(
                f'image scans: got {self.scans} or more in a jpeg of {width} x {height}; expected '
                f'{MAX_SCANS} or fewer, and {MAX_SCANNED:,} samples in all of them: save it '
                'without progressive scans')

    def _ended(self, end: int) -> EncodedImage:
        if self.size is None or not self.scans:
            raise InvalidSampleError(
                f'image data: got a jpeg that ends at byte {end} without an image; {_INCOMPLETE}')
        return EncodedImage(self.flat[:end], *self.size, is_png=False)


def _across(component: Sequence[int]) -> int:
    return component[1] >> 4


def _down(component: Sequence[int]) -> int:
    return component[1] & 15


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise InvalidSampleError(
            f'image size: got {width} x {height}; expected 1 x 1 to {MAX_PIXELS:,} pixels')


def _read_png(flat: Bytes) -> EncodedImage:
    """Walk the chunks; those that are not needed for the pixels are left out."""
    view = memoryview(flat.data)
    at, kept, width, height = 8, [flat[:8]], 0, 0
    for number in range(_MAX_CHUNKS):
        if at + 12 > len(view):
            break
        length, name = _CHUNK.unpack_from(view, at)
        end = at + 12 + length
        if end > len(view):
            break
        if (name == b'IHDR') != (number == 0) or (name == b'IHDR' and length != 13):
            raise InvalidSampleError('image data: damaged: header of a png')
        if number == 0:
            width, height = _png_size(bytes(view[at + 8:at + 21]))
        if _is_needed(name):
            kept.append(flat[at:end])
        if name == b'IEND':
            return EncodedImage(np.concatenate(kept), width, height, is_png=True)
        at = end
    raise InvalidSampleError(
        f'image data: got {flat.size} bytes of a png without an end (IEND); {_INCOMPLETE}')


def _is_needed(name: bytes) -> bool:
    """Whether a chunk is critical, or about transparency or how the camera was held."""
    return not name[0] & 0x20 or name in (b'tRNS', b'eXIf')


def _png_size(header: bytes) -> tuple[int, int]:
    width, height = (int.from_bytes(header[i:i + 4], 'big') for i in (0, 4))
    bits, colour, interlaced = header[8], header[9], header[12]
    _check_size(width, height)
    unpacked = width * height * _PNG_CHANNELS.get(colour, 4) * bits // 8
    # The passes of an interlaced image each go through all rows.
    if unpacked * (1 + bool(interlaced)) > MAX_PNG_BYTES:
        raise InvalidSampleError(
            f'image size: got {width} x {height} in a png of {unpacked:,} bytes unpacked; '
            f'expected {MAX_PNG_BYTES:,} or fewer: publish jpeg instead (compressed.format)')
    return width, height
