"""Encoders by OpenVINO for many clips, against PyTorch."""

from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.backends import compiled_encoders
from karmma_ros.model.backends.agreement import check_clip
from karmma_ros.model.backends.compiled_encoders import openvino_encoders
from karmma_ros.model.builder import build
from karmma_ros.model.presets import preset
import numpy as np
import pytest
import torch


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return build(preset('tiny'), clip_spec(), vocabulary()).eval()


@pytest.fixture
def inputs(network):
    clip = check_clip(clip_spec(), network.modalities)
    return {m: torch.from_numpy(np.concatenate([x, x[..., ::-1]])) for m, x in clip.items()}


def test_the_tokens_are_those_of_pytorch(network, inputs):
    present = torch.ones(2, len(network.modalities), dtype=torch.bool)
    before = dict(network.encoders.items())
    with torch.inference_mode():
        expected = network.encode_present(inputs, present)
        with openvino_encoders(network):
            assert all(network.encoders[name] is not each for name, each in before.items())
            tokens = network.encode_present(inputs, present)
    assert all(network.encoders[name] is each for name, each in before.items())
    for modality, x in tokens.items():
        assert x.shape == expected[modality].shape
        difference = (x - expected[modality]).norm() / expected[modality].norm()
        assert 0 < difference < 0.05, modality  # 0 would be PyTorch itself


def test_tokens_that_differ_are_an_error(network, inputs, monkeypatch):
    monkeypatch.setattr(compiled_encoders, 'TOLERANCE', 0.0)
    with openvino_encoders(network), pytest.raises(
            InvalidSettingError, match='the tokens of rgb differ from those of PyTorch by'):
        network.encoders['rgb'](inputs['rgb'])
