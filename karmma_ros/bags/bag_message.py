"""Messages of a bag that are decoded on demand: for replay, and frames for a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Any

from karmma_ros.bags.message_definitions import Topic
from karmma_ros.bags.reader import Bag
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.message_types import IMAGE
from karmma_ros.modalities.rgb import read_compressed_image, read_image
from karmma_ros.modality import Modality
from karmma_ros.stream.ingest import ReceivedMessage
import numpy as np
from numpy.typing import NDArray

_STAMPS = {0: Struct('>iI'), 1: Struct('<iI')}
"""Layout of a stamp by byte order."""
_STAMP_OFFSET = 4
"""The header, and in it the stamp, follows the header of CDR."""
_REACHES_NS = (100_000_000, 1_000_000_000)
"""Distances from a time within which a frame is searched, one after the other."""

Frame = NDArray[np.uint8]


class BagMessage:
    """One message of a bag; an `InputMessage` if its role is a sensor."""

    def __init__(
        self, role: str, type_name: str, index: int, received_ns: int, data: bytes,
        read: Callable[[bytes], Any], spec: ClipSpec, values: Mapping[str, Any],
    ) -> None:
        """
        Keep the serialized message.

        :param role: of its topic, one of `topics.TYPES`.
        :param index: position among the messages of its topic.
        :param read: deserializes the message; raises ValueError.
        :param spec: of the clips that it may become part of.
        :param values: the node's parameters by name.
        """
        self.role, self.type_name, self.index = role, type_name, index
        self.received_ns, self._data, self._deserialize = received_ns, data, read
        self._spec, self._values = spec, values
        self._message: Any = None
        self._content: Any = None
        self._failure: InvalidSampleError | None = None

    @property
    def modality(self) -> Modality:
        """Return the sensor."""
        return Modality(self.role)

    @property
    def spec(self) -> ClipSpec:
        """Return the specification of the clips that it may become part of."""
        return self._spec

    @property
    def message(self) -> Any:
        """
        Return the message.

        :raises InvalidSampleError: when its bytes are not a message of its type.
        """
        if self._message is None:
            self._message = self._once(lambda: self._deserialize(self._data))
        return self._message

    @property
    def stamp_ns(self) -> int:
        """
        Return the stamp, 0 without one.

        :raises InvalidSampleError: for a time before 1970.
        """
        if modality_type(self.modality).has_frames and len(self._data) >= _STAMP_OFFSET + 8:
            # Most images are not in any window: only their stamp is needed.
            sec, nanosec = _STAMPS[self._data[1] & 1].unpack_from(self._data, _STAMP_OFFSET)
            if sec >= 0:
                return int(sec * NANOSECONDS + nanosec)
        return self._received.stamp_ns

    def read(self) -> Any:
        """
        Return what `ModalityType.read` makes of it, once for all that use it.

        :raises InvalidSampleError: when it cannot be read.
        """
        if self._content is None:
            self._content = self._once(lambda: self._received.read())
        return self._content

    @property
    def _received(self) -> ReceivedMessage:
        return ReceivedMessage(
            self.modality, self.type_name, self.message, self._spec, self._values)

    def _once(self, decode: Callable[[], Any]) -> Any:
        """Decode; raise the error of an earlier attempt again without decoding."""
        if self._failure is None:
            try:
                return decode()
            except InvalidSampleError as failure:
                self._failure = failure
            except ValueError as failure:
                self._failure = InvalidSampleError(str(failure))
        raise self._failure


class BagFrames:
    """Return the frames that were received nearest to some times; opens the bag each time."""

    def __init__(self, path: Path | str, topic: str, type_name: str, bits: int = 16) -> None:
        """
        Name the bag and its camera topic, '' without one.

        :param bits: significant bits of images with 16 bit channels.
        """
        self._path, self._key, self._bits = path, (topic, type_name), bits

    def __call__(self, times_ns: Sequence[int]) -> Iterator[Frame | None]:
        """Yield an RGB frame `[h, w, 3]` for each time; None without one near by."""
        count = 0
        with suppress(Exception):  # the report omits frames that cannot be read
            for frame in self._frames(times_ns):
                yield frame
                count += 1
        yield from [None] * (len(times_ns) - count)

    def _frames(self, times_ns: Sequence[int]) -> Iterator[Frame | None]:
        if not self._key[0]:
            return
        with Bag(self._path) as bag:
            topic = bag.topics.get(self._key)
            if topic is None:
                return
            read = bag.reader(topic)
            for time_ns in times_ns:
                data = _nearest(bag, topic, time_ns)
                yield None if data is None else decode_frame(
                    data, read, topic.type, self._bits)


def _nearest(bag: Bag, topic: Topic, time_ns: int) -> bytes | None:
    for reach_ns in _REACHES_NS:
        nearest = min(
            bag.messages([topic], time_ns - reach_ns, time_ns + reach_ns + 1),
            key=lambda message: abs(message.received_ns - time_ns), default=None)
        if nearest is not None:
            return nearest.data
    return None


def decode_frame(
    data: bytes, read: Callable[[bytes], Any], type_name: str, bits: int = 16,
) -> Frame | None:
    """Return the RGB frame `[h, w, 3]` of a serialized image; None if it cannot be read."""
    try:
        message = read(data)
        if type_name == IMAGE:
            return read_image(message, (message.height, message.width), bits)
        _, size = read_compressed_image(message, (8, 8))
        return read_compressed_image(message, size, bits)[0]
    except (InvalidSampleError, ValueError):
        return None
