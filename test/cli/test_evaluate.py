"""`karmma evaluate`: from model directories and a data set to a folder of scores."""

from dataclasses import replace
import json
from pathlib import Path
import re

from conforming import conforms
from karmma_ros.calibration import Calibration, SubsetCalibration
from karmma_ros.cli import evaluate
from karmma_ros.cli.main import main
from karmma_ros.clip import Clip
from karmma_ros.data.samples import Sample, Splits
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary as kitchen_vocabulary
from karmma_ros.evaluation import corruptions, inference
from karmma_ros.evaluation.inference import collect
from karmma_ros.evaluation.report import SCHEMA_ID, ScoresReport
from karmma_ros.evaluation.schema import json_schema
from karmma_ros.modality import Modality, PAPER_MODALITIES, subset_name, subsets
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle, save_calibration
from karmma_ros.prediction import Vocabulary
import numpy as np
import pytest
from recordings import Recordings
import torch

NAMES = [subset_name(s) for s in subsets(PAPER_MODALITIES)]


class Toy:
    """Clips of noise; every third lacks the audio."""

    def __init__(self, spec, count, break_at=None):
        self.spec, self.count, self.break_at, self.served = spec, count, break_at, []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if len(self.served) == self.break_at:
            raise KeyboardInterrupt
        self.served.append(index)
        rng = np.random.default_rng(index)
        clip = {m: rng.random(self.spec.input_shape(m), np.float32) for m in PAPER_MODALITIES}
        clip[Modality.DETECTIONS][..., 4] = 1
        if index % 3 == 0:
            del clip[Modality.AUDIO]
        return Sample(Clip(clip), {'verb': index % 3, 'noun': index % 4}, index)


def save(path, config, spec, vocabulary, seed=0):
    torch.manual_seed(seed)
    save_bundle(path, build(config, spec, vocabulary), config, spec, vocabulary,
                dataset='Toys', card='')
    return str(path)


@pytest.fixture
def model(tmp_path, config, spec, vocabulary):
    return save(tmp_path / 'small', config, spec, vocabulary)


@pytest.fixture
def toys(monkeypatch, spec, vocabulary):
    """Return the test split that the command will find."""
    clips = Toy(spec, 10)

    def open_splits(settings, wanted, cache, progress):
        return Splits('Toys', spec, vocabulary, Toy(spec, 3), Toy(spec, 4), clips)

    monkeypatch.setattr(evaluate, 'open_data', open_splits)
    return clips


def run(out, *arguments):
    assert main(['evaluate', *map(str, arguments), '--out', str(out)]) == 0
    return json.loads((out / 'scores.json').read_text())


def test_a_model_is_scored_for_every_subset(model, toys, tmp_path, capsys):
    report = run(tmp_path / 'out', model)
    scores = report['models'][0]
    assert list(scores['subsets']) == NAMES
    assert scores['subsets']['V']['count'] == 10 and scores['subsets']['A']['count'] == 6
    assert report['data']['name'] == 'Toys' and report['data']['clips'] == 10
    assert report['data']['settings']['dataset'] == 'synthetic_kitchen'
    assert len(scores['dropout_curve']['action']) == 10
    printed = capsys.readouterr().out
    assert '| V+F+A+D | 6 |' in printed and 'scores.json' in printed
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {
        'README.md', 'scores.json', 'predictions', 'subsets.png', 'dropout_curve.png',
        'calibration_1.png'}
    assert sorted(toys.served) == list(range(10))


def test_a_stopped_run_goes_on_where_it_stopped(model, toys, tmp_path, monkeypatch):
    monkeypatch.setattr(inference.collect_sharded, '__kwdefaults__', {
        **inference.collect_sharded.__kwdefaults__, 'shard_size': 4})
    words = ['evaluate', model, '--batch-size', '2', '--out', str(tmp_path / 'cut')]
    toys.break_at = 7
    assert main(words) == 130
    toys.break_at, toys.served = None, []
    assert main(words) == 0
    assert toys.served == [4, 5, 6, 7, 8, 9]  # the first shard was there
    complete = run(tmp_path / 'complete', model, '--batch-size', '5')
    resumed = json.loads((tmp_path / 'cut' / 'scores.json').read_text())
    assert resumed['models'][0]['subsets'].keys() == complete['models'][0]['subsets'].keys()
    for name, result in resumed['models'][0]['subsets'].items():
        for key, score in result['scores'].items():
            assert score == pytest.approx(complete['models'][0]['subsets'][name]['scores'][key],
                                          abs=1e-5)
    toys.served = []
    run(tmp_path / 'complete', model)
    assert toys.served == []  # nothing is scored twice


