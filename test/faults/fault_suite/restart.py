"""The node killed without warning and started again while its sensors go on."""

from __future__ import annotations

from pathlib import Path
import signal
from tempfile import TemporaryDirectory
import time
from typing import Any

from karmma_ros.node.messages import time_ns

from fault_suite.audience import audience, DemoMonitor, DetectedAction
from fault_suite.case import case, Trial
from fault_suite.models import make_model
from fault_suite.processes import ALL, node_process, sender_process
from fault_suite.ros import domain

FIRST_RESULT_S = 20.0
"""Python and torch alone take some seconds to start on a slow or busy machine."""
_GRACE_S = 0.5
"""What was sent before the kill may be heard so much later."""
_DEAD_S = 2.0
_DISCOVERY_S = 3.0
RATE_HZ = 10.0


def _life(trial: Trial, ears: DemoMonitor, parameters: dict[str, Any], number: int) -> None:
    """Start the node, see that it comes up right, kill it, see that it is silent."""
    started, results, infos = time.monotonic(), len(ears.results), len(ears.infos)
    with node_process(parameters) as node:
        result = ears.result(60)
        seconds = (result.time if result else time.monotonic()) - started
        trial.figures.setdefault('first_result_s', []).append(round(seconds, 2))
        trial.demand(f'start {number}: the first result within {FIRST_RESULT_S:g} s',
                     result and seconds <= FIRST_RESULT_S, f'{seconds:.1f} s')
        ears.until(lambda: len(ears.infos) > infos, 5)
        ears.listen(2.0)
        _judge_latched(trial, ears, number, infos, started)
        _judge_sequence(trial, number, ears.results[results:])
        node.send(signal.SIGKILL)
        node.wait(10)
        killed = time.monotonic()
    ears.listen(_DEAD_S)
    late = [heard for heard in ears.results if heard.time > killed + _GRACE_S]
    trial.demand(f'after kill {number}: no result any more', not late, f'{len(late)} results')


def _judge_latched(
    trial: Trial, ears: DemoMonitor, number: int, infos: int, started: float
) -> None:
    new = ears.infos[infos:]
    trial.demand(
        f'start {number}: one who stayed is told the model once, and rightly',
        len(new) == 1 and new[0].message.model_id == ears.results[-1].message.model_id,
        f'{len(new)} times, {new[0].message.model_id if new else "nothing"}')
    last = ears.availabilities[-1] if ears.availabilities else None
    trial.demand(
        f'start {number}: the availability is the new one’s, and says that there can be results',
        last and last.time > started and last.message.inference_possible,
        f'{last.message.inference_possible}, {time.monotonic() - last.time:.1f} s old' if last
        else 'nothing')


def _judge_sequence(trial: Trial, number: int, results: list[DetectedAction]) -> None:
    sequence = [heard.message.sequence for heard in results]
    ends = [time_ns(heard.message.window_end) for heard in results]
    # On a busy machine the subscriber may find the node a moment after its first results.
    trial.demand(
        f'start {number}: sequence counts anew without a gap, no window twice',
        sequence and sequence[0] <= _DISCOVERY_S * RATE_HZ
        and sequence == list(range(sequence[0], sequence[0] + len(sequence)))
        and len(set(ends)) == len(ends), f'{sequence[:1]} to {sequence[-1:]}')


@case('restart', 'kill -9 and restart under load', (
    'Sensors send all the time; the node is started by autostart, killed with SIGKILL two seconds '
    'after its first results, and started again {lives} times; a subscriber stays.'),
    full={'lives': 4}, quick={'lives': 2}, limit_s=400)
def run(trial: Trial, lives: int) -> None:
    """Live, die, and live again."""
    with TemporaryDirectory() as folder, domain(), audience() as ears, sender_process() as sender:
        parameters = {'model': make_model(Path(folder, 'random')), 'threads': 1,
                      'autostart': True, 'rate': RATE_HZ}
        sender.switch(*ALL)
        for number in range(1, lives + 1):
            _life(trial, ears, parameters, number)
