"""
The scores of an evaluation, as a JSON file, Markdown tables and figures in one folder.

Models of one system are its seeds: tables of systems show their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
import json
import math
from pathlib import Path
from typing import Any

from karmma_ros.calibration import Calibration
from karmma_ros.errors import InvalidSettingError, printable
from karmma_ros.evaluation.classification import (
    BINS,
    calibration,
    joint_key,
    keys,
    PredictedActions,
    score,
    SubsetScore,
)
from karmma_ros.evaluation.corruption_report import corruption_section, relative_accuracies
from karmma_ros.evaluation.corruption_scores import CorruptionScores
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.evaluation.robustness import (
    average_accuracy,
    average_ranks,
    common_subsets,
    dropout_curve,
    POINTS,
    relative_drop,
)
from karmma_ros.evaluation.schema import to_json
from karmma_ros.evaluation.tables import escape_cell, markdown_table, percent
from karmma_ros.modality import subset_name, subsets
from karmma_ros.storage import write_atomically
import numpy as np

FORMAT = 'karmma_ros.scores/2'
SCHEMA_ID = 'karmma_ros.scores.2.schema.json'
JSON, MARKDOWN = 'scores.json', 'README.md'


@dataclass(frozen=True)
class ScoredModel:
    """The predictions of one model; models of the same system are its seeds."""

    system: str
    model: str
    """Its id: name and digest."""
    predictions: DatasetPredictions
    calibration: Calibration = Calibration()
    corruptions: CorruptionScores | None = None


@dataclass(frozen=True)
class ScoredData:
    """The data set that the models are scored on."""

    name: str
    """The data set in words."""
    split: str
    clips: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON-ready."""

    def __str__(self) -> str:
        return f'{self.name}, {self.split} split, {self.clips:,} clips'


@dataclass(frozen=True)
class ModelScores:
    """The scores of one model on every subset of its modalities."""

    system: str
    model: str
    """Its id: name and digest."""
    all_modalities: str
    """Name of the subset of all its modalities."""
    subsets: Mapping[str, SubsetScore]
    dropout_curve: Mapping[str, Sequence[float]] | None
    """`probability`, and head or joint head → top-1 accuracy; None unless all subsets count."""
    average_accuracy: float
    """Of the joint head over all subsets."""
    relative_drop: float
    """Of the joint head against all modalities."""
    calibrated_on: str | None = None
    """The clips that its calibration was fitted on; absent without a calibration."""
    false_alarm_rate: float | None = None
    """Fraction of those clips whose action counts as unknown."""
    corruptions: CorruptionScores | None = None
    """With corrupted sensors; absent where that was not evaluated."""


@dataclass(frozen=True)
class ScoresReport:
    """The content of `scores.json`: figures from 0 to 1, null where they are undefined."""

    format: str
    data: ScoredData
    heads: Sequence[str]
    joint_head: str
    """The score that needs every head correct."""
    models: Sequence[ModelScores]
    average_rank: Mapping[str, float] | None
    """System → mean rank, 1 is the best, over the subsets that all systems have."""


def describe(data: ScoredData, models: Sequence[ScoredModel]) -> ScoresReport:
    """
    Score the models.

    :raises InvalidSettingError: when there is no model, or they have different heads.
    """
    heads = models[0].predictions.heads if models else ()
    if not models or any(set(m.predictions.heads) != set(heads) for m in models):
        raise InvalidSettingError(
            'models', [m.model for m in models], 'at least one, all with the same heads')
    report = ScoresReport(FORMAT, data, heads, joint_key(heads), [_model(m) for m in models], None)
    columns = {system: _mean_column(seeds) for system, seeds in columns_of(report).items()}
    if len(columns) > 1 and common_subsets(columns):
        report = replace(report, average_rank=average_ranks(columns))
    return report


