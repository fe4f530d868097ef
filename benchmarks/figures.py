"""Figures as they are kept, and as they are set in a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Results = Mapping[str, Mapping[str, Any]]
"""Part → date, machine, … and `figures`."""


def measured(part: Mapping[str, Any]) -> str:
    """Return by what command, where and when a part was measured."""
    m, versions = part['machine'], part['versions']
    libraries = ', '.join(f'{name} {v}' for name, v in versions.items())
    # What was measured before this was noted lacks it.
    load = '; load average {} before, {} after'.format(*part['load']) if 'load' in part else ''
    short = ' **A quick run, for trial only.**' if part['quick'] else ''
    return (f'`{part["command"]}`, {part["date"]}: {m["processor"]}, {m["cores"]} cores, Python '
            f'{m["python"]}, {m["ros"]}, torch {m["torch"]}, {libraries}{load}.{short}')


def three_digits(value: float) -> str:
    """Write 5704.3 as 5700 and 0.52371 as 0.524."""
    return f'{float(f"{value:.3g}"):g}'
