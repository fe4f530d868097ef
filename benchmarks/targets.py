"""The table of targets and measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from figures import Results
from karmma_ros.evaluation.tables import markdown_table
import peers_page
from performance_page import dropped, FRAME_AGE, IMAGE_AGE, phase, phases
import streaming_page
import utd_mhad_page


@dataclass(frozen=True)
class Target:
    """A measured figure, its target and aim."""

    what: str
    unit: str
    target: float | None
    """None where there is only an aim."""
    aim: float | None
    """A better value than the target; None where there is only a target."""
    figure: Callable[[Results], float | None]
    """None where it could not be measured."""
    more_is_better: bool = False
    below: bool = False
    """The bound itself must not be reached."""

    def row(self, results: Results) -> list[str]:
        """Return the cells of its row."""
        figure = self.figure(results)
        values = ['–' if value is None else f'{value:.3g}{self.unit}'
                for value in (figure, self.target, self.aim)]
        if figure is None:
            return [self.what, *values, 'not measured']
        return [self.what, *values, self._verdict(figure)]

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


def _memory_percent(results: Results) -> float:
    figures = results['memory']['figures']
    teacher, student = (figures['peak_mb'][name] for name in ('karmma_teacher', 'karmma_student'))
    return 100 * float(figures.get('node', {'peak_mb': student})['peak_mb'] / teacher)


def _speedup(results: Results) -> float:
    figures = results['student']['figures']['models']['karmma_student']
    taken = {label: own['seconds']['V+F+A']['median'] for label, own in figures.items()
             if 'seconds' in own}  # what disagrees with eager is not timed
    return float(taken['eager'] / min(taken.values()))


def _where(
    part: str, amx: bool, figure: Callable[[Results], float | None]
) -> Callable[[Results], float | None]:
    """Return a figure of a part, if a processor with AMX measured it, or one without."""
    return lambda results: figure(results) if results[part].get('amx') is amx else None


def _beside_peer(name: str) -> Callable[[Results], float | None]:
    """Return how often the causal student predicts from V in the time of a network of others."""
    def figure(results: Results) -> float | None:
        if 'peers' not in results:
            return None
        networks = peers_page.networks(results)
        return (peers_page.fastest(networks['karmma_student_causal'])
                / peers_page.fastest(networks[name]))

    return figure


def _on_utd_mhad(_: Results, score: str) -> float | None:
    """Return the points of the causal student above the clip student, distilled alike."""
    return utd_mhad_page.gain('karmma_causal', 'karmma', score)


def _accuracy_loss(results: Results, precisions: tuple[str, ...]) -> float | None:
    """Return the largest accuracy loss of a backend of these precisions with any sensors."""
    figures = results['backends']['figures']['models']['synthetic_kitchen']
    eager = figures['eager'].get('accuracy')
    if eager is None:
        return None
    return max(eager[subset] - right for label, own in figures.items()
               if label.split()[-1] in precisions
               for subset, right in own.get('accuracy', {}).items())


def _streaming_accuracy_loss(results: Results, precision: str) -> float | None:
    """Return the largest accuracy loss of a trained streaming student exported in a precision."""
    losses = [points for name, by_runs in results['trained']['figures']['clips'].items()
              for runs in by_runs if runs.endswith(precision)
              and (points := streaming_page.accuracy_loss(results, name, runs)) is not None]
    return max(losses, default=None)


def _above_the_floor(results: Results) -> float | None:
    """Return how many times the time of its arithmetic the paper's student takes on the card."""
    figures = results['gpu']['figures']
    graphs = figures.get('models', {}).get('karmma_student', {}).get('CUDA graphs bf16')
    if graphs is None or not graphs['seconds']:  # no GPU, or it disagrees with eager
        return None
    return float(figures['product_gflops_per_second']
                 / graphs['seconds']['V+F+A']['gflops_per_second'])


_OF_EAGER = ' x the clip student in eager'
_CHUNKS = 'streaming student, V+F+A, chunks of 8, OpenVINO bf16, a live prediction, '

