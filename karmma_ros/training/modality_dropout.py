"""Modality dropout (paper, Sec. III-D)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Draw = Callable[..., Tensor]
"""From a shape to float32 numbers, even in [0, 1)."""


def seeded(seed: int) -> Draw:
    """Return draws that a seed alone decides."""
    return partial(torch.rand, generator=torch.Generator().manual_seed(seed))


class StepSampler:
    """
    Draws for the samples of a step of which this process, or this part, has only some.

    :param total: samples of the whole step.
    :param rows: places in the step of those that are here.
    """

    def __init__(self, seed: int, total: int, rows: Tensor) -> None:
        self._draw, self._total, self._rows = seeded(seed), total, rows

    def __call__(self, count: int, *shape: int) -> Tensor:
        """Return numbers `[count, *shape]`, one row for each sample that is here."""
        assert count == len(self._rows)
        return self._draw(self._total, *shape)[self._rows]


def drop_modalities(present: Tensor, probability: float, draw: Draw = torch.rand) -> Tensor:
    """
    Drop each present modality of each sample on its own; at least one stays.

    Where all would be dropped, one of the sample's own is kept, drawn uniformly: the rule
    that reproduces the paper's curves of Fig. 4.

    :param present: bool `[b, m]`, at least one true in each row.
    :param probability: chance of a modality to be dropped, 0 to 1.
    :returns: bool `[b, m]`, a subset of `present`.
    """
    kept = present & (draw(*present.shape).to(present.device) >= probability)
    lottery = draw(*present.shape).to(present.device)
    winner = lottery.masked_fill(~present, -1.0).argmax(1, keepdim=True)
    one = torch.zeros_like(present).scatter(1, winner, True)
    return torch.where(kept.any(1, keepdim=True), kept, one)
