"""
The demo: a bag plays through ROS 2 into the node while sensors fall silent or show nothing.

The node runs as a process of its own, is driven through its lifecycle services, and receives the
bag over DDS in simulated time. The last line has the score; the exit status is 0 on success.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

from karmma_msgs.msg import (
    ActionAnnotation,
    ActionRecognition,
    ModalityAvailability,
    ModalityStatus,
)
from karmma_ros.errors import KarmmaError
from karmma_ros.node.messages import time_ns
from karmma_ros.node.watch import Changes, recognition_line, seconds, subscribe
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions

EPISODES, EPISODE_S, SEED = 12, 4.0, 0
MUTES = (
    ('audio', 14.0, 17.0),
    ('detections', 18.0, 21.0),
    ('camera', 22.0, 28.0),
    ('detections', 25.0, 28.0),
    ('audio', 30.0, 33.0),
    ('detections', 30.0, 33.0),
)
"""What sends nothing, from when to when, seconds of the bag."""
CORRUPTIONS = (
    ('camera', 'black', 35.0, 39.0),
    ('microphone', 'silence', 41.0, 45.0),
)
"""What sends data without content: a covered lens, a muted microphone."""

_ENOUGH_RECOGNITIONS, _ENOUGH_CORRECT, _ENOUGH_MASKS = 20, 0.8, 4
_SERVICE_TIMEOUT_S = 60.0
_ROOT = Path(__file__).parents[2]


class DemoError(KarmmaError):
    """A process that the demo needs failed."""


@dataclass
class DemoScore:
    """Counts of results, and of those that were compared with the ground truth."""

    recognitions: int = 0
    scored: int = 0
    correct: int = 0
    masks: set[tuple[str, ...]] = field(default_factory=set)
    truths: list[Any] = field(default_factory=list)

    def add(self, message: Any) -> bool | None:
        """Count one result; return whether it is correct, None without one true action."""
        used = tuple(s.name for s in message.modalities if s.used)
        self.recognitions += 1
        self.masks.add(used)
        truth = self._truth(message)
        if truth is None:
            return None
        correct = _is_correct(message, truth)
        if len(used) == sum(s.state != ModalityStatus.DISABLED for s in message.modalities):
            self.scored += 1
            self.correct += correct
        return correct

    def _truth(self, message: Any) -> Any:
        """Return the annotation that contains the window."""
        start, end = time_ns(message.window_start), time_ns(message.window_end)
        for truth in self.truths:
            if time_ns(truth.header.stamp) <= start and end <= time_ns(truth.end):
                return truth
        return None

    @property
    def passed(self) -> bool:
        """Return whether there are enough results, masks and correct predictions."""
        return (self.recognitions >= _ENOUGH_RECOGNITIONS and len(self.masks) >= _ENOUGH_MASKS
                and self.scored > 0 and self.correct / self.scored >= _ENOUGH_CORRECT)

    def line(self) -> str:
        """Return the last line of the output."""
        return (f'demo: {self.recognitions} recognitions, {self.correct} of {self.scored} correct '
                f'with all sensors, {len(self.masks)} masks seen')


def _is_correct(message: Any, truth: Any) -> bool:
    """
    Return whether the best action is the true one.

    A model with one head is correct when its class is the verb, the noun or both words together.
    """
    best = [labels[0].class_name for labels in (message.verbs, message.nouns) if labels]
    if len(best) == 1:
        return best[0] in (truth.verb, truth.noun, f'{truth.verb} {truth.noun}')
    return best == [truth.verb, truth.noun]


class Screen:
    """Print lines; colours only on a terminal."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and 'NO_COLOR' not in os.environ

    def print(self, text: str, colour: int | None = None) -> None:
        """Print one line at once; `colour` is an ANSI code."""
        if colour is not None and self._colours:
            text = f'\033[{colour}m{text}\033[0m'
        print(text, flush=True)


class DemoMonitor:
    """Subscribe to results and ground truth, print them, and keep the score."""

    def __init__(self, node: Node, screen: Screen) -> None:
        """Subscribe."""
        self.score, self._screen, self._changes = DemoScore(), screen, Changes()
        self._start_s: float | None = None
        subscribe(node, self._recognition, self._availability)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(
            ActionAnnotation, 'ground_truth', self._truth, latched)

    def _truth(self, message: Any) -> None:
        self.score.truths.append(message)
        start_s = seconds(message.header.stamp)
        self._start_s = start_s if self._start_s is None else self._start_s
        self._screen.print(f'{start_s - self._start_s:6.1f} s  now: {message.verb} {message.noun}',
                         36)

    def _recognition(self, message: ActionRecognition) -> None:
        correct = self.score.add(message)
        if self._start_s is not None:
            mark, colour = {None: (' ', 2), True: ('✓', 32), False: ('✗', 31)}[correct]
            self._screen.print(f'{recognition_line(message, self._start_s)}  {mark}', colour)

    def _availability(self, message: ModalityAvailability) -> None:
        for line in self._changes.lines(message):
            self._screen.print(f'          {line}', 33)


