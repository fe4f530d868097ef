"""
Temporal segmentation and detection: which actions were found, in which order, and when.

A segment is `(start, end, label)`, in any one unit of time; labels are equal or they are not.
Intervals without an action are no segments: they are left out on both sides.

Events are those of `stream.events`, the code that the node runs. An event that lies for more than
half in an ignored region (the truth leaves it open, or the model has no name for it) is neither a
true nor a false positive.

Mean average precision is that of EPIC-KITCHENS and ActivityNet. The detections of a class in all
recordings are taken by descending score. Each is matched with the free true segment of its
recording and class that it overlaps most; from the threshold of IoU on it is a true positive.
Precision is made to fall with recall and summed over the steps of recall. The mean is over the
classes of the truth; detections of other classes do not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import joint_key
from karmma_ros.evaluation.ground_truth import Truth, UNKNOWN
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.prediction import action_heads, Prediction, Vocabulary
from karmma_ros.stream.events import ActionEvent, ActionEvents, EventSettings, Phase
import numpy as np
from numpy.typing import NDArray

OVERLAPS = (0.1, 0.25, 0.5)
"""The IoU at which Lea et al. (CVPR 2017) count segments as found."""


class Segment(NamedTuple):
    """One action from start to end."""

    start: float
    end: float
    label: Hashable


@dataclass(frozen=True)
class SegmentCounts:
    """How many segments are right; add those of several streams before taking their F1."""

    right: int
    """Predicted segments that match a true one of their own."""
    wrong: int
    """Predicted segments that do not."""
    missed: int
    """True segments that nothing matches."""

    def __add__(self, other: SegmentCounts) -> SegmentCounts:
        return SegmentCounts(self.right + other.right, self.wrong + other.wrong,
                     self.missed + other.missed)

    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision and recall, 0 to 1; 1 where both are empty."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else 1.0


def iou(a: Segment, b: Segment) -> float:
    """Return the time two segments share as a part of the time they cover, 0 to 1."""
    shared = min(a.end, b.end) - max(a.start, b.start)
    covered = a.end - a.start + b.end - b.start - shared
    return shared / covered if shared > 0 else 0.0


def matches(
    truth: Sequence[Segment], predicted: Sequence[Segment], overlap: float
) -> list[tuple[int, int]]:
    """
    Match predicted segments with true ones of the same label, greedily.

    In their order, each takes the true segment that it overlaps most, if it does so by
    `overlap` at least and no earlier one has taken it (Lea et al., "Temporal Convolutional
    Networks for Action Segmentation and Detection", CVPR 2017).

    :returns: places in `truth` and in `predicted`.
    :raises InvalidSettingError: for an overlap that is none, or a segment that ends before it
        starts.
    """
    if not 0 < overlap <= 1:
        raise InvalidSettingError('overlap', overlap, 'an IoU above 0 and at most 1')
    for segment in (*truth, *predicted):
        if segment.end < segment.start:
            raise InvalidSettingError('segment', tuple(segment), 'one that ends after its start')
    taken: dict[int, int] = {}
    for j, segment in enumerate(predicted):
        same = [i for i, true in enumerate(truth) if true.label == segment.label]
        best = max(same, key=lambda i: iou(truth[i], segment), default=None)
        if best is not None and best not in taken and iou(truth[best], segment) >= overlap:
            taken[best] = j
    return sorted(taken.items())


def found(truth: Sequence[Segment], predicted: Sequence[Segment], overlap: float) -> SegmentCounts:
    """Count what `matches` finds; its F1 is the segmental F1 at that overlap."""
    right = len(matches(truth, predicted, overlap))
    return SegmentCounts(right, len(predicted) - right, len(truth) - right)


def edit_score(truth: Sequence[Segment], predicted: Sequence[Segment]) -> float:
    """
    Compare the order of the labels alone, 0 to 1: when and how long does not count.

    It is 1 less the Levenshtein distance as a part of the longer sequence (Lea et al., 2017);
    1 when both are empty.
    """
    longest = max(len(truth), len(predicted))
    if not longest:
        return 1.0
    return 1 - _distance([s.label for s in truth], [s.label for s in predicted]) / longest


def start_delays(
    truth: Sequence[Segment],
    predicted: Sequence[Segment],
    told: Sequence[float] | None = None,
    overlap: float = OVERLAPS[0],
) -> list[float]:
    """
    Return by how much each true start that was found came late, in the order of the truth.

    :param told: when each predicted segment was made known; without it the starts that were
        predicted count, which may also lie before the true ones.
    :param overlap: IoU from which a segment counts as found.
    """
    times = [s.start for s in predicted] if told is None else told
    if len(times) != len(predicted):
        raise InvalidSettingError('told', len(times), f'{len(predicted)} times, one a segment')
    return [times[j] - truth[i].start for i, j in matches(truth, predicted, overlap)]


def argmax_segments(
    recognitions: Iterable[tuple[int, Hashable | None]], max_gap: int
) -> list[Segment]:
    """
    Take every recognition by its word: runs of the same label are segments (the baseline).

    A border lies half-way between two recognitions; the first and the last of a run before a
    gap are borders themselves, so that a lone recognition is a segment of no length.

    :param recognitions: times of the middles of the windows, ascending, with the best label;
        None for nothing.
    :param max_gap: between two recognitions that are further apart lies nothing.
    """
    segments: list[Segment] = []
    before: tuple[int, Hashable | None] | None = None
    start = 0
    for time, label in recognitions:
        if before is None or time - before[0] > max_gap:
            segments += _segment(start, before)
            start = time
        elif label != before[1]:
            border = (before[0] + time) // 2
            segments += _segment(start, (border, before[1]))
            start = border
        before = time, label
    return segments + _segment(start, before)


def event_segments(events: Iterable[ActionEvent]) -> list[Segment]:
    """Return the actions that have ended, with (verb,) or (verb, noun) as their label."""
    return [
        Segment(e.start_ns, e.end_ns,
                tuple(x.class_name for x in (e.verb, e.noun) if x is not None))
        for e in events if e.phase is Phase.ENDED]


def _segment(start: int, last: tuple[int, Hashable | None] | None) -> list[Segment]:
    """Return the segment up to the end and of the label in `last`; none without a label."""
    return [] if last is None or last[1] is None else [Segment(start, *last)]


def _distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Count the fewest insertions, removals and exchanges from one to the other (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


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
    Return the mean over classes of the average precision at each threshold, 0 to 1.

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
    """Return the average precision of one class at each threshold; labels are not looked at."""
    # Equal scores stay in their order of time, so that equal inputs give equal figures.
    ordered = sorted(detections, key=lambda d: (-d.score, d.recording, d.segment[:2]))
    where = np.array([recording for recording, _ in truth])
    times = np.array([segment[:2] for _, segment in truth]).reshape(-1, 2)
    overlaps = [_overlaps(d, where, times) for d in ordered]
    return [_interpolated(_right(overlaps, threshold), len(truth)) for threshold in thresholds]


def _overlaps(
    detection: Detection, where: NDArray[np.int64], times: NDArray[Any]
) -> list[tuple[float, int]]:
    """Return IoU and place of the true segments that a detection meets, the greatest first."""
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
    """Return the area under the precision that was made to fall."""
    if not right:
        return 0.0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(hits, prepend=0) / true
    return float((steps * falling).sum())


@dataclass(frozen=True)
class DetectedAction:
    """An action that was announced."""

    segment: Segment
    """Label: class ids in the order of `prediction.action_heads`."""
    score: float
    told_ns: int
    """The node's clock when it was announced."""


def event_heads(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the heads whose classes an event names."""
    return action_heads(tuple(vocabulary.heads))


def event_key(heads: Sequence[str]) -> str:
    """Return the name of the score that needs every part of an event right."""
    parts = action_heads(heads)
    return joint_key(heads) if len(parts) == len(heads) else ' and '.join(parts)


def detect_events(
    answers: BagPredictions, vocabulary: Vocabulary, settings: EventSettings
) -> list[DetectedAction]:
    """
    Let the node's events run over the answers; give the actions, in the order of their ends.

    :raises InvalidSettingError: when the vocabulary lacks the background class.
    """
    heads = event_heads(vocabulary)
    kept = {head: _kept(head, answers, vocabulary, settings) for head in heads}
    small = Vocabulary({head: tuple(vocabulary.heads[head][i] for i in kept[head])
                        for head in heads})
    chances = {head: answers.probabilities[head][:, kept[head]] for head in heads}
    events = ActionEvents(settings, small)
    told: list[ActionEvent] = []
    before = 0
    for i, (start, end) in enumerate(zip(answers.start_ns.tolist(), answers.end_ns.tolist())):
        if end < before:  # the clock jumped back
            told += events.clear()
        before = end
        prediction = Prediction({head: p[i] for head, p in chances.items()}, small)
        told += events.push(end, start, prediction)
    told += events.clear()
    clock = dict(zip(answers.end_ns.tolist(), answers.inference_ns.tolist()))
    starts = {e.event_id: clock.get(e.stamp_ns, e.stamp_ns)
              for e in told if e.phase is Phase.STARTED}
    return [
        DetectedAction(Segment(e.start_ns, e.end_ns, _ids(e, kept)), e.score, starts[e.event_id])
        for e in told
        if e.phase is Phase.ENDED
    ]


def _kept(
    head: str, answers: BagPredictions, vocabulary: Vocabulary, settings: EventSettings
) -> list[int]:
    """
    Return the classes that can become an event; the others only cost time, `[97 x 300]` a window.

    A class that never reaches `start` in any window never does in a smoothed product. Idleness,
    however, is a sum over all classes.
    """
    p = answers.probabilities[head]
    if settings.background is not None or not len(p):
        return list(range(len(vocabulary.heads[head])))
    strong = np.flatnonzero(p.max(axis=0) >= settings.start - 1e-6)
    return strong.tolist() or [0]


def _ids(event: ActionEvent, kept: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    labels = [x for x in (event.verb, event.noun) if x is not None]
    return tuple(ids[label.class_id] for label, ids in zip(labels, kept.values()))


def window_runs(
    answers: BagPredictions, heads: Sequence[str], max_gap: float
) -> list[tuple[Segment, float]]:
    """Take every window by its word: runs of the same best classes, and their mean score."""
    if not len(answers):
        return []
    order = np.argsort(answers.start_ns + answers.end_ns, kind='stable')
    middles = ((answers.start_ns + answers.end_ns) // 2)[order]
    best = [answers.probabilities[head].argmax(1)[order] for head in heads]
    score = np.prod([answers.probabilities[head].max(1)[order] for head in heads], axis=0)
    labels = list(zip(*(ids.tolist() for ids in best)))
    runs = argmax_segments(zip(middles.tolist(), labels), round(max_gap * NANOSECONDS))
    sums = np.concatenate([[0.0], np.cumsum(score, dtype=np.float64)])
    return [(run, float(sums[b] - sums[a]) / max(1, b - a)) for run, (a, b) in zip(
        runs, _spans(runs, middles))]


def _spans(runs: Sequence[Segment], middles: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return from which to before which window each run reaches."""
    firsts = np.searchsorted(middles, [run.start for run in runs], side='left')
    return list(zip(firsts.tolist(), [*firsts[1:].tolist(), len(middles)]))


def true_segments(
    truth: Truth, heads: Sequence[str], background: str | None = None
) -> tuple[list[Segment], list[int], list[Segment]]:
    """
    Return what can be scored by these heads with its places in the truth, and what cannot.

    Idleness is in neither.
    """
    known, places, open_ = [], [], []
    for place, action in enumerate(truth.actions):
        label = tuple(action.ids[head] for head in heads)
        if background is not None and background in action.names.values():
            continue
        segment = Segment(action.start_ns, action.stop_ns, label)
        if UNKNOWN in label:
            open_.append(segment)
        else:
            known.append(segment)
            places.append(place)
    return known, places, open_


def without_open(
    predicted: Sequence[Segment], open_: Sequence[Segment]
) -> list[int]:
    """Return the places of the segments that do not lie for more than half in open ones."""
    if not open_:
        return list(range(len(predicted)))
    borders = _union(open_)
    return [i for i, s in enumerate(predicted)
            if 2 * sum(max(0, min(s.end, e) - max(s.start, b)) for b, e in borders)
            <= s.end - s.start]


def _union(segments: Sequence[Segment]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for start, end, _ in sorted(segments, key=lambda s: s[:2]):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def matched(
    truth: Sequence[Segment], predicted: Sequence[Segment], overlap: float
) -> list[tuple[int, int]]:
    """Return what `segments.matches` gives, label by label: an afternoon has thousands."""
    own: dict[Hashable, list[int]] = defaultdict(list)
    for i, segment in enumerate(truth):
        own[segment.label].append(i)
    said: dict[Hashable, list[int]] = defaultdict(list)
    for j, segment in enumerate(predicted):
        said[segment.label].append(j)
    pairs = []
    for label, places in said.items():
        mine = own.get(label, [])
        for i, j in matches([truth[i] for i in mine], [predicted[j] for j in places], overlap):
            pairs.append((mine[i], places[j]))
    return sorted(pairs)


def count_matches(
    truth: Sequence[Segment], predicted: Sequence[Segment], overlap: float
) -> SegmentCounts:
    """Return what `segments.found` gives."""
    right = len(matched(truth, predicted, overlap))
    return SegmentCounts(right, len(predicted) - right, len(truth) - right)


def edit(truth: Sequence[Segment], predicted: Sequence[Segment]) -> float:
    """Return what `segments.edit_score` gives, a row at a time: an afternoon has thousands."""
    longest = max(len(truth), len(predicted))
    if not longest:
        return 1.0
    numbers: dict[Hashable, int] = {}
    a, b = ([numbers.setdefault(s.label, len(numbers)) for s in side]
            for side in (truth, predicted))
    others, places = np.array(b, np.int64), np.arange(len(b) + 1)
    row = places.copy()
    for i, label in enumerate(a, start=1):
        nearer = np.minimum(row[1:] + 1, row[:-1] + (others != label))
        # Of a run of insertions each costs one more than the place it starts from.
        row = np.minimum.accumulate(np.concatenate([[i], nearer]) - places) + places
    return 1 - int(row[-1]) / longest


def by_head(heard: Sequence[DetectedAction], place: int, recording: int) -> list[Detection]:
    """Return actions as detections of one part of them: that of the head at a place."""
    return [Detection(recording, Segment(h.segment.start, h.segment.end,
                                         (h.segment.label[place],)), h.score)  # type: ignore
            for h in heard]


def whole(heard: Sequence[DetectedAction], recording: int) -> list[Detection]:
    """Return actions as detections of the whole of them."""
    return [Detection(recording, h.segment, h.score) for h in heard]


def ages_s(answers: BagPredictions) -> NDArray[np.float64]:
    """Return how old the newest sample of each window was when it was cut, `[k]`, seconds."""
    return (answers.inference_ns - answers.end_ns) / NANOSECONDS


def percentiles(values: NDArray[np.floating]) -> dict[str, float]:
    """Return count, mean and percentiles; NaN where there is nothing."""
    there = np.asarray(values, np.float64)
    if not len(there):
        return {'count': 0, **dict.fromkeys(('mean', 'p50', 'p90', 'p95', 'p99', 'max'),
                                            float('nan'))}
    points = np.percentile(there, [50, 90, 95, 99, 100])
    return {'count': len(there), 'mean': float(there.mean()),
            **dict(zip(('p50', 'p90', 'p95', 'p99', 'max'), map(float, points)))}
