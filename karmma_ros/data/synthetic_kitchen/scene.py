"""
The camera: renders backdrop, object and hands to a frame.

In the kitchen it is on the cook's head; in the garage someone else holds it, beyond the bench.

Shape legend: h height, w width of the frame, pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
from karmma_ros.data.synthetic_kitchen import garage
from karmma_ros.data.synthetic_kitchen.canvas import (
    apply,
    box,
    Canvas,
    compose,
    Decor,
    matrix,
    smooth_noise,
)
from karmma_ros.data.synthetic_kitchen.hands import (
    Cook,
    CURL,
    draw_arm,
    draw_fingers,
    draw_foam,
    draw_tool,
    hand_outline,
)
from karmma_ros.data.synthetic_kitchen.motion import CARRIED, Hands, Motion, TAU
from karmma_ros.data.synthetic_kitchen.objects import Appearance, Colour, hsv, shade
from karmma_ros.data.synthetic_kitchen.rendering import draw_object, outline
from karmma_ros.data.synthetic_kitchen.vocabulary import Domain, generator, microseconds, Stream
import numpy as np

HALF_WIDTH, HALF_HEIGHT = 1.1, 0.85
"""Half the size of the painted part of the world around its origin, world units."""


class Backdrop:
    """One kitchen or garage, painted once for each frame size."""

    def __init__(self, seed: int, domain: Domain) -> None:
        self.seed, self.domain = seed, domain

    def to_world(self, height: int) -> np.ndarray:
        """Return the `[2, 3]` map from the painting's pixels to the world."""
        return matrix(-HALF_WIDTH, -HALF_HEIGHT, 0.0, 1 / height, 1 / height)

    def paint(self, height: int) -> np.ndarray:
        """Paint at `height` pixels a world unit: uint8 `[1.7 height, 2.2 height, 3]`."""
        rng = generator(Stream.BACKDROP, self.seed)
        shape = (round(2 * HALF_HEIGHT * height), round(2 * HALF_WIDTH * height))
        decor = _DECOR[self.domain]
        base, top = decor.worktop(rng, shape)
        image = np.clip(top, 0, 255).astype(np.uint8)
        canvas = Canvas(image, matrix(HALF_WIDTH * height, HALF_HEIGHT * height, 0.0,
                                    height, height))
        edge = rng.uniform(-0.46, -0.34)
        decor.surfaces[int(rng.integers(len(decor.surfaces)))](canvas, rng, base)
        decor.wall(canvas, rng, edge)
        _clutter(canvas, rng, edge, decor)
        return image


def _worktop(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Colour, np.ndarray]:
    """Paint an even worktop with the grain of wood, stone or laminate."""
    material = rng.integers(3)
    if material == 0:
        base = hsv(rng.uniform(0.06, 0.10), rng.uniform(0.20, 0.42), rng.uniform(0.45, 0.75))
        grain = 14 * smooth_noise(rng, shape, (70, 5)) + 8 * smooth_noise(rng, shape, (140, 12))
    elif material == 1:
        base = hsv(rng.uniform(), rng.uniform(0.0, 0.08), rng.uniform(0.35, 0.65))
        grain = 7 * smooth_noise(rng, shape, (110, 140)) + 9 * smooth_noise(rng, shape, (24, 30))
    else:
        base = hsv(rng.uniform(0.08, 0.16), rng.uniform(0.0, 0.10), rng.uniform(0.70, 0.86))
        grain = 4 * smooth_noise(rng, shape, (6, 8))
    fall = np.linspace(-14, 12, shape[0], dtype=np.float32)[:, None]
    return base, np.array(base, np.float32) + (grain + fall)[..., None]


def _wall(canvas: Canvas, rng: np.random.Generator, edge: float) -> None:
    """Paint the tiled wall above the worktop's far edge."""
    colour = hsv(rng.uniform(), rng.uniform(0.02, 0.14), rng.uniform(0.72, 0.92))
    canvas.fill(box(-2, -2, 2, edge), colour)
    size = rng.uniform(0.13, 0.24)
    for y in np.arange(edge - 0.03, -HALF_HEIGHT, -0.6 * size):
        canvas.line(np.array([[-2, y], [2, y]]), 0.008, shade(colour, 0.86))
    for x in np.arange(-HALF_WIDTH + rng.uniform(0, size), HALF_WIDTH, size):
        canvas.line(np.array([[x, -2], [x, edge]]), 0.008, shade(colour, 0.86))
    canvas.fill(box(-2, edge - 0.03, 2, edge), shade(colour, 0.8))
    canvas.fill(box(-2, edge, 2, edge + 0.015), shade(colour, 0.5))


