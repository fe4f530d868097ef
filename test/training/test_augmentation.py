"""Augmentation changes frames and spectrogram only."""

from karmma_ros.modalities.transforms import (
    jitter_colour,
    mask_spectrogram,
    vary_depth,
    vary_series,
)
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


def test_the_random_numbers_of_the_papers_modalities_do_not_depend_on_others():
    inputs = batch()
    paper = augment(inputs, 1.0, seeded_rand(1))
    rand = seeded_rand(1)
    assert torch.equal(paper[Modality.RGB], jitter_colour(inputs[Modality.RGB], 1.0, rand))
    assert torch.equal(paper[Modality.AUDIO], mask_spectrogram(inputs[Modality.AUDIO], 1.0, rand))


def test_each_of_several_of_a_type_varies():
    inputs = {Modality('rgb_wrist'): torch.zeros(4, 3, 2, 6, 6)}
    assert augment(inputs, 1.0, seeded_rand(1))[Modality('rgb_wrist')].any()


def test_series_and_depth_vary_by_their_types():
    inputs = {Modality('imu'): torch.rand(4, 8, 32), Modality('depth'): torch.rand(4, 3, 2, 8, 8)}
    changed = augment(inputs, 1.0, seeded_rand(6))
    rand = seeded_rand(6)
    assert torch.equal(changed[Modality('imu')], vary_series(inputs[Modality('imu')], 1.0, rand))
    assert torch.equal(
        changed[Modality('depth')], vary_depth(inputs[Modality('depth')], 1.0, rand))


def test_series_are_shifted_scaled_held_and_noisy_within_limits():
    ramp = torch.arange(100.0).expand(256, 3, 100)
    varied = vary_series(ramp, 1.0, seeded_rand(2))
    assert varied.shape == ramp.shape and not torch.equal(varied[0], varied[1])
    # A shift by 10, a scale of 10 %, an interval of 15 held, noise of 5 % of the deviation of 29.
    assert ((varied / 1.1 - ramp) < 10 + 1.5).all()
    assert (ramp - varied / 0.9 < 10 + 15 + 1.7).all()
    quiet = torch.ones(256, 3, 100)
    gain = vary_series(quiet, 1.0, seeded_rand(2))
    assert (gain == gain[:, :1, :1]).all() and gain.min() >= 0.9 and gain.max() <= 1.1
    assert gain.std() > 0.03


def test_weak_augmentation_changes_less():
    x = torch.rand(64, 6, 128, generator=torch.Generator().manual_seed(3))
    depth = torch.ones(64, 3, 4, 20, 30)
    for vary, given in ((vary_series, x), (vary_depth, depth)):
        changes = [(vary(given, strength, seeded_rand(4)) - given).abs().mean()
                   for strength in (1e-6, 0.3, 1.0)]
        assert changes[0] < 1e-3 and changes[0] < changes[1] < changes[2]


def test_depth_is_shifted_and_partly_erased_alike_in_all_frames():
    depth = torch.ones(64, 3, 4, 20, 30)
    varied = vary_depth(depth, 1.0, seeded_rand(5))
    assert ((varied == 0) | (varied == 1)).all()
    assert (varied == varied[:, :1, :1]).all()
    erased = (varied[:, 0, 0] == 0).float().mean((1, 2))
    # Up to a tenth of each side leaves the image, and a rectangle of 0.3 x 0.3 is erased.
    assert erased.max() <= 1 - 0.9 * 0.9 + 0.3 * 0.3 + 0.05 and erased.mean() > 0.05
