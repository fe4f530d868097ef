"""
Tables of predictions, in memory and as .npz files: of a data set's split, and of a bag.

Both are written by the same functions. They stay two classes, for they share no column but what
each row has: a sample of a split has labels and logits for every subset of its modalities, a
window of a bag has times and the probabilities of one condition; its ground truth is matched by
time.

Shape legend: n samples, m modalities, k windows, s state changes, c classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
import json
from pathlib import Path
from typing import Any
import zipfile

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import FileError, InvalidSettingError
from karmma_ros.modality import in_order, Modality, PAPER_MODALITIES, subset_name, subsets
from karmma_ros.storage import write_atomically
import numpy as np
from numpy.typing import NDArray

VERSION = 4
"""Increases whenever the layout of a file changes."""
_DESCRIPTION = 'description'


class PredictionsError(FileError):
    """A file of predictions is missing, damaged or of another version."""

    what = 'predictions'


@dataclass(frozen=True)
class DatasetPredictions:
    """
    The logits of one network for each sample and each subset of the modalities it has.

    >>> from karmma_ros.evaluation.classification import top1
    >>> from karmma_ros.evaluation.predictions import DatasetPredictions
    >>> from karmma_ros.modality import Modality
    >>> import numpy as np
    >>> logits = {'A': {'verb': np.array([[2, 0], [3, 1]], np.float32)}}
    >>> predictions = DatasetPredictions(
    ...     (Modality.AUDIO,), logits, np.ones((2, 1), bool), {'verb': np.array([0, 1])})
    >>> top1(predictions)['A']['verb']
    0.5
    """

    modalities: tuple[Modality, ...]
    """The network's, in canonical order."""
    logits: Mapping[str, Mapping[str, NDArray[np.float32]]]
    """Subset name → head → `[n, c]`, NaN where the sample lacks the subset; largest first."""
    present: NDArray[np.bool_]
    """`[n, m]`: which modalities each sample has."""
    labels: Mapping[str, NDArray[np.int64]]
    """Head → class id `[n]`."""

    def __len__(self) -> int:
        return len(self.present)

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the heads in the order of the labels."""
        return tuple(self.labels)

    def has(self, subset: Iterable[Modality]) -> NDArray[np.bool_]:
        """Return for each sample whether it has every modality of the subset: `[n]`."""
        columns = [self.modalities.index(m) for m in in_order(subset)]
        return np.asarray(self.present[:, columns].all(1))

    def subsets(self) -> Iterator[tuple[str, tuple[Modality, ...]]]:
        """Yield name and modalities of each predicted subset any sample has, largest first."""
        for subset in subsets(self.modalities):
            if subset_name(subset) in self.logits and self.has(subset).any():
                yield subset_name(subset), subset

    @classmethod
    def concatenate(cls, parts: Sequence[DatasetPredictions]) -> DatasetPredictions:
        """
        Return the samples of several tables of one network one after another.

        :raises InvalidSettingError: when there is none, or they differ in modalities or heads.
        """
        if not parts:
            raise InvalidSettingError(
                'samples', 0, 'at least one', 'give a split that is not empty')
        first = parts[0]
        for part in parts:
            if (part.modalities, part.heads) != (first.modalities, first.heads):
                raise InvalidSettingError(
                    'predictions', f'of {subset_name(part.modalities)}, {", ".join(part.heads)}',
                    f'of {subset_name(first.modalities)}, {", ".join(first.heads)} like the first')
        classes = {head: x.shape[1] for part in parts
                   for by_head in part.logits.values() for head, x in by_head.items()}
        if classes and set(classes) != set(first.heads):
            raise InvalidSettingError(
                'labels', f'for {", ".join(first.heads)}', f'for the heads {", ".join(classes)}',
                'use the data set that the network was trained on')
        predicted = {name for part in parts for name in part.logits}
        logits: dict[str, dict[str, NDArray[np.float32]]] = defaultdict(dict)
        for name in map(subset_name, subsets(first.modalities)):
            for head in classes if name in predicted else ():
                logits[name][head] = np.concatenate([
                    part.logits[name][head] if name in part.logits
                    else np.full((len(part), classes[head]), np.nan, np.float32)
                    for part in parts])
        return cls(
            first.modalities, dict(logits), np.concatenate([part.present for part in parts]),
            {head: np.concatenate([part.labels[head] for part in parts]) for head in first.heads})

    def save(self, path: Path | str) -> None:
        """Write one .npz file, atomically."""
        arrays: dict[str, NDArray[Any]] = {'present': self.present}
        arrays |= {f'labels/{head}': ids for head, ids in self.labels.items()}
        for subset, by_head in self.logits.items():
            arrays |= {f'logits/{subset}/{head}': x for head, x in by_head.items()}
        _write(Path(path), arrays, modalities=[m.value for m in self.modalities],
               heads=list(self.labels), subsets=list(self.logits))

    @classmethod
    def load(cls, path: Path | str) -> DatasetPredictions:
        """
        Read what `save` wrote.

        :raises PredictionsError: when the file is missing, damaged or of another version.
        """
        with _opened(Path(path)) as (description, arrays):
            heads = description['heads']
            return cls(
                tuple(map(Modality.parse, description['modalities'])),
                {s: {h: arrays[f'logits/{s}/{h}'] for h in heads} for s in description['subsets']},
                arrays['present'], {h: arrays[f'labels/{h}'] for h in heads})


@dataclass(frozen=True, eq=False)
class BagPredictions:
    """
    The predictions of a model for one bag under one condition, window by window.

    Times are integer nanoseconds of the bag's clock, in ascending order of `inference_ns`.
    """

    start_ns: NDArray[np.int64]
    """`[k]`: a window is `(start_ns, end_ns]`."""
    end_ns: NDArray[np.int64]
    """`[k]`: the newest stamp among the inputs."""
    inference_ns: NDArray[np.int64]
    """`[k]`: the (simulated) node's clock when inference began."""
    present: NDArray[np.bool_]
    """`[k, m]`: which of `modalities` the network was given."""
    probabilities: Mapping[str, NDArray[np.float32]]
    """Head → `[k, c]`; rows sum to one."""
    is_unknown: NDArray[np.bool_]
    """`[k]`: whether the window shows an action that the model does not know."""
    latency_s: NDArray[np.float32]
    """`[k]`: its part of the measured inference time of a batch; no two runs give the same."""
    states: NDArray[np.int64]
    """`[s, 1 + m]`: time, and the `ModalityState` of each from then on; one row a change."""
    modalities: tuple[Modality, ...] = PAPER_MODALITIES
    """Those of the columns, in canonical order (`SensorStream.listed`)."""

    def __len__(self) -> int:
        return len(self.end_ns)

    @property
    def age_s(self) -> NDArray[np.float64]:
        """Return the age of the newest sample of each window at its inference, `[k]`."""
        return (self.inference_ns - self.end_ns) / NANOSECONDS

    @classmethod
    def empty(
        cls, sizes: Mapping[str, int], modalities: tuple[Modality, ...] = PAPER_MODALITIES,
    ) -> BagPredictions:
        """Return the predictions for no window; `sizes` are the numbers of classes by head."""
        none = np.zeros(0, np.int64)
        return cls(
            none, none, none, np.zeros((0, len(modalities)), np.bool_),
            {head: np.zeros((0, size), np.float32) for head, size in sizes.items()},
            np.zeros(0, np.bool_), np.zeros(0, np.float32),
            np.zeros((0, 1 + len(modalities)), np.int64), modalities)

    def select(self, rows: NDArray[Any] | slice) -> BagPredictions:
        """Return the windows chosen by a mask, indices or a slice; the states stay."""
        return BagPredictions(
            self.start_ns[rows], self.end_ns[rows], self.inference_ns[rows], self.present[rows],
            {head: p[rows] for head, p in self.probabilities.items()}, self.is_unknown[rows],
            self.latency_s[rows], self.states, self.modalities)

    def with_states(self, states: NDArray[np.int64]) -> BagPredictions:
        """Return the same predictions with other states."""
        return replace(self, states=states)

    @classmethod
    def concatenate(cls, parts: Sequence[BagPredictions]) -> BagPredictions:
        """
        Return the windows of several tables one after another.

        :raises InvalidSettingError: when there is none.
        """
        if not parts:
            raise InvalidSettingError('parts', 0, 'at least one')
        joined = {name: np.concatenate([getattr(part, name) for part in parts])
                  for name in _BAG_ARRAYS}
        states = joined['states']
        states = states[np.unique(states[:, 0], return_index=True)[1]]
        is_change = np.ones(len(states), np.bool_)
        is_change[1:] = (states[1:, 1:] != states[:-1, 1:]).any(axis=1)
        joined['states'] = states[is_change]
        return cls(**joined, modalities=parts[0].modalities, probabilities={
            head: np.concatenate([part.probabilities[head] for part in parts])
            for head in parts[0].probabilities})


