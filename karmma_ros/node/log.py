"""A node's log: printable lines, throttled by topic."""

from __future__ import annotations

import time

from karmma_ros.errors import printable
from rclpy.node import Node

LINE_LENGTH = 2000
PERIOD_S = 10.0
"""At most one line of each topic in this time."""


class NodeLog:
    """
    Write to the logger of a node.

    Texts may contain what others have sent. A line that may recur has a topic. The topic is
    throttled, not the text, which the sender of a bad message may vary.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._written: dict[str, float] = {}

    def info(self, text: str, topic: str = '') -> bool:
        """Write a line; return False where the topic had one within the period."""
        due = self._is_due(topic)
        if due:
            self._node.get_logger().info(printable(text, LINE_LENGTH))
        return due

    def warning(self, text: str, topic: str = '') -> bool:
        """Write a line as `info` does."""
        due = self._is_due(topic)
        if due:
            self._node.get_logger().warning(printable(text, LINE_LENGTH))
        return due

    def error(self, text: str, topic: str = '') -> bool:
        """Write a line as `info` does."""
        due = self._is_due(topic)
        if due:
            self._node.get_logger().error(printable(text, LINE_LENGTH))
        return due

    def reset(self, *topics: str) -> None:
        """Let the next line of these topics through, or of every topic without any."""
        for topic in topics or tuple(self._written):
            self._written.pop(topic, None)

    def _is_due(self, topic: str) -> bool:
        now = time.monotonic()
        if topic and now - self._written.get(topic, -PERIOD_S) < PERIOD_S:
            return False
        if topic:
            self._written[topic] = now
        return True


def describe(error: BaseException) -> str:
    """Return the type of an exception and its text."""
    return f'{type(error).__name__}: {error}'
