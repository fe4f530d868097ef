"""
How each noun is drawn: seen from above and in front, in its own units.

A thing's local origin is its middle and its longer half side is 1, so that the instance's
size is the scale of the brush.
"""

from __future__ import annotations

from collections.abc import Callable
import math

import cv2
from karmma_ros.data.synthetic_kitchen.objects import Appearance, Colour, shade
import numpy as np

_TURNS = np.linspace(0, 2 * np.pi, 28, endpoint=False)
CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)
"""Points `[28, 2]` of the unit circle."""

_SHIFT = 4


def matrix(x: float, y: float, angle: float = 0.0, scale_x: float = 1.0,
           scale_y: float = 1.0) -> np.ndarray:
    """Return the `[2, 3]` map: scale, then turn, then move."""
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
    """Draws with smooth edges on an image, in local units."""

    def __init__(self, image: np.ndarray, transform: np.ndarray) -> None:
        self.image, self.transform = image, transform
        self._scaled = transform * (1 << _SHIFT)
        (a, b, _), (c, d, _) = transform.tolist()
        self.pixels = math.sqrt(abs(a * d - b * c))
        """Pixels of a local unit."""

    def at(self, x: float, y: float, angle: float = 0.0, scale_x: float = 1.0,
           scale_y: float = 1.0) -> Canvas:
        """Return a brush whose origin lies at (x, y) of this one."""
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


def draw_object(brush: Canvas, look: Appearance) -> None:
    """Draw an instance at the origin of a brush whose unit is the world's."""
    _DRAW[look.noun](brush.at(0, 0, 0, look.size, look.size), look)


def outline(look: Appearance) -> np.ndarray:
    """Return the silhouette `[n, 2]` in world units about the thing's middle."""
    return look.size * _OUTLINE.get(look.noun, _oval)(look)


def _oval(look: Appearance) -> np.ndarray:
    return CIRCLE * (1.0, look.aspect)


def _superellipse(rx: float, ry: float, power: float) -> np.ndarray:
    return np.sign(CIRCLE) * np.abs(CIRCLE) ** power * (rx, ry)


def _spoon_outline(look: Appearance) -> np.ndarray:
    w = look.aspect
    bowl = CIRCLE[7:22] * (0.36, w) + (-0.64, 0)
    handle = np.array([[-0.3, -0.25 * w], [0.96, -0.36 * w], [1.0, 0.0], [0.96, 0.36 * w],
                       [-0.3, 0.25 * w]])
    return np.concatenate([bowl, handle])


def _spoon(brush: Canvas, look: Appearance) -> None:
    brush.fill(_spoon_outline(look), shade(look.colour, 0.55))
    inner = _spoon_outline(look) * (0.97, 0.82)
    brush.fill(inner, look.colour)
    brush.ellipse(-0.64, 0.0, 0.27, 0.68 * look.aspect, shade(look.colour, 0.72))
    brush.ellipse(-0.70, -0.2 * look.aspect, 0.10, 0.28 * look.aspect, look.accent)
    brush.line(np.array([[-0.2, -0.06 * look.aspect], [0.85, -0.1 * look.aspect]]), 0.03,
               look.accent)


def _plate(brush: Canvas, look: Appearance) -> None:
    a = look.aspect
    brush.ellipse(0, 0.04, 1.0, a, shade(look.colour, 0.62))
    brush.ellipse(0, 0, 1.0, a, look.colour)
    width = 0.04 + 0.08 * look.marks[0]
    brush.ring(0, 0, 0.92, 0.92 * a, width, look.accent)
    brush.ring(0, 0, 0.62, 0.62 * a, 0.03, shade(look.colour, 0.78))
    brush.ellipse(-0.2, -0.2 * a, 0.28, 0.16 * a, shade(look.colour, 1.5))


def _pan_outline(look: Appearance) -> np.ndarray:
    a = look.aspect
    body = CIRCLE[2:27] * (0.68, 0.68 * a) + (-0.32, 0)
    return np.concatenate([body, [[0.3, -0.1], [1.0, -0.09], [1.0, 0.09], [0.3, 0.1]]])


def _pan(brush: Canvas, look: Appearance) -> None:
    a = look.aspect
    handle = np.array([[0.25, -0.09], [0.98, -0.08], [1.0, 0.0], [0.98, 0.08], [0.25, 0.09]])
    brush.fill(handle, shade(look.accent, 0.8))
    brush.line(np.array([[0.42, -0.02], [0.92, -0.02]]), 0.03, shade(look.accent, 1.4))
    brush.ellipse(-0.32, 0.05, 0.68, 0.68 * a, shade(look.colour, 0.6))
    brush.ellipse(-0.32, 0.0, 0.68, 0.68 * a, shade(look.colour, 1.35))
    brush.ellipse(-0.32, 0.01, 0.62, 0.62 * a, look.colour)
    brush.ellipse(-0.32, 0.05, 0.48, 0.46 * a, shade(look.colour, 0.75))
    brush.ellipse(-0.52, -0.16 * a, 0.13, 0.07, shade(look.colour, 1.3))


