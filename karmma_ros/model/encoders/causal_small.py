"""
Encoders of time series and depth that see each part of a stream once and keep a state.

They are those of `karmma_ros.model.encoders.small`, of which nothing depends on later samples.

Shape legend: b batch, c channels, t samples of a window or frames, p chunks of a window, s samples
of a chunk, h height, w width, n tokens, e token width.
"""

from __future__ import annotations

from collections.abc import Sequence

from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.encoders.causal import Past
from karmma_ros.model.encoders.small import check_series_options, GROUPS
from karmma_ros.model.encoders.stream_memory import FrameEncoder, StreamMemory
import torch
from torch import nn, Tensor

_LEAST_WIDTH = 4 * GROUPS
_MOST_CHUNKS = 16


def _strides(samples: int) -> tuple[int, int]:
    """Return by how much the first layers reduce the samples of a chunk: by 4 as `SeriesCNN`."""
    return 2 - samples % 2, 2 if samples % 4 == 0 else 1


def _most_chunks(samples: int) -> int:
    """Return the most chunks, up to 16, among those whose samples are reduced most."""
    divisors = [n for n in range(1, min(_MOST_CHUNKS, samples) + 1) if samples % n == 0]
    return max(divisors, key=lambda n: (_strides(samples // n), n))


class CausalSeries(nn.Module):
    """
    `SeriesCNN` of which no token depends on later samples; each chunk has equally many tokens.

    Chunk by chunk, with what `step` hands on, gives the tokens that the whole window gives at
    once. Each sample is normalised for itself, since statistics over time would need later ones.

    :param input_shape: `[c, t]`.
    :param chunks: of a window (p), a divisor of t; 0: the most, up to 16, of which each has a
        multiple of 4 samples (or else of 2, or any number). A chunk should last whole frames of
        the clip, so that windows which end with a frame have chunks in common.
    :param width: channels of every layer, a multiple of 8 (e).
    :param blocks: residual blocks; the dilation doubles with each.
    :param norm: `batch`, or `group`, of the channels of a sample.
    :param dropout: of channels, within each block.
    """

    def __init__(
        self, input_shape: Sequence[int], chunks: int = 0, width: int = 80, blocks: int = 3,
        norm: str = 'batch', dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_series_options(width, norm)
        if norm == 'group' and width < _LEAST_WIDTH:
            raise InvalidSettingError(
                'encoder.options.width', width, f'{_LEAST_WIDTH} or more with the norm group',
                'few channels of a sample in a group have no statistics')
        channels, samples = input_shape
        chunks = chunks or _most_chunks(samples)
        if chunks < 1 or samples % chunks:
            raise InvalidSettingError(
                'encoder.options.chunks', chunks,
                f'a divisor of the {samples} samples of the window, or 0')
        self.parts, self.columns = chunks, samples // chunks
        first, second = _strides(self.columns)
        self.stem = nn.ModuleList([
            _CausalLayer(channels, width, 7, norm, stride=first),
            _CausalLayer(width, width, 5, norm, stride=second)])
        self.blocks = nn.ModuleList(
            _CausalResidual(width, 2 ** i, norm, dropout) for i in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Encode a window `[b, c, t]` that nothing precedes into tokens `[b, n, e]`."""
        return self.step(x.unflatten(2, (self.parts, self.columns)), None)[0]

    def step(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """
        Encode the next chunks of a stream.

        :param x: `[b, c, p, s]`, any number of chunks.
        :param past: as the step before gave it; None: nothing came before.
        :returns: tokens `[b, p · n, e]`, and the state for the next step.
        """
        memory = StreamMemory(past, len(x))
        chunks = int(x.shape[2])  # while it is traced, no number is one
        x = x.flatten(2)
        for layer in self.stem:
            x = torch.relu(layer(x, chunks, memory))
        for block in self.blocks:
            x = block(x, chunks, memory)
        return x.transpose(1, 2), memory.kept


class _CausalLayer(nn.Module):
    """A convolution over this sample and earlier ones, and a norm."""

    def __init__(
        self, before: int, after: int, kernel: int, norm: str, stride: int = 1, dilation: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, after, kernel, stride, dilation=dilation, bias=False)
        self.norm = _SampleGroupNorm(GROUPS, after) if norm == 'group' else nn.BatchNorm1d(after)
        self.left = (kernel - 1) * dilation - (stride - 1)
        """Earlier samples that the first output depends on."""

    def forward(self, x: Tensor, chunks: int, memory: StreamMemory) -> Tensor:
        """Map `[b, c, p · s]` to `[b, e, p · s / stride]`."""
        mixed: Tensor = self.norm(self.conv(memory.preceded(x, chunks, self.left)))
        return mixed


class _CausalResidual(nn.Module):
    """Two convolutions around an identity."""

    def __init__(self, width: int, dilation: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.first = _CausalLayer(width, width, 3, norm, dilation=dilation)
        self.dropout = nn.Dropout1d(dropout)
        self.second = _CausalLayer(width, width, 3, norm, dilation=dilation)

    def forward(self, x: Tensor, chunks: int, memory: StreamMemory) -> Tensor:
        """Map `[b, e, p · s]` to the same shape."""
        inner = self.dropout(torch.relu(self.first(x, chunks, memory)))
        return torch.relu(x + self.second(inner, chunks, memory))


class _SampleGroupNorm(nn.GroupNorm):
    """Normalise groups of the channels of each sample."""

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, e, n]` to the same shape."""
        samples = x.transpose(1, 2)
        normal = super().forward(samples.reshape(-1, x.shape[1]))
        return normal.reshape(samples.shape).transpose(1, 2)


class CausalDepth(FrameEncoder):
    """
    `DepthCNN` of which no token depends on later frames.

    :param input_shape: `[3, t, h, w]`.
    :param widths: channels of each stage; every stage halves height and width.
    :param kernel: frames that a stage sees (k), 2 or more.
    """

    def __init__(
        self, input_shape: Sequence[int], widths: Sequence[int] = (32, 64, 96, 128),
        kernel: int = 3,
    ) -> None:
        super().__init__(input_shape, False)
        if not widths or min(widths) < 1 or kernel < 2:
            raise InvalidSettingError(
                'encoder.options', {'widths': list(widths), 'kernel': kernel},
                'one width or more, each above 0, and a kernel of 2 or more',
                'with a kernel of 1 there is no state')
        self.stages = nn.ModuleList(
            _CausalDepthStage(before, after, kernel)
            for before, after in zip((input_shape[0], *widths), widths))

    def encode_frames(self, x: Tensor, memory: StreamMemory) -> Tensor:
        """Map frames `[t · b, 3, h, w]` to `[t · b, e, h', w']`."""
        for stage in self.stages:
            x = stage(x, memory)
        return x


class _CausalDepthStage(nn.Module):
    """A convolution that halves height and width, then one over the frames of each channel."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.space = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.space_norm = nn.BatchNorm2d(after)
        self.time = nn.Parameter(torch.empty(kernel, after))
        nn.init.trunc_normal_(self.time, std=(3 * kernel) ** -0.5)
        self.time_norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor, memory: StreamMemory) -> Tensor:
        """Map `[t · b, c, h, w]` to `[t · b, e, h', w']`."""
        x = torch.relu(self.space_norm(self.space(x)))
        mixed = memory.over_time(
            x, len(self.time), lambda frames, i: frames * self.time[i][:, None, None])
        return torch.relu(self.time_norm(mixed))
