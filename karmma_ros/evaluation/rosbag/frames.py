"""Pictures of a bag by their times, for a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from karmma_ros.errors import InvalidSampleError, KarmmaError
from karmma_ros.evaluation.rosbag.reading import Bag, Topic
from karmma_ros.evaluation.rosbag.topics import IMAGE
from karmma_ros.stream.readers import read_compressed_image, read_image
import numpy as np
from numpy.typing import NDArray

_REACH_NS = 1_000_000_000
"""A picture stands for a time at most so far from it."""

Picture = NDArray[np.uint8]


class BagFrames:
    """Give the pictures that were received nearest to some times; it opens the bag each time."""

    def __init__(self, path: Path | str, topic: str, type_name: str) -> None:
        """Take the bag and its camera; '' where it has none."""
        self._path, self._key = path, (topic, type_name)

    def __call__(self, times_ns: Sequence[int]) -> list[Picture | None]:
        """Give RGB pictures `[h, w, 3]`, None where there is none near by."""
        try:
            if not self._key[0]:
                return [None] * len(times_ns)
            with Bag(self._path) as bag:
                topic = bag.topics.get(self._key)
                if topic is None:
                    return [None] * len(times_ns)
                read = bag.reader(topic)
                return [_picture(self._nearest(bag, topic, time_ns), read, topic.type)
                        for time_ns in times_ns]
        except (KarmmaError, ValueError, OSError):  # a report goes without
            return [None] * len(times_ns)

    def _nearest(self, bag: Bag, topic: Topic, time_ns: int) -> bytes | None:
        found: tuple[int, bytes] | None = None
        for message in bag.messages([topic], time_ns - _REACH_NS, time_ns + _REACH_NS + 1):
            distance_ns = abs(message.received_ns - time_ns)
            if found is not None and distance_ns > found[0]:
                break
            found = distance_ns, message.data
        return None if found is None else found[1]


def _picture(data: bytes | None, read: Any, type_name: str) -> Picture | None:
    if data is None:
        return None
    try:
        message = read(data)
        if type_name == IMAGE:
            return read_image(message, (message.height, message.width))
        _, size = read_compressed_image(message, (8, 8))
        return read_compressed_image(message, size)[0]
    except (InvalidSampleError, ValueError):
        return None
