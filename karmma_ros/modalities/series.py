"""
Timed vectors: the buffer, the checks and the preparation of every modality that is a time series.

A type derives from `SeriesType`: it states the number of channels and reads a message to a
vector.

Shape legend: n vectors as received, c channels, t samples of the window, s slots.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, TYPE_CHECKING

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modalities.modality_type import InputDecoder, InputMessage, ModalityType
from karmma_ros.modalities.rate_check import RateCheck, VECTORS_PER_SAMPLE
from karmma_ros.modalities.sample_buffer import Coverage, SampleBuffer
from karmma_ros.modalities.series_corruptions import SERIES_CORRUPTIONS
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.time_series import covered_slots, reach_ns, resample_series, usable
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from karmma_ros.media.sources import SeriesSource, SharedFrames, SourceOptions
    from torch import Tensor

MOST_SAMPLES, MOST_CHANNELS = 16_384, 4096
"""Limits of what a model may require."""
_SPARE_SLOTS, _BURST_NS = 2, 1_000_000


def check_field(type_name: str, field: str, value: Any, valid: bool, allowed: str) -> None:
    """
    Refuse the value of a field of a specification unless it is valid.

    :raises InvalidSettingError: naming it as a clip's specification does.
    """
    if not valid:
        raise InvalidSettingError(f'clip.inputs.{type_name}.{field}', value, allowed)


@dataclass(frozen=True)
class SeriesSpec:
    """How timed vectors become evenly spaced samples of the window."""

    type_name: ClassVar[str]
    """Of the modality, for errors."""

    samples: int = 64
    """Samples of the window, interpolated linearly at the centres of as many equal parts (t)."""

    def __post_init__(self) -> None:
        self.check('samples', type(self.samples) is int and 0 < self.samples <= MOST_SAMPLES,
                   f'an integer from 1 to {MOST_SAMPLES}')

    def check(self, field: str, valid: bool, allowed: str) -> None:
        """
        Refuse the value of a field unless it is valid.

        :raises InvalidSettingError: naming it.
        """
        check_field(self.type_name, field, getattr(self, field), valid, allowed)


@dataclass(frozen=True)
class ChannelSpec(SeriesSpec):
    """The specification of channels that may be standardised, each for itself."""

    mean: tuple[float, ...] = ()
    """Subtracted from each channel; empty: 0."""
    std: tuple[float, ...] = ()
    """Each channel is then divided by this; empty: 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ('mean', 'std'):
            values = getattr(self, field)
            self.check(
                field, len(values) in (0, self.channels) and all(
                    isinstance(each, (int, float)) and isfinite(each) for each in values),
                f'empty, or a number for each of {self.channels} channels')
        self.check('std', all(each > 0 for each in self.std), 'numbers above 0')

    @property
    def channels(self) -> int:
        """Return the number of channels (c); 0 where it is not set."""
        raise NotImplementedError

    def standardised(self, series: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return channels `[c, t]` in units of their deviation."""
        mean = np.array(self.mean or [0.0], np.float32)[:, None]
        std = np.array(self.std or [1.0], np.float32)[:, None]
        return np.asarray((series - mean) / std, np.float32)

    def restored(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the channels `[c, t]` that `standardised` took."""
        mean = np.array(self.mean or [0.0], np.float32)[:, None]
        return np.asarray(x * np.array(self.std or [1.0], np.float32)[:, None] + mean)

    @property
    def usual_size(self) -> NDArray[np.float32]:
        """Return the deviation of each channel; 1 where it is not known."""
        return np.array(self.std or [1.0], np.float32)


@dataclass(frozen=True, eq=False)
class Series:
    """
    Timed vectors, as `SeriesType.prepare` takes them, live and from files alike.

    Those after the end of the window, and those long before it, make no difference.
    """

    times_ns: NDArray[np.int64]
    """Time of each vector relative to the end of the window, nanoseconds, `[n]`, in any order."""
    values: NDArray[np.float32]
    """The vectors, `[n, c]`."""

    @classmethod
    def from_seconds(
        cls, times_s: Sequence[float] | NDArray[Any], values: NDArray[Any], end_s: float,
    ) -> Series:
        """Take vectors with times in seconds, and the second at which the window ends."""
        relative = np.asarray(times_s, np.float64) - end_s
        return cls(np.round(relative * NANOSECONDS).astype(np.int64),
                   np.asarray(values, np.float32))


@dataclass(frozen=True, eq=False)
class StoredSeries:
    """The vectors of one window."""

    times_ns: NDArray[np.int64]
    """Stamps, `[n]`, ascending."""
    values: NDArray[np.float32]
    """`[n, c]`."""
    end_ns: int
    duration_ns: int

    @property
    def span_ns(self) -> tuple[int, int]:
        """Return the oldest and the newest stamp in the window."""
        inside = self.times_ns[self.times_ns > self.end_ns - self.duration_ns]
        stamps = inside if len(inside) else self.times_ns
        return int(stamps[0]), int(stamps[-1])

    def arrays(self) -> Series:
        """Return the vectors with their times relative to the window's end."""
        return Series(self.times_ns - self.end_ns, self.values)


class SeriesBuffer(SampleBuffer):
    """
    Store the vectors of recent messages; the first of a stamp stays.

    Coverage is counted in slots, as many as the clip has frames (`covered_slots`). Where parts of
    a vector may be missing (NaN), it is that of the part with the least.
    """

    def __init__(
        self, clip: ClipSpec, channels: int, samples: int, parts: int = 1, part_name: str = '',
    ) -> None:
        """
        Start empty.

        :param channels: of a vector (c).
        :param samples: of the window (t).
        :param parts: equal parts of a vector, such as joints, of which each may be missing.
        :param part_name: what a part is called; empty: none may be missing.
        """
        self._channels, self._parts, self._part_name = channels, parts, part_name
        self._slots, self._duration_ns = clip.num_frames, clip.duration_ns
        self._kept_ns = (clip.duration_ns + reach_ns(clip.duration_ns)
                         + _SPARE_SLOTS * clip.frame_period_ns)
        self._most = VECTORS_PER_SAMPLE * samples
        self._stamps: list[int] = []
        self._values: list[NDArray[np.float32]] = []

    @property
    def newest_ns(self) -> int | None:
        """Return the stamp of the newest vector."""
        return self._stamps[-1] if self._stamps else None

    @property
    def nbytes(self) -> int:
        """Return the memory held by vectors."""
        return sum(values.nbytes for values in self._values)

    def keep_longer(self, spare_ns: int) -> None:
        """Keep vectors for this much longer, and as many more."""
        self._kept_ns += spare_ns
        self._most += -(-self._most * spare_ns // self._duration_ns)

    def times_ns(self, sample: Any, stamp_ns: int, now_ns: int) -> tuple[int, int]:
        """Check a vector, float32 `[c]`; return its stamp."""
        self._check(sample)
        return super().times_ns(sample, stamp_ns, now_ns)

    def add(self, sample: NDArray[np.float32], start_ns: int, stamped: bool = True) -> None:
        """
        Store a vector `[c]`; the first of a stamp stays.

        Those without a stamp that are received at the same time, as with a coarse `/clock`, are
        stored one after the other, a nanosecond apart.

        :raises InvalidSampleError: for another type or shape, NaN or infinity.
        """
        self._check(sample)
        if not stamped and self._stamps and 0 <= self._stamps[-1] - start_ns < _BURST_NS:
            start_ns = self._stamps[-1] + 1
        index = bisect_left(self._stamps, start_ns)
        if self._stamps[index:index + 1] == [start_ns]:
            return
        self._stamps.insert(index, start_ns)
        self._values.insert(index, np.array(sample))
        surplus = max(bisect_left(self._stamps, self._stamps[-1] - self._kept_ns),
                      len(self._stamps) - self._most)
        del self._stamps[:surplus], self._values[:surplus]

    def coverage(self, end_ns: int | None) -> Coverage:
        """Return the coverage of the window that ends at `end_ns`."""
        if end_ns is None or not self._stamps:
            return Coverage(0, 0, self._slots, 'slots with samples')
        stamps, indices = self._used(end_ns)
        times = stamps - end_ns
        count = int(np.count_nonzero(times > -self._duration_ns))
        finite = np.isfinite(self._stacked(indices)) if self._part_name else np.ones(1, np.bool_)
        if finite.all():
            return Coverage(count, self._covered(times), self._slots, 'slots with samples')
        parts = finite.reshape(len(times), self._parts, -1)
        present: NDArray[np.bool_] = np.asarray(parts.all(axis=2))
        covered = [self._covered(times[present[:, part]]) for part in range(self._parts)]
        least = int(np.argmin(covered))
        name = 'slots with samples' if len({*covered}) == 1 else (
            f'slots with {self._part_name} {least}, which is seen least')
        return Coverage(count, covered[least], self._slots, name)

    def window(self, end_ns: int) -> StoredSeries:
        """Return the vectors of the window that ends at `end_ns`; it has some."""
        stamps, indices = self._used(end_ns)
        return StoredSeries(stamps, self._stacked(indices), end_ns, self._duration_ns)

    def clear(self) -> None:
        """Discard all vectors."""
        self._stamps.clear()
        self._values.clear()

    def _used(self, end_ns: int) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """Return stamps and indices of the vectors that a window uses, oldest first."""
        stamps = np.array(self._stamps, np.int64)
        indices = usable(stamps - end_ns, self._duration_ns)
        return stamps[indices], indices

    def _stacked(self, indices: NDArray[np.intp]) -> NDArray[np.float32]:
        values = np.array([self._values[i] for i in indices], np.float32)
        return values.reshape(len(indices), self._channels)

    def _covered(self, times_ns: NDArray[np.int64]) -> int:
        return int(np.count_nonzero(covered_slots(times_ns, self._duration_ns, self._slots)))

    def _check(self, sample: Any) -> None:
        check_array('vector', sample, np.float32, (self._channels,))
        if np.isfinite(sample).all() if not self._part_name else np.isfinite(sample).any():
            return
        raise InvalidSampleError('vector: got NaN or infinity; expected finite numbers')


class SeriesDecoder(InputDecoder):
    """Decode messages to vectors, and check their rate."""

    _clip: ClipSpec
    """Of the last message."""

    def decode(self, received: InputMessage, now_ns: int) -> NDArray[np.float32]:
        """Return the vector of a message, `[c]`."""
        self._clip = received.spec
        vector: NDArray[np.float32] = received.read()
        return vector

    def stored(self, sample: NDArray[np.float32], stamp_ns: int, now_ns: int) -> None:
        """Check the rate."""
        self._rate.update(
            stamp_ns or now_ns, self._clip.of(self.modality).samples, self._clip.duration)
        self.set_finding('rate', self._rate.rate)
        self.set_finding('change of rate', self._rate.change)

    def reset(self) -> None:
        """Start the check of the rate anew."""
        super().reset()
        self._rate = RateCheck()


class SeriesType(ModalityType):
    """A modality whose samples are timed vectors."""

    depth = 100  # at 1000 Hz, what comes while a callback of another input runs
    decoder = SeriesDecoder
    corruptions = SERIES_CORRUPTIONS

    @abstractmethod
    def channels(self, clip: ClipSpec) -> int:
        """
        Return the number of values that a message has (c).

        :raises InvalidSettingError: when its specification does not state it.
        """

    @abstractmethod
    def features(self, series: NDArray[np.float32], clip: ClipSpec) -> NDArray[np.float32]:
        """Return the network's input from the samples of the window `[c, t]`."""

    def prepare(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float32]:
        """Return the input from a `Series`."""
        if not isinstance(arrays, Series):
            raise InvalidSampleError(
                f'{self.modality}: got a {type(arrays).__name__}; expected a Series')
        check_array(str(self.modality), arrays.values, np.float32, ('n', self.channels(clip)))
        resampled = resample_series(
            arrays.times_ns, arrays.values, clip.duration_ns, self.spec(clip).samples)
        self.check_measured(np.asarray(np.isfinite(resampled).all(axis=1)), clip)
        return self.features(resampled, clip)

    def check_measured(self, measured: NDArray[np.bool_], clip: ClipSpec) -> None:
        """
        Check which channels have a value in the window, bool `[c]`.

        :raises InvalidSampleError: naming those without.
        """
        if not measured.all():
            raise InvalidSampleError(
                f'{self.modality}: channels {_listed(np.flatnonzero(~measured))} have no finite '
                'value in the window')

    def buffer(self, clip: ClipSpec) -> SeriesBuffer:
        """Return an empty buffer."""
        return SeriesBuffer(clip, self.channels(clip), self.spec(clip).samples)

    def columns(self, clip: ClipSpec) -> tuple[str, ...]:
        """Return the columns of a CSV file that are its channels; empty: all but the time."""
        return ()

    def open_source(self, path: Path, options: SourceOptions) -> SeriesSource:
        """Open a file of timed vectors."""
        from karmma_ros.media.series_file import open_series
        return open_series(path, self.modality, options, self.columns(options.clip))

    def read_window(
        self, source: SeriesSource, start_s: float, clip: ClipSpec, frames: SharedFrames,
    ) -> Series:
        """Return the vectors of the window, and those shortly before it."""
        end_s, reach_s = start_s + clip.duration, reach_ns(clip.duration_ns) / NANOSECONDS
        times_s, values = source.values(start_s - reach_s, end_s)
        return Series.from_seconds(times_s, values.reshape(len(times_s), -1), end_s)

    def samples_of(self, arrays: Series) -> NDArray[np.float32]:
        """Return the vectors `[n, c]`."""
        return arrays.values

    def with_samples(self, arrays: Series, samples: NDArray[np.float32]) -> Series:
        """Return other vectors at the same times."""
        return Series(arrays.times_ns, samples)

    def window_of_one(self, sample: NDArray[np.float32]) -> Series:
        """Return a series of one vector."""
        return Series(np.zeros(1, np.int64), sample[None])

    def only_sample(self, sample: NDArray[np.float32], arrays: Series) -> NDArray[np.float32]:
        """Return the vector."""
        vector: NDArray[np.float32] = arrays.values[0]
        return vector

    def sample_times(self, arrays: Series, clip: ClipSpec) -> NDArray[np.float64]:
        """Return the seconds from the first vector to each."""
        return np.asarray((arrays.times_ns - arrays.times_ns.min()) / NANOSECONDS)

    def truncate(self, arrays: Series, fraction: float, clip: ClipSpec) -> Series:
        """Return the vectors of the first fraction."""
        kept = arrays.times_ns <= round((fraction - 1) * clip.duration_ns)
        return Series(arrays.times_ns[kept], arrays.values[kept])

    def restored_series(self, values: NDArray[np.float32], clip: ClipSpec) -> Series:
        """Return vectors `[c, t]` at the times for which inputs are interpolated."""
        count = values.shape[1]
        times = -clip.duration_ns + (np.arange(count) + 0.5) * (clip.duration_ns / count)
        return Series(np.rint(times).astype(np.int64),
                      np.ascontiguousarray(values.T, np.float32))

    def augment(self, x: Tensor, strength: float, rand: Callable[..., Tensor]) -> Tensor:
        """Shift, scale and hold series, and add noise."""
        from karmma_ros.modalities.transforms import vary_series
        return vary_series(x, strength, rand)

    def invalid(self, text: str) -> InvalidSampleError:
        """Return the error of a message; parameters in its text become those of this input."""
        return InvalidSampleError(
            f'{self.modality}: ' + text.replace(f'{self.name}.', f'{self.modality}.'))


def _listed(indices: NDArray[np.intp]) -> str:
    return ', '.join(map(str, indices.tolist()))
