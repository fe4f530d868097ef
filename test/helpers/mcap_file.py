"""Write MCAP files record by record, valid or not."""

from __future__ import annotations

from dataclasses import dataclass
import struct
import zlib

MAGIC = b'\x89MCAP0\r\n'
BOOL = b'\0\1\0\0\1'
"""A std_msgs/Bool as CDR."""


def text(content: bytes) -> bytes:
    return struct.pack('<I', len(content)) + content


def record(opcode: int, body: bytes) -> bytes:
    return struct.pack('<BQ', opcode, len(body)) + body


def schema(number: int = 1, name: bytes = b'std_msgs/msg/Bool', form: bytes = b'ros2msg',
           definition: bytes = b'bool data\n') -> bytes:
    return record(3, struct.pack('<H', number) + text(name) + text(form) + text(definition))


def channel(number: int = 1, of: int = 1, topic: bytes = b'/a') -> bytes:
    return record(4, struct.pack('<HH', number, of) + text(topic) + text(b'cdr') + text(b''))


def message(number: int, time_ns: int, data: bytes = BOOL) -> bytes:
    return record(5, struct.pack('<HIQQ', number, 0, time_ns, time_ns) + data)


@dataclass
class Chunk:
    """One chunk with its message indexes."""

    messages: list[tuple[int, int]]
    """Channel and time."""
    indexed: tuple[int, ...] | None = None
    """Channels with a message index; None for all, () for none."""
    compression: bytes = b''
    content: bytes | None = None
    """Compressed records, in place of those of the messages."""
    size: int | None = None
    """Stated uncompressed size; None for the actual one."""
    crc: int | None = None
    """Stated checksum; None for the right one."""
    definitions: bytes = b''

    def records(self) -> tuple[bytes, bytes]:
        """Return the chunk and its message indexes."""
        raw = self.definitions + b''.join(message(*each) for each in self.messages)
        times = [time_ns for _, time_ns in self.messages] or [0]
        crc = zlib.crc32(raw) if self.crc is None else self.crc
        content = raw if self.content is None else self.content
        size = len(raw) if self.size is None else self.size
        body = struct.pack('<QQQI', min(times), max(times), size, crc) + text(
            self.compression) + struct.pack('<Q', len(content)) + content
        counted = {number for number, _ in self.messages}
        indexes = b''
        for number in sorted(counted if self.indexed is None else self.indexed):
            entries = b''.join(struct.pack('<QQ', time_ns, 0)
                               for n, time_ns in self.messages if n == number)
            indexes += record(7, struct.pack('<H', number) + text(entries))
        return record(6, body), indexes


def mcap(*parts: Chunk | bytes, definitions: bytes | None = None, summary: bool = True,
         more: int = 0, end: bool = True) -> bytes:
    """
    Return a file.

    :param parts: chunks, or records as bytes, in order.
    :param summary: write statistics, definitions and chunk indexes.
    :param more: messages of channel 1 that the statistics count and the file does not contain.
    :param end: write the end of data and the footer.
    """
    first = schema() + channel(1) + channel(2, topic=b'/b') if definitions is None else definitions
    data = MAGIC + record(1, text(b'ros2') + text(b'test')) + first
    written, indexes = [], b''
    for part in parts:
        if isinstance(part, bytes):
            data += part
            if part[:1] == b'\5' and len(part) >= 31:
                number, _, time_ns = struct.unpack_from('<HIQ', part, 9)
                written.append((number, time_ns))
            continue
        chunk, index = part.records()
        times = [time_ns for _, time_ns in part.messages] or [0]
        indexes += record(8, struct.pack(
            '<QQQQ', min(times), max(times), len(data), len(chunk)) + bytes(4 + 8) + text(b'')
            + bytes(16))
        data += chunk + index
        written += part.messages
    if not end:
        return data
    data += record(15, bytes(4))
    start = len(data) if summary else 0
    if summary:
        counts = {n: sum(n == other for other, _ in written) for n, _ in written}
        if more:
            counts[1] = counts.get(1, 0) + more
        times = [time_ns for _, time_ns in written] or [0]
        data += first + record(11, struct.pack(
            '<QHIIIIQQ', len(written) + more, 1, 2, 0, 0, 0, min(times), max(times)) + text(
            b''.join(struct.pack('<HQ', *each) for each in counts.items()))) + indexes
    return data + record(2, struct.pack('<QQI', start, 0, 0)) + MAGIC