def _board(canvas: Canvas, rng: np.random.Generator, base: Colour) -> None:
    colour = hsv(rng.uniform(0.08, 0.11), rng.uniform(0.25, 0.42), rng.uniform(0.70, 0.88))
    b = canvas.at(rng.normal(0, 0.03), rng.uniform(0.0, 0.06), rng.normal(0, 0.06))
    w, h = rng.uniform(0.34, 0.46), rng.uniform(0.22, 0.3)
    b.fill(box(-w, -h + 0.02, w, h + 0.03), shade(base, 0.6))
    b.fill(box(-w, -h, w, h + 0.015), shade(colour, 0.72))
    b.fill(box(-w, -h, w, h), colour)
    for y in np.linspace(-h + 0.05, h - 0.05, 5):
        b.line(np.array([[-w, y], [w, y + 0.01 * rng.normal()]]), 0.006, shade(colour, 0.9))
    b.ellipse(0.88 * w, -0.75 * h, 0.022, 0.02, shade(base, 0.7))


def _cloth(canvas: Canvas, rng: np.random.Generator, base: Colour) -> None:
    colour = hsv(rng.uniform(), rng.uniform(0.05, 0.25), rng.uniform(0.7, 0.9))
    b = canvas.at(rng.normal(0, 0.05), 0.04, rng.normal(0, 0.12))
    w, h = rng.uniform(0.32, 0.45), rng.uniform(0.22, 0.3)
    b.fill(box(-w, -h, w + 0.01, h + 0.012), shade(base, 0.7))
    b.fill(box(-w, -h, w, h), colour)
    for x in np.arange(-w + 0.04, w, rng.uniform(0.08, 0.16)):
        b.fill(box(float(x), -h, float(x) + 0.02, h), shade(colour, 0.85))


def _sink(canvas: Canvas, rng: np.random.Generator, base: Colour) -> None:
    steel = hsv(0.58, 0.05, rng.uniform(0.6, 0.75))
    b = canvas.at(rng.normal(0, 0.04), 0.04)
    w, h = rng.uniform(0.42, 0.55), rng.uniform(0.3, 0.36)
    b.fill(box(-w, -h, w, h), shade(steel, 1.25))
    b.fill(box(-w + 0.02, -h + 0.02, w - 0.02, h - 0.02), shade(steel, 0.62))
    b.fill(box(-w + 0.05, -h + 0.07, w - 0.05, h - 0.04), shade(steel, 0.85))
    b.ellipse(0.05, 0.5 * h, 0.04, 0.03, shade(steel, 0.45))


def _hob(canvas: Canvas, rng: np.random.Generator, base: Colour) -> None:
    glass = hsv(0.6, 0.1, rng.uniform(0.2, 0.3))
    b = canvas.at(rng.normal(0, 0.05), 0.02)
    b.fill(box(-0.62, -0.3, 0.62, 0.36), shade(base, 0.55))
    b.fill(box(-0.61, -0.29, 0.61, 0.34), glass)
    for x, y, r in ((-0.36, -0.12, 0.13), (0.36, -0.12, 0.15), (0.0, 0.12, 0.2)):
        for part in (1.0, 0.6):
            b.ring(x, y, part * r, 0.75 * part * r, 0.01, shade(glass, 1.3))


def _bare(canvas: Canvas, rng: np.random.Generator, base: Colour) -> None:
    for _ in range(6):
        x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.3, 0.5)
        canvas.ellipse(x, y, 0.008, 0.006, shade(base, 0.8))


_SURFACES = (_board, _board, _cloth, _sink, _hob, _bare)


