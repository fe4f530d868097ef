"""Messages of a bag as a corrupted sensor sends them: bytes to be published in their place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass, replace
from typing import Any

import cv2
from karmma_ros.bags.bag_message import BagMessage
from karmma_ros.bags.faults import Corrupt, corruption_of, Faults, HeldMessage
from karmma_ros.bags.message_definitions import Topic
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.topics import info_topic
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modalities.audio import MicrophoneDecoder
from karmma_ros.modalities.corruption import InStream
from karmma_ros.modalities.message_types import (
    AUDIO_DATA,
    AUDIO_DATA_STAMPED,
    AUDIO_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
)
from karmma_ros.modalities.rgb import read_compressed_image, read_image
from karmma_ros.modality import Modality
from karmma_ros.stream.settings import node_parameters
import numpy as np
from numpy.typing import NDArray

Change = Callable[[Any], Any]
"""From a sample to a corrupted one."""
_CAMERA, _MICROPHONE = (IMAGE, COMPRESSED_IMAGE), (AUDIO_DATA, AUDIO_DATA_STAMPED)
_FORMAT = 'S16LE'
"""Of the audio that can be written again."""


class CorruptedMessages:
    """The messages of some topics with simulated faults."""

    def __init__(self, bag: Bag, corrupted: Mapping[Corrupt, Iterable[Topic]], seed: int = 0):
        """
        Prepare the faults of each topic.

        :param corrupted: the topics of each fault, whose input is a modality.
        :raises InvalidSettingError: for a corruption that messages of a type cannot be given.
        """
        self._bag, self._index = bag, Counter[str]()
        self._values = node_parameters()
        of_topic: dict[str, list[Corrupt]] = {}
        for fault, topics in corrupted.items():
            for topic in topics:
                _check(fault, topic)
                of_topic.setdefault(topic.name, []).append(fault)
        self._corrupts = of_topic
        self._faults = {name: Faults(each, seed, bag.start_ns) for name, each in of_topic.items()}
        self._microphones = {
            name: self._microphone(Modality(each[0].input), name)
            for name, each in of_topic.items() if Modality(each[0].input).type_name == 'audio'}

    def __call__(self, topic: Topic, time_ns: int, data: bytes) -> bytes | None:
        """
        Return the bytes to publish, or None for a message that is dropped.

        :raises InvalidSettingError: for audio in another format than can be written.
        """
        index = self._index[topic.name]
        self._index[topic.name] += 1
        seconds = (time_ns - self._bag.start_ns) / NANOSECONDS
        covering = [f for f in self._corrupts.get(topic.name, ()) if f.covers(seconds)]
        if not covering:
            return data
        faults, role = self._faults[topic.name], covering[0].input
        if faults.receive_ns(role, index, time_ns) is None:
            return None
        read = self._bag.reader(topic)
        message = faults.held(BagMessage(
            role, topic.type, index, time_ns, data, read, ClipSpec(), self._values))
        try:
            content = _with_stamp(message, read(data))
            if any(_changes_samples(fault) for fault in covering):
                content = self._changed(topic, message, content, faults)
            return read.write(content)
        except InvalidSettingError:
            raise
        except (InvalidSampleError, ValueError):
            return data  # of a message that cannot be read, the node reports why

    def _changed(
        self, topic: Topic, message: BagMessage, content: Any, faults: Faults,
    ) -> Any:
        """Return a message with corrupted samples."""
        def change(sample: Any) -> Any:
            return faults.corrupt(message, sample)
        if topic.type == IMAGE:
            return _image(content, change)
        if topic.type == COMPRESSED_IMAGE:
            return _compressed(content, change)
        decoder = self._microphones[topic.name]
        chunk = change(decoder.decode(message, message.received_ns))
        data = _pcm(chunk.samples, decoder.describe(message))
        if topic.type == AUDIO_DATA:
            return replace(content, data=data)
        return replace(content, audio=replace(content.audio, data=data))

    def _microphone(self, modality: Modality, name: str) -> MicrophoneDecoder:
        decoder = MicrophoneDecoder(modality, self._values, {})
        topics = self._bag.topics.values()
        own = next(topic for topic in topics if topic.name == name)
        infos = [topic for topic in topics if topic.type == AUDIO_INFO]
        topic = info_topic(modality, infos, {modality.value: own})
        if topic is not None:
            read = self._bag.reader(topic)
            for _, _, data in self._bag.messages([topic]):
                decoder.apply_info(read(data))
                break
        return decoder


def _changes_samples(fault: Corrupt) -> bool:
    return corruption_of(fault).in_stream in (InStream.EACH, InStream.COMPLETE)


def _check(fault: Corrupt, topic: Topic) -> None:
    modality = Modality(fault.input)
    camera = modality.type_name == 'rgb' and topic.type in _CAMERA
    microphone = modality.type_name == 'audio' and topic.type in _MICROPHONE
    if _changes_samples(fault) and not (camera or microphone):
        raise InvalidSettingError(
            '--corrupt', str(fault), 'of images and audio any corruption, of other messages one '
            'that repeats or drops them', f'those of {topic.name}, {topic.type}, cannot be '
            'written again; karmma bag evaluate corrupts them all')


def _with_stamp(message: BagMessage, own: Any) -> Any:
    """Return the content of a message, stamped as the message itself where it repeats another."""
    content = message.message
    if isinstance(message, HeldMessage) and hasattr(own, 'header') and is_dataclass(content):
        return replace(content, header=own.header)  # type: ignore[type-var]
    return content


def _image(message: Any, change: Change) -> Any:
    rgb = change(read_image(message, (message.height, message.width)))
    return replace(message, encoding='rgb8', is_bigendian=0, step=3 * message.width,
                   data=np.ascontiguousarray(rgb).reshape(-1))


def _compressed(message: Any, change: Change) -> Any:
    _, size = read_compressed_image(message, (8, 8))
    rgb = change(read_compressed_image(message, size)[0])
    suffix = 'png' if 'png' in message.format.lower() else 'jpeg'
    _, data = cv2.imencode(f'.{suffix}', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return replace(message, data=data.reshape(-1))


def _pcm(samples: NDArray[np.float32], described: str) -> NDArray[np.uint8]:
    """Return mono audio as bytes in the format that a decoder describes, in all its channels."""
    name, _, channels = described.split(', ')
    if name.upper() != _FORMAT:
        raise InvalidSettingError(
            '--corrupt', f'audio in {name}', f'audio in {_FORMAT}',
            'karmma bag evaluate corrupts audio of any format')
    pcm = np.round(np.clip(samples, -1, 1) * 32767).astype('<i2')
    return np.repeat(pcm, int(channels.split()[0])).view(np.uint8)
