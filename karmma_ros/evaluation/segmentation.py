"""
Temporal segmentation and detection: which actions are recognised, in which order, and when.

A segment is `(start, end, label)`, in any one unit of time. Without an action there is no segment.

Events are those of `stream.events`, the code that the node runs. An event that lies for more than
half in ignored regions (the ground truth leaves them open, or the model lacks the class) is
neither a true nor a false positive.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import joint_key
from karmma_ros.evaluation.ground_truth import Truth, UNKNOWN
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.prediction import action_heads, Prediction, Vocabulary
from karmma_ros.stream.events import ActionEvent, ActionEvents, EventSettings, Phase
import numpy as np

OVERLAPS = (0.1, 0.25, 0.5)
"""The IoU thresholds of the segmental F1 (Lea et al., CVPR 2017)."""


class Segment(NamedTuple):
    """One action from start to end."""

    start: float
    end: float
    label: Hashable


@dataclass(frozen=True)
class SegmentCounts:
    """
    Matched and unmatched segments; add those of several streams before taking their F1.

    >>> from karmma_ros.evaluation.segmentation import count_matches, Segment
    >>> truth = [Segment(0, 4, 'cut'), Segment(5, 9, 'wash')]
    >>> count_matches(truth, [Segment(1, 4, 'cut'), Segment(6, 9, 'pour')], overlap=0.5).f1
    0.5
    """

    true_positives: int
    """Predicted segments that match a true one of their own."""
    false_positives: int
    """Predicted segments that do not."""
    false_negatives: int
    """True segments that nothing matches."""

    def __add__(self, other: SegmentCounts) -> SegmentCounts:
        return SegmentCounts(*(a + b for a, b in zip(astuple(self), astuple(other))))

    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision and recall, 0 to 1; 1 where both are empty."""
        total = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / total if total else 1.0


def iou(a: Segment, b: Segment) -> float:
    """Return the time two segments share as a part of the time they cover, 0 to 1."""
    shared = min(a.end, b.end) - max(a.start, b.start)
    covered = a.end - a.start + b.end - b.start - shared
    return shared / covered if shared > 0 else 0.0


def match_segments(
    truth: Sequence[Segment], predicted: Sequence[Segment], overlap: float
) -> list[tuple[int, int]]:
    """
    Match predicted segments with true ones of the same label, greedily.

    In their order, each takes the true segment that it overlaps most, if it does so by
    `overlap` at least and no earlier one has taken it (Lea et al., "Temporal Convolutional
    Networks for Action Segmentation and Detection", CVPR 2017).

    :returns: indices in `truth` and in `predicted`.
    :raises InvalidSettingError: for an overlap beyond 0 to 1, or a segment of negative length.
    """
    if not 0 < overlap <= 1:
        raise InvalidSettingError('overlap', overlap, 'an IoU above 0 and at most 1')
    for segment in (*truth, *predicted):
        if segment.end < segment.start:
            raise InvalidSettingError('segment', tuple(segment), 'one that ends after its start')
    by_label: dict[Hashable, list[int]] = defaultdict(list)
    for i, true in enumerate(truth):
        by_label[true.label].append(i)
    taken: dict[int, int] = {}
    for j, segment in enumerate(predicted):
        same = by_label.get(segment.label, ())
        best = max(same, key=lambda i: iou(truth[i], segment), default=None)
        if best is not None and best not in taken and iou(truth[best], segment) >= overlap:
            taken[best] = j
    return sorted(taken.items())


def count_matches(
    truth: Sequence[Segment], predicted: Sequence[Segment], overlap: float
) -> SegmentCounts:
    """Count what `match_segments` returns; its F1 is the segmental F1 at that overlap."""
    matched = len(match_segments(truth, predicted, overlap))
    return SegmentCounts(matched, len(predicted) - matched, len(truth) - matched)


