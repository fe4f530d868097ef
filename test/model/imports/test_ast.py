"""ASTs of AudioSet, beside a restatement of the network and of Kaldi's features."""

from __future__ import annotations

from dataclasses import replace
import math
from pathlib import Path
import pickle

from karmma_ros.clip import AudioSpec, ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import make_clip
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.imports import import_model, ImportSettings
from karmma_ros.model.imports.ast import ast_model
from karmma_ros.model.pretrained import load_pretrained
from karmma_ros.prediction import Vocabulary
from karmma_ros.stream.recogniser import Recogniser
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

NAMES = ('Speech', 'Male speech, man speaking', 'Chop', 'Frying (food)', 'Water tap, faucet')
WIDTH, LAYERS = 64, 2


def published(width: int = WIDTH, classes: int = len(NAMES), patches: int = 1212,
              layers: int = LAYERS) -> dict[str, Tensor]:
    """Return random weights with the names of a published file."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 0.2) -> Tensor:
        return scale * torch.randn(*shape, generator=generator)

    shapes = {'norm1.weight': [width], 'norm1.bias': [width], 'norm2.weight': [width],
              'norm2.bias': [width], 'attn.qkv.weight': [3 * width, width],
              'attn.qkv.bias': [3 * width], 'attn.proj.weight': [width, width],
              'attn.proj.bias': [width], 'mlp.fc1.weight': [4 * width, width],
              'mlp.fc1.bias': [4 * width], 'mlp.fc2.weight': [width, 4 * width],
              'mlp.fc2.bias': [width]}
    weights = {
        'v.cls_token': random(1, 1, width), 'v.dist_token': random(1, 1, width),
        'v.pos_embed': random(1, 2 + patches, width),
        'v.patch_embed.proj.weight': random(width, 1, 16, 16, scale=0.05),
        'v.patch_embed.proj.bias': random(width),
        'v.norm.weight': random(width), 'v.norm.bias': random(width),
        'v.head.weight': random(1000, width), 'v.head.bias': random(1000),
        'v.head_dist.weight': random(1000, width), 'v.head_dist.bias': random(1000),
        'mlp_head.0.weight': random(width), 'mlp_head.0.bias': random(width),
        'mlp_head.1.weight': random(classes, width, scale=1), 'mlp_head.1.bias': random(classes),
        **{f'v.blocks.{i}.{name}': random(*shape)
           for i in range(layers) for name, shape in shapes.items()}}
    return {f'module.{name}': x for name, x in weights.items()}


def restated(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Return the logits of features `[128, 1024]`."""
    weights = {name.removeprefix('module.'): y for name, y in weights.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']

    def norm(x: Tensor, name: str, least: float = 1e-6) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + least).sqrt()
        return scaled * weights[f'{name}.weight'] + weights[f'{name}.bias']

    corners = [(row, column) for row in range(0, 128 - 15, 10) for column in range(0, 1009, 10)]
    patches = torch.stack([x[r:r + 16, c:c + 16].flatten() for r, c in corners])
    embedded = (patches @ weights['v.patch_embed.proj.weight'].flatten(1).T
                + weights['v.patch_embed.proj.bias'])
    tokens = torch.cat([weights['v.cls_token'][0], weights['v.dist_token'][0], embedded])
    tokens = tokens + weights['v.pos_embed'][0]
    for i in range(LAYERS):
        q, k, v = linear(norm(tokens, f'v.blocks.{i}.norm1'), f'v.blocks.{i}.attn.qkv').chunk(3, 1)
        attended = (q @ k.T / math.sqrt(WIDTH)).softmax(1) @ v
        tokens = tokens + linear(attended, f'v.blocks.{i}.attn.proj')
        hidden = functional.gelu(linear(norm(tokens, f'v.blocks.{i}.norm2'),
                                        f'v.blocks.{i}.mlp.fc1'))
        tokens = tokens + linear(hidden, f'v.blocks.{i}.mlp.fc2')
    token = norm(tokens, 'v.norm')[:2].mean(0)
    return linear(norm(token, 'mlp_head.0', 1e-5), 'mlp_head.1')


