"""
Windows of segments that are prepared once and kept on disk.

Reading and preparing a window costs far more than a small network's step. Each modality of a split
is an `ArrayStore`: a folder that exists is complete, and a stopped run is continued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
import shutil
from typing import Any
import warnings

import cv2
from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.data.samples import Sample
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.errors import DataError
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.storage import Arrays, ArrayStore, file_lock, open_arrays, REMEDY
import numpy as np
from numpy.typing import NDArray

VERSION = 1
"""Grows whenever equal settings would give windows that differ by more than rounding."""
INPUT, PRESENT = 'input', 'present'
"""Arrays of a modality: its inputs, and whether they could be read."""
_MOST_ROWS, _MOST_BYTES = 32, 2 ** 26
"""Of what is written at once: what an interrupted run does not have to prepare again."""


class CachedWindows:
    """
    The clips of a `SegmentDataset`, with a number of windows of each segment on disk.

    Epoch e trains on the window that the data set has in epoch e modulo that number. Where a
    modality is not on disk, the data set reads the sample.

    :param windows: of each training segment; 0: the one that is scored.
    :param stores: modality → where its inputs are, complete.
    """

    def __init__(
        self, clips: SegmentDataset, windows: int, stores: Mapping[Modality, ArrayStore]
    ) -> None:
        self.clips, self.windows, self.stores = clips, windows, stores
        self.unreadable: dict[str, int] = {}
        """Path or segment → windows on disk that lack it."""
        self._open()

    @classmethod
    def build(
        cls, clips: SegmentDataset, windows: int, modalities: Sequence[Modality], folder: Path,
        digest: str, workers: int = 1,
        progress: Callable[[str, int, int], None] = lambda task, done, total: None,
    ) -> CachedWindows:
        """
        Prepare the windows of a split, unless they are in the folder.

        :param modalities: to prepare, of those that the segments have.
        :param digest: of everything that decides the clips, see `clips_digest`.
        :param workers: processes that prepare; 1 prepares in this one.
        :param progress: called with the name of a task, the windows done and the total.
        :raises DataError: when the disk has too little space.
        """
        recorded = {m for segment in clips.segments for m in segment.sources}
        stores = {m: _store(clips, windows, m, folder / m.value, digest)
                  for m in modalities if m in recorded}
        missing = {m: store for m, store in stores.items() if not store.complete}
        _check_space(folder, missing.values())
        for modality, store in missing.items():
            with file_lock(store.folder):
                if not store.complete:
                    task = f'windows of {folder.name}: {modality} ({_text(store.nbytes)})'
                    store.fill(
                        _Windows(_alone(clips, modality), windows, modality),
                        max(1, min(_MOST_ROWS, _MOST_BYTES * store.rows // store.nbytes)),
                        workers, lambda done, total: progress(task, done, total), _use_one_thread)
        cached = cls(clips, windows, stores)
        cached._warn()
        return cached

    @property
    def spec(self) -> ClipSpec:
        """Return the format of the clips."""
        return self.clips.spec

    @property
    def segments(self) -> list[LabelledSegment]:
        """Return the segments."""
        return self.clips.segments

    def with_modalities(self, modalities: Sequence[Modality]) -> CachedWindows:
        """Return the same clips with some modalities only; one that has none of them is empty."""
        selected = copy(self)
        selected.clips = self.clips.with_modalities(modalities)
        return selected

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        """
        Return the clip at the centre of a segment: always the same.

        :raises DataError: when nothing of the segment can be read.
        """
        cached = None if self.windows or not 0 <= index < len(self) else self._sample(index, index)
        return cached or self.clips[index]

    def arrays(self, index: int, delay_s: float = 0.0) -> dict[Modality, Any]:
        """Return what the data set reads, which is not kept."""
        return self.clips.arrays(index, delay_s)

    def labels(self, index: int) -> Mapping[str, int]:
        """Return head → class id of a clip, without reading it."""
        return self.segments[index].labels

    def computed(self, index: int) -> frozenset[Modality]:
        """Return the modalities of a clip that are computed from another one's samples."""
        return self.clips.computed(index)

    def training_sample(self, index: int, epoch: int) -> Sample:
        """
        Return one of the windows of a segment, another one in each epoch.

        :raises DataError: when nothing of the segment can be read.
        """
        if not self.windows or not 0 <= index < len(self):
            return self.clips.training_sample(index, epoch)
        window = epoch % self.windows
        return (self._sample(index, index * self.windows + window)
                or self.clips.training_sample(index, window))

    def _sample(self, index: int, row: int) -> Sample | None:
        """Return what is on disk; None when it is not all of the sample, or nothing."""
        wanted = self.clips.modalities(index)
        if not all(m in self._arrays for m in wanted):
            return None
        inputs = {m: np.array(self._arrays[m][INPUT][row]) for m in wanted
                  if self._arrays[m][PRESENT][row]}
        return Sample(Clip(inputs), self.segments[index].labels, index) if inputs else None

    def _open(self) -> None:
        self._arrays: dict[Modality, dict[str, NDArray[Any]]] = {}
        for modality, store in self.stores.items():
            metadata, self._arrays[modality] = open_arrays(store.folder)
            if metadata != store.metadata:
                raise DataError(store.folder, 'another run has replaced it', REMEDY)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_arrays': {}}  # each process maps the files

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _warn(self) -> None:
        """Count what could not be read; read each path once more for a warning with the reason."""
        for modality, arrays in self._arrays.items():
            alone = _alone(self.clips, modality)
            for row in np.flatnonzero(~arrays[PRESENT]).tolist():
                segment = self.segments[row // max(1, self.windows)]
                if modality not in segment.sources:
                    continue
                path = str(getattr(segment.sources[modality], 'path', segment.name))
                if path not in self.unreadable:
                    with suppress(DataError):
                        _read(alone, self.windows, row)
                self.unreadable[path] = self.unreadable.get(path, 0) + 1


@dataclass(frozen=True)
class _Windows:
    """Prepares one modality of some windows."""

    clips: SegmentDataset
    """With this modality only."""
    windows: int
    modality: Modality

    def __call__(self, rows: range) -> Arrays:
        shape = modality_type(self.modality).input_shape(self.clips.spec)
        inputs, present = np.zeros((len(rows), *shape), np.float32), np.zeros(len(rows), np.bool_)
        for i, row in enumerate(rows):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # `CachedWindows` warns once for all processes
                try:
                    clip = _read(self.clips, self.windows, row).clip
                except DataError:
                    if not self.clips.skip_unreadable:
                        raise
                    continue
            if self.modality in clip.inputs:
                inputs[i], present[i] = clip.inputs[self.modality], True
        return {INPUT: inputs, PRESENT: present}


def _alone(clips: SegmentDataset, modality: Modality) -> SegmentDataset:
    """Return the same clips with one modality, which have not warned of anything yet."""
    alone = clips.with_modalities([modality])
    alone.unreadable = {}
    return alone


def _read(clips: SegmentDataset, windows: int, row: int) -> Sample:
    return clips.training_sample(*divmod(row, windows)) if windows else clips[row]


def _store(
    clips: SegmentDataset, windows: int, modality: Modality, folder: Path, digest: str
) -> ArrayStore:
    facts = {'version': VERSION, 'data': digest, 'modality': modality.value, 'windows': windows,
             'seed': clips.seed if windows else None}
    shape = modality_type(modality).input_shape(clips.spec)
    layout = {INPUT: (np.float32, shape), PRESENT: (np.bool_, ())}
    return ArrayStore(folder, facts, layout, len(clips) * max(1, windows))


def _check_space(folder: Path, stores: Iterable[ArrayStore]) -> None:
    """Check that the disk has space for what is not yet allocated."""
    needed = sum(store.nbytes for store in stores if not store.allocated)
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(
            folder, f'its windows need {_text(needed)}, and the disk has {_text(free)}',
            'lower data.windows, or set --cache to a folder on a larger disk')


def _text(nbytes: int) -> str:
    unit, name = next(((u, n) for u, n in ((1e9, 'GB'), (1e6, 'MB')) if nbytes >= u), (1e3, 'kB'))
    return f'{nbytes / unit:.1f} {name}'


def _use_one_thread() -> None:
    cv2.setNumThreads(1)
