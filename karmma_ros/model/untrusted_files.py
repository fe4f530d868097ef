"""Read the files of a model directory, none of which is trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import hashlib
import json
from pathlib import Path
from typing import Any

from karmma_ros.files import open_regular, read_regular
from safetensors import safe_open, SafetensorError

MOST_JSON = 4 * 2**20
"""Bytes of a JSON file; a configuration with 100,000 classes of 30 letters has 3.6 MB."""
_MOST_CONTAINERS = 10_000
"""Objects and lists in a JSON file: the parser holds Python's lock, and these take longest."""
_MOST_HEADER = 8 * 2**20
"""Bytes of the header of a safetensors file; 10,000 tensors take 1.5 MB."""


def read_json(path: Path, most: int = MOST_JSON) -> Any:
    """
    Read a JSON file of bounded size and structure.

    :raises OSError: as `read_regular` does.
    :raises ValueError: when it is not JSON, or has more objects and lists than any of ours.
    """
    text = read_regular(path, most).decode('utf-8')
    containers = text.count('[') + text.count('{')
    if containers > _MOST_CONTAINERS:
        raise ValueError(f'it has {containers} objects and lists, expected at most '
                         f'{_MOST_CONTAINERS}')
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error


def digest_of_file(path: Path) -> bytes:
    """Return the SHA-256 of a file that may be too large to hold in memory a second time."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.digest()


@contextmanager
def open_safetensors(path: Path, framework: str, most: int | None = None) -> Iterator[safe_open]:
    """
    Open a safetensors file whose header has a bounded size.

    :param framework: `pt` or `np`: what its tensors become.
    :param most: bytes that the file may have; None: any number.
    :raises OSError: as `open_regular` does.
    :raises SafetensorError: when it is not one.
    """
    with open_regular(path, most) as file:
        header = int.from_bytes(file.read(8), 'little')
    if header > _MOST_HEADER:
        raise SafetensorError(f'its header has {header} bytes, expected at most {_MOST_HEADER}')
    with safe_open(path, framework=framework) as tensors:
        yield tensors


def load_safetensors(path: Path) -> Mapping[str, Any]:
    """Return the tensors of a safetensors file by name; errors as `open_safetensors`."""
    with open_safetensors(path, 'pt') as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}