def _bowl_outline(look: Appearance) -> np.ndarray:
    a = look.aspect
    rim = CIRCLE[14:] * (1.0, 0.52 * a) + (0, -0.3 * a)
    belly = CIRCLE[:15] * (1.0, 1.25 * a) + (0, -0.3 * a)
    return np.concatenate([rim, belly])


def _bowl(brush: Canvas, look: Appearance) -> None:
    a = look.aspect
    brush.fill(_bowl_outline(look), shade(look.colour, 0.72))
    brush.fill(_bowl_outline(look) * (0.86, 0.9) + (-0.08, -0.03), look.colour)
    brush.ellipse(0, -0.3 * a, 1.0, 0.52 * a, shade(look.colour, 1.3))
    brush.ellipse(0, -0.27 * a, 0.9, 0.44 * a, shade(look.colour, 0.58))
    brush.ellipse(0, -0.17 * a, 0.68, 0.28 * a, look.accent if look.marks[0] > 0.5 else
                  shade(look.colour, 0.75))
    band = CIRCLE[1:14] * (0.97, 1.0 * a) + (0, -0.2 * a)
    brush.line(band, 0.03 + 0.06 * look.marks[1], look.accent)


def _sponge_outline(look: Appearance) -> np.ndarray:
    return _superellipse(1.0, look.aspect, 0.35)


def _sponge(brush: Canvas, look: Appearance) -> None:
    a = look.aspect
    shape = _sponge_outline(look)
    brush.fill(shape + (0, 0.16), look.accent)
    brush.fill(shape * (1, 0.86) + (0, -0.06), look.colour)
    for i in range(9):
        x = -0.8 + 0.2 * i + 0.1 * (look.marks[i] - 0.5)
        y = (look.marks[(i * 5 + 3) % 12] - 0.55) * 1.3 * a
        radius = 0.05 + 0.05 * look.marks[(i * 7) % 12]
        brush.ellipse(x, y, radius, 0.8 * radius, shade(look.colour, 0.75))


def _cup_outline(look: Appearance) -> np.ndarray:
    a = look.aspect
    rim = CIRCLE[14:] * (0.72, 0.3) + (-0.2, -0.6 * a)
    base = CIRCLE[:15] * (0.56, 0.26) + (-0.2, 0.72 * a)
    handle = np.array([[-0.92, -0.6 * a], [0.52, -0.4 * a], [0.95, -0.25 * a], [0.95, 0.25 * a],
                       [0.4, 0.5 * a]])
    return np.concatenate([rim, handle[1:], base])


def _cup(brush: Canvas, look: Appearance) -> None:
    a = look.aspect
    brush.ring(0.48, -0.02, 0.36, 0.4 * a, 0.15, shade(look.colour, 0.75))
    rim = CIRCLE[14:] * (0.72, 0.3) + (-0.2, -0.6 * a)
    base = CIRCLE[:15] * (0.56, 0.26) + (-0.2, 0.72 * a)
    brush.fill(np.concatenate([rim, base]), shade(look.colour, 0.8))
    brush.fill(np.concatenate([rim, base]) * (0.7, 0.96) + (-0.14, 0), look.colour)
    if look.marks[0] > 0.4:
        brush.fill(np.array([[-0.83, 0.0], [0.42, 0.0], [0.4, 0.26], [-0.8, 0.26]]), look.accent)
    brush.ellipse(-0.2, -0.6 * a, 0.72, 0.3, shade(look.colour, 1.35))
    brush.ellipse(-0.2, -0.58 * a, 0.62, 0.23, shade(look.colour, 0.4))
    brush.line(np.array([[-0.66, -0.3 * a], [-0.6, 0.6 * a]]), 0.07, shade(look.colour, 1.5))


def _bottle_outline(look: Appearance) -> np.ndarray:
    w = look.aspect
    return np.array([[-0.30 * w, -1.0], [0.30 * w, -1.0], [0.34 * w, -0.55], [0.9 * w, -0.3],
                     [w, -0.1], [w, 0.92], [0.8 * w, 1.0], [-0.8 * w, 1.0], [-w, 0.92],
                     [-w, -0.1], [-0.9 * w, -0.3], [-0.34 * w, -0.55]])