def kaldi_features(samples: np.ndarray) -> np.ndarray:
    """Return Kaldi's log mel features of 16 kHz audio, `[128, columns]`, window by window."""
    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    step = (mel(8000) - mel(20)) / 129
    columns = []
    for start in range(0, len(samples) - 399, 160):
        piece = samples[start:start + 400].astype(np.float64)
        piece = piece - piece.mean()
        raised = [piece[i] - 0.97 * piece[max(0, i - 1)] for i in range(400)]
        faded = [x * math.sin(math.pi * i / 399) ** 2 for i, x in enumerate(raised)]
        power = np.abs(np.fft.fft(faded, 512)) ** 2
        energies = np.zeros(128)
        for k in range(256):
            position = (mel(k * 16000 / 512) - mel(20)) / step
            for band in (math.floor(position) - 1, math.floor(position)):
                if 0 <= band < 128:
                    energies[band] += max(0, 1 - abs(position - band - 1)) * power[k]
        columns.append(np.log(np.maximum(energies, 2.0 ** -23)))
    return np.array(columns).T


@pytest.fixture
def classes(tmp_path) -> Path:
    path = tmp_path / 'class_labels_indices.csv'
    path.write_text('index,mid,display_name\n' + ''.join(
        f'{i},/m/{i},"{name}"\n' for i, name in enumerate(NAMES)))
    return path


@pytest.fixture
def file(tmp_path) -> Path:
    torch.save(published(), tmp_path / 'audioset_10_10_0.4593.pth')
    return tmp_path / 'audioset_10_10_0.4593.pth'


def test_gives_the_scores_of_the_published_network(tmp_path, file, classes):
    bundle = import_model(f'ast:{file}', tmp_path / 'out',
                          ImportSettings(classes=[classes], duration=0.6))
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 9600).astype(np.float32)
    clip = make_clip(bundle.spec, {Modality.AUDIO: samples})
    features = np.zeros((128, 1024))
    columns = kaldi_features(samples)
    features[:, :columns.shape[1]] = columns
    features = (features + 4.2677393) / (4.5689974 * 2)
    np.testing.assert_allclose(clip.inputs[Modality.AUDIO][0], features, atol=1e-5)
    expected = restated(torch.from_numpy(features).float(), published()).sigmoid()
    scores = Recogniser(bundle.network, bundle.vocabulary, bundle.spec).recognise(clip)
    np.testing.assert_allclose(scores.probabilities['audio_event'], expected, atol=1e-5)
    assert scores.top('audio_event')[0].class_name == NAMES[int(expected.argmax())]
    assert abs(float(expected.sum()) - 1) > 0.1  # they do not exclude each other


def test_the_directory_keeps_the_activation_and_the_clip(tmp_path, file, classes):
    import_model(f'ast:{file}', tmp_path / 'out', ImportSettings(classes=[classes]))
    bundle = load_bundle(tmp_path / 'out')
    assert bundle.vocabulary == Vocabulary(
        {'audio_event': NAMES}, activations={'audio_event': 'sigmoid'})
    assert bundle.calibration.activations == {'audio_event': 'sigmoid'}
    assert bundle.spec.duration == 10 and bundle.spec.audio.features == 'kaldi_fbank'
    assert bundle.source['accuracy'] == {'mAP': 45.93}
    assert bundle.source['licence'] == 'BSD-3-Clause' and len(bundle.source['dropped']) == 4
    card = (tmp_path / 'out' / 'README.md').read_text()
    assert 'mAP 45.93 % on AudioSet' in card and 'A window has 10 s.' in card


def test_has_the_size_of_the_published_network(tmp_path):
    path = tmp_path / 'classes.csv'
    path.write_text('index,mid,display_name\n' + ''.join(f'{i},m,{i}\n' for i in range(527)))
    with torch.device('meta'):
        weights = {name.removeprefix('module.'): x.to('meta')
                   for name, x in published(768, 527, layers=12).items()}
        model = ast_model(tmp_path / 'a.pth', weights, [path])
        network = build(model.config, model.spec, model.vocabulary)
    options = model.config.encoders[Modality.AUDIO].options
    assert options == {'dim': 768, 'layers': 12, 'heads': 12, 'patch': 16, 'stride': 10,
                       'classifier_tokens': True}
    used = sum(x.numel() for name, x in weights.items() if '.head' not in name)
    assert sum(p.numel() for p in network.parameters()) == used


