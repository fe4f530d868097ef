"""
The messages of a bag into a stream of sensors, as the node's callbacks put them there.

What happens to a message, and in which order, is what `node/input_messages.py` does; here it
needs no ROS, and a picture that several runs look at is decoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.evaluation.rosbag.topics import AUDIO_INFO, AUDIO_TOLD
from karmma_ros.modality import Modality
from karmma_ros.stream.readers import (
    AudioReader,
    DetectionReader,
    read_compressed_image,
    read_flow,
    read_image,
    stamp_ns_of,
    StampedAudioReader,
)
from karmma_ros.stream.sensors import InputSettings, SensorStream
import numpy as np
from numpy.typing import NDArray

COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
AUDIO_BARE = 'audio_common_msgs/msg/AudioData'

_PICTURES = (Modality.RGB.value, Modality.FLOW.value)
_STAMPS = {0: Struct('>iI'), 1: Struct('<iI')}
_HEADER_AT = 4
"""Behind CDR's own header. Pictures begin with their header, and that with the stamp."""

Picture = tuple[NDArray[Any], tuple[int, int]]
"""A decoded picture, and width and height of the whole one."""


class Delivery:
    """One message on its way to the sensors; it is decoded when first looked at, and once."""

    def __init__(
        self, role: str, type_name: str, index: int, received_ns: int, data: bytes,
        read: Callable[[bytes], Any], crop: tuple[int, int],
    ) -> None:
        """
        Take a message as it lies in the bag.

        :param role: what its topic is, as `topics.TYPES` has them.
        :param index: its place among the messages of its topic.
        """
        self.role, self.type_name, self.index = role, type_name, index
        self.received_ns, self._data, self._read, self._crop = received_ns, data, read, crop
        self._message: Any = None
        self._failure: ValueError | None = None
        self._picture: Picture | InvalidSampleError | None = None

    @property
    def message(self) -> Any:
        """
        Give the message.

        :raises InvalidSampleError: when its bytes are none of its type.
        """
        if self._failure is None and self._message is None:
            try:
                self._message = self._read(self._data)
            except ValueError as failure:
                self._failure = failure
        if self._failure is not None:
            raise InvalidSampleError(str(self._failure))
        return self._message

    @property
    def stamp_ns(self) -> int:
        """
        Give the stamp, 0 without one.

        :raises InvalidSampleError: for a time before 1970.
        """
        if self.role in _PICTURES and len(self._data) >= _HEADER_AT + 8:
            # Most pictures are not wanted: their stamp is all that is ever looked at.
            sec, nanosec = _STAMPS[self._data[1] & 1].unpack_from(self._data, _HEADER_AT)
            if sec >= 0:
                return int(sec * NANOSECONDS + nanosec)
        header = getattr(self.message, 'header', None)
        return 0 if header is None else stamp_ns_of(header)

    def picture(self) -> Picture:
        """
        Give a picture or a flow, cropped, and the size of the whole.

        :raises InvalidSampleError: when it cannot be decoded.
        """
        if self._picture is None:
            try:
                self._picture = self._decode()
            except InvalidSampleError as failure:
                self._picture = failure
        if isinstance(self._picture, InvalidSampleError):
            raise self._picture
        return self._picture

    def _decode(self) -> Picture:
        message = self.message
        if self.role == Modality.FLOW.value:
            return read_flow(message, self._crop), (message.width, message.height)
        if self.type_name == COMPRESSED_IMAGE:
            image, (height, width) = read_compressed_image(message, self._crop)
            return image, (width, height)
        return read_image(message, self._crop), (message.width, message.height)


class Feed:
    """Store the messages of every input in one stream."""

    def __init__(self, values: Mapping[str, Any], stream: SensorStream) -> None:
        """
        Make the readers from the node's parameters.

        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self._stream = stream
        self.newest_ns = 0
        """The newest stamp in the last message that was taken."""
        self._audio = AudioReader(
            values['audio.sample_rate'], values['audio.channels'], values['audio.sample_format'])
        self._told_audio = StampedAudioReader()
        self._boxes = DetectionReader(
            width=values['detections.image_width'], height=values['detections.image_height'],
            hand_classes=values['detections.hand_classes'],
            ignored_classes=values['detections.ignored_classes'],
            min_score=values['detections.min_score'])

    def take(self, delivery: Delivery, now_ns: int) -> str:
        """Take a message that is received now; give why it was dropped, or ''."""
        if delivery.role == AUDIO_INFO:
            return self._take_info(delivery)
        modality = Modality(delivery.role)
        try:
            return self._store(modality, delivery, delivery.stamp_ns, now_ns)
        except InvalidSampleError as error:
            reason = str(error)
        except Exception as error:  # as in the node: a bad message ends nothing
            reason = f'{type(error).__name__}: {error}'
        self._stream.reject(modality, reason, now_ns)
        return reason

    def _store(
        self, modality: Modality, delivery: Delivery, stamp_ns: int, now_ns: int,
    ) -> str:
        stream = self._stream
        self.newest_ns = stamp_ns or now_ns
        if modality is Modality.RGB:
            if not stream.wants_image(stamp_ns, now_ns):
                return ''
            image, self._boxes.camera_size = delivery.picture()
            return stream.add_image(image, stamp_ns, now_ns)
        if modality is Modality.FLOW:
            if not stream.wants_flow(stamp_ns, now_ns):
                return ''
            return stream.add_flow(delivery.picture()[0], stamp_ns, now_ns)
        if modality is Modality.AUDIO:
            samples, rate = self._sound(delivery)
            if stamp_ns and rate:
                self.newest_ns += len(samples) * NANOSECONDS // rate
            return stream.add_audio(samples, rate, stamp_ns, now_ns)
        return stream.add_detections(self._boxes(delivery.message), stamp_ns, now_ns)

    def _sound(self, delivery: Delivery) -> tuple[NDArray[np.float32], int]:
        message = delivery.message
        if delivery.type_name == AUDIO_TOLD:
            samples = self._told_audio(message)
            return samples, self._told_audio.sample_rate
        data = message.data if delivery.type_name == AUDIO_BARE else message.audio.data
        return self._audio(data), self._audio.sample_rate

    def _take_info(self, delivery: Delivery) -> str:
        try:
            self._audio.follow(delivery.message)
        except Exception as error:  # as in the node
            return f'{type(error).__name__}: {error}'
        return ''


def make_stream(
    spec: ClipSpec, modalities: tuple[Modality, ...], values: Mapping[str, Any],
    flow_topic: bool, hop: int = 0,
) -> SensorStream:
    """
    Make the stream that a node with these parameters has.

    :param hop: frames from one window of a streaming network to the next; 0 for others.
    """
    settings = {}
    for modality in Modality:
        derived = modality is Modality.FLOW and not flow_topic
        source = Modality.RGB if derived else modality
        settings[modality] = InputSettings(
            timeout_ns=round(values[f'{source}.timeout'] * NANOSECONDS),
            enabled=values[f'{modality}.enabled'],
            min_coverage=values[f'{source}.min_coverage'])
    return SensorStream(spec, modalities, settings, flow_topic=flow_topic, hop=hop)