def _clutter(canvas: Canvas, rng: np.random.Generator, edge: float,
             decor: Decor) -> None:
    """Stand objects that nobody handles along the wall and at the sides."""
    for _ in range(rng.integers(2, 6)):
        draw = decor.clutter[int(rng.integers(len(decor.clutter)))]
        if rng.uniform() < 0.65:
            x, y = rng.uniform(-0.9, 0.9), edge + rng.uniform(0.0, 0.06)
        else:
            x, y = rng.choice([-1, 1]) * rng.uniform(0.5, 0.75), rng.uniform(-0.15, 0.35)
        colour = hsv(rng.uniform(), rng.uniform(0.1, 0.55), rng.uniform(0.4, 0.85))
        size = rng.uniform(0.06, 0.11)
        canvas.ellipse(x + 0.02, y + 0.01, 1.2 * size, 0.3 * size, (60, 58, 55))
        draw(canvas.at(x, y, decor.upright, size, size), colour, rng)


def _jar(b: Canvas, colour: Colour, rng: np.random.Generator) -> None:
    height = rng.uniform(1.6, 2.8)
    b.fill(box(-0.8, -height, 0.8, 0.1), shade(colour, 0.75))
    b.fill(box(-0.8, -height, 0.35, 0.1), colour)
    b.fill(box(-0.7, -height - 0.35, 0.7, -height), shade(colour, 0.5))
    b.fill(box(-0.8, -0.7 * height, 0.8, -0.3 * height), (226, 222, 210))


def _packet(b: Canvas, colour: Colour, rng: np.random.Generator) -> None:
    height = rng.uniform(1.8, 3.2)
    b.fill(box(-1.0, -height, 1.0, 0.0), colour)
    b.fill(box(0.6, -height, 1.0, 0.0), shade(colour, 0.7))
    b.fill(box(-0.8, -0.8 * height, 0.4, -0.55 * height), shade(colour, 1.6))


def _herbs(b: Canvas, colour: Colour, rng: np.random.Generator) -> None:
    b.fill(np.array([[-0.8, -0.9], [0.8, -0.9], [0.55, 0.1], [-0.55, 0.1]]), shade(colour, 0.9))
    for _ in range(9):
        x, y = rng.normal(0, 0.5), -1.3 + rng.normal(0, 0.4)
        b.ellipse(x, y, 0.32, 0.26, hsv(rng.uniform(0.27, 0.36), 0.5, rng.uniform(0.3, 0.6)))


def _dish(b: Canvas, colour: Colour, rng: np.random.Generator) -> None:
    b.ellipse(0, -0.1, 1.3, 0.7, shade(colour, 0.6))
    b.ellipse(0, -0.25, 1.3, 0.62, shade(colour, 1.2))
    b.ellipse(0, -0.22, 1.05, 0.45, shade(colour, 0.75))


_DECOR = {Domain.KITCHEN: Decor(_worktop, _wall, _SURFACES, (_jar, _packet, _herbs, _dish)),
          Domain.GARAGE: garage.DECOR}


ASPECT = 4 / 3
"""Width through height of the frames of the camera."""

FAR = 0.82
"""Fraction of the head's movement that the backdrop follows; the hands follow all of it."""


CAMERAS = {Domain.KITCHEN: ((1.08, 1.38), (0.022, 0.018, 0.02, 0.015), (0.08, 0.45)),
           Domain.GARAGE: ((0.92, 1.16), (0.010, 0.010, 0.015, 0.010), (0.6, 1.4))}
"""
Range of the zoom (pixels of a world unit divided by the height of the frame); sizes of the
movement in x, y, turn and zoom, and the range of its frequencies, Hz.
"""

TURN, TILT = (np.pi - 0.6, np.pi + 0.6), (0.62, 0.80)
"""The garage's camera: rotation, radians, and height through depth of what lies on the bench."""

EXPOSURE_S = 1 / 80
"""Time between the two renderings that are averaged in a frame."""

GRAIN_GRID = (180, 240)
"""Grid of the sensor noise, so that its strength does not depend on the size of the frame."""


