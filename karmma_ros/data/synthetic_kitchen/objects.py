"""
The objects of both domains: every instance of every noun.

Each split has its own instances: they depend on split, noun and number alone, so that two splits
never share one, whatever the seed.

Nouns of similar appearance differ in their audio, and the other way round: cup and onion share
hues, cup and plate share a timbre. The garage's have shapes and timbres of their own.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

from karmma_ros.data.synthetic_kitchen.vocabulary import ALL_NOUNS, generator, Split, Stream
import numpy as np

Range = tuple[float, float]


@dataclass(frozen=True)
class ObjectClass:
    """The ranges from which the instances of one noun are sampled."""

    hue: Range
    """Turns of the colour circle."""
    saturation: Range
    value: Range
    accent: tuple[float, float, float]
    """Hue, saturation and value of the second colour."""
    size: Range
    """Half the longer side, world units."""
    aspect: Range
    """Shorter through longer side."""
    pitch: Range
    """Lowest partial, Hz."""
    partials: tuple[float, ...]
    """Frequencies relative to the lowest."""
    ring: Range
    """Time in which a hit decays to 1/e, seconds."""
    breadth: float
    """Width of each resonance of the rustle, octaves."""
    drag: Range
    """Fraction of a stroke by which the object is dragged: light objects slide."""
    rock: Range
    """Amplitude of its rotation under the strokes, radians: round objects roll."""
    softness: Range
    """How far it is deformed."""


_CERAMIC = (1.0, 1.72, 2.61, 3.40)
_METAL = (1.0, 1.48, 2.12, 3.05, 4.4)
_SOFT = (1.0, 1.9)
_BAR = (1.0, 2.76, 5.40)
_SHEET = (1.0, 1.26, 1.59, 2.14, 2.65)
_WOOD = (1.0, 2.57, 4.95)
_RIGID = (0.0, 0.0)

OBJECT_CLASSES = {
    'spoon': ObjectClass(
        (0.08, 0.16), (0.03, 0.14), (0.62, 0.85), (0.10, 0.05, 0.95),
        (0.14, 0.18), (0.19, 0.27),
        (1300, 2700), _METAL, (0.06, 0.12), 0.16,
        (0.24, 0.38), (0.25, 0.45), _RIGID),
    'plate': ObjectClass(
        (0.10, 0.68), (0.02, 0.18), (0.72, 0.97), (0.60, 0.55, 0.60),
        (0.16, 0.21), (0.70, 0.86),
        (800, 1900), _CERAMIC, (0.05, 0.10), 0.20,
        (0.06, 0.14), (0.03, 0.10), _RIGID),
    'pan': ObjectClass(
        (0.0, 1.0), (0.0, 0.14), (0.16, 0.48), (0.05, 0.35, 0.22),
        (0.15, 0.20), (0.74, 0.88),
        (380, 900), _METAL, (0.08, 0.16), 0.16,
        (0.02, 0.07), (0.10, 0.20), _RIGID),
    'bowl': ObjectClass(
        (0.42, 0.60), (0.35, 0.78), (0.42, 0.82), (0.52, 0.25, 0.95),
        (0.11, 0.16), (0.70, 0.86),
        (620, 1450), _CERAMIC, (0.05, 0.10), 0.20,
        (0.08, 0.18), (0.20, 0.34), _RIGID),
    'sponge': ObjectClass(
        (0.095, 0.165), (0.50, 0.92), (0.65, 0.95), (0.36, 0.60, 0.45),
        (0.09, 0.13), (0.52, 0.75),
        (240, 600), _SOFT, (0.012, 0.020), 0.55,
        (0.28, 0.42), (0.04, 0.12), (0.10, 0.18)),
    'cup': ObjectClass(
        (0.90, 1.02), (0.45, 0.88), (0.45, 0.82), (0.0, 0.12, 0.95),
        (0.08, 0.115), (0.80, 1.0),
        (1000, 2300), _CERAMIC, (0.04, 0.08), 0.20,
        (0.14, 0.26), (0.08, 0.18), _RIGID),
    'bottle': ObjectClass(
        (0.30, 0.47), (0.35, 0.80), (0.32, 0.68), (0.12, 0.30, 0.90),
        (0.15, 0.20), (0.36, 0.48),
        (850, 2100), _METAL, (0.05, 0.11), 0.16,
        (0.05, 0.12), (0.28, 0.46), _RIGID),
    'onion': ObjectClass(
        (0.84, 0.98), (0.35, 0.72), (0.42, 0.75), (0.12, 0.40, 0.75),
        (0.075, 0.11), (0.82, 1.0),
        (360, 950), _SOFT, (0.015, 0.030), 0.45,
        (0.18, 0.30), (0.40, 0.65), _RIGID),
    'bread': ObjectClass(
        (0.06, 0.115), (0.45, 0.78), (0.50, 0.84), (0.10, 0.35, 0.90),
        (0.13, 0.18), (0.50, 0.68),
        (290, 750), _SOFT, (0.012, 0.025), 0.50,
        (0.12, 0.22), (0.03, 0.08), (0.06, 0.12)),
    'carrot': ObjectClass(
        (0.03, 0.09), (0.65, 0.98), (0.65, 0.95), (0.30, 0.65, 0.50),
        (0.14, 0.19), (0.22, 0.32),
        (450, 1150), _SOFT, (0.020, 0.035), 0.40,
        (0.22, 0.36), (0.14, 0.28), _RIGID),
    'hammer': ObjectClass(
        (0.60, 0.70), (0.45, 0.80), (0.30, 0.60), (0.60, 0.10, 0.55),
        (0.17, 0.22), (0.40, 0.52),
        (2300, 4200), _BAR, (0.10, 0.22), 0.10,
        (0.02, 0.08), (0.30, 0.50), _RIGID),
    'wrench': ObjectClass(
        (0.52, 0.64), (0.10, 0.35), (0.55, 0.80), (0.60, 0.20, 0.90),
        (0.15, 0.20), (0.26, 0.36),
        (2800, 5200), _BAR, (0.12, 0.26), 0.08,
        (0.16, 0.30), (0.42, 0.62), _RIGID),
    'paintbrush': ObjectClass(
        (0.55, 0.95), (0.70, 1.00), (0.60, 0.95), (0.08, 0.40, 0.30),
        (0.12, 0.16), (0.30, 0.42),
        (160, 380), _WOOD, (0.008, 0.016), 0.70,
        (0.30, 0.44), (0.12, 0.26), (0.04, 0.10)),
    'plank': ObjectClass(
        (0.07, 0.11), (0.25, 0.50), (0.62, 0.90), (0.07, 0.55, 0.35),
        (0.20, 0.25), (0.24, 0.34),
        (140, 340), _WOOD, (0.020, 0.045), 0.30,
        (0.03, 0.10), (0.01, 0.06), _RIGID),
    'tin': ObjectClass(
        (0.0, 1.0), (0.60, 1.00), (0.55, 0.90), (0.0, 0.0, 0.75),
        (0.09, 0.13), (0.80, 1.0),
        (1500, 3200), _SHEET, (0.03, 0.07), 0.24,
        (0.04, 0.12), (0.16, 0.30), _RIGID),
    'tube': ObjectClass(
        (0.70, 0.84), (0.10, 0.45), (0.75, 0.98), (0.98, 0.85, 0.75),
        (0.11, 0.15), (0.30, 0.42),
        (120, 260), _WOOD, (0.006, 0.014), 0.80,
        (0.26, 0.40), (0.20, 0.40), (0.14, 0.24)),
    'cable': ObjectClass(
        (0.0, 0.05), (0.75, 1.00), (0.50, 0.85), (0.0, 0.0, 0.12),
        (0.13, 0.18), (0.72, 0.94),
        (180, 420), _WOOD, (0.006, 0.012), 0.90,
        (0.22, 0.36), (0.02, 0.08), (0.10, 0.20)),
    'tile': ObjectClass(
        (0.45, 0.58), (0.10, 0.50), (0.60, 0.92), (0.62, 0.70, 0.45),
        (0.10, 0.14), (0.88, 1.0),
        (3000, 5600), _SHEET, (0.015, 0.035), 0.14,
        (0.10, 0.22), (0.02, 0.06), _RIGID),
    'wheel': ObjectClass(
        (0.60, 0.75), (0.0, 0.20), (0.08, 0.24), (0.15, 0.10, 0.85),
        (0.14, 0.19), (0.84, 1.0),
        (100, 220), _WOOD, (0.015, 0.030), 0.45,
        (0.06, 0.14), (0.50, 0.75), (0.0, 0.04)),
    'rag': ObjectClass(
        (0.55, 0.66), (0.20, 0.60), (0.55, 0.88), (0.0, 0.70, 0.80),
        (0.12, 0.17), (0.62, 0.82),
        (900, 2600), _WOOD, (0.004, 0.008), 1.10,
        (0.36, 0.50), (0.08, 0.18), (0.20, 0.32)),
}
assert tuple(OBJECT_CLASSES) == ALL_NOUNS


POOL = {Split.TRAIN: 80, Split.VALIDATION: 20, Split.TEST: 30}
"""Instances of each noun."""

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""


@dataclass(frozen=True)
class Appearance:
    """Colours and shape of one instance."""

    noun: str
    colour: Colour
    accent: Colour
    size: float
    """Half the longer side, world units."""
    aspect: float
    marks: tuple[float, ...]
    """Twelve numbers in 0..1 for the positions of stripes, crusts and highlights."""


@dataclass(frozen=True)
class Timbre:
    """Spectrum of the audio of one instance."""

    partials: tuple[float, ...]
    """Hz."""
    strengths: tuple[float, ...]
    ring: float
    """Seconds to 1/e of the lowest partial; higher ones decay faster."""
    breadth: float
    """Width of the rustle's resonances, octaves."""


