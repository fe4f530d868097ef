"""
What an evaluation found: a JSON file, Markdown tables and pictures in one folder.

`scores.json`, every accuracy and error from 0 to 1, null where it cannot be told:

    {"format": "karmma_ros.scores/1",
     "data": {"name": str, "split": str, "clips": int, "settings": {…}},
     "heads": [head, …], "joint": the score that needs every head right,
     "models": [
       {"system": str, "model": its id, "full": name of all its sensors,
        "subsets": {subset: {"count": clips that have it,
                             "scores": {head or joint:
                                        {"top1", "top5", "calibration_error"}}}},
        "dropping": null or {"probability": [0.0, 0.1, …], head or joint: [top-1, …]},
        "average_accuracy": of the joint score over all subsets,
        "relative_drop": of the joint score against all sensors}],
     "average_rank": null or {system: 1 is the best, over the subsets all systems have}}

Models of one system are its seeds: tables of systems show their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
import json
import math
from pathlib import Path
from textwrap import dedent
from typing import Any

from karmma_ros.errors import InvalidSettingError, printable
from karmma_ros.evaluation.classification import (
    BINS,
    calibration,
    joint_key,
    keys,
    PredictedActions,
    score,
)
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.evaluation.robustness import (
    average_accuracy,
    average_ranks,
    dropout_curve,
    POINTS,
    relative_drop,
)
from karmma_ros.evaluation.tables import escape_cell, markdown_table
from karmma_ros.modality import subset_name, subsets
from karmma_ros.prediction import Vocabulary
import numpy as np

FORMAT = 'karmma_ros.scores/1'
JSON, MARKDOWN = 'scores.json', 'README.md'
Report = dict[str, Any]
"""What `scores.json` holds."""


@dataclass(frozen=True)
class ScoredModel:
    """One model's answers; models of the same system are its seeds."""

    system: str
    model: str
    """Its id: name and digest."""
    predictions: DatasetPredictions


@dataclass(frozen=True)
class ScoredData:
    """What the models were scored on."""

    name: str
    """The data set in words."""
    split: str
    clips: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON-ready."""

    def __str__(self) -> str:
        return f'{self.name}, {self.split} split, {self.clips:,} clips'


def describe(data: ScoredData, models: Sequence[ScoredModel]) -> Report:
    """
    Score the models; everything that tables and pictures show is in the answer.

    :raises InvalidSettingError: when there is no model, or they have different heads.
    """
    heads = models[0].predictions.heads if models else ()
    if not models or any(set(m.predictions.heads) != set(heads) for m in models):
        raise InvalidSettingError(
            'models', [m.model for m in models], 'at least one, all with the same heads')
    report: Report = {
        'format': FORMAT, 'data': asdict(data), 'heads': list(heads), 'joint': joint_key(heads),
        'models': [_model(model) for model in models], 'average_rank': None}
    columns = {system: _mean_column(seeds) for system, seeds in columns_of(report).items()}
    if len(columns) > 1 and set.intersection(*(set(column) for column in columns.values())):
        report['average_rank'] = average_ranks(columns)
    nulled: Report = _without_nan(report)
    return nulled


def write_report(
    folder: Path, data: ScoredData, models: Sequence[ScoredModel], *,
    references: Mapping[str, Sequence[float]] | None = None, pictures: str = 'png',
) -> Report:
    """
    Write `scores.json`, `README.md` and the pictures, and give what the JSON holds.

    :param references: published curves to draw beside ours, at each of `dropping.POINTS`.
    :param pictures: suffix of the pictures: png, svg or pdf.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = describe(data, models)
    (folder / JSON).write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    drawn = _draw(folder, report, data, models, references or {}, pictures)
    shown = [f'![{what}]({name})' for name, what in drawn.items()]
    text = '\n\n'.join([markdown(report), *shown]) + '\n'
    (folder / MARKDOWN).write_text(text, encoding='utf-8')
    return report


def markdown(report: Report) -> str:
    """Set a report as Markdown tables, in percent; figures that cannot be told are a dash."""
    data = ScoredData(**report['data'])
    parts = [f'# Scores on {data}']
    parts += [_subset_table(report, model) for model in report['models']]
    if any(model['dropping'] for model in report['models']):
        parts += [_dropping_table(report), _robustness_table(report)]
    return '\n\n'.join([*parts, _notes(report)])


