"""Reports are compared only where that is possible, with results as computed by hand."""

from dataclasses import replace
import json
from xml.etree import ElementTree

from karmma_ros.bags import report
from karmma_ros.bags.compare import chart, compare, markdown, read_report, side
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.bootstrap import (
    calibration,
    draw_resamples,
    f1,
    interval_of,
    mean,
    recall,
)
import numpy as np
import pytest
from simulated_bags import simulated_run


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Write reports on one bag, on five, on one without truth."""
    runs = [simulated_run(150, seed=i, path=f'/bags/b{i}') for i in range(5)]
    out = tmp_path_factory.mktemp('reports')
    report.write(out / 'one', runs[:1], {'id': 'toy'}, {})
    report.write(out / 'five', runs, {'id': 'toy'}, {})
    report.write(out / 'blind', [replace(runs[0], truth=None)], {'id': 'toy'}, {})
    return out


@pytest.fixture
def one(folders):
    return read_report(folders / 'one')


def by_name(comparison):
    return {each['name']: each for each in comparison['differences']}


def test_a_report_equals_itself(one):
    comparison = compare(side('a', one, None), side('b', one, None), 200)
    assert {each['verdict'] for each in comparison['differences']} <= {'equal', 'no interval'}
    assert all(each['difference'] == 0 for each in comparison['differences'])
    names = by_name(comparison)
    assert {'action top-1', 'verb top-5', 'noun mean recall', 'action calibration error',
            'announced', 'F1@25', 'edit', 'mean average precision',
            'delay of those that both announce'} <= set(names)
    assert names['action top-1']['a'] == pytest.approx(
        one['conditions'][0]['actions']['action']['top1'], abs=1e-6)
    assert names['noun mean recall']['a'] == pytest.approx(
        one['conditions'][0]['actions']['noun']['mean_recall'], abs=1e-6)


def test_one_sensor_is_worse_than_all(one):
    comparison = by_name(compare(side('all', one, None), side('sound', one, 'A'), 2000))
    top1 = comparison['action top-1']
    assert top1['verdict'] == 'A is better' and top1['interval'][1] < 0
    assert top1['difference'] == pytest.approx(top1['b'] - top1['a'])
    turned = by_name(compare(side('sound', one, 'A'), side('all', one, None), 2000))
    assert turned['action top-1']['verdict'] == 'B is better'
    assert turned['action top-1']['interval'] == pytest.approx(
        [-x for x in reversed(top1['interval'])])
    f1_score = comparison['F1@25']
    assert f1_score['interval'] is None and f1_score['verdict'] == 'no interval'


def test_less_is_better_for_delays(one):
    late = json.loads(json.dumps(one))
    columns = late['segments']['conditions']['as recorded']
    columns['delay_s'] = [None if x is None else x + 1 for x in columns['delay_s']]
    comparison = by_name(compare(side('a', one, None), side('b', late, None), 300))
    delay = comparison['delay of those that both announce']
    assert delay['difference'] == pytest.approx(1) and delay['verdict'] == 'A is better'
    assert delay['interval'] == pytest.approx((1, 1))


def test_bags_are_resampled_from_five_on(folders):
    five = read_report(folders / 'five')
    comparison = by_name(compare(side('a', five, None), side('b', five, 'A'), 1000))
    assert comparison['action top-1']['interval_of_bags'] is not None
    assert comparison['F1@25']['verdict'] == 'A is better'
    text = markdown(compare(side('a', five, None), side('b', five, 'A'), 200))
    assert '| over bags |' in text and '5 bags' in text


def test_equal_seeds_give_equal_intervals(one):
    a, b = side('a', one, None), side('b', one, 'V')
    assert compare(a, b, 500, 1) == compare(a, b, 500, 1)
    assert compare(a, b, 500, 1) != compare(a, b, 500, 2)


def test_the_interval_is_that_of_theory():
    rng = np.random.default_rng(0)
    a, b = rng.random(400) < 0.6, rng.random(400) < 0.7
    everything = np.ones(400, bool)
    statistics = [mean(a, everything), mean(b, everything)]
    low, high = interval_of(statistics, draw_resamples(400, 4000, 0))
    gap = b.astype(float) - a
    error = 1.96 * gap.std() / 20
    assert (low, high) == pytest.approx((gap.mean() - error, gap.mean() + error), abs=0.012)


def test_figures_of_resamples_by_hand():
    right = np.array([1.0, 0, 1, 1])
    mask, classes = np.ones(4, bool), np.array([0, 0, 1, 2])
    w = np.array([[1.0, 1, 1, 1], [2, 0, 2, 0], [0, 3, 0, 1]])
    assert mean(right, mask)(w).tolist() == [0.75, 1.0, 0.25]
    assert recall(right, mask, classes)(w) == pytest.approx([2.5 / 3, 1, 0.5])
    assert recall(right, classes < 2, classes)(w) == pytest.approx([0.75, 1, 0])
    sure = np.array([0.9, 0.91, 0.5, 0.5])
    assert calibration(right, sure, mask)(w[:1]) == pytest.approx([(0.81 + 1.0) / 4])
    assert f1(np.array([[2.0, 1, 1], [0, 0, 2]]))(np.array([[1.0, 1], [2, 0]])) == pytest.approx(
        [4 / 8, 8 / 12])


def test_other_bags_and_other_truth_are_refused(one, folders):
    a = side('first', one, None)
    with pytest.raises(InvalidSettingError, match='the same bags, in the same order'):
        compare(a, side('second', read_report(folders / 'five'), None))
    moved = json.loads(json.dumps(one))
    moved['segments']['start_ns'][2] += 1
    with pytest.raises(InvalidSettingError, match='another from number 3 on'):
        compare(a, side('second', moved, None))
    renamed = json.loads(json.dumps(one))
    renamed['segments']['names']['verb'][0] = 'fly'
    with pytest.raises(InvalidSettingError, match='same --ground-truth'):
        compare(a, side('second', renamed, None))
    with pytest.raises(InvalidSettingError, match='at least 100'):
        compare(a, a, 10)


def test_reports_that_cannot_be_compared(folders, tmp_path, one):
    with pytest.raises(InvalidSettingError, match='again with --ground-truth'):
        side('a', read_report(folders / 'blind'), None)
    with pytest.raises(InvalidSettingError, match=r'as recorded, V\+F\+A\+D'):
        side('a', one, 'V+X')
    with pytest.raises(InvalidSettingError, match='report.json that `karmma bag evaluate` wrote'):
        read_report(tmp_path / 'none.json')
    for text in ('{"format": "karmma_ros.bag_report/99"}', '[]', '{'):
        (tmp_path / 'report.json').write_text(text)
        with pytest.raises(InvalidSettingError):
            read_report(tmp_path)


def test_actions_that_one_of_both_cannot_name_do_not_count(one):
    less = json.loads(json.dumps(one))
    less['segments']['truth']['noun'][0] = -1
    comparison = by_name(compare(side('a', one, None), side('b', less, None), 100))
    count = len(one['segments']['bag'])
    assert comparison['noun top-1']['count'] == comparison['action top-1']['count'] == count - 1
    assert comparison['verb top-1']['count'] == count


def test_the_chart_is_a_file(one):
    comparison = compare(side('<a>', one, None), side('"b"', one, 'V'), 200)
    root = ElementTree.fromstring(chart(comparison))
    assert root.tag == '{http://www.w3.org/2000/svg}svg'
    shown = sum(e['unit'] == 'share' and e['interval'] is not None
                for e in comparison['differences'])
    drawn = [g for g in root.findall('.//{*}g') if g.get('id', '').startswith('difference-')]
    assert len(drawn) == shown > 0
    assert root.get('aria-label').startswith('"b" less <a>')
    assert '<a>' not in markdown(comparison)


def test_a_report_of_another_version_is_written_again(tmp_path):
    (tmp_path / 'report.json').write_text('{"format": "karmma_ros.bag_report/1"}')
    with pytest.raises(InvalidSettingError, match='run `karmma bag evaluate` again'):
        read_report(tmp_path)
