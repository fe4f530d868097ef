"""SIGINT and SIGTERM in every state of the lifecycle, and in the middle of work."""

from __future__ import annotations

from pathlib import Path
import signal
from tempfile import TemporaryDirectory
import time

from fault_suite.case import case, Trial
from fault_suite.models import make_model
from fault_suite.monitor import node_monitor, NodeMonitor
from fault_suite.processes import ALL, node_process, NodeProcess, sender_process, SenderProcess
from fault_suite.ros import domain

STATES = {
    'unconfigured': (), 'inactive': ('configure',), 'active': ('configure', 'activate'),
    'inactive again': ('configure', 'activate', 'deactivate'),
    'unconfigured again': ('configure', 'cleanup'),
}
LIMIT_S = 15.0
"""Launch files kill after 5 s + 5 s; a busy machine may take a little longer."""


def _in_state(
    trial: Trial, monitor: NodeMonitor, model: Path, state: str, number: signal.Signals
) -> None:
    with node_process({'model': model, 'threads': 1}) as node:
        reached = all(monitor.change(step) for step in STATES[state])
        reached = reached and monitor.state() == state.split()[0]
        _end(trial, node, number, state if reached else f'{state}, which it did not reach')


def _end(trial: Trial, node: NodeProcess, number: signal.Signals, when: str) -> None:
    started = time.monotonic()
    status = node.end(number, LIMIT_S)
    seconds = time.monotonic() - started
    received = 'it hung' if status is None else f'exit {status} after {seconds:.1f} s'
    trial.require(f'{number.name}, {when}: exit 0 within {LIMIT_S:g} s', status == 0, received)
    trial.figures.setdefault('seconds', {})[f'{number.name} {when}'] = round(seconds, 2)


def _while_configuring(
    trial: Trial, monitor: NodeMonitor, model: Path, number: signal.Signals
) -> None:
    with node_process({'model': model, 'threads': 1}) as node:
        monitor.state()
        monitor.begin('configure')
        monitor.spin(0.1)
        _end(trial, node, number, 'configuring')


def _while_starting(trial: Trial, model: Path, number: signal.Signals) -> None:
    """Send it while Python imports: there is no node yet, so that the signal itself may end it."""
    with node_process({'model': model, 'threads': 1, 'autostart': True}) as node:
        time.sleep(0.3)
        status = node.end(number, LIMIT_S)
        trial.require(
            f'{number.name}, 0.3 s after the start, before there is a node: it ends, by itself or '
            'by the signal', status in (0, -number, 128 + number), f'exit {status}')


def _while_inferring(
    trial: Trial, monitor: NodeMonitor, sender: SenderProcess, model: Path, number: signal.Signals
) -> None:
    sender.switch(*ALL)
    with node_process(
            {'model': model, 'threads': 1, 'autostart': True, 'rate': 50.0}) as node:
        received = monitor.result(60)
        _end(trial, node, number, 'while inferring at 50 Hz' + ('' if received else ', no result'))
    sender.switch()


@case('signals', 'SIGINT and SIGTERM in every state', (
    'The node runs as a process; signals {signals} are sent in each state of the lifecycle, while '
    'it is being configured, while it starts, and while it runs inference as fast as it can.'),
    full={'signals': ['SIGINT', 'SIGTERM']}, quick={'signals': ['SIGTERM']}, limit_s=400)
def run(trial: Trial, signals: list[str]) -> None:
    """Go through all states with each signal."""
    with TemporaryDirectory() as folder, domain(), node_monitor() as monitor:
        model = make_model(Path(folder, 'random'))
        with sender_process() as sender:
            for name in signals:
                for state in STATES:
                    _in_state(trial, monitor, model, state, signal.Signals[name])
                _while_configuring(trial, monitor, model, signal.Signals[name])
                _while_starting(trial, model, signal.Signals[name])
                _while_inferring(trial, monitor, sender, model, signal.Signals[name])
