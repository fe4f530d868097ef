"""Publishers that are incompatible with each other or with the subscriptions of the node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fault_suite.case import case, Trial
from fault_suite.models import make_model
from fault_suite.monitor import node_monitor, NodeMonitor, used
from fault_suite.processes import (
    CAMERA,
    DETECTOR,
    MICROPHONE,
    node_process,
    sender_process,
)
from fault_suite.ros import domain

SECOND_CAMERA = {**CAMERA, 'name': 'second_camera', 'fields': {'width': 64, 'height': 48}}
SECOND_MICROPHONE = {**MICROPHONE, 'name': 'second_microphone', 'shift': -20.0}
BEST_EFFORT_CAMERA = {**CAMERA, 'reliable': False}
COMPRESSED_CAMERA = {
    'name': 'compressed_camera', 'message': 'compressed', 'topic': 'image', 'rate': 10}
_LONGEST_GAP_S = 2.5


def _problem(monitor: NodeMonitor, part: str, *words: str, limit_s: float = 10.0) -> str:
    """Wait until the diagnostics of a part are an error or warning that has all the words."""
    def reported() -> bool:
        status = monitor.status(part)
        return bool(status) and status.level > b'\x00' and all(
            word in status.message for word in words)
    monitor.spin_until(reported, limit_s)
    status = monitor.status(part)
    return f'level {ord(status.level)}: {status.message}' if status else 'nothing'


def _longest_gap(monitor: NodeMonitor, before: int, names: set[str], since: float) -> float:
    """Return the longest time without a result that rests on the inputs named."""
    times = [h.time for h in monitor.results[before:] if names <= set(used(h.message))]
    times = [since, *(t for t in times if t >= since)]
    return max((b - a for a, b in zip(times, times[1:])), default=99.0)


def _two(
    trial: Trial, monitor: NodeMonitor, model: Path, first: Mapping[str, Any],
    second: Mapping[str, Any], part: str, what: str, seconds: float,
) -> None:
    """Let two publishers of one topic send at the same time."""
    monitor.spin(0.5)  # the last results of another node
    started = len(monitor.results)
    with node_process(_parameters(model)) as node, sender_process((first,)) as one, \
            sender_process((second,)) as other:
        one.switch(first['name'])
        monitor.spin_until(lambda: any(part in used(h.message) for h in monitor.results[started:]),
                         60)
        other.switch(second['name'])
        before, since = len(monitor.results), monitor.results[-1].time if monitor.results else 0.0
        monitor.spin(seconds)
        other.switch()
        sent = other.sent[second['name']]
        gap = _longest_gap(monitor, before, {part}, since)
        status = monitor.status(part)
        facts = {v.key: v.value for v in status.values} if status else {}
        trial.require(f'{what}: results from {part} continue, with gaps of at most '
                      f'{_LONGEST_GAP_S} s', gap <= _LONGEST_GAP_S and sent > 0,
                      f'longest gap {gap:.2f} s; {sent} messages of the second and as many of the '
                      f'first, {facts.get("dropped")} dropped')
        reported = status.message if status else 'nothing'
        trial.require(f'{what}: diagnostics report two publishers and how to separate them',
                      '2 publishers' in reported and 'remap' in reported, reported)
        trial.require(f'{what}: the node keeps running and exits in order', node.end() == 0,
                      node.process.returncode)


def _parameters(model: Path, **changes: Any) -> dict[str, Any]:
    return {'model': model, 'threads': 1, 'autostart': True, 'rate': 10.0, **changes}


def _wrong_qos(trial: Trial, monitor: NodeMonitor, model: Path) -> None:
    parameters = _parameters(model, **{'rgb.qos': 'reliable'})
    with node_process(parameters), sender_process((BEST_EFFORT_CAMERA,)) as sender:
        sender.switch('camera')
        reported = _problem(monitor, 'rgb', 'rgb.qos')
        trial.require('best-effort camera, rgb.qos reliable: diagnostics name the problem and '
                      'rgb.qos, which fixes it',
                      'rgb.qos' in reported and reported.startswith('level 2'),
                      reported)
        monitor.set_parameter('rgb.qos', 'auto')
        result = monitor.result_with('rgb', 'flow', limit_s=10)
        trial.require('rgb.qos set to auto at run time: there are results', result,
                      'results' if result else 'none in 10 s')
        ok = monitor.spin_until(
            lambda: (s := monitor.status('rgb')) and s.level == b'\x00', 10)
        trial.require('and the diagnostics are OK again', ok, ok)


def _auto(trial: Trial, monitor: NodeMonitor, model: Path, stream: Mapping[str, Any]) -> None:
    reliability = 'reliable' if stream.get('reliable', True) else 'best-effort'
    with node_process(_parameters(model)), sender_process((stream,)) as sender:
        sender.switch('camera')
        result = monitor.result_with('rgb', 'flow', limit_s=30)
        trial.require(f'rgb.qos auto receives from a {reliability} camera', result,
                      'results' if result else 'none in 30 s')


def _wrong_type(trial: Trial, monitor: NodeMonitor, model: Path) -> None:
    """Publish another type on the camera's topic, beside a good microphone."""
    with node_process(_parameters(model)) as node, \
            sender_process((COMPRESSED_CAMERA, MICROPHONE, DETECTOR)) as sender:
        sender.switch('compressed_camera', 'microphone')
        result = monitor.result_with('audio', limit_s=30)
        trial.require('CompressedImage on the topic image: there are still results from audio',
                      result, 'results' if result else 'none in 30 s')
        reported = _problem(monitor, 'rgb', 'CompressedImage')
        trial.require('and the diagnostics name the wrong type',
                      'CompressedImage' in reported, reported)
        trial.require('and the node exits in order', node.end() == 0, node.process.returncode)


@case('publishers', 'Incompatible publishers', (
    'Two cameras of different sizes and two microphones whose stamps differ by 20 s publish on '
    'one topic for {seconds:g} s; a best-effort camera meets rgb.qos reliable; another message '
    'type is published on the camera’s topic.'),
    full={'seconds': 12.0}, quick={'seconds': 2.0}, limit_s=400)
def run(trial: Trial, seconds: float) -> None:
    """Test each incompatibility."""
    with TemporaryDirectory() as folder, domain(), node_monitor() as monitor:
        model = make_model(Path(folder, 'random'))
        _two(trial, monitor, model, CAMERA, SECOND_CAMERA, 'rgb', 'two cameras', seconds)
        _two(trial, monitor, model, MICROPHONE, SECOND_MICROPHONE, 'audio', 'two microphones',
             seconds)
        _wrong_qos(trial, monitor, model)
        _auto(trial, monitor, model, CAMERA)
        _auto(trial, monitor, model, BEST_EFFORT_CAMERA)
        _wrong_type(trial, monitor, model)
