"""Write the measured part of docs/real_data.md, and its figures, from scores of UTD-MHAD."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
import json
from pathlib import Path
import sys
from typing import Any

from karmma_ros.evaluation.classification import confusion, PredictedActions
from karmma_ros.evaluation.plots import draw_confusion, draw_dropout_curve, STYLE
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.evaluation.published import DROPOUT_CURVES
from karmma_ros.evaluation.robustness import POINTS
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.modality import parse_subset
from matplotlib import rc_context
from matplotlib.figure import Figure
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / 'benchmarks' / 'results' / 'utd_mhad.json'
sys.path.insert(0, str(ROOT / 'test' / 'faults'))

from fault_suite.report import machine  # noqa: E402

BEGIN, END = '<!-- measured -->', '<!-- /measured -->'
TITLES = {
    'late fusion': 'late fusion of the networks of one sensor',
    'causal late fusion': 'late fusion of the networks of one sensor, causal encoders',
    'baseline': 'Baseline', 'delta': 'Baseline w/ δ',
    'delta_unimodal': 'Baseline w/ δ and unimodal loss',
    'causal': 'Baseline w/ δ and unimodal loss, causal encoders',
    'causal_slow': 'Baseline w/ δ and unimodal loss, slow causal encoders',
    'karmma': 'KARMMA, larger frozen teacher',
    'karmma_causal': 'KARMMA, larger frozen teacher, causal encoders',
    'karmma_causal_slow': 'KARMMA, larger frozen teacher, slow causal encoders',
    'karmma_cross_fitted': 'KARMMA, cross-fitted teachers', 'teacher': 'the larger teacher',
    'calibrated': 'Baseline w/ δ and unimodal loss, slow causal encoders, one person calibrates'}
DRAWN = ('late fusion', 'baseline', 'delta', 'karmma', 'karmma_causal_slow')
"""Systems in the chart, which has as many colours as curves."""
Figures = Mapping[str, Any]
"""Of one run of the benchmark, as `collect` returns them."""
PAPER = {'karmma': 'paper: KARMMA, EPIC-KITCHENS', 'baseline': 'paper: Baseline, EPIC-KITCHENS'}


def collect(
    scores: Sequence[Mapping[str, Any]], seconds: Mapping[str, float], options: str,
) -> dict[str, Any]:
    """
    Return what the page is made of.

    :param scores: the content of scores.json of the test persons, then of each person who trains,
                   by networks that are trained without that person.
    :param seconds: command → how long it took.
    :param options: of the benchmark, that decide the figures.
    """
    tested, *validated = ({key: each[key] for key in ('joint_head', 'models')} | {
        'clips': each['data']['clips']} for each in scores)
    return {'options': options, 'machine': machine(), 'date': date.today().isoformat(),
            'seconds': dict(seconds), 'scores': tested, 'validation': validated}


def load_runs() -> list[dict[str, Any]]:
    """Return the figures of each run that the page has rows of, oldest first."""
    runs: list[dict[str, Any]] = json.loads(FIGURES.read_text(encoding='utf-8'))['runs']
    return runs


def add_run(runs: Iterable[Figures], new: Figures) -> list[Figures]:
    """Return the runs with a new one, and without what it has measured again."""
    kept = [{**run, 'scores': _without(run['scores'], new['scores']), 'validation': [
        _without(old, own) for old, own in zip(run['validation'], new['validation'])]
        or run['validation']} for run in runs]
    return [*(run for run in kept if run['scores']['models']), new]


def _without(old: Figures, new: Figures) -> Figures:
    """Return scores without the models of systems that new ones have."""
    again = {model['system'] for model in new['models']}
    return {**old, 'models': [m for m in old['models'] if m['system'] not in again]}


def scores_of(runs: Sequence[Figures]) -> dict[str, Any]:
    """Return the scores of all systems on the test persons."""
    return _joined([run['scores'] for run in runs])


def _joined(scores: Sequence[Figures]) -> dict[str, Any]:
    return {**scores[0], 'models': [model for each in scores for model in each['models']]}


def written(text: str, runs: Sequence[Figures]) -> str:
    """Return the text of the page with the tables of some runs."""
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise SystemExit(f'the page has no text between {BEGIN} and {END}')
    scores = scores_of(runs)
    validated = [_joined(person) for person in zip(*(
        run['validation'] for run in runs if run['validation']))]
    tables = '\n\n'.join([_origin(runs), _accuracies(scores), _margins(scores),
                          *_validation(validated)])
    return f'{before}{BEGIN}\n{tables}\n{END}{after}'


def _seeds(scores: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return system → its models, in the order of `TITLES`."""
    systems: dict[str, list[Mapping[str, Any]]] = {}
    for name in TITLES:
        systems[name] = [m for m in scores['models'] if m['system'] == name]
    return {name: models for name, models in systems.items() if models}


def _column(model: Mapping[str, Any], head: str) -> dict[str, float]:
    return {subset: 100 * each['scores'][head]['top1']
            for subset, each in model['subsets'].items()}


def worst_fall(column: Mapping[str, float]) -> float:
    """Return the most points that a subset of sensors lies below one that it contains."""
    return max(
        column[small] - column[large] for large in column for small in column
        if set(parse_subset(small)) < set(parse_subset(large)))


def _figures(model: Mapping[str, Any], head: str) -> dict[str, float]:
    column = _column(model, head)
    full = model['subsets'][model['all_modalities']]
    return {
        **column, f'mean of {len(column)}': float(np.mean(list(column.values()))),
        '90 % dropping': 100 * model['dropout_curve'][head][-1],
        'worst fall': worst_fall(column),
        'ECE, all': 100 * full['scores'][head]['calibration_error']}


