"""
The demo: a bag plays through ROS 2 into the node while its sensors are cut one by one.

Everything is real: the node runs as a process of its own, is driven through its
lifecycle services, and hears the bag over DDS in simulated time. The last line says how
it went; the exit status is 0 when it went well.
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

EPISODES, EPISODE_S, SEED = 9, 4.0, 0
MUTES = (
    ('audio', 14.0, 17.0),
    ('detections', 18.0, 21.0),
    ('camera', 22.0, 28.0),
    ('detections', 25.0, 28.0),
    ('audio', 30.0, 33.0),
    ('detections', 30.0, 33.0),
)
"""What is cut, from when to when, seconds of the bag."""

_ENOUGH_RECOGNITIONS, _ENOUGH_RIGHT, _ENOUGH_MASKS = 20, 0.8, 4
_SERVICE_TIMEOUT_S = 60.0
_ROOT = Path(__file__).parents[2]


class DemoError(KarmmaError):
    """Something the demo needs did not come up."""


@dataclass
class Score:
    """Count what was recognised, and what of it can be held against the truth."""

    recognitions: int = 0
    judged: int = 0
    right: int = 0
    masks: set[tuple[str, ...]] = field(default_factory=set)
    truths: list[Any] = field(default_factory=list)

    def add(self, message: Any) -> bool | None:
        """Count one result; tell whether it is right, None where the truth is not one action."""
        used = tuple(s.name for s in message.modalities if s.used)
        self.recognitions += 1
        self.masks.add(used)
        truth = self._truth(message)
        if truth is None:
            return None
        right = _is_right(message, truth)
        if len(used) == sum(s.state != ModalityStatus.DISABLED for s in message.modalities):
            self.judged += 1
            self.right += right
        return right

    def _truth(self, message: Any) -> Any:
        """Return the annotation in which the whole window lies."""
        start, end = time_ns(message.window_start), time_ns(message.window_end)
        for truth in self.truths:
            if time_ns(truth.header.stamp) <= start and end <= time_ns(truth.stop):
                return truth
        return None

    @property
    def passed(self) -> bool:
        """Return whether the demo shows what it is to show."""
        return (self.recognitions >= _ENOUGH_RECOGNITIONS and len(self.masks) >= _ENOUGH_MASKS
                and self.judged > 0 and self.right / self.judged >= _ENOUGH_RIGHT)

    def line(self) -> str:
        """Return the line that the demo ends with."""
        return (f'demo: {self.recognitions} recognitions, {self.right} of {self.judged} right '
                f'with all sensors, {len(self.masks)} masks seen')


def _is_right(message: Any, truth: Any) -> bool:
    """
    Whether the best action is the true one.

    A model with one head is right when its class is the verb, the noun or both words together.
    """
    best = [labels[0].class_name for labels in (message.verbs, message.nouns) if labels]
    if len(best) == 1:
        return best[0] in (truth.verb, truth.noun, f'{truth.verb} {truth.noun}')
    return best == [truth.verb, truth.noun]


class Screen:
    """Print what happens; colours only on a terminal."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and 'NO_COLOR' not in os.environ

    def say(self, text: str, colour: int | None = None) -> None:
        """Print one line at once; `colour` is an ANSI code."""
        if colour is not None and self._colours:
            text = f'\033[{colour}m{text}\033[0m'
        print(text, flush=True)


class DemoMonitor:
    """Listen to the node and the truth, print, and keep the score."""

    def __init__(self, node: Node, screen: Screen) -> None:
        """Subscribe."""
        self.score, self._screen, self._changes = Score(), screen, Changes()
        self._start_s: float | None = None
        subscribe(node, self._recognition, self._availability)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(
            ActionAnnotation, 'ground_truth', self._truth, latched)

    def _truth(self, message: Any) -> None:
        self.score.truths.append(message)
        start_s = seconds(message.header.stamp)
        self._start_s = start_s if self._start_s is None else self._start_s
        self._screen.say(f'{start_s - self._start_s:6.1f} s  now: {message.verb} {message.noun}',
                         36)

    def _recognition(self, message: ActionRecognition) -> None:
        right = self.score.add(message)
        if self._start_s is not None:
            mark, colour = {None: (' ', 2), True: ('✓', 32), False: ('✗', 31)}[right]
            self._screen.say(f'{recognition_line(message, self._start_s)}  {mark}', colour)

    def _availability(self, message: ModalityAvailability) -> None:
        for line in self._changes.lines(message):
            self._screen.say(f'          {line}', 33)


