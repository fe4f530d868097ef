"""
Faults of sensors, done to a bag while it is read: silence, delay, loss.

What chance decides is decided by the seed, the sensor and the place in the bag alone: the same
words do the same to the same bag, whatever else is done to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Union

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.stream.mute import ALL, input_name, Mute

STRETCH = 5.0
"""Seconds for which `--drop` decides at once."""


@dataclass(frozen=True)
class DropInterval:
    """A sensor is silent in some of the stretches of time, each with one probability."""

    what: str
    chance: float
    stretch: float = STRETCH

    def __str__(self) -> str:
        return f'{self.what} dropped {self.chance:.0%} of {self.stretch:g} s stretches'


@dataclass(frozen=True)
class Delay:
    """Messages arrive later than they did; their stamps stay."""

    what: str
    seconds: float

    def __str__(self) -> str:
        return f'{self.what} delayed {self.seconds:g} s'


@dataclass(frozen=True)
class DropMessages:
    """Single messages are lost, each with one probability."""

    what: str
    chance: float

    def __str__(self) -> str:
        return f'{self.what} loses {self.chance:.3g} of its messages'


Fault = Union[DropInterval, Mute, Delay, DropMessages]


class Faults:
    """What is done to the sensors of one run."""

    def __init__(self, faults: Sequence[Fault], seed: int, start_ns: int) -> None:
        """Take what to do, and when the bag starts."""
        self._faults, self._seed, self._start_ns = tuple(faults), seed, start_ns

    def arrival_ns(self, sensor: str, index: int, received_ns: int) -> int | None:
        """
        Return when the message of one sensor arrives; None when it never does.

        :param index: its place among the messages of the sensor.
        """
        arrival_ns = received_ns
        for fault in self._faults:
            if fault.what not in (sensor, ALL):
                continue
            if isinstance(fault, Delay):
                arrival_ns += round(fault.seconds * NANOSECONDS)
            elif self._lost(fault, sensor, index, (received_ns - self._start_ns) / NANOSECONDS):
                return None
        return arrival_ns

    def _lost(self, fault: Fault, sensor: str, index: int, seconds: float) -> bool:
        if isinstance(fault, Mute):
            return fault.covers(seconds)
        if isinstance(fault, DropInterval):
            place = int(seconds // fault.stretch)
            return self._chance('drop', sensor, place) < fault.chance
        assert isinstance(fault, DropMessages)
        return self._chance('lose', sensor, index) < fault.chance

    def _chance(self, kind: str, sensor: str, place: int) -> float:
        """Return a number in [0, 1), the same for the same arguments."""
        words = f'{self._seed} {kind} {sensor} {place}'.encode()
        return int.from_bytes(blake2b(words, digest_size=8).digest(), 'big') / 2**64


def describe(faults: Iterable[Fault]) -> str:
    """Say what is done."""
    return ', '.join(str(fault) for fault in faults)


def parameters(faults: Iterable[Fault], seed: int) -> dict[str, Any]:
    """Return what is done, JSON-ready."""
    return {'faults': [str(fault) for fault in faults], 'seed': seed}


def parse_drop_interval(text: str, stretch: float = STRETCH) -> DropInterval:
    """
    Read `audio=0.5` or `50%`.

    :raises InvalidSettingError: for anything else.
    """
    if not stretch > 0:
        raise InvalidSettingError('--stretch', stretch, 'seconds, above 0')
    what, value = _assigned(text)
    return DropInterval(input_name(what, '--drop', text), _chance('--drop', value, text), stretch)


def parse_drop_messages(text: str) -> DropMessages:
    """
    Read `5%` or `detections=0.05`.

    :raises InvalidSettingError: for anything else.
    """
    what, value = _assigned(text)
    return DropMessages(input_name(what, '--lose', text), _chance('--lose', value, text))


def parse_delay(text: str) -> Delay:
    """
    Read `audio=0.3`, `300ms` or `video=0.3s`.

    :raises InvalidSettingError: for anything else.
    """
    what, value = _assigned(text)
    scale, number = (1e-3, value[:-2]) if value.endswith('ms') else (1.0, value.removesuffix('s'))
    seconds = _number(number) * scale
    if not 0 <= seconds < 3600:
        raise InvalidSettingError('--delay', text, 'SENSOR=SECONDS, 0 or more, as audio=0.3')
    return Delay(input_name(what, '--delay', text), seconds)


def on_inputs(
    faults: Iterable[Fault], topics: Mapping[str, str],
) -> tuple[Fault, ...]:
    """
    Return the faults with a topic replaced by the input that it is.

    :param topics: input → topic, as chosen in the bag.
    :raises InvalidSettingError: for a topic that is no input, and for flow that is computed from
        the camera.
    """
    names = {topics[m.value]: m.value for m in Modality if m.value in topics}
    listing = ', '.join(f'{name} ({topic})' for topic, name in names.items())
    resolved = []
    for fault in faults:
        if fault.what.startswith('/') and fault.what not in names:
            raise InvalidSettingError('input of a fault', fault.what, f'{listing} or all',
                                      'no input of the bag comes by this topic')
        if fault.what == Modality.FLOW.value and fault.what not in topics:
            raise InvalidSettingError(
                'input of a fault', 'flow', 'rgb, audio, detections or all',
                'flow is computed from the camera here, and ends with it: do it to rgb')
        resolved.append(replace(fault, what=names.get(fault.what, fault.what)))
    return tuple(resolved)


def _assigned(text: str) -> tuple[str, str]:
    what, equals, value = text.strip().rpartition('=')
    return (what, value) if equals else (ALL, value)


def _chance(option: str, value: str, text: str) -> float:
    percent = value.strip().endswith('%')
    chance = _number(value.strip().removesuffix('%')) * (0.01 if percent else 1)
    if not 0 <= chance <= 1:
        raise InvalidSettingError(
            option, text, 'SENSOR=CHANCE or CHANCE for all, 0 to 1 or in %, as audio=0.5')
    return chance


def _number(text: str) -> float:
    """Return a number; NaN, which fits no range, for what is none."""
    try:
        return float(text)
    except ValueError:
        return float('nan')
