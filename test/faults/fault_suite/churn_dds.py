"""Intermittent sensors at random, in real time between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
import time

from fault_suite.case import case, Trial
from fault_suite.models import make_model, SPEC
from fault_suite.monitor import node_monitor, NodeMonitor, ReceivedMessage, repeated, used
from fault_suite.processes import ALL, node_process, sender_process, SenderProcess
from fault_suite.ros import domain

TIMEOUTS_S = {'camera': 0.5, 'microphone': 0.3, 'detector': 0.7}
FEEDS = {'camera': ('rgb', 'flow'), 'microphone': ('audio',), 'detector': ('detections',)}
RATE_HZ = 10.0
SLACK_S = 0.7
"""Delay that three processes on a busy machine may add between a switch and its effect."""


@dataclass
class History:
    """When one sensor was switched to which state: on, off, or a fault."""

    changes: list[tuple[float, bool | str]] = field(default_factory=list)

    def steady(self, start: float, stop: float) -> bool | str | None:
        """Return the state that it had from `start` to `stop` without a break; None without."""
        before = [state for time_s, state in self.changes if time_s <= start]
        during = [time_s for time_s, _ in self.changes if start < time_s < stop]
        return before[-1] if before and not during else None


def _play(
    monitor: NodeMonitor, sender: SenderProcess, events: int, seed: int
) -> dict[str, History]:
    """Switch random sensors after random times, half of them short."""
    random, on = Random(seed), set(ALL)
    histories = {name: History([(0.0, False)]) for name in ALL}

    def switch() -> None:
        time_s = sender.switch(*on)
        for name, history in histories.items():
            if history.changes[-1][1] != (name in on):
                history.changes.append((time_s, name in on))

    switch()
    monitor.spin(3.0)
    for _ in range(events):
        on ^= {random.choice(ALL)}
        switch()
        low, high = random.choice(((0.02, 0.3), (0.5, 1.5)))
        monitor.spin(random.uniform(low, high))
    return histories


def _wrong(received: ReceivedMessage, histories: dict[str, History]) -> tuple[list[str], int]:
    """Return which inputs of a result are certainly wrong, and how many could be checked."""
    wrong, checked, mask = [], 0, used(received.message)
    for name, history in histories.items():
        # On for a whole window: it must be in. Off for longer than its timeout: it must not.
        now = received.time
        on = history.steady(now - SPEC.duration - SLACK_S, now) is True
        off = history.steady(now - TIMEOUTS_S[name] - SLACK_S, now) is False
        for modality in FEEDS[name] if on or off else ():
            checked += 1
            if (modality in mask) != on:
                wrong.append(f'{modality} {"missing" if on else "stale"}')
    return wrong, checked


def _check(trial: Trial, monitor: NodeMonitor, histories: dict[str, History]) -> None:
    checks = [_wrong(received, histories) for received in monitor.results]
    wrong = [w for problems, _ in checks for w in problems]
    checked, all_ = sum(n for _, n in checks), 4 * len(checks)
    trial.require('no input is in the mask that was silent for its timeout and 0.7 s, and none is '
                  'missing that sent for a window and 0.7 s', not wrong,
                  f'{len(wrong)} wrong of {checked} checked ({checked / max(all_, 1):.0%} of '
                  'all): '
                  f'{", ".join(sorted(set(wrong)))}')
    trial.require('at least a quarter of all could be checked', checked > all_ / 4,
                  f'{checked} of {all_}')
    old = [s for h in monitor.results for s in h.message.modalities
           if s.used and s.age > s.timeout + 1e-6]
    trial.require('no result uses an input that is older than its timeout, by its reported age',
                  not old,
                  f'{len(old)} of {len(monitor.results)} results')
    trial.require('never two results for one window', not repeated(monitor.results),
                  f'{repeated(monitor.results)} of {len(monitor.results)}')
    numbers = [h.message.sequence for h in monitor.results]
    trial.require('no result is dropped', numbers == list(
        range(numbers[0], numbers[0] + len(numbers))) if numbers else False,
        f'{len(numbers)} of {numbers[-1] - numbers[0] + 1 if numbers else 0}')


@case('churn_dds', 'Intermittent sensors, between processes', (
    'Real time: {events} random switches of camera, microphone and detector in a process of their '
    'own (seed {seed}); the results of the node, another process, are checked where timing leaves '
    'no doubt.'),
    full={'events': 300, 'seed': 11}, quick={'events': 25}, limit_s=400)
def run(trial: Trial, events: int, seed: int) -> None:
    """Switch sensors at random and check the results."""
    with TemporaryDirectory() as folder, domain(), node_monitor() as monitor, \
            sender_process() as sender:
        parameters = {'model': make_model(Path(folder, 'random')), 'threads': 1,
                      'autostart': True, 'rate': RATE_HZ,
                      **{f'{FEEDS[name][0]}.timeout': t for name, t in TIMEOUTS_S.items()}}
        sender.switch(*ALL)
        with node_process(parameters):
            if not trial.require('there are results', monitor.result(60), len(monitor.results)):
                return
            monitor.results.clear()
            started = time.monotonic()
            histories = _play(monitor, sender, events, seed)
            _check(trial, monitor, histories)
            trial.figures.update(events=events, seconds=round(time.monotonic() - started),
                                 results=len(monitor.results))
