"""
What a model says of a bag, window by window, and what is known of the bag itself.

Shape legend: k windows, c classes, s changes of a sensor's state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
import json
import os
from pathlib import Path
from typing import Any, TYPE_CHECKING
import zipfile

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError, KarmmaError
from karmma_ros.modality import in_order, Modality, subset_name
from karmma_ros.prediction import Vocabulary
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from karmma_ros.evaluation.ground_truth import Truth

VERSION = 1
"""Grows whenever the layout of the file changes."""

AS_RECORDED = 'as recorded'
"""Name of the condition in which nothing is done to the sensors."""

_ARRAYS = ('start_ns', 'end_ns', 'asked_ns', 'present', 'latency_s', 'states')
_DESCRIPTION, _HEAD = 'description', 'probabilities/'

FrameSource = Callable[[Sequence[int]], Iterable['NDArray[np.uint8] | None']]
"""Times in ns of the bag's clock to RGB pictures `[h, w, 3]`; None where there is none."""


class BagPredictionsError(KarmmaError):
    """A file of answers is missing, damaged or of another version."""

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path, self.problem = Path(path), problem
        super().__init__(f'answers {path}: {problem}: delete it and evaluate the bag again')


@dataclass(frozen=True)
class Condition:
    """What was done to the sensors."""

    name: str = AS_RECORDED
    """`as recorded`, a subset as the paper names it (`V+A`), or what was done in words."""
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """JSON-ready. A subset has `{'subset': 'V+A'}`: of the windows as recorded, those that have
    all of it, with everything else left out. Faults have what was given, and the seed."""

    @property
    def subset(self) -> str:
        """Return the subset's name; empty when the condition is none."""
        return str(self.parameters.get('subset', ''))

    @classmethod
    def of_subset(cls, modalities: Sequence[Modality]) -> Condition:
        """Return the condition that only these are looked at."""
        name = subset_name(modalities)
        return cls(name, {'subset': name})


@dataclass(frozen=True)
class BagInfo:
    """Facts about one bag; JSON-ready with `dataclasses.asdict`."""

    path: str
    start_ns: int
    """When its first message was received."""
    end_ns: int
    """When its last one was."""
    storage: str
    """`mcap` or `sqlite3`, and its compression."""
    messages: int
    """Those that could be read, of all topics."""
    topics: Mapping[str, Mapping[str, Any]]
    """Role (a modality, `audio_info`, `truth`, `recognition`) → topic, type, count."""
    lost: Mapping[str, int]
    """Why messages could not be used → how many."""
    warnings: Sequence[str]
    """Sentences for a person."""
    missing: int = 0
    """How many of `lost` the bag promises, but could not be read: messages, files, parts."""

    @property
    def seconds(self) -> float:
        """Return the time from first to last message."""
        return max(0, self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, eq=False)
class BagPredictions:
    """
    What a model said of one bag, window by window.

    Times are integer nanoseconds of the bag's clock, in ascending order of `asked_ns`.
    """

    start_ns: NDArray[np.int64]
    """`[k]`: a window is `(start_ns, end_ns]`."""
    end_ns: NDArray[np.int64]
    """`[k]`: the newest stamp among the inputs."""
    asked_ns: NDArray[np.int64]
    """`[k]`: the (simulated) node's clock when the window was cut."""
    present: NDArray[np.bool_]
    """`[k, 4]`: what the network was given, in the order rgb, flow, audio, detections."""
    probabilities: Mapping[str, NDArray[np.float32]]
    """Head → `[k, c]`; rows sum to one."""
    latency_s: NDArray[np.float32]
    """`[k]`: share of the measured inference time; no two runs give the same."""
    states: NDArray[np.int64]
    """`[s, 5]`: time, and the `ModalityState` of the four from then on; one row a change."""

    def __len__(self) -> int:
        return len(self.end_ns)

    @classmethod
    def empty(cls, sizes: Mapping[str, int]) -> BagPredictions:
        """Return the answers to no window, for heads of so many classes."""
        none = np.zeros(0, np.int64)
        return cls(
            none, none, none, np.zeros((0, len(Modality)), np.bool_),
            {head: np.zeros((0, size), np.float32) for head, size in sizes.items()},
            np.zeros(0, np.float32), np.zeros((0, 1 + len(Modality)), np.int64))

    def select(self, rows: NDArray[Any] | slice) -> BagPredictions:
        """Return the windows chosen by a mask, places or a slice; the states stay."""
        return BagPredictions(
            self.start_ns[rows], self.end_ns[rows], self.asked_ns[rows], self.present[rows],
            {head: p[rows] for head, p in self.probabilities.items()}, self.latency_s[rows],
            self.states)

    def with_states(self, states: NDArray[np.int64]) -> BagPredictions:
        """Return the same answers with other states."""
        return replace(self, states=states)

    def save(self, path: Path | str) -> None:
        """Write one .npz file; it is there whole or not at all."""
        save_all(path, {'': self})

    @classmethod
    def load(cls, path: Path | str) -> BagPredictions:
        """
        Read what `save` wrote.

        :raises BagPredictionsError: when the file is missing, damaged or of another version.
        """
        try:
            return load_all(path)['']
        except KeyError:
            raise BagPredictionsError(path, 'holds answers under names') from None


