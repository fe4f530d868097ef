"""
The ensemble of Radevski et al. (ICCV 2023), which the paper compares with.

One classifier for each modality, trained on its own; their logits are averaged with a weight
each. In `Karmma`'s terms: the tokens of an encoder are reduced to their mean, the embedding is
the classifier, and these two modules stand where the fusion block and the heads are. So it
trains, distils, scores and ships like every other network here.

Shape legend: b batch, m modalities, c classes of all heads together.
"""

from __future__ import annotations

from collections.abc import Mapping

from karmma_ros.modality import in_order, Modality
import torch
from torch import nn, Tensor


class LogitMean(nn.Module):
    """
    Average the modalities' logits, each with its weight; the weights of those present count.

    :param votes: modality → weight above 0.
    """

    def __init__(self, votes: Mapping[Modality, float]) -> None:
        super().__init__()
        self.modalities = in_order(votes)
        self.votes: Tensor
        self.register_buffer(
            'votes', torch.tensor([float(votes[m]) for m in self.modalities]), persistent=False)

    def forward(
        self, logits: Mapping[Modality, Tensor], present: Tensor | None = None
    ) -> Tensor:
        """
        Average.

        :param logits: modality → `[b, 1, c]`, in canonical order; at least one.
        :param present: bool `[b, len(logits)]`; None: all are.
        :returns: `[b, 1, c]`.
        """
        stacked = torch.cat(list(logits.values()), dim=1)  # [b, m, c]
        votes = self.votes[[self.modalities.index(m) for m in logits]].to(stacked.dtype)
        weights = votes.expand(stacked.shape[:2]).unsqueeze(-1)  # [b, m, 1]
        if present is not None:
            weights = weights * present.unsqueeze(-1)
        return (stacked * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)


class SplitHeads(nn.Module):
    """Cut one row of logits into the heads'."""

    def __init__(self, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.classes = dict(classes)

    def forward(self, logits: Tensor, counted: Tensor | None = None) -> dict[str, Tensor]:
        """
        Split.

        :param logits: `[b, 1, c]`.
        :param counted: not needed: absent modalities have had no vote.
        :returns: head → `[b, classes]`.
        """
        parts = logits.squeeze(1).split(list(self.classes.values()), dim=1)
        return dict(zip(self.classes, parts))
