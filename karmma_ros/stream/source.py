"""One sensor: what it sent, how it is timed, and what can be said of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Union

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSampleError, printable
from karmma_ros.stream.availability import Finding, ModalityState
from karmma_ros.stream.buffers import AudioBuffer, DetectionBuffer, FrameBuffer
from karmma_ros.stream.frame_buffer import FlowBuffer

_RECENT = 64
_MAX_REASON = 300


class ReceiveStats:
    """Count the messages of one sensor, by the receiver's clock."""

    def __init__(self) -> None:
        self.dropped = 0
        """Messages that could not be used, since the start."""
        self.reason = ''
        """What was wrong with the last of them."""
        self.last_stamp_ns = 0
        """Newest source stamp taken; 0 if there was none."""
        self._taken: deque[int] = deque(maxlen=_RECENT)
        self._last_drop_ns: int | None = None

    def take(self, stamp_ns: int, now_ns: int) -> None:
        """Note a good message."""
        if self._taken and now_ns < self._taken[-1]:
            self._taken.clear()
        self._taken.append(now_ns)
        self.last_stamp_ns = max(self.last_stamp_ns, stamp_ns)

    def drop(self, reason: str, now_ns: int) -> None:
        """Note a message that cannot be used."""
        self.dropped += 1
        self.reason = printable(reason, _MAX_REASON)
        self._last_drop_ns = now_ns

    @property
    def received(self) -> bool:
        """Return whether there was a good message."""
        return bool(self._taken)

    def age_ns(self, now_ns: int) -> int:
        """Return the time since the last good message; -1 if there was none."""
        return max(0, now_ns - self._taken[-1]) if self._taken else -1

    def fresh(self, now_ns: int, timeout_ns: int) -> bool:
        """Return whether the last good message came within the timeout."""
        return bool(self._taken) and _near(self._taken[-1], now_ns, timeout_ns)

    def failing(self, now_ns: int, timeout_ns: int) -> bool:
        """Return whether a message was dropped within the timeout."""
        return self._last_drop_ns is not None and _near(self._last_drop_ns, now_ns, timeout_ns)

    def rate(self, now_ns: int, timeout_ns: int) -> float:
        """Return the recent rate of good messages, Hz; 0 when they ceased."""
        if not self.fresh(now_ns, timeout_ns):
            return 0.0
        elapsed_ns = self._taken[-1] - self._taken[0]
        return (len(self._taken) - 1) * NANOSECONDS / elapsed_ns if elapsed_ns else 0.0

    def restart(self, stamp_ns: int) -> None:
        """Note that the source's clock has jumped to a stamp."""
        self.last_stamp_ns = stamp_ns

    def clear(self) -> None:
        """Forget the times, which a jump of the clock made void; counts stay."""
        self._taken.clear()
        self._last_drop_ns = None
        self.last_stamp_ns = 0


def _near(time_ns: int, now_ns: int, timeout_ns: int) -> bool:
    # The receiver's clock may have jumped back: a time far ahead is no fresh one either.
    return abs(now_ns - time_ns) <= timeout_ns


class StampVerdict(Enum):
    """What to do with a stamped sample."""

    TAKE = 'take'
    DROP = 'drop'
    RESTART = 'restart'
    """The timeline has jumped: forget what is stored, then take the sample."""


class Timeline:
    """
    Judge the stamps of one input.

    A sample fits when it is at most `span_ns` older than the newest one, or newer by at
    most `span_ns` and the time that has passed since on the receiver's clock. A stamp that
    does not fit is an accident and is dropped; the second in a row that fits its
    predecessor is none: the clock has jumped.
    """

    def __init__(self, span_ns: int) -> None:
        self._span_ns = span_ns
        self._newest: tuple[int, int] | None = None
        self._stray: tuple[int, int] | None = None

    def fits(self, start_ns: int, stop_ns: int, now_ns: int) -> bool:
        """Return whether a sample that spans `start_ns`..`stop_ns` fits; changes nothing."""
        return self._newest is None or self._follows(self._newest, start_ns, stop_ns, now_ns)

    def admit(self, start_ns: int, stop_ns: int, now_ns: int) -> StampVerdict:
        """Judge a sample that spans `start_ns`..`stop_ns`, received at `now_ns`."""
        if self.fits(start_ns, stop_ns, now_ns):
            self._stray = None
            if self._newest is None or stop_ns >= self._newest[0]:
                self._newest = stop_ns, now_ns
            return StampVerdict.TAKE
        stray, self._stray = self._stray, (stop_ns, now_ns)
        if (stray is None or stop_ns <= stray[0]
                or not self._follows(stray, start_ns, stop_ns, now_ns)):
            return StampVerdict.DROP
        self._newest, self._stray = self._stray, None
        return StampVerdict.RESTART

    def misfit(self, start_ns: int) -> str:
        """Say how far a stamp that does not fit lies from the newest sample."""
        assert self._newest is not None, 'without a newest sample every stamp fits'
        ahead = (start_ns - self._newest[0]) / NANOSECONDS
        direction = 'ahead of' if ahead > 0 else 'behind'
        return (f'stamp: got {abs(ahead):.3f} s {direction} the newest sample; '
                f'expected within {self._span_ns / NANOSECONDS:g} s')

    def clear(self) -> None:
        """Forget everything: the next stamp fits."""
        self._newest = self._stray = None

    def _follows(
        self, newest: tuple[int, int], start_ns: int, stop_ns: int, now_ns: int,
    ) -> bool:
        stamp_ns, received_ns = newest
        elapsed_ns = max(0, now_ns - received_ns)
        return (stop_ns >= stamp_ns - self._span_ns
                and start_ns <= stamp_ns + self._span_ns + elapsed_ns)


