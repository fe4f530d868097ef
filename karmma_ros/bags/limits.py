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

MOST_BYTES = 128 << 20
"""Of one message, and of one chunk after decompression. A raw 8K frame takes 100 MB; a chunk is
1 MB by default, or one message, where that is larger."""
MOST_HELD = 192 << 20
"""Of the chunks of a file that overlap in time and so are held in memory at once."""
MOST_NESTED = 1 << 20
"""Of one message of a type with arrays of messages or strings, which take a hundred times as much
memory once they are decoded. A thousand detections take 0.4 MB."""
FREE_EXPANSION, MOST_EXPANSION = 1 << 30, 200
"""A compressed file may expand to 1 GiB, and beyond that to 200 times its own size. Sensor data
compress by a factor of 2 to 20; only frames without content exceed 200."""
MOST_DEFINITION, MOST_DEFINITIONS = 128 << 10, 512 << 10
"""Characters of the definition of one message type, with all types that it uses, and of all that
are parsed for one bag. The longest ones of ROS packages (MoveIt's) have 60,000."""
MOST_FIELDS = 100_000
"""Fields of one message without its sequences, those of all messages within it counted."""
MOST_NAME = 1024
"""Bytes of the name of a topic, a type or an encoding. ROS allows 255."""
MOST_METADATA = 1 << 20
"""Bytes of metadata.yaml; that of a bag of a thousand topics has 700,000."""
FREE_MESSAGES, BYTES_A_MESSAGE = 1_000_000, 8
"""A file may hold a million messages, and beyond that one for each 8 bytes of it: a compressed
message without any content takes more."""
_PORTION = 1 << 16


def size_of(file: BinaryIO) -> int:
    """Return the size of an open file, bytes."""
    return os.fstat(file.fileno()).st_size


def most_expanded(size: int) -> int:
    """Return how many bytes compressed data of a size may expand to."""
    return max(FREE_EXPANSION, MOST_EXPANSION * size)


def most_messages(size: int) -> int:
    """Return how many messages a file of a size may hold."""
    return FREE_MESSAGES + size // BYTES_A_MESSAGE


def decompress(read: Callable[[int], bytes], length: int, name: str, most: int) -> bytearray:
    """
    Decompress what can be, from the start up to the first damage, one portion after the other.

    :param read: returns so many bytes of the compressed data.
    :param length: of the compressed data.
    :param name: of the compression, as MCAP calls it: `zstd`, `lz4` or '' for none.
    :param most: bytes after which to stop; what is longer comes back one byte longer than this.
    :raises ValueError: for a compression that is not known.
    """
    out = bytearray()
    for portion in _expanded(_portions(read, length), name):
        out += portion[:most + 1 - len(out)]
        if len(out) > most:
            break
    return out


def _portions(read: Callable[[int], bytes], length: int) -> Iterator[bytes]:
    while length > 0:
        portion = read(min(_PORTION, length))
        if not portion:
            return
        length -= len(portion)
        yield portion


def _expanded(portions: Iterator[bytes], name: str) -> Iterator[bytes]:
    if not name:
        yield from portions
        return
    if name not in ('zstd', 'lz4'):
        raise ValueError(f'its compression is {name[:40]!r}; expected zstd, lz4 or none')
    with_engine = zstd.ZstdDecompressor if name == 'zstd' else LZ4FrameDecompressor
    engine: Any = with_engine()
    try:
        for portion in portions:
            while True:
                if engine.eof:  # another frame after the first one
                    engine = with_engine()
                yield engine.decompress(portion, max_length=_PORTION << 4)
                if engine.eof:
                    portion = engine.unused_data or b''
                    if portion:
                        continue
                    break
                if engine.needs_input:
                    break
                portion = b''
    except (zstd.ZstdError, RuntimeError, EOFError):  # damaged from here on
        return


def unpack_message(data: bytes) -> bytes:
    """
    Undo a message's compression, if it has any.

    Compressed ones begin with zstd's magic number, others with CDR's header, whose first
    byte is zero.

    :raises ValueError: when it is damaged, or larger than `MOST_BYTES`.
    """
    if data[:4] != b'\x28\xb5\x2f\xfd':
        return data
    engine = zstd.ZstdDecompressor()
    try:
        found = engine.decompress(data, max_length=MOST_BYTES + 1)
    except zstd.ZstdError as error:
        raise ValueError(f'messages whose compression is damaged ({error})') from None
    if len(found) > MOST_BYTES:
        raise ValueError(too_large('messages'))
    if not engine.eof:
        raise ValueError('messages whose compression is cut off')
    return bytes(found)


def too_large(what: str) -> str:
    """Return why messages or chunks are not read."""
    return f'{what} larger than {MOST_BYTES >> 20} MiB'
