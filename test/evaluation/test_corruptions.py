"""Under corruption a clip is predicted as its corrupted samples are, and scored by hand."""

from karmma_ros.clip import Clip
from karmma_ros.data.corrupted import (
    ClipWindows,
    recorded,
    sensor_corruptions,
    SensorCondition,
    SensorCorruption,
    sensors_of,
)
from karmma_ros.data.samples import Sample
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.corruption_report import corruption_section, relative_accuracies
from karmma_ros.evaluation.corruption_scores import (
    check_choice,
    CorruptionChoice,
    plan,
    score_corruptions,
)
from karmma_ros.evaluation.corruptions import ConditionCollector, ConditionPredictions
from karmma_ros.evaluation.inference import collect, LoaderSettings
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.modalities import make_clip, modality_type
from karmma_ros.modality import PAPER_MODALITIES, subset_name
from karmma_ros.training.loaders import scoring_loader
import numpy as np
import pytest
from recordings import Recordings

V, F, A, D = PAPER_MODALITIES


@pytest.fixture
def clips(spec):
    return Recordings(spec, 7)


def collector(network, clips, spec, batch_size=3):
    return ConditionCollector(network, clips, spec, LoaderSettings(batch_size))


def test_as_recorded_the_predictions_are_those_of_the_clips(network, clips, spec, tmp_path):
    table = collector(network, clips, spec).collect(
        {'recorded': SensorCondition()}, range(7), tmp_path)['recorded'].plain
    expected = collect(network, scoring_loader(clips, network.modalities, 3))
    assert np.array_equal(table.present, expected.present)
    full, rest = subset_name(PAPER_MODALITIES), subset_name((V, F, D))
    for head in ('verb', 'noun'):
        assert np.array_equal(table.labels[head], expected.labels[head])
        has = table.present.all(1)
        for subset, rows in ((full, has), (rest, ~has)):
            assert np.allclose(table.logits[subset][head][rows],
                               expected.logits[subset][head][rows], atol=1e-5)


def test_a_corrupted_camera_corrupts_its_flow_and_nothing_else(clips, spec):
    window = ClipWindows(clips, [4], PAPER_MODALITIES, spec)[0]
    changed = SensorCondition((SensorCorruption(V, ('blur',), 5),)).apply(window, clips, spec)
    assert {*changed} == {V, F}
    assert np.array_equal(changed[F], modality_type(F).recomputed(changed[V], spec))
    assert not np.array_equal(changed[F], window.arrays[F])
    again = SensorCondition((SensorCorruption(V, ('blur',), 5),)).apply(window, clips, spec)
    assert np.array_equal(changed[V], again[V])


def test_the_seed_and_the_clip_decide_the_noise(clips, spec):
    window, other = (ClipWindows(clips, [i], PAPER_MODALITIES, spec)[0] for i in (4, 5))

    def noise(window, seed):
        hiss = SensorCondition((SensorCorruption(A, ('hiss',), 5),), seed=seed)
        return hiss.apply(window, clips, spec)[A] - window.arrays[A]
    assert np.array_equal(noise(window, 1), noise(window, 1))
    assert not np.allclose(noise(window, 1), noise(window, 2), atol=1e-3)
    assert not np.allclose(noise(window, 1), noise(other, 1), atol=1e-3)


def test_a_condition_is_predicted_from_corrupted_samples(network, clips, spec, tmp_path):
    condition = SensorCondition((SensorCorruption(V, ('black',), 5),))
    both = collector(network, clips, spec).collect({'black': condition}, range(7), tmp_path)
    table = both['black'].plain

    class Corrupted(Recordings):
        def __getitem__(self, index):
            window = ClipWindows(self, [index], PAPER_MODALITIES, self.spec)[0]
            arrays = {**window.arrays, **condition.apply(window, self, self.spec)}
            return Sample(make_clip(self.spec, arrays), self.labels(index), index)

        def with_modalities(self, modalities):
            return self

    expected = collect(network, scoring_loader(Corrupted(spec, 7), PAPER_MODALITIES, 3))
    full = subset_name(PAPER_MODALITIES)
    has = table.present.all(1)
    assert np.allclose(table.logits[full]['verb'][has], expected.logits[full]['verb'][has],
                       atol=1e-5)
    # A check needs 0.6 s and three images: the four frames of a second are enough.
    assert not both['black'].checked.present[:, :2].any()
    assert {*both['black'].checked.logits} == {'A+D', 'D'}


def test_delay_removal_and_silence(network, clips, spec, tmp_path):
    conditions = {'late': SensorCondition(delayed=(V, F), delay_s=0.25),
                  'absent': SensorCondition(removed=(A,)),
                  'first half': SensorCondition(observed=0.5)}
    predicted = collector(network, clips, spec).collect(conditions, range(7), tmp_path)
    assert not predicted['absent'].plain.present[:, 2].any()
    assert predicted['late'].plain.present[1].all() and (1, 0.25) in clips.reads
    window = ClipWindows(clips, [4], PAPER_MODALITIES, spec)[0]
    half = conditions['first half'].apply(window, clips, spec)
    assert np.array_equal(half[V][:2], window.arrays[V][:2])
    assert (half[V][2:] == half[V][1]).all()
    assert half[A].valid_mask.sum() == 8000 and [len(b) for b in half[D]] == [2, 2, 0, 0]
    assert np.array_equal(
        predicted['first half'].plain.present, predicted['first half'].checked.present)


