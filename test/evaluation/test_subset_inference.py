"""Scores of every subset, against a network whose logits are known."""

from karmma_ros.data.samples import Batch
from karmma_ros.evaluation.classification import top1
from karmma_ros.evaluation.inference import collect
from karmma_ros.evaluation.report import accuracy_table
from karmma_ros.modality import Modality
import pytest
import torch

V, A = Modality.RGB, Modality.AUDIO


class Votes(torch.nn.Module):
    """Sum the inputs of the modalities, which are the logits themselves."""

    modalities = (V, A)

    def __init__(self):
        super().__init__()
        self.encoded = []

    def encode_present(self, inputs, present):
        self.encoded += inputs
        return inputs

    def fuse(self, tokens, present=None):
        total = sum(tokens.values())
        return {'verb': total[:, :2], 'noun': total[:, 2:]}


def batch(present):
    # Truth: verb 0, noun 1. Vision is right on the first clip only, audio on all verbs.
    vision = torch.tensor([[1., 0, 0, 1], [0, 1, 1, 0]])
    audio = torch.tensor([[3., 0, 0, 0], [3., 0, 0, 0]])
    labels = {'verb': torch.tensor([0, 0]), 'noun': torch.tensor([1, 1])}
    return Batch({V: vision, A: audio}, torch.tensor(present), labels, torch.arange(2))


def test_scores_by_hand():
    network = Votes()
    done = []
    scores = top1(collect(network, [batch([[True, True], [True, True]])], progress=done.append))
    assert list(scores) == ['V+A', 'V', 'A']
    assert scores['V+A'] == {'verb': 1.0, 'noun': 0.5, 'action': 0.5}
    assert scores['V'] == {'verb': 0.5, 'noun': 0.5, 'action': 0.5}
    assert scores['A'] == {'verb': 1.0, 'noun': 0.0, 'action': 0.0}
    assert network.encoded == [V, A]
    assert done == [2]


def test_a_sample_counts_only_for_the_sensors_it_has():
    scores = top1(collect(Votes(), [batch([[True, True], [False, True]])]))
    assert scores['V'] == {'verb': 1.0, 'noun': 1.0, 'action': 1.0}
    assert scores['A']['verb'] == 1.0
    assert scores['V+A']['action'] == 1.0


def test_a_subset_that_no_sample_has_is_left_out():
    assert list(top1(collect(Votes(), [batch([[False, True], [False, True]])]))) == ['A']


def test_the_table_has_a_row_for_each_subset():
    table = accuracy_table(
        {'V+A': {'verb': 0.5, 'action': 0.123}, 'V': {'verb': 1.0, 'action': 0.0}}
    )
    assert table.splitlines() == [
        '| sensors | verb | action |',
        '| --- | ---: | ---: |',
        '| V+A | 50.0 | 12.3 |',
        '| V | 100.0 | 0.0 |',
    ]


@pytest.mark.parametrize('present', [[[True, True], [True, False]]])
def test_batches_add_up(present):
    twice = top1(collect(Votes(), [batch(present), batch(present)]))
    once = top1(collect(Votes(), [batch(present)]))
    assert twice == once
