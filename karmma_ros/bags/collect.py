"""
Collect the predictions for a bag by condition, and write them to disk to resume a stopped run.

A folder for each bag and settings contains the predictions in parts, as they are made, and in one
file when the bag is done. After a stop the bag is read again from its start, as its windows depend
on all earlier messages; the inference that is on disk is not repeated, unless the network is
stateful.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
import hashlib
import json
import os
from pathlib import Path
import time
from typing import Any, NamedTuple

from karmma_ros.bags.bag_run import Condition
from karmma_ros.bags.limits import size_of
from karmma_ros.bags.simulated_node import WindowRequest
from karmma_ros.errors import InvalidSampleError
from karmma_ros.evaluation.inference import Subset
from karmma_ros.evaluation.predictions import (
    BagPredictions,
    load_conditions,
    PredictionsError,
    save_conditions,
)
from karmma_ros.evaluation.window_inference import BatchInference, Prepared, SubsetPredictions
from karmma_ros.files import open_regular
from karmma_ros.storage import write_atomically
import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 20
_FACTS, _PREDICTIONS = 'facts.json', 'predictions.npz'


class Collector:
    """Run inference on windows, and collect the predictions by condition until they are taken."""

    def __init__(
        self, conditions: Sequence[Sequence[Condition]], sizes: Mapping[str, int],
        recorded_run: int, modalities: Subset,
    ) -> None:
        """
        Start empty.

        :param conditions: for each run.
        :param sizes: head → number of classes.
        :param recorded_run: index of the run with the windows of recorded predictions.
        :param modalities: of the columns of the tables, as the stream lists them.
        """
        self._sizes, self._recorded_run, self._modalities = sizes, recorded_run, modalities
        self._names = [[(f'{run}/{c.name}', c) for c in group]
                       for run, group in enumerate(conditions)]
        self._used = cache(Condition.used)
        self._rows: dict[str, list[_Row]] = {}
        self._recorded: list[_Row] = []
        self.dropped: Counter[str] = Counter()
        """Reason → windows without a prediction, since `take_dropped`."""

    def has_recorded(self, batch: Sequence[WindowRequest]) -> bool:
        """Return whether a batch has windows of recorded predictions, which are not on disk."""
        return any(request.run_index == self._recorded_run for request in batch)

    def predict(
        self, inference: BatchInference, batch: Sequence[WindowRequest],
        recorded_only: bool = False,
    ) -> None:
        """
        Run inference on a batch, and collect the predictions.

        :param recorded_only: collect only those for windows of recorded predictions.
        """
        started = time.perf_counter()
        requests, clips = [], []
        for request in batch:
            try:
                clips.append(inference.prepare(request.run_index, request.window))
                requests.append(request)
            except InvalidSampleError as error:
                # Windows whose predictions are on disk are counted there.
                self.dropped[f'windows that cannot be prepared: {error}'] += not recorded_only
        if not requests:
            return
        wanted = [self._wanted(request, clip) for request, clip in zip(requests, clips)]
        predictions = inference(clips, wanted)
        latency_s = (time.perf_counter() - started) / len(requests)
        indices = {subset: {int(row): i for i, row in enumerate(each.rows)}
                   for subset, each in predictions.items()}
        for row, (request, clip) in enumerate(zip(requests, clips)):
            by_subset = {
                subset: _row(each, indices[subset][row])
                for subset, each in predictions.items() if row in indices[subset]}
            self._add(request, clip.modalities, by_subset, latency_s, recorded_only)

    def take(self) -> dict[str, BagPredictions]:
        """Return the predictions since the last call, of every condition."""
        tables = {name: _table(self._rows.get(name, ()), self._sizes, self._modalities)
                  for group in self._names for name, _ in group}
        self._rows = {}
        return tables

    def take_dropped(self) -> Counter[str]:
        """Return the windows without a prediction since the last call, by reason."""
        dropped, self.dropped = +self.dropped, Counter()
        return dropped

    def recorded(self) -> BagPredictions:
        """Return the predictions for the windows of recorded predictions."""
        return _table(self._recorded, self._sizes, self._modalities)

    def _wanted(self, request: WindowRequest, clip: Prepared) -> list[Subset]:
        own = clip.modalities
        if request.run_index == self._recorded_run:
            return [own]
        used = (self._used(c, own) for _, c in self._names[request.run_index])
        return [subset for subset in dict.fromkeys((own, *used)) if subset]

    def _add(
        self,
        request: WindowRequest,
        own: Subset,
        by_subset: Mapping[Subset, _RowOutput],
        latency_s: float,
        recorded_only: bool,
    ) -> None:
        if not all(np.isfinite(p).all() for p in by_subset[own].probabilities.values()):
            self.dropped['windows for which the network returns NaN'] += not recorded_only
            return
        if request.run_index == self._recorded_run:
            self._recorded.append(_Row.of(request, own, by_subset[own], latency_s))
            return
        if recorded_only:
            return
        for name, condition in self._names[request.run_index]:
            if subset := self._used(condition, own):
                self._rows.setdefault(name, []).append(
                    _Row.of(request, subset, by_subset[subset], latency_s))


class _RowOutput(NamedTuple):
    """The output for one window."""

    probabilities: Mapping[str, NDArray[np.float32]]
    is_unknown: bool


def _row(predictions: SubsetPredictions, index: int) -> _RowOutput:
    return _RowOutput({head: p[index] for head, p in predictions.probabilities.items()},
                      bool(predictions.is_unknown[index]))


@dataclass(frozen=True, eq=False)
class _Row:
    """One prediction, without the samples of its window."""

    times_ns: tuple[int, int, int]
    """Start, end and inference."""
    subset: Subset
    output: _RowOutput
    latency_s: float

    @classmethod
    def of(
        cls, request: WindowRequest, subset: Subset, output: _RowOutput, latency_s: float,
    ) -> _Row:
        window = request.window
        return cls((window.start_ns, window.end_ns, request.inference_ns), subset, output,
                   latency_s)


def _table(
    rows: Sequence[_Row], sizes: Mapping[str, int], modalities: Subset,
) -> BagPredictions:
    if not rows:
        return BagPredictions.empty(sizes, modalities)
    times = np.array([row.times_ns for row in rows], np.int64)
    return BagPredictions(
        times[:, 0], times[:, 1], times[:, 2],
        np.array([[m in row.subset for m in modalities] for row in rows]),
        {head: np.stack([row.output.probabilities[head] for row in rows]) for head in sizes},
        np.array([row.output.is_unknown for row in rows]),
        np.array([r.latency_s for r in rows], np.float32),
        np.zeros((0, 1 + len(modalities)), np.int64), modalities)


def bag_digest(files: Sequence[Path]) -> str:
    """
    Return a digest of the names and the contents of some files.

    Size and time are not enough: a bag that was repaired or anonymised in place has the size and,
    if the tool restores it, the time of the old one. The folder does not count: a bag may be
    moved.

    :raises ValueError: for anything but a regular file.
    """
    digest = hashlib.sha256()
    for path in files:
        with open_regular(path) as file:
            digest.update(b'%d %s %d ' % (
                len(os.fsencode(path.name)), os.fsencode(path.name), size_of(file)))
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def file_states(files: Sequence[Path]) -> list[tuple[int, ...]]:
    """Return for each file what changes whenever it is written to."""
    states = [path.stat() for path in files]
    return [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in states]


class ResumableRun:
    """The folder of one bag with one set of settings."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """
        Open or make the folder.

        :param names: of the conditions, in order.
        """
        self.folder, self._names = folder, tuple(names)
        folder.mkdir(parents=True, exist_ok=True)
        self._parts = self._find_parts()

    @property
    def batches(self) -> int:
        """Return the number of batches on disk."""
        return sum(count for _, count in self._parts)

    @property
    def dropped(self) -> Counter[str]:
        """Return the windows without a prediction of the batches on disk, by reason."""
        total: Counter[str] = Counter()
        for path, _ in self._parts:
            total.update(json.loads(path.with_suffix('.json').read_text(encoding='utf-8')))
        return total

    def add(
        self, batches: int, predictions: Mapping[str, BagPredictions], dropped: Mapping[str, int],
    ) -> None:
        """
        Write the predictions for some more batches.

        :param dropped: reason → windows without a prediction.
        """
        path = self.folder / f'part_{len(self._parts):06d}_{batches}.npz'
        write_atomically(path.with_suffix('.json'), json.dumps(dropped))
        save_conditions(path, predictions)
        self._parts.append((path, batches))

    def finish(self, facts: Mapping[str, Any], states: Mapping[str, Any]) -> None:
        """Concatenate the parts, which completes the bag."""
        parts = [load_conditions(path) for path, _ in self._parts]
        joined = {}
        for name in self._names:
            table = BagPredictions.concatenate([part[name] for part in parts if name in part])
            joined[name] = table.with_states(states[name])
        save_conditions(self.folder / _PREDICTIONS, joined)
        text = json.dumps(facts, indent=1, sort_keys=True)
        write_atomically(self.folder / _FACTS, text + '\n')
        for path, _ in self._parts:
            path.unlink(missing_ok=True)
            path.with_suffix('.json').unlink(missing_ok=True)
        self._parts = []

    def load(self) -> tuple[dict[str, Any], dict[str, BagPredictions]] | None:
        """Return facts and predictions of a complete bag; None for another one."""
        try:
            facts = json.loads((self.folder / _FACTS).read_text(encoding='utf-8'))
            predictions = load_conditions(self.folder / _PREDICTIONS)
        except (OSError, ValueError, PredictionsError):
            return None
        return (facts, predictions) if set(self._names) <= set(predictions) else None

    def _find_parts(self) -> list[tuple[Path, int]]:
        """Return the intact parts up to the first missing or damaged one; remove the others."""
        parts = []
        for number, path in enumerate(sorted(self.folder.glob('part_*.npz'))):
            try:
                index, batches = (int(text) for text in path.stem.split('_')[1:])
                load_conditions(path)
                json.loads(path.with_suffix('.json').read_text(encoding='utf-8'))
            except (OSError, ValueError, PredictionsError):
                break
            if index != number:
                break
            parts.append((path, batches))
        for path in set(self.folder.glob('part_*.npz')) - {path for path, _ in parts}:
            path.unlink()
        return parts
