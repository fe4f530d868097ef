"""
An encoder for streams: it sees each frame once and keeps a state.

Shape legend: b batch, t frames, c channels, h height, w width, k frames that a mixer sees,
n tokens of a frame, e token width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, cast, Protocol, runtime_checkable

from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.encoders.video import prepare_torchvision
import torch
from torch import nn, Tensor

Past = tuple[Tensor, ...]
"""
What an encoder keeps of earlier frames, one entry for each layer that sees several: `[b, n, ...]`
of the last n frames, such as `[b, k - 1, c, h, w]` of a mixer. All zero at the start of a stream.
"""


@runtime_checkable
class StatefulEncoder(Protocol):
    """An encoder of RGB or flow that sees each frame once and keeps a state."""

    parts: int
    """Frames of a clip (t); each has equally many tokens."""

    def step(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """
        Encode the next frames of a stream.

        :param x: `[b, 3, t, h, w]`, any number of frames.
        :param past: as the step before gave it; None: nothing came before.
        :returns: tokens `[b, t · n, e]`, and the state for the next step.
        """
        ...


class CausalFrames(nn.Module):
    """
    An image model of timm whose stages mix in features of previous frames.

    In the spirit of MoViNet's stream buffer (Kondratyuk et al., CVPR 2021): after each stage a
    convolution over time covers this frame and the k - 1 before it, never later ones. Frame by
    frame, with what `step` hands on, gives the tokens that the whole clip gives at once.
    Mixers start as identities, so weights of the image model are a sensible start; they are
    called as timm's own, after `model.`.

    :param input_shape: `[3, t, h, w]`.
    :param backbone: a model of timm of one of the families in `_FAMILIES`.
    :param kernel: frames that a mixer sees (k).
    :param grid: rows and columns of tokens that a frame is pooled to.
    :param options: further arguments of `timm.create_model`.
    """

    def __init__(
        self, input_shape: Sequence[int], backbone: str = 'mobilenetv3_large_100',
        kernel: int = 5, grid: int = 3, **options: Any,
    ) -> None:
        super().__init__()
        self.parts = input_shape[1]
        self.model, self._family = _trunk(backbone, options)
        self.mixers = nn.ModuleList(
            CausalMixer(width, kernel) for width in self._widths(input_shape))
        self.pool = nn.AdaptiveAvgPool2d(grid)
        for part in (self.model, self.mixers):  # this layout is faster on a CPU
            cast(Any, part).to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Encode a clip `[b, 3, t, h, w]` that nothing precedes into tokens `[b, t · n, e]`."""
        return self.step(x, None)[0]

    def step(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """
        Encode the next frames of a stream.

        :param x: `[b, 3, t, h, w]`, any number of frames.
        :param past: as the step before gave it; None: nothing came before.
        :returns: tokens `[b, t · n, e]`, and the state for the next step.
        """
        batch, frames = len(x), x.shape[2]
        x = self._stem(x.transpose(1, 2).flatten(0, 1))  # [b · t, c, h, w]
        kept = []
        for i, (stage, mixer) in enumerate(zip(self._stages(), self.mixers)):
            x = stage(x).unflatten(0, (batch, frames))
            x, memory = mixer(x, None if past is None else past[i])
            x = x.flatten(0, 1)
            kept.append(memory)
        tokens = self.pool(x).flatten(2).mT  # [b · t, n, e]
        return tokens.reshape(batch, -1, tokens.shape[-1]), tuple(kept)

    def _stem(self, x: Tensor) -> Tensor:
        for name in self._family[0]:
            x = getattr(self.model, name)(x)
        return x

    def _stages(self) -> Iterator[nn.Module]:
        for name in self._family[1]:
            part = getattr(self.model, name)
            yield from part if name in _LISTS else [part]

    def _widths(self, input_shape: Sequence[int]) -> list[int]:
        """Return the channels after each stage, from shapes alone."""
        channels, _, height, width = input_shape
        device = next(self.model.parameters()).device
        self.model.eval()  # no statistics are taken of this
        widths = []
        with torch.no_grad():
            x = self._stem(torch.zeros(1, channels, height, width, device=device))
            for stage in self._stages():
                x = stage(x)
                widths.append(x.shape[1])
        self.model.train()
        return widths


class CausalMixer(nn.Module):
    """
    Mix each frame with those before it by position: a convolution over time, then channels.

    The last layer starts at zero: nothing is mixed in before training.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(kernel, width))
        nn.init.trunc_normal_(self.weight, std=kernel ** -0.5)
        self.norm = nn.BatchNorm2d(width)
        self.spread = nn.Conv2d(width, width, 1, bias=False)
        nn.init.zeros_(self.spread.weight)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """
        Mix `[b, t, c, h, w]`.

        :param past: the k - 1 frames before, `[b, k - 1, c, h, w]`; None: black ones.
        :returns: the same shape, and the last k - 1 frames of the input.
        """
        if past is None:
            past = x.new_zeros(len(x), self.kernel - 1, *x.shape[2:])
        seen, frames = torch.cat([past, x], dim=1), x.shape[1]  # [b, k - 1 + t, c, h, w]
        # Sums of shifted frames: on a CPU several times as fast as a depthwise 3D convolution.
        mixed = reduce(torch.add, (
            seen[:, i:i + frames] * weight[:, None, None]
            for i, weight in enumerate(self.weight.to(x.dtype))))
        added = self.spread(torch.relu(self.norm(mixed.flatten(0, 1))))
        added = added.unflatten(0, x.shape[:2])
        return x + added, seen[:, frames:]


def _trunk(name: str, options: dict[str, Any]) -> tuple[Any, tuple[Sequence[str], ...]]:
    """Return an image model without what comes after its stages, and the names of its parts."""
    prepare_torchvision()
    import timm  # takes seconds, and is not needed by the smaller networks

    if not timm.is_model(name):
        raise InvalidSettingError('timm model', name, 'one of timm.list_models()')
    model = cast(Any, timm.create_model(name, pretrained=False, num_classes=0, **options))
    family = _FAMILIES.get(type(model).__name__)
    if family is None:
        raise InvalidSettingError(
            'timm model', name, f'one of the families {", ".join(_FAMILIES)}',
            'the stages of other families are not known')
    used = {*family[0], *family[1]}
    for part, _ in list(model.named_children()):
        if part not in used:
            setattr(model, part, nn.Identity())
    return model, family


_LISTS = ('blocks', 'stages')
"""Parts that hold the stages one after the other; others are one stage each."""

_INVERTED = (('conv_stem', 'bn1'), ('blocks',))
_FAMILIES: dict[str, tuple[Sequence[str], ...]] = {
    'ResNet': (('conv1', 'bn1', 'act1', 'maxpool'), ('layer1', 'layer2', 'layer3', 'layer4')),
    'RegNet': (('stem',), ('s1', 's2', 's3', 's4')),
    'ConvNeXt': (('stem',), ('stages',)),
    'MobileNetV3': _INVERTED,
    'EfficientNet': _INVERTED,
}
"""Class of timm → the parts before the stages, and those that are or hold stages."""
