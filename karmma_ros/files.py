"""
Local regular files, opened under a bound.

A path of a data set may be a FIFO, a device or a name that a library takes for a URL: none of them
is waited for or fetched.
"""

from __future__ import annotations

import os
from pathlib import Path
import re
import stat
from typing import BinaryIO

from karmma_ros.errors import DataError

_URL = re.compile(r'[a-z][a-z0-9+.-]+:', re.IGNORECASE)
_REMEDY = 'expected a regular file on this machine: correct the path'


def open_regular(path: Path) -> BinaryIO:
    """
    Open a file for reading, unbuffered.

    :raises FileNotFoundError: when there is none.
    :raises DataError: when it cannot be opened or is no regular file.
    """
    try:
        # Without O_NONBLOCK the opening of a FIFO waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
        raise DataError(path, f'it cannot be opened ({reason})', _REMEDY) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(path, 'it is no regular file', _REMEDY)
    return open(descriptor, 'rb', buffering=0)


def read_regular(path: Path, limit: int) -> bytes:
    """
    Read a whole file.

    :raises FileNotFoundError: when there is none.
    :raises DataError: when it cannot be read, is no regular file or is above `limit` bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise DataError(path, f'it has {size:,} bytes; expected at most {limit:,}',
                            'see whether it is the right file')
        try:
            return b''.join(iter(lambda: file.read(1 << 20), b''))
        except OSError as error:
            raise DataError(path, f'it cannot be read ({error.strerror})', 'fetch it again') \
                from error


def file_problem(path: Path) -> str | None:
    """Return why a path is no local regular file; None if it is one."""
    if path.is_file():
        return None
    if path.exists():
        return f'{path}: it is no regular file'
    error = no_such_file(path)
    return f'{error.path}: {error.problem}'


def no_such_file(path: Path) -> DataError:
    """Return the error of a path under which there is nothing, or which is a URL."""
    if is_url(str(path)):
        return DataError(path, 'there is no such file; URLs are not fetched',
                         'download it, and name the local file')
    return DataError(path, 'there is no such file', 'correct the path')


def is_url(text: str) -> bool:
    """Whether a text is written as a URL, or was before a `Path` took one of its slashes."""
    return _URL.match(text) is not None
