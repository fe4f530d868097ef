"""Feature extractors (FEs): one module for each modality, `[b, ...]` → tokens `[b, n, e]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import copy

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders.audio import MelCNN
from karmma_ros.model.encoders.layout import STLT
from karmma_ros.model.encoders.video import R2Plus1D
import torch
from torch import nn

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    'r2plus1d': R2Plus1D,
    'mel_cnn': MelCNN,
    'stlt': STLT,
}
"""Encoders by the name a configuration gives them; each takes `input_shape` first."""


def build_encoder(config: EncoderConfig, spec: ClipSpec, modality: Modality) -> nn.Module:
    """
    Build the encoder of one modality.

    :raises InvalidSettingError: for an unknown name or an option the encoder does not take.
    """
    setting = f'architecture.encoders.{modality}'
    try:
        factory = ENCODERS[config.name]
    except KeyError:
        raise InvalidSettingError(f'{setting}.name', config.name, ', '.join(ENCODERS)) from None
    try:
        return factory(spec.input_shape(modality), **config.options)
    except TypeError as error:
        raise InvalidSettingError(
            f'{setting}.options', dict(config.options), f'arguments of {config.name}: {error}'
        ) from error


def token_shape(encoder: nn.Module, input_shape: Sequence[int]) -> tuple[int, int]:
    """Give the number and the width of an encoder's tokens, without computing any."""
    twin = copy.deepcopy(encoder).to('meta').eval()
    _, tokens, width = twin(torch.empty(1, *input_shape, device='meta')).shape
    return tokens, width
