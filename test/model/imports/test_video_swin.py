"""
Video Swins of Liu et al., Omnivore and Radevski et al., beside a small restatement of them.

The restatement has their names and shapes. It lets every token see all others and masks those
outside its shifted window, where the networks cut windows.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
import json
from pathlib import Path
from typing import Any

from karmma_ros.clip import VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.media.sources import crop_all
from karmma_ros.modalities import make_clip
from karmma_ros.modality import Modality
from karmma_ros.model.imports import FILE_SOURCES, import_model, ImportSettings
from karmma_ros.model.imports.class_names import read_class_names, read_keys, read_pairs
from karmma_ros.model.imports.video_swin import video_swin_model
from karmma_ros.model.weights_file import MissingWeightsError
from karmma_ros.stream.recogniser import Recogniser
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
import yaml

WINDOW, WIDTH, DEPTHS, HEADS = (2, 2, 2), 8, (2, 2), (1, 2)
LABELS = {f'move something {i}': str((3 * i) % 7) for i in range(7)}
"""As labels.json of Something-Something: template → id."""
VERBS, NOUNS = ('take', 'put', 'wash'), ('plate', 'pan:dust', 'knife', 'hand')
ACTIONS = ('put,knife', 'take,plate', 'take,pan:dust', 'wash,plate', 'put,plate')


def published(classes: int, trunk: str, classifier: str) -> dict[str, Tensor]:
    """Return random weights with the names of a published file."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 0.3) -> Tensor:
        return scale * torch.randn(*shape, generator=generator)

    weights = {
        f'{trunk}patch_embed.proj.weight': random(WIDTH, 3, 2, 4, 4),
        f'{trunk}patch_embed.proj.bias': random(WIDTH),
        **{f'{trunk}patch_embed.norm.{part}': random(WIDTH) for part in ('weight', 'bias')},
        f'{classifier}weight': random(classes, WIDTH * 2, scale=1.0),
        f'{classifier}bias': random(classes),
    }
    window = list(product(*map(range, WINDOW)))
    index = torch.tensor([[number_of_difference(a, b) for b in window] for a in window])
    for layer, (depth, heads) in enumerate(zip(DEPTHS, HEADS)):
        c = WIDTH * 2 ** layer
        shapes = {'norm1.weight': [c], 'norm1.bias': [c], 'norm2.weight': [c], 'norm2.bias': [c],
                  'attn.relative_position_bias_table': [27, heads],
                  'attn.qkv.weight': [3 * c, c], 'attn.qkv.bias': [3 * c],
                  'attn.proj.weight': [c, c], 'attn.proj.bias': [c],
                  'mlp.fc1.weight': [4 * c, c], 'mlp.fc1.bias': [4 * c],
                  'mlp.fc2.weight': [c, 4 * c], 'mlp.fc2.bias': [c]}
        for block in range(depth):
            prefix = f'{trunk}layers.{layer}.blocks.{block}.'
            weights |= {prefix + name: random(*shape) for name, shape in shapes.items()}
            weights[f'{prefix}attn.relative_position_index'] = index
        if layer == 0:
            prefix = f'{trunk}layers.0.downsample.'
            weights |= {f'{prefix}norm.weight': random(4 * c), f'{prefix}norm.bias': random(4 * c),
                        f'{prefix}reduction.weight': random(2 * c, 4 * c)}
    weights |= {f'{trunk}norm.{part}': random(2 * WIDTH) for part in ('weight', 'bias')}
    return weights


