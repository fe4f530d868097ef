"""The quality of service of a subscription, with the overrides of ROS parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from karmma_ros.errors import InvalidSettingError
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
    setting: str, offers: Iterable[ReliabilityPolicy], current: ReliabilityPolicy,
) -> ReliabilityPolicy:
    """
    Return what to request, from a `qos` parameter and what the publishers offer.

    auto requests reliable delivery where every publisher offers it; without publishers the
    current request stays.
    """
    if setting != 'auto':
        wanted = setting == 'reliable'
    else:
        offered = list(offers)
        if not offered:
            return current
        wanted = all(offer is ReliabilityPolicy.RELIABLE for offer in offered)
    return ReliabilityPolicy.RELIABLE if wanted else ReliabilityPolicy.BEST_EFFORT


def reliability_text(reliability: ReliabilityPolicy) -> str:
    """Return a reliability in words."""
    return reliability.name.lower().replace('_', ' ')


def reliability_parameter(topic: str) -> str:
    """Return the parameter by which ROS overrides the reliability of a subscription."""
    return f'{_prefix(topic)}reliability'


def subscribe(
    node: Node, message_type: Any, topic: str, callback: Callable[[Any], None],
    profile: QoSProfile, incompatible: Callable[[Any], None], serialized: bool = False,
) -> Any:
    """
    Subscribe with a profile, of which `qos_overrides.<topic>.subscription.…` may change parts.

    Reliability is declared only when it is overridden: a declared parameter would keep its
    value for ever.

    :param incompatible: called when a publisher offers less than is requested.
    :param serialized: whether the callback takes the bytes of the message.
    :raises InvalidSettingError: for an override that is not usable.
    """
    given = {name: _override(node, f'{_prefix(topic)}{name}')
             for name in ('history', 'depth', 'reliability')}
    for name, value in given.items():
        _check(f'{_prefix(topic)}{name}', name, value)
    policies = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]
    if given['reliability'] is not None:
        policies.append(QoSPolicyKind.RELIABILITY)
    return node.create_subscription(
        message_type, topic, callback, profile, raw=serialized,
        qos_overriding_options=QoSOverridingOptions(policies),
        event_callbacks=SubscriptionEventCallbacks(
            incompatible_qos=incompatible, use_default_callbacks=False))


def is_overridden(node: Node, topic: str) -> bool:
    """Return whether the reliability of a subscription is overridden."""
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
    remedy = 'restart the node with another value'
    if name == 'depth':
        if type(value) is not int or not 1 <= value <= _MAX_DEPTH:
            raise InvalidSettingError(
                parameter, value, f'a whole number from 1 to {_MAX_DEPTH}', remedy)
    elif str(value).lower() not in _CHOICES[name]:
        raise InvalidSettingError(parameter, value, ' or '.join(_CHOICES[name]), remedy)
