"""Heads that are trained, nearest class means, added classes; on features that are drawn here."""

from karmma_ros.modality import Modality
from karmma_ros.model.fusion import MultiHeadMLP
from karmma_ros.training.added_classes import add_classes, statistics_of
from karmma_ros.training.fused_features import FusedFeatures, Windows
from karmma_ros.training.head_training import (
    class_sums,
    HeadSettings,
    new_heads,
    predict,
    set_nearest_class_mean,
    train_heads,
)
import numpy as np
import pytest
import torch


class Drawn(FusedFeatures):
    """Two windows a segment of one modality, two output tokens of width 8, three classes."""

    def __init__(self, segments=30, seed=0):
        rng = np.random.default_rng(seed)
        self.modalities = (Modality.AUDIO,)
        self.subsets, self.counted = [(Modality.AUDIO,)], None
        self._subset_of = {frozenset(self.modalities): 0}
        self.segments = segments
        self.segment = np.repeat(np.arange(segments), 2)
        self.present = np.ones((2 * segments, 1), bool)
        self._rows = [np.flatnonzero(self.segment == n) for n in range(segments)]
        self.labels = {'action': np.arange(segments) % 3}
        centres = np.random.default_rng(9).normal(size=(3, 2, 8))
        self.tokens = (centres[self.labels['action'][self.segment]]
                       + 0.5 * rng.normal(size=(2 * segments, 2, 8))).astype(np.float32)

    def read(self, rows, subset):
        return Windows(torch.from_numpy(self.tokens[np.asarray(rows)]), None)


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return new_heads(MultiHeadMLP(8, {'verb': 4}), {'action': 3}, seed=0)


def right(heads, features, chosen=slice(None)):
    logits = predict(heads, features, np.arange(features.segments))[0]['action']
    return (logits.argmax(1) == features.labels['action'])[chosen].mean()


def test_the_best_class_is_the_nearest_mean(heads):
    features = Drawn()
    every = np.arange(features.segments)
    set_nearest_class_mean(heads, features, every, features.labels)
    pooled = heads.pool(torch.from_numpy(features.tokens)).detach().double()
    ids = torch.from_numpy(features.labels['action'][features.segment])
    means = torch.stack([pooled[ids == c].mean(0) for c in range(3)])
    rest = pooled - means[ids]
    covariance = rest.T @ rest / len(rest)
    metric = torch.linalg.inv(
        (covariance + torch.eye(16) * covariance.diagonal().mean()) / 2)
    gaps = pooled[:, None] - means
    distances = torch.einsum('nci,ij,ncj->nc', gaps, metric, gaps)
    logits = heads.classifiers['action'](pooled.float()).double().detach()
    # Equal up to what all classes have in common.
    assert torch.allclose(logits - logits[:, :1], -(distances - distances[:, :1]) / 2, atol=1e-3)
    assert right(heads, Drawn(seed=1)) > 0.9


def test_a_class_without_a_window_is_never_predicted(heads):
    features = Drawn()
    set_nearest_class_mean(heads, features, np.flatnonzero(
        features.labels['action'] != 2), features.labels)
    logits = predict(heads, features, np.arange(30))[0]['action']
    assert set(logits.argmax(1)) == {0, 1}
    assert class_sums(heads, features, np.arange(3), features.labels).counts[
        'action'].tolist() == [[2, 2, 2]]


def test_heads_are_trained_by_seed_and_reported(heads):
    features, losses = Drawn(), []
    settings = HeadSettings(steps=60, learning_rate=2e-2, seed=3)
    train_heads(heads, features, np.arange(30), features.labels, settings,
                lambda step, loss: losses.append((step, loss)))
    assert [step for step, _ in losses] == list(range(1, 61))
    assert losses[-1][1] < losses[0][1] and right(heads, Drawn(seed=1)) > 0.9
    torch.manual_seed(0)
    again = new_heads(MultiHeadMLP(8, {'verb': 4}), {'action': 3}, seed=0)
    train_heads(again, features, np.arange(30), features.labels, settings)
    assert all(torch.equal(a, b) for a, b in zip(heads.parameters(), again.parameters()))


@pytest.fixture
def old():
    """Return heads of the classes 0 and 1, and their statistics."""
    torch.manual_seed(0)
    heads = new_heads(MultiHeadMLP(8, {'verb': 4}), {'action': 2}, seed=0)
    features = Drawn(60)
    own = np.flatnonzero(features.labels['action'] < 2)
    set_nearest_class_mean(heads, features, own, features.labels)
    return heads, statistics_of(class_sums(heads, features, own, features.labels))


def test_a_third_class_is_learnt_and_the_others_are_kept(old):
    heads, statistics = old
    features, other = Drawn(seed=2), Drawn(300, seed=1)
    few = np.flatnonzero(features.labels['action'] == 2)[:5]
    added = add_classes(heads, statistics, {'action': 3}, features, few, features.labels,
                        HeadSettings())
    known = other.labels['action'] < 2
    assert right(added.heads, other, known) >= right(heads, other, known) - 0.02
    assert right(added.heads, other, ~known) > 0.8
    assert added.before > 0.9 and added.before - added.after < 0.01
    assert torch.equal(added.heads.classifiers['action'].weight[:2],
                       heads.classifiers['action'].weight)
    assert added.statistics.counts['action'].tolist() == [[40, 40, 10]]


def test_a_third_class_is_recognised_among_old_ones_that_are_confused(heads):
    near = torch.tensor([0.0, 0.3, 0.6])[:, None, None] * torch.ones(2, 8)

    def drawn(segments, seed):
        features, rng = Drawn(segments), np.random.default_rng(seed)
        noise = rng.normal(size=features.tokens.shape)
        features.tokens = (near[features.labels['action'][features.segment]].numpy()
                           + noise).astype(np.float32)
        return features
    features, other = drawn(120, 0), drawn(600, 1)
    old = np.flatnonzero(features.labels['action'] < 2)
    heads = new_heads(heads, {'action': 2}, seed=0)
    set_nearest_class_mean(heads, features, old, features.labels)
    statistics = statistics_of(class_sums(heads, features, old, features.labels))
    few = np.flatnonzero(features.labels['action'] == 2)[:20]
    added = add_classes(heads, statistics, {'action': 3}, features, few, features.labels,
                        HeadSettings())
    known = other.labels['action'] < 2
    before, after = right(heads, other, known), right(added.heads, other, known)
    assert 0.6 < added.before < 0.9
    assert right(added.heads, other, ~known) > 0.3  # 0.02 of what is allowed where they are apart
    assert before - after < 1 - added.before


def test_statistics_are_means_and_the_covariance_within(old):
    heads, statistics = old
    features = Drawn(60)
    pooled = heads.pool(torch.from_numpy(features.tokens)).detach().double()
    ids = torch.from_numpy(features.labels['action'][features.segment])
    rest = []
    for c in range(2):
        mean = pooled[ids == c].mean(0)
        assert torch.allclose(statistics.means['action'][0, c], mean, atol=1e-6)
        rest.append(pooled[ids == c] - mean)
    rest = torch.cat(rest)
    assert torch.allclose(statistics.covariances['action'], rest.T @ rest / len(rest), atol=1e-6)
