"""
Decode each message of an input, check its content and store it, live or from a bag.

Nothing here needs ROS. The node's callbacks and the replay of a bag use the same code, so that
both have the same windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from karmma_ros.errors import InvalidSampleError
from karmma_ros.modality import Modality
from karmma_ros.stream.audio_rate import AudioFormat
from karmma_ros.stream.content_checks import ContentChecks
from karmma_ros.stream.decoders import (
    AudioDecoder,
    DetectionDecoder,
    is_wide,
    largest_value,
    read_compressed_image,
    read_flow,
    read_image,
    stamp_ns_of,
    StampedAudioDecoder,
)
from karmma_ros.stream.message_types import AUDIO_DATA, AUDIO_STAMPED, COMPRESSED_IMAGE
from karmma_ros.stream.sensor_stream import SensorStream
import numpy as np
from numpy.typing import NDArray

SizedImage = tuple[NDArray[Any], tuple[int, int]]
"""A decoded image or flow, and its width and height before it was cropped."""


class InputMessage(Protocol):
    """A message of an input that may still have to be read; decoded only when it is wanted."""

    @property
    def modality(self) -> Modality:
        """Return the modality of its topic."""

    @property
    def type_name(self) -> str:
        """Return its type, such as `sensor_msgs/msg/Image`."""

    @property
    def message(self) -> Any:
        """
        Return the message itself.

        :raises InvalidSampleError: when it cannot be read.
        """

    @property
    def stamp_ns(self) -> int:
        """
        Return its stamp, 0 without one.

        :raises InvalidSampleError: for a time before 1970.
        """

    def image(self) -> SizedImage:
        """
        Decode an image or a flow.

        :raises InvalidSampleError: when it is none.
        """


@dataclass(frozen=True)
class ReceivedMessage:
    """A message in memory."""

    modality: Modality
    type_name: str
    message: Any
    crop: tuple[int, int]
    """Height and width that images are cropped to."""
    bits: int = 16
    """Significant bits of the values of images with 16 bit channels."""

    @property
    def stamp_ns(self) -> int:
        """
        Return its stamp, 0 without one.

        :raises InvalidSampleError: for a time before 1970.
        """
        header = getattr(self.message, 'header', None)
        return 0 if header is None else stamp_ns_of(header)

    def image(self) -> SizedImage:
        """
        Decode an image or a flow.

        :raises InvalidSampleError: when it is none.
        """
        message = self.message
        if self.modality is Modality.FLOW:
            return read_flow(message, self.crop), (message.width, message.height)
        if self.type_name == COMPRESSED_IMAGE:
            image, (height, width) = read_compressed_image(
                message, self.crop, self.bits)
            return image, (width, height)
        return read_image(message, self.crop, self.bits), (message.width, message.height)


class MessageIngest:
    """
    Decode the messages of every input and store them in one stream.

    Whatever is wrong with a message is counted with its reason, which is returned; nothing is
    raised.
    """

    def __init__(
        self, values: Mapping[str, Any], lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        """
        Make the decoders from the node's parameters; `feed` comes before the first message.

        :param values: by name; read again by `read_parameters`.
        :param lock: guards the stream where another thread reads it. It is held for storing,
            never for decoding.
        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self._values = values
        self._lock = nullcontext() if lock is None else lock
        self._target: SensorStream | None = None
        self._audio_info: Any = None
        self._checks = ContentChecks(self._lock)
        self._stamped_audio = StampedAudioDecoder()
        self._detections = DetectionDecoder()
        self._audio_format: AudioFormat | None = None
        """How the last audio message was read."""
        self.read_parameters()

    def feed(self, stream: SensorStream) -> None:
        """Store the messages from now on in this stream."""
        self._target = stream
        self._checks.feed(stream)

    def read_parameters(self) -> None:
        """
        Make the decoders anew; what they learned from messages stays.

        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self._audio = make_audio_decoder(self._values)
        if self._audio_info is not None:
            self._audio.apply_info(self._audio_info)
        camera_size, values = self._detections.camera_size, self._values
        self._detections = DetectionDecoder(
            width=values['detections.image_width'], height=values['detections.image_height'],
            hand_classes=values['detections.hand_classes'],
            ignored_classes=values['detections.ignored_classes'],
            min_score=values['detections.min_score'],
            normalised=values['detections.normalised'],
            offset=(values['detections.offset_x'], values['detections.offset_y']))
        self._detections.camera_size = camera_size

    def reset_audio_info(self) -> None:
        """Clear what the driver stated of its audio, and what the content checks found."""
        self._audio_info = self._audio_format = None
        self._checks.reset()
        self.read_parameters()

    def describe_audio(self, type_name: str) -> str:
        """Return how audio of this message type is decoded now."""
        return str(self._stamped_audio if type_name == AUDIO_STAMPED else self._audio)

    def set_audio_info(self, info: Any) -> str:
        """
        Use the audio format that the driver states.

        Return a sentence when it contradicts the parameters, else ''.

        :raises InvalidSampleError: when it cannot be understood.
        """
        try:
            difference = self._audio.apply_info(info)
        except Exception as error:  # whatever it holds, audio is still received
            raise InvalidSampleError(f'audio_info: {type(error).__name__}: {error}') from None
        self._audio_info = info
        return difference

    def wants_image(self, received: InputMessage, now_ns: int) -> bool:
        """Whether to decode a camera image and `add` it; one that is not wanted is counted."""
        try:
            stamp_ns = received.stamp_ns
        except InvalidSampleError:
            return True  # `add` drops it with the reason
        with self._lock:
            return self._stream.wants_image(stamp_ns, now_ns)

    def add(self, received: InputMessage, now_ns: int) -> str:
        """Decode and store a message that is received now; return why it was dropped, or ''."""
        try:
            return self._store(received, received.stamp_ns, now_ns)
        except InvalidSampleError as error:
            reason = str(error)
        except Exception as error:  # one bad message must not end all others
            reason = f'{type(error).__name__}: {error}'
        with self._lock:
            self._stream.reject(received.modality, reason, now_ns)
        return reason

    def _store(self, received: InputMessage, stamp_ns: int, now_ns: int) -> str:
        if received.modality is Modality.RGB:
            return self._add_image(received, stamp_ns, now_ns)
        if received.modality is Modality.FLOW:
            return self._add_flow(received, stamp_ns, now_ns)
        if received.modality is Modality.AUDIO:
            return self._add_audio(received, stamp_ns, now_ns)
        boxes = self._detections(received.message)
        self._checks.boxes(self._detections.corners, self._detections.frame, now_ns)
        with self._lock:
            return self._stream.add_detections(boxes, stamp_ns, now_ns)

    def _add_image(self, received: InputMessage, stamp_ns: int, now_ns: int) -> str:
        with self._lock:
            if not self._stream.wants_image(stamp_ns, now_ns):
                return ''
        image, self._detections.camera_size = received.image()
        if is_wide(received.message, received.type_name):
            self._checks.image(
                image, self._values['rgb.bits'],
                lambda: largest_value(received.message, received.type_name), now_ns)
        with self._lock:
            return self._stream.add_image(image, stamp_ns, now_ns)

    def _add_flow(self, received: InputMessage, stamp_ns: int, now_ns: int) -> str:
        with self._lock:
            if not self._stream.wants_flow(stamp_ns, now_ns):
                return ''
        flow, _ = received.image()
        self._checks.flow(flow, now_ns)
        with self._lock:
            return self._stream.add_flow(flow, stamp_ns, now_ns)

    def _add_audio(self, received: InputMessage, stamp_ns: int, now_ns: int) -> str:
        samples, audio_format = self._decode_audio(received)
        before, self._audio_format = self._audio_format, audio_format
        with self._lock:
            if before not in (None, audio_format) and received.type_name != AUDIO_STAMPED:
                self._stream.restart(Modality.AUDIO)  # earlier samples were decoded differently
            reason = self._stream.add_audio(samples, audio_format.rate, stamp_ns, now_ns)
        if not reason:
            self._checks.audio(len(samples), audio_format, stamp_ns, now_ns)
        return reason

    def _decode_audio(self, received: InputMessage) -> tuple[NDArray[np.float32], AudioFormat]:
        """Return samples and how they were decoded."""
        message = received.message
        if received.type_name == AUDIO_STAMPED:
            samples = self._stamped_audio(message)
            return samples, self._stamped_audio.format
        data = message.data if received.type_name == AUDIO_DATA else message.audio.data
        return self._audio(data), self._audio.format

    @property
    def _stream(self) -> SensorStream:
        assert self._target is not None, 'feed comes before the first message'
        return self._target


def make_audio_decoder(values: Mapping[str, Any]) -> AudioDecoder:
    """
    Make the decoder of ros-drivers' audio from the parameters.

    :raises InvalidSettingError: for a sample format that cannot be decoded.
    """
    return AudioDecoder(
        values['audio.sample_rate'], values['audio.channels'], values['audio.sample_format'])
