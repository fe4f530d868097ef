"""
Play a rosbag2 bag over DDS in real time, where `ros2 bag play` is not installed.

Messages are published as the bytes of the bag, on the topics of the bag (remap them with
`--ros-args -r /image:=/camera/image_raw`). Sensors can be muted for a while:
`--mute audio@3s..6s`, and their data corrupted: `--corrupt camera=covered@10s..20s`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
import re
import signal
import sys
from threading import Event
import time
from typing import Any, Union

from karmma_ros.bags.corrupted_messages import CorruptedMessages
from karmma_ros.bags.faults import (
    Corrupt,
    CORRUPT_HELP,
    CORRUPT_METAVAR,
    corruption_of,
    parse_corrupt,
)
from karmma_ros.bags.reader import Bag, Topic
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import BagError, InvalidSettingError, printable
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality, registered_types
from karmma_ros.node.messages import time_message
from karmma_ros.stream.settings import (
    ALL_INPUTS,
    Mute,
    MUTE_HELP,
    MUTE_METAVAR,
    parse_mute,
    source_of,
)
import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2.metadata import parse_qos
from rosgraph_msgs.msg import Clock

_TYPE_NAME = re.compile(r'([a-z][a-z0-9_]*)/msg/([A-Z][A-Za-z0-9]*)')
_LONGEST_QOS = 1 << 16
"""Characters; a hundred publishers take half of it."""
_TICK_S = 0.02
"""Longest period of /clock between messages."""
_ACKNOWLEDGE_S = 1.0


@dataclass(frozen=True)
class _TopicPublisher:
    """A topic of the bag whose type is installed."""

    topic: str
    modality: Modality | None
    """The node's input of this type; None without."""
    publisher: Any
    mutes: tuple[Mute, ...]


Change = Callable[[Topic, int, bytes], Union[bytes, None]]
"""From a message of the bag, its time and its bytes to what is published; None drops it."""


class Player:
    """Publish the messages of an open bag at their times."""

    def __init__(
        self, node: Node, bag: Bag, inputs: Mapping[str, Modality | None],
        muted: Mapping[Mute, set[str]], *, rate: float = 1.0, clock: bool = False,
        change: Change = lambda topic, time_ns, data: data,
    ) -> None:
        """
        Create a publisher for each topic whose type is installed; print the others.

        :param inputs: every topic of the bag and its input.
        :param muted: the topics of each mute.
        """
        self._node, self._bag, self._rate, self._change = node, bag, rate, change
        self._clock = node.create_publisher(Clock, '/clock', 10) if clock else None
        self.read = 0
        """Messages read from the bag, of all topics."""
        self.sent: Counter[str] = Counter()
        self._publishers: dict[tuple[str, str], _TopicPublisher] = {}
        for key, topic in bag.topics.items():
            message_type = _message_type(topic.type)
            if message_type is None:
                report(f'{topic.name} skipped: {topic.type} is not installed')
                continue
            try:
                publisher = node.create_publisher(message_type, topic.name, _qos(topic))
            except Exception as error:  # rclpy raises several types for invalid names
                report(f'{topic.name} skipped: it cannot be published ({error})')
                continue
            self._publishers[key] = _TopicPublisher(
                topic.name, inputs[topic.name], publisher,
                tuple(m for m, topics in muted.items() if topic.name in topics))

    def wait(self, timeout_s: float, stop: Event) -> bool:
        """Wait until each sensor topic has a subscriber; return False at the timeout."""
        sensors = [o for o in self._publishers.values() if o.modality is not None]
        deadline = time.monotonic() + timeout_s
        while not stop.is_set() and time.monotonic() < deadline:
            if all(topic.publisher.get_subscription_count() for topic in sensors):
                # A subscriber is discovered here a moment before it discovers this publisher.
                stop.wait(0.2)
                return True
            stop.wait(0.05)
        return False

    def play(self, stop: Event) -> None:
        """Play the bag once, or until `stop` is set."""
        begin_ns, begun = self._bag.start_ns, time.monotonic()
        for topic, time_ns, data in self._bag.messages(list(self._bag.topics.values())):
            self.read += 1
            seconds = (time_ns - begin_ns) / NANOSECONDS
            for now_s in self._until(begun, seconds, stop):
                self._tick(begin_ns + round(now_s * NANOSECONDS))
            if stop.is_set():
                return
            self._tick(time_ns)
            output = self._publishers.get((topic.name, topic.type))
            if output is None or any(m.covers(seconds) for m in output.mutes):
                continue
            changed = self._change(topic, time_ns, data)
            if changed is not None:
                output.publisher.publish(bytes(changed))
                self.sent[output.topic] += 1

    def finish(self) -> None:
        """Wait until subscribers have acknowledged, a second at most."""
        deadline = time.monotonic() + _ACKNOWLEDGE_S
        for topic in self._publishers.values():
            left_s = max(deadline - time.monotonic(), 0.0)
            topic.publisher.wait_for_all_acked(Duration(seconds=left_s))

    def _until(self, begun: float, seconds: float, stop: Event) -> Iterator[float]:
        """Sleep until `seconds` of the bag; yield the bag's time at each tick."""
        while not stop.is_set():
            now_s = (time.monotonic() - begun) * self._rate
            if now_s >= seconds:
                return
            pause_s = (seconds - now_s) / self._rate
            stop.wait(min(pause_s, _TICK_S))
            if pause_s > _TICK_S:
                yield min((time.monotonic() - begun) * self._rate, seconds)

    def _tick(self, time_ns: int) -> None:
        if self._clock is not None:
            self._clock.publish(Clock(clock=time_message(time_ns)))


