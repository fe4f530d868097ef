"""
The splits as torch data sets: read from disk, or rendered on access.

A split on disk is memory-mapped arrays and the settings that they were made from. While it is
written it is beside its folder, under `NAME.partial`, and is moved there when it is complete: a
folder that exists is complete. A stopped run is continued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
import json
import multiprocessing
import os
from pathlib import Path
import shutil
from typing import Any

import cv2
from karmma_ros.clip import ClipSpec
from karmma_ros.data.samples import Sample, Splits
from karmma_ros.data.synthetic_kitchen.episode import render_clip, RenderedClip
from karmma_ros.data.synthetic_kitchen.vocabulary import NOUNS, Split, VERBS, vocabulary
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.prediction import NOUN, VERB
from karmma_ros.storage import alone, lay_out, METADATA, read_metadata
import numpy as np
from torch.utils.data import Dataset

VERSION = 3
"""Grows whenever equal settings would give clips that differ by more than rounding."""

CHUNK = 32
"""Clips after which progress is noted."""

PROGRESS = 'progress.txt'

_TYPES = {'rgb': np.uint8, 'flow': np.uint8, 'audio': np.float16, 'detections': np.float32,
          'labels': np.int64}
assert tuple(_TYPES) == tuple(f.name for f in fields(RenderedClip))


class CacheError(DataError):
    """A written split is missing, not whole or made from other settings than wanted."""


def write_split(folder: Path | str, split: Split, count: int, seed: int, spec: ClipSpec, *,
                workers: int = 1, progress: Callable[[int, int], None] | None = None) -> Path:
    """
    Render the first `count` clips of a split into `folder`, or find them there already.

    :param workers: processes that render; 1 renders in this one.
    :param progress: called with the clips done and the clips in all.
    :raises CacheError: when the folder holds a split made from other settings.
    :raises InvalidSettingError: when there is nothing to write or nobody to write it.
    """
    for name, value in (('count', count), ('workers', workers)):
        if value < 1:
            raise InvalidSettingError(name, value, 'at least 1')
    folder = Path(folder)
    with alone(folder):
        _write(folder, split, count, seed, spec, workers, progress or (lambda *_: None))
    return folder


def _write(folder: Path, split: Split, count: int, seed: int, spec: ClipSpec,
           workers: int, progress: Callable[[int, int], None]) -> None:
    wanted = describe(split, count, seed, spec)
    if folder.exists():
        check(folder, wanted)
        return
    partial = folder.with_name(folder.name + '.partial')
    if partial.exists() and read_metadata(partial) != wanted:
        shutil.rmtree(partial)
    if not partial.exists():
        _prepare(partial, wanted, spec)
    _render_all(partial, split, count, seed, spec, workers, progress)
    (partial / PROGRESS).unlink(missing_ok=True)
    os.replace(partial, folder)


def describe(split: Split, count: int, seed: int, spec: ClipSpec) -> dict[str, Any]:
    """Return everything that decides the content of a written split, JSON-ready."""
    facts = {'dataset': 'synthetic_kitchen', 'version': VERSION, 'split': split.value,
             'count': count, 'seed': seed, 'verbs': VERBS, 'nouns': NOUNS,
             'spec': spec.to_dict()}
    return json.loads(json.dumps(facts))


def check(folder: Path | str, wanted: dict[str, Any]) -> None:
    """
    Make sure that a folder holds the wanted split, whole.

    :raises CacheError: when it does not.
    """
    found = read_metadata(Path(folder))
    if found is None:
        raise CacheError(folder, f'it has no readable {METADATA}', _REMEDY)
    for key, value in wanted.items():
        if found.get(key) != value:
            raise CacheError(
                folder, f'its {key} is {_short(found.get(key), value)}', _REMEDY)
    for name in _TYPES:
        if not (Path(folder) / f'{name}.npy').is_file():
            raise CacheError(folder, f'{name}.npy is missing', _REMEDY)


def open_split(folder: Path | str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """
    Return the metadata and the memory-mapped arrays of a written split.

    :raises CacheError: when it is missing, not whole or of another version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        partly = folder.with_name(folder.name + '.partial').is_dir()
        raise CacheError(folder, 'it was not written to its end' if partly else
                         'there is no such folder', 'write it with write_split')
    check(folder, {'dataset': 'synthetic_kitchen', 'version': VERSION})
    metadata = read_metadata(folder) or {}
    arrays = {}
    for name, dtype in _TYPES.items():
        try:
            arrays[name] = np.load(folder / f'{name}.npy', mmap_mode='r')
        except (ValueError, OSError) as error:
            raise CacheError(folder, f'{name}.npy is damaged ({error})', _REMEDY) from error
        if arrays[name].dtype != dtype or len(arrays[name]) != metadata.get('count'):
            raise CacheError(folder, f'{name}.npy does not fit {METADATA}', _REMEDY)
    return metadata, arrays


_REMEDY = 'delete it and write it again'


