"""
Motion of the hands and the object: the verb as a function of time.

World units: the frame is 1 high and 4/3 wide, the origin is its centre, x points right, y down.
Angles in radians, clockwise. Time in seconds from the start of the episode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from karmma_ros.data.synthetic_kitchen.objects import Dynamics
from karmma_ros.data.synthetic_kitchen.vocabulary import IDLE, VERBS
import numpy as np

TAU = 2 * np.pi

_Times = TypeVar('_Times', float, np.ndarray)

RATES = {
    'wash': (1.5, 2.3),
    'cut': (1.6, 2.6),
    'pour': (0.5, 0.8),
    'mix': (0.9, 1.6),
    'shake': (2.3, 3.2),
    'scrape': (1.2, 2.0),
    'peel': (0.9, 1.5),
    'squeeze': (0.9, 1.6),
    IDLE: (0.05, 0.3),
}
"""Cycles a second; those of verbs overlap, so that the rate alone does not determine the verb."""

CARRIED = ('pour', 'shake', 'squeeze')
"""Verbs whose hand holds the object itself."""

WITH_TOOL = ('cut', 'mix', 'scrape', 'peel')
"""Verbs done with a utensil, all from the same set."""

TOOL_GRIP = (0.10, 0.16)
"""From the tip of the utensil to the centre of the palm, for a right hand."""


@dataclass(frozen=True)
class Pose:
    """Position, rotation and scale of an object or a hand."""

    x: float
    y: float
    angle: float = 0.0
    scale_x: float = 1.0
    scale_y: float = 1.0


@dataclass(frozen=True)
class Hands:
    """Poses of the object and the hands at one time; None: not in the scene."""

    object: Pose | None
    active: Pose | None
    """Centre of the palm of the hand that acts."""
    tip: tuple[float, float] | None
    """Tip of the utensil; none in a bare hand."""
    helper: Pose | None
    """Centre of the palm of the hand that holds the object, if any."""


@dataclass(frozen=True)
class Rhythm:
    """The cycle count as a smooth function of time, at a rate that varies slowly."""

    rate: float
    """Cycles a second."""
    offset: float
    """Cycles."""
    sway: tuple[tuple[float, float, float], ...]
    """Amplitude (s), frequency (Hz) and phase of each slow deviation."""

    @classmethod
    def draw(cls, rng: np.random.Generator, verb: str) -> Rhythm:
        """Sample the rhythm of one episode."""
        sway = tuple(
            (rng.uniform(0.03, 0.07), rng.uniform(0.12, 0.35), rng.uniform(0, TAU))
            for _ in range(2)
        )
        return cls(float(rng.uniform(*RATES[verb])), float(rng.uniform()), sway)

    def phase(self, t: _Times) -> _Times:
        """Return the cycles since an arbitrary origin at times `t`; it grows strictly."""
        deviation = sum(a * np.sin(TAU * f * t + p) for a, f, p in self.sway)
        return self.offset + self.rate * (t + deviation)

    def time_of(self, cycles: float) -> float:
        """Invert `phase` by fixed-point steps; the deviation is slow, so they contract fast."""
        t = (cycles - self.offset) / self.rate
        for _ in range(12):
            t += float(cycles - self.phase(t)) / self.rate
        return t


@dataclass(frozen=True)
class Rest:
    """A scene in which nothing is done: an empty table, an object on it, hands that rest."""

    with_object: bool
    hands: int
    """0, 1 or 2."""
    spread: float
    """Distance of a hand from the middle of the table, world units."""
    nearness: float
    """Its distance from the lower edge of the frame."""
    fidget: float
    """How far it moves, slowly, world units."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Rest:
        """Sample the scene of one episode."""
        return cls(bool(rng.uniform() < 0.6), int(rng.choice((0, 1, 2), p=(0.35, 0.25, 0.4))),
                   float(rng.uniform(0.12, 0.4)), float(rng.uniform(0.05, 0.4)),
                   float(rng.uniform(0.0, 0.05)))

    def at(self, motion: Motion, swing: float) -> Hands:
        """Return the scene; `swing` in -1..1 is where the hands are of their movement."""
        x, y = motion.position
        side, height = motion.side, 0.5 - self.nearness
        shift = self.fidget * swing
        active = Pose(x + side * self.spread + shift, height + 0.4 * shift)
        helper = Pose(x - side * (self.spread + 0.05) + 0.6 * shift, height + 0.03)
        return Hands(Pose(1.6 * x, 2 * y, motion.angle) if self.with_object else None,
                     active if self.hands else None, None, helper if self.hands == 2 else None)


