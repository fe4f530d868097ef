"""
Encoders of time series and depth that learn from a few hundred clips.

Shape legend: b batch, c channels, t samples or frames, h height, w width, n tokens, e token width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import math

from karmma_ros.errors import InvalidSettingError
import torch
from torch import nn, Tensor

_GROUPS = 8
NORMS: dict[str, Callable[[int], nn.Module]] = {
    'batch': nn.BatchNorm1d, 'group': lambda width: nn.GroupNorm(_GROUPS, width)}


class SeriesCNN(nn.Module):
    """
    Residual 1-D convolutions over time with growing dilation; one token for every fourth sample.

    :param input_shape: `[c, t]`.
    :param width: channels of every layer, a multiple of 8 (e).
    :param blocks: residual blocks; the dilation doubles with each.
    :param norm: `batch`, or `group` for signals whose scale differs from carrier to carrier.
    :param dropout: of channels, within each block.
    """

    def __init__(
        self, input_shape: Sequence[int], width: int = 80, blocks: int = 3, norm: str = 'group',
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise InvalidSettingError('encoder.options.norm', norm, ' or '.join(NORMS))
        if width < 1 or width % _GROUPS:
            raise InvalidSettingError('encoder.options.width', width, f'a multiple of {_GROUPS}')
        channels, samples = input_shape
        self.stem = nn.Sequential(
            *_layer(channels, width, 7, norm), *_layer(width, width, 5, norm))
        self.blocks = nn.Sequential(
            *(_Residual(width, 2 ** i, norm, dropout) for i in range(blocks)))
        self.position = nn.Parameter(torch.empty(math.ceil(math.ceil(samples / 2) / 2), width))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, c, t]` into tokens `[b, n, e]`."""
        x = self.blocks(self.stem(x))  # [b, e, n]
        return x.transpose(1, 2) + self.position


def _layer(before: int, after: int, kernel: int, norm: str) -> list[nn.Module]:
    """Return a convolution that halves time."""
    return [nn.Conv1d(before, after, kernel, stride=2, padding=kernel // 2, bias=False),
            NORMS[norm](after), nn.ReLU(inplace=True)]


class _Residual(nn.Module):
    """Two convolutions over time around an identity."""

    def __init__(self, width: int, dilation: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            NORMS[norm](width), nn.ReLU(inplace=True), nn.Dropout1d(dropout),
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            NORMS[norm](width))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, e, n]` to the same shape."""
        return torch.relu(x + self.body(x))


class DepthCNN(nn.Module):
    """
    Strided 2-D convolutions on each frame, with depthwise convolutions over time between them.

    :param input_shape: `[c, t, h, w]`.
    :param widths: channels of each stage; every stage halves height and width.
    """

    def __init__(
        self, input_shape: Sequence[int], widths: Sequence[int] = (32, 64, 96, 128)
    ) -> None:
        super().__init__()
        channels, frames, height, width = input_shape
        self.stages = nn.Sequential(
            *(_stage(before, after) for before, after in zip((channels, *widths), widths)))
        rows, columns = (math.ceil(side / 2 ** len(widths)) for side in (height, width))
        self.position = nn.Parameter(torch.empty(frames * rows * columns, widths[-1]))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, c, t, h, w]` into tokens `[b, t · h' · w', e]`, time outermost."""
        x = self.stages(x)  # [b, e, t, h', w']
        return x.flatten(2).transpose(1, 2) + self.position


def _stage(before: int, after: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(before, after, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
        nn.BatchNorm3d(after), nn.ReLU(inplace=True),
        nn.Conv3d(after, after, (3, 1, 1), padding=(1, 0, 0), groups=after, bias=False),
        nn.BatchNorm3d(after), nn.ReLU(inplace=True))
