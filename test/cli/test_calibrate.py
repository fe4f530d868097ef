"""`karmma calibrate`: from a model directory and its validation split to its calibration."""

import json

from karmma_ros.cli import calibrate, evaluate
from karmma_ros.cli.main import main
from karmma_ros.clip import Clip
from karmma_ros.data.samples import Sample, Splits
from karmma_ros.modality import Modality, PAPER_MODALITIES, subsets
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import CALIBRATION, load_bundle, save_bundle
from karmma_ros.model.class_statistics import load_statistics
import numpy as np
import pytest

COUNT = 60


class Toy:
    """Clips of noise; most lack the audio."""

    def __init__(self, spec, count, seed):
        self.spec, self.count, self.seed = spec, count, seed

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not index < self.count:
            raise IndexError
        rng = np.random.default_rng([self.seed, index])
        clip = {m: rng.random(self.spec.input_shape(m), np.float32) for m in PAPER_MODALITIES}
        clip[Modality.DETECTIONS][..., 4] = 1
        if index % 3:
            del clip[Modality.AUDIO]
        return Sample(Clip(clip), {'verb': index % 3, 'noun': index % 4}, index)


@pytest.fixture
def model(tmp_path, config, spec, vocabulary):
    path = tmp_path / 'small'
    save_bundle(path, build(config, spec, vocabulary), config, spec, vocabulary, dataset='',
                card='')
    return path


@pytest.fixture
def splits(monkeypatch, spec, vocabulary):
    """Let both commands open toys, whose splits a test may change."""
    validation, test = Toy(spec, COUNT, 1), Toy(spec, 8, 2)
    toys = {'train': validation, 'validation': validation, 'test': test}

    def opened(*_):
        return Splits('Toys', spec, vocabulary, **toys)
    for command in (calibrate, evaluate):
        monkeypatch.setattr(command, 'open_data', opened)
    monkeypatch.setattr(evaluate, 'clips_digest', lambda clips, settings: str(clips.seed))
    return toys


def test_a_model_gets_its_calibration_which_evaluate_shows(model, splits, tmp_path, capsys):
    assert main(['calibrate', str(model), '--false-alarm-rate', '0.1']) == 0
    shown = capsys.readouterr().out
    assert '| sensors | temperature, verb | temperature, noun |' in shown
    assert f'fitted on {COUNT} validation clips of Toys' in shown
    calibration = load_bundle(model).calibration
    counts = load_statistics(load_bundle(model)).counts
    assert all(x[0].sum() < x[-1].sum() == COUNT for x in counts.values())  # few have audio
    with_audio = {s for s in subsets(PAPER_MODALITIES) if Modality.AUDIO in s}
    assert set(calibration.subsets) == set(subsets(PAPER_MODALITIES)) - with_audio  # too few clips
    assert calibration.false_alarm_rate == 0.1
    assert main(['evaluate', str(model), '--out', str(tmp_path / 'scores')]) == 0
    scored, = json.loads((tmp_path / 'scores' / 'scores.json').read_text())['models']
    assert scored['calibrated_on'] == calibration.fitted_on
    assert scored['false_alarm_rate'] == 0.1
    for subset in scored['subsets'].values():
        assert 0 <= subset['unknown'] <= 1
        assert {'calibration_error', 'uncalibrated_error'} <= set(subset['scores']['action'])
    assert '| action calibration error | uncalibrated | unknown |' in capsys.readouterr().out


def test_it_is_fitted_again_over_one_of_other_weights(model, splits):
    (model / CALIBRATION).write_text('{"weights": "of another model"}')
    assert main(['calibrate', str(model)]) == 0
    assert load_bundle(model).calibration


@pytest.mark.parametrize(('change', 'options', 'text'), [
    (lambda s: s.update(test=s['validation']), [], "validation split is 'the test split'"),
    (lambda s: setattr(s['validation'], 'count', 49), [], 'validation clips is 49; expected at'),
    (lambda s: None, ['--false-alarm-rate', '1.5'], 'false alarm rate is 1.5; expected above 0'),
])
def test_what_cannot_be_fitted_is_reported(model, splits, capsys, change, options, text):
    change(splits)
    assert main(['calibrate', str(model), *options]) == 2
    assert text in capsys.readouterr().err
    assert not (model / CALIBRATION).exists()
