"""
What can still be read of an MCAP file that is cut off, damaged or without an index.

The file is walked from its start, chunk by chunk, as the recorder wrote it. A chunk that is cut
off gives the messages before the cut; one whose checksum is wrong gives none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
import heapq
from io import BytesIO
from pathlib import Path
import struct
import sys
from typing import Any, BinaryIO
import zlib

from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b'\x89MCAP0\r\n'
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _INDEX, _DATA_END = 2, 3, 4, 5, 6, 7, 15
_PORTION = 65_536
_RUN_BYTES = 4_000_000
"""Messages outside of chunks are taken together up to so many bytes."""
_FORMATS = {'ros2msg': MessageDefinitionFormat.MSG, 'ros2idl': MessageDefinitionFormat.IDL,
            'omgidl': MessageDefinitionFormat.IDL}


@dataclass
class FileTopic:
    """One topic of one file."""

    name: str
    type: str
    encoding: str
    """Of its messages; `cdr` is what can be read."""
    definition: MessageDefinition | None = None
    count: int = 0


@dataclass
class _Block:
    """Messages that lie together: a chunk, or a run of messages outside of any."""

    offset: int
    length: int
    is_chunk: bool
    start_ns: int = 2**63 - 1
    end_ns: int = 0
    whole: bool = True
    counts: Counter[int] = field(default_factory=Counter)


class RecoveredMcap:
    """One damaged file; its topics, and its messages in order of time within their chunks."""

    def __init__(self, path: Path) -> None:
        """
        Walk through the file.

        :raises ValueError: when it is no MCAP file at all.
        """
        self.path, self.lost, self.unread = path, Counter[str](), 0
        """`unread` is the number of bytes after the last record that could be read."""
        self.topics: dict[int, FileTopic] = {}
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._blocks: list[_Block] = []
        self._file: BinaryIO = path.open('rb')
        self._size = path.stat().st_size
        if self._file.read(8) != MAGIC:
            self._file.close()
            raise ValueError('it does not begin as an MCAP file does')
        self._counted: set[int] = set()
        self._walk()
        self._settle()
        for block in self._blocks:
            for channel, count in block.counts.items():
                if channel in self.topics:
                    self.topics[channel].count += count

    @property
    def start_ns(self) -> int:
        """Give the time of the first message; a huge one if there is none."""
        return min((b.start_ns for b in self._blocks if b.counts), default=2**63 - 1)

    @property
    def end_ns(self) -> int:
        """Give the time of the last message."""
        return max((b.end_ns for b in self._blocks if b.counts), default=0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(
        self, chosen: Collection[int], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[int, int, bytes]]:
        """Give channel, time and bytes of the messages from `start_ns` until before `stop_ns`."""
        wanted = [b for b in self._blocks if any(b.counts[c] for c in chosen)
                  and b.start_ns < stop_ns and b.end_ns >= start_ns]
        streams = [self._of_block(place, block, chosen, start_ns, stop_ns)
                   for place, block in enumerate(wanted)]
        for time_ns, _, _, channel, data in heapq.merge(*streams):
            if channel >= 0:
                yield channel, time_ns, data

    def _of_block(
        self, place: int, block: _Block, chosen: Collection[int], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[int, int, int, int, bytes]]:
        """Give a mark at its start, so that it is read when its time comes, and its messages."""
        yield block.start_ns, place, -1, -1, b''
        found: list[tuple[int, int, int, int, bytes]] = []
        for channel, time_ns, data in self._parse(block):
            if channel in chosen and start_ns <= time_ns < stop_ns:
                found.append((time_ns, place, len(found), channel, data))
        yield from sorted(found, key=lambda each: each[0])

    def _walk(self) -> None:
        while True:
            offset = self._file.tell()
            head = self._file.read(9)
            if len(head) < 9:
                self.unread = len(head)
                return
            kind, length = struct.unpack('<BQ', head)
            left = self._size - offset - 9
            if kind in (_FOOTER, _DATA_END):
                return
            if kind == 0 or 15 < kind < 128 or (length > left and kind != _CHUNK):
                self.unread = left + 9
                self.lost['cut-off or unreadable record'] += 1
                return
            self._record(kind, offset, min(length, left), length <= left)
            if length > left:
                return
            self._file.seek(offset + 9 + length)

    def _record(self, kind: int, offset: int, length: int, whole: bool) -> None:
        if kind == _CHUNK:
            self._settle()
            self._note_chunk(offset, length, whole)
        elif kind == _INDEX and self._blocks:
            channel, size = struct.unpack('<HI', self._file.read(6))
            self._blocks[-1].counts[channel] += size // 16
        elif kind == _MESSAGE:
            self._note_message(offset, length)
        elif kind in (_SCHEMA, _CHANNEL):
            self._define(kind, self._file.read(length))

    def _note_chunk(self, offset: int, length: int, whole: bool) -> None:
        head = self._file.read(16)
        if len(head) < 16:
            self.lost['cut-off or unreadable record'] += 1
            return
        start_ns, end_ns = struct.unpack('<QQ', head)
        self._blocks.append(_Block(offset, length, True, start_ns, end_ns, whole))

    def _note_message(self, offset: int, length: int) -> None:
        channel, _, time_ns = struct.unpack('<HIQ', self._file.read(14))
        last = self._blocks[-1] if self._blocks else None
        if (last is None or last.is_chunk or last.length > _RUN_BYTES
                or last.offset + last.length != offset):
            self._settle()
            last = _Block(offset, 0, False)
            self._blocks.append(last)
        last.length += 9 + length
        last.start_ns, last.end_ns = min(last.start_ns, time_ns), max(last.end_ns, time_ns)
        last.counts[channel] += 1

    def _settle(self) -> None:
        """Look into the last chunk where its index lacks, or names channels not known yet."""
        last = self._blocks[-1] if self._blocks else None
        if last is None or not last.is_chunk or (
                last.whole and last.counts and all(c in self.topics for c in last.counts)):
            return
        place = self._file.tell()
        promised, last.counts = last.counts.total(), Counter()
        for channel, time_ns, _ in self._parse(last):
            last.counts[channel] += 1
            if not last.whole:
                last.start_ns, last.end_ns = min(last.start_ns, time_ns), max(
                    last.end_ns, time_ns)
        if promised > last.counts.total():
            self.lost['in a damaged chunk'] += promised - last.counts.total()
        self._file.seek(place)

    def _parse(self, block: _Block) -> Iterator[tuple[int, int, bytes]]:
        """Give channel, time and bytes of each message; schemas and channels are learnt."""
        raw = self._content(block)
        place = 0
        while place + 9 <= len(raw):
            kind, length = struct.unpack_from('<BQ', raw, place)
            place += 9
            if place + length > len(raw):
                self._count(block, 'cut off mid-chunk', 1)
                return
            if kind == _MESSAGE and length >= 22:
                channel, _, time_ns = struct.unpack_from('<HIQ', raw, place)
                yield channel, time_ns, bytes(raw[place + 22:place + length])
            elif kind in (_SCHEMA, _CHANNEL):
                self._define(kind, bytes(raw[place:place + length]))
            place += length

    def _content(self, block: _Block) -> memoryview:
        """Give the records of a block, decompressed as far as they can be."""
        self._file.seek(block.offset + (9 if block.is_chunk else 0))
        data = self._file.read(block.length)
        if not block.is_chunk:
            return memoryview(data)
        try:
            size, crc = struct.unpack_from('<QI', data, 16)
            (name_length,) = struct.unpack_from('<I', data, 28)
            name = data[32:32 + name_length].decode()
            raw = _decompress(memoryview(data)[40 + name_length:], name)
        except (struct.error, UnicodeDecodeError, ValueError):
            self._count(block, 'in a damaged chunk', block.counts.total())
            return memoryview(b'')
        if block.whole and (len(raw) != size or (crc and zlib.crc32(raw) != crc)):
            self._count(block, 'in a damaged chunk', block.counts.total())
            return memoryview(b'')
        return memoryview(raw)

    def _count(self, block: _Block, reason: str, messages: int) -> None:
        """Count a loss once, however often its block is read."""
        if block.offset not in self._counted:
            self._counted.add(block.offset)
            self.lost[reason] += messages

    def _define(self, kind: int, data: bytes) -> None:
        fields = BytesIO(data)
        try:
            if kind == _SCHEMA:
                (number,) = struct.unpack('<H', fields.read(2))
                self._schemas[number] = _text(fields), _text(fields), _text(fields)
                return
            number, schema = struct.unpack('<HH', fields.read(4))
            name, encoding = _text(fields), _text(fields)
        except (struct.error, UnicodeDecodeError):
            self.lost['unreadable definitions'] += 1
            return
        type_name, form, text = self._schemas.get(schema, ('', '', ''))
        definition = MessageDefinition(_FORMATS[form], text) if form in _FORMATS else None
        self.topics.setdefault(number, FileTopic(name, type_name, encoding, definition))


def _text(fields: BytesIO) -> str:
    (length,) = struct.unpack('<I', fields.read(4))
    return fields.read(length).decode()


def _decompress(data: memoryview, name: str) -> Any:
    """
    Give what can be decompressed, from the start up to the first damage.

    :raises ValueError: for a compression that is not known.
    """
    if not name:
        return data
    if name not in ('zstd', 'lz4'):
        raise ValueError(f'compression {name!r}')
    engine: Any = zstd.ZstdDecompressor() if name == 'zstd' else LZ4FrameDecompressor()
    out = bytearray()
    for first in range(0, len(data), _PORTION):
        try:
            out += engine.decompress(bytes(data[first:first + _PORTION]))
        except (zstd.ZstdError, RuntimeError, EOFError):
            break
    return out
