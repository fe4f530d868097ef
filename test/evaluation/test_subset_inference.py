"""Scores of every subset, against a network whose logits are known."""

from karmma_ros.calibration import Calibration, SubsetCalibration
from karmma_ros.clip import Clip
from karmma_ros.data.samples import Batch
from karmma_ros.evaluation.classification import top1
from karmma_ros.evaluation.inference import collect
from karmma_ros.evaluation.model_card import accuracy_table
from karmma_ros.evaluation.window_inference import BatchInference, Prepared
from karmma_ros.modality import Modality, subsets
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.stream.recogniser import Recogniser
import numpy as np
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


@pytest.mark.parametrize('calibrated', [True, False])
def test_windows_of_a_bag_are_calibrated_as_in_the_node(
        tmp_path, config, spec, vocabulary, inputs, calibrated):
    calibration = Calibration({
        subset: SubsetCalibration({'verb': 0.3 + i, 'noun': 2.0}, -2.4 - 0.1 * (i % 3))
        for i, subset in enumerate(subsets(inputs))})
    save_bundle(tmp_path / 'm', build(config, spec, vocabulary), config, spec, vocabulary,
                dataset='', card='', calibration=calibration if calibrated else None)
    bundle = load_bundle(tmp_path / 'm')
    node = Recogniser(bundle.network, bundle.vocabulary, bundle.spec,
                      calibration=bundle.calibration)
    clips = [Clip({m: x[i].numpy() for m, x in inputs.items()}) for i in range(3)]
    wanted = subsets(inputs)
    offline = BatchInference(bundle)([Prepared(c.inputs) for c in clips], [wanted] * 3)
    flags = []
    for subset in wanted:
        for i, clip in enumerate(clips):
            live, row = node.recognise(clip, subset), offline[subset]
            for head, p in live.probabilities.items():
                np.testing.assert_allclose(row.probabilities[head][i], p, atol=1e-5)
            assert row.unknown_score[i] == pytest.approx(live.unknown_score, abs=1e-4)
            assert row.is_unknown[i] == live.is_unknown
            flags.append(live.is_unknown)
    assert set(flags) == ({True, False} if calibrated else {False})
