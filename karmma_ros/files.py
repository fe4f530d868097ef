"""
Open local files that are not trusted.

A pipe (FIFO) blocks whoever opens it until somebody writes to it, a device never ends, and some
libraries take a name for a URL. So a file is opened without blocking, and refused unless it is a
regular file, or a link to one, of a bounded size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import re
import stat
from typing import BinaryIO

from karmma_ros.errors import DataError

_URL = re.compile(r'[a-z][a-z0-9+.-]+:', re.IGNORECASE)
_REMEDY = 'check the path and whether it is the right file'
_TYPES = {
    stat.S_ISDIR: 'directory', stat.S_ISFIFO: 'pipe (FIFO)', stat.S_ISSOCK: 'socket',
    stat.S_ISCHR: 'character device', stat.S_ISBLK: 'block device'}


class UnsuitableFileError(OSError, ValueError):
    """A path is not a regular file, or the file is too large."""


def open_regular(path: Path, most: int | None = None, *, buffering: int = -1) -> BinaryIO:
    """
    Open a regular file for reading; never wait for another process.

    :param most: bytes that it may have; None: any number.
    :param buffering: as of `open`; 0 for none.
    :raises UnsuitableFileError: when it is not a regular file, or is larger.
    :raises OSError: when it cannot be opened.
    """
    _check_type(os.stat(path))  # before it is opened: to open a device may have an effect
    # Without O_NONBLOCK the opening of a FIFO waits for a writer.
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), 'rb', buffering)
    try:
        status = os.fstat(file.fileno())
        _check_type(status)
        if most is not None and status.st_size > most:
            raise UnsuitableFileError(
                f'it has {status.st_size:,} bytes; expected at most {most:,}')
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: Path, most: int) -> bytes:
    """
    Read a regular file of at most `most` bytes.

    :raises OSError: as `open_regular` does, and when it grows meanwhile.
    """
    with open_regular(path, most) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UnsuitableFileError(f'it has more bytes than expected: at most {most:,}')
    return content


def open_data_file(path: Path, most: int | None = None) -> BinaryIO:
    """
    Open a file of a data set, unbuffered.

    :param most: bytes that it may have; None: any number.
    :raises FileNotFoundError: when there is none.
    :raises DataError: when it cannot be opened, is not a regular file or is larger.
    """
    with _data_errors(path):
        return open_regular(path, most, buffering=0)


def read_data_file(path: Path, most: int) -> bytes:
    """
    Read a file of a data set.

    :raises FileNotFoundError: when there is none.
    :raises DataError: when it cannot be read, is not a regular file or is above `most` bytes.
    """
    with _data_errors(path):
        return read_regular(path, most)


@contextmanager
def _data_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except UnsuitableFileError as error:
        raise DataError(path, str(error), _REMEDY) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise DataError(path, f'it cannot be read ({reason})', _REMEDY) from error


def _check_type(status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    name = next((name for test, name in _TYPES.items() if test(status.st_mode)), 'special file')
    raise UnsuitableFileError(f'it is a {name}; expected a regular file')


def file_problem(path: Path) -> str | None:
    """Return why a path is no local regular file; None if it is one."""
    try:
        _check_type(os.stat(path))
    except UnsuitableFileError as error:
        return f'{path}: {error}'
    except (OSError, ValueError):
        return f'{path}: {no_such_file(path).problem}'
    return None


def no_such_file(path: Path) -> DataError:
    """Return the error of a path under which there is nothing, or which is a URL."""
    if is_url(str(path)):
        return DataError(path, 'there is no such file; URLs are not fetched',
                         'download it, and name the local file')
    return DataError(path, 'there is no such file', 'correct the path')


def is_url(text: str) -> bool:
    """Whether a text is written as a URL, or was before a `Path` took one of its slashes."""
    return _URL.match(text) is not None
