"""
X3D (Feichtenhofer, CVPR 2020), for clips, and frame by frame with a state.

The modules are called as those of PyTorchVideo, whose published weights fit both. Frame by frame
it is CoX3D (Hedegaard and Iosifidis, ECCV 2022): the same convolutions over time, of frames that
are kept.

Shape legend: b batch, t frames, c channels, h height, w width, n tokens of a frame, e token
width, k frames that a convolution sees. Frame by frame it is `[t · b, c, h, w]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.encoders.stream_memory import FrameEncoder, StreamMemory
import torch
from torch import nn, Tensor
from torch.nn import functional

WIDTHS, DEPTHS, FEATURES = (24, 48, 96, 192), (3, 5, 11, 7), 2048
"""Channels and blocks of each stage, and channels before the classifier: of X3D-S and X3D-M."""
_STEM_FRAMES, _FRAMES = 5, 3
"""Frames that the stem's convolution sees, and those of the blocks."""
_EXPANSION, _SQUEEZE = 2.25, 0.0625
STRIDE = 32
"""Pixels of a frame for each row or column of the last feature map."""


class X3D(nn.Module):
    """
    X3D of a complete clip; X3D-S and X3D-M differ by their clips alone.

    :param input_shape: `[3, t, h, w]`.
    :param widths: channels of each stage; every stage and the stem halve height and width.
    :param depths: blocks of each stage.
    :param features: channels of the one token of `classifier_tokens`.
    :param classifier_tokens: only the token that the model's own classifier gets.
    """

    def __init__(
        self, input_shape: Sequence[int], widths: Sequence[int] = WIDTHS,
        depths: Sequence[int] = DEPTHS, features: int = FEATURES, classifier_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = _blocks(input_shape[0], widths, depths, features, classifier_tokens)
        self.classifier_tokens = classifier_tokens
        cast(Any, self).to(memory_format=torch.channels_last_3d)  # faster on a CPU

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, 3, t, h, w]` into tokens `[b, t · h' · w', e]`, time outermost."""
        for block in self.blocks:
            x = block(x)
        if self.classifier_tokens:
            x = _head(self.blocks).projected(x.mean((2, 3, 4), keepdim=True))
        return x.flatten(2).transpose(1, 2)


class ContinualX3D(FrameEncoder):
    """
    X3D of a stream, one frame after the other (CoX3D).

    A block adds its input to the output of a convolution whose centre is one frame old. Delayed
    by as much (Hedegaard and Iosifidis, Sec. 3.3), the sum is that of X3D; the output is then that
    of a frame `delay` frames ago. Squeeze-and-excitation takes the mean of a frame, where X3D
    takes that of a clip.

    :param input_shape: `[3, t, h, w]`.
    :param grid: rows and columns of tokens that a frame is pooled to.
    :param delayed: as published weights need it. False adds the newest frame at once: nothing is
        delayed, but the weights must be trained so.
    :param classifier_tokens: only the token that the model's own classifier gets at the last
        frame, of the mean of all; on a stream, frames from before a clip fade.

    The other parameters are those of `X3D`.
    """

    def __init__(
        self, input_shape: Sequence[int], widths: Sequence[int] = WIDTHS,
        depths: Sequence[int] = DEPTHS, grid: int = 3, delayed: bool = True,
        features: int = FEATURES, classifier_tokens: bool = False,
    ) -> None:
        super().__init__(input_shape, classifier_tokens)
        self._frames = input_shape[1]
        self.blocks = _blocks(input_shape[0], widths, depths, features, classifier_tokens)
        self.delay = (_STEM_FRAMES // 2 + sum(depths) * (_FRAMES // 2)) * delayed
        self.pool = nn.AdaptiveAvgPool2d(1 if classifier_tokens else grid)

    def encode_frames(self, x: Tensor, memory: StreamMemory) -> Tensor:
        """Map frames `[t · b, 3, h, w]` to what their tokens are, `[t · b, e, rows, columns]`."""
        for block in self.blocks:
            x = cast(Any, block).step(x, memory, self.delay > 0)
        x = self.pool(x)
        if self.classifier_tokens:
            mean = memory.running_mean(x.flatten(1), memory.rates(x, self._frames))
            x = _head(self.blocks).projected(mean[:, :, None, None, None]).flatten(2, 3)
        return x


def _blocks(
    channels: int, widths: Sequence[int], depths: Sequence[int], features: int, projects: bool,
) -> nn.ModuleList:
    if len(widths) != len(depths) or not widths or min(*widths, *depths) < 1:
        raise InvalidSettingError(
            'encoder.options', {'widths': list(widths), 'depths': list(depths)},
            'as many widths as depths, each 1 or more')
    stages = [_Stage(*each) for each in zip((widths[0], *widths), widths, depths)]
    head = _Head(widths[-1], int(_EXPANSION * widths[-1]), features if projects else 0)
    return nn.ModuleList([_Stem(channels, widths[0]), *stages, head])


def _head(blocks: nn.ModuleList) -> _Head:
    head = blocks[-1]
    assert isinstance(head, _Head)
    return head


class _Stem(nn.Module):
    """A convolution in space, and one over time for each channel."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        k = _STEM_FRAMES
        self.conv = nn.ModuleDict({
            'conv_t': nn.Conv3d(channels, width, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False),
            'conv_xy': nn.Conv3d(width, width, (k, 1, 1), padding=(k // 2, 0, 0), groups=width,
                                 bias=False)})  # they are called so, though it is the other
        self.norm = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, c, t, h, w]` to `[b, e, t, h / 2, w / 2]`."""
        x = self.conv['conv_xy'](self.conv['conv_t'](x))
        return torch.relu(self.norm(x))

    def step(self, x: Tensor, memory: StreamMemory, delayed: bool) -> Tensor:
        """Map new frames `[t · b, c, h, w]` to `[t · b, e, h / 2, w / 2]`."""
        space, time = self.conv['conv_t'], self.conv['conv_xy']
        weight = cast(Tensor, time.weight).flatten(1)  # [e, k]
        x = memory.over_time(
            _in_frames(space, x), _STEM_FRAMES, lambda x, i: x * weight[:, i, None, None])
        return torch.relu(_normed(self.norm, x))


class _Stage(nn.Module):
    def __init__(self, before: int, width: int, depth: int) -> None:
        super().__init__()
        self.res_blocks = nn.ModuleList(
            _Block(width if i else before, width, stride=1 if i else 2, squeezed=i % 2 == 0)
            for i in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, c, t, h, w]` to `[b, e, t, h / 2, w / 2]`."""
        for block in self.res_blocks:
            x = block(x)
        return x

    def step(self, x: Tensor, memory: StreamMemory, delayed: bool) -> Tensor:
        """Map new frames `[t · b, c, h, w]` to `[t · b, e, h / 2, w / 2]`."""
        for block in self.res_blocks:
            x = cast(Any, block).step(x, memory, delayed)
        return x