def _bottle(brush: Canvas, look: Appearance) -> None:
    w = look.aspect
    shape = _bottle_outline(look)
    brush.fill(shape, shade(look.colour, 0.6))
    brush.fill(shape * (0.82, 0.97), look.colour)
    top, bottom = -0.1 + 0.2 * look.marks[0], 0.5 + 0.3 * look.marks[1]
    brush.fill(np.array([[-0.96 * w, top], [0.96 * w, top], [0.96 * w, bottom],
                         [-0.96 * w, bottom]]), look.accent)
    brush.fill(np.array([[-0.36 * w, -1.02], [0.36 * w, -1.02], [0.36 * w, -0.8],
                         [-0.36 * w, -0.8]]), shade(look.accent, 0.6))
    brush.line(np.array([[-0.6 * w, -0.2], [-0.6 * w, 0.85]]), 0.06, shade(look.colour, 1.5))


def _onion_outline(look: Appearance) -> np.ndarray:
    body = CIRCLE * (1.0, look.aspect)
    return np.concatenate([body[:20], [[-0.1, -1.25], [0.1, -1.25]], body[22:]])


def _onion(brush: Canvas, look: Appearance) -> None:
    a = look.aspect
    brush.fill(_onion_outline(look), shade(look.colour, 0.65))
    brush.ellipse(-0.06, -0.04, 0.9, 0.9 * a, look.colour)
    for i in range(4):
        bow = -0.75 + 0.5 * i + 0.1 * look.marks[i]
        arc = np.stack([bow * np.cos(_ARC), a * 0.9 * np.sin(_ARC)], axis=1)
        brush.line(arc, 0.035, shade(look.colour, 0.72 if i % 2 else 1.3))
    brush.line(np.array([[0, -0.9 * a], [0.03, -1.25]]), 0.16, look.accent)
    brush.ellipse(-0.35, -0.35 * a, 0.16, 0.2, shade(look.colour, 1.5))


def _bread_outline(look: Appearance) -> np.ndarray:
    return _superellipse(1.0, look.aspect, 0.62)


def _bread(brush: Canvas, look: Appearance) -> None:
    a = look.aspect
    shape = _bread_outline(look)
    brush.fill(shape + (0, 0.08), shade(look.colour, 0.55))
    brush.fill(shape * (0.97, 0.95), look.colour)
    brush.fill(shape * (0.84, 0.7) + (-0.03, -0.08), shade(look.colour, 1.22))
    cuts = 3 + int(look.marks[0] * 2)
    for i in range(cuts):
        x = -0.62 + 1.24 * i / (cuts - 1) + 0.06 * (look.marks[i + 1] - 0.5)
        brush.line(np.array([[x - 0.12, 0.5 * a], [x + 0.12, -0.6 * a]]), 0.09, look.accent)


def _carrot_outline(look: Appearance) -> np.ndarray:
    w = look.aspect
    return np.array([[-0.72, -0.85 * w], [-0.6, -w], [0.2, -0.62 * w], [1.0, -0.06 * w],
                     [1.0, 0.06 * w], [0.2, 0.62 * w], [-0.6, w], [-0.72, 0.85 * w],
                     [-1.0, 0.5 * w], [-1.0, -0.5 * w]])


def _carrot(brush: Canvas, look: Appearance) -> None:
    w = look.aspect
    for i in range(3):
        tip = (-1.05, (i - 1) * 0.75 * w)
        brush.line(np.array([[-0.68, 0], tip]), 0.09, shade(look.accent, 0.8 + 0.2 * i))
    root = _carrot_outline(look)[:8]
    brush.fill(root, shade(look.colour, 0.7))
    brush.fill(root * (0.98, 0.8) + (0, -0.04), look.colour)
    for i in range(5):
        x, side = -0.5 + 0.24 * i, (-1) ** i
        brush.line(np.array([[x, 0.1 * w * side], [x + 0.02, (0.75 - 0.13 * i) * w * side]]),
                   0.03, shade(look.colour, 0.66))
    brush.line(np.array([[-0.5, -0.45 * w], [0.4, -0.25 * w]]), 0.05, shade(look.colour, 1.4))


_ARC = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 9)
_DRAW: dict[str, Callable[[Canvas, Appearance], None]] = {
    'spoon': _spoon, 'plate': _plate, 'pan': _pan, 'bowl': _bowl, 'sponge': _sponge,
    'cup': _cup, 'bottle': _bottle, 'onion': _onion, 'bread': _bread, 'carrot': _carrot,
}
_OUTLINE: dict[str, Callable[[Appearance], np.ndarray]] = {
    'spoon': _spoon_outline, 'pan': _pan_outline, 'bowl': _bowl_outline,
    'sponge': _sponge_outline, 'cup': _cup_outline, 'bottle': _bottle_outline,
    'onion': _onion_outline, 'bread': _bread_outline, 'carrot': _carrot_outline,
}
