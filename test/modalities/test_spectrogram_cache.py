from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from karmma_ros.clip import AudioSpec
from karmma_ros.modalities import audio_buffer
from karmma_ros.modalities.audio_buffer import SpectrogramCache
from karmma_ros.preprocess import spectrogram
from karmma_ros.preprocess.spectrogram import audio_input
import numpy as np
import pytest

SPEC = AudioSpec(sample_rate=1000, n_fft=32, win_length=15, hop_length=5, n_mels=8, tiles=2,
                 tile_steps=20, mean=0.0, std=10.0)
KALDI = AudioSpec(sample_rate=1000, n_fft=32, win_length=15, hop_length=5, n_mels=8, tiles=1,
                  tile_steps=40, mean=-4.0, std=9.0, features='kaldi_fbank')
WINDOW = 200
AUDIO = np.random.default_rng(0).standard_normal(2000).astype(np.float32)


def check(
    cache: SpectrogramCache, first: int, silent: np.ndarray, spec: AudioSpec = SPEC,
) -> None:
    """Hold the tiles of a window against those that are computed anew."""
    valid = ~silent[first:first + WINDOW]
    audio = np.where(valid, AUDIO[first:first + WINDOW], np.float32(0))
    columns = cache.log_mel(audio, valid, first)
    np.testing.assert_allclose(
        audio_input(audio, spec, valid, columns), audio_input(audio, spec, valid), atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1800), st.integers(0, 60)), max_size=4),
       st.lists(st.sampled_from([0, 5, 10, 40, 195, 205, -5, -60, 3]), min_size=1, max_size=12))
def test_what_is_remembered_is_what_would_be_computed(gaps, steps):
    cache, silent, first = SpectrogramCache(SPEC), np.zeros(len(AUDIO), np.bool_), 600
    for start, length in gaps:
        silent[start:start + length] = True
    for step in steps:
        first = min(max(0, first + step), len(AUDIO) - WINDOW)
        check(cache, first, silent)


@pytest.mark.parametrize('gap', [(0, 0), (0, 30), (90, 107), (185, 200), (0, 200)])
def test_features_of_kaldi_are_remembered_as_well(gap):
    cache, silent = SpectrogramCache(KALDI), np.zeros(len(AUDIO), np.bool_)
    silent[slice(*gap)] = True
    for first in (0, 5, 10, 10, 47):
        check(cache, first, silent, KALDI)


def test_late_audio_that_fills_a_gap_is_used():
    cache, silent = SpectrogramCache(SPEC), np.zeros(len(AUDIO), np.bool_)
    silent[100:130] = True
    check(cache, 0, silent)
    silent[:] = False
    check(cache, 5, silent)


@pytest.mark.parametrize(('step', 'most'), [(0, 4), (10, 7), (7, 41), (400, 41)])
def test_only_what_is_new_or_at_the_edges_is_computed(monkeypatch, step, most):
    computed = []

    def log_mel(audio, spec, first=0, stop=None):
        columns = spectrogram.log_mel(audio, spec, first, stop)
        computed.append(columns.shape[1])
        return columns
    monkeypatch.setattr(audio_buffer, 'log_mel', log_mel)
    cache, silent = SpectrogramCache(SPEC), np.zeros(len(AUDIO), np.bool_)
    check(cache, 100, silent)
    assert sum(computed) == 41
    computed.clear()
    check(cache, 100 + step, silent)
    assert sum(computed) <= most


def test_silence_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(audio_buffer, 'log_mel', lambda *_: pytest.fail('it was computed'))
    SpectrogramCache(SPEC).log_mel(AUDIO[:WINDOW], np.zeros(WINDOW, np.bool_), 0)
