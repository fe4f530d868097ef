"""Another model while results go on: good ones, bad ones, and files that change underfoot."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
import time

from karmma_ros.model.bundle import load_bundle, WEIGHTS

from fault_suite.audience import audience, DemoMonitor
from fault_suite.case import case, Trial
from fault_suite.hostile import harmed
from fault_suite.models import make_model
from fault_suite.processes import ALL, node_process, sender_process
from fault_suite.ros import domain

RATE_HZ, LONGEST_GAP_S, SWAP_S = 10.0, 1.0, 20.0
BAD = ('weights cut in half', 'weights are a pickle that runs code', 'weights’ header of 8 EB',
       'weights are a FIFO', 'config is a FIFO', 'config nested 200,000 deep',
       'width of 10 million', 'a window of 30 years')


def _gap(ears: DemoMonitor, since: float) -> float:
    """Return the longest time without a result since a moment."""
    times = [since, *(h.time for h in ears.results if h.time > since), time.monotonic()]
    return max(b - a for a, b in zip(times, times[1:]))


def _good(trial: Trial, ears: DemoMonitor, models: list[Path], swaps: int) -> None:
    ids = [load_bundle(model).model_id for model in models]
    gaps, seconds, back = [], [], 0
    for number in range(1, swaps + 1):
        wanted, since, before = ids[number % 2], time.monotonic(), len(ears.results)
        answer = ears.set_parameter('model', str(models[number % 2]))
        ears.until(lambda: ears.results[-1].message.model_id == wanted, SWAP_S)
        seconds.append(time.monotonic() - since)
        ears.listen(1.0)
        gaps.append(_gap(ears, since))
        names = [h.message.model_id for h in ears.results[before:]]
        switch = names.index(wanted) if wanted in names else len(names)
        back += sum(name != wanted for name in names[switch:])
        if not (answer and answer.successful):
            trial.demand(f'swap {number} is accepted', False, answer)
    named = {h.message.model_id for h in ears.results}
    trial.demand(f'{swaps} swaps: each is in force within {SWAP_S:g} s', max(seconds) < SWAP_S,
                 f'{max(seconds):.2f} s at most')
    trial.demand(f'never more than {LONGEST_GAP_S:g} s without a result',
                 max(gaps) < LONGEST_GAP_S,
                 f'{max(gaps):.2f} s at most, at {RATE_HZ:g} results a second')
    trial.demand('each result names one of the two models, none the old one after the new one',
                 named <= set(ids) and not back, f'{sorted(named)}, {back} by the old one')
    trial.figures.update(swap_s=round(max(seconds), 2), gap_s=round(max(gaps), 2))


def _bad(trial: Trial, ears: DemoMonitor, good: Path, folder: Path, harm: str) -> None:
    """Ask for a model that cannot be loaded; the old one must stay, and it must be said."""
    before = ears.parameter('model')
    kept, since = ears.results[-1].message.model_id, time.monotonic()
    model = harmed(good, folder, harm)
    answer = ears.set_parameter('model', str(model))
    refused = bool(answer) and not answer.successful

    def said() -> bool:
        status = ears.status('model')
        return refused or bool(status) and str(model) in {
            v.key: v.value for v in status.values}.get('last failure', '')
    told = ears.until(said, SWAP_S)
    ears.listen(1.0)
    gap, named = _gap(ears, since), {h.message.model_id for h in ears.results if h.time > since}
    status = ears.status('model')
    trial.demand(f'{harm}: within {SWAP_S:g} s it is said; the old model goes on without a pause, '
                 'and the parameter names it again',
                 told and gap < LONGEST_GAP_S and named == {kept}
                 and ears.parameter('model') == before,
                 f'{"said" if told else "not said"}, longest pause {gap:.2f} s, {sorted(named)}: '
                 f'{status.message.replace(str(folder), "…")[:150] if status else ""}')


def _underfoot(trial: Trial, ears: DemoMonitor, model: Path) -> None:
    since = time.monotonic()
    os.truncate(model / WEIGHTS, 100)
    ears.listen(2.0)
    gap = _gap(ears, since)
    trial.demand('the weights of the model in use are cut short: results go on',
                 gap < LONGEST_GAP_S, f'longest pause {gap:.2f} s')


@case('swap', 'Another model while it runs', (
    'While all sensors send, the parameter model goes back and forth between two models {swaps} '
    'times, then to damaged and hostile ones, and at last the file of the one in use is cut '
    'short.'),
    full={'swaps': 10, 'bad': list(BAD)}, quick={'swaps': 2, 'bad': list(BAD[:2])}, limit_s=400)
def run(trial: Trial, swaps: int, bad: list[str]) -> None:
    """Swap under load."""
    with TemporaryDirectory() as name, domain(), audience() as ears, sender_process() as sender:
        folder = Path(name)
        models = [make_model(folder / 'first', seed=1), make_model(folder / 'second', seed=2)]
        sender.switch(*ALL)
        with node_process({'model': models[0], 'threads': 1, 'autostart': True,
                           'rate': RATE_HZ}) as node:
            if not trial.demand('results come', ears.result(60), len(ears.results)):
                return
            _good(trial, ears, models, swaps)
            for harm in bad:
                _bad(trial, ears, models[0], folder, harm)
            _underfoot(trial, ears, models[swaps % 2])
            trial.demand('it ends in order', node.end() == 0, node.process.returncode)
