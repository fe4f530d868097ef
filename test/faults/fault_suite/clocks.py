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
from fault_suite.audience import audience, DemoMonitor, repeated
from fault_suite.case import case, Trial
from fault_suite.messages import SECOND
from fault_suite.models import make_model
from fault_suite.processes import node_process
from fault_suite.ros import domain

START_S = 1000.0
SOON_S = 6.0
"""A window of 0.8 s must fill first; the rest is for a busy machine."""


class Player:
    """Play a camera and its clock, as a bag does; the clock is a hand on a dial."""

    def __init__(self, ears: DemoMonitor) -> None:
        self._clock = ears.node.create_publisher(Clock, '/clock', 10)
        self._images = ears.node.create_publisher(Image, 'image', 10)
        self.now_s = START_S
        self.running = False
        self._last = time.monotonic()
        self._shown = 0.0

    def __call__(self) -> None:
        """Let time pass, publish it at about 40 Hz, and a picture at 20 Hz."""
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


class Stage:
    """The node, its player, and what can be demanded again and again."""

    def __init__(self, trial: Trial, ears: DemoMonitor, player: Player) -> None:
        self._trial, self._ears, self._player = trial, ears, player

    def comes(self, what: str, low_s: float, high_s: float) -> None:
        """Demand a new result soon, with a window that ends in the simulated time given."""
        since, before = time.monotonic(), len(self._ears.results)

        def right() -> bool:
            return any(low_s <= time_ns(h.message.window_end) / SECOND <= high_s
                       for h in self._ears.results[before:])
        came = self._ears.until(right, SOON_S, self._player)
        self._trial.demand(f'{what}: results within {SOON_S:g} s', came,
                           f'{time.monotonic() - since:.1f} s' if came else 'none')
        self._ears.until(lambda: False, 1.5, self._player)

    def silent(self, what: str, seconds: float) -> None:
        """Demand that there is no result, and that the inputs are reported all the same."""
        self._ears.until(lambda: False, 1.0, self._player)
        results, reports = len(self._ears.results), len(self._ears.availabilities)
        self._ears.until(lambda: False, seconds, self._player)
        results = len(self._ears.results) - results
        reports = len(self._ears.availabilities) - reports
        self._trial.demand(
            f'{what}: no result, but at least a report each 1.5 s of {seconds:g} s',
            results == 0 and reports >= seconds / 1.5, f'{results} results, {reports} reports')


@contextmanager
def _stage(trial: Trial, model: Path) -> Iterator[tuple[Stage, Player, DemoMonitor]]:
    parameters = {'model': model, 'threads': 1, 'autostart': True, 'rate': 10.0,
                  'use_sim_time': True}
    with audience() as ears, node_process(parameters) as node:
        player = Player(ears)
        ears.until(lambda: ears.availabilities, 60, player)
        yield Stage(trial, ears, player), player, ears
        trial.demand('it ends in order', node.end() == 0, node.process.returncode)


@case('clocks', 'Simulated time that starts late, stops and jumps', (
    'use_sim_time; a camera and /clock at 40 Hz are played. The clock starts {late:g} s after the '
    'node, stops for {late:g} s, goes on, jumps back as in a loop, and jumps an hour forward.'),
    full={'late': 6.0}, quick={'late': 3.0}, limit_s=200)
def run(trial: Trial, late: float) -> None:
    """Play the clock false."""
    with TemporaryDirectory() as folder, domain():
        with _stage(trial, make_model(Path(folder, 'random'))) as (stage, player, ears):
            stage.silent('no /clock yet', late)
            player.running = True
            stage.comes('/clock starts late', START_S, START_S + 60)
            player.running = False
            stage.silent('/clock stops', late)
            player.running = True
            stage.comes('/clock goes on', START_S, START_S + 60)
            trial.demand('never two results for one window', not repeated(ears.results),
                         f'{repeated(ears.results)} of {len(ears.results)}')
            player.now_s = 10.0
            stage.comes('/clock jumps back by a quarter of an hour', 10.0, 70.0)
            player.now_s += 3600
            stage.comes('/clock jumps forward by an hour', 3600.0, 3720.0)