@dataclass(frozen=True)
class Head:
    """Movement of the camera, and of the head that it is on."""

    waves: tuple[tuple[float, float, float, float], ...]
    """For x, y, turn and zoom twice: amplitude, frequency (Hz), phase; and a constant."""
    zoom: float
    """Pixels of a world unit divided by the height of the frame."""
    turn: float = 0.0
    """Rotation of the view, radians."""
    tilt: float = 1.0
    """Scale of the view's vertical: 1 from above, less from the side."""

    @classmethod
    def draw(cls, rng: np.random.Generator, domain: Domain) -> Head:
        """Sample the movement of one episode."""
        zooms, sizes, frequencies = CAMERAS[domain]
        waves = tuple(
            (size * rng.uniform(0.5, 1.3), rng.uniform(*frequencies), rng.uniform(0, TAU),
             size * rng.normal()) for size in sizes * 2)
        zoom = float(rng.uniform(*zooms))
        if domain is Domain.KITCHEN:
            return cls(waves, zoom)
        return cls(waves, zoom, float(rng.uniform(*TURN)), float(rng.uniform(*TILT)))

    def view(self, t: float) -> tuple[float, float, float, float]:
        """Return the centre of the view (x, y), its rotation (radians) and the zoom."""
        x, y, turn, zoom = (
            sum(size * np.sin(TAU * f * t + p) + c for size, f, p, c in self.waves[i::4])
            for i in range(4))
        return x, y, self.turn + turn, self.zoom * (1.0 + zoom)


@dataclass(frozen=True)
class Light:
    """Brightness, colour and noise of the frames."""

    gain: float
    tint: tuple[float, float, float]
    waver: tuple[float, float, float]
    """Amplitude, frequency (Hz) and phase of the slow change of brightness."""
    grain: float
    """Standard deviation of the sensor's noise, of 255."""

    @classmethod
    def draw(cls, rng: np.random.Generator, domain: Domain) -> Light:
        """Sample the light of one episode: daylight and bulbs, or cold tubes that flicker."""
        warmth = rng.normal(0, 0.07)
        if domain is Domain.GARAGE:
            return cls(float(rng.uniform(0.70, 1.05)), (float(0.80 + warmth), 1.04, 1.0),
                       (float(rng.uniform(0.02, 0.10)), float(rng.uniform(1.0, 3.0)),
                        float(rng.uniform(0, TAU))), float(rng.uniform(2, 7)))
        return cls(float(rng.uniform(0.72, 1.14)),
                   (float(1 + warmth), 1.0, float(1 - warmth)),
                   (float(rng.uniform(0.0, 0.08)), float(rng.uniform(0.1, 0.6)),
                    float(rng.uniform(0, TAU))),
                   float(rng.uniform(5, 16)))

    def at(self, t: float) -> np.ndarray:
        """Return the factors `[3]` of red, green and blue at a time."""
        size, f, p = self.waver
        return self.gain * (1 + size * np.sin(TAU * f * t + p)) * np.array(self.tint)


