"""Image classifiers of timm: its own module, its own preprocessing, the same scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from karmma_ros.errors import InvalidSettingError
from karmma_ros.media.sources import crop_all
from karmma_ros.modalities import make_clip
from karmma_ros.modality import Modality
from karmma_ros.model.encoders.video import prepare_torchvision
from karmma_ros.model.imports import import_model, ImportSettings
from karmma_ros.model.imports.timm_image import timm_model
from karmma_ros.model.pretrained import timm_file
from karmma_ros.model.weights_file import MissingWeightsError
from karmma_ros.stream.recogniser import Recogniser
import numpy as np
import pytest
from safetensors.torch import save_file
import torch

prepare_torchvision()
import timm  # noqa: E402

MODELS = ('test_vit', 'test_resnet', 'test_efficientnet', 'test_convnext')


def theirs(name: str) -> Any:
    """Return a model of timm with random weights."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    with torch.no_grad():
        features = model.forward_features(torch.randn(1, 3, 160, 160))
        length = float(model.forward_head(features, pre_logits=True).norm())
    # Far from uniform scores.
    torch.nn.init.normal_(model.get_classifier().weight, std=2 / length)
    return model


@pytest.mark.parametrize('name', MODELS)
def test_gives_the_scores_of_timm(tmp_path, name):
    model = theirs(name)
    path = tmp_path / 'model.safetensors'
    save_file(model.state_dict(), path)
    source = f'timm:{name}.r160_in1k={path}'
    bundle = import_model(source, tmp_path / 'out')
    spec = bundle.spec.video
    frames = np.random.default_rng(0).integers(0, 256, (1, *spec.resize, 200, 3), dtype=np.uint8)
    clip = make_clip(bundle.spec, {Modality.RGB: crop_all(frames, spec.crop_size)})
    ours = Recogniser(bundle.network, bundle.vocabulary, bundle.spec).recognise(clip)
    from PIL import Image
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    with torch.no_grad():
        expected = model(transform(Image.fromarray(frames[0]))[None]).softmax(1)[0]
    np.testing.assert_allclose(ours.probabilities['object'], expected.numpy(), atol=1e-5)
    assert expected.max() > 0.01
    assert bundle.source['licence'] == 'apache-2.0' and bundle.source['commercial_use']
    assert bundle.config.encoders[Modality.RGB].name == f'timm:{name}'


def test_the_classes_are_those_of_imagenet():
    names = timm_model('test_vit').vocabulary.heads['object']
    assert len(set(names)) == 1000 and names[0] == 'tench, Tinca tinca'
    assert names[134] == 'crane (n02012849)'


def test_the_preprocessing_is_that_of_the_weights():
    spec = timm_model('mobilenetv3_large_100.ra_in1k').spec
    assert (spec.video.height, spec.video.resize, spec.num_frames) == (224, (256,), 1)


def test_a_licence_that_forbids_commercial_use_is_stated():
    origin = timm_model('convnextv2_atto.fcmae_ft_in1k').origin
    assert origin.terms == 'cc-by-nc-4.0: no commercial use'


@pytest.mark.parametrize(('name', 'text'), [
    ('no_model', r'timm:NAME, with a name of timm.list_pretrained\(\)'),
    ('vit_base_patch16_224.dino', 'it has 0 classes; start an encoder'),
    ('deit_tiny_distilled_patch16_224', 'one linear classifier'),
])
def test_refuses_models_without_classes_of_imagenet(name, text):
    with pytest.raises(InvalidSettingError, match=text):
        timm_model(name)


def test_an_unknown_tag_lists_the_known():
    with pytest.raises(InvalidSettingError, match="'timm:resnet18.best'; expected timm:resnet18"):
        timm_model('resnet18.best')
    with pytest.raises(InvalidSettingError, match='weights is .*one of timm.list_pretrained'):
        timm_file('resnet18.best')


def save(path: Path, change: Any) -> str:
    weights = theirs('test_resnet').state_dict()
    change(weights)
    save_file(weights, path)
    return f'timm:test_resnet={path}'


@pytest.mark.parametrize(('change', 'text'), [
    (lambda w: w.pop('fc.bias'), 'embeddings.rgb.project.bias is missing'),
    (lambda w: w.update({'more': torch.zeros(1)}), 'the network has no encoders.rgb.model.more'),
    (lambda w: w.update({'fc.bias': torch.zeros(5)}), r'project.bias is \[5\], expected \[1000\]'),
    (lambda w: w.clear() or w.update({'fc.bias': torch.zeros(1)}), 'tensors do not fit'),
])
def test_refuses_another_network(tmp_path, change, text):
    with pytest.raises(InvalidSettingError, match=text):
        import_model(save(tmp_path / 'a.safetensors', change), tmp_path / 'out')


def test_refuses_a_damaged_file(tmp_path):
    source = save(tmp_path / 'a.safetensors', lambda weights: None)
    content = (tmp_path / 'a.safetensors').read_bytes()
    (tmp_path / 'a.safetensors').write_bytes(content[:-100])
    with pytest.raises(InvalidSettingError, match='a safetensors file or a checkpoint of tensors'):
        import_model(source, tmp_path / 'out')


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    requested = []

    def fetch(repository, file, local_files_only):
        requested.append(local_files_only)
        if local_files_only:
            raise FileNotFoundError('it is not in the cache')
        save(tmp_path / file, lambda weights: None)
        return str(tmp_path / file)
    monkeypatch.setattr('huggingface_hub.hf_hub_download', fetch)
    with pytest.raises(MissingWeightsError, match='huggingface.co/timm/test_resnet.r160_in1k'):
        import_model('timm:test_resnet', tmp_path / 'out')
    assert import_model('timm:test_resnet', tmp_path / 'out', ImportSettings(download=True))
    assert requested == [True, False]