@dataclass(frozen=True)
class Dynamics:
    """How one instance moves when it is handled; see `ObjectClass`."""

    reach: float
    """Half its size, world units: where hands hold it."""
    drag: float
    rock: float
    softness: float


@dataclass(frozen=True)
class Instance:
    """One object."""

    appearance: Appearance
    timbre: Timbre
    dynamics: Dynamics


def instance(split: Split, noun: str, number: int) -> Instance:
    """Sample an object of a split; `number` is below `POOL[split]`."""
    ranges = OBJECT_CLASSES[noun]
    rng = generator(Stream.INSTANCE, split.number, ALL_NOUNS.index(noun), number)
    appearance = Appearance(
        noun,
        hsv(rng.uniform(*ranges.hue), rng.uniform(*ranges.saturation), rng.uniform(*ranges.value)),
        hsv(ranges.accent[0] + rng.uniform(-0.03, 0.03), ranges.accent[1] * rng.uniform(0.7, 1.2),
            ranges.accent[2] * rng.uniform(0.85, 1.05)),
        float(rng.uniform(*ranges.size)),
        float(rng.uniform(*ranges.aspect)),
        tuple(float(v) for v in rng.uniform(size=12)),
    )
    pitch = np.exp(rng.uniform(*np.log(ranges.pitch)))
    partials = pitch * np.array(ranges.partials) * rng.uniform(0.94, 1.06, len(ranges.partials))
    strengths = rng.uniform(0.5, 1.0, len(partials)) * 0.8 ** np.arange(len(partials))
    timbre = Timbre(tuple(map(float, partials)), tuple(map(float, strengths)),
                    float(rng.uniform(*ranges.ring)), ranges.breadth)
    dynamics = Dynamics(appearance.size, float(rng.uniform(*ranges.drag)),
                        float(rng.uniform(*ranges.rock)), float(rng.uniform(*ranges.softness)))
    return Instance(appearance, timbre, dynamics)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Convert hue (turns), saturation and value (0..1, clipped) to red, green and blue."""
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
