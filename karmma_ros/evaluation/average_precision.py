"""
Mean average precision of temporal detection, as EPIC-KITCHENS and ActivityNet define it.

Of each class that the truth has, the detections of all recordings are taken by descending
score. Each finds, of the true segments of its recording and class that are still free, the one
it overlaps most; at an IoU of the threshold at least that is right, else it is wrong. Precision
is made to fall with recall (at each recall the best that is reached from there on) and summed
over the steps of recall. The mean is over the classes of the truth; detections of other classes
count nowhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from karmma_ros.evaluation.segmentation import Segment
import numpy as np
from numpy.typing import NDArray

TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Thresholds of the EPIC-KITCHENS challenge."""


@dataclass(frozen=True)
class Detection:
    """A segment that was found, how sure, and in which recording."""

    recording: int
    segment: Segment
    score: float


def mean_average_precision(
    truth: Sequence[tuple[int, Segment]], detections: Sequence[Detection],
    thresholds: Sequence[float] = TIOUS,
) -> list[float]:
    """
    Give the mean over classes of the average precision at each threshold, 0 to 1.

    :param truth: number of the recording and segment.
    :returns: NaN where the truth is empty.
    """
    by_class: dict[Hashable, list[tuple[int, Segment]]] = defaultdict(list)
    for recording, segment in truth:
        by_class[segment.label].append((recording, segment))
    found: dict[Hashable, list[Detection]] = defaultdict(list)
    for detection in detections:
        found[detection.segment.label].append(detection)
    if not by_class:
        return [float('nan')] * len(thresholds)
    table = [average_precision(true, found[label], thresholds)
             for label, true in by_class.items()]
    return [float(x) for x in np.mean(table, axis=0)]


def average_precision(
    truth: Sequence[tuple[int, Segment]], detections: Sequence[Detection],
    thresholds: Sequence[float] = TIOUS,
) -> list[float]:
    """Give the average precision of one class at each threshold; labels are not looked at."""
    # Equal scores stay in their order of time, so that equal inputs give equal figures.
    ordered = sorted(detections, key=lambda d: (-d.score, d.recording, d.segment[:2]))
    where = np.array([recording for recording, _ in truth])
    times = np.array([segment[:2] for _, segment in truth]).reshape(-1, 2)
    overlaps = [_overlaps(d, where, times) for d in ordered]
    return [_interpolated(_right(overlaps, threshold), len(truth)) for threshold in thresholds]


def _overlaps(
    detection: Detection, where: NDArray[np.int64], times: NDArray[Any]
) -> list[tuple[float, int]]:
    """Give IoU and place of the true segments that a detection meets, the greatest first."""
    start, end, _ = detection.segment
    shared = np.minimum(times[:, 1], end) - np.maximum(times[:, 0], start)
    met = np.flatnonzero((shared > 0) & (where == detection.recording))
    covered = times[met, 1] - times[met, 0] + (end - start) - shared[met]
    return sorted(zip((shared[met] / covered).tolist(), met.tolist()),
                  key=lambda pair: (-pair[0], pair[1]))


def _right(overlaps: Sequence[Sequence[tuple[float, int]]], threshold: float) -> list[bool]:
    """Tell of each detection, in order, whether it finds a true segment that is still free."""
    taken: set[int] = set()
    right = []
    for candidates in overlaps:
        best = next((i for share, i in candidates if share >= threshold and i not in taken), None)
        right.append(best is not None)
        if best is not None:
            taken.add(best)
    return right


def _interpolated(right: Sequence[bool], true: int) -> float:
    """Give the area under the precision that was made to fall."""
    if not right:
        return 0.0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(hits, prepend=0) / true
    return float((steps * falling).sum())
