"""
The losses of training.

Shape legend: b batch, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

Logits = Mapping[str, Tensor]
"""Head → `[b, c]`."""


def classification_loss(
    logits: Logits, labels: Mapping[str, Tensor], smoothing: float = 0.0
) -> Tensor:
    """
    Return the cross-entropy, summed over the heads, averaged over the batch (Eq. 2).

    :param labels: head → class ids, int64 `[b]`.
    :param smoothing: label smoothing, 0 to 1; the paper has none.
    :returns: a scalar.
    """
    return torch.stack([
        cross_entropy(scores, labels[head], label_smoothing=smoothing)
        for head, scores in logits.items()
    ]).sum()


def distillation_loss(student: Logits, teacher: Logits) -> Tensor:
    """
    Return KL(teacher ‖ student), summed over the heads, averaged over the batch (Eq. 3).

    The paper names no temperature: it is 1. For teacher probabilities 0.8 and 0.2 and student
    probabilities 0.5 and 0.5 it is 0.8 ln 1.6 + 0.2 ln 0.4 = 0.193.

    :returns: a scalar.
    """
    return torch.stack([
        kl_div(scores.log_softmax(1), teacher[head].log_softmax(1),
               reduction='batchmean', log_target=True)
        for head, scores in student.items()
    ]).sum()
