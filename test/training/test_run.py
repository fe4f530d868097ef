"""A run on Lightning: it learns, and a stopped one ends like an unbroken one."""

from karmma_ros.clip import Clip
from karmma_ros.data.batch import Sample
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.subsets import score_subsets
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.training.run import CHECKPOINT, loader, RunSettings, train_student
from karmma_ros.training.student import Optimisation
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset


class Toy(Dataset):
    """Samples whose verb is their level; half of them lack the sound, half the flow."""

    def __init__(self, spec, count, break_at=None):
        self.spec, self.count, self.break_at, self.served = spec, count, break_at, 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.served += 1
        if self.served == self.break_at:
            raise KeyboardInterrupt
        rng = np.random.default_rng(index)
        verb = index % 2
        clip = {m: rng.random(self.spec.input_shape(m), np.float32) + verb
                for m in (Modality.RGB, Modality.FLOW, Modality.AUDIO)}
        clip.pop((Modality.FLOW, Modality.AUDIO)[index // 2 % 2])
        return Sample(Clip(clip), {'verb': verb, 'noun': index % 4})


SETTINGS = RunSettings(epochs=3, batch_size=6, seed=4,
                       optimisation=Optimisation(learning_rate=3e-3))


def trained(config, spec, vocabulary, folder, training):
    torch.manual_seed(0)
    network = build(config, spec, vocabulary)
    return train_student(network, training, Toy(spec, 6), SETTINGS, folder)


@pytest.mark.parametrize('unimodal_weight', [0.0, 1.0])
def test_it_learns_from_samples_that_lack_modalities(
    config, spec, vocabulary, tmp_path, unimodal_weight
):
    settings = RunSettings(epochs=5, batch_size=6, optimisation=Optimisation(
        learning_rate=1e-2, augmentation=0.0, unimodal_weight=unimodal_weight))
    torch.manual_seed(0)
    network = train_student(
        build(config, spec, vocabulary), Toy(spec, 60), Toy(spec, 6), settings, tmp_path)
    scores = score_subsets(network, loader(Toy(spec, 60), network.modalities, settings))
    assert scores['V']['verb'] > 0.8
    assert not network.training


def test_a_stopped_run_ends_like_an_unbroken_one(config, spec, vocabulary, tmp_path):
    whole = trained(config, spec, vocabulary, tmp_path / 'whole', Toy(spec, 24))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained(config, spec, vocabulary, tmp_path / 'cut', Toy(spec, 24, break_at=40))
    assert (tmp_path / 'cut' / CHECKPOINT).is_file()
    resumed = Toy(spec, 24)
    again = trained(config, spec, vocabulary, tmp_path / 'cut', resumed)
    assert resumed.served == 48  # two epochs of three were left
    for (name, ours), theirs in zip(whole.state_dict().items(), again.state_dict().values()):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(('make', 'text'), [
    (lambda: RunSettings(epochs=0), 'epochs is 0'),
    (lambda: RunSettings(batch_size=0), 'batch_size is 0'),
    (lambda: Optimisation(modality_dropout=1.5), 'modality_dropout is 1.5; it may be from 0 to 1'),
    (lambda: Optimisation(learning_rate=0.0), 'learning_rate is 0.0'),
])
def test_settings_out_of_range_are_named(make, text):
    with pytest.raises(InvalidSettingError, match=text):
        make()
