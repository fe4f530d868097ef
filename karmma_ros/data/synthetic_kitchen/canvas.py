"""Drawing with smooth edges, and maps of the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math

import cv2
from karmma_ros.data.synthetic_kitchen.objects import Colour
import numpy as np

_TURNS = np.linspace(0, 2 * np.pi, 28, endpoint=False)
CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)
"""Points `[28, 2]` of the unit circle."""

_SHIFT = 4


def matrix(x: float, y: float, angle: float = 0.0, scale_x: float = 1.0,
           scale_y: float = 1.0) -> np.ndarray:
    """Return the `[2, 3]` map: scale, then rotate, then translate."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c * scale_x, -s * scale_y, x], [s * scale_x, c * scale_y, y]])


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the `[2, 3]` map that applies `inner` first."""
    both = outer[:, :2] @ inner
    both[:, 2] += outer[:, 2]
    return both


def apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points `[n, 2]`."""
    return points @ transform[:, :2].T + transform[:, 2]


class Canvas:
    """Draw with smooth edges on an image, in local units."""

    def __init__(self, image: np.ndarray, transform: np.ndarray) -> None:
        self.image, self.transform = image, transform
        self._scaled = transform * (1 << _SHIFT)
        (a, b, _), (c, d, _) = transform.tolist()
        self.pixels = math.sqrt(abs(a * d - b * c))
        """Pixels of a local unit."""

    def at(self, x: float, y: float, angle: float = 0.0, scale_x: float = 1.0,
           scale_y: float = 1.0) -> Canvas:
        """Return a canvas whose origin is (x, y) of this one."""
        return Canvas(self.image,
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


def box(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """Return the corners `[4, 2]` of a rectangle."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]
) -> np.ndarray:
    """Return smooth noise `[h, w]` of that many cells, the same at every frame size."""
    noise = rng.standard_normal(cells, dtype=np.float32)
    return cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)


PaintObject = Callable[[Canvas, Colour, np.random.Generator], None]
"""Draws an object of a colour that stands on the origin and is about 2 units wide."""


@dataclass(frozen=True)
class Decor:
    """The functions that paint what is behind the action."""

    worktop: Callable[[np.random.Generator, tuple[int, int]], tuple[Colour, np.ndarray]]
    """Returns the colour and the pixels of the worktop of a size."""
    wall: Callable[[Canvas, np.random.Generator, float], None]
    """Paints the wall above the far edge of the worktop."""
    surfaces: Sequence[Callable[[Canvas, np.random.Generator, Colour], None]]
    """What the action happens on, one of them in each episode."""
    clutter: Sequence[PaintObject]
    """Objects that nobody handles."""
    upright: float = 0.0
    """Their rotation, radians: upright for the camera."""
