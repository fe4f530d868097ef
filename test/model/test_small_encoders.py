"""Encoders of time series and depth: shapes, learning, exports, and how presets get them."""

from dataclasses import replace

from karmma_ros.cli.train import architecture
from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.backends import choose
from karmma_ros.model.backends.export import export
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders import build_encoder, token_shape
from karmma_ros.model.encoders.small import DepthCNN, SeriesCNN
from karmma_ros.model.presets import only, preset, unimodal
from karmma_ros.model.weights_check import check_clip
from karmma_ros.prediction import Vocabulary
from karmma_ros.training.stages import Pretraining, StudentTraining
import pytest
import torch

SPEC = ClipSpec(duration=1.0, num_frames=4, inputs={
    'imu': {'samples': 30}, 'imu_thigh': {'samples': 32},
    'depth': {'height': 20, 'width': 28}, 'skeleton': {'joints': 3, 'samples': 16},
    'joint_state': {'names': ('a', 'b'), 'samples': 16}, 'vector': {'size': 3, 'samples': 16}})
NEW = ('imu', 'imu_thigh', 'depth', 'skeleton', 'joint_state', 'vector')
VOCABULARY = Vocabulary({'action': ('wave', 'clap', 'sit')})


@pytest.mark.parametrize('name', ['tiny', 'tiny_stream', 'tiny_causal', 'tiny_teacher'])
@pytest.mark.parametrize('modality', map(Modality, NEW), ids=str)
def test_the_small_presets_have_an_encoder_of_each(name, modality):
    config = only(preset(name), [modality])
    encoder = build_encoder(config.encoders[modality], SPEC, modality).eval()
    shape = SPEC.input_shape(modality)
    tokens = encoder(torch.randn(2, *shape))
    assert tuple(tokens.shape[1:]) == token_shape(encoder, shape)
    assert torch.isfinite(tokens).all()


def test_one_of_several_has_the_encoder_of_its_type():
    config = preset('karmma_student')
    chosen = only(config, ['rgb', 'rgb_wrist'])
    assert chosen.encoders[Modality('rgb_wrist')] == config.encoders[Modality.RGB]
    given = replace(config, encoders={
        **config.encoders, Modality('imu'): EncoderConfig('series_cnn', {'width': 8})})
    assert only(given, ['imu_thigh']).encoders[Modality('imu_thigh')].options == {'width': 8}


def test_a_preset_without_an_encoder_names_the_setting():
    with pytest.raises(InvalidSettingError) as error:
        only(preset('karmma_student'), ['V', 'imu_thigh'])
    assert str(error.value) == (
        "modality is 'imu_thigh'; expected one that the preset karmma_student has an encoder for: "
        'set encoders.imu_thigh to one, or take a preset of tiny, tiny_causal, tiny_teacher')
    with pytest.raises(InvalidSettingError, match='take a preset of none'):
        only(preset('karmma_student'), ['detections'])


def test_none_is_added_unless_it_is_named():
    assert only(preset('tiny'), []).modalities == preset('tiny').modalities
    assert unimodal(preset('tiny_teacher'), Modality('depth')).modalities == ('depth',)


@pytest.mark.parametrize(('encoder', 'shape'), [
    (SeriesCNN((6, 1), 8), (6, 1)), (SeriesCNN((1, 37), 16, blocks=1, norm='batch'), (1, 37)),
    (DepthCNN((3, 1, 5, 9), (4, 8)), (3, 1, 5, 9))])
def test_they_take_any_size(encoder, shape):
    assert torch.isfinite(encoder.eval()(torch.rand(2, *shape))).all()


def test_series_have_a_token_for_every_fourth_sample():
    assert token_shape(SeriesCNN((8, 128)), (8, 128)) == (32, 80)
    assert token_shape(DepthCNN((3, 16, 48, 48)), (3, 16, 48, 48)) == (16 * 9, 128)


