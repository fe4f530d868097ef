"""
Video Swin's attention, written for graphs of fixed shapes.

torchvision adds a mask `[g, n, n]` to the attention of shifted windows. It depends on shapes
alone, so that a runtime keeps it as a constant: 108 MB for a Swin-T of 32 frames, more than its
weights. Here a few columns beside queries and keys say the same.

Shape legend: b batch, t frames, h height, w width, e token width, g windows, n tokens of a
window, a heads, d width of a head, c columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import math
import sys
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

_MODULE = 'torchvision.models.video.swin_transformer'
_FAR = -100.0
"""What torchvision adds between tokens that are not neighbours in the picture."""


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

    It takes the arguments of torchvision's function of this name, and answers as that does
    when nothing is dropped out.

    :param x: `[b, t, h, w, e]`.
    :param relative_position_bias: `[1, a, n, n]`.
    :param window_size: of a window, in t, h and w.
    :param shift_size: by how much windows are shifted in t, h and w.
    :returns: `[b, t, h, w, e]`.
    """
    size = [int(side) for side in x.shape[1:4]]  # while it is traced, no number is one
    full = [side + -side % window for side, window in zip(size, window_size)]
    padding = [end for side, whole in zip(size[::-1], full[::-1]) for end in (0, whole - side)]
    x = _rolled(functional.pad(x, [0, 0, *padding]), [-shift for shift in shift_size])
    grid = [whole // window for whole, window in zip(full, window_size)]
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
    x = _picture(functional.linear(windows, proj_weight, proj_bias), grid, window_size)
    return _rolled(x, shift_size)[:, :size[0], :size[1], :size[2]]


def _rolled(x: Tensor, shift: Sequence[int]) -> Tensor:
    """Shift `[b, t, h, w, e]` cyclically along the axes that are shifted."""
    moved = [axis for axis in range(3) if shift[axis]]
    if not moved:
        return x  # a graph would copy it
    return torch.roll(x, [shift[axis] for axis in moved], [axis + 1 for axis in moved])


def _windows(x: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """Cut `[b, t, h, w, e]` into windows `[b · g, n, e]`."""
    sides = [side for pair in zip(grid, window) for side in pair]
    x = x.reshape(len(x), *sides, -1).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(-1, math.prod(window), x.shape[-1])


def _picture(windows: Tensor, grid: Sequence[int], window: Sequence[int]) -> Tensor:
    """Join windows `[b · g, n, e]` to `[b, t, h, w, e]`."""
    x = windows.reshape(-1, *grid, *window, windows.shape[-1]).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(len(x), *(n * side for n, side in zip(grid, window)), -1)


def _mask(
    grid: Sequence[int], window: Sequence[int], shift: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """
    Give columns `[g, n, c]` for queries and keys, whose products are the mask.

    Along a shifted axis the last window holds tokens from both ends of the picture. Two columns
    for each axis make `_FAR` of two tokens from different ends, and zero of others.
    """
    ends = [_wrapped(axis, grid, window, shift) for axis in range(3) if shift[axis]]
    queries = torch.stack([*ends, *(1 - end for end in ends)], -1)
    keys = torch.stack([*(1 - end for end in ends), *ends], -1) * _FAR
    return queries, keys


def _wrapped(
    axis: int, grid: Sequence[int], window: Sequence[int], shift: Sequence[int]
) -> Tensor:
    """Tell which tokens came round the picture's end along an axis, `[g, n]`."""
    length = grid[axis] * window[axis]
    wrapped = (torch.arange(length) >= length - shift[axis]).float()
    shape = [1] * 6
    shape[axis], shape[3 + axis] = grid[axis], window[axis]
    places = wrapped.reshape(shape).expand(*grid, *window)
    return places.reshape(math.prod(grid), math.prod(window))
