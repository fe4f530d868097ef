"""What checks of the content of messages have in common."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What a content check found: messages that decode without an error into wrong data."""

    text: str
    """What was received, what was expected, and which parameter to set. It stays the same while
    nothing changes, for each change is logged."""
    usable: bool = True
    """False when a prediction from this data would be wrong: the modality is INVALID then."""


class Persistence:
    """Whether a condition holds for all messages of some time, or no longer does."""

    def __init__(self, least_ns: int, least_messages: int, least_against: int = 3) -> None:
        """
        Start with the condition not established.

        :param least_ns: it must have held for this long,
        :param least_messages: and for so many messages.
        :param least_against: it no longer holds after so many messages in a row.
        """
        self._least = least_ns, least_messages
        self._least_against = least_against
        self._since_ns: int | None = None
        self._messages = self._against = 0
        self.established = False

    def update(self, holds: bool, now_ns: int) -> bool:
        """Take a message received now; return whether the condition is established."""
        if not holds:
            self._since_ns, self._messages = None, 0
            self._against += 1
            self.established = self.established and self._against < self._least_against
            return self.established
        if self._since_ns is None or now_ns < self._since_ns:
            self._since_ns, self._messages = now_ns, 0
        self._messages += 1
        self._against = 0
        least_ns, least_messages = self._least
        if now_ns - self._since_ns >= least_ns and self._messages >= least_messages:
            self.established = True
        return self.established
