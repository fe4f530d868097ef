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
FRAME_TYPES, FRAME_PAD, FRAME_REGULAR, FRAME_EMPTY, FRAME_CLASS = 5, 0, 2, 3, 4
"""Types of frames as STLT numbers them; 1 is unused."""


class STLT(nn.Module):
    """
    Spatial-Temporal Layout Transformer (Radevski et al., BMVC 2021).

    A spatial transformer reads the boxes of one frame into a class token; a temporal
    transformer reads the frames' class tokens in order. Its authors' networks have all of
    `causal`, `frame_type` and `norm`, or `causal`, `norm`, `score` and `learned_class`.

    :param input_shape: `[t, n, 5]`; columns x1, y1, x2, y2 in units of the image, category.
    :param causal: no frame attends to later ones.
    :param frame_type: add an embedding of whether a frame has boxes.
    :param norm: a layer norm before the temporal transformer.
    :param score: add an embedding of the score of a box; it is 1, as of annotated boxes.
    :param learned_class: class tokens are learned; else that of a frame is a box, the whole image.
    :param classifier_tokens: only the token that the authors' classifier gets, that of a class
        token after the last frame: of a frame without boxes, and then after a hidden layer; or a
        learned one.
    :param norm_eps: of the layer norms of embeddings.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        dim: int = 768,
        heads: int = 12,
        spatial_layers: int = 4,
        temporal_layers: int = 8,
        dropout: float = 0.1,
        *,
        causal: bool = False,
        frame_type: bool = False,
        norm: bool = False,
        score: bool = False,
        learned_class: bool = False,
        classifier_tokens: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        frames = input_shape[0]
        self.adds_frame = classifier_tokens and not learned_class
        self.category = nn.Embedding(
            CATEGORIES - learned_class, dim, padding_idx=BOX_PAD)
        self.box = nn.Linear(4, dim)
        self.frame = nn.Parameter(torch.empty(frames + self.adds_frame, dim))
        nn.init.trunc_normal_(self.frame, std=0.02)
        self.norm = nn.LayerNorm(dim, norm_eps)
        self.spatial = _transformer(dim, heads, spatial_layers, dropout)
        self.temporal = _transformer(dim, heads, temporal_layers, dropout)
        self.class_box: Tensor
        self.register_buffer('class_box', torch.tensor([*CLASS_BOX, CLASS]), persistent=False)
        self.classifier_tokens = classifier_tokens
        self.frame_type = nn.Embedding(
            FRAME_TYPES, dim, padding_idx=FRAME_PAD) if frame_type else None
        self.score = nn.Linear(1, dim) if score else None
        self.temporal_norm = nn.LayerNorm(dim, norm_eps) if norm else None
        self.class_tokens = nn.Parameter(torch.zeros(2, dim)) if learned_class else None
        self.hidden = nn.Sequential(
            nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, norm_eps),
        ) if self.adds_frame else None
        self.mask: Tensor | None
        self.register_buffer('mask', torch.ones(
            frames + classifier_tokens, frames + classifier_tokens, dtype=torch.bool).triu(1)
            if causal else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, t, n, 5]` into one token for each frame, `[b, t, e]`."""
        if self.adds_frame:
            x = nn.functional.pad(x, (0, 0, 0, 0, 0, 1))
        tokens = self._spatial_tokens(x) + self.frame
        if self.frame_type is not None:
            tokens = tokens + self.frame_type(self._types(x))
        if self.temporal_norm is not None:
            tokens = self.temporal_norm(tokens)
        if self.class_tokens is not None and self.classifier_tokens:
            last = self.class_tokens[1].expand(len(x), 1, -1)
            tokens = torch.cat([tokens, last], dim=1)
        # Without is_causal torch would compare the mask, which the meta device cannot.
        tokens = self.temporal(tokens, mask=self.mask, is_causal=False)
        if self.classifier_tokens:
            tokens = tokens[:, -1:]
        return tokens if self.hidden is None else self.hidden(tokens)

    def _spatial_tokens(self, x: Tensor) -> Tensor:
        """Encode the boxes of each frame into its class token, `[b, t, e]`."""
        batch, frames = x.shape[:2]
        if self.class_tokens is None:
            x = torch.cat([self.class_box.expand(batch, frames, 1, 5), x], dim=2)
        x = x.flatten(0, 1)
        category = x[..., 4].long()  # [b · t, 1 + n]
        embedded = self.box(x[..., :4]) + self.category(category)
        padded = category == BOX_PAD
        if self.score is not None:
            embedded = embedded + self.score((~padded).to(x.dtype).unsqueeze(-1))
        embedded = self.norm(embedded)
        if self.class_tokens is not None:
            first = self.class_tokens[0].expand(len(x), 1, -1)
            embedded = torch.cat([first, embedded], dim=1)
            padded = nn.functional.pad(padded, (1, 0))
        boxes = self.spatial(embedded, src_key_padding_mask=padded)  # [b · t, 1 + n, e]
        return boxes[:, 0].unflatten(0, (batch, frames))

    def _types(self, x: Tensor) -> Tensor:
        """Return the type of each frame, `[b, t]`."""
        has_boxes = (x[..., 4] != BOX_PAD).any(2)
        types = torch.where(has_boxes, FRAME_REGULAR, FRAME_EMPTY)
        if self.adds_frame:
            types = torch.cat([types[:, :-1], torch.full_like(types[:, :1], FRAME_CLASS)], dim=1)
        return types


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
