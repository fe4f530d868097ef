"""Arrays on disk that are filled bit by bit, and what they were made from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import fcntl
import json
import os
from pathlib import Path
import re
import shutil
import stat
import tempfile
from typing import Any

import numpy as np

METADATA = 'metadata.json'
"""Beside the arrays: everything that decides what is in them."""


def lay_out(path: Path, kind: Any, shape: tuple[int, ...]) -> None:
    """
    Make a .npy file of zeros and claim its space.

    A disk that is too full says so now, by an OSError: later, while the file is written
    through memory, it would end the process.
    """
    array = np.lib.format.open_memmap(path, 'w+', kind, shape)
    size = os.path.getsize(path)
    del array
    if hasattr(os, 'posix_fallocate') and size:
        with path.open('r+b') as file:
            os.posix_fallocate(file.fileno(), 0, size)


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """Return what a folder of arrays was made from; None, if it does not say."""
    try:
        found = json.loads((folder / METADATA).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and 'version' in found else None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """
    Wait until no other process is making `folder`, then keep the others waiting.

    Of the processes of one training, which all begin alike, the first makes it and the rest
    find it made. The lock is a file beside the folder and ends with the process.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + '.lock').open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_NAME = re.compile(r'(?P<prefix>\.?karmma_bag_)(?P<pid>\d+)_\w+')


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """
    Make a temporary folder, and remove it, and those of processes that have ended.

    A folder belongs to the process that holds its lock: the system releases it, however the
    process ends.

    :param parent: where to make it, hidden; None for the system's temporary folder.
    :raises OSError: when it cannot be made.
    """
    prefix = '.karmma_bag_' if parent else 'karmma_bag_'
    parent = parent or Path(tempfile.gettempdir())
    _remove_stale(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=f'{prefix}{os.getpid()}_', dir=parent))
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks: the process id is left
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_stale(parent: Path, prefix: str) -> None:
    for path in parent.glob(f'{prefix}*'):
        match = _NAME.fullmatch(path.name)
        if match is not None and match['prefix'] == prefix:
            with suppress(OSError):  # another process is faster, or it is not ours
                _remove_if_stale(path, int(match['pid']))


def _remove_if_stale(path: Path, pid: int) -> None:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or _runs(pid):
        return
    lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)


def _runs(pid: int) -> bool:
    """Whether there is such a process here; one in another container is known by its lock."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
