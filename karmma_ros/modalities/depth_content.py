"""Whether depth images show anything; images without returns are dropped before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from karmma_ros.modalities.content_check import ContentCheck, SampleContext
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modality import Modality
import numpy as np
from numpy.typing import NDArray

_CONSTANT = 0.001
"""Metres within which all returns of a constant image lie."""


class DepthContent(ContentCheck):
    """Find depth images that repeat, and those with one distance everywhere."""

    faults = ('constant', 'frozen')
    timeouts = {'frozen': 'frozen_timeout'}

    def __init__(self, modality: Modality, values: Mapping[str, Any]) -> None:
        super().__init__(modality, values)
        self._last: NDArray[np.float16] | None = None

    @classmethod
    def parameters(cls, name: str) -> tuple[Declaration, ...]:
        """Return the thresholds."""
        return (Declaration(
            f'{name}.frozen_timeout', 0.7, 'Seconds of images that are equal in every pixel after '
            'which they are frozen. Raise it for a simulated camera without noise.',
            (0.1, 60.0)),)

    def update(self, sample: NDArray[np.float16], context: SampleContext) -> dict[str, str]:
        """Take metres `[h, w]`, NaN without a return in the range of the model."""
        last, self._last = self._last, sample
        # Bits, in which NaN equals itself.
        equal = last is not None and np.array_equal(last.view(np.uint16), sample.view(np.uint16))
        returns = sample[np.isfinite(sample)]
        faults = {}
        if not len(returns):  # nobody is in range
            return {}
        if 2 * len(returns) > sample.size and np.ptp(returns) <= _CONSTANT:
            faults['constant'] = f'constant: {len(returns)} pixels are {float(returns[0]):.3g} m'
        if equal:
            faults['frozen'] = 'frozen: images are equal in every pixel'
        return faults
