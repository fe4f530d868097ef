"""
Records of an MCAP file: schemas and channels, and the summary at its end.

Schemas and channels state the topic of a message and its encoding; the summary states the number
of messages and the offsets of the chunks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO
import struct
from typing import BinaryIO

from karmma_ros.bags.limits import MAX_NAME
from karmma_ros.bags.message_definitions import Topic
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

MAGIC = b'\x89MCAP0\r\n'
FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = 2, 3, 4, 5, 6, 7, 8
STATISTICS, DATA_END = 11, 15
MAX_RECORD = 4 << 20
"""Bytes of a record of a schema or a channel."""
_FOOTER_BYTES = 9 + 20
_STATISTICS = struct.Struct('<QHIIIIQQI')
_COUNT = struct.Struct('<HQ')
_FORMATS = {'ros2msg': MessageDefinitionFormat.MSG, 'ros2idl': MessageDefinitionFormat.IDL,
            'omgidl': MessageDefinitionFormat.IDL}


class Definitions:
    """The schemas and channels of one file; the first one with an id counts."""

    def __init__(self, missing: Counter[str]) -> None:
        """
        Start empty.

        :param missing: counts definitions that are unreadable or contradict others.
        """
        self.topics: dict[int, Topic] = {}
        """Channel → topic."""
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._contradictions: set[tuple[str, ...]] = set()
        self._missing = missing

    def add(self, opcode: int, data: bytes) -> None:
        """Read the record of a schema or a channel."""
        fields = BytesIO(data)
        try:
            if opcode == SCHEMA:
                self._add_schema(fields)
            else:
                self._add_channel(fields)
        except (struct.error, ValueError):  # including UnicodeDecodeError
            self._missing['unreadable definitions'] += 1

    def _add_schema(self, fields: BytesIO) -> None:
        (number,) = struct.unpack('<H', fields.read(2))
        schema = _text(fields, MAX_NAME), _text(fields, MAX_NAME), _text(fields)
        self._check_same(self._schemas.setdefault(number, schema), schema)

    def _add_channel(self, fields: BytesIO) -> None:
        number, schema = struct.unpack('<HH', fields.read(4))
        name, encoding = _text(fields, MAX_NAME), _text(fields, MAX_NAME)
        type_name, form, text = self._schemas.get(schema, ('', '', ''))
        definition = MessageDefinition(_FORMATS[form], text) if form in _FORMATS else None
        topic = Topic(name, type_name, encoding, definition, qos=_qos(fields))
        first = self.topics.setdefault(number, topic)
        self._check_same((first.name, first.type), (name, type_name))

    def _check_same(self, first: tuple[str, ...], second: tuple[str, ...]) -> None:
        if first != second and second not in self._contradictions:
            self._contradictions.add(second)
            self._missing['definitions that contradict an earlier one of the same number'] += 1


def _text(fields: BytesIO, limit: int = MAX_RECORD) -> str:
    (length,) = struct.unpack('<I', fields.read(4))
    data = fields.read(min(length, limit))
    if len(data) != length:
        raise ValueError('a text is cut off or too long')
    return data.decode()


def _qos(fields: BytesIO) -> str:
    """Read the offered QoS from the metadata of a channel."""
    fields.read(4)
    while fields.tell() < len(fields.getbuffer()):
        name, text = _text(fields), _text(fields)
        if name == 'offered_qos_profiles':
            return text
    return ''


@dataclass
class Summary:
    """The summary of one file; empty where the file has none."""

    counts: Counter[int] | None = None
    """Channel → messages; None without statistics."""
    messages: int = 0
    span_ns: tuple[int, int] = (0, 0)
    """Times of the first message and of the last one."""
    definitions: list[tuple[int, bytes]] = field(default_factory=list)
    """Opcode and content of each record of a schema or a channel."""
    chunks: list[int] = field(default_factory=list)
    """Offsets of the chunks, in order."""

    def chunk_after(self, offset: int) -> int | None:
        """Return the offset of the first chunk after an offset; None without any."""
        index = bisect_right(self.chunks, offset)
        return self.chunks[index] if index < len(self.chunks) else None


def read_summary(file: BinaryIO, size: int) -> Summary:
    """Read the summary of a file of `size` bytes, as far as it is intact."""
    summary = Summary()
    end = size - len(MAGIC) - _FOOTER_BYTES
    if end < len(MAGIC):
        return summary
    file.seek(end)
    footer = file.read(_FOOTER_BYTES + len(MAGIC))
    if footer[:9] != struct.pack('<BQ', FOOTER, 20) or not footer.endswith(MAGIC):
        return summary
    (offset,) = struct.unpack_from('<Q', footer, 9)
    while len(MAGIC) < offset <= end - 9:
        file.seek(offset)
        opcode, length = struct.unpack('<BQ', file.read(9))
        offset += 9 + length
        if offset > end or not opcode:  # zeros are not a record
            break
        _add_record(summary, file, opcode, length)
    summary.chunks.sort()
    return summary


def _add_record(summary: Summary, file: BinaryIO, opcode: int, length: int) -> None:
    if opcode in (SCHEMA, CHANNEL) and length <= MAX_RECORD:
        summary.definitions.append((opcode, file.read(length)))
    elif opcode == CHUNK_INDEX and length >= 24:
        summary.chunks.append(struct.unpack('<QQQ', file.read(24))[2])
    elif opcode == STATISTICS and length >= _STATISTICS.size:
        fields = _STATISTICS.unpack(file.read(_STATISTICS.size))
        summary.messages, summary.span_ns = fields[0], (fields[6], fields[7])
        rest = file.read(min(fields[8], length - _STATISTICS.size, _COUNT.size << 16))
        pairs = _COUNT.iter_unpack(rest[:len(rest) // _COUNT.size * _COUNT.size])
        summary.counts = Counter({channel: count for channel, count in pairs if count})
