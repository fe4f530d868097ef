"""
Time series in files: `.csv` with a line for each sample, and `.npy`.

A CSV file is read once in each process and held as numbers; of an array, which may be of any size,
only the interval is read.

Shape legend: n samples, c channels.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from karmma_ros.errors import DataError
from karmma_ros.files import file_problem, no_such_file, open_data_file
from karmma_ros.media.csv_table import csv_rows
from karmma_ros.media.sources import SourceOptions
import numpy as np
from numpy.typing import NDArray

TIME = 'time'
"""Column of the times, seconds of the recording."""
_MAX_HELD = 64 << 20
"""Bytes of the CSV files that a process holds, apart from the last one that it read."""
_MOST_VALUES = 64 << 20
"""Of a CSV file."""
_CORRECT = 'correct it'
_NO_RATE = 'set their number in a second with manifest.rates'


@dataclass(frozen=True)
class SeriesFile:
    r"""
    A time series: a `SeriesSource`.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from karmma_ros.media.series_file import SeriesFile
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, 'imu.csv')
    ...     _ = path.write_text('time,ax,ay\n0.0,1,2\n0.5,3,4\n1.0,5,6\n')
    ...     times, values = SeriesFile(path, factors=(10.0,)).values(0.6, 0.8)
    >>> times.tolist(), values.tolist()
    ([0.5, 1.0], [[30.0, 40.0], [50.0, 60.0]])
    """

    path: Path
    rate: float | None = None
    """Samples a second of a file without times; 0: the first column of an array is the time."""
    columns: tuple[str, ...] = ()
    """Columns of a CSV file that are its channels; none: all but the time, in their order."""
    factors: tuple[float, ...] = ()
    """By which values are multiplied: one for each channel, or one for all."""

    def values(
        self, start_s: float, end_s: float,
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """
        Return times `[n]` and values `[n, c]` of an interval, see `SeriesSource`.

        An array gives `[n, …]` as it is stored, NaN included; a CSV file has none.
        """
        if self.path.suffix.lower() == '.npy':
            times, values = self._of_array(start_s, end_s)
        else:
            series = _held(self.path, self.rate or 0.0, self.columns)
            between = _between(self.path, series.times_s, start_s, end_s)
            times, values = series.times_s[between], series.values[between].copy()
        if self.factors:
            if len(self.factors) not in (1, values.shape[-1]):
                raise DataError(
                    self.path, f'it has {values.shape[-1]} channels; expected '
                    f'{len(self.factors)}, as manifest.scale has', _CORRECT)
            values *= np.array(self.factors, np.float32)
        return times, values

    def problem(self) -> str | None:
        """Return why nothing can be read, as far as its first bytes show; None if it can."""
        problem = file_problem(self.path)
        if problem is not None:
            return problem
        try:
            if self.path.suffix.lower() == '.npy':
                self._mapped()
            else:
                _header(self.path, self.rate or 0.0, self.columns, next(csv_rows(self.path), None))
        except DataError as error:
            return f'{self.path}: {error.problem}: {error.remedy}'
        return None

    def _of_array(
        self, start_s: float, end_s: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        stored = self._mapped()
        if not self.rate:
            between = _between(self.path, stored[:, 0], start_s, end_s)
            part = np.array(stored[between], np.float64)
            wrong = np.flatnonzero(~(np.diff(part[:, 0]) >= 0))
            if len(wrong):
                at = between.start + int(wrong[0]) + 1
                raise DataError(self.path, f'row {at}: its time {part[wrong[0] + 1, 0]:g} is '
                                f'before the one above, {part[wrong[0], 0]:g}', 'sort it by time')
            return part[:, 0].copy(), part[:, 1:].astype(np.float32)
        first = max(0, math.floor(start_s * self.rate))
        last = min(len(stored) - 1, math.ceil(end_s * self.rate))
        if first >= len(stored):
            raise _ended(self.path, len(stored) / self.rate, start_s)
        values = np.array(stored[first:last + 1], np.float32)
        return np.arange(first, last + 1) / self.rate, values

    def _mapped(self) -> NDArray[Any]:
        """Map the array, `[n, …]` of two axes or more, without reading it."""
        stored = map_array(self.path)
        timed = not self.rate
        if timed and (stored.ndim != 2 or stored.shape[1] < 2):
            raise DataError(
                self.path, f'it has the shape {list(stored.shape)}; expected [n, 1 + channels], '
                'the first column the time', _NO_RATE)
        return stored if stored.ndim > 1 else stored[:, None]


def open_series(
    path: Path, modality: str, options: SourceOptions, columns: Sequence[str] = (),
) -> SeriesFile:
    """
    Open the time series of a modality.

    :param columns: of a CSV file, which are its channels; none: all but the time.
    :raises DataError: for another kind of file, or an array whose rate is not set.
    """
    rate = options.rates.get(modality)
    suffix = path.suffix.lower()
    if suffix not in ('.csv', '.npy'):
        raise DataError(path, 'expected a time series (.csv, .npy)',
                        'convert it: a line for each sample, with a column time in seconds')
    if suffix == '.npy' and rate is None:
        raise DataError(
            path, 'expected the rate of its samples', f'set manifest.rates.{modality} (Hz), or 0 '
            'where its first column is the time')
    return SeriesFile(path, rate, tuple(columns), tuple(options.scale.get(modality, ())))


def map_array(path: Path) -> NDArray[Any]:
    """
    Map an array of numbers in a `.npy` file, without reading it.

    :raises DataError: when it cannot be read, holds something else, or nothing.
    """
    try:
        open_data_file(path).close()  # refuses what is not a regular file
        stored: NDArray[Any] = np.lib.format.open_memmap(path, mode='r')
    except FileNotFoundError:
        raise no_such_file(path) from None
    except (ValueError, OSError, EOFError) as error:
        raise DataError(path, f'it is no .npy file of numbers ({error})',
                        'store it anew: numpy.save(path, array)') from error
    if stored.dtype.kind not in 'fiu' or not stored.size:
        raise DataError(path, f'it holds {stored.dtype} {list(stored.shape)}; expected numbers',
                        'store it anew: numpy.save(path, array)')
    return stored


class _Series(NamedTuple):
    times_s: NDArray[np.float64]
    """`[n]`, ascending."""
    values: NDArray[np.float32]
    """`[n, c]`, finite."""


class _Columns(NamedTuple):
    names: list[str]
    time: int
    """Index of the column of times; -1 without one."""
    channels: list[int]


_files: OrderedDict[tuple[Any, ...], _Series] = OrderedDict()


def _held(path: Path, rate: float, columns: tuple[str, ...]) -> _Series:
    """Return the series of a CSV file; it is read again when the file has changed."""
    try:
        status = os.stat(path)
    except OSError:
        raise no_such_file(path) from None
    key = path, status.st_ino, status.st_size, status.st_mtime_ns, rate, columns
    if key in _files:
        _files.move_to_end(key)
        return _files[key]
    series = _read(path, rate, columns)
    _files[key] = series
    while len(_files) > 1 and _size(_files.values()) > _MAX_HELD:
        _files.popitem(last=False)
    return series


def _size(held: Iterable[_Series]) -> int:
    return sum(each.times_s.nbytes + each.values.nbytes for each in held)


def _read(path: Path, rate: float, columns: tuple[str, ...]) -> _Series:
    rows = csv_rows(path)
    header = _header(path, rate, columns, next(rows, None))
    times, values = array('d'), array('f')
    for line, cells in rows:
        if len(cells) < len(header.names):
            raise DataError(path, f'line {line}: it has {len(cells)} cells; expected '
                            f'{len(header.names)}', _CORRECT)
        time_s = len(times) / rate if header.time < 0 else _number(path, line, header, cells,
                                                                  header.time)
        if times and time_s <= times[-1]:
            if time_s == times[-1]:
                continue  # of several samples at one time, as rounded times may have it
            raise DataError(path, f'line {line}: time is {time_s:g}, before that of the line '
                            f'above, {times[-1]:g}', 'sort it by time')
        if len(values) > _MOST_VALUES:
            raise DataError(path, f'it has over {_MOST_VALUES:,} values',
                            'store it as an array: numpy.save, with the time as first column')
        times.append(time_s)
        values.extend(_number(path, line, header, cells, each) for each in header.channels)
    if not times:
        raise DataError(path, 'it holds no sample', 'remove it from the manifest')
    return _Series(np.array(times, np.float64),
                   np.array(values, np.float32).reshape(len(times), -1))


def _header(
    path: Path, rate: float, columns: Sequence[str], first: tuple[int, list[str]] | None,
) -> _Columns:
    """Find the columns of times and channels."""
    names = [] if first is None else first[1]
    if not names or any(_is_number(name) for name in names):
        raise DataError(path, 'line 1: expected the names of the columns', 'add them')
    lower = [name.casefold() for name in names]
    time = lower.index(TIME) if TIME in lower else -1
    if time < 0 and not rate:
        raise DataError(path, f'line 1: the column {TIME!r} is missing; expected one in seconds',
                        f'add it; where the samples are evenly spaced, {_NO_RATE}')
    if columns:
        missing = next((each for each in columns if each.casefold() not in lower), None)
        if missing is not None:
            raise DataError(path, f'line 1: the column {missing!r} is missing',
                            f'expected columns are {", ".join([TIME, *columns])}')
        return _Columns(names, time, [lower.index(each.casefold()) for each in columns])
    unnamed = ('', 'unnamed: 0')  # the index that pandas and R write
    channels = [i for i, name in enumerate(lower) if i != time and name not in unnamed]
    if not channels:
        raise DataError(path, 'line 1: it has no channel beside the time', 'add a column')
    return _Columns(names, time, channels)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(path: Path, line: int, header: _Columns, cells: Sequence[str], at: int) -> float:
    try:
        number = float(cells[at])
    except ValueError:
        text = cells[at].replace(',', '.')  # a decimal comma
        number = float(text) if _is_number(text) else math.nan
    if not math.isfinite(number):
        raise DataError(path, f'line {line}: {header.names[at]} is {cells[at]!r}; expected a '
                        'number', _CORRECT)
    return number


def _between(path: Path, times_s: Sequence[float] | NDArray[Any], start_s: float, end_s: float,
             ) -> slice:
    """Return what lies in an interval, and one sample before and after it."""
    last, first = float(times_s[-1]), float(times_s[0])
    if start_s > last:
        raise _ended(path, last, start_s)
    if end_s < first:
        raise DataError(path, f'it begins at {first:.2f} s, after {end_s:.2f} s',
                        'count its times from the start of the recording')
    return slice(max(0, bisect_right(times_s, start_s) - 1), bisect_left(times_s, end_s) + 1)


def _ended(path: Path, end_s: float, start_s: float) -> DataError:
    return DataError(path, f'it ends after {end_s:.2f} s, before {start_s:.2f} s',
                     'correct the segment, or fetch the file again')
