"""Architectures as data."""

from dataclasses import replace
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
    ({'fusion': 'concatenation'}, 'architecture.fusion is .*transformer or queries or logit_mean'),
    ({'fusion': 'logit_mean'}, 'expected omit: an ensemble has no learned tokens'),
    ({'votes': {Modality.RGB: 0.0}}, 'architecture.votes.rgb is 0.0; expected a number above 0'),
])
def test_values_out_of_range_are_named(config, change, text):
    with pytest.raises(InvalidSettingError, match=text):
        ModelConfig(**{**config.__dict__, **change})


def test_an_unknown_field_is_named(config):
    with pytest.raises(InvalidSettingError, match="architecture field is 'depth'"):
        ModelConfig.from_dict({**config.to_dict(), 'depth': 3})


@pytest.mark.parametrize(('name', 'text'), [
    ('resnet', 'encoders.rgb.name.*r2plus1d.*torchvision:NAME, timm:NAME or package.module:Class'),
    ('torchvision:swin4d_t', "torchvision model is 'swin4d_t'; expected one of .* swin3d_t"),
    ('torchvision:Swin3D_T_Weights', 'Swin3D_T_Weights'),
    ('timm:hf-hub:somebody/model', "timm model is 'hf-hub:somebody/model'.*timm.list_models"),
    ('no_such_package:Encoder', "'no_such_package:Encoder'.*No module named"),
    ('json:Encoder', 'the importable package.module:Class'),
    ('json:dumps', "'json:dumps'; expected the importable package.module:Class of a torch.nn"),
    (':Encoder', 'the importable package.module:Class'),
])
def test_an_unknown_encoder_is_named_with_the_known_ones(spec, name, text):
    with pytest.raises(InvalidSettingError, match=text):
        build_encoder(EncoderConfig(name), spec, Modality.RGB)


def test_an_option_the_encoder_does_not_take_is_named(spec):
    with pytest.raises(InvalidSettingError, match="unexpected keyword argument 'depth'"):
        build_encoder(EncoderConfig('r2plus1d', {'depth': 3}), spec, Modality.RGB)


@pytest.mark.parametrize('option', [{'weights': 'DEFAULT'}, {'pretrained': True}])
def test_nothing_is_downloaded_while_building(spec, option):
    with pytest.raises(InvalidSettingError, match='load_pretrained loads them'):
        build_encoder(EncoderConfig('torchvision:swin3d_t', option), spec, Modality.RGB)


def test_boxes_do_not_go_into_a_video_encoder(spec):
    with pytest.raises(InvalidSettingError, match='the input of detections is no image'):
        build_encoder(EncoderConfig('timm:resnet18'), spec, Modality.DETECTIONS)


def test_an_ensemble_survives_json(config):
    votes = {Modality.RGB: 2.0, Modality.AUDIO: 0.5}
    ensemble = replace(config, fusion='logit_mean', missing='omit', votes=votes)
    again = ModelConfig.from_dict(json.loads(json.dumps(ensemble.to_dict())))
    assert again.votes == votes
    assert again.fusion == 'logit_mean'
