"""
Light augmentation of a batch on its tensors.

Shape legend: b batch, c channels, t frames, h height, w width, k tiles, f mel bands, s steps.
"""

from __future__ import annotations

from collections.abc import Mapping

from karmma_ros.modality import Modality
from karmma_ros.training.modality_dropout import Rand
import torch
from torch import Tensor


def augment(
    inputs: Mapping[Modality, Tensor], strength: float, rand: Rand
) -> dict[Modality, Tensor]:
    """
    Vary light and colour of the frames, mask bands and times of the spectrogram.

    Flow and boxes stay as they are. The inputs are not changed in place.

    :param strength: 0 (none) to 1 (full range).
    """
    changed = dict(inputs)
    if strength > 0 and Modality.RGB in inputs:
        changed[Modality.RGB] = _jitter_colour(inputs[Modality.RGB], strength, rand)
    if strength > 0 and Modality.AUDIO in inputs:
        changed[Modality.AUDIO] = _mask_spectrogram(inputs[Modality.AUDIO], strength, rand)
    return changed


def _jitter_colour(x: Tensor, strength: float, rand: Rand) -> Tensor:
    """Scale and shift each channel of each clip `[b, c, t, h, w]`, in units of its deviation."""
    shape = (*x.shape[:2], 1, 1, 1)
    gain = 1 + 0.2 * strength * _uniform(shape, rand, x)
    shift = 0.2 * strength * _uniform(shape, rand, x)
    return x * gain + shift


def _mask_spectrogram(x: Tensor, strength: float, rand: Rand) -> Tensor:
    """Set a band and an interval of each `[k, f, s]` to the mean, 0."""
    for dim in (2, 3):
        size = x.shape[dim]
        width = rand(len(x)) * 0.15 * strength * size
        start = rand(len(x)) * (size - width)
        index = torch.arange(size)
        masked = (index >= start[:, None]) & (index < (start + width)[:, None])  # [b, size]
        shape = [len(x), 1, 1, 1]
        shape[dim] = size
        x = x.masked_fill(masked.view(shape).to(x.device), 0.0)
    return x


def _uniform(shape: tuple[int, ...], rand: Rand, like: Tensor) -> Tensor:
    return (2 * rand(*shape) - 1).to(like)
