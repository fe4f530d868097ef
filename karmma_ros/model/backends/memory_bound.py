"""The memory that a graph of fixed sizes takes, from the sizes alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

LARGEST_TENSOR = 2**29
"""Bytes of one tensor in a graph; the attention of the paper's teacher has 315 MB."""
LARGEST_PEAK = 2**30
"""Bytes of what a graph computes that are needed at the same time."""
_CONSTANTS = 2**26
"""Bytes that may be computed once from weights alone, beyond four times the file's."""


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
    :param file_size: bytes of the graph's files; what comes from weights alone is held against it.
    :raises ValueError: naming the tensor that is too large, or the sum.
    """
    done = []
    allowed = 4 * file_size + _CONSTANTS
    for step in steps:
        for name, size in step.writes.items():
            if size > LARGEST_TENSOR:
                raise ValueError(f'{name} has the size of {size} bytes, expected at most '
                                 f'{LARGEST_TENSOR}')
            allowed -= size if step.constant else 0
        if allowed < 0:
            raise ValueError(f'it makes more than {4 * file_size + _CONSTANTS} bytes of constants')
        done.append(step)
        if len(done) > MOST_STEPS:
            raise ValueError(f'it has more than {MOST_STEPS} operators')
    peak = _peak([step for step in done if not step.constant])
    if peak > LARGEST_PEAK:
        raise ValueError(f'it needs {peak} bytes at the same time, expected at most '
                         f'{LARGEST_PEAK}')


def _peak(steps: list[Step]) -> int:
    last = {name: place for place, step in enumerate(steps)
            for name in (*step.writes, *step.reads)}
    live: dict[str, int] = {}
    now = peak = 0
    for place, step in enumerate(steps):
        live.update(step.writes)
        now += sum(step.writes.values())
        peak = max(peak, now)
        for name in (*step.reads, *step.writes):
            if last[name] == place:
                now -= live.pop(name, 0)
    return peak
