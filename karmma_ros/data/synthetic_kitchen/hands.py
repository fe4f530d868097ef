"""Hand, forearm and utensil of the person who acts."""

from __future__ import annotations

from dataclasses import dataclass

from karmma_ros.data.synthetic_kitchen import garage
from karmma_ros.data.synthetic_kitchen.canvas import apply, Canvas, CIRCLE, matrix
from karmma_ros.data.synthetic_kitchen.motion import Pose
from karmma_ros.data.synthetic_kitchen.objects import Colour, hsv, shade
from karmma_ros.data.synthetic_kitchen.vocabulary import Domain, IDLE
import numpy as np

_SKIN = {
    Domain.KITCHEN: ((0.055, 0.30, 0.95), (0.06, 0.40, 0.86), (0.055, 0.50, 0.70),
                     (0.05, 0.55, 0.52), (0.04, 0.55, 0.38)),
    Domain.GARAGE: ((0.13, 0.75, 0.90), (0.30, 0.55, 0.55), (0.60, 0.65, 0.75), (0.0, 0.0, 0.30),
                    (0.95, 0.60, 0.70))}
"""Hue, saturation, value; in the garage those of gloves."""

_HANDLE = {Domain.KITCHEN: ((0.02, 0.1), (0.2, 0.5), (0.15, 0.45)),
           Domain.GARAGE: ((0.97, 1.03), (0.75, 1.0), (0.6, 0.9))}
"""Ranges of hue, saturation and value."""

TOOLS = {
    Domain.KITCHEN: {'cut': 'blade', 'mix': 'whisk', 'scrape': 'spatula', 'peel': 'peeler'},
    Domain.GARAGE: {'cut': 'saw', 'mix': 'stick', 'scrape': 'scraper', 'peel': 'hook'}}
"""The utensil that belongs to a verb."""

PROPER = 0.8
"""Probability that the cook has the utensil of the verb, and soap for washing."""

CURL = {'wash': 0.05, 'squeeze': 0.85, 'shake': 0.5, 'pour': 0.3, IDLE: 0.25}
"""How far the fingers of a hand without a utensil are bent."""


@dataclass(frozen=True)
class Cook:
    """Appearance of the person: skin, sleeves, utensil."""

    skin: Colour
    sleeve: Colour
    sleeve_start: float
    """Bare forearm above the wrist, world units."""
    scale: float
    tool: str
    """One of the utensils of the domain; any, without that of the verb."""
    steel: Colour
    handle: Colour
    foam: tuple[tuple[float, float, float], ...]
    """Positions around the palm and sizes of soap bubbles, world units."""

    @classmethod
    def draw(cls, rng: np.random.Generator, verb: str, domain: Domain) -> Cook:
        """Sample the person of one episode."""
        h, s, v = _SKIN[domain][rng.integers(len(_SKIN[domain]))]
        proper, tools = rng.uniform() < PROPER, tuple(TOOLS[domain].values())
        bubbles = np.column_stack([rng.normal(0, 0.06, 9), rng.normal(-0.07, 0.04, 9),
                                   rng.uniform(0.010, 0.026, 9)])
        return cls(
            hsv(h + rng.uniform(-0.008, 0.008), s * rng.uniform(0.85, 1.15),
                v * rng.uniform(0.9, 1.05)),
            hsv(rng.uniform(), rng.uniform(0.1, 0.5), rng.uniform(0.25, 0.8)),
            float(rng.uniform(0.06, 0.35)), float(rng.uniform(0.88, 1.12)),
            TOOLS[domain].get(verb, tools[0]) if proper else tools[rng.integers(len(tools))],
            hsv(0.58, 0.06, rng.uniform(0.6, 0.85)),
            hsv(*(float(rng.uniform(*limits)) for limits in _HANDLE[domain])),
            tuple(map(tuple, bubbles.tolist()))
            if verb == 'wash' and proper and domain is Domain.KITCHEN else (),
        )


def arm_angle(pose: Pose, side: int) -> float:
    """Return the angle of a hand whose elbow is below the frame; 0 points straight up."""
    dx, dy = pose.x - side * 0.42, pose.y - 0.95
    return float(np.arctan2(dx, -dy)) + 0.4 * pose.angle


def hand_matrix(cook: Cook, pose: Pose, side: int) -> np.ndarray:
    """Return the map from a right hand's own units (world size, fingers up) to the world."""
    return matrix(pose.x, pose.y, arm_angle(pose, side), side * cook.scale * pose.scale_x,
                  cook.scale * pose.scale_y)


def hand_outline(cook: Cook, pose: Pose, side: int) -> np.ndarray:
    """Return points `[n, 2]` around the hand without its arm, world units."""
    return apply(hand_matrix(cook, pose, side), _HAND)


