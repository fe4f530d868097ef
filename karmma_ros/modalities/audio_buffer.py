"""
The recent audio in bounded memory, and its spectrogram, of which only what is new is computed.

Shape legend: n samples, s spectrogram columns, f mel bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

from karmma_ros.clip import AudioSpec, ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities.sample_buffer import Coverage, SampleBuffer
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.spectrogram import (
    check_rate,
    column_spans,
    columns_of,
    log_mel,
    resample,
    StreamResampler,
    tile_starts,
    touching_gaps,
)
import numpy as np
from numpy.typing import NDArray

JITTER_NS = 50_000_000
"""Largest difference between the stamp of a chunk and the end of the chunks before it."""
_OFFSET_NS = 10_000_000
"""
A difference above this in every stamp of a second is not jitter: later stamps mean that audio was
dropped or that the clock drifts, earlier ones that the first stamp was late.
"""
_OFFSET_TIMEOUT_NS = NANOSECONDS


UNSTAMPED_TOLERANCE_NS = 500_000_000
"""Audio without stamps is continuous unless a chunk is received later than this."""


class AudioChunk(NamedTuple):
    """The audio of one message."""

    samples: NDArray[np.float32]
    """Mono, `[n]`."""
    sample_rate: int
    """Hz."""


class AudioArrays(NamedTuple):
    """The audio of a window, as `Audio.prepare` takes it."""

    samples: NDArray[np.float32]
    """Mono at the model's rate, `[n]`; exactly the window."""
    valid_mask: NDArray[np.bool_] | None = None
    """Bool `[n]`: false where `samples` has zeros for a gap; None: there is none."""
    spectrogram: NDArray[np.float32] | None = None
    """Its log-mel spectrogram `[f, s]`, which saves computing it."""