def save_all(path: Path | str, answers: Mapping[str, BagPredictions]) -> None:
    """Write answers by name to one .npz file; it is there whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {}
    for name, each in answers.items():
        arrays |= {f'{name}/{array}': getattr(each, array) for array in _ARRAYS}
        arrays |= {f'{name}/{_HEAD}{head}': p for head, p in each.probabilities.items()}
    heads = {name: list(each.probabilities) for name, each in answers.items()}
    description = json.dumps({'version': VERSION, 'heads': heads})
    partial = path.with_name(path.name + '.partial')
    with partial.open('wb') as file:
        np.savez(file, **{_DESCRIPTION: np.array(description), **arrays})
    os.replace(partial, path)


def load_all(path: Path | str) -> dict[str, BagPredictions]:
    """
    Read what `save_all` wrote.

    :raises BagPredictionsError: when the file is missing, damaged or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            description = json.loads(str(arrays[_DESCRIPTION]))
            if description['version'] != VERSION:
                raise BagPredictionsError(
                    path, f'version is {description["version"]}, this package reads {VERSION}'
                )
            return {
                name: BagPredictions(
                    probabilities={h: arrays[f'{name}/{_HEAD}{h}'] for h in heads},
                    **{array: arrays[f'{name}/{array}'] for array in _ARRAYS})
                for name, heads in description['heads'].items()}
    except FileNotFoundError as error:
        raise BagPredictionsError(path, 'no such file') from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError,
            zipfile.BadZipFile) as error:
        raise BagPredictionsError(path, f'is damaged ({error})') from error


def concatenate(parts: Sequence[BagPredictions]) -> BagPredictions:
    """
    Put answers one after another.

    :raises InvalidSettingError: when there is none.
    """
    if not parts:
        raise InvalidSettingError('parts', 0, 'at least one')
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    states = joined['states']
    states = states[np.unique(states[:, 0], return_index=True)[1]]
    changed = np.ones(len(states), np.bool_)
    changed[1:] = (states[1:, 1:] != states[:-1, 1:]).any(axis=1)
    joined['states'] = states[changed]
    probabilities = {
        head: np.concatenate([part.probabilities[head] for part in parts])
        for head in parts[0].probabilities}
    return BagPredictions(probabilities=probabilities, **joined)


def present_row(modalities: Sequence[Modality]) -> NDArray[np.bool_]:
    """Return one row of `BagPredictions.present`."""
    return np.array([m in modalities for m in Modality])


def present_subset(row: NDArray[np.bool_]) -> tuple[Modality, ...]:
    """Return the modalities of one row of `BagPredictions.present`."""
    return in_order(m for m, here in zip(Modality, row) if here)


@dataclass(frozen=True, eq=False)
class BagRun:
    """All that is known of one bag: what the report is made of."""

    info: BagInfo
    answers: Mapping[Condition, BagPredictions]
    """The first one is as recorded."""
    truth: Truth | None
    vocabulary: Vocabulary
    spec: ClipSpec
    frames: FrameSource
    recorded: Mapping[str, Any] | None = None
    """How the node's own answers in the bag compare; None when it holds none. JSON-ready."""
