"""What the summary at the end of an MCAP file promises: counts, definitions, where chunks lie."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
import struct
from typing import BinaryIO

from karmma_ros.bags.message_definitions import CHANNEL, LONGEST_DEFINITION, SCHEMA

MAGIC = b'\x89MCAP0\r\n'
FOOTER, CHUNK_INDEX, STATISTICS = 2, 8, 11
_FOOTER_BYTES = 9 + 20
_STATISTICS = struct.Struct('<QHIIIIQQI')
_COUNT = struct.Struct('<HQ')


@dataclass
class Summary:
    """One summary; everything is empty where the file has none."""

    counts: Counter[int] | None = None
    """Channel → messages; None without statistics."""
    messages: int = 0
    span_ns: tuple[int, int] = (0, 0)
    """Times of the first message and of the last one."""
    definitions: list[tuple[int, bytes]] = field(default_factory=list)
    """Kind and content of each record of a schema or a channel."""
    chunks: list[int] = field(default_factory=list)
    """Where chunks begin, in order."""

    def chunk_after(self, offset: int) -> int | None:
        """Return where the first chunk after a byte begins, if there is one."""
        place = bisect_right(self.chunks, offset)
        return self.chunks[place] if place < len(self.chunks) else None


def read_summary(file: BinaryIO, size: int) -> Summary:
    """Read the summary of a file of so many bytes; one that is damaged promises nothing more."""
    summary = Summary()
    end = size - len(MAGIC) - _FOOTER_BYTES
    if end < len(MAGIC):
        return summary
    file.seek(end)
    footer = file.read(_FOOTER_BYTES + len(MAGIC))
    if footer[:9] != struct.pack('<BQ', FOOTER, 20) or not footer.endswith(MAGIC):
        return summary
    (place,) = struct.unpack_from('<Q', footer, 9)
    while len(MAGIC) < place <= end - 9:
        file.seek(place)
        kind, length = struct.unpack('<BQ', file.read(9))
        place += 9 + length
        if place > end or not kind:  # zeros are no records, however many
            break
        _take(summary, file, kind, length)
    summary.chunks.sort()
    return summary


def _take(summary: Summary, file: BinaryIO, kind: int, length: int) -> None:
    if kind in (SCHEMA, CHANNEL) and length <= LONGEST_DEFINITION:
        summary.definitions.append((kind, file.read(length)))
    elif kind == CHUNK_INDEX and length >= 24:
        summary.chunks.append(struct.unpack('<QQQ', file.read(24))[2])
    elif kind == STATISTICS and length >= _STATISTICS.size:
        facts = _STATISTICS.unpack(file.read(_STATISTICS.size))
        summary.messages, summary.span_ns = facts[0], (facts[6], facts[7])
        rest = file.read(min(facts[8], length - _STATISTICS.size, _COUNT.size << 16))
        pairs = _COUNT.iter_unpack(rest[:len(rest) // _COUNT.size * _COUNT.size])
        summary.counts = Counter({channel: count for channel, count in pairs if count})
