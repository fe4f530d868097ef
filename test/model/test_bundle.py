"""A model directory: what is saved is loaded, damage is reported."""

from dataclasses import replace
import json
import os
import pickle

from karmma_ros.calibration import Calibration, SubsetCalibration
from karmma_ros.errors import BundleError
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import (
    CALIBRATION,
    CONFIG,
    load_bundle,
    save_bundle,
    save_calibration,
    WEIGHTS,
)
from karmma_ros.model.config import EncoderConfig
import pytest
import torch


@pytest.fixture
def saved(tmp_path, config, spec, vocabulary):
    """Write a small model and give its directory and its network."""
    network = build(config, spec, vocabulary).eval()
    path = tmp_path / 'kitchen'
    save_bundle(path, network, config, spec, vocabulary, dataset='random', card='# A card\n',
                metrics={'test': {'V': 0.5}})
    return path, network


def test_a_saved_bundle_is_loaded(saved, spec, vocabulary, inputs):
    path, network = saved
    bundle = load_bundle(path)
    present = torch.ones(3, 4, dtype=torch.bool)
    before, after = network(inputs, present), bundle.network(inputs, present)
    assert all(torch.equal(before[head], after[head]) for head in before)
    assert bundle.spec == spec
    assert bundle.vocabulary == vocabulary
    assert bundle.dataset == 'random'
    assert bundle.metrics == {'test': {'V': 0.5}}
    assert bundle.model_id == f'kitchen@{bundle.sha256[:8]}'
    assert not bundle.network.training
    assert (path / 'README.md').read_text() == '# A card\n'


def test_the_background_class_is_stored(tmp_path, config, spec, vocabulary):
    vocabulary = replace(vocabulary, background='lid')
    path = tmp_path / 'idle'
    save_bundle(path, build(config, spec, vocabulary), config, spec, vocabulary, dataset='',
                card='')
    assert load_bundle(path).vocabulary == vocabulary
    edit(path, lambda d: d.update(background='peel'))
    with pytest.raises(BundleError, match="background is 'peel'; expected a class of"):
        load_bundle(path)
    edit(path, lambda d: d.update(background=['lid']))
    with pytest.raises(BundleError, match='background'):
        load_bundle(path)


def test_the_id_follows_the_weights(saved, config, spec, vocabulary):
    path, network = saved
    first = load_bundle(path).model_id
    with torch.no_grad():
        network.fusion.cls.add_(1.0)
    save_bundle(path, network, config, spec, vocabulary, dataset='random', card='')
    assert load_bundle(path).model_id != first


def edit(path, change):
    """Rewrite config.json after `change` has altered it."""
    description = json.loads((path / CONFIG).read_text())
    change(description)
    (path / CONFIG).write_text(json.dumps(description))


def option(path, modality, **values):
    """Change options of an encoder in config.json."""
    edit(path, lambda d: d['architecture']['encoders'][modality]['options'].update(values))


def replace_by_pipe(path):
    """Put a pipe there that nobody writes to: whoever opens it waits for ever."""
    path.unlink()
    os.mkfifo(path)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(('damage', 'text'), [
    (lambda p: (p / CONFIG).unlink(), 'config.json is missing'),
    (lambda p: (p / WEIGHTS).unlink(), 'model.safetensors is missing'),
    (lambda p: (p / CONFIG).write_text('{'), 'is not JSON'),
    (lambda p: (p / CONFIG).write_text('[]'), 'format is None'),
    (lambda p: (p / CONFIG).write_bytes(b'\xff\xfe'), 'is not JSON'),
    (lambda p: (p / WEIGHTS).write_bytes((p / WEIGHTS).read_bytes()[:5000]), 'cannot be read'),
    (lambda p: (p / WEIGHTS).write_bytes(b''), 'cannot be read'),
    (lambda p: edit(p, lambda d: d.update(format='karmma_ros/9')), "format is 'karmma_ros/9'"),
    (lambda p: edit(p, lambda d: d.pop('clip')), "lacks or garbles 'clip'"),
    (lambda p: edit(p, lambda d: d.update(metrics=[1])), r'metrics is \[1\], expected a mapping'),
    (lambda p: edit(p, lambda d: d['classes']['noun'].pop()),
     'lists 3 classes for noun, the weights have 4'),
    (lambda p: edit(p, lambda d: d['classes']['noun'].__setitem__(0, 'pan')), 'distinct names'),
    (lambda p: edit(p, lambda d: d['clip'].update(num_frames=0)), 'clip.num_frames is 0'),
    (lambda p: edit(p, lambda d: d['clip'].update(fps=3)), "clip field is 'fps'"),
    (lambda p: edit(p, lambda d: d['architecture'].update(dim=32)), 'does not fit'),
    (lambda p: edit(p, lambda d: d['architecture']['encoders'].pop('audio')), 'does not fit'),
    (lambda p: edit(p, lambda d: d['architecture'].update(depth=3)), "field is 'depth'"),
    (lambda p: edit(p, lambda d: d['architecture'].update(fusion='logit_mean', missing='omit')),
     'does not fit'),
    (lambda p: edit(p, lambda d: d['architecture'].update(dim=8 * 10**6)), 'does not fit'),
    (lambda p: edit(p, lambda d: d['architecture'].update(dim=8 * 10**18)), 'garbles'),
    (lambda p: edit(p, lambda d: d['architecture'].update(layers=10**9)), '1000 at most'),
    (lambda p: edit(p, lambda d: d['clip'].update(num_frames=10**9)), 'bytes of input'),
    (lambda p: edit(p, lambda d: d['clip']['video'].update(width='wide')), 'garbles'),
    (lambda p: edit(p, lambda d: d['clip'].update(duration=1e9)), 'a number up to 600'),
    (lambda p: edit(p, lambda d: d['clip'].update(duration=float('inf'))), 'a number up to 600'),
    (lambda p: edit(p, lambda d: d['clip']['audio'].update(sample_rate=10**12)), 'up to 384000'),
    (lambda p: option(p, 'detections', spatial_layers=10**9), 'numbers up to 1048576'),
    (lambda p: option(p, 'detections', spatial_layers=10**6), 'steps to build'),
    (lambda p: option(p, 'detections', heads=float('inf')), 'numbers up to 1048576'),
    (lambda p: option(p, 'rgb', widths=[4] * 10**5), '1000 values'),
    (lambda p: option(p, 'rgb', widths=[4] * 900), 'steps to build|does not fit|refused them'),
    (lambda p: option(p, 'rgb', widths='4' * 10**5), 'texts up to 1000 characters'),
    (lambda p: (p / CONFIG).write_text('1' * 10**6), 'is not JSON'),
    (lambda p: (p / CONFIG).write_text('[' * 100_000), 'is not JSON'),
    (lambda p: (p / CONFIG).write_bytes(b' ' * (5 * 2**20)), 'more than any model needs'),
    (lambda p: (p / CONFIG).write_text('[' + '[],' * 10**6 + '[]]'), 'objects and lists'),
    (lambda p: (p / WEIGHTS).write_bytes(pickle.dumps({'w': 1})), 'cannot be read'),
    (lambda p: (p / WEIGHTS).write_bytes((2**60).to_bytes(8, 'little') + b'{}'), 'cannot be read'),
    (lambda p: replace_by_pipe(p / WEIGHTS), 'no regular file'),
    (lambda p: replace_by_pipe(p / CONFIG), 'no regular file'),
    (lambda p: edit(p, lambda d: d['architecture']['encoders']['rgb'].update(
        name='subprocess:Popen', options={'args': 'true'})), 'if you trust it, load it with'),
])
def test_damage_is_named_with_its_remedy(saved, damage, text):
    path, _ = saved
    damage(path)
    with pytest.raises(BundleError, match=text) as caught:
        load_bundle(path)
    assert str(path) in str(caught.value)


