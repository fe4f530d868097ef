"""Networks of Radevski et al. of flow, audio and boxes, and several of them as one."""

from __future__ import annotations

from dataclasses import replace
import math
from pathlib import Path
from typing import Any

from karmma_ros.cli.main import main
from karmma_ros.clip import AudioSpec, Clip, ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import make_clip
from karmma_ros.modality import Modality
from karmma_ros.model.encoders.layout import STLT
from karmma_ros.model.imports import FILE_SOURCES, import_model, ImportSettings, radevski
from karmma_ros.stream.recogniser import Recogniser
import numpy as np
import pytest
import torch
from torch import Tensor
import yaml

from .test_stlt import layer, linear, norm, Random, some_boxes
from .test_video_swin import EXPERIMENT, NOUNS, published, restated, VERBS

RGB, FLOW, AUDIO, DETECTIONS = (Modality(name) for name in ('rgb', 'flow', 'audio', 'detections'))
SIDE, FRAMES = 16, 8
SIZES = {'VERB': len(VERBS), 'NOUN': len(NOUNS)}
SCALES = {'video': 1.0, 'flow': 1.1, 'audio': 0.9}
"""Type of data → the scale of its weights."""
SAMPLES = round(FRAMES * 2 / 60 * 16_000)


@pytest.fixture(autouse=True)
def small_frames(monkeypatch):
    """Make frames of 16 x 16 of the published ones: the restatement is slow."""
    describe = FILE_SOURCES['radevski']

    def smaller(path, weights, settings):
        model = describe(path, weights, settings)
        return replace(model, spec=replace(model.spec, video=VideoSpec(SIDE, SIDE)))
    monkeypatch.setitem(FILE_SOURCES, 'radevski', smaller)
    monkeypatch.setattr(radevski, '_SIDE', SIDE)


def save(folder: Path, data: str, **changes: Any) -> dict[str, Tensor]:
    """Write the files of an experiment; return the weights as of one classifier."""
    weights = {name: x * SCALES[data] if x.is_floating_point() else x for name, x in published(
        sum(SIZES.values()), 'backbone.', 'classifier.').items()}
    file = {name: x for name, x in weights.items() if not name.startswith('classifier.')}
    for part in ('weight', 'bias'):
        rows = weights[f'classifier.{part}'].split(list(SIZES.values()))
        file |= {f'classifiers.{head}.{part}': x for head, x in zip(SIZES, rows)}
    folder.mkdir()
    torch.save({f'_orig_mod.{name}': x for name, x in file.items()}, folder / 'checkpoint.pt')
    (folder / 'config.yaml').write_text(yaml.safe_dump({
        **EXPERIMENT, 'DATASET_TYPE': data, 'NUM_FRAMES': FRAMES, 'AUDIO_SAMPLE_RATE': 24000,
        'AUDIO_RESAMPLE_RATE': 16000, 'AUDIO_SEGMENT_LENGTH': 1.116, **changes}))
    return weights


@pytest.fixture
def classes(tmp_path) -> tuple[Path, ...]:
    paths = tmp_path / 'verbs.csv', tmp_path / 'nouns.csv'
    for path, names in zip(paths, (VERBS, NOUNS)):
        path.write_text('id,key\n' + ''.join(f'{i},{name}\n' for i, name in enumerate(names)))
    return paths


def arrays() -> dict[Modality, Any]:
    rng = np.random.default_rng(0)
    return {RGB: rng.integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8),
            FLOW: rng.integers(0, 256, (FRAMES, SIDE, SIDE, 2), dtype=np.uint8),
            AUDIO: rng.uniform(-0.5, 0.5, SAMPLES).astype(np.float32)}