def draw_arm(canvas: Canvas, cook: Cook, pose: Pose, side: int) -> None:
    """Draw forearm, sleeve and palm: the parts below the object."""
    b = _own(canvas, cook, pose, side)
    dark = shade(cook.skin, 0.72)
    b.fill(np.array([[-0.048, 0.02], [0.048, 0.02], [0.085, 0.8], [-0.085, 0.8]]), dark)
    b.fill(np.array([[-0.043, 0.02], [0.036, 0.02], [0.068, 0.8], [-0.08, 0.8]]), cook.skin)
    y = 0.08 + cook.sleeve_start
    w = 0.062 + 0.06 * y
    b.fill(np.array([[-w, y], [w, y], [0.12, 0.85], [-0.12, 0.85]]), shade(cook.sleeve, 0.8))
    b.fill(np.array([[-w, y], [0.6 * w, y], [0.07, 0.85], [-0.12, 0.85]]), cook.sleeve)
    b.line(np.array([[-w, y], [w, y]]), 0.02, shade(cook.sleeve, 0.6))
    b.ellipse(0.0, 0.02, 0.064, 0.074, dark)
    b.ellipse(-0.004, 0.018, 0.057, 0.067, cook.skin)


def draw_fingers(canvas: Canvas, cook: Cook, pose: Pose, side: int, curl: float) -> None:
    """Draw fingers and thumb: the parts above the object; `curl` 0 is straight, 1 a fist."""
    b = _own(canvas, cook, pose, side)
    dark, light = shade(cook.skin, 0.68), shade(cook.skin, 1.12)
    thumb = np.array([[-0.05, 0.03], [-0.085, -0.015], [-0.075 + 0.03 * curl, -0.06]])
    b.line(thumb, 0.037, dark)
    b.line(thumb, 0.027, cook.skin)
    for i in range(4):
        x = -0.042 + 0.028 * i
        length = (0.088, 0.104, 0.098, 0.074)[i] * (1 - 0.45 * curl)
        finger = np.array([[x, -0.02], [1.12 * x, -0.03 - 0.55 * length],
                           [1.1 * x - 0.02 * curl, -0.03 - length]])
        b.line(finger, 0.033, dark)
        b.line(finger - (0.002, 0), 0.024, cook.skin)
        b.line(finger[1:] - (0.004, 0), 0.009, light)


def draw_tool(canvas: Canvas, cook: Cook, palm: Pose, tip: tuple[float, float]) -> None:
    """Draw the utensil from the palm to its tip."""
    dx, dy = tip[0] - palm.x, tip[1] - palm.y
    length = float(np.hypot(dx, dy))
    b = canvas.at(palm.x, palm.y, float(np.arctan2(dy, dx)))
    steel, dark = cook.steel, shade(cook.steel, 0.65)
    b.line(np.array([[-0.07, 0], [0.3 * length, 0]]), 0.026, cook.handle)
    if cook.tool in TOOLS[Domain.GARAGE].values():
        garage.draw_tool(b, cook.tool, length, steel)
    elif cook.tool == 'blade':
        b.fill(np.array([[0.3 * length, -0.018], [length, -0.012], [1.12 * length, 0.012],
                         [0.3 * length, 0.024]]), dark)
        b.fill(np.array([[0.3 * length, -0.018], [length, -0.012], [length, 0.002],
                         [0.3 * length, 0.008]]), steel)
    elif cook.tool == 'spatula':
        b.line(np.array([[0.3 * length, 0], [0.7 * length, 0]]), 0.014, dark)
        b.fill(np.array([[0.62 * length, -0.018], [1.08 * length, -0.034],
                         [1.08 * length, 0.034], [0.62 * length, 0.018]]), shade(cook.handle, 1.3))
    elif cook.tool == 'peeler':
        b.line(np.array([[0.3 * length, 0], [0.75 * length, 0]]), 0.014, dark)
        b.line(np.array([[0.75 * length, -0.03], [length, -0.035], [length, 0.035],
                         [0.75 * length, 0.03]]), 0.012, steel, closed=True)
    else:
        for width in (0.034, 0.018, 0.004):
            b.ring(0.78 * length, 0, 0.32 * length, width, 0.007, steel)


def draw_foam(canvas: Canvas, cook: Cook, palm: Pose, beat: float) -> None:
    """Draw soap bubbles about a hand; `beat` in -1..1 moves them a little."""
    for i, (x, y, size) in enumerate(cook.foam):
        shift = 0.008 * beat * (-1) ** i
        canvas.ellipse(palm.x + x + shift, palm.y + y, size, size, (205, 214, 222))
        canvas.ellipse(palm.x + x + shift - 0.2 * size, palm.y + y - 0.2 * size, 0.7 * size,
                      0.7 * size, (240, 244, 248))


def _own(canvas: Canvas, cook: Cook, pose: Pose, side: int) -> Canvas:
    b = canvas.at(pose.x, pose.y, arm_angle(pose, side))
    return b.at(0, 0, 0, side * cook.scale * pose.scale_x, cook.scale * pose.scale_y)


_HAND = np.concatenate([CIRCLE[::4] * (0.064, 0.074) + (0, 0.02),
                        [[-0.1, -0.03], [-0.06, -0.12], [0.05, -0.11], [-0.02, -0.14]]])
