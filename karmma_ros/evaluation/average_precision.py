"""
The average precision of detected segments.

Mean average precision is that of EPIC-KITCHENS and ActivityNet. The detections of a class in all
recordings are taken by descending score. Each is matched with the free true segment of its
recording and class that it overlaps most; from the threshold of IoU on it is a true positive.
Precision is made to fall with recall and summed over its steps; the mean is over the true classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

from karmma_ros.evaluation.segmentation import Detection, Segment
import numpy as np
from numpy.typing import NDArray

TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""The IoU thresholds of the average precision in the EPIC-KITCHENS challenge."""


def mean_average_precision(
    truth: Sequence[tuple[int, Segment]], detections: Sequence[Detection],
    thresholds: Sequence[float] = TIOUS,
) -> list[float]:
    """
    Return the mean over classes of the average precision at each threshold, 0 to 1.

    :param truth: number of the recording and segment.
    :returns: NaN where the truth is empty.
    """
    by_class: dict[Hashable, list[tuple[int, Segment]]] = defaultdict(list)
    for recording, segment in truth:
        by_class[segment.label].append((recording, segment))
    detected: dict[Hashable, list[Detection]] = defaultdict(list)
    for detection in detections:
        detected[detection.segment.label].append(detection)
    table = [average_precision(true, detected[label], thresholds)
             for label, true in by_class.items()]
    return np.mean(table, axis=0).tolist() if table else [float('nan')] * len(thresholds)


def average_precision(
    truth: Sequence[tuple[int, Segment]], detections: Sequence[Detection],
    thresholds: Sequence[float] = TIOUS,
) -> list[float]:
    """Return the average precision of one class at each threshold; labels are not compared."""
    # Equal scores stay in their order of time, so that equal inputs give equal figures.
    ordered = sorted(detections, key=lambda d: (-d.score, d.recording, d.segment[:2]))
    recordings = np.array([recording for recording, _ in truth])
    times = np.array([segment[:2] for _, segment in truth]).reshape(-1, 2)
    overlaps = [_overlaps(d, recordings, times) for d in ordered]
    return [_area(overlaps, threshold, len(truth)) for threshold in thresholds]


def _overlaps(
    detection: Detection, recordings: NDArray[np.int64], times: NDArray[Any]
) -> list[tuple[float, int]]:
    """Return IoU and index of the true segments that a detection meets, the greatest first."""
    start, end, _ = detection.segment
    shared = np.minimum(times[:, 1], end) - np.maximum(times[:, 0], start)
    met = np.flatnonzero((shared > 0) & (recordings == detection.recording))
    covered = times[met, 1] - times[met, 0] + (end - start) - shared[met]
    overlaps = zip((shared[met] / covered).tolist(), met.tolist())
    return sorted(overlaps, key=lambda pair: (-pair[0], pair[1]))


def _area(
    overlaps: Sequence[Sequence[tuple[float, int]]], threshold: float, positives: int
) -> float:
    """Return the area under the precision that was made to fall with recall."""
    if not overlaps:
        return 0.0
    taken: set[int] = set()
    is_true_positive = []
    for candidates in overlaps:
        free = [i for overlap, i in candidates if overlap >= threshold and i not in taken]
        taken.update(free[:1])
        is_true_positive.append(bool(free))
    hits = np.cumsum(is_true_positive)
    precision = hits / np.arange(1, len(overlaps) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(hits, prepend=0) / positives * falling).sum())
