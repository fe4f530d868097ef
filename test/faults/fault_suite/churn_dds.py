"""Sensors that come and go at random, in real time between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
import time

from fault_suite.audience import audience, DemoMonitor, DetectedAction, repeated, used
from fault_suite.case import case, Trial
from fault_suite.models import make_model, SPEC
from fault_suite.processes import ALL, node_process, sender_process, SenderProcess
from fault_suite.ros import domain

TIMEOUTS_S = {'camera': 0.5, 'microphone': 0.3, 'detector': 0.7}
FEEDS = {'camera': ('rgb', 'flow'), 'microphone': ('audio',), 'detector': ('detections',)}
RATE_HZ = 10.0
SLACK_S = 0.7
"""What three processes on a busy machine may add between a switch and what it brings about."""


@dataclass
class History:
    """When one sensor was switched on and off."""

    changes: list[tuple[float, bool]] = field(default_factory=list)

    def steadily(self, on: bool, start: float, stop: float) -> bool:
        """Return whether it was on (or off) from `start` to `stop` without a break."""
        before = [state for moment, state in self.changes if moment <= start]
        during = [moment for moment, _ in self.changes if start < moment < stop]
        return bool(before) and before[-1] == on and not during


def _play(
    ears: DemoMonitor, sender: SenderProcess, events: int, seed: int
) -> dict[str, History]:
    """Switch random sensors after random times, half of them short."""
    random, on = Random(seed), set(ALL)
    histories = {name: History([(0.0, False)]) for name in ALL}

    def switch() -> None:
        moment = sender.switch(*on)
        for name, history in histories.items():
            if history.changes[-1][1] != (name in on):
                history.changes.append((moment, name in on))

    switch()
    ears.listen(3.0)
    for _ in range(events):
        on ^= {random.choice(ALL)}
        switch()
        low, high = random.choice(((0.02, 0.3), (0.5, 1.5)))
        ears.listen(random.uniform(low, high))
    return histories


def _wrong(heard: DetectedAction, histories: dict[str, History]) -> tuple[list[str], int]:
    """Say which inputs of a result are wrong for sure, and how many could be judged."""
    wrong, judged, mask = [], 0, used(heard.message)
    for name, history in histories.items():
        # On for a whole window: it must be in. Off for longer than its timeout: it must not.
        on = history.steadily(True, heard.time - SPEC.duration - SLACK_S, heard.time)
        off = history.steadily(False, heard.time - TIMEOUTS_S[name] - SLACK_S, heard.time)
        for modality in FEEDS[name] if on or off else ():
            judged += 1
            if (modality in mask) != on:
                wrong.append(f'{modality} {"missing" if on else "stale"}')
    return wrong, judged


def _judge(trial: Trial, ears: DemoMonitor, histories: dict[str, History]) -> None:
    verdicts = [_wrong(heard, histories) for heard in ears.results]
    wrong = [w for found, _ in verdicts for w in found]
    judged, all_ = sum(n for _, n in verdicts), 4 * len(verdicts)
    trial.demand('no input is in the mask that was silent for its timeout and 0.7 s, none missing '
                 'that sent for a window and 0.7 s', not wrong,
                 f'{len(wrong)} wrong of {judged} judged ({judged / max(all_, 1):.0%} of all): '
                 f'{", ".join(sorted(set(wrong)))}')
    trial.demand('at least a quarter of all could be judged', judged > all_ / 4,
                 f'{judged} of {all_}')
    old = [s for h in ears.results for s in h.message.modalities
           if s.used and s.age > s.timeout + 1e-6]
    trial.demand('no result rests on an input older than its timeout, by its own word', not old,
                 f'{len(old)} of {len(ears.results)} results')
    trial.demand('never two results for one window', not repeated(ears.results),
                 f'{repeated(ears.results)} of {len(ears.results)}')
    numbers = [h.message.sequence for h in ears.results]
    trial.demand('no result is lost', numbers == list(
        range(numbers[0], numbers[0] + len(numbers))) if numbers else False,
        f'{len(numbers)} of {numbers[-1] - numbers[0] + 1 if numbers else 0}')


@case('churn_dds', 'Sensors that come and go, between processes', (
    'Real time: {events} random switches of camera, microphone and detector in a process of their '
    'own (seed {seed}); the results of the node, another process, are judged where there can be '
    'no doubt.'),
    full={'events': 300, 'seed': 11}, quick={'events': 25}, limit_s=400)
def run(trial: Trial, events: int, seed: int) -> None:
    """Switch and listen."""
    with TemporaryDirectory() as folder, domain(), audience() as ears, sender_process() as sender:
        parameters = {'model': make_model(Path(folder, 'random')), 'threads': 1,
                      'autostart': True, 'rate': RATE_HZ,
                      **{f'{FEEDS[name][0]}.timeout': t for name, t in TIMEOUTS_S.items()}}
        sender.switch(*ALL)
        with node_process(parameters):
            if not trial.demand('results come', ears.result(60), len(ears.results)):
                return
            ears.results.clear()
            started = time.monotonic()
            histories = _play(ears, sender, events, seed)
            _judge(trial, ears, histories)
            trial.figures.update(events=events, seconds=round(time.monotonic() - started),
                                 results=len(ears.results))
