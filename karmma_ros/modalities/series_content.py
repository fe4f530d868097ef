"""Whether the vectors of a time series are measured anew in each message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from karmma_ros.modalities.content_check import ContentCheck, SampleContext
from karmma_ros.modality import Modality
import numpy as np
from numpy.typing import NDArray

_LISTED = 6
"""Values in one sentence."""


class StuckSeries(ContentCheck):
    """
    Find vectors that are equal in every bit.

    It suits sensors with noise: an inertial sensor at rest still has that.
    """

    faults = ('stuck',)

    def __init__(self, modality: Modality, values: Mapping[str, Any]) -> None:
        super().__init__(modality, values)
        self._last: NDArray[np.float32] | None = None

    def update(self, sample: NDArray[np.float32], context: SampleContext) -> dict[str, str]:
        """Take a vector `[c]`, in which NaN is a part that is missing."""
        last, self._last = self._last, sample
        if last is None or not np.array_equal(last, sample, equal_nan=True):
            return {}
        shown = ', '.join(f'{value:.4g}' for value in sample[:_LISTED])
        return {'stuck': f'stuck at {shown}{", …" if len(sample) > _LISTED else ""}'}


_MOVING = 0.05
"""rad/s or m/s: in the shortest time this is more than the step of an encoder."""


class StuckJoints(ContentCheck):
    """
    Find positions that stay the same though velocities are not 0.

    A robot at rest has the same positions for hours; only with velocities is more known.
    """

    faults = ('stuck',)

    def __init__(self, modality: Modality, values: Mapping[str, Any]) -> None:
        super().__init__(modality, values)
        self._last: NDArray[np.float64] | None = None

    def update(self, sample: NDArray[np.float32], context: SampleContext) -> dict[str, str]:
        """Read positions and velocities of all joints from the message."""
        message = context.received.message
        position, velocity = (
            np.asarray(each, np.float64) for each in (message.position, message.velocity))
        last, self._last = self._last, position
        if (last is None or not len(position) or len(velocity) != len(position)
                or not np.array_equal(last, position)):
            return {}
        fastest = float(np.nanmax(np.abs(velocity))) if np.isfinite(velocity).any() else 0.0
        if fastest < _MOVING:
            return {}
        return {'stuck': f'stuck: all positions are equal at a velocity of {fastest:.3g}'}
