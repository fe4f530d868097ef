"""Publishers that do not agree with each other, or with what the node asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fault_suite.audience import audience, DemoMonitor, used
from fault_suite.case import case, Trial
from fault_suite.models import make_model
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
SHY_CAMERA = {**CAMERA, 'reliable': False}
STRANGER = {'name': 'stranger', 'kind': 'compressed', 'topic': 'image', 'rate': 10}
_LONGEST_GAP_S = 2.5


def _problem(ears: DemoMonitor, part: str, *words: str, limit_s: float = 10.0) -> str:
    """Wait until the diagnostics of a part are an error or warning that has all the words."""
    def said() -> bool:
        status = ears.status(part)
        return bool(status) and status.level > b'\x00' and all(
            word in status.message for word in words)
    ears.until(said, limit_s)
    status = ears.status(part)
    return f'level {ord(status.level)}: {status.message}' if status else 'nothing'


def _longest_gap(ears: DemoMonitor, before: int, names: set[str], since: float) -> float:
    """Return the longest time without a result that rests on the inputs named."""
    times = [h.time for h in ears.results[before:] if names <= set(used(h.message))]
    times = [since, *(t for t in times if t >= since)]
    return max((b - a for a, b in zip(times, times[1:])), default=99.0)


def _two(
    trial: Trial, ears: DemoMonitor, model: Path, first: Mapping[str, Any],
    second: Mapping[str, Any], part: str, what: str, seconds: float,
) -> None:
    """Let two publishers of one topic send at the same time."""
    ears.listen(0.5)  # the last results of another node
    begun = len(ears.results)
    with node_process(_parameters(model)) as node, sender_process((first,)) as one, \
            sender_process((second,)) as other:
        one.switch(first['name'])
        ears.until(lambda: any(part in used(h.message) for h in ears.results[begun:]), 60)
        other.switch(second['name'])
        before, since = len(ears.results), ears.results[-1].time if ears.results else 0.0
        ears.listen(seconds)
        other.switch()
        sent = other.sent[second['name']]
        gap = _longest_gap(ears, before, {part}, since)
        status = ears.status(part)
        facts = {v.key: v.value for v in status.values} if status else {}
        trial.demand(f'{what}: results from {part} go on, none later than {_LONGEST_GAP_S} s '
                     'after the one before', gap <= _LONGEST_GAP_S and sent > 0,
                     f'longest gap {gap:.2f} s; {sent} messages of the second one and as many of '
                     f'the first, {facts.get("dropped")} dropped')
        said = status.message if status else 'nothing'
        trial.demand(f'{what}: diagnostics say that there are two and how to part them',
                     '2 publishers' in said and 'remap' in said, said)
        trial.demand(f'{what}: the node lives and ends in order', node.end() == 0,
                     node.process.returncode)


def _parameters(model: Path, **changes: Any) -> dict[str, Any]:
    return {'model': model, 'threads': 1, 'autostart': True, 'rate': 10.0, **changes}


def _wrong_qos(trial: Trial, ears: DemoMonitor, model: Path) -> None:
    parameters = _parameters(model, **{'rgb.qos': 'reliable'})
    with node_process(parameters), sender_process((SHY_CAMERA,)) as sender:
        sender.switch('camera')
        said = _problem(ears, 'rgb', 'rgb.qos')
        trial.demand('best-effort camera, rgb.qos reliable: diagnostics name the problem and '
                     'rgb.qos, which mends it', 'rgb.qos' in said and said.startswith('level 2'),
                     said)
        ears.set_parameter('rgb.qos', 'auto')
        result = ears.result_with('rgb', 'flow', limit_s=10)
        trial.demand('rgb.qos set to auto while it runs: results come', result,
                     'results' if result else 'none in 10 s')
        said = ears.until(lambda: (s := ears.status('rgb')) and s.level == b'\x00', 10)
        trial.demand('and the diagnostics are well again', said, said)


def _auto(trial: Trial, ears: DemoMonitor, model: Path, stream: Mapping[str, Any]) -> None:
    kind = 'reliable' if stream.get('reliable', True) else 'best-effort'
    with node_process(_parameters(model)), sender_process((stream,)) as sender:
        sender.switch('camera')
        result = ears.result_with('rgb', 'flow', limit_s=30)
        trial.demand(f'rgb.qos auto receives from a {kind} camera', result,
                     'results' if result else 'none in 30 s')


def _wrong_type(trial: Trial, ears: DemoMonitor, model: Path) -> None:
    """Publish another type on the camera's topic, beside a good microphone."""
    with node_process(_parameters(model)) as node, \
            sender_process((STRANGER, MICROPHONE, DETECTOR)) as sender:
        sender.switch('stranger', 'microphone')
        result = ears.result_with('audio', limit_s=30)
        trial.demand('CompressedImage on the topic image: results from sound come all the same',
                     result, 'results' if result else 'none in 30 s')
        said = _problem(ears, 'rgb', 'CompressedImage')
        trial.demand('and the diagnostics name the wrong type', 'CompressedImage' in said, said)
        trial.demand('and the node ends in order', node.end() == 0, node.process.returncode)


@case('publishers', 'Publishers that do not agree', (
    'Two cameras of different sizes and two microphones whose stamps differ by 20 s publish on '
    'one topic for {seconds:g} s; a best-effort camera meets rgb.qos reliable; another message '
    'type is published on the camera’s topic.'),
    full={'seconds': 12.0}, quick={'seconds': 2.0}, limit_s=400)
def run(trial: Trial, seconds: float) -> None:
    """Go through all kinds of disagreement."""
    with TemporaryDirectory() as folder, domain(), audience() as ears:
        model = make_model(Path(folder, 'random'))
        _two(trial, ears, model, CAMERA, SECOND_CAMERA, 'rgb', 'two cameras', seconds)
        _two(trial, ears, model, MICROPHONE, SECOND_MICROPHONE, 'audio', 'two microphones',
             seconds)
        _wrong_qos(trial, ears, model)
        _auto(trial, ears, model, CAMERA)
        _auto(trial, ears, model, SHY_CAMERA)
        _wrong_type(trial, ears, model)
