"""
The layout encoder: hand and object boxes through space, then time.

Shape legend: b batch, t frames, n boxes, e token width.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

from karmma_ros.clip import BOX_HAND, BOX_OBJECT, BOX_PAD
import torch
from torch import nn, Tensor

CATEGORIES = 4
"""Pad, hand, object and class, in STLT's numbering."""
CLASS = 3
SEEN = (BOX_HAND, BOX_OBJECT)
"""Categories that a detector reports."""
CLASS_BOX = (0.0, 0.0, 1.0, 1.0)
"""The box of the class token is the entire frame."""


class STLT(nn.Module):
    """
    Spatial-Temporal Layout Transformer (Radevski et al., BMVC 2021).

    A spatial transformer reads the boxes of one frame into a class token; a temporal
    transformer reads the frames' class tokens in order.

    :param input_shape: `[t, n, 5]`; columns x1, y1, x2, y2 in units of the image, category.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        dim: int = 768,
        heads: int = 12,
        spatial_layers: int = 4,
        temporal_layers: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        frames = input_shape[0]
        self.category = nn.Embedding(CATEGORIES, dim, padding_idx=BOX_PAD)
        self.box = nn.Linear(4, dim)
        self.frame = nn.Parameter(torch.empty(frames, dim))
        nn.init.trunc_normal_(self.frame, std=0.02)
        self.norm = nn.LayerNorm(dim)
        self.spatial = _transformer(dim, heads, spatial_layers, dropout)
        self.temporal = _transformer(dim, heads, temporal_layers, dropout)
        self.class_box: Tensor
        self.register_buffer('class_box', torch.tensor([*CLASS_BOX, CLASS]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, t, n, 5]` into one token for each frame, `[b, t, e]`."""
        batch, frames = x.shape[:2]
        x = torch.cat([self.class_box.expand(batch, frames, 1, 5), x], dim=2).flatten(0, 1)
        category = x[..., 4].long()  # [b · t, 1 + n]
        embedded = self.norm(self.box(x[..., :4]) + self.category(category))
        padded = category == BOX_PAD
        boxes = self.spatial(embedded, src_key_padding_mask=padded)  # [b · t, 1 + n, e]
        return self.temporal(boxes[:, 0].unflatten(0, (batch, frames)) + self.frame)


def _transformer(dim: int, heads: int, layers: int, dropout: float) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        dim, heads, 4 * dim, dropout, activation='gelu', batch_first=True
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


class LayoutCNN(nn.Module):
    """
    Convolutions over time on the boxes of each frame side by side.

    Not the paper's encoder (STLT): on small data a small STLT hardly learns from scratch what
    moves how, for it sees small changes of coordinates through a normalised sum.

    :param input_shape: `[t, n, 5]`, as STLT takes it.
    :param widths: channels of each stage; every stage but the first halves time.
    """

    def __init__(self, input_shape: Sequence[int], widths: Sequence[int] = (64, 64, 64)) -> None:
        super().__init__()
        frames, boxes = input_shape[:2]
        channels = [boxes * len(SEEN) * 5, *widths]
        strides = [1] + [2] * (len(widths) - 1)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv1d(i, o, 3, stride, padding=1, bias=False),
                    nn.BatchNorm1d(o),
                    nn.ReLU(inplace=True),
                    nn.Conv1d(o, o, 3, padding=1, bias=False),
                    nn.BatchNorm1d(o),
                    nn.ReLU(inplace=True),
                )
                for i, o, stride in zip(channels, widths, strides)
            )
        )
        steps = math.ceil(frames / math.prod(strides))
        self.position = nn.Parameter(torch.empty(steps, widths[-1]))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, t, n, 5]` into tokens `[b, t', e]`."""
        corners = nn.functional.pad(x[..., :4], (0, 1), value=1.0)  # [b, t, n, 5]: 1 where present
        which = torch.stack([x[..., 4] == category for category in SEEN], dim=-1)
        apart = which.unsqueeze(-1) * corners.unsqueeze(-2)  # [b, t, n, hand or object, 5]
        x = self.stages(apart.flatten(2).transpose(1, 2))  # [b, e, t']
        return x.transpose(1, 2) + self.position
