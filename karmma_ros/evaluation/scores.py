"""
How well the actions of a bag are recognised: each true action is asked once.

The answer to an action is the mean of the probabilities of the windows whose middle lies in it.
An action so short that none does is answered by the window whose middle is nearest to its own,
if that is at most half a window away. What has no answer at all is wrong: a silent robot does
not recognise. An action with a part that the truth leaves open, or that the model has no name
for, counts for its other parts only.

Shape legend: n actions, k windows, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from karmma_ros.evaluation.classification import (
    binned,
    joint_hits,
    joint_key,
    keys,
    Reliability,
    TOP,
)
from karmma_ros.evaluation.ground_truth import TrueAction, UNKNOWN
from karmma_ros.evaluation.predictions import BagPredictions
import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PredictedActions:
    """What was answered to each of n questions, of which the truth is known."""

    chances: Mapping[str, NDArray[np.floating]]
    """Head → `[n, c]`; NaN without an answer."""
    truth: Mapping[str, Ids]
    """Head → class id `[n]`, or `UNKNOWN`."""
    windows: Ids
    """`[n]`: how many windows answered."""

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the heads in the order of the model."""
        return tuple(self.truth)

    @property
    def answered(self) -> Flags:
        """Tell which have an answer, `[n]`."""
        return self.windows > 0

    @cached_property
    def best(self) -> dict[str, Ids]:
        """Return the five best classes of each head, `[n, 5]`; of equals the smaller id first."""
        return {head: np.argsort(-p, axis=1, kind='stable')[:, :TOP]
                for head, p in self.chances.items()}

    @cached_property
    def confidence(self) -> dict[str, Floats]:
        """Return the probability of the best class, and their product, `[n]`; NaN unanswered."""
        found = {head: np.take_along_axis(p, self.best[head][:, :1], axis=1)[:, 0].astype(float)
                 for head, p in self.chances.items()}
        if len(found) > 1:
            found[joint_key(self.heads)] = np.prod(list(found.values()), axis=0)
        return found

    @cached_property
    def scored(self) -> dict[str, Flags]:
        """Tell of each head, and of all together, where the truth is known, `[n]`."""
        found = {head: ids != UNKNOWN for head, ids in self.truth.items()}
        if len(found) > 1:
            found[joint_key(self.heads)] = np.all(list(found.values()), axis=0)
        return found

    def hits(self, k: int = 1) -> dict[str, Flags]:
        """Whether the truth is among the `k` best, at most five; False unanswered, `[n]`."""
        found = {
            head: (self.best[head][:, :k] == ids[:, None]).any(1) & self.answered
            for head, ids in self.truth.items()}
        if len(found) > 1:
            joint = joint_hits(self.chances, self.best, self.truth, k)
            found[joint_key(self.heads)] = joint & self.answered
        return found


def ask(actions: Sequence[TrueAction], answers: BagPredictions) -> PredictedActions:
    """Answer each action by its windows."""
    places = [windows_of(action, answers) for action in actions]
    chances = {}
    for head, p in answers.probabilities.items():
        chances[head] = np.full((len(actions), p.shape[1]), np.nan, np.float32)
        for i, rows in enumerate(places):
            if len(rows):
                chances[head][i] = p[rows].mean(axis=0, dtype=np.float64)
    return PredictedActions(chances, _truth_of(actions, answers.probabilities),
                 np.array([len(rows) for rows in places], np.int64))