def test_predictions_are_stored_under_all_that_they_depend_on(
    model, toys, tmp_path, config, spec, vocabulary
):
    out = tmp_path / 'out'
    run(out, model)
    for change in (['--limit', '4'], ['--subsets', 'V', 'A+V'], ['--split', 'validation'],
                   ['--data.synthetic_kitchen.seed', '3']):
        run(out, model, *change)
    save(tmp_path / 'small', config, spec, vocabulary, seed=1)  # other weights, the same name
    run(out, model)
    assert len(list((out / 'predictions').iterdir())) == 6


def test_a_damaged_shard_is_computed_again(model, toys, tmp_path):
    before = run(tmp_path / 'out', model)
    shard, = (tmp_path / 'out' / 'predictions').glob('*/00000.npz')
    shard.write_bytes(shard.read_bytes()[:1000])
    assert run(tmp_path / 'out', model) == before
    assert len(toys.served) == 20


def test_a_limit_spreads_over_the_split(model, toys, tmp_path):
    report = run(tmp_path / 'out', model, '--limit', '4')
    assert toys.served == [0, 2, 5, 7]
    assert report['data']['clips'] == 4
    assert inference.spread_evenly(3, 8) == inference.spread_evenly(3, None) == [0, 1, 2]


def test_chosen_subsets_alone_are_scored(model, toys, tmp_path):
    report = run(tmp_path / 'out', model, '--subsets', 'A+V', 'D')
    scores = report['models'][0]
    assert list(scores['subsets']) == ['V+A', 'D']
    assert scores['dropout_curve'] is None and scores['average_accuracy'] is None


def test_models_stand_side_by_side(model, toys, tmp_path, config, spec, vocabulary):
    other = save(tmp_path / 'other', config, spec, vocabulary, seed=1)
    third = save(tmp_path / 'third' / 'small', config, spec, vocabulary, seed=2)
    report = run(tmp_path / 'out', model, f'twins={other}', f'twins={third}')
    systems = [m['system'] for m in report['models']]
    assert systems == [model, 'twins', 'twins']  # two bundles are called `small`
    assert set(report['average_rank']) == {model, 'twins'}
    assert sum(report['average_rank'].values()) == pytest.approx(3)
    text = (tmp_path / 'out' / 'README.md').read_text()
    assert '| twins (mean of 2) |' in text
    assert run(tmp_path / 'pair', model, other)['models'][0]['system'] == 'small'


def test_the_predictions_are_those_of_the_network(model, toys, tmp_path, monkeypatch):
    seen = []

    def spy(network, batches, *rest):
        seen.append(collect(network, batches, *rest))
        return seen[-1]

    monkeypatch.setattr(inference, 'collect', spy)
    report = run(tmp_path / 'out', model, '--limit', '3')
    predictions, = seen
    truth = np.argmax(predictions.logits['V']['verb'], 1) == predictions.labels['verb']
    assert report['models'][0]['subsets']['V']['scores']['verb']['top1'] == truth.mean()


def test_the_paper_s_curves_are_drawn_where_data_and_sensors_are_its_own(
    tmp_path, monkeypatch, config, spec, vocabulary
):
    drawn = []
    monkeypatch.setattr(evaluate, 'write_report',
                        lambda *_, references, **__: drawn.append(references))
    monkeypatch.setattr(evaluate, 'markdown', str)
    three = replace(config, encoders={
        m: e for m, e in config.encoders.items() if m is not Modality.DETECTIONS})
    for name in (*evaluate.DROPOUT_CURVES, 'Toys'):
        splits = Splits(name, spec, vocabulary, *[Toy(spec, 3)] * 3)
        monkeypatch.setattr(evaluate, 'open_data', lambda *_, splits=splits: splits)
        path = save(tmp_path / 'vfa', three, spec, vocabulary)
        assert main(['evaluate', path, '--out', str(tmp_path / name)]) == 0
    assert list(drawn[0]) == ['paper: Baseline', 'paper: Baseline with dropout', 'paper: KARMMA']
    assert drawn[0]['paper: KARMMA'][0] == pytest.approx(0.43)
    assert drawn[1:] == [{}, {}]  # Something-Something has no sound; Toys are not in the paper
    assert set(evaluate._PUBLISHED_SENSORS) == set(evaluate.DROPOUT_CURVES)


def test_exports_are_scored_beside_their_model(model, toys, tmp_path, capsys):
    assert main(['export', model, '--to', 'onnx']) == 0
    report = run(tmp_path / 'out', model, '--exports', '--batch-size', '4')
    eager, exported = report['models']
    assert (eager['system'], exported['system']) == ('small', 'small, onnxruntime fp32')
    assert eager['model'] == exported['model']
    for name, result in eager['subsets'].items():
        assert exported['subsets'][name]['count'] == result['count']
        for key, score in result['scores'].items():
            assert exported['subsets'][name]['scores'][key] == pytest.approx(score, abs=1e-3)
    toys.served = []
    run(tmp_path / 'out', model, '--exports')
    assert toys.served == []
    (path,) = Path(model).glob('exports/*/export.json')
    path.write_text(path.read_text() + ' ')  # another export, which may answer otherwise
    run(tmp_path / 'out', model, '--exports')
    assert sorted(toys.served) == list(range(10))


