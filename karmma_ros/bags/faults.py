"""
Fault injection while a bag is replayed: inputs that are muted, late, incomplete or corrupted.

Random choices depend only on the seed, the input and the position in the bag: the same options
have the same effect on the same bag, whatever other faults there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
import re
from typing import Any, Union

from karmma_ros.bags.bag_message import BagMessage
from karmma_ros.bags.topics import is_input
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.corruption import Corruption, InStream, SEVERITIES
from karmma_ros.modalities.modality_type import InputMessage
from karmma_ros.modality import is_modality, Modality, REGISTRY
from karmma_ros.stream.settings import ALL_INPUTS, input_name, Mute, parse_mute, source_of

INTERVAL_S = 5.0
"""Default length of the intervals of `--drop-intervals`."""


@dataclass(frozen=True)
class DropInterval:
    """All messages of an input are dropped in some intervals, each with the same probability."""

    input: str
    probability: float
    interval_s: float = INTERVAL_S

    def __str__(self) -> str:
        return f'{self.input} dropped {self.probability:.0%} of {self.interval_s:g} s intervals'


@dataclass(frozen=True)
class Delay:
    """Messages are received later; their stamps stay."""

    input: str
    seconds: float

    def __str__(self) -> str:
        return f'{self.input} delayed {self.seconds:g} s'


@dataclass(frozen=True)
class DropMessages:
    """Single messages are dropped, each with the same probability."""

    input: str
    probability: float

    def __str__(self) -> str:
        return f'{self.input} drops {self.probability:.3g} of its messages'


@dataclass(frozen=True)
class Corrupt:
    """The data of an input is corrupted from `start` until before `stop`, seconds of the bag."""

    input: str
    corruption: str
    severity: int = max(SEVERITIES)
    start: float = 0.0
    stop: float = float('inf')

    def __str__(self) -> str:
        text = f'{self.input} {self.corruption}'
        if self.severity != max(SEVERITIES):
            text += f' of severity {self.severity}'
        if self.start == 0 and self.stop == float('inf'):
            return text
        stop = '' if self.stop == float('inf') else f'{self.stop:g} s'
        return f'{text} {self.start:g} s..{stop}'

    def covers(self, seconds: float) -> bool:
        """Whether the data is corrupted at this second of the bag."""
        return self.start <= seconds < self.stop


Fault = Union[DropInterval, Mute, Delay, DropMessages, Corrupt]


class HeldMessage(BagMessage):
    """A message with the content of an earlier one, as a driver that hangs sends it."""

    def __init__(self, message: BagMessage, held: BagMessage) -> None:
        """Take the time of a message, and what an earlier one has."""
        self.__dict__.update(message.__dict__)
        self._held, self._now = held, message

    @property
    def message(self) -> Any:
        """Return the earlier message."""
        return self._held.message

    @property
    def stamp_ns(self) -> int:
        """Return the stamp of its own."""
        return self._now.stamp_ns

    def read(self) -> Any:
        """Return what the earlier message has."""
        return self._held.read()


class Faults:
    """The faults of one run."""

    def __init__(self, faults: Sequence[Fault], seed: int, start_ns: int) -> None:
        self._faults, self._seed, self._start_ns = tuple(faults), seed, start_ns
        self._held: dict[Corrupt, BagMessage] = {}
        """The message whose content is repeated."""

    def receive_ns(self, name: str, index: int, recorded_ns: int) -> int | None:
        """
        Return when a message of an input is received; None if it is dropped.

        :param index: position among the messages of the input.
        :param recorded_ns: when the recorder received it.
        """
        receive_ns = recorded_ns
        for fault in self._faults:
            if fault.input not in (name, ALL_INPUTS):
                continue
            if isinstance(fault, Delay):
                receive_ns += round(fault.seconds * NANOSECONDS)
            elif self._dropped(fault, name, index, self._seconds(recorded_ns)):
                return None
        return receive_ns

    def held(self, message: BagMessage) -> BagMessage:
        """Return a message, with the content of an earlier one where its driver hangs."""
        for fault in self._corrupting(message):
            if corruption_of(fault).in_stream is InStream.HOLD:
                message = HeldMessage(message, self._held.setdefault(fault, message))
        return message

    def corrupt(self, message: InputMessage, sample: Any) -> Any:
        """Return the sample of a message of the bag as the faults make it."""
        assert isinstance(message, BagMessage)
        for fault in self._corrupting(message):
            if corruption_of(fault).in_stream in (InStream.EACH, InStream.COMPLETE):
                since_s = self._seconds(message.received_ns) - fault.start
                sample = modality_type(message.modality).corrupt_sample(
                    fault.corruption, fault.severity, sample, message.spec, since_s,
                    int(2**62 * self._random('corrupt', fault.input, fault.corruption)),
                    message.index)
        return sample

    def _corrupting(self, message: BagMessage) -> Iterator[Corrupt]:
        for fault in self._faults:
            if isinstance(fault, Corrupt) and fault.input == message.role and fault.covers(
                    self._seconds(message.received_ns)):
                yield fault

    def _seconds(self, time_ns: int) -> float:
        return (time_ns - self._start_ns) / NANOSECONDS

    def _dropped(self, fault: Fault, name: str, index: int, seconds: float) -> bool:
        if isinstance(fault, Mute):
            return fault.covers(seconds)
        if isinstance(fault, DropInterval):
            interval = int(seconds // fault.interval_s)
            return self._random('drop', name, interval) < fault.probability
        if isinstance(fault, Corrupt):
            corruption = corruption_of(fault)
            return (corruption.in_stream is InStream.DROP and fault.covers(seconds)
                    and self._random('drop', name, index) < corruption.level(fault.severity))
        assert isinstance(fault, DropMessages)
        return self._random('lose', name, index) < fault.probability

    def _random(self, *key: object) -> float:
        """Return a number in [0, 1), the same for the same seed and key."""
        text = ' '.join(map(str, (self._seed, *key))).encode()
        return int.from_bytes(blake2b(text, digest_size=8).digest(), 'big') / 2**64


def corruption_of(fault: Corrupt) -> Corruption:
    """
    Return what a fault does to samples.

    :raises InvalidSettingError: for a corruption that its input does not have.
    """
    return modality_type(Modality(fault.input)).corruption(fault.corruption)


def describe(faults: Iterable[Fault]) -> str:
    """Describe faults in words."""
    return ', '.join(str(fault) for fault in faults)


def parameters(faults: Iterable[Fault], seed: int) -> dict[str, Any]:
    """Return faults and seed, JSON-ready."""
    return {'faults': [str(fault) for fault in faults], 'seed': seed}


def parse_drop_interval(text: str, interval_s: float = INTERVAL_S) -> DropInterval:
    """
    Parse `audio=0.5` or `50%`.

    :raises InvalidSettingError: for anything else.
    """
    if not interval_s > 0:
        raise InvalidSettingError('--interval', interval_s, 'seconds, above 0')
    return DropInterval(*_input_and_probability('--drop-intervals', text), interval_s)


def parse_drop_messages(text: str) -> DropMessages:
    """
    Parse `5%` or `detections=0.05`.

    :raises InvalidSettingError: for anything else.
    """
    return DropMessages(*_input_and_probability('--drop-messages', text))


def parse_delay(text: str) -> Delay:
    """
    Parse `audio=0.3`, `300ms` or `video=0.3s`.

    :raises InvalidSettingError: for anything else.
    """
    name, value = _split(text)
    scale, number = (1e-3, value[:-2]) if value.endswith('ms') else (1.0, value.removesuffix('s'))
    seconds = _number(number) * scale
    if not 0 <= seconds < 3600:
        raise InvalidSettingError('--delay', text, 'INPUT=SECONDS, 0 or more, as audio=0.3')
    return Delay(input_name(name, '--delay', text), seconds)


CORRUPT_METAVAR = 'INPUT=CORRUPTION[:SEVERITY][@START..STOP]'
CORRUPT_HELP = ('corrupt the data of this input from second START until before second STOP of the '
                'bag, as camera=covered@10s..20s; without times in the whole bag. CORRUPTION: '
                + '; '.join(f'of {name}: {", ".join(modality_type(Modality(name)).corruptions)}'
                            for name in REGISTRY if modality_type(Modality(name)).corruptions)
                + '. SEVERITY: 1 to 5, 5 without')
"""Help text of the option `--corrupt`."""
_CORRUPT = re.compile(r'(?P<input>[^=@]+)=(?P<name>\w+)(:(?P<severity>[1-5]))?(?P<times>@.+)?')


def parse_corrupt(text: str) -> Corrupt:
    """
    Parse `camera=covered@10s..20s`, `audio=hiss:3` or `/image=black`.

    :raises InvalidSettingError: for anything else; listing the corruptions for an unknown one.
    """
    match = _CORRUPT.fullmatch(text.strip())
    name = input_name(match['input'], '--corrupt', text) if match else ALL_INPUTS
    try:
        if match is None or name == ALL_INPUTS:
            raise ValueError
        times = parse_mute(f'{name}{match["times"] or ""}')
    except ValueError:
        raise InvalidSettingError(
            '--corrupt', text, f'{CORRUPT_METAVAR}, the severity from 1 to 5 and times in seconds '
            'from the start of the bag, as camera=covered@10s..20s') from None
    fault = Corrupt(name, match['name'], int(match['severity'] or max(SEVERITIES)), times.start,
                    times.stop)
    if is_modality(name):
        corruption_of(fault)
    return fault


def on_inputs(
    faults: Iterable[Fault], topics: Mapping[str, str],
) -> tuple[Fault, ...]:
    """
    Return the faults with topics replaced by the names of their inputs.

    :param topics: input → topic, as chosen in the bag.
    :raises InvalidSettingError: for a topic that is no input, and for one that is computed from
        another input.
    """
    names = {topic: role for role, topic in topics.items()
             if is_modality(role) and is_input(role)}
    listing = ', '.join(f'{name} ({topic})' for topic, name in names.items())
    resolved: list[Fault] = []
    for fault in faults:
        if fault.input.startswith('/') and fault.input not in names:
            raise InvalidSettingError('input of a fault', fault.input, f'{listing} or all',
                                      'no input of the bag has this topic')
        source = source_of(fault.input)
        if source is not None and fault.input not in topics:
            raise InvalidSettingError(
                'input of a fault', fault.input, f'{listing} or all', f'{fault.input} is computed '
                f'from {modality_type(source).label} here: inject the fault into {source}')
        resolved.append(replace(fault, input=names.get(fault.input, fault.input)))
        if isinstance(resolved[-1], Corrupt):
            corruption_of(resolved[-1])  # of a topic it was not known before
    return tuple(resolved)


def _split(text: str) -> tuple[str, str]:
    """Return input and value; all inputs where none is given."""
    name, equals, value = text.strip().rpartition('=')
    return (name, value) if equals else (ALL_INPUTS, value)


def _input_and_probability(option: str, text: str) -> tuple[str, float]:
    name, value = _split(text)
    percent = value.strip().endswith('%')
    probability = _number(value.strip().removesuffix('%')) * (0.01 if percent else 1)
    name = input_name(name, option, text)
    if not 0 <= probability <= 1:
        raise InvalidSettingError(option, text, 'INPUT=PROBABILITY or PROBABILITY for all inputs, '
                                  '0 to 1 or in %, as audio=0.5')
    return name, probability


def _number(text: str) -> float:
    """Return a number; NaN, which is in no range, for any other text."""
    try:
        return float(text)
    except ValueError:
        return float('nan')
