"""
`karmma bag synthetic` and `from-video`: a rosbag2 bag of the synthetic kitchen or of a film.

Both give the same topics, so that one replay command serves both: pictures, sound and,
in the kitchen, boxes and the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from pathlib import Path
import re

from jsonargparse import Namespace
from karmma_ros.bags.writer import BagWriter
from karmma_ros.cli.open_video import open_audio_file, open_video_file, OpenVideo
from karmma_ros.cli.options import (
    command_parser,
    CommandParser,
    to_path,
)
from karmma_ros.clip import BOX_HAND, NANOSECONDS
from karmma_ros.data.synthetic_kitchen.episode import Episode, episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.errors import InvalidSettingError
from karmma_ros.preprocess.resize import resize_and_crop
from karmma_ros.preprocess.spectrogram import resample
import numpy as np

DETECTION_RATE = 10.0


def _synthetic_parser() -> CommandParser:
    parser = command_parser('karmma bag synthetic', 'Write held-out episodes of the synthetic '
                            'kitchen as a bag.', 'OUT.mcap [OPTION ...]')
    parser.add_argument('out', metavar='OUT.mcap', type=to_path, help='bag to write')
    parser.add_argument('--episodes', type=int, default=10, help='number of actions')
    parser.add_argument('--seconds', type=float, default=4.0, help='length of each action')
    parser.add_argument('--seed', type=int, default=0, help='seed of the test episodes')
    parser.add_argument('--rate', type=float, default=30.0, help='frames a second')
    parser.add_argument('--size', type=str, default='160x120', metavar='WxH',
                        help='width and height of the images')
    return parser


def _video_parser() -> CommandParser:
    parser = command_parser('karmma bag from-video', 'Write any video file that FFmpeg can decode '
                            'as a bag.', 'VIDEO OUT.mcap [OPTION ...]')
    parser.add_argument('video', metavar='VIDEO', type=to_path, help='video file to read')
    parser.add_argument('out', metavar='OUT.mcap', type=to_path, help='bag to write')
    parser.add_argument('--audio', metavar='WAV', type=to_path, help='audio file of the video')
    parser.add_argument('--size', type=str, metavar='WxH', help='scale and crop to this width '
                        'and height (default: that of the video)')
    parser.add_argument('--rate', type=float, help='frames a second, in place of their own times')
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text.lower())
    if match is None:
        raise InvalidSettingError('--size', text, 'WIDTHxHEIGHT, such as 320x240')
    return int(match[1]), int(match[2])


def synthetic(arguments: Sequence[str]) -> int:
    """Run `karmma bag synthetic OUT.mcap`."""
    options = _synthetic_parser().parse_args(list(arguments))
    options.size = _size(options.size)
    for name in ('episodes', 'seconds', 'rate'):
        if not getattr(options, name) > 0:
            raise InvalidSettingError(f'--{name}', getattr(options, name), 'a number above 0')
    with BagWriter(options.out) as bag:
        for number in range(options.episodes):
            start_ns = START_NS + round(number * options.seconds * NANOSECONDS)
            shown = episode(Split.TEST, options.seed, number)
            write_events(bag, *kitchen(shown, start_ns, options))
        return tell(options.out, bag)


def kitchen(
    shown: Episode, start_ns: int, options: Namespace
) -> list[Iterator[Event]]:
    """Return what each sensor delivers in `options.seconds` of an episode, and the truth."""
    stop_ns = start_ns + round(options.seconds * NANOSECONDS)
    truth = (shown.verb_id, shown.verb), (shown.noun_id, shown.noun)
    return [
        iter([annotation(start_ns, stop_ns, *truth)]),
        _pictures(shown, start_ns, options),
        sound(shown.audio(0.0, options.seconds, AUDIO_RATE), start_ns),
        _boxes(shown, start_ns, options)]


def _times(start_ns: int, seconds: float, rate: float) -> Iterator[tuple[int, float]]:
    """Return stamp and time since the start, `rate` times a second, for `seconds`."""
    for index in range(round(seconds * rate)):
        yield start_ns + round(index * NANOSECONDS / rate), index / rate


def _pictures(
    shown: Episode, start_ns: int, options: Namespace
) -> Iterator[Event]:
    width, height = options.size
    for stamp_ns, t_s in _times(start_ns, options.seconds, options.rate):
        yield picture(stamp_ns, shown.frame(t_s, height, width))


def _boxes(
    shown: Episode, start_ns: int, options: Namespace
) -> Iterator[Event]:
    for stamp_ns, t_s in _times(start_ns, options.seconds, DETECTION_RATE):
        found = shown.boxes(t_s)
        classes = ['hand' if category == BOX_HAND else 'object' for category in found[:, 4]]
        yield boxes(stamp_ns, found[:, :4] * [*options.size, *options.size], classes)


def from_video(arguments: Sequence[str]) -> int:
    """Run `karmma bag from-video VIDEO OUT.mcap`."""
    options = _video_parser().parse_args(list(arguments))
    options.size = options.size and _size(options.size)
    sensors = [] if options.audio is None else [
        sound(_read_sound(options.audio), START_NS)]
    with open_video_file(options.video, options.rate) as video:
        for note in video.info.notes:
            print(f'note: {note}', flush=True)
        with BagWriter(options.out) as bag:
            write_events(bag, _film(video, options), *sensors)
            return tell(options.out, bag)


def _film(video: OpenVideo, options: Namespace) -> Iterator[Event]:
    """
    Yield one event for each frame, at its own time.

    :raises InvalidSettingError: when not one frame can be decoded.
    """
    second = None
    for second, frame in video.frames():
        pixels = video.rgb(frame)
        if options.size is not None:
            pixels = resize_and_crop(pixels, options.size[1], options.size[0])
        yield picture(START_NS + round(second * NANOSECONDS), pixels)
    if second is None:
        raise InvalidSettingError('VIDEO', str(options.video), 'a video that FFmpeg can decode',
                                  'it has no frame')


def _read_sound(path: Path) -> np.ndarray:
    """Read any file that libsndfile knows as mono float32 at the rate of bags."""
    with open_audio_file(path) as file:
        rate = file.samplerate
        blocks = [block.mean(axis=1) for block in file.blocks(
            1 << 20, dtype='float32', always_2d=True)]
    samples = np.concatenate([np.zeros(0, np.float32), *blocks])
    return resample(samples, rate, AUDIO_RATE)


# Fixed, so that the same command writes the same stamps: 2025-01-01 00:00 UTC.
START_NS = 1_735_689_600 * NANOSECONDS
AUDIO_RATE = 16_000
AUDIO_CHUNK = 512

Event = tuple[int, int, Callable[[BagWriter], None]]
"""When to write (ns), a rank that settles ties, and what to write."""
_TRUTH, _PICTURE, _FLOW, _SOUND, _BOXES = range(5)


def annotation(
    start_ns: int, stop_ns: int, verb: tuple[int, str], noun: tuple[int, str],
) -> Event:
    """Return the truth from `start_ns` until before `stop_ns`: (class id, name) each."""
    return start_ns, _TRUTH, lambda bag: bag.annotation(start_ns, stop_ns, verb, noun)


def picture(stamp_ns: int, image: np.ndarray) -> Event:
    """Return one RGB picture, uint8 `[h, w, 3]`."""
    return stamp_ns, _PICTURE, lambda bag: bag.image(stamp_ns, image)


def flow(stamp_ns: int, field: np.ndarray) -> Event:
    """Return the movement since the message before, pixels `[h, w, 2]`."""
    return stamp_ns, _FLOW, lambda bag: bag.flow(stamp_ns, field)


def boxes(stamp_ns: int, corners: np.ndarray, classes: list[str]) -> Event:
    """Return the boxes of one picture, pixels `[n, 4]`: x1, y1, x2, y2."""
    return stamp_ns, _BOXES, lambda bag: bag.detections(stamp_ns, corners, classes)


def sound(samples: np.ndarray, start_ns: int) -> Iterator[Event]:
    """Cut `[n]` samples into messages; each is written when its last sample is there."""
    for first in range(0, len(samples), AUDIO_CHUNK):
        yield _chunk(start_ns + first * NANOSECONDS // AUDIO_RATE,
                     samples[first:first + AUDIO_CHUNK])


def _chunk(stamp_ns: int, piece: np.ndarray) -> Event:
    end_ns = stamp_ns + len(piece) * NANOSECONDS // AUDIO_RATE
    return end_ns, _SOUND, lambda bag: bag.audio(stamp_ns, piece, end_ns)


def write_events(bag: BagWriter, *sensors: Iterable[Event]) -> None:
    """Write what several sensors deliver, each in order of time."""
    for _, _, write_one in merge(*sensors, key=lambda event: event[:2]):
        write_one(bag)


def tell(out: Path, bag: BagWriter) -> int:
    """Say what was written; give the exit status."""
    print(f'{out}: {bag.summary()}')
    return 0
