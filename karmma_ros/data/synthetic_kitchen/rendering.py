"""
Drawing of each noun of the kitchen, seen from above and in front, in its own units.

The local origin of an object is its centre and its longer half side is 1, so that the size of the
instance is the scale of the canvas.
"""

from __future__ import annotations

from collections.abc import Callable

from karmma_ros.data.synthetic_kitchen import garage
from karmma_ros.data.synthetic_kitchen.canvas import Canvas, CIRCLE
from karmma_ros.data.synthetic_kitchen.objects import Appearance, shade
import numpy as np


def draw_object(canvas: Canvas, item: Appearance) -> None:
    """Draw an instance at the origin of a canvas in world units."""
    canvas = canvas.at(0, 0, 0, item.size, item.size)
    if item.noun in _DRAW:
        _DRAW[item.noun](canvas, item)
    else:
        garage.draw_object(canvas, item)


def outline(item: Appearance) -> np.ndarray:
    """Return the silhouette `[n, 2]` in world units around the centre of the object."""
    if item.noun in _DRAW:
        return item.size * _OUTLINE.get(item.noun, _oval)(item)
    return item.size * garage.outline(item)


def _oval(item: Appearance) -> np.ndarray:
    return CIRCLE * (1.0, item.aspect)


def _superellipse(rx: float, ry: float, power: float) -> np.ndarray:
    return np.sign(CIRCLE) * np.abs(CIRCLE) ** power * (rx, ry)


def _spoon_outline(item: Appearance) -> np.ndarray:
    w = item.aspect
    bowl = CIRCLE[7:22] * (0.36, w) + (-0.64, 0)
    handle = np.array([[-0.3, -0.25 * w], [0.96, -0.36 * w], [1.0, 0.0], [0.96, 0.36 * w],
                       [-0.3, 0.25 * w]])
    return np.concatenate([bowl, handle])


def _spoon(canvas: Canvas, item: Appearance) -> None:
    canvas.fill(_spoon_outline(item), shade(item.colour, 0.55))
    inner = _spoon_outline(item) * (0.97, 0.82)
    canvas.fill(inner, item.colour)
    canvas.ellipse(-0.64, 0.0, 0.27, 0.68 * item.aspect, shade(item.colour, 0.72))
    canvas.ellipse(-0.70, -0.2 * item.aspect, 0.10, 0.28 * item.aspect, item.accent)
    canvas.line(np.array([[-0.2, -0.06 * item.aspect], [0.85, -0.1 * item.aspect]]), 0.03,
               item.accent)