def test_an_export_that_cannot_be_used_is_named(model, toys, tmp_path, capsys):
    for target in ('onnx', 'openvino'):
        assert main(['export', model, '--to', target]) == 0
    (path,) = Path(model).glob('exports/openvino_*/export.json')
    path.write_text('{')
    report = run(tmp_path / 'out', model, '--exports')
    assert [m['system'] for m in report['models']] == ['small', 'small, onnxruntime fp32']
    assert f'not scored: model {path.parent}' in capsys.readouterr().err


def test_a_model_without_exports_is_named(model, toys, tmp_path, capsys):
    assert main(['evaluate', model, '--exports', '--out', str(tmp_path / 'out')]) == 2
    assert f'model {model}: nothing is exported: karmma export' in capsys.readouterr().err
    assert toys.served == []


@pytest.mark.parametrize(('arguments', 'text'), [
    (['--limit', '0'], 'limit is 0'),
    (['--batch-size', '0'], 'batch size is 0'),
    (['--device', 'toaster'], "--device is 'toaster'"),
    (['--subsets', 'Q'], "modality is 'Q'"),
    (['--config', 'nowhere.yaml'], "--config is 'nowhere.yaml'"),
    (['--data.dataset', 'cinema'], "data.dataset is 'cinema'"),
])
def test_wrong_arguments_are_named(model, toys, tmp_path, capsys, arguments, text):
    assert main(['evaluate', model, *arguments, '--out', str(tmp_path / 'out')]) == 2
    assert text in capsys.readouterr().err
    assert toys.served == []


def test_a_sensor_the_model_lacks_is_named(tmp_path, toys, config, spec, vocabulary, capsys):
    blind = replace(config, encoders={
        m: e for m, e in config.encoders.items() if m is not Modality.RGB})
    path = save(tmp_path / 'blind', blind, spec, vocabulary)
    assert main(['evaluate', path, '--subsets', 'V', '--out', str(tmp_path / 'out')]) == 2
    assert "--subsets is 'V'" in capsys.readouterr().err
    assert list(run(tmp_path / 'out', path)['models'][0]['subsets'])[0] == 'F+A+D'


