"""
The node's inputs: the subscriptions and their callbacks.

A callback decodes and stores a message (`stream/ingest.py`); compressed images, which may take as
long as a window, are decoded in a thread (`image_decoder.py`). What is wrong with a message is
counted and logged; no exception leaves a callback.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError, printable
from karmma_ros.modality import in_order, Modality
from karmma_ros.node.image_decoder import ImageDecoder
from karmma_ros.node.log import NodeLog
from karmma_ros.node.subscription import COMPRESSED, InputTopic, message_class, TopicPlan
from karmma_ros.stream import message_types as types
from karmma_ros.stream.decoders import stamp_ns_of
from karmma_ros.stream.ingest import (
    InputMessage,
    make_audio_decoder,
    MessageIngest,
    ReceivedMessage,
)
from karmma_ros.stream.message_types import COMPRESSED_IMAGE
from karmma_ros.stream.sensor_stream import SensorStream
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

_FOREIGN_CLOCK_NS = 10 * NANOSECONDS
_MAX_FORMAT = 60
"""Characters that are kept of a format field."""
_MAX_FRAME_ID = 255


class MessageHandler:
    """The callbacks of all inputs, and what was received through them."""

    def __init__(
        self, node: Node, values: Mapping[str, Any], lock: Lock, on_message: Callable[[], None],
    ) -> None:
        """
        Create the decoders from the parameters.

        :param lock: guards the stream, which the worker reads.
        :param on_message: called after each message.
        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self._node, self._ingest, self._on_message = node, MessageIngest(values, lock), on_message
        self._log = NodeLog(node)
        self._decoder = ImageDecoder(node, self._store)
        self._values, self._crop = values, (0, 0)
        self.frame_ids: dict[Modality, str] = {}
        """The last header.frame_id of each input, for results."""
        self.reset()

    def feed(self, stream: SensorStream, spec: ClipSpec) -> None:
        """Store messages in this stream from now on."""
        self.cancel()
        self._ingest.feed(stream)
        self._crop = spec.video.height, spec.video.width

    def reset(self) -> None:
        """Clear what was logged and received, the driver's audio format included."""
        self._log.reset()
        self.received: set[Modality] = set()
        """Inputs with a message since their subscription."""
        self._checked: set[Modality] = set()
        """Inputs whose first stamp was checked."""
        self.formats: dict[Modality, str] = {}
        """How the last message of each input was encoded."""
        self._logged_info = ''
        self._ingest.reset_audio_info()

    def cancel(self) -> None:
        """Drop the images that are being decoded."""
        self._decoder.cancel()

    def stop(self) -> None:
        """Drop the images that are being decoded, and end the decoding thread."""
        self._decoder.stop()

    def read_parameters(self) -> None:
        """Create the decoders anew; what is known from messages stays."""
        self._ingest.read_parameters()

    def callback(self, modality: Modality, type_name: str) -> Callable[[Any], None]:
        """Return the callback of a subscription."""
        def callback(message: Any) -> None:
            now_ns = self._node.get_clock().now().nanoseconds
            self.received.add(modality)
            self._check_header(modality, message, now_ns)
            received = ReceivedMessage(
                modality, type_name, message, self._crop, self._values['rgb.bits']
            )
            self._store_format(modality, type_name, message)
            if type_name != COMPRESSED_IMAGE:
                self._store(received, now_ns)
            elif self._ingest.wants_image(received, now_ns):
                self._decoder.submit(received, now_ns)
            else:
                self._on_message()
        return callback

    def _store(self, message: InputMessage, now_ns: int) -> None:
        """Store a message that was received at this time, or count why it is dropped."""
        rejection = self._ingest.add(message, now_ns)
        modality = message.modality
        if modality is Modality.AUDIO:  # the format is known once a message was read
            self.formats[modality] = self._ingest.describe_audio(message.type_name)
        if rejection:
            self._log.warning(f'{modality}: message dropped: {rejection}', topic=modality.value)
        self._on_message()

    def on_audio_info(self, info: Any) -> None:
        """Apply the format that the audio driver publishes."""
        try:
            problem = self._ingest.set_audio_info(info)
        except InvalidSampleError as error:
            problem = str(error)
        if not problem or problem != self._logged_info and (
                self._log.warning(f'audio: {problem}', topic='audio_info')):
            self._logged_info = problem

    def _check_header(self, modality: Modality, message: Any, now_ns: int) -> None:
        """Store the frame id, and check the first stamp."""
        header = getattr(message, 'header', None)
        if header is None:
            return
        self.frame_ids[modality] = printable(header.frame_id, _MAX_FRAME_ID)
        if modality in self._checked or not now_ns:  # no clock yet
            return
        with suppress(InvalidSampleError):  # the message is rejected because of it later
            self._check_stamp(modality, stamp_ns_of(header), now_ns)
            self._checked.add(modality)

    def _check_stamp(self, modality: Modality, stamp_ns: int, now_ns: int) -> None:
        """Warn about stamps that cannot be used."""
        if stamp_ns == 0:
            self._log.warning(
                f'{modality}: header.stamp is zero; the time of receipt is used. Let the '
                'driver stamp its messages')
        elif abs(now_ns - stamp_ns) > _FOREIGN_CLOCK_NS:
            self._log.warning(
                f'{modality}: stamps differ from the node clock by '
                f'{(now_ns - stamp_ns) / NANOSECONDS:.0f} s; results continue, their '
                'end_to_end_latency is unknown. If a bag is playing: play it with --clock and '
                'set use_sim_time to true')

    def _store_format(self, modality: Modality, type_name: str, message: Any) -> None:
        if type_name == COMPRESSED_IMAGE:
            self.formats[modality] = printable(message.format, _MAX_FORMAT)
        elif modality in (Modality.RGB, Modality.FLOW):
            self.formats[modality] = (
                f'{printable(message.encoding, _MAX_FORMAT)}, '
                f'{message.width} x {message.height}')


