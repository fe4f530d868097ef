"""
Whether a camera image shows anything.

A covered lens gives images that are dark, and in which nothing has an edge: there is noise, and
maybe light that leaks in, which falls off smoothly. In a dark room things are dark too, but what
they show of them has edges. So the structure of an image is measured apart from its noise and from
smooth gradients.

Shape legend: h height, w width, c cells, k coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
from karmma_ros.modalities.content_check import ContentCheck, SampleContext
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modality import Modality
import numpy as np
from numpy.typing import NDArray

_SIDE = 64
"""The shorter side of an image is thinned out to less than twice this."""
_CELLS, _CELL = 16, 4
"""Most cells along a side, and least pixels along that of a cell."""
_BASIS_SIZES = ((64, 3), (16, 1))
"""Least cells for which smooth gradients are polynomials of this order."""


@dataclass(frozen=True)
class ImageStatistics:
    """What is measured in the green channel of an image; levels are of 255."""

    mean: float
    structure: float
    """Root mean square of what is neither noise nor a smooth gradient."""
    gradient: float
    """Root mean square of the smooth gradient."""


@lru_cache
def _smooth_basis(rows: int, columns: int) -> NDArray[np.float32]:
    """Return orthonormal polynomials on the cells, `[c, k]`; the first one is constant."""
    y, x = ((np.indices((rows, columns)).reshape(2, -1) + 0.5)
            / np.array([[rows], [columns]]) * 2 - 1)
    order = next((order for least, order in _BASIS_SIZES if rows * columns >= least), 0)
    terms = [x**i * y**j for i in range(order + 1) for j in range(order + 1 - i)]
    return np.asarray(np.linalg.qr(np.stack(terms, axis=1))[0], np.float32)


def image_statistics(image: NDArray[np.uint8]) -> ImageStatistics:
    """
    Measure an RGB image `[h, w, 3]`.

    The pixels of each cell are divided like the squares of a chessboard. Both halves show the same
    structure with noise of their own, so that their covariance has none of the noise.
    """
    stride = max(1, min(image.shape[:2]) // _SIDE)
    green = image[::stride, ::stride, 1].astype(np.float32)
    height, width = green.shape
    if min(height, width) < 2:
        return ImageStatistics(float(green.mean()), float(green.std()), 0.0)
    size = max(1, min(_CELLS, width // _CELL)), max(1, min(_CELLS, height // _CELL))
    quarters = [cv2.resize(green[i:height // 2 * 2:2, j:width // 2 * 2:2], size,
                           interpolation=cv2.INTER_AREA).ravel() for i in (0, 1) for j in (0, 1)]
    halves = (quarters[0] + quarters[3]) / 2, (quarters[1] + quarters[2]) / 2
    basis = _smooth_basis(size[1], size[0])
    smooth = [basis.T @ half for half in halves]
    rest = [half - basis @ each for half, each in zip(halves, smooth)]
    cells, terms = basis.shape
    return ImageStatistics(
        float(green.mean()),
        max(0.0, float(rest[0] @ rest[1]) / max(1, cells - terms)) ** 0.5,
        max(0.0, float(smooth[0][1:] @ smooth[1][1:]) / cells) ** 0.5)


_GRADIENT_RESIDUE = 0.2
"""Part of a gradient that its polynomial may leave over."""


class CameraContent(ContentCheck):
    """Find images of a covered lens."""

    faults = ('black',)

    def __init__(self, modality: Modality, values: Mapping[str, Any]) -> None:
        super().__init__(modality, values)
        self._dark = values[f'{modality}.dark_level']
        self._least_structure = values[f'{modality}.min_structure']

    @classmethod
    def parameters(cls, name: str) -> tuple[Declaration, ...]:
        """Return the thresholds."""
        return (
            Declaration(f'{name}.dark_level', 48.0, 'Images whose mean is below this and that '
                        'have no structure are black; levels of 255.', (0.0, 255.0)),
            Declaration(f'{name}.min_structure', 0.7, 'Edges and textures below this, root mean '
                        'square without noise, are no structure; levels of 255.', (0.0, 255.0)),
        )

    def update(self, sample: NDArray[np.uint8], context: SampleContext) -> dict[str, str]:
        """Take an RGB image `[h, w, 3]`, cropped."""
        found: dict[str, str] = {}
        seen = image_statistics(sample)
        if seen.mean < self._dark and self._is_empty(seen):
            found['black'] = (
                f'black: mean {seen.mean:.0f} of 255, structure {seen.structure:.1f}')
        return found

    def _is_empty(self, seen: ImageStatistics) -> bool:
        return seen.structure < self._least_structure + _GRADIENT_RESIDUE * seen.gradient
