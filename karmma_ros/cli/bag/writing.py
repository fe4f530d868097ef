"""
`karmma bag synthetic` and `from-video`: a rosbag2 bag of the synthetic kitchen or of a film.

Both give the same topics, so that one replay command serves both: pictures, sound and,
in the kitchen, boxes and the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from heapq import merge
from pathlib import Path
from typing import Any

import cv2
from karmma_ros.clip import BOX_HAND, NANOSECONDS
from karmma_ros.data.synthetic_kitchen.episode import Episode, episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.bags import BagWriter
from karmma_ros.preprocess.audio import resample
from karmma_ros.preprocess.video import resize_and_crop
import numpy as np
import soundfile

# Fixed, so that the same command writes the same stamps: 2025-01-01 00:00 UTC.
START_NS = 1_735_689_600 * NANOSECONDS
AUDIO_RATE = 16_000
AUDIO_CHUNK = 512
DETECTION_RATE = 10.0

Write = Callable[[BagWriter], None]
Event = tuple[int, int, Write]
"""When to write (ns), a rank that settles ties, and what to write."""


def add_parser(kinds: Any) -> None:
    """Add the commands to the sub-parsers of `karmma bag`."""
    synthetic = kinds.add_parser('synthetic', help='held-out episodes of the synthetic kitchen')
    synthetic.set_defaults(run=_synthetic)
    synthetic.add_argument('out', metavar='OUT.mcap', type=Path)
    synthetic.add_argument('--episodes', type=int, default=10, help='actions in a row [10]')
    synthetic.add_argument('--seconds', type=float, default=4.0, help='length of each [4]')
    synthetic.add_argument('--seed', type=int, default=0, help='which of the test episodes [0]')
    synthetic.add_argument('--rate', type=float, default=30.0, help='pictures a second [30]')
    synthetic.add_argument('--size', type=_size, default=(160, 120), help='WxH [160x120]')
    film = kinds.add_parser('from-video', help='any film that OpenCV can read')
    film.set_defaults(run=_from_video)
    film.add_argument('film', metavar='CLIP', type=Path)
    film.add_argument('out', metavar='OUT.mcap', type=Path)
    film.add_argument('--audio', metavar='WAV', type=Path, help='its sound')
    film.add_argument('--size', type=_size, help='WxH: scale and crop to this [as it is]')
    film.add_argument('--rate', type=float, help='pictures a second [as the film says]')


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT, as 320x240') from None
    if min(width, height) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} has a side below 1')
    return width, height


def _synthetic(options: argparse.Namespace) -> int:
    for name in ('episodes', 'seconds', 'rate'):
        if not getattr(options, name) > 0:
            raise InvalidSettingError(f'--{name}', getattr(options, name), 'a number above 0')
    with BagWriter(options.out) as bag:
        for number in range(options.episodes):
            start_ns = START_NS + round(number * options.seconds * NANOSECONDS)
            shown = episode(Split.TEST, options.seed, number)
            _write(bag, kitchen_events(shown, start_ns, options))
        return _told(options.out, bag)


def kitchen_events(
    shown: Episode, start_ns: int, options: argparse.Namespace
) -> Iterator[Event]:
    """Give what the sensors deliver in `options.seconds` of an episode, in order of time."""
    stop_ns = start_ns + round(options.seconds * NANOSECONDS)
    truth = (shown.verb_id, shown.verb), (shown.noun_id, shown.noun)
    annotation = [(start_ns, -1, lambda bag: bag.annotation(start_ns, stop_ns, *truth))]
    sound = shown.audio(0.0, options.seconds, AUDIO_RATE)
    return merge(
        annotation,
        _picture_events(shown, start_ns, options),
        _sound_events(sound, start_ns),
        _box_events(shown, start_ns, options),
        key=_when)


def _times(start_ns: int, seconds: float, rate: float) -> Iterator[tuple[int, float]]:
    """Give stamp and time since the start, `rate` times a second, for `seconds`."""
    for index in range(round(seconds * rate)):
        yield start_ns + round(index * NANOSECONDS / rate), index / rate


def _picture_events(
    shown: Episode, start_ns: int, options: argparse.Namespace
) -> Iterator[Event]:
    width, height = options.size
    for stamp_ns, t_s in _times(start_ns, options.seconds, options.rate):
        yield _picture_event(stamp_ns, shown.frame(t_s, height, width))


def _picture_event(stamp_ns: int, picture: np.ndarray) -> Event:
    return stamp_ns, 0, lambda bag: bag.image(stamp_ns, picture)


def _box_events(
    shown: Episode, start_ns: int, options: argparse.Namespace
) -> Iterator[Event]:
    for stamp_ns, t_s in _times(start_ns, options.seconds, DETECTION_RATE):
        yield _box_event(stamp_ns, shown.boxes(t_s), options.size)


def _box_event(stamp_ns: int, boxes: np.ndarray, size: tuple[int, int]) -> Event:
    pixels = boxes[:, :4] * [*size, *size]
    classes = ['hand' if category == BOX_HAND else 'object' for category in boxes[:, 4]]
    return stamp_ns, 2, lambda bag: bag.detections(stamp_ns, pixels, classes)


def _from_video(options: argparse.Namespace) -> int:
    sound = _read_sound(options.audio) if options.audio else None
    with Film(options.film, options.rate, options.size) as film, BagWriter(options.out) as bag:
        events = [film.events()]
        if sound is not None:
            events.append(_sound_events(sound, START_NS))
        _write(bag, merge(*events, key=_when))
        return _told(options.out, bag)


class Film:
    """A video file as timed RGB pictures."""

    def __init__(self, path: Path, rate: float | None, size: tuple[int, int] | None) -> None:
        """
        Open the file.

        :raises InvalidSettingError: when it is missing, unreadable or names no frame rate.
        """
        if not path.is_file():
            raise InvalidSettingError('CLIP', str(path), 'a video file that exists')
        self._capture, self._size, self._path = cv2.VideoCapture(str(path)), size, path
        if not self._capture.isOpened():
            raise InvalidSettingError('CLIP', str(path), 'a film that OpenCV can read',
                                      'convert it, for instance to MJPEG in .avi')
        self.rate = rate or self._capture.get(cv2.CAP_PROP_FPS)
        if not 0 < self.rate < 1000:
            raise InvalidSettingError('frame rate', self.rate, 'between 0 and 1000',
                                      'give --rate; the film does not say')

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def events(self) -> Iterator[Event]:
        """
        Give one event for each picture.

        :raises InvalidSettingError: when not one picture can be decoded.
        """
        index = 0
        while True:
            there, picture = self._capture.read()
            if not there:
                break
            yield self._event(START_NS + round(index * NANOSECONDS / self.rate), picture)
            index += 1
        if index == 0:
            raise InvalidSettingError('CLIP', str(self._path), 'a film with pictures in it',
                                      'OpenCV opens this one but decodes no picture')

    def _event(self, stamp_ns: int, picture: np.ndarray) -> Event:
        if self._size is not None:
            picture = resize_and_crop(picture, self._size[1], self._size[0])
        return _picture_event(stamp_ns, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def _read_sound(path: Path) -> np.ndarray:
    """Read any file that libsndfile knows as mono float32 at `AUDIO_RATE`."""
    try:
        samples, rate = soundfile.read(path, dtype='float32', always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise InvalidSettingError('--audio', str(path), 'a sound file that libsndfile can read',
                                  str(error)) from None
    return resample(samples.mean(axis=1), rate, AUDIO_RATE)


def _sound_events(samples: np.ndarray, start_ns: int) -> Iterator[Event]:
    """Cut `[n]` samples into messages; each is written when its last sample is there."""
    for first in range(0, len(samples), AUDIO_CHUNK):
        piece = samples[first:first + AUDIO_CHUNK]
        yield _sound_event(start_ns + first * NANOSECONDS // AUDIO_RATE, piece)


def _sound_event(stamp_ns: int, piece: np.ndarray) -> Event:
    end_ns = stamp_ns + len(piece) * NANOSECONDS // AUDIO_RATE
    return end_ns, 1, lambda bag: bag.audio(stamp_ns, piece, end_ns)


def _when(event: Event) -> tuple[int, int]:
    return event[:2]


def _write(bag: BagWriter, events: Iterator[Event]) -> None:
    for _, _, write in events:
        write(bag)


def _told(out: Path, bag: BagWriter) -> int:
    print(f'{out}: {bag.summary()}')
    return 0
