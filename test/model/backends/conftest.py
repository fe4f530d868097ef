"""Model directories with exports, bundles once: a trace takes seconds."""

from dataclasses import replace
import shutil

from karmma_ros.clip import AudioSpec, ClipSpec, DetectionSpec, FlowSpec, VideoSpec
from karmma_ros.modality import Modality
from karmma_ros.model.backends.agreement import check_clip
from karmma_ros.model.backends.export import export
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.presets import ensemble, only
from karmma_ros.prediction import Vocabulary
import pytest
import torch

SPEC = ClipSpec(
    duration=1.0, num_frames=4, video=VideoSpec(32, 32), flow=FlowSpec(4.0),
    audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=32, tiles=2, tile_steps=64),
    detections=DetectionSpec(3))
VOCABULARY = Vocabulary({'verb': ('cut', 'stir', 'wash'), 'noun': ('cup', 'pan', 'lid', 'egg')})
CONFIG = ModelConfig(
    preset='small',
    encoders={
        Modality.RGB: EncoderConfig('torchvision:SwinTransformer3d', {
            'patch_size': [2, 4, 4], 'embed_dim': 8, 'depths': [2], 'num_heads': [2],
            'window_size': [2, 4, 4]}),
        Modality.FLOW: EncoderConfig('r2plus1d', {'widths': [4, 8, 8]}),
        Modality.AUDIO: EncoderConfig('ast', {'dim': 12, 'layers': 1, 'heads': 2}),
        Modality.DETECTIONS: EncoderConfig(
            'stlt', {'dim': 8, 'heads': 2, 'spatial_layers': 1, 'temporal_layers': 1}),
    },
    dim=16, layers=1, heads=2, feedforward=16, token_cap=10)
CONFIGS = {
    'tokens': CONFIG,
    'concatenated': replace(CONFIG, pooling='concatenated'),
    'omit': replace(only(CONFIG, 'FAD'), missing='omit', layers=2),
    'ensemble': ensemble(only(CONFIG, 'FAD')),
    'pairs': replace(ensemble(only(CONFIG, [Modality.AUDIO])), pairs={
        'verb': (0, 1, 2, 1, 0), 'noun': (3, 0, 1, 1, 2)}),
    'single': replace(only(CONFIG, [Modality.AUDIO]), missing='omit'),
}
"""The ways in which a network may do without a modality, and classes that are in pairs."""
STREAMING = {
    'chunks': replace(CONFIG, reduction='even', encoders={
        Modality.RGB: replace(CONFIG.encoders[Modality.RGB], chunk=2),
        Modality.FLOW: replace(CONFIG.encoders[Modality.FLOW], chunk=2),
        Modality.AUDIO: CONFIG.encoders[Modality.AUDIO]}),
    'causal': replace(CONFIG, reduction='even', encoders={
        **{m: EncoderConfig('causal_frames', {
            'backbone': 'resnet10t', 'channels': [4, 4, 8, 8], 'stem_width': 4, 'kernel': 3,
            'grid': 2}) for m in (Modality.RGB, Modality.FLOW)},
        Modality.AUDIO: EncoderConfig('causal_mel', {
            'columns': 25, 'backbone': 'resnet10t', 'channels': [4, 4, 8, 8], 'stem_width': 4,
            'kernel': 2, 'grid': [2, 1]})}),
}
STREAMING['queries'] = replace(STREAMING['causal'], fusion='queries', layers=2)
"""The ways in which a network may stream."""
STREAM_SPEC = replace(SPEC, audio=replace(SPEC.audio, tiles=1, tile_steps=100))
"""For causal audio, a chunk for each frame."""


def save(path, config):
    torch.manual_seed(0)
    causal = config in (STREAMING['causal'], STREAMING['queries'])
    spec = STREAM_SPEC if causal else SPEC
    network = build(config, spec, VOCABULARY)
    if config in STREAMING.values():
        with torch.no_grad():  # mixers that start at zero would remember nothing
            for weights in network.parameters():
                weights.add_(0.1 * torch.rand_like(weights))
    save_bundle(path, network, config, spec, VOCABULARY, dataset='random', card='')
    return load_bundle(path)


def calibration(modalities):
    return {m: [check_clip(SPEC, [m], seed)[m] for seed in (1, 2)] for m in modalities}


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
    """Return a function from the name of a configuration to a model directory with exports."""
    bundles = {}

    def get(name):
        if name not in bundles:
            config = (CONFIGS | STREAMING)[name]
            bundle = save(tmp_path_factory.mktemp('models') / name, config)
            export(bundle, 'openvino', 'fp32')
            export(bundle, 'onnx', 'fp32')
            bundles[name] = bundle
        return bundles[name]

    return get


@pytest.fixture
def copied(exported, tmp_path):
    """Return a model directory with exports that may be damaged."""
    path = tmp_path / 'single'
    shutil.copytree(exported('single').path, path)
    return load_bundle(path)
