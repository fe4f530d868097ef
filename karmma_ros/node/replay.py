"""
Play a rosbag2 bag over DDS in real time, where `ros2 bag play` is not at hand.

Messages go out as the bytes that the bag holds, on the topics it names (remap them with
`--ros-args -r /image:=/camera/image_raw`). Sensors can be muted for a while, to see what
recognition makes of it: `--mute audio@3s..6s`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
import re
import signal
import sys
from threading import Event
import time
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError, printable
from karmma_ros.modality import Modality
from karmma_ros.node.times import time_message
import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock

_TYPES = {
    Modality.RGB: 'sensor_msgs/msg/Image',
    Modality.AUDIO: 'audio_common_msgs/msg/AudioDataStamped',
    Modality.DETECTIONS: 'vision_msgs/msg/Detection2DArray',
}
_MUTE = re.compile(r'(?P<what>[^@]+)(@(?P<start>[\d.]+)s?\.\.(?P<stop>[\d.]*)s?)?')
# Between messages that are further apart than this, /clock ticks on its own.
_TICK_S = 0.02
_ACKNOWLEDGE_S = 1.0


@dataclass(frozen=True)
class Mute:
    """One sensor or topic that is silent for a while; seconds from the start of the bag."""

    what: str
    """A topic, or the message type of a sensor."""
    start: float = 0.0
    stop: float = float('inf')

    def covers(self, topic: str, type_name: str, seconds: float) -> bool:
        """Tell whether a message of the bag is to be held back."""
        return self.what in (topic, type_name) and self.start <= seconds < self.stop

    @classmethod
    def parse(cls, text: str) -> Mute:
        """
        Read `audio@3s..6s`, `camera@10..`, `detections` or `/some/topic@1..2`.

        :raises InvalidSettingError: for anything else.
        """
        match = _MUTE.fullmatch(text.strip())
        try:
            what, start_s, stop_s = match.group('what', 'start', 'stop') if match else ('',) * 3
            modality = None if what.startswith('/') else Modality.parse(what)
            start, stop = float(start_s or 0), float(stop_s or 'inf')
        except ValueError:
            raise InvalidSettingError(
                '--mute', text, 'WHAT or WHAT@START..STOP, WHAT being camera, audio, detections '
                'or a /topic, and the times seconds from the start of the bag') from None
        if modality is Modality.FLOW:
            raise InvalidSettingError('--mute', text, 'camera, audio, detections or a /topic',
                                      'flow is computed from the camera: mute that')
        return cls(what if modality is None else _TYPES[modality], start, stop)


@dataclass(frozen=True)
class _Outlet:
    """One topic of the bag that this machine can publish."""

    topic: str
    type_name: str
    publisher: Any


class Player:
    """Publish the messages of one open bag at their times."""

    def __init__(
        self, node: Node, bag: Reader, *, rate: float = 1.0, mutes: Sequence[Mute] = (),
        clock: bool = False,
    ) -> None:
        """Make a publisher for each topic whose type this machine has; say which it lacks."""
        self._node, self._bag, self._rate, self._mutes = node, bag, rate, mutes
        self._clock = node.create_publisher(Clock, '/clock', 10) if clock else None
        self.sent: Counter[str] = Counter()
        self._outlets: dict[int, _Outlet] = {}
        for connection in bag.connections:
            message_type = _message_type(connection.msgtype)
            if message_type is None:
                say(f'{connection.topic} skipped: {connection.msgtype} is not on this machine')
                continue
            publisher = node.create_publisher(message_type, connection.topic, _qos(connection))
            self._outlets[connection.id] = _Outlet(
                connection.topic, connection.msgtype, publisher)

    def wait(self, timeout_s: float, stop: Event) -> bool:
        """Wait until each sensor topic has a subscriber; False when it was in vain."""
        sensors = [o for o in self._outlets.values() if o.type_name in _TYPES.values()]
        deadline = time.monotonic() + timeout_s
        while not stop.is_set() and time.monotonic() < deadline:
            if all(outlet.publisher.get_subscription_count() for outlet in sensors):
                # A reader is known here a moment before it knows us.
                stop.wait(0.2)
                return True
            stop.wait(0.05)
        return False

    def play(self, stop: Event) -> None:
        """Play the bag once, or until `stop` is set."""
        begin_ns, begun = self._bag.start_time, time.monotonic()
        for connection, time_ns, data in self._bag.messages():
            seconds = (time_ns - begin_ns) / NANOSECONDS
            for now_s in self._until(begun, seconds, stop):
                self._tick(begin_ns + round(now_s * NANOSECONDS))
            if stop.is_set():
                return
            self._tick(time_ns)
            outlet = self._outlets.get(connection.id)
            if outlet is not None and not self._muted(outlet, seconds):
                outlet.publisher.publish(bytes(data))
                self.sent[outlet.topic] += 1

    def finish(self) -> None:
        """Wait a little for what was sent to arrive."""
        deadline = time.monotonic() + _ACKNOWLEDGE_S
        for outlet in self._outlets.values():
            left_s = max(deadline - time.monotonic(), 0.0)
            outlet.publisher.wait_for_all_acked(Duration(seconds=left_s))

    def _until(self, begun: float, seconds: float, stop: Event) -> Iterator[float]:
        """Sleep until `seconds` of the bag; give the bag's time at each tick on the way."""
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

    def _muted(self, outlet: _Outlet, seconds: float) -> bool:
        return any(m.covers(outlet.topic, outlet.type_name, seconds) for m in self._mutes)


