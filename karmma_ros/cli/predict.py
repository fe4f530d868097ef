"""
`karmma predict`: recognise the action in a video, also from each subset of its sensors.

The frames are resampled to the slots of the model's clips. Windows have the length of a clip and
overlap by half; the last one ends with the video. A video shorter than a window is one window, its
last frame repeated. The scores of the video are the means over its windows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
import json
import math
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from karmma_ros.cli.open_video import open_audio_file, open_video_file
from karmma_ros.cli.options import (
    add_device_option,
    command_parser,
    CommandParser,
    MODEL_HELP,
    open_model,
    to_path,
)
from karmma_ros.clip import Clip, ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSettingError, printable
from karmma_ros.media.audio_file import AudioFile
from karmma_ros.modalities import make_clip
from karmma_ros.modalities.flow import FlowCache
from karmma_ros.modalities.rgb import Frame
from karmma_ros.modality import Modality, subset_name, subsets
from karmma_ros.model.backends import selection
from karmma_ros.model.bundle import Bundle
from karmma_ros.prediction import Prediction
from karmma_ros.preprocess.resize import resize_and_crop
from karmma_ros.stream.recogniser import Recogniser
import numpy as np
from numpy.typing import NDArray

_TOP = 3
_TOLERANCE_S = 1.0
"""Seconds by which a video and its audio file may differ in length."""

Subset = tuple[Modality, ...]


def main(arguments: Sequence[str]) -> int:
    """Run `karmma predict VIDEO`."""
    options = _parser().parse_args(list(arguments))
    device = selection.choose_device(options.device, '--device')
    bundle = open_model(options.model, '--model')
    with VideoClips(options.video, options.rate) as video:
        sensors, notes = _sensors(bundle, video, options.audio)
        recogniser = Recogniser(
            bundle.network, bundle.vocabulary, bundle.spec, device, bundle.calibration)
        result = VideoPrediction(bundle, subsets(sensors) if options.subsets else [sensors])
        for window in _windows(video, bundle.spec, sensors, options.audio):
            result.add(window.start_s, [
                recogniser.recognise(window.clip, subset) for subset in result.subsets])
            if not options.json:
                print(printable(result.window_line()), flush=True)
        notes += video.notes(bundle.spec)
    print(json.dumps(_to_json(options, video, result, notes), indent=1) if options.json
          else '\n'.join(printable(line, 1000) for line in result.lines(video, notes)))
    return 0


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma predict', 'Recognise the action in a video: the classes of each head, for the '
        'video and for each window. No ROS is needed.', 'VIDEO [OPTION ...]')
    parser.add_argument('video', metavar='VIDEO', type=to_path,
                        help='video file to read, any that FFmpeg can decode')
    parser.add_argument('--model', type=str, default='synthetic_kitchen', metavar='MODEL',
                        help=MODEL_HELP)
    parser.add_argument('--audio', metavar='WAV', type=to_path,
                        help='audio file of the video, wav or flac')
    parser.add_argument('--rate', type=float, help='frames a second, in place of their own times')
    parser.add_argument('--subsets', action='store_true',
                        help='also the prediction from each subset of the sensors')
    add_device_option(parser)
    parser.add_argument('--json', action='store_true', help='print JSON instead of lines')
    return parser


class VideoClips:
    """A video file, its frames resampled to the slots of a clip in one pass."""

    def __init__(self, path: Path, rate: float | None) -> None:
        """
        Open the file.

        :param rate: frames a second; None uses the times of the frames.
        :raises InvalidSettingError: when it is missing, unreadable or states no frame rate.
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
        """Return what a person should know of the frames, once they are read."""
        notes = list(self._video.info.notes)
        if self.stated_s - self.seconds > _TOLERANCE_S:
            notes.append(f'the video breaks off after {self.seconds:.1f} s of {self.stated_s:.1f}')
        if self.seconds < spec.duration:
            notes.append(f'the video is shorter than the window of {spec.duration:g} s: its last '
                         'frame was repeated')
        return notes

    def _frame(self, index: int, second: float, frame: Any, spec: ClipSpec) -> Frame:
        rgb = resize_and_crop(self._video.rgb(frame), *spec.video.crop_size)
        return Frame(round(second * NANOSECONDS), index, np.asarray(rgb, np.uint8))


