"""
Audio encoders: a small one, and AST, the paper's vision transformer over a spectrogram.

Shape legend: b batch, k tiles, f mel bands, s mel steps, n patches, e token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
import math
from typing import Any

from karmma_ros.model.encoders.video import prepare_torchvision
import torch
from torch import nn, Tensor


class MelCNN(nn.Module):
    """
    2D convolutions over stacked log-mel tiles, pooled over pitch: one token for each time step.

    Not the paper's encoder (AST-T): a small AST needs far more data to learn from scratch.

    :param input_shape: `[k, f, s]`; the tiles are the input channels.
    :param widths: channels of each stage; every stage halves pitch and time.
    """

    def __init__(
        self, input_shape: Sequence[int], widths: Sequence[int] = (32, 64, 96, 128)
    ) -> None:
        super().__init__()
        tiles, _, steps = input_shape
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(i, o, 3, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(o),
                    nn.ReLU(inplace=True),
                )
                for i, o in zip((tiles, *widths), widths)
            )
        )
        steps = math.ceil(steps / 2 ** len(widths))
        self.position = nn.Parameter(torch.empty(steps, widths[-1]))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, k, f, s]` into tokens `[b, s', e]`."""
        x = self.stages(x).mean(2)  # [b, e, s']
        return x.transpose(1, 2) + self.position


class AST(nn.Module):
    """
    Audio Spectrogram Transformer (Gong et al., Interspeech 2021) on timm's distilled DeiT.

    The patches overlap; the tiles of a clip are the channels of one image. As in AST, the
    class and the distillation token are averaged, here into one token before the patches'.
    Weights have timm's names, after `model.`.

    :param input_shape: `[k, f, s]`.
    :param patch: side of a patch.
    :param stride: from one patch to the next.
    :param classifier_tokens: only the averaged token, after the layer norm that AST's own
        classifier begins with.
    """

    def __init__(
        self, input_shape: Sequence[int], dim: int = 192, layers: int = 12, heads: int = 3,
        patch: int = 16, stride: int = 10, classifier_tokens: bool = False,
    ) -> None:
        super().__init__()
        prepare_torchvision()
        from timm.models.deit import VisionTransformerDistilled  # importing timm takes seconds

        tiles, bands, steps = input_shape
        self.grid = (_steps(bands, patch, stride), _steps(steps, patch, stride))
        self.model = VisionTransformerDistilled(
            img_size=(bands, steps), patch_size=patch, in_chans=tiles, num_classes=0,
            embed_dim=dim, depth=layers, num_heads=heads,
            embed_layer=partial(_OverlappingPatches, stride=stride))
        self.norm = nn.LayerNorm(dim) if classifier_tokens else None

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, k, f, s]` into tokens `[b, 1 + n, e]`."""
        tokens = self.model.forward_features(x)  # [b, 2 + n, e]
        first = tokens[:, :2].mean(1, keepdim=True)
        if self.norm is not None:
            normed: Tensor = self.norm(first)
            return normed
        return torch.cat([first, tokens[:, 2:]], dim=1)


PUBLISHED_INPUT = 128, 1024
"""Mel bands and columns that AST was trained with on AudioSet."""


def published_stride(positions: int, patch: int = 16) -> int | None:
    """Return the stride of an AST of AudioSet by the number of its patches; None: it is none."""
    return next((stride for stride in range(patch, 0, -1)
                 if math.prod(published_grid(stride, patch)) == positions), None)


def published_grid(stride: int, patch: int = 16) -> tuple[int, int]:
    """Return the rows and columns of patches of an AST of AudioSet."""
    bands, steps = PUBLISHED_INPUT
    return _steps(bands, patch, stride), _steps(steps, patch, stride)


class _OverlappingPatches(nn.Module):
    """A patch embedding whose stride is smaller than the patch, as timm's cannot have."""

    def __init__(
        self, *, img_size: tuple[int, int], patch_size: int, in_chans: int, embed_dim: int,
        bias: bool, stride: int, dynamic_img_pad: bool, device: Any = None, dtype: Any = None,
    ) -> None:
        super().__init__()
        bands, steps = img_size
        self.num_patches = _steps(bands, patch_size, stride) * _steps(steps, patch_size, stride)
        self.proj = nn.Conv2d(
            in_chans, embed_dim, patch_size, stride, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Split `[b, k, f, s]` into embedded patches `[b, n, e]`."""
        return self.proj(x).flatten(2).mT


def _steps(side: int, patch: int, stride: int) -> int:
    return (side - patch) // stride + 1
