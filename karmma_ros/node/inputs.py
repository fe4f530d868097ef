"""
The node's subscriptions: message fields in, timed samples out.

A callback decodes and stores, no more. Whatever is wrong with a message is counted with
its reason and warned about now and then; nothing is ever raised out of a callback.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from threading import Lock
import time
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.node.parameters import Parameters
from karmma_ros.stream.readers import (
    AudioReader,
    DetectionReader,
    read_image,
    stamp_ns_of,
)
from karmma_ros.stream.sensors import SensorStream
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

TOPICS = {Modality.RGB: 'image', Modality.AUDIO: 'audio', Modality.DETECTIONS: 'detections'}
"""Relative names, to be remapped. Flow has no topic: it is computed from the camera."""

_TYPES = {
    Modality.RGB: ('sensor_msgs', 'Image'),
    Modality.AUDIO: ('audio_common_msgs', 'AudioDataStamped'),
    Modality.DETECTIONS: ('vision_msgs', 'Detection2DArray'),
}
_FED = {Modality.RGB: {Modality.RGB, Modality.FLOW}, Modality.AUDIO: {Modality.AUDIO},
        Modality.DETECTIONS: {Modality.DETECTIONS}}
# Decoding only the newest picture keeps a slow machine from working on stale ones; sound
# must not lose a message, for every gap is heard by the network.
_DEPTHS = {Modality.RGB: 1, Modality.AUDIO: 50, Modality.DETECTIONS: 5}
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_WARN_EVERY_S = 10.0
_FOREIGN_CLOCK_NS = 10 * NANOSECONDS


class Inputs:
    """The subscriptions of an active node."""

    def __init__(
        self, node: Node, parameters: Parameters, stream: SensorStream, lock: Lock,
        modalities: Collection[Modality], crop: tuple[int, int],
    ) -> None:
        """
        Prepare without subscribing.

        :param lock: guards `stream`, which the worker reads.
        :param modalities: what the model takes.
        :param crop: height and width of the pictures that it takes.
        :raises InvalidSettingError: when a message package or a setting is not usable.
        """
        self._node, self._stream, self._lock = node, stream, lock
        used = {m for m in modalities if parameters[f'{m}.enabled']}
        wanted = [m for m in TOPICS if used & _FED[m]]
        self._types = {m: message_type(m) for m in wanted}
        self._reliability = {m: parameters[f'{m}.reliability'] for m in wanted}
        self._read_audio = AudioReader(
            parameters['audio.sample_rate'], parameters['audio.channels'],
            parameters['audio.sample_format'])
        self._read_boxes = DetectionReader(
            parameters['detections.hand_classes'], parameters['detections.image_width'],
            parameters['detections.image_height'])
        self._crop = crop
        self._subscriptions: list[Any] = []
        self._warned: dict[Modality, float] = {}
        self._judged: set[Modality] = set()
        """Inputs whose first stamp was looked at."""
        self.frame_ids: dict[Modality, str] = {}
        """The last header.frame_id of each input."""

    def start(self) -> None:
        """Subscribe to every input that is switched on and known to the model."""
        self._warned, self._judged = {}, set()
        handlers = {
            Modality.RGB: self._image, Modality.AUDIO: self._audio,
            Modality.DETECTIONS: self._detections,
        }
        for modality, kind in self._types.items():
            self._subscriptions.append(self._node.create_subscription(
                kind, TOPICS[modality], self._guarded(modality, handlers[modality]),
                _qos(modality, self._reliability[modality])))
        if Modality.AUDIO in self._types:
            self._subscriptions.append(self._node.create_subscription(
                _audio_info_type(), 'audio_info', self._read_audio.compare, _LATCHED))

    def stop(self) -> None:
        """Drop the subscriptions."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    def _guarded(
        self, modality: Modality, handle: Callable[[Any, int, int], str]
    ) -> Callable[[Any], None]:
        def callback(message: Any) -> None:
            now_ns = self._node.get_clock().now().nanoseconds
            try:
                stamp_ns = stamp_ns_of(message.header)
                self._note_header(modality, message.header, stamp_ns, now_ns)
                refusal = handle(message, stamp_ns, now_ns)
                if refusal:
                    self._warn(modality, refusal)
            except InvalidSampleError as reason:
                self._reject(modality, str(reason), now_ns)
            except Exception as error:  # a callback must not end the executor
                self._reject(modality, f'{type(error).__name__}: {error}', now_ns)
        return callback

    def _image(self, message: Any, stamp_ns: int, now_ns: int) -> str:
        with self._lock:
            if not self._stream.wants_image(stamp_ns, now_ns):
                return ''
        image = read_image(message, self._crop)
        self._read_boxes.camera_size = message.width, message.height
        with self._lock:
            return self._stream.add_image(image, stamp_ns, now_ns)

    def _audio(self, message: Any, stamp_ns: int, now_ns: int) -> str:
        samples = self._read_audio(message.audio.data)
        with self._lock:
            return self._stream.add_audio(samples, self._read_audio.sample_rate, stamp_ns, now_ns)

    def _detections(self, message: Any, stamp_ns: int, now_ns: int) -> str:
        boxes = self._read_boxes(message)
        with self._lock:
            return self._stream.add_detections(boxes, stamp_ns, now_ns)

    def _reject(self, modality: Modality, reason: str, now_ns: int) -> None:
        with self._lock:
            self._stream.reject(modality, reason, now_ns)
        self._warn(modality, reason)

    def _note_header(
        self, modality: Modality, header: Any, stamp_ns: int, now_ns: int
    ) -> None:
        """Keep the frame id; say once when the stamps are of no use."""
        self.frame_ids[modality] = header.frame_id
        if modality in self._judged:
            return
        self._judged.add(modality)
        if stamp_ns == 0:
            self._log(f'{modality}: header.stamp is zero; the time of receipt is used. Let the '
                      'driver stamp its messages')
        elif abs(now_ns - stamp_ns) > _FOREIGN_CLOCK_NS:
            self._log(
                f'{modality}: stamps differ from the node clock by '
                f'{(now_ns - stamp_ns) / NANOSECONDS:.0f} s; results go on, their '
                'end_to_end_latency is unknown. If a bag is playing: play it with --clock and '
                'set use_sim_time to true')

    def _warn(self, modality: Modality, reason: str) -> None:
        now = time.monotonic()
        if now - self._warned.get(modality, -_WARN_EVERY_S) >= _WARN_EVERY_S:
            self._warned[modality] = now
            self._log(f'{modality}: message dropped: {reason}')

    def _log(self, text: str) -> None:
        self._node.get_logger().warning(text)


def _qos(modality: Modality, reliability: str) -> QoSProfile:
    policy = ReliabilityPolicy.RELIABLE if reliability == 'reliable' else (
        ReliabilityPolicy.BEST_EFFORT)
    return QoSProfile(depth=_DEPTHS[modality], reliability=policy)


def message_type(modality: Modality) -> Any:
    """
    Give the message class of an input.

    :raises InvalidSettingError: when its package, which is not required, is not installed.
    """
    package, name = _TYPES[modality]
    try:
        return getattr(import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError):
        raise InvalidSettingError(
            f'{modality}.enabled', True, f'true only where {package}/{name} is installed',
            f'install ros-$ROS_DISTRO-{package.replace("_", "-")} and source ROS again, or set '
            f'{modality}.enabled to false') from None


def _audio_info_type() -> Any:
    """Give the class of the message by which audio_common tells its format."""
    return import_module('audio_common_msgs.msg').AudioInfo
