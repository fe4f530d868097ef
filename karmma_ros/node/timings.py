"""How fast results come, how long they take and how old they are."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

_RECENT = 128
_RECENT_S = 30.0


@dataclass(frozen=True)
class Pace:
    """The results of late; without any, rate is 0 and the rest is NaN."""

    rate: float
    """Results a second, hertz."""
    latency: tuple[float, float]
    """From window to prediction, median and 95th percentile, seconds."""
    age: tuple[float, float]
    """From the newest sample to publishing, the same; NaN where stamps are of another clock."""


class Timings:
    """Remember the latest results; times are those of a monotonic clock, seconds."""

    def __init__(self) -> None:
        self.results = 0
        """Published since activation."""
        self.skipped = 0
        """Wake-ups that came while the one before was not answered yet."""
        self._latest: deque[tuple[float, float, float]] = deque(maxlen=_RECENT)

    def add(self, now: float, latency: float, age: float) -> None:
        """Note a result; an age below zero is none."""
        self.results += 1
        self._latest.append((now, latency, age if age >= 0 else np.nan))

    def pace(self, now: float) -> Pace:
        """Sum up what was noted in the last half minute."""
        latest = np.array([x for x in list(self._latest) if now - x[0] <= _RECENT_S])
        if not len(latest):
            return Pace(0.0, (np.nan, np.nan), (np.nan, np.nan))
        elapsed = now - latest[0, 0]
        ages = latest[~np.isnan(latest[:, 2]), 2]
        return Pace(
            (len(latest) - 1) / elapsed if elapsed > 0 else 0.0,
            _percentiles(latest[:, 1]), _percentiles(ages))


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return np.nan, np.nan
    median, late = np.percentile(values, (50, 95))
    return float(median), float(late)
