"""A published model of RGB alone in the node: its classes live, by PyTorch and by an export."""

from karmma_msgs.msg import ModelInfo
from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.model import streaming
from karmma_ros.model.backends.export import export
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders.video import prepare_torchvision
from karmma_ros.model.imports import import_model, ImportSettings, SOURCES
from karmma_ros.model.imports.origin import Origin, PublishedModel, rename
from karmma_ros.model.imports.torchvision_video import (
    classifier_config,
    RGB_CLASSIFIER,
    RGB_ENCODER,
)
from karmma_ros.prediction import Vocabulary
import pytest
from safetensors.torch import save_file
import torch

from .conftest import LATCHED

prepare_torchvision()
import timm  # noqa: E402

OPTIONS = {'patch_size': [2, 4, 4], 'embed_dim': 8, 'depths': [2], 'num_heads': [1],
           'window_size': [2, 3, 3]}


@pytest.fixture(scope='module')
def imported(tmp_path_factory):
    """Import an image model of timm with random weights."""
    folder = tmp_path_factory.mktemp('imported')
    torch.manual_seed(0)
    save_file(timm.create_model('test_resnet').state_dict(), folder / 'weights.safetensors')
    return import_model(
        f'timm:test_resnet={folder / "weights.safetensors"}', folder / 'test_resnet')


@pytest.mark.parametrize('backend', ['eager', 'openvino'])
def test_an_imported_model_recognises_live(stage, perform, imported, backend):
    if backend != 'eager':
        export(imported, backend)
    described = []
    stage.node.create_subscription(ModelInfo, 'karmma/model_info', described.append, LATCHED)
    stage.connected = lambda: stage.images.get_subscription_count() and described
    perform(model=str(imported.path), backend=backend)
    send = stage.periodic(20, stage.send_image)
    assert stage.until(lambda: len(stage.results) >= 3 and stage.results[-1].verbs, step=send)
    result, names = stage.results[-1], imported.vocabulary.heads['object']
    best = result.verbs[0]
    assert names[int(best.class_id)] == best.class_name and 0 < best.score < 1
    assert not result.nouns and result.actions[0].verb == best.class_name
    assert [m.name for m in result.modalities if m.used] == ['rgb']
    assert described[-1].model_id == imported.model_id
    assert 'apache-2.0' in described[-1].dataset and list(described[-1].verbs) == list(names)


def in_chunks(folder, monkeypatch):
    """Import a video model of four frames, two of them at a time."""
    from torchvision.models.video import SwinTransformer3d

    head = {f'head.{part}': f'{RGB_CLASSIFIER}{part}' for part in ('weight', 'bias')}
    monkeypatch.setitem(SOURCES, 'small', lambda name, settings: PublishedModel(
        Origin('small:swin', 'https://example.org', 'a data set', 'CC BY-NC 4.0', 'A paper.',
               commercial_use=False),
        classifier_config('small:swin', EncoderConfig('torchvision:SwinTransformer3d', OPTIONS)),
        ClipSpec(0.4, 4, VideoSpec(16, 16, resize=(20,))), Vocabulary({'action': ('cut', 'stir')}),
        lambda weights: rename(weights, lambda name: head.get(name, RGB_ENCODER + name))))
    torch.manual_seed(0)
    torch.save(SwinTransformer3d(**OPTIONS, num_classes=2).state_dict(), folder / 'small.pth')
    return import_model('small:swin', folder / 'streaming',
                        ImportSettings(file=folder / 'small.pth', chunk=2))


@pytest.mark.parametrize('backend', ['eager', 'openvino'])
def test_an_imported_model_streams_in_chunks(stage, perform, tmp_path, monkeypatch, backend):
    bundle, encoded = in_chunks(tmp_path, monkeypatch), []
    if backend != 'eager':
        export(bundle, backend)
    encode = streaming.EagerParts.encode_chunk
    monkeypatch.setattr(streaming.EagerParts, 'encode_chunk', lambda parts, modality, x: (
        encoded.append(x.shape), encode(parts, modality, x))[1])
    described = []
    stage.node.create_subscription(ModelInfo, 'karmma/model_info', described.append, LATCHED)
    stage.connected = lambda: stage.images.get_subscription_count() and described
    perform(model=str(bundle.path), backend=backend, rate=5.0)
    send = stage.periodic(20, stage.send_image)
    assert stage.until(lambda: len(stage.results) >= 3 and stage.results[-1].verbs, step=send)
    assert {best.class_name for best in stage.results[-1].verbs} <= {'cut', 'stir'}
    assert 'CC BY-NC 4.0: no commercial use' in described[-1].dataset
    if backend == 'eager':
        assert encoded and set(encoded) == {(1, 3, 2, 16, 16)}
