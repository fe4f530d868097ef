"""
Figures of resamples: how often each of n things was drawn → the figure, many draws at once.

Shape legend: n true actions or bags, r resamples, c classes, k bags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
_CHUNK = 250

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""How often each was drawn, `[r, n]` → the figure, `[r]`."""


def draws(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Return how often each of n is drawn, `[r, n]`, some resamples at a time."""
    rng = np.random.default_rng(seed)
    for first in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - first)
        drawn = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(float)


def interval_of(
    statistics: Sequence[Statistic], draws: Iterator[Floats]
) -> tuple[float, float] | None:
    """Return where 95 % of the differences, the second less the first, lie."""
    differences = []
    for weights in draws:
        a, b = (each(weights) for each in statistics)
        differences.append(b - a)
    found: Floats = np.concatenate(differences)
    found = found[np.isfinite(found)]
    if not len(found):
        return None
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def mean(values: NDArray[Any], mask: NDArray[np.bool_]) -> Statistic:
    """Return the mean of the values that the mask takes."""
    counted, weighed = mask.astype(float), np.where(mask, values, 0).astype(float)
    return lambda w: _over(w @ weighed, w @ counted)


def recall(
    right: Floats, mask: NDArray[np.bool_], classes: NDArray[np.int64]
) -> Statistic:
    """Return the mean over classes of the share of each that is right."""
    _, place = np.unique(classes, return_inverse=True)
    member = np.eye(place.max() + 1)[place] * mask[:, None]  # [n, c]
    member = member[:, member.any(0)]
    hit = member * right[:, None]

    def of_classes(w: Floats) -> Floats:
        shares = _over(w @ hit, w @ member)
        there = np.isfinite(shares)
        return _over(np.where(there, shares, 0).sum(1), there.sum(1))
    return of_classes


def calibration(right: Floats, confidence: Floats, mask: NDArray[np.bool_]) -> Statistic:
    """Return the expected calibration error over `BINS` bins of equal width."""
    sure = np.where(mask, confidence, 0.0)
    place = np.clip((sure * BINS).astype(int), 0, BINS - 1)
    gap = np.eye(BINS)[place] * (np.where(mask, right, 0) - sure)[:, None]  # [n, bins]
    counted = mask.astype(float)
    return lambda w: _over(np.abs(w @ gap).sum(1), w @ counted)


def f1(counts: Floats) -> Statistic:
    """Return F1 of the sums of right, wrong and missed, `[k, 3]`."""
    def of_sums(w: Floats) -> Floats:
        right, wrong, missed = (w @ counts).T
        return _over(2 * right, 2 * right + wrong + missed)
    return of_sums


def _over(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan),
                     where=np.asarray(whole) != 0)
