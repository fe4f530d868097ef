"""The JSON, tables and figures of an evaluation agree; a card names the heads of its model."""

import json

from conforming import conforms
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.model_card import model_card
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.evaluation.report import (
    describe,
    markdown,
    SCHEMA_ID,
    ScoredData,
    ScoredModel,
    ScoresReport,
    write_report,
)
from karmma_ros.evaluation.schema import json_schema, to_json
from karmma_ros.modality import Modality, subset_name, subsets
from karmma_ros.prediction import Vocabulary
import numpy as np
import pytest

V, F, A = Modality.RGB, Modality.FLOW, Modality.AUDIO
DATA = ScoredData('Toy Kitchen', 'test', 4, {'dataset': 'toy'})


def model(system, right, modalities=(V, A), present=None, heads=('verb', 'noun')):
    """Return a model whose heads are right exactly where `right` is true, subset → [n]."""
    present = np.ones((4, len(modalities)), bool) if present is None else np.array(present)
    logits = {}
    for subset in subsets(modalities):
        if subset_name(subset) in right:
            has = present[:, [modalities.index(m) for m in subset]].all(1)
            hit = np.array(right[subset_name(subset)], bool)
            scores = np.where(has[:, None], np.stack([hit, ~hit], 1) * 9.0, np.nan)
            logits[subset_name(subset)] = dict.fromkeys(heads, scores.astype(np.float32))
    labels = dict.fromkeys(heads, np.zeros(4, np.int64))
    return ScoredModel(
        system, f'{system}@1', DatasetPredictions(modalities, logits, present, labels)
    )


GOOD = {'V+A': [1, 1, 1, 1], 'V': [1, 1, 1, 0], 'A': [1, 0, 0, 0]}
BAD = {'V+A': [1, 1, 0, 0], 'V': [1, 1, 1, 0], 'A': [0, 0, 0, 0]}


def test_figures_by_hand():
    report = describe(DATA, [model('good', GOOD), model('bad', BAD)])
    good, bad = report.models
    assert {s: each.scores['action'].top1 for s, each in good.subsets.items()} == {
        'V+A': 1.0, 'V': 0.75, 'A': 0.25}
    assert good.subsets['V'].count == 4
    assert good.average_accuracy == pytest.approx(2 / 3)
    assert good.relative_drop == pytest.approx(0.5)
    assert good.dropout_curve['action'][0] == 1.0
    assert good.dropout_curve['action'][5] == pytest.approx(0.25 * 1 + 0.375 * (0.75 + 0.25))
    assert report.average_rank == pytest.approx({'good': (1 + 1.5 + 1) / 3,
                                                    'bad': (2 + 1.5 + 2) / 3})
    assert report.format == 'karmma_ros.scores/2' and report.joint_head == 'action'


def test_files_and_tables_agree(tmp_path):
    report = write_report(tmp_path / 'out', DATA, [model('good', GOOD), model('bad', BAD)])
    folder = tmp_path / 'out'
    assert json.loads((folder / 'scores.json').read_text()) == to_json(report, digits=None)
    text = (folder / 'README.md').read_text()
    assert '# Scores on Toy Kitchen, test split, 4 clips' in text
    assert '## good (good@1)' in text
    assert '| V | 4 | 75.0 | 100.0 | 75.0 | 100.0 | 75.0 | 100.0 |' in text
    assert '| good | 66.7 | 50.0 | 1.17 |' in text
    assert '| good | 100.0 | 90.5 |' in text  # 0.81 + (0.09 + 0.005) · (0.75 + 0.25)
    for figure in ('subsets', 'dropout_curve', 'calibration_1', 'calibration_2'):
        assert (folder / f'{figure}.png').is_file()
        assert f']({figure}.png)' in text
    assert 'different numbers of clips' not in text


def test_json_has_no_nan(tmp_path):
    lacking = model('lacking', GOOD, present=[[True, False]] * 2 + [[False, True]] * 2)
    write_report(tmp_path, DATA, [lacking])
    text = (tmp_path / 'scores.json').read_text()
    assert 'NaN' not in text
    report = json.loads(text)
    assert report['models'][0]['relative_drop'] is None  # nobody has every sensor
    assert report['average_rank'] is None