def edit_score(truth: Sequence[Segment], predicted: Sequence[Segment]) -> float:
    """
    Compare the order of the labels alone, 0 to 1: when and how long does not count.

    It is 1 less the Levenshtein distance as a part of the longer sequence (Lea et al., 2017); 1
    when both are empty.

    >>> from karmma_ros.evaluation.segmentation import edit_score, Segment
    >>> truth = [Segment(0, 4, 'cut'), Segment(5, 9, 'wash')]
    >>> edit_score(truth, [Segment(0, 2, 'cut'), Segment(2, 4, 'pour'), Segment(5, 9, 'wash')])
    0.6666666666666667
    """
    longest = max(len(truth), len(predicted))
    if not longest:
        return 1.0
    numbers: dict[Hashable, int] = {}
    a, b = ([numbers.setdefault(s.label, len(numbers)) for s in side]
            for side in (truth, predicted))
    others, columns = np.array(b, np.int64), np.arange(len(b) + 1)
    row = columns.copy()
    for i, label in enumerate(a, start=1):
        nearer = np.minimum(row[1:] + 1, row[:-1] + (others != label))
        # Of a run of insertions each costs one more than the column it starts from.
        row = np.minimum.accumulate(np.concatenate([[i], nearer]) - columns) + columns
    return 1 - int(row[-1]) / longest


def start_delays(
    truth: Sequence[Segment], predicted: Sequence[Segment],
    announced: Sequence[float] | None = None,
) -> list[float]:
    """
    Return by how much each true start that is matched came late, in the order of the truth.

    :param announced: when each predicted segment was announced; without it the predicted starts
        count, which may also lie before the true ones.
    """
    times = [s.start for s in predicted] if announced is None else announced
    if len(times) != len(predicted):
        raise InvalidSettingError(
            'announced', len(times), f'{len(predicted)} times, one a segment')
    return [times[j] - truth[i].start for i, j in match_segments(truth, predicted, OVERLAPS[0])]


def argmax_segments(
    recognitions: Iterable[tuple[int, Hashable | None]], max_gap: int
) -> list[Segment]:
    """
    Return the runs of recognitions with the same label as segments (the baseline).

    A border lies half-way between two recognitions; the first and the last of a run before a
    gap are borders themselves, so that a lone recognition is a segment of no length.

    :param recognitions: times of the centres of the windows, ascending, with the best label;
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
    return [Segment(e.start_ns, e.end_ns,
                    tuple(x.class_name for x in (e.verb, e.noun) if x is not None))
            for e in events if e.phase is Phase.ENDED]


def _segment(start: int, last: tuple[int, Hashable | None] | None) -> list[Segment]:
    """Return the segment until the time and of the label in `last`; none without a label."""
    return [] if last is None or last[1] is None else [Segment(start, *last)]


@dataclass(frozen=True)
class Detection:
    """A predicted segment of one recording, with its score."""

    recording: int
    segment: Segment
    score: float


@dataclass(frozen=True)
class DetectedAction:
    """An action that the node's events announce."""

    segment: Segment
    """Label: class ids in the order of `prediction.action_heads`."""
    score: float
    announced_ns: int
    """The node's clock when it was announced."""

    def detection(self, recording: int, index: int | None = None) -> Detection:
        """Return it as a detection; with an index, only of the head at this index."""
        label = self.segment.label if index is None else (self.segment.label[index],)  # type: ignore
        return Detection(recording, self.segment._replace(label=label), self.score)


