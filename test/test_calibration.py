"""Temperatures and thresholds: what they do to logits, and that nothing of a file is trusted."""

import json

from karmma_ros.calibration import Calibration, SubsetCalibration, unknown_score
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality, parse_subset, subsets
from karmma_ros.prediction import ActionScale, Prediction, softmax, Vocabulary
import numpy as np
import pytest

V, A, D = Modality.RGB, Modality.AUDIO, Modality.DETECTIONS
LOGITS = {'verb': np.array([[2.0, 0.0, -1.0], [0.0, 0.5, 0.0]], np.float32),
          'noun': np.array([[1.0, 3.0], [0.0, 0.0]], np.float32)}
FITTED = Calibration({
    (V, A): SubsetCalibration({'verb': 2.0, 'noun': 0.5}, -3.0),
    (A,): SubsetCalibration({'verb': 3.0}, None, ActionScale(1.25, (1.5, 2.0, -0.25)))},
    0.05, '800 validation clips')


WITH_SETS = Calibration({
    (V, A): SubsetCalibration({}, set_thresholds={'verb': (0.2, 0.1, 0.5), 'noun': (0.0, 0.9)}),
    (A,): SubsetCalibration()}, 0.05, '800 validation clips', 0.9)


def test_a_prediction_set_has_the_classes_above_their_thresholds():
    output = WITH_SETS.apply((V, A), LOGITS)
    for head, least in (('verb', (0.2, 0.1, 0.5)), ('noun', (0.0, 0.9))):
        np.testing.assert_array_equal(output.sets[head], output.probabilities[head] >= least)
    assert output.sets['verb'].tolist() == [[True, True, False], [True, True, False]]
    assert '; prediction sets of 90.0% coverage; every action is known' in WITH_SETS.describe((A,))
    for subset in ((A,), (V,)):  # without thresholds, and not fitted
        assert WITH_SETS.apply(subset, LOGITS).sets == {}
    vocabulary = Vocabulary({'verb': ('cut', 'wash', 'open'), 'noun': ('pan', 'cup')})
    one = WITH_SETS.apply((V, A), {head: x[1] for head, x in LOGITS.items()})
    prediction = Prediction(one.probabilities, vocabulary, sets=one.sets)
    assert [label.class_name for label in prediction.prediction_set('verb')] == ['wash', 'cut']
    assert [label.class_name for label in prediction.prediction_set('noun')] == ['pan']


def test_without_a_calibration_probabilities_are_the_softmax_to_the_last_bit():
    output = Calibration().apply((V,), LOGITS)
    assert all(np.array_equal(output.probabilities[h], softmax(x)) for h, x in LOGITS.items())
    assert not output.is_unknown.any()
    wide = LOGITS['verb'].astype(np.float64)
    by_hand = np.exp(wide - wide.max(1, keepdims=True))
    assert np.array_equal(softmax(LOGITS['verb']), by_hand / by_hand.sum(1, keepdims=True))


def test_each_subset_and_head_has_its_temperature():
    output = FITTED.apply((A, V), LOGITS)
    assert np.array_equal(output.probabilities['verb'], softmax(LOGITS['verb'], 2.0))
    assert np.array_equal(output.probabilities['noun'], softmax(LOGITS['noun'], 0.5))
    alone = FITTED.apply((A,), LOGITS).probabilities
    assert np.array_equal(alone['verb'], softmax(LOGITS['verb'] / np.float64(3)))
    assert np.array_equal(alone['noun'], softmax(LOGITS['noun']))


def test_a_head_with_sigmoid_has_a_probability_of_each_class():
    calibration = Calibration({(V,): SubsetCalibration({'noun': 2.0})}, activations={
        'noun': 'sigmoid'})
    output = calibration.apply((V,), LOGITS).probabilities
    wide = LOGITS['noun'].astype(np.float64)
    np.testing.assert_allclose(output['noun'], 1 / (1 + np.exp(-wide / 2)), rtol=1e-12)
    assert np.array_equal(output['verb'], softmax(LOGITS['verb']))
    assert 'activations' not in calibration.to_dict()


