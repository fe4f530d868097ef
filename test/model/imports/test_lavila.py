"""TimeSformers of LaViLa, patch by patch, beside a restatement of them."""

from __future__ import annotations

import argparse
import fractions
import math
from pathlib import Path
from typing import Any

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import make_clip
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.encoders.timesformer import TimeSformer
from karmma_ros.model.imports import import_model, ImportSettings
from karmma_ros.model.imports.lavila import lavila_model
from karmma_ros.model.weights_file import MissingWeightsError
from karmma_ros.stream.recogniser import Recogniser
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

WIDTH, HEADS, LAYERS, PATCH, ROWS, FRAMES = 128, 2, 2, 8, 2, 3
VERBS, NOUNS = ('take', 'put', 'wash'), ('plate', 'pan:dust', 'knife', 'hand')
SIDE = PATCH * ROWS


def published(
    width: int = WIDTH, layers: int = LAYERS, patch: int = PATCH, rows: int = ROWS,
    frames: int = FRAMES, classes: tuple[int, ...] = (len(VERBS), len(NOUNS), 9),
    clip: bool = True,
) -> dict[str, Tensor]:
    """Return random weights with the names of a published file."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 0.15) -> Tensor:
        return scale * torch.randn(*shape, generator=generator)

    def both(prefix: str, *shape: int, scale: float = 0.15) -> dict[str, Tensor]:
        return {f'{prefix}.weight': random(*shape, scale=scale),
                f'{prefix}.bias': random(shape[0])}

    weights = {
        'visual.cls_token': random(1, 1, width), 'visual.pos_embed': random(1, 1 + rows**2, width),
        'visual.temporal_embed': random(1, frames, width),
        'visual.patch_embed.proj.weight': random(width, 3, patch, patch),
        **both('visual.norm', width, scale=1),
        **{name: x for i, size in enumerate(classes)
           for name, x in both(f'fc_cls.{i}', size, width).items()}}
    if clip:
        weights |= both('visual.ln_pre', width, scale=1)
    else:
        weights['visual.patch_embed.proj.bias'] = random(width)
    for i in range(layers):
        block = f'visual.blocks.{i}.'
        for name in ('norm1', 'norm2', 'norm3'):
            weights |= both(block + name, width, scale=1)
        for name in ('attn', 'timeattn'):
            weights |= both(f'{block}{name}.qkv', 3 * width, width)
            weights |= both(f'{block}{name}.proj', width, width)
        weights |= both(f'{block}mlp.fc1', 4 * width, width)
        weights |= both(f'{block}mlp.fc2', width, 4 * width)
    return {f'module.{name}': x for name, x in weights.items()}


def restated(x: Tensor, weights: dict[str, Tensor], clip: bool = True) -> list[Tensor]:
    """Return the logits of each classifier for `[3, t, h, w]`, one patch after the other."""
    weights = {name.removeprefix('module.'): y for name, y in weights.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']

    def norm(x: Tensor, name: str, least: float = 1e-6) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + least).sqrt()
        return scaled * weights[f'{name}.weight'] + weights[f'{name}.bias']

    tokens, positions = [weights['visual.cls_token'][0, 0] + weights['visual.pos_embed'][0, 0]], []
    kernel = weights['visual.patch_embed.proj.weight'].flatten(1)
    for frame in range(FRAMES):
        for index in range(ROWS ** 2):
            row, column = divmod(index, ROWS)
            rows, columns = (slice(k * PATCH, (k + 1) * PATCH) for k in (row, column))
            pixels = x[:, frame, rows, columns]
            token = kernel @ pixels.flatten() + weights['visual.pos_embed'][0, 1 + index]
            if not clip:
                token = token + weights['visual.patch_embed.proj.bias']
            tokens.append(token + weights['visual.temporal_embed'][0, frame])
            positions.append((frame, index))

    def attend(x: Tensor, name: str, same: int) -> Tensor:
        q, k, v = linear(x, f'{name}.qkv').chunk(3, 1)
        rows = []
        for i in range(len(x)):
            seen = [0, *(1 + j for j, other in enumerate(positions)
                         if i == 0 or other[same] == positions[i - 1][same])]
            parts = []
            for own in torch.arange(WIDTH).chunk(HEADS):
                scores = k[seen][:, own] @ q[i, own] / math.sqrt(len(own))
                parts.append(scores.softmax(0) @ v[seen][:, own])
            rows.append(torch.cat(parts))
        return linear(torch.stack(rows), f'{name}.proj')

    y = torch.stack(tokens)
    if clip:
        y = norm(y, 'visual.ln_pre', 1e-5)
    for i in range(LAYERS):
        block = f'visual.blocks.{i}.'
        in_time = y + attend(norm(y, f'{block}norm3'), f'{block}timeattn', same=1)
        y = y + attend(norm(in_time, f'{block}norm1'), f'{block}attn', same=0)
        hidden = linear(norm(y, f'{block}norm2'), f'{block}mlp.fc1')
        hidden = hidden / (1 + (-1.702 * hidden).exp()) if clip else functional.gelu(hidden)
        y = y + linear(hidden, f'{block}mlp.fc2')
    first = norm(y, 'visual.norm')[0]
    return [linear(first, f'fc_cls.{i}') for i in range(3)]


@pytest.fixture
def classes(tmp_path) -> tuple[Path, ...]:
    paths = tmp_path / 'verbs.csv', tmp_path / 'nouns.csv'
    for path, names in zip(paths, (VERBS, NOUNS)):
        path.write_text('id,key\n' + ''.join(f'{i},{name}\n' for i, name in enumerate(names)))
    return paths


def imported(tmp_path: Path, classes: tuple[Path, ...], weights: Any) -> Any:
    torch.save({'epoch': 100, 'state_dict': weights}, tmp_path / 'lavila.pth')
    return import_model(f'lavila:{tmp_path / "lavila.pth"}', tmp_path / 'out',
                        ImportSettings(classes=classes))


@pytest.mark.parametrize('clip', [True, False])
def test_gives_the_scores_of_the_published_network(tmp_path, classes, clip):
    weights = published(clip=clip)
    bundle = imported(tmp_path, classes, weights)
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    scores = Recogniser(bundle.network, bundle.vocabulary, bundle.spec).recognise(
        make_clip(bundle.spec, {Modality.RGB: frames}))
    mean, std = (torch.tensor(each).view(3, 1, 1, 1) for each in (
        [108.3272985, 116.7460125, 104.09373615], [68.5005327, 66.6321579, 70.32316305]))
    x = (torch.from_numpy(frames).permute(3, 0, 1, 2).float() - mean) / std
    verb, noun, _ = restated(x, weights, clip)
    np.testing.assert_allclose(scores.probabilities['verb'], verb.softmax(0), atol=1e-5)
    np.testing.assert_allclose(scores.probabilities['noun'], noun.softmax(0), atol=1e-5)
    assert verb.softmax(0).max() > 0.5
    assert bundle.vocabulary.heads == {'verb': VERBS, 'noun': NOUNS}
    assert bundle.source['dropped'] == dict.fromkeys(
        ('fc_cls.2.weight', 'fc_cls.2.bias'),
        'the classifier of pairs; verb and noun have their own')
    assert (bundle.spec.duration, bundle.spec.num_frames) == (2, FRAMES)


def test_has_the_size_of_the_published_networks(tmp_path):
    paths = []
    for size in (97, 300):
        paths.append(tmp_path / f'{size}.csv')
        paths[-1].write_text('id,key\n' + ''.join(f'{i},{i}\n' for i in range(size)))
    name = 'clip_openai_timesformer_base.ft_ek100_cls.ep_0100.md5sum_4e3575.pth'
    with torch.device('meta'):
        weights = {name.removeprefix('module.'): x.to('meta') for name, x in published(
            768, 12, 16, 14, 16, (97, 300, 3806)).items()}
        model = lavila_model(tmp_path / name, weights, paths)
        network = build(model.config, model.spec, model.vocabulary)
    assert model.origin.accuracy == {'verb top-1': 69.0, 'noun top-1': 58.4}
    assert (model.spec.video.height, model.spec.num_frames) == (224, 16)
    options = model.config.encoders[Modality.RGB].options
    assert (options['dim'], options['layers'], options['heads']) == (768, 12, 12)
    used = sum(x.numel() for name, x in weights.items() if not name.startswith('fc_cls.2'))
    assert sum(p.numel() for p in network.parameters()) == used


def test_all_tokens_without_a_classifier():
    encoder = TimeSformer((3, 4, 16, 24), dim=16, layers=1, heads=2, patch=8)
    assert encoder(torch.zeros(2, 3, 4, 16, 24)).shape == (2, 1 + 4 * 6, 16)
    for options in ({'patch': 5}, {'heads': 3}):
        with pytest.raises(InvalidSettingError, match='a patch that divides 16 and 24'):
            TimeSformer((3, 4, 16, 24), **{'dim': 16, 'layers': 1, 'patch': 8, **options})


@pytest.mark.parametrize(('change', 'text'), [
    (lambda w: w.pop('module.fc_cls.2.bias'), 'it has no fc_cls.2.bias'),
    (lambda w: w.pop('module.visual.pos_embed'), 'it has no visual.pos_embed'),
    (lambda w: w.pop('module.visual.norm.bias'), 'encoders.rgb.norm.bias is missing'),
    (lambda w: w.update({'module.visual.more': torch.zeros(1)}), 'the network has no .*rgb.more'),
    (lambda w: w.update({'module.fc_cls.3.bias': torch.zeros(1)}), 'the network has no fc_cls.3'),
    (lambda w: w.update({'module.visual.pos_embed': torch.zeros(1, 6, WIDTH)}),
     r'its pos_embed is \[1, 6, 128\]'),
    (lambda w: w.update({'module.visual.ln_pre.bias': torch.zeros(3)}), r'ln_pre.bias is \[3\]'),
    (lambda w: w.update({'module.fc_cls.0.bias': torch.zeros(4)}), '4 classes.*it has 3'),
    (lambda w: w.clear() or w.update(torch.nn.Linear(2, 2).state_dict()), 'it has no fc_cls.0'),
])
def test_refuses_another_network(tmp_path, classes, change, text):
    weights = published()
    change(weights)
    with pytest.raises(InvalidSettingError, match=text):
        imported(tmp_path, classes, weights)


def test_refuses_damaged_files_and_objects(tmp_path, classes):
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': published(), 'args': fractions.Fraction(1)}, path)
    for text in ('something else than tensors', 'checkpoint of tensors'):
        with pytest.raises(InvalidSettingError, match=text):
            import_model(f'lavila:{path}', tmp_path / 'out', ImportSettings(classes=classes))
        path.write_bytes(path.read_bytes()[:1000])


def test_options_of_the_training_beside_the_tensors_are_no_obstacle(tmp_path, classes):
    path = tmp_path / 'a.pth'
    torch.save({'epoch': 3, 'state_dict': published(), 'optimizer': {'state': {}, 'param_groups':
               [{'lr': 0.1}]}, 'args': argparse.Namespace(lr=1, model='TSF')}, path)
    bundle = import_model(f'lavila:{path}', tmp_path / 'out', ImportSettings(classes=classes))
    assert bundle.vocabulary.sizes == {'verb': 3, 'noun': 4}


def test_names_the_published_file(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    name = 'clip_openai_timesformer_large.ft_ek100_cls.ep_0090.md5sum_4a2509'
    with pytest.raises(MissingWeightsError, match=f'{name}.pth are not here.*fbaipublicfiles'):
        import_model(f'lavila:{name}', tmp_path / 'out')
