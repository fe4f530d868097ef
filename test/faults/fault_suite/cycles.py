"""The whole lifecycle again and again, under traffic: nothing may be left behind."""

from __future__ import annotations

import gc
from pathlib import Path
from tempfile import TemporaryDirectory
import threading
from typing import Any

from karmma_msgs.msg import ActionRecognition
from karmma_ros.node.lifecycle import KarmmaNode
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from fault_suite.case import case, Trial
from fault_suite.models import make_model
from fault_suite.proc import MEBI, rise, Usage, usage
from fault_suite.processes import ALL, ROOT, sender_process
from fault_suite.ros import domain

WARM = 10
"""Cycles after which all that is made once has been made."""
GROWTH = 0.05


class Rounds:
    """A node in this process and one that listens to it."""

    def __init__(self, model: Path) -> None:
        # A quarter of the window is enough, so that a cycle gives a result soon.
        values = {'model': str(model), 'rate': 20.0, 'threads': 1, 'rgb.min_coverage': 0.1,
                  'audio.min_coverage': 0.1, 'detections.min_coverage': 0.1}
        self.node = KarmmaNode(parameter_overrides=[
            Parameter(name, value=value) for name, value in values.items()])
        self._ears = rclpy.create_node('ears')
        self.results: list[Any] = []
        self._ears.create_subscription(
            ActionRecognition, 'action_recognition', self.results.append, 10)
        self._executor = SingleThreadedExecutor()
        for node in (self.node, self._ears):
            self._executor.add_node(node)
        self.failures: list[str] = []

    def close(self) -> None:
        """End both."""
        self.node.trigger_shutdown()
        self._executor.shutdown()
        self.node.destroy_node()
        self._ears.destroy_node()

    def round(self) -> bool:
        """Go once around the lifecycle; tell whether there was a result on the way."""
        self._go('configure')
        self._go('activate')
        self.results.clear()
        for _ in range(400):
            self._executor.spin_once(timeout_sec=0.02)
            if self.results:
                break
        self._go('deactivate')
        self._go('cleanup')
        return bool(self.results)

    def _go(self, transition: str) -> None:
        outcome = getattr(self.node, f'trigger_{transition}')()
        if outcome != TransitionCallbackReturn.SUCCESS:
            self.failures.append(transition)

    def entities(self) -> dict[str, int]:
        """Count what the node has made and not taken down."""
        node = self.node
        return {
            'managed entities': len(node._managed_entities), **{
                kind: len(list(getattr(node, kind)))
                for kind in ('publishers', 'subscriptions', 'timers', 'services', 'clients')},
            'python threads': threading.active_count()}


def _judge(
    trial: Trial, usages: list[Usage], before: dict[str, int], after: dict[str, int]
) -> None:
    trial.demand(f'the node’s entities are those after cycle {WARM}', after == before,
                 f'{before}, then {after}')
    first, last = usages[0], usages[-1]
    trial.demand(f'as many threads as after cycle {WARM}', last.threads <= first.threads,
                 f'{first.threads}, then {last.threads}')
    trial.demand(f'as many open files as after cycle {WARM}', last.files <= first.files,
                 f'{first.files}, then {last.files}')
    # The allocators keep pages back and DDS keeps histories of peers, so that single values
    # go up and down by some MiB: a line through all of them tells a leak from that.
    grown = rise([u.rss for u in usages])
    trial.demand(
        f'memory after cycle {WARM} grows by less than {GROWTH:.0%} (line through all cycles: '
        'allocators keep pages back, single values jump)', grown < GROWTH * first.rss,
        f'{grown / MEBI:+.1f} MiB of {first.rss / MEBI:.0f} MiB')
    trial.figures.update(
        rss_mib=[round(u.rss / MEBI, 1) for u in usages[::max(1, len(usages) // 20)]],
        threads=last.threads, files=last.files, grown_mib=round(grown / MEBI, 2))


@case('cycles', 'Round and round the lifecycle under traffic', (
    'The node runs in the process that is measured; a sender publishes camera, sound and boxes '
    'over DDS all the time. {cycles} times: configure (the model “{model}” is loaded and warmed '
    'up), activate, wait for a result, deactivate, cleanup.'),
    full={'cycles': 200, 'model': 'synthetic_kitchen'}, quick={'cycles': 15, 'model': 'random'},
    limit_s=900)
def run(trial: Trial, cycles: int, model: str) -> None:
    """Go around."""
    with TemporaryDirectory() as folder, domain(), sender_process() as sender:
        path = ROOT / 'models' / model if model != 'random' else make_model(Path(folder, 'random'))
        sender.switch(*ALL)
        rounds, usages, results, before = Rounds(path), [], 0, {}
        for number in range(1, cycles + 1):
            results += rounds.round()
            gc.collect()
            if number == WARM:
                before = rounds.entities()
            if number >= WARM:
                usages.append(usage())
        after = rounds.entities()
        rounds.close()
    trial.demand('every transition succeeds', not rounds.failures, rounds.failures or 'all')
    trial.demand('every cycle gives a result', results == cycles, f'{results} of {cycles}')
    _judge(trial, usages, before, after)