Buffer = Union[FrameBuffer, FlowBuffer, AudioBuffer, DetectionBuffer]


class InputSource:
    """One source of messages: its buffer and what is known of them."""

    def __init__(self, buffer: Buffer, timeout_ns: int, span_ns: int) -> None:
        """Take the age above which it is stale and the length of a window."""
        self.buffer = buffer
        self.timeout_ns = timeout_ns
        self._span_ns = span_ns
        self.receipts = ReceiveStats()
        self.timeline = Timeline(span_ns)
        self._findings: dict[str, Finding] = {}

    @property
    def warning(self) -> str:
        """Return the texts of all findings; '' without any."""
        return '; '.join(finding.text for finding in self._findings.values())

    @property
    def usable(self) -> bool:
        """Whether no content check found data that would give wrong predictions."""
        return all(finding.usable for finding in self._findings.values())

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
        """Return whether a good message came within the timeout."""
        return self.receipts.fresh(now_ns, self.timeout_ns)

    def admit(self, start_ns: int, stop_ns: int, now_ns: int) -> None:
        """
        Hold a stamp against the timeline; restart there if it has jumped.

        :raises InvalidSampleError: for a stamp that does not fit.
        """
        if start_ns < 0:
            raise InvalidSampleError(f'stamp: got {start_ns} ns; expected 0 or more')
        fit = self.timeline.admit(start_ns, stop_ns, now_ns)
        if fit is StampVerdict.DROP:
            raise InvalidSampleError(self.timeline.misfit(start_ns))
        if fit is StampVerdict.RESTART:
            self.buffer.clear()
            self.receipts.restart(start_ns)

    def passes(self, stamp_ns: int, now_ns: int) -> bool:
        """
        Return whether a message of one stamp need not be decoded, since its slot is filled.

        If so, it counts as received.
        """
        assert isinstance(self.buffer, (FrameBuffer, FlowBuffer))
        fits = stamp_ns >= 0 and self.timeline.fits(stamp_ns, stamp_ns, now_ns)
        if not fits or self.buffer.wants(stamp_ns):
            return False
        self.timeline.admit(stamp_ns, stamp_ns, now_ns)
        self.receipts.take(stamp_ns, now_ns)
        return True

    def drop(self, error: InvalidSampleError, now_ns: int) -> str:
        """Count a message that cannot be used; give the reason."""
        self.receipts.drop(str(error), now_ns)
        return str(error)

    def clear(self) -> None:
        """Forget all samples and times; counts stay."""
        self.buffer.clear()
        self.receipts.clear()
        self.timeline.clear()

    def judge(
        self, coverage: Coverage, end_ns: int | None, now_ns: int,
    ) -> tuple[ModalityState, str]:
        """Return the state and, unless it is available, the reason; windows end at `end_ns`."""
        receipts, timeout_ns = self.receipts, self.timeout_ns
        if self.fresh(now_ns):
            if not self.usable:
                return ModalityState.INVALID, self.warning
            if coverage.own >= coverage.needed:
                return ModalityState.AVAILABLE, ''
            return ModalityState.INSUFFICIENT, self._offset(end_ns) or coverage.shortfall
        if receipts.failing(now_ns, timeout_ns):
            return ModalityState.INVALID, receipts.reason
        if not receipts.received:
            return ModalityState.NEVER_RECEIVED, 'nothing received'
        age, timeout = receipts.age_ns(now_ns) / NANOSECONDS, timeout_ns / NANOSECONDS
        return ModalityState.STALE, f'last sample {age:.1f} s ago; the timeout is {timeout:g} s'

    def _offset(self, end_ns: int | None) -> str:
        """Say by how much its clock is off the window; '' if it is not."""
        newest_ns = self.buffer.newest_ns
        if newest_ns is None or end_ns is None or abs(newest_ns - end_ns) <= self._span_ns:
            return ''
        ahead = (newest_ns - end_ns) / NANOSECONDS
        direction = 'ahead of' if ahead > 0 else 'behind'
        return f'its stamps are {abs(ahead):.3f} s {direction} the others: their clocks differ'


@dataclass(frozen=True)
class Coverage:
    """How well one modality covers the window."""

    samples: int
    own: int
    needed: int
    whole: str
    per: int = 1
    """Samples in one of the unit that people read."""

    @property
    def shortfall(self) -> str:
        """Say what there is and what is needed."""
        return f'{self.own / self.per:g} of {self.whole}; it needs {self.needed / self.per:g}'
