"""
Play sensors as a process of its own: `python -m fault_suite.sender STREAMS`.

STREAMS is JSON: a list of objects with name, message (one of messages.MAKERS), topic, rate (Hz),
and optionally reliable, shift (seconds added to stamps) and fields (of the message's maker).
Each line on standard input names the streams to switch on, `name:fault` one that shows nothing
(messages.UNINFORMATIVE, REPEAT); the response to it is a line of JSON with time.monotonic() of
the change, the number of messages sent so far, by name, and the longest pause of this process
since the last line, in seconds.
"""

from __future__ import annotations

import json
import sys
from threading import Thread
import time
from typing import Any

from karmma_ros.node.messages import time_message
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy

from fault_suite.messages import MAKERS, REPEAT, SECOND, UNINFORMATIVE

_VARIANTS = 24
"""More messages than the content check of audio compares with."""


class Stream:
    """One sensor: messages that are made once and sent in turn, again and again, newly stamped."""

    def __init__(
        self, node: Any, name: str, message: str, topic: str, rate: float, reliable: bool = True,
        shift: float = 0.0, fields: dict[str, Any] | None = None,
    ) -> None:
        self.name, self.period, self.sent = name, 1 / rate, 0
        self._makers = {'': MAKERS[message], **UNINFORMATIVE.get(message, {})}
        self._fields = fields or {}
        self._messages: dict[str, list[Any]] = {}
        self._prepare('')
        self._messages[REPEAT] = self._messages[''][:1]
        # Audio is stamped at its first sample, which is recorded a period before the last.
        late = self.period if message == 'audio' else 0.0
        self._shift_ns = round((shift - late) * SECOND)
        self._clock = node.get_clock()
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        self._publisher = node.create_publisher(
            type(self._messages[''][0]), topic, QoSProfile(depth=10, reliability=reliability))

    def _prepare(self, fault: str) -> list[Any]:
        make = self._makers[fault]
        return self._messages.setdefault(
            fault, [make(0, **self._fields) for _ in range(_VARIANTS)])

    def send(self, fault: str = '') -> None:
        """Publish, stamped now."""
        messages = self._messages.get(fault) or self._prepare(fault)
        message = messages[self.sent % len(messages)]
        now_ns = self._clock.now().nanoseconds
        message.header.stamp = time_message(now_ns + self._shift_ns)
        self._publisher.publish(message)
        self.sent += 1


class Sender:
    """Publish the streams that are on, at their rates, until the input ends."""

    def __init__(self, streams: list[dict[str, Any]]) -> None:
        self._node = rclpy.create_node('sender')
        self._streams = [Stream(self._node, **stream) for stream in streams]
        self._on: dict[str, str] = {}
        """Stream → fault, empty without any."""
        self._ended = False
        self._pause_s = 0.0

    def run(self) -> None:
        """Keep to the rates on average, whatever a single message takes."""
        Thread(target=self._read_commands, daemon=True).start()
        last = time.monotonic()
        due = {stream.name: last for stream in self._streams}
        while not self._ended:
            now = time.monotonic()
            self._pause_s, last = max(self._pause_s, now - last), now
            for stream in self._streams:
                if now >= due[stream.name]:
                    # After a pause of the machine it continues without catching up.
                    due[stream.name] = max(due[stream.name] + stream.period, now - stream.period)
                    if stream.name in self._on:
                        stream.send(self._on[stream.name])
            time.sleep(0.001)

    def _read_commands(self) -> None:
        for line in sys.stdin:
            words = (word.partition(':') for word in line.rstrip('\n').split('\t') if word)
            self._on = {name: fault for name, _, fault in words}
            sent = {stream.name: stream.sent for stream in self._streams}
            pause_s, self._pause_s = self._pause_s, 0.0
            print(json.dumps({'time': time.monotonic(), 'sent': sent, 'pause': pause_s}),
                  flush=True)
        self._ended = True


if __name__ == '__main__':
    rclpy.init()
    Sender(json.loads(sys.argv[1])).run()
