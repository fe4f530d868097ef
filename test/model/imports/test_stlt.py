"""STLT of Radevski et al., frame by frame, beside a restatement of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
import pickle
from typing import Any

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import make_clip
from karmma_ros.modality import Modality
from karmma_ros.model.encoders.layout import STLT
from karmma_ros.model.imports import import_model, ImportSettings
from karmma_ros.stream.recogniser import Recogniser
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

WIDTH, HEADS, SPATIAL, TEMPORAL = 128, 2, 1, 2
LABELS = {f'move something {i}': str((3 * i) % 7) for i in range(7)}
BACKBONE = 'backbone.frames_embeddings.'
SPACE = f'{BACKBONE}layout_embedding.'
EMBEDDING = f'{SPACE}category_box_embeddings.'


class Random:
    """Random tensors."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int, scale: float = 0.1) -> Tensor:
        return scale * torch.randn(*shape, generator=self.generator)

    def both(self, prefix: str, *shape: int, scale: float = 0.1) -> dict[str, Tensor]:
        return {f'{prefix}.weight': self(*shape, scale=scale), f'{prefix}.bias': self(shape[0])}

    def layer(self, prefix: str, width: int = WIDTH) -> dict[str, Tensor]:
        return {
            f'{prefix}self_attn.in_proj_weight': self(3 * width, width),
            f'{prefix}self_attn.in_proj_bias': self(3 * width),
            **self.both(f'{prefix}self_attn.out_proj', width, width),
            **self.both(f'{prefix}linear1', 4 * width, width),
            **self.both(f'{prefix}linear2', width, 4 * width),
            **self.both(f'{prefix}norm1', width, scale=1), **self.both(f'{prefix}norm2', width)}


def published(classes: int = 7, categories: int = 4) -> dict[str, Tensor]:
    """Return random weights with the names of a published file."""
    random = Random()
    return {
        f'{EMBEDDING}category_embeddings.weight': random(categories, WIDTH, scale=1),
        **random.both(f'{EMBEDDING}box_embedding', WIDTH, 4, scale=1),
        **random.both(f'{EMBEDDING}score_embeddings', WIDTH, 1),
        **random.both(f'{EMBEDDING}layer_norm', WIDTH, scale=1),
        **random.layer(f'{SPACE}encoder_layer.'),
        **{name: x for i in range(SPATIAL)
           for name, x in random.layer(f'{SPACE}transformer.layers.{i}.').items()},
        f'{BACKBONE}position_embeddings.weight': random(32, WIDTH, scale=1),
        f'{BACKBONE}position_ids': torch.arange(32).expand(1, -1),
        f'{BACKBONE}frame_type_embedding.weight': random(5, WIDTH, scale=1),
        **random.both(f'{BACKBONE}layer_norm', WIDTH, scale=1),
        **{name: x for i in range(TEMPORAL)
           for name, x in random.layer(f'backbone.transformer.layers.{i}.').items()},
        **random.both('prediction_head.fc1', WIDTH, WIDTH),
        **random.both('prediction_head.layer_norm', WIDTH, scale=1),
        **random.both('prediction_head.fc2', classes, WIDTH, scale=0.3)}


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f'{name}.weight'].T + weights[f'{name}.bias']


def norm(x: Tensor, weights: dict[str, Tensor], name: str, least: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + least).sqrt()
    return scaled * weights[f'{name}.weight'] + weights[f'{name}.bias']


def layer(x: Tensor, weights: dict[str, Tensor], prefix: str, heads: int, causal: bool) -> Tensor:
    """Apply a layer to the tokens `[n, e]` of one sequence, each token by itself."""
    q, k, v = (x @ weights[f'{prefix}self_attn.in_proj_weight'].T
               + weights[f'{prefix}self_attn.in_proj_bias']).chunk(3, 1)
    rows = []
    for i in range(len(x)):
        seen = slice(0, i + 1 if causal else len(x))
        parts = []
        for own in torch.arange(x.shape[1]).chunk(heads):
            scores = k[seen][:, own] @ q[i, own] / math.sqrt(len(own))
            parts.append(scores.softmax(0) @ v[seen][:, own])
        rows.append(torch.cat(parts))
    x = norm(x + linear(torch.stack(rows), weights, f'{prefix}self_attn.out_proj'),
             weights, f'{prefix}norm1', 1e-5)
    hidden = functional.gelu(linear(x, weights, f'{prefix}linear1'))
    return norm(x + linear(hidden, weights, f'{prefix}linear2'), weights, f'{prefix}norm2', 1e-5)


