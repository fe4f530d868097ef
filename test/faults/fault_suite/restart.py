"""The node killed by SIGKILL and started again while its sensors continue."""

from __future__ import annotations

from pathlib import Path
import signal
from tempfile import TemporaryDirectory
import time
from typing import Any

from karmma_ros.node.messages import time_ns

from fault_suite.case import case, Trial
from fault_suite.models import make_model
from fault_suite.monitor import node_monitor, NodeMonitor, ReceivedMessage
from fault_suite.processes import ALL, node_process, sender_process
from fault_suite.ros import domain

FIRST_RESULT_S = 20.0
"""Python and torch alone take some seconds to start on a slow or busy machine."""
_GRACE_S = 0.5
"""What was sent before the kill may be received so much later."""
_DEAD_S = 2.0
_DISCOVERY_S = 3.0
RATE_HZ = 10.0


def _life(trial: Trial, monitor: NodeMonitor, parameters: dict[str, Any], number: int) -> None:
    """Start the node, check its first results, kill it, check that it is silent."""
    started, results, infos = time.monotonic(), len(monitor.results), len(monitor.infos)
    with node_process(parameters) as node:
        result = monitor.result(60)
        seconds = (result.time if result else time.monotonic()) - started
        trial.figures.setdefault('first_result_s', []).append(round(seconds, 2))
        trial.require(f'start {number}: the first result within {FIRST_RESULT_S:g} s',
                      result and seconds <= FIRST_RESULT_S, f'{seconds:.1f} s')
        monitor.spin_until(lambda: len(monitor.infos) > infos, 5)
        monitor.spin(2.0)
        _check_latched(trial, monitor, number, infos, started)
        _check_sequence(trial, number, monitor.results[results:])
        node.send(signal.SIGKILL)
        node.wait(10)
        killed = time.monotonic()
    monitor.spin(_DEAD_S)
    late = [received for received in monitor.results if received.time > killed + _GRACE_S]
    trial.require(f'after kill {number}: no more results', not late, f'{len(late)} results')


def _check_latched(
    trial: Trial, monitor: NodeMonitor, number: int, infos: int, started: float
) -> None:
    new = monitor.infos[infos:]
    trial.require(
        f'start {number}: a subscriber that stayed receives the model once, and correctly',
        len(new) == 1 and new[0].message.model_id == monitor.results[-1].message.model_id,
        f'{len(new)} times, {new[0].message.model_id if new else "nothing"}')
    last = monitor.availabilities[-1] if monitor.availabilities else None
    trial.require(
        f'start {number}: the availability is that of the new process, and reports that inference '
        'is possible',
        last and last.time > started and last.message.inference_possible,
        f'{last.message.inference_possible}, {time.monotonic() - last.time:.1f} s old' if last
        else 'nothing')


def _check_sequence(trial: Trial, number: int, results: list[ReceivedMessage]) -> None:
    sequence = [received.message.sequence for received in results]
    ends = [time_ns(received.message.window_end) for received in results]
    # On a busy machine the subscriber may find the node a moment after its first results.
    trial.require(
        f'start {number}: sequence starts again without a gap, no window twice',
        sequence and sequence[0] <= _DISCOVERY_S * RATE_HZ
        and sequence == list(range(sequence[0], sequence[0] + len(sequence)))
        and len(set(ends)) == len(ends), f'{sequence[:1]} to {sequence[-1:]}')


@case('restart', 'kill -9 and restart under load', (
    'Sensors send all the time; the node is started by autostart, killed with SIGKILL two seconds '
    'after its first results, and started again {lives} times; a subscriber stays.'),
    full={'lives': 4}, quick={'lives': 2}, limit_s=400)
def run(trial: Trial, lives: int) -> None:
    """Start and kill the node several times."""
    with TemporaryDirectory() as folder, domain(), node_monitor() as monitor, \
            sender_process() as sender:
        parameters = {'model': make_model(Path(folder, 'random')), 'threads': 1,
                      'autostart': True, 'rate': RATE_HZ}
        sender.switch(*ALL)
        for number in range(1, lives + 1):
            _life(trial, monitor, parameters, number)
