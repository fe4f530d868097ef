"""Which files a bag is made of, whether or not its metadata.yaml is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
import re
import sys

from karmma_ros.bags.limits import (
    FREE_EXPANSION,
    most_expanded,
    MOST_EXPANSION,
    open_regular,
    size_of,
)
from karmma_ros.bags.metadata import Metadata, NAME, read_metadata
from karmma_ros.errors_bag import BagError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STORAGES = {'.mcap': 'mcap', '.db3': 'sqlite3'}
PACKED = ('.zstd', '.zst')
"""The first is rosbag2's own."""
_PORTION = 1 << 20


@dataclass(frozen=True)
class BagFiles:
    """The files of one bag, in order."""

    path: Path
    files: tuple[Path, ...]
    promised: int | None = None
    """Messages that there are, says metadata.yaml; None where it does not say."""
    compression: str = ''
    """`file` or `message`, as metadata.yaml states; empty for neither."""
    warnings: tuple[str, ...] = field(default=())
    missing: tuple[str, ...] = field(default=())
    """Names of files that metadata.yaml gives and that are not there, or not read."""
    topics: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Name and type → messages that there are, as metadata.yaml states."""

    @property
    def sources(self) -> tuple[Path, ...]:
        """Return all that decides what is read: the files, and metadata.yaml if it is there."""
        metadata = self.path / NAME
        return (*self.files, metadata) if metadata.is_file() else self.files

    @property
    def storage(self) -> str:
        """Name the storage, and the compression if there is one."""
        kind = STORAGES[storage_suffix(self.files[0])]
        how = self.compression or ('file' if self.files[0].suffix in PACKED else '')
        return f'{kind}, zstd {how}' if how else kind


def storage_suffix(path: Path) -> str:
    """Give `.mcap` or `.db3`; '' for neither. A `.zstd` behind it does not matter."""
    name = path.with_suffix('') if path.suffix in PACKED else path
    return name.suffix if name.suffix in STORAGES else ''


def find_files(path: Path) -> BagFiles:
    """
    Find the files of a bag: a folder as rosbag2 writes it, or a single file.

    :raises BagError: when there is nothing to read.
    """
    if not path.exists():
        raise BagError(path, 'no such file or folder', 'check the path')
    if path.is_file():
        if path.name == NAME:
            return find_files(path.parent)
        if not storage_suffix(path):
            raise BagError(path, f'its name ends in {path.suffix or "nothing"}',
                           'give a rosbag2 folder, or a file .mcap or .db3 (.zstd too); a ROS 1 '
                           'bag becomes one by `rosbags-convert`')
        return _checked(BagFiles(path, (path,)))
    if not path.is_dir():
        raise BagError(path, 'it is neither a folder nor a regular file',
                       'give a rosbag2 folder, or a file .mcap or .db3')
    try:
        return _checked(_with_metadata(path, read_metadata(path / NAME)))
    except FileNotFoundError:
        return _checked(_without_metadata(path, f'{NAME} is missing'))
    except ValueError as error:
        return _checked(_without_metadata(path, f'{NAME} is damaged ({error})'))


def _checked(files: BagFiles) -> BagFiles:
    """Add what the user should know of files beside these."""
    journals = [journal for each in files.files for journal in _journals(each)]
    warnings = [
        f'{journal.name} holds messages that the recorder did not put into '
        f'{journal.name[:-4]} any more; they are not read. Put them in with '
        f'`sqlite3 {journal.name[:-4]} "PRAGMA wal_checkpoint(TRUNCATE)"`'
        for journal in journals]
    return replace(files, warnings=(*files.warnings, *warnings),
                   missing=(*files.missing, *(journal.name for journal in journals)))


def _journals(path: Path) -> Iterator[Path]:
    """Give the write-ahead log of a database, where it holds anything."""
    journal = path.with_name(path.name + '-wal')
    if storage_suffix(path) == '.db3' and journal.is_file() and journal.stat().st_size:
        yield journal


def _with_metadata(path: Path, metadata: Metadata) -> BagFiles:
    named = [path / name for name in metadata.files]
    there = tuple(each for each in named if storage_suffix(each) and each.is_file())
    if not there:
        files = _without_metadata(path, f'none of the files that {NAME} names is there')
        return replace(files, promised=metadata.messages, topics=metadata.topics)
    missing = tuple(each.name for each in named if each not in there)
    warnings = [f'{name}, which {NAME} names, is not there' for name in missing]
    others = [each.name for each in sorted(path.iterdir(), key=_natural)
              if each.is_file() and storage_suffix(each) and each not in named]
    if others:
        warnings.append(f'{_few(others)} in the same folder: not named by {NAME}, and not read. '
                        f'`ros2 bag reindex {path.name}` names all files')
    return BagFiles(path, there, metadata.messages, metadata.compression, tuple(warnings),
                    missing, metadata.topics)


def _without_metadata(path: Path, problem: str) -> BagFiles:
    found = sorted((p for p in path.iterdir() if p.is_file() and storage_suffix(p)), key=_natural)
    if not found:
        raise BagError(path, f'{problem}, and there is no .mcap or .db3 file',
                       'give the folder that `ros2 bag record` wrote')
    names = _few([each.name for each in found])
    return BagFiles(path, tuple(found), warnings=(
        f'{problem}: read without it: {names}. `ros2 bag reindex {path.name}` makes a new one',))


def _few(names: list[str]) -> str:
    return ', '.join(names[:3]) + (' …' if len(names) > 3 else '')


def _natural(path: Path) -> list[tuple[int, str]]:
    """Order name_2 before name_10."""
    parts = re.split(r'(\d+)', path.name)
    return [(int(part), '') if part.isdigit() else (-1, part) for part in parts]


def decompress_file(source: Path, target: Path) -> str:
    """
    Unpack a .zstd file as far as it goes; return what was wrong with it, or ''.

    :raises ValueError: when it is no regular file.
    """
    with open_regular(source) as packed, target.open('wb') as out:
        engine = zstd.ZstdDecompressor()
        most, portion = most_expanded(size_of(packed)), b''
        while True:
            if engine.eof and (portion := engine.unused_data or packed.read(_PORTION)):
                engine = zstd.ZstdDecompressor()  # another frame behind the first one
            elif engine.needs_input and not engine.eof:
                portion = packed.read(_PORTION)
            if not portion and (engine.eof or engine.needs_input):
                return '' if engine.eof else 'it is cut off'
            try:
                out.write(engine.decompress(portion, max_length=_PORTION))
            except zstd.ZstdError as error:
                return f'it is damaged ({error})'
            portion = b''
            if out.tell() > most:
                return (f'it expands to more than {MOST_EXPANSION} times its size, and to more '
                        f'than {FREE_EXPANSION >> 30} GiB')
