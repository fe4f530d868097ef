"""The quality of service of a subscription: asked for, overridden, held against the offers."""

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
    setting: str, offers: Iterable[ReliabilityPolicy], now: ReliabilityPolicy,
) -> ReliabilityPolicy:
    """
    Give what to ask for, from a `qos` parameter and what the publishers offer.

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
    """Tell whether the reliability of a subscription is not ours to choose."""
    return node.has_parameter(reliability_parameter(topic))


def _prefix(topic: str) -> str:
    return f'qos_overrides.{topic}.subscription.'


def _override(node: Node, name: str) -> Any:
    """Give an override, or None; declared without a type, for rclpy would raise at a wrong one."""
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
