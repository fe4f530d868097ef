"""Metrics by hand, against the predictions a robot shows, and against torchmetrics."""

from functools import reduce
import tracemalloc

from karmma_ros.evaluation import classification
from karmma_ros.evaluation.classification import PredictedActions
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.modality import Modality
from karmma_ros.model.encoders.video import prepare_torchvision
from karmma_ros.prediction import Prediction, softmax, Vocabulary
import numpy as np
import pytest
import torch

V, A = Modality.RGB, Modality.AUDIO


def predictions(logits, labels, present=None, modalities=(V,), name='V'):
    """Return predictions of one subset from lists."""
    logits = {head: np.array(x, np.float32) for head, x in logits.items()}
    labels = {head: np.array(ids, np.int64) for head, ids in labels.items()}
    count = len(next(iter(labels.values())))
    present = np.ones((count, len(modalities)), bool) if present is None else np.array(present)
    return DatasetPredictions(modalities, {name: logits}, present, labels)


def random_predictions(samples=200, verbs=7, nouns=12, seed=0):
    rng = np.random.default_rng(seed)
    logits = {'verb': rng.normal(size=(samples, verbs)) * 2,
              'noun': rng.normal(size=(samples, nouns)) * 2}
    labels = {h: rng.integers(0, x.shape[1], samples) for h, x in logits.items()}
    for head, x in logits.items():  # better than chance
        x[np.arange(samples), labels[head]] += 1.5
    return predictions(logits, labels)


def log(*rows):
    """Return logits whose softmax are these probabilities."""
    return np.log(np.array(rows, np.float64) + 1e-12)


def test_an_action_needs_every_head():
    given = predictions({'verb': [[1, 0], [1, 0]], 'noun': [[1, 0], [0, 1]]},
                     {'verb': [0, 0], 'noun': [0, 0]})
    result = PredictedActions.of_subset(given, (V,)).hits()
    assert {key: hit.tolist() for key, hit in result.items()} == {
        'verb': [True, True], 'noun': [True, False], 'action': [True, False]}


def test_top_k_of_an_action_is_by_product():
    # Products: (0,0) .30, (0,1) .18, (1,0) .15, (0,2) .12, (1,1) .09, (1,2) .06, (2,·) less.
    given = predictions(
        {'verb': log(*[[.6, .3, .1]] * 4), 'noun': log(*[[.5, .3, .2]] * 4)},
        {'verb': [0, 1, 0, 2], 'noun': [0, 0, 2, 0]})
    wanted = {1: [1, 0, 0, 0], 2: [1, 0, 0, 0], 3: [1, 1, 0, 0], 4: [1, 1, 1, 0],
              5: [1, 1, 1, 0], 7: [1, 1, 1, 1]}
    for k, right in wanted.items():
        result = PredictedActions.of_subset(given, (V,)).hits(k)['action']
        assert result.tolist() == list(map(bool, right)), k


@pytest.mark.parametrize('k', [1, 2, 5, 9])
def test_actions_are_those_that_a_prediction_lists(k):
    given = random_predictions()
    vocabulary = Vocabulary({'verb': tuple('abcdefg'), 'noun': tuple('abcdefghijkl')})
    result = PredictedActions.of_subset(given, (V,)).hits(k)['action']
    assert 0 < result.sum() < len(result)
    probabilities = {h: softmax(given.logits['V'][h]) for h in given.heads}
    for i, hit in enumerate(result):
        best = Prediction({h: p[i] for h, p in probabilities.items()}, vocabulary).top_actions(k)
        truth = given.labels['verb'][i], given.labels['noun'][i]
        assert hit == (truth in [(a.verb.class_id, a.noun.class_id) for a in best])


@pytest.mark.parametrize('k', [1, 3, 5])
def test_top_k_equals_the_full_product_and_torchmetrics(k):
    prepare_torchvision()
    from torchmetrics.functional.classification import multiclass_accuracy

    given = random_predictions()
    result = PredictedActions.of_subset(given, (V,)).hits(k)
    probabilities = {h: softmax(given.logits['V'][h]) for h in given.heads}
    nouns = probabilities['noun'].shape[1]
    products = probabilities['verb'][:, :, None] * probabilities['noun'][:, None]
    probabilities['action'] = products.reshape(200, -1)
    labels = {**given.labels, 'action': given.labels['verb'] * nouns + given.labels['noun']}
    for key, p in probabilities.items():
        theirs = multiclass_accuracy(torch.tensor(p), torch.tensor(labels[key]), p.shape[1],
                                     average='micro', top_k=k)
        assert result[key].mean() == pytest.approx(float(theirs), abs=1e-6), key


