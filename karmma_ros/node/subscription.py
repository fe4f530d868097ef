"""
The subscription of one input: its message type and publishers.

Message types are imported only when needed, since not all packages are installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
import time
from typing import Any

from karmma_ros.errors import InvalidSettingError, printable
from karmma_ros.modalities import modality_type, unsupported_type
from karmma_ros.modalities.message_types import (
    AUDIO_DATA_STAMPED,
    AUDIO_STAMPED,
    COMPRESSED_IMAGE,
    DETECTIONS,
    IMAGE,
    YOLO,
)
from karmma_ros.modality import Modality
from karmma_ros.node.log import NodeLog
from karmma_ros.node.qos import (
    choose_reliability,
    is_overridden,
    reliability_parameter,
    reliability_text,
    subscribe,
)
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

SERIALIZED = (IMAGE, COMPRESSED_IMAGE)
"""
Types that are received as bytes: rclpy copies an image twice, each time to new memory, which takes
longer than all that is done with the image later.
"""


def message_class(type_name: str, modality: Modality) -> Any:
    """
    Return the class of a message type such as `sensor_msgs/msg/Image`.

    :raises InvalidSettingError: when its package, which is not required, is not installed.
    """
    message_type = _find_class(type_name)
    if message_type is None:
        raise _missing(type_name, modality)
    return message_type


def _find_class(type_name: str) -> Any:
    package, _, name = type_name.split('/')
    try:
        return getattr(import_module(f'{package}.msg'), name, None)
    except ImportError:
        return None


def _missing(type_name: str, modality: Modality) -> InvalidSettingError:
    off = f'set {modality}.enabled to false'
    if type_name == AUDIO_STAMPED:
        return InvalidSettingError(
            f'{modality}.type', type_name, 'a type that is installed',
            'build https://github.com/mgonzs13/audio_common and source its workspace last, for '
            f'another package has its name; or set {modality}.type to {AUDIO_DATA_STAMPED}, or '
            f'{off}')
    if type_name == YOLO:
        return InvalidSettingError(
            f'{modality}.type', type_name, 'a type that is installed',
            'build https://github.com/mgonzs13/yolo_ros and source its workspace; or set '
            f'{modality}.type to {DETECTIONS}, or {off}')
    package = type_name.partition('/')[0].replace('_', '-')
    install = f'install ros-$ROS_DISTRO-{package} and source ROS again'
    if modality.type_name == 'audio' and _find_class(AUDIO_STAMPED):
        install = f'set {modality}.type to {AUDIO_STAMPED}, which is installed under this name'
    else:
        own = modality_type(modality)
        others = [each for each in own.message_types if _find_class(each)]
        if others and any(each.name == f'{modality}.type' for each in own.declarations()):
            off = f'set {modality}.type to {" or ".join(others)}, or {off}'
    return InvalidSettingError(
        f'{modality}.enabled', True, f'true only where {type_name} is installed',
        f'{install}, or {off}')


def fix_hint(modality: Modality, topic: str, expected: str, offered: str) -> str:
    """Return what to do about a topic of another type than the expected one."""
    own = modality_type(modality)
    name = own.topic_name
    if COMPRESSED_IMAGE in own.message_types:
        if (expected, offered) == (IMAGE, COMPRESSED_IMAGE):
            suffix = own.compressed_suffix
            if topic.endswith(suffix):
                return (f'set {modality}.transport to compressed and remap {name} to '
                        f'{topic[:-len(suffix)]}')
            return f'set {modality}.transport to compressed and remap {name}{suffix} to {topic}'
        if (expected, offered) == (COMPRESSED_IMAGE, IMAGE):
            return f'set {modality}.transport to raw and remap {name} to {topic}'
    elif offered in own.message_types:
        return f'set {modality}.type to {offered}'
    unread = unsupported_type(offered)
    if unread is not None and unread.modality.type_name == modality.type_name:
        return unread.remedy.format(topic=topic)
    return f'remap {name} to a topic of {expected}'


_CHECKS_BEFORE_CHANGE = 2
"""While publishers are being discovered, or restart, their offers change for a moment."""
_PLUGINS = ('/ffmpeg', '/theora', '/h264')
"""Suffixes of the topics of other image_transport plugins."""
_PATIENCE_S = 10.0
"""Time without a first message after which a warning is logged."""
_UNKNOWN_NODE = '_NODE_NAME_UNKNOWN_'


@dataclass(frozen=True)
class TopicPlan:
    """What to subscribe to; an equal plan needs no new subscription."""

    modality: Modality
    topic: str
    """Its fully qualified name."""
    type_name: str
    qos: str
    """The `qos` parameter: auto, sensor_data or reliable."""


class InputTopic:
    """Subscribe as planned, and follow and check what the publishers offer."""

    def __init__(
        self, node: Node, plan: TopicPlan, message_type: Any, callback: Callable[[Any], None],
    ) -> None:
        """
        Subscribe; the callback takes bytes where the plan's type is in `SERIALIZED`.

        :raises InvalidSettingError: for a QoS override that is not usable.
        """
        self.plan, self._node, self._callback = plan, node, callback
        self._message_type = message_type
        self._log = NodeLog(node)
        self._wanted = ReliabilityPolicy.BEST_EFFORT
        self._changes = 0
        self._subscription: Any = None
        self._logged = ''
        self._since_s = time.monotonic()
        self._warned = False
        """Whether it was logged that nothing is received."""
        self._last_problem = ''
        """The problem at the last check."""
        self.problem = ''
        """What is wrong with the topic's publishers, and how to fix it; '' if nothing is."""
        publishers = self._publishers()
        self._open(self._choose(publishers))
        self._check_publishers(publishers)

    def close(self) -> None:
        """Unsubscribe; safe to call twice."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(Exception):  # the context may be gone
                self._node.destroy_subscription(subscription)

    def check(self) -> None:
        """Check the publishers; resubscribe if their offers have changed for two checks."""
        publishers = self._publishers()
        wanted = self._choose(publishers)
        self._changes = self._changes + 1 if wanted is not self._wanted else 0
        if self._changes >= _CHECKS_BEFORE_CHANGE and not self._overridden:
            self._changes = 0
            self.close()
            self._open(wanted)
        self._check_publishers(publishers)

    def warn_if_silent(self) -> None:
        """Warn, once, that no message was received since the subscription."""
        if self._warned or time.monotonic() - self._since_s < _PATIENCE_S:
            return
        self._warned = True
        plan, publishers = self.plan, self._publishers()
        offers = ', '.join(
            sorted(
                f'{_name(p)} ({printable(p.topic_type)}, '
                f'{reliability_text(p.qos_profile.reliability)})'
                for p in publishers
            )
        )
        cause = self.problem or (
            f'published by {offers}: check that it sends, and the network' if offers else
            f'no publisher: start the driver, remap the topic, or set '
            f'{plan.modality}.enabled to false')
        self._log.warning(f'{plan.modality}: nothing received on {plan.topic} ({plan.type_name}) '
                          f'for {_PATIENCE_S:g} s: {cause}')

    def facts(self) -> dict[str, str]:
        """Return topic, type, QoS and publishers for diagnostics."""
        profile = self._profile
        source = 'qos_overrides' if self._overridden else self.plan.qos
        names = sorted(_name(p) for p in self._publishers())
        return {
            'topic': self.plan.topic,
            'type': self.plan.type_name,
            'qos': f'{reliability_text(profile.reliability)}, depth {profile.depth} ({source})',
            'publishers': ', '.join(names) or 'none',
        }

    @property
    def _overridden(self) -> bool:
        return is_overridden(self._node, self.plan.topic)

    def _open(self, reliability: ReliabilityPolicy) -> None:
        self._wanted = reliability
        depth = modality_type(self.plan.modality).depth
        profile = QoSProfile(depth=depth, reliability=reliability)
        self._subscription = subscribe(
            self._node, self._message_type, self.plan.topic, self._callback, profile,
            lambda _: self._check_publishers(self._publishers()),
            self.plan.type_name in SERIALIZED)
        self._profile = self._subscription.qos_profile

    def _publishers(self, topic: str = '') -> list[Any]:
        """Return the publishers of the input's topic, or of another one."""
        with suppress(RuntimeError):  # RCLError: the context may be gone
            return list(self._node.get_publishers_info_by_topic(topic or self.plan.topic))
        return []

    def _choose(self, publishers: Sequence[Any]) -> ReliabilityPolicy:
        offers = [p.qos_profile.reliability for p in publishers
                  if p.topic_type == self.plan.type_name]
        return choose_reliability(self.plan.qos, offers, self._wanted)

    def _check_publishers(self, publishers: Sequence[Any]) -> None:
        """Update the problem, and log it once two checks have found it."""
        matching = [p for p in publishers if p.topic_type == self.plan.type_name]
        others = [p for p in publishers if p.topic_type != self.plan.type_name]
        problems = [self._wrong_type(other) for other in others]
        problems.append(self._incompatible(matching))
        if len(matching) > 1:
            names = ' and '.join(sorted(_name(p) for p in matching))
            problems.append(
                f'{self.plan.topic}: {len(matching)} publishers, {names}: their messages '
                'interleave; remap all but one to another topic'
            )
        if not publishers:
            problems.append(self._other_transport())
        self.problem = '; '.join(dict.fromkeys(filter(None, problems)))
        lasting = self.problem if self.problem == self._last_problem else ''
        self._last_problem = self.problem
        if lasting and lasting != self._logged and self._log.warning(
                f'{self.plan.modality}: {lasting}', topic=self.plan.topic):
            self._logged = lasting

    def _wrong_type(self, publisher: Any) -> str:
        plan, offered = self.plan, printable(publisher.topic_type)
        return (f'{plan.topic}: {_name(publisher)} publishes {offered}, not {plan.type_name}: '
                f'{fix_hint(plan.modality, plan.topic, plan.type_name, offered)}')

    def _incompatible(self, publishers: Sequence[Any]) -> str:
        """Return which publishers offer less than is requested."""
        if self._profile.reliability is not ReliabilityPolicy.RELIABLE:
            return ''
        if self.plan.qos == 'auto' and not self._overridden:
            return ''  # auto will request less
        names = [_name(p) for p in publishers
                 if p.qos_profile.reliability is ReliabilityPolicy.BEST_EFFORT]
        if not names:
            return ''
        remedy = f'set {self.plan.modality}.qos to auto or sensor_data'
        if self._overridden:
            remedy = f'start the node without {reliability_parameter(self.plan.topic)}'
        return (f'{self.plan.topic}: {", ".join(sorted(names))} offers best effort, the node '
                f'requests reliable, so nothing is received: {remedy}')

    def _other_transport(self) -> str:
        """Return which other transport of the camera is published."""
        topic, type_name = self.plan.topic, self.plan.type_name
        modality, own = self.plan.modality, modality_type(self.plan.modality)
        suffix = own.compressed_suffix
        if COMPRESSED_IMAGE not in own.message_types:
            return ''
        base = topic
        if type_name == COMPRESSED_IMAGE and topic.endswith(suffix):
            other = base = topic[:-len(suffix)]
            transport = 'raw'
        elif type_name == IMAGE:
            other, transport = topic + suffix, 'compressed'
        else:
            return ''
        if self._node.count_publishers(other):
            return (f'{topic}: no publisher, but {other} is: set {modality}.transport to '
                    f'{transport}')
        return self._plugin_transport(base)

    def _plugin_transport(self, base: str) -> str:
        """Return which transport is published that cannot be decoded."""
        for suffix in _PLUGINS:
            for publisher in self._publishers(base + suffix):
                unread = unsupported_type(publisher.topic_type)
                if unread is not None and unread.modality is Modality.RGB:
                    return (f'{self.plan.topic}: no publisher, but {base}{suffix} is, of '
                            f'{publisher.topic_type}, which cannot be decoded: '
                            f'{unread.remedy.format(topic=base + suffix)}')
        return ''


def _name(publisher: Any) -> str:
    """Return the full name of the node behind a publisher."""
    name = publisher.node_name
    if not name or name == _UNKNOWN_NODE:
        return 'an unknown node'
    return printable(f'{publisher.node_namespace.rstrip("/")}/{name}')
