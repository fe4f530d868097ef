"""
An encoder for streams: it sees each frame once and keeps a state.

Shape legend: b batch, t frames, c channels, h height, w width, k frames that a mixer sees,
n tokens of a frame, e token width. Frames of several videos lie side by side, `[t · b, ...]`, time
outermost: the frames before another are then a contiguous part, and no copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, cast, Protocol, runtime_checkable

from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.encoders.video import prepare_torchvision
import torch
from torch import nn, Tensor

Past = tuple[Tensor | tuple[Tensor, ...], ...]
"""
What an encoder keeps of earlier frames, one entry for each layer that sees several: of the last n
frames, the oldest first, `[b, n, ...]` or n tensors `[b, ...]`, such as k - 1 of a mixer. Several
tensors need no copy in an exported graph. All zero at the start of a stream.
"""


@runtime_checkable
class StatefulEncoder(Protocol):
    """An encoder that sees each frame once, or each chunk of a series, and keeps a state."""

    parts: int
    """Frames of a clip (t), or chunks of a spectrogram or series, each with equally many tokens;
    1: only those of the last count."""

    def step(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """
        Encode the next frames of a stream.

        :param x: `[b, c, t, ...]`, any number of frames (or chunks).
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
    :param grid: rows and columns of tokens that a frame is pooled to; one number is both.
    :param options: further arguments of `timm.create_model`.
    """

    def __init__(
        self, input_shape: Sequence[int], backbone: str = 'mobilenetv3_large_100',
        kernel: int = 5, grid: int | Sequence[int] = 3, **options: Any,
    ) -> None:
        super().__init__()
        self.parts = input_shape[1]
        self.model, self._family = _trunk(backbone, options)
        self.mixers = nn.ModuleList(
            CausalMixer(width, kernel) for width in self._widths(input_shape))
        self.pool = nn.AdaptiveAvgPool2d(grid if isinstance(grid, int) else tuple(grid))
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
        x = self._stem(x.permute(2, 0, 1, 3, 4).flatten(0, 1))  # [t · b, c, h, w]
        kept = []
        for i, (stage, mixer) in enumerate(zip(self._stages(), self.mixers)):
            x, memory = mixer(stage(x), batch, None if past is None else tuple(past[i]))
            kept.append(memory)
        tokens = self.pool(x).flatten(2).mT  # [t · b, n, e]
        tokens = tokens.unflatten(0, (frames, batch)).transpose(0, 1)  # [b, t, n, e]
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

    def forward(
        self, x: Tensor, batch: int, past: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """
        Mix frames `[t · b, c, h, w]`.

        :param batch: the number of videos (b).
        :param past: the k - 1 frames before, `[b, c, h, w]` each; None: black ones.
        :returns: the same shape, and the last k - 1 frames of the input.
        """
        if past is None:
            mixed, kept = self._mix_video(x, batch)
        else:
            mixed, kept = self._mix_next(x.split(batch), past)
        return x + self.spread(torch.relu(self.norm(mixed))), kept

    def _mix_video(self, x: Tensor, batch: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Sum shifted frames: on a CPU several times as fast as a depthwise 3D convolution."""
        black = x.new_zeros((self.kernel - 1) * batch, *x.shape[1:])
        seen = torch.cat([black, x])  # [(k - 1 + t) · b, c, h, w]
        mixed = self._weighted(
            seen[i * batch:i * batch + len(x)] for i in range(self.kernel))
        return mixed, seen[len(x):].split(batch) if self.kernel > 1 else ()

    def _mix_next(
        self, frames: tuple[Tensor, ...], past: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Sum frames one by one: in a graph, where each is an input, nothing is copied."""
        seen = (*past, *frames)
        mixed = [self._weighted(seen[i:i + self.kernel]) for i in range(len(frames))]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed), seen[len(frames):]

    def _weighted(self, frames: Iterable[Tensor]) -> Tensor:
        return reduce(torch.add, (
            frame * weight.to(frame.dtype)[:, None, None]
            for frame, weight in zip(frames, self.weight)))


class CausalMel(CausalFrames):
    """
    `CausalFrames` on a spectrogram: each chunk of mel columns is a frame, beside the chunk before.

    A frame is two chunks wide, so that nothing is seen only across a border. Weights have the
    names of `CausalFrames`: those of image models are a start here too.

    :param input_shape: `[1, f, s]`, f mel bands and s columns.
    :param columns: mel columns of a chunk; they divide s. A chunk should last whole frames of the
        clip, so that windows which end with a frame have chunks in common: 25 columns of 5 ms are
        two frames at 16 a second.
    :param options: arguments of `CausalFrames`.
    """

    def __init__(self, input_shape: Sequence[int], columns: int = 25, **options: Any) -> None:
        tiles, bands, steps = input_shape
        if tiles != 1:
            raise InvalidSettingError(
                'clip.audio.tiles', tiles, '1 for causal_mel', 'overlapping tiles would change '
                'with audio that comes later: take one tile of all columns of the window')
        if columns < 1 or steps % columns:
            raise InvalidSettingError(
                'columns of causal_mel', columns, f'a divisor of the {steps} columns of the clip')
        super().__init__((3, steps // columns, bands, 2 * columns), **options)
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        """Encode a spectrogram `[b, 1, f, s]` that nothing precedes: tokens `[b, t · n, e]`."""
        return self.step(x.unflatten(3, (-1, self.columns)).transpose(2, 3), None)[0]

    def step(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """
        Encode the next chunks of a stream.

        :param x: `[b, 1, t, f, c]`, any number of chunks of c columns.
        :param past: as the step before gave it; None: nothing came before.
        :returns: tokens `[b, t · n, e]`, and the state for the next step.
        """
        before = torch.zeros_like(x[:, :, 0]) if past is None else past[0][0]  # [b, 1, f, c]
        seen = torch.cat([before[:, :, None], x[:, :, :-1]], dim=2) if x.shape[2] > 1 else (
            before[:, :, None])
        frames = torch.cat([seen, x], dim=4).expand(-1, 3, -1, -1, -1)  # [b, 3, t, f, 2c]
        tokens, kept = super().step(frames, None if past is None else past[1:])
        return tokens, ((x[:, :, -1],), *kept)


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