def muted_topics(
    mutes: Iterable[Mute], inputs: Mapping[str, Modality | None],
) -> dict[Mute, set[str]]:
    """
    Return the topics of each mute.

    :param inputs: every topic of the bag and its input.
    :raises InvalidSettingError: for a mute of what the bag does not contain.
    """
    return {mute: _topics_of(mute.input, inputs, 'mute') for mute in mutes}


def _topics_of(name: str, inputs: Mapping[str, Modality | None], option: str) -> set[str]:
    """Return the topics of an input that an option names."""
    topics = {topic for topic, modality in inputs.items() if name == topic
              or modality is not None and name in (ALL_INPUTS, modality.value)}
    if not topics:
        listing = ', '.join(f'{topic} ({modality})' if modality else topic
                            for topic, modality in inputs.items())
        source = source_of(name)
        raise InvalidSettingError(
            f'--{option}', name, f'an input or topic of the bag: {listing or "it has none"}',
            '' if source is None else f'{name} is computed from '
            f'{modality_type(source).label} here: {option} {source}')
    return topics


def corrupted_topics(
    faults: Iterable[Corrupt], inputs: Mapping[str, Modality | None],
) -> dict[Corrupt, set[str]]:
    """
    Return the topics of each fault, which then names the modality of its topic.

    :param inputs: every topic of the bag and its input.
    :raises InvalidSettingError: for a fault of what is no input of the bag.
    """
    known = {topic: modality for topic, modality in inputs.items() if modality is not None}
    corrupted = {}
    for fault in faults:
        topics = _topics_of(fault.input, known, 'corrupt')
        own = replace(fault, input=next(known[topic].value for topic in topics))
        corruption_of(own)
        corrupted[own] = topics
    return corrupted


def _inputs(bag: Bag) -> dict[str, Modality | None]:
    """Return every topic of a bag and its input of the node, by type and encoding."""
    types = [modality_type(Modality(name)) for name in registered_types()]
    return {topic.name: next((own.modality for own in types if topic.type in own.message_types
                              and (not own.has_frames or own.rank(_encoding(bag, topic)))), None)
            for topic in bag.topics.values()}


def _encoding(bag: Bag, topic: Topic) -> str:
    """Return the encoding or format of the first image of a topic; '' when it cannot be read."""
    message_type = _message_type(topic.type)
    for _, _, data in bag.messages([topic]) if message_type else ():
        try:
            message = deserialize_message(bytes(data), message_type)
            return str(getattr(message, 'encoding', '') or message.format)
        except Exception:  # rclpy raises several types; a damaged first image has none
            return ''
    return ''


def _message_type(type_name: str) -> Any:
    """Return the message class of `package/msg/Name`; None if it is not installed."""
    match = _TYPE_NAME.fullmatch(type_name)
    if match is None:
        return None
    try:
        return getattr(import_module(f'{match[1]}.msg'), match[2])
    except (ImportError, AttributeError):
        return None


