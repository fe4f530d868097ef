"""
Whether the sample tables of an mp4 or mov fit into it.

FFmpeg reserves 32 bytes for every frame that a table claims, before it reads the first: a file of
a kilobyte would take gigabytes.
"""

from __future__ import annotations

from pathlib import Path
import struct
from typing import Any

from karmma_ros.errors_data import DataError

_MAX_TABLES = 512 << 20
_MAX_BOXES = 1 << 20


def check_tables(path: Path, file: Any, size: int) -> None:
    """
    Check what the tables of a file claim against its size; other containers pass.

    :param file: open for reading, at any place; it is left at any place.
    :param size: of the file, bytes.
    :raises DataError: when a table claims more frames than there are bytes.
    """
    file.seek(0)
    if file.read(12)[4:8] not in (b'ftyp', b'moov', b'moof', b'styp', b'wide', b'free', b'skip',
                                  b'mdat', b'sidx'):
        return
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        length, kind = struct.unpack('>I4s', head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack('>Q', head[8:])[0]
        length = size - at if length == 0 else length
        if length < 8:
            return
        if kind in (b'moov', b'moof'):
            file.seek(at)
            _check(path, file.read(min(length, size - at, _MAX_TABLES)), size)
        at += length
    raise DataError(path, f'it has over {_MAX_BOXES:,} boxes', 'convert it anew')


def _check(path: Path, box: bytes, size: int) -> None:
    for name, offset in ((b'stsz', 12), (b'stz2', 12), (b'trun', 8)):
        at = box.find(name)
        while at >= 0:
            count = int.from_bytes(box[at + offset:at + offset + 4], 'big')
            if count > size:
                raise DataError(
                    path, f'it claims {count:,} frames in {size:,} bytes',
                    'fetch it again: it is damaged, or made to do harm')
            at = box.find(name, at + 4)
