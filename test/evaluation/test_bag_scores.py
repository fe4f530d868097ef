"""Scores of a bag, against figures computed by hand and against the scores of data sets."""

from dataclasses import replace

from karmma_ros.evaluation import classification, robustness, segmentation
from karmma_ros.evaluation.average_precision import mean_average_precision
from karmma_ros.evaluation.classification import predict_actions, predict_windows, PredictedActions
from karmma_ros.evaluation.ground_truth import TrueAction, Truth, UNKNOWN
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.evaluation.segmentation import Detection, Segment
from karmma_ros.modality import Modality, PAPER_MODALITIES, subset_name, subsets
from karmma_ros.prediction import Prediction, Vocabulary
from karmma_ros.stream.events import ActionEvents, EventSettings, Phase
import numpy as np
import pytest
from simulated_bags import simulated_run

S = 1_000_000_000
V = Vocabulary({'verb': ('cut', 'wash'), 'noun': ('onion', 'cup', 'pan')})


def predictions(middles, verbs, nouns, length=2.0):
    """Windows by their middles in seconds, with the probabilities of both heads."""
    middles = (np.asarray(middles, float) * S).astype(np.int64)
    half = round(length * S / 2)
    k = len(middles)
    return BagPredictions(
        middles - half, middles + half, middles + half + S // 100, np.ones((k, 4), bool),
        {'verb': np.asarray(verbs, np.float32).reshape(k, 2),
         'noun': np.asarray(nouns, np.float32).reshape(k, 3)},
        np.zeros(k, bool), np.zeros(k, np.float32), np.zeros((0, 5), np.int64))


def action(start, stop, verb, noun):
    ids = {'verb': verb, 'noun': noun}
    names = {h: V.heads[h][i] if i >= 0 else 'other' for h, i in ids.items()}
    return TrueAction(round(start * S), round(stop * S), names, ids)


CUTTING, WASHING = [0.9, 0.1], [0.2, 0.8]
ONION, CUP = [0.6, 0.3, 0.1], [0.1, 0.7, 0.2]


def test_an_action_is_predicted_by_the_windows_whose_centre_lies_in_it():
    verbs = [CUTTING, WASHING, CUTTING, WASHING]
    predicted = predictions([1, 2, 3, 4], verbs, [ONION, ONION, CUP, CUP])
    actions = predict_actions([action(1, 3, 0, 0), action(3, 3.9, 1, 1)], predicted)
    assert actions.windows.tolist() == [2, 1]  # the middle at 3 belongs to the second
    assert actions.probabilities['verb'][0] == pytest.approx([0.55, 0.45])
    assert actions.best['verb'][:, 0].tolist() == [0, 0]
    assert actions.hits()['verb'].tolist() == [True, False]
    assert actions.hits()['action'].tolist() == [True, False]
    assert actions.confidence['action'][0] == pytest.approx(0.55 * 0.6)


def test_a_short_action_takes_the_nearest_window_and_a_far_one_none():
    predicted = predictions([1, 2], [CUTTING, WASHING], [ONION, CUP])
    short, far = action(2.4, 2.5, 1, 1), action(3.2, 3.5, 1, 1)
    actions = predict_actions([short, far], predicted)
    assert actions.windows.tolist() == [1, 0] and actions.predicted.tolist() == [True, False]
    scores = classification.accuracy(actions)['action']
    assert (scores['top1'], scores['coverage'], scores['count']) == (0.5, 0.5, 2)
    assert predict_actions([short], predictions([], [], [])).hits()['action'].tolist() == [False]


def test_what_the_truth_leaves_open_is_not_scored():
    predicted = predictions([1, 2], [CUTTING, CUTTING], [ONION, ONION])
    actions = predict_actions([action(0.5, 1.5, 0, UNKNOWN), action(1.5, 2.5, 1, 0)], predicted)
    scores = classification.accuracy(actions)
    assert {key: each['count'] for key, each in scores.items()} == {
        'verb': 2, 'noun': 1, 'action': 1}
    assert scores['verb']['top1'] == 0.5 and scores['noun']['top1'] == 1
    assert scores['action']['top1'] == 0


def test_mean_recall_counts_rare_classes_as_much():
    right = np.array([1, 1, 1, 0, 1], bool)
    classes = np.array([[0], [0], [0], [1], [1]])
    assert classification.mean_recall(classes, right) == pytest.approx(0.75)
    assert np.isnan(classification.mean_recall(np.zeros((0, 1), int), np.zeros(0, bool)))


