"""
The overlay's camera: subscribe to its images, decode them, and pair them with results.

message_filters and cv_bridge serve where they are installed; no wheel of either exists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
import time
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities.modality_type import stamp_ns_of
from karmma_ros.modalities.rgb import read_compressed_image, read_image
from karmma_ros.node.messages import time_ns
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

Callback = Callable[[Any], None]
OnPair = Callable[[Any, Any], None]

_BACKWARD_JUMP_NS = NANOSECONDS
_FULL_SIZE: Any = None
"""No size to crop to."""


@dataclass(frozen=True)
class CameraSettings:
    """How to subscribe to the camera, and what the pairing needs."""

    topic: str
    compressed: bool
    reliability: ReliabilityPolicy
    queue_size: int
    slop_s: float


def camera_settings(
    node: Node, parameters: Mapping[str, Any], before: CameraSettings | None,
) -> CameraSettings:
    """Return how to subscribe to what is published now; `before` where nothing is."""
    raw, transport = node.resolve_topic_name('image'), parameters['transport']
    # Relative to `image` as it is remapped: then one remapping serves either transport.
    packed = f'{raw}/compressed'
    compressed = transport == 'compressed'
    if transport == 'auto' and not node.count_publishers(raw):
        compressed = bool(node.count_publishers(packed)) or (
            before is not None and before.compressed)
    topic = packed if compressed else raw
    # Reliable from publishers that offer it, for large images are often dropped otherwise.
    offers = {p.qos_profile.reliability for p in node.get_publishers_info_by_topic(topic)}
    reliability = ReliabilityPolicy.BEST_EFFORT
    if offers == {ReliabilityPolicy.RELIABLE}:
        reliability = ReliabilityPolicy.RELIABLE
    elif not offers and before is not None and before.topic == topic:
        reliability = before.reliability
    return CameraSettings(
        topic, compressed, reliability, parameters['queue_size'], parameters['slop'])


class Camera:
    """A subscription to the camera, with its newest image and the pairing with results."""

    def __init__(
        self, node: Node, settings: CameraSettings, guarded: Callable[[Callback], Callback],
        on_pair: OnPair,
    ) -> None:
        """
        Subscribe.

        :param guarded: wraps the callback, so that no message ends the executor.
        :param on_pair: takes an image and its result; it must not raise.
        """
        self.settings, self._node, self._on_pair = settings, node, on_pair
        self.since_s = time.monotonic()
        self.newest: Any = None
        self._newest_ns, self._newest_s = 0, self.since_s
        self._start_pairing()
        self._subscription = node.create_subscription(
            CompressedImage if settings.compressed else Image, settings.topic,
            guarded(self._on_image), QoSProfile(depth=2, reliability=settings.reliability))

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def problem(self, patience_s: float) -> str:
        """Return why the newest image is old; empty when it is not."""
        silent_s = time.monotonic() - self._newest_s
        if silent_s < patience_s:
            return ''
        if not self._node.count_publishers(self.settings.topic):
            return f'no publisher on {self.settings.topic}'
        return f'no image for {silent_s:.0f} s'

    def _start_pairing(self) -> None:
        self._add_image, self.add_result = start_pairing(
            self._on_pair, self.settings.queue_size, self.settings.slop_s)

    def _on_image(self, message: Any) -> None:
        stamp_ns = stamp_ns_of(message.header)
        if stamp_ns < self._newest_ns - _BACKWARD_JUMP_NS:
            # Images from before a time jump would push all later ones out of the queue.
            self._start_pairing()
        self.newest, self._newest_ns, self._newest_s = message, stamp_ns, time.monotonic()
        self._add_image(message)


def start_pairing(
    on_pair: OnPair, queue_size: int, slop_s: float,
) -> tuple[Callback, Callback]:
    """
    Return two functions, which take images and results in any order.

    :param on_pair: takes an image and the nearest result; it must not raise, for message_filters
        would hold its lock for ever.
    """
    try:
        # Not its Subscriber, which raises on a stamp before 1970.
        filters = import_module('message_filters')
        images, results = filters.SimpleFilter(), filters.SimpleFilter()
        # Later arguments stand at other positions in newer versions.
        filters.ApproximateTimeSynchronizer(
            [images, results], queue_size, slop_s).registerCallback(on_pair)
    except (ImportError, AttributeError):  # absent, or another version
        nearest = NearestPairing(on_pair, queue_size, slop_s)
        return nearest.add_image, nearest.add_result
    return images.signalMessage, results.signalMessage


class NearestPairing:
    """Pair by two short queues, as message_filters pairs two topics."""

    def __init__(self, on_pair: OnPair, queue_size: int, slop_s: float) -> None:
        self._on_pair, self._queue_size = on_pair, queue_size
        self._slop_ns = round(slop_s * NANOSECONDS)
        self._images: dict[int, Any] = {}
        self._results: dict[int, Any] = {}

    def add_image(self, message: Any) -> None:
        self._add(message, self._images, self._results)

    def add_result(self, message: Any) -> None:
        self._add(message, self._results, self._images)

    def _add(self, message: Any, queue: dict[int, Any], others: dict[int, Any]) -> None:
        stamp_ns = time_ns(message.header.stamp)
        queue[stamp_ns] = message
        while len(queue) > self._queue_size:
            del queue[min(queue)]
        nearest = min(others, key=lambda other: abs(other - stamp_ns), default=None)
        if nearest is None or stamp_ns not in queue or abs(nearest - stamp_ns) >= self._slop_ns:
            return
        newer, waiting = queue.pop(stamp_ns), others.pop(nearest)
        self._on_pair(*((newer, waiting) if queue is self._images else (waiting, newer)))


def decode_image(message: Any) -> NDArray[np.uint8]:
    """
    Return a sensor_msgs/Image or CompressedImage as RGB uint8 `[h, w, 3]`.

    The encodings that the package's own decoder rejects are left to cv_bridge.

    :raises InvalidSampleError: when neither can decode it.
    """
    if hasattr(message, 'format'):
        return read_compressed_image(message, _FULL_SIZE)[0]
    try:
        return read_image(message, _FULL_SIZE)
    except InvalidSampleError:
        image = _decode_with_cv_bridge(message)
        if image is None:
            raise
        return image


def _decode_with_cv_bridge(message: Any) -> NDArray[np.uint8] | None:
    if not len(message.data) == message.step * message.height > 0:  # cv_bridge does not check
        return None
    try:
        image = np.asarray(_cv_bridge().imgmsg_to_cv2(message, 'rgb8'), np.uint8)
    except Exception:  # absent, built for another numpy, its own, OpenCV's, KeyError …
        return None
    return image if image.shape == (message.height, message.width, 3) else None


@lru_cache(maxsize=1)
def _cv_bridge() -> Any:
    return import_module('cv_bridge').CvBridge()
