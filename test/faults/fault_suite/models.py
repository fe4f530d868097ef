"""Small models with random weights, for cases in which the prediction does not matter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from karmma_ros.clip import AudioSpec, ClipSpec, VideoSpec
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import save_bundle
from karmma_ros.model.presets import preset
import torch

SPEC = ClipSpec(
    duration=0.8, num_frames=8, video=VideoSpec(32, 32),
    audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=32, tiles=2,
                    tile_steps=40))
"""A window of 0.8 s in 8 slots of 0.1 s."""

SLOW_SPEC = replace(
    SPEC, duration=4.0,
    audio=AudioSpec(sample_rate=2000, n_fft=128, win_length=128, hop_length=40, n_mels=16,
                    tiles=2, tile_steps=100))
"""A window of 4 s in 8 slots of 0.5 s, with audio at 2 kHz: for a day of few messages."""


def make_model(path: Path, spec: ClipSpec = SPEC, seed: int = 0) -> Path:
    """Write a model directory and return its path."""
    torch.manual_seed(seed)
    config = preset('tiny')
    save_bundle(path, build(config, spec, vocabulary()), config, spec, vocabulary(),
                dataset='none', card='# Random weights\n')
    return path
