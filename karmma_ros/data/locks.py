"""One process at a time makes what all of them need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import fcntl
from pathlib import Path


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
