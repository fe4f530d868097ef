"""A backend predicts in the place of its network, whatever the batch and whatever samples lack."""

from karmma_ros.data.samples import Batch
from karmma_ros.evaluation.inference import BackendNetwork, collect
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.model.backends.export import export
from karmma_ros.model.backends.pytorch import Eager
from karmma_ros.model.backends.selection import read_export
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
import numpy as np
import pytest
import torch


@pytest.fixture
def bundle(tmp_path, config, spec, vocabulary):
    torch.manual_seed(0)
    save_bundle(tmp_path / 'small', build(config, spec, vocabulary), config, spec, vocabulary,
                dataset='Toys', card='')
    return load_bundle(tmp_path / 'small')


@pytest.fixture
def batch(spec):
    """Return three clips: a complete one, one without audio, one with nothing but audio."""
    torch.manual_seed(1)
    inputs = {m: torch.rand(3, *spec.input_shape(m)) for m in PAPER_MODALITIES}
    present = torch.tensor(
        [[m is not Modality.AUDIO or row != 1 for m in PAPER_MODALITIES] for row in range(2)]
        + [[m is Modality.AUDIO for m in PAPER_MODALITIES]]
    )
    return Batch(inputs, present, {'verb': torch.zeros(3, dtype=torch.long),
                                   'noun': torch.zeros(3, dtype=torch.long)}, torch.arange(3))


@pytest.mark.parametrize('runs', ['eager', 'onnx'])
def test_it_predicts_what_the_network_predicts(bundle, batch, runs):
    backend = Eager(bundle.network) if runs == 'eager' else read_export(
        bundle, export(bundle, 'onnx', 'fp32')[0])
    wanted = collect(bundle.network, [batch])
    predictions = collect(BackendNetwork(backend), [batch])
    assert list(predictions.logits) == list(wanted.logits)
    for subset, heads in wanted.logits.items():
        for head, logits in heads.items():
            np.testing.assert_allclose(predictions.logits[subset][head], logits, atol=1e-4)


def test_what_nobody_has_is_not_encoded(bundle, batch):
    asked = []

    class Noting(Eager):
        def encode(self, modality, x):
            asked.append((modality, len(x)))
            return super().encode(modality, x)

    collect(BackendNetwork(Noting(bundle.network)), [batch], chosen=[(Modality.AUDIO,)])
    assert asked == [(Modality.AUDIO, 1)] * 2
