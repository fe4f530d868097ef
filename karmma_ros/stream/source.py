"""One input: its settings, its buffer, and what is known of the times of its messages."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError, printable
from karmma_ros.modalities.content_check import Finding
from karmma_ros.modalities.sample_buffer import Coverage, SampleBuffer
from karmma_ros.stream.availability import ModalityState

_RECENT = 64
_MAX_REASON = 300


@dataclass(frozen=True)
class InputSettings:
    """
    When one modality counts as available.

    >>> InputSettings(timeout_ns=0)
    Traceback (most recent call last):
    karmma_ros.errors.InvalidSettingError: timeout_ns is 0; expected a number above 0
    >>> InputSettings(timeout_ns=500_000_000, min_coverage=0.25).enabled
    True

    :raises InvalidSettingError: for a value out of range.
    """

    timeout_ns: int
    """It is stale when its last good sample is older than this."""
    enabled: bool = True
    min_coverage: float = 0.5
    """Fraction of the window that must hold samples of its own, above 0 to 1."""

    def __post_init__(self) -> None:
        if not self.timeout_ns > 0:
            raise InvalidSettingError('timeout_ns', self.timeout_ns, 'a number above 0')
        if not 0 < self.min_coverage <= 1:
            raise InvalidSettingError(
                'min_coverage', self.min_coverage, 'a number above 0 and at most 1')


class ReceiveStats:
    """Count the messages of one input, by the receiver's clock."""

    def __init__(self) -> None:
        self.dropped = 0
        """Messages that could not be used, since the start."""
        self.reason = ''
        """What was wrong with the last of them."""
        self.last_stamp_ns = 0
        """Newest source stamp received; 0 if there was none."""
        self.informative = True
        """Whether what was wrong with it is more than that it showed nothing."""
        self._times: deque[int] = deque(maxlen=_RECENT)
        """When the recent good messages were received."""
        self._last_drop_ns: int | None = None
        self._repeated: tuple[int, int] | None = None
        """Stamp of the last good message, and when it was received first."""

    def add(self, stamp_ns: int, now_ns: int) -> None:
        """Count a good message."""
        if self._times and now_ns < self._times[-1]:
            self._times.clear()
        self._times.append(now_ns)
        if self._repeated is None or stamp_ns != self._repeated[0]:
            self._repeated = stamp_ns, now_ns
        self.last_stamp_ns = max(self.last_stamp_ns, stamp_ns)

    def drop(self, reason: str, now_ns: int, informative: bool = True) -> None:
        """Count a message that cannot be used, whether or not it shows anything."""
        self.dropped += 1
        self.informative = informative
        self.reason = printable(reason, _MAX_REASON)
        self._last_drop_ns = now_ns

    @property
    def received(self) -> bool:
        """Return whether there was a good message."""
        return bool(self._times)

    def age_ns(self, now_ns: int) -> int:
        """Return the time since the last good message; -1 if there was none."""
        return max(0, now_ns - self._times[-1]) if self._times else -1

    def fresh(self, now_ns: int, timeout_ns: int) -> bool:
        """Return whether the last good message was received within the timeout."""
        return bool(self._times) and _near(self._times[-1], now_ns, timeout_ns)

    def failing(self, now_ns: int, timeout_ns: int) -> bool:
        """Return whether a message was dropped within the timeout."""
        return self._last_drop_ns is not None and _near(self._last_drop_ns, now_ns, timeout_ns)

    def stuck_ns(self, now_ns: int) -> int:
        """Return for how long all messages have had the same stamp."""
        return 0 if self._repeated is None else max(0, now_ns - self._repeated[1])

    def rate(self, now_ns: int, timeout_ns: int) -> float:
        """Return the recent rate of good messages, Hz; 0 when they ceased."""
        if not self.fresh(now_ns, timeout_ns):
            return 0.0
        elapsed_ns = self._times[-1] - self._times[0]
        return (len(self._times) - 1) * NANOSECONDS / elapsed_ns if elapsed_ns else 0.0

    def restart(self, stamp_ns: int) -> None:
        """Set the newest stamp after the source's clock has jumped."""
        self.last_stamp_ns = stamp_ns

    def clear(self) -> None:
        """Clear the times, which a jump of the clock made void; counts stay."""
        self._times.clear()
        self._last_drop_ns = self._repeated = None
        self.last_stamp_ns = 0


