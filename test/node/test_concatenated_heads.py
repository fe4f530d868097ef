"""A model whose heads take all output tokens, as of `karmma finetune`, live by each backend."""

from dataclasses import replace

from karmma_ros.model.backends.export import export
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.presets import preset
import pytest
import torch


@pytest.fixture(scope='module')
def concatenated(bundle, tmp_path_factory):
    """Return a model directory with exports."""
    own = load_bundle(bundle)
    config = replace(preset('tiny'), pooling='concatenated')
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('concatenated') / 'model'
    save_bundle(path, build(config, own.spec, own.vocabulary), config, own.spec, own.vocabulary,
                dataset='none', card='')
    for target in ('openvino', 'onnx'):
        export(load_bundle(path), target, 'fp32')
    return path


@pytest.mark.parametrize('backend', ['eager', 'openvino', 'onnxruntime'])
def test_it_recognises_with_all_sensors_and_without_some(stage, perform, concatenated, backend):
    perform(model=str(concatenated), backend=backend, leave_one_out=True)

    def used():
        return [m.name for m in stage.results[-1].modalities if m.used] if stage.results else []
    every = ['rgb', 'flow', 'audio', 'detections']
    send = stage.periodic(20, stage.send_image, stage.send_audio, stage.send_boxes)
    assert stage.until(lambda: used() == every, step=send)
    assert stage.until(lambda: len(stage.results[-1].leave_one_out) == 4, step=send)
    with_all = stage.results[-1]
    assert stage.until(lambda: used() == ['rgb', 'flow'], step=stage.periodic(
        20, stage.send_image))
    for result in (with_all, stage.results[-1]):
        assert 0 < result.verbs[0].score < 1 and 0 < result.nouns[0].score < 1
    assert with_all.verbs[0].score != stage.results[-1].verbs[0].score
