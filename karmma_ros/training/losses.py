"""What training minimises."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def classification_loss(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], smoothing: float = 0.0
) -> Tensor:
    """
    Sum the cross-entropy of all heads (Eq. 2).

    :param logits: head → `[b, classes]`.
    :param labels: head → `[b]`.
    :param smoothing: label smoothing, 0 to 1; the paper has none.
    """
    return torch.stack([
        cross_entropy(scores, labels[head], label_smoothing=smoothing)
        for head, scores in logits.items()
    ]).sum()
