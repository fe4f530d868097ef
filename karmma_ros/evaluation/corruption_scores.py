"""
How much accuracy a model keeps while a sensor is corrupted, late or silent.

As for images (Hendrycks and Dietterich, ICLR 2019), each corruption has five severities, and the
accuracy is given relative to that on the clips as recorded. It is also given relative to that
without the sensor: below 1, a sensor that lies costs more than one that is missing.

Shape legend: n clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from karmma_ros.calibration import Calibration
from karmma_ros.data.corrupted import (
    sensor_corruptions,
    SensorCondition,
    SensorCorruption,
    Sensors,
)
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import binned, joint_key, PredictedActions
from karmma_ros.evaluation.corruptions import ConditionPredictions, patterns
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.modality import in_order, Modality, subset_name
import numpy as np
from numpy.typing import NDArray

DELAYS_S = (0.1, 0.25, 0.5, 1.0)
OBSERVED = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class CorruptionChoice:
    """Which corruptions are evaluated."""

    names: tuple[str, ...] = ()
    """Empty: all."""
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    seed: int = 0
    """Of the noise, and of what is drawn for each clip."""


@dataclass(frozen=True)
class ConditionScore:
    """The scores under one condition, of the joint head."""

    accuracy: float
    """Top-1; a clip that nothing is left of is wrong."""
    calibration_error: float
    relative_to_recorded: float
    """Fraction of the accuracy as recorded."""
    relative_to_absent: float
    """The accuracy divided by that without the sensor."""
    checked_accuracy: float
    """Without the sensors whose content checks find that they show nothing, as the node does."""
    checked_calibration_error: float
    masked: float
    """Fraction of the clips in which a content check leaves a sensor out."""


@dataclass(frozen=True)
class SensorScores:
    """The scores while one sensor is corrupted, of the clips that have it."""

    affects: Sequence[str]
    """Modalities that its samples become."""
    count: int
    recorded: float
    """Accuracy as recorded."""
    absent: float
    """Accuracy without the sensor; null where nothing else is left."""
    false_alarms: float
    """Fraction of the clips as recorded in which a content check leaves it out."""
    corruptions: Mapping[str, Mapping[str, ConditionScore]]
    """Corruption → severity → scores."""
    delayed: Mapping[str, ConditionScore]
    """Seconds by which its samples are late → scores."""
    mean_relative: float
    """Mean of `relative_to_recorded` over corruptions and severities."""
    checked_mean_relative: float
    """The same with content checks."""


@dataclass(frozen=True)
class CorruptionScores:
    """The scores of one model while its sensors are corrupted, late or silent."""

    severities: Sequence[int]
    sensors: Mapping[str, SensorScores]
    observed: Mapping[str, ConditionScore]
    """Fraction of the clip after which nothing is received any more → scores."""
    pairs: Mapping[str, Mapping[str, ConditionScore]]
    """Two sensors, each with a corruption that is drawn for each clip → severity → scores."""
    mean_relative: float
    """Mean over the sensors."""
    checked_mean_relative: float


def corruptions_of(sensor: Modality, choice: CorruptionChoice) -> tuple[str, ...]:
    """Return the names of the chosen corruptions that a modality has."""
    return tuple(name for name in sensor_corruptions(sensor)
                 if not choice.names or name in choice.names)


def check_choice(choice: CorruptionChoice, modalities: Sequence[Modality]) -> None:
    """
    Check that the corruptions exist.

    :raises InvalidSettingError: listing those that do.
    """
    known = {m: sensor_corruptions(m) for m in modalities}
    for name in choice.names:
        if not any(name in names for names in known.values()):
            raise InvalidSettingError('--corruptions', name, 'all, or ' + '; '.join(
                f'of {m}: {", ".join(names)}' for m, names in known.items() if names))
    for severity in choice.severities:
        if not 1 <= severity <= 5:
            raise InvalidSettingError('--severities', severity, 'integers from 1 to 5, as 1,3,5')


def plan(sensors: Sensors, choice: CorruptionChoice) -> dict[str, SensorCondition]:
    """Return all conditions by name."""
    conditions, seed = {'recorded': SensorCondition()}, choice.seed
    names = {sensor: corruptions_of(sensor, choice) for sensor in sensors}
    for sensor, affected in sensors.items():
        conditions[f'{sensor} absent'] = SensorCondition(removed=affected)
        for name in names[sensor]:
            for severity in choice.severities:
                conditions[f'{sensor} {name} {severity}'] = SensorCondition(
                    (SensorCorruption(sensor, (name,), severity),), seed=seed)
        for delay_s in DELAYS_S:
            late = in_order((sensor, *affected))
            conditions[f'{sensor} delayed {delay_s}'] = SensorCondition(
                delayed=late, delay_s=delay_s)
    for fraction in OBSERVED:
        conditions[f'observed {fraction}'] = SensorCondition(observed=fraction)
    for pair in combinations([sensor for sensor in sensors if names[sensor]], 2):
        for severity in choice.severities:
            conditions[f'{subset_name(pair)} {severity}'] = SensorCondition(
                tuple(SensorCorruption(m, names[m], severity) for m in pair), seed=seed)
    return conditions


@dataclass(frozen=True, eq=False)
class _Outcome:
    """The joint score of each clip."""

    correct: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    """NaN without a prediction."""

    def accuracy(self, rows: NDArray[np.bool_]) -> float:
        return float(self.correct[rows].mean()) if rows.any() else float('nan')

    def calibration_error(self, rows: NDArray[np.bool_]) -> float:
        known = rows & np.isfinite(self.confidence)
        return binned(self.confidence[known], self.correct[known]).error


def _outcome(table: DatasetPredictions, calibration: Calibration) -> _Outcome:
    key = joint_key(table.heads)
    correct, confidence = np.zeros(len(table), np.bool_), np.full(len(table), np.nan)
    for row, positions in patterns(table.present):
        subset = tuple(m for m, has in zip(table.modalities, row) if has)
        if not subset:
            continue
        logits = table.logits[subset_name(subset)]
        output = calibration.apply(
            subset, {head: logits[head][positions] for head in table.heads})
        actions = PredictedActions(
            output.probabilities, {head: ids[positions] for head, ids in table.labels.items()},
            np.ones(len(positions), np.int64), action_scale=output.action_scale)
        correct[positions] = actions.hits()[key]
        confidence[positions] = actions.confidence[key]
    return _Outcome(correct, confidence)


class _Scorer:
    """Scores conditions of one model against the clips as recorded."""

    def __init__(
        self, predictions: Mapping[str, ConditionPredictions], calibration: Calibration,
    ) -> None:
        self._predictions, self._calibration = predictions, calibration
        self.recorded = _outcome(predictions['recorded'].plain, calibration)
        self.present = predictions['recorded'].plain.present
        self._modalities = predictions['recorded'].plain.modalities

    def rows(self, modalities: Sequence[Modality]) -> NDArray[np.bool_]:
        """Return which clips have any of the modalities."""
        columns = [self._modalities.index(m) for m in modalities]
        return np.asarray(self.present[:, columns].any(1))

    def accuracy(self, name: str, rows: NDArray[np.bool_]) -> float:
        """Return the accuracy under a condition; NaN where nothing is left of any clip."""
        table = self._predictions[name].plain
        if not table.present[rows].any():
            return float('nan')
        return _outcome(table, self._calibration).accuracy(rows)

    def masked(self, name: str, rows: NDArray[np.bool_], columns: Sequence[Modality]) -> float:
        """Return the fraction of the clips in which a check leaves out one of the modalities."""
        each = self._predictions[name]
        chosen = [self._modalities.index(m) for m in columns]
        differs: NDArray[np.bool_] = each.plain.present & ~each.checked.present
        masked = np.take(differs, chosen, axis=1)[rows]
        return float(np.mean(masked.any(axis=1))) if len(masked) else float('nan')

    def score(
        self, name: str, rows: NDArray[np.bool_], absent: float = float('nan'),
    ) -> ConditionScore:
        """Return the scores of some clips under a condition."""
        each = self._predictions[name]
        plain = _outcome(each.plain, self._calibration)
        checked = plain if each.checked is each.plain else _outcome(
            each.checked, self._calibration)
        accuracy, recorded = plain.accuracy(rows), self.recorded.accuracy(rows)
        return ConditionScore(
            accuracy, plain.calibration_error(rows), _ratio(accuracy, recorded),
            _ratio(accuracy, absent), checked.accuracy(rows), checked.calibration_error(rows),
            self.masked(name, rows, self._modalities))


def score_corruptions(
    predictions: Mapping[str, ConditionPredictions], sensors: Sensors, choice: CorruptionChoice,
    calibration: Calibration = Calibration(),
) -> CorruptionScores:
    """Score the conditions of `plan`."""
    scorer = _Scorer(predictions, calibration)
    by_sensor = {sensor.value: _sensor(scorer, sensor, affected, choice)
                 for sensor, affected in sensors.items()}
    every = np.ones(len(scorer.present), np.bool_)
    names = [sensor for sensor in sensors if corruptions_of(sensor, choice)]
    pairs = {subset_name(pair): {
        str(severity): scorer.score(
            f'{subset_name(pair)} {severity}',
            scorer.rows(sensors[pair[0]]) & scorer.rows(sensors[pair[1]]))
        for severity in choice.severities} for pair in combinations(names, 2)}
    return CorruptionScores(
        choice.severities, by_sensor,
        {f'{fraction:g}': scorer.score(f'observed {fraction}', every) for fraction in OBSERVED},
        pairs, _mean([each.mean_relative for each in by_sensor.values()]),
        _mean([each.checked_mean_relative for each in by_sensor.values()]))


def _sensor(
    scorer: _Scorer, sensor: Modality, affected: tuple[Modality, ...], choice: CorruptionChoice,
) -> SensorScores:
    rows = scorer.rows(affected)
    recorded, absent = scorer.recorded.accuracy(rows), scorer.accuracy(f'{sensor} absent', rows)
    corruptions = {
        name: {str(severity): scorer.score(f'{sensor} {name} {severity}', rows, absent)
               for severity in choice.severities} for name in corruptions_of(sensor, choice)}
    scores = [each for by_severity in corruptions.values() for each in by_severity.values()]
    return SensorScores(
        [m.value for m in affected], int(rows.sum()), recorded, absent,
        scorer.masked('recorded', rows, affected), corruptions,
        {f'{delay_s:g}': scorer.score(f'{sensor} delayed {delay_s}', rows, absent)
         for delay_s in DELAYS_S},
        _mean([each.relative_to_recorded for each in scores]),
        _mean([_ratio(each.checked_accuracy, recorded) for each in scores]))


def _ratio(value: float, other: float) -> float:
    return value / other if other else float('nan')


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float('nan')
