"""A pen that knows where in the world the paper lies."""

from __future__ import annotations

import math

import cv2
from karmma_ros.data.synthetic_kitchen.instances import Colour
import numpy as np

_TURNS = np.linspace(0, 2 * np.pi, 28, endpoint=False)
CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)
"""Points `[28, 2]` of the unit circle."""

_SHIFT = 4


def matrix(x: float, y: float, angle: float = 0.0, scale_x: float = 1.0,
           scale_y: float = 1.0) -> np.ndarray:
    """Give the `[2, 3]` map: scale, then turn, then move."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c * scale_x, -s * scale_y, x], [s * scale_x, c * scale_y, y]])


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Give the `[2, 3]` map that applies `inner` first."""
    both = outer[:, :2] @ inner
    both[:, 2] += outer[:, 2]
    return both


def apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points `[n, 2]`."""
    return points @ transform[:, :2].T + transform[:, 2]


class Brush:
    """Draws with smooth edges on an image, in local units."""

    def __init__(self, image: np.ndarray, transform: np.ndarray) -> None:
        self.image, self.transform = image, transform
        self._scaled = transform * (1 << _SHIFT)
        (a, b, _), (c, d, _) = transform.tolist()
        self.pixels = math.sqrt(abs(a * d - b * c))
        """Pixels of a local unit."""

    def at(self, x: float, y: float, angle: float = 0.0, scale_x: float = 1.0,
           scale_y: float = 1.0) -> Brush:
        """Give a brush whose origin lies at (x, y) of this one."""
        return Brush(self.image,
                     compose(self.transform, matrix(x, y, angle, scale_x, scale_y)))

    def fill(self, points: np.ndarray, colour: Colour | int) -> None:
        """Fill a polygon `[n, 2]`."""
        cv2.fillPoly(self.image, [self._fixed(points)], colour, cv2.LINE_AA, _SHIFT)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour | int) -> None:
        """Fill an ellipse whose axes are the local ones."""
        self.fill(CIRCLE * (rx, ry) + (x, y), colour)

    def ring(self, x: float, y: float, rx: float, ry: float, width: float,
             colour: Colour | int) -> None:
        """Draw the outline of an ellipse."""
        self.line(CIRCLE * (rx, ry) + (x, y), width, colour, closed=True)

    def line(self, points: np.ndarray, width: float, colour: Colour | int,
             closed: bool = False) -> None:
        """Draw a line `[n, 2]` with round ends, `width` in local units."""
        thickness = max(1, round(width * self.pixels))
        cv2.polylines(self.image, [self._fixed(points)], closed, colour, thickness,
                      cv2.LINE_AA, _SHIFT)

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        placed = apply(self._scaled, points)
        return np.rint(placed, out=placed).astype(np.int32)
