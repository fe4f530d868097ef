"""The node's inputs: which topics it subscribes to, and how they fare."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError, printable
from karmma_ros.modality import Modality
from karmma_ros.node.image_decoder import ImageDecoder
from karmma_ros.node.log import NodeLog
from karmma_ros.node.subscription import COMPRESSED, InputTopic, message_class, TopicPlan
from karmma_ros.stream import message_types as types
from karmma_ros.stream.decoders import stamp_ns_of
from karmma_ros.stream.ingest import (
    InputMessage,
    make_audio_reader,
    MessageIngest,
    ReceivedMessage,
)
from karmma_ros.stream.message_types import COMPRESSED_IMAGE
from karmma_ros.stream.sensor_stream import SensorStream
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

_FOREIGN_CLOCK_NS = 10 * NANOSECONDS
_MAX_FORMAT = 60
"""Characters that are kept of what a publisher calls its format."""
_MAX_FRAME_ID = 255


class Messages:
    """Take the messages of every input, and keep what is to be said of them."""

    def __init__(
        self, node: Node, values: Mapping[str, Any], lock: Lock, taken: Callable[[], None],
    ) -> None:
        """
        Make the readers from the parameters.

        :param lock: guards the stream, which the worker reads.
        :param taken: called after each message.
        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self._node, self._ingest, self._taken = node, MessageIngest(values, lock), taken
        self._log = NodeLog(node)
        self._decoder = ImageDecoder(node, self._store)
        self._values, self._crop = values, (0, 0)
        self.frame_ids: dict[Modality, str] = {}
        """The last header.frame_id of each input, as it is passed on in results."""
        self.forget()

    def feed(self, stream: SensorStream, spec: ClipSpec) -> None:
        """Store what comes from now on in this stream."""
        self.cancel()
        self._ingest.feed(stream)
        self._crop = spec.video.height, spec.video.width

    def forget(self) -> None:
        """Forget what was warned about, and what the driver said of its sound."""
        self._log.reset()
        self.received: set[Modality] = set()
        """Inputs of which a message has come since their subscription."""
        self._judged: set[Modality] = set()
        """Inputs whose first stamp was looked at."""
        self.formats: dict[Modality, str] = {}
        """How the last message of each input was encoded."""
        self._said_of_info = ''
        self._ingest.reset_info()

    def cancel(self) -> None:
        """Drop the images that are being decoded."""
        self._decoder.cancel()

    def stop(self) -> None:
        """Drop the images that are being decoded, and end the thread that does it."""
        self._decoder.stop()

    def read_parameters(self) -> None:
        """Make the readers anew; what they learned from messages stays."""
        self._ingest.read_parameters()

    def callback(self, modality: Modality, type_name: str) -> Callable[[Any], None]:
        """Return the callback of a subscription."""
        def take(message: Any) -> None:
            now_ns = self._node.get_clock().now().nanoseconds
            self.received.add(modality)
            self._look_at_header(modality, message, now_ns)
            arrived = ReceivedMessage(
                modality, type_name, message, self._crop, self._values['rgb.bits']
            )
            self._note_format(modality, type_name, message)
            if type_name != COMPRESSED_IMAGE:
                self._store(arrived, now_ns)
            elif self._ingest.wants_image(arrived, now_ns):
                self._decoder.submit(arrived, now_ns)
            else:
                self._taken()
        return take

    def _store(self, arrival: InputMessage, now_ns: int) -> None:
        """Store a message that was received at this time, or count why not."""
        refusal = self._ingest.add(arrival, now_ns)
        modality = arrival.modality
        if modality is Modality.AUDIO:  # the format is known once a message was read
            self.formats[modality] = self._ingest.describe_audio(arrival.type_name)
        if refusal:
            self._log.warning(f'{modality}: message dropped: {refusal}', topic=modality.value)
        self._taken()

    def take_info(self, info: Any) -> None:
        """Take what the audio driver says of its format."""
        try:
            said = self._ingest.take_info(info)
        except InvalidSampleError as error:
            said = str(error)
        if not said or said != self._said_of_info and (
                self._log.warning(f'audio: {said}', topic='audio_info')):
            self._said_of_info = said

    def _look_at_header(self, modality: Modality, message: Any, now_ns: int) -> None:
        """Keep the frame id, and judge the first stamp."""
        header = getattr(message, 'header', None)
        if header is None:
            return
        self.frame_ids[modality] = printable(header.frame_id, _MAX_FRAME_ID)
        if modality in self._judged or not now_ns:  # at zero the clock is still awaited
            return
        with suppress(InvalidSampleError):  # the intake refuses the message because of it
            self._judge_stamp(modality, stamp_ns_of(header), now_ns)
            self._judged.add(modality)

    def _judge_stamp(self, modality: Modality, stamp_ns: int, now_ns: int) -> None:
        """Say when the stamps are of no use."""
        if stamp_ns == 0:
            self._log.warning(
                f'{modality}: header.stamp is zero; the time of receipt is used. Let the '
                'driver stamp its messages')
        elif abs(now_ns - stamp_ns) > _FOREIGN_CLOCK_NS:
            self._log.warning(
                f'{modality}: stamps differ from the node clock by '
                f'{(now_ns - stamp_ns) / NANOSECONDS:.0f} s; results go on, their '
                'end_to_end_latency is unknown. If a bag is playing: play it with --clock and '
                'set use_sim_time to true')

    def _note_format(self, modality: Modality, type_name: str, message: Any) -> None:
        if type_name == COMPRESSED_IMAGE:
            self.formats[modality] = printable(message.format, _MAX_FORMAT)
        elif modality in (Modality.RGB, Modality.FLOW):
            self.formats[modality] = (
                f'{printable(message.encoding, _MAX_FORMAT)}, '
                f'{message.width} x {message.height}')