def _slots(second: float, period_s: float) -> int:
    """Return how many slots begin before a second."""
    return max(0, math.ceil(second / period_s))


def _sensors(bundle: Bundle, video: VideoClips, audio: Path | None) -> tuple[Subset, list[str]]:
    """
    Return the sensors of the model that are given, and notes on those that are not.

    :raises InvalidSettingError: when there is none, or the audio is not that of this video.
    """
    modalities = bundle.network.modalities
    given = {Modality.RGB, Modality.FLOW}
    if audio is not None:
        if Modality.AUDIO not in modalities:
            raise InvalidSettingError(
                '--audio', str(audio), 'left out',
                f'{bundle.model_id} takes {subset_name(modalities)}, no audio')
        _check_length(audio, video)
        given.add(Modality.AUDIO)
    sensors = tuple(m for m in modalities if m in given)
    if not sensors:
        raise InvalidSettingError('--model', bundle.model_id, 'one that takes frames, or audio '
                                  f'that is given; this one takes {subset_name(modalities)}')
    reasons = {Modality.AUDIO: 'no audio was given (--audio)',
               Modality.DETECTIONS: 'a video has no boxes'}
    return sensors, [f'without {m}: {reasons.get(m, f"a video has no {m}")}'
                     for m in modalities if m not in sensors]


def _check_length(audio: Path, video: VideoClips) -> None:
    with open_audio_file(audio) as file:
        seconds = file.frames / file.samplerate
    if video.stated_s and abs(seconds - video.stated_s) > _TOLERANCE_S:
        raise InvalidSettingError(
            '--audio', str(audio), f'as long as the video, {video.stated_s:.1f} s; it lasts '
            f'{seconds:.1f} s', 'give the audio of this very video, cut as it is: `ffmpeg -i '
            'VIDEO -vn -ac 1 -af aresample=async=1:first_pts=0 WAV` keeps its start in position')


@dataclass(frozen=True, eq=False)
class _VideoWindow:
    start_s: float
    clip: Clip


def _windows(
    video: VideoClips, spec: ClipSpec, sensors: Subset, audio: Path | None
) -> Iterator[_VideoWindow]:
    flow_cache, period_s = FlowCache(*spec.flow.estimation), spec.duration / spec.num_frames
    audio_file = AudioFile(audio) if audio is not None else None
    for slot, frames in sliding_windows(video.frames(spec), spec.num_frames):
        start_s = slot * period_s
        arrays: dict[Modality, Any] = {}
        if Modality.RGB in sensors:
            arrays[Modality.RGB] = np.stack([frame.image for frame in frames])
        if Modality.FLOW in sensors:
            arrays[Modality.FLOW] = flow_cache.clip_flow(frames)
        if audio_file is not None:
            arrays[Modality.AUDIO] = audio_file.samples(
                start_s, spec.duration, spec.audio.sample_rate)
        yield _VideoWindow(start_s, make_clip(spec, arrays))


