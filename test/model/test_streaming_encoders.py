"""Streaming encoders: chunks, and causal frames with a state."""

from dataclasses import replace

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import PAPER_MODALITIES
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.encoders import build_encoder, parts_of
from karmma_ros.model.encoders.causal import CausalFrames, CausalMel
from karmma_ros.model.encoders.causal_small import CausalDepth, CausalSeries
from karmma_ros.model.presets import ensemble, only, preset, unimodal
from karmma_ros.model.pretrained import load_encoder
from karmma_ros.model.streaming import chunks_of, EagerParts, positions_of
from karmma_ros.model.tokens import even_average, TokenEmbedding
import pytest
from safetensors.torch import save_file
import torch

V, F, A, D = PAPER_MODALITIES
PLAIN = EncoderConfig('r2plus1d', {'widths': [4, 8, 8]})
PAIRS = replace(PLAIN, chunk=2)
SHAPE = (3, 6, 32, 40)
BACKBONES = ['resnet10t', 'mobilenetv3_small_050', 'test_efficientnet', 'test_convnext']


def settle(module):
    """Change every weight and statistic from its initial value; switch to evaluation mode."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in module.parameters():
            weights.add_(0.02 * torch.randn_like(weights))
        for statistic in module.buffers():
            if statistic.is_floating_point():
                statistic.add_(0.1 * torch.rand_like(statistic))
    return module.eval()


@pytest.fixture(params=BACKBONES)
def causal(request):
    return settle(CausalFrames(SHAPE, request.param, kernel=3, grid=2))


@pytest.mark.parametrize('modality', [V, F], ids=str)
@torch.inference_mode()
def test_a_chunk_is_encoded_alike_wherever_it_lies(spec, modality):
    encoder = settle(build_encoder(PAIRS, spec, modality))
    video = torch.rand(2, 3, 4, 16, 16)
    turned = torch.cat([video[:, :, 2:], video[:, :, :2]], dim=2)
    old, new = encoder(video).chunk(2, dim=1)
    torch.testing.assert_close(encoder(turned), torch.cat([new, old], dim=1))
    torch.testing.assert_close(encoder.encode_chunks(video[:, :, 2:]), new)


@torch.inference_mode()
def test_the_flow_from_a_frame_outside_the_chunk_is_not_used(spec):
    video = torch.rand(1, 3, 4, 16, 16)
    changed = video.clone()
    changed[:, :, [0, 2]] = torch.nan
    for modality, same in ((F, True), (V, False)):
        encoder = settle(build_encoder(PAIRS, spec, modality))
        assert torch.equal(encoder(video), encoder(changed)) == same


@pytest.mark.parametrize(('encoder', 'modality', 'text'), [
    (replace(PLAIN, chunk=3), V, "rgb.chunk is 3; expected a divisor of the clip's 4 frames"),
    (EncoderConfig('mel_cnn', chunk=1), A, 'audio.chunk is 1; expected 0'),
    (EncoderConfig('layout_cnn', chunk=2), D, 'detections.chunk is 2; expected 0'),
    (EncoderConfig('causal_frames', {'backbone': 'test_vit'}), V, 'test_vit.*one of the families'),
    (EncoderConfig('causal_frames', {'backbone': 'no_such'}), V, "timm model is 'no_such'"),
])
def test_what_cannot_be_streamed_is_refused(spec, encoder, modality, text):
    with pytest.raises(InvalidSettingError, match=text):
        build_encoder(encoder, spec, modality)


def test_fewer_frames_than_none_are_refused():
    with pytest.raises(InvalidSettingError, match='encoder.chunk is -1'):
        EncoderConfig('r2plus1d', chunk=-1)


def test_a_cap_that_leaves_a_chunk_without_tokens_is_refused(config, spec, vocabulary):
    config = replace(config, encoders={V: replace(PLAIN, chunk=1)}, token_cap=3)
    with pytest.raises(InvalidSettingError, match='token_cap is 3; expected 4 or more'):
        build(config, spec, vocabulary)


def test_a_configuration_without_chunks_has_no_key_for_them(config):
    assert set(PLAIN.to_dict()) == {'name', 'options', 'weights'}
    assert PAIRS.to_dict()['chunk'] == 2
    config = replace(config, encoders={V: PAIRS, F: PLAIN})
    assert ModelConfig.from_dict(config.to_dict()) == config


@torch.inference_mode()
def test_chunks_divide_the_cap_and_have_order_tokens(config, spec, vocabulary):
    network = settle(build(replace(config, encoders={V: PAIRS}, reduction='even', token_cap=6),
                           spec, vocabulary))
    network.embedding(V).order_tokens.normal_()  # as far apart as training may bring them
    video = torch.rand(1, 3, 4, 16, 16)
    video[:, :, 2:] *= 10
    tokens = network.encoders['rgb'](video)  # [1, 8, e], 4 of each chunk
    embedding = network.embedding(V)
    assert embedding.parts == parts_of(network.encoders['rgb']) == 2
    expected = torch.cat([
        embedding(even_average(tokens[:, 4 * i:4 * i + 4], 3)) + embedding.order_tokens[i]
        for i in range(2)], dim=1)
    torch.testing.assert_close(network.encode(V, video), expected)
    assert embedding.absent_tokens.shape == (6, 16)
    turned = torch.cat([video[:, :, 2:], video[:, :, :2]], dim=2)
    present = torch.ones(1, 1, dtype=torch.bool)
    forward, backward = (network({V: x}, present)['verb'] for x in (video, turned))
    assert not torch.allclose(forward, backward, atol=1e-4)


def test_without_chunks_no_order_is_learned():
    names = [name for name, _ in TokenEmbedding(3, 5, 4).named_parameters()]
    assert 'order_tokens' not in names


def test_an_encoder_in_chunks_is_pretrained_on_its_mean_token(config, spec, vocabulary):
    config = unimodal(replace(config, encoders={V: PAIRS}), V)
    network = build(config, spec, vocabulary)
    logits = network({V: torch.rand(2, 3, 4, 16, 16)}, torch.ones(2, 1, dtype=torch.bool))
    assert {head: x.shape for head, x in logits.items()} == {'verb': (2, 3), 'noun': (2, 4)}


@torch.inference_mode()
def test_frame_by_frame_equals_the_complete_clip(causal):
    video = torch.rand(2, *SHAPE)
    complete = causal(video)
    past, tokens = None, []
    for i in range(SHAPE[1]):
        new, past = causal.step(video[:, :, i:i + 1], past)
        tokens.append(new)
    assert complete.shape[1] == 4 * SHAPE[1]
    torch.testing.assert_close(torch.cat(tokens, dim=1), complete, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_any_division_equals_the_complete_clip(causal):
    video = torch.rand(1, *SHAPE)
    first, past = causal.step(video[:, :, :1], None)
    second, _ = causal.step(video[:, :, 1:], past)
    torch.testing.assert_close(
        torch.cat([first, second], dim=1), causal(video), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_frame_changes_what_follows_and_nothing_before(causal):
    video = torch.rand(1, *SHAPE)
    changed = video.clone()
    changed[:, :, 2] += 1
    before, after = (causal(x).unflatten(1, (SHAPE[1], 4)) for x in (video, changed))
    moved = (before - after).abs().amax((0, 2, 3)) > 1e-6
    assert moved.tolist()[:4] == [False, False, True, True]


@torch.inference_mode()
def test_audio_chunk_by_chunk_equals_the_complete_spectrogram():
    encoder = settle(CausalMel((1, 32, 150), 25, backbone='resnet10t', kernel=3, grid=[2, 1]))
    x = torch.rand(2, 1, 32, 150)
    complete, past, tokens = encoder(x), None, []
    for count in (1, 2, 1, 2):
        first = 25 * sum(each.shape[1] // 2 for each in tokens)
        chunks = x[..., first:first + 25 * count].unflatten(3, (count, 25)).transpose(2, 3)
        new, past = encoder.step(chunks, past)
        tokens.append(new)
    assert complete.shape[:2] == (2, 6 * 2) and encoder.parts == 6
    torch.testing.assert_close(torch.cat(tokens, dim=1), complete, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_audio_changes_the_tokens_of_its_chunk_and_what_follows():
    encoder = settle(CausalMel((1, 32, 150), 25, backbone='resnet10t', kernel=3, grid=1))
    x = torch.rand(1, 1, 32, 150)
    changed = x.clone()
    changed[..., 60] += 1  # in the third chunk
    moved = (encoder(x) - encoder(changed)).abs().amax((0, 2)) > 1e-6
    assert moved.tolist()[:4] == [False, False, True, True]


def test_chunks_of_audio_divide_the_spectrogram():
    with pytest.raises(InvalidSettingError, match=(
            'columns of causal_mel is 40; expected a divisor of the 150 columns')):
        CausalMel((1, 32, 150), 40, backbone='resnet10t')
    with pytest.raises(InvalidSettingError, match='audio.tiles is 2; expected 1 for causal_mel'):
        CausalMel((2, 32, 150))


@pytest.mark.parametrize('norm', ['batch', 'group'])
@torch.inference_mode()
def test_a_series_chunk_by_chunk_equals_the_complete_window(norm):
    encoder = settle(CausalSeries((6, 64), 8, width=32, blocks=3, norm=norm))
    x = torch.rand(2, 6, 64)
    complete, past, tokens, first = encoder(x), None, [], 0
    for count in (1, 3, 2, 1, 1):
        chunks = x[..., 8 * first:8 * (first + count)].unflatten(2, (count, 8))
        new, past = encoder.step(chunks, past)
        tokens.append(new)
        first += count
    assert complete.shape == (2, 8 * 2, 32) and encoder.parts == 8
    torch.testing.assert_close(torch.cat(tokens, dim=1), complete, rtol=0, atol=1e-5)


@pytest.mark.parametrize('norm', ['batch', 'group'])
@torch.inference_mode()
def test_a_sample_changes_the_tokens_of_its_chunk_and_what_follows(norm):
    encoder = settle(CausalSeries((6, 64), 8, width=32, norm=norm))
    x = torch.rand(1, 6, 64)
    changed = x.clone()
    changed[..., 19] += 100  # in the third chunk
    moved = (encoder(x) - encoder(changed)).abs().amax((0, 2)).unflatten(0, (8, 2)).amax(1) > 1e-6
    assert moved.tolist()[:4] == [False, False, True, True]


@pytest.mark.parametrize(('options', 'text'), [
    ({'chunks': 5}, 'chunks is 5; expected a divisor of the 64 samples of the window, or 0'),
    ({'chunks': -1}, 'chunks is -1; expected a divisor'),
    ({'norm': 'layer'}, 'norm is .layer.; expected batch or group'),
    ({'width': 12}, 'width is 12; expected a multiple of 8'),
    ({'width': 24, 'norm': 'group'}, 'width is 24; expected 32 or more with the norm group'),
])
def test_chunks_divide_a_series(options, text):
    with pytest.raises(InvalidSettingError, match=text):
        CausalSeries((6, 64), **options)


@pytest.mark.parametrize(('samples', 'chunks', 'tokens'), [
    (128, 16, 32), (64, 16, 16), (32, 8, 8), (16, 4, 4), (30, 15, 15), (15, 15, 15), (17, 1, 17),
    (24, 6, 6), (1, 1, 1)])
@torch.inference_mode()
def test_a_series_of_any_length_is_divided_into_chunks(samples, chunks, tokens):
    encoder = settle(CausalSeries((6, samples), width=8, blocks=1))
    x = torch.rand(1, 6, samples)
    complete, past, parts = encoder(x), None, []
    for each in x.unflatten(2, (chunks, -1)).split(1, dim=2):
        new, past = encoder.step(each, past)
        parts.append(new)
    assert encoder.parts == chunks and complete.shape[1] == tokens
    torch.testing.assert_close(torch.cat(parts, dim=1), complete, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_depth_frame_by_frame_equals_the_complete_clip():
    encoder = settle(CausalDepth((3, 6, 16, 12), (4, 8)))
    video = torch.rand(2, 3, 6, 16, 12)
    complete, past, tokens = encoder(video), None, []
    for i in (0, 1, 2, 3):
        new, past = encoder.step(video[:, :, i:i + 1] if i < 3 else video[:, :, 3:], past)
        tokens.append(new)
    assert complete.shape == (2, 6 * 4 * 3, 8) and encoder.parts == 6
    torch.testing.assert_close(torch.cat(tokens, dim=1), complete, rtol=0, atol=1e-5)
    for options in ({'widths': ()}, {'widths': (0,)}, {'kernel': 1}):
        with pytest.raises(InvalidSettingError, match='one width or more, .* kernel of 2 or more'):
            CausalDepth((3, 6, 16, 12), **options)


@pytest.mark.parametrize('modality', ['imu', 'skeleton', 'depth', 'vector', 'joint_state'])
def test_the_causal_preset_has_an_encoder_with_a_state_for_every_modality(modality):
    config = only(preset('tiny_causal'), [modality])
    encoder, = config.encoders.values()
    assert encoder.name == ('causal_depth' if modality == 'depth' else 'causal_series')
    assert config.fusion == 'queries'


@torch.inference_mode()
def test_untrained_mixers_leave_the_image_model_as_it_is():
    torch.manual_seed(0)
    encoder = CausalFrames(SHAPE, 'resnet10t', grid=1).eval()
    video = torch.rand(1, *SHAPE)
    alone = [encoder.step(video[:, :, i:i + 1], None)[0] for i in range(SHAPE[1])]
    torch.testing.assert_close(encoder(video), torch.cat(alone, dim=1))


def saved(path, tensors):
    """Write tensors as a file of weights."""
    save_file({name: x.contiguous() for name, x in tensors.items()}, path)
    return str(path)


def test_chunks_start_from_an_encoder_of_complete_clips(spec, tmp_path):
    complete = settle(build_encoder(PLAIN, spec, V))
    path = saved(tmp_path / 'model.safetensors', {
        f'encoders.rgb.{name}': x for name, x in complete.state_dict().items()})
    chunked = build_encoder(PAIRS, spec, V)
    report = load_encoder(chunked, replace(PAIRS, weights=path), V)
    assert not report.random
    assert report.adapted == {'position': "8 positions averaged over the clip's 2 chunks"}
    torch.testing.assert_close(
        chunked.encoder.position, complete.position.unflatten(0, (2, 4)).mean(0))
    again = build_encoder(PAIRS, spec, V)
    path = saved(tmp_path / 'chunked.safetensors', {
        f'encoders.rgb.{name}': x for name, x in chunked.state_dict().items()})
    assert len(load_encoder(again, replace(PAIRS, weights=path), V).loaded) == len(
        again.state_dict())


def test_an_image_model_starts_from_its_own_weights(spec, tmp_path):
    config = EncoderConfig('causal_frames', {'backbone': 'resnet10t'})
    encoder = build_encoder(config, spec, V)
    path = saved(tmp_path / 'resnet.safetensors', {
        name.removeprefix('model.'): x for name, x in encoder.state_dict().items()
        if name.startswith('model.')})
    report = load_encoder(encoder, replace(config, weights=path), V)
    assert all(name.startswith('model.') for name in report.loaded)
    assert all(name.startswith('mixers.') for name in report.random)


@pytest.mark.parametrize(('name', 'tokens', 'parts'), [
    ('karmma_student_stream', (300, 300), 4), ('karmma_student_stream_16', (300, 300), 2),
    ('karmma_student_causal', (128, 64), 32)])
def test_the_full_size_networks_keep_to_the_papers_sequence(name, tokens, parts):
    from karmma_ros.evaluation.cost import setting
    with torch.device('meta'):
        network = build(preset(name), *setting(name))
    for modality, count in zip((V, F), tokens):
        embedding = network.embedding(modality)
        assert (len(embedding.absent_tokens), embedding.parts) == (count, parts)


@pytest.mark.parametrize('chunk', [2, 4])
@torch.inference_mode()
def test_positions_are_added_when_chunks_are_put_in_order(
        config, spec, vocabulary, chunk):
    config = replace(config, encoders={V: replace(PLAIN, chunk=chunk)})
    network = settle(build(config, spec, vocabulary))
    parts, positions = EagerParts(network), positions_of(network)[V]
    alone = [parts.encode_chunk(V, torch.rand(1, 3, chunk, 16, 16).numpy())
             for _ in range(4 // chunk)]
    positioned = torch.stack(alone) + torch.from_numpy(positions)[:, None]
    torch.testing.assert_close(parts.in_order(V, alone), positioned.flatten(0, 1)[None])


def test_an_ensemble_has_no_chunks_because_it_uses_the_mean_of_a_clip(config, spec, vocabulary):
    config = replace(config, encoders={**config.encoders, V: PAIRS})
    assert list(chunks_of(build(config, spec, vocabulary))) == [V]
    assert not chunks_of(build(ensemble(config), spec, vocabulary))


@pytest.mark.parametrize('encoder', [
    PAIRS, EncoderConfig('causal_frames', {'backbone': 'test_efficientnet', 'grid': 1})],
    ids=['chunks', 'causal'])
@torch.inference_mode()
def test_a_model_directory_brings_it_back(config, spec, vocabulary, tmp_path, encoder):
    config = replace(config, encoders={V: encoder, F: encoder})
    network = settle(build(config, spec, vocabulary))
    save_bundle(tmp_path / 'model', network, config, spec, vocabulary, dataset='', card='')
    bundle = load_bundle(tmp_path / 'model')
    inputs = {m: torch.rand(1, 3, 4, 16, 16) for m in (V, F)}
    present = torch.ones(1, 2, dtype=torch.bool)
    assert bundle.config == config
    torch.testing.assert_close(bundle.network(inputs, present), network(inputs, present))