class Driver:
    """Drive the node's lifecycle through its services."""

    def __init__(self, node: Node, process: subprocess.Popen[bytes]) -> None:
        """Prepare to drive the node that runs as `process`."""
        self._node, self._process = node, process
        self._client = node.create_client(ChangeState, 'karmma/change_state')

    def change(self, transition: int, name: str) -> None:
        """
        Request a transition and wait for the response.

        :raises DemoError: without a response, or when the node rejects it and logs why.
        """
        self._wait_for_service(name)
        request = ChangeState.Request(transition=Transition(id=transition))
        future = self._client.call_async(request)
        rclpy.spin_until_future_complete(self._node, future, timeout_sec=_SERVICE_TIMEOUT_S)
        if not future.done():
            raise DemoError(f'the node did not finish {name} in {_SERVICE_TIMEOUT_S:g} s')
        if not future.result().success:
            raise DemoError(f'the node rejected {name}; its log above has the reason')

    def _wait_for_service(self, name: str) -> None:
        deadline = time.monotonic() + _SERVICE_TIMEOUT_S
        while not self._client.wait_for_service(timeout_sec=0.2):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f'no node to {name}')


@contextmanager
def running(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module as a process, which is ended on exit."""
    # A session of its own: Ctrl-C reaches this process alone, which ends the others in order.
    process = subprocess.Popen(
        [sys.executable, '-m', module, *arguments], start_new_session=True)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def prepare_bag(folder: Path) -> Path:
    """
    Return the demo's bag, written unless it exists.

    :raises DemoError: when it cannot be written.
    """
    bag = folder / f'kitchen_{EPISODES}x{EPISODE_S:g}s_seed{SEED}_{_kitchen_digest()}.mcap'
    if not bag.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for older in folder.glob('kitchen_*.mcap'):
            older.unlink()
        words = ['bag', 'synthetic', str(bag), '--episodes', str(EPISODES),
                 '--seconds', str(EPISODE_S), '--seed', str(SEED)]
        if subprocess.run([sys.executable, '-m', 'karmma_ros.cli.main', *words]).returncode:
            raise DemoError(f'the bag could not be written to {bag}')
    return bag


def _kitchen_digest() -> str:
    """Return a digest of the kitchen's code: an older bag has other content."""
    sources = sorted((_ROOT / 'karmma_ros' / 'data' / 'synthetic_kitchen').glob('*.py'))
    return sha256(b''.join(path.read_bytes() for path in sources)).hexdigest()[:8]


def isolate() -> None:
    """Use a domain of its own on this machine, away from other robots."""
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    profile = _ROOT / 'config' / 'node' / 'fastdds.xml'
    if profile.is_file():
        os.environ.setdefault('FASTRTPS_DEFAULT_PROFILES_FILE', str(profile))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='demo', description=__doc__.splitlines()[1])
    parser.add_argument('--model', default='synthetic_kitchen', help='name or path of a model')
    parser.add_argument('--rate', type=float, default=5.0, help='recognitions a second [5]')
    parser.add_argument('--speed', type=float, default=1.0, help='times real time [1]')
    parser.add_argument('--cache', type=Path, default=Path('.cache') / 'demo',
                        help='folder that keeps the bag [.cache/demo]')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 on success."""
    options, screen = _options(arguments), Screen()
    isolate()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        bag = prepare_bag(options.cache)
        score = perform(bag, options, screen)
    except DemoError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    screen.print(score.line())
    return 0 if score.passed else 1


def perform(bag: Path, options: argparse.Namespace, screen: Screen) -> DemoScore:
    """Run node and player until the bag ends; return the score."""
    with ExitStack() as stack:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        node = rclpy.create_node('karmma_demo')
        process = stack.enter_context(running(
            'karmma_ros.node', '--ros-args', '-p', 'use_sim_time:=true',
            '-p', f'model:={options.model}', '-p', f'rate:={options.rate}'))
        monitor, driver = DemoMonitor(node, screen), Driver(node, process)
        driver.change(Transition.TRANSITION_CONFIGURE, 'configure')
        driver.change(Transition.TRANSITION_ACTIVATE, 'activate')
        _announce(screen)
        faults = [w for what, start, stop in MUTES for w in ('--mute', f'{what}@{start}..{stop}')]
        faults += [w for what, name, start, stop in CORRUPTIONS
                   for w in ('--corrupt', f'{what}={name}@{start}..{stop}')]
        player = stack.enter_context(
            running('karmma_ros.node.player', str(bag), '--clock', '--rate', str(options.speed),
                    *faults))
        while player.poll() is None:
            rclpy.spin_once(node, timeout_sec=0.1)
            if process.poll() is not None:
                raise DemoError('the node ended before the bag did')
        driver.change(Transition.TRANSITION_DEACTIVATE, 'deactivate')
        return monitor.score


def _announce(screen: Screen) -> None:
    screen.print('Sensors that fail, in seconds of the bag:')
    for what, start, stop in MUTES:
        screen.print(f'  {start:4.0f} to {stop:2.0f}  {what} sends nothing')
    for what, name, start, stop in CORRUPTIONS:
        screen.print(f'  {start:4.0f} to {stop:2.0f}  {what} sends {name}')
    screen.print(
        'V camera, F flow, A audio, D detections; ✓ ✗ where a window lies in one action'
    )


if __name__ == '__main__':
    sys.exit(main())
