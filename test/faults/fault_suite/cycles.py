"""Repeated lifecycle transitions under traffic: no entity, thread, file or memory may leak."""

from __future__ import annotations

import gc
from pathlib import Path
from tempfile import TemporaryDirectory
import threading
from typing import Any

from karmma_msgs.msg import ActionRecognition
from karmma_ros.node.executor import make_executor
from karmma_ros.node.lifecycle import KarmmaNode
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from fault_suite.case import case, Trial
from fault_suite.models import make_model
from fault_suite.proc import MEBI, rise, Usage, usage
from fault_suite.processes import ALL, ROOT, sender_process
from fault_suite.ros import domain

WARM = 10
"""Cycles after which everything that is created once exists."""
GROWTH = 0.05


class LifecycleCycles:
    """A node in this process and a subscriber."""

    def __init__(self, model: Path) -> None:
        # A quarter of the window is enough, so that a cycle gives a result soon.
        values = {'model': str(model), 'rate': 20.0, 'threads': 1, 'rgb.min_coverage': 0.1,
                  'audio.min_coverage': 0.1, 'detections.min_coverage': 0.1}
        self.node = KarmmaNode(parameter_overrides=[
            Parameter(name, value=value) for name, value in values.items()])
        self._monitor = rclpy.create_node('monitor')
        self.results: list[Any] = []
        self._monitor.create_subscription(
            ActionRecognition, 'action_recognition', self.results.append, 10)
        self._executor, _ = make_executor(self.node)
        self._executor.add_node(self._monitor)
        self.failures: list[str] = []

    def close(self) -> None:
        """End both."""
        self.node.trigger_shutdown()
        self._executor.shutdown()
        self.node.destroy_node()
        self._monitor.destroy_node()

    def cycle(self) -> bool:
        """Run the lifecycle once; return whether there was a result."""
        self._trigger('configure')
        self._trigger('activate')
        self.results.clear()
        for _ in range(400):
            self._executor.spin_once(timeout_sec=0.02)
            if self.results:
                break
        self._trigger('deactivate')
        self._trigger('cleanup')
        return bool(self.results)

    def _trigger(self, transition: str) -> None:
        outcome = getattr(self.node, f'trigger_{transition}')()
        if outcome != TransitionCallbackReturn.SUCCESS:
            self.failures.append(transition)

    def entities(self) -> dict[str, int]:
        """Count the entities of the node."""
        node = self.node
        return {
            'managed entities': len(node._managed_entities), **{
                entity: len(list(getattr(node, entity)))
                for entity in ('publishers', 'subscriptions', 'timers', 'services', 'clients')},
            'python threads': threading.active_count()}


def _check(
    trial: Trial, usages: list[Usage], before: dict[str, int], after: dict[str, int]
) -> None:
    trial.require(f'the node’s entities are the same as after cycle {WARM}', after == before,
                  f'{before}, then {after}')
    first, last = usages[0], usages[-1]
    trial.require(f'as many threads as after cycle {WARM}', last.threads <= first.threads,
                  f'{first.threads}, then {last.threads}')
    trial.require(f'as many open files as after cycle {WARM}', last.files <= first.files,
                  f'{first.files}, then {last.files}')
    # The allocators keep pages back and DDS keeps histories of peers, so that single values
    # vary by some MiB: a line fitted to all of them shows a leak.
    grown = rise([u.rss for u in usages])
    trial.require(
        f'memory after cycle {WARM} grows by less than {GROWTH:.0%} (line through all cycles: '
        'allocators keep pages back, single values vary)', grown < GROWTH * first.rss,
        f'{grown / MEBI:+.1f} MiB of {first.rss / MEBI:.0f} MiB')
    trial.figures.update(
        rss_mib=[round(u.rss / MEBI, 1) for u in usages[::max(1, len(usages) // 20)]],
        threads=last.threads, files=last.files, grown_mib=round(grown / MEBI, 2))


@case('cycles', 'Repeated lifecycle transitions under traffic', (
    'The node runs in the process that is measured; a sender continuously publishes images, audio '
    'and boxes over DDS. {cycles} times: configure (the model “{model}” is loaded and warmed '
    'up), activate, wait for a result, deactivate, cleanup.'),
    full={'cycles': 200, 'model': 'synthetic_kitchen'}, quick={'cycles': 15, 'model': 'random'},
    limit_s=900)
def run(trial: Trial, cycles: int, model: str) -> None:
    """Run the cycles."""
    with TemporaryDirectory() as folder, domain(), sender_process() as sender:
        path = ROOT / 'models' / model if model != 'random' else make_model(Path(folder, 'random'))
        sender.switch(*ALL)
        lifecycle, usages, results, before = LifecycleCycles(path), [], 0, {}
        for number in range(1, cycles + 1):
            results += lifecycle.cycle()
            gc.collect()
            if number == WARM:
                before = lifecycle.entities()
            if number >= WARM:
                usages.append(usage())
        after = lifecycle.entities()
        lifecycle.close()
    trial.require('every transition succeeds', not lifecycle.failures, lifecycle.failures or 'all')
    trial.require('every cycle gives a result', results == cycles, f'{results} of {cycles}')
    _check(trial, usages, before, after)
