"""
Where all chance comes from: one number generator for each purpose.

A key of integers names a generator; equal keys give equal numbers in every process and
on every machine. Nothing here depends on the order in which things are asked for.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """The first number of every key, so that two purposes never share their numbers."""

    ORDER = 1
    INSTANCE = 2
    EPISODE = 3
    START = 4
    BACKDROP = 5
    GRAIN = 6
    BOXES = 7
    SOUND = 8
    RUSTLE = 9
    FAN = 10
    HIT = 11
    CLATTER = 12


def generator(*key: int) -> np.random.Generator:
    """Give the generator of a key of non-negative integers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def microseconds(t_s: float) -> int:
    """Turn a time of at least 0 s into the integer by which a frame's chance is keyed."""
    return round(t_s * 1e6)
