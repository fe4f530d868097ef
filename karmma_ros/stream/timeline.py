"""Which stamps of an input belong together."""

from __future__ import annotations

from enum import Enum

from karmma_ros.clip import NANOSECONDS


class Fit(Enum):
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
        """Tell whether a sample that spans `start_ns`..`stop_ns` fits; changes nothing."""
        return self._newest is None or self._follows(self._newest, start_ns, stop_ns, now_ns)

    def admit(self, start_ns: int, stop_ns: int, now_ns: int) -> Fit:
        """Judge a sample that spans `start_ns`..`stop_ns`, received at `now_ns`."""
        if self.fits(start_ns, stop_ns, now_ns):
            self._stray = None
            if self._newest is None or stop_ns >= self._newest[0]:
                self._newest = stop_ns, now_ns
            return Fit.TAKE
        stray, self._stray = self._stray, (stop_ns, now_ns)
        if (stray is None or stop_ns <= stray[0]
                or not self._follows(stray, start_ns, stop_ns, now_ns)):
            return Fit.DROP
        self._newest, self._stray = self._stray, None
        return Fit.RESTART

    def misfit(self, start_ns: int) -> str:
        """Say how far a stamp that does not fit lies from the newest sample."""
        assert self._newest is not None, 'without a newest sample every stamp fits'
        ahead = (start_ns - self._newest[0]) / NANOSECONDS
        direction = 'ahead of' if ahead > 0 else 'behind'
        return (f'stamp: got {abs(ahead):.3f} s {direction} the newest sample; '
                f'it may be within {self._span_ns / NANOSECONDS:g} s')

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
