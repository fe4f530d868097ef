"""
Resampling of mono audio, and its conversion to the network's log-mel tiles.

Shape legend: n samples, s spectrogram columns, f mel bands, k tiles.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from karmma_ros.clip import AudioSpec, KALDI_FBANK
from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess import kaldi_fbank
from karmma_ros.preprocess.arrays import check_array
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FLOOR_DB = -100.0
"""Decibels of silence and of any power below 1e-10."""
_MAX_RATE = 768_000
_QUALITY = 'HQ'


def resample(
    samples: NDArray[np.float32], source_rate: int, target_rate: int,
) -> NDArray[np.float32]:
    """
    Resample mono float32 `[n]` at once, from one rate in Hz to another.

    :raises InvalidSampleError: for an impossible rate.
    """
    _check(samples, source_rate, target_rate)
    if source_rate == target_rate:
        return samples
    import soxr  # only here: audio at the model's rate needs no soxr

    return np.asarray(soxr.resample(samples, source_rate, target_rate, _QUALITY), np.float32)


class StreamResampler:
    """
    Resample a stream of mono audio, piece by piece.

    The output starts at the time of the first sample pushed and has no gaps, but it lags:
    the last 20 to 60 ms (at rates from 16 to 48 kHz; the lower, the longer) come with the
    next pieces. At equal rates there is no lag.

    :raises InvalidSampleError: for an impossible rate.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        _check(np.empty(0, np.float32), source_rate, target_rate)
        self.source_rate, self.target_rate = source_rate, target_rate
        self._stream: Any = None
        self.reset()

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next samples, float32 `[n]`; return those that are ready."""
        _check(samples, self.source_rate, self.target_rate)
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(samples), np.float32)

    def reset(self) -> None:
        """Discard the state: the next samples start a new stream."""
        if self.source_rate == self.target_rate:
            return
        import soxr  # only here: audio at the model's rate needs no soxr

        self._stream = soxr.ResampleStream(
            self.source_rate, self.target_rate, 1, dtype='float32', quality=_QUALITY)


def check_rate(rate: int) -> None:
    """
    Check that a sample rate is possible.

    :raises InvalidSampleError: when it is not.
    """
    if not 1 <= rate <= _MAX_RATE:
        raise InvalidSampleError(f'sample rate: got {rate}; expected 1 to {_MAX_RATE} Hz')


def _check(samples: NDArray[np.float32], *rates: int) -> None:
    check_array('samples', samples, np.float32, ('n',), allow_empty=True)
    for rate in rates:
        check_rate(rate)


def log_mel(
    waveform: NDArray[np.float32], spec: AudioSpec, first: int = 0, stop: int | None = None,
) -> NDArray[np.float32]:
    """
    Return the mel power spectrogram of mono audio `[n]` in decibels, float32 `[f, s]`.

    Column j is centred on sample j × hop, so that s = 1 + n // hop; the audio is
    padded with silence. Power is not normalised: a full-scale sine in a Hann window of w
    samples peaks at (w / 4)² = 20 log10(w / 4) dB. `kaldi_fbank` has Kaldi's features, whose
    logarithms are natural.

    :param first: the first column to return; `stop` is the one after the last.
    :raises InvalidSampleError: for another type or shape, NaN or infinity.
    """
    check_waveform(waveform)
    windows = kaldi_fbank.windows if spec.features == KALDI_FBANK else _windows
    return _logarithms(windows(waveform, spec, first, stop), spec)


def check_waveform(waveform: NDArray[np.float32]) -> None:
    """
    Check the samples of a window.

    :raises InvalidSampleError: for another type or shape, NaN or infinity.
    """
    check_array('waveform', waveform, np.float32, ('n',))
    if not np.isfinite(waveform).all():
        raise InvalidSampleError('waveform: got NaN or infinity; expected finite samples')


def _logarithms(windows: NDArray[np.float32], spec: AudioSpec) -> NDArray[np.float32]:
    """Return the columns `[f, s]` of windows `[s, w]`."""
    spectrum = np.fft.rfft(windows, spec.n_fft)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    mel = _mel_bands(np.ascontiguousarray(power.T, np.float32), spec)
    if spec.features == KALDI_FBANK:
        np.maximum(mel, kaldi_fbank.LEAST_ENERGY, out=mel)
        return np.log(mel, out=mel)
    np.log10(np.maximum(mel, 1e-30, out=mel), out=mel)
    mel *= 10
    return np.maximum(mel, FLOOR_DB, out=mel)


def _windows(
    waveform: NDArray[np.float32], spec: AudioSpec, first: int, stop: int | None,
) -> NDArray[np.float32]:
    win = spec.win_length
    padded = np.zeros(len(waveform) + 2 * win, np.float32)
    padded[win // 2:win // 2 + len(waveform)] = waveform
    pieces = sliding_window_view(padded, win)[::spec.hop_length]
    return pieces[:columns_of(len(waveform), spec)][first:stop] * _window(win)


def columns_of(samples: int, spec: AudioSpec) -> int:
    """Count the columns of the spectrogram of so many samples."""
    if spec.features == KALDI_FBANK:
        return kaldi_fbank.columns_of(samples, spec)
    return 1 + samples // spec.hop_length


def audio_input(
    waveform: NDArray[np.float32], spec: AudioSpec, valid_mask: NDArray[np.bool_] | None = None,
    spectrogram: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """
    Split the audio of exactly one window, float32 `[n]`, into tiles: `[k, f, tile_steps]`.

    Tile i is centred on (i + 0.5) / k of the window; beyond the window there is silence.
    Centres are rounded to spectrogram columns (2.5 ms at most by default), so that all
    tiles are crops of one spectrogram: 32 tiles at the cost of one. The only tile of Kaldi's
    features begins with the window, and zeros follow, as AST was trained (Gong et al., 2021).

    :param valid_mask: bool `[n]`, false where a gap was filled with zeros. Columns that touch one
        are set to the mean, as training masks intervals of audio: digital silence would
        be a strong signal of its own.
    :param spectrogram: `log_mel` of the audio, if known already; its columns that touch a
        gap are ignored.
    :raises InvalidSampleError: for another type or shape, NaN or infinity.
    """
    if spec.tile_duration:
        return _own_tiles(waveform, spec, valid_mask)
    padded = padded_spectrogram(waveform, spec, valid_mask, spectrogram)
    tiles = np.empty((spec.tiles, len(padded), spec.tile_steps), np.float32)
    for tile, start in zip(tiles, tile_starts(len(waveform), spec) + spec.tile_steps):
        tile[:] = padded[:, start:start + spec.tile_steps]
    return tiles


def padded_spectrogram(
    waveform: NDArray[np.float32], spec: AudioSpec, valid_mask: NDArray[np.bool_] | None = None,
    spectrogram: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """
    Return the normalised spectrogram `[f, s + 2 tile_steps]` that `audio_input` extracts tiles of.

    Before and after it there is silence for one tile. Parameters and errors are those of
    `audio_input`.
    """
    if spectrogram is None:
        spectrogram = log_mel(waveform, spec)
    bands, columns = spectrogram.shape
    margin = spec.tile_steps
    beyond = ((0.0 if spec.features == KALDI_FBANK else FLOOR_DB) - spec.mean) / spec.std
    padded = np.full((bands, columns + 2 * margin), beyond, np.float32)
    middle = padded[:, margin:margin + columns]
    np.subtract(spectrogram, np.float32(spec.mean), out=middle)
    middle /= np.float32(spec.std)
    if valid_mask is not None:
        middle[:, touching_gaps(valid_mask, spec)] = 0.0
    return padded


def tile_starts(samples: int, spec: AudioSpec) -> NDArray[np.intp]:
    """Return the first column of each tile of so many samples, `[k]`; below 0 before them."""
    if spec.features == KALDI_FBANK:
        return np.zeros(1, np.intp)
    centres = (np.arange(spec.tiles) + 0.5) / spec.tiles * samples / spec.hop_length
    return np.rint(centres).astype(np.intp) - spec.tile_steps // 2


def _own_tiles(
    waveform: NDArray[np.float32], spec: AudioSpec, valid_mask: NDArray[np.bool_] | None,
) -> NDArray[np.float32]:
    """
    Return tiles that are spectrograms of their own, `[k, f, tile_steps]`; see `audio_input`.

    Each is mirrored at its ends, as torchaudio does it.
    """
    check_waveform(waveform)
    length, half, win = spec.tile_samples, spec.tile_samples // 2, spec.win_length
    audio = np.pad(waveform, length)
    valid = np.pad(np.ones(len(waveform), np.bool_) if valid_mask is None else valid_mask,
                   length, constant_values=True)
    tiles = np.empty((spec.tiles, spec.n_mels, spec.tile_steps), np.float32)
    for i, tile in enumerate(tiles):
        start = int((i + 0.5) / spec.tiles * len(waveform)) - half + length
        mirrored = np.pad(audio[start:start + length], win // 2, mode='reflect')
        windows = sliding_window_view(mirrored, win)[::spec.hop_length][:spec.tile_steps]
        decibels = _logarithms(windows * _window(win), spec)
        tile[:] = (decibels - np.float32(spec.mean)) / np.float32(spec.std)
        tile[:, touching_gaps(valid[start:start + length], spec)] = 0.0
    return tiles


def touching_gaps(valid_mask: NDArray[np.bool_], spec: AudioSpec) -> NDArray[np.bool_]:
    """Mark the spectrogram columns, bool `[s]`, whose window holds an invalid sample."""
    if valid_mask.all():
        return np.zeros(columns_of(len(valid_mask), spec), np.bool_)
    invalid = np.concatenate([[0], np.cumsum(~valid_mask)])
    first, last = (np.clip(each, 0, len(valid_mask))
                   for each in column_spans(len(valid_mask), spec))
    gaps: NDArray[np.bool_] = invalid[last] > invalid[first]
    return gaps


def column_spans(
    samples: int, spec: AudioSpec,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return of each column the first sample of its window, and the one after its last, `[s]`."""
    starts = np.arange(columns_of(samples, spec)) * spec.hop_length
    if spec.features != KALDI_FBANK:
        starts = starts - spec.win_length // 2
    return starts, starts + spec.win_length


