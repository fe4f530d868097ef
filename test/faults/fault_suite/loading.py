"""
Load model directories, each in a process that is killed when it takes too long.

`python -m fault_suite.loading` reads paths from standard input and writes a line of JSON for
each. It forks for each, so that torch is imported once, and uses one thread, since those
of a pool do not live on in a fork.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
import json
import os
from pathlib import Path
import select
import signal
import sys
import time
import traceback

from karmma_ros.errors import BundleError
from karmma_ros.node.model_loader import load_model
import torch

from fault_suite.proc import MEBI, peak_bytes, usage

LIMIT_S = 10.0


@dataclass(frozen=True)
class Outcome:
    """How the process that loaded a model ended."""

    outcome: str
    """`refused: SENTENCE`, `loaded`, `raised: …`, or how the process ended."""
    seconds: float
    grown_mib: float

    @property
    def refused(self) -> bool:
        """Return whether it was rejected with an error of the package."""
        return self.outcome.startswith('refused: ')


def load_in_child(model: Path) -> Outcome:
    """Load a model in a fork of this process, which is killed when it takes too long."""
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _load(model, writing)
    os.close(writing)
    text = _read(reading, started + LIMIT_S)
    os.kill(child, signal.SIGKILL)
    _, status, = os.waitpid(child, 0)
    seconds = time.monotonic() - started
    if not text:
        hung = seconds >= LIMIT_S
        return Outcome('hung' if hung else f'died by signal {os.WTERMSIG(status)}', seconds, 0.0)
    grown, _, outcome = text.partition(' ')
    return Outcome(outcome, seconds, float(grown))


def _read(pipe: int, deadline: float) -> str:
    """Return what the child writes; empty if it ends or writes nothing in time."""
    data = b''
    while time.monotonic() < deadline:
        if select.select([pipe], [], [], 0.05)[0]:
            part = os.read(pipe, 65_536)
            if not part:
                break
            data += part
    os.close(pipe)
    return data.decode()


def _load(model: Path, pipe: int) -> None:
    """In the child: load, write the outcome, and exit without the parent's clean-up."""
    # Counted from here: resetting the peak needs no right but that to one's own files.
    Path('/proc/self/clear_refs').write_text('5')
    before = usage().rss
    try:
        load_model(str(model), 'cpu', 'auto')
        outcome = 'loaded'
    except BundleError as error:
        outcome = f'refused: {error}'
    except BaseException as error:
        traceback.print_exc()
        outcome = f'raised: {type(error).__name__}: {error}'
    os.write(pipe, f'{(peak_bytes() - before) / MEBI:.0f} {outcome[:4000]}'.encode())
    os._exit(0)


def main() -> None:
    """Serve until the input ends."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(asdict(load_in_child(Path(line.strip())))), flush=True)


if __name__ == '__main__':
    main()
