"""
A bag as the page shows it: frames and audio at any time straight from its files, and signals.

Times are seconds from the first message, as those of labels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
from karmma_ros.bags.audio_infos import earlier_audio_infos, topics_of_file
from karmma_ros.bags.bag_message import decode_frame, Frame
from karmma_ros.bags.message_definitions import Topic
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.topics import AUDIO_INFO, choose_topics, TopicChoice
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import BagError, InvalidSettingError
from karmma_ros.labelling.bag_audio import BagAudio
from karmma_ros.labelling.signals import SignalScan
from karmma_ros.modalities.message_types import COMPRESSED_IMAGE, IMAGE
from karmma_ros.modality import in_order, Modality, registered_types

AT, NEXT, PREVIOUS = 'at', 'next', 'previous'
"""Which frame is wanted: the one that is shown at a time, the first after or the last before."""
_REACHES_NS = tuple(round(s * NANOSECONDS) for s in (0.1, 1.0, 10.0))
"""Intervals that are searched for a frame, one after the other."""
_CACHED = 48
"""JPEG images that are kept of each recording."""
_WIDTH, _QUALITY = 960, 85
"""Greatest width in pixels, and the quality of JPEG."""


@dataclass(frozen=True)
class ShownFrame:
    """An image of a camera."""

    time_s: float
    jpeg: bytes = field(repr=False)


class BagView:
    """An open bag; its methods may be called from any thread."""

    def __init__(
        self, path: Path, values: Mapping[str, Any], topics: Mapping[str, str] | None = None,
        others: Sequence[Path] = (),
    ) -> None:
        """
        Open the bag.

        :param values: the node's parameters by name.
        :param topics: role → topic, as of `choose_topics`.
        :param others: bags of which one may be an earlier file of this split bag.
        :raises BagError: when it cannot be read.
        """
        self._bag, self._lock = Bag(path), Lock()
        self._bag.__enter__()
        self._frames: OrderedDict[tuple[str, int], ShownFrame] = OrderedDict()
        try:
            named = topics or {}
            self.choice = choose(self._bag, topics_of_file(self._bag, named, others))
            self._cameras = _cameras(self._bag, self.choice)
            earlier = earlier_audio_infos(path, self.choice, named, others).get(AUDIO_INFO)
            info = None if earlier is None else earlier.message
            self._audio = BagAudio(self._bag, self.choice, values, info)
            self.signals = SignalScan(path, self.choice, values, self.length_s, info)
        except BaseException:
            self.close()
            raise

    @property
    def length_s(self) -> float:
        """Return the seconds from the first to the last message."""
        return (self._bag.end_ns - self._bag.start_ns) / NANOSECONDS

    @property
    def start_ns(self) -> int:
        """Return the time of the first message."""
        return self._bag.start_ns

    @property
    def cameras(self) -> tuple[str, ...]:
        """Return the topics of the cameras, the one that a model takes first."""
        return tuple(self._cameras)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what cannot be read of the bag."""
        return (*self._bag.warnings, *self.choice.unread)

    def frame(self, camera: str, time_s: float, which: str = AT) -> ShownFrame | None:
        """
        Return a frame of a camera; None where there is none within ten seconds.

        :param which: one of `AT`, `NEXT` and `PREVIOUS`.
        :raises InvalidSettingError: for another camera.
        """
        if camera not in self._cameras or which not in (AT, NEXT, PREVIOUS):
            raise InvalidSettingError('camera', camera, ', '.join(self.cameras) or 'none')
        topic = self._cameras[camera]
        time_ns = self._bag.start_ns + round(time_s * NANOSECONDS)
        with self._lock:
            message = self._nearest(topic, time_ns, which)
            if message is None:
                return None
            received_ns, data = message
            key = camera, received_ns
            if key in self._frames:
                self._frames.move_to_end(key)
                return self._frames[key]
            image = decode_frame(data, self._bag.reader(topic), topic.type)
        jpeg = b'' if image is None else to_jpeg(image)
        shown = ShownFrame((received_ns - self._bag.start_ns) / NANOSECONDS, jpeg)
        with self._lock:
            self._frames[key] = shown
            while len(self._frames) > _CACHED:
                self._frames.popitem(last=False)
        return shown

    @property
    def has_audio(self) -> bool:
        """Return whether it has audio."""
        return self._audio.present

    def wav(self, start_s: float, stop_s: float) -> bytes | None:
        """Return the audio of an interval as a WAV file; None without any."""
        with self._lock:
            return self._audio.wav(start_s, stop_s)

    def close(self) -> None:
        """End the scan of the signals, and close the files."""
        if hasattr(self, 'signals'):
            self.signals.stop()
        with self._lock:
            self._bag.__exit__()

    def _nearest(self, topic: Topic, time_ns: int, which: str) -> tuple[int, bytes] | None:
        """Return time and bytes of the wanted message, searched in growing intervals."""
        for reach_ns in _REACHES_NS:
            if which == NEXT:
                start_ns, stop_ns = time_ns + 1, time_ns + reach_ns + 1
            else:
                start_ns, stop_ns = time_ns - reach_ns, time_ns + (which == AT)
            last = None
            for message in self._bag.messages([topic], max(0, start_ns), stop_ns):
                last = message.received_ns, message.data
                if which == NEXT:
                    break
            if last is not None:
                return last
        return self._nearest(topic, time_ns, NEXT) if which == AT else None


def choose(bag: Bag, topics: Mapping[str, str]) -> TopicChoice:
    """Return a topic for every modality that the bag has; none where it has no sensor."""
    every = in_order(map(Modality, registered_types()))
    try:
        return choose_topics(bag, topics, every, every)
    except BagError:  # a bag without any sensor can be labelled by its other topics
        return TopicChoice({}, ())


def to_jpeg(image: Frame) -> bytes:
    """Return an RGB image `[h, w, 3]` as JPEG, no wider than the page shows it."""
    height, width = image.shape[:2]
    if width > _WIDTH:
        size = _WIDTH, max(1, round(height * _WIDTH / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode('.jpg', image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(data)


def _cameras(bag: Bag, choice: TopicChoice) -> dict[str, Topic]:
    """Return the image topics whose first message is a colour or grey image."""
    chosen = choice.topics.get(Modality.RGB.value)
    topics: list[Any] = [chosen, *bag.topics.values()]
    cameras: dict[str, Topic] = {}
    for topic in topics:
        if topic is None or not topic.count or topic.name in cameras or topic.type not in (
                IMAGE, COMPRESSED_IMAGE):
            continue
        try:
            first = next(iter(bag.messages([topic])), None)
            read = bag.reader(topic)
        except ValueError:
            continue
        if first is not None and decode_frame(first.data, read, topic.type) is not None:
            cameras[topic.name] = topic
    return cameras