def _message_type(type_name: str) -> Any:
    """Give the message class of `package/msg/Name`, None where the package is absent."""
    package, _, name = type_name.split('/')
    try:
        return getattr(import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError):
        return None


def _qos(connection: Any) -> QoSProfile:
    """Offer what was recorded; reliable, if the bag does not say."""
    profile = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
    for recorded in connection.ext.offered_qos_profiles[:1]:
        if recorded.reliability is QosReliability.BEST_EFFORT:
            profile.reliability = ReliabilityPolicy.BEST_EFFORT
        if recorded.durability is QosDurability.TRANSIENT_LOCAL:
            profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return profile


def say(text: str) -> None:
    """Print one line at once, also into a pipe."""
    print(f'replay: {printable(text, 1000)}', flush=True)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='karmma replay', description=__doc__.splitlines()[1])
    parser.add_argument('bag', metavar='BAG', help='.mcap or .db3 file, or rosbag2 folder')
    parser.add_argument('--rate', type=float, default=1.0, help='times real time [1]')
    parser.add_argument('--mute', action='append', default=[], metavar='WHAT[@START..STOP]',
                        help='hold back camera, audio, detections or a /topic; repeatable')
    parser.add_argument('--loop', action='store_true', help='start again at the end')
    parser.add_argument('--clock', action='store_true',
                        help="publish the bag's time on /clock, for nodes with use_sim_time")
    parser.add_argument('--wait', type=float, default=10.0, metavar='SECONDS',
                        help='for subscribers, at most [10]; 0 starts at once')
    options = parser.parse_args(arguments)
    if not options.rate > 0:
        raise InvalidSettingError('--rate', options.rate, 'a number above 0')
    options.mute = [Mute.parse(text) for text in options.mute]
    return options


def _open(path: str) -> Reader:
    try:
        bag = Reader(Path(path))
        bag.open()
    except Exception as error:  # rosbags raises a kind of its own for each storage
        raise InvalidSettingError('BAG', path, 'a readable rosbag2 bag', str(error)) from None
    return bag


def main(arguments: Sequence[str] | None = None) -> int:
    """Play a bag as the arguments say; SIGINT and SIGTERM end it in order."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    words = [sys.argv[0], *(sys.argv[1:] if arguments is None else arguments)]
    try:
        options = _options(remove_ros_args(words)[1:])
        bag = _open(options.bag)
    except InvalidSettingError as error:
        print(f'karmma replay: {error}', file=sys.stderr)
        return 2
    rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
    try:
        _play(rclpy.create_node('karmma_replay'), bag, options, stop)
    finally:
        bag.close()
        rclpy.try_shutdown()
    return 0


def _play(node: Node, bag: Reader, options: argparse.Namespace, stop: Event) -> None:
    player = Player(node, bag, rate=options.rate, mutes=options.mute, clock=options.clock)
    if options.wait and not player.wait(options.wait, stop):
        say('nobody listens on every sensor topic; playing all the same')
    begun = time.monotonic()
    while not stop.is_set():
        player.play(stop)
        if not options.loop:
            break
    took_s = time.monotonic() - begun
    if not stop.is_set():
        player.finish()
    sent = ', '.join(f'{n} {topic}' for topic, n in player.sent.items()) or 'nothing'
    say(f'sent {sent} in {took_s:.1f} s')
    node.destroy_node()


if __name__ == '__main__':
    sys.exit(main())