class _Block(nn.Module):
    """A bottleneck around a depthwise convolution of space and time, with a residual."""

    def __init__(self, before: int, width: int, stride: int, squeezed: bool) -> None:
        super().__init__()
        self.branch1_conv = self.branch1_norm = None
        if stride > 1 or before != width:
            self.branch1_conv = nn.Conv3d(before, width, 1, (1, stride, stride), bias=False)
        if before != width:
            self.branch1_norm = nn.BatchNorm3d(width)
        self.branch2 = _Bottleneck(before, int(_EXPANSION * width), width, stride, squeezed)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, c, t, h, w]` to `[b, e, t, h / stride, w / stride]`."""
        residual = x if self.branch1_conv is None else self.branch1_conv(x)
        if self.branch1_norm is not None:
            residual = self.branch1_norm(residual)
        return torch.relu(residual + self.branch2(x))

    def step(self, x: Tensor, memory: StreamMemory, delayed: bool) -> Tensor:
        """Map new frames `[t · b, c, h, w]` to `[t · b, e, h / stride, w / stride]`."""
        residual = x if self.branch1_conv is None else _in_frames(self.branch1_conv, x)
        if self.branch1_norm is not None:
            residual = _normed(self.branch1_norm, residual)
        if delayed:
            residual = memory.delayed(residual)
        return torch.relu(residual + self.branch2.step(x, memory))


class _Bottleneck(nn.Module):
    def __init__(
        self, before: int, inner: int, width: int, stride: int, squeezed: bool,
    ) -> None:
        super().__init__()
        self.conv_a = nn.Conv3d(before, inner, 1, bias=False)
        self.norm_a = nn.BatchNorm3d(inner)
        self.conv_b = nn.Conv3d(
            inner, inner, _FRAMES, (1, stride, stride), 1, groups=inner, bias=False)
        self.norm_b = nn.Sequential(
            nn.BatchNorm3d(inner), _SqueezeExcitation(inner) if squeezed else nn.Identity())
        self.conv_c = nn.Conv3d(inner, width, 1, bias=False)
        self.norm_c = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, c, t, h, w]` to `[b, e, t, h / stride, w / stride]`."""
        x = torch.relu(self.norm_a(self.conv_a(x)))
        x = functional.silu(self.norm_b(self.conv_b(x)))
        mapped: Tensor = self.norm_c(self.conv_c(x))
        return mapped

    def step(self, x: Tensor, memory: StreamMemory) -> Tensor:
        """Map new frames `[t · b, c, h, w]` to `[t · b, e, h / stride, w / stride]`."""
        x = torch.relu(_normed(self.norm_a, _in_frames(self.conv_a, x)))
        x = memory.over_time(x, _FRAMES, lambda x, i: _in_frames(self.conv_b, x, i))
        x = _normed(self.norm_b[0], x)
        if isinstance(self.norm_b[1], _SqueezeExcitation):
            x = self.norm_b[1].step(x)
        return _normed(self.norm_c, _in_frames(self.conv_c, functional.silu(x)))


class _SqueezeExcitation(nn.Module):
    """Weight the channels by their mean in a clip, or in a frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = _rounded(width * _SQUEEZE)
        self.block = nn.Sequential(
            nn.Conv3d(width, squeezed, 1), nn.ReLU(), nn.Conv3d(squeezed, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, c, t, h, w]` to the same shape."""
        weighted: Tensor = x * self.block(x.mean((2, 3, 4), keepdim=True))
        return weighted

    def step(self, x: Tensor) -> Tensor:
        """Map frames `[t · b, c, h, w]` to the same shape."""
        weight = torch.relu(_in_frames(self.block[0], x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(_in_frames(self.block[2], weight))


class _Head(nn.Module):
    """
    What comes before the classifier.

    :param features: channels after the mean; 0: there is none.
    """

    def __init__(self, width: int, inner: int, features: int) -> None:
        super().__init__()
        self.pool = nn.ModuleDict({
            'pre_conv': nn.Conv3d(width, inner, 1, bias=False), 'pre_norm': nn.BatchNorm3d(inner)})
        if features:
            self.pool['post_conv'] = nn.Conv3d(inner, features, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[b, c, t, h, w]` to `[b, e, t, h, w]`."""
        return torch.relu(self.pool['pre_norm'](self.pool['pre_conv'](x)))

    def step(self, x: Tensor, memory: StreamMemory, delayed: bool) -> Tensor:
        """Map new frames `[t · b, c, h, w]` to `[t · b, e, h, w]`."""
        return torch.relu(_normed(
            self.pool['pre_norm'], _in_frames(self.pool['pre_conv'], x)))

    def projected(self, x: Tensor) -> Tensor:
        """Map a mean `[b, e, 1, 1, 1]` to what the classifier gets."""
        return torch.relu(self.pool['post_conv'](x))


def _in_frames(conv: nn.Module, x: Tensor, i: int = 0) -> Tensor:
    """Convolve each frame `[t · b, c, h, w]` with the weights for the frame i of k."""
    assert isinstance(conv, nn.Conv3d) and isinstance(conv.padding, tuple)
    return functional.conv2d(
        x, conv.weight[:, :, i], conv.bias, conv.stride[1:], conv.padding[1:], 1, conv.groups)


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalize frames `[t · b, c, h, w]` as clips."""
    assert isinstance(norm, nn.BatchNorm3d) and norm.momentum is not None
    return functional.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.training,
        norm.momentum, norm.eps)


def _rounded(width: float) -> int:
    """Return the multiple of 8 nearest to a width, or the next if that is below 90 % of it."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8
