"""
Accuracy and calibration, computed from predictions with numpy alone.

Every figure counts only the samples that have the subset in question. Beside its heads a
network is scored on the action, which is right only where every head is; a network with one
head has no further action than that head.

Shape legend: n samples, c classes, k best, h heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.modality import Modality, subset_name
from karmma_ros.prediction import softmax
import numpy as np
from numpy.typing import NDArray

ACTION = 'action'
"""The joint score: right only where every head's best class is."""
BINS = 15
"""Bins of equal width over the confidences 0 to 1, for the expected calibration error."""
TOP = 5
"""The true class counts as found when it is among this many best."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Score:
    """How well one head, or the action, is recognised; all from 0 to 1."""

    top1: float
    top5: float
    calibration_error: float
    """Expected calibration error over `BINS` bins."""


@dataclass(frozen=True)
class SubsetScore:
    """The scores with one subset of the sensors."""

    count: int
    """Samples that have the subset."""
    scores: Mapping[str, Score]
    """Head, and the action, → score."""


@dataclass(frozen=True)
class Reliability:
    """Confidence beside accuracy, in bins of equal width; each `[bins]`."""

    count: NDArray[np.int64]
    """Samples in the bin, whose confidence is from its lower edge until before its upper one."""
    confidence: Floats
    """Their mean confidence; NaN in an empty bin."""
    accuracy: Floats
    """The share of them that is right; NaN in an empty bin."""

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


def score(predictions: DatasetPredictions) -> dict[str, SubsetScore]:
    """Return the scores of every subset that at least one sample has, the largest first."""
    return {name: _score(_answers(predictions, subset)) for name, subset in predictions.subsets()}


def hits(
    predictions: DatasetPredictions, subset: tuple[Modality, ...], k: int = 1
) -> dict[str, Flags]:
    """
    Return whether the truth is among the `k` best answers, for the samples that have the subset.

    :returns: head, and the action, → bool `[n of them]`. Of equal answers the one with the
        smaller class id comes first.
    """
    return _hits(_answers(predictions, subset), k)


def reliability(
    predictions: DatasetPredictions, subset: tuple[Modality, ...], key: str, bins: int = BINS
) -> Reliability:
    """
    Compare confidence and accuracy of a head or of the action.

    The confidence is the probability of the best class; of an action, the product of its heads'.
    """
    answers = _answers(predictions, subset)
    return binned(_confidence(answers)[key], _hits(answers, 1)[key], bins)


def binned(confidence: Floats, right: Flags, bins: int = BINS) -> Reliability:
    """Sort answers `[n]` into bins of equal width by their confidence, 0 to 1."""
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, confidence, side='right') - 1, 0, bins - 1)
    count = np.bincount(places, minlength=bins)
    with np.errstate(invalid='ignore'):
        means = [np.bincount(places, x, bins) / count for x in (confidence, right)]
    return Reliability(count, means[0], means[1])


def confusion(
    predictions: DatasetPredictions, subset: tuple[Modality, ...], head: str
) -> NDArray[np.int64]:
    """Count the samples by true class (row) and best answer (column): `[c, c]`."""
    answers = _answers(predictions, subset)
    counts = np.zeros((answers.chances[head].shape[1],) * 2, np.int64)
    np.add.at(counts, (answers.truth[head], answers.best[head][:, 0]), 1)
    return counts


@dataclass(frozen=True)
class _Answers:
    """What there is to compare for one subset; n samples that have it."""

    chances: Mapping[str, Floats]
    """Head → probabilities `[n, c]`."""
    truth: Mapping[str, NDArray[np.int64]]
    """Head → class ids `[n]`."""
    best: Mapping[str, NDArray[np.int64]]
    """Head → ids of all classes by descending probability `[n, c]`."""


def _answers(predictions: DatasetPredictions, subset: tuple[Modality, ...]) -> _Answers:
    has, by_head = predictions.has(subset), predictions.logits[subset_name(subset)]
    chances = {head: softmax(by_head[head][has]) for head in predictions.heads}
    best = {head: np.argsort(-p, axis=1, kind='stable') for head, p in chances.items()}
    return _Answers(chances, {head: ids[has] for head, ids in predictions.labels.items()}, best)


def _score(answers: _Answers) -> SubsetScore:
    one, five, confidence = _hits(answers, 1), _hits(answers, TOP), _confidence(answers)
    return SubsetScore(len(next(iter(one.values()))), {
        key: Score(float(one[key].mean()), float(five[key].mean()),
                   binned(confidence[key], one[key]).error)
        for key in one})


def _hits(answers: _Answers, k: int) -> dict[str, Flags]:
    found: dict[str, Flags] = {
        head: (answers.best[head][:, :k] == ids[:, None]).any(1)
        for head, ids in answers.truth.items()}
    if len(found) > 1:
        found[joint_key(tuple(found))] = joint_hits(
            answers.chances, answers.best, answers.truth, k)
    return found


def _confidence(answers: _Answers) -> dict[str, Floats]:
    found: dict[str, Floats] = {head: p.max(1) for head, p in answers.chances.items()}
    if len(found) > 1:
        found[joint_key(tuple(found))] = np.prod(list(found.values()), axis=0)
    return found


def joint_hits(
    chances: Mapping[str, NDArray[np.floating]], best: Mapping[str, NDArray[np.int64]],
    truth: Mapping[str, NDArray[np.int64]], k: int,
) -> Flags:
    """
    Return whether the true tuple of classes is among the `k` with the greatest products, `[n]`.

    The heads are combined one after another. A tuple is among the k best only if each of its
    beginnings is among the k best of that length, so that no more than k beginnings are kept.
    Of equal products the tuple with the better class of the earlier head comes first.

    :param chances: head → probabilities `[n, c]`.
    :param best: head → ids of its classes by descending probability, the k best at least.
    :param truth: head → class ids `[n]`.
    """
    count = len(next(iter(truth.values())))
    products: NDArray[np.floating] = np.ones((count, 1))
    right: Flags = np.ones((count, 1), bool)
    for head, ids in best.items():
        few = ids[:, :k]
        scores = np.take_along_axis(chances[head], few, axis=1)
        longer = count, products.shape[1] * few.shape[1]
        products = (products[:, :, None] * scores[:, None]).reshape(longer)
        right = (right[:, :, None] & (few == truth[head][:, None])[:, None]).reshape(longer)
        # In the order of the ranks again, which equal products keep.
        kept = np.sort(np.argsort(-products, axis=1, kind='stable')[:, :k], axis=1)
        products = np.take_along_axis(products, kept, axis=1)
        right = np.take_along_axis(right, kept, axis=1)
    return np.asarray(right.any(1))
