"""The kitchen behind the action: worktop, wall, things that lie about."""

from __future__ import annotations

import cv2
from karmma_ros.data.synthetic_kitchen.brush import Brush, matrix
from karmma_ros.data.synthetic_kitchen.instances import Colour, hsv, shade
from karmma_ros.data.synthetic_kitchen.seeds import generator, Stream
import numpy as np

HALF_WIDTH, HALF_HEIGHT = 1.1, 0.85
"""The painted piece of world about its origin, world units."""


class Backdrop:
    """One kitchen, painted once for each picture size."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def to_world(self, height: int) -> np.ndarray:
        """Give the `[2, 3]` map from the painting's pixels to the world."""
        return matrix(-HALF_WIDTH, -HALF_HEIGHT, 0.0, 1 / height, 1 / height)

    def paint(self, height: int) -> np.ndarray:
        """Paint at `height` pixels a world unit: uint8 `[1.7 height, 2.2 height, 3]`."""
        rng = generator(Stream.BACKDROP, self.seed)
        shape = (round(2 * HALF_HEIGHT * height), round(2 * HALF_WIDTH * height))
        base, top = _worktop(rng, shape)
        image = np.clip(top, 0, 255).astype(np.uint8)
        brush = Brush(image, matrix(HALF_WIDTH * height, HALF_HEIGHT * height, 0.0,
                                    height, height))
        edge = rng.uniform(-0.46, -0.34)
        _PLACES[rng.integers(len(_PLACES))](brush, rng, base)
        _wall(brush, rng, edge)
        _clutter(brush, rng, edge)
        return image


def _worktop(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Colour, np.ndarray]:
    """Paint an even worktop with the grain of wood, stone or laminate."""
    kind = rng.integers(3)
    if kind == 0:
        base = hsv(rng.uniform(0.06, 0.10), rng.uniform(0.20, 0.42), rng.uniform(0.45, 0.75))
        grain = 14 * _field(rng, shape, (70, 5)) + 8 * _field(rng, shape, (140, 12))
    elif kind == 1:
        base = hsv(rng.uniform(), rng.uniform(0.0, 0.08), rng.uniform(0.35, 0.65))
        grain = 7 * _field(rng, shape, (110, 140)) + 9 * _field(rng, shape, (24, 30))
    else:
        base = hsv(rng.uniform(0.08, 0.16), rng.uniform(0.0, 0.10), rng.uniform(0.70, 0.86))
        grain = 4 * _field(rng, shape, (6, 8))
    fall = np.linspace(-14, 12, shape[0], dtype=np.float32)[:, None]
    return base, np.array(base, np.float32) + (grain + fall)[..., None]


def _field(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Give smooth noise `[h, w]` of that many cells, the same at every picture size."""
    noise = rng.standard_normal(cells, dtype=np.float32)
    return cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _wall(brush: Brush, rng: np.random.Generator, edge: float) -> None:
    """Paint the tiled wall above the worktop's far edge."""
    colour = hsv(rng.uniform(), rng.uniform(0.02, 0.14), rng.uniform(0.72, 0.92))
    brush.fill(_box(-2, -2, 2, edge), colour)
    size = rng.uniform(0.13, 0.24)
    for y in np.arange(edge - 0.03, -HALF_HEIGHT, -0.6 * size):
        brush.line(np.array([[-2, y], [2, y]]), 0.008, shade(colour, 0.86))
    for x in np.arange(-HALF_WIDTH + rng.uniform(0, size), HALF_WIDTH, size):
        brush.line(np.array([[x, -2], [x, edge]]), 0.008, shade(colour, 0.86))
    brush.fill(_box(-2, edge - 0.03, 2, edge), shade(colour, 0.8))
    brush.fill(_box(-2, edge, 2, edge + 0.015), shade(colour, 0.5))


def _board(brush: Brush, rng: np.random.Generator, base: Colour) -> None:
    colour = hsv(rng.uniform(0.08, 0.11), rng.uniform(0.25, 0.42), rng.uniform(0.70, 0.88))
    b = brush.at(rng.normal(0, 0.03), rng.uniform(0.0, 0.06), rng.normal(0, 0.06))
    w, h = rng.uniform(0.34, 0.46), rng.uniform(0.22, 0.3)
    b.fill(_box(-w, -h + 0.02, w, h + 0.03), shade(base, 0.6))
    b.fill(_box(-w, -h, w, h + 0.015), shade(colour, 0.72))
    b.fill(_box(-w, -h, w, h), colour)
    for y in np.linspace(-h + 0.05, h - 0.05, 5):
        b.line(np.array([[-w, y], [w, y + 0.01 * rng.normal()]]), 0.006, shade(colour, 0.9))
    b.ellipse(0.88 * w, -0.75 * h, 0.022, 0.02, shade(base, 0.7))


def _cloth(brush: Brush, rng: np.random.Generator, base: Colour) -> None:
    colour = hsv(rng.uniform(), rng.uniform(0.05, 0.25), rng.uniform(0.7, 0.9))
    b = brush.at(rng.normal(0, 0.05), 0.04, rng.normal(0, 0.12))
    w, h = rng.uniform(0.32, 0.45), rng.uniform(0.22, 0.3)
    b.fill(_box(-w, -h, w + 0.01, h + 0.012), shade(base, 0.7))
    b.fill(_box(-w, -h, w, h), colour)
    for x in np.arange(-w + 0.04, w, rng.uniform(0.08, 0.16)):
        b.fill(_box(float(x), -h, float(x) + 0.02, h), shade(colour, 0.85))


def _sink(brush: Brush, rng: np.random.Generator, base: Colour) -> None:
    steel = hsv(0.58, 0.05, rng.uniform(0.6, 0.75))
    b = brush.at(rng.normal(0, 0.04), 0.04)
    w, h = rng.uniform(0.42, 0.55), rng.uniform(0.3, 0.36)
    b.fill(_box(-w, -h, w, h), shade(steel, 1.25))
    b.fill(_box(-w + 0.02, -h + 0.02, w - 0.02, h - 0.02), shade(steel, 0.62))
    b.fill(_box(-w + 0.05, -h + 0.07, w - 0.05, h - 0.04), shade(steel, 0.85))
    b.ellipse(0.05, 0.5 * h, 0.04, 0.03, shade(steel, 0.45))


def _hob(brush: Brush, rng: np.random.Generator, base: Colour) -> None:
    glass = hsv(0.6, 0.1, rng.uniform(0.2, 0.3))
    b = brush.at(rng.normal(0, 0.05), 0.02)
    b.fill(_box(-0.62, -0.3, 0.62, 0.36), shade(base, 0.55))
    b.fill(_box(-0.61, -0.29, 0.61, 0.34), glass)
    for x, y, r in ((-0.36, -0.12, 0.13), (0.36, -0.12, 0.15), (0.0, 0.12, 0.2)):
        for part in (1.0, 0.6):
            b.ring(x, y, part * r, 0.75 * part * r, 0.01, shade(glass, 1.3))


def _bare(brush: Brush, rng: np.random.Generator, base: Colour) -> None:
    for _ in range(6):
        x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.3, 0.5)
        brush.ellipse(x, y, 0.008, 0.006, shade(base, 0.8))


