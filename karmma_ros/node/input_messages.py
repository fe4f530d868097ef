"""
Messages in, timed samples out: what the callbacks of the subscriptions do.

A callback decodes and stores, no more. Whatever is wrong with a message is counted with
its reason and warned about now and then; nothing is ever raised out of a callback.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
import time
from typing import Any

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modality import Modality
from karmma_ros.node import input_types as types
from karmma_ros.stream.readers import (
    AudioReader,
    DetectionReader,
    read_compressed_image,
    read_flow,
    read_image,
    stamp_ns_of,
    StampedAudioReader,
)
from karmma_ros.stream.sensors import SensorStream
from rclpy.node import Node

_WARN_EVERY_S = 10.0
_FOREIGN_CLOCK_NS = 10 * NANOSECONDS
_MAX_FORMAT = 60
"""Characters that are kept of what a publisher calls its format."""

Handler = Callable[[Any, int, int], str]
"""Takes a message, its stamp and the time of receipt; gives why it was dropped, or ''."""


class Messages:
    """Decode the messages of every input and store them in one stream."""

    def __init__(self, node: Node, values: Mapping[str, Any], lock: Lock) -> None:
        """
        Make the readers from the parameters.

        :param lock: guards the stream, which the worker reads.
        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self._node, self._values, self._lock = node, values, lock
        self._stream: SensorStream | None = None
        self._crop = 0, 0
        self._info: Any = None
        self._told_audio = StampedAudioReader()
        self._boxes = DetectionReader()
        self.read_parameters()
        self.forget()
        self.frame_ids: dict[Modality, str] = {}
        """The last header.frame_id of each input."""

    def feed(self, stream: SensorStream, spec: ClipSpec) -> None:
        """Store what comes from now on in this stream."""
        self._stream, self._crop = stream, (spec.video.height, spec.video.width)

    def forget(self) -> None:
        """Forget what was warned about, and what the driver said of its sound."""
        self._warned: dict[Modality, float] = {}
        self._judged: set[Modality] = set()
        """Inputs whose first stamp was looked at."""
        self.formats: dict[Modality, str] = {}
        """How the last message of each input was encoded."""
        self._info = None
        self._said_of_info = ''
        self.read_parameters()

    def read_parameters(self) -> None:
        """Make the readers anew; what they learned from messages stays."""
        self._audio = make_audio_reader(self._values)
        if self._info is not None:
            self._audio.follow(self._info)
        camera_size = self._boxes.camera_size
        values = {name: self._values[f'detections.{name}'] for name in (
            'hand_classes', 'ignored_classes', 'min_score')}
        self._boxes = DetectionReader(
            width=self._values['detections.image_width'],
            height=self._values['detections.image_height'], **values)
        self._boxes.camera_size = camera_size

    def callback(self, modality: Modality, type_name: str) -> Callable[[Any], None]:
        """Give the callback of a subscription."""
        handle = self._handler(modality, type_name)

        def take(message: Any) -> None:
            now_ns = self._node.get_clock().now().nanoseconds
            try:
                stamp_ns = self._stamp(modality, message, now_ns)
                refusal = handle(message, stamp_ns, now_ns)
                if refusal:
                    self._warn(modality, refusal)
            except InvalidSampleError as reason:
                self._reject(modality, str(reason), now_ns)
            except Exception as error:  # a callback must not end the executor
                self._reject(modality, f'{type(error).__name__}: {error}', now_ns)
        return take

    def take_info(self, info: Any) -> None:
        """Take what the audio driver says of its format."""
        try:
            said = self._audio.follow(info)
            self._info = info
        except Exception as error:  # a callback must not end the executor
            said = f'audio_info: {type(error).__name__}: {error}'
        if said and said != self._said_of_info:
            self._log(f'audio: {said}')
        self._said_of_info = said

    def _handler(self, modality: Modality, type_name: str) -> Handler:
        if modality is Modality.RGB:
            return self._compressed if type_name == types.COMPRESSED_IMAGE else self._image
        if modality is Modality.AUDIO:
            return {types.AUDIO_BARE: self._bare_audio, types.AUDIO_DRIVERS: self._stamped_audio,
                    types.AUDIO_TOLD: self._told}[type_name]
        return self._flow if modality is Modality.FLOW else self._detections

    def _image(self, message: Any, stamp_ns: int, now_ns: int) -> str:
        width, height = message.width, message.height
        self.formats[Modality.RGB] = f'{message.encoding[:_MAX_FORMAT]}, {width} x {height}'
        if not self._wants_image(stamp_ns, now_ns):
            return ''
        image = read_image(message, self._crop)
        return self._add_image(image, (width, height), stamp_ns, now_ns)

    def _compressed(self, message: Any, stamp_ns: int, now_ns: int) -> str:
        self.formats[Modality.RGB] = message.format[:_MAX_FORMAT]
        if not self._wants_image(stamp_ns, now_ns):
            return ''
        image, (height, width) = read_compressed_image(message, self._crop)
        return self._add_image(image, (width, height), stamp_ns, now_ns)

    def _wants_image(self, stamp_ns: int, now_ns: int) -> bool:
        with self._lock:
            return self._store.wants_image(stamp_ns, now_ns)

    def _add_image(
        self, image: Any, size: tuple[int, int], stamp_ns: int, now_ns: int
    ) -> str:
        self._boxes.camera_size = size
        with self._lock:
            return self._store.add_image(image, stamp_ns, now_ns)

    def _flow(self, message: Any, stamp_ns: int, now_ns: int) -> str:
        self.formats[Modality.FLOW] = (
            f'{message.encoding[:_MAX_FORMAT]}, {message.width} x {message.height}')
        with self._lock:
            if not self._store.wants_flow(stamp_ns, now_ns):
                return ''
        flow = read_flow(message, self._crop)
        with self._lock:
            return self._store.add_flow(flow, stamp_ns, now_ns)

    def _bare_audio(self, message: Any, stamp_ns: int, now_ns: int) -> str:
        self.formats[Modality.AUDIO] = str(self._audio)
        samples = self._audio(message.data)
        return self._add_audio(samples, self._audio.sample_rate, stamp_ns, now_ns)

    def _stamped_audio(self, message: Any, stamp_ns: int, now_ns: int) -> str:
        return self._bare_audio(message.audio, stamp_ns, now_ns)

    def _told(self, message: Any, stamp_ns: int, now_ns: int) -> str:
        samples = self._told_audio(message)
        self.formats[Modality.AUDIO] = str(self._told_audio)
        return self._add_audio(samples, self._told_audio.sample_rate, stamp_ns, now_ns)

    def _add_audio(self, samples: Any, rate: int, stamp_ns: int, now_ns: int) -> str:
        with self._lock:
            return self._store.add_audio(samples, rate, stamp_ns, now_ns)

    def _detections(self, message: Any, stamp_ns: int, now_ns: int) -> str:
        boxes = self._boxes(message)
        with self._lock:
            return self._store.add_detections(boxes, stamp_ns, now_ns)

    @property
    def _store(self) -> SensorStream:
        assert self._stream is not None, 'feed comes before the first message'
        return self._stream

    def _stamp(self, modality: Modality, message: Any, now_ns: int) -> int:
        """Give the stamp, 0 without one; keep the frame id, and judge the first stamp."""
        header = getattr(message, 'header', None)
        if header is None:
            return 0
        self.frame_ids[modality] = header.frame_id
        stamp_ns = stamp_ns_of(header)
        if modality not in self._judged and now_ns:  # at zero the clock is still awaited
            self._judged.add(modality)
            self._judge_stamp(modality, stamp_ns, now_ns)
        return stamp_ns

    def _judge_stamp(self, modality: Modality, stamp_ns: int, now_ns: int) -> None:
        """Say when the stamps are of no use."""
        if stamp_ns == 0:
            self._log(f'{modality}: header.stamp is zero; the time of receipt is used. Let the '
                      'driver stamp its messages')
        elif abs(now_ns - stamp_ns) > _FOREIGN_CLOCK_NS:
            self._log(
                f'{modality}: stamps differ from the node clock by '
                f'{(now_ns - stamp_ns) / NANOSECONDS:.0f} s; results go on, their '
                'end_to_end_latency is unknown. If a bag is playing: play it with --clock and '
                'set use_sim_time to true')

    def _reject(self, modality: Modality, reason: str, now_ns: int) -> None:
        with self._lock:
            self._store.reject(modality, reason, now_ns)
        self._warn(modality, reason)

    def _warn(self, modality: Modality, reason: str) -> None:
        now = time.monotonic()
        if now - self._warned.get(modality, -_WARN_EVERY_S) >= _WARN_EVERY_S:
            self._warned[modality] = now
            self._log(f'{modality}: message dropped: {reason}')

    def _log(self, text: str) -> None:
        self._node.get_logger().warning(text)


def make_audio_reader(values: Mapping[str, Any]) -> AudioReader:
    """
    Make the reader of ros-drivers' sound from the parameters.

    :raises InvalidSettingError: for a sample format that cannot be decoded.
    """
    return AudioReader(
        values['audio.sample_rate'], values['audio.channels'], values['audio.sample_format'])