TOPICS = {Modality.RGB: 'image', Modality.FLOW: 'flow', Modality.AUDIO: 'audio',
          Modality.DETECTIONS: 'detections'}
"""Relative names, to be remapped; compressed pictures come on image/compressed."""

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_READER_PARAMETERS = frozenset([
    'audio.sample_rate', 'audio.channels', 'audio.sample_format', 'detections.image_width',
    'detections.image_height', 'detections.hand_classes', 'detections.ignored_classes',
    'detections.min_score', 'detections.normalised', 'detections.offset_x',
    'detections.offset_y'])


def check_inputs(values: Mapping[str, Any], changed: Collection[str]) -> None:
    """
    Hold a change of parameters against what can be read here; it has no effect.

    :raises InvalidSettingError: for a sample format that cannot be decoded, or a message
        type that is not installed.
    """
    if 'audio.sample_format' in changed:
        make_audio_reader(values)
    for modality in (Modality.AUDIO, Modality.DETECTIONS):
        if {f'{modality}.enabled', f'{modality}.type'} & set(changed) and (
                values[f'{modality}.enabled']):
            message_class(_type_name(modality, values), modality)


class Inputs:
    """The subscriptions of one node; all of it belongs to the executor's thread."""

    def __init__(
        self, node: Node, parameters: Mapping[str, Any], lock: Lock, taken: Callable[[], None],
    ) -> None:
        """
        Prepare without subscribing; `feed` comes before `start`.

        :param lock: guards the stream, which the worker reads.
        :param taken: called after each message.
        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self._node, self._parameters, self._log = node, parameters, NodeLog(node)
        self._messages = Messages(node, parameters, lock, taken)
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
        Store in another stream from now on, what the model of this specification takes.

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
        Subscribe to every input that is switched on and known to the model.

        :raises InvalidSettingError: for a QoS override that is not usable.
        """
        self._messages.forget()
        self._running = True
        self._reconcile()

    def stop(self) -> None:
        """Drop the subscriptions; safe to call twice."""
        self._running = False
        for modality in list(self._topics):
            self._close(modality)
        self._failures = {}

    def cancel(self) -> None:
        """Drop what was received and is not stored yet."""
        self._messages.cancel()

    def update(self, names: Collection[str]) -> None:
        """Follow changed parameters; inputs that they do not touch go on undisturbed."""
        if _READER_PARAMETERS & set(names):
            self._messages.read_parameters()
        if self._running:
            try:
                self._reconcile()
            except (InvalidSettingError, RuntimeError) as failure:
                self._log.error(str(failure))

    def watch(self) -> None:
        """Follow what the publishers offer; call it about twice a second."""
        for modality, topic in list(self._topics.items()):
            try:
                topic.watch()
            except (InvalidSettingError, RuntimeError):
                self._close(modality)
                self._failures[modality] = 'could not be subscribed to anew'
            if modality in self._topics and modality not in self._messages.received:
                topic.miss()
        if self._failures:
            with suppress(InvalidSettingError, RuntimeError):  # said when it failed first
                self._reconcile()

    def facts(self, modality: Modality) -> dict[str, str]:
        """Return what diagnostics tell of an input."""
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
        """Return each topic that is subscribed to, with its type."""
        return ', '.join(f'{topic.plan.topic} ({topic.plan.type_name})'
                         for topic in self._topics.values()) or 'no topic'

    def problem(self, modality: Modality) -> str:
        """Say what is wrong with an input's topic and how to mend it; '' if nothing is."""
        source = self._source(modality)
        if not self._wanted(modality, self._modalities):
            return ''
        topic = self._topics.get(source)
        return self._failures.get(source) or (topic.problem if topic else '')

    def _source(self, modality: Modality) -> Modality:
        """Return the modality whose topic serves this one."""
        computed = modality is Modality.FLOW and self._parameters['flow.source'] == 'computed'
        return Modality.RGB if computed else modality

    def _wanted(self, modality: Modality, modalities: frozenset[Modality]) -> bool:
        return modality in modalities and self._parameters[f'{modality}.enabled']

    def _plans(self, modalities: frozenset[Modality]) -> dict[Modality, TopicPlan]:
        """Return what to subscribe to."""
        sources = {self._source(m) for m in Modality if self._wanted(m, modalities)}
        return {m: TopicPlan(
            m, self._topic(m), _type_name(m, self._parameters), self._parameters[f'{m}.qos'])
            for m in Modality if m in sources}

    def _topic(self, modality: Modality) -> str:
        topic = self._node.resolve_topic_name(TOPICS[modality])
        if _type_name(modality, self._parameters) == types.COMPRESSED_IMAGE:
            topic = self._node.resolve_topic_name(topic + COMPRESSED)
        return topic

    def _reconcile(self) -> None:
        """Subscribe and unsubscribe until there is what is planned, and touch nothing else."""
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
        kind = message_class(plan.type_name, plan.modality)
        self._messages.received.discard(plan.modality)
        callback = self._messages.callback(plan.modality, plan.type_name)
        self._topics[plan.modality] = InputTopic(self._node, plan, kind, callback)
        if plan.type_name in (types.AUDIO_DATA, types.AUDIO_DATA_STAMPED):
            self._info = self._node.create_subscription(
                message_class(types.AUDIO_INFO, plan.modality), 'audio_info',
                self._messages.take_info, _LATCHED)

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
