"""Between builtin_interfaces/Time and the integer nanoseconds of everything behind it."""

from __future__ import annotations

from typing import Any

from builtin_interfaces.msg import Time
from karmma_ros.clip import NANOSECONDS

_LATEST_NS = 2**31 * NANOSECONDS - 1


def time_message(time_ns: int) -> Time:
    """Give nanoseconds as builtin_interfaces/Time, which starts at zero and ends in 2038."""
    sec, nanosec = divmod(min(max(int(time_ns), 0), _LATEST_NS), NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def time_ns(message: Any) -> int:
    """Give builtin_interfaces/Time in nanoseconds."""
    return int(message.sec * NANOSECONDS + message.nanosec)
