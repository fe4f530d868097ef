"""Sound at any rate to the model's rate."""

from __future__ import annotations

from typing import Any

from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.arrays import check_array
import numpy as np
from numpy.typing import NDArray

_MAX_RATE = 768_000
_QUALITY = 'HQ'


def resample(
    samples: NDArray[np.float32], source_rate: int, target_rate: int,
) -> NDArray[np.float32]:
    """
    Resample mono float32 `[n]` as a whole, from one rate in Hz to another.

    :raises InvalidSampleError: for a rate that is no rate.
    """
    _check(samples, source_rate, target_rate)
    if source_rate == target_rate:
        return samples
    import soxr  # only here: sound at the model's rate goes without it

    return np.asarray(soxr.resample(samples, source_rate, target_rate, _QUALITY), np.float32)


class StreamResampler:
    """
    Resample mono sound that comes in pieces, without a seam between them.

    The samples given back start at the time of the first sample pushed and go on without
    a gap, but they lag: the last 20 to 60 ms (at rates from 16 to 48 kHz; the lower, the
    longer) come with the next pieces. At equal rates all come at once.

    :raises InvalidSampleError: for a rate that is no rate.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        _check(np.empty(0, np.float32), source_rate, target_rate)
        self.source_rate, self.target_rate = source_rate, target_rate
        self._stream: Any = None
        self.reset()

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take the next samples, float32 `[n]`; give those that are ready."""
        _check(samples, self.source_rate, self.target_rate)
        if self._stream is None:
            return samples
        return np.asarray(self._stream.resample_chunk(samples), np.float32)

    def reset(self) -> None:
        """Forget what was pushed: the next samples start anew."""
        if self.source_rate == self.target_rate:
            return
        import soxr  # only here: sound at the model's rate goes without it

        self._stream = soxr.ResampleStream(
            self.source_rate, self.target_rate, 1, dtype='float32', quality=_QUALITY)


def check_rate(rate: int) -> None:
    """
    Hold a sample rate against what is possible.

    :raises InvalidSampleError: for a rate that is no rate.
    """
    if not 1 <= rate <= _MAX_RATE:
        raise InvalidSampleError(f'sample rate: got {rate}; it may be 1 to {_MAX_RATE} Hz')


def _check(samples: NDArray[np.float32], *rates: int) -> None:
    check_array('samples', samples, np.float32, ('n',), allow_empty=True)
    for rate in rates:
        check_rate(rate)
