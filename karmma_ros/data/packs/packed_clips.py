"""
Read a data pack: the clips of a split by index, in any order.

A pack in a bucket is copied to a folder shard by shard, when a shard is first needed. Every read
checks the size of its shard; what is copied is also checked by its digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
import hashlib
import os
from pathlib import Path
from typing import Any

from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.data.packs.array_encoding import decode_array
from karmma_ros.data.packs.pack_format import (
    INDEX,
    METADATA,
    read_json,
    SAMPLES,
    shard_name,
    SPLITS,
    VERSION,
)
from karmma_ros.data.packs.shard_store import ShardStore
from karmma_ros.data.samples import Sample, Splits
from karmma_ros.errors import DataError
from karmma_ros.modalities import modality_type
from karmma_ros.modality import in_order, Modality
from karmma_ros.prediction import Vocabulary
from karmma_ros.storage import file_lock
import numpy as np

_REMEDY = 'copy it again, or pack the data again'


@dataclass
class Pack:
    """The rows of a complete pack; cheap to pickle for the workers of a loader."""

    store: ShardStore
    folder: Path
    """Where its shards are, or are copied to."""
    shards: Sequence[Mapping[str, Any]]
    """Rows, size and sha256 of each."""
    digest: str
    """Of all that is in the pack."""
    limit_bytes: int = 0
    """Of the copies of shards of a bucket; 0: all are kept."""
    _rows: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._first = np.cumsum([0, *(shard['rows'] for shard in self.shards)])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_rows': None}  # each process opens the files

    def row(self, number: int) -> dict[str, bytes]:
        """
        Return the encoded arrays of a row.

        :raises DataError: when its shard is missing or damaged.
        """
        shard = int(np.searchsorted(self._first, number, 'right')) - 1
        self._provide(shard)
        if self._rows is None:
            self._rows = _open_rows(self.store.location, self.folder)
        try:
            row: dict[str, bytes] = self._rows[number]
        except Exception as error:  # whatever damage does to the reader
            raise self._damaged(shard, f'row {number} cannot be read ({error})') from error
        return row

    def shard_problem(self, number: int, content: bool = False) -> str | None:
        """
        Return why a shard cannot be read, None if it can.

        :param content: also check its digest.
        """
        name, shard = shard_name(number), self.shards[number]
        try:
            size = self.store.size(name)
            if size != shard['size']:
                return 'it is missing' if size is None else self._length(size, shard)
            data = self.store.read(name) if content else None
        except DataError as error:
            return f'{error.problem}: {error.remedy}'
        if data is not None and hashlib.sha256(data).hexdigest() != shard['sha256']:
            return 'it is damaged: its SHA-256 is another'
        return None

    @staticmethod
    def _length(size: int, shard: Mapping[str, Any]) -> str:
        return f'it has {size:,} bytes; expected {shard["size"]:,}'

    def _provide(self, number: int) -> None:
        """Check that a shard is in the folder, or copy it there."""
        path, shard = self.folder / shard_name(number), self.shards[number]
        try:
            if path.stat().st_size == shard['size']:
                return
        except OSError:
            pass
        if not self.store.remote:
            problem = self.shard_problem(number) or 'it was changed while it was read'
            raise DataError(path, problem, _REMEDY)
        with file_lock(path):
            if not path.exists() or path.stat().st_size != shard['size']:
                self._copy(number, path)

    def _copy(self, number: int, path: Path) -> None:
        shard, name = self.shards[number], shard_name(number)
        data = self.store.read(name)
        if data is None:
            raise self._damaged(number, 'it is missing')
        if len(data) != shard['size']:
            raise self._damaged(number, self._length(len(data), shard))
        if hashlib.sha256(data).hexdigest() != shard['sha256']:
            raise self._damaged(number, 'its SHA-256 is another')
        self._make_space(len(data))
        ShardStore(str(self.folder)).write(name, data)

    def _make_space(self, needed: int) -> None:
        """Remove the copies that were written first, beyond the limit."""
        if not self.limit_bytes:
            return
        copies = sorted((path.stat().st_mtime, path.stat().st_size, path)
                        for path in self.folder.glob('chunk-*.bin'))
        used = sum(size for _, size, _ in copies)
        for _, size, path in copies[:-1]:
            if used + needed <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)  # who reads it still can
            used -= size

    def _damaged(self, number: int, problem: str) -> DataError:
        return DataError(self.store.path(shard_name(number)), problem, _REMEDY)


def _open_rows(location: str, folder: Path) -> Any:
    try:
        from litdata import StreamingDataset
    except ImportError as error:
        raise DataError(location, f'packs are read by LitData, which is missing ({error})',
                        'pip install -r requirements/training.txt') from error
    return StreamingDataset(str(folder), shuffle=False)


class PackedClips:
    """
    A split of a pack: the same clips as those that were packed, to JPEG's error.

    Epoch e trains on window e modulo the number of windows that the pack has.
    """

    def __init__(self, pack: Pack, spec: ClipSpec, split: str, table: Mapping[str, Any],
                 modalities: Sequence[Modality]) -> None:
        """Take the table of the split in the metadata, and the modalities of the pack."""
        self.pack, self.spec, self.split = pack, spec, split
        self.packed_modalities = tuple(modalities)
        self._labels: Sequence[Mapping[str, int]] = table['labels']
        self._rows: Sequence[Sequence[int]] = table['rows']
        self._computed: Sequence[Sequence[str]] = table['computed']
        self._recorded: Sequence[Sequence[str]] = table['modalities']
        self.shards: Sequence[int] = table['shards']
        """Number of the shard of each clip."""
        self._wanted: frozenset[Modality] | None = None
        self._samples = frozenset(
            m for m in self.packed_modalities
            if str(m) not in table['inputs'] and modality_type(m).prepares_batches)
        self.unprepared: frozenset[Modality] = frozenset()
        """Modalities that are passed on as `ModalityType.begin` prepares them."""

    def with_modalities(self, modalities: Sequence[Modality]) -> PackedClips:
        """Return the same clips with some modalities only; the others are not decoded."""
        selected = copy(self)
        selected._wanted = frozenset(modalities)
        return selected

    def without_preparation(self) -> PackedClips:
        """Return the same clips, to be prepared on the device as far as that is possible."""
        selected = copy(self)
        selected.unprepared = self._samples
        return selected

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """
        Return the clip that is scored: always the same.

        :raises DataError: when its shard cannot be read, or nothing of the segment could be.
        """
        self._check(index)
        return self._sample(index, self._rows[index][-1])

    def training_sample(self, index: int, epoch: int) -> Sample:
        """
        Return one of the windows of a segment, another one in each epoch.

        :raises DataError: when its shard cannot be read, or nothing of the segment could be.
        """
        self._check(index)
        windows = self._rows[index][:-1] or self._rows[index]
        return self._sample(index, windows[epoch % len(windows)])

    def labels(self, index: int) -> Mapping[str, int]:
        """Return head → class id of a clip, without reading it."""
        return self._labels[index]

    def computed(self, index: int) -> frozenset[Modality]:
        """Return the modalities that were computed from another one's samples."""
        return frozenset(map(Modality, self._computed[index]))

    def recorded(self, index: int) -> tuple[Modality, ...]:
        """Return the modalities that a clip has as it is scored, without reading it."""
        return in_order(map(Modality, self._recorded[index]))

    @property
    def shuffled_shards(self) -> tuple[Sequence[int] | None, int]:
        """
        Return the shard of each clip and how many shards clips are shuffled among.

        No shards: among all. With a limit of copies, half of it is of the shards that are next.
        """
        limit = self.pack.limit_bytes
        if not limit:
            return None, 1
        return self.shards, max(1, limit // 2 // max(each['size'] for each in self.pack.shards))

    def decided_by(self) -> Any:
        """Return what decides the clips."""
        return self.pack.digest, self.split

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f'clip {index} of {len(self)}')

    def _sample(self, index: int, row: int) -> Sample:
        encoded, inputs = self.pack.row(row), {}
        for modality in self.packed_modalities:
            data = encoded.get(str(modality))
            if data and (self._wanted is None or modality in self._wanted):
                inputs[modality] = self._input(modality, data, row)
        if not any(encoded.values()):
            raise DataError(self.pack.store.location, f'clip {index} of {self.split} has no data: '
                            'nothing of its segment could be read when it was packed',
                            'repair the recording and pack the data again')
        return Sample(Clip(inputs), self._labels[index], index)

    def _input(self, modality: Modality, data: bytes, row: int) -> Any:
        own = modality_type(modality)
        try:
            array = decode_array(data[1:])
        except ValueError as error:
            raise DataError(self.pack.store.location, f'{modality} of row {row}: {error}',
                            _REMEDY) from error
        if data[:1] != SAMPLES:
            return array
        prepare = own.begin if modality in self.unprepared else own.prepare
        return prepare(array, self.spec)