def test_windows_completely_inside_are_scored_by_themselves():
    predicted = predictions([1, 2, 3], [CUTTING, WASHING, CUTTING], [ONION] * 3)
    actions = predict_windows([action(0, 3.5, 0, 0), action(0.9, 3, 1, 0)], predicted)
    assert actions.labels['verb'].tolist() == [0, 0, 1]  # that around 2 lies in both
    assert actions.hits()['verb'].tolist() == [True, False, True]


def test_the_interval_of_wilson():
    low, high = classification.wilson(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert classification.wilson(0, 10)[0] == 0 and np.isnan(classification.wilson(0, 0)).all()


def test_average_precision_by_hand():
    truth = [(0, Segment(0, 10, 'a')), (0, Segment(20, 30, 'a')), (1, Segment(0, 10, 'a'))]
    scores = [Detection(0, Segment(0, 10, 'a'), 0.9),    # right
             Detection(0, Segment(0, 9, 'a'), 0.8),     # its action is taken: wrong
             Detection(1, Segment(5, 10, 'a'), 0.7),    # IoU 0.5
             Detection(0, Segment(24, 34, 'a'), 0.6)]   # IoU 6/14
    # At 0.1: right wrong right right; precision 1, 1/2, 2/3, 3/4, made to fall 1, 3/4, 3/4, 3/4.
    # At 0.5: right wrong right wrong; precision 1, 1/2, 2/3, made to fall 1, 2/3, 2/3.
    expected = [(1 + 0.75 + 0.75) / 3, (1 + 2 / 3) / 3]
    assert mean_average_precision(truth, scores, [0.1, 0.5]) == pytest.approx(expected)
    # Another class of the truth without a match halves it; one that is only predicted does not
    # count.
    more = [*truth, (0, Segment(40, 50, 'b'))]
    extra = [*scores, Detection(0, Segment(40, 50, 'c'), 1.0)]
    assert mean_average_precision(more, extra, [0.1]) == pytest.approx([expected[0] / 2])
    # The same place in another recording is another place.
    moved = [Detection(2, d.segment, d.score) for d in scores]
    assert mean_average_precision(truth, moved, [0.1]) == [0.0]
    assert np.isnan(mean_average_precision([], scores, [0.1])).all()


def test_a_detection_may_take_the_second_best_that_is_free():
    truth = [(0, Segment(0, 10, 'a')), (0, Segment(8, 18, 'a'))]
    scores = [Detection(0, Segment(0, 11, 'a'), 0.9), Detection(0, Segment(1, 12, 'a'), 0.8)]
    assert mean_average_precision(truth, scores, [0.2]) == [1.0]
    assert mean_average_precision(truth, scores, [0.5]) == [0.5]


@pytest.mark.parametrize('settings, power', [
    (EventSettings(), 1.0),
    (EventSettings(smoothing=0.4, start=0.13, end=0.05, min_duration=0.2), 0.45),
    (EventSettings(smoothing=0.0, start=0.2, end=0.05, min_duration=0.0), 0.5)])
def test_leaving_weak_classes_out_changes_no_event(settings, power):
    run = simulated_run(120, seed=2, classes=(20, 40), conditions=False)
    predicted = next(iter(run.predictions.values()))
    flat = {h: p ** power / (p ** power).sum(1, keepdims=True)
            for h, p in predicted.probabilities.items()}
    predicted = replace(predicted, probabilities=flat)  # some barely above the threshold
    events, log = ActionEvents(settings, run.vocabulary), []
    for i in range(len(predicted)):
        log += events.push(int(predicted.end_ns[i]), int(predicted.start_ns[i]), Prediction(
            {h: p[i] for h, p in predicted.probabilities.items()}, run.vocabulary))
    log += events.clear()
    ended = [e for e in log if e.phase is Phase.ENDED]
    detected = segmentation.detect_events(predicted, run.vocabulary, settings)
    assert len(detected) > 3
    assert [(h.segment.start, h.segment.end, h.segment.label, h.score) for h in detected] == [
        (e.start_ns, e.end_ns, (e.verb.class_id, e.noun.class_id), e.score) for e in ended]
    clock = dict(zip(predicted.end_ns.tolist(), predicted.inference_ns.tolist()))
    assert [h.announced_ns for h in detected] == [
        clock[e.stamp_ns] for e in log if e.phase is Phase.STARTED]


def test_events_in_open_actions_count_neither_way():
    ignored = [Segment(10, 20, ('?',)), Segment(18, 30, ('?',))]
    predicted = [Segment(0, 11, 'a'), Segment(12, 32, 'b'), Segment(26, 40, 'c')]
    assert segmentation.outside_ignored(predicted, ignored) == [0, 2]
    truth = Truth((action(0, 1, 0, 0), action(1, 2, 0, UNKNOWN)), 'x')
    known, indices, unknown = segmentation.true_segments(truth, ('verb', 'noun'))
    assert [s.label for s in known] == [(0, 0)] and indices == [0] and len(unknown) == 1
    assert not segmentation.true_segments(truth, ('verb', 'noun'), 'cut')[0]  # idleness is neither


def test_runs_of_windows_have_their_mean_score():
    verbs = [CUTTING, CUTTING, WASHING, WASHING]
    predicted = predictions([1, 2, 3, 9], verbs, [ONION, ONION, CUP, CUP])
    runs = segmentation.window_runs(predicted, ('verb', 'noun'), 2.0)
    assert [(r.start / S, r.end / S, r.label) for r, _ in runs] == [
        (1, 2.5, (0, 0)), (2.5, 3, (1, 1)), (9, 9, (1, 1))]
    assert [score for _, score in runs] == pytest.approx([0.54, 0.56, 0.56])


def test_the_curve_of_dropped_modalities_follows_from_the_subsets():
    audio, rgb = Modality.AUDIO, Modality.RGB
    truth = {'verb': np.zeros(4, int)}

    def actions(right):
        p = np.where(np.array(right)[:, None], [0.9, 0.1], [0.1, 0.9])
        return PredictedActions({'verb': p}, truth, np.ones(4, int))
    correct = {'V+A': [1, 1, 1, 1], 'V': [1, 1, 1, 0], 'A': [1, 0, 0, 0]}
    by_subset = {subset: actions(each) for subset, each in correct.items()}
    own = np.zeros((4, 4), bool)
    own[:, [list(PAPER_MODALITIES).index(rgb), list(PAPER_MODALITIES).index(audio)]] = True
    scores = robustness.dropout_curve_of_actions(by_subset, own)
    assert scores['verb'][0] == 1.0
    assert scores['verb'][5] == pytest.approx(0.25 + 0.375 * (0.75 + 0.25))
    some = {k: by_subset[k] for k in ('V+A', 'V')}
    assert robustness.dropout_curve_of_actions(some, own) is None
    assert robustness.dropout_curve_of_actions(by_subset, np.zeros((4, 4), bool)) is None


def test_every_subset_is_predicted_for_what_its_action_has():
    run = simulated_run(200, seed=4)
    recorded = next(iter(run.predictions.values()))
    own = robustness.majority_modalities(run.truth.actions, recorded)
    for condition, predicted in run.predictions.items():
        if condition.subset:
            columns = [m in condition.subset for m in [x.letter for x in PAPER_MODALITIES]]
            has = own[:, columns].all(1)
            assert predict_actions(run.truth.actions, predicted).predicted[has].all()
    expected = {subset_name(s) for s in subsets(PAPER_MODALITIES)}
    assert {c.subset for c in run.predictions} - {''} == expected


def test_agreement_is_with_the_nearest_window():
    reference = predictions([1, 2, 3, 4], [CUTTING, CUTTING, WASHING, WASHING], [ONION] * 4)
    other = predictions([1.1, 2.1, 4.1], [CUTTING, WASHING, WASHING], [ONION] * 3)
    assert robustness.agreement(reference, other, ('verb', 'noun')) == pytest.approx(
        {'compared': 0.75, 'same': 2 / 3})
    assert robustness.agreement(reference, predictions([], [], []), ('verb',))['compared'] == 0


def test_a_class_just_strong_enough_becomes_an_event():
    middles = np.arange(0, 10, 0.2)
    predicted = predictions(middles, [[0.42, 0.58]] * 50, [[0.98, 0.01, 0.01]] * 50)
    weak = predictions(middles, [[0.6, 0.4]] * 50, [[0.6, 0.3, 0.1]] * 50)  # 0.36 together
    detected = segmentation.detect_events(predicted, V, EventSettings(start=0.55, end=0.3))
    assert [h.segment.label for h in detected] == [(1, 0)]
    assert detected[0].score == pytest.approx(0.58 * 0.98)
    assert segmentation.detect_events(weak, V, EventSettings()) == []
