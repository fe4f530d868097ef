"""
What the callbacks of the subscriptions do with a message, beside its way into the stream.

A callback decodes and stores (`stream/intake.py`), no more; compressed images, which may take as
long as a window, are decoded beside it (`image_decoder.py`). Whatever is wrong with a message is
counted with its reason and warned about now and then; nothing is ever raised out of a callback.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, printable
from karmma_ros.modality import Modality
from karmma_ros.node.image_decoder import ImageDecoder
from karmma_ros.node.log import NodeLog
from karmma_ros.stream.decoders import stamp_ns_of
from karmma_ros.stream.ingest import Arrival, Arrived, Intake
from karmma_ros.stream.message_types import COMPRESSED_IMAGE
from karmma_ros.stream.sensor_stream import SensorStream
from rclpy.node import Node

_FOREIGN_CLOCK_NS = 10 * NANOSECONDS
_MAX_FORMAT = 60
"""Characters that are kept of what a publisher calls its format."""
_MAX_FRAME_ID = 255


class Messages:
    """Take the messages of every input, and keep what is to be said of them."""

    def __init__(
        self, node: Node, values: Mapping[str, Any], lock: Lock, taken: Callable[[], None],
    ) -> None:
        """
        Make the readers from the parameters.

        :param lock: guards the stream, which the worker reads.
        :param taken: called after each message.
        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self._node, self._intake, self._taken = node, Intake(values, lock), taken
        self._log = NodeLog(node)
        self._decoder = ImageDecoder(node, self._store)
        self._values, self._crop = values, (0, 0)
        self.frame_ids: dict[Modality, str] = {}
        """The last header.frame_id of each input, as it is passed on in results."""
        self.forget()

    def feed(self, stream: SensorStream, spec: ClipSpec) -> None:
        """Store what comes from now on in this stream."""
        self.cancel()
        self._intake.feed(stream)
        self._crop = spec.video.height, spec.video.width

    def forget(self) -> None:
        """Forget what was warned about, and what the driver said of its sound."""
        self._log.reset()
        self.received: set[Modality] = set()
        """Inputs of which a message has come since their subscription."""
        self._judged: set[Modality] = set()
        """Inputs whose first stamp was looked at."""
        self.formats: dict[Modality, str] = {}
        """How the last message of each input was encoded."""
        self._said_of_info = ''
        self._intake.forget_info()

    def cancel(self) -> None:
        """Drop the images that are being decoded."""
        self._decoder.cancel()

    def stop(self) -> None:
        """Drop the images that are being decoded, and end the thread that does it."""
        self._decoder.stop()

    def read_parameters(self) -> None:
        """Make the readers anew; what they learned from messages stays."""
        self._intake.read_parameters()

    def callback(self, modality: Modality, type_name: str) -> Callable[[Any], None]:
        """Give the callback of a subscription."""
        def take(message: Any) -> None:
            now_ns = self._node.get_clock().now().nanoseconds
            self.received.add(modality)
            self._look_at_header(modality, message, now_ns)
            arrived = Arrived(modality, type_name, message, self._crop, self._values['rgb.bits'])
            self._note_format(modality, type_name, message)
            if type_name != COMPRESSED_IMAGE:
                self._store(arrived, now_ns)
            elif self._intake.wants_image(arrived, now_ns):
                self._decoder.submit(arrived, now_ns)
            else:
                self._taken()
        return take

    def _store(self, arrival: Arrival, now_ns: int) -> None:
        """Store a message that was received at this time, or count why not."""
        refusal = self._intake.take(arrival, now_ns)
        modality = arrival.modality
        if modality is Modality.AUDIO:  # the format is known once a message was read
            self.formats[modality] = self._intake.sound_format(arrival.type_name)
        if refusal:
            self._log.warning(f'{modality}: message dropped: {refusal}', topic=modality.value)
        self._taken()

    def take_info(self, info: Any) -> None:
        """Take what the audio driver says of its format."""
        try:
            said = self._intake.take_info(info)
        except InvalidSampleError as error:
            said = str(error)
        if not said or said != self._said_of_info and (
                self._log.warning(f'audio: {said}', topic='audio_info')):
            self._said_of_info = said

    def _look_at_header(self, modality: Modality, message: Any, now_ns: int) -> None:
        """Keep the frame id, and judge the first stamp."""
        header = getattr(message, 'header', None)
        if header is None:
            return
        self.frame_ids[modality] = printable(header.frame_id, _MAX_FRAME_ID)
        if modality in self._judged or not now_ns:  # at zero the clock is still awaited
            return
        with suppress(InvalidSampleError):  # the intake refuses the message because of it
            self._judge_stamp(modality, stamp_ns_of(header), now_ns)
            self._judged.add(modality)

    def _judge_stamp(self, modality: Modality, stamp_ns: int, now_ns: int) -> None:
        """Say when the stamps are of no use."""
        if stamp_ns == 0:
            self._log.warning(
                f'{modality}: header.stamp is zero; the time of receipt is used. Let the '
                'driver stamp its messages')
        elif abs(now_ns - stamp_ns) > _FOREIGN_CLOCK_NS:
            self._log.warning(
                f'{modality}: stamps differ from the node clock by '
                f'{(now_ns - stamp_ns) / NANOSECONDS:.0f} s; results go on, their '
                'end_to_end_latency is unknown. If a bag is playing: play it with --clock and '
                'set use_sim_time to true')

    def _note_format(self, modality: Modality, type_name: str, message: Any) -> None:
        if type_name == COMPRESSED_IMAGE:
            self.formats[modality] = printable(message.format, _MAX_FORMAT)
        elif modality in (Modality.RGB, Modality.FLOW):
            self.formats[modality] = (
                f'{printable(message.encoding, _MAX_FORMAT)}, '
                f'{message.width} x {message.height}')