def _short(found: object, wanted: object) -> str:
    """Say what differs; of two mappings only the fields that do."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = [k for k in wanted if found.get(k) != wanted[k]]
        return f'another in {", ".join(names)} than wanted'
    return f'{found!r} where {wanted!r} is wanted'


def _prepare(partial: Path, wanted: dict[str, Any], spec: ClipSpec) -> None:
    """Lay out empty arrays; the metadata come last, so that a half-made layout is none."""
    partial.mkdir(parents=True)
    count, t = wanted['count'], spec.num_frames
    picture = (t, spec.video.height, spec.video.width)
    shapes = {'rgb': (*picture, 3), 'flow': (*picture, 2),
              'audio': spec.input_shape(Modality.AUDIO),
              'detections': spec.input_shape(Modality.DETECTIONS), 'labels': (2,)}
    for name, dtype in _TYPES.items():
        lay_out(partial / f'{name}.npy', dtype, (count, *shapes[name]))
    (partial / METADATA).write_text(json.dumps(wanted, indent=2) + '\n')


def _render_all(partial: Path, split: Split, count: int, seed: int, spec: ClipSpec,
                workers: int, progress: Callable[[int, int], None]) -> None:
    done = _done_chunks(partial)
    open_chunks = [start for start in range(0, count, CHUNK) if start not in done]
    ready = count - sum(min(CHUNK, count - start) for start in open_chunks)
    progress(ready, count)
    jobs = [(partial, split, start, min(start + CHUNK, count), seed, spec)
            for start in open_chunks]
    with (partial / PROGRESS).open('a') as notes:
        for start, stop in _map(jobs, workers):
            notes.write(f'{start}\n')
            notes.flush()
            ready += stop - start
            progress(ready, count)


def _done_chunks(partial: Path) -> set[int]:
    """Read the starts of the chunks noted as done; a line without its end does not count."""
    try:
        lines = (partial / PROGRESS).read_text().split('\n')[:-1]
    except OSError:
        return set()
    return {int(line) for line in lines if line.isdigit()}


def _map(jobs: list[tuple[Any, ...]], workers: int) -> Iterator[tuple[int, int]]:
    if workers == 1 or len(jobs) < 2:
        yield from map(_render_chunk, jobs)
        return
    # Not fork: the caller may hold threads (torch, OpenCV) that would not survive it.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, initializer=_alone) as pool:
        yield from pool.map(_render_chunk, jobs)


def _alone() -> None:
    cv2.setNumThreads(1)


def _render_chunk(job: tuple[Path, Split, int, int, int, ClipSpec]) -> tuple[int, int]:
    partial, split, start, stop, seed, spec = job
    arrays = {name: np.load(partial / f'{name}.npy', mmap_mode='r+') for name in _TYPES}
    for index in range(start, stop):
        rendered = render_clip(split, seed, index, spec)
        for name, array in arrays.items():
            array[index] = getattr(rendered, name)
    for array in arrays.values():
        array.flush()
    return start, stop


class CachedKitchen(Dataset[Sample]):
    """
    A split that `write_split` wrote.

    Each process maps the files anew; pickling it carries the folder's name alone.

    :raises CacheError: when the folder is missing, not whole or of another version.
    """

    def __init__(
        self, folder: Path | str, modalities: Sequence[Modality] = tuple(Modality)
    ) -> None:
        self.folder = Path(folder)
        self.modalities = tuple(modalities)
        self._open()

    def taking(self, modalities: Sequence[Modality]) -> CachedKitchen:
        """Return the same clips with some modalities only."""
        return CachedKitchen(self.folder, modalities)

    def _open(self) -> None:
        self.metadata, self._arrays = open_split(self.folder)
        self.spec = ClipSpec.from_dict(self.metadata['spec'])

    def __getstate__(self) -> dict[str, Any]:
        return {'folder': self.folder, 'modalities': self.modalities}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._arrays['labels'])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f'clip {index} of {len(self)}')
        rendered = RenderedClip(**{k: np.asarray(v[index]) for k, v in self._arrays.items()})
        return _sample(rendered, self.spec, self.modalities)

    def visit(self, index: int, epoch: int) -> Sample:
        """Return the clip, which has one window only."""
        return self[index]


class LiveKitchen(Dataset[Sample]):
    """The same split, rendered clip by clip as it is asked for."""

    def __init__(self, split: Split, count: int, seed: int, spec: ClipSpec) -> None:
        self.split, self.count, self.seed, self.spec = split, count, seed, spec

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f'clip {index} of {len(self)}')
        return _sample(render_clip(self.split, self.seed, index, self.spec), self.spec)

    def visit(self, index: int, epoch: int) -> Sample:
        """Return the clip, which has one window only."""
        return self[index]


def _sample(
    rendered: RenderedClip, spec: ClipSpec, modalities: Sequence[Modality] = tuple(Modality)
) -> Sample:
    verb, noun = (int(label) for label in rendered.labels)
    return Sample(rendered.clip(spec, modalities), {VERB: verb, NOUN: noun})


TITLE = 'Synthetic Kitchen'


@dataclass(frozen=True)
class KitchenSettings:
    """How much of the synthetic kitchen to render."""

    train: int = 7200
    """Training clips."""
    validation: int = 800
    """Validation clips."""
    test: int = 1600
    """Test clips."""
    seed: int = 0
    """Seed of everything that is rendered."""

    def __post_init__(self) -> None:
        for name in ('train', 'validation', 'test'):
            if getattr(self, name) < 1:
                raise InvalidSettingError(
                    f'synthetic_kitchen.{name}', getattr(self, name), 'an integer above 0')


def open_splits(
    settings: KitchenSettings, spec: ClipSpec, cache: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Splits:
    """
    Render the splits, or find them rendered.

    :param cache: folder to keep them in.
    :param progress: called with what is done, the clips done and the clips in all.
    :raises CacheError: when the folder holds something else under their names.
    """
    written = {}
    for split in Split:
        count = getattr(settings, split.value)
        folder = write_split(
            cache / f'{split}_{count}_{settings.seed}', split, count, settings.seed, spec,
            workers=os.cpu_count() or 1,
            progress=partial(progress, f'rendering {split}'))
        written[split] = CachedKitchen(folder)
    return Splits(TITLE, spec, vocabulary(), written[Split.TRAIN], written[Split.VALIDATION],
                  written[Split.TEST])
