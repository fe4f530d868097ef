"""Train and choose the heads of a fine-tuning by validation that no test segment takes part in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from karmma_ros.cli.finetune.labelled_bags import LabelledBags
from karmma_ros.cli.progress import Bars
from karmma_ros.data.folds import TRAIN, VALIDATION
from karmma_ros.evaluation.classification import wilson
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.evaluation.temperature_scaling import fit_temperature
from karmma_ros.modality import subset_name
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.class_statistics import ClassStatistics
from karmma_ros.model.fusion import MultiHeadMLP
from karmma_ros.training.added_classes import add_classes, AddedClasses, statistics_of
from karmma_ros.training.fused_features import FusedFeatures
from karmma_ros.training.head_training import (
    class_sums,
    HeadSettings,
    Ids,
    new_heads,
    predict,
    scale_logits,
    set_nearest_class_mean,
    SubsetLogits,
    train_heads,
)
import numpy as np

TRAINED, NEAREST, ADDED = 'trained heads', 'nearest class mean', 'added classes'
_KEEP_FROM = 50
"""Steps from which the heads of an interrupted training are kept."""


@dataclass
class FittedHeads:
    """New heads, and how they did on segments that they were not trained on."""

    heads: MultiHeadMLP
    method: str
    validation: DatasetPredictions | None = None
    """Of the chosen method; None where nothing validates."""
    validated: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    """The segments of `validation`."""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """Method → accuracy of the action on validation."""
    losses: list[tuple[str, int, float]] = field(default_factory=list)
    """Training, step, loss."""
    notes: list[str] = field(default_factory=list)
    statistics: ClassStatistics | None = None
    """Of the classes of the heads."""
    interrupted: bool = False


def fit_heads(
    base: Bundle, features: FusedFeatures, labelled: LabelledBags, settings: HeadSettings,
    bars: Bars,
) -> FittedHeads:
    """
    Train heads and nearest class means, and return what validates better.

    Ctrl-C ends the training, and what there is is returned.
    """
    fit = _Fit(base, features, labelled, settings, bars)
    fitted = FittedHeads(fit.nearest(fit.segments(TRAIN)), NEAREST)
    try:
        _validate(fit, fitted)
        if fitted.method == TRAINED:
            fitted.heads = fit.final(fitted)
        else:
            fitted.heads = fit.nearest(fit.segments(TRAIN))
    except KeyboardInterrupt:
        fitted.interrupted = True
        if fit.kept is not None:
            fitted.heads, fitted.method = fit.kept, TRAINED
        fitted.notes.append(f'stopped: the model has {fitted.method} of what was done')
    if fitted.method == NEAREST and fitted.validation is not None:
        scale_logits(fitted.heads, fit.factors)
    fitted.statistics = statistics_of(
        class_sums(fitted.heads, features, fit.segments(TRAIN), labelled.ids))
    return fitted


def fit_added(
    base: Bundle, features: FusedFeatures, labelled: LabelledBags, settings: HeadSettings,
    bars: Bars, old: ClassStatistics,
) -> FittedHeads:
    """
    Add the new classes to the heads of the base, whose old rows stay.

    :param old: the statistics of the base.
    """
    fit = _Fit(base, features, labelled, settings, bars)
    predicted, segments = [], []
    for name, training, validation in fit.folds():
        heads = fit.added(old, training, name).heads
        predicted.append(predict(heads, features, validation))
        segments.append(validation)
    added = fit.added(old, fit.segments(TRAIN), 'all training segments')
    fitted = FittedHeads(added.heads, ADDED, statistics=added.statistics)
    if segments:
        fitted.validated = np.concatenate(segments)
        fitted.validation = as_predictions(features, labelled, fitted.validated, _joined(
            predicted, len(features.subsets)))
        hits = action_hits(fitted.validation)
        fitted.notes.append(
            f'action accuracy on the labelled segments with the sensors that each has, validated '
            f'{labelled.division.text}: {100 * hits.mean():.1f} %')
    fitted.notes.append(
        f'old classes: of draws from their stored means {100 * added.before:.1f} % were '
        f'recognised, and {100 * added.after:.1f} % are with the new classes')
    return fitted


def _joined(predicted: Sequence[Sequence[SubsetLogits]], subsets: int) -> list[SubsetLogits]:
    """Join the predictions of folds, one after another, for each subset."""
    return [{head: np.concatenate([fold[u][head] for fold in predicted])
             for head in predicted[0][u]} for u in range(subsets)]


@dataclass
class _Fit:
    base: Bundle
    features: FusedFeatures
    labelled: LabelledBags
    settings: HeadSettings
    bars: Bars
    kept: MultiHeadMLP | None = None
    """Heads of a final training that was far enough when it was interrupted."""
    factors: dict[str, float] = field(default_factory=dict)
    """Head → what the logits of the nearest class mean are multiplied by."""

    def segments(self, split: str) -> Ids:
        rows = self.labelled.division.rows(split)
        return rows[[len(self.features.rows_of(n)) > 0 for n in rows]]

    def new(self) -> MultiHeadMLP:
        sizes = self.labelled.vocabulary.sizes
        return new_heads(cast(MultiHeadMLP, self.base.network.heads), sizes, self.settings.seed)

    def nearest(self, segments: Ids) -> MultiHeadMLP:
        heads = self.new()
        set_nearest_class_mean(heads, self.features, segments, self.labelled.ids)
        return heads

    def train(self, heads: MultiHeadMLP, segments: Ids, name: str, fitted: FittedHeads) -> None:
        def report(step: int, loss: float) -> None:
            if step % 10 == 0 or step == 1:
                fitted.losses.append((name, step, loss))
                self.bars(f'training heads, {name}', step, self.settings.steps)
        train_heads(heads, self.features, segments, self.labelled.ids, self.settings, report)
        self.bars(f'training heads, {name}', self.settings.steps, self.settings.steps)

    def final(self, fitted: FittedHeads) -> MultiHeadMLP:
        heads, name = self.new(), 'all training segments'
        try:
            self.train(heads, self.segments(TRAIN), name, fitted)
        except KeyboardInterrupt:
            done = fitted.losses[-1][1] if fitted.losses and fitted.losses[-1][0] == name else 0
            self.kept = heads.eval() if done >= _KEEP_FROM else None
            raise
        return heads

    def added(self, old: ClassStatistics, segments: Ids, name: str) -> AddedClasses:
        """Add the classes of some segments to the heads of the base."""
        heads = cast(MultiHeadMLP, self.base.network.heads)
        return add_classes(
            heads, old, self.labelled.vocabulary.sizes, self.features, segments,
            self.labelled.ids, self.settings,
            lambda step, _: self.bars(f'adding classes, {name}', step, self.settings.steps))

    def folds(self) -> Iterator[tuple[str, Ids, Ids]]:
        """Yield the name, the training and the validation segments of each validation."""
        training, division = self.segments(TRAIN), self.labelled.division
        validation = self.segments(VALIDATION)
        if len(validation):
            yield 'validation', training, validation
            return
        folds = division.folds[training]
        for fold in np.unique(folds):
            rest = training[folds != fold]
            if len(rest):
                yield f'fold {fold + 1}', rest, training[folds == fold]


def _validate(fit: _Fit, fitted: FittedHeads) -> None:
    """Train on each fold's rest, predict it, and choose the better method."""
    predicted: dict[str, list[list[SubsetLogits]]] = {TRAINED: [], NEAREST: []}
    segments: list[Ids] = []
    for name, training, validation in fit.folds():
        heads = fit.new()
        fit.train(heads, training, name, fitted)
        predicted[TRAINED].append(predict(heads, fit.features, validation))
        predicted[NEAREST].append(predict(fit.nearest(training), fit.features, validation))
        segments.append(validation)
    if not segments:
        fitted.notes.append('the training segments with a clip are all in one fold: nothing '
                            'validates')
        return
    fitted.validated = np.concatenate(segments)
    tables = {method: as_predictions(fit.features, fit.labelled, fitted.validated, _joined(
        folds, len(fit.features.subsets))) for method, folds in predicted.items()}
    fit.factors = {head: 1 / fit_temperature(*every_sensor(tables[NEAREST], head))
                   for head in tables[NEAREST].labels}
    fitted.accuracy = {method: float(action_hits(table).mean())
                       for method, table in tables.items()}
    scores = {method: (average_hits(table) + fitted.accuracy[method]) / 2
              for method, table in tables.items()}
    fitted.method = NEAREST if scores[NEAREST] > scores[TRAINED] else TRAINED
    fitted.validation = tables[fitted.method]
    if fitted.method == NEAREST:
        fitted.validation = _scaled(fitted.validation, fit.factors)
    fitted.notes += _findings(fitted, fit.labelled)


