"""
The garage: its objects, utensils and surroundings.

As the kitchen's in `rendering` and `scene`: an object's origin is its centre and its longer half
side is 1.
"""

from __future__ import annotations

from collections.abc import Callable

from karmma_ros.data.synthetic_kitchen.canvas import box, Canvas, CIRCLE, Decor, smooth_noise
from karmma_ros.data.synthetic_kitchen.objects import Appearance, Colour, hsv, shade
import numpy as np


def draw_object(canvas: Canvas, item: Appearance) -> None:
    """Draw an instance in its own units: its body, then what is on it."""
    shape = outline(item)
    canvas.fill(shape + (0.02, 0.07), shade(item.colour, 0.5))
    canvas.fill(shape, item.colour)
    _OBJECTS[item.noun][1](canvas, item)


def outline(item: Appearance) -> np.ndarray:
    """Return the silhouette `[n, 2]` of an instance in its own units."""
    return _OBJECTS[item.noun][0](item.aspect)


def _oval(a: float) -> np.ndarray:
    return CIRCLE * (1.0, a)


def _block(a: float) -> np.ndarray:
    return box(-1.0, -a, 1.0, a)


def _hammer_outline(a: float) -> np.ndarray:
    return np.array([[-1.0, -0.09], [0.45, -0.07], [0.45, -a], [0.9, -a], [1.0, 0.0], [0.9, a],
                     [0.45, a], [0.45, 0.07], [-1.0, 0.09]])


def _hammer(canvas: Canvas, item: Appearance) -> None:
    canvas.fill(box(-1.0, -0.1, 0.2, 0.1), item.accent)
    canvas.fill(box(0.42, 0.5 * item.aspect, 0.98, item.aspect), shade(item.accent, 1.5))


def _wrench_outline(a: float) -> np.ndarray:
    half = np.array([[0.45, -0.35 * a], [0.6, -a], [0.98, -0.9 * a], [0.7, -0.3 * a],
                     [0.7, 0.3 * a], [0.98, 0.9 * a], [0.6, a], [0.45, 0.35 * a]])
    return np.concatenate([half, -half])


def _wrench(canvas: Canvas, item: Appearance) -> None:
    canvas.line(np.array([[-0.5, 0.0], [0.5, 0.0]]), 0.1, item.accent)


def _paintbrush_outline(a: float) -> np.ndarray:
    return np.array([[-1.0, -0.12], [-0.1, -0.16], [0.1, -a], [1.0, -0.9 * a], [1.0, 0.9 * a],
                     [0.1, a], [-0.1, 0.16], [-1.0, 0.12]])


