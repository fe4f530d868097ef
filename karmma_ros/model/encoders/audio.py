"""
A small audio encoder.

Shape legend: b batch, k tiles, f mel bands, s mel steps, e token width.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import torch
from torch import nn, Tensor


class MelCNN(nn.Module):
    """
    2D convolutions over stacked log-mel tiles, pooled over pitch: one token for each moment.

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
        moments = math.ceil(steps / 2 ** len(widths))
        self.position = nn.Parameter(torch.empty(moments, widths[-1]))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, k, f, s]` into tokens `[b, s', e]`."""
        x = self.stages(x).mean(2)  # [b, e, s']
        return x.transpose(1, 2) + self.position
