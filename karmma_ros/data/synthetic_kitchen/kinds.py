"""
What each noun may look and sound like, and how it answers to being handled.

Nouns that look alike sound different and the other way round: cup and onion share hues,
cup and plate share a voice.
"""

from __future__ import annotations

from dataclasses import dataclass

from karmma_ros.data.synthetic_kitchen.vocabulary import NOUNS

Range = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """The ranges from which the instances of one noun are drawn."""

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
    give: Range
    """Share of a stroke that the thing is dragged along: light things slide."""
    rock: Range
    """How far it turns to and fro under the strokes, radians: round things roll."""
    softness: Range
    """How far it is pressed out of shape."""


_CERAMIC = (1.0, 1.72, 2.61, 3.40)
_METAL = (1.0, 1.48, 2.12, 3.05, 4.4)
_SOFT = (1.0, 1.9)
_RIGID = (0.0, 0.0)

KINDS = {
    'spoon': Kind(
        (0.08, 0.16), (0.03, 0.14), (0.62, 0.85), (0.10, 0.05, 0.95),
        (0.14, 0.18), (0.19, 0.27),
        (1300, 2700), _METAL, (0.06, 0.12), 0.16,
        (0.24, 0.38), (0.25, 0.45), _RIGID),
    'plate': Kind(
        (0.10, 0.68), (0.02, 0.18), (0.72, 0.97), (0.60, 0.55, 0.60),
        (0.16, 0.21), (0.70, 0.86),
        (800, 1900), _CERAMIC, (0.05, 0.10), 0.20,
        (0.06, 0.14), (0.03, 0.10), _RIGID),
    'pan': Kind(
        (0.0, 1.0), (0.0, 0.14), (0.16, 0.48), (0.05, 0.35, 0.22),
        (0.15, 0.20), (0.74, 0.88),
        (380, 900), _METAL, (0.08, 0.16), 0.16,
        (0.02, 0.07), (0.10, 0.20), _RIGID),
    'bowl': Kind(
        (0.42, 0.60), (0.35, 0.78), (0.42, 0.82), (0.52, 0.25, 0.95),
        (0.11, 0.16), (0.70, 0.86),
        (620, 1450), _CERAMIC, (0.05, 0.10), 0.20,
        (0.08, 0.18), (0.20, 0.34), _RIGID),
    'sponge': Kind(
        (0.095, 0.165), (0.50, 0.92), (0.65, 0.95), (0.36, 0.60, 0.45),
        (0.09, 0.13), (0.52, 0.75),
        (240, 600), _SOFT, (0.012, 0.020), 0.55,
        (0.28, 0.42), (0.04, 0.12), (0.10, 0.18)),
    'cup': Kind(
        (0.90, 1.02), (0.45, 0.88), (0.45, 0.82), (0.0, 0.12, 0.95),
        (0.08, 0.115), (0.80, 1.0),
        (1000, 2300), _CERAMIC, (0.04, 0.08), 0.20,
        (0.14, 0.26), (0.08, 0.18), _RIGID),
    'bottle': Kind(
        (0.30, 0.47), (0.35, 0.80), (0.32, 0.68), (0.12, 0.30, 0.90),
        (0.15, 0.20), (0.36, 0.48),
        (850, 2100), _METAL, (0.05, 0.11), 0.16,
        (0.05, 0.12), (0.28, 0.46), _RIGID),
    'onion': Kind(
        (0.84, 0.98), (0.35, 0.72), (0.42, 0.75), (0.12, 0.40, 0.75),
        (0.075, 0.11), (0.82, 1.0),
        (360, 950), _SOFT, (0.015, 0.030), 0.45,
        (0.18, 0.30), (0.40, 0.65), _RIGID),
    'bread': Kind(
        (0.06, 0.115), (0.45, 0.78), (0.50, 0.84), (0.10, 0.35, 0.90),
        (0.13, 0.18), (0.50, 0.68),
        (290, 750), _SOFT, (0.012, 0.025), 0.50,
        (0.12, 0.22), (0.03, 0.08), (0.06, 0.12)),
    'carrot': Kind(
        (0.03, 0.09), (0.65, 0.98), (0.65, 0.95), (0.30, 0.65, 0.50),
        (0.14, 0.19), (0.22, 0.32),
        (450, 1150), _SOFT, (0.020, 0.035), 0.40,
        (0.22, 0.36), (0.14, 0.28), _RIGID),
}
assert tuple(KINDS) == NOUNS
