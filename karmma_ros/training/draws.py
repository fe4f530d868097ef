"""Chance that depends on the seed, the step and a sample's place in it, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Draw = Callable[..., Tensor]
"""From a shape to float32 numbers, even in [0, 1)."""


def seeded(seed: int) -> Draw:
    """Give draws that a seed alone decides."""
    return partial(torch.rand, generator=torch.Generator().manual_seed(seed))


class StepDraws:
    """
    Draws for the samples of a step of which this process, or this part, has only some.

    :param total: samples of the whole step.
    :param rows: places in the step of those that are here.
    """

    def __init__(self, seed: int, total: int, rows: Tensor) -> None:
        self._draw, self._total, self._rows = seeded(seed), total, rows

    def __call__(self, count: int, *shape: int) -> Tensor:
        """Give numbers `[count, *shape]`, one row for each sample that is here."""
        assert count == len(self._rows)
        return self._draw(self._total, *shape)[self._rows]