def test_what_is_written_is_not_predicted_again(network, clips, spec, tmp_path):
    one = {'black': SensorCondition((SensorCorruption(V, ('black',), 5),))}
    first = collector(network, clips, spec).collect(one, range(7), tmp_path, shard_size=4)
    clips.reads.clear()
    more = {**one, 'hiss': SensorCondition((SensorCorruption(A, ('hiss',), 1),))}
    (next(tmp_path.glob('*/00001_plain.npz'))).write_bytes(b'damaged')
    second = collector(network, clips, spec).collect(more, range(7), tmp_path, shard_size=4)
    assert {index for index, _ in clips.reads} == {*range(7)}
    for table in ('plain', 'checked'):
        a, b = (getattr(each['black'], table) for each in (first, second))
        assert {*a.logits} == {*b.logits}
        for subset in a.logits:
            assert np.allclose(a.logits[subset]['verb'], b.logits[subset]['verb'], atol=1e-5,
                               equal_nan=True)
    clips.reads.clear()
    collector(network, clips, spec).collect(more, range(7), tmp_path, shard_size=4)
    assert not clips.reads


def test_all_that_is_planned_is_scored_and_reported(network, clips, spec, tmp_path):
    sensors = sensors_of(clips, network.modalities, spec, 0)
    assert sensors == {V: (V, F), A: (A,), D: (D,)}
    choice = CorruptionChoice(('noise', 'silence', 'stuck'), (2, 5))
    outcome = collector(network, clips, spec, 7).collect(plan(sensors, choice), range(7), tmp_path)
    scores = score_corruptions(outcome, sensors, choice)
    assert {*scores.sensors} == {'rgb', 'audio', 'detections'}
    assert scores.sensors['rgb'].affects == ['rgb', 'flow']
    assert scores.sensors['rgb'].count == 7 and scores.sensors['audio'].count == 4
    assert {*scores.sensors['rgb'].corruptions} == {'noise'}
    assert {*scores.sensors['audio'].corruptions['silence']} == {'2', '5'}
    assert {*scores.pairs} == {'V+A', 'V+D', 'A+D'} and {*scores.observed} == {
        '0.25', '0.5', '0.75'}
    text = corruption_section('small', scores)
    assert '| silence | 5 |' in text and '### Two sensors at once' in text
    assert {*relative_accuracies(scores)} == {'rgb', 'audio', 'detections', 'all'}


def table(right, present):
    """Return predictions of V and A that are right where `right` is true."""
    present = np.array(present, bool)
    logits = {}
    for i, row in enumerate(present):
        subset = subset_name([m for m, has in zip((V, A), row) if has])
        if row.any():
            empty = np.full((len(present), 2), np.nan, np.float32)
            own = logits.setdefault(subset, {'verb': empty})
            own['verb'][i] = (9, 0) if right[i] else (0, 9)
    return DatasetPredictions((V, A), logits, present, {'verb': np.zeros(len(present), np.int64)})


def test_scores_by_hand():
    both = [[1, 1]] * 4
    recorded_ = table([1, 1, 1, 1], both)
    black = ConditionPredictions(table([0, 0, 0, 1], both),
                                 table([1, 0, 0, 1], [[0, 1], [0, 1], [1, 1], [1, 1]]))
    absent = table([1, 1, 0, 0], [[0, 1]] * 4)
    one = ConditionPredictions(recorded_, recorded_)
    choice = CorruptionChoice(('black',), (5,))
    names = plan({V: (V,)}, choice)
    predictions = {name: one for name in names}
    predictions |= {'rgb black 5': black, 'rgb absent': ConditionPredictions(absent, absent)}
    scores = score_corruptions(predictions, {V: (V,)}, choice)
    predicted = scores.sensors['rgb']
    assert (predicted.recorded, predicted.absent, predicted.false_alarms) == (1.0, 0.5, 0.0)
    each = predicted.corruptions['black']['5']
    assert (each.accuracy, each.relative_to_recorded, each.relative_to_absent) == (0.25, 0.25, 0.5)
    assert (each.checked_accuracy, each.masked) == (0.5, 0.5)
    assert each.calibration_error == pytest.approx(0.75, abs=1e-3)
    assert (scores.mean_relative, scores.checked_mean_relative) == (0.25, 0.5)


def test_what_does_not_exist_is_an_error_that_lists_what_does(clips):
    with pytest.raises(InvalidSettingError, match='of audio: silence, muted, hiss'):
        check_choice(CorruptionChoice(('fog',)), PAPER_MODALITIES)
    with pytest.raises(InvalidSettingError, match='integers from 1 to 5'):
        check_choice(CorruptionChoice((), (1, 6)), PAPER_MODALITIES)
    with pytest.raises(InvalidSettingError, match='the samples of its clips'):
        recorded([Sample(Clip({}), {})])
    assert 'covered' in sensor_corruptions(V)
