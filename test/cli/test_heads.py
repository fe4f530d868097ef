"""Models with one head and with three: bag evaluation, compare, predict and profile as typed."""

import json

import cv2
from karmma_ros.bags.compare import compare, markdown, read_report, side
from karmma_ros.cli.main import main
from karmma_ros.clip import AudioSpec, ClipSpec, VideoSpec
from karmma_ros.data.synthetic_kitchen.vocabulary import NOUNS, VERBS
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import save_bundle
from karmma_ros.model.presets import preset
from karmma_ros.prediction import Vocabulary
import numpy as np
import pytest
import torch

ACTIONS = tuple(f'{verb} {noun}' for verb in VERBS for noun in NOUNS)
MODELS = {'action': {'action': ACTIONS}, 'verb': {'verb': VERBS},
          'pair': {'verb': VERBS, 'noun': NOUNS},
          'tool': {'verb': VERBS, 'noun': NOUNS, 'tool': ('knife', 'none')}}


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'kitchen.mcap'
    assert main(['bag', 'synthetic', str(path), '--episodes', '2', '--seconds', '3', '--size',
                 '64x48', '--rate', '15']) == 0
    return path


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Write models with random weights, which use frames only, in windows of 0.8 s."""
    folder = tmp_path_factory.mktemp('models')
    spec = ClipSpec(duration=0.8, num_frames=8, video=VideoSpec(32, 32),
                    audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=32, tiles=2,
                                    tile_steps=40))
    for name, classes in MODELS.items():
        torch.manual_seed(0)
        config, names = preset('tiny'), Vocabulary(classes)
        save_bundle(folder / name, build(config, spec, names), config, spec, names,
                    dataset='none', card='x')
    return folder


@pytest.fixture(scope='module')
def evaluated(bag, models, tmp_path_factory):
    """Return a function that evaluates a model on the bag, once for equal words."""
    done = {}

    def evaluate(model, *words):
        key = (model, *map(str, words))
        if key not in done:
            out = tmp_path_factory.mktemp(model)
            assert main(['bag', 'evaluate', str(bag), '--model', str(models / model), '--out',
                         str(out), *map(str, words)]) == 0
            done[key] = out
        return done[key], read_report(done[key])
    return evaluate


@pytest.fixture(scope='module')
def truth(evaluated):
    """Return verb and noun of the two actions, as the truth topic of the bag names them."""
    names = evaluated('pair')[1]['segments']['names']
    return list(zip(names['verb'], names['noun']))


@pytest.fixture(scope='module')
def tables(truth, tmp_path_factory):
    folder = tmp_path_factory.mktemp('tables')
    for name, header, row in (
            ('action', 'action', lambda v, n: f'{v} {n}'), ('pair', 'verb,noun', '{},{}'.format),
            ('tool', 'verb,noun,tool', '{},{},knife'.format)):
        rows = [f'{3 * i},{3 * i + 3},{row(v, n)}' for i, (v, n) in enumerate(truth)]
        (folder / f'{name}.csv').write_text('\n'.join([f'start,stop,{header}', *rows]) + '\n')
    return folder


def test_a_table_of_one_column_scores_a_model_with_one_head(evaluated, tables, truth):
    out, report = evaluated('action', '--ground-truth', tables / 'action.csv', '--subsets')
    assert report['heads'] == ['action'] and report['joint_head'] == 'action'
    assert report['segments']['truth'] == {'action': [ACTIONS.index(f'{v} {n}') for v, n in truth]}
    scored = report['conditions'][0]['actions']
    assert list(scored) == ['action'] and scored['action']['count'] == 2
    assert not [w for w in report['warnings'] if 'action.csv' in w]
    assert list(report['robustness']) == [
        'probability', 'action', 'average_accuracy', 'relative_drop']
    page, text = ((out / name).read_text() for name in ('report.html', 'report.md'))
    assert 'action accuracy, top-1' in page and 'action top-1, %' in text
    assert 'verb' not in page.split('<script')[0].split('</style>')[1].replace(str(tables), '')
    assert ACTIONS[report['segments']['truth']['action'][0]] in page


def test_the_truth_topic_of_verb_and_noun_scores_a_model_with_one_head(evaluated, truth):
    _, report = evaluated('action')
    assert report['segments']['names'] == {'action': [f'{v} {n}' for v, n in truth]}
    assert report['conditions'][0]['actions']['action']['count'] == 2
    assert any('the model has the one head action: read as its class "verb noun"' in w
               for w in report['warnings'])
    _, report = evaluated('verb')
    assert report['segments']['names'] == {'verb': [v for v, _ in truth]}
    assert any('the model has no head noun, it is not scored' in w for w in report['warnings'])


def test_a_head_that_the_topic_cannot_name_is_not_scored_with_a_warning(evaluated, truth):
    out, report = evaluated('tool', '--subsets')
    assert list(report['conditions'][0]['actions']) == ['verb', 'noun']
    assert report['segments']['names']['noun'] == [n for _, n in truth]
    warnings = ' | '.join(report['warnings'])
    assert 'names no tool: that head is not scored' in warnings
    assert 'an event names verb and noun: of the head tool only the windows' in warnings
    assert report['robustness'] is None
    assert 'No true action has a class for every head' in (out / 'report.html').read_text()


def test_a_table_scores_all_three_heads(evaluated, tables):
    _, report = evaluated('tool', '--ground-truth', tables / 'tool.csv')
    scored = report['conditions'][0]['actions']
    assert list(scored) == ['verb', 'noun', 'tool', 'action']
    assert [each['count'] for each in scored.values()] == [2, 2, 2, 2]


def test_a_truth_of_one_class_does_not_fit_two_heads_and_the_other_way_round(
    evaluated, bag, models, tables, tmp_path, capsys,
):
    assert main(['bag', 'evaluate', str(bag), '--model', str(models / 'pair'), '--out',
                 str(tmp_path), '--ground-truth', str(tables / 'action.csv')]) == 2
    error = capsys.readouterr().err
    assert ('ones with verb or noun, the heads of the model (its column action is for a model '
            'with one head)') in error
    assert 'name the columns start, stop, verb, noun' in error
    _, report = evaluated('action', '--ground-truth', tables / 'pair.csv')
    assert report['conditions'][0]['actions']['action']['count'] == 2
    assert any('pair.csv names verb and noun, the model has the one head' in w
               for w in report['warnings'])


def test_reports_are_compared_by_the_heads_that_both_have(evaluated, tables):
    one, pair, verb = (side(n, evaluated(n)[1], None) for n in ('action', 'pair', 'verb'))
    names = [d['name'] for d in compare(one, one, 100)['differences']]
    assert names[:2] == ['action top-1', 'action top-5'] and 'F1@25' in names
    assert compare(one, one, 100)['left_out'] == []
    comparison = compare(verb, pair, 100)
    assert comparison['left_out'] == [
        'pair alone has the head noun: not compared',
        'the events of verb name verb, those of pair verb and noun: not compared']
    assert {d['name'] for d in comparison['differences']} <= {
        'verb top-1', 'verb top-5', 'verb mean recall', 'verb calibration error'}
    assert '- pair alone has the head noun: not compared' in markdown(comparison)
    with pytest.raises(ValueError, match='share a head'):
        compare(one, pair, 100)


@pytest.mark.parametrize('model', ['action', 'tool'])
def test_predict_names_each_head(models, model, tmp_path, capsys):
    video = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for _ in range(10):
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    writer.release()
    assert main(['predict', str(video), '--model', str(models / model), '--json']) == 0
    prediction = json.loads(capsys.readouterr().out)['prediction']
    assert list(prediction) == list(MODELS[model]) and all(prediction.values())
    assert main(['predict', str(video), '--model', str(models / model)]) == 0
    assert f'{list(MODELS[model])[-1]}: ' in capsys.readouterr().out
