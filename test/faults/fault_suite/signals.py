"""SIGINT and SIGTERM in every state of the lifecycle, and in the midst of work."""

from __future__ import annotations

from pathlib import Path
import signal
from tempfile import TemporaryDirectory
import time

from fault_suite.audience import audience, DemoMonitor
from fault_suite.case import case, Trial
from fault_suite.models import make_model
from fault_suite.processes import ALL, node_process, NodeProcess, sender_process, SenderProcess
from fault_suite.ros import domain

STATES = {
    'unconfigured': (), 'inactive': ('configure',), 'active': ('configure', 'activate'),
    'inactive again': ('configure', 'activate', 'deactivate'),
    'unconfigured again': ('configure', 'cleanup'),
}
LIMIT_S = 15.0
"""Launch files kill after 5 s + 5 s; a busy machine is granted a little more."""


def _in_state(
    trial: Trial, ears: DemoMonitor, model: Path, state: str, number: signal.Signals
) -> None:
    with node_process({'model': model, 'threads': 1}) as node:
        reached = all(ears.change(step) for step in STATES[state])
        reached = reached and ears.state() == state.split()[0]
        _end(trial, node, number, state if reached else f'{state}, which it did not reach')


def _end(trial: Trial, node: NodeProcess, number: signal.Signals, when: str) -> None:
    started = time.monotonic()
    status = node.end(number, LIMIT_S)
    seconds = time.monotonic() - started
    came = 'it hung' if status is None else f'exit {status} after {seconds:.1f} s'
    trial.demand(f'{number.name}, {when}: exit 0 within {LIMIT_S:g} s', status == 0, came)
    trial.figures.setdefault('seconds', {})[f'{number.name} {when}'] = round(seconds, 2)


def _while_configuring(
    trial: Trial, ears: DemoMonitor, model: Path, number: signal.Signals
) -> None:
    with node_process({'model': model, 'threads': 1}) as node:
        ears.state()
        ears.begin('configure')
        ears.listen(0.1)
        _end(trial, node, number, 'configuring')


def _while_starting(trial: Trial, model: Path, number: signal.Signals) -> None:
    """Send it while Python imports: there is no node yet, so that the signal itself may end it."""
    with node_process({'model': model, 'threads': 1, 'autostart': True}) as node:
        time.sleep(0.3)
        status = node.end(number, LIMIT_S)
        trial.demand(
            f'{number.name}, 0.3 s after the start, before there is a node: it ends, by itself or '
            'by the signal', status in (0, -number, 128 + number), f'exit {status}')


def _while_inferring(
    trial: Trial, ears: DemoMonitor, sender: SenderProcess, model: Path, number: signal.Signals
) -> None:
    sender.switch(*ALL)
    with node_process(
            {'model': model, 'threads': 1, 'autostart': True, 'rate': 50.0}) as node:
        came = ears.result(60)
        _end(trial, node, number, 'while inferring at 50 Hz' + ('' if came else ', no result'))
    sender.switch()


@case('signals', 'SIGINT and SIGTERM in every state', (
    'The node runs as a process; signals {signals} are sent in each state of the lifecycle, while '
    'it is being configured, while it still starts, and while it infers as fast as it can.'),
    full={'signals': ['SIGINT', 'SIGTERM']}, quick={'signals': ['SIGTERM']}, limit_s=400)
def run(trial: Trial, signals: list[str]) -> None:
    """Go through all states with each signal."""
    with TemporaryDirectory() as folder, domain(), audience() as ears:
        model = make_model(Path(folder, 'random'))
        with sender_process() as sender:
            for name in signals:
                for state in STATES:
                    _in_state(trial, ears, model, state, signal.Signals[name])
                _while_configuring(trial, ears, model, signal.Signals[name])
                _while_starting(trial, model, signal.Signals[name])
                _while_inferring(trial, ears, sender, model, signal.Signals[name])
