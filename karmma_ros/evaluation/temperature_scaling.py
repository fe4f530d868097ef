"""
Fit the calibration of a model to its predictions for the validation split.

The temperature of a head and subset is the one with the least negative log-likelihood of the
labels (Guo et al., ICML 2017). A weak prior keeps it near 1 where there are few clips, or all are
right. The scores of actions are fitted by beta calibration (Kull et al., AISTATS 2017) on whether
the best action is right. The threshold of unknown actions is the quantile of the unknown scores
above which the stated fraction of the clips lies: all of them show actions that the model knows.

Shape legend: n clips, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import math

from karmma_ros.calibration import Calibration, SubsetCalibration, unknown_score
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.prediction import action_heads, ActionScale, softmax
import numpy as np
from numpy.typing import NDArray

FALSE_ALARM_RATE = 0.05
"""Fraction of the clips of known actions that the threshold takes for unknown."""
MIN_CLIPS = 50
"""A subset that fewer clips have takes the calibration of a similar one."""
_PRIOR = 0.5
"""Standard deviation of the logarithm of a temperature before any clip is seen."""
_LOWEST, _HIGHEST, _STEPS = 0.05, 20.0, 60
_NEWTON_STEPS, _SMALLEST_STEP = 100, 1e-7


def fit_calibration(
    predictions: DatasetPredictions, fitted_on: str, false_alarm_rate: float = FALSE_ALARM_RATE,
    coverage: float = 0.0,
) -> Calibration:
    """
    Fit temperatures and thresholds for each predicted subset that enough clips have.

    :param predictions: for clips that the network was not trained on, and is not scored on.
    :param fitted_on: these clips in words.
    :param false_alarm_rate: fraction of these clips whose action shall count as unknown.
    :param coverage: fraction of the clips of each class whose prediction set has it; 0 for none.
    :raises InvalidSettingError: for another rate, or when no subset has enough clips.
    """
    if not 0 <= coverage < 1:
        raise InvalidSettingError('coverage', coverage, '0, for no prediction sets, to below 1')
    check_clips(len(predictions), false_alarm_rate)
    fitted = {}
    for name, subset in predictions.subsets():
        has = predictions.has(subset)
        if has.sum() < MIN_CLIPS:
            continue
        logits = {head: x[has] for head, x in predictions.logits[name].items()}
        labels = {head: ids[has] for head, ids in predictions.labels.items()}
        temperatures = {head: fit_temperature(x, labels[head]) for head, x in logits.items()}
        fitted[subset] = SubsetCalibration(
            temperatures,
            float(np.quantile(unknown_score(logits), 1 - false_alarm_rate, method='higher')),
            fit_action_scale(logits, labels, temperatures),
            {head: fit_set_thresholds(softmax(x, temperatures[head]), labels[head], coverage)
             for head, x in logits.items()} if coverage else {})
    check_clips(MIN_CLIPS if fitted else 0, false_alarm_rate)
    return Calibration(fitted, false_alarm_rate, fitted_on, coverage)


def fit_set_thresholds(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], coverage: float,
) -> tuple[float, ...]:
    """
    Return for each class the least probability with which it is in a prediction set.

    Another clip of a class has a lower probability of it than the k-th lowest of n such clips
    with a probability of k / (n + 1). A class with fewer than coverage / (1 - coverage) clips is
    in every set.

    :param probabilities: `[n, c]`.
    :param labels: class ids `[n]`.
    """
    thresholds = []
    for i in range(probabilities.shape[1]):
        true = np.sort(probabilities[labels == i, i])
        k = math.floor((1 - coverage) * (len(true) + 1) + 1e-9)
        thresholds.append(float(true[k - 1]) if k else 0.0)
    return tuple(thresholds)


def check_clips(count: int, false_alarm_rate: float) -> None:
    """
    Check that a calibration can be fitted on so many clips of a subset.

    :raises InvalidSettingError: when there are too few, or for a rate that is none.
    """
    if not 0 < false_alarm_rate < 1:
        raise InvalidSettingError('false alarm rate', false_alarm_rate, 'above 0 and below 1')
    if count < MIN_CLIPS:
        raise InvalidSettingError('validation clips', count, f'at least {MIN_CLIPS}',
                                  'a model without a calibration has temperatures of 1')


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """
    Return the temperature with the least negative log-likelihood of the labels.

    :param logits: `[n, c]`.
    :param labels: class ids `[n]`.
    """
    wide = logits.astype(np.float64)
    wide -= wide.max(1, keepdims=True)
    true = np.take_along_axis(wide, labels[:, None], axis=1)[:, 0]

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        likelihood = scale * true - np.log(np.exp(scale * wide).sum(1))
        return float(-likelihood.sum()) + 0.5 * (log_temperature / _PRIOR) ** 2
    return round(math.exp(_minimum(loss, math.log(_LOWEST), math.log(_HIGHEST))), 4)


def fit_action_scale(
    logits: Mapping[str, NDArray[np.floating]], labels: Mapping[str, NDArray[np.int64]],
    temperatures: Mapping[str, float],
) -> ActionScale:
    """
    Return the scale with the least negative log-likelihood of whether the best action is right.

    :param logits: head → `[n, c]`.
    :param labels: head → class ids `[n]`.
    :returns: that of the product for a model whose actions have one part.
    """
    parts = action_heads(tuple(logits))
    if len(parts) == 1:
        return ActionScale()
    best = {head: logits[head].argmax(1) for head in parts}
    right = np.all([best[head] == labels[head] for head in parts], axis=0)
    product = np.prod([softmax(logits[head], temperatures[head]).max(1) for head in parts], axis=0)
    p = product.clip(1e-9, 1 - 1e-9)
    features = np.stack([np.log(p), -np.log1p(-p), np.ones_like(p)], axis=1)
    weights = np.array(ActionScale().beta)
    free: NDArray[np.bool_] = np.ones(3, np.bool_)
    for _ in range(3):
        _fit_logistic(features, right, weights, free)
        below = free & (weights < (_LOWEST, _LOWEST, -np.inf))
        if not below.any():
            break
        # A negative factor would give a greater product a smaller score (Kull et al., section 3).
        weights[below], free = _LOWEST, free & ~below
    a, b, c = (round(float(x), 4) for x in weights)
    return ActionScale(beta=(a, b, c))


def _fit_logistic(
    features: NDArray[np.float64], right: NDArray[np.bool_], weights: NDArray[np.float64],
    free: NDArray[np.bool_],
) -> None:
    """Fit the free weights of a logistic regression by Newton's method, from those of no scale."""
    own, near = features[:, free], np.array(ActionScale().beta)[free]
    sign = np.where(right, -1.0, 1.0)

    def loss(step: NDArray[np.float64]) -> float:
        moved = weights.copy()
        moved[free] -= step
        return float(np.logaddexp(0, sign * (features @ moved)).sum()
                     + 0.5 * np.square((moved[free] - near) / _PRIOR).sum())
    for _ in range(_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-(features @ weights).clip(-500, 500)))
        slope = own.T @ (p - right) + (weights[free] - near) / _PRIOR ** 2
        curvature = (own * (p * (1 - p))[:, None]).T @ own + np.eye(len(near)) / _PRIOR ** 2
        step, before = np.linalg.solve(curvature, slope), loss(np.zeros_like(near))
        while loss(step) > before and np.abs(step).max() > _SMALLEST_STEP:
            step /= 2
        weights[free] -= step
        if np.abs(step).max() < _SMALLEST_STEP:
            return


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one minimum has it, by golden section search."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_STEPS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2
