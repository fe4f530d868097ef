"""
How well a stream was cut into actions: what was found, in which order, and when.

A segment is `(start, end, label)`, in any one unit of time; labels are equal or they are not.
Stretches in which nothing happens are no segments: they are left out on both sides.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from karmma_ros.errors import InvalidSettingError
from karmma_ros.stream.events import ActionEvent, Phase

OVERLAPS = (0.1, 0.25, 0.5)
"""The IoU at which Lea et al. (CVPR 2017) count segments as found."""


class Segment(NamedTuple):
    """One action from start to end."""

    start: float
    end: float
    label: Hashable


@dataclass(frozen=True)
class Found:
    """How many segments are right; add those of several streams before taking their F1."""

    right: int
    """Predicted segments that match a true one of their own."""
    wrong: int
    """Predicted segments that do not."""
    missed: int
    """True segments that nothing matches."""

    def __add__(self, other: Found) -> Found:
        return Found(self.right + other.right, self.wrong + other.wrong,
                     self.missed + other.missed)

    @property
    def f1(self) -> float:
        """Give the harmonic mean of precision and recall, 0 to 1; 1 where both are empty."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else 1.0


def iou(a: Segment, b: Segment) -> float:
    """Give the time two segments share as a part of the time they cover, 0 to 1."""
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


def found(truth: Sequence[Segment], predicted: Sequence[Segment], overlap: float) -> Found:
    """Count what `matches` finds; its F1 is the segmental F1 at that overlap."""
    right = len(matches(truth, predicted, overlap))
    return Found(right, len(predicted) - right, len(truth) - right)


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
    Give by how much each true start that was found came late, in the order of the truth.

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
    """Give the actions that have ended, with (verb,) or (verb, noun) as their label."""
    return [
        Segment(e.start_ns, e.end_ns,
                tuple(x.class_name for x in (e.verb, e.noun) if x is not None))
        for e in events if e.phase is Phase.ENDED]


def _segment(start: int, last: tuple[int, Hashable | None] | None) -> list[Segment]:
    """Give the segment up to the end and of the label in `last`; none without a label."""
    return [] if last is None or last[1] is None else [Segment(start, *last)]


def _distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Count the fewest insertions, removals and exchanges from one to the other (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
