"""The node's inputs: which topics it subscribes to, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import input_of, modality_type
from karmma_ros.modalities.message_types import COMPRESSED_IMAGE
from karmma_ros.modality import in_order, is_modality, Modality
from karmma_ros.node.log import NodeLog
from karmma_ros.node.message_handler import MessageHandler
from karmma_ros.node.subscription import InputTopic, message_class, TopicPlan
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.settings import with_topic
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def check_inputs(values: Mapping[str, Any], changed: Collection[str]) -> None:
    """
    Check that what a change of parameters selects can be decoded; it has no effect.

    :raises InvalidSettingError: for a value that its decoder refuses, such as a sample format,
        or a message type that is not installed.
    """
    inputs = {name.partition('.')[0] for name in changed}
    for modality in (Modality(name) for name in inputs if is_modality(name)):
        own = modality_type(modality)
        own.decoder(modality, values, {})
        if {f'{modality}.enabled', f'{modality}.type'} & set(changed) and (
                values[f'{modality}.enabled']):
            message_class(own.type_name(values), modality)


class Inputs:
    """The subscriptions of one node; its methods are for the executor's thread."""

    def __init__(
        self,
        node: Node,
        parameters: Mapping[str, Any],
        lock: Lock,
        on_message: Callable[[], None],
    ) -> None:
        """
        Prepare without subscribing; call `feed` before `start`.

        :param lock: guards the stream, which the worker reads.
        :param on_message: called after each message.
        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self._node, self._parameters, self._log = node, parameters, NodeLog(node)
        self._messages = MessageHandler(node, parameters, lock, on_message)
        self._modalities: frozenset[Modality] = frozenset()
        self._topics: dict[Modality, InputTopic] = {}
        self._failures: dict[Modality, str] = {}
        """Why an input could not be subscribed to."""
        self._infos: dict[Modality, Any] = {}
        """The subscriptions to topics that describe the data of an input."""
        self._spec = ClipSpec()
        self._running = False

    @property
    def frame_ids(self) -> dict[Modality, str]:
        """Return the last header.frame_id of each input."""
        return self._messages.frame_ids

    def feed(
        self, stream: SensorStream, spec: ClipSpec, modalities: Collection[Modality]
    ) -> None:
        """
        Store in another stream from now on the inputs of a model.

        An input that cannot be subscribed to is logged, and `check` tries again.

        :raises InvalidSettingError: when a message package is not installed; nothing changes.
        """
        for plan in self._plans(frozenset(modalities), spec).values():
            message_class(plan.type_name, plan.modality)
        self._modalities, self._spec = frozenset(modalities), spec
        self._messages.feed(stream, spec)
        if self._running:
            self._try_to_reconcile()

    def start(self) -> None:
        """
        Subscribe to every input that is enabled and that the model uses.

        :raises InvalidSettingError: for a QoS override that is not usable.
        """
        self._messages.reset()
        self._running = True
        self._reconcile()

    def stop(self) -> None:
        """Drop the subscriptions; safe to call twice."""
        self._running = False
        for modality in list(self._topics):
            self._close(modality)
        self._failures = {}

    def cancel(self) -> None:
        """Drop what was received but not stored yet."""
        self._messages.cancel()

    def update(self, names: Collection[str]) -> None:
        """Apply changed parameters; other inputs continue undisturbed."""
        if any(is_modality(name.partition('.')[0]) for name in names):
            self._messages.read_parameters()
        if self._running:
            self._try_to_reconcile()

    def check(self) -> None:
        """Follow what the publishers offer; call it about twice a second."""
        for modality, topic in list(self._topics.items()):
            try:
                topic.check()
            except (InvalidSettingError, RuntimeError):
                self._close(modality)
                self._failures[modality] = 'resubscribing failed'
            if modality in self._topics and modality not in self._messages.received:
                topic.warn_if_silent()
        if self._failures:
            with suppress(InvalidSettingError, RuntimeError):  # logged when it failed first
                self._reconcile()

    def facts(self, modality: Modality) -> dict[str, str]:
        """Return the diagnostic values of an input."""
        source = self._source(modality)
        if modality not in self._modalities:
            return {}
        facts = {'source': f'computed from {modality_type(source).label}'} if (
            source is not modality) else {}
        if source in self._topics:
            facts.update(self._topics[source].facts())
        if source in self._messages.formats:
            facts['format'] = self._messages.formats[source]
        if source in self.frame_ids:
            facts['frame_id'] = self.frame_ids[source]
        return facts

    def summary(self) -> str:
        """Return the subscribed topics with their types."""
        return ', '.join(f'{topic.plan.topic} ({topic.plan.type_name})'
                         for topic in self._topics.values()) or 'no topic'

    def problem(self, modality: Modality) -> str:
        """Return what is wrong with an input's topic and how to fix it; '' if nothing is."""
        source = self._source(modality)
        if not self._wanted(modality, self._modalities):
            return ''
        topic = self._topics.get(source)
        return self._failures.get(source) or (topic.problem if topic else '')

    def _source(self, modality: Modality, spec: ClipSpec | None = None) -> Modality:
        """Return the modality whose topic is subscribed to for this one."""
        return input_of(modality, self._spec if spec is None else spec,
                        with_topic(self._parameters, [modality]))

    def _wanted(self, modality: Modality, modalities: frozenset[Modality]) -> bool:
        return modality in modalities and self._parameters[f'{modality}.enabled']

    def _plans(
        self, modalities: frozenset[Modality], spec: ClipSpec,
    ) -> dict[Modality, TopicPlan]:
        """Return what to subscribe to."""
        sources = {self._source(m, spec) for m in modalities if self._wanted(m, modalities)}
        return {m: TopicPlan(
            m, self._topic(m), modality_type(m).type_name(self._parameters),
            self._parameters[f'{m}.qos']) for m in in_order(sources)}

    def _topic(self, modality: Modality) -> str:
        own = modality_type(modality)
        topic = self._node.resolve_topic_name(own.topic_name)
        if own.type_name(self._parameters) == COMPRESSED_IMAGE:
            topic = self._node.resolve_topic_name(topic + own.compressed_suffix)
        return topic

    def _try_to_reconcile(self) -> None:
        """Do as `_reconcile`, and log a failure."""
        try:
            self._reconcile()
        except (InvalidSettingError, RuntimeError) as failure:
            self._log.error(str(failure))

    def _reconcile(self) -> None:
        """Subscribe and unsubscribe as planned, and leave other subscriptions alone."""
        plans = self._plans(self._modalities, self._spec)
        for modality, topic in list(self._topics.items()):
            if plans.get(modality) != topic.plan:
                self._close(modality)
        self._failures = {}
        failures: list[Exception] = []
        for modality, plan in plans.items():
            if modality not in self._topics:
                try:
                    self._open(plan)
                except (InvalidSettingError, RuntimeError) as failure:  # RCLError is of the latter
                    self._failures[modality] = str(failure)
                    failures.append(failure)
        if failures:
            raise failures[0]

    def _open(self, plan: TopicPlan) -> None:
        message_type = message_class(plan.type_name, plan.modality)
        self._messages.received.discard(plan.modality)
        callback = self._messages.callback(plan.modality, plan.type_name)
        self._topics[plan.modality] = InputTopic(self._node, plan, message_type, callback)
        info = modality_type(plan.modality).info
        if info is not None and plan.type_name in info.of_types:
            self._infos[plan.modality] = self._node.create_subscription(
                message_class(info.type_name, plan.modality),
                modality_type(plan.modality).named(info.topic),
                partial(self._messages.on_info, plan.modality), _LATCHED)

    def _close(self, modality: Modality) -> None:
        self._topics.pop(modality).close()
        self._messages.stop(modality)
        info = self._infos.pop(modality, None)
        if info is not None:
            with suppress(Exception):  # the context may be gone
                self._node.destroy_subscription(info)