def columns_of(report: Report) -> dict[str, list[dict[str, float]]]:
    """Return system → for each of its models, subset → top-1 accuracy of the joint score."""
    columns: dict[str, list[dict[str, float]]] = {}
    for model in report['models']:
        columns.setdefault(model['system'], []).append({
            subset: found['scores'][report['joint']]['top1']
            for subset, found in model['subsets'].items()})
    return columns


def _model(model: ScoredModel) -> dict[str, Any]:
    predictions = model.predictions
    found = {name: asdict(each) for name, each in score(predictions).items()}
    # With some of the subsets only, a mean over "all" would be of others than it says.
    whole = all(subset_name(s) in found for s in subsets(predictions.modalities)
                if predictions.has(s).any())
    joint = joint_key(predictions.heads)
    column = {name: each['scores'][joint]['top1'] for name, each in found.items()}
    full = subset_name(predictions.modalities)
    return {
        'system': model.system, 'model': model.model, 'full': full, 'subsets': found,
        'dropping': {'probability': list(POINTS), **dropout_curve(predictions)} if whole else None,
        'average_accuracy': average_accuracy(column) if whole else None,
        'relative_drop': relative_drop(column, full) if whole else None}


def _mean_column(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    common = [s for s in seeds[0] if all(s in column for column in seeds)]
    return {s: float(np.mean([column[s] for column in seeds])) for s in common}


def _without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _subset_table(report: Report, model: Mapping[str, Any]) -> str:
    scores = keys(report['heads'])
    header = ['sensors', 'clips', *(f'{key} top-{k}' for key in scores for k in (1, 5)),
              f'{report["joint"]} calibration error']
    rows = []
    for subset, found in model['subsets'].items():
        figures = [found['scores'][key][top] for key in scores for top in ('top1', 'top5')]
        figures.append(found['scores'][report['joint']]['calibration_error'])
        rows.append([subset, f'{found["count"]:,}', *map(_percent, figures)])
    title = f'{printable(model["system"])} ({printable(model["model"])})'
    return f'## {title}\n\n' + _table(header, rows)


def _dropping_table(report: Report) -> str:
    header = ['sensors missing, %', *(f'{100 * point:.0f}' for point in POINTS)]
    rows = [[_counted(report, system), *map(_percent, np.mean(curves, axis=0))]
            for system, curves in _curves(report).items()]
    return (f'## Top-1 {report["joint"]} accuracy when each sensor is missing at random\n\n'
            + _table(header, rows))


def _robustness_table(report: Report) -> str:
    ranks = report['average_rank']
    header = ['', 'average accuracy', 'average relative drop', *(['average rank'] * bool(ranks))]
    rows = []
    for system in _curves(report):
        seeds = [m for m in report['models'] if m['system'] == system]
        figures = [_percent(_mean([m[key] for m in seeds]))
                   for key in ('average_accuracy', 'relative_drop')]
        rows.append([_counted(report, system), *figures,
                     *([f'{ranks[system]:.2f}'] if ranks else [])])
    return f'## Robustness of the {report["joint"]}\n\n' + _table(header, rows)


def _curves(report: Report) -> dict[str, list[list[float]]]:
    """Return system → for each of its models, the curve; a system without one is left out."""
    curves: dict[str, list[list[float]]] = {}
    for model in report['models']:
        curve = (model['dropping'] or {}).get(report['joint'], [None])
        if None not in curve:
            curves.setdefault(model['system'], []).append(curve)
    return curves


def _notes(report: Report) -> str:
    notes = ['All figures in percent.']
    if len(report['heads']) > 1:
        notes.append(
            f'The {report["joint"]} is right when {" and ".join(report["heads"])} are; its five '
            'best are those with the greatest product of probabilities.')
    notes.append(
        f'The calibration error is the expected one over {BINS} bins of equal width: how far '
        'confidence and accuracy are apart on average.')
    if len({found['count'] for m in report['models'] for found in m['subsets'].values()}) > 1:
        notes.append('A subset is scored on the clips that have all its sensors: rows with '
                     'different numbers of clips are about different clips.')
    if any(model['dropping'] for model in report['models']):
        notes.append(
            "Sensors go missing independently; where all would, one of the clip's own stays, "
            'each as likely. The accuracy is the exact expectation. The average is over all '
            'subsets, the relative drop is the mean loss of the others against all sensors.')
        if len({model['full'] for model in report['models']}) > 1:
            notes.append('The systems have different sensors: their averages are over different '
                         'subsets; the rank is over those that all have.')
    else:
        notes.append('Not every subset was scored: there is no curve and no average.')
    return ' '.join(notes)


def _draw(
    folder: Path, report: Report, data: ScoredData, models: Sequence[ScoredModel],
    references: Mapping[str, Sequence[float]], suffix: str,
) -> dict[str, str]:
    """Draw what there is to draw and give file name → what it shows."""
    # Tables need no matplotlib, which takes a second to load.
    from karmma_ros.evaluation.plots import plot_dropout_curve, plot_reliability, plot_subsets

    what, where, drawn = report['joint'], str(data), {}
    drawn[f'subsets.{suffix}'] = 'accuracy by sensors'
    plot_subsets(folder / f'subsets.{suffix}', columns_of(report), what=what, where=where)
    curves = _curves(report)
    if curves:
        drawn[f'dropping.{suffix}'] = 'accuracy when sensors drop out'
        plot_dropout_curve(folder / f'dropping.{suffix}', curves, references=references, what=what,
                      where=where)
    for number, model in enumerate(models, 1):
        name = f'calibration_{number}.{suffix}'
        drawn[name] = f'calibration of {model.system}'
        every = list(model.predictions.subsets())
        shown = [(subset, chosen) for subset, chosen in every
                 if chosen == model.predictions.modalities or len(chosen) == 1] or every[:5]
        panels = {
            subset: calibration(PredictedActions.of_subset(model.predictions, chosen), what)
            for subset, chosen in shown}
        plot_reliability(folder / name, panels, where=where,
                         title=f'How sure {model.system} is of the {what}, and how often right')
    return drawn


def _counted(report: Report, system: str) -> str:
    seeds = sum(model['system'] == system for model in report['models'])
    return f'{system} (mean of {seeds})' if seeds > 1 else system


def _mean(values: Sequence[float | None]) -> float | None:
    told = [x for x in values if x is not None]
    return float(np.mean(told)) if len(told) == len(values) else None


def _percent(share: float | None) -> str:
    return '–' if share is None or math.isnan(share) else f'{100 * share:.1f}'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table([escape_cell(cell) for cell in header],
                          [[escape_cell(cell) for cell in row] for row in rows])


def accuracy_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """
    Return a Markdown table in percent, one row a subset.

    :param scores: subset → head, and the action, → accuracy, 0 to 1.
    """
    columns = list(next(iter(scores.values())))
    return markdown_table(['sensors', *columns], [
        [name, *(f'{100 * row[key]:.1f}' for key in columns)] for name, row in scores.items()])


def model_card(
    *, name: str, dataset: str, parameters: int, vocabulary: Vocabulary,
    scores: Mapping[str, Mapping[str, float]], clips: int, command: str, provenance: str,
) -> str:
    """
    Return the model card of a bundle, in Markdown.

    :param scores: subset → head → top-1 accuracy on the test split, 0 to 1.
    :param clips: number of test clips.
    :param command: the command that trained the model.
    :param provenance: where and when it was trained, in words.
    """
    heads = tuple(vocabulary.heads)
    front = dedent(f"""\
        ---
        license: apache-2.0
        library_name: karmma_ros
        pipeline_tag: video-classification
        ---

        # {name}

        A KARMMA student of {parameters / 1e6:.2f} M parameters, trained on {dataset}.
        It recognises {_with_articles(heads)} from any subset of RGB video (V), optical flow (F),
        audio (A) and detections (D). It knows no other world than that data set.
        """)
    action = [f'An action is right when {" and ".join(f"its {h}" for h in heads)} are.\n']
    classes = '\n'.join(f'- {head} ({len(names)}): {", ".join(names)}'
                        for head, names in vocabulary.heads.items())
    return '\n'.join([
        front, f'## Top-1 accuracy on {clips:,} test clips, %\n', accuracy_table(scores) + '\n',
        *(action if len(heads) > 1 else []), f'## Classes\n\n{classes}\n',
        f'## How it was made\n\n    {command}\n\n{provenance}\n'])


def _with_articles(nouns: Sequence[str]) -> str:
    """Return "a verb, a noun and an action"."""
    words = [('an ' if noun[0] in 'aeiou' else 'a ') + noun for noun in nouns]
    return ' and '.join([', '.join(words[:-1]), words[-1]] if words[1:] else words)
