"""X3D, X3D of a stream and MoViNet: a stream gives what a clip gives, in the published order."""

from __future__ import annotations

from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.cost import count_operations
from karmma_ros.modality import Modality
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders import build_encoder
from karmma_ros.model.encoders.movinet import _AveragePool, _padded, MoViNet
from karmma_ros.model.encoders.stream_memory import StreamMemory
from karmma_ros.model.encoders.x3d import ContinualX3D, X3D
import pytest
import torch

V = Modality.RGB
SHAPE = (3, 6, 44, 44)
SMALL = {'widths': (8, 16), 'depths': (1, 2), 'features': 24}
STREAMS = {
    'delayed': lambda **options: ContinualX3D(SHAPE, **SMALL, **options),
    'undelayed': lambda **options: ContinualX3D(SHAPE, **SMALL, delayed=False, **options),
    'a0': lambda **options: MoViNet(SHAPE, 'a0', **options),
    'a2': lambda **options: MoViNet(SHAPE, 'a2', **options),
}


def settle(module):
    """Change every weight and statistic from its initial value; switch to evaluation mode."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weights in module.named_parameters():
            weights.add_(0.15 * torch.randn_like(weights))
            if name.endswith('alpha'):  # zero would leave the residual alone
                weights.fill_(0.7)
        for statistic in module.buffers():
            if statistic.is_floating_point():
                statistic.add_(0.1 * torch.rand_like(statistic))
    return module.eval()


@pytest.fixture(params=STREAMS)
def stream(request):
    return settle(STREAMS[request.param](grid=1))


def stepped(encoder, video, sizes):
    """Return the tokens of a video, encoded in steps of so many frames."""
    past, tokens = None, []
    for part in video.split(sizes, dim=2):
        new, past = encoder.step(part, past)
        tokens.append(new)
    return torch.cat(tokens, dim=1)


@pytest.mark.parametrize('sizes', [[1] * 6, [2, 2, 2], [1, 5], [3, 1, 2]], ids=str)
@torch.inference_mode()
def test_any_division_equals_the_complete_clip(stream, sizes):
    video = torch.rand(2, *SHAPE)
    complete = stream(video)
    assert complete.shape[:2] == (2, 6) and stream.parts == 6
    assert complete.std(1).mean() > 1e-2 * complete.abs().mean() > 0  # the frames differ
    torch.testing.assert_close(stepped(stream, video, sizes), complete, rtol=1e-3, atol=1e-5)


@torch.inference_mode()
def test_a_frame_changes_what_follows_and_nothing_before(stream):
    video = torch.rand(1, *SHAPE)
    changed = video.clone()
    changed[:, :, 3] += 1
    moved = (stream(video) - stream(changed)).abs().amax((0, 2)) > 1e-6
    first = 3 if not getattr(stream, 'delay', 0) else 4
    assert not moved[:3].any() and moved[first:].all()


@pytest.mark.parametrize('name', STREAMS)
@torch.inference_mode()
def test_the_classifier_gets_one_token_of_all_frames(name):
    encoder = settle(STREAMS[name](classifier_tokens=True))
    video = torch.rand(2, *SHAPE)
    token = encoder(video)
    assert token.shape[1] == encoder.parts == 1
    torch.testing.assert_close(
        stepped(encoder, video, [2, 4])[:, -1:], token, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(token, encoder(video[:, :, 1:]), rtol=1e-3)


@torch.inference_mode()
def test_delayed_frames_are_those_of_x3d_where_no_edge_is_near():
    """Squeeze-and-excitation is switched off: its mean is of a clip in one, of a frame here."""
    shape = (3, 24, 32, 32)
    clip = settle(X3D(shape, **SMALL))
    continual = settle(ContinualX3D(shape, **SMALL, grid=4))  # as many as the feature map has
    for name, weights in clip.named_parameters():
        if 'norm_b.1.block.2' in name:
            weights.fill_(0 if name.endswith('weight') else 20)
    continual.load_state_dict(clip.state_dict())
    video, delay = torch.rand(1, *shape), continual.delay
    assert delay == 2 + 3
    wanted, tokens = (each(video).unflatten(1, (24, 16)) for each in (clip, continual))
    torch.testing.assert_close(  # convolutions reach as far on either side
        tokens[:, 2 * delay:], wanted[:, delay:-delay], rtol=1e-3, atol=1e-5)


def test_a_mean_fades_after_its_horizon():
    past, means = None, []
    for x in (1.0, 2.0, 6.0, 0.0):
        memory = StreamMemory(past, 1)
        frame = torch.full((1, 1), x)
        means.append(memory.running_mean(frame, memory.rates(frame, 2)).item())
        past = memory.kept
    assert means == pytest.approx([1, 1.5, 3.75, 1.875])


@pytest.mark.parametrize(('size', 'stride', 'padding'), [
    (6, 2, (0, 1)), (5, 2, (1, 1)), (6, 1, (1, 1))])
def test_pads_as_tensorflow(size, stride, padding):
    x = torch.ones(1, 1, size, size)
    row = _padded(x, 3, stride)[0, 0, size // 2]
    before, after = padding
    assert row.tolist() == [0] * before + [1] * size + [0] * after


def test_the_average_at_an_edge_is_of_the_pixels_inside():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    torch.testing.assert_close(_AveragePool()(x), torch.tensor(
        [[[[5.0, 6.5], [11.0, 12.5]]]]))


@pytest.mark.parametrize(('encoder', 'spec', 'gmacs', 'parameters'), [
    (EncoderConfig('x3d'), ClipSpec(1, 13, VideoSpec(160, 160)), 1.96, 3.79),
    (EncoderConfig('x3d'), ClipSpec(1, 16, VideoSpec(224, 224)), 4.73, 3.79),
    (EncoderConfig('movinet', {'variant': 'a2'}), ClipSpec(1, 50, VideoSpec(224, 224)), 10.3, 4.8),
])
def test_has_the_published_cost(encoder, spec, gmacs, parameters):
    """Multiply-accumulates of a clip; parameters with a classifier of Kinetics."""
    encoder = EncoderConfig(encoder.name, {**encoder.options, 'classifier_tokens': True})
    with torch.device('meta'):
        network = build_encoder(encoder, spec, V).eval()
    x = torch.empty(1, *spec.input_shape(V), device='meta')
    operations, _ = count_operations(lambda: network(x))
    assert operations / 2e9 == pytest.approx(gmacs, rel=0.04)


@pytest.mark.parametrize(('encoder', 'text'), [
    (EncoderConfig('x3d', {'depths': (1, 2)}), 'as many widths as depths, each 1 or more'),
    (EncoderConfig('x3d_continual', {'widths': (), 'depths': ()}), 'as many widths as depths'),
    (EncoderConfig('movinet', {'variant': 'a9'}), "'a9'.*expected variant a0 or a2"),
    (EncoderConfig('movinet', {'horizon': 0}), 'a horizon of 1 or more'),
])
def test_options_that_have_no_network_are_refused(spec, encoder, text):
    with pytest.raises(InvalidSettingError, match=text):
        build_encoder(encoder, spec, V)


@pytest.mark.parametrize('name', ['x3d', 'x3d_continual', 'movinet'])
def test_trains(name):
    options = {} if name == 'movinet' else SMALL
    encoder = build_encoder(
        EncoderConfig(name, options), ClipSpec(1, 4, VideoSpec(64, 64)), V)
    before = [statistic.clone() for key, statistic in encoder.named_buffers() if 'mean' in key]
    loss = encoder(torch.rand(2, 3, 4, 64, 64)).square().mean()
    loss.backward()
    after = [statistic for key, statistic in encoder.named_buffers() if 'mean' in key]
    assert loss > 0 and not any(map(torch.equal, before, after))
    unused = [key for key, weights in encoder.named_parameters() if weights.grad is None]
    assert not unused
