"""Encoders from torchvision, timm and a user: the real ones, against the output of the library."""

from dataclasses import replace
import sys
import types

from karmma_ros.clip import AudioSpec, ClipSpec, DetectionSpec, FlowSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders import build_encoder, token_shape
from karmma_ros.model.encoders.library import as_video
from karmma_ros.model.encoders.mel import AST
from karmma_ros.model.encoders.video import prepare_torchvision
import pytest
import torch
from torch import nn

SPEC = ClipSpec(
    duration=1.0, num_frames=4, video=VideoSpec(32, 32), flow=FlowSpec(4.0),
    audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=26, tiles=4,
                    tile_steps=46),
    detections=DetectionSpec(3))
SWIN = {'patch_size': [2, 4, 4], 'embed_dim': 8, 'depths': [2, 2], 'num_heads': [1, 2],
        'window_size': [2, 4, 4]}


class FrameMeans(nn.Module):
    """A user's encoder: one token for each frame, its mean colour."""

    def __init__(self, input_shape, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        """Encode `[b, c, t, h, w]` into `[b, t, c]`."""
        return self.scale * x.mean((3, 4)).mT


@pytest.fixture
def user_package(monkeypatch):
    """Return the name under which a user's encoder can be imported."""
    module = types.ModuleType('somebodys_encoders')
    module.FrameMeans = FrameMeans
    module.Flat = nn.Flatten
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def encoder_for(name, modality=Modality.RGB, **options):
    torch.manual_seed(0)
    return build_encoder(EncoderConfig(name, options), SPEC, modality).eval()


@pytest.mark.parametrize(('name', 'options'), [
    ('torchvision:SwinTransformer3d', SWIN),
    ('torchvision:r3d_18', {}),
    ('torchvision:s3d', {}),
    ('timm:vit_tiny_patch16_224', {'depth': 1}),
    ('timm:swin_tiny_patch4_window7_224', {'depths': (1, 1), 'num_heads': (1, 2),
                                           'embed_dim': 8, 'window_size': 4}),
    ('timm:resnet10t', {}),
])
def test_an_encoder_of_a_library_gives_the_stated_number_of_tokens(name, options):
    shape = SPEC.input_shape(Modality.RGB)
    if name.endswith('s3d'):
        shape = (3, 16, 64, 64)  # it halves its input more often than the small clip allows
    spec = replace(SPEC, num_frames=shape[1], video=VideoSpec(*shape[2:]))
    encoder = build_encoder(EncoderConfig(name, options), spec, Modality.RGB).eval()
    with torch.inference_mode():
        tokens = encoder(torch.rand(2, *shape))
    assert tokens.shape[0] == 2
    assert tuple(tokens.shape[1:]) == token_shape(encoder, shape)
    assert torch.isfinite(tokens).all()


@torch.inference_mode()
def test_the_mean_of_the_tokens_is_what_torchvision_classifies():
    prepare_torchvision()
    from torchvision.models.video import SwinTransformer3d

    encoder = encoder_for('torchvision:SwinTransformer3d', **SWIN)
    library = SwinTransformer3d(**SWIN).eval()
    library.head = nn.Identity()
    library.load_state_dict(encoder.model.state_dict())
    x = torch.rand(2, *SPEC.input_shape(Modality.RGB))
    torch.testing.assert_close(encoder(x).mean(1), library(x))


@torch.inference_mode()
def test_timm_sees_every_frame_on_its_own_and_in_order():
    encoder = encoder_for('timm:vit_tiny_patch16_224', depth=1)
    x = torch.rand(2, *SPEC.input_shape(Modality.RGB))
    tokens = encoder(x).unflatten(1, (4, -1))  # [b, t, n, e]
    for t in range(4):
        torch.testing.assert_close(tokens[:, t], encoder.model.forward_features(x[:, :, t]))


@torch.inference_mode()
def test_timm_maps_become_tokens_row_by_row_whatever_their_layout():
    x = torch.rand(1, *SPEC.input_shape(Modality.RGB))[:, :, :1]
    for name in ('resnet10t', 'swin_tiny_patch4_window7_224'):
        encoder = encoder_for(f'timm:{name}')
        maps = encoder.model.forward_features(x[:, :, 0])
        pooled = maps.mean((1, 2)) if encoder.channels_last else maps.mean((2, 3))
        torch.testing.assert_close(encoder(x).mean(1), pooled)


@torch.inference_mode()
def test_ast_averages_class_and_distillation_token():
    torch.manual_seed(0)
    encoder = AST((4, 26, 46), dim=16, layers=1, heads=2).eval()
    x = torch.rand(1, 4, 26, 46)
    tokens, theirs = encoder(x), encoder.model.forward_features(x)
    assert tokens.shape == (1, 1 + 2 * 4, 16)
    torch.testing.assert_close(tokens[:, 0], (theirs[:, 0] + theirs[:, 1]) / 2)
    assert torch.equal(tokens[:, 1:], theirs[:, 2:])


@torch.inference_mode()
def test_ast_patches_overlap_as_in_the_paper():
    encoder = AST((1, 26, 46), dim=16, layers=1, heads=2)
    patches = encoder.model.patch_embed
    x = torch.rand(1, 1, 26, 46)
    second_row_third_column = x[0, 0, 10:26, 20:36]
    by_hand = (patches.proj.weight[:, 0] * second_row_third_column).sum((1, 2)) + patches.proj.bias
    torch.testing.assert_close(patches(x)[0, 4 + 2], by_hand, rtol=1e-4, atol=1e-5)


def test_the_paper_s_token_counts():
    with torch.device('meta'):
        swin = build_encoder(EncoderConfig('torchvision:swin3d_b'), ClipSpec(), Modality.RGB)
        ast = build_encoder(EncoderConfig('ast'), ClipSpec(), Modality.AUDIO)
    assert token_shape(swin, (3, 32, 224, 224)) == (16 * 7 * 7, 1024)
    assert token_shape(ast, (32, 128, 224)) == (253, 192)


def test_tiles_become_grey_frames_of_the_size_asked_for():
    tiles = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    video = as_video(tiles, None)
    assert video.shape == (2, 3, 3, 2, 2)
    assert all(torch.equal(video[:, c], tiles) for c in range(3))
    larger = as_video(tiles, (4, 6))
    assert larger.shape == (2, 3, 3, 4, 6)
    assert larger[1, 2, 1, 0, 0] == tiles[1, 1, 0, 0]
    assert larger[1, 2, 1, -1, -1] == tiles[1, 1, -1, -1]


def test_three_encoders_of_different_libraries_in_one_network(
    config, vocabulary, user_package, tmp_path
):
    config = replace(config, encoders={
        Modality.RGB: EncoderConfig('timm:vit_tiny_patch16_224', {'depth': 1}),
        Modality.FLOW: EncoderConfig(f'{user_package}:FrameMeans', {'scale': 2.0}),
        Modality.AUDIO: EncoderConfig('torchvision:SwinTransformer3d', {**SWIN, 'size': [32, 32]}),
    })
    network = build(config, SPEC, vocabulary).eval()
    inputs = {m: torch.rand(2, *SPEC.input_shape(m)) for m in network.modalities}
    present = torch.tensor([[True, True, True], [False, True, False]])
    before = network(inputs, present)
    path = tmp_path / 'mixed'
    save_bundle(path, network, config, SPEC, vocabulary, dataset='random', card='')
    after = load_bundle(path, custom_encoders=True).network(inputs, present)
    assert all(torch.equal(before[head], after[head]) for head in before)


def test_a_module_that_makes_no_tokens_is_refused(config, vocabulary, user_package):
    encoders = {Modality.RGB: EncoderConfig(f'{user_package}:Flat', {})}
    with pytest.raises(InvalidSettingError, match=r'Flatten.*to tokens \[1, n, e\]'):
        build(replace(config, encoders=encoders), SPEC, vocabulary)


@pytest.mark.parametrize(('modality', 'name', 'text'), [
    (Modality.AUDIO, 'r2plus1d', "encoders.audio is 'r2plus1d'.* inputs .4, 26, 46. of audio"),
    (Modality.RGB, 'ast', 'encoders.rgb is .*it refused them'),
])
def test_a_clip_that_the_encoder_cannot_take_is_refused(
    config, vocabulary, modality, name, text
):
    encoders = {modality: EncoderConfig(name)}
    with pytest.raises(InvalidSettingError, match=text):
        build(replace(config, encoders=encoders), SPEC, vocabulary)
