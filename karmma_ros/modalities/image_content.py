"""
Whether a camera image shows anything.

A covered lens gives images that are dark, and in which nothing has an edge: there is noise, and
maybe light that leaks in, which falls off smoothly. Images taken in the dark are dark too, but the
objects in them have edges. So the structure of an image is measured apart from its noise and from
smooth gradients.

Shape legend: h height, w width, c cells, k coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """What is measured in one channel of an image; levels are of 255."""

    mean: float
    deviation: float
    """Of all pixels from the mean."""
    structure: float
    """Root mean square of what is neither noise nor a smooth gradient."""
    gradient: float
    """Root mean square of the smooth gradient."""
    cells: NDArray[np.float32] = field(compare=False)
    """Mean of each cell, `[c]`."""


@lru_cache
def _smooth_basis(rows: int, columns: int) -> NDArray[np.float32]:
    """Return orthonormal polynomials on the cells, `[c, k]`; the first one is constant."""
    y, x = ((np.indices((rows, columns)).reshape(2, -1) + 0.5)
            / np.array([[rows], [columns]]) * 2 - 1)
    order = next((order for least, order in _BASIS_SIZES if rows * columns >= least), 0)
    terms = [x**i * y**j for i in range(order + 1) for j in range(order + 1 - i)]
    return np.asarray(np.linalg.qr(np.stack(terms, axis=1))[0], np.float32)


def thinned(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return every so many pixels of an image `[h, w, c]`, which are enough to judge it."""
    stride = max(1, min(image.shape[:2]) // _SIDE)
    return image[::stride, ::stride]


def image_statistics(channel: NDArray[np.uint8]) -> ImageStatistics:
    """
    Measure one channel of an image, `[h, w]`.

    The pixels of each cell are divided like the squares of a chessboard. Both halves show the same
    structure with noise of their own, so that their covariance has none of the noise.
    """
    levels = channel.astype(np.float32)
    height, width = levels.shape
    if min(height, width) < 2:
        deviation = float(levels.std())
        return ImageStatistics(float(levels.mean()), deviation, deviation, 0.0, levels.ravel())
    size = max(1, min(_CELLS, width // _CELL)), max(1, min(_CELLS, height // _CELL))
    quarters = [cv2.resize(levels[i:height // 2 * 2:2, j:width // 2 * 2:2], size,
                           interpolation=cv2.INTER_AREA).ravel() for i in (0, 1) for j in (0, 1)]
    halves = (quarters[0] + quarters[3]) / 2, (quarters[1] + quarters[2]) / 2
    basis = _smooth_basis(size[1], size[0])
    smooth = [basis.T @ half for half in halves]
    rest = [half - basis @ each for half, each in zip(halves, smooth)]
    cells, terms = basis.shape
    return ImageStatistics(
        float(levels.mean()), float(levels.std()),
        max(0.0, float(rest[0] @ rest[1]) / max(1, cells - terms)) ** 0.5,
        max(0.0, float(smooth[0][1:] @ smooth[1][1:]) / cells) ** 0.5,
        (halves[0] + halves[1]) / 2)


_GRADIENT_RESIDUE = 0.2
"""Part of a gradient that its polynomial may leave over."""
_MOVED = 4.0
"""Levels of 255 by which the cells of images differ that show movement, root mean square."""
_BRIGHT = 250
_CONSTANT = 1
"""Levels within which all pixels of a constant image lie: JPEG rounds."""
_NOISE_DEVIATION = 4.0
"""Least deviation of noise, levels of 255; that of a sensor is averaged away in a crop."""
_NOISE_STRUCTURE = 0.15
"""Most of the variance of noise that large structures have, in a crop of 32 pixels."""
_NOISE_CORRELATION = 0.3
"""Highest correlation of noise, between neighbouring pixels and between frames."""


class CameraContent(ContentCheck):
    """Find images of a covered or blinded lens, of a driver that hangs, and of a broken sensor."""

    faults = ('black', 'blown out', 'constant', 'frozen', 'noise')
    timeouts = {'frozen': 'frozen_timeout'}

    def __init__(self, modality: Modality, values: Mapping[str, Any]) -> None:
        super().__init__(modality, values)
        self._dark = values[f'{modality}.dark_level']
        self._least_structure = values[f'{modality}.min_structure']
        self._most_bright = values[f'{modality}.max_blown_out']
        self._last: NDArray[np.uint8] | None = None
        self._faults: dict[str, str] = {}
        """In the image before, apart from its equals."""
        self._equal = 0
        """Images equal to the one before, up to now."""
        self._cells: NDArray[np.float32] | None = None
        """Of the image before."""
        self.moved_ns: int | None = None
        """When the last image was received that differs from the one before by more than noise."""

    @classmethod
    def parameters(cls, name: str) -> tuple[Declaration, ...]:
        """Return the thresholds."""
        return (
            Declaration(f'{name}.dark_level', 48.0, 'Images whose mean is below this and that '
                        'have no structure are black; levels of 255.', (0.0, 255.0)),
            Declaration(f'{name}.min_structure', 0.7, 'Edges and textures below this, root mean '
                        'square without noise, are no structure; levels of 255.', (0.0, 255.0)),
            Declaration(f'{name}.max_blown_out', 0.95, 'Images are blown out with more than this '
                        f'fraction of their pixels at {_BRIGHT} of 255 or above.', (0.0, 1.0)),
            Declaration(f'{name}.frozen_timeout', 0.7, 'Seconds of images that are equal in every '
                        'pixel after which they are frozen. Raise it for a simulated camera '
                        'without noise, and for video whose encoder repeats still images.',
                        (0.1, 60.0)),
        )

    def update(self, sample: NDArray[np.uint8], context: SampleContext) -> dict[str, str]:
        """Take an RGB image `[h, w, 3]`, cropped."""
        last, self._last = self._last, sample
        if last is not None and np.array_equal(last, sample):
            self._equal += 1
            text = f'frozen: {self._equal + 1} images in a row are equal in every pixel'
            return {**self._faults, 'frozen': text}
        self._equal = 0
        self._faults = self._judge(sample, last, context.now_ns)
        return self._faults

    def _judge(
        self, image: NDArray[np.uint8], last: NDArray[np.uint8] | None, now_ns: int,
    ) -> dict[str, str]:
        faults: dict[str, str] = {}
        thin = thinned(image)
        seen = image_statistics(thin[..., 1])
        cells, self._cells = self._cells, seen.cells
        if cells is not None and len(cells) == len(seen.cells) and (
                float((seen.cells - cells).std()) > _MOVED):
            self.moved_ns = now_ns
        empty = seen.structure < self._least_structure + _GRADIENT_RESIDUE * seen.gradient
        if seen.mean < self._dark and empty:
            faults['black'] = (
                f'black: mean {seen.mean:.0f} of 255, structure {seen.structure:.1f}')
        if seen.mean > self._most_bright * _BRIGHT:
            bright = float((thin >= _BRIGHT).all(axis=2).mean())
            if bright > self._most_bright:
                faults['blown out'] = (
                    f'blown out: {bright:.0%} of the pixels are {_BRIGHT} of 255 or above')
        flat = seen.deviation <= _CONSTANT
        if flat and all(np.ptp(thin[..., i]) <= _CONSTANT for i in range(3)):
            red, green, blue = thin[0, 0]
            faults['constant'] = f'constant: all pixels are red {red}, green {green}, blue {blue}'
        shared = seen.structure ** 2 + seen.gradient ** 2
        if (seen.deviation > _NOISE_DEVIATION and last is not None
                and shared < _NOISE_STRUCTURE * seen.deviation ** 2):
            text = _noise(thin[..., 1], thinned(last)[..., 1])
            faults.update({'noise': text} if text else {})
        return faults


def _noise(image: NDArray[np.uint8], last: NDArray[np.uint8]) -> str:
    """Return what shows that images `[h, w]` are noise alone; '' where something does not."""
    pairs = ((image[:, 1:], image[:, :-1]), (image[1:], image[:-1]), (image, last))
    correlations = [_correlation(*pair) for pair in pairs if pair[0].shape == pair[1].shape]
    if len(correlations) < len(pairs) or max(correlations) > _NOISE_CORRELATION:
        return ''
    return (f'noise: correlation {max(correlations):.2f} between neighbours and between images, '
            f'deviation {float(image.std()):.0f} of 255')


def _correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    x, y = a.astype(np.float32), b.astype(np.float32)
    x -= x.mean()
    y -= y.mean()
    scale = float((x * x).mean() * (y * y).mean()) ** 0.5
    return abs(float((x * y).mean())) / scale if scale else 1.0
