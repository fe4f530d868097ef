"""Sensors that come and go at random: every mask against the oracle's, on a simulated clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heapreplace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.node.messages import time_ns

from fault_suite import messages
from fault_suite.case import case, Trial
from fault_suite.models import make_model, SPEC
from fault_suite.oracle import AUDIO, BOXES, FLOW, NAMES, Oracle, RGB, Rules
from fault_suite.ros import domain
from fault_suite.simulation import ConstantAnswer, Simulation, simulation

MS = 1_000_000
START_NS = 1_700_000_000_032 * MS
"""A multiple of the sound's 64 ms, so that the oracle can count whole samples."""
TICK_NS = 200 * MS
TIMEOUTS_NS = {RGB: 500 * MS, FLOW: 500 * MS, AUDIO: 300 * MS, BOXES: 1000 * MS}
# No period is a multiple of another or of a slot, so that all phases occur. Sound comes in
# chunks of 64 ms: a lost one is a gap that the node cannot take for jitter (50 ms).
PERIODS_NS = {RGB: 70 * MS, FLOW: 90 * MS, AUDIO: 64 * MS, BOXES: 110 * MS}
TOPICS = {RGB: 'image', FLOW: 'flow', AUDIO: 'audio', BOXES: 'detections'}
_MAX_DELAY_NS = 40 * MS


@dataclass(frozen=True)
class _Sample:
    sensor: str
    start_ns: int
    stop_ns: int


class Course:
    """The random course of all sensors: what is received, and when the node's timer ticks."""

    def __init__(self, sensors: tuple[str, ...], seed: int) -> None:
        self._random = Random(seed)
        self._sensors = sensors
        self.events = 0
        """Sensors that fell silent or came back."""
        self._on = dict.fromkeys(sensors, True)
        self._toggles = {s: START_NS + self._spell() for s in sensors}

    def __iter__(self) -> Iterator[tuple[int, _Sample | None]]:
        """Return in the order of time what is received, and None for each tick; without end."""
        due: list[tuple[int, int, str, int]] = [
            (START_NS + PERIODS_NS[s], i, s, START_NS) for i, s in enumerate(self._sensors)]
        due.append((START_NS + TICK_NS, len(due), 'tick', 0))
        heapify(due)
        while True:
            now_ns, place, sensor, start_ns = due[0]
            if sensor == 'tick':
                yield now_ns, None
                heapreplace(due, (now_ns + TICK_NS, place, sensor, 0))
                continue
            stop_ns = start_ns + PERIODS_NS[sensor]
            if self._sends(sensor, stop_ns):
                # Only sound has a length; a picture is a moment.
                yield now_ns, _Sample(sensor, start_ns if sensor == AUDIO else stop_ns, stop_ns)
            received_ns = stop_ns + PERIODS_NS[sensor] + self._random.randrange(_MAX_DELAY_NS)
            heapreplace(due, (received_ns, place, sensor, stop_ns))

    def _sends(self, sensor: str, time_ns: int) -> bool:
        while time_ns >= self._toggles[sensor]:
            self._toggles[sensor] += self._spell()
            self._on[sensor] = not self._on[sensor]
            self.events += 1
        return self._on[sensor]

    def _spell(self) -> int:
        """Return how long a sensor stays as it is: half of the spells are short."""
        low, high = self._random.choice(((50, 500), (800, 2500)))
        return self._random.randrange(low * MS, high * MS)


