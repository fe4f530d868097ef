"""
Boxes that were annotated or detected before, by time.

Shape legend: f frames that hold boxes, n boxes in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from karmma_ros.errors import DataError, InvalidSampleError
from karmma_ros.media.csv_table import read_csv
from karmma_ros.preprocess.box_array import CATEGORIES, check_boxes
import numpy as np
from numpy.typing import NDArray

NO_BOXES: NDArray[np.float32] = np.zeros((0, 5), np.float32)
"""The boxes of a frame without any."""

BOX_COLUMNS = ('time', 'x1', 'y1', 'x2', 'y2', 'category')
"""Columns of a file of boxes: seconds, corners in 0..1, `hand` or `object`."""

_SLACK = 1 + 1e-6  # half a period is often met exactly, and times are rounded


@dataclass(frozen=True, eq=False)
class BoxTrack:
    """
    The boxes of one video: a `BoxSource` over arrays.

    The boxes at a time are those of the nearest frame; none if it is more than half a frame period
    away.
    """

    times_s: NDArray[np.float64]
    """Ascending times of the frames, `[f]`."""
    offsets: NDArray[np.int64]
    """Frame i holds the rows from offsets[i] to offsets[i + 1], `[f + 1]`."""
    rows: NDArray[np.float32]
    """x1, y1, x2, y2 in 0..1 and the category, `[n, 5]`; hands need not come first."""
    period_s: float
    """Time between two frames."""

    @classmethod
    def of_rows(
        cls, times_s: NDArray[np.float64], rows: NDArray[np.float32], period_s: float = 0.0,
    ) -> BoxTrack:
        """
        Group rows `[n, 5]` by their times `[n]`, in any order; rows of a time keep theirs.

        :param period_s: 0: the median time between two frames with boxes; a single frame lasts
            a second.
        """
        order = np.argsort(times_s, kind='stable')
        times, starts = np.unique(times_s[order], return_index=True)
        if not period_s:
            period_s = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        offsets = np.append(starts, len(rows)).astype(np.int64)
        return cls(times, offsets, rows[order], period_s)

    def boxes(self, times_s: Sequence[float]) -> list[NDArray[np.float32]]:
        """Return one float32 `[n, 5]` for each time."""
        return [self._at(time_s) for time_s in times_s]

    def problem(self) -> str | None:
        """Return why nothing can be read: None, it is in memory."""
        return None

    def _at(self, time_s: float) -> NDArray[np.float32]:
        if not len(self.times_s):
            return NO_BOXES
        after = int(np.searchsorted(self.times_s, time_s))
        nearest = min(
            (i for i in (after - 1, after) if 0 <= i < len(self.times_s)),
            key=lambda i: abs(self.times_s[i] - time_s))
        if abs(self.times_s[nearest] - time_s) > self.period_s / 2 * _SLACK:
            return NO_BOXES
        return self.rows[self.offsets[nearest]:self.offsets[nearest + 1]]


@dataclass(frozen=True)
class BoxFile:
    """A `BoxSource` over a CSV file with the columns `BOX_COLUMNS`."""

    path: Path
    period_s: float = 0.0
    """Time between two frames; 0: as in `BoxTrack.of_rows`."""

    def boxes(self, times_s: Sequence[float]) -> list[NDArray[np.float32]]:
        """
        Return one float32 `[n, 5]` for each time.

        :raises DataError: when the file is missing or a line of it is wrong.
        """
        return _track(self.path, self.period_s).boxes(times_s)

    def problem(self) -> str | None:
        """Return why nothing can be read; None if it can."""
        return None if self.path.is_file() else f'{self.path}: there is no such file'


def read_boxes(path: Path, period_s: float = 0.0) -> BoxTrack:
    """
    Read a CSV file with the columns `BOX_COLUMNS`, in any order.

    :raises DataError: naming the line and what is wrong in it.
    """
    table = read_csv(path)
    _check_columns(path, table.header)
    times, rows = [], []
    for number, cells in table.rows:
        line = dict(zip_longest(table.header, cells[:len(table.header)]))
        time_s, row = _read_line(path, number, line)
        times.append(time_s)
        rows.append(row)
    return BoxTrack.of_rows(
        np.array(times, np.float64), np.array(rows, np.float32).reshape(-1, 5), period_s)


@lru_cache(maxsize=64)
def _track(path: Path, period_s: float) -> BoxTrack:
    return read_boxes(path, period_s)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if set(columns) != set(BOX_COLUMNS):
        raise DataError(path, f'its columns are {", ".join(columns) or "missing"}',
                        f'they must be {", ".join(BOX_COLUMNS)}')


def _read_line(
    path: Path, number: int, line: dict[str, Any],
) -> tuple[float, NDArray[np.float32]]:
    values = []
    for column in BOX_COLUMNS[:-1]:
        try:
            values.append(float(line[column].replace(',', '.')))
        except (AttributeError, ValueError):
            raise DataError(path, f'line {number}: {column} is {line[column]!r}',
                            'it must be a number') from None
    category = CATEGORIES.get((line['category'] or '').lower())
    if category is None:
        raise DataError(path, f'line {number}: category is {line["category"]!r}',
                        f'it must be {" or ".join(CATEGORIES)}')
    row = np.array([*values[1:], category], np.float32)
    try:
        check_boxes(row[None])
    except InvalidSampleError as error:
        raise DataError(path, f'line {number}: {error}', 'correct it') from error
    if not np.isfinite(values[0]):
        raise DataError(path, f'line {number}: time is {line["time"]!r}', 'give seconds')
    return values[0], row