@pytest.mark.parametrize('activations', [{'tool': 'sigmoid'}, {'verb': 'relu'}, {'verb': ['x']}])
def test_other_activations_are_refused(activations):
    with pytest.raises(InvalidSettingError, match='softmax or sigmoid of one of the heads verb'):
        Vocabulary({'verb': ('cut', 'wash')}, activations=activations)


def test_what_takes_one_class_of_each_head_refuses_sigmoid():
    with pytest.raises(InvalidSettingError, match='expected softmax, for a calibration'):
        Vocabulary({'verb': ('cut', 'wash')}, activations={
            'verb': 'sigmoid'}).check_softmax('a calibration')


def test_the_score_of_an_action_is_on_the_scale_of_its_calibration():
    output = FITTED.apply((A,), {head: x[0] for head, x in LOGITS.items()})
    vocabulary = Vocabulary({'verb': ('cut', 'wash', 'open'), 'noun': ('pan', 'cup')})
    prediction = Prediction(output.probabilities, vocabulary,
                            action_scale=output.action_scale)
    first, *others = prediction.top_actions(6)
    assert (first.verb.class_name, first.noun.class_name) == ('cut', 'cup')
    p = (first.verb.score * first.noun.score) ** 1.25
    assert first.score == pytest.approx(
        1 / (1 + np.exp(0.25) * (1 - p) ** 2.0 / p ** 1.5), abs=1e-12)
    assert [x.score for x in others] == sorted((x.score for x in others), reverse=True)
    plain = Prediction(output.probabilities, vocabulary).top_actions()[0]
    assert plain.score == plain.verb.score * plain.noun.score


def test_a_calibration_is_described():
    assert Calibration().describe((V,)) == 'none: temperatures of 1, and every action is known'
    own = Calibration({(V, A): SubsetCalibration({'verb': 2.0}, -9.5), (A,): SubsetCalibration()},
                      0.05, '80 clips of a kitchen')
    assert own.describe((V, A)) == (
        'fitted on 80 clips of a kitchen; from V+A, a result is unknown with a score above -9.50, '
        'as 5.0% of known actions are')
    assert own.describe((A,)) == 'fitted on 80 clips of a kitchen; every action is known'


def test_what_is_above_the_threshold_is_unknown():
    score = unknown_score(LOGITS)
    assert score == pytest.approx([
        -np.log(np.exp([2, 0, -1]).sum()) - np.log(np.exp([1, 3]).sum()),
        -np.log(np.exp([0, 0.5, 0]).sum()) - np.log(2)])
    assert FITTED.apply((V, A), LOGITS).is_unknown.tolist() == [False, True]
    assert FITTED.apply((A,), LOGITS).is_unknown.tolist() == [False, False]
    one = FITTED.apply((V, A), {head: x[1] for head, x in LOGITS.items()})
    assert one.is_unknown.shape == () and bool(one.is_unknown)


def test_only_the_heads_of_an_action_make_it_unknown():
    further = {**LOGITS, 'tool': np.array([[9.0, 9.0], [9.0, 9.0]], np.float32)}
    assert np.array_equal(unknown_score(further), unknown_score(LOGITS))


def test_a_row_of_nan_is_not_unknown():
    x = {'verb': np.array([[np.nan, np.nan], [1.0, 0.0]])}
    output = Calibration({(V,): SubsetCalibration({}, -9.0)}).apply((V,), x)
    assert output.is_unknown.tolist() == [False, True]
    assert np.isnan(output.probabilities['verb'][0]).all()


@pytest.mark.parametrize(('wanted', 'nearest'), [
    ('V+A', 'V+A'), ('V+A+D', 'V+A'), ('A+D', 'A'), ('V', 'V+A'), ('D', 'A')])
def test_a_subset_that_was_not_fitted_takes_the_most_similar(wanted, nearest):
    assert FITTED.of(parse_subset(wanted)) is FITTED.subsets[parse_subset(nearest)]


def read(content, modalities=(V, A)):
    return Calibration.from_dict(content, modalities, {'verb': 3, 'noun': 2})