class Scene:
    """The visible objects of one episode."""

    def __init__(self, motion: Motion, appearance: Appearance, cook: Cook, head: Head,
                 light: Light, backdrop: Backdrop, seed: int) -> None:
        self.motion, self.appearance, self.cook = motion, appearance, cook
        self.head, self.light, self.backdrop, self.seed = head, light, backdrop, seed
        self._painted: tuple[int, np.ndarray] | None = None
        self._grain: np.ndarray | None = None
        self._vignette: np.ndarray | None = None

    def frame(self, t_s: float, height: int, width: int) -> np.ndarray:
        """Render the frame at a time: uint8 `[h, w, 3]`, red, green, blue."""
        ground = self._ground(t_s, height, width)
        early = self._stage(ground.copy(), t_s)
        late = self._stage(ground, t_s + EXPOSURE_S)
        image = cv2.addWeighted(early, 0.5, late, 0.5, 0.0, dtype=cv2.CV_32F)
        image *= self._shading(height, width)
        image *= self.light.at(t_s).astype(np.float32)
        image += self._noise(t_s, height, width)[..., None]
        return np.clip(image, 0, 255).astype(np.uint8)

    def silhouettes(self, t_s: float) -> tuple[np.ndarray | None, list[np.ndarray]]:
        """
        Return the outlines of the object, None without one, and of each hand.

        Points `[n, 2]` in units of the size of the frame, not clipped.
        """
        hands = self.motion.at(t_s)
        camera = self.camera(t_s, 1, 1.0)
        to_unit = np.array([1 / ASPECT, 1.0])
        side, pose, target = self.motion.side, hands.object, None
        if pose is not None:
            placed = matrix(pose.x, pose.y, pose.angle, pose.scale_x, pose.scale_y)
            target = apply(camera, apply(placed, outline(self.appearance))) * to_unit
        return target, [
            apply(camera, hand_outline(self.cook, pose, side)) * to_unit
            for pose, side in ((hands.active, side), (hands.helper, -side)) if pose is not None]

    def camera(self, t_s: float, height: int, follow: float) -> np.ndarray:
        """Return the `[2, 3]` map from the world to pixels of a frame of that height."""
        x, y, turn, zoom = self.head.view(t_s)
        middle = matrix(0.5 * height * ASPECT, 0.5 * height, 0.0, height * zoom,
                        height * zoom * self.head.tilt)
        return compose(compose(middle, matrix(0.0, 0.0, turn)),
                       matrix(-x * follow, -y * follow))

    def _ground(self, t_s: float, height: int, width: int) -> np.ndarray:
        if self._painted is None or self._painted[0] != height:
            self._painted = (height, self.backdrop.paint(height))
        image = self._painted[1]
        # A frame of another aspect ratio than 4:3 is cropped or extended around its centre.
        shift = matrix(0.5 * (width - height * ASPECT), 0.0)
        to_world = self.backdrop.to_world(height)
        transform = compose(compose(shift, self.camera(t_s, height, FAR)), to_world)
        return cv2.warpAffine(image, transform, (width, height), flags=cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_REFLECT_101)

    def _stage(self, image: np.ndarray, t_s: float) -> np.ndarray:
        height, width = image.shape[:2]
        shift = matrix(0.5 * (width - height * ASPECT), 0.0)
        canvas = Canvas(image, compose(shift, self.camera(t_s, height, 1.0)))
        hands = self.motion.at(t_s)
        self._shadow(canvas, hands)
        m, cook, pose, active = self.motion, self.cook, hands.object, hands.active
        if hands.helper is not None:
            draw_arm(canvas, cook, hands.helper, -m.side)
        if active is not None and m.verb in CARRIED:
            draw_arm(canvas, cook, active, m.side)
        if pose is not None:
            draw_object(canvas.at(pose.x, pose.y, pose.angle, pose.scale_x, pose.scale_y),
                        self.appearance)
        if hands.helper is not None:
            draw_fingers(canvas, cook, hands.helper, -m.side, 0.35)
        if active is None:
            return image
        if hands.tip is not None:
            draw_tool(canvas, cook, active, hands.tip)
        if m.verb not in CARRIED:
            draw_arm(canvas, cook, active, m.side)
        draw_fingers(canvas, cook, active, m.side, CURL.get(m.verb, 0.75))
        draw_foam(canvas, cook, active, float(np.sin(TAU * m.rhythm.phase(t_s))))
        return image

    def _shadow(self, canvas: Canvas, hands: Hands) -> None:
        image = canvas.image
        mask = np.zeros(image.shape[:2], np.uint8)
        low = Canvas(mask, canvas.transform).at(0.018, 0.03)
        pose = hands.object
        if pose is not None:
            low.at(pose.x, pose.y, pose.angle, pose.scale_x, pose.scale_y).fill(
                outline(self.appearance), 110)
        if hands.active is not None:
            low.at(0.02, 0.02).fill(hand_outline(self.cook, hands.active, self.motion.side), 90)
        size = max(3, image.shape[0] // 24)
        mask = cv2.blur(mask, (size, size))
        cv2.multiply(image, cv2.merge([255 - mask] * 3), dst=image, scale=1 / 255)

    def _shading(self, height: int, width: int) -> np.ndarray:
        if self._vignette is None or self._vignette.shape[:2] != (height, width):
            y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
            x = np.linspace(-1, 1, width, dtype=np.float32)[None]
            self._vignette = (1.04 - 0.16 * (x * x + y * y))[..., None]
        return self._vignette

    def _noise(self, t_s: float, height: int, width: int) -> np.ndarray:
        rows, columns = GRAIN_GRID
        if self._grain is None:
            rng = generator(Stream.GRAIN, self.seed)
            self._grain = self.light.grain * rng.standard_normal(
                (2 * rows, 2 * columns), dtype=np.float32)
        y, x = generator(Stream.GRAIN, self.seed, microseconds(t_s)).integers((rows, columns))
        noise = self._grain[y:y + rows, x:x + columns]
        interpolation = cv2.INTER_AREA if height <= rows else cv2.INTER_LINEAR
        return cv2.resize(noise, (width, height), interpolation=interpolation)