def published_input(data: str) -> Tensor:
    """Return a clip `[3, t, h, w]` as the published preprocessing makes it."""
    given = arrays()
    if data == 'audio':
        return torch.stack([tile(given[AUDIO], i) for i in range(FRAMES)]).expand(3, -1, -1, -1)
    frames = torch.from_numpy(given[RGB if data == 'video' else FLOW]).permute(3, 0, 1, 2) / 255
    if data == 'flow':
        frames = torch.cat([frames, torch.zeros_like(frames[:1])])
    mean, std = (torch.tensor(each).view(3, 1, 1, 1) for each in (
        [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return (frames - mean) / std


def tile(samples: np.ndarray, i: int) -> Tensor:
    """Return the spectrogram around a frame, `[16, 16]`, by torch's transform."""
    length = int(1.116 * 16_000)
    centre = int((i + 0.5) / FRAMES * len(samples))
    audio = torch.zeros(length)
    for j in range(length):
        index = centre - length // 2 + j
        if 0 <= index < len(samples):
            audio[j] = float(samples[index])
    spectrum = torch.stft(audio, 1024, 80, 160, torch.hann_window(160), center=True,
                          pad_mode='reflect', return_complex=True).abs().square()
    corners = [700 * (10 ** (k / 129 * math.log10(1 + 8000 / 700)) - 1) for k in range(130)]
    filters = torch.zeros(128, 513, dtype=torch.float64)
    for band in range(128):
        low, peak, high = corners[band:band + 3]
        for k in range(513):
            hertz = k * 8000 / 512
            filters[band, k] = max(0.0, min((hertz - low) / (peak - low),
                                            (high - hertz) / (high - peak)))
    mel = filters.float() @ spectrum
    rows, columns = ([int(k * size / SIDE) for k in range(SIDE)] for size in mel.shape)
    decibels = 10 * mel[rows][:, columns].clamp_min(1e-10).log10()
    return (decibels + 28.1125) / 16.5627


def imported(tmp_path: Path, classes: tuple[Path, ...], *data: str) -> Any:
    files = ','.join(str(tmp_path / each / 'checkpoint.pt') for each in data)
    return import_model(f'radevski:{files}', tmp_path / 'out', ImportSettings(classes=classes))


@pytest.mark.parametrize('data', ['flow', 'audio'])
def test_gives_the_scores_of_the_published_network(tmp_path, classes, data):
    weights = save(tmp_path / data, data)
    bundle = imported(tmp_path, classes, data)
    clip = make_clip(bundle.spec, {m: x for m, x in arrays().items() if m == Modality(data)})
    scores = Recogniser(bundle.network, bundle.vocabulary, bundle.spec).recognise(clip)
    verb, noun = restated(published_input(data), weights, 'backbone.', 'classifier.').split([3, 4])
    np.testing.assert_allclose(scores.probabilities['verb'], verb.softmax(0), atol=1e-5)
    np.testing.assert_allclose(scores.probabilities['noun'], noun.softmax(0), atol=1e-5)
    assert verb.softmax(0).max() > 0.4 or noun.softmax(0).max() > 0.4


def test_several_files_become_the_mean_of_their_logits(tmp_path, classes):
    weights = {data: save(tmp_path / data, data) for data in SCALES}
    bundle = imported(tmp_path, classes, *SCALES)
    clip = make_clip(bundle.spec, arrays())
    recogniser = Recogniser(bundle.network, bundle.vocabulary, bundle.spec)
    logits = {data: restated(published_input(data), weights[data], 'backbone.', 'classifier.')
              for data in SCALES}
    for subset in (('video', 'flow', 'audio'), ('video', 'audio'), ('flow',)):
        keep = [Modality('rgb' if data == 'video' else data) for data in subset]
        scores = recogniser.recognise(clip, keep)
        mean = sum(logits[data] for data in subset) / len(subset)
        np.testing.assert_allclose(scores.probabilities['verb'], mean[:3].softmax(0), atol=1e-5)
        np.testing.assert_allclose(scores.probabilities['noun'], mean[3:].softmax(0), atol=1e-5)
    parts = bundle.source['joined']
    assert [part['name'] for part in parts.values()] == ['video', 'flow', 'audio']
    assert len({part['source']['sha256'] for part in parts.values()}) == 3
    assert '- audio: `audio@' in (tmp_path / 'out' / 'README.md').read_text()
    assert bundle.licence == 'MIT of the code; the weights state none'


def test_the_command_states_each_file(tmp_path, classes, capsys):
    save(tmp_path / 'video', 'video')
    save(tmp_path / 'audio', 'audio')
    files = ','.join(str(tmp_path / each / 'checkpoint.pt') for each in ('video', 'audio'))
    assert main(['model', 'import', f'radevski:{files}', '--classes', *map(str, classes),
                 '--out', str(tmp_path / 'out')]) == 0
    text = capsys.readouterr().out
    assert text.count('from checkpoint.pt, SHA-256 ') == 2 and 'V+A, 3 of verb, 4 of noun' in text
    assert 'licence: MIT of the code; the weights state none\n' in text


@pytest.mark.parametrize(('changes', 'text'), [
    ({'NUM_FRAMES': 4}, 'num_frames is 8, and 4 for the others'),
    ({'STRIDE': 3}, r'clips of flow is .duration is 0.4\d*, and 0.266\d* for the others'),
    ({'DATASET_TYPE': 'video'}, 'files of one modality each.*another one has rgb'),
])
def test_refuses_files_that_do_not_fit_each_other(tmp_path, classes, changes, text):
    save(tmp_path / 'video', 'video')
    save(tmp_path / 'flow', 'flow', **changes)
    with pytest.raises(InvalidSettingError, match=text):
        imported(tmp_path, classes, 'video', 'flow')
    assert not (tmp_path / 'out').exists()


def test_refuses_what_is_of_one_file(tmp_path, classes):
    with pytest.raises(InvalidSettingError, match='--sha256 is .*the source has 2 files'):
        import_model('radevski:a.pt,b.pt', tmp_path / 'out', ImportSettings(sha256='00'))


@pytest.mark.parametrize(('changes', 'text'), [
    ({'AUDIO_RESAMPLE_RATE': None}, 'audio of 24000 Hz around frames, of 1.116 s; expected 16000'),
    ({'AUDIO_SEGMENT_LENGTH': 2.0}, 'of 2.0 s; expected 16000 Hz, 1.116 s'),
    ({'DATASET_TYPE': 'depth'}, 'it is of swin for depth'),
    ({'MODEL_NAME': 'stlt'}, 'it is of stlt for audio'),
])
def test_refuses_audio_of_another_form(tmp_path, classes, changes, text):
    save(tmp_path / 'audio', 'audio', **changes)
    with pytest.raises(InvalidSettingError, match=text):
        imported(tmp_path, classes, 'audio')


WIDTH = 64
TIME = 'temporal_transformer.'
SPACE = f'{TIME}layout_embedding.'
EMBEDDING = f'{SPACE}category_box_embeddings.'


def published_boxes(classes: int = 7) -> dict[str, Tensor]:
    """Return random weights of STLT with the names of a published file."""
    random = Random()
    return {
        f'{EMBEDDING}category_embeddings.weight': random(3, WIDTH, scale=1),
        **random.both(f'{EMBEDDING}box_embedding', WIDTH, 4, scale=1),
        **random.both(f'{EMBEDDING}score_embedding', WIDTH, 1, scale=1),
        f'{EMBEDDING}side_embedding.weight': random(3, WIDTH),
        f'{EMBEDDING}state_embedding.weight': random(6, WIDTH),
        **random.both(f'{EMBEDDING}layer_norm', WIDTH, scale=1),
        f'{SPACE}cls_token': random(1, 1, WIDTH, scale=1),
        **random.layer(f'{SPACE}transformer.layers.0.', WIDTH),
        f'{TIME}position_embeddings.weight': random(16, WIDTH, scale=1),
        **random.both(f'{TIME}layer_norm', WIDTH, scale=1),
        f'{TIME}cls_token': random(1, 1, WIDTH, scale=1),
        **random.layer(f'{TIME}transformer.layers.0.', WIDTH),
        **random.layer(f'{TIME}transformer.layers.1.', WIDTH),
        **random.both('classifiers.ACTION', classes, WIDTH, scale=1)}


def restated_boxes(frames: list[np.ndarray], weights: dict[str, Tensor]) -> Tensor:
    """Return the logits of frames of boxes `[n, 5]`, whose scores are 1."""
    tokens = []
    for i, boxes in enumerate(frames):
        rows = torch.tensor(boxes)
        theirs = [{1: 2, 2: 1}[int(category)] for category in rows[:, 4]]  # hand 2, object 1
        x = (linear(rows[:, :4], weights, f'{EMBEDDING}box_embedding')
             + weights[f'{EMBEDDING}category_embeddings.weight'][theirs]
             + linear(torch.ones(len(rows), 1), weights, f'{EMBEDDING}score_embedding')
             + weights[f'{EMBEDDING}side_embedding.weight'][0]
             + weights[f'{EMBEDDING}state_embedding.weight'][0])
        x = norm(x, weights, f'{EMBEDDING}layer_norm', 0.1)
        x = torch.cat([weights[f'{SPACE}cls_token'][0], x])
        x = layer(x, weights, f'{SPACE}transformer.layers.0.', 8, causal=False)
        tokens.append(x[0] + weights[f'{TIME}position_embeddings.weight'][i])
    x = norm(torch.stack(tokens), weights, f'{TIME}layer_norm', 0.1)
    x = torch.cat([x, weights[f'{TIME}cls_token'][0]])
    for each in range(2):
        x = layer(x, weights, f'{TIME}transformer.layers.{each}.', 8, causal=True)
    return linear(x[-1], weights, 'classifiers.ACTION')


def save_boxes(folder: Path, weights: dict[str, Tensor]) -> ImportSettings:
    torch.save(weights, folder / 'boxes.pt')
    (folder / 'config.yaml').write_text(yaml.safe_dump({
        **EXPERIMENT, 'MODEL_NAME': 'stlt', 'DATASET_TYPE': 'layout', 'NUM_FRAMES': 16,
        'FRAME_UNIFORM': True}))
    (folder / 'names.txt').write_text('\n'.join(f'class {i}' for i in range(7)))
    return ImportSettings(classes=[folder / 'names.txt'], duration=4.0)


def test_boxes_give_the_scores_of_the_published_network(tmp_path):
    settings = save_boxes(tmp_path, published_boxes())
    bundle = import_model(f'radevski:{tmp_path / "boxes.pt"}', tmp_path / 'out', settings)
    frames = some_boxes()
    clip = make_clip(bundle.spec, {DETECTIONS: frames})
    scores = Recogniser(bundle.network, bundle.vocabulary, bundle.spec).recognise(clip)
    expected = restated_boxes(frames, published_boxes()).softmax(0)
    np.testing.assert_allclose(scores.probabilities['action'], expected, atol=1e-5)
    assert expected.max() > 0.3
    assert bundle.source['dropped'] == {
        f'{EMBEDDING}side_embedding.weight[1:]': 'the side of a hand is not known here',
        f'{EMBEDDING}state_embedding.weight[1:]': 'the contact of a hand is not known here'}
    card = (tmp_path / 'out' / 'README.md').read_text()
    assert '## Limits\n\nIts network saw the score of each box' in card


@pytest.mark.parametrize(('change', 'text'), [
    (lambda w: w.pop(f'{SPACE}cls_token'), 'it has no temporal_transformer.layout_embedding.cls_'),
    (lambda w: w.pop(f'{TIME}layer_norm.bias'), 'temporal_norm.bias is missing'),
    (lambda w: w.update({f'{TIME}more': torch.zeros(1)}), 'the network has no temporal_transf'),
    (lambda w: w.update({f'{EMBEDDING}category_embeddings.weight': torch.zeros(4, WIDTH)}),
     r'category_embeddings.weight is \[4, 64\]'),
    (lambda w: w.update({f'{TIME}position_embeddings.weight': torch.zeros(8, WIDTH)}),
     r'frame is \[8, 64\], expected \[16, 64\]'),
])
def test_refuses_other_boxes(tmp_path, change, text):
    weights = published_boxes()
    change(weights)
    settings = save_boxes(tmp_path, weights)
    with pytest.raises(InvalidSettingError, match=text):
        import_model(f'radevski:{tmp_path / "boxes.pt"}', tmp_path / 'out', settings)


def test_the_published_stlt_has_12_layers():
    with torch.device('meta'):
        encoder = STLT((16, 14, 5), heads=8, spatial_layers=6, temporal_layers=6, causal=True,
                       norm=True, score=True, learned_class=True, classifier_tokens=True)
    layers = [*encoder.spatial.parameters(), *encoder.temporal.parameters()]
    others = (3 + 4 + 1 + 1 + 1 + 2 + 16 + 2 + 2) * 768
    assert sum(p.numel() for p in encoder.parameters()) == sum(
        p.numel() for p in layers) + others


def test_tiles_of_their_own_mark_gaps_and_need_their_length():
    spec = ClipSpec(0.5, audio=AudioSpec(tiles=2, tile_steps=21, tile_duration=0.1))
    assert ClipSpec.from_dict(spec.to_dict()) == spec
    assert 'tile_duration' not in ClipSpec().to_dict()['audio']
    from karmma_ros.preprocess.spectrogram import audio_input
    audio = np.random.default_rng(0).uniform(-1, 1, 8000).astype(np.float32)
    valid = np.ones(8000, np.bool_)
    valid[1990:2010] = False
    tiles = audio_input(audio, spec.audio, valid)
    assert (tiles[0] == 0).all(0).any() and not (tiles[1] == 0).all(0).any()
    assert Clip({AUDIO: tiles}).modalities == (AUDIO,)
    for change in ({'tile_duration': 1.0}, {'tile_duration': -0.1}):
        with pytest.raises(InvalidSettingError, match='clip.audio.tile_duration is'):
            AudioSpec(**change)
