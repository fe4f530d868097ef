"""Between builtin_interfaces/Time and the integer nanoseconds of everything behind it."""

from __future__ import annotations

from typing import Any

from builtin_interfaces.msg import Time
from karmma_ros.clip import NANOSECONDS


def time_message(time_ns: int) -> Time:
    """Give nanoseconds as builtin_interfaces/Time."""
    sec, nanosec = divmod(int(time_ns), NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def time_ns(message: Any) -> int:
    """Give builtin_interfaces/Time in nanoseconds."""
    return int(message.sec * NANOSECONDS + message.nanosec)
