"""Sensors that stop and resume at random, on a simulated clock: masks compared with an oracle."""

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
from fault_suite.simulation import ConstantPrediction, Simulation, simulation

MS = 1_000_000
START_NS = 1_700_000_000_032 * MS
"""A multiple of the audio's 64 ms, so that the oracle can count whole samples."""
TICK_NS = 200 * MS
TIMEOUTS_NS = {RGB: 500 * MS, FLOW: 500 * MS, AUDIO: 300 * MS, BOXES: 1000 * MS}
# No period is a multiple of another or of a slot, so that all phases occur. Audio comes in
# chunks of 64 ms: a dropped one is a gap that the node cannot take for jitter (50 ms).
PERIODS_NS = {RGB: 70 * MS, FLOW: 90 * MS, AUDIO: 64 * MS, BOXES: 110 * MS}
TOPICS = {RGB: 'image', FLOW: 'flow', AUDIO: 'audio', BOXES: 'detections'}
_MAX_DELAY_NS = 40 * MS


@dataclass(frozen=True)
class _Sample:
    sensor: str
    start_ns: int
    stop_ns: int


class SensorSchedule:
    """Random messages of all sensors in order of receipt, and the ticks of the node's timer."""

    def __init__(self, sensors: tuple[str, ...], seed: int) -> None:
        self._random = Random(seed)
        self._sensors = sensors
        self.events = 0
        """Number of times that a sensor stopped or resumed."""
        self._on = dict.fromkeys(sensors, True)
        self._toggles = {s: START_NS + self._spell() for s in sensors}

    def __iter__(self) -> Iterator[tuple[int, _Sample | None]]:
        """Return in the order of time what is received, and None for each tick; without end."""
        due: list[tuple[int, int, str, int]] = [
            (START_NS + PERIODS_NS[s], i, s, START_NS) for i, s in enumerate(self._sensors)]
        due.append((START_NS + TICK_NS, len(due), 'tick', 0))
        heapify(due)
        while True:
            now_ns, index, sensor, start_ns = due[0]
            if sensor == 'tick':
                yield now_ns, None
                heapreplace(due, (now_ns + TICK_NS, index, sensor, 0))
                continue
            stop_ns = start_ns + PERIODS_NS[sensor]
            if self._sends(sensor, stop_ns):
                # Only audio has a duration.
                yield now_ns, _Sample(sensor, start_ns if sensor == AUDIO else stop_ns, stop_ns)
            received_ns = stop_ns + PERIODS_NS[sensor] + self._random.randrange(_MAX_DELAY_NS)
            heapreplace(due, (received_ns, index, sensor, stop_ns))

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


class OracleCheck:
    """Compare the node with the oracle, tick by tick."""

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
        reported = tuple(s.name for s in sim.report().modalities if s.state == s.AVAILABLE)
        self._compare('available', now_ns, available, reported)
        expected, result = self.oracle.result(now_ns), sim.tick()
        actual = None if result is None else (time_ns(result.window_end), tuple(
            s.name for s in result.modalities if s.used))
        self._compare('result', now_ns, expected, actual)
        if actual is not None:
            self._note(actual, now_ns)
        sim.clear()

    def _compare(self, what: str, now_ns: int, wanted: Any, actual: Any) -> None:
        if wanted != actual:
            at = (now_ns - START_NS) / 1e9
            self.wrong.append(f'{what} at {at:.3f} s: {actual}, the oracle has {wanted}')

    def _note(self, actual: tuple[int, tuple[str, ...]], now_ns: int) -> None:
        end_ns, mask = actual
        self.results += 1
        self.masks.add(mask)
        self.repeated += end_ns in self._ends
        self._ends.add(end_ns)
        self.stale += [n for n in mask if self.oracle.age_ns(n, now_ns) > TIMEOUTS_NS[n]]


def _message(sample: _Sample) -> Any:
    make = {RGB: messages.image, FLOW: messages.flow, AUDIO: messages.audio,
            BOXES: messages.boxes}[sample.sensor]
    return make(sample.start_ns)


def churn(
    model: Path, events: int, flow_topic: bool, seed: int
) -> tuple[OracleCheck, SensorSchedule]:
    """Send a random schedule with this many events to the node and check every mask."""
    sensors = NAMES if flow_topic else (RGB, AUDIO, BOXES)
    rules = Rules(SPEC.duration_ns, SPEC.num_frames, SPEC.audio.sample_rate, TIMEOUTS_NS,
                  SPEC.audio.hop_length, flow_topic)
    check, schedule = OracleCheck(Oracle(rules)), SensorSchedule(sensors, seed)
    seconds = {f'{n}__timeout': t / 1e9 for n, t in TIMEOUTS_NS.items()}
    with simulation(model, ConstantPrediction(vocabulary(), every=50), START_NS, **seconds,
                    flow__source='topic' if flow_topic else 'computed') as sim:
        for now_ns, sample in schedule:
            sim.set_time(now_ns)
            if sample is None:
                check.tick(sim, now_ns)
                if schedule.events >= events:
                    break
            else:
                check.oracle.note(sample.sensor, sample.start_ns, sample.stop_ns, now_ns)
                sim.receive(TOPICS[sample.sensor], _message(sample))
    return check, schedule


def _check(trial: Trial, name: str, check: OracleCheck, schedule: SensorSchedule) -> None:
    trial.require(f'{name}: every mask and every window equals the oracle’s', not check.wrong,
                  f'{check.ticks} decisions, {len(check.masks)} different masks, '
                  f'{len(check.wrong)} wrong{"".join(": " + w for w in check.wrong[:2])}')
    trial.require(f'{name}: no result uses a stale input', not check.stale,
                  f'{len(check.stale)} of {check.results} results')
    trial.require(f'{name}: never two results for one window', not check.repeated,
                  f'{check.repeated} of {check.results} windows were repeated')
    trial.figures[name] = {'events': schedule.events, 'decisions': check.ticks,
                           'results': check.results, 'masks': len(check.masks)}


@case('churn', 'Intermittent sensors', (
    'Simulated: sensors stop and resume at random ({events:,} events, seed {seed}), '
    'half of them with flow from the camera (3 sensors), half with flow on a topic of its own '
    '(4). Messages are passed to the node’s own callbacks, up to 40 ms after their stamps; every '
    '200 ms the node decides. All of its decisions are compared with those of an oracle that was '
    'written from the rules alone. The network predicts every 50th window; the others get a '
    'constant prediction.'),
    full={'events': 10_000, 'seed': 7}, quick={'events': 1000}, limit_s=600)
def run(trial: Trial, events: int, seed: int) -> None:
    """Check both sources of flow."""
    with TemporaryDirectory() as folder, domain():
        model = make_model(Path(folder, 'random'))
        for name, flow_topic in (('flow from the camera', False), ('flow on a topic', True)):
            _check(trial, name, *churn(model, events // 2, flow_topic, seed))