@pytest.mark.parametrize('options', [{'norm': 'layer'}, {'width': 12}, {'width': 0}])
def test_an_option_that_they_do_not_take_is_named(options):
    with pytest.raises(InvalidSettingError, match=f'encoder.options.{[*options][0]} is'):
        SeriesCNN((8, 16), **options)


@pytest.mark.parametrize(('encoder', 'shape'), [
    (SeriesCNN((2, 32), 16, norm='group'), (2, 32)),
    (SeriesCNN((2, 32), 16, norm='batch'), (2, 32)),
    (DepthCNN((1, 4, 8, 8), (8, 8)), (1, 4, 8, 8))], ids=['group', 'batch', 'depth'])
def test_they_learn_the_direction_of_time(encoder, shape):
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, shape[1]).view(1, 1, -1, *(1 for _ in shape[2:]))
    x = ramp.expand(32, *shape) + 0.3 * torch.randn(32, *shape)
    y = (torch.arange(32) % 2)
    x = torch.where(y.view(-1, *(1 for _ in shape)).bool(), x, x.flip(2))
    head = torch.nn.Linear(encoder(x).shape[-1], 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 5e-3)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(head(encoder(x).mean(1)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert (head(encoder.eval()(x).mean(1)).argmax(1) == y).float().mean() > 0.9


@pytest.mark.parametrize(
    ('target', 'backend'), [('openvino', 'openvino'), ('onnx', 'onnxruntime')]
)
def test_exports_agree(tmp_path, target, backend):
    torch.manual_seed(0)
    config = replace(only(preset('tiny'), NEW), dim=16, feedforward=16, heads=2)
    network = build(config, SPEC, VOCABULARY)
    save_bundle(tmp_path, network, config, SPEC, VOCABULARY, dataset='random', card='')
    bundle = load_bundle(tmp_path)
    _, trials = export(bundle, target, 'fp32')
    assert trials[-1].agrees and trials[-1].difference < 0.002
    assert f'{backend} fp32' in choose(bundle).reason


def test_weights_of_other_clips_are_refused(tmp_path):
    config = only(preset('tiny'), ['imu'])
    save_bundle(tmp_path, build(config, SPEC, VOCABULARY), config, SPEC, VOCABULARY,
                dataset='random', card='')
    weights = tmp_path / 'model.safetensors'
    check_clip(weights, replace(SPEC, num_frames=9), Modality('imu'))
    other = replace(SPEC, inputs={'imu': {'samples': 64}})
    with pytest.raises(InvalidSettingError, match='clip.inputs.imu.samples is 30 there and 64'):
        check_clip(weights, other, Modality('imu'))
    with pytest.raises(InvalidSettingError, match='clip.num_frames is 4 there and 9 here'):
        check_clip(weights, replace(SPEC, num_frames=9), Modality('depth'))


def test_a_stage_of_training_takes_them():
    config = architecture(StudentTraining(modalities=['V', 'imu_thigh'], weights={
        'imu_thigh': 'imu.safetensors', 'audio': 'audio.safetensors'}))
    assert config.modalities == ('rgb', 'imu_thigh')
    assert config.encoders[Modality('imu_thigh')] == EncoderConfig(
        'series_cnn', {}, 'imu.safetensors')
    alone = architecture(Pretraining(preset='tiny_teacher', modality='skeleton', weights={
        'skeleton': 'joints.safetensors'}))
    assert alone.encoders == {Modality('skeleton'): EncoderConfig(
        'series_cnn', {'norm': 'batch', 'width': 128}, 'joints.safetensors')}
    own = architecture(StudentTraining(preset='karmma_student', modalities=['A', 'imu'], encoders={
        'imu': EncoderConfig('series_cnn', {'width': 64})}))
    assert own.encoders[Modality('imu')].options == {'width': 64}
    with pytest.raises(InvalidSettingError, match="weights is 'imu'; expected rgb, flow"):
        architecture(StudentTraining(weights={'imu': 'imu.safetensors'}))