def _near(time_ns: int, now_ns: int, timeout_ns: int) -> bool:
    # The receiver's clock may have jumped back: a time far ahead is not fresh either.
    return abs(now_ns - time_ns) <= timeout_ns


class StampVerdict(Enum):
    """What to do with a stamped sample."""

    ACCEPT = 'accept'
    DROP = 'drop'
    RESTART = 'restart'
    """The clock of the stamps has jumped: clear what is stored, then accept the sample."""


class Timeline:
    """
    Check the stamps of one input.

    A sample fits when it is at most `span_ns` older than the newest one, or newer by at
    most `span_ns` and the time that has passed since on the receiver's clock. A single stamp
    that does not fit is an outlier and is dropped. When the next one fits it, the clock has
    jumped.
    """

    def __init__(self, span_ns: int) -> None:
        self._span_ns = span_ns
        self._newest: tuple[int, int] | None = None
        self._outlier: tuple[int, int] | None = None

    def fits(self, start_ns: int, stop_ns: int, now_ns: int) -> bool:
        """Return whether a sample that spans `start_ns`..`stop_ns` fits; changes nothing."""
        return self._newest is None or self._follows(self._newest, start_ns, stop_ns, now_ns)

    def check(self, start_ns: int, stop_ns: int, now_ns: int) -> StampVerdict:
        """Check and record a sample that spans `start_ns`..`stop_ns`, received at `now_ns`."""
        if self.fits(start_ns, stop_ns, now_ns):
            self._outlier = None
            if self._newest is None or stop_ns >= self._newest[0]:
                self._newest = stop_ns, now_ns
            return StampVerdict.ACCEPT
        before, self._outlier = self._outlier, (stop_ns, now_ns)
        if (before is None or stop_ns <= before[0]
                or not self._follows(before, start_ns, stop_ns, now_ns)):
            return StampVerdict.DROP
        self._newest, self._outlier = self._outlier, None
        return StampVerdict.RESTART

    def mismatch(self, start_ns: int) -> str:
        """Return how far a stamp that does not fit is from the newest sample, as a text."""
        assert self._newest is not None, 'without a newest sample every stamp fits'
        ahead = (start_ns - self._newest[0]) / NANOSECONDS
        direction = 'ahead of' if ahead > 0 else 'behind'
        return (f'stamp: got {abs(ahead):.3f} s {direction} the newest sample; '
                f'expected within {self._span_ns / NANOSECONDS:g} s')

    def clear(self) -> None:
        """Discard all stamps: the next one fits."""
        self._newest = self._outlier = None

    def _follows(
        self, newest: tuple[int, int], start_ns: int, stop_ns: int, now_ns: int,
    ) -> bool:
        stamp_ns, received_ns = newest
        elapsed_ns = max(0, now_ns - received_ns)
        return (stop_ns >= stamp_ns - self._span_ns
                and start_ns <= stamp_ns + self._span_ns + elapsed_ns)


