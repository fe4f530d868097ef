"""
EPIC-KITCHENS-100 from its official files, as the official download script stores them.

    ROOT/P01/rgb_frames/P01_01/frame_0000000001.jpg   or  ROOT/P01/rgb_frames/P01_01.tar
    ROOT/P01/flow_frames/P01_01/u/frame_0000000001.jpg  (and v/)   or  ...P01_01.tar
    ROOT/P01/videos/P01_01.MP4
    AUDIO/P01_01.wav   or one HDF5 file with a data set P01_01

The released flow was computed over 3 frames (50 ms) for PXX_YY, over one (20 ms) for PXX_1YY.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from karmma_ros.clip import ClipSpec, CropSize
from karmma_ros.data.epic_kitchens.annotations import (
    divide,
    flow_stride,
    frame_rate,
    Narration,
    prune,
    read_annotations,
    read_division,
    read_vocabulary,
    SOURCE,
    TRAIN,
    VALIDATION,
    write_division,
)
from karmma_ros.data.samples import Splits
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.media import (
    AudioFile,
    AudioHdf5,
    FlowFolder,
    FlowFromVideo,
    FlowTar,
    FrameFolder,
    FrameTar,
    VideoFile,
)
from karmma_ros.media.sources import AudioSource, FlowSource, Source, VideoSource
from karmma_ros.modality import Modality
from karmma_ros.prediction import NOUN, VERB

FRAMES, TAR, VIDEO = 'frames', 'tar', 'video'

HDF5 = ('.hdf5', '.h5')

_AnySource = TypeVar('_AnySource', bound=Source)


def video_sources(root: Path, video_id: str, size: CropSize, rgb: str, flow: str,
                  audio: Callable[[str], AudioSource | None]) -> Mapping[Modality, Source]:
    """
    Return the sources of a video that exist, by modality.

    :param size: height and width to which frames are cropped as they are read.
    :param rgb: `frames`, `tar`, `video`; `auto` takes the first of them that exists.
    :param flow: `files`, `computed` or `none`.
    :param audio: returns the audio of a video id, as `audio_of` does.
    """
    video = _rgb(root, video_id, size, rgb)
    sources: dict[Modality, Source | None] = {
        Modality.RGB: video,
        Modality.FLOW: _flow(root, video_id, size, video, flow),
        Modality.AUDIO: audio(video_id),
    }
    return {m: source for m, source in sources.items() if source is not None}


def audio_of(folder: str, rate: int) -> Callable[[str], AudioSource | None]:
    """
    Return the function from a video id to its audio in a folder or an HDF5 file.

    :param folder: the folder or file; '' for no audio.
    :param rate: sample rate of an HDF5 file, Hz.
    :raises DataError: when there is no such folder or file.
    """
    path = Path(folder)
    if not folder:
        return lambda video_id: None
    if path.suffix in HDF5:
        if not path.is_file():
            raise DataError(path, 'there is no such file', 'correct audio, or leave it empty')
        stored = _stored_in(path)
        return lambda video_id: AudioHdf5(path, video_id, rate) if video_id in stored else None
    if not path.is_dir():
        raise DataError(path, 'there is no such folder',
                        'correct audio (a folder or an HDF5 file), or leave it empty')
    return lambda video_id: _first([AudioFile(path / f'{video_id}.wav'),
                                    AudioFile(path / f'{video_id}.flac')])


def _rgb(root: Path, video_id: str, size: CropSize, wanted: str) -> VideoSource | None:
    fps, base = frame_rate(video_id), root / video_id.partition('_')[0]
    folder = base / 'rgb_frames' / video_id
    choices: dict[str, list[VideoSource]] = {
        FRAMES: [FrameFolder(folder, fps, size=size)],
        TAR: [FrameTar(folder.with_suffix('.tar'), fps, size=size)],
        VIDEO: [VideoFile(base / 'videos' / f'{video_id}.{ending}', size)
                for ending in ('MP4', 'mp4')],
    }
    names = choices if wanted == 'auto' else [wanted] if wanted in choices else []
    return _first([source for name in names for source in choices[name]])


def _flow(root: Path, video_id: str, size: CropSize, video: VideoSource | None,
          wanted: str) -> FlowSource | FlowFromVideo | None:
    if wanted == 'computed' and video is not None:
        return FlowFromVideo(video)
    if wanted != 'files':
        return None
    fps, stride = frame_rate(video_id), flow_stride(video_id)
    folder = root / video_id.partition('_')[0] / 'flow_frames' / video_id
    choices: list[FlowSource] = [
        FlowFolder(folder, fps, stride, size=size),
        FlowTar(folder.with_suffix('.tar'), fps, stride, size=size),
    ]
    return _first(choices)


def _first(sources: Sequence[_AnySource]) -> _AnySource | None:
    """Return the first source that has no problem."""
    return next((source for source in sources if source.problem() is None), None)


def _stored_in(path: Path) -> frozenset[str]:
    import h5py  # only here: most audio is in files

    try:
        with h5py.File(path, 'r') as file:
            return frozenset(file)
    except OSError as error:
        raise DataError(path, f'it is no HDF5 file ({error})', 'make or fetch it again') from error


FULL, STAR = 'epic_kitchens', 'epic_kitchens_star'
NAMES = {FULL: 'EPIC-KITCHENS-100', STAR: 'EPIC-KITCHENS-100 (Epic-Kitchens*)'}

_CHOICES = {
    'split': (FULL, STAR),
    'rgb': ('auto', 'frames', 'tar', 'video', 'none'),
    'flow': ('files', 'computed', 'none'),
}

_FOLDERS = {
    'root': 'the folder that holds P01, P02, ...',
    'annotations': f'the folder that holds {TRAIN} and {VALIDATION}, from {SOURCE}',
}

_Recordings = Callable[[str], Mapping[Modality, Source]]


@dataclass(frozen=True)
class EpicKitchensSettings:
    """Paths and options of EPIC-KITCHENS-100."""

    root: str = ''
    """Folder that holds P01, P02, ..., as the official download script makes it."""
    annotations: str = ''
    """Folder with EPIC_100_train.csv, EPIC_100_validation.csv and the two class files."""
    split: Literal['epic_kitchens', 'epic_kitchens_star'] = 'epic_kitchens'
    """
    `epic_kitchens`: train on all, validate and test on the pruned validation split.
    `epic_kitchens_star`: train on 90 % and validate on 10 % of the training split.
    """
    seed: int = 0
    """Seed of the 90/10 division and of the positions of the training windows."""
    division: str = ''
    """
    CSV file of the 90/10 division: read if it exists, whatever the seed; else written.
    Empty: computed from the seed each time.
    """
    rgb: Literal['auto', 'frames', 'tar', 'video', 'none'] = 'auto'
    """Read frames, tars or videos; `auto` takes for each video the first that exists."""
    flow: Literal['files', 'computed', 'none'] = 'files'
    """The released flow, or flow computed from the clip's frames as a robot does."""
    audio: str = ''
    """Folder of PXX_YY.wav files, or an HDF5 file; empty for none."""
    audio_rate: int = 24_000
    """Sample rate of an HDF5 file, Hz."""

    def __post_init__(self) -> None:
        if self.split == 'test':
            raise InvalidSettingError(
                'epic_kitchens.split', self.split, ' or '.join(_CHOICES['split']),
                'the labels of the test split are not published, so it cannot be scored; both '
                'have the pruned validation split as their test')
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InvalidSettingError(
                    f'epic_kitchens.{name}', getattr(self, name), ', '.join(allowed))
        for name, least in (('seed', 0), ('audio_rate', 1)):
            if getattr(self, name) < least:
                raise InvalidSettingError(
                    f'epic_kitchens.{name}', getattr(self, name), f'{least} or more')


