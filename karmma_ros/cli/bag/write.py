"""
`karmma bag synthetic`, `from-video` and `from-epic`: write a rosbag2 bag.

All use the same topics, so that one replay command fits each: frames and audio, in the synthetic
kitchen also boxes and ground truth, of EPIC-KITCHENS-100 also flow and ground truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from pathlib import Path
import re
from typing import Any, cast, Literal

from jsonargparse import Namespace
from karmma_ros.bags.video_messages import AUDIO_CHUNK, AUDIO_RATE, START_NS
from karmma_ros.bags.writer import BagWriter
from karmma_ros.cli.open_video import open_audio_file, open_video_file, OpenVideo
from karmma_ros.cli.options import command_parser, CommandParser, to_path
from karmma_ros.clip import BOX_HAND, NANOSECONDS
from karmma_ros.data.epic_kitchens.annotations import (
    flow_stride,
    frame_rate,
    Narration,
    read_annotations,
    read_vocabulary,
    TRAIN,
    VALIDATION,
)
from karmma_ros.data.epic_kitchens.splits import audio_of, video_sources
from karmma_ros.data.synthetic_kitchen.episode import Episode, episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Classes, Domain, Split
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.media.video_audio import video_audio
from karmma_ros.modality import Modality
from karmma_ros.prediction import NOUN, VERB
from karmma_ros.preprocess.resize import resize_and_crop
from karmma_ros.preprocess.spectrogram import resample
import numpy as np

DETECTION_RATE = 10.0
FLOW_BOUND = 8.0
"""Pixels that the values of the released flow span in each direction, as its authors state."""
_BLOCK_S = 1.0
"""Seconds of EPIC-KITCHENS-100 read at once."""
_AFTER_S = 2.0
"""Seconds written after the last action."""

Event = tuple[int, int, Callable[[BagWriter], None]]
"""When to write (ns), a rank for equal times, and the function that writes."""
_TRUTH, _IMAGE, _FLOW, _AUDIO, _BOXES = range(5)


def annotation(
    start_ns: int, end_ns: int, verb: tuple[int, str], noun: tuple[int, str],
) -> Event:
    """Return a ground-truth action in [start_ns, end_ns), its classes as (id, name)."""
    return start_ns, _TRUTH, lambda bag: bag.annotation(start_ns, end_ns, verb, noun)


def image(stamp_ns: int, pixels: np.ndarray) -> Event:
    """Return an RGB image, uint8 `[h, w, 3]`."""
    return stamp_ns, _IMAGE, lambda bag: bag.image(stamp_ns, pixels)


def flow(stamp_ns: int, field: np.ndarray) -> Event:
    """Return the optical flow since the previous message, pixels `[h, w, 2]`."""
    return stamp_ns, _FLOW, lambda bag: bag.flow(stamp_ns, field)


def boxes(stamp_ns: int, corners: np.ndarray, classes: list[str]) -> Event:
    """Return the boxes of one image, pixels `[n, 4]`: x1, y1, x2, y2."""
    return stamp_ns, _BOXES, lambda bag: bag.detections(stamp_ns, corners, classes)


def audio(samples: np.ndarray, start_ns: int) -> Iterator[Event]:
    """Split `[n]` samples into messages, each written at the time of its last sample."""
    for first in range(0, len(samples), AUDIO_CHUNK):
        yield _chunk(start_ns + first * NANOSECONDS // AUDIO_RATE,
                     samples[first:first + AUDIO_CHUNK])


def _chunk(stamp_ns: int, samples: np.ndarray) -> Event:
    end_ns = stamp_ns + len(samples) * NANOSECONDS // AUDIO_RATE
    return end_ns, _AUDIO, lambda bag: bag.audio(stamp_ns, samples, end_ns)


def write_events(bag: BagWriter, *sensors: Iterable[Event]) -> None:
    """Write the events of several sensors, each in order of time."""
    for _, _, write in merge(*sensors, key=lambda event: event[:2]):
        write(bag)


def _report(out: Path, bag: BagWriter) -> int:
    """Print a summary, and return the exit status."""
    print(f'{out}: {bag.summary()}')
    return 0


def _synthetic_parser() -> CommandParser:
    parser = command_parser('karmma bag synthetic', 'Write held-out episodes of the synthetic '
                            'kitchen as a bag.', 'OUT.mcap [OPTION ...]')
    parser.add_argument('out', metavar='OUT.mcap', type=to_path, help='bag to write')
    parser.add_argument('--episodes', type=int, default=10, help='number of actions')
    parser.add_argument('--seconds', type=float, default=4.0, help='length of each action')
    parser.add_argument('--idle', type=float, default=0.0,
                        help='fraction of the episodes, 0 to 1, in which nothing is done')
    parser.add_argument('--seed', type=int, default=0, help='seed of the test episodes')
    parser.add_argument('--domain', type=str, default=str(Domain.KITCHEN), help='kitchen or '
                        'garage: other objects, surroundings and audio, which the included model '
                        'does not know')
    parser.add_argument('--verbs', type=str, nargs='+', default=[], metavar='VERB',
                        help='verbs that occur (default: all)')
    parser.add_argument('--nouns', type=str, nargs='+', default=[], metavar='NOUN',
                        help='nouns that occur (default: all)')
    parser.add_argument('--rate', type=float, default=30.0, help='frames a second')
    parser.add_argument('--size', type=str, default='160x120', metavar='WxH',
                        help='width and height of the images')
    return parser


def synthetic(arguments: Sequence[str]) -> int:
    """Run `karmma bag synthetic OUT.mcap`."""
    options = _synthetic_parser().parse_args(list(arguments))
    options.size = _size(options.size)
    for name in ('episodes', 'seconds', 'rate'):
        if not getattr(options, name) > 0:
            raise InvalidSettingError(f'--{name}', getattr(options, name), 'a number above 0')
    if not 0 <= options.idle <= 1:
        raise InvalidSettingError('--idle', options.idle, 'a fraction of the episodes, 0 to 1')
    domain = Domain.parse(options.domain, '--domain')
    classes = Classes.of(domain, options.verbs, options.nouns, '--')
    chosen = classes.episodes(Split.TEST, options.seed, options.episodes, options.idle)
    with BagWriter(options.out) as bag:
        for number, index in enumerate(chosen):
            start_ns = START_NS + round(number * options.seconds * NANOSECONDS)
            shown = episode(Split.TEST, options.seed, index, domain, options.idle)
            write_events(bag, *kitchen(shown, start_ns, options))
        return _report(options.out, bag)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text.lower())
    if match is None:
        raise InvalidSettingError('--size', text, 'WIDTHxHEIGHT, such as 320x240')
    return int(match[1]), int(match[2])


def kitchen(shown: Episode, start_ns: int, options: Namespace) -> list[Iterator[Event]]:
    """Return the ground truth and the events of each sensor for one episode."""
    end_ns = start_ns + round(options.seconds * NANOSECONDS)
    classes = (shown.verb_id, shown.verb), (shown.noun_id, shown.noun)
    return [
        iter([annotation(start_ns, end_ns, *classes)]),
        _kitchen_images(shown, start_ns, options),
        audio(shown.audio(0.0, options.seconds, AUDIO_RATE), start_ns),
        _kitchen_boxes(shown, start_ns, options)]


def _times(start_ns: int, seconds: float, rate: float) -> Iterator[tuple[int, float]]:
    """Yield stamp and time since the start, `rate` times a second, for `seconds`."""
    for index in range(round(seconds * rate)):
        yield start_ns + round(index * NANOSECONDS / rate), index / rate


def _kitchen_images(shown: Episode, start_ns: int, options: Namespace) -> Iterator[Event]:
    width, height = options.size
    for stamp_ns, t_s in _times(start_ns, options.seconds, options.rate):
        yield image(stamp_ns, shown.frame(t_s, height, width))


def _kitchen_boxes(shown: Episode, start_ns: int, options: Namespace) -> Iterator[Event]:
    for stamp_ns, t_s in _times(start_ns, options.seconds, DETECTION_RATE):
        rows = shown.boxes(t_s)
        classes = ['hand' if category == BOX_HAND else 'object' for category in rows[:, 4]]
        yield boxes(stamp_ns, rows[:, :4] * [*options.size, *options.size], classes)


def _video_parser() -> CommandParser:
    parser = command_parser('karmma bag from-video', 'Write any video file that FFmpeg can decode '
                            'as a bag.', 'VIDEO OUT.mcap [OPTION ...]')
    parser.add_argument('video', metavar='VIDEO', type=to_path, help='video file to read')
    parser.add_argument('out', metavar='OUT.mcap', type=to_path, help='bag to write')
    parser.add_argument('--audio', metavar='WAV', type=to_path, help='audio file in place of the '
                        'audio in the video')
    parser.add_argument('--size', type=str, metavar='WxH', help='scale and crop to this width '
                        'and height (default: that of the video)')
    parser.add_argument('--rate', type=float, help='frames a second, in place of their own times')
    return parser


def from_video(arguments: Sequence[str]) -> int:
    """Run `karmma bag from-video VIDEO OUT.mcap`."""
    options = _video_parser().parse_args(list(arguments))
    options.size = options.size and _size(options.size)
    samples = None if options.audio is None else _read_audio(options.audio)
    with open_video_file(options.video, options.rate) as video:
        for note in video.info.notes:
            print(f'note: {note}', flush=True)
        if samples is None and not video.fixed:  # with other times of frames it would not fit
            samples = video_audio(options.video, AUDIO_RATE)
        sensors = [] if samples is None else [audio(samples, START_NS)]
        with BagWriter(options.out) as bag:
            write_events(bag, _video_images(video, options), *sensors)
            return _report(options.out, bag)


def _video_images(video: OpenVideo, options: Namespace) -> Iterator[Event]:
    """
    Yield each frame at its own time.

    :raises InvalidSettingError: when no frame can be decoded.
    """
    second = None
    for second, frame in video.frames():
        pixels = video.rgb(frame)
        if options.size is not None:
            pixels = resize_and_crop(pixels, options.size[1], options.size[0])
        yield image(START_NS + round(second * NANOSECONDS), pixels)
    if second is None:
        raise InvalidSettingError('VIDEO', str(options.video), 'a video that FFmpeg can decode',
                                  'it has no frame')


def _read_audio(path: Path) -> np.ndarray:
    """Read an audio file as mono float32 at the rate of bags."""
    with open_audio_file(path) as file:
        rate = file.samplerate
        blocks = [block.mean(axis=1) for block in file.blocks(
            1 << 20, dtype='float32', always_2d=True)]
    samples = np.concatenate([np.zeros(0, np.float32), *blocks])
    return resample(samples, rate, AUDIO_RATE)


def _epic_parser() -> CommandParser:
    parser = command_parser(
        'karmma bag from-epic', 'Write a video of EPIC-KITCHENS-100 as a bag: frames, flow, audio '
        'and annotations.', 'VIDEO_ID OUT.mcap --root DIR --annotations DIR [OPTION ...]')
    parser.add_argument('video', metavar='VIDEO_ID', type=str,
                        help='video of the data set, such as P01_14')
    parser.add_argument('out', metavar='OUT.mcap', type=to_path, help='bag to write')
    parser.add_argument('--root', metavar='DIR', required=True, type=to_path,
                        help='directory that holds P01, P02, …')
    parser.add_argument('--annotations', metavar='DIR', required=True, type=to_path,
                        help='directory with EPIC_100_train.csv and the class files')
    parser.add_argument('--audio', type=str, default='',
                        help='directory of wav files, or an HDF5 file (default: no audio)')
    parser.add_argument('--audio-rate', type=int, default=24_000,
                        help='sample rate of an HDF5 file, Hz')
    parser.add_argument('--flow', type=Literal['files', 'none'], default='files',
                        help='whether to write the released flow as a topic, if it is present')
    parser.add_argument('--rate', type=float, default=30.0, help='frames a second')
    parser.add_argument('--start', type=float, default=0.0,
                        help='second of the video to start at')
    parser.add_argument('--stop', type=float, help='second of the video to stop at (default: 2 s '
                        'after the last action)')
    return parser


def from_epic(arguments: Sequence[str]) -> int:
    """Run `karmma bag from-epic VIDEO_ID OUT.mcap`."""
    options = _epic_parser().parse_args(list(arguments))
    narrations = _narrations(options.annotations, options.video)
    sources = _sources(options)
    last_s = max(n.stop_s for n in narrations)
    stop_s = last_s + _AFTER_S if options.stop is None else options.stop
    if not 0 <= options.start < stop_s:
        raise InvalidSettingError('--start', options.start, f'0 or more, and below {stop_s:g}')
    if not 0 < options.rate <= frame_rate(options.video):
        raise InvalidSettingError('--rate', options.rate, f'above 0, up to '
                                  f'{frame_rate(options.video)}, the rate of the released frames')
    names = read_vocabulary(options.annotations).heads
    with BagWriter(options.out) as bag:
        write_events(
            bag, _annotations(narrations, names, options.start, stop_s),
            *(_epic_sensor(modality, source, options, stop_s)
              for modality, source in sources.items()))
        return _report(options.out, bag)


def _narrations(folder: Path, video: str) -> list[Narration]:
    """
    Return the actions of a video.

    :raises InvalidSettingError: when it has none.
    """
    files = [folder / name for name in (TRAIN, VALIDATION) if (folder / name).is_file()]
    if not files:
        read_annotations(folder / TRAIN)  # raises an error that names the missing file
    narrations = [n for path in files for n in read_annotations(path) if n.video_id == video]
    if not narrations:
        raise InvalidSettingError(
            'VIDEO_ID', video, f'a video in {" or ".join(p.name for p in files)}')
    return narrations


def _sources(options: Namespace) -> Mapping[Modality, Any]:
    """
    Return the files of the video that exist.

    :raises InvalidSettingError: when there are no frames.
    """
    original_size = cast(Any, None)
    sources = video_sources(options.root, options.video, original_size, 'auto', options.flow,
                            audio_of(options.audio, options.audio_rate))
    if Modality.RGB not in sources:
        raise InvalidSettingError(
            '--root', str(options.root), f'a folder with frames or video of {options.video}',
            f'{options.video.partition("_")[0]}/rgb_frames/{options.video}(.tar) or '
            f'…/videos/{options.video}.MP4')
    return sources


def _annotations(
    narrations: list[Narration], names: Mapping[str, tuple[str, ...]], start_s: float,
    stop_s: float,
) -> Iterator[Event]:
    for n in sorted(narrations, key=lambda n: n.start_s):
        if n.stop_s > start_s and n.start_s < stop_s:
            begin, end = (_stamp_ns(t - start_s)
                          for t in (max(n.start_s, start_s), min(n.stop_s, stop_s)))
            yield annotation(
                begin, end, (n.verb, names[VERB][n.verb]), (n.noun, names[NOUN][n.noun]))


def _epic_sensor(
    modality: Modality, source: Any, options: Namespace, stop_s: float,
) -> Iterator[Event]:
    """Yield the events of one sensor up to the end of its files."""
    start_s = options.start
    while start_s < stop_s:
        try:
            yield from _epic_block(modality, source, start_s, min(_BLOCK_S, stop_s - start_s),
                                   options)
        except DataError:
            if start_s == options.start:
                raise
            return
        start_s += _BLOCK_S


def _epic_block(
    modality: Modality, source: Any, start_s: float, seconds: float, options: Namespace,
) -> Iterator[Event]:
    first_ns = _stamp_ns(start_s - options.start)
    if modality is Modality.AUDIO:
        yield from audio(source.samples(start_s, seconds, AUDIO_RATE), first_ns)
        return
    times = [i / options.rate for i in range(max(1, round(seconds * options.rate)))]
    at_s = [start_s + t for t in times]
    if modality is Modality.RGB:
        make: Callable[[int, np.ndarray], Event] = image
        frames = source.frames(at_s)
    else:
        make, frames = flow, _displacements(source.flow(at_s), options)
    for t, frame in zip(times, frames):
        yield make(first_ns + round(t * NANOSECONDS), frame)


def _stamp_ns(seconds: float) -> int:
    return START_NS + round(seconds * NANOSECONDS)


def _displacements(images: np.ndarray, options: Namespace) -> np.ndarray:
    """
    Return the displacement from message to message, `[t, h, w, 2]`, from the released images.

    These have the displacement over 50 ms, or over 20 ms in the videos that were added later.
    """
    span_s = 0.05 if flow_stride(options.video) == 2 else 0.02
    field = (images.astype(np.float32) - 128) * np.float32(FLOW_BOUND / 127.5)
    return np.asarray(field * np.float32(1 / options.rate / span_s))