def open_pack(
    location: str, spec: ClipSpec | None, cache: Path, timeout_s: float, limit_bytes: int = 0,
) -> Splits:
    """
    Open the splits of a pack.

    :param location: a folder or a URL.
    :param spec: format of the clips that is needed; None: that of the pack.
    :param cache: folder for the shards of a bucket.
    :param timeout_s: limit of one request to a bucket.
    :param limit_bytes: of the copies of shards; 0: all are kept.
    :raises DataError: when it is missing, incomplete, damaged, or of another format.
    """
    store = ShardStore(location, timeout_s)
    content = read_json(store, METADATA)
    if content is None:
        started = store.size(f'{METADATA}.of') is not None
        raise DataError(store.location, 'the pack is not complete' if started else
                        f'there is no pack: it has no {METADATA}', 'give the command that packs '
                        'the data' + (' again' if started else ', karmma data pack'))
    if content.get('version') != VERSION:
        raise DataError(store.location, f'its version is {content.get("version")!r}; expected '
                        f'{VERSION}', 'pack the data again')
    packed = ClipSpec.from_dict(content['clip'])
    if spec is not None and spec.to_dict() != packed.to_dict():
        raise DataError(store.location, 'its clips have another format: they differ in '
                        f'{", ".join(_differences(spec.to_dict(), packed.to_dict()))}',
                        'pack the data with these settings')
    digest = hashlib.sha256(repr(sorted(
        (key, content[key]) for key in content if key != 'data')).encode()).hexdigest()
    folder = Path(location)
    if store.remote:
        folder = cache / 'packs' / digest[:16]
        _copy_index(store, folder)
    pack = Pack(store, folder, content['shards'], digest, limit_bytes)
    modalities = in_order(map(Modality, content['modalities']))
    clips = {split: PackedClips(pack, packed, split, table, modalities)
             for split, table in content['splits'].items()}
    train, validation, test = (clips[content['aliases'].get(name, name)] for name in SPLITS)
    vocabulary = Vocabulary({head: tuple(names) for head, names in content['heads'].items()},
                            content['background'])
    return Splits(content['name'], packed, vocabulary, train, validation, test,
                  tuple(content['folds']))


def _copy_index(store: ShardStore, folder: Path) -> None:
    if (folder / INDEX).is_file():
        return
    data = store.read(INDEX)
    if data is None:
        raise DataError(store.path(INDEX), 'it is missing', _REMEDY)
    os.makedirs(folder, exist_ok=True)
    ShardStore(str(folder)).write(INDEX, data)


def _differences(wanted: Mapping[str, Any], packed: Mapping[str, Any], prefix: str = 'clip',
                 ) -> list[str]:
    """Return the fields that differ, with both values."""
    names: list[str] = []
    for key in sorted({*wanted, *packed}):
        ours, theirs = wanted.get(key), packed.get(key)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            names += _differences(ours, theirs, f'{prefix}.{key}')
        elif ours != theirs:
            names.append(f'{prefix}.{key} ({theirs!r} in the pack; {ours!r} wanted)')
    return names
