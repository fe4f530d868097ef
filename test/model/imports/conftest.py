"""A published video network that is small: the modules of torchvision with few layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.model import imports
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders.video import prepare_torchvision
from karmma_ros.model.imports.origin import Origin, PublishedModel, rename
from karmma_ros.model.imports.torchvision_video import (
    classifier_config,
    RGB_CLASSIFIER,
    RGB_ENCODER,
)
from karmma_ros.prediction import Vocabulary
import pytest
import torch

CLASSES = ('stir', 'cut', 'wash', 'pour', 'peel')
OPTIONS: dict[str, Any] = {
    'patch_size': [2, 4, 4], 'embed_dim': 8, 'depths': [1, 2], 'num_heads': [1, 2],
    'window_size': [2, 3, 3]}
URL = 'https://weights.example.org/small-0123abcd.pth'


def small_swin(classes: int = len(CLASSES), **changes: Any) -> Any:
    """Return a network of torchvision's own class, with its own classifier."""
    prepare_torchvision()
    from torchvision.models.video import SwinTransformer3d

    torch.manual_seed(0)
    return SwinTransformer3d(**{**OPTIONS, **changes}, num_classes=classes).eval()


def small_model(url: str = URL) -> PublishedModel:
    def name_of(name: str) -> str:
        bare = name.removeprefix('head.')
        return (RGB_ENCODER if bare == name else RGB_CLASSIFIER) + bare

    return PublishedModel(
        Origin('small:swin', 'https://example.org', 'a data set', 'CC BY-NC 4.0', 'A paper.',
               url=url, commercial_use=False, accuracy={'top-1': 62.5}, protocol='one clip'),
        classifier_config('small:swin', EncoderConfig('torchvision:SwinTransformer3d', OPTIONS)),
        ClipSpec(0.4, 4, VideoSpec(16, 16, resize=(20,))), Vocabulary({'action': CLASSES}),
        lambda weights: rename(weights, name_of))


@pytest.fixture
def small_source(monkeypatch, tmp_path) -> Path:
    """Register the source `small:swin`; return the file of its weights."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setitem(imports.SOURCES, 'small', lambda name, settings: small_model())
    path = tmp_path / 'small.pth'
    torch.save(small_swin().state_dict(), path)
    return path
