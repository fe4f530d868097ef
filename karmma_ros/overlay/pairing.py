"""
Find the picture that a result belongs to.

message_filters does it where it is installed. Where it is not, for there is no wheel of it, a
few lines of our own give the same pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol

from karmma_ros.errors import InvalidSampleError
from karmma_ros.node.messages import time_ns
from karmma_ros.stream.decoders import read_compressed_image, read_image
import numpy as np
from numpy.typing import NDArray

OnPair = Callable[[Any, Any], None]


class Pairing(Protocol):
    """Take messages in any order; call back with a picture and the result that is nearest."""

    def add_picture(self, message: Any) -> None:
        """Keep a picture for results to come, or pair it with a result that waits for it."""

    def add_result(self, message: Any) -> None:
        """Pair a result with the nearest picture within the slop, or let it wait for one."""


class FilterPairing:
    """Pairing by message_filters, from Humble's to Rolling's."""

    def __init__(self, filters: Any, on_pair: OnPair, queue_size: int, slop_s: float) -> None:
        # Its Subscriber would hand a stamp before 1970 on to code that raises: the node has
        # subscriptions of its own, and only what they found good gets here.
        self._pictures, self._results = filters.SimpleFilter(), filters.SimpleFilter()
        # Later arguments stand in other places in newer versions.
        self._synchroniser = filters.ApproximateTimeSynchronizer(
            [self._pictures, self._results], queue_size, slop_s)
        self._synchroniser.registerCallback(on_pair)
        self.add_picture: Callable[[Any], None] = self._pictures.signalMessage
        self.add_result: Callable[[Any], None] = self._results.signalMessage


class NearestPairing:
    """Pairing by two short queues, the way message_filters pairs two topics."""

    def __init__(self, on_pair: OnPair, queue_size: int, slop_s: float) -> None:
        self._on_pair, self._queue_size = on_pair, queue_size
        self._slop_ns = round(slop_s * 1e9)
        self._pictures: dict[int, Any] = {}
        self._results: dict[int, Any] = {}

    def add_picture(self, message: Any) -> None:
        self._add(message, self._pictures, self._results)

    def add_result(self, message: Any) -> None:
        self._add(message, self._results, self._pictures)

    def _add(self, message: Any, queue: dict[int, Any], others: dict[int, Any]) -> None:
        stamp_ns = time_ns(message.header.stamp)
        queue[stamp_ns] = message
        while len(queue) > self._queue_size:
            del queue[min(queue)]
        nearest = min(others, key=lambda other: abs(other - stamp_ns), default=None)
        if nearest is None or stamp_ns not in queue or abs(nearest - stamp_ns) >= self._slop_ns:
            return
        newer, waiting = queue.pop(stamp_ns), others.pop(nearest)
        self._on_pair(*((newer, waiting) if queue is self._pictures else (waiting, newer)))


def pairing(on_pair: OnPair, queue_size: int, slop_s: float) -> Pairing:
    """
    Choose message_filters if it can be imported, else our own.

    :param on_pair: must not raise: message_filters would hold its lock for ever.
    """
    try:
        return FilterPairing(import_module('message_filters'), on_pair, queue_size, slop_s)
    except (ImportError, AttributeError):  # not there, or one that is built differently
        return NearestPairing(on_pair, queue_size, slop_s)


_WHOLE: Any = None
"""No size to crop to."""


def decode_picture(message: Any) -> NDArray[np.uint8]:
    """
    Return a sensor_msgs/Image or CompressedImage as RGB uint8 `[h, w, 3]`.

    Our own reader honours any padding of rows; what it does not know is left to cv_bridge,
    where that is installed.

    :raises InvalidSampleError: when neither makes a picture of it.
    """
    if hasattr(message, 'format'):
        return read_compressed_image(message, _WHOLE)[0]
    try:
        return read_image(message, _WHOLE)
    except InvalidSampleError:
        picture = _by_cv_bridge(message)
        if picture is None:
            raise
        return picture


def _by_cv_bridge(message: Any) -> NDArray[np.uint8] | None:
    """Decode the encodings that only cv_bridge knows; None where it cannot."""
    # It does not look whether the bytes are as many as the fields say.
    bridge = _cv_bridge() if len(message.data) == message.step * message.height > 0 else None
    if bridge is None:
        return None
    try:
        picture = np.asarray(bridge.imgmsg_to_cv2(message, 'rgb8'), np.uint8)
    except Exception:  # its own, OpenCV's, KeyError …: what is said is our reader's sentence
        return None
    return picture if picture.shape == (message.height, message.width, 3) else None


@lru_cache(maxsize=1)
def _cv_bridge() -> Any:
    try:
        return import_module('cv_bridge').CvBridge()
    except Exception:  # one built for another numpy raises more than ImportError
        return None
