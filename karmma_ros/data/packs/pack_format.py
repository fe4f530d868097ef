"""The files of a data pack: their names, and the JSON in them."""

from __future__ import annotations

from collections.abc import Mapping
import json
from typing import Any

from karmma_ros.data.packs.shard_store import ShardStore
from karmma_ros.errors import DataError

VERSION = 1
"""Grows whenever an earlier pack cannot be read any more."""
METADATA, INDEX = 'pack.json', 'index.json'
"""What completes a pack, and LitData's index of its shards."""
SPLITS = ('train', 'validation', 'test')
SAMPLES, INPUT = b'S', b'I'
"""First byte of what a row has of a modality: what `prepare` takes, or what it returns."""


def shard_name(number: int) -> str:
    """Return the file name of a shard, as LitData's are."""
    return f'chunk-0-{number}.bin'


def record_name(number: int) -> str:
    """Return the file name of the record of a shard, written after it."""
    return f'chunk-0-{number}.json'


def to_json(content: Mapping[str, Any]) -> bytes:
    """Return content as JSON; keys keep their order, which is that of a network's heads."""
    return json.dumps(content).encode()


def read_json(store: ShardStore, name: str) -> dict[str, Any] | None:
    """
    Return the content of a file; None when there is no such file.

    :raises DataError: when it cannot be read, or is no JSON object.
    """
    data = store.read(name)
    if data is None:
        return None
    try:
        content = json.loads(data)
    except ValueError as error:
        raise DataError(store.path(name), f'it is damaged ({error})',
                        'delete it, and give the command that packs the data again') from error
    if not isinstance(content, dict):
        raise DataError(store.path(name), 'it is no JSON object', 'pack the data again')
    return content