FITTED = Calibration(
    {(Modality.RGB,): SubsetCalibration({'verb': 1.3}, -2.5)}, 0.05, '9 clips')


def test_a_calibration_is_stored_with_its_weights(saved, config, spec, vocabulary):
    path, network = saved
    assert not load_bundle(path).calibration
    save_calibration(path, FITTED)
    assert load_bundle(path).calibration == FITTED
    assert not load_bundle(path, calibrated=False).calibration
    save_bundle(path, network, config, spec, vocabulary, dataset='', card='', calibration=FITTED)
    assert load_bundle(path).calibration == FITTED
    save_bundle(path, network, config, spec, vocabulary, dataset='', card='')
    assert not load_bundle(path).calibration and not (path / CALIBRATION).exists()


def edit_calibration(path, change):
    content = json.loads((path / CALIBRATION).read_text())
    change(content)
    (path / CALIBRATION).write_text(json.dumps(content))


@pytest.mark.parametrize(('damage', 'text'), [
    (lambda p: (p / CALIBRATION).write_text('{'), 'Expecting'),
    (lambda p: (p / CALIBRATION).write_text('[]'), 'weights is None'),
    (lambda p: (p / CALIBRATION).write_bytes(b'\xff'), "can't decode"),
    (lambda p: (p / CALIBRATION).write_text('[' * 9000), 'nested too deeply|Expecting'),
    (lambda p: (p / CALIBRATION).write_bytes(b' ' * 2**21), 'bytes; expected at most'),
    (lambda p: replace_by_pipe(p / CALIBRATION), 'pipe'),
    (lambda p: replace_by_folder(p / CALIBRATION), 'directory'),
    (lambda p: edit_calibration(p, lambda c: c.update(format='karmma_ros.calibration/9')),
     "calibration/9'; expected 'karmma_ros.calibration/1'"),
    (lambda p: edit_calibration(p, lambda c: c.pop('weights')), 'weights is None'),
    (lambda p: edit_calibration(p, lambda c: c.update(weights='0' * 64)), 'those of model.safe'),
    (lambda p: edit_calibration(p, lambda c: c['subsets']['V']['temperatures'].update(verb=0)),
     'a number from 0.01 to 100'),
    (lambda p: edit_calibration(p, lambda c: c['subsets'].update(X={})), "subset is 'X'"),
])
def test_a_damaged_calibration_is_refused(saved, damage, text):
    path, _ = saved
    save_calibration(path, FITTED)
    damage(path)
    with pytest.raises(BundleError, match=text) as caught:
        load_bundle(path)
    assert str(path / CALIBRATION) in str(caught.value) and 'karmma calibrate' in str(caught.value)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(BundleError, match='no such directory'):
        load_bundle(tmp_path / 'nowhere')


def test_an_architecture_whose_tensors_are_enormous_is_refused(
        tmp_path, config, spec, vocabulary):
    """Its weights fit, whatever the size to which it enlarges each frame."""
    encoders = {Modality.RGB: EncoderConfig('torchvision:SwinTransformer3d', {
        'patch_size': [2, 4, 4], 'embed_dim': 8, 'depths': [2], 'num_heads': [2],
        'window_size': [2, 4, 4]})}
    config = replace(config, encoders=encoders, missing='omit')
    save_bundle(tmp_path / 'vast', build(config, spec, vocabulary), config, spec, vocabulary,
                dataset='', card='')
    load_bundle(tmp_path / 'vast')
    option(tmp_path / 'vast', 'rgb', size=[20_000, 20_000])
    with pytest.raises(BundleError, match='one with a tensor .* for one clip'):
        load_bundle(tmp_path / 'vast')