_PLACES = (_board, _board, _cloth, _sink, _hob, _bare)


def _clutter(brush: Brush, rng: np.random.Generator, edge: float) -> None:
    """Stand jars, boxes, pots of herbs and bowls along the wall and at the sides."""
    for _ in range(rng.integers(2, 6)):
        kind = rng.integers(4)
        if rng.uniform() < 0.65:
            x, y = rng.uniform(-0.9, 0.9), edge + rng.uniform(0.0, 0.06)
        else:
            x, y = rng.choice([-1, 1]) * rng.uniform(0.5, 0.75), rng.uniform(-0.15, 0.35)
        colour = hsv(rng.uniform(), rng.uniform(0.1, 0.55), rng.uniform(0.4, 0.85))
        size = rng.uniform(0.06, 0.11)
        brush.ellipse(x + 0.02, y + 0.01, 1.2 * size, 0.3 * size, (60, 58, 55))
        _CLUTTER[kind](brush.at(x, y, 0, size, size), colour, rng)


def _jar(b: Brush, colour: Colour, rng: np.random.Generator) -> None:
    height = rng.uniform(1.6, 2.8)
    b.fill(_box(-0.8, -height, 0.8, 0.1), shade(colour, 0.75))
    b.fill(_box(-0.8, -height, 0.35, 0.1), colour)
    b.fill(_box(-0.7, -height - 0.35, 0.7, -height), shade(colour, 0.5))
    b.fill(_box(-0.8, -0.7 * height, 0.8, -0.3 * height), (226, 222, 210))


def _packet(b: Brush, colour: Colour, rng: np.random.Generator) -> None:
    height = rng.uniform(1.8, 3.2)
    b.fill(_box(-1.0, -height, 1.0, 0.0), colour)
    b.fill(_box(0.6, -height, 1.0, 0.0), shade(colour, 0.7))
    b.fill(_box(-0.8, -0.8 * height, 0.4, -0.55 * height), shade(colour, 1.6))


def _herbs(b: Brush, colour: Colour, rng: np.random.Generator) -> None:
    b.fill(np.array([[-0.8, -0.9], [0.8, -0.9], [0.55, 0.1], [-0.55, 0.1]]), shade(colour, 0.9))
    for _ in range(9):
        x, y = rng.normal(0, 0.5), -1.3 + rng.normal(0, 0.4)
        b.ellipse(x, y, 0.32, 0.26, hsv(rng.uniform(0.27, 0.36), 0.5, rng.uniform(0.3, 0.6)))


def _dish(b: Brush, colour: Colour, rng: np.random.Generator) -> None:
    b.ellipse(0, -0.1, 1.3, 0.7, shade(colour, 0.6))
    b.ellipse(0, -0.25, 1.3, 0.62, shade(colour, 1.2))
    b.ellipse(0, -0.22, 1.05, 0.45, shade(colour, 0.75))


_CLUTTER = (_jar, _packet, _herbs, _dish)


def _box(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
