"""
Audio files, of which only the needed interval is read.

Shape legend: n samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
import math
import os
from pathlib import Path
from typing import Any

from karmma_ros.errors import DataError
from karmma_ros.files import file_problem, open_data_file
from karmma_ros.preprocess.spectrogram import resample
import numpy as np
from numpy.typing import NDArray

_MARGIN_S = 0.1
"""Seconds read beyond the interval, so that resampling has no edge within it."""

_MAX_RATE, _MAX_CHANNELS = 768_000, 64
_MAX_CHUNK_BYTES = 64 << 20
"""Of an HDF5 data set; a chunk is decompressed as a whole."""

_REMEDY = 'fetch it again, or extract the audio again'
_STORE = 'store it anew, with h5py: file[name] = samples'


@dataclass(frozen=True)
class AudioFile:
    """A wav or flac file of any rate; channels are averaged. An `AudioSource`."""

    path: Path

    def samples(self, start_s: float, duration_s: float, rate: int) -> NDArray[np.float32]:
        """Return mono audio `[round(duration_s * rate)]`, see `AudioSource`."""
        import soundfile  # only here: it loads a library that audio in HDF5 does not need

        def read(first: int, last: int) -> NDArray[np.float32]:
            file.seek(first)
            return file.read(last - first, dtype='float32', always_2d=True).mean(axis=1)

        if self.problem():
            try:
                open_data_file(self.path).close()
            except FileNotFoundError:
                raise DataError(self.path, 'there is no such file', _REMEDY) from None
        try:
            # In bytes: not every name is UTF-8.
            with soundfile.SoundFile(os.fsencode(self.path)) as file:
                check_format(self.path, file.samplerate, file.channels)
                return crop_audio(self.path, read, file.frames, file.samplerate,
                                 start_s, duration_s, rate)
        except (soundfile.SoundFileError, OSError) as error:
            raise DataError(self.path, f'it cannot be read ({error})', _REMEDY) from error

    def problem(self) -> str | None:
        """Return why nothing can be read; None if it can."""
        return file_problem(self.path)


@dataclass(frozen=True)
class AudioHdf5:
    """
    One recording of an HDF5 file that holds mono samples by video id: an `AudioSource`.

    EPIC-Fusion stores the audio of Epic-Kitchens so: floats in -1..1, at 24 kHz.
    """

    path: Path
    video_id: str
    rate: int = 24_000
    """Hz; the file does not have it."""

    def samples(self, start_s: float, duration_s: float, rate: int) -> NDArray[np.float32]:
        """Return mono audio `[round(duration_s * rate)]`, see `AudioSource`."""
        import h5py  # only here: most audio is in files

        try:
            # Opened anew each time: a handle does not survive the fork of a loader's worker.
            with h5py.File(self.path, 'r') as file:
                stored = self._dataset(file)
                return crop_audio(
                    self.path, lambda first, last: _as_float(stored[first:last]), len(stored),
                    self.rate, start_s, duration_s, rate)
        except OSError as error:
            raise DataError(self.path, f'it cannot be read ({error})', _REMEDY) from error

    def problem(self) -> str | None:
        """Return why nothing can be read; None if it can."""
        import h5py

        if not self.path.is_file():
            return file_problem(self.path)
        try:
            with h5py.File(self.path, 'r') as file:
                self._dataset(file)
        except DataError as error:
            return f'{self.path}: {error.problem}'
        except OSError as error:
            return f'{self.path}: it cannot be read ({error})'
        return None

    def _dataset(self, file: Any) -> Any:
        """
        Return the data set, which must be in this file itself.

        :raises DataError: when it is missing, is kept elsewhere, or is no mono audio.
        """
        import h5py

        link = file.get(self.video_id, getlink=True) if '/' not in self.video_id else None
        if link is not None and not isinstance(link, h5py.HardLink):
            raise DataError(self.path, f'{self.video_id} is a link to {self._target(link)}; '
                            'expected audio in this file', _STORE)
        stored = file.get(self.video_id) if link is not None else None
        if stored is None or getattr(stored, 'ndim', 0) != 1 or stored.dtype.kind not in 'fi':
            names = ', '.join(islice(file, 3))
            raise DataError(
                self.path, f'it holds no mono audio {self.video_id}; its {len(file)} names '
                f'begin with {names or "nothing"}', 'add it, or leave the audio out')
        if stored.is_virtual or stored.external:
            raise DataError(self.path, f'{self.video_id} keeps its samples in other files; '
                            'expected them in this one', _STORE)
        chunk = math.prod(stored.chunks or ()) * stored.dtype.itemsize
        if chunk > _MAX_CHUNK_BYTES:
            raise DataError(self.path, f'{self.video_id} is compressed in chunks of {chunk:,} '
                            f'bytes; expected at most {_MAX_CHUNK_BYTES:,}', _STORE)
        return stored

    def _target(self, link: Any) -> str:
        return f'{getattr(link, "filename", "")}:{link.path}'


def check_format(path: Path, rate: int, channels: int) -> None:
    """Raise a `DataError` for more channels or samples a second than any recorder makes."""
    if not 0 < rate <= _MAX_RATE or not 0 < channels <= _MAX_CHANNELS:
        raise DataError(path, f'it has {channels:,} channels at {rate:,} Hz; expected at most '
                        f'{_MAX_CHANNELS} at {_MAX_RATE:,} Hz', _REMEDY)


def crop_audio(path: Path, read: Callable[[int, int], NDArray[np.float32]], length: int,
              source_rate: int, start_s: float, duration_s: float, rate: int,
              ) -> NDArray[np.float32]:
    """
    Return an interval of a recording at another rate, exactly `[round(duration_s * rate)]`.

    :param read: gives the mono samples from the first index to before the last.
    :param length: samples of the recording; there are zeros before and after it.
    :raises DataError: naming `path`, if there is no audio, it ends before `start_s`, or has
        fewer samples than `length`.
    """
    if length <= 0:
        raise DataError(path, 'it holds no audio', _REMEDY)
    if start_s * source_rate >= length:
        raise DataError(path, f'it ends after {length / source_rate:.2f} s, before '
                        f'{start_s:.2f} s', _REMEDY)
    margin = 0 if rate == source_rate else math.ceil(_MARGIN_S * source_rate)
    first = max(0, round(start_s * source_rate) - margin)
    last = min(length, round((start_s + duration_s) * source_rate) + margin)
    out = np.zeros(round(duration_s * rate), np.float32)
    if last <= first:
        return out
    samples = read(first, last)
    if len(samples) != last - first:
        raise DataError(path, f'it breaks off: it has {len(samples)} of the {last - first} '
                        'samples', _REMEDY)
    audio = resample(samples, source_rate, rate)
    at = round((first / source_rate - start_s) * rate)
    begin, end = max(0, at), min(len(out), at + len(audio))
    out[begin:end] = audio[begin - at:end - at]
    return out


def _as_float(samples: NDArray[Any]) -> NDArray[np.float32]:
    if samples.dtype.kind == 'i':
        return samples.astype(np.float32) / np.float32(np.iinfo(samples.dtype).max + 1)
    return samples.astype(np.float32, copy=False)
