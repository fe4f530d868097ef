"""
The audio of a bag between any two times.

Shape legend: n samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import io
from typing import Any, NamedTuple

from karmma_ros.bags.bag_message import BagMessage
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.replay import FOREIGN_CLOCK_NS
from karmma_ros.bags.topics import AUDIO_INFO, TopicChoice
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
import numpy as np
from numpy.typing import NDArray

_JITTER_S = 0.05
"""Chunks follow each other without a gap, unless their time differs by more."""
_MARGIN_NS = 2 * NANOSECONDS
"""A message is received after its samples, by less."""


class TimedAudio(NamedTuple):
    """Mono audio without a gap."""

    start_s: float
    """Time of the first sample, from the start of the bag."""
    samples: NDArray[np.float32]
    """`[n]`, in [-1, 1]."""
    rate: int
    """Hz."""


class BagAudio:
    """Decode the audio of an open bag, by the code of the node."""

    def __init__(
        self, bag: Bag, choice: TopicChoice, values: Mapping[str, Any], info: Any = None,
    ) -> None:
        """
        Take the topic of the audio, and the format that the driver states.

        :param values: the node's parameters by name.
        :param info: format that an earlier file of a split bag states.
        """
        self._bag, self._values = bag, values
        self._topic = choice.topics.get(Modality.AUDIO.value)
        self._decoder = modality_type(Modality.AUDIO).decoder(Modality.AUDIO, values, {})
        topic = choice.topics.get(AUDIO_INFO)
        if topic is not None:
            first = next(iter(bag.messages([topic])), None)
            info = info if first is None else self._parsed(first.data, bag.reader(topic))
        if info is not None:
            self._decoder.apply_info(info)

    @property
    def present(self) -> bool:
        """Return whether the bag has audio."""
        return self._topic is not None

    def chunk(self, data: bytes, received_ns: int) -> TimedAudio | None:
        """Return the audio of a message; None if it cannot be read."""
        topic = self._topic
        assert topic is not None
        try:
            message = BagMessage(Modality.AUDIO.value, topic.type, 0, received_ns, data,
                                 self._bag.reader(topic), ClipSpec(), self._values)
            chunk = self._decoder.decode(message, received_ns)
            stamp_ns = message.stamp_ns
        except (InvalidSampleError, ValueError):
            return None
        if not len(chunk.samples) or chunk.sample_rate < 1:
            return None
        if abs(stamp_ns - received_ns) > FOREIGN_CLOCK_NS:
            stamp_ns = received_ns - len(chunk.samples) * NANOSECONDS // chunk.sample_rate
        return TimedAudio((stamp_ns - self._bag.start_ns) / NANOSECONDS, chunk.samples,
                          chunk.sample_rate)

    def between(self, start_s: float, stop_s: float) -> Iterator[TimedAudio]:
        """Yield the audio that has a part in an interval; what follows a chunk is joined to it."""
        if self._topic is None:
            return
        start_ns = self._bag.start_ns + round(start_s * NANOSECONDS)
        stop_ns = self._bag.start_ns + round(stop_s * NANOSECONDS)
        messages = self._bag.messages(
            [self._topic], max(0, start_ns - _MARGIN_NS), stop_ns + _MARGIN_NS)
        yield from joined(each for message in messages if (
            each := self.chunk(message.data, message.received_ns)) is not None)

    def wav(self, start_s: float, stop_s: float) -> bytes | None:
        """Return exactly an interval as a WAV file, gaps as silence; None without audio."""
        import soundfile

        parts = list(self.between(start_s, stop_s))
        if not parts:
            return None
        rate = parts[0].rate
        audio = np.zeros(max(1, round((stop_s - start_s) * rate)), np.float32)
        for part in parts:
            first = round((part.start_s - start_s) * rate)
            begin, end = max(0, first), min(len(audio), first + len(part.samples))
            if begin < end and part.rate == rate:
                audio[begin:end] = part.samples[begin - first:end - first]
        file = io.BytesIO()
        soundfile.write(file, audio, rate, format='WAV', subtype='PCM_16')
        return file.getvalue()

    def _parsed(self, data: bytes, read: Any) -> Any:
        try:
            return read(data)
        except ValueError:
            return None


def joined(chunks: Iterator[TimedAudio], most_s: float = 4.0) -> Iterator[TimedAudio]:
    """Yield longer parts, of chunks that follow each other by their times but for jitter."""
    waiting: list[TimedAudio] = []
    count = 0
    for chunk in chunks:
        if waiting:
            first = waiting[0]
            end_s = first.start_s + count / first.rate
            if (chunk.rate != first.rate or abs(chunk.start_s - end_s) > _JITTER_S
                    or count > most_s * first.rate):
                yield first._replace(samples=np.concatenate([x.samples for x in waiting]))
                if chunk.rate == first.rate and abs(chunk.start_s - end_s) <= _JITTER_S:
                    chunk = chunk._replace(start_s=end_s)
                waiting, count = [], 0
        waiting.append(chunk)
        count += len(chunk.samples)
    if waiting:
        yield waiting[0]._replace(samples=np.concatenate([x.samples for x in waiting]))
