"""
A network as ONNX graphs: one for each encoder, and one for fusion and heads.

They are traced from the network itself. The graph of the fusion takes the tokens of all
modalities and a mask, so that it accepts any subset; that of an encoder is independent of the
other modalities. The graph of a chunked encoder encodes one chunk, without its position in the
clip. All shapes are fixed.

torchvision adds a mask `[g, n, n]` to the attention of shifted windows of Video Swin. It depends
on shapes alone, so that a runtime keeps it as a constant: 108 MB for a Swin-T of 32 frames, more
than its weights. Here a few columns beside queries and keys have the same effect. The position
biases `[a, n, n]`, 85 MB, are gathered from their tables when the graph runs, a block at a time.

Shape legend: t frames, p chunks of a clip, h height, w width, m modalities, d fusion width; in the
attention b batch, e token width, g windows, n tokens of a window (elsewhere of a clip), a heads,
d width of a head, c columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
import math
from pathlib import Path
import sys
from typing import Any
from unittest import mock
import warnings

from karmma_ros.modality import Modality
from karmma_ros.model.backends.agreement import check_clip
from karmma_ros.model.backends.interface import Input
from karmma_ros.model.backends.pytorch import EncoderOf
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.encoders.causal import Past
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.streaming import chunks_in, chunks_of
import numpy as np
import torch
from torch import nn, Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_MODULE = 'torchvision.models.video.swin_transformer'
_FAR = -100.0
"""What torchvision adds between tokens that are not neighbours in the frame."""


@contextmanager
def swin_without_constants() -> Iterator[None]:
    """Let torchvision's Video Swin, where it is in use, compute its attention as `attend` does."""
    if _MODULE not in sys.modules:
        yield
        return
    with mock.patch.multiple(
            sys.modules[_MODULE], shifted_window_attention_3d=attend,
            _get_relative_position_bias=lambda table, index, window: (table, index)):
        yield