class AudioBuffer(SampleBuffer):
    """
    Store mono audio at the model's rate in a ring buffer, by absolute sample index.

    Index i is the sample at i / rate seconds. Samples that were never received read as zeros and
    are not valid. Chunks follow each other by their number of samples, so that stamps may
    jitter. A stamp that differs by more than the tolerance starts a new segment, and so do
    stamps that are all late, or all early, for a second. Valid samples are never overwritten.

    Windows end with a whole hop of the spectrogram, up to one before the requested end: so they
    have columns in common.
    """

    def __init__(self, clip: ClipSpec, spec: AudioSpec | None = None) -> None:
        spec = clip.audio if spec is None else spec
        self._rate, self._hop = spec.sample_rate, spec.hop_length
        self._window = round(clip.duration * spec.sample_rate)
        self._capacity = self._window + self._rate // 2
        self._samples = np.zeros(self._capacity, np.float32)
        self._valid = np.zeros(self._capacity, np.bool_)
        self._end = 0
        self._segment: _Segment | None = None
        self._empty = True
        self._spec = spec
        self.spectrogram = SpectrogramCache(self._spec)
        """Of the audio in the buffer; another one after `clear`."""

    @property
    def newest_ns(self) -> int | None:
        """Return the time up to which audio was received."""
        return None if self._empty else self._time_ns(self._end)

    @property
    def nbytes(self) -> int:
        """Return the memory held."""
        return self._samples.nbytes + self._valid.nbytes

    def keep_longer(self, spare_ns: int) -> None:
        """Use a ring buffer for as much more audio."""
        self._capacity += self._index(spare_ns)
        self._samples = np.zeros(self._capacity, np.float32)
        self._valid = np.zeros(self._capacity, np.bool_)

    def times_ns(self, sample: AudioChunk, stamp_ns: int, now_ns: int) -> tuple[int, int]:
        """
        Check a chunk; return its times.

        Its stamp is that of its first sample; without one it ends at the time of receipt.
        """
        samples, sample_rate = sample
        check_rate(sample_rate)
        check_array('audio', samples, np.float32, ('n',))
        # The product is finite for audio, and takes less time than a test of each sample.
        if not isfinite(samples.dot(samples)) and not np.isfinite(samples).all():
            raise InvalidSampleError('audio: got NaN or infinity; expected finite samples')
        length_ns = len(samples) * NANOSECONDS // sample_rate
        start_ns = stamp_ns or max(0, now_ns - length_ns)
        return start_ns, start_ns + length_ns

    def add(self, sample: AudioChunk, start_ns: int, stamped: bool = True) -> None:
        """Add a chunk; without stamps chunks may be received late."""
        self.add_chunk(*sample, start_ns, JITTER_NS if stamped else UNSTAMPED_TOLERANCE_NS)

    def add_chunk(
        self, samples: NDArray[np.float32], sample_rate: int, stamp_ns: int,
        tolerance_ns: int = JITTER_NS,
    ) -> None:
        """
        Add a chunk of mono audio `[n]` whose first sample has the stamp.

        A chunk that starts before the end of the segment fills gaps and changes no valid sample.

        :raises InvalidSampleError: for another type or shape, or a rate that is no rate.
        """
        longest = self._capacity * sample_rate // self._rate
        if 0 < longest < len(samples):
            stamp_ns += (len(samples) - longest) * NANOSECONDS // sample_rate
            samples = samples[-longest:]
        segment = self._segment
        if segment is None or segment.resampler.source_rate != sample_rate:
            segment = self._start(sample_rate, stamp_ns)
        early_ns = segment.next_ns - stamp_ns
        if early_ns > tolerance_ns:
            self._write(resample(samples, sample_rate, self._rate), self._index(stamp_ns))
            return
        offset_ns = max(_OFFSET_NS, tolerance_ns // 10)  # without stamps the network jitters, too
        if early_ns < -tolerance_ns or segment.has_offset(stamp_ns, offset_ns):
            segment = self._start(sample_rate, stamp_ns)
        resampled = segment.resampler.push(samples)
        self._write(resampled, segment.start + segment.written)
        segment.pushed += len(samples)
        segment.written += len(resampled)
        self._segment = segment

    def read(self, end_ns: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the audio of the window that ends at `end_ns`, `[n]`, and its valid mask."""
        samples = np.zeros(self._window, np.float32)
        valid = np.zeros(self._window, np.bool_)
        first, last = self._stored(end_ns)
        position = first - self.first(end_ns)
        for part in self._parts(first, last):
            end = position + part.stop - part.start
            samples[position:end] = self._samples[part]
            valid[position:end] = self._valid[part]
            position = end
        return samples, valid

    def first(self, end_ns: int) -> int:
        """Return the index of the first sample of the window that ends at `end_ns`."""
        return self._stop(end_ns) - self._window

    def count_valid(self, end_ns: int) -> int:
        """Count the valid samples of the window."""
        return sum(int(np.count_nonzero(self._valid[part]))
                   for part in self._parts(*self._stored(end_ns)))

    def coverage(self, end_ns: int | None) -> Coverage:
        """Return the coverage of the window that ends at `end_ns`."""
        valid = 0 if end_ns is None else self.count_valid(end_ns)
        return Coverage(valid, valid, self._window, 's of audio', self._rate)

    def span_ns(self, end_ns: int) -> tuple[int, int]:
        """Return the times of the first and last valid sample of the window; it must have some."""
        first, last = self._stored(end_ns)
        valid = np.concatenate([self._valid[part] for part in self._parts(first, last)])
        return (self._time_ns(first + int(valid.argmax())),
                self._time_ns(last - int(valid[::-1].argmax())))

    def window(self, end_ns: int) -> StoredAudio:
        """Return the audio of the window that ends at `end_ns`; it has some."""
        return StoredAudio(
            *self.read(end_ns), self.first(end_ns), self.span_ns(end_ns), self.spectrogram)

    def clear(self) -> None:
        """Discard all audio."""
        self._segment, self._empty, self._end = None, True, 0
        self.spectrogram = SpectrogramCache(self._spec)
        self._samples[:] = 0
        self._valid[:] = False

    def _stored(self, end_ns: int) -> tuple[int, int]:
        """Return the part of the window's indices that is in the ring buffer, maybe none."""
        stop = self._stop(end_ns)
        first = max(stop - self._window, self._end - self._capacity)
        last = min(stop, self._end)
        return (first, last) if first < last and not self._empty else (stop, stop)

    def _stop(self, end_ns: int) -> int:
        return self._index(end_ns) // self._hop * self._hop

    def _start(self, sample_rate: int, stamp_ns: int) -> _Segment:
        return _Segment(StreamResampler(sample_rate, self._rate), stamp_ns, self._index(stamp_ns))

    def _write(self, samples: NDArray[np.float32], start: int) -> None:
        """Write from an index on, where no sample is valid."""
        if not len(samples):
            return
        self._advance(start + len(samples))
        skipped = max(0, self._end - self._capacity - start)
        samples, start = samples[skipped:], start + skipped
        position = 0
        for part in self._parts(start, start + len(samples)):
            end = position + part.stop - part.start
            gaps = ~self._valid[part]
            self._samples[part][gaps] = samples[position:end][gaps]
            self._valid[part] = True
            position = end

    def _advance(self, end: int) -> None:
        """Move the buffer's end forward; what lies between becomes zeros that are not valid."""
        if self._empty:
            self._end, self._empty = end, False
        fresh = min(end - self._end, self._capacity)
        if fresh > 0:
            for part in self._parts(end - fresh, end):
                self._samples[part] = 0
                self._valid[part] = False
            self._end = end

    def _parts(self, first: int, last: int) -> list[slice]:
        """Return where the samples with these indices are stored, in order."""
        start, stop = first % self._capacity, first % self._capacity + last - first
        if stop <= self._capacity:
            return [slice(start, stop)]
        return [slice(start, self._capacity), slice(0, stop - self._capacity)]

    def _index(self, time_ns: int) -> int:
        return (time_ns * self._rate + NANOSECONDS // 2) // NANOSECONDS

    def _time_ns(self, index: int) -> int:
        return index * NANOSECONDS // self._rate


@dataclass(frozen=True, eq=False)
class StoredAudio:
    """The audio of one window."""

    samples: NDArray[np.float32]
    valid_mask: NDArray[np.bool_]
    """Bool `[n]`: false where `samples` has zeros for a gap."""
    first: int
    """Index in the stream of the first sample."""
    span_ns: tuple[int, int]
    """Times of the first and last valid sample."""
    cache: SpectrogramCache

    def chunk_keys(self, count: int, columns: int) -> list[tuple[int, int]]:
        """
        Return what identifies each chunk of a spectrogram of one tile, and its audio.

        :param count: chunks of the tile.
        :param columns: of a chunk.
        """
        spec = self.cache.spec
        size = columns * spec.hop_length
        first = tile_starts(len(self.samples), spec)[0] * spec.hop_length
        bounds = [first + i * size for i in range(count + 1)]
        inside = np.clip(bounds, 0, len(self.samples))
        return [(self.first + start, hash((self.samples[a:b].tobytes(),
                                           self.valid_mask[a:b].tobytes())))
                for start, a, b in zip(bounds, inside, inside[1:])]

    def arrays(self) -> AudioArrays:
        """Return the samples with their spectrogram, of which only what is new is computed."""
        spectrogram = None
        if not self.cache.spec.tile_duration:
            spectrogram = self.cache.log_mel(self.samples, self.valid_mask, self.first)
        return AudioArrays(self.samples, self.valid_mask, spectrogram)


@dataclass
class _Segment:
    """Chunks that follow each other without a gap."""

    resampler: StreamResampler
    stamp_ns: int
    start: int
    """Index of the first sample."""
    pushed: int = 0
    """Samples added, at the source's rate."""
    written: int = 0
    """Samples written, at the model's rate."""
    offset_sign: int = 0
    """Of the last stamp: 1 late, -1 early, 0 neither."""
    offset_since_ns: int = 0
    """Stamp since which the sign is the same."""

    def has_offset(self, stamp_ns: int, offset_ns: int) -> bool:
        """Record a stamp; return whether all are late, or early, for longer than by jitter."""
        late_ns = stamp_ns - self.next_ns
        sign = (late_ns > offset_ns) - (late_ns < -offset_ns)
        if sign != self.offset_sign:
            self.offset_sign, self.offset_since_ns = sign, stamp_ns
        return sign != 0 and stamp_ns - self.offset_since_ns >= _OFFSET_TIMEOUT_NS

    @property
    def next_ns(self) -> int:
        """Return the stamp that the next chunk should have."""
        return self.stamp_ns + self.pushed * NANOSECONDS // self.resampler.source_rate


@dataclass(frozen=True, eq=False)
class _Columns:
    """The spectrogram columns of one window."""

    first: int
    bands: NDArray[np.float32]
    reusable: NDArray[np.bool_]
    """Bool `[s]`: those that depend on valid samples inside the window only."""


class SpectrogramCache:
    """
    Store the columns of the last window, so that overlapping windows compute each once.

    Valid samples do not change (`AudioBuffer`), nor do the columns that depend on nothing
    else. One thread may use it at a time: it belongs to the worker that prepares the windows.
    """

    def __init__(self, spec: AudioSpec) -> None:
        self.spec = spec
        self._cached: _Columns | None = None

    def log_mel(
        self, samples: NDArray[np.float32], valid_mask: NDArray[np.bool_], first: int,
    ) -> NDArray[np.float32]:
        """
        Return `preprocess.audio.log_mel` of a window's samples `[n]`, float32 `[f, s]`.

        Columns that touch a gap have undefined values: they must not be used.

        :param valid_mask: bool `[n]`, false where the samples are zeros for a gap.
        :param first: index of the first sample in the stream. Windows whose indices differ by
            whole hops share their columns.
        """
        count = columns_of(len(samples), self.spec)
        bands = np.zeros((self.spec.n_mels, count), np.float32)
        gaps = touching_gaps(valid_mask, self.spec)
        reusable = ~gaps & self._inside(len(samples))
        missing = ~(self._reuse(bands, first) & reusable | gaps)
        for start, stop in _runs(missing):
            bands[:, start:stop] = log_mel(samples, self.spec, start, stop)
        self._cached = _Columns(first, bands, reusable)
        return bands

    def _reuse(self, bands: NDArray[np.float32], first: int) -> NDArray[np.bool_]:
        """Fill in the cached columns, and mark them, bool `[s]`."""
        reused = np.zeros(bands.shape[1], np.bool_)
        cached = self._cached
        if cached is not None:
            moved, rest = divmod(first - cached.first, self.spec.hop_length)
            if rest == 0 and 0 <= moved < len(reused):
                reusable = cached.reusable[moved:]
                bands[:, :len(reusable)][:, reusable] = cached.bands[:, moved:][:, reusable]
                reused[:len(reusable)] = reusable
        return reused

    def _inside(self, samples: int) -> NDArray[np.bool_]:
        """Mark the columns, bool `[s]`, that depend on samples of the window only."""
        first, last = column_spans(samples, self.spec)
        inside: NDArray[np.bool_] = (first >= 0) & (last <= samples)
        return inside


def _runs(mask: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield start and end of each run of true values."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist())