def _plate(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    canvas.ellipse(0, 0.04, 1.0, a, shade(item.colour, 0.62))
    canvas.ellipse(0, 0, 1.0, a, item.colour)
    width = 0.04 + 0.08 * item.marks[0]
    canvas.ring(0, 0, 0.92, 0.92 * a, width, item.accent)
    canvas.ring(0, 0, 0.62, 0.62 * a, 0.03, shade(item.colour, 0.78))
    canvas.ellipse(-0.2, -0.2 * a, 0.28, 0.16 * a, shade(item.colour, 1.5))


def _pan_outline(item: Appearance) -> np.ndarray:
    a = item.aspect
    body = CIRCLE[2:27] * (0.68, 0.68 * a) + (-0.32, 0)
    return np.concatenate([body, [[0.3, -0.1], [1.0, -0.09], [1.0, 0.09], [0.3, 0.1]]])


def _pan(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    handle = np.array([[0.25, -0.09], [0.98, -0.08], [1.0, 0.0], [0.98, 0.08], [0.25, 0.09]])
    canvas.fill(handle, shade(item.accent, 0.8))
    canvas.line(np.array([[0.42, -0.02], [0.92, -0.02]]), 0.03, shade(item.accent, 1.4))
    canvas.ellipse(-0.32, 0.05, 0.68, 0.68 * a, shade(item.colour, 0.6))
    canvas.ellipse(-0.32, 0.0, 0.68, 0.68 * a, shade(item.colour, 1.35))
    canvas.ellipse(-0.32, 0.01, 0.62, 0.62 * a, item.colour)
    canvas.ellipse(-0.32, 0.05, 0.48, 0.46 * a, shade(item.colour, 0.75))
    canvas.ellipse(-0.52, -0.16 * a, 0.13, 0.07, shade(item.colour, 1.3))


def _bowl_outline(item: Appearance) -> np.ndarray:
    a = item.aspect
    rim = CIRCLE[14:] * (1.0, 0.52 * a) + (0, -0.3 * a)
    belly = CIRCLE[:15] * (1.0, 1.25 * a) + (0, -0.3 * a)
    return np.concatenate([rim, belly])


def _bowl(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    canvas.fill(_bowl_outline(item), shade(item.colour, 0.72))
    canvas.fill(_bowl_outline(item) * (0.86, 0.9) + (-0.08, -0.03), item.colour)
    canvas.ellipse(0, -0.3 * a, 1.0, 0.52 * a, shade(item.colour, 1.3))
    canvas.ellipse(0, -0.27 * a, 0.9, 0.44 * a, shade(item.colour, 0.58))
    canvas.ellipse(0, -0.17 * a, 0.68, 0.28 * a, item.accent if item.marks[0] > 0.5 else
                  shade(item.colour, 0.75))
    band = CIRCLE[1:14] * (0.97, 1.0 * a) + (0, -0.2 * a)
    canvas.line(band, 0.03 + 0.06 * item.marks[1], item.accent)


def _sponge_outline(item: Appearance) -> np.ndarray:
    return _superellipse(1.0, item.aspect, 0.35)


def _sponge(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    shape = _sponge_outline(item)
    canvas.fill(shape + (0, 0.16), item.accent)
    canvas.fill(shape * (1, 0.86) + (0, -0.06), item.colour)
    for i in range(9):
        x = -0.8 + 0.2 * i + 0.1 * (item.marks[i] - 0.5)
        y = (item.marks[(i * 5 + 3) % 12] - 0.55) * 1.3 * a
        radius = 0.05 + 0.05 * item.marks[(i * 7) % 12]
        canvas.ellipse(x, y, radius, 0.8 * radius, shade(item.colour, 0.75))


def _cup_outline(item: Appearance) -> np.ndarray:
    a = item.aspect
    rim = CIRCLE[14:] * (0.72, 0.3) + (-0.2, -0.6 * a)
    base = CIRCLE[:15] * (0.56, 0.26) + (-0.2, 0.72 * a)
    handle = np.array([[-0.92, -0.6 * a], [0.52, -0.4 * a], [0.95, -0.25 * a], [0.95, 0.25 * a],
                       [0.4, 0.5 * a]])
    return np.concatenate([rim, handle[1:], base])


def _cup(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    canvas.ring(0.48, -0.02, 0.36, 0.4 * a, 0.15, shade(item.colour, 0.75))
    rim = CIRCLE[14:] * (0.72, 0.3) + (-0.2, -0.6 * a)
    base = CIRCLE[:15] * (0.56, 0.26) + (-0.2, 0.72 * a)
    canvas.fill(np.concatenate([rim, base]), shade(item.colour, 0.8))
    canvas.fill(np.concatenate([rim, base]) * (0.7, 0.96) + (-0.14, 0), item.colour)
    if item.marks[0] > 0.4:
        canvas.fill(np.array([[-0.83, 0.0], [0.42, 0.0], [0.4, 0.26], [-0.8, 0.26]]), item.accent)
    canvas.ellipse(-0.2, -0.6 * a, 0.72, 0.3, shade(item.colour, 1.35))
    canvas.ellipse(-0.2, -0.58 * a, 0.62, 0.23, shade(item.colour, 0.4))
    canvas.line(np.array([[-0.66, -0.3 * a], [-0.6, 0.6 * a]]), 0.07, shade(item.colour, 1.5))


def _bottle_outline(item: Appearance) -> np.ndarray:
    w = item.aspect
    return np.array([[-0.30 * w, -1.0], [0.30 * w, -1.0], [0.34 * w, -0.55], [0.9 * w, -0.3],
                     [w, -0.1], [w, 0.92], [0.8 * w, 1.0], [-0.8 * w, 1.0], [-w, 0.92],
                     [-w, -0.1], [-0.9 * w, -0.3], [-0.34 * w, -0.55]])


def _bottle(canvas: Canvas, item: Appearance) -> None:
    w = item.aspect
    shape = _bottle_outline(item)
    canvas.fill(shape, shade(item.colour, 0.6))
    canvas.fill(shape * (0.82, 0.97), item.colour)
    top, bottom = -0.1 + 0.2 * item.marks[0], 0.5 + 0.3 * item.marks[1]
    canvas.fill(np.array([[-0.96 * w, top], [0.96 * w, top], [0.96 * w, bottom],
                         [-0.96 * w, bottom]]), item.accent)
    canvas.fill(np.array([[-0.36 * w, -1.02], [0.36 * w, -1.02], [0.36 * w, -0.8],
                         [-0.36 * w, -0.8]]), shade(item.accent, 0.6))
    canvas.line(np.array([[-0.6 * w, -0.2], [-0.6 * w, 0.85]]), 0.06, shade(item.colour, 1.5))


def _onion_outline(item: Appearance) -> np.ndarray:
    body = CIRCLE * (1.0, item.aspect)
    return np.concatenate([body[:20], [[-0.1, -1.25], [0.1, -1.25]], body[22:]])


def _onion(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    canvas.fill(_onion_outline(item), shade(item.colour, 0.65))
    canvas.ellipse(-0.06, -0.04, 0.9, 0.9 * a, item.colour)
    for i in range(4):
        bow = -0.75 + 0.5 * i + 0.1 * item.marks[i]
        arc = np.stack([bow * np.cos(_ARC), a * 0.9 * np.sin(_ARC)], axis=1)
        canvas.line(arc, 0.035, shade(item.colour, 0.72 if i % 2 else 1.3))
    canvas.line(np.array([[0, -0.9 * a], [0.03, -1.25]]), 0.16, item.accent)
    canvas.ellipse(-0.35, -0.35 * a, 0.16, 0.2, shade(item.colour, 1.5))


def _bread_outline(item: Appearance) -> np.ndarray:
    return _superellipse(1.0, item.aspect, 0.62)


def _bread(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    shape = _bread_outline(item)
    canvas.fill(shape + (0, 0.08), shade(item.colour, 0.55))
    canvas.fill(shape * (0.97, 0.95), item.colour)
    canvas.fill(shape * (0.84, 0.7) + (-0.03, -0.08), shade(item.colour, 1.22))
    slashes = 3 + int(item.marks[0] * 2)
    for i in range(slashes):
        x = -0.62 + 1.24 * i / (slashes - 1) + 0.06 * (item.marks[i + 1] - 0.5)
        canvas.line(np.array([[x - 0.12, 0.5 * a], [x + 0.12, -0.6 * a]]), 0.09, item.accent)


def _carrot_outline(item: Appearance) -> np.ndarray:
    w = item.aspect
    return np.array([[-0.72, -0.85 * w], [-0.6, -w], [0.2, -0.62 * w], [1.0, -0.06 * w],
                     [1.0, 0.06 * w], [0.2, 0.62 * w], [-0.6, w], [-0.72, 0.85 * w],
                     [-1.0, 0.5 * w], [-1.0, -0.5 * w]])


def _carrot(canvas: Canvas, item: Appearance) -> None:
    w = item.aspect
    for i in range(3):
        tip = (-1.05, (i - 1) * 0.75 * w)
        canvas.line(np.array([[-0.68, 0], tip]), 0.09, shade(item.accent, 0.8 + 0.2 * i))
    root = _carrot_outline(item)[:8]
    canvas.fill(root, shade(item.colour, 0.7))
    canvas.fill(root * (0.98, 0.8) + (0, -0.04), item.colour)
    for i in range(5):
        x, side = -0.5 + 0.24 * i, (-1) ** i
        canvas.line(np.array([[x, 0.1 * w * side], [x + 0.02, (0.75 - 0.13 * i) * w * side]]),
                   0.03, shade(item.colour, 0.66))
    canvas.line(np.array([[-0.5, -0.45 * w], [0.4, -0.25 * w]]), 0.05, shade(item.colour, 1.4))


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
