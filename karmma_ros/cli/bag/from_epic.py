"""`karmma bag from-epic`: a video of EPIC-KITCHENS-100 as a bag, with all that is published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, Literal

from jsonargparse import Namespace
from karmma_ros.bags.writer import BagWriter
from karmma_ros.cli.bag import write
from karmma_ros.cli.options import (
    command_parser,
    CommandParser,
    to_path,
)
from karmma_ros.clip import NANOSECONDS
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
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.prediction import NOUN, VERB
import numpy as np

FLOW_BOUND = 8.0
"""Pixels that the released flow's pictures span each way, as its authors say."""

_PORTION_S = 1.0
_AFTER_S = 2.0
"""What follows the last action is left out but for this."""


def _parser() -> CommandParser:
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


def main(arguments: Sequence[str]) -> int:
    """Write the bag."""
    options = _parser().parse_args(list(arguments))
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
        write.write_events(
            bag, _truth(narrations, names, options.start, stop_s),
            *(_sensor(modality, source, options, stop_s) for modality, source in sources.items()))
        return write.tell(options.out, bag)


def _narrations(folder: Path, video: str) -> list[Narration]:
    """
    Return the actions of a video.

    :raises InvalidSettingError: when it has none.
    """
    files = [folder / name for name in (TRAIN, VALIDATION) if (folder / name).is_file()]
    if not files:
        read_annotations(folder / TRAIN)  # says what is missing
    found = [n for path in files for n in read_annotations(path) if n.video_id == video]
    if not found:
        raise InvalidSettingError(
            'VIDEO_ID', video, f'a video that {" or ".join(p.name for p in files)} tells of')
    return found


def _sources(options: Namespace) -> Mapping[Modality, Any]:
    """
    Return what there is of the video.

    :raises InvalidSettingError: when there are no pictures.
    """
    whole = cast(Any, None)  # pictures of their own size
    sources = video_sources(options.root, options.video, whole, 'auto', options.flow,
                            audio_of(options.audio, options.audio_rate))
    if Modality.RGB not in sources:
        raise InvalidSettingError(
            '--root', str(options.root), f'a folder with frames or film of {options.video}',
            f'{options.video.partition("_")[0]}/rgb_frames/{options.video}(.tar) or '
            f'…/videos/{options.video}.MP4')
    return sources


def _truth(
    narrations: list[Narration], names: Mapping[str, tuple[str, ...]], start_s: float,
    stop_s: float,
) -> Iterator[write.Event]:
    for n in sorted(narrations, key=lambda n: n.start_s):
        if n.stop_s > start_s and n.start_s < stop_s:
            begin, end = (_stamp_ns(t - start_s)
                          for t in (max(n.start_s, start_s), min(n.stop_s, stop_s)))
            yield write.annotation(begin, end, (n.verb, names[VERB][n.verb]),
                                    (n.noun, names[NOUN][n.noun]))


def _sensor(
    modality: Modality, source: Any, options: Namespace, stop_s: float,
) -> Iterator[write.Event]:
    """Return what one sensor delivers, as far as the files of the video go."""
    start_s = options.start
    while start_s < stop_s:
        try:
            yield from _portion(modality, source, start_s, min(_PORTION_S, stop_s - start_s),
                                options)
        except DataError:
            if start_s == options.start:
                raise
            return
        start_s += _PORTION_S


def _portion(
    modality: Modality, source: Any, start_s: float, portion_s: float,
    options: Namespace,
) -> Iterator[write.Event]:
    first_ns = _stamp_ns(start_s - options.start)
    if modality is Modality.AUDIO:
        yield from write.sound(source.samples(start_s, portion_s, write.AUDIO_RATE), first_ns)
        return
    times = [i / options.rate for i in range(max(1, round(portion_s * options.rate)))]
    seconds = [start_s + t for t in times]
    if modality is Modality.RGB:
        make: Callable[[int, np.ndarray], write.Event] = write.picture
        pictures = source.frames(seconds)
    else:
        make, pictures = write.flow, _displacements(source.flow(seconds), options)
    for t, picture in zip(times, pictures):
        yield make(first_ns + round(t * NANOSECONDS), picture)


def _stamp_ns(seconds: float) -> int:
    return write.START_NS + round(seconds * NANOSECONDS)


def _displacements(pictures: np.ndarray, options: Namespace) -> np.ndarray:
    """
    Return the movement from message to message, `[t, h, w, 2]`, of the released pictures.

    Theirs is that over 50 ms, or over 20 ms in the videos that were added later.
    """
    span_s = 0.05 if flow_stride(options.video) == 2 else 0.02
    field = (pictures.astype(np.float32) - 128) * np.float32(FLOW_BOUND / 127.5)
    return np.asarray(field * np.float32(1 / options.rate / span_s))