def number_of_difference(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    t, h, w = (x - y + size - 1 for x, y, size in zip(a, b, WINDOW))
    return int((t * (2 * WINDOW[1] - 1) + h) * (2 * WINDOW[2] - 1) + w)


def attention(x: Tensor, weights: dict[str, Tensor], prefix: str, heads: int, shifted: bool):
    """Attend within shifted windows of `[t, h, w, c]`."""
    sizes = x.shape[:3]
    shifts = [w // 2 if shifted and size > w else 0 for size, w in zip(sizes, WINDOW)]
    positions = list(product(*map(range, sizes)))
    moved = [tuple((p - s) % size for p, s, size in zip(position, shifts, sizes))
             for position in positions]
    # Where the image wraps round, both sides of the border share a window but not a region.
    regions = [tuple((p // w, s > 0 and p >= size - s) for p, w, s, size in zip(
        position, WINDOW, shifts, sizes)) for position in moved]
    see = torch.tensor([[a == b for b in regions] for a in regions])
    numbers = torch.tensor([[
        number_of_difference(tuple(p % w for p, w in zip(a, WINDOW)),
                             tuple(p % w for p, w in zip(b, WINDOW))) for b in moved]
        for a in moved])
    bias = weights[f'{prefix}relative_position_bias_table'][numbers].permute(2, 0, 1)
    flat = x.flatten(0, 2)
    qkv = functional.linear(flat, weights[f'{prefix}qkv.weight'], weights[f'{prefix}qkv.bias'])
    q, k, v = qkv.unflatten(1, (3, heads, -1)).permute(1, 2, 0, 3)
    scores = q @ k.mT * q.shape[-1] ** -0.5 + bias
    out = scores.masked_fill(~see, -torch.inf).softmax(-1) @ v
    return functional.linear(out.transpose(0, 1).flatten(1), weights[f'{prefix}proj.weight'],
                             weights[f'{prefix}proj.bias']).view(x.shape)


def restated(clip: Tensor, weights: dict[str, Tensor], trunk: str, classifier: str) -> Tensor:
    """Return the logits of a clip `[3, t, h, w]`."""
    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weights[f'{name}.weight'],
                                     weights[f'{name}.bias'])

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, weights[f'{name}.weight'], weights.get(f'{name}.bias'))

    x = functional.conv3d(clip[None], weights[f'{trunk}patch_embed.proj.weight'],
                          weights[f'{trunk}patch_embed.proj.bias'], (2, 4, 4))[0]
    x = norm(x.permute(1, 2, 3, 0), f'{trunk}patch_embed.norm')
    for layer, (depth, heads) in enumerate(zip(DEPTHS, HEADS)):
        for block in range(depth):
            name = f'{trunk}layers.{layer}.blocks.{block}.'
            x = x + attention(norm(x, f'{name}norm1'), weights, f'{name}attn.', heads, block == 1)
            hidden = functional.gelu(linear(norm(x, f'{name}norm2'), f'{name}mlp.fc1'))
            x = x + linear(hidden, f'{name}mlp.fc2')
        if layer == 0:
            four = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
            x = norm(torch.cat(four, -1), f'{trunk}layers.0.downsample.norm')
            x = linear(x, f'{trunk}layers.0.downsample.reduction')
    return linear(norm(x, f'{trunk}norm').mean((0, 1, 2)), classifier.removesuffix('.'))


@pytest.fixture
def labels(tmp_path) -> Path:
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps(LABELS))
    return path


@pytest.fixture
def epic_classes(tmp_path) -> tuple[Path, ...]:
    actions, verbs, nouns = (tmp_path / name for name in (
        'epic_action_classes.csv', 'EPIC_100_verb_classes.csv', 'EPIC_100_noun_classes.csv'))
    actions.write_text('\n'.join(ACTIONS) + '\n')
    for path, names in ((verbs, VERBS), (nouns, NOUNS)):
        path.write_text('id,key,instances\n' + ''.join(
            f'{i},{name},"[\'{name}\', \'x\']"\n' for i, name in enumerate(names)))
    return actions, verbs, nouns


@pytest.fixture(autouse=True)
def small_clips(monkeypatch):
    """Make clips of 8 frames of 16 x 16 of the published ones: the restatement is slow."""
    for source, describe in FILE_SOURCES.items():
        def shorter(path, weights, settings, describe=describe):
            model = describe(path, weights, settings)
            resize = (18,) if model.spec.video.resize else ()
            return replace(model, spec=replace(
                model.spec, num_frames=8, video=VideoSpec(16, 16, resize=resize)))
        monkeypatch.setitem(FILE_SOURCES, source, shorter)


