"""
The fusion block (FB): a transformer over the tokens of all modalities.

Shape legend: b batch, m modalities, n_i tokens of modality i, s = 1 + Σ n_i, d width.
"""

from __future__ import annotations

from collections.abc import Mapping

from karmma_ros.modality import Modality
import torch
from torch import nn, Tensor


class FusionBlock(nn.Module):
    """
    Mix [CLS] and the tokens of every modality; return one token each (Sec. III-B).

    The layers are PyTorch's post-norm ones without a final norm: only so does the count of
    trainable parameters of the paper's teacher come out (11.247 M).
    """

    def __init__(
        self, dim: int, layers: int, heads: int, feedforward: int, attention_dropout: float
    ) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.empty(dim))
        nn.init.trunc_normal_(self.cls, std=0.02)
        stack = [
            nn.TransformerEncoderLayer(dim, heads, feedforward, dropout=0.0, batch_first=True)
            for _ in range(layers)
        ]
        for layer in stack:
            # The paper drops attention weights only; the layer's own argument would also
            # drop activations.
            layer.self_attn.dropout = attention_dropout
        self.layers = nn.ModuleList(stack)

    def forward(
        self, tokens: Mapping[Modality, Tensor], present: Tensor | None = None
    ) -> Tensor:
        """
        Fuse the modalities' tokens.

        :param tokens: modality → `[b, n_i, d]`, in canonical order.
        :param present: bool `[b, m]`; the tokens of an absent modality are not attended to.
            None: attend to all.
        :returns: `[b, m + 1, d]`: the mean token of each modality, then [CLS].
        """
        sizes = [t.shape[1] for t in tokens.values()]
        batch = next(iter(tokens.values())).shape[0]
        x = torch.cat([*tokens.values(), self.cls.expand(batch, 1, -1)], dim=1)  # [b, s, d]
        ignore = None
        if present is not None:
            repeats = torch.tensor(sizes, device=present.device)
            ignore = ~present.repeat_interleave(repeats, dim=1)  # [b, s - 1]
            ignore = nn.functional.pad(ignore, (0, 1), value=False)  # [b, s]
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=ignore)
        parts = x.split([*sizes, 1], dim=1)
        return torch.stack([part.mean(1) for part in parts], dim=1)
