"""Hostile files: small on disk, large or endless when they are read."""

from __future__ import annotations

from collections.abc import Callable
import io
import os
from pathlib import Path
import pickle
import sqlite3
import struct
import tarfile
from typing import Any

from backports import zstd
import cv2
import lz4.frame
import numpy as np

GIB = 1 << 30
_MIB = 1 << 20
EXPANDED_BYTES = 3 * GIB
"""What a decompression bomb would unpack to: three times what a process may use here."""

_MCAP_MAGIC = b'\x89MCAP0\r\n'
_SCHEMA = (b'std_msgs/msg/Bool', b'ros2msg', b'bool data\n')
_CDR_BOOL = b'\0\1\0\0\1'


def _string(data: bytes) -> bytes:
    return struct.pack('<I', len(data)) + data


def _record(opcode: int, body: bytes) -> bytes:
    return struct.pack('<BQ', opcode, len(body)) + body


def _schema(number: int, name: bytes, encoding: bytes, text: bytes) -> bytes:
    return _record(3, struct.pack('<H', number) + _string(name) + _string(encoding)
                   + _string(text))


def _channel(number: int, schema: int, topic: bytes) -> bytes:
    return _record(4, struct.pack('<HH', number, schema) + _string(topic) + _string(b'cdr')
                   + _string(b''))


def _message(channel: int, time_ns: int, data: bytes) -> bytes:
    return _record(5, struct.pack('<HIQQ', channel, 0, time_ns, time_ns) + data)


def _chunk(size: int, compression: bytes, data: bytes) -> bytes:
    return _record(6, struct.pack('<QQQI', 1, 2, size, 0) + _string(compression)
                   + struct.pack('<Q', len(data)) + data)


def _mcap(*records: bytes) -> bytes:
    return b''.join([_MCAP_MAGIC, _record(1, _string(b'ros2') + _string(b'')), *records])


