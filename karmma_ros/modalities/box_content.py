"""Whether the boxes of a detector show anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, Protocol

from karmma_ros.modalities.content_check import ContentCheck, SampleContext
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modality import Modality
import numpy as np
from numpy.typing import NDArray

_FRACTION = 1e-3
"""Coordinates nearer than this to half a pixel are whole: so are edges of a rounded box."""


class HasCorners(Protocol):
    """A decoder of boxes."""

    @property
    def corners(self) -> NDArray[np.float64]:
        """Return the boxes of the last message as received, x1, y1, x2, y2 `[n, 4]`."""
        ...


class BoxContent(ContentCheck):
    """
    Find boxes that never move, lie outside of the image, or have no area.

    Empty messages are none of these: there may be nothing to detect. Boxes that a network found in
    images of a camera differ a little from image to image; where they are rounded to whole pixels,
    boxes of what rests may be equal for a while.
    """

    faults = ('without area', 'outside', 'stuck', 'stuck in whole pixels')
    timeouts = {'stuck in whole pixels': 'stuck_timeout'}

    def __init__(self, modality: Modality, values: Mapping[str, Any]) -> None:
        super().__init__(modality, values)
        self._last: NDArray[np.float64] | None = None

    @classmethod
    def parameters(cls, name: str) -> tuple[Declaration, ...]:
        """Return the thresholds."""
        return (Declaration(
            f'{name}.stuck_timeout', 5.0, 'Seconds of equal boxes in whole pixels after which '
            'they are stuck; with fractions of pixels it is content_timeout.', (0.1, 600.0)),)

    def update(self, sample: NDArray[np.float32], context: SampleContext) -> dict[str, str]:
        """Take boxes `[n, 5]`; those outside of the image are left out already."""
        corners = cast(HasCorners, context.decoder).corners
        last, self._last = self._last, corners
        count, faults = len(corners), {}
        if not count:
            return {}
        if not (np.ptp(corners.reshape(-1, 2, 2), axis=1) > 0).all(axis=1).any():
            faults['without area'] = f'without area: {count} of {count} boxes'
        elif not len(sample):
            faults['outside'] = f'outside of the image: {count} of {count} boxes'
        if last is not None and np.array_equal(last, corners):
            halves = corners * 2
            integers = bool((np.abs(halves - np.round(halves)) < _FRACTION).all())
            fault = 'stuck in whole pixels' if integers else 'stuck'
            faults[fault] = f'stuck: {count} box{"es" * (count > 1)} equal in each message'
        return faults
