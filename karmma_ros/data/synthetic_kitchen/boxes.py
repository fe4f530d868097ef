"""
What a hand-and-object detector would report, with its faults.

It knows hands from objects and nothing of the noun.
"""

from __future__ import annotations

from dataclasses import dataclass

from karmma_ros.clip import BOX_HAND, BOX_OBJECT
from karmma_ros.data.synthetic_kitchen.scene import Scene
from karmma_ros.data.synthetic_kitchen.seeds import generator, microseconds, Stream
import numpy as np


@dataclass(frozen=True)
class Detector:
    """How well the detector does in one episode."""

    habit: tuple[float, ...]
    """How much too far out it sets each side of every object, as a share of the box's size."""
    jitter: float
    """Standard deviation of each side from one picture to the next, as the same share."""
    shake: float
    """The same, as a share of the picture's size."""
    miss_hand: float
    miss_object: float
    """Probability of no box."""
    alarm: float
    """Probability of a box where nothing is."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Detector:
        """Draw the faults of one episode."""
        return cls(tuple(float(v) for v in rng.normal(0.04, 0.12, 4)),
                   float(rng.uniform(0.03, 0.10)), float(rng.uniform(0.006, 0.016)),
                   float(rng.uniform(0.0, 0.15)), float(rng.uniform(0.05, 0.30)),
                   float(rng.uniform(0.0, 0.15)))


def detect(scene: Scene, detector: Detector, seed: int, t_s: float) -> np.ndarray:
    """
    Give the boxes at a time: float32 `[n, 5]`, x1, y1, x2, y2, category.

    Coordinates are in units of the picture's size, clipped to 0..1; hands come first.
    """
    rng = generator(Stream.BOXES, seed, microseconds(t_s))
    thing, hands = scene.silhouettes(t_s)
    found = []
    for points in hands:
        found += _see(rng, detector, points, BOX_HAND, detector.miss_hand)
    found += _see(rng, detector, thing, BOX_OBJECT, detector.miss_object)
    if rng.uniform() < detector.alarm:
        middle, half = rng.uniform(0.1, 0.9, 2), rng.uniform(0.04, 0.16, 2)
        category = BOX_HAND if rng.uniform() < 0.3 else BOX_OBJECT
        found += _clipped(np.concatenate([middle - half, middle + half]), category)
    boxes = np.array(found, np.float32).reshape(-1, 5)
    return boxes[np.argsort(boxes[:, 4], kind='stable')]


def _see(rng: np.random.Generator, detector: Detector, points: np.ndarray, category: int,
         miss: float) -> list[np.ndarray]:
    missed, error = rng.uniform() < miss, rng.standard_normal(4)
    if missed:
        return []
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    size = np.tile(box[2:] - box[:2], 2)
    if category == BOX_OBJECT:
        box = box + np.array([-1, -1, 1, 1]) * detector.habit * size
    return _clipped(box + error * (detector.jitter * size + detector.shake), category)


def _clipped(box: np.ndarray, category: int) -> list[np.ndarray]:
    """Keep what lies in the picture; a box of less than a hundredth is none."""
    box = np.clip(box, 0.0, 1.0)
    if np.any(box[2:] - box[:2] < 0.01):
        return []
    return [np.append(box, category)]