def attend(
    x: Tensor, qkv_weight: Tensor, proj_weight: Tensor,
    relative_position_bias: tuple[Tensor, Tensor],
    window_size: Sequence[int], num_heads: int, shift_size: Sequence[int],
    qkv_bias: Tensor | None = None, proj_bias: Tensor | None = None, **_: Any,
) -> Tensor:
    """
    Attend within shifted windows (Liu et al., Video Swin Transformer, CVPR 2022, Sec. 3.2).

    Arguments and result are those of torchvision's `shifted_window_attention_3d` without
    dropout.

    :param x: `[b, t, h, w, e]`.
    :param relative_position_bias: for each distance `[r, a]`, and which of them is that of each
        pair of tokens, `[n, n]` or larger.
    :param window_size: of a window, in t, h and w.
    :param shift_size: by how much windows are shifted in t, h and w.
    :returns: `[b, t, h, w, e]`.
    """
    size = [int(side) for side in x.shape[1:4]]  # while it is traced, no number is one
    full = [side + -side % window for side, window in zip(size, window_size)]
    padding = [end for side, padded in zip(size[::-1], full[::-1]) for end in (0, padded - side)]
    x = _roll(functional.pad(x, [0, 0, *padding]), [-shift for shift in shift_size])
    grid = [padded // window for padded, window in zip(full, window_size)]
    windows = _windows(x, grid, window_size)  # [b · g, n, e]
    qkv = functional.linear(windows, qkv_weight, qkv_bias).unflatten(-1, (3, num_heads, -1))
    query, key, value = qkv.permute(2, 0, 3, 1, 4)  # [b · g, a, n, d] each
    query = query * query.shape[-1] ** -0.5
    if any(shift_size):
        columns = [c.repeat(len(x), 1, 1)[:, None].expand(-1, num_heads, -1, -1)
                   for c in _mask(grid, window_size, shift_size)]
        query, key = (torch.cat(pair, -1) for pair in zip((query, key), columns))
    bias = _position_bias(*relative_position_bias, windows)
    weights = (query @ key.transpose(-2, -1) + bias).softmax(-1)
    windows = (weights @ value).transpose(1, 2).flatten(2)  # [b · g, n, e]
    x = _unwindow(functional.linear(windows, proj_weight, proj_bias), grid, window_size)
    return _roll(x, shift_size)[:, :size[0], :size[1], :size[2]]


def _position_bias(table: Tensor, index: Tensor, windows: Tensor) -> Tensor:
    """
    Return the biases of all pairs of tokens, `[1, a, n, n]`, gathered when the graph runs.

    :param windows: `[b · g, n, e]`; that it is finite is what the graph cannot know before.
    """
    tokens = int(windows.shape[1])
    zero = (windows.flatten()[0] > math.inf).int()
    pairs = index[:tokens, :tokens].flatten().int() + zero
    return table.T.index_select(1, pairs).unflatten(-1, (tokens, tokens))[None]


def _roll(x: Tensor, shift: Sequence[int]) -> Tensor:
    """Shift `[b, t, h, w, e]` cyclically along the axes that are shifted."""
    moved = [axis for axis in range(3) if shift[axis]]
    if not moved:
        return x  # a graph would copy it
    return torch.roll(x, [shift[axis] for axis in moved], [axis + 1 for axis in moved])


def _windows(x: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """Split `[b, t, h, w, e]` into windows `[b · g, n, e]`."""
    sides = [side for pair in zip(grid, window) for side in pair]
    x = x.reshape(len(x), *sides, -1).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(-1, math.prod(window), x.shape[-1])


def _unwindow(windows: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """Join windows `[b · g, n, e]` to `[b, t, h, w, e]`."""
    x = windows.reshape(-1, *grid, *window, windows.shape[-1]).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(len(x), *(n * side for n, side in zip(grid, window)), -1)


def _mask(
    grid: Sequence[int], window: Sequence[int], shift: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """
    Return columns `[g, n, c]` for queries and keys, whose products are the mask.

    Along a shifted axis the last window holds tokens from both ends of the frame. Two columns
    for each axis make `_FAR` of two tokens from different ends, and zero of others.
    """
    ends = [_wrapped(axis, grid, window, shift) for axis in range(3) if shift[axis]]
    queries = torch.stack([*ends, *(1 - end for end in ends)], -1)
    keys = torch.stack([*(1 - end for end in ends), *ends], -1) * _FAR
    return queries, keys


def _wrapped(
    axis: int, grid: Sequence[int], window: Sequence[int], shift: Sequence[int]
) -> Tensor:
    """Return which tokens were shifted beyond the end of an axis, `[g, n]`."""
    length = grid[axis] * window[axis]
    wrapped = (torch.arange(length) >= length - shift[axis]).float()
    shape = [1] * 6
    shape[axis], shape[3 + axis] = grid[axis], window[axis]
    positions = wrapped.reshape(shape).expand(*grid, *window)
    return positions.reshape(math.prod(grid), math.prod(window))


FUSION = 'fusion'
INPUT, TOKENS, PRESENT, LOGITS = 'input', 'tokens', 'present', 'logits.'
"""Names of inputs and outputs; that of a head's logits is followed by the head's."""
PAST, KEPT = 'past.', 'kept.'
"""
The state of an encoder, as inputs and as outputs. Two numbers follow, as in `past.3.0`: of a part
of the encoder, and of a frame that this part keeps, the oldest first.
"""
FRAMES_AT_ONCE = (1, 2)
"""New frames that the graphs of a stateful encoder take, one graph for each number."""


def graph_name(modality: Modality, frames: int = 1) -> str:
    """Return the name of the graph of an encoder that takes a clip, a chunk, or so many frames."""
    return modality.value if frames == 1 else f'{modality}-{frames}'


def graph_of(name: str) -> tuple[Modality, int] | None:
    """Return the modality and the frames of the graph of an encoder; None: the fusion's."""
    if name == FUSION:
        return None
    modality, _, frames = name.partition('-')
    return Modality(modality), int(frames or 1)


OPSET = 17
"""The first one that has layer normalisation as one operator."""


class _Fusion(nn.Module):
    def __init__(self, network: Karmma) -> None:
        super().__init__()
        self.network = network

    def forward(self, present: Tensor, *tokens: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.network.modalities, tokens))
        return tuple(self.network.fuse(given, present).values())


class _ChunkEncoderOf(nn.Module):
    def __init__(self, network: Karmma, modality: Modality) -> None:
        super().__init__()
        self.network, self.modality = network, modality

    def forward(self, chunk: Tensor) -> Tensor:
        return self.network.encode_chunks(self.modality, chunk)


class _FrameEncoderOf(nn.Module):
    """:param past: a state; what is one tensor in it is joined and split again in the graph."""

    def __init__(self, network: Karmma, modality: Modality, past: Past) -> None:
        super().__init__()
        self.network, self.modality = network, modality
        self.past = [(isinstance(part, Tensor), len(_frames(part))) for part in past]

    def forward(self, frames: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        given = iter(past)
        parts = [(joined, tuple(islice(given, size))) for joined, size in self.past]
        state = tuple(torch.stack(part, 1) if joined else part for joined, part in parts)
        tokens, kept = self.network.encode_next(self.modality, frames, state)
        new = int(frames.shape[2])
        return tokens, *(frame for part in kept for frame in _frames(part)[-new:])


def write_graphs(bundle: Bundle, folder: Path) -> list[Path]:
    """
    Write `MODALITY.onnx` for each modality and `fusion.onnx`.

    An encoder maps `input` `[1, ...]` to `tokens` `[1, n, d]`. A chunked one maps a chunk,
    `[1, 3, t / p, h, w]`, to `[1, n / p, d]`. A stateful one maps the next frame,
    `[1, 3, 1, h, w]`, to `[1, n / p, d]`; `MODALITY-2.onnx` maps two. It also takes what its parts
    keep of each frame before, `past.0.0`, `past.0.1` …, all zero at the start of a stream, and
    returns what they keep of the new ones, `kept.0.0` …: each frame is an input of its own, so
    that whoever runs the graph gives it the buffers that earlier runs wrote, and copies nothing.
    The fusion maps `present` `[1, m]` and the tokens, each called as its modality, to
    `logits.HEAD` for each head.
    """
    network, written = bundle.network.eval(), []
    with _traceable():
        tokens: dict[Modality, Tensor] = {}
        for modality, x in check_clip(bundle.spec, network.modalities).items():
            tokens[modality] = network.encode(modality, torch.from_numpy(x))
            written += _write_encoder(network, modality, x, folder)
        written.append(_write_fusion(bundle, tokens, folder / f'{FUSION}.onnx'))
    return written


def write_encoder(encoder: nn.Module, path: Path, *example: Tensor) -> None:
    """
    Write the graph of an encoder alone, from `input` `[1, ...]` to `tokens` `[1, n, e]`.

    :param example: one input, and further ones without a name.
    """
    with _traceable():
        _export(encoder, example, path, [INPUT], [TOKENS])


@torch.no_grad()
def feeds(
    network: Karmma, modality: Modality, clips: Iterable[Input], frames: int = 1
) -> Iterator[dict[str, Input]]:
    """
    Yield the inputs of the graph of an encoder for clips: one for each chunk.

    :param frames: that a graph of a stateful encoder takes at a time.
    """
    own = chunks_of(network.eval()).get(modality)
    for clip in clips:
        if own is None or not own.stateful:
            yield from ({INPUT: x} for x in (chunks_in(clip, own.count) if own else [clip]))
            continue
        given = own.frames(clip)
        past = _nothing(network, modality, given)
        for first in range(0, own.count - frames + 1, frames):
            x = given[:, :, first:first + frames]
            yield {INPUT: x, **{name: state.numpy() for name, state in _named(PAST, past)}}
            _, past = network.encode_next(modality, torch.from_numpy(x), past)


def _nothing(network: Karmma, modality: Modality, frames: Input) -> Past:
    """Return the state of an encoder at the start of a stream, as tensors."""
    _, past = network.encode_next(modality, torch.from_numpy(frames[:, :, :1]), None)
    return tuple(torch.zeros_like(part) if isinstance(part, Tensor)
                 else tuple(map(torch.zeros_like, part)) for part in past)


def _frames(part: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return what a part of an encoder keeps of each frame, `[b, ...]`."""
    return part.unbind(1) if isinstance(part, Tensor) else part


def _named(prefix: str, state: Past, most: int | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield the name of the input or output of each frame that an encoder keeps, or the last."""
    for i, part in enumerate(state):
        for j, frame in enumerate(_frames(part)[-(most or len(_frames(part))):]):
            yield f'{prefix}{i}.{j}', frame


def _write_encoder(
    network: Karmma, modality: Modality, clip: Input, folder: Path
) -> list[Path]:
    own, path = chunks_of(network).get(modality), folder / f'{graph_name(modality)}.onnx'
    if own is not None and own.stateful:
        return [write_stateful(network, modality, own.frames(clip), folder, frames)
                for frames in FRAMES_AT_ONCE if frames <= own.count]
    if own is None:
        _export(EncoderOf(network, modality), (torch.from_numpy(clip),), path, [INPUT], [TOKENS])
    else:
        chunk = torch.from_numpy(chunks_in(clip, own.count)[0])
        _export(_ChunkEncoderOf(network, modality), (chunk,), path, [INPUT], [TOKENS])
    return [path]


def write_stateful(
    network: Karmma, modality: Modality, example: Input, folder: Path, frames: int
) -> Path:
    """
    Write the graph of an encoder with a state, for so many frames at a time.

    :param example: as many frames or more, as `Chunks.frames` returns them.
    """
    path = folder / f'{graph_name(modality, frames)}.onnx'
    with _traceable():
        past, x = _nothing(network, modality, example), torch.from_numpy(example[:, :, :frames])
        given = dict(_named(PAST, past))
        kept = [name for name, _ in _named(KEPT, past, frames)]
        _export(_FrameEncoderOf(network, modality, past), (x, *given.values()), path,
                [INPUT, *given], [TOKENS, *kept])
    return path


def _write_fusion(bundle: Bundle, tokens: Mapping[Modality, Tensor], path: Path) -> Path:
    # One is absent: with all present the network takes a shorter path, which has no mask.
    present = torch.ones(1, len(tokens), dtype=torch.bool)
    present[0, -1] = len(tokens) == 1
    names = [PRESENT, *(m.value for m in tokens)]
    logits = [LOGITS + head for head in bundle.vocabulary.heads]
    _export(_Fusion(bundle.network), (present, *tokens.values()), path, names, logits)
    return path


def _export(
    module: nn.Module, example: tuple[Tensor, ...], path: Path, inputs: list[str],
    outputs: list[str],
) -> None:
    torch.onnx.export(
        module.eval(), example, str(path), input_names=inputs, output_names=outputs,
        opset_version=OPSET, dynamo=False)


@contextmanager
def _traceable() -> Iterator[None]:
    """Take the code paths of PyTorch that can be traced, without warnings."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator for a whole layer: no graph
    try:
        with torch.no_grad(), _Plain(), swin_without_constants(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the tracer; what it makes is checked
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Plain(TorchFunctionMode):
    """Replace operators that the exporter does not know by others."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, '__self__', None) is torch.Tensor.mT:
            return args[0].transpose(-2, -1)
        if func is torch.nn.functional.adaptive_avg_pool2d:
            x, grid = args
            rows, columns = grid if isinstance(grid, tuple) else (grid, grid)
            return _means(int(x.shape[2]), rows) @ x @ _means(int(x.shape[3]), columns).T
        return func(*args, **(kwargs or {}))


def _means(size: int, groups: int) -> Tensor:
    """Return the matrix `[groups, size]` that adaptive average pooling multiplies with."""
    means = np.zeros((groups, size), np.float32)  # no tensor yet: what is done to it is traced
    for i, row in enumerate(means):
        first, end = i * size // groups, -(-(i + 1) * size // groups)
        row[first:end] = 1 / (end - first)
    return torch.from_numpy(means)