TOPICS = {Modality.RGB: 'image', Modality.FLOW: 'flow', Modality.AUDIO: 'audio',
          Modality.DETECTIONS: 'detections'}
"""Relative names, to be remapped; compressed images are received on image/compressed."""

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_DECODER_PARAMETERS = frozenset([
    'audio.sample_rate', 'audio.channels', 'audio.sample_format', 'detections.image_width',
    'detections.image_height', 'detections.hand_classes', 'detections.ignored_classes',
    'detections.min_score', 'detections.normalised', 'detections.offset_x',
    'detections.offset_y'])


def check_inputs(values: Mapping[str, Any], changed: Collection[str]) -> None:
    """
    Check that what a change of parameters selects can be decoded; it has no effect.

    :raises InvalidSettingError: for a sample format that cannot be decoded, or a message
        type that is not installed.
    """
    if 'audio.sample_format' in changed:
        make_audio_decoder(values)
    for modality in (Modality.AUDIO, Modality.DETECTIONS):
        if {f'{modality}.enabled', f'{modality}.type'} & set(changed) and (
                values[f'{modality}.enabled']):
            message_class(_type_name(modality, values), modality)


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
        self._info: Any = None
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

        :raises InvalidSettingError: when a message package is not installed; nothing changes.
        """
        for plan in self._plans(frozenset(modalities)).values():
            message_class(plan.type_name, plan.modality)
        self._modalities = frozenset(modalities)
        self._messages.feed(stream, spec)
        if self._running:
            self._reconcile()

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
        if _DECODER_PARAMETERS & set(names):
            self._messages.read_parameters()
        if self._running:
            try:
                self._reconcile()
            except (InvalidSettingError, RuntimeError) as failure:
                self._log.error(str(failure))

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
        facts = {'source': 'computed from the camera'} if source is not modality else {}
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

    def _source(self, modality: Modality) -> Modality:
        """Return the modality whose topic is subscribed to for this one."""
        computed = modality is Modality.FLOW and self._parameters['flow.source'] == 'computed'
        return Modality.RGB if computed else modality

    def _wanted(self, modality: Modality, modalities: frozenset[Modality]) -> bool:
        return modality in modalities and self._parameters[f'{modality}.enabled']

    def _plans(self, modalities: frozenset[Modality]) -> dict[Modality, TopicPlan]:
        """Return what to subscribe to."""
        sources = {self._source(m) for m in modalities if self._wanted(m, modalities)}
        return {m: TopicPlan(
            m, self._topic(m), _type_name(m, self._parameters), self._parameters[f'{m}.qos'])
            for m in in_order(sources)}

    def _topic(self, modality: Modality) -> str:
        topic = self._node.resolve_topic_name(TOPICS[modality])
        if _type_name(modality, self._parameters) == types.COMPRESSED_IMAGE:
            topic = self._node.resolve_topic_name(topic + COMPRESSED)
        return topic

    def _reconcile(self) -> None:
        """Subscribe and unsubscribe as planned, and leave other subscriptions alone."""
        plans = self._plans(self._modalities)
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
        if plan.type_name in (types.AUDIO_DATA, types.AUDIO_DATA_STAMPED):
            self._info = self._node.create_subscription(
                message_class(types.AUDIO_INFO, plan.modality), 'audio_info',
                self._messages.on_audio_info, _LATCHED)

    def _close(self, modality: Modality) -> None:
        self._topics.pop(modality).close()
        if modality is Modality.RGB:
            self._messages.stop()
        if modality is Modality.AUDIO and self._info is not None:
            info, self._info = self._info, None
            with suppress(Exception):  # the context may be gone
                self._node.destroy_subscription(info)


def _type_name(modality: Modality, values: Mapping[str, Any]) -> str:
    if modality is Modality.RGB and values['rgb.transport'] == 'compressed':
        return types.COMPRESSED_IMAGE
    if modality in (Modality.AUDIO, Modality.DETECTIONS):
        return str(values[f'{modality}.type'])
    return types.IMAGE
