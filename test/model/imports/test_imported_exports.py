"""Encoders of imported models agree with PyTorch when they are exported."""

from __future__ import annotations

from typing import Any

from karmma_ros.clip import AudioSpec, ClipSpec, DetectionSpec, VideoSpec
from karmma_ros.modality import Modality
from karmma_ros.model.backends.export import export
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.imports.torchvision_video import classifier_config
from karmma_ros.prediction import Vocabulary
import pytest
import torch

SPEC = ClipSpec(0.6, 4, VideoSpec(32, 32), detections=DetectionSpec(3), audio=AudioSpec(
    tiles=1, n_fft=512, win_length=400, hop_length=160, n_mels=32, tile_steps=64,
    features='kaldi_fbank'))
STLT: dict[str, Any] = {'dim': 16, 'heads': 2, 'spatial_layers': 1, 'temporal_layers': 1,
                        'causal': True, 'norm': True, 'classifier_tokens': True}
ENCODERS = {
    'ast': (Modality.AUDIO, EncoderConfig('ast', {
        'dim': 16, 'layers': 1, 'heads': 2, 'classifier_tokens': True})),
    'stlt': (Modality.DETECTIONS, EncoderConfig('stlt', {**STLT, 'frame_type': True})),
    'boxes': (Modality.DETECTIONS, EncoderConfig('stlt', {
        **STLT, 'learned_class': True, 'score': True, 'norm_eps': 0.1})),
    'timesformer': (Modality.RGB, EncoderConfig('timesformer', {
        'dim': 16, 'layers': 1, 'heads': 2, 'patch': 8, 'classifier_tokens': True})),
    'timm': (Modality.RGB, EncoderConfig('timm:test_resnet', {'classifier_tokens': True})),
}


@pytest.mark.parametrize('target', ['onnx', 'openvino'])
@pytest.mark.parametrize('name', ENCODERS)
def test_an_export_agrees(tmp_path, name, target):
    modality, encoder = ENCODERS[name]
    torch.manual_seed(0)
    config = classifier_config(name, encoder, modality)
    vocabulary = Vocabulary({'verb': ('take', 'put')}, activations={'verb': 'sigmoid'})
    network = build(config, SPEC, vocabulary).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    save_bundle(tmp_path / 'out', network, config, SPEC, vocabulary, dataset='none', card='')
    _, trials = export(load_bundle(tmp_path / 'out'), target)
    assert all(trial.agrees for trial in trials)
