"""The check of the rate of a time series."""

from __future__ import annotations

from collections import deque

from karmma_ros.clip import NANOSECONDS
from karmma_ros.modalities.content_check import Finding, Persistence

VECTORS_PER_SAMPLE = 64
"""Vectors that are stored for each sample of the window, at most."""
_INTERVALS, _LEAST_INTERVALS = 32, 8
_CHANGE = 1.5
"""A rate that is this many times another is another rate."""
_PAUSE = 5
"""An interval that is this many times the mean is a pause."""


class RateCheck:
    """Find messages at a rate that changes, or that does not suit the samples of the window."""

    def __init__(self) -> None:
        self.rate: Finding | None = None
        """The rate is too low or too high."""
        self.change: Finding | None = None
        """The rate is not what it was first."""
        self._first_hz = 0.0
        self._times: deque[int] = deque(maxlen=_INTERVALS + 1)
        self._unsuitable, self._changed = (
            Persistence(2 * NANOSECONDS, _INTERVALS) for _ in range(2))

    def update(self, time_ns: int, samples: int, duration_s: float) -> None:
        """
        Take a message.

        :param time_ns: its stamp, or the time of receipt.
        :param samples: of the window.
        """
        times = self._times
        if times and not 0 < time_ns - times[-1] <= _PAUSE * self._mean_ns():
            if 0 <= times[-1] - time_ns < NANOSECONDS:
                return  # it was overtaken by others
            times.clear()
        times.append(time_ns)
        if len(times) <= _LEAST_INTERVALS:
            return
        rate = NANOSECONDS / self._mean_ns()
        self._compare(rate, time_ns)
        least, most = samples / 4 / duration_s, VECTORS_PER_SAMPLE * samples / 1.25 / duration_s
        if not self._unsuitable.update(not least <= rate <= most, time_ns):
            self.rate = None
        elif self.rate is None and rate < least:
            self.rate = Finding(
                f'{rate:.3g} messages a second, expected {least:.3g} or more for the {samples} '
                f'samples of a {duration_s:g} s window: raise the rate of the driver')
        elif self.rate is None:
            self.rate = Finding(
                f'{rate:.3g} messages a second, of which a window can hold {most:.3g}: lower the '
                'rate of the driver, or thin the topic out with `ros2 run topic_tools throttle`')

    def _compare(self, rate: float, time_ns: int) -> None:
        if not self._first_hz and len(self._times) > _INTERVALS:
            self._first_hz = rate
        ratio = rate / self._first_hz if self._first_hz else 1.0
        if not self._changed.update(not 1 / _CHANGE <= ratio <= _CHANGE, time_ns):
            self.change = None
        elif self.change is None:
            self.change = Finding(
                f'{rate:.3g} messages a second, {self._first_hz:.3g} before: they are resampled; '
                'set a constant rate in the driver')

    def _mean_ns(self) -> float:
        count = len(self._times) - 1
        return (self._times[-1] - self._times[0]) / count if count else float('inf')
