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

GROUPS = 8
"""Of channels that are normalised together."""
NORMS: dict[str, Callable[[int], nn.Module]] = {
    'batch': nn.BatchNorm1d, 'group': lambda width: nn.GroupNorm(GROUPS, width)}


def check_series_options(width: int, norm: str) -> None:
    """
    Refuse the options of an encoder of time series.

    :raises InvalidSettingError: naming the one that is wrong.
    """
    if norm not in NORMS:
        raise InvalidSettingError('encoder.options.norm', norm, ' or '.join(NORMS))
    if width < 1 or width % GROUPS:
        raise InvalidSettingError('encoder.options.width', width, f'a multiple of {GROUPS}')


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
        check_series_options(width, norm)
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
            *(_DepthStage(before, after, frames)
              for before, after in zip((channels, *widths), widths)))
        rows, columns = (math.ceil(side / 2 ** len(widths)) for side in (height, width))
        self.position = nn.Parameter(torch.empty(frames * rows * columns, widths[-1]))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, c, t, h, w]` into tokens `[b, t · h' · w', e]`, time outermost."""
        batch = len(x)
        # Frames as a batch, channels innermost: a third of the time of 3-D convolutions on a CPU.
        frames = x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = self.stages(frames).unflatten(0, (batch, -1))  # [b, t, e, h', w']
        return x.flatten(3).transpose(2, 3).flatten(1, 2) + self.position


class _DepthStage(nn.Module):
    """A convolution that halves height and width, then one over the frames of each channel."""

    def __init__(self, before: int, after: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.space = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.space_norm = nn.BatchNorm2d(after)
        self.time = nn.Conv2d(after, after, (3, 1), padding=(1, 0), groups=after, bias=False)
        self.time_norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b · t, c, h, w]` to `[b · t, e, h', w']`."""
        x = torch.relu_(self.space_norm(self.space(x)))
        rows, columns = x.shape[2:]
        x = x.flatten(2).unflatten(0, (-1, self.frames))  # [b, t, e, h' · w']
        x = self.time(x.transpose(1, 2)).transpose(1, 2)
        x = x.unflatten(3, (rows, columns)).flatten(0, 1)
        return torch.relu_(self.time_norm(x))
