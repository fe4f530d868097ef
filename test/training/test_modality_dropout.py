"""Modality dropout: statistics and the rule that one stays."""

from karmma_ros.training.modality_dropout import drop_modalities, seeded_rand
import torch


def rand():
    return seeded_rand(3)


def test_probability_0_changes_nothing():
    present = rand()(100, 4) < 0.6
    present[:, 0] = True
    assert torch.equal(drop_modalities(present, 0.0, rand()), present)


def test_probability_1_keeps_exactly_one_of_those_present():
    present = torch.tensor([[True, False, True, False]]).expand(4000, 4)
    kept = drop_modalities(present, 1.0, rand())
    assert (kept.sum(1) == 1).all()
    fraction = kept.float().mean(0)
    assert fraction[1] == fraction[3] == 0
    assert abs(fraction[0] - 0.5) < 0.03  # four standard deviations


def test_rates_match_the_arithmetic():
    present = torch.ones(20_000, 3, dtype=torch.bool)
    kept = drop_modalities(present, 0.5, rand())
    # A modality stays with 1/2, and with a third of the (1/2)³ in which all would go.
    expected = 1 / 2 + 1 / 24
    assert (kept.float().mean(0) - expected).abs().max() < 0.015
    assert kept.any(1).all()


def test_an_absent_modality_stays_absent():
    present = rand()(500, 4) < 0.5
    present[~present.any(1), 2] = True
    assert not (drop_modalities(present, 0.7, rand()) & ~present).any()


def test_the_seed_decides():
    present = torch.ones(50, 4, dtype=torch.bool)
    assert torch.equal(
        drop_modalities(present, 0.5, rand()), drop_modalities(present, 0.5, rand()))
