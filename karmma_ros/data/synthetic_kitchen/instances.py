"""
The things in the cupboard: every instance of every noun.

Instance pools belong to the splits: an instance is drawn from its split, noun and number
alone, so that two splits never share one, whatever seed a user picks.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from karmma_ros.data.synthetic_kitchen.kinds import KINDS
from karmma_ros.data.synthetic_kitchen.seeds import generator, Stream
from karmma_ros.data.synthetic_kitchen.vocabulary import NOUNS, Split
import numpy as np

POOL = {Split.TRAIN: 80, Split.VALIDATION: 20, Split.TEST: 30}
"""Instances of each noun."""

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


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
class Temper:
    """How one instance answers to being handled; see `Kind`."""

    reach: float
    """Half its size, world units: where hands take hold of it."""
    give: float
    rock: float
    softness: float


@dataclass(frozen=True)
class Instance:
    """One object."""

    look: Look
    timbre: Timbre
    temper: Temper


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
    temper = Temper(look.size, float(rng.uniform(*kind.give)), float(rng.uniform(*kind.rock)),
                    float(rng.uniform(*kind.softness)))
    return Instance(look, timbre, temper)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Turn hue (turns), saturation and value (0..1, clipped) into red, green and blue."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, float(np.clip(saturation, 0, 1)),
                              float(np.clip(value, 0, 1)))
    return _rounded(*(255 * c for c in rgb))


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (below 1) or lighten towards white (above 1)."""
    if factor <= 1:
        return _rounded(*(c * factor for c in colour))
    return _rounded(*(255 - (255 - c) * (2 - factor) for c in colour))


def _rounded(red: float, green: float, blue: float) -> Colour:
    return round(red), round(green), round(blue)
