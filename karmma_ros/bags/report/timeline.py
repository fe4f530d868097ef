"""
What a page draws over time: ground truth, predictions, events and sensors, in few numbers.

Times are integer milliseconds since the start of the bag. Verdicts: 0 where no true action is
(or none that can be scored), 1 right, 2 one of the parts right, 3 wrong.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from karmma_ros.bags.bag_run import BagRun
from karmma_ros.bags.report.findings import known_actions, Report, scored_key
from karmma_ros.bags.report.summary import ScoredBag
from karmma_ros.evaluation import segmentation
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.evaluation.segmentation import Segment
from karmma_ros.prediction import further_heads
import numpy as np
from numpy.typing import NDArray

MOST_RUNS = 24_000
"""Runs of equal predictions on one page, of all bags together."""
OVERVIEW_COLUMNS = 500
_MILLISECOND = 1_000_000
CHANGING = -1
"""In place of class ids: several short runs."""

NOTHING, RIGHT, PARTLY, WRONG = range(4)


def over_time(
    run: BagRun,
    predictions: BagPredictions,
    scored: ScoredBag,
    report: Report,
    number: int,
    most_runs: int,
) -> dict[str, Any]:
    """
    Return what is drawn of one bag.

    :param number: of the bag in the report.
    :param most_runs: runs of equal predictions that it may have.
    """
    start = run.info.start_ns
    heads = segmentation.event_heads(run.vocabulary)
    runs = segmentation.window_runs(predictions, heads, report['settings']['events']['max_gap'])
    named = (*heads, *further_heads(tuple(run.vocabulary.heads)))
    near = _Nearby(scored.true)
    predicted = _thinned([(r.start, r.end, r.label, score) for r, score in runs], most_runs)
    return {
        'name': report['bags'][number]['name'],
        'length': max(1, (run.info.end_ns - start) // _MILLISECOND),
        'truth': [[_ms(a.start_ns, start), _ms(a.end_ns, start), [a.names[h] for h in named]]
                  for a in (run.truth.actions if run.truth else ())],
        'predicted': [[_ms(s, start), _ms(e, start), list(label) if label else CHANGING,
                  round(100 * score), near.verdict(Segment(s, e, label)) if label else NOTHING]
                 for s, e, label, score in predicted],
        'events': [[_ms(h.segment.start, start), _ms(h.segment.end, start),
                    list(h.segment.label), round(100 * h.score),  # type: ignore[call-overload]
                    near.verdict(h.segment), _ms(h.announced_ns, start)] for h in scored.detected],
        'availability': {str(m): _availability(predictions.states, 1 + i, start)
                  for i, m in enumerate(predictions.modalities)},
        'conditions': _outcomes(report, number)}


def overview(drawn: Mapping[str, Any]) -> dict[str, list[list[int]]]:
    """
    Return the same in `OVERVIEW_COLUMNS` columns: row → [first column, before column, value].

    Of the truth 1 and 2 in turn, of events the verdict of the longest, of sensors the worst.
    """
    length = drawn['length']
    rows = {
        'truth': _columns([(s, e, 1 + i % 2) for i, (s, e, *_) in enumerate(drawn['truth'])],
                          length, {1: 1, 2: 1}),
        'events': _columns([(s, e, 1 + verdict) for s, e, _, _, verdict, _ in drawn['events']],
                           length, {4: 4, 3: 3, 2: 2, 1: 1})}
    for name, changes in drawn['availability'].items():
        ends = [*(t for t, _ in changes[1:]), length]
        rows[name] = _columns([(t, e, 1 + state) for (t, state), e in zip(changes, ends)],
                              length, {6: 0, 1: 1, 2: 2, 4: 3, 3: 4, 5: 5, 7: 6})
    return rows


class _Nearby:
    """Find the true action that a segment shares most time with."""

    def __init__(self, true: Sequence[Segment]) -> None:
        self._true = sorted(true, key=lambda s: s.start)
        self._starts = [s.start for s in self._true]
        self._longest = max((s.end - s.start for s in true), default=0)

    def verdict(self, segment: Segment) -> int:
        first = bisect_right(self._starts, segment.start - self._longest) - 1
        last = bisect_right(self._starts, segment.end)
        shared = [(min(s.end, segment.end) - max(s.start, segment.start), s)
                  for s in self._true[max(0, first):last]]
        best = max((pair for pair in shared if pair[0] > 0 or segment.start == segment.end
                    and pair[0] == 0), key=lambda pair: pair[0], default=None)
        if best is None:
            return NOTHING
        same = [a == b for a, b in zip(best[1].label, segment.label)]  # type: ignore
        return RIGHT if all(same) else PARTLY if any(same) else WRONG


def _thinned(
    runs: list[tuple[float, float, Any, float]], most: int
) -> list[tuple[float, float, Any, float]]:
    """Put short neighbours together, without a label, until few enough are left."""
    if len(runs) <= most:
        return runs
    lengths = np.array([end - start for start, end, *_ in runs])
    for limit in np.quantile(lengths, np.linspace(0.3, 1.0, 15)):
        joined: list[tuple[float, float, Any, float]] = []
        for run in runs:
            short = run[1] - run[0] < limit
            if short and joined and joined[-1][2] is None and joined[-1][1] == run[0]:
                joined[-1] = joined[-1][0], run[1], None, 0.0
            else:
                joined.append((run[0], run[1], None, 0.0) if short else run)
        if len(joined) <= most:
            return joined
    return joined[:most]


def _availability(states: NDArray[np.int64], column: int, start_ns: int) -> list[list[int]]:
    """Return [time, state] of each change."""
    changes: list[list[int]] = []
    for row in states[:, [0, column]].tolist():
        if not changes or changes[-1][1] != row[1]:
            changes.append([max(0, _ms(row[0], start_ns)), row[1]])
    return changes


def _outcomes(report: Report, number: int) -> list[list[str]]:
    """Return a letter for each action: 1 correct, 0 wrong, - no prediction, ? ignored."""
    segments, key = report['segments'], scored_key(report)
    mine = [i for i, bag in enumerate(segments['bag']) if bag == number]
    known = known_actions(report, key)
    outcomes = []
    for name, columns in segments['conditions'].items():
        correct = columns['correct'].get(key)
        if correct is not None:
            outcomes.append([name, ''.join(
                '?' if not known[i] else str(correct[i]) if columns['windows'][i] else '-'
                for i in mine)])
    return outcomes


def _columns(
    spans: Sequence[tuple[int, int, int]], length: int, ranks: Mapping[int, int]
) -> list[list[int]]:
    """Lay spans into columns; where several meet, that of the higher rank is seen."""
    columns = np.zeros(OVERVIEW_COLUMNS, np.int64)
    for start, end, value in sorted(spans, key=lambda span: ranks.get(span[2], 0)):
        first = min(OVERVIEW_COLUMNS - 1, max(0, start * OVERVIEW_COLUMNS // length))
        last = max(first + 1, min(OVERVIEW_COLUMNS, -(-end * OVERVIEW_COLUMNS // length)))
        columns[first:last] = value
    borders = np.flatnonzero(np.diff(columns, prepend=-1, append=-1))
    return [[int(a), int(b), int(columns[a])] for a, b in zip(borders, borders[1:])
            if columns[a]]


def _ms(time_ns: float, start_ns: int) -> int:
    return round((int(time_ns) - start_ns) / _MILLISECOND)
