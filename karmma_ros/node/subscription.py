"""One subscription of the node, and what can be said of its topic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
import time
from typing import Any

from karmma_ros.errors import InvalidSettingError, printable
from karmma_ros.modality import Modality
from karmma_ros.node.log import NodeLog
from karmma_ros.stream.message_types import (
    AUDIO_DATA,
    AUDIO_DATA_STAMPED,
    AUDIO_STAMPED,
    COMPRESSED_IMAGE,
    DETECTIONS,
    IMAGE,
    unread_type,
    YOLO,
)
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_MAX_DEPTH = 1000
_CHOICES = {
    'history': ('keep_last', 'keep_all'),
    'reliability': ('reliable', 'best_effort'),
}


def choose_reliability(
    setting: str, offers: Iterable[ReliabilityPolicy], now: ReliabilityPolicy,
) -> ReliabilityPolicy:
    """
    Return what to ask for, from a `qos` parameter and what the publishers offer.

    auto asks for reliable delivery where every publisher offers it; without publishers it
    stays at what is asked for now.
    """
    if setting != 'auto':
        wanted = setting == 'reliable'
    else:
        offered = list(offers)
        if not offered:
            return now
        wanted = all(offer is ReliabilityPolicy.RELIABLE for offer in offered)
    return ReliabilityPolicy.RELIABLE if wanted else ReliabilityPolicy.BEST_EFFORT


def say(reliability: ReliabilityPolicy) -> str:
    """Name a reliability as people do."""
    return reliability.name.lower().replace('_', ' ')


def reliability_parameter(topic: str) -> str:
    """Name the parameter by which ROS overrides the reliability of a subscription."""
    return f'{_prefix(topic)}reliability'


def subscribe(
    node: Node, kind: Any, topic: str, callback: Callable[[Any], None], profile: QoSProfile,
    incompatible: Callable[[Any], None],
) -> Any:
    """
    Subscribe with a profile, of which `qos_overrides.<topic>.subscription.…` may change parts.

    Reliability is declared only when it is overridden: a parameter that were declared with
    today's value would hold it for ever.

    :param incompatible: called when a publisher offers less than is asked for.
    :raises InvalidSettingError: for an override that is not usable.
    """
    given = {name: _override(node, f'{_prefix(topic)}{name}')
             for name in ('history', 'depth', 'reliability')}
    for name, value in given.items():
        _check(f'{_prefix(topic)}{name}', name, value)
    kinds = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]
    if given['reliability'] is not None:
        kinds.append(QoSPolicyKind.RELIABILITY)
    return node.create_subscription(
        kind, topic, callback, profile, qos_overriding_options=QoSOverridingOptions(kinds),
        event_callbacks=SubscriptionEventCallbacks(
            incompatible_qos=incompatible, use_default_callbacks=False))


def is_overridden(node: Node, topic: str) -> bool:
    """Return whether the reliability of a subscription is not ours to choose."""
    return node.has_parameter(reliability_parameter(topic))


def _prefix(topic: str) -> str:
    return f'qos_overrides.{topic}.subscription.'


def _override(node: Node, name: str) -> Any:
    """Return an override, or None; declared without a type, for rclpy raises at a wrong one."""
    if node.has_parameter(name):
        return node.get_parameter(name).value
    value = node.declare_parameter(name, None, ParameterDescriptor(dynamic_typing=True)).value
    node.undeclare_parameter(name)
    return value


def _check(parameter: str, name: str, value: Any) -> None:
    if value is None:
        return
    remedy = 'start the node again with another one'
    if name == 'depth':
        if type(value) is not int or not 1 <= value <= _MAX_DEPTH:
            raise InvalidSettingError(
                parameter, value, f'a whole number from 1 to {_MAX_DEPTH}', remedy)
    elif str(value).lower() not in _CHOICES[name]:
        raise InvalidSettingError(parameter, value, ' or '.join(_CHOICES[name]), remedy)


COMPRESSED = '/compressed'
"""Where image_transport publishes the compressed pictures of a topic."""


def message_class(type_name: str, modality: Modality) -> Any:
    """
    Return the class of a message type such as `sensor_msgs/msg/Image`.

    :raises InvalidSettingError: when its package, which is not required, is not installed.
    """
    package, _, name = type_name.split('/')
    try:
        return getattr(import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError):
        raise _missing(type_name, package, modality) from None


def _missing(type_name: str, package: str, modality: Modality) -> InvalidSettingError:
    off = f'set {modality}.enabled to false'
    if type_name == AUDIO_STAMPED:
        return InvalidSettingError(
            'audio.type', type_name, 'a type that is installed',
            'build https://github.com/mgonzs13/audio_common and source its workspace last, for '
            f'another package has its name; or set audio.type to {AUDIO_DATA_STAMPED}, or {off}')
    if type_name == YOLO:
        return InvalidSettingError(
            'detections.type', type_name, 'a type that is installed',
            'build https://github.com/mgonzs13/yolo_ros and source its workspace; or set '
            f'detections.type to {DETECTIONS}, or {off}')
    install = f'install ros-$ROS_DISTRO-{package.replace("_", "-")} and source ROS again'
    if modality is Modality.AUDIO and _installed(AUDIO_STAMPED):
        install = f'set audio.type to {AUDIO_STAMPED}, which is installed under this name'
    return InvalidSettingError(
        f'{modality}.enabled', True, f'true only where {type_name} is installed',
        f'{install}, or {off}')


def _installed(type_name: str) -> bool:
    package, _, name = type_name.split('/')
    try:
        return hasattr(import_module(f'{package}.msg'), name)
    except ImportError:
        return False


def fix_hint(modality: Modality, topic: str, taken: str, offered: str) -> str:
    """Say what to do about a topic that carries another type than the one that is taken."""
    if (taken, offered) == (IMAGE, COMPRESSED_IMAGE) and modality is Modality.RGB:
        if topic.endswith(COMPRESSED):
            return (f'set rgb.transport to compressed and remap image to '
                    f'{topic[:-len(COMPRESSED)]}')
        return f'set rgb.transport to compressed and remap image/compressed to {topic}'
    if (taken, offered) == (COMPRESSED_IMAGE, IMAGE):
        return f'set rgb.transport to raw and remap image to {topic}'
    if modality is Modality.AUDIO and offered in (AUDIO_DATA, AUDIO_DATA_STAMPED, AUDIO_STAMPED):
        return f'set audio.type to {offered}'
    if modality is Modality.DETECTIONS and offered in (DETECTIONS, YOLO):
        return f'set detections.type to {offered}'
    unread = unread_type(offered)
    if unread is not None and unread.modality is modality:
        return unread.cure.format(topic=topic)
    name = 'image' if modality is Modality.RGB else modality
    return f'remap {name} to a topic of {taken}'


# Decoding only the newest picture keeps a slow machine from working on stale ones; sound
# must not lose a message, for every gap is heard by the network.
_DEPTHS = {Modality.RGB: 1, Modality.FLOW: 5, Modality.AUDIO: 50, Modality.DETECTIONS: 5}
# While publishers are being discovered, or restart, what they offer changes for a moment.
_LOOKS_BEFORE_CHANGE = 2
_PLUGINS = ('/ffmpeg', '/theora', '/h264')
"""Where the other plugins of image_transport publish what they make of a topic."""
_PATIENCE_S = 10.0
"""After so long without its first message an input is warned about."""
_UNKNOWN_NODE = '_NODE_NAME_UNKNOWN_'


@dataclass(frozen=True)
class TopicPlan:
    """What to subscribe to; one that equals the old one needs no new subscription."""

    modality: Modality
    topic: str
    """Its full name."""
    type_name: str
    qos: str
    """The `qos` parameter: auto, sensor_data or reliable."""


class InputTopic:
    """Subscribe as planned, follow what the publishers offer, and say what is wrong with it."""

    def __init__(
        self, node: Node, plan: TopicPlan, kind: Any, callback: Callable[[Any], None],
    ) -> None:
        """
        Subscribe.

        :param kind: the message class.
        :raises InvalidSettingError: for a QoS override that is not usable.
        """
        self.plan, self._node, self._kind, self._callback = plan, node, kind, callback
        self._log = NodeLog(node)
        self._wanted = ReliabilityPolicy.BEST_EFFORT
        self._changes = 0
        self._subscription: Any = None
        self._said = ''
        self._since_s = time.monotonic()
        self._missed = False
        """Whether it was warned about that nothing came."""
        self._heard = ''
        """The problem that was found at the last look."""
        self.problem = ''
        """What is wrong with the topic's publishers, and how to mend it; '' if nothing is."""
        publishers = self._publishers()
        self._open(self._choose(publishers))
        self._judge(publishers)

    def close(self) -> None:
        """Unsubscribe; safe to call twice."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(Exception):  # the context may be gone
                self._node.destroy_subscription(subscription)

    def watch(self) -> None:
        """Look at the publishers again; subscribe anew if they offer something else for long."""
        publishers = self._publishers()
        wanted = self._choose(publishers)
        self._changes = self._changes + 1 if wanted is not self._wanted else 0
        if self._changes >= _LOOKS_BEFORE_CHANGE and not self._overridden:
            self._changes = 0
            self.close()
            self._open(wanted)
        self._judge(publishers)

    def miss(self) -> None:
        """Warn, once, that no message has come in all the time since the subscription."""
        if self._missed or time.monotonic() - self._since_s < _PATIENCE_S:
            return
        self._missed = True
        plan, publishers = self.plan, self._publishers()
        offers = ', '.join(sorted(f'{_name(p)} ({printable(p.topic_type)}, '
                                  f'{say(p.qos_profile.reliability)})' for p in publishers))
        cause = self.problem or (
            f'published by {offers}: check that it sends, and the network' if offers else
            f'nobody publishes it: start the driver, remap the topic, or set '
            f'{plan.modality}.enabled to false')
        self._log.warning(f'{plan.modality}: nothing received on {plan.topic} ({plan.type_name}) '
                          f'for {_PATIENCE_S:g} s: {cause}')

    def facts(self) -> dict[str, str]:
        """Return what a person would look up first."""
        profile = self._profile
        source = 'qos_overrides' if self._overridden else self.plan.qos
        names = sorted(_name(p) for p in self._publishers())
        return {
            'topic': self.plan.topic,
            'type': self.plan.type_name,
            'qos': f'{say(profile.reliability)}, depth {profile.depth} ({source})',
            'publishers': ', '.join(names) or 'none',
        }

    @property
    def _overridden(self) -> bool:
        return is_overridden(self._node, self.plan.topic)

    def _open(self, reliability: ReliabilityPolicy) -> None:
        self._wanted = reliability
        profile = QoSProfile(depth=_DEPTHS[self.plan.modality], reliability=reliability)
        self._subscription = subscribe(
            self._node, self._kind, self.plan.topic, self._callback, profile,
            lambda _: self._judge(self._publishers()))
        self._profile = self._subscription.qos_profile

    def _publishers(self, topic: str = '') -> list[Any]:
        """Return who publishes the input's topic, or another one."""
        with suppress(RuntimeError):  # RCLError: the context may be gone
            return list(self._node.get_publishers_info_by_topic(topic or self.plan.topic))
        return []

    def _choose(self, publishers: Sequence[Any]) -> ReliabilityPolicy:
        offers = [p.qos_profile.reliability for p in publishers
                  if p.topic_type == self.plan.type_name]
        return choose_reliability(self.plan.qos, offers, self._wanted)

    def _judge(self, publishers: Sequence[Any]) -> None:
        """Find out what is wrong, and say it once it has lasted for two looks."""
        ours = [p for p in publishers if p.topic_type == self.plan.type_name]
        others = [p for p in publishers if p.topic_type != self.plan.type_name]
        problems = [self._wrong_type(other) for other in others]
        problems.append(self._too_little(ours))
        if len(ours) > 1:
            names = ' and '.join(sorted(_name(p) for p in ours))
            problems.append(f'{self.plan.topic}: {len(ours)} publishers, {names}: their messages '
                            'interleave; remap all but one to another topic')
        if not publishers:
            problems.append(self._elsewhere())
        self.problem = '; '.join(dict.fromkeys(filter(None, problems)))
        lasting = self.problem if self.problem == self._heard else ''
        self._heard = self.problem
        if lasting and lasting != self._said and self._log.warning(
                f'{self.plan.modality}: {lasting}', topic=self.plan.topic):
            self._said = lasting

    def _wrong_type(self, publisher: Any) -> str:
        plan, offered = self.plan, printable(publisher.topic_type)
        return (f'{plan.topic}: {_name(publisher)} publishes {offered}, not {plan.type_name}: '
                f'{fix_hint(plan.modality, plan.topic, plan.type_name, offered)}')

    def _too_little(self, publishers: Sequence[Any]) -> str:
        """Name the publishers that we hear nothing of."""
        if self._profile.reliability is not ReliabilityPolicy.RELIABLE:
            return ''
        if self.plan.qos == 'auto' and not self._overridden:
            return ''  # it is about to ask for less, by itself
        names = [_name(p) for p in publishers
                 if p.qos_profile.reliability is ReliabilityPolicy.BEST_EFFORT]
        if not names:
            return ''
        remedy = f'set {self.plan.modality}.qos to auto or sensor_data'
        if self._overridden:
            remedy = f'start the node without {reliability_parameter(self.plan.topic)}'
        return (f'{self.plan.topic}: {", ".join(sorted(names))} offers best effort, the node asks '
                f'for reliable, so nothing is received: {remedy}')

    def _elsewhere(self) -> str:
        """Point to the other transport of the camera, if that is what is published."""
        topic, taken = self.plan.topic, self.plan.type_name
        if self.plan.modality is not Modality.RGB:
            return ''
        base = topic
        if taken == COMPRESSED_IMAGE and topic.endswith(COMPRESSED):
            other = base = topic[:-len(COMPRESSED)]
            transport = 'raw'
        elif taken == IMAGE:
            other, transport = topic + COMPRESSED, 'compressed'
        else:
            return ''
        if self._node.count_publishers(other):
            return (f'{topic}: nobody publishes it, but {other} is: set rgb.transport to '
                    f'{transport}')
        return self._by_plugin(base)

    def _by_plugin(self, base: str) -> str:
        """Name another transport of the camera that is published and cannot be read."""
        for suffix in _PLUGINS:
            for publisher in self._publishers(base + suffix):
                unread = unread_type(publisher.topic_type)
                if unread is not None and unread.modality is Modality.RGB:
                    return (f'{self.plan.topic}: nobody publishes it, but {base}{suffix} is, of '
                            f'{publisher.topic_type}, which is not read: '
                            f'{unread.cure.format(topic=base + suffix)}')
        return ''


def _name(publisher: Any) -> str:
    """Return the full name of the node behind a publisher."""
    name = publisher.node_name
    if not name or name == _UNKNOWN_NODE:
        return 'an unknown node'
    return printable(f'{publisher.node_namespace.rstrip("/")}/{name}')
