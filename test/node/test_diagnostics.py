"""Levels and words of /diagnostics."""

from math import nan
from pathlib import Path
import re

from diagnostic_msgs.msg import DiagnosticStatus
from karmma_ros.modality import Modality
from karmma_ros.node.diagnostics import (
    diagnostics_message,
    inference_status,
    input_status,
    lifecycle_status,
    RateStats,
    WarningLog,
)
from karmma_ros.stream.availability import ModalityState, ModalityStatus
import pytest
import yaml

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
STATS = RateStats(5.0, (0.02, 0.03), (0.05, 0.08))


def values(status):
    return {pair.key: pair.value for pair in status.values}


@pytest.mark.parametrize(('state', 'level'), [
    (ModalityState.DISABLED, OK), (ModalityState.NEVER_RECEIVED, WARN),
    (ModalityState.STALE, WARN), (ModalityState.INSUFFICIENT, WARN),
    (ModalityState.INVALID, ERROR), (ModalityState.AVAILABLE, OK),
    (ModalityState.UNINFORMATIVE, WARN),
])
def test_the_level_follows_the_state(state, level):
    detail = '' if state is ModalityState.AVAILABLE else 'why not'
    status = input_status(ModalityStatus(Modality.AUDIO, state, detail=detail), {}, '')
    assert (status.level, status.name) == (level, 'audio')
    assert status.message == (detail or 'available')
    assert values(status)['state'] == state.name.lower()


def test_a_problem_with_the_topic_outweighs_what_came_through_it():
    stale = ModalityStatus(Modality.RGB, ModalityState.NEVER_RECEIVED, detail='nothing received')
    status = input_status(stale, {'topic': '/image'}, 'set rgb.qos to sensor_data')
    assert (status.level, status.message) == (ERROR, 'set rgb.qos to sensor_data')
    assert values(status)['topic'] == '/image'


@pytest.mark.parametrize(('state', 'detail', 'level', 'message'), [
    (ModalityState.AVAILABLE, '', WARN, 'set audio.channels'),
    (ModalityState.INSUFFICIENT, '1 of 2 s', WARN, '1 of 2 s; set audio.channels'),
    (ModalityState.INVALID, 'set audio.channels', WARN, 'set audio.channels'),
    (ModalityState.INVALID, 'no samples', ERROR, 'no samples; set audio.channels'),
    (ModalityState.UNINFORMATIVE, 'set audio.channels for 1.4 s', WARN,
     'set audio.channels for 1.4 s'),
])
def test_a_warning_is_at_least_a_warning(state, detail, level, message):
    status = ModalityStatus(Modality.AUDIO, state, detail=detail, warning='set audio.channels')
    result = input_status(status, {}, '')
    assert (result.level, result.message) == (level, message)
    assert input_status(status, {}, 'no publisher').message == 'no publisher'


def test_a_warning_is_logged_once_when_it_appears_and_once_when_it_ends():
    lines, throttled = [], [False]

    def write(level):
        def line(text, topic):
            if not throttled[0]:
                lines.append((level, text, topic))
            return not throttled[0]
        return line
    log = WarningLog(write('warn'), write('info'))

    def update(*warnings):
        for warning in warnings:
            log.update([
                ModalityStatus(Modality.AUDIO, ModalityState.AVAILABLE, warning=warning),
                ModalityStatus(Modality.RGB, ModalityState.AVAILABLE)])
    update('', 'a', 'a', 'b')
    throttled[0] = True
    update('', 'b', '')
    throttled[0] = False
    update('', '')
    assert lines == [
        ('warn', 'audio: a', 'audio content'), ('warn', 'audio: b', 'audio content'),
        ('info', 'audio: this warning has ended: b', 'audio content')]


def test_an_input_that_is_switched_off_has_no_problem():
    off = ModalityStatus(Modality.RGB, ModalityState.DISABLED, detail='disabled by its setting')
    assert input_status(off, {}, 'no publisher').level == OK


def test_inference_at_its_rate_and_slower():
    assert inference_status(STATS, 10, 0, 5.0, '').level == OK
    slow = inference_status(STATS, 10, 3, 10.0, '')
    assert slow.level == WARN and '10 requested' in slow.message
    assert values(slow)['latency p95 [s]'] == '0.030'
    assert values(slow)['skipped'] == '3'


def test_a_pause_is_no_error_and_a_blocking_reason_is():
    assert inference_status(STATS, 0, 0, 5.0, 'paused by ~/enable').level == OK
    status = inference_status(
        RateStats(0.0, (nan, nan), (nan, nan)), 0, 0, 5.0, '0 inputs can be used')
    assert status.level == ERROR and values(status)['age p50 [s]'] == 'unknown'


def test_names_distinguish_two_nodes_and_all_values_are_texts():
    message = diagnostics_message('/left/karmma', 7_000_000_000, [
        lifecycle_status('active'), inference_status(STATS, 1, 2, 5.0, '')])
    assert [s.name for s in message.status] == [
        'left/karmma: lifecycle', 'left/karmma: inference']
    assert message.header.stamp.sec == 7
    assert all(isinstance(pair.value, str) for s in message.status for pair in s.values)
    assert {s.hardware_id for s in message.status} == {'none'}


def test_the_aggregator_of_the_manual_matches_the_names():
    page = (Path(__file__).parents[2] / 'docs' / 'overlay.md').read_text(encoding='utf-8')
    block = next(b.partition('```')[0] for b in page.split('```yaml\n')[1:] if 'analyzers' in b)
    analyzer = yaml.safe_load(block)['analyzers']['ros__parameters']['recognition']
    prefixes = [*analyzer['startswith'], *re.findall(r"under a namespace: \['(.*?)'\]", block)]
    names = [diagnostics_message(name, 0, [lifecycle_status('active')]).status[0].name
             for name in ('/karmma', '/left/karmma')]
    assert [name.startswith(prefix) for name, prefix in zip(names, prefixes)] == [True, True]
    assert not 'karmma_overlay: image'.startswith(prefixes[0])


def test_texts_from_outside_are_one_line_and_shortened():
    status = ModalityStatus(Modality.AUDIO, ModalityState.INVALID, detail='\x1b[2J\n' * 10_000)
    result = input_status(status, {'format': '\u202e' * 10_000}, '')
    for text in (result.message, *(pair.value for pair in result.values)):
        assert text.isprintable() and len(text) <= 1000
    assert result.message.startswith('\\x1b[2J\\n')
