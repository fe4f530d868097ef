"""
Clip-level accuracy and calibration, computed from predictions with numpy alone.

The clips of a data set are scored for each subset of the modalities, those that have it. On a bag
each true action is scored once, by the mean probability of the windows whose centre lies inside
it. An action too short for that takes the window whose centre is nearest to its own, if that is
at most half a window away. An action without any window counts as wrong. One with a head that the
ground truth leaves open, or a class that the model lacks, is scored on its other heads.

Beside its heads a network is scored on the action, which is correct only where every head is; a
network with one head has no further action than that head.

Shape legend: n clips or actions, k best, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from karmma_ros.calibration import Calibration
from karmma_ros.evaluation.ground_truth import TrueAction, UNKNOWN
from karmma_ros.evaluation.predictions import BagPredictions, DatasetPredictions
from karmma_ros.modality import Modality, subset_name
from karmma_ros.prediction import ActionScale, further_heads
import numpy as np
from numpy.typing import NDArray

ACTION = 'action'
"""The joint score: correct only where every head's best class is."""
BINS = 15
"""Bins of equal width over the confidences 0 to 1, for the expected calibration error."""
TOP = 5
"""Classes that the top-5 accuracy takes."""

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """The accuracy of one head, or of the action; all from 0 to 1."""

    top1: float
    top5: float
    calibration_error: float
    """Expected calibration error over `BINS` bins."""
    uncalibrated_error: float | None = None
    """The same without the calibration of the model; absent where it has none."""


@dataclass(frozen=True)
class SubsetScore:
    """The scores with one subset of the modalities."""

    count: int
    """Clips that have the subset."""
    scores: Mapping[str, Score]
    """Head, and the action, → score."""
    unknown: float | None = None
    """Fraction of the clips whose action counts as unknown; absent without a calibration."""


@dataclass(frozen=True)
class Reliability:
    """Confidence beside accuracy, in bins of equal width; each `[bins]`."""

    count: Ids
    """Clips in the bin, whose confidence is from its lower edge until before its upper one."""
    confidence: Floats
    """Their mean confidence; NaN in an empty bin."""
    accuracy: Floats
    """The fraction of them that is correct; NaN in an empty bin."""

    @property
    def error(self) -> float:
        """Return the expected calibration error: the mean gap, weighted by count."""
        if not self.count.any():
            return float('nan')
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((gaps * self.count).sum() / self.count.sum())


def joint_key(heads: Sequence[str]) -> str:
    """Name the joint score: `action`, the only head, or `all heads` where a head is `action`."""
    if len(heads) == 1:
        return heads[0]
    return 'all heads' if ACTION in heads else ACTION


