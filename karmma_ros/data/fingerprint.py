"""
What a split holds, as a digest: the key under which results on it may be kept.

Media files are known by their size, their times of change and their inode, which change whenever
a file is written to, even where a tool restores the time of modification. Their paths do not
count: the same files by another spelling, or a link, are the same data. A source that is more than
its fields names by `decided_by` what it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
import hashlib
import os
from pathlib import Path
from typing import Any

from karmma_ros.data.datasets import DataSettings
from karmma_ros.data.samples import Clips
from karmma_ros.data.segments import SegmentDataset
from karmma_ros.data.synthetic_kitchen.dataset import VERSION
import numpy as np

_PLAIN = (type(None), bool, int, float, str, np.generic)


def clips_digest(clips: Clips, settings: DataSettings) -> str:
    """
    Return a digest of all that decides the clips of a split as they are scored.

    Of recordings these are the labelled segments and the files, whatever the settings are: neither
    the spelling of a path counts, nor the seed of the training windows. What is rendered is known
    by its settings and the version of the renderer.
    """
    digest = _Digest()
    if isinstance(clips, SegmentDataset):
        digest.add(clips.spec.to_dict())
        digest.add(clips.segments)
    else:
        own = getattr(settings, settings.dataset)
        digest.add([settings.dataset, VERSION, own, settings.spec.to_dict(), len(clips)])
    return digest.hexadecimal()


class _Digest:
    """A digest of nested values, each marked by its type, so that no two of them are alike."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._files: dict[Path, str] = {}

    def hexadecimal(self) -> str:
        return self._hash.hexdigest()

    def add(self, value: Any) -> None:
        if hasattr(value, 'decided_by'):
            self._text('object', type(value).__name__)
            self.add(value.decided_by())
        elif isinstance(value, Path):
            self._text('path', self._files.get(value) or self._state(value))
        elif isinstance(value, np.ndarray):
            self._text('array', f'{value.dtype} {value.shape}')
            self._hash.update(value.tobytes())
        elif is_dataclass(value) and not isinstance(value, type):
            self._text('fields', type(value).__name__)
            for field in fields(value):
                self.add(getattr(value, field.name))
        elif isinstance(value, Mapping):
            self._text('mapping', str(len(value)))
            for key in sorted(value, key=str):
                self._text('key', str(key))
                self.add(value[key])
        elif isinstance(value, (list, tuple)):
            self._text('list', str(len(value)))
            for each in value:
                self.add(each)
        else:
            assert isinstance(value, _PLAIN), f'{type(value)} does not name what decides it'
            self._text(type(value).__name__, repr(value))

    def _text(self, kind: str, text: str) -> None:
        data = text.encode(errors='surrogateescape')
        self._hash.update(f'{kind} {len(data)} '.encode())
        self._hash.update(data)

    def _state(self, path: Path) -> str:
        """Describe a file, or every file of a folder, without its path."""
        found = hashlib.sha256()
        if path.is_dir():
            for entry in sorted(path.rglob('*')):
                name = os.fsencode(entry.relative_to(path))
                found.update(b'%d %s %s\n' % (len(name), name, _state_of(entry).encode()))
        else:
            found.update(_state_of(path).encode())
        return self._files.setdefault(path, found.hexdigest())


def _state_of(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        return f'none {error.errno}'
    if path.is_dir():  # its files are named by themselves
        return 'folder'
    return (f'{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} '
            f'{status.st_ctime_ns}')
