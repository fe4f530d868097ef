"""
Something-Something V2 (Goyal et al., ICCV 2017), from its official files.

Each video is one segment from its start to its end. Boxes are those of Something-Else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any, cast

from karmma_ros.clip import ClipSpec
from karmma_ros.data.samples import Splits
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.data.something_else import annotation_files, BoxArchive, Progress, write_archive
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.media import FrameFolder, VideoFile
from karmma_ros.media.sources import FlowFromVideo, has_number_field, Source, VideoSource
from karmma_ros.media.video_file import (
    ExtractedFrames,
    folder_extent,
    video_extent,
    VideoExtent,
)
from karmma_ros.modality import Modality
from karmma_ros.prediction import Vocabulary
import numpy as np
from numpy.typing import NDArray

NAME = 'Something-Something V2'
ACTION = 'action'
"""The only head."""

FLOWS = ('computed', 'none')

_LABELS, _TRAIN, _VALIDATION = 'labels', 'train', 'validation'
_ANNOTATION_PATHS = ('labels/{}.json', '{}.json', 'something-something-v2-{}.json',
           'labels/something-something-v2-{}.json', 'annotations/something-something-v2-{}.json')
"""Paths of the annotations, which differ between releases."""
_LABELS_FORMAT = 'it must be {"Class name": "id", …}, the ids from 0 on without gaps'


@dataclass(frozen=True)
class SomethingSomethingSettings:
    """Paths and options of Something-Something V2."""

    root: str = ''
    """Folder of the data set; the other paths may be relative to it."""
    videos: str = '20bn-something-something-v2/{id}.webm'
    """Path of a video; with `frames` the folder of its frames, such as `frames/{id}`."""
    frames: str = ''
    """
    File name of a frame, such as `{:06d}.jpg`, counted from 1, where frames were extracted; empty:
    they are video files.
    """
    frame_rate: float = 12.0
    """Frames a second, where frames were extracted."""
    labels: str = ''
    """File of the classes; empty: labels.json or its older name."""
    train: str = ''
    """File of the training videos; empty: train.json or its older name."""
    validation: str = ''
    """File of the validation videos; empty: validation.json or its older name."""
    boxes: str = ''
    """File, or folder of files, with the boxes of Something-Else; empty: no detections."""
    boxes_height: int = 0
    """
    Height in pixels of the frames that the boxes were annotated on; 0: that of the videos. It is
    240 for Something-Else and matters only for videos that were resized.
    """
    cache: str = ''
    """Folder for the boxes in compact form; empty: that of `boxes`."""
    flow: str = 'computed'
    """`computed` from the frames of each clip, or `none`."""
    validation_fraction: float = 0.0
    """
    Fraction of the training videos, chosen by `seed`, to select the best epoch on. 0: the official
    validation videos are used, although they are those that are scored.
    """
    seed: int = 0
    """Seed of `validation_fraction` and of the positions of the training windows."""

    def __post_init__(self) -> None:
        prefix = 'something_something'
        if self.flow not in FLOWS:
            raise InvalidSettingError(f'{prefix}.flow', self.flow, ' or '.join(FLOWS))
        if not has_number_field(self.videos, 'id'):
            raise InvalidSettingError(f'{prefix}.videos', self.videos,
                                      'a path with {id} and no other braces: videos/{id}.webm')
        if self.frames and not has_number_field(self.frames):
            raise InvalidSettingError(f'{prefix}.frames', self.frames,
                                      'empty, or a name with a field for the number: {:06d}.jpg')
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

    The official test videos have no labels. As in the paper, the official validation videos are
    scored: they are `test`. They are `validation` too, unless `validation_fraction` reserves
    training videos for that.

    :param progress: called with the bytes done and in all while boxes are read, which takes
        minutes the first time and none later.
    :raises DataError: when an annotation is missing or wrong. Videos are not checked.
    """
    root = Path(settings.root)
    if not settings.root or not root.is_dir():
        raise DataError(settings.root or '(nowhere)', 'there is no such folder',
                        'name that of Something-Something V2 with something_something.root')
    names = read_classes(_annotation_path(root, settings.labels, _LABELS))
    ids = {name: i for i, name in enumerate(names)}
    train = read_videos(_annotation_path(root, settings.train, _TRAIN), ids)
    scored = read_videos(_annotation_path(root, settings.validation, _VALIDATION), ids)
    files = _VideoFiles(settings, _open_boxes(root, settings, progress), spec)
    reserved = _reserved(len(train), settings)
    test = _clips(files, scored, spec, settings.seed)
    return Splits(
        NAME, spec, Vocabulary({ACTION: names}),
        train=_clips(files, train[~reserved], spec, settings.seed),
        validation=_clips(files, train[reserved], spec, settings.seed) if reserved.any() else test,
        test=test)


