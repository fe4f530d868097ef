"""The node and the sensors as processes of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

SUITE = Path(__file__).parents[1]
ROOT = SUITE.parents[1]
CONFIG = ROOT / 'config' / 'node'

CAMERA = {'name': 'camera', 'message': 'image', 'topic': 'image', 'rate': 20,
          'fields': {'width': 96, 'height': 72}}
MICROPHONE = {'name': 'microphone', 'message': 'audio', 'topic': 'audio', 'rate': 50,
              'fields': {'samples': 320}}
DETECTOR = {'name': 'detector', 'message': 'boxes', 'topic': 'detections', 'rate': 10}
SENSORS = (CAMERA, MICROPHONE, DETECTOR)
ALL = 'camera', 'microphone', 'detector'


class NodeProcess:
    """One run of `python -m karmma_ros.node`."""

    def __init__(
        self, parameters: Mapping[str, Any], environment: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (), **options: Any,
    ) -> None:
        """Start it; `prefix` is a command that runs it."""
        given = [word for name, value in parameters.items()
                 for word in ('-p', f'{name}:={_yaml(value)}')]
        self.process = subprocess.Popen(
            [*prefix, sys.executable, '-m', 'karmma_ros.node', '--ros-args', *given],
            env=_environment(environment), **options)

    @property
    def pid(self) -> int:
        """Return the process's number."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Return whether it runs."""
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, limit_s: float) -> int | None:
        """Return the exit status, None when it does not end in time."""
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self, number: signal.Signals = signal.SIGINT, limit_s: float = 20.0) -> int | None:
        """Send a signal and return the exit status; None when it had to be killed."""
        if self.alive:
            self.send(number)
        status = self.wait(limit_s)
        self.kill()
        return status

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _environment(changes: Mapping[str, str] | None) -> dict[str, str]:
    paths = [str(SUITE), os.environ.get('PYTHONPATH', '')]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(p for p in paths if p), **(changes or {})}


def _module(
    name: str, *arguments: str, changes: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, '-m', name, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=_environment(changes))


@contextmanager
def module_process(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a module of the suite that reads and writes lines; it ends with the block."""
    process = _module(name, *arguments)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def node_process(*arguments: Any, **options: Any) -> Iterator[NodeProcess]:
    """Run the node; whatever happens, it does not outlive the block."""
    node = NodeProcess(*arguments, **options)
    try:
        yield node
    finally:
        node.kill()


class SenderProcess:
    """One run of `sender.py`."""

    def __init__(
        self, streams: tuple[Mapping[str, Any], ...] = SENSORS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.process = _module('fault_suite.sender', json.dumps(streams), changes=environment)
        self.sent: dict[str, int] = {}
        """Messages sent when the streams were last switched, by name."""
        self.pauses_s: list[float] = []
        """The longest pause of the sender before each switch."""

    def switch(self, *names: str) -> float:
        """
        Switch the given streams on, the others off; return time.monotonic() of the change.

        :param names: of streams; `name:fault` for one that shows nothing.
        """
        self.process.stdin.write('\t'.join(names) + '\n')
        self.process.stdin.flush()
        response = json.loads(self.process.stdout.readline())
        self.sent = response['sent']
        self.pauses_s.append(response['pause'])
        return float(response['time'])


@contextmanager
def sender_process(*arguments: Any, **options: Any) -> Iterator[SenderProcess]:
    """Run sensors; they do not outlive the block."""
    sender = SenderProcess(*arguments, **options)
    try:
        yield sender
    finally:
        sender.process.kill()
        sender.process.wait()
