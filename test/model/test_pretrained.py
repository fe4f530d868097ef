"""Weights from files: loaded, adapted or left at random; the error when they are missing."""

from dataclasses import replace
from pathlib import Path

from karmma_ros.clip import AudioSpec, ClipSpec, DetectionSpec, FlowSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import save_bundle
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders import build_encoder
from karmma_ros.model.encoders.layout import STLT
from karmma_ros.model.encoders.video import prepare_torchvision
from karmma_ros.model.pretrained import find_weights, load_encoder, load_pretrained
from karmma_ros.model.weights_file import MissingWeightsError
import pytest
from safetensors.torch import save_file
import torch

SWIN_FILE = 'swin3d_t-7615ae03.pth'
DEIT = 'deit_tiny_distilled_patch16_224.fb_in1k'
DEIT_FILE = 'deit_tiny_distilled_patch16_224-b40b3cf7.pth'
SMALL_AUDIO = AudioSpec(
    n_fft=256, win_length=256, hop_length=160, n_mels=16, tiles=1, tile_steps=100)
SMALL = ClipSpec(audio=AudioSpec(n_mels=26, tiles=4, tile_steps=46))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Return the folder where torch keeps downloaded weights, empty, on a machine off the net."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')

    def refuse(url, path, hash_prefix=None):
        raise OSError('Network is unreachable')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub_cache'))
    folder = tmp_path / 'hub' / 'checkpoints'
    folder.mkdir(parents=True)
    return folder


def test_kinetics_weights_come_from_the_cache(cache):
    prepare_torchvision()
    from torchvision.models.video import swin3d_t

    published = swin3d_t()
    torch.save(published.state_dict(), cache / SWIN_FILE)
    config = EncoderConfig('torchvision:swin3d_t', weights='KINETICS400_V1')
    encoder = build_encoder(config, ClipSpec(), Modality.RGB)
    report = load_encoder(encoder, config, Modality.RGB)
    assert report.unused == ('model.head.weight', 'model.head.bias')
    assert (dict(report.adapted), dict(report.random)) == ({}, {})
    assert len(report.loaded) == len(encoder.state_dict())
    theirs = published.features[0][0].attn.qkv.weight
    assert torch.equal(encoder.model.features[0][0].attn.qkv.weight, theirs)
    assert f'{SWIN_FILE}: {len(report.loaded)} loaded, 0 adapted' in str(report)


def test_imagenet_weights_bend_to_the_spectrogram(cache):
    prepare_torchvision()
    import timm

    published = timm.create_model('deit_tiny_distilled_patch16_224', depth=2)
    torch.save({'model': published.state_dict()}, cache / DEIT_FILE)
    config = EncoderConfig('ast', {'layers': 3}, weights=DEIT)
    encoder = build_encoder(config, ClipSpec(), Modality.AUDIO)
    report = load_encoder(encoder, config, Modality.AUDIO, allow_mismatch=True)
    assert report.adapted == {
        'model.patch_embed.proj.weight': '3 channels shared out over 32',
        'model.pos_embed': '14×14 positions resampled to 12×21',
    }
    assert all('blocks.2' in name for name in report.random) and report.random
    assert [n for n in report.unused if 'head' in n] == list(report.unused)
    assert torch.equal(encoder.model.dist_token, published.dist_token)


