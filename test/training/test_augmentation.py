"""Augmentation changes frames and spectrogram only."""

from karmma_ros.modality import Modality
from karmma_ros.training.augmentation import augment
from karmma_ros.training.modality_dropout import seeded_rand
import torch


def batch():
    generator = torch.Generator().manual_seed(5)
    return {
        Modality.RGB: torch.rand(4, 3, 2, 6, 6, generator=generator),
        Modality.FLOW: torch.rand(4, 3, 2, 6, 6, generator=generator),
        Modality.AUDIO: torch.rand(4, 1, 40, 60, generator=generator) + 1,
        Modality.DETECTIONS: torch.rand(4, 2, 3, 5, generator=generator),
    }


def test_strength_0_returns_the_inputs():
    inputs = batch()
    changed = augment(inputs, 0.0, seeded_rand(1))
    assert all(changed[m] is inputs[m] for m in inputs)


def test_inputs_are_not_changed_and_the_seed_repeats():
    inputs = batch()
    first = augment(inputs, 1.0, seeded_rand(1))
    again = augment(inputs, 1.0, seeded_rand(1))
    fresh = batch()
    for m in inputs:
        assert torch.equal(inputs[m], fresh[m])
        assert torch.equal(first[m], again[m])
    assert first[Modality.FLOW] is inputs[Modality.FLOW]
    assert first[Modality.DETECTIONS] is inputs[Modality.DETECTIONS]


def test_colour_changes_by_channel_only():
    inputs = {Modality.RGB: torch.zeros(4, 3, 2, 6, 6)}
    shifted = augment(inputs, 1.0, seeded_rand(1))[Modality.RGB]
    per_channel = shifted.flatten(2)
    assert (per_channel == per_channel[..., :1]).all()
    assert per_channel[..., 0].unique().numel() == 12
    assert per_channel.abs().max() <= 0.2


def test_a_band_and_an_interval_of_the_spectrogram_are_masked():
    inputs = {Modality.AUDIO: torch.ones(64, 1, 40, 60)}
    masked = augment(inputs, 1.0, seeded_rand(1))[Modality.AUDIO] == 0
    band = masked.all(3)[:, 0].sum(1)  # bands masked at all times
    interval = masked.all(2)[:, 0].sum(1)
    assert band.max() <= 6 and interval.max() <= 9  # 15 % of 40 and of 60
    assert band.float().mean() > 1 and interval.float().mean() > 1