def open_splits(settings: EpicKitchensSettings, spec: ClipSpec) -> Splits:
    """
    Open the splits; the recordings are not read yet.

    A modality that a video does not have on the disk is missing from its segments; a segment
    without any is left out and counted in `left_out` of its split. A split may be empty: scoring
    does not need the training recordings.

    :raises InvalidSettingError: when root or annotations is empty.
    :raises DataError: when a folder or file is missing or wrong, or no segment has a recording.
    """
    root, folder = _folder(settings, 'root'), _folder(settings, 'annotations')
    train = read_annotations(folder / TRAIN)
    test = prune(read_annotations(folder / VALIDATION), train)
    validation = test
    if settings.split == STAR:
        train, validation = _divided(train, settings)
    recordings = _recordings(settings, spec)
    clips = [SegmentDataset(_segments(part, recordings), spec, settings.seed)
             for part in ((train, test) if validation is test else (train, validation, test))]
    if not any(len(part) for part in clips):
        raise DataError(
            root, f'there is no recording of any of the {len(train)} training segments, nor '
            'of others', 'correct root (the folder that holds P01), or rgb, flow and audio')
    return Splits(NAMES[settings.split], spec, read_vocabulary(folder), train=clips[0],
                  validation=clips[1], test=clips[-1])


def _folder(settings: EpicKitchensSettings, name: str) -> Path:
    if not getattr(settings, name):
        raise InvalidSettingError(f'epic_kitchens.{name}', '', 'a folder', _FOLDERS[name])
    path = Path(getattr(settings, name))
    if not path.is_dir():
        raise DataError(path, 'there is no such folder', f'correct {name}: {_FOLDERS[name]}')
    return path


def _divided(train: Sequence[Narration], settings: EpicKitchensSettings,
             ) -> tuple[list[Narration], list[Narration]]:
    ids, path = [narration.narration_id for narration in train], Path(settings.division)
    if settings.division and path.exists():
        division = read_division(path, ids)
    else:
        division = divide(ids, settings.seed)
        if settings.division:
            write_division(path, division)
    return ([narration for narration in train if division[narration.narration_id] == 'train'],
            [narration for narration in train if division[narration.narration_id] != 'train'])


def _recordings(settings: EpicKitchensSettings, spec: ClipSpec) -> _Recordings:
    """Return the function from a video id to its sources; each video is searched for once."""
    audio = audio_of(settings.audio, settings.audio_rate)
    size = spec.video.crop_size

    @cache
    def recordings(video_id: str) -> Mapping[Modality, Source]:
        return video_sources(
            Path(settings.root), video_id, size, settings.rgb, settings.flow, audio)

    return recordings


def _segments(narrations: Sequence[Narration], recordings: _Recordings) -> list[LabelledSegment]:
    """Join narrations with recordings; the segments of a video share its sources."""
    return [
        LabelledSegment(n.narration_id, n.start_s, n.stop_s, {VERB: n.verb, NOUN: n.noun},
                recordings(n.video_id))
        for n in narrations
    ]
