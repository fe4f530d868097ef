"""
MCAP files, record by record, as the recorder wrote them: intact, cut off, damaged or unindexed.

The file is walked from its start, chunk by chunk; its indexes are used as far as they agree with
each other, and checked where they do not. What the file promises and does not hold is counted. A
chunk that is cut off returns the messages before the cut; one whose checksum is wrong, none.
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
    MOST_BYTES,
    most_expanded,
    MOST_EXPANSION,
    MOST_HELD,
    most_messages,
    MOST_NAME,
    size_of,
    too_large,
)
from karmma_ros.bags.mcap_summary import MAGIC, read_summary
from karmma_ros.bags.message_definitions import CHANNEL, Definitions, LONGEST_DEFINITION, SCHEMA
from karmma_ros.files import open_regular
import numpy as np

_FOOTER, _MESSAGE, _CHUNK, _INDEX, _DATA_END = 2, 5, 6, 7, 15
_HEAD, _MESSAGE_HEAD = struct.Struct('<BQ'), struct.Struct('<HIQ')
_RUN_BYTES = 4_000_000
"""Messages outside of chunks are taken together up to so many bytes."""
LATEST_NS = 2**63 - 1
"""Later than any message: ROS counts nanoseconds in 64 bits, one of them the sign."""
DAMAGED, CUT_OFF = 'in a damaged chunk', 'cut-off or unreadable record'
_NOT_THERE = 'named by an index, but not in its chunk'
_NO_TIME = 'messages with a time after the year 2262'


@dataclass
class _Block:
    """Messages that lie together: a chunk, or a run of messages outside of any."""

    offset: int
    length: int
    is_chunk: bool
    start_ns: int = 2**64
    end_ns: int = 0
    whole: bool = True
    size: int = 0
    """Bytes once decompressed."""
    checked: bool = False
    """Whether its messages were counted; else its index is believed."""
    counts: Counter[int] = field(default_factory=Counter)


class _Found(NamedTuple):
    """The messages of a block: columns of equal length."""

    raw: bytes | bytearray
    channels: array[int]
    times_ns: array[int]
    starts: array[int]
    stops: array[int]


class RecoveredMcap:
    """One file; its topics, and its messages in order of time."""

    def __init__(self, path: Path) -> None:
        """
        Walk through the file.

        :raises ValueError: when it is no MCAP file at all.
        """
        self.path, self.lost, self.unread = path, Counter[str](), 0
        """`unread` is the number of bytes after the last record that could be read."""
        self.damage: list[str] = []
        """What is wrong with the file; nothing, where it is intact."""
        self._definitions = Definitions(self.lost)
        self.topics = self._definitions.topics
        self._blocks: list[_Block] = []
        self._counted: set[int] = set()
        self._expanded = self._parsed = self._held = 0
        self._file = open_regular(path)
        try:
            self._size = size_of(self._file)
            if self._file.read(8) != MAGIC:
                raise ValueError('it does not begin as an MCAP file does')
            self._summary = read_summary(self._file, self._size)
            self._walk()
            self._check()
        except BaseException:
            self._file.close()
            raise

    @property
    def start_ns(self) -> int:
        """Return the time of the first message; a huge one if there is none."""
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
        """Channel, time and bytes of the messages from `start_ns` until before `stop_ns`."""
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
        """Return a mark at its start, so that it is read when its time comes, and its messages."""
        yield block.start_ns, place, -1, -1, b''
        if self._held and self._held + block.size > MOST_HELD:
            self._unusable(block, 'in chunks that overlap in time by more than '
                           f'{MOST_HELD >> 20} MiB')
            return
        self._held += block.size
        try:
            found = self._parse(block)
            self._count(block, _NOT_THERE, (block.counts - Counter(found.channels)).total())
            for number, row in enumerate(_in_order(found.times_ns)):
                channel, time_ns = found.channels[row], found.times_ns[row]
                if channel in chosen and start_ns <= time_ns < stop_ns:
                    data = bytes(found.raw[found.starts[row]:found.stops[row]])
                    yield time_ns, place, number, channel, data
        finally:
            self._held -= block.size

    def _walk(self) -> None:
        """Go from record to record; after an unreadable one, to the next chunk of the index."""
        self._file.seek(len(MAGIC))
        while (problem := self._step()) is not None:
            if not problem:
                continue
            offset = self._file.tell()
            self.damage.append(problem)
            self.lost[CUT_OFF] += 1
            behind = self._summary.chunk_after(offset)
            if behind is None:
                self.unread = self._size - offset
                return
            self._file.seek(behind)

    def _step(self) -> str | None:
        """
        Take one record, and go to the next one.

        :returns: '' for a record that is whole, None at the end of the data; else what is wrong,
            and the file is where the record began.
        """
        offset = self._file.tell()
        head = self._file.read(9)
        self._file.seek(offset)
        if len(head) < 9:
            return 'it is cut off: its end is missing'
        kind, length = struct.unpack('<BQ', head)
        if kind in (_FOOTER, _DATA_END):
            return None
        if kind == 0 or 15 < kind < 128:
            return f'there is no record at byte {offset:,}'
        left = self._size - offset - 9
        if length <= left or kind == _CHUNK:
            self._file.seek(9, 1)
            self._record(kind, offset, min(length, left), length <= left)
        if length > left:
            self._file.seek(offset)
            return f'the record at byte {offset:,} is cut off'
        self._file.seek(offset + 9 + length)
        return ''

    def _record(self, kind: int, offset: int, length: int, whole: bool) -> None:
        try:
            if kind == _CHUNK:
                self._note_chunk(offset, length, whole)
            elif kind == _INDEX and self._blocks and self._blocks[-1].is_chunk:
                channel, size = struct.unpack('<HI', self._file.read(6)[:length])
                self._blocks[-1].counts[channel] += size // 16
            elif kind == _MESSAGE:
                self._note_message(offset, length)
            elif kind in (SCHEMA, CHANNEL):
                self._definitions.take(kind, self._file.read(min(length, LONGEST_DEFINITION)))
        except struct.error:
            self.damage.append(f'the record at byte {offset:,} is too short')
            self.lost[CUT_OFF] += 1

    def _note_chunk(self, offset: int, length: int, whole: bool) -> None:
        start_ns, end_ns, size = struct.unpack('<QQQ', self._file.read(24)[:length])
        self._expanded += size if whole and size <= MOST_BYTES else 0
        if self._expanded > most_expanded(self._size):
            raise ValueError(
                f'its chunks expand to more than {MOST_EXPANSION} times its '
                f'{self._size:,} bytes, and to more than {FREE_EXPANSION >> 30} GiB')
        self._blocks.append(_Block(offset, length, True, start_ns, end_ns, whole, size))

    def _note_message(self, offset: int, length: int) -> None:
        channel, _, time_ns, _ = struct.unpack('<HIQQ', self._file.read(22)[:length])
        if length > MOST_BYTES:
            self.lost[too_large('messages')] += 1
            return
        if time_ns >= LATEST_NS:
            self.lost[_NO_TIME] += 1
            return
        last = self._blocks[-1] if self._blocks else None
        end = offset + 9 + length
        if last is None or last.is_chunk or end - last.offset > _RUN_BYTES:
            last = _Block(offset, 0, False, checked=True)
            self._blocks.append(last)
        last.length = last.size = end - last.offset
        last.start_ns, last.end_ns = min(last.start_ns, time_ns), max(last.end_ns, time_ns)
        last.counts[channel] += 1

    def _check(self) -> None:
        """Compare the indexes with the statistics; where they differ, count what is there."""
        for kind, data in self._summary.definitions:
            self._definitions.take(kind, data)
        chunks = [block for block in self._blocks if block.is_chunk]
        for block in chunks:
            if not block.whole or not block.counts or any(
                    channel not in self.topics for channel in block.counts):
                self._settle(block)
        if self.damage or not self._indexes_agree():
            for block in chunks:
                if not block.checked:
                    self._settle(block)
        totals = self._totals()
        for channel, count in totals.items():
            if channel in self.topics:
                self.topics[channel].count = count
            else:
                self.lost['messages of channels that the file does not define'] += count
        if totals.total() > most_messages(self._size):
            raise ValueError(f'it holds {totals.total():,} messages, too many for its '
                             f'{self._size:,} bytes')
        missing = self._summary.messages - totals.total() - self.lost.total()
        if missing > 0:
            self.lost["named by the file's statistics, but not in it"] += missing

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

    def _settle(self, block: _Block) -> None:
        """Count what is in a chunk."""
        promised = block.counts.total()
        found = self._parse(block)
        block.checked = True
        block.counts = Counter(found.channels)
        self._parsed += len(found.channels)
        if self._parsed > most_messages(self._size):
            raise ValueError(f'it holds more than {self._parsed:,} messages, too many for its '
                             f'{self._size:,} bytes')
        if found.channels:
            block.start_ns, block.end_ns = min(found.times_ns), max(found.times_ns)
        self._count(block, _NOT_THERE, promised - len(found.channels))

    def _parse(self, block: _Block) -> _Found:
        """Return the messages of a block in the order of the file; definitions are noted."""
        raw = self._content(block)
        found = _Found(raw, array('H'), array('Q'), array('I'), array('I'))
        place, timeless, most = 0, 0, most_messages(self._size)
        while place + 9 <= len(raw) and len(found.channels) <= most:
            kind, length = _HEAD.unpack_from(raw, place)
            place += 9
            if place + length > len(raw):
                self._count(block, 'cut off mid-chunk', 1)
                break
            if kind == _MESSAGE and length >= 22:
                channel, _, time_ns = _MESSAGE_HEAD.unpack_from(raw, place)
                if time_ns < LATEST_NS:
                    found.channels.append(channel)
                    found.times_ns.append(time_ns)
                    found.starts.append(place + 22)
                    found.stops.append(place + length)
                else:
                    timeless += block.is_chunk  # others were counted before
            elif kind in (SCHEMA, CHANNEL):
                self._definitions.take(kind, bytes(raw[place:place + length]))
            place += length
        self._count(block, _NO_TIME, timeless)
        return found

    def _content(self, block: _Block) -> bytes | bytearray:
        """Return the records of a block, decompressed as far as they can be."""
        self._file.seek(block.offset)
        if not block.is_chunk:
            return self._file.read(block.length)
        if block.size > MOST_BYTES:
            return self._unusable(block, too_large('messages in chunks'))
        head = self._file.read(41)
        try:
            size, crc, name_length = struct.unpack_from('<QII', head, 25)
            if name_length > MOST_NAME:
                raise ValueError('the name of its compression is too long')
            name = self._file.read(name_length + 8)[:name_length].decode()
            raw = decompress(
                self._file.read, block.length - 40 - name_length, name, size)
        except (struct.error, ValueError) as error:  # UnicodeDecodeError is one, too
            return self._unusable(block, DAMAGED, str(error))
        if block.whole and len(raw) != size:
            return self._unusable(block, DAMAGED, 'its content has another length than it states')
        if block.whole and crc and zlib.crc32(raw) != crc:
            return self._unusable(block, DAMAGED, 'its checksum does not match')
        return raw

    def _unusable(self, block: _Block, reason: str, why: str = '') -> bytes:
        if block.offset not in self._counted:
            self.damage.append(f'the chunk at byte {block.offset:,}: {why or reason}')
        self._count(block, reason, max(1, block.counts.total()))
        return b''

    def _count(self, block: _Block, reason: str, messages: int) -> None:
        """Count a loss once, however often its block is read."""
        if messages > 0 and block.offset not in self._counted:
            self._counted.add(block.offset)
            self.lost[reason] += messages


def _in_order(times_ns: array[int]) -> Iterable[int]:
    """Return the rows by their times; those of equal times as they lie."""
    column = np.frombuffer(times_ns, np.uint64) if times_ns else np.empty(0, np.uint64)
    if (column[1:] >= column[:-1]).all():
        return range(len(column))
    return memoryview(np.argsort(column, kind='stable'))  # type: ignore[arg-type]