def _paintbrush(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    canvas.fill(box(0.1, -a, 0.45, a), (150, 152, 156))
    canvas.fill(box(0.45, -0.95 * a, 1.0, 0.95 * a), item.accent)
    for y in np.linspace(-0.7, 0.7, 5):
        canvas.line(np.array([[0.5, y * a], [1.0, y * a]]), 0.03, shade(item.accent, 0.6))


def _plank(canvas: Canvas, item: Appearance) -> None:
    for i in range(4):
        y = item.aspect * (-0.75 + 0.45 * i + 0.2 * item.marks[i])
        canvas.line(np.array([[-0.98, y], [0.98, y + 0.06]]), 0.025, item.accent)
    canvas.ellipse(item.marks[5] - 0.5, 0.0, 0.09, 0.3 * item.aspect, item.accent)


def _tin(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    canvas.ellipse(0.0, 0.0, 0.88, 0.88 * a, item.accent)
    canvas.ellipse(0.0, 0.03, 0.74, 0.74 * a, shade(item.colour, 0.8))
    canvas.line(np.array([[-1.0, 0.0], [-0.7, 0.9 * a], [0.7, 0.9 * a], [1.0, 0.0]]), 0.07,
                shade(item.accent, 0.6))


def _tube_outline(a: float) -> np.ndarray:
    return np.array([[-1.0, -a], [0.5, -0.55 * a], [0.7, -0.3 * a], [1.0, -0.3 * a],
                     [1.0, 0.3 * a], [0.7, 0.3 * a], [0.5, 0.55 * a], [-1.0, a]])


def _tube(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    canvas.fill(box(0.68, -0.3 * a, 1.0, 0.3 * a), shade(item.accent, 0.5))
    canvas.fill(box(-1.0, -a, -0.84, a), shade(item.colour, 0.6))
    canvas.fill(box(-0.6, -0.45 * a, 0.1 + 0.2 * item.marks[0], 0.45 * a), item.accent)


def _cable(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    for size in (0.9, 0.76, 0.62):
        canvas.ring(0.0, 0.0, size, size * a, 0.04, item.accent)
    canvas.ellipse(0.0, 0.0, 0.46, 0.46 * a, shade(item.accent, 1.3))
    canvas.line(np.array([[0.9, 0.2 * a], [1.15, 0.9 * a]]), 0.14, item.colour)


def _tile(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    canvas.fill(np.array([[0.0, -0.8 * a], [0.8, 0.0], [0.0, 0.8 * a], [-0.8, 0.0]]), item.accent)
    size = 0.2 + 0.3 * item.marks[0]
    canvas.fill(box(-size, -size * a, size, size * a), shade(item.colour, 1.4))


def _wheel(canvas: Canvas, item: Appearance) -> None:
    a = item.aspect
    canvas.ellipse(0.0, 0.0, 0.62, 0.62 * a, item.accent)
    for angle in np.arange(5) * 0.4 * np.pi + item.marks[0]:
        canvas.line(np.array([[0.0, 0.0], [0.6 * np.cos(angle), 0.6 * a * np.sin(angle)]]), 0.12,
                    item.colour)
    canvas.ellipse(0.0, 0.0, 0.16, 0.16 * a, shade(item.accent, 0.5))


def _rag_outline(a: float) -> np.ndarray:
    radius = 0.84 + 0.16 * np.cos(5 * np.arctan2(CIRCLE[:, 1], CIRCLE[:, 0]))
    return CIRCLE * radius[:, None] * (1.0, a)


def _rag(canvas: Canvas, item: Appearance) -> None:
    for i in range(4):
        x = -0.6 + 0.4 * i
        canvas.line(np.array([[x, -0.5 * item.aspect], [x + 0.2, 0.5 * item.aspect]]), 0.05,
                    item.accent if i % 2 else shade(item.colour, 0.7))


_OBJECTS: dict[str, tuple[Callable[[float], np.ndarray], Callable[[Canvas, Appearance], None]]] = {
    'hammer': (_hammer_outline, _hammer), 'wrench': (_wrench_outline, _wrench),
    'paintbrush': (_paintbrush_outline, _paintbrush), 'plank': (_block, _plank),
    'tin': (_oval, _tin), 'tube': (_tube_outline, _tube), 'cable': (_oval, _cable),
    'tile': (_block, _tile), 'wheel': (_oval, _wheel), 'rag': (_rag_outline, _rag)}


def draw_tool(canvas: Canvas, tool: str, length: float, steel: Colour) -> None:
    """Draw what is in front of a utensil's handle; its tip is at x = `length`."""
    dark = shade(steel, 0.45)
    if tool == 'saw':
        teeth = [[0.3 + 0.1 * i, 0.045 + 0.018 * (i % 2)] for i in range(9)]
        canvas.fill(np.array([[1.1, 0.0], [0.3, -0.02], *teeth]) * (length, 1), steel)
    elif tool == 'scraper':
        canvas.fill(np.array([[0.3 * length, -0.015], [length, -0.06], [length, 0.06],
                              [0.3 * length, 0.015]]), steel)
        canvas.line(np.array([[length, -0.06], [length, 0.06]]), 0.012, dark)
    elif tool == 'hook':
        canvas.line(np.array([[0.3 * length, 0], [length, 0], [1.1 * length, 0.03],
                              [0.95 * length, 0.05]]), 0.014, dark)
    else:
        canvas.line(np.array([[0.3 * length, 0], [1.1 * length, 0]]), 0.022, (196, 160, 110))


def _worktop(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Colour, np.ndarray]:
    """Paint a bench of chipboard, of steel or of concrete, with stains."""
    material = rng.integers(3)
    if material == 0:
        base = hsv(rng.uniform(0.09, 0.13), rng.uniform(0.35, 0.55), rng.uniform(0.35, 0.55))
        grain = 22 * smooth_noise(rng, shape, (60, 80))
    elif material == 1:
        base = hsv(rng.uniform(0.50, 0.62), rng.uniform(0.12, 0.35), rng.uniform(0.30, 0.55))
        grain = 6 * smooth_noise(rng, shape, (4, 220))
    else:
        base = hsv(rng.uniform(0.2, 0.4), rng.uniform(0.0, 0.10), rng.uniform(0.25, 0.45))
        grain = 12 * smooth_noise(rng, shape, (150, 190))
    stains = -30 * np.maximum(smooth_noise(rng, shape, (7, 9)) - 0.7, 0)
    return base, np.array(base, np.float32) + (grain + stains)[..., None]


def _wall(canvas: Canvas, rng: np.random.Generator, edge: float) -> None:
    """Paint a board with rows of holes."""
    colour = hsv(rng.uniform(0.05, 0.12), rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.5))
    canvas.fill(box(-2, -2, 2, edge), colour)
    for x in np.arange(-1.1, 1.1, 0.07).tolist():
        for y in np.arange(edge - 0.05, -0.85, -0.07).tolist():
            canvas.ellipse(x, y, 0.01, 0.01, shade(colour, 0.4))


def _mat(canvas: Canvas, rng: np.random.Generator, base: Colour) -> None:
    """Lay a green mat with a grid."""
    colour = hsv(rng.uniform(0.38, 0.46), rng.uniform(0.5, 0.8), rng.uniform(0.25, 0.45))
    b = canvas.at(rng.normal(0, 0.04), 0.0, rng.normal(0, 0.1))
    w, h = rng.uniform(0.45, 0.6), rng.uniform(0.32, 0.42)
    b.fill(box(-w, -h, w, h), colour)
    for t in np.arange(-0.9, 1.0, 0.2):
        b.line(np.array([[t * w, -h], [t * w, h]]), 0.006, shade(colour, 1.4))
        b.line(np.array([[-w, t * h], [w, t * h]]), 0.006, shade(colour, 1.4))


def _newspaper(canvas: Canvas, rng: np.random.Generator, base: Colour) -> None:
    b = canvas.at(rng.normal(0, 0.05), 0.0, rng.normal(0, 0.25))
    w, h = rng.uniform(0.4, 0.55), rng.uniform(0.34, 0.44)
    b.fill(box(-w, -h, w, h), (205, 203, 192))
    for x in (-0.95 * w, -0.3 * w, 0.35 * w):
        for y in np.arange(-0.9 * h, 0.9 * h, 0.04):
            b.line(np.array([[x, y], [x + rng.uniform(0.4, 0.6) * w, y]]), 0.012, (120, 120, 118))


def _beams(canvas: Canvas, rng: np.random.Generator, base: Colour) -> None:
    for x in np.arange(-1.1, 1.1, rng.uniform(0.2, 0.32)):
        canvas.line(np.array([[x, -2], [x + 0.03, 2]]), 0.016, shade(base, 0.45))


def _bare(canvas: Canvas, rng: np.random.Generator, base: Colour) -> None:
    for _ in range(12):
        x, y, angle = rng.uniform(-0.7, 0.7), rng.uniform(-0.4, 0.5), rng.uniform(0, np.pi)
        canvas.at(x, y, angle).line(np.array([[0, 0], [0.05, 0], [0.07, 0.02]]), 0.008,
                                    shade(base, 1.4))


def _drawers(b: Canvas, colour: Colour, rng: np.random.Generator) -> None:
    b.fill(box(-1.3, -1.6, 1.3, 0.1), shade(colour, 0.6))
    for i in range(6):
        x, y = -1.15 + 0.8 * (i % 3), -1.45 + 0.75 * (i // 3)
        b.fill(box(x, y, x + 0.65, y + 0.6), colour)
        b.ellipse(x + 0.32, y + 0.3, 0.1, 0.08, shade(colour, 0.4))


def _spool(b: Canvas, colour: Colour, rng: np.random.Generator) -> None:
    b.fill(box(-0.9, -1.2, 0.9, 0.0), colour)
    for y in (-1.3, -0.15):
        b.fill(box(-1.2, y, 1.2, y + 0.25), (150, 122, 84))


def _cone(b: Canvas, colour: Colour, rng: np.random.Generator) -> None:
    height = rng.uniform(1.6, 2.4)
    b.fill(np.array([[0.0, -height], [0.9, 0.0], [-0.9, 0.0]]), (226, 96, 30))
    b.fill(np.array([[-0.3, -0.66 * height], [0.3, -0.66 * height], [0.55, -0.4 * height],
                     [-0.55, -0.4 * height]]), (235, 235, 235))


def _canister(b: Canvas, colour: Colour, rng: np.random.Generator) -> None:
    height = rng.uniform(1.4, 2.2)
    b.fill(np.array([[-0.9, -height], [0.4, -height], [0.9, -0.7 * height], [0.9, 0.1],
                     [-0.9, 0.1]]), colour)
    b.line(np.array([[-0.7, -0.2], [0.7, -0.8 * height]]), 0.2, shade(colour, 0.6))


DECOR = Decor(_worktop, _wall, (_mat, _newspaper, _beams, _bare),
              (_drawers, _spool, _cone, _canister), upright=np.pi)
