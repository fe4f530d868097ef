"""Architectures as data."""

import json

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.encoders import build_encoder
from karmma_ros.model.presets import preset, PRESETS
import pytest


@pytest.mark.parametrize('name', PRESETS)
def test_a_configuration_survives_json(name):
    config = preset(name)
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == json.loads(json.dumps(config.to_dict()))
    assert again.modalities == config.modalities


@pytest.mark.parametrize(('change', 'text'), [
    ({'dim': 0}, 'architecture.dim is 0'),
    ({'dim': 15}, 'a multiple of heads = 2'),
    ({'token_cap': 0}, 'architecture.token_cap is 0'),
    ({'reduction': 'prune'}, 'tau_average or none'),
    ({'missing': 'zeros'}, 'tokens or omit'),
    ({'encoders': {}}, 'an encoder for at least one modality'),
])
def test_values_out_of_range_are_named(config, change, text):
    with pytest.raises(InvalidSettingError, match=text):
        ModelConfig(**{**config.__dict__, **change})


def test_an_unknown_field_is_named(config):
    with pytest.raises(InvalidSettingError, match="architecture field is 'depth'"):
        ModelConfig.from_dict({**config.to_dict(), 'depth': 3})


def test_an_unknown_encoder_names_the_known_ones(spec):
    with pytest.raises(InvalidSettingError, match='encoders.rgb.name.*r2plus1d'):
        build_encoder(EncoderConfig('resnet'), spec, Modality.RGB)


def test_an_option_the_encoder_does_not_take_is_named(spec):
    with pytest.raises(InvalidSettingError, match="unexpected keyword argument 'depth'"):
        build_encoder(EncoderConfig('r2plus1d', {'depth': 3}), spec, Modality.RGB)
