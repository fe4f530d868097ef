"""
A network as ONNX graphs: one for each encoder, and one for fusion and heads.

They are traced from the network itself. The graph of the fusion takes the tokens of all
modalities and a mask, so that it accepts any subset; that of an encoder is independent of the
other modalities. The graph of a chunked encoder encodes one chunk, without its position in the
clip. All shapes are fixed.

torchvision adds a mask `[g, n, n]` to the attention of shifted windows of Video Swin. It depends
on shapes alone, so that a runtime keeps it as a constant: 108 MB for a Swin-T of 32 frames, more
than its weights. Here a few columns beside queries and keys have the same effect.

Shape legend: t frames, p chunks of a clip, h height, w width, m modalities, d fusion width; in the
attention b batch, e token width, g windows, n tokens of a window (elsewhere of a clip), a heads,
d width of a head, c columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
def swin_without_masks() -> Iterator[None]:
    """Let torchvision's Video Swin, where it is in use, compute its attention as `attend` does."""
    if _MODULE not in sys.modules:
        yield
        return
    with mock.patch.object(sys.modules[_MODULE], 'shifted_window_attention_3d', attend):
        yield


def attend(
    x: Tensor, qkv_weight: Tensor, proj_weight: Tensor, relative_position_bias: Tensor,
    window_size: Sequence[int], num_heads: int, shift_size: Sequence[int],
    qkv_bias: Tensor | None = None, proj_bias: Tensor | None = None, **_: Any,
) -> Tensor:
    """
    Attend within shifted windows (Liu et al., Video Swin Transformer, CVPR 2022, Sec. 3.2).

    Arguments and result are those of torchvision's `shifted_window_attention_3d` without
    dropout.

    :param x: `[b, t, h, w, e]`.
    :param relative_position_bias: `[1, a, n, n]`.
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
    weights = (query @ key.transpose(-2, -1) + relative_position_bias).softmax(-1)
    windows = (weights @ value).transpose(1, 2).flatten(2)  # [b · g, n, e]
    x = _unwindow(functional.linear(windows, proj_weight, proj_bias), grid, window_size)
    return _roll(x, shift_size)[:, :size[0], :size[1], :size[2]]


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
"""The state of an encoder, as input and as output; a number follows, the same for both."""
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
    def __init__(self, network: Karmma, modality: Modality) -> None:
        super().__init__()
        self.network, self.modality = network, modality

    def forward(self, frame: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        tokens, kept = self.network.encode_next(self.modality, frame, past)
        return tokens, *kept


def write_graphs(bundle: Bundle, folder: Path) -> list[Path]:
    """
    Write `MODALITY.onnx` for each modality and `fusion.onnx`.

    An encoder maps `input` `[1, ...]` to `tokens` `[1, n, d]`. A chunked
    one maps a chunk, `[1, 3, t / p, h, w]`, to `[1, n / p, d]`; a stateful one also takes
    `past.0`, `past.1` …, all zero at the start of a stream, and returns `kept.0` …, which are
    the past of the next frame. The fusion maps `present` `[1, m]` and the tokens, each
    called as its modality, to `logits.HEAD` for each head.
    """
    network, written = bundle.network.eval(), []
    with _traceable():
        tokens: dict[Modality, Tensor] = {}
        for modality, x in check_clip(bundle.spec, network.modalities).items():
            tokens[modality] = network.encode(modality, torch.from_numpy(x))
            written.append(_write_encoder(network, modality, x, folder / f'{modality}.onnx'))
        written.append(_write_fusion(bundle, tokens, folder / f'{FUSION}.onnx'))
    return written


def write_encoder(encoder: nn.Module, example: Tensor, path: Path) -> None:
    """
    Write the graph of an encoder alone, from `input` `[1, ...]` to `tokens` `[1, n, e]`.

    :param example: one input.
    """
    with _traceable():
        _export(encoder, (example,), path, [INPUT], [TOKENS])


@torch.no_grad()
def feeds(
    network: Karmma, modality: Modality, clips: Iterable[Input]
) -> Iterator[dict[str, Input]]:
    """Yield the inputs of the graph of an encoder for clips: one for each chunk."""
    own = chunks_of(network.eval()).get(modality)
    for clip in clips:
        past: Past | None = None
        for x in chunks_in(clip, own.count) if own else [clip]:
            fed = {INPUT: x}
            if own and own.stateful:
                frame = torch.from_numpy(x)
                past = _nothing(network, modality, frame) if past is None else past
                fed |= {f'{PAST}{i}': state.numpy() for i, state in enumerate(past)}
                _, past = network.encode_next(modality, frame, past)
            yield fed


def _nothing(network: Karmma, modality: Modality, frame: Tensor) -> Past:
    """Return the state of an encoder at the start of a stream, as tensors."""
    _, past = network.encode_next(modality, frame, None)
    return tuple(map(torch.zeros_like, past))


def _write_encoder(network: Karmma, modality: Modality, clip: Input, path: Path) -> Path:
    own = chunks_of(network).get(modality)
    x = torch.from_numpy(chunks_in(clip, own.count)[0] if own else clip)
    if own is None:
        _export(EncoderOf(network, modality), (x,), path, [INPUT], [TOKENS])
    elif not own.stateful:
        _export(_ChunkEncoderOf(network, modality), (x,), path, [INPUT], [TOKENS])
    else:
        past = _nothing(network, modality, x)
        names = [[f'{prefix}{i}' for i in range(len(past))] for prefix in (PAST, KEPT)]
        _export(_FrameEncoderOf(network, modality), (x, *past), path, [INPUT, *names[0]],
                [TOKENS, *names[1]])
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
        with torch.no_grad(), _Plain(), swin_without_masks(), warnings.catch_warnings():
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
