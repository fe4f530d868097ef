"""
Random changes of a batch of one modality's inputs, for training.

The inputs are not changed in place. Random numbers come from `rand`, from a shape to numbers,
uniform in [0, 1); its first size is that of the batch. Only training imports this module, since
it needs PyTorch.

Shape legend: b batch, c channels, t frames or samples, h height, w width, k tiles, f mel bands,
s steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Rand = Callable[..., Tensor]


def normalise_batch(
    frames: Tensor, mean: tuple[float, ...], std: tuple[float, ...], absent: float = 0.0,
) -> Tensor:
    """
    Normalise uint8 `[b, t, h, w, c]` to float32 `[b, 3, t, h, w]`, as `normalise_image` does.

    :param absent: value of the channels after c, before they are normalised.
    """
    b, *size, channels = frames.shape
    out = torch.empty((b, len(mean), *size), dtype=torch.float32, device=frames.device)
    for i in range(len(mean)):
        if i < channels:  # in float32, as numpy: the result is the same to the bit
            torch.mul(frames[..., i], float(np.float32(1 / (255 * std[i]))), out=out[:, i])
            out[:, i] -= float(np.float32(mean[i] / std[i]))
        else:
            out[:, i] = (absent / 255 - mean[i]) / std[i]
    return out


def extract_tiles(spectrograms: Tensor, starts: Sequence[int], steps: int) -> Tensor:
    """Return the tiles `[b, k, f, steps]` of `[b, f, s]` that begin at some columns."""
    return torch.stack([spectrograms[:, :, start:start + steps] for start in starts], 1)


def jitter_colour(x: Tensor, strength: float, rand: Rand) -> Tensor:
    """Scale and shift each channel of each clip `[b, c, t, h, w]`, in units of its deviation."""
    shape = (*x.shape[:2], 1, 1, 1)
    gain = 1 + 0.2 * strength * _uniform(shape, rand, x)
    shift = 0.2 * strength * _uniform(shape, rand, x)
    return x * gain + shift


def mask_spectrogram(x: Tensor, strength: float, rand: Rand) -> Tensor:
    """Set a band and an interval of each `[k, f, s]` to the mean, 0."""
    for dim in (2, 3):
        size = x.shape[dim]
        masked = _interval(len(x), size, 0.15 * strength, rand)
        shape = [len(x), 1, 1, 1]
        shape[dim] = size
        x = x.masked_fill(masked.view(shape).to(x.device), 0.0)
    return x


def vary_series(x: Tensor, strength: float, rand: Rand) -> Tensor:
    """
    Shift each series of `[b, c, t]` in time, scale it, hold it for an interval, and add noise.

    It is shifted by up to a tenth of the window; its ends are held. Its channels have one scale,
    within a tenth, since together they may be vectors. It is held for up to 15 % of the window,
    as where messages are lost. The noise is within a twentieth of each channel's deviation.
    """
    count, _, samples = x.shape
    shift = torch.round((2 * rand(count) - 1) * 0.1 * strength * samples)
    index = torch.arange(samples).expand(count, -1)
    held = _interval(count, samples, 0.15 * strength, rand)
    first = held.int().argmax(1, keepdim=True)
    index = torch.where(held, first, index)
    index = (index + shift[:, None].long()).clamp(0, samples - 1)
    moved = x.gather(2, index.to(x.device)[:, None].expand_as(x))
    gain = 1 + 0.1 * strength * _uniform((count, 1, 1), rand, x)
    deviation = x.std(2, keepdim=True, correction=0)
    return moved * gain + 0.05 * strength * deviation * _uniform(tuple(x.shape), rand, x)


def vary_depth(x: Tensor, strength: float, rand: Rand) -> Tensor:
    """
    Shift the images of each `[c, t, h, w]` by up to a tenth of their sides, and erase a rectangle.

    Its sides are up to 30 % of theirs. What is shifted in or erased is 0, as without a return.
    """
    rows, columns = ((2 * rand(len(x)) - 1) * 0.1 * strength * size for size in x.shape[3:])
    for dim, shift in ((3, rows), (4, columns)):
        size = x.shape[dim]
        index = torch.arange(size) + torch.round(shift)[:, None].long()
        shape = [len(x), 1, 1, 1, 1]
        shape[dim] = size
        outside = ((index < 0) | (index >= size)).view(shape).to(x.device)
        index = index.clamp(0, size - 1).view(shape).to(x.device)
        x = x.gather(dim, index.expand_as(x)).masked_fill(outside, 0.0)
    high, wide = (_interval(len(x), size, 0.3 * strength, rand) for size in x.shape[3:])
    erased = (high[:, :, None] & wide[:, None, :]).to(x.device)
    return x.masked_fill(erased[:, None, None], 0.0)


def _interval(count: int, size: int, most: float, rand: Rand) -> Tensor:
    """Return an interval of up to `most` of `size` for each row, bool `[count, size]`."""
    width = rand(count) * most * size
    start = rand(count) * (size - width)
    index = torch.arange(size)
    return (index >= start[:, None]) & (index < (start + width)[:, None])


def _uniform(shape: tuple[int, ...], rand: Rand, like: Tensor) -> Tensor:
    return (2 * rand(*shape) - 1).to(like)
