"""
A video file with its own audio track, or an audio file, read as the messages of a bag.

They are those that `karmma bag from-video` would write: `/image` has every frame at its own time,
`/audio` the first audio track, mono, in messages of 512 samples. An audio file has `/audio` alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from functools import lru_cache
from heapq import merge
from pathlib import Path
from typing import Any

from karmma_ros.bags.message_definitions import Topic, TypeReader
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import DataError
from karmma_ros.media.video_audio import AUDIO_SUFFIXES, audio_track, video_audio
from karmma_ros.media.video_file import open_video, VIDEO_SUFFIXES
from karmma_ros.modalities.message_types import AUDIO_DATA_STAMPED, IMAGE
import numpy as np
from numpy.typing import NDArray

START_NS = 1_735_689_600 * NANOSECONDS
"""Second 0 of every video: 2025-01-01 00:00 UTC, so that stamps are always the same."""
AUDIO_RATE = 16_000
AUDIO_CHUNK = 512
"""Samples of one message."""
_IMAGES, _AUDIO = range(2)
_Timed = tuple[int, int, bytes]
"""Time, topic, bytes."""


def is_video(path: Path) -> bool:
    """Return whether a name is that of a video file."""
    return path.suffix.casefold() in VIDEO_SUFFIXES


def is_audio(path: Path) -> bool:
    """Return whether a name is that of an audio file."""
    return path.suffix.casefold() in AUDIO_SUFFIXES


def is_media(path: Path) -> bool:
    """Return whether a name is that of a video or audio file."""
    return is_video(path) or is_audio(path)


class VideoMessages:
    """The topics of a video or audio file, and its messages in order of time."""

    unread_bytes = 0

    def __init__(self, path: Path) -> None:
        """
        Examine the file.

        :raises ValueError: when no frame, or nothing of an audio file, can be decoded.
        """
        self.path = path
        self.missing: Counter[str] = Counter()
        self.damage: list[str] = []
        """Where the file breaks off, once that is known."""
        self.start_ns, self.topics = START_NS, dict[int, Topic]()
        try:
            if is_audio(path):
                has_audio, length_s = True, len(self._decoded()) / AUDIO_RATE
            else:
                has_audio, length_s = self._examine()
        except DataError as error:
            raise ValueError(f'{error.problem}: {error.remedy}') from error
        self.end_ns = START_NS + round(length_s * NANOSECONDS)
        if has_audio:
            self.start_ns = START_NS
            self.topics[_AUDIO] = Topic('/audio', AUDIO_DATA_STAMPED, count=max(
                1, -(-round(length_s * AUDIO_RATE) // AUDIO_CHUNK)))
        self._types = {i: TypeReader(topic.type, None) for i, topic in self.topics.items()}

    def _examine(self) -> tuple[bool, float]:
        """Set the start and the topic of frames; return whether it has audio, and its seconds."""
        with open_video(self.path) as (reader, info):
            has_audio = any(stream.type == 'audio' for stream in reader.streams)
            length_s = info.duration_s or reader.length_s
        self.start_ns = START_NS + max(0, round(info.offset_s * NANOSECONDS))
        self.topics[_IMAGES] = Topic(
            '/image', IMAGE, count=max(1, round(length_s * (info.rate or 1))))
        return has_audio, length_s

    def close(self) -> None:
        """Do nothing: a file is open only while messages are read."""

    def messages(
        self, chosen: Collection[int], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield topic, time and bytes of the messages in [start_ns, stop_ns)."""
        sources: list[Iterator[_Timed]] = []
        if _IMAGES in chosen:
            sources.append(self._images(start_ns, stop_ns))
        if _AUDIO in chosen and _AUDIO in self.topics:
            sources.append(self._audio(start_ns, stop_ns))
        for time_ns, topic, data in merge(*sources, key=lambda each: each[:2]):
            yield topic, time_ns, data

    def _images(self, start_ns: int, stop_ns: int) -> Iterator[_Timed]:
        new = self._types[_IMAGES].new
        try:
            with open_video(self.path) as (reader, _):
                for second, frame in reader.frames(max(0.0, (start_ns - START_NS) / NANOSECONDS)):
                    stamp_ns = START_NS + round(second * NANOSECONDS)
                    if stamp_ns >= stop_ns:
                        return
                    if stamp_ns < start_ns:
                        continue
                    pixels = reader.rgb(frame)
                    height, width, channels = pixels.shape
                    yield stamp_ns, _IMAGES, self._types[_IMAGES].write(new(
                        IMAGE, header=self._header(_IMAGES, stamp_ns, 'camera_optical_frame'),
                        height=height, width=width, encoding='rgb8', is_bigendian=0,
                        step=width * channels, data=pixels.reshape(-1)))
        except DataError as error:
            self.damage.append(error.problem)

    def _audio(self, start_ns: int, stop_ns: int) -> Iterator[_Timed]:
        samples, new = self._samples(), self._types[_AUDIO].new
        for first in range(0, len(samples), AUDIO_CHUNK):
            chunk = samples[first:first + AUDIO_CHUNK]
            stamp_ns = START_NS + first * NANOSECONDS // AUDIO_RATE
            end_ns = stamp_ns + len(chunk) * NANOSECONDS // AUDIO_RATE
            if end_ns >= stop_ns:
                return
            if end_ns >= start_ns:
                yield end_ns, _AUDIO, self._types[_AUDIO].write(new(
                    AUDIO_DATA_STAMPED, header=self._header(_AUDIO, stamp_ns, 'microphone'),
                    audio=new('audio_common_msgs/msg/AudioData', data=chunk.view(np.uint8))))

    def _decoded(self) -> NDArray[np.int16]:
        status = self.path.stat()
        return _pcm(self.path, (status.st_ino, status.st_size, status.st_mtime_ns))

    def _samples(self) -> NDArray[np.int16]:
        try:
            return self._decoded()
        except DataError as error:
            self.damage.append(error.problem)
            return np.zeros(0, '<i2')

    def _header(self, topic: int, stamp_ns: int, frame_id: str) -> Any:
        new = self._types[topic].new
        sec, nanosec = divmod(stamp_ns, NANOSECONDS)
        return new('std_msgs/msg/Header', frame_id=frame_id, stamp=new(
            'builtin_interfaces/msg/Time', sec=sec, nanosec=nanosec))


@lru_cache(maxsize=2)
def _pcm(path: Path, version: tuple[int, ...]) -> NDArray[np.int16]:
    """Return the audio of a file, decoded again when `version` changes."""
    samples = (audio_track if is_audio(path) else video_audio)(path, AUDIO_RATE)
    if samples is None:
        return np.zeros(0, '<i2')
    return np.asarray(np.round(np.clip(samples, -1, 1) * 32767), '<i2')
