"""Video classifiers of torchvision: its own module, its own preprocessing, the same scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from karmma_ros.clip import VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.media.sources import crop_all
from karmma_ros.modalities import make_clip
from karmma_ros.modality import Modality
from karmma_ros.model.backends.export import export
from karmma_ros.model.builder import build
from karmma_ros.model.encoders.video import prepare_torchvision
from karmma_ros.model.imports import import_model, ImportSettings, SOURCES
from karmma_ros.model.imports.torchvision_video import torchvision_model
from karmma_ros.stream.recogniser import Recogniser
import numpy as np
import pytest
import torch

FACTS = {
    'swin3d_t': (28158070, 32, 32 / 15, 77.715),
    'swin3d_s': (49816678, 32, 32 / 15, 79.521),
    'swin3d_b': (88048984, 32, 32 / 15, 79.427),
    'mvit_v1_b': (36610672, 16, 16 / 7.5, 78.477),
    'mvit_v2_s': (34537744, 16, 16 / 7.5, 80.757),
    's3d': (8320048, 128, 128 / 15, 68.368),
    'r3d_18': (33371472, 16, 16 / 15, 63.2),
    'mc3_18': (11695440, 16, 16 / 15, 63.96),
    'r2plus1d_18': (31505325, 16, 16 / 15, 67.463),
}
"""Parameters, frames, seconds and accuracy as torchvision documents them."""


@pytest.mark.parametrize('name', FACTS)
def test_has_the_size_and_the_figures_of_the_published_model(name):
    model = torchvision_model(name)
    parameters, frames, seconds, accuracy = FACTS[name]
    with torch.device('meta'):
        network = build(model.config, model.spec, model.vocabulary)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert (model.spec.num_frames, model.spec.duration) == (frames, seconds)
    assert model.vocabulary.sizes == {'action': 400}
    assert model.origin.accuracy['top-1'] == accuracy
    assert name in model.origin.url and 'estimated on' in model.origin.protocol


def test_other_weights_of_a_model_are_chosen_by_name():
    model = torchvision_model('swin3d_b', 'KINETICS400_IMAGENET22K_V1')
    assert model.origin.accuracy['top-1'] == 81.643 and '22k' in model.origin.url


def mvit(**options: Any) -> Any:
    """Build an MViT of two blocks for clips of 4 frames of 32 x 32."""
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    blocks = [MSBlockConfig(num_heads=1, input_channels=8, output_channels=16, kernel_q=[3, 3, 3],
                            kernel_kv=[3, 3, 3], stride_q=[1, 1, 1], stride_kv=[1, 2, 2]),
              MSBlockConfig(num_heads=2, input_channels=16, output_channels=16, kernel_q=[3, 3, 3],
                            kernel_kv=[3, 3, 3], stride_q=[1, 2, 2], stride_kv=[1, 1, 1])]
    return MViT((32, 32), 4, blocks, residual_pool=True, residual_with_cls_embed=False,
                rel_pos_embed=True, proj_after_attn=True, **options)


@pytest.mark.parametrize(('name', 'builder', 'frames', 'side'), [
    ('mvit_v2_s', mvit, 4, 32),
    ('s3d', None, 24, 224),  # 3 positions in time, of which S3D pools the middle one twice
    ('r2plus1d_18', None, 4, 32),
])
def test_a_short_clip_gives_the_logits_of_torchvision(
    monkeypatch, tmp_path, name, builder, frames, side,
):
    prepare_torchvision()
    from torchvision.models import video

    if builder:
        monkeypatch.setattr(video, name, builder)
    torch.manual_seed(0)
    theirs = getattr(video, name)().eval()
    torch.save(theirs.state_dict(), tmp_path / 'a.pth')
    model = torchvision_model(name)
    spec = replace(model.spec, num_frames=frames, video=VideoSpec(side, side))
    monkeypatch.setitem(SOURCES, 'short', lambda *_: replace(model, spec=spec))
    bundle = import_model('short:', tmp_path / 'out', ImportSettings(file=tmp_path / 'a.pth'))
    x = torch.rand(1, 3, frames, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = bundle.network({Modality.RGB: x}, torch.ones(1, 1, dtype=torch.bool))['action']
        torch.testing.assert_close(logits, theirs(x), rtol=0, atol=1e-5)
    if builder:
        for target in ('onnx', 'openvino'):
            with pytest.raises(InvalidSettingError, match='mvit_v2_s runs with PyTorch only'):
                export(bundle, target)


def test_mvit_is_refused_for_clips_of_another_size():
    model = torchvision_model('mvit_v2_s')
    with torch.device('meta'), pytest.raises(
            InvalidSettingError, match=r'a module from \[1, 3, 8, 224, 224\] to tokens'):
        build(model.config, replace(model.spec, num_frames=8), model.vocabulary)


def test_frames_are_resized_as_torchvision_does():
    assert torchvision_model('r2plus1d_18').spec.video.resize == (128, 171)
    assert torchvision_model('s3d').spec.video.resize == (256, 256)
    assert torchvision_model('mvit_v2_s').spec.video == VideoSpec(
        224, 224, (0.45, 0.45, 0.45), (0.225, 0.225, 0.225), (256,))


def test_swin3d_t_gives_the_scores_of_torchvision(tmp_path):
    prepare_torchvision()
    from torchvision.models import video

    torch.manual_seed(0)
    theirs = video.swin3d_t(weights=None).eval()
    torch.nn.init.normal_(theirs.head.weight, std=0.5)  # far from uniform scores
    torch.save(theirs.state_dict(), tmp_path / 'a.pth')
    bundle = import_model(
        'torchvision:swin3d_t', tmp_path / 'out', ImportSettings(file=tmp_path / 'a.pth'))
    assert bundle.spec.video == VideoSpec(resize=(256,))
    frames = np.random.default_rng(0).integers(0, 256, (32, 256, 340, 3), dtype=np.uint8)
    clip = make_clip(bundle.spec, {Modality.RGB: crop_all(frames, bundle.spec.video.crop_size)})
    ours = Recogniser(bundle.network, bundle.vocabulary, bundle.spec).recognise(clip)
    weights = video.Swin3D_T_Weights.KINETICS400_V1
    with torch.no_grad():
        x = weights.transforms()(torch.from_numpy(frames).permute(0, 3, 1, 2))
        expected = theirs(x[None]).softmax(1)[0]
    assert expected.max() > 0.05
    np.testing.assert_allclose(ours.probabilities['action'], expected.numpy(), atol=1e-5)
    assert ours.top('action')[0].class_name == weights.meta['categories'][int(expected.argmax())]
