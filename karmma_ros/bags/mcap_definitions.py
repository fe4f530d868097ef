"""Schemas and channels of an MCAP file: which topic a message is of, and how it is encoded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from io import BytesIO
import struct

from karmma_ros.bags.limits import MOST_NAME
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

SCHEMA, CHANNEL = 3, 4
LONGEST_DEFINITION = 4 << 20
"""Bytes of a record of a schema or a channel."""
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
    qos: str = ''
    """What its publishers offered, YAML as rosbag2 writes it; '' where that is not known."""


class Definitions:
    """Those of one file; the first one of a number counts."""

    def __init__(self, lost: Counter[str]) -> None:
        """Take where to count definitions that are of no use."""
        self.topics: dict[int, FileTopic] = {}
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._contradictions: set[tuple[str, ...]] = set()
        self._lost = lost

    def take(self, kind: int, data: bytes) -> None:
        """Read the record of a schema or a channel."""
        fields = BytesIO(data)
        try:
            if kind == SCHEMA:
                self._take_schema(fields)
            else:
                self._take_channel(fields)
        except (struct.error, ValueError):  # UnicodeDecodeError is one, too
            self._lost['unreadable definitions'] += 1

    def _take_schema(self, fields: BytesIO) -> None:
        (number,) = struct.unpack('<H', fields.read(2))
        schema = _text(fields, MOST_NAME), _text(fields, MOST_NAME), _text(fields)
        self._check_same(self._schemas.setdefault(number, schema), schema)

    def _take_channel(self, fields: BytesIO) -> None:
        number, schema = struct.unpack('<HH', fields.read(4))
        name, encoding = _text(fields, MOST_NAME), _text(fields, MOST_NAME)
        type_name, form, text = self._schemas.get(schema, ('', '', ''))
        definition = MessageDefinition(_FORMATS[form], text) if form in _FORMATS else None
        topic = FileTopic(name, type_name, encoding, definition, qos=_qos(fields))
        first = self.topics.setdefault(number, topic)
        self._check_same((first.name, first.type), (name, type_name))

    def _check_same(self, first: tuple[str, ...], second: tuple[str, ...]) -> None:
        if first != second and second not in self._contradictions:
            self._contradictions.add(second)
            self._lost['definitions that contradict an earlier one of the same number'] += 1


def _text(fields: BytesIO, most: int = LONGEST_DEFINITION) -> str:
    (length,) = struct.unpack('<I', fields.read(4))
    data = fields.read(min(length, most))
    if len(data) != length:
        raise ValueError('a text is cut off or too long')
    return data.decode()


def _qos(fields: BytesIO) -> str:
    """Read what the publishers offered from what a channel has beside its name."""
    fields.read(4)
    while fields.tell() < len(fields.getbuffer()):
        name, text = _text(fields), _text(fields)
        if name == 'offered_qos_profiles':
            return text
    return ''
