"""
A worker of the engine: an actor of Ray that runs one task after another.

What a task returns is pickled here, so that nothing refers to Ray's memory after it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cache
import hashlib
import os
from pathlib import Path
import pickle
from typing import Any

from karmma_ros.errors import KarmmaError


class Outcome(Enum):
    """How a task, or a setup, ended."""

    RETURNED = 'returned'
    REFUSED = 'raised a KarmmaError'
    FAILED = 'raised another error'


Ended = tuple[Outcome, bytes]
"""How a task ended, and the pickle of what it returned or raised."""


class TaskActor:
    """The actor: its methods are called from elsewhere; two threads run them."""

    def __init__(self, setup: bytes, source: str, folder: str) -> None:
        self._setup, self._source, self._folder = setup, source, folder
        self._done = (0, 0)

    def start(self) -> Ended:
        """Set up; return the id of the node, or why it failed."""
        return ended(self._start)

    def run(self, work: bytes, task: bytes) -> Ended:
        """Run a task; return its result, or why it failed."""
        self._done = 0, 0
        return ended(lambda: pickle.loads(work)(
            self._state, pickle.loads(task), self._report))

    def progress(self) -> tuple[int, int]:
        """Return how much of the present task is done, and its total."""
        return self._done

    def _start(self) -> str:
        import ray

        if self._source != source_digest():
            raise KarmmaError(
                f'the karmma_ros of {os.uname().nodename} differs from that of this machine: '
                'install the same version on all machines of the cluster')
        if os.path.isdir(self._folder):
            os.chdir(self._folder)  # relative paths are as where the command was given
        self._state = pickle.loads(self._setup)()
        return str(ray.get_runtime_context().get_node_id())

    def _report(self, done: int, total: int) -> None:
        self._done = done, total


def ended(compute: Callable[[], Any]) -> Ended:
    """Return how a function ended, which is called here."""
    try:
        return Outcome.RETURNED, pickle.dumps(compute(), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return failed(error)


def failed(error: Exception) -> Ended:
    """Return the end by an error; one that cannot be pickled becomes a KarmmaError."""
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:
        error = KarmmaError(f'{type(error).__name__}: {error}')
        content = pickle.dumps(error)
    return (Outcome.REFUSED if isinstance(error, KarmmaError) else Outcome.FAILED), content


@cache
def source_digest() -> str:
    """Return a digest of the code of the package: machines with another give other results."""
    package, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for path in sorted(package.rglob('*.py')):
        digest.update(path.relative_to(package).as_posix().encode() + b'\0' + path.read_bytes())
    return digest.hexdigest()