def recognised(bundle: Any) -> tuple[Tensor, Any]:
    """Return a clip as the published preprocessing makes it, and what the bundle recognises."""
    height = 18 if bundle.spec.video.resize else 16
    frames = np.random.default_rng(0).integers(0, 256, (8, height, 24, 3), dtype=np.uint8)
    clip = make_clip(bundle.spec, {Modality.RGB: crop_all(frames, bundle.spec.video.crop_size)})
    top = (height - 16) // 2
    x = torch.from_numpy(frames[:, top:top + 16, 4:20]).permute(3, 0, 1, 2) / 255
    mean, std = (torch.tensor(each).view(3, 1, 1, 1) for each in (
        [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return ((x - mean) / std,
            Recogniser(bundle.network, bundle.vocabulary, bundle.spec).recognise(clip))


def test_video_swin_gives_the_scores_of_the_published_network(tmp_path, labels):
    weights = published(7, 'backbone.', 'cls_head.fc_cls.')
    torch.save({'meta': {'epoch': 30}, 'state_dict': weights}, tmp_path / 'swin.pth')
    bundle = import_model(
        f'video-swin:{tmp_path / "swin.pth"}', tmp_path / 'out', ImportSettings(classes=[labels]))
    clip, scores = recognised(bundle)
    expected = restated(clip, weights, 'backbone.', 'cls_head.fc_cls.').softmax(0)
    np.testing.assert_allclose(scores.probabilities['action'], expected, atol=1e-5)
    assert expected.max() > 0.3
    best = int(expected.argmax())
    assert scores.top('action')[0].class_name == bundle.vocabulary.heads['action'][best]
    assert LABELS[bundle.vocabulary.heads['action'][best]] == str(best)
    assert bundle.source['source'] == 'video-swin:swin' and bundle.source['commercial_use']


def test_omnivore_gives_the_sums_of_its_pairs(tmp_path, epic_classes):
    weights = published(5, 'trunk.', 'heads.1.')
    parts = {part: {name.removeprefix(f'{part}.'): x for name, x in weights.items()
                    if name.startswith(part)} for part in ('trunk', 'heads')}
    torch.save(parts, tmp_path / 'swinB_epic_checkpoint.torch')
    bundle = import_model(f'omnivore:{tmp_path / "swinB_epic_checkpoint.torch"}', tmp_path / 'out',
                          ImportSettings(classes=epic_classes))
    assert bundle.vocabulary.heads == {'verb': VERBS, 'noun': NOUNS}
    clip, scores = recognised(bundle)
    pairs = restated(clip, weights, 'trunk.', 'heads.1.').softmax(0)
    for head, names in (('verb', VERBS), ('noun', NOUNS)):
        position = ('verb', 'noun').index(head)
        expected = [sum(float(p) for p, action in zip(pairs, ACTIONS)
                        if action.split(',')[position] == name) for name in names]
        np.testing.assert_allclose(scores.probabilities[head], expected, atol=1e-5)
    assert scores.probabilities['noun'][3] < 1e-30  # a hand is in no pair
    assert bundle.source['commercial_use'] is False
    assert bundle.dataset.endswith('CC BY-NC 4.0: no commercial use')


EXPERIMENT = {
    'MODEL_NAME': 'swin', 'DATASET_TYPE': 'video_flow_audio', 'NUM_FRAMES': 32, 'STRIDE': 2,
    'VIDEO_FPS': 60, 'FRAME_UNIFORM': False, 'TRAIN_DATASET_NAME': 'EPIC-KITCHENS'}
"""A part of the configuration of an experiment of Radevski et al."""


def save_experiment(folder: Path, sizes: dict[str, int], **changes: Any) -> dict[str, Tensor]:
    """Write the files of an experiment; return the weights as of one classifier."""
    weights = published(sum(sizes.values()), 'backbone.', 'classifier.')
    file = {name: x for name, x in weights.items() if not name.startswith('classifier.')}
    for part in ('weight', 'bias'):
        rows = weights[f'classifier.{part}'].split(list(sizes.values()))
        file |= {f'classifiers.{head}.{part}': x for head, x in zip(sizes, rows)}
    torch.save(file, folder / 'model.pt')
    (folder / 'config.yaml').write_text(yaml.safe_dump({**EXPERIMENT, **changes}))
    return weights


def test_radevski_gives_the_scores_of_both_classifiers(tmp_path, epic_classes):
    weights = save_experiment(tmp_path, {'VERB': 3, 'NOUN': 4})
    bundle = import_model(f'radevski:{tmp_path / "model.pt"}', tmp_path / 'out',
                          ImportSettings(classes=epic_classes[1:]))
    clip, scores = recognised(bundle)
    verb, noun = restated(clip, weights, 'backbone.', 'classifier.').split([3, 4])
    np.testing.assert_allclose(scores.probabilities['verb'], verb.softmax(0), atol=1e-5)
    np.testing.assert_allclose(scores.probabilities['noun'], noun.softmax(0), atol=1e-5)
    assert bundle.vocabulary.heads == {'verb': VERBS, 'noun': NOUNS}
    assert bundle.spec.duration == 32 * 2 / 60


def test_radevski_of_something_something_has_one_head(tmp_path, labels):
    weights = save_experiment(tmp_path, {'ACTION': 7}, FRAME_UNIFORM=True, DATASET_TYPE='video')
    source = f'radevski:{tmp_path / "model.pt"}'
    with pytest.raises(InvalidSettingError, match='--duration is 0; expected the seconds'):
        import_model(source, tmp_path / 'out', ImportSettings(classes=[labels]))
    bundle = import_model(source, tmp_path / 'out', ImportSettings(classes=[labels], duration=4))
    clip, scores = recognised(bundle)
    expected = restated(clip, weights, 'backbone.', 'classifier.').softmax(0)
    np.testing.assert_allclose(scores.probabilities['action'], expected, atol=1e-5)


@pytest.mark.parametrize(('sizes', 'changes', 'text'), [
    ({'VERB': 3, 'NOUN': 4}, {'DATASET_TYPE': 'depth'}, 'it is of swin for depth'),
    ({'VERB': 3, 'NOUN': 4}, {'MODEL_NAME': 'stlt'}, 'it is of stlt'),
    ({'VERB': 3, 'NOUN': 4}, {'STRIDE': 0}, 'STRIDE is 0'),
    ({'VERB': 3, 'NOUN': 3}, {}, '3 classes, as the weights have.*it has 4'),
    ({'VERB': 3}, {}, '1 files with the names of the classes of VERB'),
    ({'POSE': 3}, {}, 'it has no classifier'),
])
def test_refuses_another_experiment(tmp_path, epic_classes, sizes, changes, text):
    save_experiment(tmp_path, sizes, **changes)
    with pytest.raises(InvalidSettingError, match=text):
        import_model(f'radevski:{tmp_path / "model.pt"}', tmp_path / 'out',
                     ImportSettings(classes=epic_classes[1:]))


@pytest.mark.parametrize('content', ['- 1', 'a: [', '{}', None])
def test_refuses_a_configuration_that_is_none(tmp_path, epic_classes, content):
    save_experiment(tmp_path, {'VERB': 3, 'NOUN': 4})
    (tmp_path / 'config.yaml').unlink()
    if content is not None:
        (tmp_path / 'config.yaml').write_text(content)
    with pytest.raises(InvalidSettingError, match='expected the configuration that comes with'):
        import_model(f'radevski:{tmp_path / "model.pt"}', tmp_path / 'out',
                     ImportSettings(classes=epic_classes[1:]))


def test_reads_the_sizes_of_the_published_networks():
    """Of Liu et al.'s window of 8, 7, 7 and Omnivore's of 16, 7, 7."""
    from karmma_ros.model.imports.video_swin import _window

    assert _window(392, 15 * 13 * 13) == (8, 7, 7)
    assert _window(784, 31 * 13 * 13) == (16, 7, 7)
    with pytest.raises(ValueError, match='window of 392 tokens'):
        _window(392, 31 * 13 * 13)


def test_the_published_sizes_are_those_of_torchvision(tmp_path):
    """A network of Swin-B's shapes, without memory, has the parameters that are published."""
    from karmma_ros.model.builder import build
    from karmma_ros.model.imports.torchvision_video import torchvision_model

    classes = [tmp_path / 'names.txt']
    classes[0].write_text('\n'.join(f'class {i}' for i in range(400)))
    theirs = torchvision_model('swin3d_b')
    with torch.device('meta'):
        network = build(theirs.config, theirs.spec, theirs.vocabulary)
        weights = {published_name(name): x for name, x in network.state_dict().items()}
    ours = video_swin_model(tmp_path / 'a.pth', weights, classes)
    options = next(iter(ours.config.encoders.values())).options
    assert options == {
        'patch_size': [2, 4, 4], 'embed_dim': 128, 'depths': [2, 2, 18, 2],
        'num_heads': [4, 8, 16, 32], 'window_size': [8, 7, 7]}
    assert ours.spec.duration == 32 / 15 and ours.spec.video.resize == (256,)


def published_name(name: str) -> str:
    name = name.removeprefix('encoders.rgb.model.')
    if name.startswith('features.'):
        _, number, rest = name.split('.', 2)
        layer, merges = divmod(int(number), 2)
        rest = f'downsample.{rest}' if merges else f'blocks.{rest}'
        name = f'layers.{layer}.{rest}'.replace('mlp.0.', 'mlp.fc1.').replace('mlp.3.', 'mlp.fc2.')
    if name.startswith('embeddings.rgb.project.'):
        return 'cls_head.fc_cls.' + name.removeprefix('embeddings.rgb.project.')
    return f'backbone.{name}'


@pytest.mark.parametrize(('change', 'text'), [
    (lambda w: w.pop('cls_head.fc_cls.bias'), 'it has no cls_head.fc_cls.bias'),
    (lambda w: w.pop('backbone.patch_embed.proj.weight'), 'patch_embed.proj.weight.* not as of'),
    (lambda w: w.pop('backbone.layers.0.blocks.1.norm1.bias'), r'norm1.bias is missing'),
    (lambda w: w.update({'backbone.layers.2.x': torch.zeros(1)}), 'the network has no'),
    (lambda w: w.update({'backbone.norm.bias': torch.zeros(3)}), r'norm.bias is \[3\], expected'),
    (lambda w: w.update({'cls_head.fc_cls.bias': torch.zeros(6)}), '6 classes.*it has 7'),
])
def test_refuses_another_video_swin(tmp_path, labels, change, text):
    weights = published(7, 'backbone.', 'cls_head.fc_cls.')
    change(weights)
    torch.save(weights, tmp_path / 'swin.pth')
    with pytest.raises(InvalidSettingError, match=text):
        import_model(f'video-swin:{tmp_path / "swin.pth"}', tmp_path / 'out',
                     ImportSettings(classes=[labels]))


@pytest.mark.parametrize(('settings', 'text'), [
    ({}, '--classes is .*; expected one file with the names'),
    ({'weights': 'best'}, '--weights is .*; expected left out'),
])
def test_refuses_settings_that_do_not_fit(tmp_path, settings, text):
    torch.save(published(7, 'backbone.', 'cls_head.fc_cls.'), tmp_path / 'swin.pth')
    with pytest.raises(InvalidSettingError, match=text):
        import_model(
            f'video-swin:{tmp_path / "swin.pth"}', tmp_path / 'out', ImportSettings(**settings))


def test_a_name_of_a_published_file_stands_for_its_url(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(MissingWeightsError, match='swinB_epic_checkpoint.torch are not here'):
        import_model('omnivore:swinB_epic', tmp_path / 'out')
    with pytest.raises(InvalidSettingError, match='nowhere.*omnivore:FILE or omnivore:swinB_epic'):
        import_model('omnivore:nowhere', tmp_path / 'out')


@pytest.mark.parametrize(('text', 'problem'), [
    ('take,plate\nfold,plate\n', "line 2, 'fold,plate', is no verb and noun"),
    ('take,plate,knife\n', "line 1, 'take,plate,knife', is no"),
    ('take\n', "line 1, 'take', is no"),
    ('', 'it has no names'),
])
def test_refuses_pairs_of_unknown_classes(epic_classes, text, problem):
    epic_classes[0].write_text(text)
    with pytest.raises(InvalidSettingError, match=problem):
        read_pairs(*epic_classes)


@pytest.mark.parametrize(('content', 'text'), [
    ('id,name\n0,cut\n', "it has no column 'key', expected id and key"),
    ('id,key\n1,cut\n', 'its ids are not 0, 1, 2 …, each once'),
    (None, 'names of classes: No such file or directory$'),
])
def test_states_what_a_table_of_classes_lacks(tmp_path, content, text):
    if content is not None:
        (tmp_path / 'a.csv').write_text(content)
    with pytest.raises(InvalidSettingError, match=text):
        read_keys(tmp_path / 'a.csv')


@pytest.mark.parametrize(('name', 'content', 'names'), [
    ('a.json', '["cut", "stir"]', ('cut', 'stir')),
    ('a.json', '{"stir": "1", "cut": "0"}', ('cut', 'stir')),
    ('a.json', '{"0": "cut", "1": "stir"}', ('cut', 'stir')),
    ('a.txt', 'cut\n\n stir \n', ('cut', 'stir')),
    ('a.json', '{"stir": "2", "cut": "0"}', None),
    ('a.json', '{"stir": "0", "cut": "0"}', None),
    ('a.json', '"cut"', None),
    ('a.txt', 'cut\nstir\ncut\n', None),
    ('a.json', '["cut", "cut"]', None),
    ('a.json', '[]', None),
    ('a.json', '{', None),
    ('nowhere.txt', None, None),
])
def test_reads_names_of_classes(tmp_path, name, content, names):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    if names is None:
        with pytest.raises(InvalidSettingError, match='--classes is .*; expected a file with'):
            read_class_names(path)
    else:
        assert read_class_names(path) == names