def test_equal_tiles_give_the_output_of_the_grey_image(cache):
    prepare_torchvision()
    import timm

    published = timm.create_model('deit_tiny_distilled_patch16_224', depth=1)
    torch.save(published.state_dict(), cache / DEIT_FILE)
    config = EncoderConfig('ast', {'layers': 1}, weights=DEIT)
    encoder = build_encoder(config, SMALL, Modality.AUDIO)
    load_encoder(encoder, config, Modality.AUDIO)
    grey = torch.rand(1, 1, 26, 46)
    proj = encoder.model.patch_embed.proj
    theirs = torch.nn.functional.conv2d(
        grey.expand(-1, 3, -1, -1), published.patch_embed.proj.weight, proj.bias, stride=10)
    torch.testing.assert_close(proj(grey.expand(-1, 4, -1, -1)), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
def test_stlt_starts_from_a_file_of_other_length(tmp_path, suffix):
    small = {'dim': 8, 'heads': 2, 'spatial_layers': 1, 'temporal_layers': 1}
    old = STLT((3, 2, 5), **small)
    with torch.no_grad():
        old.frame.copy_(torch.tensor([0.0, 1.0, 2.0]).unsqueeze(1).expand(3, 8))
    path = tmp_path / f'stlt{suffix}'
    weights = old.state_dict()
    save_file(weights, path) if suffix == '.safetensors' else torch.save(weights, path)
    config = EncoderConfig('stlt', small, weights=str(path))
    encoder = STLT((5, 2, 5), **small)
    report = load_encoder(encoder, config, Modality.DETECTIONS)
    assert report.adapted == {'frame': '3 frames resampled to 5'}
    assert encoder.frame[:, 0].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert not report.random and not report.unused


def test_a_bundle_gives_each_encoder_its_own_part(tmp_path, config, spec, vocabulary):
    source = build(config, spec, vocabulary)
    path = tmp_path / 'model.safetensors'
    save_file({k: v.contiguous() for k, v in source.state_dict().items()}, path)
    encoders = {m: replace(e, weights=str(path)) for m, e in config.encoders.items()}
    encoders[Modality.AUDIO] = config.encoders[Modality.AUDIO]
    config = replace(config, encoders=encoders)
    network = build(config, spec, vocabulary)
    reports = load_pretrained(network, config)
    assert list(reports) == list(network.modalities)
    for m in (Modality.RGB, Modality.FLOW, Modality.DETECTIONS):
        ours, theirs = (n.encoders[m.value].state_dict() for n in (network, source))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert not reports[m].random
    assert str(reports[Modality.AUDIO]).startswith('from scratch: 0 loaded')
    assert set(reports[Modality.AUDIO].random) == set(network.encoders['audio'].state_dict())


def test_offline_the_error_names_the_file_its_url_and_its_path(cache):
    swin = EncoderConfig('torchvision:swin3d_b', weights='KINETICS400_V1')
    with pytest.raises(MissingWeightsError) as caught:
        find_weights(swin)
    text = str(caught.value)
    assert 'swin3d_b_1k-24f7c7c6.pth are not here (Network is unreachable)' in text
    assert 'fetch them from https://' in text
    assert str(cache / 'swin3d_b_1k-24f7c7c6.pth') in text
    assert "a local file's path as the encoder's `weights`" in text


def test_offline_the_error_names_the_path_in_the_hub_cache(cache):
    text = f'{DEIT}: copy .*models--timm--deit.* from a machine that has it'
    with pytest.raises(MissingWeightsError, match=text):
        find_weights(EncoderConfig('ast', weights=DEIT))


@pytest.mark.parametrize(('name', 'weights', 'text'), [
    ('torchvision:swin3d_t', 'IMAGENET', "weights is 'IMAGENET'; expected KINETICS400_V1"),
    ('torchvision:SwinTransformer3d', 'KINETICS400_V1', "expected a file's path"),
    ('timm:vit_tiny_patch16_224', 'vit_tiny', 'one of timm.list_pretrained'),
    ('stlt', 'ACTION_GENOME', 'stlt has no published weights'),
    ('r2plus1d', 'runs/kitchen_rgb', 'expected a model directory that exists, or the path of a '
     r'file .*: there is no such directory, .*: karmma train pretrain trains them'),
])
def test_names_that_mean_no_weights_are_refused(name, weights, text):
    with pytest.raises(InvalidSettingError, match=text):
        find_weights(EncoderConfig(name, weights=weights))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingWeightsError, match=r'nowhere\.pt are not here \(there is no such'):
        find_weights(EncoderConfig('stlt', weights=str(tmp_path / 'nowhere.pt')))


@pytest.mark.parametrize(('content', 'text'), [
    (b'', 'a safetensors file or a checkpoint'),
    (b'not a checkpoint', 'a safetensors file or a checkpoint'),
    ([1, 2], 'holds a list'),
    ({'other': torch.zeros(2)}, 'none of its 1 tensors fits; it has'),
])
def test_a_file_of_something_else_is_refused(tmp_path, content, text):
    path = tmp_path / 'weights.pt'
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    config = EncoderConfig('stlt', weights=str(path))
    with pytest.raises(InvalidSettingError, match=text):
        load_encoder(STLT((2, 2, 5), 8, 2, 1, 1), config, Modality.DETECTIONS)


def stlt_of(tmp_path, drop=0, **config):
    """Return an STLT of 42 tensors, and the configuration that loads all but `drop` of them."""
    options = {'dim': 8, 'heads': 2, 'spatial_layers': 1, 'temporal_layers': 2}
    weights = STLT((3, 2, 5), **options).state_dict()
    for name in list(weights)[-drop:] if drop else ():
        del weights[name]
    save_file(weights, tmp_path / 'stlt.safetensors')
    encoder = STLT((3, 2, 5), **options)
    return encoder, EncoderConfig('stlt', options, weights=str(tmp_path / 'stlt.safetensors'))


@pytest.mark.parametrize(('frozen', 'drop', 'refused'), [
    (True, 0, False), (True, 1, True), (False, 0, False), (False, 4, False), (False, 5, True)])
def test_a_frozen_encoder_needs_all_its_tensors_and_another_nine_of_ten(
        tmp_path, frozen, drop, refused):
    encoder, config = stlt_of(tmp_path, drop)
    assert len(encoder.state_dict()) == 42
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.requires_grad_(not frozen)
    if not refused:
        assert len(load_encoder(encoder, config, Modality.DETECTIONS).random) == drop
        return
    rule = 'no tensor of the frozen encoder' if frozen else 'at most 10% of the tensors'
    with pytest.raises(InvalidSettingError) as caught:
        load_encoder(encoder, config, Modality.DETECTIONS)
    text = str(caught.value)
    assert f'weights of stlt that leave {rule} at random: {drop} of 42 tensors would be' in text
    assert list(encoder.state_dict())[-drop] + ' (not in the file)' in text
    assert 'set allow_mismatched_weights to true' in text
    assert all(torch.equal(x, before[n]) for n, x in encoder.state_dict().items())
    report = load_encoder(encoder, config, Modality.DETECTIONS, allow_mismatch=True)
    assert len(report.random) == drop