def write_report(
    folder: Path, data: ScoredData, models: Sequence[ScoredModel], *,
    references: Mapping[str, Sequence[float]] | None = None, figure_format: str = 'png',
) -> ScoresReport:
    """
    Write `scores.json`, `README.md` and the figures, and return what the JSON holds.

    :param references: published curves to draw beside ours, at each of `robustness.POINTS`.
    :param figure_format: png, svg or pdf.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = describe(data, models)
    text = json.dumps(to_json(report, digits=None), indent=1) + '\n'
    write_atomically(folder / JSON, text)
    figures = _plot(folder, report, models, references or {}, figure_format)
    shown = [f'![{what}]({name})' for name, what in figures.items()]
    text = '\n\n'.join([markdown(report), *shown]) + '\n'
    write_atomically(folder / MARKDOWN, text)
    return report


def markdown(report: ScoresReport) -> str:
    """Return a report as Markdown tables, in percent; undefined figures are a dash."""
    parts = [f'# Scores on {report.data}']
    parts += [_subset_table(report, model) for model in report.models]
    if any(model.dropout_curve for model in report.models):
        parts += [_dropout_table(report), _robustness_table(report)]
    parts += [corruption_section(_title(model), model.corruptions)
              for model in report.models if model.corruptions is not None]
    return '\n\n'.join([*parts, _notes(report)])


def columns_of(report: ScoresReport) -> dict[str, list[dict[str, float]]]:
    """Return system → for each of its models, subset → top-1 accuracy of the joint head."""
    columns: dict[str, list[dict[str, float]]] = {}
    for model in report.models:
        columns.setdefault(model.system, []).append({
            subset: each.scores[report.joint_head].top1 for subset, each in model.subsets.items()})
    return columns


def _model(model: ScoredModel) -> ModelScores:
    predictions = model.predictions
    scores = score(predictions, model.calibration)
    # With some of the subsets only, a mean over "all" would be of fewer.
    complete = all(subset_name(s) in scores for s in subsets(predictions.modalities)
                   if predictions.has(s).any())
    joint = joint_key(predictions.heads)
    column = {name: each.scores[joint].top1 for name, each in scores.items() if complete}
    full = subset_name(predictions.modalities)
    curve = {'probability': list(POINTS), **dropout_curve(predictions)} if complete else None
    fitted = model.calibration or None
    return ModelScores(
        model.system, model.model, full, scores, curve, average_accuracy(column),
        relative_drop(column, full), fitted and fitted.fitted_on,
        fitted and fitted.false_alarm_rate, model.corruptions)


def _mean_column(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    common = [s for s in seeds[0] if all(s in column for column in seeds)]
    return {s: float(np.mean([column[s] for column in seeds])) for s in common}


def _subset_table(report: ScoresReport, model: ModelScores) -> str:
    score_keys = keys(report.heads)
    header = ['sensors', 'clips', *(f'{key} top-{k}' for key in score_keys for k in (1, 5)),
              f'{report.joint_head} calibration error']
    header += ['uncalibrated', 'unknown'] if model.calibrated_on else []
    rows = []
    for subset, each in model.subsets.items():
        joint = each.scores[report.joint_head]
        figures = [x for key in score_keys for x in (each.scores[key].top1, each.scores[key].top5)]
        figures += [x for x in (joint.calibration_error, joint.uncalibrated_error, each.unknown)
                    if x is not None]
        rows.append([subset, f'{each.count:,}', *map(percent, figures)])
    return f'## {_title(model)}\n\n' + _table(header, rows)


def _title(model: ModelScores) -> str:
    return f'{printable(model.system)} ({printable(model.model)})'


def _dropout_table(report: ScoresReport) -> str:
    header = ['sensors missing, %', *(f'{100 * point:.0f}' for point in POINTS)]
    rows = [[_seeded(report, system), *map(percent, np.mean(curves, axis=0))]
            for system, curves in _curves(report).items()]
    return (f'## Top-1 {report.joint_head} accuracy when each sensor is missing at random\n\n'
            + _table(header, rows))


def _robustness_table(report: ScoresReport) -> str:
    ranks = report.average_rank or {}
    header = ['', 'average accuracy', 'average relative drop', *(['average rank'] * bool(ranks))]
    rows = []
    for system in _curves(report):
        seeds = [m for m in report.models if m.system == system]
        figures = [float(np.mean([m.average_accuracy for m in seeds])),
                   float(np.mean([m.relative_drop for m in seeds]))]
        rows.append([_seeded(report, system), *map(percent, figures),
                     *([f'{ranks[system]:.2f}'] if ranks else [])])
    return f'## Robustness of the {report.joint_head}\n\n' + _table(header, rows)


def _curves(report: ScoresReport) -> dict[str, list[Sequence[float]]]:
    """Return system → for each of its models, the curve; a system without one is left out."""
    curves: dict[str, list[Sequence[float]]] = {}
    for model in report.models:
        curve = (model.dropout_curve or {}).get(report.joint_head, [math.nan])
        if all(map(math.isfinite, curve)):
            curves.setdefault(model.system, []).append(curve)
    return curves


def _notes(report: ScoresReport) -> str:
    notes = ['All figures in percent.']
    if len(report.heads) > 1:
        notes.append(
            f'The {report.joint_head} is right when {" and ".join(report.heads)} are; its five '
            'best are those with the greatest product of probabilities.')
    notes.append(
        f'The calibration error is the expected one over {BINS} bins of equal width: how far '
        'confidence and accuracy are apart on average.')
    notes += [
        f'{printable(model.system)} was calibrated on {printable(model.calibrated_on)}: '
        '"uncalibrated" is its error without; "unknown" are the clips whose action counts as '
        f'unknown, {percent(model.false_alarm_rate or 0.0)} where it was calibrated.'
        for model in report.models if model.calibrated_on]
    if len({each.count for m in report.models for each in m.subsets.values()}) > 1:
        notes.append('A subset is scored on the clips that have all its sensors: rows with '
                     'different numbers of clips are about different clips.')
    if any(model.dropout_curve for model in report.models):
        notes.append(
            "Sensors go missing independently; where all would, one of the clip's own stays, "
            'each as likely. The accuracy is the exact expectation. The average is over all '
            'subsets, the relative drop is the mean loss of the others against all sensors.')
        if len({model.all_modalities for model in report.models}) > 1:
            notes.append('The systems have different sensors: their averages are over different '
                         'subsets; the rank is over those that all have.')
    else:
        notes.append('Not every subset was scored: there is no curve and no average.')
    return ' '.join(notes)


def _plot(
    folder: Path, report: ScoresReport, models: Sequence[ScoredModel],
    references: Mapping[str, Sequence[float]], suffix: str,
) -> dict[str, str]:
    """Plot what can be plotted and return file name → what it shows."""
    # Tables need no matplotlib, which takes a second to load.
    from karmma_ros.evaluation import plots

    what, where = report.joint_head, str(report.data)
    name = f'subsets.{suffix}'
    figures = {name: 'accuracy by sensors'}
    plots.plot_subsets(folder / name, columns_of(report), what=what, where=where)
    curves = _curves(report)
    if curves:
        name = f'dropout_curve.{suffix}'
        figures[name] = 'accuracy when sensors drop out'
        plots.plot_dropout_curve(
            folder / name, curves, references=references, what=what, where=where)
    corrupted = {f'{model.system} ({model.model})' if len(models) > 1 else model.system:
                 relative_accuracies(model.corruptions) for model in models if model.corruptions}
    if corrupted:
        figures[name := f'corruptions.{suffix}'] = 'accuracy with corrupted sensors'
        plots.plot_corruptions(folder / name, corrupted, what=what, where=where)
    for number, model in enumerate(models, 1):
        name = f'calibration_{number}.{suffix}'
        figures[name] = f'calibration of {model.system}'
        every = list(model.predictions.subsets())
        shown = [(subset, chosen) for subset, chosen in every
                 if chosen == model.predictions.modalities or len(chosen) == 1] or every[:5]
        panels = {
            subset: calibration(PredictedActions.of_subset(
                model.predictions, chosen, model.calibration), what)
            for subset, chosen in shown}
        title = f'How sure {model.system} is of the {what}, and how often right'
        plots.plot_reliability(folder / name, panels, where=where, title=title)
    return figures


def _seeded(report: ScoresReport, system: str) -> str:
    seeds = sum(model.system == system for model in report.models)
    return f'{system} (mean of {seeds})' if seeds > 1 else system


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table([escape_cell(cell) for cell in header],
                          [[escape_cell(cell) for cell in row] for row in rows])
