"""
A small video encoder for RGB and flow, and any video encoder in chunks.

The Python package index has torchvision only as a CUDA build. Beside a CPU build of torch its
compiled operators do not load, and its import fails where it describes two of them:
`prepare_torchvision` declares those before.

Shape legend: b batch, c channels, t frames, p chunks, h height, w width, n tokens of a chunk,
e token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn, Tensor


class R2Plus1D(nn.Module):
    """
    Factorised 3D convolutions with residuals, after R(2+1)D (Tran et al., CVPR 2018).

    Not the paper's encoder: a small Video Swin trained from scratch stays near chance on
    small data, this one learns within minutes on two cores.

    :param input_shape: `[c, t, h, w]`.
    :param widths: channels of the stem and of each stage. The stem and every stage halve
        height and width; every stage but the first halves time as well.
    """

    def __init__(
        self, input_shape: Sequence[int], widths: Sequence[int] = (24, 32, 64, 128)
    ) -> None:
        super().__init__()
        channels, frames, height, width = input_shape
        self.stem = nn.Sequential(
            nn.Conv3d(channels, widths[0], (1, 5, 5), (1, 2, 2), (0, 2, 2), bias=False),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(inplace=True),
        )
        strides = [1] + [2] * (len(widths) - 2)
        self.stages = nn.Sequential(*map(_Stage, widths, widths[1:], strides))
        positions = math.prod(math.ceil(side / 2 ** len(widths)) for side in (height, width))
        steps = math.ceil(frames / math.prod(strides))
        self.position = nn.Parameter(torch.empty(steps * positions, widths[-1]))
        nn.init.trunc_normal_(self.position, std=0.02)
        for part in (self.stem, self.stages):  # this layout is twice as fast on a CPU
            cast(Any, part).to(memory_format=torch.channels_last_3d)

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, c, t, h, w]` into tokens `[b, t' · h' · w', e]`, time outermost."""
        x = self.stages(self.stem(x))  # [b, e, t', h', w']
        return x.flatten(2).transpose(1, 2) + self.position


class _Stage(nn.Module):
    """Space, then time, each halved where strided, around a projected residual."""

    def __init__(self, in_width: int, width: int, time_stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(in_width, width, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            nn.Conv3d(width, width, (3, 1, 1), (time_stride, 1, 1), (1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
        )
        self.shortcut = nn.Sequential(
            nn.Conv3d(in_width, width, 1, (time_stride, 2, 2), bias=False),
            nn.BatchNorm3d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, c, t, h, w]` to `[b, c', t / stride, h / 2, w / 2]`, rounded up."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ChunkedEncoder(nn.Module):
    """
    Run an encoder on each chunk of a clip; the tokens follow each other in the clip's order.

    Chunks are encoded independently of each other and of their position: on a stream, the tokens
    of a chunk are kept while the window moves on (`karmma_ros.stream.token_cache`).

    :param encoder: takes `[b, c, t / p, h, w]`.
    :param parts: chunks of a clip (p).
    :param skips_first: the first frame of each chunk is replaced by its second. Flow needs
        this: its first frame depends on one outside of the chunk.
    """

    def __init__(self, encoder: nn.Module, parts: int, skips_first: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.parts = parts
        self.skips_first = skips_first

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, c, t, h, w]` into tokens `[b, p · n, e]`, the oldest chunk's first."""
        chunks = x.unflatten(2, (self.parts, -1)).transpose(1, 2).flatten(0, 1)
        tokens = self.encode_chunks(chunks)  # [b · p, n, e]
        return tokens.unflatten(0, (len(x), self.parts)).flatten(1, 2)

    def encode_chunks(self, chunks: Tensor) -> Tensor:
        """Encode chunks `[b, c, t / p, h, w]` into tokens `[b, n, e]`."""
        if self.skips_first:
            # Picked, not joined: OpenVINO computes an int8 graph wrongly that joins slices.
            chunks = chunks[:, :, [1, *range(1, int(chunks.shape[2]))]]
        tokens: Tensor = self.encoder(chunks)
        return tokens


_LIBRARIES: list[torch.library.Library] = []
"""A library's definitions live as long as the object that made them."""


def prepare_torchvision() -> None:
    """
    Define the two operators that the import describes, where the real ones cannot load.

    With a matching pair of builds, or without torchvision, nothing is done. Call it before
    the first import of torchvision, or of timm or torchmetrics, which import it.
    """
    spec = find_spec('torchvision')
    if spec is None or spec.origin is None or _LIBRARIES:
        return
    try:
        torch.ops.load_library(next(Path(spec.origin).parent.glob('_C*.so')))
    except (StopIteration, OSError, RuntimeError):
        library = torch.library.Library('torchvision', 'DEF')
        library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        library.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        _LIBRARIES.append(library)