def test_an_encoder_that_will_be_frozen_needs_them_too(tmp_path):
    encoder, config = stlt_of(tmp_path, 1)
    with pytest.raises(InvalidSettingError, match='1 of 42 tensors would be'):
        load_encoder(encoder, config, Modality.DETECTIONS, frozen=True)


def test_a_frozen_encoder_without_any_weights_is_refused(config, spec, vocabulary):
    config = replace(config, freeze_encoders=True)
    network = build(config, spec, vocabulary)
    with pytest.raises(InvalidSettingError, match="weights.rgb is ''.* no tensor of the frozen"):
        load_pretrained(network, config, spec)
    reports = load_pretrained(network, config, spec, allow_mismatch=True)
    assert all(report.random for report in reports.values())


def test_the_mixers_of_a_causal_encoder_are_new_only_where_it_is_trained(tmp_path):
    options = {'backbone': 'resnet10t', 'channels': [4, 4, 8, 8], 'stem_width': 4}
    config = EncoderConfig('causal_frames', options)
    weights = build_encoder(config, SMALL, Modality.RGB).state_dict()
    save_file({n: x.contiguous() for n, x in weights.items() if not n.startswith('mixers.')},
              tmp_path / 'image.safetensors')
    config = replace(config, weights=str(tmp_path / 'image.safetensors'))
    encoder = build_encoder(config, SMALL, Modality.RGB)
    assert load_encoder(encoder, config, Modality.RGB).random
    with pytest.raises(InvalidSettingError, match='mixers.0.weight .not in the file.'):
        load_encoder(encoder.requires_grad_(False), config, Modality.RGB)


@pytest.mark.parametrize(('change', 'concerns', 'text'), [
    ({'num_frames': 8}, 'rgb flow detections', 'clip.num_frames is 8 there and 4 here'),
    ({'duration': 3.0}, 'rgb flow audio detections', 'clip.duration is 3.0 there and 1.0 here'),
    ({'video': VideoSpec(16, 16, mean=(0.1, 0.2, 0.3))}, 'rgb', 'clip.video.mean is'),
    ({'video': VideoSpec(16, 16, std=(1.0, 1.0, 1.0))}, 'rgb', 'clip.video.std is'),
    ({'flow': FlowSpec(9.0)}, 'flow', 'clip.flow.bound is 9.0 there and 4.0 here'),
    ({'audio': replace(SMALL_AUDIO, mean=-3.0)}, 'audio', 'clip.audio.mean is -3.0 there'),
    ({'audio': replace(SMALL_AUDIO, sample_rate=8000)}, 'audio', 'clip.audio.sample_rate is 8000'),
    ({'detections': DetectionSpec(5)}, 'detections', 'clip.detections.max_boxes is 5 there'),
])
def test_weights_from_clips_of_another_specification_are_refused(
        tmp_path, config, spec, vocabulary, change, concerns, text):
    other = replace(spec, **change)
    save_bundle(tmp_path / 'other', build(config, other, vocabulary), config, other, vocabulary,
                dataset='', card='')
    for m, encoder in config.encoders.items():
        chosen = replace(encoder, weights=str(tmp_path / 'other' / 'model.safetensors'))
        ours = build_encoder(chosen, spec, m)
        if m.value not in concerns.split():
            assert not load_encoder(ours, chosen, m, spec).random
            continue
        with pytest.raises(InvalidSettingError) as caught:
            load_encoder(ours, chosen, m, spec)
        assert text in str(caught.value)
        load_encoder(ours, chosen, m, spec, allow_mismatch=True)


def test_the_weights_of_the_same_clips_are_taken(tmp_path, config, spec, vocabulary):
    save_bundle(tmp_path / 'same', build(config, spec, vocabulary), config, spec, vocabulary,
                dataset='', card='')
    path = tmp_path / 'same' / 'model.safetensors'
    chosen = replace(config.encoders[Modality.RGB], weights=str(path))
    assert not load_encoder(
        build_encoder(chosen, spec, Modality.RGB), chosen, Modality.RGB, spec).random
    (tmp_path / 'same' / 'config.json').write_text('{"format": "another library"}')
    load_encoder(build_encoder(chosen, spec, Modality.RGB), chosen, Modality.RGB, spec)
    (tmp_path / 'same' / 'config.json').write_text('{')
    with pytest.raises(InvalidSettingError, match='the configuration of a model of karmma_ros'):
        load_encoder(build_encoder(chosen, spec, Modality.RGB), chosen, Modality.RGB, spec)
