"""
MoViNet-A0 and A2 of a stream (Kondratyuk et al., CVPR 2021), frame by frame with a state.

The modules are called as those of MoViNet-pytorch, the port of the published weights; as there,
and in the TensorFlow original, convolutions pad as TensorFlow does.

Shape legend: b batch, t frames, c channels, h height, w width, n tokens of a frame, e token
width. Frame by frame it is `[t · b, c, h, w]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, NamedTuple

from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.encoders.stream_memory import FrameEncoder, Frames, StreamMemory
import torch
from torch import nn, Tensor
from torch.nn import functional

Layers = tuple[tuple[int, int, int], ...]
"""Of each layer of a stage: frames and pixels that its convolution sees, and inner channels."""


class _Size(NamedTuple):
    """The sizes of a network, of the paper's tables of architectures."""

    stem: int
    stages: tuple[tuple[int, int, Layers], ...]
    """Channels, stride of the first layer, and layers."""
    last: int
    """Channels of the last feature map."""


_SIZES = {
    'a0': _Size(8, (
        (8, 2, ((1, 5, 24),)),
        (32, 2, ((3, 3, 80),) * 3),
        (56, 2, ((5, 3, 184), (3, 3, 112), (3, 3, 184))),
        (56, 1, ((5, 3, 184), (3, 3, 184), (3, 3, 184), (3, 3, 184))),
        (104, 2, ((5, 3, 384), (1, 5, 280), (1, 5, 280), (1, 5, 344)))), 480),
    'a2': _Size(16, (
        (16, 2, ((1, 5, 40), (3, 3, 40), (3, 3, 64))),
        (40, 2, ((3, 3, 96), (3, 3, 120), (3, 3, 96), (3, 3, 96), (3, 3, 120))),
        (72, 2, ((5, 3, 240), (3, 3, 160), (3, 3, 240), (3, 3, 192), (3, 3, 240))),
        (72, 1, ((5, 3, 240), (3, 3, 240), (3, 3, 240), (3, 3, 240), (1, 5, 144), (3, 3, 240))),
        (144, 2, ((5, 3, 480), (1, 5, 384), (1, 5, 384), (1, 5, 480), (1, 5, 480), (3, 3, 480),
                  (1, 3, 576)))), 640),
}
FEATURES, HORIZON = 2048, 50
"""Channels before the classifier, and frames of the streams that the published weights saw."""


class MoViNet(FrameEncoder):
    """
    MoViNet of a stream: convolutions over time see this frame and those before it.

    :param input_shape: `[3, t, h, w]`.
    :param variant: `a0` or `a2`.
    :param grid: rows and columns of tokens that a frame is pooled to.
    :param horizon: squeeze-and-excitation takes the mean of all frames since the start of the
        stream, up to so many; then older ones fade. The published networks saw streams of 50;
        a mean of all frames would change less and less on a robot.
    :param features: channels of the one token of `classifier_tokens`.
    :param classifier_tokens: only the token that the model's own classifier gets at the last
        frame, of the mean of all.
    """

    def __init__(
        self, input_shape: Sequence[int], variant: str = 'a0', grid: int = 3,
        horizon: int = HORIZON, features: int = FEATURES, classifier_tokens: bool = False,
    ) -> None:
        super().__init__(input_shape, classifier_tokens)
        if variant not in _SIZES or horizon < 1:
            raise InvalidSettingError(
                'encoder.options', {'variant': variant, 'horizon': horizon},
                f'variant {" or ".join(_SIZES)}, and a horizon of 1 or more')
        own = _SIZES[variant]
        self.horizon = horizon
        self.conv1 = _Conv(input_shape[0], own.stem, 3, stride=2)
        blocks, before = {}, own.stem
        for i, (width, stride, layers) in enumerate(own.stages):
            for j, layer in enumerate(layers):
                blocks[f'b{i}_l{j}'] = _Block(before, width, 1 if j else stride, *layer)
                before = width
        self.blocks = nn.ModuleDict(blocks)
        self.conv7 = _Conv(before, own.last, 1)
        self.pool = nn.AdaptiveAvgPool2d(1 if classifier_tokens else grid)
        self.classifier = nn.ModuleList(
            [_Conv(own.last, features, 1, normed=False)] if classifier_tokens else [])
        cast(Any, self).to(memory_format=torch.channels_last)

    def encode_frames(self, x: Tensor, memory: StreamMemory) -> Tensor:
        """Map frames `[t · b, 3, h, w]` to what their tokens are, `[t · b, e, rows, columns]`."""
        rates = memory.rates(x, self.horizon)
        x = functional.hardswish(self.conv1(x))
        for block in self.blocks.values():
            x = block(x, memory, rates)
        x = self.pool(functional.hardswish(self.conv7(x)))
        for dense in self.classifier:
            mean = memory.running_mean(x.flatten(1), rates)
            x = functional.silu(dense(mean[:, :, None, None]))
        return x


