"""Architectures by name."""

from __future__ import annotations

from collections.abc import Callable

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.config import EncoderConfig, ModelConfig


def tiny() -> ModelConfig:
    """
    Give a student of V, F, A and D that runs live on one core.

    The fusion block and its strategies are the paper's; the encoders are small stand-ins
    that learn from scratch (see each one's docstring).
    """
    return ModelConfig(
        preset='tiny',
        encoders={
            Modality.RGB: EncoderConfig('r2plus1d', {'widths': (24, 48, 96, 160)}),
            Modality.FLOW: EncoderConfig('r2plus1d', {'widths': (16, 32, 64, 128)}),
            Modality.AUDIO: EncoderConfig('mel_cnn', {'widths': (32, 64, 96, 128)}),
            Modality.DETECTIONS: EncoderConfig(
                'stlt', {'dim': 96, 'heads': 4, 'spatial_layers': 1, 'temporal_layers': 2}),
        },
        dim=192,
        layers=1,
        heads=8,
        feedforward=192,
        token_cap=64,
        missing='tokens',
    )


PRESETS: dict[str, Callable[[], ModelConfig]] = {'tiny': tiny}


def preset(name: str) -> ModelConfig:
    """
    Give the architecture called `name`.

    :raises InvalidSettingError: when there is none of that name.
    """
    try:
        return PRESETS[name]()
    except KeyError:
        raise InvalidSettingError('preset', name, ', '.join(PRESETS)) from None
