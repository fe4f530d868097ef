"""What metadata.yaml states of a bag, read as the text of a stranger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from karmma_ros.bags.limits import MOST_METADATA, open_regular
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
_DEEPEST = 32
"""Levels of nesting; rosbag2 writes seven."""
_MOST_EVENTS = 60_000
"""Collections and scalars; each topic takes twenty."""
_LONGEST_LINE = 1 << 16
"""Characters; the QoS of a hundred publishers takes half of it. The parser's time grows with its
square."""


@dataclass(frozen=True)
class Metadata:
    """What of it is used."""

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

    :raises FileNotFoundError: when it is not there.
    :raises ValueError: with what is wrong with it.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MOST_METADATA + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f'it cannot be opened ({error.strerror})') from None
    if len(data) > MOST_METADATA:
        raise ValueError(f'it has more than {MOST_METADATA:,} bytes')
    try:
        return _taken(_load(data.decode())['rosbag2_bagfile_information'])
    except (YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        why = str(error) if type(error) is ValueError else type(error).__name__
        raise ValueError(why) from None


def _load(text: str) -> Any:
    """
    Build mappings, lists and texts from YAML in one pass, as far as its limits reach.

    An alias stands for the same object again: many of them take no memory.
    """
    if max(map(len, text.splitlines()), default=0) > _LONGEST_LINE:
        raise ValueError(f'a line in it is longer than {_LONGEST_LINE:,} characters')
    root: list[Any] = []
    stack: list[Any] = [root]
    keys: list[Any] = []
    """The key that waits for its value, for each mapping of the stack."""
    anchors: dict[str, Any] = {}
    for number, event in enumerate(YAML(typ='safe', pure=True).parse(text)):
        if number > _MOST_EVENTS:
            raise ValueError(f'it has more than {_MOST_EVENTS:,} entries')
        if isinstance(event, CollectionEndEvent):
            stack.pop()
            keys.pop()
        elif isinstance(event, (AliasEvent, ScalarEvent, CollectionStartEvent)):
            value = _value(event, anchors)
            _put(stack[-1], keys, value)
            if isinstance(event, CollectionStartEvent):
                stack.append(value)
                keys.append(None)
            if len(stack) > _DEEPEST:
                raise ValueError(f'it is nested more than {_DEEPEST} levels deep')
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


def _taken(facts: Mapping[str, Any]) -> Metadata:
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