TARGETS = (
    Target('causal student, V+F+A, a live prediction by the fastest backend', _OF_EAGER, 200, 280,
           streaming_page.causal_speedup, more_is_better=True),
    Target('the same, operations', ' GFLOPs', 3, 2,
           lambda r: float(streaming_page.rows(r)['causal']['gflops'])),
    Target('the same with V alone, predictions in the time of one of X3D-S, a complete clip', '',
           2, 3, _beside_peer('x3d_s'), more_is_better=True),
    Target('the same, in the time of one of CoX3D-M, a frame', '', 1, 1.3,
           _beside_peer('cox3d_m'), more_is_better=True),
    *(Target('the same on the Synthetic Kitchen, action accuracy above that of the clip student, '
             f'{score}', ' points', -0.5, 0, partial(streaming_page.causal_gain, score=score),
             more_is_better=True) for score in streaming_page.SCORES),
    *(Target(f'the same on UTD-MHAD, {name}', ' points', -0.5, 0,
             partial(_on_utd_mhad, score=score), more_is_better=True)
      for score, name in (('I+Z+S', 'all sensors'), ('mean of 7', 'mean of subsets'))),
    Target("the paper's student, V+F+A, by the fastest backend, with AMX", ' x eager', 10, 12,
           _where('student', True, _speedup), more_is_better=True),
    Target('the same without AMX', ' x eager', 6, 8, _where('student', False, _speedup),
           more_is_better=True),
    Target(f'{_CHUNKS}with AMX', _OF_EAGER, 40, 50,
           _where('streaming', True, streaming_page.speedup), more_is_better=True),
    Target('the same without AMX', _OF_EAGER, 30, 40,
           _where('streaming', False, streaming_page.speedup), more_is_better=True),
    Target('the same, predictions a second', '', None, 5, streaming_page.predictions_per_second,
           more_is_better=True),
    Target('the node without its network, 5 results a second', ' % of a core', 10, 6,
           lambda r: phase(r, 'no network', 5)['cpu_percent']['node'], below=True),
    Target('the same, 10 results a second', ' % of a core', 10, 6,
           lambda r: phase(r, 'no network', 10)['cpu_percent']['node'], below=True),
    Target('age of the newest frame of the clip without the network, 5 results a second, p95',
           ' ms', 30, 20,
           lambda r: phase(r, 'no network', 5)['ages_ms'][FRAME_AGE]['p95'], below=True),
    Target('age of the newest image received without the network, 10 results a second, p95', ' ms',
           30, 20, lambda r: phase(r, 'no network', 10)['ages_ms'][IMAGE_AGE]['p95'],
           below=True),
    Target('images of 1,000 that are dropped, with the profile', '', 0, None,
           lambda r: 1000 * dropped(phase(r, 'no network', 5))),
    Target("memory of the node with the paper's student, of its teacher's", ' %', 38, 35,
           _memory_percent),
    Target('results a second of the complete node, at most', '', 10, 20,
           lambda r: max(p['results_per_second'] for p in phases(r)
                         if p['run'] == 'complete node'), more_is_better=True),
    Target('accuracy loss of the included model in fp32 or bf16, any sensors, at most', ' points',
           0.5, None, lambda r: _accuracy_loss(r, ('fp32', 'bf16')), below=True),
    Target('the same, int8', ' points', 0.5, None, lambda r: _accuracy_loss(r, ('int8',)),
           below=True),
    Target('accuracy loss of trained streaming students in bf16, any sensors, at most',
           ' points', 0.5, None, lambda r: _streaming_accuracy_loss(r, 'bf16'), below=True),
    Target('the same, int8', ' points', 0.5, None, lambda r: _streaming_accuracy_loss(r, 'int8'),
           below=True),
    Target("GPU: the paper's student, batch 1, bf16", ' x the time of its products alone', 8, 3,
           _above_the_floor),
)


def targets(results: Results) -> str:
    """Return the table of targets and measurements."""
    return markdown_table(['', 'measured', 'target', 'aim', ''], [t.row(results) for t in TARGETS])
