"""Pictures of a bag by their times, for a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from karmma_ros.bags.reader import Bag, Topic
from karmma_ros.errors import InvalidSampleError
from karmma_ros.stream.decoders import read_compressed_image, read_image
from karmma_ros.stream.message_types import IMAGE
import numpy as np
from numpy.typing import NDArray

_REACHES_NS = (100_000_000, 1_000_000_000)
"""So far from a time its picture is looked for, the farther only if there is none nearer."""

Picture = NDArray[np.uint8]


class BagFrames:
    """Return the pictures that were received nearest to some times; it opens the bag each time."""

    def __init__(self, path: Path | str, topic: str, type_name: str, bits: int = 16) -> None:
        """
        Take the bag and its camera; '' where it has none.

        :param bits: significant bits of images with 16 bit channels.
        """
        self._path, self._key, self._bits = path, (topic, type_name), bits

    def __call__(self, times_ns: Sequence[int]) -> Iterator[Picture | None]:
        """Return RGB pictures `[h, w, 3]`, one by one, None where there is none near by."""
        given = 0
        with suppress(Exception):  # a report goes without, whatever is wrong with the bag
            for picture in self._pictures(times_ns):
                yield picture
                given += 1
        yield from [None] * (len(times_ns) - given)

    def _pictures(self, times_ns: Sequence[int]) -> Iterator[Picture | None]:
        if not self._key[0]:
            return
        with Bag(self._path) as bag:
            topic = bag.topics.get(self._key)
            if topic is None:
                return
            read = bag.reader(topic)
            for time_ns in times_ns:
                yield _picture(_nearest(bag, topic, time_ns), read, topic.type, self._bits)


def _nearest(bag: Bag, topic: Topic, time_ns: int) -> bytes | None:
    for reach_ns in _REACHES_NS:
        found = min(
            bag.messages([topic], time_ns - reach_ns, time_ns + reach_ns + 1),
            key=lambda message: abs(message.received_ns - time_ns), default=None)
        if found is not None:
            return found.data
    return None


def _picture(data: bytes | None, read: Any, type_name: str, bits: int) -> Picture | None:
    if data is None:
        return None
    try:
        message = read(data)
        if type_name == IMAGE:
            return read_image(message, (message.height, message.width), bits)
        _, size = read_compressed_image(message, (8, 8))
        return read_compressed_image(message, size, bits)[0]
    except (InvalidSampleError, ValueError):
        return None
