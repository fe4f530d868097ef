"""
The camera on the cook's head: puts the backdrop, the object and the hands into a picture.

Shape legend: h picture height, w picture width, pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
from karmma_ros.data.synthetic_kitchen.backdrop import Backdrop
from karmma_ros.data.synthetic_kitchen.brush import apply, Brush, compose, matrix
from karmma_ros.data.synthetic_kitchen.hands import (
    Cook,
    CURL,
    draw_arm,
    draw_fingers,
    draw_foam,
    draw_tool,
    hand_outline,
)
from karmma_ros.data.synthetic_kitchen.instances import Look
from karmma_ros.data.synthetic_kitchen.motion import CARRIED, Hands, Motion, TAU
from karmma_ros.data.synthetic_kitchen.seeds import generator, microseconds, Stream
from karmma_ros.data.synthetic_kitchen.things import draw_thing, outline
import numpy as np

ASPECT = 4 / 3
"""Width through height of the camera's picture."""

FAR = 0.82
"""How much the backdrop follows the head's movement; the hands follow it wholly."""

ZOOM = (1.08, 1.38)
"""How near the head is: pixels of a world unit through the picture's height."""

EXPOSURE_S = 1 / 80
"""Time between the two moments of which a picture is the mean."""

GRAIN_GRID = (180, 240)
"""The sensor's grain lives on this grid, so that its strength does not depend on the size."""


@dataclass(frozen=True)
class Head:
    """How the cook's head, and the camera on it, sways."""

    waves: tuple[tuple[float, float, float, float], ...]
    """For x, y, turn and zoom twice: amplitude, frequency (Hz), phase; and a constant."""
    zoom: float
    """Pixels of a world unit through the picture's height."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Head:
        """Draw the sway of one episode."""
        sizes = (0.022, 0.018, 0.02, 0.015) * 2
        return cls(tuple(
            (size * rng.uniform(0.5, 1.3), rng.uniform(0.08, 0.45), rng.uniform(0, TAU),
             size * rng.normal()) for size in sizes), float(rng.uniform(*ZOOM)))

    def view(self, t: float) -> tuple[float, float, float, float]:
        """Give the place looked at (x, y), the turn (radians) and the zoom."""
        x, y, turn, zoom = (
            sum(size * np.sin(TAU * f * t + p) + c for size, f, p, c in self.waves[i::4])
            for i in range(4))
        return x, y, turn, self.zoom * (1.0 + zoom)


@dataclass(frozen=True)
class Light:
    """Brightness, colour and grain of the picture."""

    gain: float
    tint: tuple[float, float, float]
    waver: tuple[float, float, float]
    """Amplitude, frequency (Hz) and phase of the slow change of brightness."""
    grain: float
    """Standard deviation of the sensor's noise, of 255."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Light:
        """Draw the light of one episode."""
        warmth = rng.normal(0, 0.07)
        return cls(float(rng.uniform(0.72, 1.14)),
                   (float(1 + warmth), 1.0, float(1 - warmth)),
                   (float(rng.uniform(0.0, 0.08)), float(rng.uniform(0.1, 0.6)),
                    float(rng.uniform(0, TAU))),
                   float(rng.uniform(5, 16)))

    def at(self, t: float) -> np.ndarray:
        """Give the factors `[3]` of red, green and blue at a time."""
        size, f, p = self.waver
        return self.gain * (1 + size * np.sin(TAU * f * t + p)) * np.array(self.tint)


