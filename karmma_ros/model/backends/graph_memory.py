"""The memory that a graph of fixed sizes takes, from the sizes alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

LARGEST_TENSOR = 2**29
"""Bytes of one tensor in a graph; the attention of the paper's teacher has 315 MB."""
LARGEST_PEAK = 2**30
"""Bytes of what a graph computes that are needed at the same time."""
_CONSTANTS_A_BYTE, _MORE_CONSTANTS = 8, 2**26
"""Bytes that a runtime may compute once from weights alone, for each of the file's, and beyond."""


class Step(NamedTuple):
    """One operator."""

    reads: tuple[str, ...]
    writes: Mapping[str, int]
    """Name of a tensor → its bytes."""
    constant: bool
    """It depends on weights alone: a runtime computes it once, and keeps it."""


MOST_STEPS = 50_000
"""Operators of a graph; Swin-B has about 6,000."""


def check_memory(steps: Iterable[Step], file_size: int) -> None:
    """
    Refuse a graph that takes more memory than any of our exports.

    :param steps: in the order in which they run.
    :param file_size: bytes of the graph's files; it bounds what is computed from weights alone.
    :raises ValueError: naming the tensor that is too large, or the sum.
    """
    done = []
    for step in steps:
        for name, size in step.writes.items():
            if size > LARGEST_TENSOR:
                raise ValueError(f'{name} has the size of {size} bytes, expected at most '
                                 f'{LARGEST_TENSOR}')
        done.append(step)
        if len(done) > MOST_STEPS:
            raise ValueError(f'it has more than {MOST_STEPS} operators')
    kept = {name for step in done if not step.constant for name in step.reads}
    constants = _peak([step for step in done if step.constant], kept)
    allowed = _CONSTANTS_A_BYTE * file_size + _MORE_CONSTANTS
    if constants > allowed:
        raise ValueError(f'it makes {constants} bytes of constants, expected at most {allowed}')
    peak = _peak([step for step in done if not step.constant], set())
    if peak > LARGEST_PEAK:
        raise ValueError(f'it needs {peak} bytes at the same time, expected at most '
                         f'{LARGEST_PEAK}')


def _peak(steps: list[Step], kept: Set[str]) -> int:
    """Return the most bytes in use at the same time; `kept` tensors are never freed."""
    last = {name: index for index, step in enumerate(steps)
            for name in (*step.writes, *step.reads)}
    live: dict[str, int] = {}
    now = peak = 0
    for index, step in enumerate(steps):
        live.update(step.writes)
        now += sum(step.writes.values())
        peak = max(peak, now)
        for name in (*step.reads, *step.writes):
            if last[name] == index and name not in kept:
                now -= live.pop(name, 0)
    return peak