def keys(heads: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all scores: the heads, then the joint one if there are several."""
    return tuple(dict.fromkeys([*heads, joint_key(heads)]))


@dataclass(frozen=True, eq=False)
class PredictedActions:
    """The predictions for n clips or actions, and their labels."""

    probabilities: Mapping[str, NDArray[np.floating]]
    """Head → `[n, c]`; NaN without a window."""
    labels: Mapping[str, Ids]
    """Head → class id `[n]`, or `UNKNOWN`."""
    windows: Ids
    """`[n]`: how many windows the probabilities are the mean of."""
    is_unknown: Flags | None = None
    """`[n]`; None where it is not known."""
    action_scale: ActionScale = ActionScale()
    """Of the confidence of an action, where every head is part of it."""

    @classmethod
    def of_subset(
        cls, predictions: DatasetPredictions, subset: tuple[Modality, ...],
        calibration: Calibration = Calibration(),
    ) -> PredictedActions:
        """Take the clips that have a subset of the modalities, predicted from it."""
        has, logits = predictions.has(subset), predictions.logits[subset_name(subset)]
        output = calibration.apply(subset, {head: logits[head][has] for head in predictions.heads})
        return cls(output.probabilities,
                   {head: ids[has] for head, ids in predictions.labels.items()},
                   np.ones(int(has.sum()), np.int64), output.is_unknown, output.action_scale)

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the heads in the order of the model."""
        return tuple(self.labels)

    @property
    def predicted(self) -> Flags:
        """Return which have a prediction, `[n]`."""
        return self.windows > 0

    @cached_property
    def best(self) -> dict[str, Ids]:
        """Return head → classes by descending probability `[n, c]`; of equals the smaller id."""
        return {head: np.argsort(-p, axis=1, kind='stable')
                for head, p in self.probabilities.items()}

    @cached_property
    def confidence(self) -> dict[str, Floats]:
        """Return the probability of the best class, and the score of the action, `[n]`."""
        confidence = {
            head: np.take_along_axis(p, self.best[head][:, :1], axis=1)[:, 0].astype(float)
            for head, p in self.probabilities.items()}
        if len(confidence) > 1:
            scale = ActionScale() if further_heads(self.heads) else self.action_scale
            confidence[joint_key(self.heads)] = scale(np.prod(list(confidence.values()), axis=0))
        return confidence

    @cached_property
    def labelled(self) -> dict[str, Flags]:
        """Return of each head, and of all together, where the label is known, `[n]`."""
        labelled = {head: ids != UNKNOWN for head, ids in self.labels.items()}
        if len(labelled) > 1:
            labelled[joint_key(self.heads)] = np.all(list(labelled.values()), axis=0)
        return labelled

    def hits(self, k: int = 1) -> dict[str, Flags]:
        """
        Return whether the label is among the `k` best, `[n]`; False without a prediction.

        :returns: head, and the action, → flags.
        """
        hits: dict[str, Flags] = {
            head: (self.best[head][:, :k] == ids[:, None]).any(1) & self.predicted
            for head, ids in self.labels.items()}
        if len(hits) > 1:
            joint = joint_hits(self.probabilities, self.best, self.labels, k)
            hits[joint_key(self.heads)] = joint & self.predicted
        return hits


def joint_hits(
    probabilities: Mapping[str, NDArray[np.floating]], best: Mapping[str, Ids],
    labels: Mapping[str, Ids], k: int,
) -> Flags:
    """
    Return whether the true tuple of classes is among the `k` with the greatest products, `[n]`.

    The heads are combined one after another. A tuple is among the k best only if each of its
    beginnings is among the k best of that length, so that no more than k beginnings are kept.
    Of equal products the tuple with the better class of the earlier head comes first.

    :param probabilities: head → `[n, c]`.
    :param best: head → ids of its classes by descending probability, the k best at least.
    :param labels: head → class ids `[n]`.
    """
    count = len(next(iter(labels.values())))
    products: NDArray[np.floating] = np.ones((count, 1))
    correct: Flags = np.ones((count, 1), bool)
    for head, ids in best.items():
        few = ids[:, :k]
        scores = np.take_along_axis(probabilities[head], few, axis=1)
        longer = count, products.shape[1] * few.shape[1]
        products = (products[:, :, None] * scores[:, None]).reshape(longer)
        correct = (correct[:, :, None] & (few == labels[head][:, None])[:, None]).reshape(longer)
        # In the order of the ranks again, which equal products keep.
        kept = np.sort(np.argsort(-products, axis=1, kind='stable')[:, :k], axis=1)
        products = np.take_along_axis(products, kept, axis=1)
        correct = np.take_along_axis(correct, kept, axis=1)
    return np.asarray(correct.any(1))


def predict_actions(
    actions: Sequence[TrueAction], predictions: BagPredictions
) -> PredictedActions:
    """Predict each true action by its windows."""
    rows_of = [windows_of(action, predictions) for action in actions]
    means = {}
    for head, p in predictions.probabilities.items():
        means[head] = np.full((len(actions), p.shape[1]), np.nan, np.float32)
        for i, rows in enumerate(rows_of):
            if len(rows):
                means[head][i] = p[rows].mean(axis=0, dtype=np.float64)
    return PredictedActions(means, _labels_of(actions, predictions),
                            np.array([len(rows) for rows in rows_of], np.int64))


def windows_of(action: TrueAction, predictions: BagPredictions) -> Ids:
    """Return the rows of the windows that predict an action."""
    centres = predictions.start_ns + (predictions.end_ns - predictions.start_ns) // 2
    inside = np.flatnonzero((centres >= action.start_ns) & (centres < action.end_ns))
    if len(inside) or not len(centres):
        return inside
    distances = np.abs(centres - (action.start_ns + action.end_ns) // 2)
    nearest = int(distances.argmin())
    length = predictions.end_ns[nearest] - predictions.start_ns[nearest]
    return np.array([nearest] if 2 * distances[nearest] <= length else [], np.int64)


def predict_windows(
    actions: Sequence[TrueAction], predictions: BagPredictions
) -> PredictedActions:
    """
    Take every window that lies completely inside an action, by itself.

    Where actions overlap, a window is compared with each that it lies in: more than once.
    """
    order = np.argsort(predictions.end_ns, kind='stable')
    ends, starts = predictions.end_ns[order], predictions.start_ns[order]
    rows: list[Ids] = [np.zeros(0, np.int64)]
    owners: list[Ids] = [np.zeros(0, np.int64)]
    for i, action in enumerate(actions):
        last = np.searchsorted(ends, action.end_ns, side='right')
        first = np.searchsorted(ends, action.start_ns, side='left')
        rows.append(order[first:last][starts[first:last] >= action.start_ns])
        owners.append(np.full(len(rows[-1]), i))
    chosen, owner = np.concatenate(rows), np.concatenate(owners)
    labels = _labels_of(actions, predictions)
    return PredictedActions(
        {head: p[chosen] for head, p in predictions.probabilities.items()},
        {head: ids[owner] for head, ids in labels.items()}, np.ones(len(chosen), np.int64))


def _labels_of(actions: Sequence[TrueAction], predictions: BagPredictions) -> dict[str, Ids]:
    return {head: np.array([action.ids.get(head, UNKNOWN) for action in actions], np.int64)
            for head in predictions.probabilities}


def concatenate(parts: Sequence[PredictedActions]) -> PredictedActions:
    """Return the actions of several bags one after another."""
    first = parts[0]
    return PredictedActions(
        {h: np.concatenate([p.probabilities[h] for p in parts]) for h in first.probabilities},
        {h: np.concatenate([p.labels[h] for p in parts]) for h in first.labels},
        np.concatenate([p.windows for p in parts]))


def accuracy(actions: PredictedActions) -> dict[str, dict[str, float]]:
    """
    Return the scores of each head, and of all together, 0 to 1.

    :returns: key → the count of those whose label is known, the fraction of them with a
        prediction, `top1`, `top5`, `mean_recall` (the mean over the true classes of the fraction
        of each that is recognised) and `calibration_error` of those with a prediction; NaN where
        there is nothing to count.
    """
    one, five = actions.hits(1), actions.hits(TOP)
    return {key: {
        'count': int(known.sum()), 'coverage': _mean(actions.predicted[known]),
        'top1': _mean(one[key][known]), 'top5': _mean(five[key][known]),
        'mean_recall': mean_recall(_classes(actions, key)[known], one[key][known]),
        'calibration_error': calibration(actions, key).error,
    } for key, known in actions.labelled.items()}


def score(
    predictions: DatasetPredictions, calibration: Calibration = Calibration()
) -> dict[str, SubsetScore]:
    """Return the scores of every subset that at least one clip has, the largest first."""
    scores = {}
    for name, subset in predictions.subsets():
        clips = PredictedActions.of_subset(predictions, subset, calibration)
        before = accuracy(PredictedActions.of_subset(predictions, subset)) if calibration else {}
        unknown = _mean(clips.is_unknown) if calibration and clips.is_unknown is not None else None
        scores[name] = SubsetScore(len(clips), {
            key: Score(each['top1'], each['top5'], each['calibration_error'],
                       before[key]['calibration_error'] if before else None)
            for key, each in accuracy(clips).items()}, unknown)
    return scores


def top1(predictions: DatasetPredictions) -> dict[str, dict[str, float]]:
    """Return subset name → head, and the action, → top-1 accuracy, 0 to 1, the largest first."""
    return {
        name: {key: float(hit.mean()) for key, hit in
               PredictedActions.of_subset(predictions, subset).hits().items()}
        for name, subset in predictions.subsets()}


def mean_recall(classes: Ids, correct: Flags) -> float:
    """Return the mean over classes of the fraction of each that is correct."""
    _, inverse = np.unique(classes, axis=0, return_inverse=True)
    counts = np.bincount(inverse.ravel())
    return _mean(np.bincount(inverse.ravel(), correct) / counts) if len(counts) else float('nan')


def calibration(actions: PredictedActions, key: str, bins: int = BINS) -> Reliability:
    """Compare confidence and accuracy of a head, or of the action, where both are known."""
    chosen = actions.labelled[key] & actions.predicted
    return binned(actions.confidence[key][chosen], actions.hits()[key][chosen], bins)


def binned(confidence: Floats, correct: Flags, bins: int = BINS) -> Reliability:
    """Sort predictions `[n]` into bins of equal width by their confidence, 0 to 1."""
    edges = np.linspace(0, 1, bins + 1)
    rows = np.clip(np.searchsorted(edges, confidence, side='right') - 1, 0, bins - 1)
    count = np.bincount(rows, minlength=bins)
    with np.errstate(invalid='ignore'):
        means = [np.bincount(rows, x, bins) / count for x in (confidence, correct)]
    return Reliability(count, means[0], means[1])


def confusion(actions: PredictedActions, head: str) -> dict[tuple[int, int], int]:
    """Count predicted actions by (true class, best class); only pairs that occur."""
    chosen = actions.labelled[head] & actions.predicted
    pairs = np.stack([actions.labels[head][chosen], actions.best[head][chosen, 0]], axis=1)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    return {(int(true), int(best)): int(n) for (true, best), n in zip(pairs, counts)}


def wilson(correct: int, count: int) -> tuple[float, float]:
    """
    Return the 95 % interval of a fraction (Wilson 1927), for independent actions.

    >>> from karmma_ros.evaluation.classification import wilson
    >>> low, high = wilson(correct=90, count=100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    if not count:
        return float('nan'), float('nan')
    z, fraction = 1.959964, correct / count
    middle = (fraction + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (
        fraction * (1 - fraction) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def labelled_keys(actions: PredictedActions) -> tuple[str, ...]:
    """Return the heads, and the joint score, of which any label is known."""
    return tuple(key for key in keys(actions.heads) if actions.labelled[key].any())


def _classes(actions: PredictedActions, key: str) -> Ids:
    """Return the true class of each, `[n, heads]`: one column, or all for the joint score."""
    columns = [actions.labels[key]] if key in actions.labels else list(actions.labels.values())
    return np.stack(columns, axis=1)


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else float('nan')