def restated(frames: list[np.ndarray], weights: dict[str, Tensor]) -> Tensor:
    """Return the logits of frames of boxes `[n, 5]`: one after the other, without padding."""
    tokens = []
    for i, boxes in enumerate([*frames, np.zeros((0, 5), np.float32)]):
        rows = torch.tensor(np.vstack([[[0, 0, 1, 1, 3]], boxes])).float()
        x = linear(rows[:, :4], weights, f'{EMBEDDING}box_embedding')
        x = x + weights[f'{EMBEDDING}category_embeddings.weight'][rows[:, 4].long()]
        x = norm(x, weights, f'{EMBEDDING}layer_norm', 1e-12)
        for each in range(SPATIAL):
            x = layer(x, weights, f'{SPACE}transformer.layers.{each}.', HEADS, causal=False)
        frame_type = 4 if i == len(frames) else 2 if len(boxes) else 3
        tokens.append(x[0] + weights[f'{BACKBONE}position_embeddings.weight'][i]
                      + weights[f'{BACKBONE}frame_type_embedding.weight'][frame_type])
    x = norm(torch.stack(tokens), weights, f'{BACKBONE}layer_norm', 1e-12)
    for each in range(TEMPORAL):
        x = layer(x, weights, f'backbone.transformer.layers.{each}.', HEADS, causal=True)
    hidden = functional.gelu(linear(x[-1], weights, 'prediction_head.fc1'))
    return linear(norm(hidden, weights, 'prediction_head.layer_norm', 1e-12), weights,
                  'prediction_head.fc2')


def some_boxes(frames: int = 16) -> list[np.ndarray]:
    """Return the boxes of frames: of hands first, of some none."""
    rng = np.random.default_rng(0)
    boxes = []
    for count in rng.integers(0, 4, frames):
        corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1).reshape(count, 4)
        categories = np.sort(rng.integers(1, 3, count))
        boxes.append(np.column_stack([corners, categories]).astype(np.float32))
    assert any(len(each) == 0 for each in boxes)
    return boxes


@pytest.fixture
def labels(tmp_path) -> Path:
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps(LABELS))
    return path


@pytest.fixture
def file(tmp_path) -> Path:
    torch.save(published(), tmp_path / 'stlt.pt')
    return tmp_path / 'stlt.pt'


def imported(file: Path, labels: Path, **settings: Any) -> Any:
    return import_model(f'stlt:{file}', file.parent / 'out', ImportSettings(
        **{'classes': [labels], 'duration': 4.0, **settings}))


def test_gives_the_scores_of_the_published_network(file, labels):
    bundle = imported(file, labels)
    frames = some_boxes()
    clip = make_clip(bundle.spec, {Modality.DETECTIONS: frames})
    scores = Recogniser(bundle.network, bundle.vocabulary, bundle.spec).recognise(clip)
    expected = restated(frames, published()).softmax(0)
    np.testing.assert_allclose(scores.probabilities['action'], expected, atol=1e-5)
    assert expected.max() > 0.3
    assert (bundle.spec.duration, bundle.spec.num_frames) == (4, 16)
    dropped = bundle.source['dropped']
    assert dropped[f'{EMBEDDING}score_embeddings.bias'] == (
        'scores are used for Action Genome only')
    assert dropped[f'{BACKBONE}position_embeddings.weight[17:]']
    assert bundle.source['licence'] == 'none stated, of code or weights'


