"""The expectation under dropping: by hand, against draws, and against the paper."""

from functools import partial

from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import PredictedActions, score
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.evaluation.robustness import (
    curve_of_column,
    dropout_curve,
    POINTS,
    subset_probabilities,
)
from karmma_ros.modality import PAPER_MODALITIES, subset_name, subsets
from karmma_ros.training.modality_dropout import drop_modalities
import numpy as np
import pytest
import torch

V, F, A, D = PAPER_MODALITIES

PAPER_COLUMN = {'V+F+A': 41.49, 'V+F': 39.69, 'V+A': 39.36, 'F+A': 27.09, 'V': 37.84,
                'F': 25.64, 'A': 8.17 - 1.94}
"""Table I, Epic-Kitchens, the Baseline w/ modality dropout; A from the gain stated in the text."""
PAPER_CURVE = [41.49, 39.45, 37.25, 34.77, 32.26, 29.85, 27.70, 25.93, 24.56, 23.43]
"""The same network's curve in Fig. 4."""


def right_where(column, present):
    """Return predictions of two verbs; the true one is best exactly where `column` is true."""
    present = np.array(present)
    modalities = (V, F, A)[:present.shape[1]]
    logits = {}
    for subset in subsets(modalities):
        right = np.array(column[subset_name(subset)])
        has = present[:, [modalities.index(m) for m in subset]].all(1)
        scores = np.stack([right, ~right.astype(bool)], 1).astype(np.float32)
        logits[subset_name(subset)] = {'verb': np.where(has[:, None], scores, np.nan)}
    return DatasetPredictions(
        modalities, logits, present, {'verb': np.zeros(len(present), np.int64)}
    )


def random_right(samples=60, seed=0):
    rng = np.random.default_rng(seed)
    present = rng.random((samples, 3)) < 0.7
    present[~present.any(1), 0] = True
    return right_where({subset_name(s): rng.random(samples) < 0.2 + 0.2 * len(s)
                        for s in subsets((V, F, A))}, present)


def test_two_modalities_by_hand():
    p = 0.3
    predictions = right_where({'V+F': [True], 'V': [True], 'F': [False]}, [[True, True]])
    # Both stay, only V stays, or both would go and V wins the draw.
    wanted = 0.7 * 0.7 + 0.7 * 0.3 + 0.3 * 0.3 / 2
    assert dropout_curve(predictions, [p])['verb'] == pytest.approx([wanted])
    assert subset_probabilities((V, F), p) == pytest.approx(
        {'V+F': 0.49, 'V': 0.21 + 0.045, 'F': 0.21 + 0.045})


@pytest.mark.parametrize('own', subsets(PAPER_MODALITIES), ids=subset_name)
@pytest.mark.parametrize('p', [0.0, 0.35, 1.0])
def test_something_is_always_left(own, p):
    probabilities = subset_probabilities(own, p)
    assert set(probabilities) == {subset_name(s) for s in subsets(own)}
    assert sum(probabilities.values()) == pytest.approx(1)
    assert min(probabilities.values()) >= 0


def test_a_sample_is_never_given_what_it_lacks():
    predictions = right_where({'V+F': [True, False], 'V': [True, False], 'F': [True, True]},
                           [[True, True], [False, True]])
    assert dropout_curve(predictions)['verb'] == pytest.approx([1.0] * len(POINTS))


def test_it_is_what_many_draws_give():
    predictions = random_right()
    right = {name: np.zeros(len(predictions), bool) for name in predictions.logits}
    for subset in subsets(predictions.modalities):
        has = predictions.has(subset)
        right[subset_name(subset)][has] = PredictedActions.of_subset(predictions, subset).hits()[
            'verb'
        ]
    expected = dropout_curve(predictions, [0.2, 0.5, 0.9])['verb']
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(3))
    for p, wanted in zip((0.2, 0.5, 0.9), expected):
        drawn = []
        for _ in range(2000):
            left = drop_modalities(torch.from_numpy(predictions.present), p, draw).numpy()
            names = [subset_name(m for m, k in zip((V, F, A), row) if k) for row in left]
            drawn.append(np.mean([right[name][i] for i, name in enumerate(names)]))
        error = np.std(drawn) / np.sqrt(len(drawn))
        assert abs(np.mean(drawn) - wanted) < 4 * error
        assert error < 0.002  # the draws tell something


def test_nothing_dropped_is_the_score_with_what_each_sample_has():
    predictions = random_right()
    own = []
    for i, row in enumerate(predictions.present):
        subset = tuple(m for m, k in zip((V, F, A), row) if k)
        hits = PredictedActions.of_subset(predictions, subset).hits()['verb']
        own.append(hits[predictions.has(subset)[:i].sum()])
    assert dropout_curve(predictions, [0.0])['verb'] == pytest.approx([np.mean(own)])
    complete = right_where({name: [True, False] for name in ('V+F', 'V', 'F')}, [[True, True]] * 2)
    assert dropout_curve(complete, [0.0])['verb'][0] == score(complete)['V+F'].scores['verb'].top1


def test_with_all_sensors_the_curve_follows_from_the_table():
    rng = np.random.default_rng(1)
    predictions = right_where({subset_name(s): rng.random(40) < 0.5 for s in subsets((V, F, A))},
                           np.ones((40, 3), bool))
    column = {name: each.scores['verb'].top1 for name, each in score(predictions).items()}
    assert dropout_curve(predictions)['verb'] == pytest.approx(curve_of_column(column))


def test_the_paper_s_curve_follows_from_its_table():
    ours = curve_of_column(PAPER_COLUMN)
    assert ours[0] == PAPER_COLUMN['V+F+A']
    assert np.abs(np.subtract(ours, PAPER_CURVE)).max() < 0.23


def test_the_curve_is_a_polynomial_in_the_probability():
    points = np.linspace(0, 1, 9)
    curve = curve_of_column(PAPER_COLUMN, points)
    fit = np.polynomial.Polynomial.fit(points, curve, 3)
    assert np.abs(fit(points) - curve).max() < 1e-9
    lower = np.polynomial.Polynomial.fit(points, curve, 1)
    assert np.abs(lower(points) - curve).max() > 0.1
    assert curve[-1] == pytest.approx((37.84 + 25.64 + 6.23) / 3)


def test_samples_with_no_sensor_do_not_count():
    column = {'V+F': [True, True], 'V': [True, True], 'F': [True, True]}
    predictions = right_where(column, [[True, True], [False, False]])
    assert dropout_curve(predictions, [0.5])['verb'] == pytest.approx([1.0])
    assert np.isnan(dropout_curve(right_where(column, [[False, False]] * 2), [0.5])['verb'][0])


def test_what_is_missing_is_named():
    with pytest.raises(InvalidSettingError, match='dropout is 1.5'):
        subset_probabilities((V,), 1.5)
    with pytest.raises(InvalidSettingError, match='add V'):
        curve_of_column({'V+F': 1.0, 'F': 1.0})
    predictions = right_where({'V+F': [True], 'V': [True], 'F': [False]}, [[True, True]])
    partial = DatasetPredictions(
        predictions.modalities,
        {'V': predictions.logits['V']},
        predictions.present,
        predictions.labels,
    )
    with pytest.raises(InvalidSettingError, match='score V.F, F too'):
        dropout_curve(partial)
