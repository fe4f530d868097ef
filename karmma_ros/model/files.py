"""
Open the files of a model directory, none of which is trusted.

A pipe (FIFO) blocks whoever opens it until somebody writes to it, and a device never ends. So
each file is opened without blocking, and refused unless it is a regular file of a bounded size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import hashlib
import json
import os
from pathlib import Path
import stat
from typing import Any, BinaryIO

from safetensors import safe_open, SafetensorError

MOST_JSON = 4 * 2**20
"""Bytes of a JSON file; a configuration with 100,000 classes of 30 letters has 3.6 MB."""
_MOST_CONTAINERS = 10_000
"""Objects and lists in a JSON file: the parser holds Python's lock, and these take longest."""
_MOST_HEADER = 8 * 2**20
"""Bytes of the header of a safetensors file; 10,000 tensors take 1.5 MB."""
_TYPES = {
    stat.S_ISDIR: 'directory', stat.S_ISFIFO: 'pipe (FIFO)', stat.S_ISSOCK: 'socket',
    stat.S_ISCHR: 'character device', stat.S_ISBLK: 'block device'}


@contextmanager
def open_regular_file(path: Path, most: int | None = None) -> Iterator[BinaryIO]:
    """
    Open a regular file, or a link to one, for reading; never wait for another process.

    :param most: bytes that it may have; None: any number.
    :raises OSError: when it is missing, is not a regular file, or is larger.
    """
    _check_type(os.stat(path))  # before it is opened: to open a device may have an effect
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, 'rb') as file:
        status = os.fstat(descriptor)
        _check_type(status)
        if most is not None and status.st_size > most:
            raise OSError(f'it has {status.st_size} bytes, expected at most {most}')
        yield file


def read_regular_file(path: Path, most: int) -> bytes:
    """
    Read a regular file of at most `most` bytes.

    :raises OSError: as `open_regular_file` does, and when it grows meanwhile.
    """
    with open_regular_file(path, most) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f'it has more than {most} bytes')
    return content


def read_json(path: Path, most: int = MOST_JSON) -> Any:
    """
    Read a JSON file of bounded size and structure.

    :raises OSError: as `read_regular_file` does.
    :raises ValueError: when it is not JSON, or has more objects and lists than any of ours.
    """
    text = read_regular_file(path, most).decode('utf-8')
    containers = text.count('[') + text.count('{')
    if containers > _MOST_CONTAINERS:
        raise ValueError(f'it has {containers} objects and lists, expected at most '
                         f'{_MOST_CONTAINERS}')
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error


def digest_of_file(path: Path) -> bytes:
    """Return the SHA-256 of a file that may be too large to hold in memory a second time."""
    digest = hashlib.sha256()
    with open_regular_file(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.digest()


@contextmanager
def open_safetensors(path: Path, framework: str, most: int | None = None) -> Iterator[safe_open]:
    """
    Open a safetensors file whose header has a bounded size.

    :param framework: `pt` or `np`: what its tensors become.
    :param most: bytes that the file may have; None: any number.
    :raises OSError: as `open_regular_file` does.
    :raises SafetensorError: when it is not one.
    """
    with open_regular_file(path, most) as file:
        header = int.from_bytes(file.read(8), 'little')
    if header > _MOST_HEADER:
        raise SafetensorError(f'its header has {header} bytes, expected at most {_MOST_HEADER}')
    with safe_open(path, framework=framework) as tensors:
        yield tensors


def load_safetensors(path: Path) -> Mapping[str, Any]:
    """Return the tensors of a safetensors file by name; errors as `open_safetensors`."""
    with open_safetensors(path, 'pt') as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}


def _check_type(status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    found = next((name for test, name in _TYPES.items() if test(status.st_mode)), 'special file')
    raise OSError(f'it is a {found}, expected a regular file')