@pytest.mark.parametrize('key', ['verb', 'noun'])
def test_calibration_error_equals_torchmetrics(key):
    prepare_torchvision()
    from torchmetrics.functional.classification import multiclass_calibration_error

    given = random_predictions()
    probabilities = torch.tensor(softmax(given.logits['V'][key]))
    theirs = multiclass_calibration_error(
        probabilities, torch.tensor(given.labels[key]), probabilities.shape[1],
        n_bins=classification.BINS)
    ours = classification.score(given)['V'].scores[key].calibration_error
    assert ours > 0.01
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_of_the_action_equals_torchmetrics():
    prepare_torchvision()
    from torchmetrics.functional.classification import binary_calibration_error

    given = random_predictions()
    probabilities = [softmax(given.logits['V'][h]).max(1) for h in given.heads]
    right = PredictedActions.of_subset(given, (V,)).hits()['action']
    theirs = binary_calibration_error(  # of "it is right", as sure as the product says
        torch.tensor(probabilities[0] * probabilities[1]), torch.tensor(right).long(),
        n_bins=classification.BINS)
    ours = classification.score(given)['V'].scores['action'].calibration_error
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_by_hand():
    result = classification.binned(
        np.array([0.05, 0.5, 0.55, 1.0]), np.array([False, True, False, True]), bins=2)
    assert result.count.tolist() == [1, 3]  # 0.5 belongs to the upper bin, so does 1
    assert result.accuracy.tolist() == pytest.approx([0, 2 / 3])
    assert result.confidence.tolist() == pytest.approx([0.05, 2.05 / 3])
    assert result.error == pytest.approx(0.25 * 0.05 + 0.75 * (2.05 - 2) / 3)


def test_an_empty_bin_counts_nothing():
    result = classification.binned(np.array([0.9]), np.array([True]))
    assert result.error == pytest.approx(0.1)
    assert np.isnan(result.accuracy[:-2]).all()
    assert np.isnan(classification.binned(np.array([]), np.array([], bool)).error)


def test_only_samples_that_have_the_subset_count():
    given = predictions({'verb': [[1, 0], [np.nan] * 2, [0, 1]]}, {'verb': [0, 0, 0]},
                     present=[[True, True], [True, False], [True, True]],
                     modalities=(V, A), name='V+A')
    result = classification.score(given)
    assert list(result) == ['V+A']
    assert result['V+A'].count == 2
    assert result['V+A'].scores['verb'].top1 == 0.5
    assert result['V+A'].scores['verb'].top5 == 1.0  # there are only two classes


def test_a_single_head_is_the_action_itself():
    result = classification.score(predictions({'action': [[1, 0], [1, 0]]}, {'action': [0, 1]}))
    assert list(result['V'].scores) == ['action']
    assert result['V'].scores['action'].top1 == 0.5
    assert classification.keys(['verb']) == ('verb',)
    assert classification.joint_key(['verb']) == 'verb'


def test_a_head_called_action_beside_others_keeps_its_name():
    given = predictions({'action': [[1, 0]], 'noun': [[1, 0]]}, {'action': [0], 'noun': [1]})
    assert classification.keys(given.heads) == ('action', 'noun', 'all heads')
    result = classification.score(given)['V'].scores
    assert (result['action'].top1, result['all heads'].top1) == (1.0, 0.0)


def test_three_heads_by_hand():
    given = predictions({h: log([.9, .1]) for h in 'abc'}, {'a': [0], 'b': [1], 'c': [0]})
    # .729, then three times .081 in the order of the heads: c, b, a.
    actions = PredictedActions.of_subset(given, (V,))
    assert [actions.hits(k)['action'].tolist() for k in (1, 2, 3)] == [[False], [False], [True]]


@pytest.mark.parametrize('k', [1, 2, 5, 9])
@pytest.mark.parametrize('ties', [True, False])
def test_eight_heads_equal_the_full_product(k, ties):
    # Powers of two multiply exactly: many products are equal.
    rng = np.random.default_rng(k)
    probabilities = {h: 0.5 ** rng.integers(0, 3, (4, 3)) if ties else rng.random((4, 3))
               for h in 'abcdefgh'}
    best = {h: np.argsort(-p, axis=1, kind='stable') for h, p in probabilities.items()}
    for i in range(4):
        products = reduce(np.multiply.outer, [np.sort(p[i])[::-1] for p in probabilities.values()])
        ranks = np.unravel_index(
            np.argsort(-products, axis=None, kind='stable')[:k + 1], products.shape)
        tuples = np.transpose([ids[i][r] for ids, r in zip(best.values(), ranks)])
        for rank, each in enumerate(tuples):
            truth = {h: np.full(4, c) for h, c in zip(probabilities, each)}
            assert classification.joint_hits(probabilities, best, truth, k)[i] == (rank < k)


def test_no_sample_has_no_hit():
    none = {h: np.zeros((0, 3)) for h in 'ab'}, {h: np.zeros((0, 3), np.int64) for h in 'ab'}
    hits = classification.joint_hits(*none, {h: np.zeros(0, np.int64) for h in 'ab'}, 5)
    assert hits.shape == (0,)


def test_many_heads_need_little_memory():
    given = predictions({f'head {i}': np.zeros((50, 20)) for i in range(30)},
                     {f'head {i}': np.zeros(50) for i in range(30)})
    tracemalloc.start()
    try:
        assert PredictedActions.of_subset(given, (V,)).hits(5)['action'].all()
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_great_logits_do_not_overflow():
    assert softmax(np.array([[1e4, 0.0]])).tolist() == [[1.0, 0.0]]


def test_confusion_counts_pairs_of_true_and_best_class():
    given = predictions({'verb': [[1, 0], [1, 0], [0, 1]]}, {'verb': [0, 1, 1]})
    assert classification.confusion(PredictedActions.of_subset(given, (V,)), 'verb') == {
        (0, 0): 1, (1, 0): 1, (1, 1): 1}