@dataclass(frozen=True)
class Motion:
    """Parameters of the motion of one episode."""

    verb: str
    rhythm: Rhythm
    amplitude: float
    side: int
    """1 for a right hand that acts, -1 for a left one."""
    direction: int
    """1 or -1: which way a circle turns or a stroke goes."""
    axis: float
    """Direction of strokes."""
    position: tuple[float, float]
    """Position of the object."""
    angle: float
    """Rotation of the object."""
    two_hands: bool
    dynamics: Dynamics
    """How the object moves when it is handled."""
    drift: tuple[float, float, float, float]
    """Frequencies (Hz) and phases of the slow drift of the object's position."""
    rest: Rest | None = None
    """Where nothing is done: what is in the scene."""

    @classmethod
    def draw(cls, rng: np.random.Generator, verb: str, dynamics: Dynamics) -> Motion:
        """Sample the motion of one episode for an object of these dynamics."""
        side = 1 if rng.uniform() < 0.7 else -1
        axis = (0.5 * np.pi if verb == 'peel' else 0.0) + rng.uniform(-0.45, 0.45)
        # Strokes span the object: those on large objects are longer.
        span = 0.6 + 3.0 * dynamics.reach
        return cls(
            verb=verb,
            rhythm=Rhythm.draw(rng, verb),
            amplitude=float(span * rng.uniform(0.85, 1.15)),
            side=side,
            direction=1 if rng.uniform() < 0.5 else -1,
            axis=float(axis),
            position=(float(rng.normal(-0.03 * side, 0.05)), float(rng.normal(-0.02, 0.04))),
            angle=float(rng.uniform(-0.6, 0.6)),
            two_hands=bool(rng.uniform() < (0.25 if verb in CARRIED else 0.75)),
            dynamics=dynamics,
            drift=(float(rng.uniform(0.08, 0.25)), float(rng.uniform(0.08, 0.25)),
                   float(rng.uniform(0, TAU)), float(rng.uniform(0, TAU))),
            rest=Rest.draw(rng) if verb == IDLE else None,
        )

    def at(self, t: float) -> Hands:
        """Return the hands and the object at a time."""
        if self.rest is not None:
            return self.rest.at(self, float(np.sin(TAU * self.rhythm.phase(t))))
        u = float(self.rhythm.phase(t))
        f1, f2, p1, p2 = self.drift
        x = self.position[0] + 0.02 * np.sin(TAU * f1 * t + p1)
        y = self.position[1] + 0.02 * np.sin(TAU * f2 * t + p2)
        stroke = _STROKES[self.verb](self, u)
        moved = self._object_pose(x, y, u, stroke)
        tip = None
        if self.verb in WITH_TOOL:
            tip = (x + stroke.x, y + stroke.y)
            active = Pose(tip[0] + self.side * TOOL_GRIP[0], tip[1] + TOOL_GRIP[1])
        elif self.verb in CARRIED:
            hold = 0.75 * self.dynamics.reach
            active = Pose(moved.x + stroke.x + self.side * hold,
                          moved.y + stroke.y + 0.03, stroke.turn,
                          1 + 0.5 * stroke.squash, 1 - 0.5 * stroke.squash)
        else:
            active = Pose(x + stroke.x + 0.04 * self.side, y + stroke.y + 0.10)
        helper = None
        if self.two_hands:
            helper = Pose(moved.x - self.side * (0.8 * self.dynamics.reach + 0.05), moved.y + 0.08)
        return Hands(moved, active, tip, helper)

    def _object_pose(self, x: float, y: float, u: float, stroke: _Stroke) -> Pose:
        """Return the pose of the object, dragged, rocked and deformed by the stroke."""
        dynamics, beat = self.dynamics, np.sin(TAU * u + 0.6)
        squash = stroke.squash + 0.5 * dynamics.softness * beat
        return Pose(x + stroke.carry_x + dynamics.drag * stroke.x,
                    y + stroke.carry_y + dynamics.drag * stroke.y,
                    self.angle + stroke.turn + dynamics.rock * self.direction * beat,
                    1 + squash, 1 - squash)


