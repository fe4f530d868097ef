"""A published model of RGB alone in the node: its classes live, by PyTorch and by an export."""

from karmma_msgs.msg import ModelInfo
from karmma_ros.model.backends.export import export
from karmma_ros.model.encoders.video import prepare_torchvision
from karmma_ros.model.imports import import_model
import pytest
from safetensors.torch import save_file
import torch

from .conftest import LATCHED

prepare_torchvision()
import timm  # noqa: E402


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
