"""One sensor: what it sent, how it is timed, and what can be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.stream.availability import Finding, ModalityState
from karmma_ros.stream.buffers import AudioBuffer, DetectionBuffer, FrameBuffer
from karmma_ros.stream.flow_buffer import FlowBuffer
from karmma_ros.stream.receipts import Receipts
from karmma_ros.stream.timeline import Fit, Timeline

Buffer = Union[FrameBuffer, FlowBuffer, AudioBuffer, DetectionBuffer]


class Sensor:
    """One source of messages: its buffer and what is known of them."""

    def __init__(self, buffer: Buffer, timeout_ns: int, span_ns: int) -> None:
        """Take the age above which it is stale and the length of a window."""
        self.buffer = buffer
        self.timeout_ns = timeout_ns
        self._span_ns = span_ns
        self.receipts = Receipts()
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
        """Tell whether a good message came within the timeout."""
        return self.receipts.fresh(now_ns, self.timeout_ns)

    def admit(self, start_ns: int, stop_ns: int, now_ns: int) -> None:
        """
        Hold a stamp against the timeline; restart there if it has jumped.

        :raises InvalidSampleError: for a stamp that does not fit.
        """
        if start_ns < 0:
            raise InvalidSampleError(f'stamp: got {start_ns} ns; it may be 0 or more')
        fit = self.timeline.admit(start_ns, stop_ns, now_ns)
        if fit is Fit.DROP:
            raise InvalidSampleError(self.timeline.misfit(start_ns))
        if fit is Fit.RESTART:
            self.buffer.clear()
            self.receipts.restart(start_ns)

    def passes(self, stamp_ns: int, now_ns: int) -> bool:
        """
        Tell whether a message of one stamp need not be decoded, since its slot is filled.

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
        """Give the state and, unless it is available, the reason; windows end at `end_ns`."""
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