@dataclass(frozen=True)
class _Stroke:
    x: float = 0.0
    y: float = 0.0
    carry_x: float = 0.0
    carry_y: float = 0.0
    turn: float = 0.0
    squash: float = 0.0


def _along(m: Motion, distance: float, across: float = 0.0) -> tuple[float, float]:
    c, s = np.cos(m.axis), np.sin(m.axis)
    return float(distance * c - across * s), float(distance * s + across * c)


def _wash(m: Motion, u: float) -> _Stroke:
    a = TAU * u * m.direction
    x, y = _along(m, 0.085 * m.amplitude * np.cos(a), 0.04 * m.amplitude * np.sin(a))
    x += 0.015 * np.sin(2 * a + 1.0)
    return _Stroke(x, y, turn=0.06 * np.sin(a))


def _cut(m: Motion, u: float) -> _Stroke:
    part = u % 1.0
    height = np.sin(0.5 * np.pi * part / 0.7) if part < 0.7 else np.cos(
        0.5 * np.pi * (part - 0.7) / 0.3)
    along = 2 * abs((u / 7.0) % 1.0 - 0.5) - 0.5
    x, _ = _along(m, m.direction * 0.14 * along)
    return _Stroke(x, 0.06 - 0.15 * m.amplitude * height, turn=0.02 * height)


def _pour(m: Motion, u: float) -> _Stroke:
    tilt = 0.5 - 0.5 * np.cos(TAU * u)
    return _Stroke(
        carry_x=-0.05 * m.side * tilt, carry_y=-0.03 - 0.09 * m.amplitude * tilt,
        turn=-m.side * (0.1 + 0.85 * m.amplitude * tilt))


def _mix(m: Motion, u: float) -> _Stroke:
    a = TAU * u * m.direction
    radius = 0.085 * m.amplitude
    return _Stroke(radius * np.cos(a), 0.8 * radius * np.sin(a) - 0.01)


def _shake(m: Motion, u: float) -> _Stroke:
    swing = np.sin(TAU * u)
    x, y = _along(m, 0.05 * m.amplitude * swing)
    return _Stroke(carry_x=x, carry_y=y - 0.04, turn=0.18 * swing * m.direction)


def _scrape(m: Motion, u: float) -> _Stroke:
    x, y = _along(m, 0.11 * m.amplitude * np.sin(TAU * u))
    return _Stroke(x, y)


def _peel(m: Motion, u: float) -> _Stroke:
    part = u % 1.0
    pulling = part < 0.7
    way = part / 0.7 if pulling else 1 - (part - 0.7) / 0.3
    lift = 0.0 if pulling else 0.05 * np.sin(np.pi * (part - 0.7) / 0.3)
    smooth = way * way * (3 - 2 * way)
    x, y = _along(m, m.amplitude * 0.2 * (smooth - 0.5), m.side * lift)
    return _Stroke(x, y, turn=0.25 * np.sin(TAU * u / 5) + 0.05 * smooth)


def _squeeze(m: Motion, u: float) -> _Stroke:
    press = (0.5 - 0.5 * np.cos(TAU * u)) ** 1.5
    return _Stroke(y=0.03 * press, carry_y=0.02 * press, squash=0.24 * m.amplitude * press,
                   turn=0.08 * press * m.direction)


_STROKES = {
    'wash': _wash, 'cut': _cut, 'pour': _pour, 'mix': _mix, 'shake': _shake,
    'scrape': _scrape, 'peel': _peel, 'squeeze': _squeeze,
}
assert tuple(sorted(_STROKES)) == tuple(sorted(VERBS))
