"""
Write the windows of a data set into shards, from which training reads them many times faster.

A row is one window of one segment: every modality that it has, cropped and encoded. Of a training
segment there are several windows, one of them that which is scored; equal windows are one row. A
shard holds complete segments; its content depends on the data and the settings alone. Its record
is written after it, beside it: a shard with its record is not written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, ExitStack
from copy import copy
from dataclasses import dataclass, field
from functools import partial
import hashlib
import json
from pathlib import Path
import shutil
import tempfile
from typing import Any
import warnings

import cv2
from karmma_ros.cluster.engine import check_shared, map_tasks, ONE, Report, Workers
from karmma_ros.data.packs.array_encoding import encode_array
from karmma_ros.data.packs.pack_format import (
    INDEX,
    INPUT,
    METADATA,
    read_json,
    record_name,
    SAMPLES,
    shard_name,
    SPLITS,
    to_json,
    VERSION,
)
from karmma_ros.data.packs.shard_plan import distinct_clips, plan_shards, Shard, window_starts
from karmma_ros.data.packs.shard_store import ShardStore
from karmma_ros.data.samples import Clips, Splits
from karmma_ros.data.segments import SegmentDataset
from karmma_ros.errors import DataError, KarmmaError
from karmma_ros.modalities import modality_type
from karmma_ros.modality import in_order, Modality
from karmma_ros.storage import file_lock, fingerprint
import numpy as np
from numpy.typing import NDArray

SHARD_BYTES = 64 << 20
"""About the size of a shard: what is read from a bucket at once."""
_PARTIAL = '.partial_'
"""Begin of the names of folders of shards that are being written."""
_PROBED = 8
"""First clips among which one is encoded to know the size of a row."""
Row = dict[str, bytes]
"""Modality → its encoded array, empty where the window lacks it."""


@dataclass(frozen=True)
class PackWork:
    """What decides the rows of every shard; each process gets a pickle of it."""

    store: ShardStore
    clips: Mapping[str, Clips]
    """Split → its clips, each once."""
    windows: int
    """Of each training segment, besides the scored one."""
    quality: int
    """As `encode_array` takes it."""
    modalities: tuple[Modality, ...]
    fingerprint: str
    """Of the facts of the pack."""


@dataclass
class PackSummary:
    """What a pack holds."""

    clips: int = 0
    rows: int = 0
    shards: int = 0
    nbytes: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    """Path → the first error, of files whose modality the rows lack."""


def write_pack(
    splits: Splits, store: ShardStore, windows: int, quality: int, digests: Mapping[str, str],
    workers: Workers = ONE, progress: Callable[[int, int], None] = lambda done, total: None,
) -> PackSummary:
    """
    Write a pack; one that was stopped is continued.

    :param windows: windows of each training segment; the epochs take them in turn.
    :param quality: JPEG quality of images, or `LOSSLESS`.
    :param digests: split → digest of all that decides its clips, see `clips_digest`.
    :param workers: what writes the shards, one each at a time.
    :param progress: called with the clips done and the total.
    :raises DataError: when something cannot be written, or another pack is there.
    """
    distinct = distinct_clips(splits)
    clips = {name: each for name, each in distinct.items() if not isinstance(each, str)}
    aliases = {name: each for name, each in distinct.items() if isinstance(each, str)}
    modalities = _modalities(clips)
    rows = _shard_rows(clips, quality)
    facts = {
        'version': VERSION, 'name': splits.name, 'clip': splits.spec.to_dict(),
        'heads': {head: list(names) for head, names in splits.vocabulary.heads.items()},
        'background': splits.vocabulary.background, 'folds': list(splits.folds),
        'modalities': [str(m) for m in modalities], 'windows': windows, 'quality': quality,
        'shard_rows': rows, 'data': dict(digests), 'aliases': aliases}
    work = PackWork(store, clips, windows, quality, modalities, fingerprint(facts))
    with _claimed(store, work.fingerprint):
        shards = list(plan_shards(clips, windows, rows))
        records = _write_shards(work, shards, workers, progress)
        return _finish(store, facts, clips, shards, records)


def _write_shards(
    work: PackWork, shards: Sequence[Shard], workers: Workers,
    progress: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """Return the records of shards, written unless they are complete."""
    total, done = sum(len(shard.segments) for shard in shards), 0
    progress(0, total)

    def on_result(number: int, outcome: dict[str, Any] | KarmmaError) -> None:
        nonlocal done
        if isinstance(outcome, KarmmaError):
            raise outcome
        done += len(shards[number].segments)
        progress(done, total)
    return map_tasks(_write_task, shards, partial(_started, work, workers), workers,
                     on_result=on_result)


def _modalities(clips: Mapping[str, Clips]) -> tuple[Modality, ...]:
    """Return the modalities that any clip can have."""
    names: set[Modality] = set()
    for each in clips.values():
        if isinstance(each, SegmentDataset):
            names.update(*(segment.sources for segment in each.segments))
        else:
            names.update(*(each[i].clip.inputs for i in range(min(_PROBED, len(each)))))
    return in_order(names)


def _shard_rows(clips: Mapping[str, Clips], quality: int) -> int:
    """Return the rows of a shard, from the size of one of the first that can be read."""
    first = clips[SPLITS[0]]
    for index in range(min(_PROBED, len(first))):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                row = _encoded(first, index, None, quality)
            except DataError:
                continue
        return max(1, SHARD_BYTES // max(1, sum(map(len, row.values()))))
    return 1


@contextmanager
def _claimed(store: ShardStore, wanted: str) -> Iterator[None]:
    """Hold the lock of a folder; remove what a process that was killed has left in it."""
    if store.remote:
        _claim(store, wanted)
        yield
        return
    folder = Path(store.location)
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder))
        except OSError as error:
            raise store.problem(METADATA, 'written', error) from error
        for partial_folder in folder.glob(f'{_PARTIAL}*'):
            shutil.rmtree(partial_folder, ignore_errors=True)
        _claim(store, wanted)
        yield


def _claim(store: ShardStore, wanted: str) -> None:
    """Refuse a folder with another pack; mark it as of this one."""
    mark = f'{METADATA}.of'
    present = store.read(mark)
    if present is None:
        store.write(mark, wanted.encode())
    elif present.decode(errors='replace') != wanted:
        raise DataError(store.location, 'it has shards of other data, or of other settings',
                        'give another --out, or delete it')


def _started(work: PackWork, workers: Workers) -> PackWork:
    if workers != ONE:
        cv2.setNumThreads(1)
    if not work.store.remote:
        check_shared('--out', Path(work.store.location))
    return work


def _write_task(work: PackWork, shard: Shard, progress: Report) -> dict[str, Any]:
    return write_shard(work, shard)


def write_shard(work: PackWork, shard: Shard) -> dict[str, Any]:
    """
    Write a shard and its record, unless they are complete; return the record.

    :raises DataError: when it cannot be written; no shard is left that is cut short.
    """
    name = shard_name(shard.number)
    record = read_json(work.store, record_name(shard.number))
    if record is not None and record.get('pack') == work.fingerprint \
            and work.store.size(name) == record['size']:
        return record
    rows: list[Row] = []
    segments: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {}
    clips = _unwarned(work.clips[shard.split])
    windows = work.windows if shard.split == SPLITS[0] else 0
    for index in shard.segments:
        numbers, problems = _pack_segment(work, clips, index, windows, rows)
        segments.append({'labels': dict(_labels(clips, index)), 'rows': numbers,
                         'modalities': [name for name, data in rows[numbers[-1]].items() if data],
                         'computed': [str(m) for m in _computed(clips, index)]})
        unreadable |= {path: text for path, text in problems.items() if path not in unreadable}
    inputs = [str(m) for m in work.modalities if any(row[m][:1] == INPUT for row in rows)]
    record = {'pack': work.fingerprint, 'rows': len(rows), 'segments': segments, 'inputs': inputs,
              'unreadable': unreadable, **_write_rows(work.store, name, shard.number, rows)}
    work.store.write(record_name(shard.number), to_json(record))
    return record


def _unwarned(clips: Clips) -> Clips:
    """Return the same clips, which have not warned of any file: each shard has its own record."""
    if isinstance(clips, SegmentDataset):
        clips = copy(clips)
        clips.unreadable = {}
    return clips


def _pack_segment(
    work: PackWork, clips: Clips, index: int, windows: int, rows: list[Row],
) -> tuple[list[int], dict[str, str]]:
    """Add the rows of a segment; return the row of each window, and what cannot be read."""
    own: dict[Any, int] = {}
    first = len(rows)
    starts, problems = window_starts(clips, index, windows), {}
    for epoch, start in enumerate(starts):
        if start in own:
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            try:
                encoded = _encoded(clips, index, None if epoch + 1 == len(starts) else epoch,
                                   work.quality)
            except DataError as error:  # training reports a segment of which nothing is left
                encoded = {}
                problems[str(error.path)] = str(error)
        problems |= {str(each.message): str(each.message) for each in caught
                     if 'missing from its samples' in str(each.message)}
        row = {str(m): encoded.get(str(m), b'') for m in work.modalities}
        same = next((i for i in range(first, len(rows)) if rows[i] == row), len(rows))
        if same == len(rows):
            rows.append(row)
        own[start] = same
    return [own[start] for start in starts], problems


def _encoded(clips: Clips, index: int, epoch: int | None, quality: int) -> Row:
    """Return the encoded window of an epoch, or the scored one."""
    if isinstance(clips, SegmentDataset):
        stored = clips.read(index, clips.start_of(index, epoch),
                            lambda m, arrays: _stored(m, arrays, clips, quality))
        return {str(modality): data for modality, data in stored.items()}
    sample = clips[index] if epoch is None else clips.training_sample(index, epoch)
    return {str(m): _stored_input(m, x, clips, quality) for m, x in sample.clip.inputs.items()}


def _stored(modality: Modality, arrays: Any, clips: SegmentDataset, quality: int) -> bytes:
    own = modality_type(modality)
    prepared = own.prepare(arrays, clips.spec)  # also reports what cannot be used
    if own.packs_samples:
        return SAMPLES + encode_array(arrays, quality)
    return INPUT + encode_array(prepared, quality)


def _stored_input(modality: Modality, x: NDArray[Any], clips: Any, quality: int) -> bytes:
    """Return an input; the 8-bit samples that it was prepared from, where they give it exactly."""
    own = modality_type(modality)
    if own.packs_samples and own.is_image and own.has_frames:
        samples = own.restore(x, clips.spec)
        if np.array_equal(own.prepare(samples, clips.spec), x):
            return SAMPLES + encode_array(samples, quality)
    return INPUT + encode_array(x, quality)


def _labels(clips: Any, index: int) -> Mapping[str, int]:
    labels: Mapping[str, int] = (
        clips.labels(index) if hasattr(clips, 'labels') else clips[index].labels)
    return labels


def _computed(clips: Any, index: int) -> Sequence[Modality]:
    return in_order(clips.computed(index)) if hasattr(clips, 'computed') else ()


def _write_rows(
    store: ShardStore, name: str, number: int, rows: Sequence[Row]
) -> dict[str, Any]:
    """Write a shard in LitData's format; return its size, digest and entry of the index."""
    try:
        from litdata.streaming.writer import BinaryWriter
    except ImportError as error:
        raise DataError(store.location, f'packs are written by LitData, which is missing '
                        f'({error})', 'pip install -r requirements/training.txt') from error
    try:
        if not store.remote:
            Path(store.location).mkdir(parents=True, exist_ok=True)
        parent = None if store.remote else store.location  # so that the shard can be moved
        with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=parent) as folder:
            writer = BinaryWriter(folder, chunk_size=len(rows) + 1, chunk_index=number)
            for row_number, row in enumerate(rows):
                writer.add_item(row_number, row)
            writer.done()
            path = next(Path(folder).glob('chunk-*.bin'))
            index = json.loads(next(Path(folder).glob('*index.json')).read_text())
            content = path.read_bytes()
            store.write(name, path)
    except OSError as error:
        raise store.problem(name, 'written', error) from error
    index['config']['chunk_size'] = None
    return {'size': len(content), 'sha256': hashlib.sha256(content).hexdigest(),
            'index': {**index['chunks'][0], 'filename': name}, 'config': index['config']}