def event_heads(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the heads whose classes an event names."""
    return action_heads(tuple(vocabulary.heads))


def event_key(heads: Sequence[str]) -> str:
    """Return the name of the score that needs every part of an event correct."""
    parts = action_heads(heads)
    return joint_key(heads) if len(parts) == len(heads) else ' and '.join(parts)


def detect_events(
    predictions: BagPredictions, vocabulary: Vocabulary, settings: EventSettings
) -> list[DetectedAction]:
    """
    Run the node's events over the predictions; return the actions in the order of their ends.

    :raises InvalidSettingError: when the vocabulary lacks the background class.
    """
    heads, settings = event_heads(vocabulary), settings.of(vocabulary)
    kept = {head: _strong_classes(head, predictions, vocabulary, settings) for head in heads}
    small = Vocabulary({head: tuple(vocabulary.heads[head][i] for i in kept[head])
                        for head in heads})
    probabilities = {head: predictions.probabilities[head][:, kept[head]] for head in heads}
    actions = ActionEvents(settings, small)
    events: list[ActionEvent] = []
    before = 0
    windows = zip(predictions.start_ns.tolist(), predictions.end_ns.tolist())
    for i, (start, end) in enumerate(windows):
        if end < before:  # the clock jumped back
            events += actions.clear()
        before = end
        prediction = Prediction({head: p[i] for head, p in probabilities.items()}, small,
                                is_unknown=bool(predictions.is_unknown[i]))
        events += actions.push(end, start, prediction)
    events += actions.clear()
    clock = dict(zip(predictions.end_ns.tolist(), predictions.inference_ns.tolist()))
    announced = {e.event_id: clock.get(e.stamp_ns, e.stamp_ns)
                 for e in events if e.phase is Phase.STARTED}
    ended = (e for e in events if e.phase is Phase.ENDED)
    return [DetectedAction(Segment(e.start_ns, e.end_ns, _ids(e, kept)), e.score,
                           announced[e.event_id]) for e in ended]


def _strong_classes(
    head: str, predictions: BagPredictions, vocabulary: Vocabulary, settings: EventSettings
) -> list[int]:
    """
    Return the classes that can become an event; the others cost time only: 97 x 300 pairs.

    A class below `start` in every window stays so in a smoothed product. Idleness is a sum over
    all classes.
    """
    p = predictions.probabilities[head]
    if settings.background is not None or not len(p):
        return list(range(len(vocabulary.heads[head])))
    strong = np.flatnonzero(p.max(axis=0) >= settings.start - 1e-6)
    return strong.tolist() or [0]


def _ids(event: ActionEvent, kept: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    labels = [x for x in (event.verb, event.noun) if x is not None]
    return tuple(ids[label.class_id] for label, ids in zip(labels, kept.values()))


def window_runs(
    predictions: BagPredictions, heads: Sequence[str], max_gap: float
) -> list[tuple[Segment, float]]:
    """Return the runs of windows with the same best classes, and their mean score."""
    if not len(predictions):
        return []
    order = np.argsort(predictions.start_ns + predictions.end_ns, kind='stable')
    centres = ((predictions.start_ns + predictions.end_ns) // 2)[order]
    best = [predictions.probabilities[head].argmax(1)[order] for head in heads]
    score = np.prod([predictions.probabilities[head].max(1)[order] for head in heads], axis=0)
    labels = list(zip(*(ids.tolist() for ids in best)))
    runs = argmax_segments(zip(centres.tolist(), labels), round(max_gap * NANOSECONDS))
    sums = np.concatenate([[0.0], np.cumsum(score, dtype=np.float64)])
    firsts = np.searchsorted(centres, [run.start for run in runs], side='left').tolist()
    return [(run, float(sums[b] - sums[a]) / max(1, b - a))
            for run, a, b in zip(runs, firsts, [*firsts[1:], len(centres)])]


def true_segments(
    truth: Truth, heads: Sequence[str], background: str | None = None
) -> tuple[list[Segment], list[int], list[Segment]]:
    """
    Return what these heads can score with its indices in the truth, and what they cannot.

    Background is in neither.
    """
    known, indices, ignored = [], [], []
    for index, action in enumerate(truth.actions):
        label = tuple(action.ids[head] for head in heads)
        segment = Segment(action.start_ns, action.end_ns, label)
        if background is not None and background in action.names.values():
            continue
        if UNKNOWN in label:
            ignored.append(segment)
        else:
            known.append(segment)
            indices.append(index)
    return known, indices, ignored


def outside_ignored(predicted: Sequence[Segment], ignored: Sequence[Segment]) -> list[int]:
    """Return the indices of the segments that do not lie for more than half in ignored ones."""
    regions = _union(ignored)
    return [i for i, s in enumerate(predicted)
            if 2 * sum(max(0, min(s.end, end) - max(s.start, start)) for start, end in regions)
            <= s.end - s.start]


def _union(segments: Sequence[Segment]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for start, end, _ in sorted(segments, key=lambda s: s[:2]):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
