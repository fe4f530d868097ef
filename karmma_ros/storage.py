"""
Files and arrays on disk: complete or absent, and resumed after a run was stopped.

While something is written it is beside its destination, as `NAME.partial` or similar, and is moved
there when it is complete. `ArrayStore` keeps arrays that are computed row by row, together with
the facts that decide what is in them.

Shape legend: n rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
import hashlib
import json
from math import prod
import multiprocessing
import os
from pathlib import Path
import re
import shutil
import stat
import tempfile
from typing import Any, BinaryIO

from filelock import FileLock
from karmma_ros.errors import DataError
import numpy as np
from numpy.typing import DTypeLike, NDArray

METADATA, PROGRESS = 'metadata.json', 'progress.txt'
"""Files beside the arrays: the facts that decide their content, and the rows that are done."""
REMEDY = 'delete it, and it is computed again'
Arrays = Mapping[str, NDArray[Any]]
Layout = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]
"""Array → its dtype and the shape of one row."""


def write_atomically(path: Path, content: str | bytes | Callable[[BinaryIO], Any]) -> None:
    """
    Write a file that is complete whenever it exists; folders are made.

    :param content: text (UTF-8), bytes, or a function that writes to the open file.
    :raises OSError: when it cannot be written; what was there before is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may write the same file.
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    try:
        with partial.open('wb') as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 of facts as JSON with sorted keys: its first 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def file_lock(path: Path) -> FileLock:
    """
    Return the lock of a file or folder, to be held by `with` while it is made.

    Of processes that all need it, the first makes it, and the others wait and find it made. The
    lock is a file beside it, `NAME.lock`; the system releases it however the process ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(path.name + '.lock'))


def read_metadata(folder: Path) -> dict[str, Any] | None:
    """Return the facts that decided the arrays of a folder; None if they cannot be read."""
    try:
        metadata = json.loads((folder / METADATA).read_text())
    except (OSError, ValueError):
        return None
    return metadata if isinstance(metadata, dict) and 'version' in metadata else None


def write_arrays(folder: Path, arrays: Arrays, metadata: Mapping[str, Any]) -> None:
    """Write a folder of arrays, in place of one that exists; complete or not at all."""
    partial = _empty(folder)
    for name, array in arrays.items():
        np.save(partial / f'{name}.npy', array)
    _write_metadata(partial, metadata)
    _replace(partial, folder)


def open_arrays(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """
    Return the metadata and the memory-mapped arrays of a folder.

    :raises DataError: when it is missing, incomplete or damaged.
    """
    if not folder.is_dir():
        stopped = folder.with_name(folder.name + '.partial').is_dir()
        raise DataError(folder, 'it is not complete' if stopped else 'there is no such folder',
                        'run the command that computes it')
    metadata = read_metadata(folder)
    if metadata is None:
        raise DataError(folder, f'it has no readable {METADATA}', REMEDY)
    arrays = {}
    for path in sorted(folder.glob('*.npy')):
        try:
            arrays[path.stem] = np.load(path, mmap_mode='r')
        except (OSError, ValueError, EOFError) as error:
            raise DataError(folder, f'{path.name} is damaged ({error})', REMEDY) from error
    return metadata, arrays


class ArrayStore:
    """
    Arrays of n rows each, which are computed in any order and by any number of processes.

        store = ArrayStore(folder, facts, layout, rows)
        with file_lock(folder):
            store.fill(compute, 32, workers)
        metadata, arrays = open_arrays(folder)

    Rows that an earlier process wrote for the same facts are not computed again.

    :param facts: everything that decides the rows, JSON-ready, with a `version`.
    """

    def __init__(
        self, folder: Path, facts: Mapping[str, Any], layout: Layout, rows: int
    ) -> None:
        self.folder, self.layout, self.rows = folder, layout, rows
        self.metadata = json.loads(json.dumps(facts))  # as it is read: no tuples
        self._partial = folder.with_name(folder.name + '.partial')

    @property
    def complete(self) -> bool:
        """Whether the folder has all rows for these facts."""
        return read_metadata(self.folder) == self.metadata

    @property
    def nbytes(self) -> int:
        """Return the size of the arrays."""
        return self.rows * sum(
            np.dtype(dtype).itemsize * prod(shape) for dtype, shape in self.layout.values())

    @property
    def allocated(self) -> bool:
        """Whether an earlier process has claimed the space for these facts."""
        return self.complete or read_metadata(self._partial) == self.metadata

    def fill(
        self, compute: Callable[[range], Arrays], size: int, workers: int = 1,
        progress: Callable[[int, int], None] = lambda done, total: None,
        setup: Callable[[], None] | None = None,
    ) -> None:
        """
        Compute and write the rows that remain, and finish.

        :param compute: returns the arrays of some rows; each worker gets a pickle of it.
        :param size: rows that are computed and written at once.
        :param workers: processes that compute; 1 computes in this one.
        :param progress: called with the rows done and the total.
        :param setup: called first in each worker.
        """
        todo = self.remaining(size)
        done = self.rows - sum(map(len, todo))
        progress(done, self.rows)
        for rows in self._compute(todo, compute, workers, setup):
            done += len(rows)
            progress(done, self.rows)
        self.finish()

    def _compute(
        self, todo: list[range], compute: Callable[[range], Arrays], workers: int,
        setup: Callable[[], None] | None,
    ) -> Iterator[range]:
        if workers == 1 or len(todo) < 2:
            for rows in todo:
                self.write(rows, compute(rows))
                yield rows
            return
        # Not fork: the caller may hold threads (torch, OpenCV) that would not survive it.
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(
            workers, context, initializer=_start_worker, initargs=(self, compute, setup)
        ) as pool:
            yield from pool.map(_write_rows, todo)

    def remaining(self, size: int) -> list[range]:
        """Return the rows to compute, in ranges of at most `size`; allocate the arrays first."""
        if read_metadata(self._partial) != self.metadata:
            _empty(self.folder)
            for name, (dtype, shape) in self.layout.items():
                allocate(self._partial / f'{name}.npy', dtype, (self.rows, *shape))
            _write_metadata(self._partial, self.metadata)
        todo = np.ones(self.rows, bool)
        for done in self._done():
            todo[done.start:done.stop] = False
        edges = np.flatnonzero(np.diff(todo, prepend=False, append=False))
        return [range(first, min(first + size, stop))
                for start, stop in edges.reshape(-1, 2).tolist()
                for first in range(start, stop, size)]

    def write(self, rows: range, arrays: Arrays) -> None:
        """Write some rows; they survive the end of the process."""
        for name, values in arrays.items():
            array = np.load(self._partial / f'{name}.npy', mmap_mode='r+')
            array[rows.start:rows.stop] = values
            array.flush()
        with (self._partial / PROGRESS).open('a') as file:
            file.write(f'{rows.start} {rows.stop}\n')

    def finish(self) -> None:
        """Move the arrays to their folder, in place of those of other facts."""
        (self._partial / PROGRESS).unlink(missing_ok=True)
        _replace(self._partial, self.folder)

    def _done(self) -> Iterator[range]:
        """Yield the rows that were written; a line without its end does not count."""
        try:
            lines = (self._partial / PROGRESS).read_text().split('\n')[:-1]
        except OSError:
            return
        for line in lines:
            if re.fullmatch(r'\d+ \d+', line):
                yield range(*map(int, line.split()))


_work: tuple[ArrayStore, Callable[[range], Arrays]]
"""Of this process, if it is a worker."""


def _start_worker(
    store: ArrayStore, compute: Callable[[range], Arrays], setup: Callable[[], None] | None
) -> None:
    global _work
    _work = store, compute
    if setup is not None:
        setup()


def _write_rows(rows: range) -> range:
    store, compute = _work
    store.write(rows, compute(rows))
    return rows


def allocate(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
    """
    Make a .npy file of zeros and claim its space.

    A disk that is too full is reported here, by an OSError: later, while the file is written
    through memory, it would end the process.
    """
    array = np.lib.format.open_memmap(path, 'w+', dtype, shape)
    size = os.path.getsize(path)
    del array
    if hasattr(os, 'posix_fallocate') and size:
        with path.open('r+b') as file:
            os.posix_fallocate(file.fileno(), 0, size)


def _empty(folder: Path) -> Path:
    """Return the empty folder in which the content of another one is written."""
    partial = folder.with_name(folder.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def _write_metadata(partial: Path, metadata: Mapping[str, Any]) -> None:
    """Write them last: a folder whose arrays are incomplete has none."""
    (partial / METADATA).write_text(json.dumps(metadata, indent=1) + '\n')


def _replace(partial: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


_SCRATCH = re.compile(r'(?P<prefix>\.?karmma_bag_)(?P<pid>\d+)_\w+')


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """
    Make a temporary folder; remove it afterwards, and those of processes that were killed.

    A folder belongs to the process that holds its lock: the system releases it, however the
    process ends.

    :param parent: where to make it, hidden; None for the system's temporary folder.
    :raises OSError: when it cannot be made.
    """
    prefix = '.karmma_bag_' if parent else 'karmma_bag_'
    parent = parent or Path(tempfile.gettempdir())
    _remove_stale(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=f'{prefix}{os.getpid()}_', dir=parent))
    lock = _scratch_lock(folder)
    try:
        # Some network file systems have no locks: there the process id alone is checked.
        with suppress(OSError, NotImplementedError):
            lock.acquire(timeout=0)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _scratch_lock(folder: Path) -> FileLock:
    return FileLock(folder / '.lock')


def _remove_stale(parent: Path, prefix: str) -> None:
    for path in parent.glob(f'{prefix}*'):
        match = _SCRATCH.fullmatch(path.name)
        if match is not None and match['prefix'] == prefix:
            with suppress(OSError):  # another process is faster, or it is not ours
                _remove_if_stale(path, int(match['pid']))


def _remove_if_stale(path: Path, pid: int) -> None:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or _is_running(pid):
        return
    with _scratch_lock(path).acquire(timeout=0):
        shutil.rmtree(path, ignore_errors=True)


def _is_running(pid: int) -> bool:
    """Whether there is such a process here; one in another container is known by its lock."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
