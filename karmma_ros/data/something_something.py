"""
Something-Something V2 (Goyal et al., ICCV 2017), as its owner hands it out.

Each video is one segment from its start to its end. Boxes are those of Something-Else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any, cast

from karmma_ros.clip import ClipSpec
from karmma_ros.data.media import FrameFolder, VideoFile
from karmma_ros.data.media.video_file import (
    ExtractedFrames,
    ExtractedInfo,
    extraction_of_folder,
    extraction_of_video,
    fills_in,
)
from karmma_ros.data.samples import Splits
from karmma_ros.data.segments import (
    FlowFromVideo,
    LabelledSegment,
    SegmentDataset,
    Source,
    VideoSource,
)
from karmma_ros.data.something_else import annotation_files, BoxArchive, Progress, write_archive
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.prediction import Vocabulary
import numpy as np
from numpy.typing import NDArray

NAME = 'Something-Something V2'
ACTION = 'action'
"""The only head."""

FLOWS = ('computed', 'none')

_LABELS, _TRAIN, _VALIDATION = 'labels', 'train', 'validation'
_PLACES = ('labels/{}.json', '{}.json', 'something-something-v2-{}.json',
           'labels/something-something-v2-{}.json', 'annotations/something-something-v2-{}.json')
"""Where the annotations lie, by release."""
_LABELS_FORMAT = 'it must be {"Class name": "id", …}, the ids from 0 on without gaps'


@dataclass(frozen=True)
class SomethingSomethingSettings:
    """Where Something-Something V2 lies and what of it to use."""

    root: str = ''
    """Folder of the data set; the other paths may be relative to it."""
    videos: str = '20bn-something-something-v2/{id}.webm'
    """Path of a video; with `frames` the folder of its pictures, such as `frames/{id}`."""
    frames: str = ''
    """
    Name of a picture, such as `{:06d}.jpg`, counted from 1, where the videos were taken
    apart; empty: they are video files.
    """
    frame_rate: float = 12.0
    """Pictures a second, where the videos were taken apart."""
    labels: str = ''
    """File of the classes; empty: labels.json or its older name is looked for."""
    train: str = ''
    """File of the training videos; empty: train.json or its older name is looked for."""
    validation: str = ''
    """File of the validation videos; empty: validation.json or its older name."""
    boxes: str = ''
    """File, or folder of files, with the boxes of Something-Else; empty: no detections."""
    boxes_height: int = 0
    """
    Height in pixels of the pictures that the boxes were drawn on; 0: that of the videos. It is
    240 for Something-Else and matters only for videos that were scaled to another size.
    """
    cache: str = ''
    """Folder for the boxes in compact form; empty: that in which they lie."""
    flow: str = 'computed'
    """`computed` from the frames of each clip, or `none`."""
    validation_fraction: float = 0.0
    """
    Share of the training videos, drawn by `seed`, that choose the best epoch. 0: the official
    validation videos do, although they are those that are scored.
    """
    seed: int = 0
    """Seed of `validation_fraction` and of the places of the training windows."""

    def __post_init__(self) -> None:
        prefix = 'something_something'
        if self.flow not in FLOWS:
            raise InvalidSettingError(f'{prefix}.flow', self.flow, ' or '.join(FLOWS))
        if not fills_in(self.videos, 'id'):
            raise InvalidSettingError(f'{prefix}.videos', self.videos,
                                      'a path with {id} and no other braces: videos/{id}.webm')
        if self.frames and not fills_in(self.frames):
            raise InvalidSettingError(f'{prefix}.frames', self.frames,
                                      'empty, or a name with the place of the number: {:06d}.jpg')
        if not 0 <= self.validation_fraction < 1:
            raise InvalidSettingError(
                f'{prefix}.validation_fraction', self.validation_fraction, 'from 0 to below 1')
        if not self.frame_rate > 0:
            raise InvalidSettingError(f'{prefix}.frame_rate', self.frame_rate, 'a number above 0')
        if self.boxes_height < 0:
            raise InvalidSettingError(f'{prefix}.boxes_height', self.boxes_height, 'at least 0')


def open_splits(
    settings: SomethingSomethingSettings, spec: ClipSpec,
    progress: Progress = lambda done, total: None,
) -> Splits:
    """
    Open the training and the validation videos.

    The official test videos have no labels: as in the paper, the official validation videos
    are what is scored, so they are `test`. They are `validation` too, unless
    `validation_fraction` sets training videos aside for that.

    :param progress: called with the bytes done and in all while boxes are read, which takes
        minutes the first time and none later.
    :raises DataError: when an annotation is missing or wrong. Videos are not looked for.
    """
    root = Path(settings.root)
    if not settings.root or not root.is_dir():
        raise DataError(settings.root or '(nowhere)', 'there is no such folder',
                        'name that of Something-Something V2 with something_something.root')
    names = read_classes(_place(root, settings.labels, _LABELS))
    ids = {name: i for i, name in enumerate(names)}
    train = read_videos(_place(root, settings.train, _TRAIN), ids)
    scored = read_videos(_place(root, settings.validation, _VALIDATION), ids)
    opener = _Opener(settings, _open_boxes(root, settings, progress), spec)
    aside = _set_aside(len(train), settings)
    test = _clips(opener, scored, spec, settings.seed)
    return Splits(
        NAME, spec, Vocabulary({ACTION: names}),
        train=_clips(opener, train[~aside], spec, settings.seed),
        validation=_clips(opener, train[aside], spec, settings.seed) if aside.any() else test,
        test=test)


def read_classes(path: Path) -> tuple[str, ...]:
    """
    Read the class names from the official labels.json, by class id.

    The official ids follow the alphabet. Those of Something-Else do not: a network trained on
    one takes every class of the other for another one.

    :raises DataError: when the ids are no numbering from 0 on, or not in that order.
    """
    labels = _read_json(path)
    if not isinstance(labels, dict) or not labels:
        raise DataError(path, 'it holds no classes', _LABELS_FORMAT)
    try:
        ids = {int(number): name for name, number in labels.items()}
    except (TypeError, ValueError) as error:
        raise DataError(path, f'a class id is no number ({error})', _LABELS_FORMAT) from error
    wrong = sorted(set(ids) ^ set(range(len(labels))))
    if wrong:
        raise DataError(path, f'the ids of its {len(labels)} classes go wrong at {wrong[0]}',
                        _LABELS_FORMAT)
    names = tuple(ids[i] for i in range(len(ids)))
    if list(names) != sorted(names):
        raise DataError(
            path, 'its ids do not follow the alphabet, as the official ones do: it seems to be '
            'that of Something-Else', 'take the labels.json of Something-Something V2 itself')
    return names


def read_videos(path: Path, classes: Mapping[str, int]) -> NDArray[np.int64]:
    """
    Read train.json or validation.json: int64 `[v, 2]`, the video and its class.

    :param classes: class name → id.
    :raises DataError: naming the entry that is wrong, and how.
    """
    entries = _read_json(path)
    if not isinstance(entries, list) or not entries:
        raise DataError(path, 'it is no list of videos',
                        'it must be [{"id": "1", "template": "Opening [something]"}, …]')
    return np.array([_read_entry(path, i, entry, classes) for i, entry in enumerate(entries)],
                    np.int64)


def class_name(template: str) -> str:
    """Return the class of a template: `Opening [something]` is of `Opening something`."""
    return template.replace('[', '').replace(']', '')


def _read_entry(
    path: Path, number: int, entry: Any, classes: Mapping[str, int],
) -> tuple[int, int]:
    try:
        video, template = int(entry['id']), str(entry['template'])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            path, f'entry {number} has no "id" that is a number or no "template" ({error!r})',
            'test.json has none: its videos cannot be learnt from') from error
    if class_name(template) not in classes:
        raise DataError(
            path, f'video {video} has the template {template!r}, which is no class',
            'take this file and labels.json from the same release')
    return video, classes[class_name(template)]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise DataError(path, error.strerror or str(error), 'check the path') from error
    except ValueError as error:
        raise DataError(path, f'it is no JSON ({error})', 'download it again') from error


def _place(root: Path, given: str, kind: str) -> Path:
    if given:
        return root / given
    places = [root / pattern.format(kind) for pattern in _PLACES]
    for place in places:
        if place.is_file():
            return place
    raise DataError(root, f'{" or ".join(p.format(kind) for p in _PLACES)} is missing',
                    f'unpack the annotations there, or name the file with `{kind}`')


class _Opener:
    """Knows where the videos and boxes lie; makes the segment of each when it is asked for."""

    def __init__(self, settings: SomethingSomethingSettings, boxes: BoxArchive | None,
                 spec: ClipSpec) -> None:
        self.settings, self.boxes = settings, boxes
        self.size = spec.video.height, spec.video.width

    def path(self, video: int) -> Path:
        return Path(self.settings.root, self.settings.videos.format(id=video))

    def source(self, video: int) -> VideoSource:
        if not self.settings.frames:
            return VideoFile(self.path(video), self.size)
        return ExtractedFrames(FrameFolder(
            self.path(video), self.settings.frame_rate, self.settings.frames, size=self.size))

    def look(self, video: int) -> ExtractedInfo:
        if not self.settings.frames:
            return extraction_of_video(self.path(video))
        return extraction_of_folder(
            self.path(video), self.settings.frames, self.settings.frame_rate)

    def stop_s(self, video: int) -> float:
        """Return its length; of one that cannot be read that of its boxes, which may be there."""
        length = self.look(video).duration_s
        return length if length or self.boxes is None else self.boxes.last_time(video)

    def sources(self, video: int) -> dict[Modality, Source]:
        film = self.source(video)
        found: dict[Modality, Source] = {Modality.RGB: film}
        if self.settings.flow == 'computed':
            found[Modality.FLOW] = FlowFromVideo(film)
        if self.boxes is not None and video in self.boxes:
            found[Modality.DETECTIONS] = _Boxes(self, video)
        return found


@dataclass(frozen=True, eq=False)
class _Boxes:
    """The boxes of one video, whose size only the video itself tells; a `BoxSource`."""

    opener: _Opener
    video: int

    def boxes(self, times_s: Sequence[float]) -> list[NDArray[np.float32]]:
        look, archive = self.opener.look(self.video), self.opener.boxes
        assert archive is not None
        if not look.height:
            raise DataError(self.opener.path(self.video), 'it does not tell the size of the '
                            'pictures that the boxes lie on', 'fetch it again')
        height = self.opener.settings.boxes_height or look.height
        width = round(look.width * height / look.height)
        return archive.track(self.video, width, height).boxes(times_s)

    def decided_by(self) -> list[Any]:
        """Return what it rests on."""
        assert self.opener.boxes is not None
        return [self.video, self.opener.boxes.folder, self.opener.settings.boxes_height]

    def problem(self) -> str | None:
        problem = self.opener.source(self.video).problem()
        return problem and f'{problem}, which tells the size of the pictures with the boxes'


class _Video:
    """
    What a `LabelledSegment` is to `SegmentDataset`, a whole video long, in a few bytes.

    To ask 200,000 files for their length before the first step would take an hour on some
    disks, so each is asked when its turn comes.
    """

    __slots__ = ('_opener', '_video', '_label')
    start_s = 0.0

    def __init__(self, opener: _Opener, video: int, label: int) -> None:
        self._opener, self._video, self._label = opener, video, label

    @property
    def name(self) -> str:
        return str(self._video)

    @property
    def stop_s(self) -> float:
        return self._opener.stop_s(self._video)

    @property
    def labels(self) -> dict[str, int]:
        return {ACTION: self._label}

    @property
    def sources(self) -> dict[Modality, Source]:
        return self._opener.sources(self._video)

    def decided_by(self) -> list[Any]:
        """Return what it rests on; its length is that of its video."""
        return [self._video, self._label, self.sources]


def _clips(
    opener: _Opener, videos: NDArray[np.int64], spec: ClipSpec, seed: int
) -> SegmentDataset:
    segments = [_Video(opener, int(video), int(label)) for video, label in videos]
    return SegmentDataset(cast(Sequence[LabelledSegment], segments), spec, seed)


def _open_boxes(
    root: Path, settings: SomethingSomethingSettings, progress: Progress,
) -> BoxArchive | None:
    if not settings.boxes:
        return None
    path = root / settings.boxes
    files = annotation_files(path)
    folder = Path(settings.cache) if settings.cache else path.parent
    return write_archive(files, folder / f'{path.name}.arrays', progress)


def _set_aside(count: int, settings: SomethingSomethingSettings) -> NDArray[np.bool_]:
    """Mark the training videos that validate."""
    aside = np.zeros(count, bool)
    chosen = np.random.default_rng(settings.seed).permutation(count)
    aside[chosen[:int(settings.validation_fraction * count)]] = True
    return aside
