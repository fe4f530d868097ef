"""The cheap faults in a short form, and the suite's own parts; `make faults` runs all."""

import json
from pathlib import Path

from fault_suite import churn, day, fuzz, model_files
from fault_suite.case import Case, case, Trial
from fault_suite.hostile import CORRUPTIONS
from fault_suite.oracle import Oracle, Rules
from fault_suite.proc import rise, usage
from fault_suite.registry import CASES
from fault_suite.report import FIGURES, merge, PAGE, render
import pytest

SHORT = {
    'churn': (churn.run, {'events': 500}),
    'fuzz': (fuzz.run, {'number': 4000}),
    'day': (day.run, {'hours': 1 / 6}),
    'model_files': (model_files.run, {'corruptions': list(CORRUPTIONS)}),
}


@pytest.mark.parametrize('name', SHORT)
def test_short_form(name):
    fault, settings = SHORT[name]
    trial = fault.run(**fault.settings(**settings))
    assert trial.requirements and trial.failures == []


def test_every_case_has_its_texts_and_its_name():
    assert len(CASES) == 17
    for name, fault in CASES.items():
        assert fault.name == name
        for quick in (True, False):
            assert '{' not in fault.description.format(**fault.settings(quick))
        assert set(fault.quick) <= set(fault.full)


def make_case(passed: bool) -> Case:
    @case('probe', 'A probe', 'Done {times} times.', full={'times': 3}, quick={'times': 1})
    def probe(trial: Trial, times: int) -> None:
        trial.require('it holds', passed, times)
    return probe


def test_a_case_fails_by_a_requirement_by_an_exception_and_without_requirements():
    assert make_case(True).run(times=1).passed
    assert not make_case(False).run(times=1).passed
    crash = case('crash', 'A crash', '')(lambda trial: 1 / 0)
    trial = crash.run()
    assert not trial.passed and 'ZeroDivisionError' in trial.failures[0].observed
    assert not case('idle', 'Nothing', '')(lambda trial: None).run().passed


def test_the_page_keeps_results_of_other_runs_and_marks_failures(tmp_path):
    facts = {'machine': {'processor': 'p', 'cores': '2', 'python': '3', 'ros': 'r', 'torch': 't'},
             'date': '2026-01-02', 'command': 'make faults'}
    for name, passed in (('first', True), ('second', False), ('first', True)):
        merge(tmp_path, {name: {**make_case(passed).record(quick=False), **facts}},
              ['second', 'first'])
    result = json.loads((tmp_path / FIGURES).read_text(encoding='utf-8'))
    assert list(result) == ['second', 'first'] and result['first']['settings'] == {'times': 3}
    page = (tmp_path / PAGE).read_text(encoding='utf-8')
    assert 'Done 3 times.' in page and '| it holds | 3 | **failed** |' in page
    assert '[A probe](#second) | 0 of 1 | **failed**' in page


def test_the_committed_page_is_that_of_its_data_and_of_these_cases():
    docs = Path(__file__).parents[2] / 'docs'
    data = json.loads((docs / FIGURES).read_text(encoding='utf-8'))
    assert (docs / PAGE).read_text(encoding='utf-8') == render(data, figure=True)
    assert list(data) == list(CASES)
    for name, entry in data.items():
        assert entry['title'] == CASES[name].title
        assert entry['description'] == CASES[name].description.format(**entry['settings'])


def test_the_oracle_by_hand():
    second = 1_000_000_000
    rules = Rules(second, 4, 16_000, {'rgb': second, 'flow': second, 'audio': second // 2,
                                      'detections': second}, 160)
    oracle = Oracle(rules)
    assert oracle.result(0) is None
    for quarter in range(4, 8):
        stamp = quarter * second // 4
        oracle.note('rgb', stamp, stamp, stamp)
    # Four slots of a second, then three quarters of them, then the camera is too old.
    assert oracle.result(2 * second) == (7 * second // 4, ('rgb', 'flow'))
    assert oracle.result(2 * second) is None
    oracle.note('audio', second, 2 * second, 2 * second)
    assert oracle.result(2 * second) == (2 * second, ('rgb', 'flow', 'audio'))
    assert oracle.available(2 * second + second // 2) == ('rgb', 'flow', 'audio')
    assert oracle.available(2 * second + second // 2 + 1) == ('rgb', 'flow')
    assert oracle.available(3 * second) == ()


def test_a_straight_rise_is_measured_and_a_level_has_none():
    assert rise([10, 11, 12, 13]) == pytest.approx(3)
    assert rise([5, 7, 5, 7, 5]) == pytest.approx(0, abs=1e-9)


def test_usage_sees_memory_and_files(tmp_path):
    before = usage()
    block = bytearray(b'x' * 50_000_000)
    with open(tmp_path / 'file', 'w'):
        after = usage()
    assert after.rss - before.rss > 40_000_000 and after.files == before.files + 1
    assert len(block) and before.threads >= 1