def test_what_is_written_is_read():
    assert read(json.loads(json.dumps(FITTED.to_dict()))) == FITTED
    three = tuple(map(Modality, ('rgb', 'rgb_wrist', 'imu_thigh')))
    several = Calibration({s: SubsetCalibration({'verb': 1.5}, 1.0) for s in subsets(three)})
    assert read(json.loads(json.dumps(several.to_dict())), three) == several
    assert read(json.loads(json.dumps(WITH_SETS.to_dict()))) == WITH_SETS
    assert 'coverage' not in FITTED.to_dict()


def changed(*path, to):
    """Return a calibration as written, with a value in place of another."""
    content = json.loads(json.dumps(FITTED.to_dict()))
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return content


@pytest.mark.parametrize(('content', 'text'), [
    (None, 'format is None'),
    ([], 'format is None'),
    (changed('format', to='karmma_ros.calibration/2'), "calibration/2'; expected"),
    (changed('more', to=1), 'expected an object with format'),
    (changed('subsets', to=[]), "subsets is 'list'"),
    (changed('subsets', to={}), '1 to 4096'),
    (changed('subsets', to={f'V{i}': {} for i in range(5000)}), '1 to 4096'),
    (changed('subsets', 'D', to={}), "subset is 'D'; expected made of V, A"),
    (changed('subsets', 'A+V', to={}), "subset is 'A\\+V'"),
    (changed('subsets', 'V+V', to={}), 'in their order'),
    (changed('subsets', '', to={}), "subset is ''"),
    (changed('subsets', 'A', to={'temperatures': {}}), 'temperatures, unknown_threshold, action'),
    (changed('subsets', 'A', to=3), "subsets.A is 'int'"),
    (changed('subsets', 'A', 'temperatures', to={'tool': 1.0}), 'with the heads noun, verb'),
    (changed('subsets', 'A', 'temperatures', to=[1.0]), 'with the heads noun, verb'),
    *((changed('subsets', 'A', 'temperatures', 'verb', to=bad), 'a number from 0.01 to 100')
      for bad in (0, -1.0, 1e9, float('nan'), float('inf'), '2', True, None, 10**400, [1])),
    *((changed('subsets', 'A', 'action_exponent', to=bad), 'action_exponent is')
      for bad in (0.9, float('nan'), None, '1', 1e6)),
    *((changed('subsets', 'A', 'action_beta', to=bad), 'action_beta is .*3 numbers')
      for bad in ([1.0, 1.0], None, 1.0, {})),
    *((changed('subsets', 'A', 'action_beta', to=[1.0, bad, 0.0]), 'a number from 0.01 to 100')
      for bad in (0, -1, '1', float('nan'), 1e9)),
    (changed('subsets', 'A', 'action_beta', to=[1.0, 1.0, -1e9]), 'a number from -100 to 100'),
    *((changed('subsets', 'A', 'unknown_threshold', to=bad), 'unknown_threshold is')
      for bad in (float('nan'), float('inf'), 'x', False)),
    (changed('false_alarm_rate', to=2), 'false_alarm_rate is 2'),
    (changed('fitted_on', to='a\x1b[31m'), 'a printable text'),
    (changed('fitted_on', to='x' * 10**4), 'a printable text'),
    (changed('fitted_on', to=7), 'a printable text'),
    (changed('coverage', to=1.5), 'coverage is 1.5'),
    (changed('subsets', 'A', 'set_thresholds', to=[0.5]), 'set_thresholds is .*the heads verb, n'),
    (changed('subsets', 'A', 'set_thresholds', to={'tool': []}), 'with the heads verb, noun'),
    (changed('subsets', 'A', 'set_thresholds', to={'verb': [0.5]}), '1; expected 3 numbers'),
    (changed('subsets', 'A', 'set_thresholds', to={'verb': 0.5}), 'float.; expected 3 numbers'),
    *((changed('subsets', 'A', 'set_thresholds', to={'noun': [0.5, bad]}), 'from 0 to 1')
      for bad in (-0.1, 1.1, float('nan'), '1', None)),
])
def test_anything_else_is_refused(content, text):
    with pytest.raises(InvalidSettingError, match=text):
        read(content)