class Scene:
    """Everything there is to see in one episode."""

    def __init__(self, motion: Motion, look: Look, cook: Cook, head: Head, light: Light,
                 backdrop: Backdrop, seed: int) -> None:
        self.motion, self.look, self.cook = motion, look, cook
        self.head, self.light, self.backdrop, self.seed = head, light, backdrop, seed
        self._painted: tuple[int, np.ndarray] | None = None
        self._grain: np.ndarray | None = None
        self._vignette: np.ndarray | None = None

    def frame(self, t_s: float, height: int, width: int) -> np.ndarray:
        """Draw the picture at a time: uint8 `[h, w, 3]`, red, green, blue."""
        ground = self._ground(t_s, height, width)
        early = self._stage(ground.copy(), t_s)
        late = self._stage(ground, t_s + EXPOSURE_S)
        picture = cv2.addWeighted(early, 0.5, late, 0.5, 0.0, dtype=cv2.CV_32F)
        picture *= self._shading(height, width)
        picture *= self.light.at(t_s).astype(np.float32)
        picture += self._noise(t_s, height, width)[..., None]
        return np.clip(picture, 0, 255).astype(np.uint8)

    def silhouettes(self, t_s: float) -> tuple[np.ndarray, list[np.ndarray]]:
        """
        Give the outlines of the object and of each hand.

        Points `[n, 2]` in units of the picture's size, not clipped.
        """
        hands = self.motion.at(t_s)
        camera = self.camera(t_s, 1, 1.0)
        to_unit = np.array([1 / ASPECT, 1.0])
        poses = [(hands.active, self.motion.side)]
        if hands.helper is not None:
            poses.append((hands.helper, -self.motion.side))
        thing = hands.thing
        placed = matrix(thing.x, thing.y, thing.angle, thing.stretch_x, thing.stretch_y)
        return (
            apply(camera, apply(placed, outline(self.look))) * to_unit,
            [apply(camera, hand_outline(self.cook, pose, side)) * to_unit
             for pose, side in poses],
        )

    def camera(self, t_s: float, height: int, follow: float) -> np.ndarray:
        """Give the `[2, 3]` map from the world to pixels of a picture of that height."""
        x, y, turn, zoom = self.head.view(t_s)
        middle = matrix(0.5 * height * ASPECT, 0.5 * height, turn, height * zoom, height * zoom)
        return compose(middle, matrix(-x * follow, -y * follow))

    def _ground(self, t_s: float, height: int, width: int) -> np.ndarray:
        if self._painted is None or self._painted[0] != height:
            self._painted = (height, self.backdrop.paint(height))
        image = self._painted[1]
        # A picture of another shape than 4:3 is cut or widened about its middle.
        shift = matrix(0.5 * (width - height * ASPECT), 0.0)
        to_world = self.backdrop.to_world(height)
        whole = compose(compose(shift, self.camera(t_s, height, FAR)), to_world)
        return cv2.warpAffine(image, whole, (width, height), flags=cv2.INTER_LINEAR,
                              borderMode=cv2.BORDER_REFLECT_101)

    def _stage(self, image: np.ndarray, t_s: float) -> np.ndarray:
        height, width = image.shape[:2]
        shift = matrix(0.5 * (width - height * ASPECT), 0.0)
        brush = Brush(image, compose(shift, self.camera(t_s, height, 1.0)))
        hands = self.motion.at(t_s)
        self._shadow(brush, hands)
        m, cook, thing = self.motion, self.cook, hands.thing
        if hands.helper is not None:
            draw_arm(brush, cook, hands.helper, -m.side)
        if m.verb in CARRIED:
            draw_arm(brush, cook, hands.active, m.side)
        draw_thing(brush.at(thing.x, thing.y, thing.angle, thing.stretch_x, thing.stretch_y),
                   self.look)
        if hands.helper is not None:
            draw_fingers(brush, cook, hands.helper, -m.side, 0.35)
        if hands.tip is not None:
            draw_tool(brush, cook, hands.active, hands.tip)
        if m.verb not in CARRIED:
            draw_arm(brush, cook, hands.active, m.side)
        draw_fingers(brush, cook, hands.active, m.side, CURL.get(m.verb, 0.75))
        draw_foam(brush, cook, hands.active, float(np.sin(TAU * m.rhythm.phase(t_s))))
        return image

    def _shadow(self, brush: Brush, hands: Hands) -> None:
        image = brush.image
        mask = np.zeros(image.shape[:2], np.uint8)
        low = Brush(mask, brush.transform).at(0.018, 0.03)
        thing = hands.thing
        low.at(thing.x, thing.y, thing.angle, thing.stretch_x, thing.stretch_y).fill(
            outline(self.look), 110)
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
        piece = self._grain[y:y + rows, x:x + columns]
        way = cv2.INTER_AREA if height <= rows else cv2.INTER_LINEAR
        return cv2.resize(piece, (width, height), interpolation=way)