def _findings(fitted: FittedHeads, labelled: LabelledBags) -> Iterator[str]:
    chosen = ', '.join(f'{method} {100 * x:.1f} %' for method, x in fitted.accuracy.items())
    yield (f'action accuracy with the sensors that each segment has, validated '
           f'{labelled.division.text}: {chosen}; {fitted.method} it is')
    assert fitted.validation is not None
    hits = action_hits(fitted.validation)
    keys = np.stack([*fitted.validation.labels.values()], axis=1)
    chance = np.unique(keys, axis=0, return_counts=True)[1].max() / len(keys)
    if wilson(int(hits.sum()), len(hits))[0] <= chance:
        yield (f'{100 * hits.mean():.0f} % on validation is near chance ({100 * chance:.0f} %, '
               'the most frequent action): this base does not carry your recordings. Label more '
               'of them, or start from a model of similar sensors and views with --from')


def as_predictions(
    features: FusedFeatures, labelled: LabelledBags, segments: Ids,
    logits: Sequence[SubsetLogits],
) -> DatasetPredictions:
    """Return the table of logits of segments, all of which have a window."""
    rows = np.array([features.middle(n) for n in segments])
    return DatasetPredictions(
        features.modalities, {subset_name(s): x for s, x in zip(features.subsets, logits)},
        features.present[rows], {head: ids[segments] for head, ids in labelled.ids.items()})


def every_sensor(table: DatasetPredictions, head: str) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels of a head from all sensors that each segment has."""
    logits = np.full_like(next(iter(table.logits.values()))[head], np.nan)
    for name in table.logits:  # the largest subset first
        empty = np.isnan(logits[:, 0])
        logits[empty] = table.logits[name][head][empty]
    return logits, table.labels[head]


def action_hits(table: DatasetPredictions) -> np.ndarray:
    """Return whether every head is right with all sensors that each segment has, bool `[n]`."""
    return np.asarray(np.all([
        every_sensor(table, head)[0].argmax(1) == ids for head, ids in table.labels.items()],
        axis=0))


def average_hits(table: DatasetPredictions) -> float:
    """Return the mean accuracy of the action over the subsets of the sensors."""
    means = []
    for name, subset in table.subsets():
        has = table.has(subset)
        means.append(np.mean(np.all([
            table.logits[name][head][has].argmax(1) == ids[has]
            for head, ids in table.labels.items()], axis=0)))
    return float(np.mean(means))


def _scaled(table: DatasetPredictions, factors: Mapping[str, float]) -> DatasetPredictions:
    logits = {name: {head: x * np.float32(factors[head]) for head, x in own.items()}
              for name, own in table.logits.items()}
    return DatasetPredictions(table.modalities, logits, table.present, table.labels)
