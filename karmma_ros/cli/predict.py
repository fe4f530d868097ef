"""
`karmma predict`: the action in a film, and what each subset of the sensors says of it.

The film's pictures are laid on the grid of the model's clips: windows of its length follow each
other by half of it, the last one ends with the film. A film shorter than one window is one
window, its last picture repeated. The film's scores are the means of its windows'.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
import json
import math
import os
from pathlib import Path
from typing import Any

from karmma_ros.cli.open_video import open_video_file
from karmma_ros.clip import Clip, ClipSpec, NANOSECONDS
from karmma_ros.data.media.audio import AudioFile, check_format
from karmma_ros.errors import DataError, InvalidSettingError, printable
from karmma_ros.modality import Modality, subset_name, subsets
from karmma_ros.model.backends import selection
from karmma_ros.model.bundle import Bundle, load_bundle
from karmma_ros.model.registry import find_model
from karmma_ros.prediction import Prediction
from karmma_ros.preprocess.clip import make_clip
from karmma_ros.preprocess.video import resize_and_crop
from karmma_ros.stream.buffers import Frame
from karmma_ros.stream.recogniser import Recogniser
from karmma_ros.stream.window import FlowCache
import numpy as np
from numpy.typing import NDArray

_TOP = 3
_SLACK_S = 1.0
"""Seconds by which picture and sound of one film may differ in length."""

Subset = tuple[Modality, ...]
Frames = tuple[Frame, ...]


def main(arguments: Sequence[str]) -> int:
    """Run `karmma predict VIDEO`."""
    options = _parser().parse_args(list(arguments))
    device = selection.choose_device(options.device, '--device')
    bundle = load_bundle(find_model(options.model, '--model'))
    with VideoClips(options.film, options.rate) as film:
        sensors, notes = _sensors(bundle, film, options.audio)
        recogniser = Recogniser(bundle.network, bundle.vocabulary, bundle.spec, device)
        asked = subsets(sensors) if options.subsets else [sensors]
        found = VideoPrediction(bundle, asked)
        for window in _windows(film, bundle.spec, sensors, options.audio):
            found.add(window, [recogniser.recognise(window.clip, keep) for keep in asked])
            if not options.json:
                print(printable(found.window_line()), flush=True)
        notes += film.notes(bundle.spec)
    print(json.dumps(_described(options, film, found, notes), indent=1) if options.json
          else '\n'.join(printable(line, 1000) for line in found.lines(film, notes)))
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog='karmma predict', description='Say which action a film shows: '
                            'the classes of each head, of the whole and of each window. No ROS '
                            'is needed.')
    parser.add_argument('film', metavar='VIDEO', type=Path, help='video file to read, '
                        'any that FFmpeg can decode')
    parser.add_argument('--model', default='synthetic_kitchen', metavar='M',
                        help='name or path of a model [synthetic_kitchen]')
    parser.add_argument('--audio', metavar='WAV', type=Path, help='audio file of the video, wav '
                        'or flac')
    parser.add_argument('--rate', type=float, help='frames a second, in place of their own times')
    parser.add_argument('--subsets', action='store_true',
                        help='also say what each subset of the sensors makes of it')
    parser.add_argument('--device', default=selection.AUTO, help=selection.HELP)
    parser.add_argument('--json', action='store_true', help='print JSON instead of lines')
    return parser


class VideoClips:
    """A video file, its frames laid on the grid of a clip in one pass."""

    def __init__(self, path: Path, rate: float | None) -> None:
        """
        Open the file.

        :raises InvalidSettingError: when it is missing, unreadable or names no frame rate.
        """
        self.path = path
        self._files = ExitStack()
        self._video = self._files.enter_context(open_video_file(path, rate))
        self.rate, self.stated_s = self._video.rate, self._video.stated_s
        """Frames a second, on average, and the length that the file states; 0 if it does not."""
        self.seconds = 0.0
        """Length of what was decoded so far."""

    def __enter__(self) -> VideoClips:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def frames(self, spec: ClipSpec) -> Iterator[Frame]:
        """
        Yield the cropped frame of each slot, by the frames' own times; a slow video repeats them.

        :raises InvalidSettingError: when no frame can be decoded.
        """
        period_s, slot = spec.duration / spec.num_frames, 0
        slack_s = 1e-6 if self._video.fixed else self._video.reader.slack_s
        shown: tuple[int, float, Any] | None = None
        for index, (second, frame) in enumerate(self._video.frames()):
            until = _slots(second - slack_s, period_s)
            if shown is not None and until > slot:
                yield from [self._frame(*shown, spec)] * (until - slot)
                slot = until
            shown = index, second, frame
            self.seconds = round(second + self._video.length_s(frame), 9)
        if shown is None:
            raise InvalidSettingError('VIDEO', str(self.path), 'a video that FFmpeg can decode',
                                      'it has no frame')
        yield from [self._frame(*shown, spec)] * (_slots(self.seconds - 1e-6, period_s) - slot)

    def notes(self, spec: ClipSpec) -> list[str]:
        """Say what a person should know of the pictures, once they are read."""
        notes = list(self._video.info.notes)
        if self.stated_s - self.seconds > _SLACK_S:
            notes.append(f'the film breaks off after {self.seconds:.1f} s of {self.stated_s:.1f}')
        if self.seconds < spec.duration:
            notes.append(f'the film is shorter than the window of {spec.duration:g} s: its last '
                         'picture was repeated')
        return notes

    def _frame(self, index: int, second: float, frame: Any, spec: ClipSpec) -> Frame:
        rgb = resize_and_crop(self._video.rgb(frame), spec.video.height, spec.video.width)
        return Frame(round(second * NANOSECONDS), index, np.asarray(rgb, np.uint8))


def _slots(second: float, period_s: float) -> int:
    """Return how many slots begin before a second."""
    return max(0, math.ceil(second / period_s))


def _sensors(
    bundle: Bundle, film: VideoClips, audio: Path | None
) -> tuple[Subset, list[str]]:
    """
    Return what of the model's sensors there is, and notes on what there is not.

    :raises InvalidSettingError: when there is none, or the sound is not that of this film.
    """
    taken = bundle.network.modalities
    there = {Modality.RGB, Modality.FLOW}
    if audio is not None:
        if Modality.AUDIO not in taken:
            raise InvalidSettingError('--audio', str(audio), 'left out',
                                      f'{bundle.model_id} takes {subset_name(taken)}, no sound')
        _check_sound(audio, film)
        there.add(Modality.AUDIO)
    sensors = tuple(m for m in taken if m in there)
    if not sensors:
        raise InvalidSettingError('--model', bundle.model_id, 'one that takes pictures or sound '
                                  f'that is given; this one takes {subset_name(taken)}')
    why = {Modality.AUDIO: 'no sound was given (--audio)',
           Modality.DETECTIONS: 'a film has no boxes'}
    return sensors, [f'without {m}: {why[m]}' for m in taken if m not in sensors]


def _check_sound(path: Path, film: VideoClips) -> None:
    import soundfile  # only here: it loads a library that films without sound do not need

    name, allowed = '--audio', 'an audio file that libsndfile can read'
    if not path.is_file():
        raise InvalidSettingError(name, str(path), 'an audio file that exists')
    try:
        # In bytes: not every name is UTF-8.
        with soundfile.SoundFile(os.fsencode(path)) as file:
            check_format(path, file.samplerate, file.channels)
            seconds = file.frames / file.samplerate
    except DataError as error:
        raise InvalidSettingError(name, str(path), allowed, error.problem) from None
    except (OSError, soundfile.SoundFileError) as error:
        raise InvalidSettingError(name, str(path), allowed, str(error)) from None
    if film.stated_s and abs(seconds - film.stated_s) > _SLACK_S:
        raise InvalidSettingError(
            name, str(path), f'as long as the film, {film.stated_s:.1f} s; it lasts '
            f'{seconds:.1f} s', 'give the audio of this very video, cut as it is: `ffmpeg -i '
            'VIDEO -vn -ac 1 -af aresample=async=1:first_pts=0 WAV` keeps its start in place')


@dataclass(frozen=True, eq=False)
class _Window:
    start_s: float
    clip: Clip


def _windows(
    film: VideoClips, spec: ClipSpec, sensors: Subset, audio: Path | None
) -> Iterator[_Window]:
    memo, period_s = FlowCache(spec.flow.bound), spec.duration / spec.num_frames
    sound = AudioFile(audio) if audio is not None else None
    for slot, frames in _cut(film.frames(spec), spec.num_frames):
        start_s = slot * period_s
        yield _Window(start_s, make_clip(
            spec,
            frames=(np.stack([frame.image for frame in frames])
                    if Modality.RGB in sensors else None),
            flow=memo.clip_flow(frames) if Modality.FLOW in sensors else None,
            audio=(sound.samples(start_s, spec.duration, spec.audio.sample_rate)
                   if sound is not None else None)))


def _cut(slots: Iterable[Frame], length: int) -> Iterator[tuple[int, Frames]]:
    """Return first slot and pictures of windows of `length` slots, each half of it later."""
    recent: deque[Frame] = deque(maxlen=length)
    count, done, hop = 0, 0, max(1, length // 2)
    for frame in slots:
        recent.append(frame)
        count += 1
        if count >= length and (count - length) % hop == 0:
            yield count - length, tuple(recent)
            done = count
    if count < length and recent:
        yield 0, (*recent, *[recent[-1]] * (length - count))
    elif done < count:
        yield count - length, tuple(recent)


class VideoPrediction:
    """The answers to the windows of a film, and their means."""

    def __init__(self, bundle: Bundle, asked: Sequence[Subset]) -> None:
        """Start empty; the first subset asked holds all sensors."""
        self.bundle, self.asked = bundle, asked
        self.windows: list[tuple[float, Prediction]] = []
        """Start in seconds, and the answer with all sensors."""
        self._sums: list[dict[str, NDArray[Any]]] = [{} for _ in asked]

    def add(self, window: _Window, answers: Sequence[Prediction]) -> None:
        """Take the answers to one window, one for each subset asked."""
        self.windows.append((window.start_s, answers[0]))
        for sums, answer in zip(self._sums, answers):
            for head, p in answer.probabilities.items():
                sums[head] = sums.get(head, np.zeros(len(p))) + p

    def mean(self, place: int = 0) -> Prediction:
        """Return the whole film's answer by the subset asked at this place."""
        return Prediction({head: p / len(self.windows) for head, p in self._sums[place].items()},
                          self.bundle.vocabulary)

    def window_line(self) -> str:
        """Set the last window as a line."""
        start_s, answer = self.windows[-1]
        return f'{start_s:7.1f} s to {start_s + self.bundle.spec.duration:5.1f} s  {_best(answer)}'

    def lines(self, film: VideoClips, notes: Sequence[str]) -> list[str]:
        """Say what the whole film shows."""
        windows = f'{len(self.windows)} window{"s" * (len(self.windows) > 1)}'
        lines = [f'{film.path}: {film.seconds:.1f} s, {film.rate:g} pictures a second, {windows} '
                 f'of {self.bundle.spec.duration:g} s, {self.bundle.model_id} with '
                 f'{subset_name(self.asked[0])}',
                 *(f'note: {note}' for note in notes)]
        if len(self.asked) > 1:
            lines += ['', 'by sensors (V camera, F flow, A audio):']
            lines += [f'  {subset_name(s):<8} {_best(self.mean(i))}'
                      for i, s in enumerate(self.asked)]
        return [*lines, '', *_ranking(self.mean())]