@pytest.mark.parametrize(('change', 'text'), [
    (lambda w: w.pop('module.mlp_head.1.bias'), 'it has no mlp_head.1.bias'),
    (lambda w: w.pop('module.v.dist_token'), 'it has no v.dist_token'),
    (lambda w: w.pop('module.v.norm.bias'), 'encoders.audio.model.norm.bias is missing'),
    (lambda w: w.update({'module.v.more': torch.zeros(1)}), 'the network has no .*model.more'),
    (lambda w: w.update({'module.v.pos_embed': torch.zeros(1, 198, WIDTH)}), 'it has 196 patches'),
    (lambda w: w.update({'module.v.pos_embed': torch.zeros(198)}), r'v.pos_embed is \[198\]'),
    (lambda w: w.update({'module.mlp_head.1.bias': torch.zeros(4)}), '4 classes.*it has 5'),
    (lambda w: w.update({'module.mlp_head.0.bias': torch.zeros(4)}), r'norm.bias is \[4\]'),
    (lambda w: w.clear() or w.update(torch.nn.Linear(2, 2).state_dict()), 'it has no v.pos_embed'),
])
def test_refuses_another_network(tmp_path, classes, change, text):
    weights = published()
    change(weights)
    torch.save(weights, tmp_path / 'ast.pth')
    with pytest.raises(InvalidSettingError, match=text):
        import_model(f'ast:{tmp_path / "ast.pth"}', tmp_path / 'out',
                     ImportSettings(classes=[classes]))
    assert not (tmp_path / 'out').exists()


def test_refuses_damaged_files_and_code(tmp_path, file, classes):
    content = file.read_bytes()
    for damaged, text in ((content[:1000], 'checkpoint of tensors'),
                          (pickle.dumps({'module.v.norm': Path('x')}), 'something else than te')):
        file.write_bytes(damaged)
        with pytest.raises(InvalidSettingError, match=text):
            import_model(f'ast:{file}', tmp_path / 'out', ImportSettings(classes=[classes]))


@pytest.mark.parametrize(('settings', 'text'), [
    ({}, 'class_labels_indices.csv of AudioSet'), ({'duration': 11}, r'10.255 s or less')])
def test_refuses_settings_that_do_not_fit(tmp_path, file, classes, settings, text):
    settings = {'classes': [classes], **settings} if settings else settings
    with pytest.raises(InvalidSettingError, match=text):
        import_model(f'ast:{file}', tmp_path / 'out', ImportSettings(**settings))


def student(tmp_path: Path, weights: dict[str, Tensor]) -> tuple[ModelConfig, ClipSpec]:
    torch.save(weights, tmp_path / 'ast.pth')
    encoder = EncoderConfig(
        'ast', {'dim': WIDTH, 'layers': LAYERS, 'heads': 1}, str(tmp_path / 'ast.pth'))
    return ModelConfig('start', {Modality.AUDIO: encoder}), ClipSpec(audio=AudioSpec(tiles=4))


def test_the_published_file_starts_an_encoder_of_other_clips(tmp_path):
    config, spec = student(tmp_path, published())
    network = build(config, spec, Vocabulary({'verb': ('cut', 'wash')}))
    report = load_pretrained(network, config, spec)[Modality.AUDIO]
    assert not report.random
    assert report.adapted == {
        'model.pos_embed': '12×101 positions resampled to 12×21',
        'model.patch_embed.proj.weight': '1 channels shared out over 4'}
    assert torch.equal(network.encoders['audio'].model.norm.weight,
                       published()['module.v.norm.weight'])


def test_positions_of_no_known_grid_are_refused(tmp_path):
    config, spec = student(tmp_path, published(patches=1211))
    network = build(config, spec, Vocabulary({'verb': ('cut', 'wash')}))
    with pytest.raises(InvalidSettingError, match=r'pos_embed \[1, 1213, 64\].*expected pos'):
        load_pretrained(network, config, spec)


def test_the_specification_names_its_features_only_where_they_are_kaldis():
    assert 'features' not in ClipSpec().to_dict()['audio']
    spec = replace(ClipSpec(), audio=AudioSpec(tiles=1, features='kaldi_fbank'))
    assert ClipSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(InvalidSettingError, match='clip.audio.tiles is 32; expected 1'):
        AudioSpec(features='kaldi_fbank')
    with pytest.raises(InvalidSettingError, match='decibels or kaldi_fbank'):
        AudioSpec(features='mfcc')
