"""
Timed vectors (IMU, joints, tactile sensors) to evenly spaced samples of a window.

Times are integer nanoseconds relative to the end of the window: 0 is its end, and what is later
does not exist yet. Two samples that are further apart than a quarter of the window (its reach)
have a gap between them: the earlier one is held across it.

Shape legend: n vectors as received, c channels, t samples of the window, s slots.
"""

from __future__ import annotations

from typing import Any

from karmma_ros.errors import InvalidSampleError
import numpy as np
from numpy.typing import NDArray

_MOST_POINTS = 64
"""Of one sample, over which the mean is computed."""


def reach_ns(duration_ns: int) -> int:
    """Return the longest time between two vectors across which they are interpolated."""
    return duration_ns // 4


def usable(times_ns: NDArray[np.int64], duration_ns: int) -> NDArray[np.intp]:
    """
    Return the indices of the vectors that a window uses, in the order of their times.

    These are the vectors up to its end and those shortly before its start, from which its first
    samples are interpolated. Of several with the same time the first counts.

    :param times_ns: `[n]`, in any order.
    """
    _, first = np.unique(times_ns, return_index=True)
    ordered = times_ns[first]
    oldest_ns = -duration_ns - reach_ns(duration_ns)
    indices: NDArray[np.intp] = first[(ordered > oldest_ns) & (ordered <= 0)]
    return indices


def resample_series(
    times_ns: NDArray[np.int64], values: NDArray[np.float32], duration_ns: int, samples: int,
) -> NDArray[np.float32]:
    """
    Interpolate linearly at the centres of `samples` equal parts of a window.

    Before the first vector and after the last one, their values are held, and so are values
    across a gap. Where a part has several vectors, the mean of the interpolation over it is taken,
    so that what is faster than the samples does not alias.

    :param times_ns: `[n]`, in any order; what the window does not use is left out.
    :param values: `[n, c]`; a value that is not finite was not measured.
    :returns: `[c, t]`; a channel without any value in the window is NaN.
    :raises InvalidSampleError: without a vector, or for other shapes.
    """
    if values.ndim != 2 or times_ns.shape != values.shape[:1]:
        raise InvalidSampleError(
            f'time series: got times {list(times_ns.shape)} and values {list(values.shape)}; '
            'expected [n] and [n, channels]')
    indices = usable(times_ns, duration_ns)
    if not len(indices):
        raise InvalidSampleError('time series: got no vector in the window; expected one or more')
    times, values = times_ns[indices], values[indices]
    inside = np.count_nonzero(times > -duration_ns)
    points = min(_MOST_POINTS, max(1, round(inside / samples)))
    count = samples * points
    centres: NDArray[Any] = -duration_ns + (np.arange(count) + 0.5) * (duration_ns / count)
    reach, measured = reach_ns(duration_ns), np.isfinite(values)
    if measured.all():
        series = _interpolate(centres, times, values, reach)
    else:
        series = np.concatenate([
            _interpolate(centres, times[each], values[each, c:c + 1], reach)
            for c, each in enumerate(measured.T)])
    means: NDArray[np.float32] = series.reshape(len(series), samples, points).mean(2).astype(
        np.float32)
    return means


def _interpolate(
    at: NDArray[Any], times_ns: NDArray[np.int64], values: NDArray[np.float32], reach: int,
) -> NDArray[np.float64]:
    """Interpolate vectors `[n, c]` at some times; without any vector all is NaN."""
    if not len(times_ns):
        return np.full((values.shape[1], len(at)), np.nan)
    gaps = np.flatnonzero(np.diff(times_ns) > reach)
    times, known = times_ns.astype(np.float64), values.T.astype(np.float64)
    if len(gaps):  # held until just before the next one
        times = np.insert(times_ns, gaps + 1, times_ns[gaps + 1] - 1).astype(np.float64)
        known = np.insert(known, gaps + 1, known[:, gaps], axis=1)
    return np.stack([np.interp(at, times, channel) for channel in known])


def covered_slots(
    times_ns: NDArray[np.int64], duration_ns: int, count: int
) -> NDArray[np.bool_]:
    """
    Return which of `count` equal slots of a window have a vector near their centre, bool `[s]`.

    Near is one slot or, with a slower sensor, its median period, at most a quarter of the window.
    Within a gap, near is one slot.

    :param times_ns: `[n]`, ascending, of the vectors that the window uses.
    """
    if not len(times_ns):
        return np.zeros(count, np.bool_)
    reach, period = reach_ns(duration_ns), duration_ns / count
    centres = -duration_ns + (np.arange(count) + 0.5) * period
    after = np.searchsorted(times_ns, centres)
    known = np.concatenate([[-np.inf], times_ns, [np.inf]])
    before_ns, after_ns = centres - known[after], known[after + 1] - centres
    nearest = np.minimum(before_ns, after_ns)
    median_ns = float(np.median(np.diff(times_ns))) if len(times_ns) > 1 else 0.0
    between = np.isfinite(before_ns) & np.isfinite(after_ns)
    in_gap = between & (before_ns + after_ns > reach)
    tolerance = np.where(in_gap, period, max(period, min(median_ns, reach)))
    covered: NDArray[np.bool_] = nearest <= tolerance
    return covered