def _qos(topic: Topic) -> QoSProfile:
    """Return the recorded QoS; reliable without one."""
    profile = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    try:
        offered = parse_qos(topic.qos) if len(topic.qos) <= _LONGEST_QOS else []
    except Exception:  # rosbags raises several types for damaged YAML
        offered = []
    for recorded in offered[:1]:
        if recorded.reliability is QosReliability.BEST_EFFORT:
            profile.reliability = ReliabilityPolicy.BEST_EFFORT
        if recorded.durability is QosDurability.TRANSIENT_LOCAL:
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return profile


def report(text: str) -> None:
    """Print one line at once, also into a pipe."""
    print(f'replay: {printable(text, 1000)}', flush=True)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='karmma replay', description=__doc__.splitlines()[1])
    parser.add_argument('bag', metavar='BAG', help='.mcap or .db3 file, or rosbag2 folder')
    parser.add_argument('--rate', type=float, default=1.0,
                        help='speed, as a multiple of real time [1]')
    parser.add_argument(
        '--mute', action='append', default=[], metavar=MUTE_METAVAR, help=MUTE_HELP
    )
    parser.add_argument('--corrupt', action='append', default=[], metavar=CORRUPT_METAVAR,
                        help=f'{CORRUPT_HELP}; may be repeated. Of other messages than images '
                        'and audio only those that repeat or drop them'.replace('%', '%%'))
    parser.add_argument('--loop', action='store_true', help='start again at the end of the bag')
    parser.add_argument('--clock', action='store_true',
                        help="publish the bag's time on /clock, for nodes with use_sim_time")
    parser.add_argument('--wait', type=float, default=10.0, metavar='SECONDS',
                        help='longest wait for a subscriber of every input; 0 starts at once '
                        '[10]')
    options = parser.parse_args(arguments)
    if not options.rate > 0:
        raise InvalidSettingError('--rate', options.rate, 'a number above 0')
    options.mute = [parse_mute(text) for text in options.mute]
    options.corrupt = [parse_corrupt(text) for text in options.corrupt]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a bag with these arguments until its end, SIGINT or SIGTERM."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    words = [sys.argv[0], *(sys.argv[1:] if arguments is None else arguments)]
    try:
        options = _options(remove_ros_args(words)[1:])
        with Bag(Path(options.bag)) as bag:
            # Before a node is created: a mute of an absent topic is an error.
            options.inputs = _inputs(bag)
            options.muted = muted_topics(options.mute, options.inputs)
            corrupted = corrupted_topics(options.corrupt, options.inputs)
            options.change = CorruptedMessages(bag, {
                fault: [topic for topic in bag.topics.values() if topic.name in names]
                for fault, names in corrupted.items()})
            rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
            try:
                return _play(rclpy.create_node('karmma_replay'), bag, options, stop)
            finally:
                rclpy.try_shutdown()
    except BagError as error:
        problem = InvalidSettingError('BAG', str(error.path), 'a readable rosbag2 bag', str(error))
        print(f'karmma replay: {problem}', file=sys.stderr)
    except InvalidSettingError as error:
        print(f'karmma replay: {error}', file=sys.stderr)
    return 2


def _play(node: Node, bag: Bag, options: argparse.Namespace, stop: Event) -> int:
    """Return the exit status: 1 if something of the bag was not played."""
    player = Player(node, bag, options.inputs, options.muted, rate=options.rate,
                    clock=options.clock, change=options.change)
    if options.wait and not player.wait(options.wait, stop):
        report('not every sensor topic has a subscriber; playing nevertheless')
    begun = time.monotonic()
    while not stop.is_set():
        player.play(stop)
        if not options.loop:
            break
    took_s = time.monotonic() - begun
    if not stop.is_set():
        player.finish()
    sent = ', '.join(f'{n} {topic}' for topic, n in player.sent.items()) or 'nothing'
    report(f'sent {sent} in {took_s:.1f} s')
    node.destroy_node()
    problems = [f'{count:,} {why}' for why, count in bag.missing.items()]
    if not player.read and not stop.is_set():
        problems.append('no message could be read')
    if problems:
        problem = printable('; '.join([*problems, *bag.warnings]), 1000)
        print(f'karmma replay: {printable(bag.path)}: not all was played: {problem}',
              file=sys.stderr)
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
