"""
TimeSformer, a vision transformer whose layers attend in time, then in space.

Shape legend: b batch, t frames, h height, w width, n patches of a frame, a attention heads,
d width of a head, e token width, g groups of patches that see each other, s patches of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

from karmma_ros.errors import InvalidSettingError
import torch
from torch import nn, Tensor
from torch.nn.functional import scaled_dot_product_attention

_EPS = 1e-6


class TimeSformer(nn.Module):
    """
    TimeSformer (Bertasius et al., ICML 2021), as Frozen in Time (Bain et al., ICCV 2021) has it.

    The class token sees all patches; a patch sees it and the patches at its place in other frames,
    then those of its own frame. The first residual of a layer is around both.

    :param input_shape: `[3, t, h, w]`.
    :param patch: side of a patch.
    :param clip: with the parts of CLIP's image encoder: a layer norm before the layers, QuickGELU,
        patches without a bias. LaViLa's networks have them.
    :param classifier_tokens: only the class token.
    """

    def __init__(
        self, input_shape: Sequence[int], dim: int = 768, layers: int = 12, heads: int = 12,
        patch: int = 16, clip: bool = True, classifier_tokens: bool = False,
    ) -> None:
        super().__init__()
        channels, frames, height, width = input_shape
        if min(patch, heads, dim) < 1 or height % patch or width % patch or dim % heads:
            raise InvalidSettingError(
                'encoder.options', {'patch': patch, 'dim': dim, 'heads': heads},
                f'a patch that divides {height} and {width}, and heads that divide dim')
        patches = (height // patch) * (width // patch)
        self.classifier_tokens = classifier_tokens
        self.patch_embed = _Patches(channels, dim, patch, bias=not clip)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, dim))
        self.temporal_embed = nn.Parameter(torch.zeros(1, frames, dim))
        self.ln_pre = nn.LayerNorm(dim) if clip else None
        self.blocks = nn.ModuleList(_Block(dim, heads, clip) for _ in range(layers))
        self.norm = nn.LayerNorm(dim, _EPS)
        for x in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(x, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, 3, t, h, w]` into tokens `[b, 1 + t · n, e]`, the class token first."""
        frames = x.shape[2]
        patches = self.patch_embed(x.transpose(1, 2).flatten(0, 1))  # [b · t, n, e]
        patches = patches.unflatten(0, (len(x), frames))
        patches = patches + self.pos_embed[:, None, 1:] + self.temporal_embed[:, :, None]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        tokens = torch.cat([first, patches.flatten(1, 2)], dim=1)
        if self.ln_pre is not None:
            tokens = self.ln_pre(tokens)
        for block in self.blocks:
            tokens = block(tokens, frames)
        encoded: Tensor = self.norm(tokens[:, :1] if self.classifier_tokens else tokens)
        return encoded


class _Patches(nn.Module):
    def __init__(self, channels: int, dim: int, patch: int, bias: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, patch, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the patches of images `[b, 3, h, w]`: `[b, n, e]`."""
        return self.proj(x).flatten(2).mT


class _Block(nn.Module):
    """A layer: over time, over space, then a feed-forward part."""

    def __init__(self, dim: int, heads: int, clip: bool) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim, _EPS) for _ in range(3))
        self.attn, self.timeattn = _Attention(dim, heads), _Attention(dim, heads)
        self.mlp = _FeedForward(dim, clip)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map `[b, 1 + t · n, e]` to the same shape."""
        in_time = x + self.timeattn(self.norm3(x), frames, over_time=True)
        x = x + self.attn(self.norm1(in_time), frames, over_time=False)
        mapped: Tensor = self.mlp(self.norm2(x))
        return x + mapped


class _Attention(nn.Module):
    """Attention of patches within groups, and of the class token to all."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, frames: int, over_time: bool) -> Tensor:
        """
        Map `[b, 1 + t · n, e]` to the same shape.

        :param over_time: a group is one place in all frames; else it is a frame.
        """
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        first = scaled_dot_product_attention(q[:, :, :1], k, v)  # [b, a, 1, d]
        rest = scaled_dot_product_attention(
            _groups(q[:, :, 1:], frames, over_time), _with_class(k, frames, over_time),
            _with_class(v, frames, over_time))  # [b, a, g, s, d]
        if over_time:
            rest = rest.transpose(2, 3)
        joined = torch.cat([first, rest.flatten(2, 3)], dim=2)
        mapped: Tensor = self.proj(joined.transpose(1, 2).flatten(2))
        return mapped


def _groups(x: Tensor, frames: int, over_time: bool) -> Tensor:
    """Split `[b, a, t · n, d]` into groups `[b, a, g, s, d]`."""
    split = x.unflatten(2, (frames, -1))
    return split.transpose(2, 3) if over_time else split


def _with_class(x: Tensor, frames: int, over_time: bool) -> Tensor:
    """Split `[b, a, 1 + t · n, d]` into groups that each begin with the class token."""
    groups = _groups(x[:, :, 1:], frames, over_time)
    first = x[:, :, None, :1].expand(-1, -1, groups.shape[2], -1, -1)
    return torch.cat([first, groups], dim=3)


class _FeedForward(nn.Module):
    def __init__(self, dim: int, clip: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.is_quick = clip

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, n, e]` to the same shape."""
        x = self.fc1(x)
        x = x * torch.sigmoid(1.702 * x) if self.is_quick else nn.functional.gelu(x)
        mapped: Tensor = self.fc2(x)
        return mapped
