"""The tables and the chart of docs/streaming.md, from the measurements of `streaming.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
import statistics
from typing import Any

from figures import measured, Results, three_digits
from karmma_ros.evaluation.tables import markdown_table

PAGE = Path('docs', 'streaming.md')
CHART = Path('docs', 'images', 'streaming.png')
EAGER, EXPORTED, INT8 = 'eager', 'openvino bf16', 'int8'
SCORES = ('all sensors', 'V alone', 'mean of subsets')
"""Action accuracy, percent: the scores of a row in the table."""
AS_THE_NODE, INDEPENDENT = 'as the node', 'independent windows'
"""How a network processes the windows of a video: with the state of earlier ones, or without."""
LARGEST_LOSS = 'largest loss'
"""Largest accuracy loss of an export against eager over the subsets of sensors, points."""

Row = Mapping[str, Any]
"""One way to encode a window: its label, what its network costs, and what runs it → figures."""


def rows(results: Results) -> Mapping[str, Row]:
    """Return name → row, in the order of the table."""
    causal = results.get('causal', {'figures': {'rows': {}}})['figures']['rows']
    return {**results['streaming']['figures']['rows'],
            **{name: row for name, row in causal.items() if name == 'causal'}}


def speedup(results: Results) -> float:
    """Return how much faster chunks of 8, exported, predict than the clip student in eager."""
    figures = rows(results)
    return float(figures['clip_tau']['taken'][EAGER]['prediction_ms']
                 / figures['chunks_quarter']['taken'][EXPORTED]['prediction_ms'])


def causal_speedup(results: Results) -> float:
    """Return the same of the causal student in the fastest backend."""
    figures = results['causal']['figures']['rows']
    return float(figures['clip_tau']['taken'][EAGER]['prediction_ms']
                 / min(own['prediction_ms'] for own in figures['causal']['taken'].values()))


def causal_gain(results: Results, score: str) -> float | None:
    """
    Return the accuracy of the causal student above that of the better clip student, points.

    None: they were not trained.
    """
    clips = results['trained']['figures']['clips']
    mean = {name: statistics.mean(seed[score] for seed in clips[name][EAGER])
            for name in ('clip_tau', 'clip_even', 'causal') if name in clips}
    causal = mean.pop('causal', None)
    return None if causal is None or not mean else causal - max(mean.values())


def predictions_per_second(results: Results) -> float:
    """Return the live predictions a second of chunks of 8, exported."""
    return 1e3 / float(rows(results)['chunks_quarter']['taken'][EXPORTED]['prediction_ms'])


def recognised(results: Results) -> str:
    """Return the table of the accuracy and size of each way to encode."""
    scores = results['trained']['figures']['clips']
    lines = [[row['label'], *(_percent([seed[score] for seed in scores[name][EAGER]])
                              if name in scores else '–' for score in SCORES),
              f'{row["gflops"]:.1f}', f'{row["parameters_m"]:.1f}']
             for name, row in rows(results).items()]
    return f'{measured(results["trained"])}\n\n' + markdown_table(
        ['encoded at a time', *(f'{score}, %' for score in SCORES), 'GFLOPs', 'parameters, M'],
        lines)


def recognised_in_a_video(results: Results) -> str:
    """Return the table of the accuracy in consecutive windows of a video."""
    video = results['trained']['figures']['video']
    lines = [[row['label'] + (', each window independently' if mode == INDEPENDENT else ''),
              *(_percent([seed[score] for seed in seeds]) for score in SCORES)]
             for name, row in rows(results).items()
             for mode, seeds in video.get(name, {}).items()]
    return markdown_table(['encoded at a time', *(f'{score}, %' for score in SCORES)], lines)


def _percent(values: Sequence[float]) -> str:
    spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def taken(results: Results, part: str = 'streaming') -> str:
    """Return the table of the time of a prediction, as a part measured it."""
    timed = results[part]['figures']['rows']
    slowest, lines = timed['clip_tau']['taken'][EAGER], []
    for name, row, runs, own in _timed(timed):
        loss = accuracy_loss(results, name, runs)
        lines.append([
            row['label'], runs, three_digits(own['network_ms']),
            three_digits(own['prediction_ms']),
            f'{1e3 / own["prediction_ms"]:.1f}',
            f'{slowest["prediction_ms"] / own["prediction_ms"]:.1f} ×',
            three_digits(own['cpu_ms']), f'{slowest["cpu_ms"] / own["cpu_ms"]:.1f} ×',
            f'{own["difference"]:.2%}' if runs != EAGER else '–',
            '–' if loss is None else f'{loss:.2f}'])
    return f'{measured(results[part])}\n\n' + markdown_table(
        ['encoded at a time', 'runs in', 'network, ms', 'live prediction, ms',
         'predictions/s', 'faster',
         'CPU ms', 'less', 'differs by', 'points lost'], lines, 2)


def accuracy_loss(results: Results, name: str, runs: str) -> float | None:
    """Return the largest loss of an export with any subset; None where it is not known."""
    scores = results['trained']['figures']['clips'].get(name, {}).get(runs, [])
    return max((seed[LARGEST_LOSS] for seed in scores if LARGEST_LOSS in seed), default=None)


def _timed(timed: Mapping[str, Row]) -> Iterator[tuple[str, Row, str, Mapping[str, float]]]:
    for name, row in timed.items():
        for runs, own in row['taken'].items():
            yield name, row, runs, own


def draw(results: Results, path: Path) -> None:
    """
    Draw accuracy against the time of a prediction, in eager PyTorch and in the fastest export.

    int8 is left out: it may cost accuracy.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    scores = results['trained']['figures']['clips']
    timed = {name: row for name, row in rows(results).items() if row['taken'] and name in scores}
    eager = [row['taken'][EAGER]['prediction_ms'] for row in timed.values()]
    fastest = [min(own['prediction_ms'] for runs, own in row['taken'].items()
                   if not runs.endswith(INT8)) for row in timed.values()]
    figure, axis = plt.subplots(figsize=(7.5, 4.2), layout='constrained')
    for score, marker in zip(SCORES, 'osD'):
        heights = [statistics.mean(seed[score] for seed in scores[name][EAGER]) for name in timed]
        drawn, = axis.plot(fastest, heights, marker, label=score, markersize=7)
        axis.plot(eager, heights, marker, color=drawn.get_color(), markersize=7, fillstyle='none')
    for row, ms in zip(timed.values(), fastest):
        axis.axvline(ms, color='0.85', zorder=0)
        axis.annotate(row['label'].replace(', τ-Average (the paper)', ''), (ms, 1.01),
                      xycoords=('data', 'axes fraction'), rotation=18, fontsize=8)
    axis.plot([], [], 'o', color='0.4', fillstyle='none', label='the same in eager PyTorch')
    axis.set(xscale='log', ylim=(60, 100), ylabel='action accuracy, Synthetic Kitchen, %',
             xlabel="ms for a live prediction at the paper's size, V+F+A, two cores")
    times = [*eager, *fastest]
    ticks = [t * power for power in (10, 100, 1000) for t in (1, 2, 5)]
    axis.set_xticks([t for t in ticks if 0.7 * min(times) < t < 1.5 * max(times)])
    axis.xaxis.set_major_formatter(ticker.ScalarFormatter())
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.legend(loc='center', bbox_to_anchor=(0.6, 0.62), fontsize=8)
    axis.grid(axis='y', alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
