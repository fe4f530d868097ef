"""
The files of a bag: named by metadata.yaml, or found without it.

metadata.yaml may come from anywhere: it is parsed within limits on its size, depth and entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
import re
from typing import Any

from karmma_ros.bags.limits import (
    FREE_EXPANSION,
    max_expanded,
    MAX_EXPANSION,
    MAX_METADATA,
    size_of,
    zstd,
)
from karmma_ros.errors import BagError
from karmma_ros.files import open_regular
from karmma_ros.media.video_audio import AUDIO_SUFFIXES
from karmma_ros.media.video_file import VIDEO_SUFFIXES
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    MappingStartEvent,
    ScalarEvent,
)

NAME = 'metadata.yaml'
STORAGES = {'.mcap': 'mcap', '.db3': 'sqlite3'}
COMPRESSED = ('.zstd', '.zst')
"""Suffixes of compressed files; the first is the one of rosbag2."""
_MEDIA = VIDEO_SUFFIXES | AUDIO_SUFFIXES
_BLOCK = 1 << 20
_MAX_DEPTH = 32
"""Levels of nesting; rosbag2 writes seven."""
_MAX_EVENTS = 60_000
"""Collections and scalars; each topic takes twenty."""
_MAX_LINE = 1 << 16
"""Characters; the QoS of a hundred publishers takes half of it. The parser's time grows with its
square."""


@dataclass(frozen=True)
class Metadata:
    """The contents of metadata.yaml that are used."""

    files: tuple[str, ...]
    """Names without folders: Foxy wrote the folder's name too, and nothing outside is read."""
    messages: int | None = None
    """In all files; None where it is not stated."""
    topics: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Name and type → messages."""
    compression: str = ''
    """`file` or `message`; empty for neither."""


def read_metadata(path: Path) -> Metadata:
    """
    Read a metadata.yaml.

    :raises FileNotFoundError: when it is missing.
    :raises ValueError: when it is damaged or beyond the limits.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_METADATA + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f'it cannot be opened ({error.strerror or error})') from None
    if len(data) > MAX_METADATA:
        raise ValueError(f'it has more than {MAX_METADATA:,} bytes')
    try:
        return _parse(_load(data.decode())['rosbag2_bagfile_information'])
    except (YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise ValueError(reason) from None


def _load(text: str) -> Any:
    """
    Build mappings, lists and strings from YAML in one pass, within the limits.

    An alias stands for the same object again: many of them take no memory.
    """
    if max(map(len, text.splitlines()), default=0) > _MAX_LINE:
        raise ValueError(f'a line in it is longer than {_MAX_LINE:,} characters')
    root: list[Any] = []
    stack: list[Any] = [root]
    keys: list[Any] = []
    """The key that waits for its value, for each mapping of the stack."""
    anchors: dict[str, Any] = {}
    for number, event in enumerate(YAML(typ='safe', pure=True).parse(text)):
        if number > _MAX_EVENTS:
            raise ValueError(f'it has more than {_MAX_EVENTS:,} entries')
        if isinstance(event, CollectionEndEvent):
            stack.pop()
            keys.pop()
        elif isinstance(event, (AliasEvent, ScalarEvent, CollectionStartEvent)):
            value = _value(event, anchors)
            _put(stack[-1], keys, value)
            if isinstance(event, CollectionStartEvent):
                stack.append(value)
                keys.append(None)
            if len(stack) > _MAX_DEPTH:
                raise ValueError(f'it is nested more than {_MAX_DEPTH} levels deep')
    return root[0] if root else None


def _value(event: Any, anchors: dict[str, Any]) -> Any:
    if isinstance(event, AliasEvent):
        return anchors[event.anchor]
    value: Any = {} if isinstance(event, MappingStartEvent) else []
    if isinstance(event, ScalarEvent):
        value = event.value
    if event.anchor:
        anchors[event.anchor] = value
    return value


def _put(target: Any, keys: list[Any], value: Any) -> None:
    if isinstance(target, list):
        target.append(value)
    elif keys[-1] is None:
        keys[-1] = value if isinstance(value, str) else '?'
    else:
        target[keys[-1]] = value
        keys[-1] = None


def _parse(facts: Mapping[str, Any]) -> Metadata:
    files = [PurePath(each).name for each in facts['relative_file_paths']
             if isinstance(each, str) and '\0' not in each]
    if not files:
        raise ValueError('it names no file')
    topics: Counter[tuple[str, str]] = Counter()
    for each in facts.get('topics_with_message_count') or ():
        topic = each['topic_metadata']
        topics[_text(topic['name']), _text(topic['type'])] += _count(each['message_count']) or 0
    mode = _text(facts.get('compression_mode', '')).lower()
    return Metadata(tuple(dict.fromkeys(files)), _count(facts.get('message_count')), topics,
                    mode if mode in ('file', 'message') else '')


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('a name in it is no text')
    return value


def _count(value: object) -> int | None:
    text = value if isinstance(value, str) else ''
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None



@dataclass(frozen=True)
class BagFiles:
    """The files of one bag, in order."""

    path: Path
    files: tuple[Path, ...]
    messages: int | None = None
    """Number of messages by metadata.yaml; None where it does not state it."""
    compression: str = ''
    """`file` or `message`, as metadata.yaml states; empty for neither."""
    warnings: tuple[str, ...] = field(default=())
    missing: tuple[str, ...] = field(default=())
    """Names of files that metadata.yaml names and that do not exist, or are not read."""
    topics: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Name and type → number of messages by metadata.yaml."""

    @property
    def sources(self) -> tuple[Path, ...]:
        """Return all files that are read, with metadata.yaml if it exists."""
        metadata = self.path / NAME
        return (*self.files, metadata) if metadata.is_file() else self.files

    @property
    def storage(self) -> str:
        """Name the storage, and the compression if there is one."""
        other = 'audio' if self.files[0].suffix.casefold() in AUDIO_SUFFIXES else 'video'
        storage = STORAGES.get(storage_suffix(self.files[0]), other)
        mode = self.compression or ('file' if is_compressed(self.files[0]) else '')
        return f'{storage}, zstd {mode}' if mode else storage


def storage_suffix(path: Path) -> str:
    """Return `.mcap` or `.db3`, also in capitals or in front of `.zstd`; '' for neither."""
    suffix = (path.with_suffix('') if is_compressed(path) else path).suffix.casefold()
    return suffix if suffix in STORAGES else ''


def is_compressed(path: Path) -> bool:
    """Return whether a name is that of a compressed file."""
    return path.suffix.casefold() in COMPRESSED


def find_files(path: Path) -> BagFiles:
    """
    Find the files of a bag: a folder that rosbag2 wrote, or a single file.

    :raises BagError: when there is nothing to read.
    """
    if not path.exists():
        raise BagError(path, 'no such file or folder', 'check the path')
    if path.is_file():
        if path.name == NAME:
            return find_files(path.parent)
        if not storage_suffix(path) and path.suffix.casefold() not in _MEDIA:
            raise BagError(path, f'its name ends in {path.suffix or "nothing"}',
                           'give a rosbag2 folder, a file .mcap or .db3 (.zstd too), a video or '
                           'audio file; '
                           'a ROS 1 bag becomes one by `rosbags-convert`')
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
    """Add the write-ahead logs of databases, which are not read, to the missing files."""
    logs = [log for log in (path.with_name(path.name + '-wal') for path in files.files
                            if storage_suffix(path) == '.db3')
            if log.is_file() and log.stat().st_size]
    warnings = [
        f'{log.name} holds messages that the recorder did not write to {log.name[:-4]}; they are '
        f'not read. Add them with `sqlite3 {log.name[:-4]} "PRAGMA wal_checkpoint(TRUNCATE)"`'
        for log in logs]
    return replace(files, warnings=(*files.warnings, *warnings),
                   missing=(*files.missing, *(log.name for log in logs)))


def _with_metadata(path: Path, metadata: Metadata) -> BagFiles:
    named = [path / name for name in metadata.files]
    present = tuple(each for each in named if storage_suffix(each) and each.is_file())
    if not present:
        files = _without_metadata(path, f'none of the files that {NAME} names exists')
        return replace(files, messages=metadata.messages, topics=metadata.topics)
    missing = tuple(each.name for each in named if each not in present)
    warnings = [f'{name}, which {NAME} names, does not exist' for name in missing]
    others = [each.name for each in sorted(path.iterdir(), key=_natural)
              if each.is_file() and storage_suffix(each) and each not in named]
    if others:
        warnings.append(f'{_few(others)} in the same folder: not named by {NAME}, and not read. '
                        f'`ros2 bag reindex {path.name}` names all files')
    return BagFiles(path, present, metadata.messages, metadata.compression, tuple(warnings),
                    missing, metadata.topics)


def _without_metadata(path: Path, problem: str) -> BagFiles:
    files = sorted((p for p in path.iterdir() if p.is_file() and storage_suffix(p)), key=_natural)
    if not files:
        raise BagError(path, f'{problem}, and there is no .mcap or .db3 file',
                       'give the folder that `ros2 bag record` wrote')
    names = _few([each.name for each in files])
    return BagFiles(path, tuple(files), warnings=(
        f'{problem}: read without it: {names}. `ros2 bag reindex {path.name}` makes a new one',))


def _few(names: list[str]) -> str:
    return ', '.join(names[:3]) + (' …' if len(names) > 3 else '')


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that orders name_2 before name_10."""
    parts = re.split(r'(\d+)', path.name)
    return [(int(part), '') if part.isdigit() else (-1, part) for part in parts]


def decompress_file(source: Path, target: Path) -> str:
    """
    Decompress a .zstd file as far as possible; return the problem with it, or ''.

    :raises ValueError: when it is no regular file.
    """
    with open_regular(source) as compressed, target.open('wb') as out:
        engine = zstd.ZstdDecompressor()
        limit, block = max_expanded(size_of(compressed)), b''
        while True:
            if engine.eof and (block := engine.unused_data or compressed.read(_BLOCK)):
                engine = zstd.ZstdDecompressor()  # another frame after the first one
            elif engine.needs_input and not engine.eof:
                block = compressed.read(_BLOCK)
            if not block and (engine.eof or engine.needs_input):
                return '' if engine.eof else 'it is cut off'
            try:
                out.write(engine.decompress(block, max_length=_BLOCK))
            except zstd.ZstdError as error:
                return f'it is damaged ({error})'
            block = b''
            if out.tell() > limit:
                return (f'it expands to more than {MAX_EXPANSION} times its size, and to more '
                        f'than {FREE_EXPANSION >> 30} GiB')
