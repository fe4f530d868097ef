"""
The things in the cupboard: what each noun may look and sound like, and its instances.

Instance pools belong to the splits: an instance is drawn from its split, noun and number
alone, so that two splits never share one, whatever seed a user picks.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from karmma_ros.data.synthetic_kitchen.seeds import generator, Stream
from karmma_ros.data.synthetic_kitchen.vocabulary import NOUNS, Split
import numpy as np

POOL = {Split.TRAIN: 80, Split.VALIDATION: 20, Split.TEST: 30}
"""Instances of each noun."""

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


@dataclass(frozen=True)
class Kind:
    """The ranges from which the instances of one noun are drawn."""

    hue: tuple[float, float]
    """Turns of the colour circle."""
    saturation: tuple[float, float]
    value: tuple[float, float]
    accent: tuple[float, float, float]
    """Hue, saturation and value of the second colour."""
    size: tuple[float, float]
    """Half the longer side, world units."""
    aspect: tuple[float, float]
    """Shorter through longer side."""
    pitch: tuple[float, float]
    """Lowest partial, Hz."""
    partials: tuple[float, ...]
    """Frequencies relative to the lowest."""
    ring: tuple[float, float]
    """Time in which a hit decays to 1/e, seconds."""
    breadth: float
    """Width of each resonance of the rustle, octaves."""


_CERAMIC = (1.0, 1.72, 2.61, 3.40)
_METAL = (1.0, 1.48, 2.12, 3.05, 4.4)
_SOFT = (1.0, 1.9)
KINDS = {
    'spoon': Kind((0.08, 0.16), (0.03, 0.14), (0.62, 0.85), (0.1, 0.05, 0.95), (0.14, 0.18),
                  (0.19, 0.27), (1500, 2300), _METAL, (0.06, 0.12), 0.16),
    'plate': Kind((0.53, 0.68), (0.02, 0.16), (0.84, 0.97), (0.60, 0.55, 0.6), (0.16, 0.21),
                  (0.70, 0.86), (900, 1500), _CERAMIC, (0.05, 0.10), 0.20),
    'pan': Kind((0.0, 1.0), (0.0, 0.12), (0.16, 0.34), (0.05, 0.35, 0.22), (0.15, 0.20),
                (0.74, 0.88), (420, 720), _METAL, (0.08, 0.16), 0.16),
    'bowl': Kind((0.46, 0.58), (0.40, 0.75), (0.50, 0.82), (0.52, 0.25, 0.95), (0.11, 0.16),
                 (0.70, 0.86), (700, 1200), _CERAMIC, (0.05, 0.10), 0.20),
    'sponge': Kind((0.125, 0.165), (0.60, 0.92), (0.75, 0.95), (0.36, 0.6, 0.45), (0.09, 0.13),
                   (0.52, 0.75), (260, 460), _SOFT, (0.012, 0.02), 0.55),
    'cup': Kind((0.955, 1.02), (0.55, 0.88), (0.50, 0.82), (0.0, 0.12, 0.95), (0.08, 0.115),
                (0.80, 1.0), (1250, 2100), _CERAMIC, (0.04, 0.08), 0.20),
    'bottle': Kind((0.30, 0.43), (0.40, 0.8), (0.32, 0.62), (0.12, 0.3, 0.9), (0.15, 0.20),
                   (0.36, 0.48), (1000, 1700), _METAL, (0.05, 0.11), 0.16),
    'onion': Kind((0.84, 0.95), (0.35, 0.65), (0.45, 0.72), (0.12, 0.4, 0.75), (0.075, 0.11),
                  (0.82, 1.0), (420, 760), _SOFT, (0.015, 0.03), 0.45),
    'bread': Kind((0.07, 0.105), (0.45, 0.70), (0.52, 0.78), (0.10, 0.35, 0.9), (0.13, 0.18),
                  (0.50, 0.68), (340, 620), _SOFT, (0.012, 0.025), 0.50),
    'carrot': Kind((0.035, 0.075), (0.75, 0.98), (0.75, 0.95), (0.30, 0.65, 0.5), (0.14, 0.19),
                   (0.22, 0.32), (560, 980), _SOFT, (0.02, 0.035), 0.40),
}
assert tuple(KINDS) == NOUNS


@dataclass(frozen=True)
class Look:
    """How one instance looks."""

    noun: str
    colour: Colour
    accent: Colour
    size: float
    """Half the longer side, world units."""
    aspect: float
    marks: tuple[float, ...]
    """Twelve numbers in 0..1 that place stripes, crusts and shines."""


@dataclass(frozen=True)
class Timbre:
    """How one instance sounds."""

    partials: tuple[float, ...]
    """Hz."""
    strengths: tuple[float, ...]
    ring: float
    """Seconds to 1/e of the lowest partial; higher ones decay faster."""
    breadth: float
    """Width of the rustle's resonances, octaves."""


@dataclass(frozen=True)
class Instance:
    """One object."""

    look: Look
    timbre: Timbre


def instance(split: Split, noun: str, number: int) -> Instance:
    """Draw an object of a split's pool; `number` is below `POOL[split]`."""
    kind = KINDS[noun]
    rng = generator(Stream.INSTANCE, split.number, NOUNS.index(noun), number)
    look = Look(
        noun,
        hsv(rng.uniform(*kind.hue), rng.uniform(*kind.saturation), rng.uniform(*kind.value)),
        hsv(kind.accent[0] + rng.uniform(-0.03, 0.03), kind.accent[1] * rng.uniform(0.7, 1.2),
            kind.accent[2] * rng.uniform(0.85, 1.05)),
        float(rng.uniform(*kind.size)),
        float(rng.uniform(*kind.aspect)),
        tuple(float(v) for v in rng.uniform(size=12)),
    )
    pitch = np.exp(rng.uniform(*np.log(kind.pitch)))
    partials = pitch * np.array(kind.partials) * rng.uniform(0.94, 1.06, len(kind.partials))
    strengths = rng.uniform(0.5, 1.0, len(partials)) * 0.8 ** np.arange(len(partials))
    timbre = Timbre(tuple(map(float, partials)), tuple(map(float, strengths)),
                    float(rng.uniform(*kind.ring)), kind.breadth)
    return Instance(look, timbre)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Turn hue (turns), saturation and value (0..1, clipped) into red, green and blue."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, float(np.clip(saturation, 0, 1)),
                              float(np.clip(value, 0, 1)))
    return tuple(round(255 * c) for c in rgb)


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (below 1) or lighten towards white (above 1)."""
    if factor <= 1:
        return tuple(round(c * factor) for c in colour)
    return tuple(round(255 - (255 - c) * (2 - factor)) for c in colour)
