"""The fit of temperatures and thresholds, on logits whose calibration is known."""

from karmma_ros.calibration import Calibration, SubsetCalibration
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import score
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.evaluation.temperature_scaling import (
    fit_action_scale,
    fit_calibration,
    fit_set_thresholds,
    fit_temperature,
)
from karmma_ros.modality import main_subsets, Modality, subset_name, subsets
from karmma_ros.prediction import ActionScale, softmax
import numpy as np
import pytest

V, A = Modality.RGB, Modality.AUDIO
TEMPERATURES = {'V+A': 0.6, 'V': 2.5, 'A': 1.0}


def drawn(rng, count, classes, temperature, spread=2.5):
    """Return logits, and labels drawn from their probabilities at a temperature."""
    logits = (rng.standard_normal((count, classes)) * spread).astype(np.float32)
    p = softmax(logits, temperature).cumsum(1)
    return logits, (rng.random((count, 1)) > p).sum(1).clip(max=classes - 1)


def predictions(count, seed=0, present=None):
    """Return predictions from V and A whose labels fit each subset at its temperature."""
    rng = np.random.default_rng(seed)
    logits = {}
    labels = {head: rng.integers(0, 6, count) for head in ('verb', 'noun')}
    for name, temperature in TEMPERATURES.items():
        logits[name] = {}
        for head, ids in labels.items():
            x, drawn_ids = drawn(rng, count, 6, temperature)
            swapped = x.copy()  # rename the classes so that the drawn one is the label
            rows = np.arange(count)
            swapped[rows, ids], swapped[rows, drawn_ids] = x[rows, drawn_ids], x[rows, ids]
            logits[name][head] = swapped
    present = np.ones((count, 2), bool) if present is None else present
    return DatasetPredictions((V, A), logits, present, labels)


@pytest.mark.parametrize(('a', 'b', 'c'), [
    (1.5, 2.0, -0.3), (0.7, 0.8, 0.4), (-0.5, 1.5, 0.0), (1.0, -1.0, 0.0), (6.0, 6.0, -5.0)])
def test_a_known_scale_of_scores_is_recovered(a, b, c):
    rng = np.random.default_rng(5)
    logits = {head: (rng.standard_normal((20_000, 4)) * 2).astype(np.float32)
              for head in ('verb', 'noun')}
    p = np.prod([softmax(x).max(1) for x in logits.values()], axis=0)
    true = 1 / (1 + np.exp(-(a * np.log(p) - b * np.log1p(-p) + c)))
    right = rng.random(len(p)) < true
    best = {head: x.argmax(1) for head, x in logits.items()}
    labels = {'verb': best['verb'], 'noun': np.where(right, best['noun'], (best['noun'] + 1) % 4)}
    scale = fit_action_scale(logits, labels, {'verb': 1.0, 'noun': 1.0})
    assert min(scale.beta[:2]) > 0
    scores = scale(np.sort(p))
    assert (np.diff(scores) >= 0).all(), 'a greater product has a smaller score'
    if min(a, b) > 0:
        assert np.abs(scale(p) - true).mean() < 0.02
    else:
        assert abs(scale(p).mean() - right.mean()) < 0.02


def test_a_scale_is_fitted_to_clips_that_are_all_right_or_all_wrong():
    logits = {head: np.eye(4, dtype=np.float32)[[0, 1, 2, 3] * 20] * 40
              for head in ('verb', 'noun')}
    ones, ids = {'verb': 1.0, 'noun': 1.0}, np.array([0, 1, 2, 3] * 20)
    always = fit_action_scale(logits, {'verb': ids, 'noun': ids}, ones)
    never = fit_action_scale(logits, {'verb': ids, 'noun': (ids + 1) % 4}, ones)
    assert never(0.99) < 0.1 < 0.99 <= always(0.99) <= 1
    for scale in (always, never):
        assert np.isfinite(scale(np.array([0.0, 1e-300, 0.5, 1.0]))).all()


