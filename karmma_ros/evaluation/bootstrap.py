"""
Bootstrap statistics: how often each of n items is in a resample → a figure, many at once.

Shape legend: n true actions or bags, r resamples, c classes, k bags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from karmma_ros.evaluation.classification import BINS, wilson
import numpy as np
from numpy.typing import NDArray

_CHUNK = 250

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""How often each item is in a resample, `[r, n]` → the figure, `[r]`."""


def draw_resamples(n: int, count: int, seed: int) -> Iterator[Floats]:
    """Yield how often each of n items is in a resample, `[r, n]`, some resamples at a time."""
    rng = np.random.default_rng(seed)
    for first in range(0, count, _CHUNK):
        r = min(_CHUNK, count - first)
        items = rng.integers(0, n, (r, n)) + n * np.arange(r)[:, None]
        yield np.bincount(items.ravel(), minlength=r * n).reshape(r, n).astype(float)


def interval_of(
    statistics: Sequence[Statistic], weights: Iterator[Floats]
) -> tuple[float, float] | None:
    """Return where 95 % of the differences, the second less the first, lie."""
    parts = []
    for chunk in weights:
        a, b = (each(chunk) for each in statistics)
        parts.append(b - a)
    differences: Floats = np.concatenate(parts)
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return None
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


ENOUGH_GROUPS = 5
"""Groups from which whole groups are resampled for an interval."""


def accuracy_interval(
    correct: NDArray[np.bool_], groups: Sequence[str], seed: int = 0
) -> tuple[float, float]:
    """
    Return the 95 % interval of an accuracy, 0 to 1.

    With five groups or more, whole groups are resampled: the items of a recording are alike. With
    fewer the items count as independent (Wilson), and the interval is too narrow.

    :param correct: `[n]`.
    :param groups: of each item, such as its recording.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < ENOUGH_GROUPS:
        return wilson(int(correct.sum()), len(correct))
    hits, counts = np.bincount(index, correct), np.bincount(index).astype(float)
    means = np.concatenate([_over(w @ hits, w @ counts)
                            for w in draw_resamples(len(names), 2000, seed)])
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(low), float(high)


def mean(values: NDArray[Any], mask: NDArray[np.bool_]) -> Statistic:
    """Return the mean of the values that the mask takes."""
    counted, weighed = mask.astype(float), np.where(mask, values, 0).astype(float)
    return lambda w: _over(w @ weighed, w @ counted)


def recall(
    correct: Floats, mask: NDArray[np.bool_], classes: NDArray[np.int64]
) -> Statistic:
    """Return the mean over classes of the fraction of each that is correct."""
    _, index = np.unique(classes, return_inverse=True)
    member = np.eye(index.max() + 1)[index] * mask[:, None]  # [n, c]
    member = member[:, member.any(0)]
    hit = member * correct[:, None]

    def of_classes(w: Floats) -> Floats:
        recalls = _over(w @ hit, w @ member)
        is_present = np.isfinite(recalls)
        return _over(np.where(is_present, recalls, 0).sum(1), is_present.sum(1))
    return of_classes


def calibration(correct: Floats, confidence: Floats, mask: NDArray[np.bool_]) -> Statistic:
    """Return the expected calibration error over `BINS` bins of equal width."""
    masked = np.where(mask, confidence, 0.0)
    index = np.clip((masked * BINS).astype(int), 0, BINS - 1)
    gap = np.eye(BINS)[index] * (np.where(mask, correct, 0) - masked)[:, None]  # [n, bins]
    counted = mask.astype(float)
    return lambda w: _over(np.abs(w @ gap).sum(1), w @ counted)


def f1(counts: Floats) -> Statistic:
    """Return F1 of the sums of true positives, false positives and false negatives, `[k, 3]`."""
    def of_sums(w: Floats) -> Floats:
        true_positives, false_positives, false_negatives = (w @ counts).T
        return _over(2 * true_positives, 2 * true_positives + false_positives + false_negatives)
    return of_sums


def _over(part: Floats, total: Floats) -> Floats:
    return np.divide(part, total, out=np.full(np.shape(part), np.nan),
                     where=np.asarray(total) != 0)
