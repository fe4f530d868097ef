"""The ensemble of Radevski et al.: a weighted mean of the logits of the classifiers."""

from dataclasses import replace
import json

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.fusion import LogitMean, PairHeads, SplitHeads
import pytest
import torch

V, F, A = Modality.RGB, Modality.FLOW, Modality.AUDIO


def logits_of(*rows):
    return torch.tensor([[list(map(float, rows))]])


def test_weighted_mean_by_hand():
    mean = LogitMean({V: 3.0, F: 1.0, A: 4.0})
    logits = {V: logits_of(1, 0), F: logits_of(5, 8), A: logits_of(0, 2)}
    assert mean(logits).flatten().tolist() == [1.0, 2.0]  # (3·1 + 5) / 8, (8 + 4·2) / 8
    absent = torch.tensor([[True, True, False]])
    assert mean(logits, absent).flatten().tolist() == [2.0, 2.0]
    assert mean({F: logits[F]}).flatten().tolist() == [5.0, 8.0]


def test_heads_are_split_in_order():
    parts = SplitHeads({'verb': 2, 'noun': 1})(torch.tensor([[[1.0, 2.0, 3.0]]]))
    assert {head: x.tolist() for head, x in parts.items()} == {'verb': [[1.0, 2.0]],
                                                               'noun': [[3.0]]}


def test_a_class_has_the_probability_of_its_pairs():
    heads = PairHeads({'verb': (1, 0, 1), 'noun': (0, 0, 2)}, {'verb': 2, 'noun': 3})
    logits = torch.tensor([[[0.5, 0.2, 0.3]]]).log() + 4
    verb, noun = (x.softmax(1)[0] for x in heads(logits).values())
    torch.testing.assert_close(verb, torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(noun, torch.tensor([0.7, 0.0, 0.3]))
    for dtype in (torch.float16, torch.bfloat16):
        certain = torch.tensor([[[90.0, -90.0, -90.0]]], dtype=dtype)
        assert all(torch.isfinite(x).all() for x in heads(certain).values())
    assert not heads.state_dict()


def test_pairs_decide_the_width_of_the_classifiers(config, spec, vocabulary):
    pairs = {'verb': (0, 1, 2, 0, 1), 'noun': (0, 1, 2, 1, 0)}
    paired = replace(config, fusion='logit_mean', missing='omit', token_cap=1, pairs=pairs)
    assert ModelConfig.from_dict(json.loads(json.dumps(paired.to_dict()))).pairs == pairs
    assert 'pairs' not in replace(paired, pairs={}).to_dict()
    network = build(paired, spec, vocabulary)
    assert {e.project.out_features for e in network.embeddings.values()} == {5}
    tokens = {m: torch.rand(2, 1, 5) for m in network.modalities}
    assert {head: tuple(x.shape) for head, x in network.fuse(tokens).items()} == {
        head: (2, size) for head, size in vocabulary.sizes.items()}


@pytest.mark.parametrize(('pairs', 'fusion', 'text'), [
    ({'verb': (0, 1), 'noun': (0,)}, 'logit_mean', 'for each head a class id of every pair'),
    ({'verb': (), 'noun': ()}, 'logit_mean', 'for each head a class id of every pair'),
    ({'verb': (-1,), 'noun': (0,)}, 'logit_mean', 'for each head a class id of every pair'),
    ({'verb': ('a',), 'noun': (0,)}, 'logit_mean', 'for each head a class id of every pair'),
    ({'verb': (0,), 'noun': (0,)}, 'transformer', 'the fusion is transformer'),
    ({'verb': (99,), 'noun': (0,)}, 'logit_mean', 'a class id below its number of classes'),
    ({'verb': (0,)}, 'logit_mean', 'a class id below its number of classes'),
])
def test_refuses_pairs_of_no_classes(config, spec, vocabulary, pairs, fusion, text):
    with pytest.raises(InvalidSettingError, match=text):
        build(replace(config, fusion=fusion, missing='omit', pairs=pairs), spec, vocabulary)


@pytest.fixture
def ensemble(config, spec, vocabulary):
    """Return an ensemble of small classifiers, the camera's vote double."""
    torch.manual_seed(0)
    return build(
        replace(config, fusion='logit_mean', missing='omit', token_cap=1, votes={V: 2.0}),
        spec, vocabulary).eval()


@torch.inference_mode()
def test_the_ensemble_is_its_classifiers_averaged(ensemble, inputs):
    order = ensemble.modalities
    alone = {}
    for m in order:
        classify = ensemble.embeddings[m.value].project
        alone[m] = classify(ensemble.encoders[m.value](inputs[m]).mean(1))  # [b, c]
    together = ensemble(inputs, torch.ones(3, 4, dtype=torch.bool))
    by_hand = (2 * alone[V] + sum(alone[m] for m in order[1:])) / 5
    torch.testing.assert_close(torch.cat(list(together.values()), 1), by_hand)


@torch.inference_mode()
def test_a_classifier_of_an_absent_modality_does_not_count(ensemble, inputs):
    present = torch.tensor([[True, False, False, False], [False, True, True, False],
                            [True, True, True, True]])
    mixed = ensemble(inputs, present)
    for i, row in enumerate(present):
        chosen = [m for m, is_present in zip(ensemble.modalities, row) if is_present]
        alone = ensemble({m: inputs[m][i:i + 1] for m in chosen}, row.unsqueeze(0))
        for head in mixed:
            torch.testing.assert_close(mixed[head][i:i + 1], alone[head])
