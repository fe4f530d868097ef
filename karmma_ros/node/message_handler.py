"""
The callbacks of the node's inputs.

A callback decodes and stores a message (`stream/ingest.py`); compressed images, which may take as
long as a window, are decoded in a thread (`image_decoder.py`). What is wrong with a message is
counted and logged; no exception leaves a callback.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from struct import Struct
from threading import Lock
from typing import Any

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, printable
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.message_types import COMPRESSED_IMAGE
from karmma_ros.modalities.modality_type import header_of, InputMessage, stamp_ns_of
from karmma_ros.modality import Modality
from karmma_ros.node.image_decoder import ImageDecoder
from karmma_ros.node.log import NodeLog
from karmma_ros.node.subscription import SERIALIZED
from karmma_ros.stream.ingest import MessageIngest, ReceivedMessage
from karmma_ros.stream.sensor_stream import SensorStream
from rclpy.node import Node
from rosbags.typesys import get_typestore, Stores

_ENCAPSULATION = 4
"""Bytes before a message in CDR; the second is even where numbers are big-endian."""
_STAMP, _BIG_ENDIAN_STAMP = Struct('<iI'), Struct('>iI')
_FOREIGN_CLOCK_NS = 10 * NANOSECONDS
_MAX_FORMAT = 60
"""Characters that are kept of a format field."""
_MAX_FRAME_ID = 255
_STORE = get_typestore(Stores.ROS2_HUMBLE)
"""It defines the types in `SERIALIZED`, which are the same in all distributions."""


def deserialize(data: bytes, type_name: str) -> Any:
    """
    Return the message of a type in `SERIALIZED`; its arrays are views of the bytes.

    :raises InvalidSampleError: for bytes that are not such a message.
    """
    try:
        return _STORE.deserialize_cdr(data, type_name)
    except Exception as error:  # damaged bytes may break the deserializer anywhere
        raise InvalidSampleError(
            f'{len(data)} bytes are no {type_name} ({type(error).__name__})') from None


def _stamp_ns(data: bytes) -> int:
    """
    Return the stamp in the serialized message of a type that begins with its header.

    Most images need no more: their slot in the clip is filled. -1: it cannot be used.
    """
    if len(data) < _STAMP.size + _ENCAPSULATION:
        return -1
    seconds, nanoseconds = (_STAMP if data[1] & 1 else _BIG_ENDIAN_STAMP).unpack_from(
        data, _ENCAPSULATION)
    return int(seconds * NANOSECONDS + nanoseconds) if seconds >= 0 else -1


class MessageHandler:
    """The callbacks of all inputs, and what was received through them."""

    def __init__(
        self, node: Node, values: Mapping[str, Any], lock: Lock, on_message: Callable[[], None],
    ) -> None:
        """
        Create the decoders from the parameters.

        :param lock: guards the stream, which the worker reads.
        :param on_message: called after each message.
        """
        self._node, self._ingest, self._on_message = node, MessageIngest(values, lock), on_message
        self._log = NodeLog(node)
        self._threads: dict[Modality, ImageDecoder] = {}
        """Of the inputs with compressed images."""
        self._values, self._spec = values, ClipSpec()
        self.frame_ids: dict[Modality, str] = {}
        """The last header.frame_id of each input, for results."""
        self.reset()

    def feed(self, stream: SensorStream, spec: ClipSpec) -> None:
        """Store messages in this stream from now on."""
        self.cancel()
        self._ingest.feed(stream)
        self._spec = spec

    def reset(self) -> None:
        """Clear what was logged and received, the driver's audio format included."""
        self._log.reset()
        self.received: set[Modality] = set()
        """Inputs with a message since their subscription."""
        self._checked: set[Modality] = set()
        """Inputs whose first stamp was checked."""
        self.formats: dict[Modality, str] = {}
        """How the last message of each input was encoded."""
        self._logged_info: dict[Modality, str] = {}
        self._ingest.reset()

    def cancel(self) -> None:
        """Drop the images that are being decoded, and the samples that the checks keep."""
        for thread in self._threads.values():
            thread.cancel()
        self._ingest.clear_content()

    def stop(self, modality: Modality) -> None:
        """Drop the images of an input that are being decoded, and end their thread."""
        if modality in self._threads:
            self._threads.pop(modality).stop()

    def _thread(self, modality: Modality) -> ImageDecoder:
        if modality not in self._threads:
            self._threads[modality] = ImageDecoder(self._node, self._store)
        return self._threads[modality]

    def read_parameters(self) -> None:
        """Create the decoders anew; what is known from messages stays."""
        self._ingest.read_parameters()

    def callback(self, modality: Modality, type_name: str) -> Callable[[Any], None]:
        """Return the callback of a subscription; for a type in `SERIALIZED` it takes bytes."""
        def callback(message: Any) -> None:
            now_ns = self._node.get_clock().now().nanoseconds
            self.received.add(modality)
            if type_name in SERIALIZED:
                if not self._ingest.wants(modality, _stamp_ns(message), now_ns):
                    self._on_message()
                    return
                try:
                    message = deserialize(message, type_name)
                except InvalidSampleError as error:
                    self._warn(modality, self._ingest.reject(modality, str(error), now_ns))
                    self._on_message()
                    return
            self._check_header(modality, message, now_ns)
            received = ReceivedMessage(modality, type_name, message, self._spec, self._values)
            if modality_type(modality).has_frames:
                self._store_format(received)
            if type_name == COMPRESSED_IMAGE:
                self._thread(modality).submit(received, now_ns)
            else:
                self._store(received, now_ns)
        return callback

    def _store(self, message: InputMessage, now_ns: int) -> None:
        """Store a message that was received at this time, or count why it is dropped."""
        rejection = self._ingest.add(message, now_ns)
        modality = message.modality
        if not modality_type(modality).has_frames:  # the format is known once it was read
            self._store_format(message)
        if rejection:
            self._warn(modality, rejection)
        self._on_message()

    def _warn(self, modality: Modality, rejection: str) -> None:
        self._log.warning(f'{modality}: message dropped: {rejection}', topic=modality.value)

    def on_info(self, modality: Modality, info: Any) -> None:
        """Apply what a driver publishes about the data of an input."""
        try:
            problem = self._ingest.apply_info(modality, info)
        except InvalidSampleError as error:
            problem = str(error)
        if not problem or problem != self._logged_info.get(modality) and (
                self._log.warning(f'{modality}: {problem}', topic=f'{modality}_info')):
            self._logged_info[modality] = problem

    def _check_header(self, modality: Modality, message: Any, now_ns: int) -> None:
        """Store the frame id, and check the first stamp."""
        header = header_of(message)
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

    def _store_format(self, received: InputMessage) -> None:
        text = printable(self._ingest.describe(received), _MAX_FORMAT)
        if text:
            self.formats[received.modality] = text
