"""X3D of PyTorchVideo and MoViNet: files of the published tensors, and of those alone."""

from __future__ import annotations

import json
from pathlib import Path

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.backends.pytorch import Eager
from karmma_ros.model.imports import import_model, ImportSettings
from karmma_ros.model.imports.pytorchvideo import pytorchvideo_model
from karmma_ros.model.model_zoo import zoo_entry
import numpy as np
import pytest
import torch

V = Modality.RGB
TENSORS = json.loads(Path(__file__).with_name('published_tensors.json').read_text())
"""Names and shapes of the tensors in the published files, as their own implementations have."""


def random_weights(key):
    """Return tensors as of a published file, with values that keep activations in range."""
    torch.manual_seed(0)
    weights = {}
    for name, shape in TENSORS[key].items():
        if name.endswith('num_batches_tracked'):
            weights[name] = torch.tensor(7)
        elif name.endswith('running_var'):
            weights[name] = 0.5 + torch.rand(shape)
        else:
            fan = max(1, int(torch.Size(shape[1:]).numel()))
            weights[name] = torch.randn(shape) * fan ** -0.5
    return weights


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Return the folder of files as they are published, and of the names of the classes."""
    folder = tmp_path_factory.mktemp('files')
    torch.save({'model_state': random_weights('x3d')}, folder / 'X3D.pyth')
    for variant in ('a0', 'a2'):
        torch.save(random_weights(f'movinet_{variant}'),
                   folder / f'model{variant.upper()}_stream_statedict_v3')
    (folder / 'labels.txt').write_text('\n'.join(f'class {i}' for i in range(600)))
    return folder


def imported(files, tmp_path, name, **more):
    if 'x3d' in name:
        return import_model(f'pytorchvideo:{name}', tmp_path / name, ImportSettings(
            file=files / 'X3D.pyth', **more))
    return import_model(f'movinet:{files / name}', tmp_path / name, ImportSettings(
        classes=[files / 'labels.txt'], **more))


@pytest.mark.parametrize('name', ['x3d_s', 'x3d_m', 'cox3d_s', 'cox3d_m'])
def test_imports_x3d_of_a_clip_and_of_a_stream(files, tmp_path, name):
    bundle, entry = imported(files, tmp_path, name), zoo_entry(name)
    spec, origin = bundle.spec, pytorchvideo_model(name).origin
    rate = spec.num_frames / spec.duration
    assert entry.clip == (f'{spec.num_frames} frames at {rate:g} fps, '
                          f'{spec.video.height} x {spec.video.width}')
    assert origin.accuracy == entry.accuracy and origin.url == entry.url
    assert bundle.source['accuracy'] == entry.accuracy and bundle.commercial_use
    assert bundle.vocabulary.heads['action'][290] == 'sharpening knives'
    streams = name.startswith('co')
    assert (Eager(bundle.network).parts is not None) == streams
    card = (bundle.path / 'README.md').read_text()
    assert (f'Its output is that of 28 frames ago, {28 / rate:.1f} s' in card) == streams


@pytest.mark.parametrize('variant', ['a0', 'a2'])
def test_imports_movinet_whose_variant_is_in_the_file(files, tmp_path, variant):
    name = f'model{variant.upper()}_stream_statedict_v3'
    bundle, entry = imported(files, tmp_path, name), zoo_entry(f'movinet_{variant}_stream')
    assert bundle.source['accuracy'] == entry.accuracy
    assert bundle.spec.num_frames == 50 and bundle.spec.duration == 10
    assert f'{bundle.spec.video.height} x {bundle.spec.video.width}' in entry.clip
    assert bundle.vocabulary.heads['action'][599] == 'class 599'
    shorter = imported(files, tmp_path / 'shorter', name, duration=2.0)
    assert (shorter.spec.num_frames, shorter.spec.duration) == (10, 2)


@torch.inference_mode()
def test_a_stream_gives_the_logits_of_a_clip_at_its_last_frame(files, tmp_path):
    bundle = imported(files, tmp_path, 'modelA0_stream_statedict_v3', duration=1.0)
    network = Eager(bundle.network)
    x = np.random.default_rng(0).random((1, 3, 5, 172, 172), np.float32)
    wanted, past = network.infer({V: x})['action'], None
    for frame in np.split(x, 5, axis=2):
        parts, past = network.parts.encode_next(V, frame, past)
        logits = network.fuse({V: network.parts.in_order(V, parts)})['action']
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-4)
    assert np.ptp(wanted) > 0.01


@pytest.mark.parametrize(('source', 'classes', 'text'), [
    ('pytorchvideo:x3d_l', None, 'expected pytorchvideo:x3d_s, pytorchvideo:x3d_m'),
    ('pytorchvideo:x3d_s={files}/modelA0_stream_statedict_v3', None, 'tensors do not fit'),
    ('movinet:{files}/X3D.pyth', 'labels.txt', 'its conv1.conv_1.conv2d.weight has no channels'),
    ('movinet:{files}/modelA0_stream_statedict_v3', None, 'expected one file, such as kinetics_6'),
    ('movinet:{files}/modelA0_stream_statedict_v3', 'few.txt', 'expected 600 classes, as the w'),
])
def test_what_is_another_model_is_refused(files, tmp_path, source, classes, text):
    (files / 'few.txt').write_text('one\ntwo')
    settings = ImportSettings(classes=[files / classes] if classes else ())
    with pytest.raises(InvalidSettingError, match=text):
        import_model(source.format(files=files), tmp_path / 'out', settings)


def test_what_is_encoded_frame_by_frame_is_not_encoded_in_chunks(files, tmp_path):
    with pytest.raises(InvalidSettingError, match='x3d_continual encodes each frame once'):
        imported(files, tmp_path, 'cox3d_s', chunk=16)