class Driver:
    """Drive the node's lifecycle through its services."""

    def __init__(self, node: Node, process: subprocess.Popen[bytes]) -> None:
        """Prepare to drive the node that runs as `process`."""
        self._node, self._process = node, process
        self._client = node.create_client(ChangeState, 'karmma/change_state')

    def change(self, transition: int, name: str) -> None:
        """
        Ask for a transition and wait for it.

        :raises DemoError: when the node does not answer, or refuses; it has said why.
        """
        self._wait_for_service(name)
        request = ChangeState.Request(transition=Transition(id=transition))
        future = self._client.call_async(request)
        rclpy.spin_until_future_complete(self._node, future, timeout_sec=_SERVICE_TIMEOUT_S)
        if not future.done():
            raise DemoError(f'the node did not finish {name} in {_SERVICE_TIMEOUT_S:g} s')
        if not future.result().success:
            raise DemoError(f'the node refused {name}; its own line above says why')

    def _wait_for_service(self, name: str) -> None:
        deadline = time.monotonic() + _SERVICE_TIMEOUT_S
        while not self._client.wait_for_service(timeout_sec=0.2):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f'the node is not there to {name}')


@contextmanager
def running(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module as a process; it is ended, gently first, whatever happens."""
    # A session of its own: Ctrl-C reaches us alone, and we end the others in order.
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
    Return the demo's bag, writing it when it is not there from the last time.

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
    """Return digits that change with the kitchen's code: an older bag shows another kitchen."""
    sources = sorted((_ROOT / 'karmma_ros' / 'data' / 'synthetic_kitchen').glob('*.py'))
    return sha256(b''.join(path.read_bytes() for path in sources)).hexdigest()[:8]


def isolate() -> None:
    """Keep to this machine and to a domain of our own; other robots shall not hear us."""
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
    """Run the demo; 0 when it shows what it is to show."""
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
    screen.say(score.line())
    return 0 if score.passed else 1


def perform(bag: Path, options: argparse.Namespace, screen: Screen) -> Score:
    """Run node and player, listen until the bag ends, and give the score."""
    with ExitStack() as stack:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        node = rclpy.create_node('karmma_demo')
        process = stack.enter_context(running(
            'karmma_ros.node', '--ros-args', '-p', 'use_sim_time:=true',
            '-p', f'model:={options.model}', '-p', f'rate:={options.rate}'))
        audience, driver = DemoMonitor(node, screen), Driver(node, process)
        driver.change(Transition.TRANSITION_CONFIGURE, 'configure')
        driver.change(Transition.TRANSITION_ACTIVATE, 'activate')
        _announce(screen)
        mutes = [w for what, start, stop in MUTES for w in ('--mute', f'{what}@{start}..{stop}')]
        player = stack.enter_context(
            running('karmma_ros.node.player', str(bag), '--clock', '--rate', str(options.speed),
                    *mutes))
        while player.poll() is None:
            rclpy.spin_once(node, timeout_sec=0.1)
            if process.poll() is not None:
                raise DemoError('the node ended before the bag did')
        driver.change(Transition.TRANSITION_DEACTIVATE, 'deactivate')
        return audience.score


def _announce(screen: Screen) -> None:
    screen.say('The sensors will be cut at these seconds of the bag:')
    for what, start, stop in MUTES:
        screen.say(f'  {start:4.0f} to {stop:2.0f}  {what}')
    screen.say('V camera, F flow, A audio, D detections; ✓ ✗ where one action fills the window')


if __name__ == '__main__':
    sys.exit(main())
