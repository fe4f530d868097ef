"""Which parameters decay: every one of the presets is listed, so that none slips in unseen."""

import json
from pathlib import Path
import re

from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.cost import setting
from karmma_ros.model.builder import build
from karmma_ros.model.presets import preset
from karmma_ros.training.module import OptimizerSettings, RecognitionModule, split_by_decay
import pytest
import torch
from torch import nn

LISTED = json.loads(Path(__file__).with_name('weight_decay.json').read_text())
"""Preset → decayed and plain → names of parameters, with * for a number."""
TOKENS = {
    'karmma_student': [
        'encoders.rgb.model.features.*.*.attn.relative_position_bias_table',
        'encoders.audio.model.cls_token', 'encoders.audio.model.dist_token',
        'encoders.audio.model.pos_embed', 'embeddings.rgb.absent_tokens',
        'embeddings.rgb.modality_token', 'fusion.cls'],
    'karmma_student_something_something': [
        'encoders.detections.frame', 'encoders.detections.category.weight',
        'embeddings.detections.absent_tokens'],
    'tiny': ['encoders.rgb.position', 'encoders.audio.position', 'encoders.detections.position',
             'embeddings.detections.absent_tokens', 'fusion.cls'],
    'tiny_causal': ['embeddings.rgb.order_tokens'],
    'karmma_teacher': ['fusion.cls'],
}


def groups(name):
    spec, vocabulary = setting(name)
    with torch.device('meta'):
        network = build(preset(name), spec, vocabulary)
    return network, split_by_decay(network)


def collapsed(names):
    return sorted({re.sub(r'(?<=\.)\d+(?=\.)', '*', name) for name in names})


@pytest.mark.parametrize('name', LISTED)
def test_every_parameter_is_in_the_group_that_is_listed(name):
    network, (decayed, plain) = groups(name)
    assert {'decayed': collapsed(decayed), 'plain': collapsed(plain)} == LISTED[name]
    trained = [n for n, p in network.named_parameters() if p.requires_grad]
    assert sorted([*decayed, *plain]) == sorted(trained)


@pytest.mark.parametrize('name', TOKENS)
def test_tokens_positions_and_tables_do_not_decay(name):
    assert set(TOKENS[name]) <= set(LISTED[name]['plain'])
    _, (decayed, plain) = groups(name)
    assert all(parameter.ndim > 1 for parameter in decayed.values())
    assert not [n for n in decayed if re.search('token|pos|bias|frame|cls|norm|category', n)]


def test_the_papers_presets_and_the_small_ones_are_listed():
    assert set(LISTED) == {
        'karmma_student', 'karmma_student_something_something', 'karmma_teacher', 'radevski',
        'karmma_student_causal', 'tiny', 'tiny_teacher', 'tiny_causal', 'tiny_stream'}


def test_a_parameter_of_two_modules_is_listed_once():
    tied = nn.Linear(3, 3)
    network = nn.ModuleList([nn.Linear(3, 3), tied])
    network[0].weight = tied.weight
    decayed, plain = split_by_decay(network)
    assert list(decayed) == ['0.weight'] and sorted(plain) == ['0.bias', '1.bias']


def test_the_optimizer_has_these_groups(config, spec, vocabulary):
    module = RecognitionModule(
        build(config, spec, vocabulary), OptimizerSettings(weight_decay=0.03)
    )
    module.trainer = type('Trainer', (), {'estimated_stepping_batches': 10})()
    decayed, plain = split_by_decay(module.network)
    first, second = module.configure_optimizers()['optimizer'].param_groups
    assert (first['weight_decay'], second['weight_decay']) == (0.03, 0.0)
    assert [id(p) for p in first['params']] == [id(p) for p in decayed.values()]
    assert [id(p) for p in second['params']] == [id(p) for p in plain.values()]


def test_the_encoders_have_a_learning_rate_of_their_own(config, spec, vocabulary):
    module = RecognitionModule(build(config, spec, vocabulary), OptimizerSettings(
        learning_rate=0.02, weight_decay=0.03, encoder_lr_mult=0.1))
    module.trainer = type('Trainer', (), {'estimated_stepping_batches': 10})()
    optimizer = module.configure_optimizers()['optimizer']
    rates = {id(p): group['initial_lr'] for group in optimizer.param_groups
             for p in group['params']}
    decays = {id(p): group['weight_decay'] for group in optimizer.param_groups
              for p in group['params']}
    decayed, _ = split_by_decay(module.network)
    for name, parameter in module.network.named_parameters():
        encoder = name.startswith('encoders.')
        assert rates[id(parameter)] == pytest.approx(0.002 if encoder else 0.02), name
        assert decays[id(parameter)] == (0.03 if name in decayed else 0.0), name
    module.on_load_checkpoint({'optimizer_states': [optimizer.state_dict()]})
    with pytest.raises(InvalidSettingError, match='groups of'):
        RecognitionModule(module.network, OptimizerSettings()).on_load_checkpoint(
            {'optimizer_states': [optimizer.state_dict()]})


@pytest.mark.parametrize('mult', [0.0, -1.0, float('nan'), float('inf')])
def test_a_learning_rate_that_is_none_is_refused(mult):
    with pytest.raises(InvalidSettingError, match='encoder_lr_mult.*a number above 0'):
        OptimizerSettings(encoder_lr_mult=mult)


def test_a_checkpoint_of_other_groups_is_refused(config, spec, vocabulary):
    module = RecognitionModule(build(config, spec, vocabulary), OptimizerSettings())
    trained = [p for p in module.network.parameters() if p.requires_grad]
    older = torch.optim.AdamW([{'params': [p for p in trained if p.ndim > 1]},
                               {'params': [p for p in trained if p.ndim <= 1]}])
    with pytest.raises(InvalidSettingError, match='finish the run with that version, or give'):
        module.on_load_checkpoint({'optimizer_states': [older.state_dict()]})
    decayed, plain = split_by_decay(module.network)
    ours = torch.optim.AdamW(
        [{'params': list(decayed.values())}, {'params': list(plain.values())}])
    module.on_load_checkpoint({'optimizer_states': [ours.state_dict()]})
