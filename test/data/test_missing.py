"""Data with holes: what is hidden, that it can be batched, and that a network learns from it."""

from karmma_ros.clip import Clip
from karmma_ros.data.batch import collate, Sample
from karmma_ros.data.missing import WithoutSome
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.training.losses import classification_loss
import numpy as np
import pytest
import torch

ALL = tuple(Modality)


class Everything:
    """Clips with every modality; those of an epoch differ from those that are scored."""

    def __init__(self, spec, count):
        self.spec, self.count = spec, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.visit(index, -1)

    def visit(self, index, epoch):
        rng = np.random.default_rng((index, epoch + 1))
        inputs = {m: rng.random(self.spec.input_shape(m), np.float32) for m in Modality}
        inputs[Modality.DETECTIONS][..., 4] = 1
        return Sample(Clip(inputs), {'verb': index % 3, 'noun': index % 4}, index)


def present(clips):
    return np.array([[m in clips[i].clip.inputs for m in ALL] for i in range(len(clips))])


def test_the_share_of_each_modality_is_hidden_and_one_stays(spec):
    # With four modalities at a third, one sample in 81 would lose all and keeps one.
    kept = present(WithoutSome(Everything(spec, 2000), 1 / 3, seed=1))
    expected = 2 / 3 + (1 / 3) ** 4 / 4
    assert np.abs(kept.mean(0) - expected).max() < 4 * np.sqrt(2 / 9 / 2000)
    assert kept.any(1).all()
    both = (kept[:, 0] & kept[:, 1]).mean()  # each on its own
    assert both == pytest.approx(4 / 9, abs=4 * np.sqrt(0.25 / 2000))


def test_of_samples_that_would_lose_all_each_modality_stays_as_often(spec):
    kept = present(WithoutSome(Everything(spec, 1200), 1.0))
    assert (kept.sum(1) == 1).all()
    assert np.abs(kept.mean(0) - 1 / 4).max() < 4 * np.sqrt(3 / 16 / 1200)


def test_what_is_missing_stays_missing_and_the_rest_is_what_was_there(spec):
    whole = Everything(spec, 40)
    clips, again = WithoutSome(whole, 0.5, seed=3), WithoutSome(whole, 0.5, seed=3)
    assert (present(clips) == present(again)).all()
    assert (present(clips) != present(WithoutSome(whole, 0.5, seed=4))).any()
    for index in range(40):
        scored, visited = clips[index], clips.visit(index, 7)
        assert scored.clip.modalities == visited.clip.modalities
        assert (scored.labels, scored.index) == (whole[index].labels, index)
        for modality, values in visited.clip.inputs.items():
            assert np.array_equal(values, whole.visit(index, 7).clip.inputs[modality])


def test_a_modality_is_hidden_whether_or_not_the_others_were_recorded(spec):
    clips = WithoutSome(Everything(spec, 1), 0.5)
    pair = (Modality.RGB, Modality.AUDIO)
    for index in range(50):
        hidden = clips.hidden(index, ALL)
        if hidden >= set(pair):
            continue  # of the pair alone one has to stay
        assert clips.hidden(index, pair) == hidden & set(pair)


def test_nothing_is_hidden_at_share_0(spec):
    assert present(WithoutSome(Everything(spec, 5), 0.0)).all()


@pytest.mark.parametrize('share', [-0.1, 1.1, float('nan')])
def test_a_share_that_is_none_is_named(spec, share):
    with pytest.raises(InvalidSettingError, match='share is .*; it may be from 0 to 1'):
        WithoutSome(Everything(spec, 1), share)


def test_samples_with_a_third_of_each_modality_removed_make_a_batch(spec):
    clips = WithoutSome(Everything(spec, 60), 1 / 3)
    samples = [clips[i] for i in range(60)]
    batch = collate(samples, ALL)
    assert torch.equal(batch.present, torch.from_numpy(present(clips)))
    assert not batch.present.all() and batch.present.any(0).all()
    for column, modality in enumerate(ALL):
        rows = batch.present[:, column]
        values = batch.inputs[modality]
        assert values.shape == (60, *spec.input_shape(modality))
        assert (values[~rows] == 0).all()
        assert values[rows].flatten(1).any(1).all()
        first = int(rows.nonzero()[0])
        assert np.array_equal(values[first], samples[first].clip.inputs[modality])


@pytest.mark.parametrize('share', [1 / 3, 1.0])
def test_a_network_learns_from_them_with_every_encoder(config, spec, vocabulary, share):
    clips = WithoutSome(Everything(spec, 24), share, seed=5)
    torch.manual_seed(0)
    network = build(config, spec, vocabulary).train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    losses = []
    for epoch in range(6):
        batch = collate([clips.visit(i, epoch) for i in range(24)], network.modalities)
        assert not batch.present.all()
        loss = classification_loss(network(batch.inputs, batch.present), batch.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        for modality in Modality:
            gradients = [p.grad for p in network.encoders[modality.value].parameters()]
            assert all(g is not None and g.isfinite().all() for g in gradients), modality
            assert sum(float(g.abs().sum()) for g in gradients) > 0, modality
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
