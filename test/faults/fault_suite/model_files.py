"""Load damaged and hostile model directories; each in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
from tempfile import TemporaryDirectory

from fault_suite.case import case, Trial
from fault_suite.hostile import harmed, HARMLESS, HARMS, witness
from fault_suite.loading import LIMIT_S, Outcome
from fault_suite.models import make_model
from fault_suite.processes import module_process

MEMORY_MIB = 512


def _load(loader: subprocess.Popen[str], model: Path) -> Outcome:
    loader.stdin.write(f'{model}\n')
    loader.stdin.flush()
    return Outcome(**json.loads(loader.stdout.readline()))


@case('model_files', 'Damaged and hostile model directories', (
    'A good model directory is harmed, each time in another way, and loaded and warmed up as '
    'the node does, in a process of its own that is killed after 10 s.'),
    full={'harms': list(HARMS)}, limit_s=900)
def run(trial: Trial, harms: list[str]) -> None:
    """Try each harm."""
    with TemporaryDirectory() as name, module_process('fault_suite.loading') as loader:
        folder = Path(name)
        good = make_model(folder / 'good')
        outcome = _load(loader, good)
        trial.demand('undamaged: it is loaded', outcome.answer == 'loaded', outcome.answer)
        for harm in harms:
            model = harmed(good, folder, harm)
            _judge(trial, harm, model, _load(loader, model))


def _judge(trial: Trial, harm: str, model: Path, outcome: Outcome) -> None:
    fine = outcome.refused or (harm in HARMLESS and outcome.answer == 'loaded')
    fine = fine and outcome.grown_mib < MEMORY_MIB and not witness(model).exists()
    # Where the tests put the directory is of no interest.
    said = outcome.answer.replace(str(model.parent), '…')
    code = '; CODE WAS RUN' if witness(model).exists() else ''
    trial.demand(
        f'{harm}: refused with a sentence, no code run, in {LIMIT_S:g} s and {MEMORY_MIB} MiB',
        fine, f'{said[:160]} ({outcome.seconds:.1f} s, {outcome.grown_mib:.0f} MiB{code})')