@pytest.mark.parametrize('temperature', [0.3, 1.0, 4.0])
def test_a_known_temperature_is_recovered(temperature):
    logits, labels = drawn(np.random.default_rng(1), 20_000, 10, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_few_clips_and_clips_without_an_error_stay_near_one():
    sure = np.eye(4, dtype=np.float32)[[0, 1, 2, 3] * 20] * 12
    assert 0.5 < fit_temperature(sure, np.array([0, 1, 2, 3] * 20)) <= 1
    wrong = np.array([[30.0, 0.0]], np.float32)
    assert 1 < fit_temperature(wrong, np.array([1])) < 20


def test_the_fit_of_each_subset_makes_confidence_agree_with_accuracy():
    calibration = fit_calibration(predictions(8000), 'clips')
    for name, temperature in TEMPERATURES.items():
        own = calibration.of({'V+A': (V, A), 'V': (V,), 'A': (A,)}[name])
        assert own.temperatures['verb'] == pytest.approx(temperature, rel=0.06)
    scores = score(predictions(8000, seed=1), calibration)
    for name in ('V+A', 'V'):
        for each in scores[name].scores.values():
            assert each.uncalibrated_error > 0.05
            assert each.calibration_error < 0.02
    assert scores['A'].scores['verb'].calibration_error < 0.02


def test_an_action_is_no_surer_than_it_is_right():
    rng = np.random.default_rng(3)
    verb, verbs = drawn(rng, 6000, 6, 1.0)
    noun = verb + rng.normal(0, 0.1, verb.shape).astype(np.float32)
    p = softmax(noun).cumsum(1)
    nouns = (rng.random((6000, 1)) > p).sum(1).clip(max=5)  # right independently of the verb
    logits, labels = {'verb': verb, 'noun': noun}, {'verb': verbs, 'noun': nouns}
    ones = {'verb': 1.0, 'noun': 1.0}
    a, b, c = fit_action_scale(logits, labels, ones).beta
    assert (a, b, c) == pytest.approx((1, 1, 0), abs=0.12)
    rarely = {'verb': verbs, 'noun': np.where(
        rng.random(6000) < 0.3, (noun.argmax(1) + 1) % 6, nouns)}
    scale = fit_action_scale(logits, rarely, ones)
    assert scale(0.9) < 0.8
    assert fit_action_scale({'verb': verb}, {'verb': verbs}, ones) == ActionScale()
    predicted = DatasetPredictions(
        (A,), {'A': logits}, np.ones((6000, 1), bool), rarely)
    calibrated = score(predicted, Calibration({(A,): SubsetCalibration(
        ones, None, scale)}))['A'].scores['action']
    assert calibrated.calibration_error < 0.6 * calibrated.uncalibrated_error


def test_known_actions_are_taken_for_unknown_as_rarely_as_stated():
    rate, fitted_on = 0.05, predictions(2000)
    calibration = fit_calibration(fitted_on, 'clips', rate)
    for each in score(fitted_on, calibration).values():
        assert rate - 0.001 <= each.unknown <= rate
    for each in score(predictions(2000, seed=1), calibration).values():
        assert each.unknown == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize('coverage', [0.8, 0.95])
def test_prediction_sets_of_other_clips_cover_every_class(coverage):
    """Hard classes, whose logits are weak, as often as easy ones, whatever their number."""
    rng = np.random.default_rng(5)
    strength, chance = np.array([3.0, 1.5, 0.5, 2.0]), (0.4, 0.3, 0.1, 0.2)

    def draw(count):
        labels = rng.choice(4, count, p=chance)
        logits = rng.normal(0, 1, (count, 4))
        logits[np.arange(count), labels] += strength[labels]
        return DatasetPredictions(
            (A,), {'A': {'verb': logits.astype(np.float32)}}, np.ones((count, 1), bool),
            {'verb': labels})

    covered = []
    for _ in range(20):
        calibration = fit_calibration(draw(1000), 'clips', coverage=coverage)
        others = draw(4000)
        output = calibration.apply((A,), others.logits['A'])
        labels = others.labels['verb']
        hit = output.sets['verb'][np.arange(len(labels)), labels]
        covered.append([hit[labels == i].mean() for i in range(4)])
    mean = np.mean(covered, axis=0)
    assert calibration.coverage == coverage
    # At least the coverage, and more by at most one part in the clips of a class.
    assert (mean > coverage - 0.01).all() and (mean < coverage + 0.02).all()
    sizes = output.sets['verb'].sum(1)
    assert sizes.mean() < 3


def test_a_class_of_few_clips_is_in_every_set():
    probabilities = np.array([[0.9, 0.1]] * 30 + [[0.3, 0.7]] * 8)
    labels = np.array([0] * 30 + [1] * 8)
    assert fit_set_thresholds(probabilities, labels, 0.9) == (0.9, 0.0)
    by_hand = np.linspace(0.1, 0.9, 9)
    assert fit_set_thresholds(
        np.stack([by_hand, 1 - by_hand], 1), np.zeros(9, int), 0.8) == (pytest.approx(0.2), 0.0)


@pytest.mark.parametrize('coverage', [-0.1, 1.0, float('nan')])
def test_a_coverage_that_is_none_is_refused(coverage):
    with pytest.raises(InvalidSettingError, match='coverage is .*; expected 0, for no predict'):
        fit_calibration(None, 'clips', coverage=coverage)


def test_scores_without_a_calibration_state_none():
    scores = score(predictions(60))
    assert all(each.unknown is None and s.uncalibrated_error is None
               for each in scores.values() for s in each.scores.values())
    assert scores['V'].scores == score(predictions(60), Calibration())['V'].scores


def test_subsets_of_too_few_clips_are_left_out():
    present = np.ones((200, 2), bool)
    present[40:, 1] = False
    calibration = fit_calibration(predictions(200, present=present), 'clips')
    assert set(calibration.subsets) == {(V,)}
    with pytest.raises(InvalidSettingError, match='validation clips is 20; expected at least 50'):
        fit_calibration(predictions(20), 'clips')
    for rate in (0, 1, -0.1, float('nan')):
        with pytest.raises(InvalidSettingError, match='false alarm rate'):
            fit_calibration(predictions(60), 'clips', rate)


def test_of_many_modalities_not_every_subset_is_fitted():
    many = tuple(Modality(f'imu_{name}') for name in 'abcdefgh')
    assert main_subsets(many[:5]) == subsets(many[:5])
    chosen = main_subsets(many)
    assert len(chosen) == len({subset_name(s) for s in chosen}) == 1 + 8 + 8
    assert {len(s) for s in chosen} == {8, 7, 1}
