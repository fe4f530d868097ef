"""Simulated time that starts late, stops, and jumps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
import time

from karmma_ros.node.messages import time_message, time_ns
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from fault_suite import messages
from fault_suite.case import case, Trial
from fault_suite.messages import SECOND
from fault_suite.models import make_model
from fault_suite.monitor import node_monitor, NodeMonitor, repeated
from fault_suite.processes import node_process
from fault_suite.ros import domain

START_S = 1000.0
SOON_S = 6.0
"""A window of 0.8 s must fill first; the rest is for a busy machine."""


class ClockPlayer:
    """Publish a camera and /clock, as a bag does; `now_s` can be set."""

    def __init__(self, monitor: NodeMonitor) -> None:
        self._clock = monitor.node.create_publisher(Clock, '/clock', 10)
        self._images = monitor.node.create_publisher(Image, 'image', 10)
        self.now_s = START_S
        self.running = False
        self._last = time.monotonic()
        self._shown = 0.0

    def __call__(self) -> None:
        """Advance and publish the clock at about 40 Hz, and an image at 20 Hz."""
        now = time.monotonic()
        if now - self._last < 0.025:
            return
        if self.running:
            self.now_s += now - self._last
            stamp = time_message(round(self.now_s * SECOND))
            self._clock.publish(Clock(clock=stamp))
        self._last = now
        if now - self._shown >= 0.05:
            self._shown = now
            self._images.publish(messages.image(round(self.now_s * SECOND)))


class ClockScenario:
    """The node, its player, and the requirements of each step."""

    def __init__(self, trial: Trial, monitor: NodeMonitor, player: ClockPlayer) -> None:
        self._trial, self._monitor, self._player = trial, monitor, player

    def expect_results(self, what: str, low_s: float, high_s: float) -> None:
        """Require a new result soon, with a window that ends in the simulated time given."""
        since, before = time.monotonic(), len(self._monitor.results)

        def as_expected() -> bool:
            return any(low_s <= time_ns(h.message.window_end) / SECOND <= high_s
                       for h in self._monitor.results[before:])
        received = self._monitor.spin_until(as_expected, SOON_S, self._player)
        self._trial.require(f'{what}: results within {SOON_S:g} s', received,
                            f'{time.monotonic() - since:.1f} s' if received else 'none')
        self._monitor.spin_until(lambda: False, 1.5, self._player)

    def expect_silence(self, what: str, seconds: float) -> None:
        """Require that there is no result and that the inputs are still reported."""
        self._monitor.spin_until(lambda: False, 1.0, self._player)
        results, reports = len(self._monitor.results), len(self._monitor.availabilities)
        self._monitor.spin_until(lambda: False, seconds, self._player)
        results = len(self._monitor.results) - results
        reports = len(self._monitor.availabilities) - reports
        self._trial.require(
            f'{what}: no result, but at least one report per 1.5 s of {seconds:g} s',
            results == 0 and reports >= seconds / 1.5, f'{results} results, {reports} reports')


@contextmanager
def _scenario(
    trial: Trial, model: Path
) -> Iterator[tuple[ClockScenario, ClockPlayer, NodeMonitor]]:
    parameters = {'model': model, 'threads': 1, 'autostart': True, 'rate': 10.0,
                  'use_sim_time': True}
    with node_monitor() as monitor, node_process(parameters) as node:
        player = ClockPlayer(monitor)
        monitor.spin_until(lambda: monitor.availabilities, 60, player)
        yield ClockScenario(trial, monitor, player), player, monitor
        trial.require('it exits in order', node.end() == 0, node.process.returncode)


@case('clocks', 'Simulated time that starts late, stops and jumps', (
    'use_sim_time; a camera and /clock at 40 Hz are played. The clock starts {late:g} s after the '
    'node, stops for {late:g} s, resumes, jumps back as in a loop, and jumps forward by an hour.'),
    full={'late': 6.0}, quick={'late': 3.0}, limit_s=200)
def run(trial: Trial, late: float) -> None:
    """Test each disturbance of the clock."""
    with TemporaryDirectory() as folder, domain():
        with _scenario(trial, make_model(Path(folder, 'random'))) as (scenario, player, monitor):
            scenario.expect_silence('no /clock yet', late)
            player.running = True
            scenario.expect_results('/clock starts late', START_S, START_S + 60)
            player.running = False
            scenario.expect_silence('/clock stops', late)
            player.running = True
            scenario.expect_results('/clock resumes', START_S, START_S + 60)
            trial.require('never two results for one window', not repeated(monitor.results),
                          f'{repeated(monitor.results)} of {len(monitor.results)}')
            player.now_s = 10.0
            scenario.expect_results('/clock jumps back by a quarter of an hour', 10.0, 70.0)
            player.now_s += 3600
            scenario.expect_results('/clock jumps forward by an hour', 3600.0, 3720.0)
