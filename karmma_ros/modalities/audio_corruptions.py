"""
Corruptions of audio: of its samples, and of the network's input, which has no samples any more.

Shape legend: n samples, k tiles, f mel bands, s columns.
"""

from __future__ import annotations

from collections.abc import Mapping

from karmma_ros.clip import AudioSpec, KALDI_FBANK
from karmma_ros.modalities.corruption import (
    Corruption,
    CorruptionContext,
    first_corrupted,
    InStream,
)
from karmma_ros.preprocess.spectrogram import audio_input
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
_MAINS_HZ = 50.0
_DECIBELS = float(10 / np.log(10))
"""In a natural logarithm of a power of 1."""
_HARMONICS = (1.0, 0.5, 0.7, 0.2, 0.4)
"""Amplitude of each multiple of the mains frequency."""


def _gain(decibels: float) -> float:
    return float(10 ** (decibels / 20))


def _within(samples: NDArray[np.floating]) -> Samples:
    return np.clip(samples, -1, 1).astype(np.float32)


def _silence(samples: Samples, fraction: float, context: CorruptionContext) -> Samples:
    silent = samples.copy()
    silent[first_corrupted(len(samples), fraction):] = 0
    return silent


def _hiss_alone(count: int, level_db: float, context: CorruptionContext) -> Samples:
    return np.asarray(
        context.varying.standard_normal(count, np.float32) * np.float32(_gain(level_db)))


def _mute(samples: Samples, level_db: float, context: CorruptionContext) -> Samples:
    """Leave the noise of the converter behind the mute switch."""
    return _within(_hiss_alone(len(samples), level_db, context))


def _hum_alone(level_db: float, context: CorruptionContext) -> Samples:
    phases = context.fixed.uniform(0, 2 * np.pi, len(_HARMONICS))
    waves = sum(amplitude * np.sin(2 * np.pi * (i + 1) * _MAINS_HZ * context.times_s + phase)
                for i, (amplitude, phase) in enumerate(zip(_HARMONICS, phases)))
    power = sum(amplitude ** 2 for amplitude in _HARMONICS) / 2
    return np.asarray(waves * _gain(level_db) / power ** 0.5, np.float32)


def _add_hiss(samples: Samples, level_db: float, context: CorruptionContext) -> Samples:
    return _within(samples + _hiss_alone(len(samples), level_db, context))


def _add_hum(samples: Samples, level_db: float, context: CorruptionContext) -> Samples:
    return _within(samples + _hum_alone(level_db, context))


def _clip(samples: Samples, gain_db: float, context: CorruptionContext) -> Samples:
    return _within(samples * _gain(gain_db))


def _attenuate(samples: Samples, gain_db: float, context: CorruptionContext) -> Samples:
    """Turn the gain down before the conversion to 16 bits, which then rounds more."""
    return np.asarray(np.rint(samples * _gain(gain_db) * 32768) / 32768, np.float32)


AUDIO_CORRUPTIONS: Mapping[str, Corruption] = {
    'silence': Corruption('zeros in the last {:.0%} of the window', (0.2, 0.4, 0.6, 0.8, 1.0),
                          _silence, InStream.COMPLETE),
    'muted': Corruption('white noise in place of the audio, {:g} dB of full scale',
                        (-40, -50, -60, -70, -80), _mute),
    'hiss': Corruption('white noise, {:g} dB of full scale', (-60, -50, -40, -30, -20),
                       _add_hiss),
    'hum': Corruption('mains hum of 50 Hz, {:g} dB of full scale', (-50, -40, -30, -20, -10),
                      _add_hum),
    'clipping': Corruption('clipped after a gain of {:g} dB', (6, 12, 20, 30, 40), _clip),
    'low_gain': Corruption('a gain of {:g} dB', (-10, -20, -30, -40, -50), _attenuate),
}
"""Of mono samples float32 `[n]` in [-1, 1]."""

INPUT_CORRUPTIONS = ('silence', 'muted', 'hiss', 'hum', 'low_gain')
"""Those that can be applied to the network's input, which has no phase; clipping cannot."""


def corrupt_tiles(
    name: str, level: float, tiles: NDArray[np.float32], spec: AudioSpec, count: int,
    context: CorruptionContext,
) -> NDArray[np.float32]:
    """
    Corrupt the network's input as its audio was corrupted.

    Powers add up, which they do on average where the noise does not depend on the audio.

    :param tiles: `[k, f, s]`, standardised logarithms of powers.
    :param count: samples of the window (n).
    """
    unit = 1.0 if spec.features == KALDI_FBANK else _DECIBELS

    def logarithms(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray((x * spec.std + spec.mean) / unit, np.float32)

    silence = logarithms(audio_input(np.zeros(count, np.float32), spec))
    powers = logarithms(tiles)
    if name == 'low_gain':
        powers = powers + level / _DECIBELS
    elif name == 'silence':
        powers = np.where(_silent_columns(level, spec, count), silence, powers)
    else:
        alone = (_hum_alone(level, context) if name == 'hum'
                 else _hiss_alone(count, level, context))
        added = logarithms(audio_input(alone, spec))
        powers = added if name == 'muted' else np.logaddexp(powers, added)
    return np.asarray((np.maximum(powers, silence) * unit - spec.mean) / spec.std, np.float32)


def _silent_columns(fraction: float, spec: AudioSpec, count: int) -> NDArray[np.bool_]:
    """Return where the tiles `[k, f, s]` show the last part of the window: gaps become 0."""
    valid_mask = np.arange(count) < first_corrupted(count, fraction)
    return np.asarray(audio_input(np.zeros(count, np.float32), spec, valid_mask) == 0)
