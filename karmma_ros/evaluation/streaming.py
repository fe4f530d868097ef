"""
How well a whole stream is cut into actions: as a robot hears of them, by its events.

Events are those of `stream.events`, the very code that the node runs. What lies for more than
half in an action that cannot be scored (the truth leaves it open, or the model has no name for
it) is neither right nor wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from karmma_ros.clip import NANOSECONDS
from karmma_ros.evaluation.average_precision import Detection
from karmma_ros.evaluation.bag_predictions import Answers
from karmma_ros.evaluation.classification import joint_key
from karmma_ros.evaluation.ground_truth import Truth, UNKNOWN
from karmma_ros.evaluation.segmentation import argmax_segments, Found, matches, Segment
from karmma_ros.prediction import action_heads, Prediction, Vocabulary
from karmma_ros.stream.events import ActionEvent, ActionEvents, EventSettings, Phase
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Heard:
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


def hear(answers: Answers, vocabulary: Vocabulary, settings: EventSettings) -> list[Heard]:
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
    clock = dict(zip(answers.end_ns.tolist(), answers.asked_ns.tolist()))
    starts = {e.event_id: clock.get(e.stamp_ns, e.stamp_ns)
              for e in told if e.phase is Phase.STARTED}
    return [Heard(Segment(e.start_ns, e.end_ns, _ids(e, kept)), e.score, starts[e.event_id])
            for e in told if e.phase is Phase.ENDED]


def _kept(
    head: str, answers: Answers, vocabulary: Vocabulary, settings: EventSettings
) -> list[int]:
    """
    Give the classes that can become an event; the others only cost time, `[97 x 300]` a window.

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
    answers: Answers, heads: Sequence[str], max_gap: float
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
    """Give from which to before which window each run reaches."""
    firsts = np.searchsorted(middles, [run.start for run in runs], side='left')
    return list(zip(firsts.tolist(), [*firsts[1:].tolist(), len(middles)]))


def true_segments(
    truth: Truth, heads: Sequence[str], background: str | None = None
) -> tuple[list[Segment], list[int], list[Segment]]:
    """
    Give what can be scored by these heads with its places in the truth, and what cannot.

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
    """Give the places of the segments that do not lie for more than half in open ones."""
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
    """Give what `segments.matches` gives, label by label: an afternoon has thousands."""
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


def count_found(
    truth: Sequence[Segment], predicted: Sequence[Segment], overlap: float
) -> Found:
    """Give what `segments.found` gives."""
    right = len(matched(truth, predicted, overlap))
    return Found(right, len(predicted) - right, len(truth) - right)


def edit(truth: Sequence[Segment], predicted: Sequence[Segment]) -> float:
    """Give what `segments.edit_score` gives, a row at a time: an afternoon has thousands."""
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


def by_head(heard: Sequence[Heard], place: int, recording: int) -> list[Detection]:
    """Give actions as detections of one part of them: that of the head at a place."""
    return [Detection(recording, Segment(h.segment.start, h.segment.end,
                                         (h.segment.label[place],)), h.score)  # type: ignore
            for h in heard]


def whole(heard: Sequence[Heard], recording: int) -> list[Detection]:
    """Give actions as detections of the whole of them."""
    return [Detection(recording, h.segment, h.score) for h in heard]


def ages_s(answers: Answers) -> NDArray[np.float64]:
    """Give how old the newest sample of each window was when it was cut, `[k]`, seconds."""
    return (answers.asked_ns - answers.end_ns) / NANOSECONDS


def percentiles(values: NDArray[np.floating]) -> dict[str, float]:
    """Give count, mean and percentiles; NaN where there is nothing."""
    there = np.asarray(values, np.float64)
    if not len(there):
        return {'count': 0, **dict.fromkeys(('mean', 'p50', 'p90', 'p95', 'p99', 'max'),
                                            float('nan'))}
    points = np.percentile(there, [50, 90, 95, 99, 100])
    return {'count': len(there), 'mean': float(there.mean()),
            **dict(zip(('p50', 'p90', 'p95', 'p99', 'max'), map(float, points)))}
