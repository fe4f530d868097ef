"""
Reader of MCAP files that may be truncated, damaged or without indexes.

The file is scanned record by record from its start. The message counts of its indexes are used
where they agree with its statistics; elsewhere the messages are counted. Messages that the
indexes or the statistics count and the file does not contain are counted as missing. A truncated
chunk returns the messages before its end; one with a wrong checksum, none.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
import heapq
from pathlib import Path
import struct
from typing import NamedTuple
import zlib

from karmma_ros.bags.limits import (
    decompress,
    FREE_EXPANSION,
    max_expanded,
    MAX_EXPANSION,
    MAX_MESSAGE,
    max_messages,
    MAX_NAME,
    MAX_OVERLAP,
    size_of,
    too_large,
)
from karmma_ros.bags.mcap_records import (
    CHANNEL,
    CHUNK,
    DATA_END,
    Definitions,
    FOOTER,
    MAGIC,
    MAX_RECORD,
    MESSAGE,
    MESSAGE_INDEX,
    read_summary,
    SCHEMA,
)
from karmma_ros.files import open_regular
import numpy as np

_HEADER, _MESSAGE_HEADER = struct.Struct('<BQ'), struct.Struct('<HIQ')
_BLOCK_BYTES = 4_000_000
"""Size up to which consecutive messages outside of chunks form one block."""
LATEST_NS = 2**63 - 1
"""Later than any message: ROS counts nanoseconds in 64 bits, one of them the sign."""
DAMAGED, TRUNCATED = 'messages in a damaged chunk', 'records that are cut off or unreadable'
_NOT_IN_CHUNK = 'messages counted by an index, but not in its chunk'
_NO_TIME = 'messages with a time after the year 2262'


@dataclass
class _Block:
    """A chunk, or consecutive messages outside of chunks."""

    offset: int
    length: int
    is_chunk: bool
    start_ns: int = 2**64
    end_ns: int = 0
    complete: bool = True
    size: int = 0
    """Bytes after decompression."""
    checked: bool = False
    """Whether its messages were counted; else `counts` are those of its index."""
    counts: Counter[int] = field(default_factory=Counter)
    """Channel → messages."""


class _Messages(NamedTuple):
    """The messages of a block: columns of equal length."""

    raw: bytes | bytearray
    channels: array[int]
    times_ns: array[int]
    starts: array[int]
    stops: array[int]


class RecoveredMcap:
    """The topics of one file, and its messages in order of time."""

    def __init__(self, path: Path) -> None:
        """
        Scan the file.

        :raises ValueError: when it is not an MCAP file.
        """
        self.missing: Counter[str] = Counter()
        """Reason → messages that could not be read."""
        self.unread_bytes = 0
        """Bytes after the last record that could be read."""
        self.damage: list[str] = []
        """Descriptions of the damage; empty for an intact file."""
        self._definitions = Definitions(self.missing)
        self.topics = self._definitions.topics
        self._blocks: list[_Block] = []
        self._counted: set[int] = set()
        self._expanded = self._parsed = self._loaded_bytes = 0
        self._file = open_regular(path)
        try:
            self._size = size_of(self._file)
            if self._file.read(8) != MAGIC:
                raise ValueError('it does not begin with the magic bytes of MCAP')
            self._summary = read_summary(self._file, self._size)
            self._scan()
            self._check_counts()
        except BaseException:
            self._file.close()
            raise

    @property
    def start_ns(self) -> int:
        """Return the time of the first message; `LATEST_NS` without any."""
        return min((b.start_ns for b in self._blocks if b.counts), default=LATEST_NS)

    @property
    def end_ns(self) -> int:
        """Return the time of the last message."""
        return max((b.end_ns for b in self._blocks if b.counts), default=0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(
        self, chosen: Collection[int], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield channel, time and bytes of the messages in [start_ns, stop_ns)."""
        wanted = [b for b in self._blocks if any(b.counts[c] for c in chosen)
                  and b.start_ns < stop_ns and b.end_ns >= start_ns]
        streams = [self._read_block(index, block, chosen, start_ns, stop_ns)
                   for index, block in enumerate(wanted)]
        for time_ns, _, _, channel, data in heapq.merge(*streams):
            if channel >= 0:
                yield channel, time_ns, data

    def _read_block(
        self, index: int, block: _Block, chosen: Collection[int], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[int, int, int, int, bytes]]:
        """Yield a marker at its start, so that the block is loaded only then, and its messages."""
        yield block.start_ns, index, -1, -1, b''
        if self._loaded_bytes and self._loaded_bytes + block.size > MAX_OVERLAP:
            self._note_unusable(block, 'in chunks that overlap in time by more than '
                                f'{MAX_OVERLAP >> 20} MiB')
            return
        self._loaded_bytes += block.size
        try:
            messages = self._parse(block)
            missing = block.counts - Counter(messages.channels)
            self._note_missing(block, _NOT_IN_CHUNK, missing.total())
            for number, row in enumerate(_in_order(messages.times_ns)):
                channel, time_ns = messages.channels[row], messages.times_ns[row]
                if channel in chosen and start_ns <= time_ns < stop_ns:
                    data = bytes(messages.raw[messages.starts[row]:messages.stops[row]])
                    yield time_ns, index, number, channel, data
        finally:
            self._loaded_bytes -= block.size

    def _scan(self) -> None:
        """Read record by record; after an unreadable one, from the next chunk of the index on."""
        self._file.seek(len(MAGIC))
        while (problem := self._read_record()) is not None:
            if not problem:
                continue
            offset = self._file.tell()
            self.damage.append(problem)
            self.missing[TRUNCATED] += 1
            following = self._summary.chunk_after(offset)
            if following is None:
                self.unread_bytes = self._size - offset
                return
            self._file.seek(following)

    def _read_record(self) -> str | None:
        """
        Read one record, and seek the next one.

        :returns: '' for a complete record, None at the end of the data; else the problem, with
            the file at the start of the record.
        """
        offset = self._file.tell()
        head = self._file.read(9)
        self._file.seek(offset)
        if len(head) < 9:
            return 'it is cut off: its end is missing'
        opcode, length = struct.unpack('<BQ', head)
        if opcode in (FOOTER, DATA_END):
            return None
        if opcode == 0 or 15 < opcode < 128:
            return f'there is no record at byte {offset:,}'
        left = self._size - offset - 9
        if length <= left or opcode == CHUNK:
            self._file.seek(9, 1)
            self._note_record(opcode, offset, min(length, left), length <= left)
        if length > left:
            self._file.seek(offset)
            return f'the record at byte {offset:,} is cut off'
        self._file.seek(offset + 9 + length)
        return ''

    def _note_record(self, opcode: int, offset: int, length: int, complete: bool) -> None:
        try:
            if opcode == CHUNK:
                self._note_chunk(offset, length, complete)
            elif opcode == MESSAGE_INDEX and self._blocks and self._blocks[-1].is_chunk:
                channel, size = struct.unpack('<HI', self._file.read(6)[:length])
                self._blocks[-1].counts[channel] += size // 16
            elif opcode == MESSAGE:
                self._note_message(offset, length)
            elif opcode in (SCHEMA, CHANNEL):
                self._definitions.add(opcode, self._file.read(min(length, MAX_RECORD)))
        except struct.error:
            self.damage.append(f'the record at byte {offset:,} is too short')
            self.missing[TRUNCATED] += 1

    def _note_chunk(self, offset: int, length: int, complete: bool) -> None:
        start_ns, end_ns, size = struct.unpack('<QQQ', self._file.read(24)[:length])
        self._expanded += size if complete and size <= MAX_MESSAGE else 0
        if self._expanded > max_expanded(self._size):
            raise ValueError(
                f'its chunks expand to more than {MAX_EXPANSION} times its '
                f'{self._size:,} bytes, and to more than {FREE_EXPANSION >> 30} GiB')
        self._blocks.append(_Block(offset, length, True, start_ns, end_ns, complete, size))

    def _note_message(self, offset: int, length: int) -> None:
        channel, _, time_ns, _ = struct.unpack('<HIQQ', self._file.read(22)[:length])
        if length > MAX_MESSAGE:
            self.missing[too_large('messages')] += 1
            return
        if time_ns >= LATEST_NS:
            self.missing[_NO_TIME] += 1
            return
        last = self._blocks[-1] if self._blocks else None
        end = offset + 9 + length
        if last is None or last.is_chunk or end - last.offset > _BLOCK_BYTES:
            last = _Block(offset, 0, False, checked=True)
            self._blocks.append(last)
        last.length = last.size = end - last.offset
        last.start_ns, last.end_ns = min(last.start_ns, time_ns), max(last.end_ns, time_ns)
        last.counts[channel] += 1

    def _check_counts(self) -> None:
        """Compare the indexes with the statistics; count the messages where they differ."""
        for opcode, data in self._summary.definitions:
            self._definitions.add(opcode, data)
        chunks = [block for block in self._blocks if block.is_chunk]
        for block in chunks:
            if not block.complete or not block.counts or any(
                    channel not in self.topics for channel in block.counts):
                self._count_messages(block)
        if self.damage or not self._indexes_agree():
            for block in chunks:
                if not block.checked:
                    self._count_messages(block)
        totals = self._totals()
        for channel, count in totals.items():
            if channel in self.topics:
                self.topics[channel].count = count
            else:
                self.missing['messages of channels that the file does not define'] += count
        if totals.total() > max_messages(self._size):
            raise ValueError(f'it contains {totals.total():,} messages, too many for its '
                             f'{self._size:,} bytes')
        missing = self._summary.messages - totals.total() - self.missing.total()
        if missing > 0:
            self.missing["messages counted by the file's statistics, but not in it"] += missing

    def _indexes_agree(self) -> bool:
        counted = [b for b in self._blocks if b.counts]
        span_ns = (min((b.start_ns for b in counted), default=0),
                   max((b.end_ns for b in counted), default=0))
        return (self._totals() == self._summary.counts and span_ns == self._summary.span_ns
                and span_ns[1] < LATEST_NS)

    def _totals(self) -> Counter[int]:
        totals: Counter[int] = Counter()
        for block in self._blocks:
            totals.update(block.counts)
        return totals

    def _count_messages(self, block: _Block) -> None:
        """Count the messages of a chunk."""
        indexed = block.counts.total()
        messages = self._parse(block)
        block.checked = True
        block.counts = Counter(messages.channels)
        self._parsed += len(messages.channels)
        if self._parsed > max_messages(self._size):
            raise ValueError(f'it contains more than {self._parsed:,} messages, too many for its '
                             f'{self._size:,} bytes')
        if messages.channels:
            block.start_ns, block.end_ns = min(messages.times_ns), max(messages.times_ns)
        self._note_missing(block, _NOT_IN_CHUNK, indexed - len(messages.channels))

    def _parse(self, block: _Block) -> _Messages:
        """Return the messages of a block in the order of the file; note its definitions."""
        raw = self._content(block)
        messages = _Messages(raw, array('H'), array('Q'), array('I'), array('I'))
        offset, late, limit = 0, 0, max_messages(self._size)
        while offset + 9 <= len(raw) and len(messages.channels) <= limit:
            opcode, length = _HEADER.unpack_from(raw, offset)
            offset += 9
            if offset + length > len(raw):
                self._note_missing(block, 'cut off mid-chunk', 1)
                break
            if opcode == MESSAGE and length >= 22:
                channel, _, time_ns = _MESSAGE_HEADER.unpack_from(raw, offset)
                if time_ns < LATEST_NS:
                    messages.channels.append(channel)
                    messages.times_ns.append(time_ns)
                    messages.starts.append(offset + 22)
                    messages.stops.append(offset + length)
                else:
                    late += block.is_chunk  # others were counted before
            elif opcode in (SCHEMA, CHANNEL):
                self._definitions.add(opcode, bytes(raw[offset:offset + length]))
            offset += length
        self._note_missing(block, _NO_TIME, late)
        return messages

    def _content(self, block: _Block) -> bytes | bytearray:
        """Return the records of a block, decompressed as far as possible."""
        self._file.seek(block.offset)
        if not block.is_chunk:
            return self._file.read(block.length)
        if block.size > MAX_MESSAGE:
            return self._note_unusable(block, too_large('messages in chunks'))
        head = self._file.read(41)
        try:
            size, crc, name_length = struct.unpack_from('<QII', head, 25)
            if name_length > MAX_NAME:
                raise ValueError('the name of its compression is too long')
            name = self._file.read(name_length + 8)[:name_length].decode()
            raw = decompress(self._file.read, block.length - 40 - name_length, name, size)
        except (struct.error, ValueError) as error:  # including UnicodeDecodeError
            return self._note_unusable(block, DAMAGED, str(error))
        if block.complete and len(raw) != size:
            return self._note_unusable(block, DAMAGED, 'its length is not the one that it states')
        if block.complete and crc and zlib.crc32(raw) != crc:
            return self._note_unusable(block, DAMAGED, 'its checksum does not match')
        return raw

    def _note_unusable(self, block: _Block, reason: str, detail: str = '') -> bytes:
        if block.offset not in self._counted:
            self.damage.append(f'the chunk at byte {block.offset:,}: {detail or reason}')
        self._note_missing(block, reason, max(1, block.counts.total()))
        return b''

    def _note_missing(self, block: _Block, reason: str, messages: int) -> None:
        """Count missing messages once, however often their block is read."""
        if messages > 0 and block.offset not in self._counted:
            self._counted.add(block.offset)
            self.missing[reason] += messages


def _in_order(times_ns: array[int]) -> Iterable[int]:
    """Return the rows in order of time, those of equal times in the order of the file."""
    column = np.frombuffer(times_ns, np.uint64) if times_ns else np.empty(0, np.uint64)
    if (column[1:] >= column[:-1]).all():
        return range(len(column))
    return memoryview(np.argsort(column, kind='stable'))  # type: ignore[arg-type]
