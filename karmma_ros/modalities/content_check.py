"""
What checks of the content of messages have in common.

A decoder finds messages that mean something else than expected (`Finding`); a `ContentCheck`
finds samples that are valid and show nothing: the lens is covered, the microphone muted, the
driver hung.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TYPE_CHECKING

from karmma_ros.clip import NANOSECONDS
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modality import Modality

if TYPE_CHECKING:
    from karmma_ros.modalities.modality_type import InputDecoder, InputMessage


@dataclass(frozen=True)
class Finding:
    """What a content check found: messages that decode without an error into wrong data."""

    text: str
    """What was received, what was expected, and which parameter to set. It stays the same while
    nothing changes, for each change is logged."""
    usable: bool = True
    """False when a prediction from this data would be wrong: the modality is INVALID then."""
    informative: bool = True
    """False when the data shows nothing: the modality is UNINFORMATIVE then."""
    since_ns: int = 0
    """When what is not informative began, by the receiver's clock."""

    @property
    def masks(self) -> bool:
        """Return whether the network may not be given this data."""
        return not (self.usable and self.informative)

    def at(self, now_ns: int) -> str:
        """Return the text; of what shows nothing with its duration."""
        if self.informative:
            return self.text
        return f'{self.text} for {max(0, now_ns - self.since_ns) / NANOSECONDS:.1f} s'


class Persistence:
    """Whether a condition holds for all messages of some time, or no longer does."""

    def __init__(
        self, least_ns: int, least_messages: int, least_against: int = 3,
        least_against_ns: int | None = None,
    ) -> None:
        """
        Start with the condition not established.

        :param least_ns: it must have held for this long,
        :param least_messages: and for so many messages.
        :param least_against: it no longer holds after so many messages in a row,
        :param least_against_ns: or after messages over this time.
        """
        self._least = least_ns, least_messages
        self._least_against, self._least_against_ns = least_against, least_against_ns
        self._since_ns: int | None = None
        self._against_since_ns = 0
        self._messages = self._against = 0
        self.established = False
        self.established_since_ns = 0
        """When that which is established began."""

    def update(self, holds: bool, now_ns: int) -> bool:
        """Take a message received now; return whether the condition is established."""
        if not holds:
            self._since_ns, self._messages = None, 0
            if not self._against:
                self._against_since_ns = now_ns
            self._against += 1
            self.established = self.established and self._against < self._least_against and not (
                self._least_against_ns is not None
                and now_ns - self._against_since_ns >= self._least_against_ns)
            return self.established
        if self._since_ns is None or now_ns < self._since_ns:
            self._since_ns, self._messages = now_ns, 0
        self._messages += 1
        self._against = 0
        least_ns, least_messages = self._least
        if now_ns - self._since_ns >= least_ns and self._messages >= least_messages:
            if not self.established:
                self.established_since_ns = self._since_ns
            self.established = True
        return self.established


class SampleContext(NamedTuple):
    """What a check may need beside a sample."""

    received: InputMessage
    decoder: InputDecoder
    """Of the input."""
    now_ns: int
    """When it was received."""
    checks: Mapping[Modality, ContentCheck]
    """Of all inputs, with what they have found so far."""


class ContentCheck(ABC):
    """
    Judge the samples of one input, one after the other, each for itself or beside those before.

    `ContentMonitor` decides how long a fault must last. A person may work in the dark, in silence
    or without moving: none of that is a fault.
    """

    faults: ClassVar[tuple[str, ...]]
    """Names of what it finds, the first ones prior."""
    timeouts: ClassVar[Mapping[str, str]] = {}
    """Fault → parameter of its own for how long all samples must show it; `content_timeout` for
    the others."""

    def __init__(self, modality: Modality, values: Mapping[str, Any]) -> None:
        """
        Read the thresholds.

        :param values: of `content_declarations`, by their full names.
        """
        self.modality, self.values = modality, values

    @classmethod
    def parameters(cls, name: str) -> tuple[Declaration, ...]:
        """Return the thresholds of its own, with full names."""
        return ()

    @abstractmethod
    def update(self, sample: Any, context: SampleContext) -> dict[str, str]:
        """Return each fault that this sample shows: name → reason with figures."""

    def fault_timeout_s(self, fault: str) -> float:
        """Return for how long all samples must show a fault, seconds."""
        parameter = self.timeouts.get(fault, 'content_timeout')
        return float(self.values[f'{self.modality}.{parameter}'])


_LEAST_SAMPLES = 3
_RECOVERED_SAMPLES, _RECOVERED_NS = 3, 300_000_000
"""After this many samples without a fault in a row, or over this time, it has ended."""


class ContentMonitor:
    """Hold what a check finds: a fault counts once all samples of some time have shown it."""

    def __init__(self, check: ContentCheck) -> None:
        self.check = check
        self._persistence = {
            fault: Persistence(round(check.fault_timeout_s(fault) * NANOSECONDS), _LEAST_SAMPLES,
                               _RECOVERED_SAMPLES, _RECOVERED_NS)
            for fault in check.faults}
        self.finding: Finding | None = None
        self._fault = ''

    def update(self, sample: Any, context: SampleContext) -> None:
        """Take a sample."""
        seen = self.check.update(sample, context)
        established = [fault for fault, persistence in self._persistence.items()
                       if persistence.update(fault in seen, context.now_ns)]
        if not established:
            self.finding, self._fault = None, ''
        elif self._fault not in established and established[0] in seen:
            self._fault = established[0]
            since_ns = self._persistence[self._fault].established_since_ns
            self.finding = Finding(seen[self._fault], informative=False, since_ns=since_ns)


def content_declarations(name: str, check: type[ContentCheck]) -> tuple[Declaration, ...]:
    """Return the parameters of the check of an input."""
    return (
        Declaration(f'{name}.check_content', True, 'Leave this input out while its data shows '
                    f'nothing: {", ".join(check.faults)}.'),
        Declaration(f'{name}.content_timeout', 0.6, 'Seconds for which all samples must show '
                    'that before the input is uninformative.', (0.1, 60.0)),
        *check.parameters(name),
    )
