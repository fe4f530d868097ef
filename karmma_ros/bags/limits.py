"""
How much of a bag is read at once, and how far compressed data may expand.

A bag may come from anywhere. These limits bound the memory and the time that reading one takes;
each is far above what a recorder writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import os
import sys
from typing import Any, BinaryIO

from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_MESSAGE = 128 << 20
"""Bytes of one message, and of one chunk after decompression. A raw 8K frame takes 100 MB; a
chunk is 1 MB by default, or one message, where that is larger."""
MAX_OVERLAP = 192 << 20
"""Bytes of the chunks of a file that overlap in time and so are held in memory at once."""
MAX_NESTED = 1 << 20
"""Bytes of one message of a type with arrays of messages or strings, which take a hundred times
as much memory once they are decoded. A thousand detections take 0.4 MB."""
FREE_EXPANSION, MAX_EXPANSION = 1 << 30, 200
"""A compressed file may expand to 1 GiB, and beyond that to 200 times its own size. Sensor data
compress by a factor of 2 to 20; only frames without content exceed 200."""
MAX_DEFINITION, MAX_DEFINITIONS = 128 << 10, 512 << 10
"""Characters of the definition of one message type, with all types that it uses, and of all that
are parsed for one bag. The longest ones of ROS packages (MoveIt's) have 60,000."""
MAX_FIELDS = 100_000
"""Fields of one message without its sequences, those of all messages within it counted."""
MAX_NAME = 1024
"""Bytes of the name of a topic, a type or an encoding. ROS allows 255."""
MAX_METADATA = 1 << 20
"""Bytes of metadata.yaml; that of a bag of a thousand topics has 700,000."""
FREE_MESSAGES, BYTES_A_MESSAGE = 1_000_000, 8
"""A file may hold a million messages, and beyond that one for each 8 bytes of it: a compressed
message without any content takes more."""
_BLOCK = 1 << 16
"""Bytes read at once."""


def size_of(file: BinaryIO) -> int:
    """Return the size of an open file, bytes."""
    return os.fstat(file.fileno()).st_size


def max_expanded(size: int) -> int:
    """Return how many bytes compressed data of a size may expand to."""
    return max(FREE_EXPANSION, MAX_EXPANSION * size)


def max_messages(size: int) -> int:
    """Return how many messages a file of a size may hold."""
    return FREE_MESSAGES + size // BYTES_A_MESSAGE


def decompress(read: Callable[[int], bytes], length: int, name: str, limit: int) -> bytearray:
    """
    Decompress block by block, from the start up to the first damage.

    :param read: returns so many bytes of the compressed data.
    :param length: of the compressed data.
    :param name: of the compression, as MCAP calls it: `zstd`, `lz4` or '' for none.
    :param limit: bytes after which to stop; longer data are returned one byte longer than this.
    :raises ValueError: for a compression that is not known.
    """
    out = bytearray()
    for block in _expanded(_blocks(read, length), name):
        out += block[:limit + 1 - len(out)]
        if len(out) > limit:
            break
    return out


def _blocks(read: Callable[[int], bytes], length: int) -> Iterator[bytes]:
    while length > 0:
        block = read(min(_BLOCK, length))
        if not block:
            return
        length -= len(block)
        yield block


def _expanded(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    if not name:
        yield from blocks
        return
    if name not in ('zstd', 'lz4'):
        raise ValueError(f'its compression is {name[:40]!r}; expected zstd, lz4 or none')
    make_engine = zstd.ZstdDecompressor if name == 'zstd' else LZ4FrameDecompressor
    engine: Any = make_engine()
    try:
        for block in blocks:
            while True:
                if engine.eof:  # another frame after the first one
                    engine = make_engine()
                yield engine.decompress(block, max_length=_BLOCK << 4)
                if engine.eof:
                    block = engine.unused_data or b''
                    if block:
                        continue
                    break
                if engine.needs_input:
                    break
                block = b''
    except (zstd.ZstdError, RuntimeError, EOFError):  # damaged from here on
        return


def decompress_message(data: bytes) -> bytes:
    """
    Decompress a message, if it is compressed.

    Compressed messages begin with the magic number of zstd, others with the header of CDR, whose
    first byte is zero.

    :raises ValueError: when it is damaged, or larger than `MAX_MESSAGE`.
    """
    if data[:4] != b'\x28\xb5\x2f\xfd':
        return data
    engine = zstd.ZstdDecompressor()
    try:
        message = engine.decompress(data, max_length=MAX_MESSAGE + 1)
    except zstd.ZstdError as error:
        raise ValueError(f'messages whose compression is damaged ({error})') from None
    if len(message) > MAX_MESSAGE:
        raise ValueError(too_large('messages'))
    if not engine.eof:
        raise ValueError('messages whose compression is cut off')
    return bytes(message)


def too_large(what: str) -> str:
    """Return the reason why messages or chunks of this size are not read."""
    return f'{what} larger than {MAX_MESSAGE >> 20} MiB'