class InputSource:
    """One source of messages: its buffer, the statistics and the findings of its messages."""

    def __init__(self, buffer: SampleBuffer, timeout_ns: int, span_ns: int) -> None:
        """
        Start empty.

        :param timeout_ns: age above which it is stale.
        :param span_ns: length of a window.
        """
        self.buffer = buffer
        self.timeout_ns = timeout_ns
        self._span_ns = span_ns
        self.stats = ReceiveStats()
        self.timeline = Timeline(span_ns)
        self._findings: dict[str, Finding] = {}

    @property
    def warning(self) -> str:
        """Return the texts of all findings; '' without any."""
        return '; '.join(finding.text for finding in self._findings.values())

    @property
    def usable(self) -> bool:
        """Whether no content check found data that the network may not be given."""
        return not any(finding.masks for finding in self._findings.values())

    def set_finding(self, check: str, finding: Finding | None) -> None:
        """
        Set or withdraw the finding of one content check.

        What was stored while the data was unusable is cleared once it is usable again.
        """
        was_usable = self.usable
        if finding is None:
            self._findings.pop(check, None)
        else:
            self._findings[check] = finding
        if self.usable and not was_usable:
            self.restart()

    def restart(self) -> None:
        """Clear what is stored; the times of receipt stay."""
        self.buffer.clear()
        self.timeline.clear()

    def fresh(self, now_ns: int) -> bool:
        """Return whether a good message was received within the timeout."""
        return self.stats.fresh(now_ns, self.timeout_ns)

    def check_stamp(self, start_ns: int, stop_ns: int, now_ns: int) -> None:
        """
        Check the stamps of a sample; clear the buffer if their clock has jumped.

        :raises InvalidSampleError: for a stamp that does not fit the ones before.
        """
        if start_ns < 0:
            raise InvalidSampleError(f'stamp: got {start_ns} ns; expected 0 or more')
        verdict = self.timeline.check(start_ns, stop_ns, now_ns)
        if verdict is StampVerdict.DROP:
            raise InvalidSampleError(self.timeline.mismatch(start_ns))
        if verdict is StampVerdict.RESTART:
            self.buffer.clear()
            self.stats.restart(start_ns)

    def skip(self, stamp_ns: int, now_ns: int) -> bool:
        """
        Return whether a message need not be decoded, since the slot of its stamp is filled.

        If so, it counts as received.
        """
        fits = stamp_ns >= 0 and self.timeline.fits(stamp_ns, stamp_ns, now_ns)
        if not fits or self.buffer.wants(stamp_ns):
            return False
        self.timeline.check(stamp_ns, stamp_ns, now_ns)
        self.stats.add(stamp_ns, now_ns)
        self.buffer.skip(stamp_ns)
        return True

    def add(self, sample: Any, stamp_ns: int, now_ns: int) -> str:
        """Store a sample; return why it was dropped, or ''."""
        try:
            start_ns, end_ns = self.buffer.times_ns(sample, stamp_ns, now_ns)
            self.check_stamp(start_ns, end_ns, now_ns)
            self.buffer.add(sample, start_ns, bool(stamp_ns))
        except InvalidSampleError as error:
            self.stats.drop(str(error), now_ns)
            return str(error)
        self.stats.add(start_ns, now_ns)
        return ''

    def clear(self) -> None:
        """Clear all samples and times; counts stay."""
        self.buffer.clear()
        self.stats.clear()
        self.timeline.clear()

    def state(
        self, coverage: Coverage, needed: int, end_ns: int | None, now_ns: int,
    ) -> tuple[ModalityState, str]:
        """
        Return the state and, unless it is available, the reason.

        :param coverage: of the window that ends at `end_ns`.
        :param needed: units of the window that must be covered.
        """
        stats, timeout_ns = self.stats, self.timeout_ns
        if self.fresh(now_ns):
            if not all(finding.usable for finding in self._findings.values()):
                return ModalityState.INVALID, self.warning
            if not self.usable:
                return ModalityState.UNINFORMATIVE, '; '.join(
                    each.at(now_ns) for each in self._findings.values() if each.masks)
            if (stuck_ns := stats.stuck_ns(now_ns)) > timeout_ns:
                return ModalityState.INSUFFICIENT, (
                    f'its stamps repeat: the same one for {stuck_ns / NANOSECONDS:.1f} s')
            if coverage.covered >= needed:
                return ModalityState.AVAILABLE, ''
            return ModalityState.INSUFFICIENT, self._offset(end_ns) or coverage.shortfall(needed)
        if stats.failing(now_ns, timeout_ns):
            shown = stats.informative
            return (ModalityState.INVALID if shown else ModalityState.UNINFORMATIVE), stats.reason
        if not stats.received:
            return ModalityState.NEVER_RECEIVED, 'nothing received'
        age, timeout = stats.age_ns(now_ns) / NANOSECONDS, timeout_ns / NANOSECONDS
        return ModalityState.STALE, f'last sample {age:.1f} s ago; the timeout is {timeout:g} s'

    def _offset(self, end_ns: int | None) -> str:
        """Return by how much its clock differs from the window, as a text; '' if it does not."""
        newest_ns = self.buffer.newest_ns
        if newest_ns is None or end_ns is None or abs(newest_ns - end_ns) <= self._span_ns:
            return ''
        ahead = (newest_ns - end_ns) / NANOSECONDS
        direction = 'ahead of' if ahead > 0 else 'behind'
        return f'its stamps are {abs(ahead):.3f} s {direction} the others: their clocks differ'
