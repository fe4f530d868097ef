"""Modality dropout (paper, Sec. III-D)."""

from __future__ import annotations

from karmma_ros.training.draws import Draw
import torch
from torch import Tensor


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