_BAG_ARRAYS = (
    'start_ns', 'end_ns', 'inference_ns', 'present', 'is_unknown', 'latency_s', 'states')


def save_conditions(path: Path | str, tables: Mapping[str, BagPredictions]) -> None:
    """Write the predictions of a bag by name of their condition to one .npz file, atomically."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, table in tables.items():
        arrays |= {f'{name}/{array}': getattr(table, array) for array in _BAG_ARRAYS}
        arrays |= {f'{name}/probabilities/{head}': p for head, p in table.probabilities.items()}
    _write(Path(path), arrays,
           heads={name: list(table.probabilities) for name, table in tables.items()},
           modalities={name: [m.value for m in table.modalities]
                       for name, table in tables.items()})


def load_conditions(path: Path | str) -> dict[str, BagPredictions]:
    """
    Read what `save_conditions` wrote.

    :raises PredictionsError: when the file is missing, damaged or of another version.
    """
    with _opened(Path(path)) as (description, arrays):
        return {
            name: BagPredictions(
                probabilities={h: arrays[f'{name}/probabilities/{h}'] for h in heads},
                modalities=tuple(map(Modality, description['modalities'][name])),
                **{array: arrays[f'{name}/{array}'] for array in _BAG_ARRAYS})
            for name, heads in description['heads'].items()}


def _write(path: Path, arrays: Mapping[str, NDArray[Any]], **description: Any) -> None:
    text = json.dumps({'version': VERSION, **description})
    write_atomically(path, lambda file: np.savez(
        file, **{_DESCRIPTION: np.array(text), **dict(arrays)}))  # type: ignore[arg-type]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[dict[str, Any], Mapping[str, NDArray[Any]]]]:
    """Open a file that `_write` wrote; what fails on it becomes a PredictionsError."""
    remedy = 'delete it and run the evaluation again'
    try:
        with np.load(path, allow_pickle=False) as arrays:
            description = json.loads(str(arrays[_DESCRIPTION]))
            if description['version'] != VERSION:
                raise PredictionsError(
                    path, f'version is {description["version"]}; expected {VERSION}', remedy)
            yield description, arrays
    except FileNotFoundError as error:
        raise PredictionsError(path, 'no such file', 'run the evaluation first') from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError,
            zipfile.BadZipFile) as error:
        raise PredictionsError(path, f'is damaged ({error})', remedy) from error