def zeros_by_zstd(size: int, head: bytes = b'') -> bytes:
    """Return `head` and `size` zero bytes, compressed by zstd."""
    compressor, block = zstd.ZstdCompressor(), bytes(_MIB)
    parts = [compressor.compress(head)]
    parts += [compressor.compress(block) for _ in range(size // _MIB)]
    return b''.join([*parts, compressor.flush()])


def zeros_by_lz4(size: int, head: bytes = b'') -> bytes:
    """Return `head` and `size` zero bytes, compressed by lz4."""
    compressor, block = lz4.frame.LZ4FrameCompressor(), bytes(_MIB)
    parts = [compressor.begin(), compressor.compress(head)]
    parts += [compressor.compress(block) for _ in range(size // _MIB)]
    return b''.join([*parts, compressor.flush()])


def _mcap_bomb(compression: bytes, compress: Callable[[int, bytes], bytes]) -> bytes:
    """Return an mcap whose chunk holds a message and then an unknown record of zeros."""
    head = _schema(1, *_SCHEMA) + _channel(1, 1, b'/x') + _message(1, 1, _CDR_BOOL)
    head += struct.pack('<BQ', 200, EXPANDED_BYTES)
    return _mcap(_chunk(len(head) + EXPANDED_BYTES, compression, compress(EXPANDED_BYTES, head)))


def _write(data: Callable[[], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data())


def _truncated_index() -> bytes:
    return _mcap(_schema(1, *_SCHEMA), _channel(1, 1, b'/x'), _chunk(0, b'', b''),
                 struct.pack('<BQ', 7, 4) + b'\1\0\0\0')


def _truncated_message() -> bytes:
    return _mcap(_schema(1, *_SCHEMA), _channel(1, 1, b'/x'), struct.pack('<BQ', 5, 3) + b'abc')


def _image_mcap(definition: bytes) -> bytes:
    """Return an mcap with one message of an image topic of this message definition."""
    return _mcap(_schema(1, b'sensor_msgs/msg/Image', b'ros2msg', definition),
                 _channel(1, 1, b'/image'), _message(1, 1, b'\0\1\0\0' + b'\1' * 64))


def _recursive_definition() -> bytes:
    return b'a_msgs/B b\n' + b'=' * 80 + b'\nMSG: a_msgs/B\na_msgs/B b\n'


_MESSAGES = ('CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, '
             'timestamp INTEGER NOT NULL, data BLOB NOT NULL)')


def _database(path: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
    connection = sqlite3.connect(path)
    connection.execute('CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT '
                       'NOT NULL, serialization_format TEXT NOT NULL, offered_qos_profiles TEXT '
                       'NOT NULL)')
    connection.execute(
        "INSERT INTO topics VALUES(1, '/image', 'sensor_msgs/msg/Image', 'cdr', '')")
    for statement, values in statements:
        connection.execute(statement, values)
    connection.commit()
    connection.close()


def _endless_view(path: Path) -> None:
    _database(path, (
        'CREATE VIEW messages AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) '
        'SELECT n AS id, 1 AS topic_id, n AS timestamp, zeroblob(1000) AS data FROM r', ()))


def _generated_column(path: Path) -> None:
    _database(path, (
        'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data '
        'BLOB GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL)', ()),
        *(('INSERT INTO messages(id, topic_id, timestamp) VALUES(?, 1, ?)', (i, i))
          for i in range(4)))


def _message_bomb(path: Path) -> None:
    data = zeros_by_zstd(EXPANDED_BYTES)
    _database(path, (_MESSAGES, ()), *(
        ('INSERT INTO messages VALUES(?, 1, ?, ?)', (i, i * 10, data)) for i in (1, 2)))


def _wrong_types(path: Path) -> None:
    rows = ((1, 1, 'abc', b'x'), (2, 1, 1.5, 'text'), (None, 1, -2 ** 63, b''),
            (4, 1, 2 ** 63 - 1, b'\0\1\0\0'), (5, '1', 7, None))
    _database(path, ('CREATE TABLE messages(id, topic_id, timestamp, data)', ()), *(
        ('INSERT INTO messages VALUES(?, ?, ?, ?)', row) for row in rows))


def _metadata(text: Callable[[], str]) -> Callable[[Path], None]:
    """Make a bag's folder with this metadata.yaml."""
    def make(path: Path) -> None:
        path.mkdir()
        (path / 'metadata.yaml').write_text(text())
        (path / 'bag_0.mcap').write_bytes(_truncated_message())
    return make


def _aliases() -> str:
    """Return YAML whose anchors multiply to a thousand million values."""
    lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
    lines += [f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 10)}]' for n in range(1, 9)]
    return '\n'.join([*lines, 'rosbag2_bagfile_information: *a8'])


def _elsewhere() -> str:
    return ('rosbag2_bagfile_information:\n  version: 9\n  storage_identifier: mcap\n'
            '  relative_file_paths: [../../../../../../etc/passwd]\n  message_count: 1\n'
            '  duration: {nanoseconds: 1}\n  starting_time: {nanoseconds_since_epoch: 1}\n'
            '  topics_with_message_count: []\n  compression_format: ""\n  compression_mode: ""\n'
            '  files: []\n')


BAGS: dict[str, tuple[str, Callable[[Path], None]]] = {
    'mcap: a zstd chunk that unpacks to 3 GiB': (
        'zstd.mcap', _write(lambda: _mcap_bomb(b'zstd', zeros_by_zstd))),
    'mcap: an lz4 chunk that unpacks to 3 GiB': (
        'lz4.mcap', _write(lambda: _mcap_bomb(b'lz4', zeros_by_lz4))),
    'mcap: truncated inside a message index': ('index.mcap', _write(_truncated_index)),
    'mcap: a message record of 3 bytes': ('short.mcap', _write(_truncated_message)),
    'mcap: a message definition that contains itself': (
        'recursive.mcap', _write(lambda: _image_mcap(_recursive_definition()))),
    'mcap: a message definition with arrays of 16 GB': ('arrays.mcap', _write(
        lambda: _image_mcap(b'uint8[2000000000] data\nfloat64[2000000000] y\n'))),
    'mcap: a message definition of 2 MB': (
        'definition.mcap', _write(lambda: _image_mcap(b'string x\n' * 200_000))),
    'sqlite: messages are an endless view': ('view.db3', _endless_view),
    'sqlite: messages in a generated column of 900 MB each': ('generated.db3', _generated_column),
    'sqlite: messages that unpack to 3 GiB': ('message.db3', _message_bomb),
    'sqlite: columns of wrong types': ('types.db3', _wrong_types),
    'sqlite: a file .zstd that unpacks to 3 GiB': (
        'file.db3.zstd', _write(lambda: zeros_by_zstd(EXPANDED_BYTES))),
    'metadata.yaml: aliases that multiply': ('aliases', _metadata(_aliases)),
    'metadata.yaml: nested 100,000 deep': (
        'deep', _metadata(lambda: 'a: ' + '[' * 100_000 + ']' * 100_000)),
    'metadata.yaml: a file outside of the folder': ('elsewhere', _metadata(_elsewhere)),
    'a FIFO named .mcap': ('fifo.mcap', os.mkfifo),
    'a link to /dev/zero named .mcap': ('zero.mcap', lambda path: path.symlink_to('/dev/zero')),
    'a link to /dev/full named .db3': ('full.db3', lambda path: path.symlink_to('/dev/full')),
}
"""Name of the file or folder, and what makes it, by what is wrong with it."""


def _segments(jpeg: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the marker segments up to the scan, and the coded data."""
    at, segments = 2, []
    while True:
        marker, = jpeg[at + 1:at + 2]
        length, = struct.unpack('>H', jpeg[at + 2:at + 4])
        segments.append((marker, jpeg[at:at + 2 + length]))
        at += 2 + length
        if marker == 0xDA:
            return segments, jpeg[at:]


def _segment(marker: int, body: bytes) -> bytes:
    return b'\xff' + bytes([marker]) + struct.pack('>H', len(body) + 2) + body


def hidden_size_jpeg(side: int = 32_000) -> bytes:
    """
    Return a JPEG of `side` x `side` pixels that seems to have 16 x 16.

    FF 00 before the true header is skipped by libjpeg; a simple parser takes it for a segment
    and continues behind the true header, where another frame header waits.
    """
    jpeg = cv2.imencode('.jpg', np.full((16, 16, 3), 128, np.uint8))[1].tobytes()
    segments, scan = _segments(jpeg)
    true = b''.join(
        data[:5] + struct.pack('>HH', side, side) + data[9:] if marker == 0xC0 else data
        for marker, data in segments) + scan[:-2]
    false = _segment(0xC0, struct.pack('>BHHB', 8, 16, 16, 3) + bytes(
        [1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]))
    return b'\xff\xd8\xff\x00' + struct.pack('>H', len(true) + 2) + true + false + b'\xff\xd9'


def many_scans_jpeg(scans: int = 2000, width: int = 8000, height: int = 6200) -> bytes:
    """Return a progressive JPEG of tiny scans, each of which visits every block."""
    blocks = -(-width // 8) * -(-height // 8)
    parts = [b'\xff\xd8', _segment(0xDB, b'\0' + b'\1' * 64),
             _segment(0xC2, struct.pack('>BHHB', 8, height, width, 1) + bytes([1, 0x11, 0])),
             _segment(0xC4, b'\x00' + bytes([1] + [0] * 15) + b'\0'),
             _segment(0xC4, b'\x10' + bytes([1] + [0] * 15) + b'\xe0'),
             _segment(0xDA, bytes([1, 1, 0, 0, 0, 0])), _bits('0' * blocks)]
    refinement = _bits(('0' + '1' * 14) * -(-blocks // 32_767))
    for scan in range(scans):
        band = 1 + scan % 63
        parts += [_segment(0xDA, bytes([1, 1, 0, band, band, 0])), refinement]
    return b''.join([*parts, b'\xff\xd9'])


def _bits(text: str) -> bytes:
    """Return bits as entropy-coded bytes, filled with ones and stuffed."""
    text += '1' * (-len(text) % 8)
    data = int(text, 2).to_bytes(len(text) // 8, 'big')
    return data.replace(b'\xff', b'\xff\0')


def png_bomb(side: int = 16_000) -> bytes:
    """Return a small PNG of `side` x `side` pixels."""
    return cv2.imencode('.png', np.zeros((side, side), np.uint8))[1].tobytes()


IMAGES: dict[str, Callable[[], bytes]] = {
    'a JPEG of 652 bytes that hides 32000 x 32000 pixels': hidden_size_jpeg,
    'a progressive JPEG of 2,000 scans': many_scans_jpeg,
    'a PNG of 16000 x 16000 pixels': png_bomb,
}
"""Compressed images by what is wrong with them."""


def tar_with_size(size_field: bytes) -> bytes:
    """Return a tar of two images; the second header has this size field of 12 bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w', format=tarfile.USTAR_FORMAT) as archive:
        for number in (1, 2):
            member = tarfile.TarInfo(f'frame_{number:010d}.jpg')
            member.size = 4
            archive.addfile(member, io.BytesIO(b'abcd'))
    data = bytearray(stream.getvalue())
    data[1024 + 124:1024 + 136] = size_field
    return bytes(data)


TARS: dict[str, Callable[[], bytes]] = {
    'a tar member of -512 bytes': lambda: tar_with_size(b'-0000001000\0'),
    'a tar member of 8 EB': lambda: tar_with_size(b'\x80' + (2 ** 63 - 1).to_bytes(11, 'big')),
}
"""Archives of images by what is wrong with them."""


class _Code:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.witness,)


def pickled_code(witness: Path) -> bytes:
    """Return a pickle that makes the file `witness` when it is loaded."""
    return pickle.dumps(_Code(witness))
