"""
Tokens between encoder and fusion block: reduction, embedding, learned tokens if absent.

Shape legend: b batch, n tokens of one modality, p chunks of a clip, e encoder width, d fusion
width.
"""

from __future__ import annotations

from collections.abc import Callable

from karmma_ros.errors import InvalidSettingError
import torch
from torch import nn, Tensor


def tau_average(tokens: Tensor, cap: int) -> Tensor:
    """
    Average contiguous tokens so that at most `cap` remain (paper, Sec. III-C).

    `floor(n / cap)` tokens form a group and the remainder joins the last group, as the
    paper words it: 784 tokens at a cap of 300 give 299 pairs and one group of 186.

    :param tokens: `[b, n, e]`.
    :returns: `[b, min(n, cap), e]`.
    :raises InvalidSettingError: for a cap below one.
    """
    _check_cap(cap)
    n = tokens.shape[1]
    if n <= cap:
        return tokens
    size = n // cap
    border = (cap - 1) * size
    head = tokens[:, :border].unflatten(1, (cap - 1, size)).mean(2)  # [b, cap - 1, e]
    tail = tokens[:, border:].mean(1, keepdim=True)  # [b, 1, e]
    return torch.cat([head, tail], dim=1)


def even_average(tokens: Tensor, cap: int) -> Tensor:
    """
    Average contiguous tokens into `cap` groups whose sizes differ by at most one.

    Not the paper's: where tokens follow time, its last group swallows the newest quarter of
    the clip. Here the larger groups come first, so that the newest frames keep their detail.
    784 tokens at a cap of 300 give 184 groups of three and 116 of two.

    :param tokens: `[b, n, e]`.
    :returns: `[b, min(n, cap), e]`.
    :raises InvalidSettingError: for a cap below one.
    """
    _check_cap(cap)
    n = int(tokens.shape[1])  # where the network is traced, it is no int
    if n <= cap:
        return tokens
    size, larger = divmod(n, cap)
    border = larger * (size + 1)
    head = tokens[:, :border].unflatten(1, (larger, size + 1)).mean(2)  # [b, larger, e]
    tail = tokens[:, border:].unflatten(1, (cap - larger, size)).mean(2)
    return torch.cat([head, tail], dim=1)


REDUCE: dict[str, Callable[[Tensor, int], Tensor]] = {
    'tau_average': tau_average,
    'even': even_average,
}
"""Token reductions by the name that a configuration gives them."""


def _check_cap(cap: int) -> None:
    if cap < 1:
        raise InvalidSettingError('token_cap', cap, 'an integer above 0')


class TokenEmbedding(nn.Module):
    """
    Project one modality's tokens and stand in for them when it is absent (Eq. 1).

    Present: `W x_j + m`; absent: `a_j + m`, with the modality-specific token m and the
    token-specific tokens a_j of Sec. III-D. The width of the sequence stays the same.

    Chunks that are encoded independently each get a learned position token as well, for the
    fusion block has no positions.

    :param num_tokens: tokens after reduction (n); 0 builds no learned tokens at all.
    :param parts: chunks that the tokens come from (p), oldest first; they divide n.
    :param ordered: False builds no position tokens, where the order of chunks has no effect.
    """

    def __init__(
        self, in_dim: int, dim: int, num_tokens: int, parts: int = 1, *, ordered: bool = True,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(in_dim, dim)
        learned = num_tokens > 0
        self.modality_token = nn.Parameter(torch.empty(dim)) if learned else None
        self.absent_tokens = nn.Parameter(torch.empty(num_tokens, dim)) if learned else None
        for token in (self.modality_token, self.absent_tokens):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)
        self.parts = parts
        self.order_tokens = (
            nn.Parameter(torch.empty(parts, dim)) if parts > 1 and ordered else None)
        if self.order_tokens is not None:
            nn.init.trunc_normal_(self.order_tokens, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed the tokens of a present modality: `[b, n, e]` → `[b, n, d]`."""
        embedded: Tensor = self.project(tokens)
        return embedded if self.modality_token is None else embedded + self.modality_token

    def in_order(self, parts: Tensor) -> Tensor:
        """
        Join the embedded tokens of a clip's chunks and add their positions.

        Positions are added here and not earlier: those of a kept chunk change.

        :param parts: `[b, p, n / p, d]`, oldest first.
        :returns: `[b, n, d]`.
        """
        if self.order_tokens is not None:
            parts = parts + self.order_tokens[:, None]
        return parts.flatten(1, 2)

    def absent(self, batch: int) -> Tensor:
        """Return the tokens `[b, n, d]` that stand for an absent modality."""
        if self.absent_tokens is None or self.modality_token is None:
            raise InvalidSettingError(
                'architecture.missing', 'omit', 'tokens', 'this network has no learned tokens')
        return (self.absent_tokens + self.modality_token).expand(batch, -1, -1)
