"""Resources of a process, from /proc: memory, threads, open files, CPU time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path

import numpy as np

_TICKS = os.sysconf('SC_CLK_TCK')
MEBI = 2 ** 20


@dataclass(frozen=True)
class Usage:
    """Resources of a process at one time."""

    rss: int
    """Resident memory, bytes."""
    threads: int
    files: int
    """Open file descriptors."""
    cpu_s: float
    """Time on the processor since its start, seconds."""


def usage(pid: int | None = None) -> Usage:
    """Return the resources of a process, of this one by default."""
    folder = Path('/proc', str(pid or os.getpid()))
    fields = dict(line.split(':', 1) for line in (folder / 'status').read_text().splitlines())
    # The name in parentheses may hold spaces; after it come state, parent and so on.
    numbers = (folder / 'stat').read_text().rpartition(')')[2].split()
    return Usage(
        int(fields['VmRSS'].split()[0]) * 1024, int(fields['Threads']),
        len(os.listdir(folder / 'fd')), (int(numbers[11]) + int(numbers[12])) / _TICKS)


def peak_bytes(pid: int | None = None) -> int:
    """Return the largest resident memory that a process has had."""
    for line in Path('/proc', str(pid or os.getpid()), 'status').read_text().splitlines():
        if line.startswith('VmHWM:'):
            return int(line.split()[1]) * 1024
    return 0


def rise(values: Sequence[float]) -> float:
    """Return by how much a straight line through the values rises from the first to the last."""
    if len(values) < 2:
        return 0.0
    slope, _ = np.polyfit(np.arange(len(values)), np.asarray(values, float), 1)
    return float(slope * (len(values) - 1))