def _validation(persons: Sequence[Mapping[str, Any]]) -> list[str]:
    if not persons:
        return []
    scores = {'joint_head': persons[0]['joint_head'],
              'models': [model for person in persons for model in person['models']]}
    trials = sum(person['clips'] for person in persons)
    return [f'Cross-validation over the {len(persons)} persons who train, {trials} trials:',
            _accuracies(scores, 'persons'), _margins(scores)]


def _accuracies(scores: Mapping[str, Any], repeated: str = 'seeds') -> str:
    head, rows, names = scores['joint_head'], [], []
    for system, models in _seeds(scores).items():
        figures = [_figures(model, head) for model in models]
        names = list(figures[0])
        rows.append([TITLES[system], str(len(models)),
                     *(_spread([each[name] for each in figures]) for name in names)])
    return markdown_table(['', repeated, *names], rows)


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f'{values[0]:.1f}'
    return f'{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}'


def _margins(scores: Mapping[str, Any]) -> str:
    """Return a table of differences of one seed at a time."""
    head, seeds, rows = scores['joint_head'], _seeds(scores), []
    for first, second in (
            ('delta', 'baseline'), ('delta_unimodal', 'delta'), ('causal', 'delta_unimodal'),
            ('karmma', 'delta_unimodal'), ('karmma_causal', 'karmma'),
            ('karmma_cross_fitted', 'delta_unimodal'),
            ('delta_unimodal', 'late fusion'), ('karmma', 'late fusion'),
            ('karmma_cross_fitted', 'late fusion'),
            ('causal', 'causal late fusion'), ('karmma_causal', 'causal late fusion'),
            ('causal_slow', 'causal'), ('karmma_causal_slow', 'causal_slow'),
            ('causal_slow', 'causal late fusion'), ('karmma_causal_slow', 'causal late fusion')):
        pairs = [(_figures(a, head), _figures(b, head))
                 for a, b in zip(seeds.get(first, []), seeds.get(second, []))]
        if pairs:
            names = [name for name in pairs[0][0] if name.startswith(('mean', '90'))]
            rows.append([f'{TITLES[first]} − {TITLES[second]}', *(
                _spread([a[name] - b[name] for a, b in pairs]) for name in names)])
    return markdown_table(['differences, points', 'mean of the subsets', '90 % dropping'], rows)


def gain(first: str, second: str, score: str) -> float | None:
    """
    Return by how many points one system is above another, the mean of the seeds.

    None where one has not been measured.

    :param score: a subset of the sensors, as I+Z+S, or a column of the table.
    """
    scores = scores_of(load_runs())
    head, seeds = scores['joint_head'], _seeds(scores)
    if not {first, second} <= set(seeds):
        return None
    a, b = ([_figures(model, head)[score] for model in seeds[name]] for name in (first, second))
    return float(np.mean(a) - np.mean(b))


def _origin(runs: Sequence[Figures]) -> str:
    """Return which command measured what, where and when; the newest has all rows it can have."""
    lines = []
    for run in runs:
        this, seconds = run['machine'], run['seconds']
        own = {model['system'] for model in run['scores']['models']}
        rows = '' if len(runs) == 1 else ': ' + '; '.join(
            title for name, title in TITLES.items() if name in own)
        lines.append(
            f'`python benchmarks/utd_mhad.py DATA {run["options"]}`, {this["processor"]}, '
            f'{this["cores"]} cores, Python {this["python"]}, torch {this["torch"]}, '
            f'{run["date"]}; {run["scores"]["clips"]} trials of the test persons. '
            f'{len(seconds)} trainings took {sum(seconds.values()) / 60:.0f} minutes in all'
            f'{rows}.')
    return '\n\n'.join(lines)


@rc_context(STYLE)
def plot_dropout(path: Path, runs: Sequence[Figures]) -> None:
    """Draw accuracy over dropping, relative to all sensors, beside that of the paper."""
    scores = scores_of(runs)
    head = scores['joint_head']
    curves = {TITLES[system]: [np.divide(c, c[0]) for c in (
        model['dropout_curve'][head] for model in models)]
        for system, models in _seeds(scores).items() if system in DRAWN}
    for system, title in PAPER.items():
        curve = DROPOUT_CURVES['EPIC-KITCHENS-100'][system]
        curves[title] = [np.divide(curve, curve[0])]
    figure = Figure(figsize=(6.4, 4.6), layout='constrained')
    axes = figure.subplots()
    draw_dropout_curve(axes, curves, POINTS)
    axes.set_ylabel('accuracy, % of that with all sensors')
    axes.grid(axis='y')
    axes.legend()
    figure.savefig(path, dpi=150)


@rc_context(STYLE)
def plot_confusion(path: Path, predictions: DatasetPredictions, classes: Sequence[str]) -> None:
    """Draw the confusion matrix of each sensor alone and of all."""
    [head], own = predictions.heads, predictions.modalities
    figure = Figure(figsize=(15, 15.5), layout='constrained')
    for axes, subset in zip(figure.subplots(2, 2).flat, [*((m,) for m in own), own]):
        counts = np.zeros((len(classes), len(classes)), np.int64)
        actions = PredictedActions.of_subset(predictions, subset)
        for (true, best), count in confusion(actions, head).items():
            counts[true, best] = count
        draw_confusion(axes, counts, classes)
        axes.set_title(' and '.join(subset))
    figure.savefig(path, dpi=80)
