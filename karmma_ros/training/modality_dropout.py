"""Modality dropout (paper, Sec. III-D)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Rand = Callable[..., Tensor]
"""From a shape to float32 numbers, uniform in [0, 1)."""


def seeded_rand(seed: int) -> Rand:
    """Return random numbers that depend on the seed alone."""
    return partial(torch.rand, generator=torch.Generator().manual_seed(seed))


class StepRandom:
    """
    Random numbers of a step for the samples that this batch of it has.

    They depend on the seed and on a sample's index in the step alone, not on how the step is
    divided into batches and processes.

    :param total: samples of the step.
    :param rows: indices in the step of the samples in this batch.
    """

    def __init__(self, seed: int, total: int, rows: Tensor) -> None:
        self._rand, self._total, self._rows = seeded_rand(seed), total, rows

    def __call__(self, count: int, *shape: int) -> Tensor:
        """Return numbers `[count, *shape]`, one row for each sample of the batch."""
        assert count == len(self._rows)
        return self._rand(self._total, *shape)[self._rows]


def drop_modalities(present: Tensor, probability: float, rand: Rand = torch.rand) -> Tensor:
    """
    Drop each present modality of each sample on its own; at least one stays.

    Where all would be dropped, one present modality is kept, drawn uniformly: the rule that
    reproduces the paper's curves of Fig. 4.

    :param present: bool `[b, m]`, at least one true in each row.
    :param probability: that a modality is dropped, 0 to 1.
    :returns: bool `[b, m]`, a subset of `present`.
    """
    kept = present & (rand(*present.shape).to(present.device) >= probability)
    lottery = rand(*present.shape).to(present.device)
    winner = lottery.masked_fill(~present, -1.0).argmax(1, keepdim=True)
    one = torch.zeros_like(present).scatter(1, winner, True)
    return torch.where(kept.any(1, keepdim=True), kept, one)
