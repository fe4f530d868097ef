"""
Light augmentation of a batch on its tensors.

Shape legend: b batch, c channels, t frames, h height, w width, k tiles, f mel bands, s steps.
"""

from __future__ import annotations

from collections.abc import Mapping

from karmma_ros.modality import Modality
from karmma_ros.training.modality_dropout import Draw
import torch
from torch import Tensor


def augment(
    inputs: Mapping[Modality, Tensor], strength: float, draw: Draw
) -> dict[Modality, Tensor]:
    """
    Vary light and colour of the picture, hide bands and moments of the sound.

    Flow and boxes stay as they are. The inputs are not changed in place.

    :param strength: 0 gives the inputs back, 1 the full range.
    """
    changed = dict(inputs)
    if strength > 0 and Modality.RGB in inputs:
        changed[Modality.RGB] = _relight(inputs[Modality.RGB], strength, draw)
    if strength > 0 and Modality.AUDIO in inputs:
        changed[Modality.AUDIO] = _hide(inputs[Modality.AUDIO], strength, draw)
    return changed


def _relight(x: Tensor, strength: float, draw: Draw) -> Tensor:
    """Scale and shift each channel of each clip `[b, c, t, h, w]`, in units of its deviation."""
    shape = (*x.shape[:2], 1, 1, 1)
    gain = 1 + 0.2 * strength * _uniform(shape, draw, x)
    shift = 0.2 * strength * _uniform(shape, draw, x)
    return x * gain + shift


def _hide(x: Tensor, strength: float, draw: Draw) -> Tensor:
    """Set a band of pitch and a stretch of time of each `[k, f, s]` to the mean, 0."""
    for dim in (2, 3):
        size = x.shape[dim]
        width = draw(len(x)) * 0.15 * strength * size
        start = draw(len(x)) * (size - width)
        place = torch.arange(size)
        hidden = (place >= start[:, None]) & (place < (start + width)[:, None])  # [b, size]
        shape = [len(x), 1, 1, 1]
        shape[dim] = size
        x = x.masked_fill(hidden.view(shape).to(x.device), 0.0)
    return x


def _uniform(shape: tuple[int, ...], draw: Draw, like: Tensor) -> Tensor:
    return (2 * draw(*shape) - 1).to(like)