class _Conv(nn.Module):
    """A convolution of frames and, where it sees several, one of each channel over time."""

    def __init__(
        self, before: int, width: int, kernel: int, stride: int = 1, groups: int = 1,
        frames: int = 1, normed: bool = True,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.conv_1 = nn.ModuleDict({'conv2d': nn.Conv2d(
            before, width, kernel, stride, groups=groups, bias=not normed)})
        if normed:
            self.conv_1['norm'] = nn.BatchNorm2d(width, eps=1e-3)
        self.conv_2 = None
        if frames > 1:
            self.conv_2 = nn.ModuleDict({
                'conv2d': nn.Conv2d(width, width, (frames, 1), groups=width, bias=False),
                'norm': nn.BatchNorm2d(width, eps=1e-3)})

    def forward(self, x: Tensor) -> Tensor:
        """Map frames `[t · b, c, h, w]`, by the first convolution, without an activation."""
        conv = self.conv_1['conv2d']
        assert isinstance(conv, nn.Conv2d)
        x = conv(_padded(x, conv.kernel_size[0], self.stride))
        return self.conv_1['norm'](x) if 'norm' in self.conv_1 else x

    def over_time(self, x: Tensor, memory: StreamMemory) -> Tensor:
        """Map frames `[t · b, c, h, w]` by the second convolution, to the same shape."""
        if self.conv_2 is None:
            return x
        weight = cast(Tensor, self.conv_2['conv2d'].weight)[:, 0, :, 0]  # [c, frames]
        x = memory.over_time(x, weight.shape[1], lambda x, i: x * weight[:, i, None, None])
        return functional.hardswish(self.conv_2['norm'](x))


class _Block(nn.Module):
    """An inverted bottleneck with a residual."""

    def __init__(
        self, before: int, width: int, stride: int, frames: int, kernel: int, inner: int,
    ) -> None:
        super().__init__()
        self.expand = _Conv(before, inner, 1)
        self.deep = _Conv(inner, inner, kernel, stride, groups=inner, frames=frames)
        self.se = _SqueezeExcitation(inner)
        self.project = _Conv(inner, width, 1)
        self.res = None
        if stride > 1:
            self.res = nn.ModuleList([_AveragePool(), _Conv(before, width, 1)])
        elif before != width:
            self.res = nn.ModuleList([_Conv(before, width, 1)])
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, memory: StreamMemory, rates: Frames) -> Tensor:
        """Map frames `[t · b, c, h, w]` to `[t · b, e, h / stride, w / stride]`."""
        residual = x
        for layer in self.res or ():
            residual = layer(residual)
        x = functional.hardswish(self.expand(x))
        x = functional.hardswish(self.deep(x))
        x = self.deep.over_time(x, memory)
        return residual + self.alpha * self.project(self.se(x, memory, rates))


class _SqueezeExcitation(nn.Module):
    """Weight the channels by their mean in all frames so far, and in this one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = max(8, (width // 4 * 2 + 4) // 8 * 8)
        self.fc1 = _Conv(2 * width, squeezed, 1, normed=False)
        self.fc2 = _Conv(squeezed, width, 1, normed=False)

    def forward(self, x: Tensor, memory: StreamMemory, rates: Frames) -> Tensor:
        """Map frames `[t · b, c, h, w]` to the same shape."""
        space = x.mean((2, 3))  # [t · b, c]
        means = torch.cat([memory.running_mean(space, rates), space], dim=1)[:, :, None, None]
        weight = self.fc2(functional.hardswish(self.fc1(means)))
        return x * (0.2 * weight + 0.5).clamp(0, 1)


class _AveragePool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """Halve frames `[t · b, c, h, w]` by the mean of 3 x 3 pixels; beyond edges are none."""
        size = [int(side) for side in x.shape[2:]]  # while it is traced, no number is one
        inside = torch.ones(1, 1, *size, dtype=x.dtype, device=x.device)
        weight = 1 / functional.avg_pool2d(_padded(inside, 3, 2), 3, 2)
        return functional.avg_pool2d(_padded(x, 3, 2), 3, 2) * weight


def _padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad with zeros as TensorFlow: as little as gives size / stride, one more at the end."""
    sides = []
    for size in (int(x.shape[3]), int(x.shape[2])):
        added = max(kernel - (size % stride or stride), 0)
        sides += [added // 2, added - added // 2]
    return functional.pad(x, sides) if any(sides) else x
