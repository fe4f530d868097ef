"""Which files a bag is made of, whether or not its metadata.yaml is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
import re
import sys
from typing import Any

from karmma_ros.evaluation.rosbag.errors import BagError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

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
    """`file` or `message`, as metadata.yaml says; empty for neither."""
    warnings: tuple[str, ...] = field(default=())

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
        if path.name == 'metadata.yaml':
            return find_files(path.parent)
        if not storage_suffix(path):
            raise BagError(path, f'its name ends in {path.suffix or "nothing"}',
                           'give a rosbag2 folder, or a file .mcap or .db3 (.zstd too); a ROS 1 '
                           'bag becomes one by `rosbags-convert`')
        return _checked(BagFiles(path, (path,)))
    metadata, problem = _metadata(path)
    if metadata is None:
        return _checked(_without_metadata(path, problem))
    return _checked(_with_metadata(path, metadata))


def _checked(files: BagFiles) -> BagFiles:
    """Add what the user should know of files beside these."""
    warnings = list(files.warnings)
    for each in files.files:
        journal = each.with_name(each.name + '-wal')
        if journal.exists() and journal.stat().st_size:
            warnings.append(
                f'{journal.name} holds messages that the recorder did not put into {each.name} '
                f'any more; they are not read. Put them in with '
                f'`sqlite3 {each.name} "PRAGMA wal_checkpoint(TRUNCATE)"`')
    return BagFiles(files.path, files.files, files.promised, files.compression, tuple(warnings))


def _metadata(path: Path) -> tuple[Mapping[str, Any] | None, str]:
    """Give what metadata.yaml says, or None and why."""
    try:
        content = YAML(typ='safe').load((path / 'metadata.yaml').read_text())
        facts = content['rosbag2_bagfile_information']
        if not facts['relative_file_paths']:
            return None, 'metadata.yaml names no file'
        return facts, ''
    except FileNotFoundError:
        return None, 'metadata.yaml is missing'
    except (OSError, YAMLError, KeyError, TypeError, ValueError) as error:
        return None, f'metadata.yaml is damaged ({type(error).__name__})'


def _with_metadata(path: Path, facts: Mapping[str, Any]) -> BagFiles:
    # Foxy and before wrote the folder's name too; a copied bag may lie in another one.
    named = [path / PurePath(str(each)).name for each in facts['relative_file_paths']]
    there = tuple(each for each in named if each.is_file() and storage_suffix(each))
    if not there:
        return _without_metadata(path, 'none of the files that metadata.yaml names is there')
    warnings = [f'{each.name}, which metadata.yaml names, is not there'
                for each in named if each not in there]
    mode = str(facts.get('compression_mode') or '').lower()
    promised = facts.get('message_count')
    return BagFiles(
        path, there, promised if isinstance(promised, int) else None,
        mode if mode in ('file', 'message') else '', tuple(warnings))


def _without_metadata(path: Path, problem: str) -> BagFiles:
    found = sorted((p for p in path.iterdir() if p.is_file() and storage_suffix(p)), key=_natural)
    if not found:
        raise BagError(path, f'{problem}, and there is no .mcap or .db3 file',
                       'give the folder that `ros2 bag record` wrote')
    names = ', '.join(each.name for each in found[:3]) + (' …' if len(found) > 3 else '')
    return BagFiles(path, tuple(found), warnings=(
        f'{problem}: read without it: {names}. `ros2 bag reindex {path.name}` makes a new one',))


def _natural(path: Path) -> list[tuple[int, str]]:
    """Order name_2 before name_10."""
    parts = re.split(r'(\d+)', path.name)
    return [(int(part), '') if part.isdigit() else (-1, part) for part in parts]


def decompress_file(source: Path, target: Path) -> str:
    """Unpack a .zstd file as far as it goes; give what was wrong with it, or ''."""
    with source.open('rb') as packed, target.open('wb') as out:
        engine = zstd.ZstdDecompressor()
        while True:
            portion = packed.read(_PORTION)
            if not portion:
                return '' if engine.eof else 'it is cut off'
            if engine.eof:  # another frame behind the first one
                engine = zstd.ZstdDecompressor()
            try:
                out.write(engine.decompress(portion))
                while engine.eof and engine.unused_data:
                    rest, engine = engine.unused_data, zstd.ZstdDecompressor()
                    out.write(engine.decompress(rest))
            except zstd.ZstdError as error:
                return f'it is damaged ({error})'


def unpack_message(data: bytes) -> bytes:
    """
    Undo a message's compression, if it has any.

    Compressed ones begin with zstd's magic number, others with CDR's header, whose first
    byte is zero.
    """
    if data[:4] == b'\x28\xb5\x2f\xfd':
        return bytes(zstd.decompress(data))
    return data