class Judge:
    """Hold what the node does against the oracle, tick by tick."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.ticks = self.results = 0
        self.masks: set[tuple[str, ...]] = set()
        self.wrong: list[str] = []
        self.stale: list[str] = []
        self._ends: set[int] = set()
        self.repeated = 0

    def tick(self, sim: Simulation, now_ns: int) -> None:
        """Let the node decide and compare."""
        self.ticks += 1
        available = self.oracle.available(now_ns)
        said = tuple(s.name for s in sim.report().modalities if s.state == s.AVAILABLE)
        self._compare('available', now_ns, available, said)
        expected, result = self.oracle.result(now_ns), sim.tick()
        got = None if result is None else (time_ns(result.window_end), tuple(
            s.name for s in result.modalities if s.used))
        self._compare('result', now_ns, expected, got)
        if got is not None:
            self._note(got, now_ns)
        sim.forget()

    def _compare(self, what: str, now_ns: int, wanted: Any, got: Any) -> None:
        if wanted != got:
            at = (now_ns - START_NS) / 1e9
            self.wrong.append(f'{what} at {at:.3f} s: {got}, the oracle says {wanted}')

    def _note(self, got: tuple[int, tuple[str, ...]], now_ns: int) -> None:
        end_ns, mask = got
        self.results += 1
        self.masks.add(mask)
        self.repeated += end_ns in self._ends
        self._ends.add(end_ns)
        self.stale += [n for n in mask if self.oracle.age_ns(n, now_ns) > TIMEOUTS_NS[n]]


def _message(sample: _Sample) -> Any:
    make = {RGB: messages.image, FLOW: messages.flow, AUDIO: messages.sound,
            BOXES: messages.boxes}[sample.sensor]
    return make(sample.start_ns)


def churn(model: Path, events: int, flow_topic: bool, seed: int) -> tuple[Judge, Course]:
    """Play a random course of so many events to the node, with every mask judged."""
    sensors = NAMES if flow_topic else (RGB, AUDIO, BOXES)
    rules = Rules(SPEC.duration_ns, SPEC.num_frames, SPEC.audio.sample_rate, TIMEOUTS_NS,
                  SPEC.audio.hop_length, flow_topic)
    judge, course = Judge(Oracle(rules)), Course(sensors, seed)
    seconds = {f'{n}__timeout': t / 1e9 for n, t in TIMEOUTS_NS.items()}
    with simulation(model, ConstantAnswer(vocabulary(), every=50), START_NS, **seconds,
                    flow__source='topic' if flow_topic else 'computed') as sim:
        for now_ns, sample in course:
            sim.set_time(now_ns)
            if sample is None:
                judge.tick(sim, now_ns)
                if course.events >= events:
                    break
            else:
                judge.oracle.note(sample.sensor, sample.start_ns, sample.stop_ns, now_ns)
                sim.detect_events(TOPICS[sample.sensor], _message(sample))
    return judge, course


def _judge(trial: Trial, name: str, judge: Judge, course: Course) -> None:
    trial.demand(f'{name}: every mask and every window is the oracle’s', not judge.wrong,
                 f'{judge.ticks} decisions, {len(judge.masks)} different masks, '
                 f'{len(judge.wrong)} wrong{"".join(": " + w for w in judge.wrong[:2])}')
    trial.demand(f'{name}: no result rests on a stale input', not judge.stale,
                 f'{len(judge.stale)} of {judge.results} results')
    trial.demand(f'{name}: never two results for one window', not judge.repeated,
                 f'{judge.repeated} of {judge.results} windows came twice')
    trial.figures[name] = {'events': course.events, 'decisions': judge.ticks,
                           'results': judge.results, 'masks': len(judge.masks)}


@case('churn', 'Sensors that come and go', (
    'Simulated: sensors fall silent and come back at random ({events:,} events, seed {seed}), '
    'half of them with flow from the camera (3 sensors), half with flow on a topic of its own '
    '(4). Messages go into the node’s own callbacks, up to 40 ms after their stamps; every 200 ms '
    'the node decides. All of its decisions are held against an oracle that was written from the '
    'rules alone. The network answers every 50th window, a constant the others.'),
    full={'events': 10_000, 'seed': 7}, quick={'events': 1000}, limit_s=600)
def run(trial: Trial, events: int, seed: int) -> None:
    """Judge both ways to have flow."""
    with TemporaryDirectory() as folder, domain():
        model = make_model(Path(folder, 'random'))
        for name, flow_topic in (('flow from the camera', False), ('flow on a topic', True)):
            _judge(trial, name, *churn(model, events // 2, flow_topic, seed))
