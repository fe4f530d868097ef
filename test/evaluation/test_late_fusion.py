"""Late fusion is the sum of the log-probabilities of networks that were trained apart."""

from karmma_ros.data.samples import Batch
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.inference import collect
from karmma_ros.evaluation.late_fusion import late_fusion
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.presets import only
from karmma_ros.prediction import Vocabulary
import pytest
import torch


@pytest.fixture
def models(tmp_path, config, spec, vocabulary):
    """Return a function from modalities and classes to a model of random weights."""
    def make(name, *modalities, classes=vocabulary):
        own = only(config, modalities)
        save_bundle(tmp_path / name, build(own, spec, classes), own, spec, classes, dataset='',
                    card='')
        return load_bundle(tmp_path / name)
    return make


def test_log_probabilities_are_summed_for_every_subset(models, inputs):
    seen, received = models('seen', 'rgb'), models('received', 'audio')
    fused = late_fusion([seen, received])
    assert fused.network.modalities == (Modality.RGB, Modality.AUDIO)
    assert fused.name == 'seen+received' and fused.sha256 not in (seen.sha256, received.sha256)
    present = torch.tensor([[True, True], [True, False], [False, True]])
    batch = Batch(inputs, present, {'verb': torch.zeros(3, dtype=torch.long),
                                    'noun': torch.zeros(3, dtype=torch.long)}, torch.arange(3))
    predictions = collect(fused.network, [batch], 'cpu')
    alone = torch.ones(3, 1, dtype=torch.bool)
    first = seen.network(inputs, alone)['verb'].log_softmax(1)
    second = received.network(inputs, alone)['verb'].log_softmax(1)
    expected = {'V+A': first + second, 'V': first, 'A': second}
    for subset, rows in (('V+A', [0]), ('V', [0, 1]), ('A', [0, 2])):
        torch.testing.assert_close(
            torch.from_numpy(predictions.logits[subset]['verb'][rows]), expected[subset][rows],
            rtol=1e-4, atol=1e-5)


def test_models_that_do_not_fit_together_are_refused(models):
    video = models('video', 'rgb')
    with pytest.raises(InvalidSettingError, match="'V, V'; expected models without a common"):
        late_fusion([video, models('again', 'rgb')])
    other = models('other', 'audio', classes=Vocabulary({'verb': ('cut', 'stir')}))
    with pytest.raises(InvalidSettingError, match='vocabulary of other is .*that of video'):
        late_fusion([video, other])
