"""Model changes at run time: valid models, damaged ones, and files that change while in use."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
import time

from karmma_ros.model.bundle import load_bundle, WEIGHTS

from fault_suite.case import case, Trial
from fault_suite.hostile import corrupted
from fault_suite.models import make_model
from fault_suite.monitor import node_monitor, NodeMonitor
from fault_suite.processes import ALL, node_process, sender_process
from fault_suite.ros import domain

RATE_HZ, LONGEST_GAP_S, SWAP_S = 10.0, 1.0, 20.0
BAD = ('weights truncated to half', 'weights are a pickle that runs code',
       'weights’ header of 8 EB', 'weights are a FIFO', 'config is a FIFO',
       'config nested 200,000 deep',
       'width of 10 million', 'a window of 30 years')


def _gap(monitor: NodeMonitor, since: float) -> float:
    """Return the longest time without a result since a time."""
    times = [since, *(h.time for h in monitor.results if h.time > since), time.monotonic()]
    return max(b - a for a, b in zip(times, times[1:]))


def _good(trial: Trial, monitor: NodeMonitor, models: list[Path], swaps: int) -> None:
    ids = [load_bundle(model).model_id for model in models]
    gaps, seconds, back = [], [], 0
    for number in range(1, swaps + 1):
        wanted, since, before = ids[number % 2], time.monotonic(), len(monitor.results)
        response = monitor.set_parameter('model', str(models[number % 2]))
        monitor.spin_until(lambda: monitor.results[-1].message.model_id == wanted, SWAP_S)
        seconds.append(time.monotonic() - since)
        monitor.spin(1.0)
        gaps.append(_gap(monitor, since))
        names = [h.message.model_id for h in monitor.results[before:]]
        switch = names.index(wanted) if wanted in names else len(names)
        back += sum(name != wanted for name in names[switch:])
        if not (response and response.successful):
            trial.require(f'swap {number} is accepted', False, response)
    named = {h.message.model_id for h in monitor.results}
    trial.require(f'{swaps} swaps: each takes effect within {SWAP_S:g} s', max(seconds) < SWAP_S,
                  f'{max(seconds):.2f} s at most')
    trial.require(f'never more than {LONGEST_GAP_S:g} s without a result',
                  max(gaps) < LONGEST_GAP_S,
                  f'{max(gaps):.2f} s at most, at {RATE_HZ:g} results a second')
    trial.require('each result names one of the two models, and none the old one after the new '
                  'one', named <= set(ids) and not back,
                  f'{sorted(named)}, {back} from the old one')
    trial.figures.update(swap_s=round(max(seconds), 2), gap_s=round(max(gaps), 2))


def _bad(trial: Trial, monitor: NodeMonitor, good: Path, folder: Path, corruption: str) -> None:
    """Request a model that cannot be loaded; the old one must stay, and it must be reported."""
    before = monitor.parameter('model')
    kept, since = monitor.results[-1].message.model_id, time.monotonic()
    model = corrupted(good, folder, corruption)
    response = monitor.set_parameter('model', str(model))
    refused = bool(response) and not response.successful

    def is_reported() -> bool:
        status = monitor.status('model')
        return refused or bool(status) and str(model) in {
            v.key: v.value for v in status.values}.get('last failure', '')
    reported = monitor.spin_until(is_reported, SWAP_S)
    monitor.spin(1.0)
    gap = _gap(monitor, since)
    named = {h.message.model_id for h in monitor.results if h.time > since}
    status = monitor.status('model')
    trial.require(f'{corruption}: within {SWAP_S:g} s it is reported; the old model continues '
                  'without a pause, and the parameter names it again',
                  reported and gap < LONGEST_GAP_S and named == {kept}
                  and monitor.parameter('model') == before,
                  f'{"reported" if reported else "not reported"}, longest pause {gap:.2f} s, '
                  f'{sorted(named)}: '
                  f'{status.message.replace(str(folder), "…")[:150] if status else ""}')


def _truncate_model_in_use(trial: Trial, monitor: NodeMonitor, model: Path) -> None:
    since = time.monotonic()
    os.truncate(model / WEIGHTS, 100)
    monitor.spin(2.0)
    gap = _gap(monitor, since)
    trial.require('the weights of the model in use are truncated: results continue',
                  gap < LONGEST_GAP_S, f'longest pause {gap:.2f} s')


@case('swap', 'Model changes at run time', (
    'While all sensors send, the parameter model alternates between two models {swaps} '
    'times, then is set to damaged and hostile ones; at last the file of the model in use is '
    'truncated.'),
    full={'swaps': 10, 'bad': list(BAD)}, quick={'swaps': 2, 'bad': list(BAD[:2])}, limit_s=400)
def run(trial: Trial, swaps: int, bad: list[str]) -> None:
    """Swap under load."""
    with TemporaryDirectory() as name, domain(), node_monitor() as monitor, \
            sender_process() as sender:
        folder = Path(name)
        models = [make_model(folder / 'first', seed=1), make_model(folder / 'second', seed=2)]
        sender.switch(*ALL)
        with node_process({'model': models[0], 'threads': 1, 'autostart': True,
                           'rate': RATE_HZ}) as node:
            if not trial.require('there are results', monitor.result(60), len(monitor.results)):
                return
            _good(trial, monitor, models, swaps)
            for corruption in bad:
                _bad(trial, monitor, models[0], folder, corruption)
            _truncate_model_in_use(trial, monitor, models[swaps % 2])
            trial.require('it exits in order', node.end() == 0, node.process.returncode)
