"""A day of streams on a simulated clock: memory, counters, drifting stamps, clock jumps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary

from fault_suite import messages
from fault_suite.case import case, Trial
from fault_suite.messages import SECOND
from fault_suite.models import make_model, SLOW_SPEC
from fault_suite.proc import MEBI, rise, usage
from fault_suite.ros import domain
from fault_suite.simulation import ConstantPrediction, Simulation, simulation

START_NS = 1_700_000_000 * SECOND
RATE_HZ = 2000
"""Of the audio."""
DRIFTS = {'image': 200e-6, 'audio': 50e-6, 'detections': -50e-6}
PERIODS_S = {'image': 0.25, 'audio': 0.25, 'detections': 0.5}
LAST_OF_2038_NS = 2 ** 31 * SECOND
UINT32 = 2 ** 32
_GAP_EVERY_S, _GAP_S = 2820, 30
_SETTLE_S = 4
"""Length of a window: the time until every input is available."""


@dataclass
class Day:
    """The state of the simulation and its measurements; times in seconds since the start."""

    sim: Simulation
    length_s: int
    clock_ns: int = START_NS
    """The node's clock; it jumps, the seconds of the day do not."""
    unstamped: bool = False
    results: int = 0
    last_result_s: int = 0
    longest_s: int = 0
    """Longest time without a result while a sensor was sending."""
    memory: list[tuple[int, int]] = field(default_factory=list)
    """Bytes in the buffers, and of the process."""
    clocks_differ_s: int | None = None
    """When a sensor was first reported to have another clock."""

    def second(self, now_s: int, silent: set[str]) -> None:
        """Simulate a second: its messages, then the node's decision."""
        for quarter in range(4):
            self.clock_ns += SECOND // 4
            self.sim.set_time(self.clock_ns)
            for topic, period_s in PERIODS_S.items():
                if topic not in silent and (quarter + 1) / 4 % period_s == 0:
                    self.sim.receive(topic, self._message(topic, now_s))
        self._note(now_s, self.sim.tick() is not None, len(silent) == len(PERIODS_S))
        self.sim.clear()

    def _message(self, topic: str, now_s: int) -> Any:
        stamp_ns = 0 if self.unstamped else self.clock_ns + round(
            now_s * SECOND * DRIFTS[topic])
        if topic == 'image':
            return messages.image(stamp_ns, shade=now_s % 256)
        if topic == 'audio':
            return messages.audio(stamp_ns and stamp_ns - SECOND // 4, RATE_HZ // 4)
        return messages.boxes(stamp_ns)

    def _note(self, now_s: int, received: bool, all_silent: bool) -> None:
        self.results += received
        if received or all_silent:
            self.last_result_s = now_s
        self.longest_s = max(self.longest_s, now_s - self.last_result_s)
        if now_s % 300 == 0:
            statuses = self.sim.worker.engine.stream.assess(self.clock_ns)
            if self.clocks_differ_s is None and any('clocks differ' in s.detail for s in statuses):
                self.clocks_differ_s = now_s
            self.memory.append((self.sim.worker.engine.stream.nbytes, usage().rss))


def _silent(now_s: int) -> set[str]:
    """Return the sensors that are silent now: one after the other, then all, for 30 s."""
    turn, offset_s = divmod(now_s, _GAP_EVERY_S)
    if turn == 0 or offset_s >= _GAP_S:
        return set()
    topics = list(PERIODS_S)
    return set(topics) if turn % 4 == 0 else {topics[turn % 4 - 1]}


def _play(day: Day) -> None:
    """Play the whole day, with a jump back after a third and one forward after two."""
    for now_s in range(day.length_s):
        if now_s == day.length_s // 3:
            day.clock_ns -= 3600 * SECOND
        elif now_s == day.length_s * 2 // 3:
            day.clock_ns += 600 * SECOND
        elif now_s == day.length_s // 2:
            _near_the_end_of_counters(day.sim)
        if now_s % 60 == 59:
            broken = messages.audio(day.clock_ns)
            broken.audio.data = broken.audio.data[:-1]
            day.sim.receive('audio', broken)
        day.second(now_s, _silent(now_s))


def _near_the_end_of_counters(sim: Simulation) -> None:
    """Set the counters of dropped messages and of results near the end of uint32."""
    for sensor in sim.worker.engine.stream._inputs.values():
        sensor.stats.dropped = UINT32 - 5
    sim.worker._sequence = UINT32 - 5


def _check(trial: Trial, day: Day) -> None:
    allowed_s = _SETTLE_S + 2
    trial.require(
        f'results continue: never more than {allowed_s} s without one, jumps of the clock '
        'included, unless every sensor is silent', day.longest_s <= allowed_s,
        f'{day.results} results, at most {day.longest_s} s without one')
    later = day.memory[len(day.memory) // 24 + 1:]
    buffers, resident = [m[0] for m in later], [m[1] for m in later]
    trial.require('the buffers stay as large as after the first hour',
                  max(buffers) <= 1.05 * buffers[0],
                  f'{buffers[0]} bytes then, {max(buffers)} at most')
    grown, level = rise(resident), resident[0]
    trial.require('the process grows by less than 5 % from then on (fitted line)',
                  grown < 0.05 * level, f'{grown / MEBI:+.2f} MiB of {level / MEBI:.0f} MiB')
    since_s = day.clocks_differ_s
    clocks_differ = 'never' if since_s is None else f'from {since_s / 3600:.1f} h on'
    trial.figures['day'] = {
        'hours': day.length_s / 3600, 'results': day.results, 'longest_gap_s': day.longest_s,
        'grown_mib': round(grown / MEBI, 2), 'clocks_differ': clocks_differ}
    if day.length_s >= 12 * 3600:
        # 250 ppm take 4.4 h to part the stamps by a window of 4 s.
        trial.require('it is reported that the camera’s clock has drifted out of the window',
                      day.clocks_differ_s is not None, clocks_differ)


def _check_counters(trial: Trial, day: Day) -> None:
    report, result = day.sim.report(), day.sim.results
    dropped = next(s.dropped for s in report.modalities if s.name == 'audio')
    trial.require('dropped stays at the end of uint32 instead of wrapping around',
                  dropped == UINT32 - 1, dropped)
    sequence = day.sim.worker._sequence
    trial.require('sequence continues beyond 2**32', sequence > UINT32 and not result, sequence)


def _play_2038(trial: Trial, day: Day) -> None:
    """Cross the last second that builtin_interfaces/Time can hold, without stamps."""
    day.sim.worker.engine.stream.clear()
    day.clock_ns, day.unstamped, day.results = LAST_OF_2038_NS - 30 * SECOND, True, 0
    for now_s in range(60):
        day.second(day.length_s + now_s, set())
    trial.require('2038, when stamps end: results continue for a camera without stamps',
                  day.results >= 50, f'{day.results} results in the minute around it')
    report = day.sim.report()
    trial.require('2038: the inputs are still reported', report.inference_possible,
                  f'at {report.header.stamp.sec} s')


@case('day', 'A simulated day of streams', (
    'Simulated: {hours:g} hours in the node’s own callbacks. Scaled down to what a processor '
    'simulates in minutes: images of 16 x 12 at 4 Hz, audio of 2 kHz in chunks of 0.25 s, boxes '
    'at 2 Hz, a decision each second over a window of 4 s; the network predicts every 500th '
    'window, the others get a constant prediction. Stamps drift by 200 ppm (camera), 50 and -50 '
    'ppm (audio, boxes); each sensor in turn, then all, stop for 30 s every 47 min; the node’s '
    'clock jumps back by an hour after a third and forward by 10 min after two thirds; a broken '
    'audio chunk each minute; at half time the counters are set near the end of uint32; then the '
    'clock crosses into 2038.'),
    full={'hours': 24.0}, quick={'hours': 0.5},
    limit_s=1800)  # 671 s on two quiet cores
def run(trial: Trial, hours: float) -> None:
    """Play the day."""
    prediction = ConstantPrediction(vocabulary(), every=500)
    with TemporaryDirectory() as folder, domain(check_fields=False):
        model = make_model(Path(folder, 'random'), SLOW_SPEC)
        with simulation(model, prediction, START_NS, audio__sample_rate=RATE_HZ) as sim:
            day = Day(sim, round(hours * 3600))
            _play(day)
            _check(trial, day)
            _check_counters(trial, day)
            _play_2038(trial, day)
