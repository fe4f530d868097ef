"""
Events compared with the best class of each prediction, on simulated recordings: a table.

`python benchmarks/events.py` prints the table of docs/events.md; `--figure FILE` draws 1.5 minutes
of one recording. Nothing is measured on a clock: the numbers are the same on any machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
import statistics
import sys

from karmma_ros.clip import NANOSECONDS
from karmma_ros.evaluation.segmentation import (
    argmax_segments,
    count_matches,
    edit_score,
    event_segments,
    OVERLAPS,
    Segment,
    SegmentCounts,
    start_delays,
)
from karmma_ros.stream.events import ActionEvent, ActionEvents, EventSettings, Phase
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test' / 'helpers'))

from simulated_stream import BACKGROUND, Recording, RecordingSettings, simulate  # noqa: E402

COLOURS = [c for i, c in enumerate(matplotlib.colormaps['tab20'].colors) if i not in (14, 15)]
"""Without the greys, which stand for what never happens."""


@dataclass(frozen=True)
class SystemOutput:
    """The output of one system for a recording: segments, and the time each was published."""

    segments: list[Segment]
    announced: list[int]


def main() -> None:
    """Print the table and draw the figure if requested."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--recordings', type=int, default=10, help='of each type [10]')
    parser.add_argument('--figure', type=Path, help='where to draw one recording')
    options = parser.parse_args()
    for background in (False, True):
        settings = RecordingSettings(background=background)
        recordings = [simulate(settings, seed) for seed in range(options.recordings)]
        number = sum(len(r.truth) for r in recordings)
        having = 'with' if background else 'without'
        print(f'\nmodel {having} a background class; {number} ground-truth segments\n')
        print(table(systems(recordings, background), recordings), end='')
    if options.figure:
        draw(options.figure, simulate(RecordingSettings(), 0))


def systems(recordings: list[Recording], background: bool) -> dict[str, list[SystemOutput]]:
    """Return the outputs of every system for every recording."""
    chosen = EventSettings(background=BACKGROUND if background else None)
    hasty = replace(chosen, smoothing=0.0, min_duration=0.0)
    patient = replace(chosen, min_duration=1.5)
    return {
        'argmax': [argmax(r, 0.0) for r in recordings],
        f'argmax, score from {chosen.start:g}': [argmax(r, chosen.start) for r in recordings],
        'events, smoothing 0, min_duration 0': [events(r, hasty) for r in recordings],
        'events': [events(r, chosen) for r in recordings],
        f'events, min_duration {patient.min_duration:g}': [events(r, patient) for r in recordings],
    }


def argmax(recording: Recording, threshold: float) -> SystemOutput:
    """Let runs of the same best action be segments; background and low scores are none."""
    labelled = []
    for recognition in recording.recognitions:
        best, = recognition.prediction.top_actions()
        label = best.verb.class_name, best.noun.class_name
        known = BACKGROUND not in label and best.score >= threshold
        middle_ns = (recognition.start_ns + recognition.stamp_ns) // 2
        labelled.append((middle_ns, label if known else None))
    segments = argmax_segments(labelled, round(EventSettings().max_gap * NANOSECONDS))
    announced = []
    for segment in segments:
        first = next(i for i, (t, x) in enumerate(labelled)
                     if t >= segment.start and x == segment.label)
        announced.append(recording.recognitions[first].stamp_ns)
    return SystemOutput(segments, announced)


def events(recording: Recording, settings: EventSettings) -> SystemOutput:
    """Let the events be segments."""
    happened = history(recording, settings)
    announced = {e.event_id: e.stamp_ns for e in happened if e.phase is Phase.STARTED}
    ended = [e.event_id for e in happened if e.phase is Phase.ENDED]
    return SystemOutput(event_segments(happened), [announced[i] for i in ended])


def history(recording: Recording, settings: EventSettings) -> list[ActionEvent]:
    """Push a recording through, as the node would."""
    actions = ActionEvents(settings, recording.vocabulary)
    happened: list[ActionEvent] = []
    for recognition in recording.recognitions:
        happened += actions.push(
            recognition.stamp_ns, recognition.start_ns, recognition.prediction)
    return happened + actions.clear()


def table(predictions: dict[str, list[SystemOutput]], recordings: list[Recording]) -> str:
    """Set the scores as a Markdown table, one row a system."""
    head = [*(f'F1@{100 * x:.0f}' for x in OVERLAPS), 'edit', 'segments', 'start error, s',
            'delay, s']
    lines = ['| | ' + ' | '.join(head) + ' |', '|---|' + '---:|' * len(head)]
    for name, own in predictions.items():
        lines.append(f'| {name} | ' + ' | '.join(row(own, recordings)) + ' |')
    return '\n'.join(lines) + '\n'


def row(predictions: list[SystemOutput], recordings: list[Recording]) -> Iterable[str]:
    """Score one system: percent, how many segments, and medians in seconds."""
    pairs = [(r.truth, a) for r, a in zip(recordings, predictions)]
    for overlap in OVERLAPS:
        total = sum((count_matches(t, a.segments, overlap) for t, a in pairs),
                    SegmentCounts(0, 0, 0))
        yield f'{100 * total.f1:.1f}'
    yield f'{100 * statistics.mean(edit_score(t, a.segments) for t, a in pairs):.1f}'
    yield str(sum(len(a.segments) for a in predictions))
    off = [abs(x) for t, a in pairs for x in start_delays(t, a.segments)]
    late = [x for t, a in pairs for x in start_delays(t, a.segments, a.announced)]
    yield f'{statistics.median(off) / NANOSECONDS:.2f}'
    yield f'{statistics.median(late) / NANOSECONDS:.2f}'


def draw(path: Path, recording: Recording, seconds: float = 90.0) -> None:
    """Draw the truth, plain argmax and events over the same time."""
    rows = {
        'truth': recording.truth,
        'argmax': argmax(recording, 0.0).segments,
        f'argmax,\nscore from {EventSettings().start:g}':
            argmax(recording, EventSettings().start).segments,
        'events': events(recording, EventSettings()).segments,
    }
    labels = list(dict.fromkeys(
        s.label for s in recording.truth if s.start < seconds * NANOSECONDS))
    figure = Figure(figsize=(9.6, 3.6), layout='constrained')
    axes = figure.subplots()
    for position, segments in enumerate(rows.values()):
        for segment in segments:
            if segment.start < seconds * NANOSECONDS:
                _bar(axes, position, segment, labels)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.75)
    axes.set_xlim(0, seconds)
    axes.set_xlabel('time, s')
    axes.tick_params(axis='y', length=0)
    axes.spines[['top', 'right', 'left']].set_visible(False)
    axes.set_title('A simulated stream cut into actions; grey: an action that never happens in it',
                   loc='left', fontsize=10, pad=14)
    figure.savefig(path, dpi=110)


def _bar(axes: Axes, position: int, segment: Segment, labels: list[object]) -> None:
    start, end = segment.start / NANOSECONDS, segment.end / NANOSECONDS
    known = segment.label in labels
    colour = COLOURS[labels.index(segment.label) % len(COLOURS)] if known else '#c4c4c4'
    axes.barh(position, end - start, left=start, height=0.7, color=colour, edgecolor='w',
              linewidth=0.4)
    if position == 0:
        axes.annotate(' '.join(segment.label), ((start + end) / 2, -0.42), fontsize=7,
                      ha='left', va='bottom', rotation=25, annotation_clip=True)


if __name__ == '__main__':
    main()