@lru_cache(maxsize=8)
def mel_filterbank(spec: AudioSpec) -> NDArray[np.float32]:
    """
    Return triangular filters from 0 Hz to half the sample rate, float32 `[f, n_fft // 2 + 1]`.

    Their corners are even on the HTK mel scale, 2595 log10(1 + Hz / 700); peaks are one.
    """
    if spec.features == KALDI_FBANK:
        return kaldi_fbank.mel_filterbank(spec)
    bins = np.linspace(0, spec.sample_rate / 2, spec.n_fft // 2 + 1)
    top = 2595 * np.log10(1 + spec.sample_rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, spec.n_mels + 2) / 2595) - 1)
    low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (bins - low) / (peak - low)
    falling = (high - bins) / (high - peak)
    filters = np.asarray(np.maximum(0, np.minimum(rising, falling)), np.float32)
    filters.flags.writeable = False
    return filters


def _mel_bands(power: NDArray[np.float32], spec: AudioSpec) -> NDArray[np.float32]:
    """
    Sum the spectrum `[n_fft // 2 + 1, s]` into bands `[f, s]`: the product with the filters.

    A bin is in two filters at most, and a product of matrices would wake the threads of BLAS ten
    times a second, which costs more than it saves and rounds as the threads happen to share it.
    """
    bins, weights, starts = _mel_terms(spec)
    terms = power[bins]
    terms *= weights
    return np.add.reduceat(terms, starts, axis=0)


@lru_cache(maxsize=8)
def _mel_terms(
    spec: AudioSpec,
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]:
    """Return bin and weight `[k, 1]` of each term, band by band, and where each band begins."""
    filters = mel_filterbank(spec)
    counts = filters > 0
    counts[:, 0] |= ~counts.any(1)  # a band between two bins has a term as well, of weight zero
    bands, bins = np.nonzero(counts)
    return bins, filters[bands, bins, None], np.searchsorted(bands, np.arange(spec.n_mels))


@lru_cache(maxsize=8)
def _window(length: int) -> NDArray[np.float32]:
    """Return the periodic Hann window."""
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)
    window.flags.writeable = False
    return window
