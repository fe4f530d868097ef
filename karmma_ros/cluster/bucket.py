"""
Bags of buckets (`s3://`, `gs://` and others that fsspec reads), in a cache of bounded size.

A bag is downloaded beside its path and moved there when it is complete. The least recently used
ones are removed first; one that is in use is not. The locks are those of the system, so that a
process that ends releases its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
import fcntl
from functools import partial
import os
from pathlib import Path
import re
import shutil
import threading
import time
from typing import Any, BinaryIO

from karmma_ros.errors import BagError, DISK_FULL, first_line, InvalidSettingError, printable
from karmma_ros.storage import fingerprint

GIB = 1024**3
_URL = re.compile(r'([a-z][a-z0-9+]+):/{1,3}(?=[^/])')
_OBSTORE = ('s3', 'gs', 'gcs', 'az', 'abfs')
_POLL_S, _TIMEOUT_S = 0.05, 60.0
_BLOCK = 4 * 1024**2
_BAG, _DOWNLOAD, _SIZE, _USED = 'bag', 'download', 'size', 'used'


def default_folder() -> Path:
    """Return the folder of the cache on this machine."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'karmma_ros', 'bags')


def url_of(path: Path | str) -> str:
    """Return the URL that a path stands for, which has lost slashes; empty: a local path."""
    match = _URL.match(str(path))
    if match is None:
        return ''
    return f'{match[1]}://{"/" * (match[1] == "file")}{str(path)[match.end():]}'


def expand(path: Path) -> list[Path]:
    """
    Return the objects that match the asterisks of a URL; any other path as it is.

    :raises BagError: when nothing matches, or the bucket cannot be read.
    """
    url = url_of(path)
    if '*' not in url:
        return [path]
    system, pattern = _file_system(url)
    matches = _within(url, _TIMEOUT_S, lambda alive: system.glob(pattern))
    if not matches:
        raise BagError(url, 'no object matches', 'check the path')
    return [Path(system.unstrip_protocol(each)) for each in sorted(matches)]


def folder_content(path: Path) -> list[Path] | None:
    """
    Return what is in a folder of a bucket, in order; None for an object that is no folder.

    :raises BagError: when there is neither, or the bucket cannot be read.
    """
    url = url_of(path)
    system, remote = _file_system(url)

    def names(alive: Callable[[], None]) -> list[str] | None:
        if system.isfile(remote):
            return None
        return sorted(system.ls(remote, detail=False)) if system.isdir(remote) else []
    inside = _within(url, _TIMEOUT_S, names)
    if inside == []:
        raise BagError(url, 'there is no such object', 'check the path')
    return None if inside is None else [Path(system.unstrip_protocol(x)) for x in inside]


@dataclass(frozen=True)
class BucketCache:
    """Bags of buckets on this machine."""

    folder: Path
    max_bytes: int = 50 * GIB
    timeout_s: float = _TIMEOUT_S
    """How long a bucket may send nothing."""

    @contextmanager
    def local(self, path: Path) -> Iterator[Path]:
        """
        Yield the path of a bag on this machine; that of a bucket is downloaded, unless it was.

        :raises BagError: when the bucket cannot be read, sends nothing, or the bag does not fit.
        :raises OSError: when the disk is full.
        """
        url = url_of(path)
        if not url:
            yield path
            return
        system, remote = _file_system(url)
        files = _within(url, self.timeout_s, lambda alive: _files(system, remote))
        if not files:
            raise BagError(url, 'there is no such object', 'check the path')
        name = remote.rstrip('/').rsplit('/', 1)[-1]
        entry = self.folder / fingerprint({'url': url, 'files': [f[1:] for f in files]})
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(entry.with_suffix('.lock')) as lock:
            if not (entry / _BAG).is_dir():
                self._download(url, system, files, entry, name)
            (entry / _USED).touch()
            fcntl.flock(lock, fcntl.LOCK_SH)
            try:
                yield entry / _BAG / name
            except BagError as error:
                raise BagError(url, error.problem, error.remedy) from error

    def _download(
        self, url: str, system: Any, files: Sequence[tuple[str, str, int, str]], entry: Path,
        name: str,
    ) -> None:
        size = sum(each[2] for each in files)
        self._reserve(url, entry, size)
        try:
            for remote, relative, expected, _ in files:
                path = entry / _DOWNLOAD / name / relative if relative else (
                    entry / _DOWNLOAD / name)
                if not path.resolve().is_relative_to((entry / _DOWNLOAD).resolve()):
                    raise BagError(
                        url, f'it has a file called {printable(relative or name)!r}, which leaves '
                        'the folder of the bag', 'copy the bag without it')
                path.parent.mkdir(parents=True, exist_ok=True)
                _within(url, self.timeout_s, partial(_copy, system, remote, path))
                if path.stat().st_size != expected:
                    raise BagError(
                        url, f'{path.stat().st_size:,} of {expected:,} bytes were received',
                        'give the same command again')
            os.replace(entry / _DOWNLOAD, entry / _BAG)
        except BaseException:
            shutil.rmtree(entry, ignore_errors=True)
            raise

    def _reserve(self, url: str, entry: Path, size: int) -> None:
        """Remove bags until another one fits, and count it."""
        with _locked(self.folder / 'cache.lock'):
            shutil.rmtree(entry, ignore_errors=True)  # of a process that was killed
            entries = sorted(self.folder.glob(f'*/{_SIZE}'), key=_used)
            total = sum(int(path.read_text() or 0) for path in entries) + size
            for path in entries:
                if total <= self.max_bytes:
                    break
                with suppress(BlockingIOError), _locked(
                        path.parent.with_suffix('.lock'), fcntl.LOCK_NB):
                    total -= int(path.read_text() or 0)
                    shutil.rmtree(path.parent)
            if total > self.max_bytes:
                raise BagError(
                    url, f'it has {size / GIB:.1f} GiB, and of the {self.max_bytes / GIB:.1f} GiB '
                    f'of the cache {(total - size) / GIB:.1f} are in use',
                    'give a larger --bucket-cache, or a smaller --jobs')
            entry.mkdir()
            (entry / _SIZE).write_text(str(size))


