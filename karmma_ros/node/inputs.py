"""
The node's subscriptions: message fields in, timed samples out.

A callback decodes and stores, no more. Whatever is wrong with a message is counted with
its reason and warned about now and then; nothing is ever raised out of a callback.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
import time
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modality import Modality
from karmma_ros.node.parameters import Parameters
from karmma_ros.node.readers import (
    AudioReader,
    DetectionReader,
    message_type,
    read_image,
    stamp_ns_of,
)
from karmma_ros.stream.sensors import SensorStream
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

TOPICS = {Modality.RGB: 'image', Modality.AUDIO: 'audio', Modality.DETECTIONS: 'detections'}
"""Relative names, to be remapped. Flow has no topic: it is computed from the camera."""

# Decoding only the newest picture keeps a slow machine from working on stale ones; sound
# must not lose a message, for every gap is heard by the network.
_DEPTHS = {Modality.RGB: 1, Modality.AUDIO: 50, Modality.DETECTIONS: 5}
_WARN_EVERY_S = 10.0
_FOREIGN_CLOCK_NS = 10 * NANOSECONDS


class Inputs:
    """The subscriptions of an active node."""

    def __init__(
        self, node: Node, parameters: Parameters, stream: SensorStream, lock: Lock,
        modalities: tuple[Modality, ...],
    ) -> None:
        """
        Prepare without subscribing.

        :param lock: guards `stream`, which the worker reads.
        :raises InvalidSettingError: when a message package or a setting is not usable.
        """
        self._node, self._stream, self._lock = node, stream, lock
        wanted = [m for m in TOPICS if parameters[f'{m}.enabled'] and _needs(m, modalities)]
        self._types = {m: message_type(m) for m in wanted}
        self._reliability = {m: parameters[f'{m}.reliability'] for m in wanted}
        self._read_audio = AudioReader(parameters)
        self._read_boxes = DetectionReader(parameters)
        self._crop = stream.spec.video.height, stream.spec.video.width
        self._subscriptions: list[Any] = []
        self._warned: dict[Modality, float] = {}
        self._foreign: set[Modality] = set()
        self.frame_ids: dict[Modality, str] = {}
        """The last header.frame_id of each input."""

    def start(self) -> None:
        """Subscribe to every input that is switched on and known to the model."""
        handlers = {
            Modality.RGB: self._image, Modality.AUDIO: self._audio,
            Modality.DETECTIONS: self._detections,
        }
        for modality, kind in self._types.items():
            self._subscriptions.append(self._node.create_subscription(
                kind, TOPICS[modality], self._guarded(modality, handlers[modality]),
                _qos(modality, self._reliability[modality])))

    def stop(self) -> None:
        """Drop the subscriptions."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    def _guarded(
        self, modality: Modality, handle: Callable[[Any, int, int], None]
    ) -> Callable[[Any], None]:
        def callback(message: Any) -> None:
            now_ns = self._node.get_clock().now().nanoseconds
            try:
                stamp_ns = stamp_ns_of(message.header)
                self._note_header(modality, message.header, stamp_ns, now_ns)
                handle(message, stamp_ns, now_ns)
            except InvalidSampleError as reason:
                self._reject(modality, str(reason), now_ns)
            except Exception as error:  # a callback must not end the executor
                self._reject(modality, f'{type(error).__name__}: {error}', now_ns)
        return callback

    def _image(self, message: Any, stamp_ns: int, now_ns: int) -> None:
        self._read_boxes.camera_size = message.width, message.height
        with self._lock:
            if not self._stream.wants_image(stamp_ns, now_ns):
                return
        image = read_image(message, self._crop)
        with self._lock:
            self._stream.add_image(image, stamp_ns, now_ns)

    def _audio(self, message: Any, stamp_ns: int, now_ns: int) -> None:
        samples = self._read_audio(message.audio.data)
        with self._lock:
            self._stream.add_audio(samples, self._read_audio.sample_rate, stamp_ns, now_ns)

    def _detections(self, message: Any, stamp_ns: int, now_ns: int) -> None:
        boxes = self._read_boxes(message)
        with self._lock:
            self._stream.add_detections(boxes, stamp_ns, now_ns)

    def _reject(self, modality: Modality, reason: str, now_ns: int) -> None:
        with self._lock:
            self._stream.reject(modality, reason, now_ns)
        self._warn(modality, f'{modality}: message dropped: {reason}')

    def _note_header(
        self, modality: Modality, header: Any, stamp_ns: int, now_ns: int
    ) -> None:
        self.frame_ids[modality] = header.frame_id
        if modality in self._foreign:
            return
        if stamp_ns and abs(now_ns - stamp_ns) > _FOREIGN_CLOCK_NS:
            self._foreign.add(modality)
            self._warn(modality, (
                f'{modality}: stamps differ from the node clock by '
                f'{(now_ns - stamp_ns) / NANOSECONDS:.0f} s; results go on, their '
                'end_to_end_latency is unknown. If a bag is playing: play it with --clock and '
                'set use_sim_time to true'))

    def _warn(self, modality: Modality, text: str) -> None:
        now = time.monotonic()
        if now - self._warned.get(modality, -_WARN_EVERY_S) >= _WARN_EVERY_S:
            self._warned[modality] = now
            self._node.get_logger().warning(text)


def _needs(modality: Modality, modalities: tuple[Modality, ...]) -> bool:
    """Tell whether the model takes this input, or flow computed from it."""
    return modality in modalities or (modality is Modality.RGB and Modality.FLOW in modalities)


def _qos(modality: Modality, reliability: str) -> QoSProfile:
    policy = ReliabilityPolicy.RELIABLE if reliability == 'reliable' else (
        ReliabilityPolicy.BEST_EFFORT)
    return QoSProfile(depth=_DEPTHS[modality], reliability=policy)
