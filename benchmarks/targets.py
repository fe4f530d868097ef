"""What was aimed at, beside what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from figures import Results
from karmma_ros.evaluation.tables import markdown_table
from performance_page import lost, phase, phases, PICTURE_AGE, SHOWN_AGE
import streaming_page


@dataclass(frozen=True)
class Target:
    """A figure, and what it has to be."""

    what: str
    unit: str
    target: float | None
    """None where there is but an aim."""
    aim: float | None
    """What would be better still; None where there is but a target."""
    figure: Callable[[Results], float | None]
    """None where it could not be measured."""
    more_is_better: bool = False
    below: bool = False
    """The bound itself is too much."""

    def row(self, results: Results) -> list[str]:
        """Return the cells of its row."""
        figure = self.figure(results)
        said = ['–' if value is None else f'{value:.3g}{self.unit}'
                for value in (figure, self.target, self.aim)]
        if figure is None:
            return [self.what, *said, 'not measured']
        return [self.what, *said, self._verdict(figure)]

    def _verdict(self, figure: float) -> str:
        if self._reaches(figure, self.aim):
            return 'aim reached'
        if self.target is None:
            return 'aim not reached'
        return 'met' if self._reaches(figure, self.target) else '**missed**'

    def _reaches(self, figure: float, bound: float | None) -> bool:
        if bound is None:
            return False
        if self.more_is_better:
            return figure >= bound
        return figure < bound if self.below else figure <= bound


def _memory_share(results: Results) -> float:
    found = results['memory']['figures']
    teacher, student = (found['peak_mb'][name] for name in ('karmma_teacher', 'karmma_student'))
    return 100 * float(found.get('node', {'peak_mb': student})['peak_mb'] / teacher)


def _speedup(results: Results) -> float:
    found = results['student']['figures']['models']['karmma_student']
    taken = {label: own['seconds']['V+F+A']['median'] for label, own in found.items()
             if 'seconds' in own}  # what disagrees with eager is not timed
    return float(taken['eager'] / min(taken.values()))


def _points_lost(results: Results, precisions: tuple[str, ...]) -> float | None:
    """Return the most that a backend of these precisions loses with any sensors."""
    found = results['backends']['figures']['models']['synthetic_kitchen']
    eager = found['eager'].get('accuracy')
    if eager is None:
        return None
    return max(eager[subset] - right for label, own in found.items()
               if label.split()[-1] in precisions
               for subset, right in own.get('accuracy', {}).items())


def _points_streaming_loses(results: Results, precision: str) -> float | None:
    """Return the most that an export of a precision costs a trained student that streams."""
    lost = [points for name, by_runs in results['trained']['figures']['clips'].items()
            for runs in by_runs if runs.endswith(precision)
            and (points := streaming_page.points_lost(results, name, runs)) is not None]
    return max(lost, default=None)


def _above_the_floor(results: Results) -> float | None:
    """Return how many times the time of its arithmetic the paper's student takes on the card."""
    found = results['gpu']['figures']
    graphs = found.get('models', {}).get('karmma_student', {}).get('CUDA graphs bf16')
    if graphs is None or not graphs['seconds']:  # no GPU, or it disagrees with eager
        return None
    return float(found['product_gflops_per_second']
                 / graphs['seconds']['V+F+A']['gflops_per_second'])


TARGETS = (
    Target("the paper's student, V+F+A, by the fastest backend", ' x eager', 6, 10, _speedup,
           more_is_better=True),
    Target('streaming student, V+F+A, chunks of 8, OpenVINO bf16, a live answer',
           ' x the clip student in eager', 25, 40, streaming_page.speedup, more_is_better=True),
    Target('the same, answers a second', '', None, 5, streaming_page.answers_per_second,
           more_is_better=True),
    Target('the node without its network, 5 answers a second', ' % of a core', 35, 20,
           lambda r: phase(r, 'no network', 5)['cpu_percent']['node'], below=True),
    Target('the same, 10 answers a second', ' % of a core', 35, 20,
           lambda r: phase(r, 'no network', 10)['cpu_percent']['node'], below=True),
    Target("stamp of the clip's newest picture to answer without the network, 5 answers a second, "
           'p95', ' ms', 60, 30,
           lambda r: phase(r, 'no network', 5)['ages_ms'][SHOWN_AGE]['p95'], below=True),
    Target('stamp of the newest picture received to answer, 10 answers a second, p95', ' ms',
           60, 30, lambda r: phase(r, 'no network', 10)['ages_ms'][PICTURE_AGE]['p95'],
           below=True),
    Target('pictures of 1,000 that are lost, with the profile', '', 0, None,
           lambda r: 1000 * lost(phase(r, 'no network', 5))),
    Target("the node's memory for the paper's student, of its teacher's", ' %', 50, 35,
           _memory_share),
    Target('answers a second through the whole node, at most', '', 10, 20,
           lambda r: max(p['answers_per_second'] for p in phases(r)
                         if p['run'] == 'whole node'), more_is_better=True),
    Target('accuracy that fp32 or bf16 costs the shipped model, any sensors, at most', ' points',
           0.5, None, lambda r: _points_lost(r, ('fp32', 'bf16')), below=True),
    Target('the same, int8', ' points', 0.5, None, lambda r: _points_lost(r, ('int8',)),
           below=True),
    Target('accuracy that bf16 costs trained students that stream, any sensors, at most',
           ' points', 0.5, None, lambda r: _points_streaming_loses(r, 'bf16'), below=True),
    Target('the same, int8', ' points', 0.5, None, lambda r: _points_streaming_loses(r, 'int8'),
           below=True),
    Target("GPU: the paper's student, batch 1, bf16", ' x the time of its products alone', 8, 3,
           _above_the_floor),
)


def targets(results: Results) -> str:
    """Set what was aimed at beside what came out."""
    return markdown_table(['', 'measured', 'target', 'aim', ''], [t.row(results) for t in TARGETS])