def test_has_the_size_of_the_published_network():
    with torch.device('meta'):
        encoder = STLT((16, 7, 5), causal=True, frame_type=True, norm=True,
                       classifier_tokens=True, norm_eps=1e-12)
    layers = sum(p.numel() for p in [*encoder.spatial.parameters(),
                                     *encoder.temporal.parameters()])
    assert layers == 12 * 7_087_872  # of width 768: 4 w² + 8 w² + 13 w
    embeddings = (4 + 5 + 17 + 2 + 2 + 4 + 1) * 768
    hidden = (768 + 1 + 2) * 768
    assert sum(p.numel() for p in encoder.parameters()) == layers + embeddings + hidden


@pytest.mark.parametrize(('change', 'text'), [
    (lambda w: w.pop('prediction_head.fc2.bias'), 'it has no prediction_head.fc2.bias'),
    (lambda w: w.pop(f'{BACKBONE}layer_norm.bias'), 'temporal_norm.bias is missing'),
    (lambda w: w.update({'backbone.more': torch.zeros(1)}), 'the network has no backbone.more'),
    (lambda w: w.update({'prediction_head.fc1.bias': torch.zeros(3)}), r'hidden.0.bias is \[3\]'),
    (lambda w: w.update({'prediction_head.fc2.bias': torch.zeros(6)}), '6 classes.*it has 7'),
    (lambda w: w.update(published(categories=38)), r'is \[38, 128\]; others are of other objects'),
    (lambda w: w.update({f'{BACKBONE}position_embeddings.weight': torch.zeros(8, WIDTH)}),
     r'position_embeddings.weight is \[8, 128\]'),
    (lambda w: w.clear() or w.update(torch.nn.Linear(2, 2).state_dict()), 'it has no backbone'),
])
def test_refuses_another_network(tmp_path, labels, change, text):
    weights = published()
    change(weights)
    torch.save(weights, tmp_path / 'stlt.pt')
    with pytest.raises(InvalidSettingError, match=text):
        imported(tmp_path / 'stlt.pt', labels)


def test_refuses_damaged_files_and_code(file, labels):
    content = file.read_bytes()
    for damaged, text in ((content[:1000], 'checkpoint of tensors'),
                          (pickle.dumps({'a': Path('x')}, 2), 'something else than tensors')):
        file.write_bytes(damaged)
        with pytest.raises(InvalidSettingError, match=text):
            imported(file, labels)


@pytest.mark.parametrize(('settings', 'text'), [
    ({'classes': []}, 'labels.json of Something-Something'),
    ({'duration': 0.0}, '--duration is 0.0; expected the seconds')])
def test_refuses_settings_that_do_not_fit(file, labels, settings, text):
    with pytest.raises(InvalidSettingError, match=text):
        imported(file, labels, **settings)


def test_a_causal_network_sees_no_later_frame():
    torch.manual_seed(0)
    options: dict[str, Any] = {'dim': 8, 'heads': 2, 'spatial_layers': 1, 'temporal_layers': 1}
    x = torch.rand(1, 4, 3, 5)
    x[..., 4] = 1
    later = x.clone()
    later[:, 2:] = 0
    for causal in (False, True):
        encoder = STLT((4, 3, 5), **options, causal=causal, frame_type=True, norm=True).eval()
        with torch.no_grad():
            assert torch.allclose(encoder(x)[:, :2], encoder(later)[:, :2]) is causal


@pytest.mark.parametrize('options', [
    {'score': True}, {'learned_class': True}, {'norm': True, 'norm_eps': 0.1},
    {'learned_class': True, 'classifier_tokens': True, 'causal': True, 'score': True},
    {'classifier_tokens': True}])
def test_options_of_stlt_make_tokens(options):
    encoder = STLT((4, 3, 5), dim=8, heads=2, spatial_layers=1, temporal_layers=1, **options)
    tokens = encoder.eval()(torch.zeros(2, 4, 3, 5))
    assert tokens.shape == (2, 1 if 'classifier_tokens' in options else 4, 8)
    assert torch.isfinite(tokens).all()
