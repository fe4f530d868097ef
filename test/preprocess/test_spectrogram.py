from __future__ import annotations

from dataclasses import replace

from karmma_ros.clip import AudioSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.spectrogram import audio_input, FLOOR_DB, log_mel, mel_filterbank
import numpy as np
import pytest

SPEC = AudioSpec()
NOISE = (0.1 * np.random.default_rng(0).standard_normal(32_000)).astype(np.float32)


def centre_hertz(spec: AudioSpec) -> np.ndarray:
    """Return the filters' peaks by the HTK formula in natural logarithms."""
    top = 1127 * np.log(1 + spec.sample_rate / 2 / 700)
    return 700 * (np.exp(top * np.arange(1, spec.n_mels + 1) / (spec.n_mels + 1) / 1127) - 1)


@pytest.mark.parametrize('hertz', [300, 1000, 2500, 6000])
def test_a_tone_lands_in_its_band(hertz):
    tone = np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000).astype(np.float32)
    loudest = log_mel(tone, SPEC)[:, 50].argmax()
    # A window of 10 ms resolves 100 Hz, and wide filters gather more of a tone's skirt.
    assert abs(centre_hertz(SPEC)[loudest] - hertz) < 50


def test_a_full_scale_tone_has_the_level_stated():
    spec = replace(SPEC, n_mels=8)
    hertz = 1000
    tone = np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000).astype(np.float32)
    bins = np.fft.rfft(tone[8000:8160] * np.hanning(161)[:-1], 1024)
    assert 10 * np.log10(np.abs(bins).max() ** 2) == pytest.approx(20 * np.log10(160 / 4), abs=0.1)
    energy = mel_filterbank(spec) @ np.abs(bins) ** 2
    np.testing.assert_allclose(
        log_mel(tone, spec)[:, 100], 10 * np.log10(np.maximum(energy, 1e-10)), atol=0.05)