def bucket_cache(gib: float, setting: str) -> BucketCache:
    """
    Return the cache of this user, of a size.

    :param setting: that gives the size, for the error.
    :raises InvalidSettingError: for a size that cannot be.
    """
    if not gib > 0:
        raise InvalidSettingError(setting, gib, 'GiB, above 0')
    return BucketCache(default_folder(), round(gib * GIB))


def _used(size: Path) -> float:
    used = size.with_name(_USED)
    return (used if used.exists() else size).stat().st_mtime


@contextmanager
def _locked(path: Path, flags: int = 0) -> Iterator[BinaryIO]:
    with path.open('wb') as file:
        fcntl.flock(file, fcntl.LOCK_EX | flags)
        yield file


def _file_system(url: str) -> tuple[Any, str]:
    """Return what reads a URL, and its path there."""
    protocol = url.split(':')[0]
    try:
        from fsspec.core import url_to_fs

        if protocol in _OBSTORE:
            from obstore.fsspec import register

            register(protocol)
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise BagError(url, f'{protocol}:// cannot be read ({first_line(error)})',
                       'pip install -r requirements/cluster.txt, on all machines') from error


def _files(system: Any, remote: str) -> list[tuple[str, str, int, str]]:
    """Return path, relative path, size and version of each file of a bag."""
    if system.isfile(remote):
        info = system.info(remote)
        return [(remote, '', int(info['size']), str(system.ukey(remote)))]
    inside = system.find(remote, detail=True) if system.isdir(remote) else {}
    start = remote.rstrip('/') + '/'
    return [(path, path.removeprefix(start), int(info['size']), str(system.ukey(path)))
            for path, info in sorted(inside.items())]


def _copy(system: Any, remote: str, path: Path, alive: Callable[[], None]) -> None:
    with system.open(remote, 'rb') as source, path.open('wb') as file:
        while block := source.read(_BLOCK):
            file.write(block)
            alive()


def _within(url: str, timeout_s: float, compute: Callable[[Callable[[], None]], Any]) -> Any:
    """
    Return what a function returns that calls back whenever it has received something.

    :raises BagError: when it fails, or does not call back for long.
    """
    last, results, errors = [time.monotonic()], [], []

    def run() -> None:
        try:
            results.append(compute(lambda: last.__setitem__(0, time.monotonic())))
        except Exception as error:
            errors.append(error)
    thread = threading.Thread(target=run, name='karmma bucket', daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_S)
        if time.monotonic() - last[0] > timeout_s and thread.is_alive():
            raise BagError(url, f'the bucket has sent nothing for {timeout_s:g} s',
                           'check the network and the credentials; then give the same command '
                           'again')
    if errors:
        if isinstance(errors[0], OSError) and errors[0].errno in DISK_FULL:
            raise errors[0]
        raise BagError(url, f'the bucket cannot be read ({type(errors[0]).__name__}: '
                       f'{first_line(errors[0])})', 'check the path and the credentials')
    return results[0]
