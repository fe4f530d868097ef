"""X3D, X3D of a stream and MoViNet, exported: what they give frame by frame equals eager."""

from __future__ import annotations

from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.modality import Modality
from karmma_ros.model.backends.export import export
from karmma_ros.model.backends.pytorch import Eager
from karmma_ros.model.backends.selection import read_export
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.imports.torchvision_video import classifier_config
from karmma_ros.prediction import Vocabulary
from karmma_ros.stream.recogniser import Recogniser
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
import numpy as np
import pytest
import torch

V = Modality.RGB
SPEC = ClipSpec(0.5, 4, VideoSpec(40, 40))
VOCABULARY = Vocabulary({'action': ('take', 'put', 'wash')})
SMALL = {'widths': (8, 16), 'depths': (1, 2), 'features': 24}
ENCODERS = {
    'clip': EncoderConfig('x3d', SMALL),
    'continual': EncoderConfig('x3d_continual', SMALL),
    'movinet': EncoderConfig('movinet', {'variant': 'a0', 'grid': 1}),
}
both = pytest.mark.parametrize('target', ['openvino', 'onnx'])


def config(name, classifies):
    """Return a network of one encoder: with a classifier of its own, or below a fusion block."""
    own = ENCODERS[name]
    if classifies:
        return classifier_config(
            name, EncoderConfig(own.name, {**own.options, 'classifier_tokens': True}))
    return ModelConfig(name, {V: own}, dim=16, heads=2, feedforward=16, token_cap=36)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Return a function from a network and a runtime to its model directory and the export."""
    known = {}

    def get(name, classifies, target):
        key = name, classifies, target
        if key not in known:
            torch.manual_seed(0)
            own = config(name, classifies)
            network = build(own, SPEC, VOCABULARY).eval()
            for parameter in network.parameters():
                parameter.data.add_(0.1 * torch.randn_like(parameter))
            path = tmp_path_factory.mktemp('models') / 'model'
            save_bundle(path, network, own, SPEC, VOCABULARY, dataset='none', card='')
            bundle = load_bundle(path)
            written, trials = export(bundle, target, 'fp32')
            assert all(trial.agrees for trial in trials)
            known[key] = bundle, read_export(bundle, written)
        return known[key]

    return get


@both
@pytest.mark.parametrize('classifies', [False, True])
def test_a_clip_is_encoded_at_once(exported, classifies, target):
    _, backend = exported('clip', classifies, target)
    assert backend.parts is None


@both
@pytest.mark.parametrize('classifies', [False, True], ids=['fused', 'classifies'])
@pytest.mark.parametrize('name', ['continual', 'movinet'])
def test_steps_of_one_and_two_frames_equal_eager(exported, name, classifies, target):
    bundle, backend = exported(name, classifies, target)
    ours, theirs = backend.parts, Eager(bundle.network).parts
    assert ours.chunks == theirs.chunks and ours.chunks[V].newest == classifies
    past, wanted_past, rng = None, None, np.random.default_rng(0)
    for frames in (4, 1, 2, 1, 3):
        x = rng.standard_normal((1, 3, frames, 40, 40), np.float32)
        parts, past = ours.encode_next(V, x, past)
        wanted, wanted_past = theirs.encode_next(V, x, wanted_past)
        np.testing.assert_allclose(np.stack(parts), torch.stack(wanted), rtol=1e-3, atol=1e-4)
    assert np.stack(parts).std(0).max() > 1e-4  # the frames differ


@both
@pytest.mark.parametrize('classifies', [False, True], ids=['fused', 'classifies'])
@pytest.mark.parametrize('name', ['continual', 'movinet'])
def test_live_windows_equal_eager_and_take_new_frames_only(
    exported, monkeypatch, name, classifies, target,
):
    bundle, backend = exported(name, classifies, target)
    ours, theirs = (Recogniser(each, VOCABULARY, SPEC) for each in (
        backend, Eager(bundle.network)))
    taken, encode = [], backend.encode_next
    monkeypatch.setattr(backend, 'encode_next', lambda m, x, *past: taken.append(
        x.shape[2]) or encode(m, x, *past))
    stream = SensorStream(SPEC, (V,), {V: InputSettings(10**9)})
    rng, period = np.random.default_rng(0), SPEC.frame_period_ns
    for number in range(100, 110):
        now = number * period
        stream.add(V, rng.integers(0, 256, (40, 40, 3), np.uint8), now, now)
        window = stream.window(now)
        if number > 104 and window is not None:
            result, wanted = ours.recognise(window), theirs.recognise(window)
            np.testing.assert_allclose(
                result.probabilities['action'], wanted.probabilities['action'], atol=1e-4)
    assert len(taken) == 5 and taken[0] == 4 and set(taken[1:]) == {1}
