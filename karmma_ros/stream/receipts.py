"""What came in from one sensor, when, and what was wrong with it."""

from __future__ import annotations

from collections import deque

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import printable

_RECENT = 64
_MAX_REASON = 300


class Receipts:
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
        """Tell whether there was a good message."""
        return bool(self._taken)

    def age_ns(self, now_ns: int) -> int:
        """Give the time since the last good message; -1 if there was none."""
        return max(0, now_ns - self._taken[-1]) if self._taken else -1

    def fresh(self, now_ns: int, timeout_ns: int) -> bool:
        """Tell whether the last good message came within the timeout."""
        return bool(self._taken) and _near(self._taken[-1], now_ns, timeout_ns)

    def failing(self, now_ns: int, timeout_ns: int) -> bool:
        """Tell whether a message was dropped within the timeout."""
        return self._last_drop_ns is not None and _near(self._last_drop_ns, now_ns, timeout_ns)

    def rate(self, now_ns: int, timeout_ns: int) -> float:
        """Give the recent rate of good messages, Hz; 0 when they ceased."""
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