def _finish(
    store: ShardStore, facts: Mapping[str, Any], clips: Mapping[str, Clips],
    shards: Sequence[Shard], records: Sequence[Mapping[str, Any]],
) -> PackSummary:
    """Write the index of all shards, then what completes the pack."""
    summary = PackSummary(sum(map(len, clips.values())), shards=len(shards))
    tables: dict[str, dict[str, list[Any]]] = {
        split: {'labels': [], 'rows': [], 'modalities': [], 'computed': [], 'shards': [],
                'inputs': []} for split in clips}
    for shard, record in zip(shards, records):
        table = tables[shard.split]
        for segment in record['segments']:
            for name in ('labels', 'modalities', 'computed'):
                table[name].append(segment[name])
            table['rows'].append([summary.rows + row for row in segment['rows']])
            table['shards'].append(shard.number)
        table['inputs'] += [name for name in record['inputs'] if name not in table['inputs']]
        summary.rows += record['rows']
        summary.nbytes += record['size']
        summary.unreadable |= {p: text for p, text in record['unreadable'].items()
                               if p not in summary.unreadable}
    store.write(INDEX, to_json({
        'chunks': [record['index'] for record in records], 'config': records[0]['config'],
        'updated_at': '0'}))
    listed = [{name: record[name] for name in ('rows', 'size', 'sha256')} for record in records]
    store.write(METADATA, to_json({**facts, 'splits': tables, 'shards': listed}))
    return summary