def windows_of(action: TrueAction, answers: BagPredictions) -> NDArray[np.int64]:
    """Return the places of the windows that answer an action."""
    middles = answers.start_ns + (answers.end_ns - answers.start_ns) // 2
    inside = np.flatnonzero((middles >= action.start_ns) & (middles < action.stop_ns))
    if len(inside) or not len(middles):
        return inside
    away = np.abs(middles - (action.start_ns + action.stop_ns) // 2)
    nearest = int(away.argmin())
    length = answers.end_ns[nearest] - answers.start_ns[nearest]
    return np.array([nearest] if 2 * away[nearest] <= length else [], np.int64)


def ask_windows(actions: Sequence[TrueAction], answers: BagPredictions) -> PredictedActions:
    """
    Ask every window that lies wholly inside an action, by itself.

    Where actions overlap, a window is held against each that it lies in: more than once.
    """
    order = np.argsort(answers.end_ns, kind='stable')
    ends, starts = answers.end_ns[order], answers.start_ns[order]
    rows, owners = [], []
    for i, action in enumerate(actions):
        last = np.searchsorted(ends, action.stop_ns, side='right')
        first = np.searchsorted(ends, action.start_ns, side='left')
        inside = order[first:last][starts[first:last] >= action.start_ns]
        rows.append(inside)
        owners.append(np.full(len(inside), i))
    chosen = np.concatenate([*rows, np.zeros(0, np.int64)]).astype(np.int64)
    owner = np.concatenate([*owners, np.zeros(0, np.int64)]).astype(np.int64)
    truth = _truth_of(actions, answers.probabilities)
    return PredictedActions({head: p[chosen] for head, p in answers.probabilities.items()},
                 {head: ids[owner] for head, ids in truth.items()}, np.ones(len(chosen), np.int64))


def pool(parts: Sequence[PredictedActions]) -> PredictedActions:
    """Put the questions of several bags one after another."""
    return PredictedActions(
        {h: np.concatenate([p.chances[h] for p in parts]) for h in parts[0].chances},
        {h: np.concatenate([p.truth[h] for p in parts]) for h in parts[0].truth},
        np.concatenate([p.windows for p in parts]))


def accuracy(asked: PredictedActions) -> dict[str, dict[str, float]]:
    """
    Return for each head, and all together, what share is right.

    :returns: key → `count` of those whose truth is known, `answered` share, `top1`, `top5`,
        `mean_recall` (the mean over the true classes of the share of each that is recognised)
        and `calibration_error` of those answered; NaN where there is nothing to count.
    """
    one, five = asked.hits(1), asked.hits(TOP)
    return {key: {
        'count': int(known.sum()), 'answered': _mean(asked.answered[known]),
        'top1': _mean(one[key][known]), 'top5': _mean(five[key][known]),
        'mean_recall': mean_recall(_classes(asked, key)[known], one[key][known]),
        'calibration_error': calibration(asked, key).error,
    } for key, known in asked.scored.items()}


def mean_recall(classes: NDArray[np.int64], right: Flags) -> float:
    """Return the mean over classes of the share of each that is right."""
    _, inverse = np.unique(classes, axis=0, return_inverse=True)
    counts = np.bincount(inverse.ravel())
    return _mean(np.bincount(inverse.ravel(), right) / counts) if len(counts) else float('nan')


def calibration(asked: PredictedActions, key: str) -> Reliability:
    """Compare confidence and accuracy of what was answered."""
    chosen = asked.scored[key] & asked.answered
    return binned(asked.confidence[key][chosen], asked.hits()[key][chosen])


def confusion(asked: PredictedActions, head: str) -> dict[tuple[int, int], int]:
    """Count answered actions by (true class, best class); only pairs that occur."""
    chosen = asked.scored[head] & asked.answered
    pairs = np.stack([asked.truth[head][chosen], asked.best[head][chosen, 0]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    return {(int(true), int(said)): int(n) for (true, said), n in zip(found, counts)}


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); it takes the actions as independent."""
    if not count:
        return float('nan'), float('nan')
    z, share = 1.959964, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (
        share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def scored_keys(asked: PredictedActions) -> tuple[str, ...]:
    """Return the heads, and the joint score, of which any truth is known."""
    return tuple(key for key in keys(asked.heads) if asked.scored[key].any())


def _truth_of(actions: Sequence[TrueAction], heads: Mapping[str, object]) -> dict[str, Ids]:
    return {head: np.array([action.ids.get(head, UNKNOWN) for action in actions], np.int64)
            for head in heads}


def _classes(asked: PredictedActions, key: str) -> NDArray[np.int64]:
    """Return the true class of each, `[n, heads]`: one column, or all for the joint score."""
    columns = [asked.truth[key]] if key in asked.truth else list(asked.truth.values())
    return np.stack(columns, axis=1)


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else float('nan')