def _best(answer: Prediction) -> str:
    best = [answer.top(head)[0] for head in answer.vocabulary.heads]
    return '  '.join(f'{label.class_name:<14} {label.score:.2f}' for label in best)


def _ranking(answer: Prediction) -> list[str]:
    return [f'{head}: ' + ', '.join(f'{label.class_name} {label.score:.2f}'
                                    for label in answer.top(head, _TOP))
            for head in answer.vocabulary.heads]


def _described(
    options: Namespace, film: VideoClips, found: VideoPrediction, notes: Sequence[str]
) -> dict[str, Any]:
    """Return everything found, JSON-ready."""
    bundle = found.bundle
    described: dict[str, Any] = {
        'film': str(film.path), 'seconds': film.seconds, 'rate': film.rate,
        'audio': None if options.audio is None else str(options.audio),
        'model': bundle.model_id, 'sensors': subset_name(found.asked[0]), 'notes': list(notes),
        'answer': _labels(found.mean()),
        'windows': [{'start_s': start_s, 'stop_s': start_s + bundle.spec.duration,
                     **_labels(answer)} for start_s, answer in found.windows]}
    if options.subsets:
        described['subsets'] = {subset_name(s): _labels(found.mean(i))
                                for i, s in enumerate(found.asked)}
    return described


def _labels(answer: Prediction) -> Mapping[str, list[dict[str, Any]]]:
    return {head: [{'class': label.class_name, 'id': label.class_id,
                    'score': round(label.score, 6)} for label in answer.top(head, _TOP)]
            for head in answer.vocabulary.heads}
