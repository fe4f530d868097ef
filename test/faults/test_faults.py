"""The cheap faults in a short form, and the suite's own parts; `make faults` runs all."""

from itertools import combinations
import json
from pathlib import Path
import tempfile
import time
from types import SimpleNamespace

from fault_suite import churn, day, fuzz, lies, model_files
from fault_suite.case import Case, case, Trial
from fault_suite.hostile import CORRUPTIONS
from fault_suite.lies import check, Lie, plan
from fault_suite.monitor import ReceivedMessage
from fault_suite.oracle import Oracle, Rules
from fault_suite.proc import rise, usage
from fault_suite.registry import CASES
from fault_suite.report import FIGURES, merge, PAGE, render
from karmma_msgs.msg import ActionRecognition, ModalityStatus
from karmma_ros.node.messages import time_message
import pytest
from ros_domains import claimed_domain

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


_STALL_S = 0.15


def test_short_form_of_lies():
    for _ in range(3):
        trial = lies.run.run(**lies.run.settings(events=8))
        stalled = max(trial.figures.get(f'{each}_pause_s', 0) for each in ('sender', 'node'))
        if trial.passed or stalled < _STALL_S:  # a machine that stalls misses any time
            break
    assert trial.requirements and trial.failures == []


def test_lies_are_of_one_or_two_sensors_that_were_right_before():
    planned = plan(100, seed=3)
    assert len(planned) == 100 and planned == plan(100, seed=3) != plan(100, seed=4)
    overlaps = [sum(a.start < b.end and b.start < a.end for b in planned) for a in planned]
    assert set(overlaps) == {1, 2}  # with itself
    for a, b in combinations(planned, 2):
        assert a.sensor != b.sensor or b.start >= a.end + lies.CLEAN_S
    assert {(lie.sensor, lie.name) for lie in planned} == {
        (sensor, name) for sensor, names in lies.LIES.items() for name in names}


def observed_lie(reported=10.7, restored=13.0, samples=10, reason='black: mean 2', used=None):
    """Check ten results a second of a node whose camera is black from second 10 to 12."""
    trial, clock_s = Trial(), time.time() - time.monotonic()
    results = []
    for tenth in range(20, 160):
        now = tenth / 10
        failed = reported <= now < restored
        camera = {'state': ModalityStatus.UNINFORMATIVE if failed else ModalityStatus.AVAILABLE,
                  'used': not failed if used is None else used, 'num_samples': samples,
                  'detail': reason if failed else ''}
        steady = {'state': ModalityStatus.AVAILABLE, 'used': True}
        results.append(ReceivedMessage(now, ActionRecognition(
            window_end=time_message(round((now + clock_s) * 1e9)),
            modalities=[ModalityStatus(name=name, **fields) for name, fields in (
                ('rgb', camera), ('flow', camera), ('audio', steady), ('detections', steady))])))
    monitor = SimpleNamespace(results=results, availabilities=[])
    check(trial, monitor, [Lie('camera', 'black', 9.95, 11.95)], began=0.0)
    return [each.requirement for each in trial.failures]


@pytest.mark.parametrize('changes, failures', [
    ({}, []),
    ({'reported': 11.1}, ['within 1 s', 'each state', 'shown nothing for 1 s']),
    ({'restored': 13.7}, ['within a window', 'each state', 'right for a window']),
    ({'reason': 'constant'}, ['each state']),
    ({'used': True}, ['other than AVAILABLE', 'shown nothing for 1 s']),
    ({'samples': 32}, ['samples from before']),
])
def test_lies_fail_where_the_node_is_late_or_wrong(changes, failures):
    failed = observed_lie(**changes)
    assert len(failed) == len(failures)
    assert all(part in text for part, text in zip(failures, failed))


def test_every_case_has_its_texts_and_its_name():
    assert len(CASES) == 18
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


def test_cases_that_run_at_once_have_domains_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))  # not those of another run
    with claimed_domain([301, 302]) as first, claimed_domain([301, 302]) as second:
        assert {first, second} == {301, 302}
        with pytest.raises(RuntimeError, match='the ROS domains 301 to 302 are all claimed'):
            with claimed_domain([301, 302]):
                pass
    with claimed_domain([first]):
        pass