def test_clips_that_lack_sensors_are_reported():
    report = describe(DATA, [model('one', GOOD, present=[[True, True]] * 3 + [[True, False]])])
    assert report.models[0].subsets['V+A'].count == 3
    assert 'rows with different numbers of clips are about different clips' in markdown(report)


def test_seeds_of_one_system_are_averaged():
    report = describe(DATA, [model('ours', GOOD), model('ours', BAD), model('other', GOOD)])
    text = markdown(report)
    assert '| ours (mean of 2) | 54.2 |' in text  # (8 + 5) / 24
    assert report.average_rank['other'] < report.average_rank['ours']


def test_some_subsets_make_no_average(tmp_path):
    report = write_report(tmp_path, DATA, [model('some', {'V': GOOD['V']})])
    assert report.models[0].dropout_curve is None
    assert np.isnan(report.models[0].average_accuracy)
    text = (tmp_path / 'README.md').read_text()
    assert 'Not every subset was scored' in text and 'Robustness' not in text
    assert not (tmp_path / 'dropout_curve.png').exists()


def test_one_head_has_no_second_column_for_the_action():
    text = markdown(describe(DATA, [model('one', GOOD, heads=('action',))]))
    assert '| sensors | clips | action top-1 | action top-5 | action calibration error |' in text


def test_systems_with_other_sensors_are_ranked_on_their_common_subsets():
    other = {'V+F': [1] * 4, 'V': [1] * 4, 'F': [0] * 4}
    report = describe(DATA, [model('va', GOOD), model('vf', other, (V, F))])
    assert report.average_rank == {'va': 2, 'vf': 1}
    assert 'different sensors' in markdown(report)
    apart = describe(DATA, [model('v', {'V': [1] * 4}, (V,)), model('f', {'F': [1] * 4}, (F,))])
    assert apart.average_rank is None


def test_models_with_other_heads_do_not_stand_side_by_side():
    with pytest.raises(InvalidSettingError, match='all with the same heads'):
        describe(DATA, [model('a', GOOD), model('b', GOOD, heads=('verb',))])
    with pytest.raises(InvalidSettingError, match='at least one'):
        describe(DATA, [])


@pytest.mark.parametrize('column', [GOOD, {'V': GOOD['V']}])
def test_the_schema_describes_the_scores(column, tmp_path):
    write_report(tmp_path, DATA, [model('ours', column), model('other', column)])
    report = json.loads((tmp_path / 'scores.json').read_text())
    schema = json_schema(ScoresReport, SCHEMA_ID)
    assert conforms(report, schema)
    assert not conforms({**report, 'joint': 'action'}, schema)
    assert not conforms({**report, 'heads': 'verb'}, schema)


def test_html_in_names_is_text_in_the_card():
    card = model_card(
        name='<b>m', dataset='<script>', parameters=1, clips=1, command='x', provenance='y',
        vocabulary=Vocabulary({'action': ('<img src=x onerror=alert(1)>', 'cut')}), scores={})
    assert '&lt;img src=x onerror=alert(1)>, cut' in card and '# &lt;b>m' in card
    assert not any(tag in card for tag in ('<img', '<b>', '<script'))


@pytest.mark.parametrize(('heads', 'words', 'joint'), [
    (('verb', 'noun'), 'It recognises a verb and a noun from',
     'An action is right when its verb and its noun are.'),
    (('action',), 'It recognises an action from', ''),
    (('verb', 'noun', 'tool'), 'It recognises a verb, a noun and a tool from',
     'An action is right when its verb and its noun and its tool are.')])
def test_the_card_names_each_head(heads, words, joint):
    card = model_card(
        name='m', dataset='none', parameters=1, clips=1, command='x', provenance='y',
        vocabulary=Vocabulary(dict.fromkeys(heads, ('a', 'b'))),
        scores={'V': dict.fromkeys(heads, 0.5)})
    assert words in card and joint in card
    assert ('An action is right' in card) == bool(joint)
