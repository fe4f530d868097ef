"""
Log mel filterbank features as Kaldi computes them, and `torchaudio.compliance.kaldi.fbank`.

Shape legend: n samples, w samples of a window, s columns, f mel bands.
"""

from __future__ import annotations

from functools import lru_cache

from karmma_ros.clip import AudioSpec
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

PREEMPHASIS = 0.97
LEAST_ENERGY = float(np.finfo(np.float32).eps)
"""Energies of mel bands below it count as it."""
_LOWEST_HZ = 20.0


def columns_of(samples: int, spec: AudioSpec) -> int:
    """Count the columns: only windows that lie within the samples."""
    return max(0, 1 + (samples - spec.win_length) // spec.hop_length)


def windows(
    waveform: NDArray[np.float32], spec: AudioSpec, first: int = 0, stop: int | None = None,
) -> NDArray[np.float32]:
    """
    Return the windows of audio `[n]` as they are transformed, `[s, w]`.

    The mean of each is subtracted, high frequencies are raised, and its ends fade out.
    """
    win = spec.win_length
    if len(waveform) < win:
        return np.zeros((0, win), np.float32)
    pieces = sliding_window_view(waveform, win)[::spec.hop_length][first:stop]
    pieces = pieces - pieces.mean(1, keepdims=True)
    before = np.concatenate([pieces[:, :1], pieces[:, :-1]], axis=1)
    return np.asarray((pieces - np.float32(PREEMPHASIS) * before) * _hann(win), np.float32)


@lru_cache(maxsize=8)
def mel_filterbank(spec: AudioSpec) -> NDArray[np.float32]:
    """
    Return filters from 20 Hz to half the sample rate, float32 `[f, n_fft // 2 + 1]`.

    They are triangles on the mel scale, 1127 ln(1 + Hz / 700), of height one.
    """
    bins = _mel(np.arange(spec.n_fft // 2) * spec.sample_rate / spec.n_fft)
    corners = np.linspace(_mel(_LOWEST_HZ), _mel(spec.sample_rate / 2), spec.n_mels + 2)
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    triangles = np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak))
    filters = np.zeros((spec.n_mels, spec.n_fft // 2 + 1), np.float32)
    filters[:, :-1] = np.maximum(0, triangles)
    filters.flags.writeable = False
    return filters


def _mel(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(1127 * np.log1p(np.asarray(hertz) / 700))


@lru_cache(maxsize=8)
def _hann(length: int) -> NDArray[np.float32]:
    """Return the symmetric Hann window."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))).astype(np.float32)
    window.flags.writeable = False
    return window