def read_classes(path: Path) -> tuple[str, ...]:
    """
    Read the class names from the official labels.json, by class id.

    The official ids follow the alphabet. Those of Something-Else do not: classes of a network that
    was trained on one would be confused with those of the other.

    :raises DataError: when the ids are not 0, 1, 2, … in that order.
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
        raise DataError(path, f'the ids of its {len(labels)} classes are wrong at {wrong[0]}',
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


def _annotation_path(root: Path, given: str, name: str) -> Path:
    if given:
        return root / given
    paths = [root / pattern.format(name) for pattern in _ANNOTATION_PATHS]
    for path in paths:
        if path.is_file():
            return path
    raise DataError(root, f'{" or ".join(p.format(name) for p in _ANNOTATION_PATHS)} is missing',
                    f'unpack the annotations there, or name the file with `{name}`')


class _VideoFiles:
    """The files of the videos and their boxes."""

    def __init__(self, settings: SomethingSomethingSettings, boxes: BoxArchive | None,
                 spec: ClipSpec) -> None:
        self.settings, self.boxes = settings, boxes
        self.size = spec.video.crop_size

    def path(self, video: int) -> Path:
        return Path(self.settings.root, self.settings.videos.format(id=video))

    def source(self, video: int) -> VideoSource:
        if not self.settings.frames:
            return VideoFile(self.path(video), self.size)
        return ExtractedFrames(FrameFolder(
            self.path(video), self.settings.frame_rate, self.settings.frames, size=self.size))

    def info(self, video: int) -> VideoExtent:
        if not self.settings.frames:
            return video_extent(self.path(video))
        return folder_extent(
            self.path(video), self.settings.frames, self.settings.frame_rate)

    def stop_s(self, video: int) -> float:
        """Return the length of a video; of one that cannot be read, that of its boxes, if any."""
        length = self.info(video).duration_s
        return length if length or self.boxes is None else self.boxes.last_time(video)

    def sources(self, video: int) -> dict[Modality, Source]:
        source = self.source(video)
        sources: dict[Modality, Source] = {Modality.RGB: source}
        if self.settings.flow == 'computed':
            sources[Modality.FLOW] = FlowFromVideo(source)
        if self.boxes is not None and video in self.boxes:
            sources[Modality.DETECTIONS] = _VideoBoxes(self, video)
        return sources


@dataclass(frozen=True, eq=False)
class _VideoBoxes:
    """The boxes of one video, in fractions of its size; a `BoxSource`."""

    files: _VideoFiles
    video: int

    def boxes(self, times_s: Sequence[float]) -> list[NDArray[np.float32]]:
        info, archive = self.files.info(self.video), self.files.boxes
        assert archive is not None
        if not info.height:
            raise DataError(self.files.path(self.video), 'it has no readable size, '
                            'which the boxes need', 'fetch it again')
        height = self.files.settings.boxes_height or info.height
        width = round(info.width * height / info.height)
        return archive.track(self.video, width, height).boxes(times_s)

    def decided_by(self) -> list[Any]:
        """Return everything that decides the boxes."""
        assert self.files.boxes is not None
        return [self.video, self.files.boxes.folder, self.files.settings.boxes_height]

    def problem(self) -> str | None:
        problem = self.files.source(self.video).problem()
        return problem and f'{problem}, whose size the boxes need'


class _VideoSegment:
    """
    A `LabelledSegment` of a complete video, in a few bytes.

    Reading the length of 200,000 files before the first step would take an hour on some disks, so
    each is read when it is needed.
    """

    __slots__ = ('_files', '_video', '_label')
    start_s = 0.0

    def __init__(self, files: _VideoFiles, video: int, label: int) -> None:
        self._files, self._video, self._label = files, video, label

    @property
    def name(self) -> str:
        return str(self._video)

    @property
    def stop_s(self) -> float:
        return self._files.stop_s(self._video)

    @property
    def labels(self) -> dict[str, int]:
        return {ACTION: self._label}

    @property
    def sources(self) -> dict[Modality, Source]:
        return self._files.sources(self._video)

    def decided_by(self) -> list[Any]:
        """Return everything that decides the segment; its length is that of its video."""
        return [self._video, self._label, self.sources]


def _clips(
    files: _VideoFiles, videos: NDArray[np.int64], spec: ClipSpec, seed: int
) -> SegmentDataset:
    segments = [_VideoSegment(files, int(video), int(label)) for video, label in videos]
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


def _reserved(count: int, settings: SomethingSomethingSettings) -> NDArray[np.bool_]:
    """Return which training videos are used for validation."""
    reserved = np.zeros(count, bool)
    chosen = np.random.default_rng(settings.seed).permutation(count)
    reserved[chosen[:int(settings.validation_fraction * count)]] = True
    return reserved
