"""Commands of the package that a benchmark runs once: what they print is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import re
import shlex
import subprocess
import sys
import time


@dataclass(frozen=True)
class LoggedCommands:
    """Run commands of the package, each with a log in a folder."""

    folder: Path

    def __call__(self, name: str, *words: str) -> str:
        """Run a command unless its log is there; return what it printed."""
        log = self.folder / f'{name}.log'
        if log.exists():
            return log.read_text(encoding='utf-8')
        self.folder.mkdir(parents=True, exist_ok=True)
        print(f'{self.folder.name}: {name}: karmma {shlex.join(words[:2])}', flush=True)
        started, unfinished = time.monotonic(), log.with_suffix('.unfinished')
        with open(unfinished, 'w', encoding='utf-8') as file:
            subprocess.run([sys.executable, '-m', 'karmma_ros.cli.main', *words], check=True,
                           stdout=file, stderr=file)
        unfinished.rename(log)
        print(f'{self.folder.name}: {name}: {time.monotonic() - started:.0f} s', flush=True)
        return log.read_text(encoding='utf-8')


def added_scores(log: str) -> tuple[float, float, float]:
    """Return percent right of what `--add-classes` printed: added, known before, known after."""
    added = re.search(r'with added classes, .*: ([\d.]+) % of', log)
    old = re.search(r'with old classes, .*: ([\d.]+) % of \d+ are right, ([\d.]+) % before', log)
    if added is None or old is None:
        raise SystemExit('karmma finetune printed no accuracy of added and of old classes')
    return float(added[1]), float(old[2]), float(old[1])
