"""Whether the flow of a topic shows the movement of its camera."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.modalities.content_check import ContentCheck, SampleContext
from karmma_ros.modalities.image_content import CameraContent
from karmma_ros.modality import Modality
import numpy as np
from numpy.typing import NDArray

_ZERO = 1e-6
"""Pixels."""
_RECENT_NS = NANOSECONDS // 2


class FlowContent(ContentCheck):
    """
    Find flow that is zero while the images of its camera move, and flow that repeats.

    Computed flow shares what is found in the camera's images.
    """

    faults = ('zero', 'frozen')

    def __init__(self, modality: Modality, values: Mapping[str, Any]) -> None:
        super().__init__(modality, values)
        self._last: NDArray[np.float32] | None = None

    def update(self, sample: NDArray[np.float32], context: SampleContext) -> dict[str, str]:
        """Take displacements `[h, w, 2]`, cropped."""
        last, self._last = self._last, sample
        if np.abs(sample).max() > _ZERO:
            equal = last is not None and np.array_equal(last, sample)
            return {'frozen': 'frozen: flow is equal in every pixel'} if equal else {}
        name = context.received.spec.of(self.modality).camera
        camera = context.checks.get(Modality(name) if name else self.modality.sibling('rgb'))
        if not isinstance(camera, CameraContent) or camera.moved_ns is None:
            return {}
        if abs(context.now_ns - camera.moved_ns) > _RECENT_NS:
            return {}
        return {'zero': f'zero: no movement in {sample.shape[0] * sample.shape[1]} pixels while '
                        f'the images of {camera.modality} change'}