@pytest.mark.parametrize(('heads', 'text'), [
    ({'verb': ('cut', 'stir', 'pour'), 'noun': ('cup', 'pan', 'lid', 'egg')},
     "its verb 2 is 'pour', that of the data 'wash'"),
    ({'verb': ('cut', 'stir'), 'noun': ('cup', 'pan', 'lid', 'egg')},
     'it has 2 classes for verb, the data 3'),
    ({'action': ('cut', 'stir', 'wash')}, 'it has the heads action, the data verb, noun'),
])
def test_a_model_of_other_classes_is_refused(
    tmp_path, toys, config, spec, capsys, heads, text
):
    path = save(tmp_path / 'other', config, spec, Vocabulary(heads))
    assert main(['evaluate', path, '--out', str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert f'model {path}: does not fit Toys: {text}: score it on' in error


def test_a_model_of_other_clips_is_refused(tmp_path, toys, config, spec, vocabulary, capsys):
    path = save(tmp_path / 'other', config, replace(spec, duration=3.0), vocabulary)
    assert main(['evaluate', path, '--out', str(tmp_path / 'out')]) == 2
    assert (
        'does not fit the clips of Toys: duration is 1.0; expected 3.0' in capsys.readouterr().err
    )


def test_the_kitchen_is_rendered_as_configured(tmp_path, config):
    path = save(tmp_path / 'kitchen', config, clip_spec(), kitchen_vocabulary())
    file = tmp_path / 'train.yaml'
    file.write_text('preset: tiny\ndata:\n  dataset: synthetic_kitchen\n'
                    '  synthetic_kitchen: {train: 900, validation: 900, test: 9}\n')
    cache = tmp_path / 'cache'
    report = run(tmp_path / 'out', path, '--config', file, '--data.synthetic_kitchen.test', '3',
                 '--cache', cache, '--figure-format', 'svg')
    assert report['data']['clips'] == 3
    assert report['data']['settings']['train'] == 900
    folders = {p.name for p in cache.iterdir() if p.is_dir()}
    assert folders == {'train_1_0', 'validation_1_0', 'test_3_0'}
    assert (tmp_path / 'out' / 'subsets.svg').is_file()


def test_a_configuration_without_data_is_named(model, toys, tmp_path, capsys):
    file = tmp_path / 'empty.yaml'
    file.write_text('preset: tiny\n')
    assert main(['evaluate', model, '--config', str(file), '--out', str(tmp_path / 'o')]) == 2
    assert 'a file with a section `data`' in capsys.readouterr().err


@pytest.fixture
def recordings(monkeypatch, spec, vocabulary):
    """Return the test split that the command will find, with samples to corrupt."""
    clips = Recordings(spec, 7)
    monkeypatch.setattr(evaluate, 'open_data', lambda settings, wanted, cache, progress: Splits(
        'Toys', spec, vocabulary, clips, clips, clips))
    return clips


def test_corrupted_sensors_are_scored(model, recordings, tmp_path, capsys, monkeypatch):
    out, words = tmp_path / 'out', ['--corruptions', 'black', 'hiss', '--severities', '1,5']
    report = run(out, model, *words)
    assert conforms(report, json_schema(ScoresReport, SCHEMA_ID))
    scores = report['models'][0]['corruptions']
    assert scores['severities'] == [1, 5]
    assert list(scores['sensors']['rgb']['corruptions']) == ['black']
    assert scores['sensors']['rgb']['corruptions']['black']['5']['masked'] == 1.0
    assert scores['sensors']['audio']['count'] == 4
    assert list(scores['pairs']) == ['V+A']
    printed = capsys.readouterr().out
    assert 'with corrupted sensors' in printed and '| hiss | 5 |' in printed
    assert (out / 'corruptions.png').is_file()
    assert '](corruptions.png)' in (out / 'README.md').read_text()
    recordings.reads.clear()
    assert run(out, model, *words) == report
    assert not recordings.reads  # nothing is predicted twice
    with monkeypatch.context() as patch:
        patch.setattr(corruptions, 'thresholds_of_checks', lambda modalities: {'max_clipped': 0.5})
        run(out, model, *words)
    assert recordings.reads  # other thresholds of the checks leave out other inputs
    assert 'corruptions' not in run(tmp_path / 'without', model)['models'][0]


def test_the_card_has_the_scores_of_the_corruptions(model, recordings, tmp_path):
    card = Path(model) / 'README.md'
    before = card.read_text()
    words = ['--corruptions', 'black', 'hiss', '--severities', '1,5', '--card']
    run(tmp_path / 'out', model, *words)
    written = card.read_text()
    assert '| hiss |' in written
    assert '1, checked' in written
    assert before.rstrip() in written
    run(tmp_path / 'out', model, *words)
    assert card.read_text() == written


def test_the_card_has_the_accuracy_and_the_calibration(model, recordings, tmp_path):
    card, folder = Path(model) / 'README.md', Path(model)
    before = load_bundle(folder)
    save_calibration(folder, Calibration(
        {(Modality.RGB,): SubsetCalibration({'verb': 2.0}, -3.0)}, 0.05, '800 clips'))
    card.write_text('# m\n\n## Top-1 accuracy on 9 test clips, %\n\nreplaced\n\n'
                    '## Corrupted sensors\n\nkept\n')
    report = run(tmp_path / 'out', model, '--card')
    written = card.read_text()
    assert re.search(r'^## Top-1 accuracy on \d+ test clips, %$', written, re.M)
    assert 'replaced' not in written and '\nkept\n' in written
    assert written.index('## Top-1') < written.index('## Corrupted') < written.index('## Confid')
    best = report['models'][0]['subsets']['V']['scores']['verb']['top1']
    assert f'| V | {100 * best:.1f} |' in written
    stored = load_bundle(folder)
    assert stored.metrics['test_top1']['V']['verb'] == best and stored.sha256 == before.sha256
    assert 'were fitted on 800 clips' in written and '| V | 2.00 |' in written
    run(tmp_path / 'out', model, '--card')
    assert card.read_text() == written


@pytest.mark.parametrize(('words', 'message'), [
    (['--corruptions', 'fog'], 'of rgb: black, frozen, covered'),
    (['--corruptions', '--severities', '0,1'], 'integers from 1 to 5'),
    (['--corruptions', '--severities', 'worst'], 'integers from 1 to 5'),
    (['--card', '--exports'], 'model directories, and neither --exports nor --subsets'),
    (['--card', '--subsets', 'V'], 'model directories, and neither --exports nor --subsets'),
])
def test_an_unknown_corruption_is_refused_before_the_work(
    model, toys, tmp_path, capsys, words, message
):
    assert main(['evaluate', model, *words, '--out', str(tmp_path / 'out')]) == 2
    assert message in ' '.join(capsys.readouterr().err.split())
    assert not toys.served