def test_agrees_with_the_transform_written_out():
    spec = AudioSpec(n_fft=64, win_length=20, hop_length=7, n_mels=6, sample_rate=8000)
    audio = NOISE[:100]
    window = np.sin(np.pi * np.arange(20) / 20) ** 2
    padded = np.concatenate([np.zeros(10), audio, np.zeros(30)])
    turns = np.exp(-2j * np.pi * np.outer(np.arange(33), np.arange(20)) / 64)
    filters = mel_filterbank(spec).astype(float)
    wanted = [
        10 * np.log10(filters @ np.abs(turns @ (padded[7 * j:7 * j + 20] * window)) ** 2)
        for j in range(1 + 100 // 7)
    ]
    np.testing.assert_allclose(log_mel(audio, spec), np.transpose(wanted), atol=1e-3)


def test_filters_distribute_the_energy():
    # Between the first and the last peak the triangles add up to one, so that by Parseval
    # the bands hold the energy of the windowed samples.
    filters = mel_filterbank(SPEC)
    assert filters.shape == (128, 513) and (filters.sum(1) > 0).all()
    np.testing.assert_allclose(filters.sum(0)[2:499], 1, atol=1e-5)
    tone = np.sin(2 * np.pi * 2000 * np.arange(16_000) / 16_000).astype(np.float32)
    windowed = tone[8000 - 80:8000 + 80] * np.hanning(161)[:-1]
    mel_energy = (10 ** (log_mel(tone, SPEC)[:, 100] / 10)).sum()
    assert mel_energy * 2 / 1024 == pytest.approx((windowed ** 2).sum(), rel=0.01)


def test_bands_narrower_than_a_bin_are_silent_where_they_hold_none():
    spec = AudioSpec(n_fft=64, win_length=64, hop_length=32, n_mels=40)
    empty = (mel_filterbank(spec) == 0).all(1)
    assert empty.any() and not empty.all()
    bands = log_mel(NOISE[:2000], spec)
    assert (bands[empty] == FLOOR_DB).all() and (bands[~empty] > FLOOR_DB).all()


def test_filter_peaks_follow_the_htk_scale():
    bins = np.linspace(0, 8000, 513)
    peaks = bins[mel_filterbank(SPEC)[40:].argmax(1)]
    np.testing.assert_allclose(peaks, centre_hertz(SPEC)[40:], atol=16)


@pytest.mark.parametrize(('samples', 'columns'), [(1, 1), (79, 1), (80, 2), (32_000, 401)])
def test_columns_are_centred_on_multiples_of_the_hop(samples, columns):
    assert log_mel(NOISE[:samples], SPEC).shape == (128, columns)


def test_click_shows_in_the_columns_around_it():
    click = np.zeros(4000, np.float32)
    click[1600] = 1
    loud = (log_mel(click, SPEC) > FLOOR_DB).any(0)
    np.testing.assert_array_equal(np.flatnonzero(loud), [20])
    click = np.roll(click, 30)
    loud = (log_mel(click, SPEC) > FLOOR_DB).any(0)
    np.testing.assert_array_equal(np.flatnonzero(loud), [20, 21])


def test_silence_is_the_floor():
    np.testing.assert_array_equal(log_mel(np.zeros(800, np.float32), SPEC), FLOOR_DB)


def test_tiles_are_cropped_around_their_centres():
    tiles = audio_input(NOISE, SPEC)
    assert tiles.shape == (32, 128, 224) and tiles.dtype == np.float32
    for i in (0, 7, 16, 31):
        centre = round((i + 0.5) / 32 * 32_000 / 80) * 80
        padded = np.pad(NOISE, 20_000)
        tile = padded[20_000 + centre - 112 * 80:][:223 * 80]
        wanted = (log_mel(tile, SPEC) + 28.1125) / 16.5627
        # The first and last column of a tile alone see what lies beyond its own border.
        np.testing.assert_allclose(tiles[i][:, 1:-1], wanted[:, 1:-1], atol=1e-3)


def test_one_tile_of_the_window_is_its_spectrogram():
    spec = replace(SPEC, tiles=1, tile_steps=400, mean=0.0, std=1.0)
    np.testing.assert_array_equal(audio_input(NOISE, spec)[0], log_mel(NOISE, spec)[:, :400])


@pytest.mark.parametrize(('tiles', 'steps', 'samples'), [
    (1, 1, 1), (3, 500, 100), (32, 224, 32_000), (5, 3, 7), (2, 7, 1001)])
def test_shape_is_exact_whatever_the_window(tiles, steps, samples):
    got = audio_input(NOISE[:samples], replace(SPEC, tiles=tiles, tile_steps=steps))
    assert got.shape == (tiles, 128, steps) and np.isfinite(got).all()


@pytest.mark.parametrize(('waveform', 'text'), [
    (np.full(800, np.nan, np.float32), 'NaN or infinity'),
    (np.array([0, np.inf], np.float32), 'NaN or infinity'),
    (np.zeros(0, np.float32), r'waveform: got float32 \[0\]; expected float32 \[n\]'),
    (np.zeros(800, np.int16), 'got int16'),
    (np.zeros((800, 2), np.float32), r'got float32 \[800, 2\]'),
])
def test_refuses_what_is_no_audio(waveform, text):
    for call in (log_mel, audio_input):
        with pytest.raises(InvalidSampleError, match=text):
            call(waveform, SPEC)


def test_a_gap_is_the_mean_and_not_silence():
    valid_mask = np.ones(len(NOISE), np.bool_)
    valid_mask[2000:4000] = False
    gapped = np.where(valid_mask, NOISE, 0).astype(np.float32)
    spec = replace(SPEC, tiles=1, tile_steps=1 + len(NOISE) // SPEC.hop_length)
    complete, filled = audio_input(NOISE, spec)[0], audio_input(gapped, spec, valid_mask)[0]
    centres = np.arange(spec.tile_steps) * spec.hop_length
    half = spec.win_length // 2
    touching = (centres + half > 2000) & (centres - half < 4000)
    assert 20 < touching.sum() < spec.tile_steps - 20
    assert (filled[:, touching] == 0).all()
    np.testing.assert_array_equal(filled[:, ~touching], complete[:, ~touching])
    assert audio_input(gapped, spec)[0][:, touching].min() < -3  # what it would have been


def test_audio_without_a_gap_is_as_it_was():
    valid_mask = np.ones(len(NOISE), np.bool_)
    np.testing.assert_array_equal(audio_input(NOISE, SPEC, valid_mask), audio_input(NOISE, SPEC))
