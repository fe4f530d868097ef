"""The multi-head MLP (MH-MLP): one shared layer, then a classifier for each head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn, Tensor


class MultiHeadMLP(nn.Module):
    """
    Classify every output token of the fusion block and average (Sec. III-B).

    The paper averages "the predictions" without saying of which kind; here the logits are
    averaged. Its hidden activation is not given either: GELU.
    """

    def __init__(self, dim: int, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.shared = nn.Linear(dim, 2 * dim)
        self.activation = nn.GELU()
        self.classifiers = nn.ModuleDict(
            {head: nn.Linear(2 * dim, size) for head, size in classes.items()}
        )

    def forward(self, tokens: Tensor, counted: Tensor | None = None) -> dict[str, Tensor]:
        """
        Give the logits of each head.

        :param tokens: `[b, m + 1, d]`.
        :param counted: bool `[b, m + 1]`, the tokens to average over; None: all.
        :returns: head → `[b, classes]`.
        """
        hidden = self.activation(self.shared(tokens))  # [b, m + 1, 2d]
        # A linear classifier of the mean is the mean of the classifiers, at 1 / (m + 1) the cost.
        if counted is None:
            mean = hidden.mean(1)
        else:
            weights = counted.to(hidden.dtype).unsqueeze(-1)
            mean = (hidden * weights).sum(1) / weights.sum(1)
        return {head: classify(mean) for head, classify in self.classifiers.items()}
