"""Load damaged and hostile model directories; each in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
from tempfile import TemporaryDirectory

from fault_suite.case import case, Trial
from fault_suite.hostile import corrupted, CORRUPTIONS, LOADABLE, witness
from fault_suite.loading import LIMIT_S, Outcome
from fault_suite.models import make_model
from fault_suite.processes import module_process

MEMORY_MIB = 512


def _load(loader: subprocess.Popen[str], model: Path) -> Outcome:
    loader.stdin.write(f'{model}\n')
    loader.stdin.flush()
    return Outcome(**json.loads(loader.stdout.readline()))


@case('model_files', 'Damaged and hostile model directories', (
    'A valid model directory is corrupted, each time in another way, and loaded and warmed up as '
    'the node does, in a process of its own that is killed after 10 s.'),
    full={'corruptions': list(CORRUPTIONS)}, limit_s=900)
def run(trial: Trial, corruptions: list[str]) -> None:
    """Load each corrupted model."""
    with TemporaryDirectory() as name, module_process('fault_suite.loading') as loader:
        folder = Path(name)
        good = make_model(folder / 'good')
        outcome = _load(loader, good)
        trial.require('undamaged: it is loaded', outcome.outcome == 'loaded', outcome.outcome)
        for corruption in corruptions:
            model = corrupted(good, folder, corruption)
            _check(trial, corruption, model, _load(loader, model))


def _check(trial: Trial, corruption: str, model: Path, outcome: Outcome) -> None:
    as_expected = outcome.refused or (corruption in LOADABLE and outcome.outcome == 'loaded')
    as_expected = as_expected and outcome.grown_mib < MEMORY_MIB and not witness(model).exists()
    # Temporary paths are not part of the report.
    text = outcome.outcome.replace(str(model.parent), '…')
    code = '; CODE WAS RUN' if witness(model).exists() else ''
    trial.require(
        f'{corruption}: rejected with a reason, no code run, in {LIMIT_S:g} s and '
        f'{MEMORY_MIB} MiB', as_expected,
        f'{text[:160]} ({outcome.seconds:.1f} s, {outcome.grown_mib:.0f} MiB{code})')