def sliding_windows(
    slots: Iterable[Frame], length: int
) -> Iterator[tuple[int, tuple[Frame, ...]]]:
    """Yield first slot and frames of windows of `length` slots, each half of it later."""
    recent: deque[Frame] = deque(maxlen=length)
    count, end, hop = 0, 0, max(1, length // 2)
    for frame in slots:
        recent.append(frame)
        count += 1
        if count >= length and (count - length) % hop == 0:
            yield count - length, tuple(recent)
            end = count
    if count < length and recent:
        yield 0, (*recent, *[recent[-1]] * (length - count))
    elif end < count:
        yield count - length, tuple(recent)


class VideoPrediction:
    """The predictions for the windows of a video, and their means."""

    def __init__(self, bundle: Bundle, subsets: Sequence[Subset]) -> None:
        """Start empty; the first subset has all sensors."""
        self.bundle, self.subsets = bundle, subsets
        self.windows: list[tuple[float, Prediction]] = []
        """Start in seconds, and the prediction from all sensors."""
        self._sums: list[dict[str, NDArray[Any]]] = [{} for _ in subsets]
        self._unknown_sums = [0.0 for _ in subsets]

    def add(self, start_s: float, predictions: Sequence[Prediction]) -> None:
        """Add a window's predictions, one for each subset."""
        self.windows.append((start_s, predictions[0]))
        for i, (sums, prediction) in enumerate(zip(self._sums, predictions)):
            self._unknown_sums[i] += prediction.unknown_score
            for head, p in prediction.probabilities.items():
                sums[head] = sums.get(head, np.zeros(len(p))) + p

    def mean(self, index: int = 0) -> Prediction:
        """Return the prediction for the video from the subset of this index."""
        score = self._unknown_sums[index] / len(self.windows)
        return Prediction(
            {head: p / len(self.windows) for head, p in self._sums[index].items()},
            self.bundle.vocabulary, score,
            bool(self.bundle.calibration.is_unknown(self.subsets[index], score)))

    def window_line(self) -> str:
        """Return the last window as a line."""
        start_s, prediction = self.windows[-1]
        end_s = start_s + self.bundle.spec.duration
        return f'{start_s:7.1f} s to {end_s:5.1f} s  {_best(prediction)}'

    def lines(self, video: VideoClips, notes: Sequence[str]) -> list[str]:
        """Return the prediction for the video as lines."""
        windows = f'{len(self.windows)} window{"s" * (len(self.windows) > 1)}'
        lines = [f'{video.path}: {video.seconds:.1f} s, {video.rate:g} frames a second, {windows} '
                 f'of {self.bundle.spec.duration:g} s, {self.bundle.model_id} with '
                 f'{subset_name(self.subsets[0])}',
                 *(f'note: {note}' for note in notes)]
        if len(self.subsets) > 1:
            lines += ['', 'by sensors (V camera, F flow, A audio):']
            lines += [f'  {subset_name(subset):<8} {_best(self.mean(i))}'
                      for i, subset in enumerate(self.subsets)]
        mean = self.mean()
        ranking = [f'{head}: ' + ', '.join(f'{label.class_name} {label.score:.2f}'
                                           for label in mean.top(head, _TOP))
                   for head in mean.vocabulary.heads]
        return [*lines, '', *(['unknown action'] if mean.is_unknown else []), *ranking]


def _best(prediction: Prediction) -> str:
    best = [prediction.top(head)[0] for head in prediction.vocabulary.heads]
    return '  '.join([*(f'{label.class_name:<14} {label.score:.2f}' for label in best),
                      *(['unknown action'] if prediction.is_unknown else [])])


def _to_json(
    options: Namespace, video: VideoClips, result: VideoPrediction, notes: Sequence[str]
) -> dict[str, Any]:
    bundle = result.bundle
    content: dict[str, Any] = {
        'video': str(video.path), 'seconds': video.seconds, 'rate': video.rate,
        'audio': None if options.audio is None else str(options.audio),
        'model': bundle.model_id, 'sensors': subset_name(result.subsets[0]), 'notes': list(notes),
        'prediction': _labels(result.mean()), **_unknown(result.mean()),
        'windows': [{'start_s': start_s, 'end_s': start_s + bundle.spec.duration,
                     **_labels(prediction), **_unknown(prediction)}
                    for start_s, prediction in result.windows]}
    if options.subsets:
        content['subsets'] = {subset_name(subset): _labels(result.mean(i))
                              for i, subset in enumerate(result.subsets)}
    return content


def _unknown(prediction: Prediction) -> dict[str, Any]:
    return {'unknown_score': round(prediction.unknown_score, 6),
            'is_unknown': prediction.is_unknown}


def _labels(prediction: Prediction) -> dict[str, list[dict[str, Any]]]:
    return {head: [{'class': label.class_name, 'id': label.class_id,
                    'score': round(label.score, 6)} for label in prediction.top(head, _TOP)]
            for head in prediction.vocabulary.heads}
