"""
Where the recordings of Epic-Kitchens lie, as the official download script stores them.

    ROOT/P01/rgb_frames/P01_01/frame_0000000001.jpg   or  ROOT/P01/rgb_frames/P01_01.tar
    ROOT/P01/flow_frames/P01_01/u/frame_0000000001.jpg  (and v/)   or  ...P01_01.tar
    ROOT/P01/videos/P01_01.MP4
    AUDIO/P01_01.wav   or one HDF5 file with a data set P01_01

The released flow was computed over 3 frames (50 ms) for PXX_YY, over one (20 ms) for PXX_1YY.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from karmma_ros.data.epic_kitchens.annotations import flow_stride, frame_rate
from karmma_ros.data.media import (
    FlowFolder,
    FlowFromVideo,
    FlowTar,
    FrameFolder,
    FrameTar,
    SoundFile,
    SoundHdf5,
    VideoFile,
)
from karmma_ros.data.segments import AudioSource, FlowSource, Source, VideoSource
from karmma_ros.errors_data import DataError
from karmma_ros.modality import Modality

FRAMES, TAR, VIDEO = 'frames', 'tar', 'video'

HDF5 = ('.hdf5', '.h5')

_AnySource = TypeVar('_AnySource', bound=Source)


def video_sources(root: Path, video_id: str, size: tuple[int, int], rgb: str, flow: str,
                  audio: Callable[[str], AudioSource | None]) -> Mapping[Modality, Source]:
    """
    Give what there is of a video, modality → source.

    :param size: height and width to which pictures are cropped as they are read.
    :param rgb: `frames`, `tar`, `video`; `auto` takes the first of them that is there.
    :param flow: `files`, `computed` or `none`.
    :param audio: gives the sound of a video, as `audio_of` does.
    """
    pictures = _rgb(root, video_id, size, rgb)
    sources: dict[Modality, Source | None] = {
        Modality.RGB: pictures,
        Modality.FLOW: _flow(root, video_id, size, pictures, flow),
        Modality.AUDIO: audio(video_id),
    }
    return {m: source for m, source in sources.items() if source is not None}


def audio_of(place: str, rate: int) -> Callable[[str], AudioSource | None]:
    """
    Give the function that finds the sound of a video in a folder or an HDF5 file.

    :param place: the folder or file; '' for no sound.
    :param rate: sample rate of an HDF5 file, Hz.
    :raises DataError: when there is no such folder or file.
    """
    path = Path(place)
    if not place:
        return lambda video_id: None
    if path.suffix in HDF5:
        if not path.is_file():
            raise DataError(path, 'there is no such file', 'correct audio, or leave it empty')
        stored = _stored_in(path)
        return lambda video_id: SoundHdf5(path, video_id, rate) if video_id in stored else None
    if not path.is_dir():
        raise DataError(path, 'there is no such folder',
                        'correct audio (a folder or an HDF5 file), or leave it empty')
    return lambda video_id: _first([SoundFile(path / f'{video_id}.wav'),
                                    SoundFile(path / f'{video_id}.flac')])


def _rgb(root: Path, video_id: str, size: tuple[int, int], wanted: str) -> VideoSource | None:
    fps, base = frame_rate(video_id), root / video_id.partition('_')[0]
    folder = base / 'rgb_frames' / video_id
    choices: dict[str, list[VideoSource]] = {
        FRAMES: [FrameFolder(folder, fps, size=size)],
        TAR: [FrameTar(folder.with_suffix('.tar'), fps, size=size)],
        VIDEO: [VideoFile(base / 'videos' / f'{video_id}.{ending}', size)
                for ending in ('MP4', 'mp4')],
    }
    kinds = choices if wanted == 'auto' else [wanted] if wanted in choices else []
    return _first([source for kind in kinds for source in choices[kind]])


def _flow(root: Path, video_id: str, size: tuple[int, int], video: VideoSource | None,
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
    """Give the first source that has no problem."""
    return next((source for source in sources if source.problem() is None), None)


def _stored_in(path: Path) -> frozenset[str]:
    import h5py  # only here: most sound is in files

    try:
        with h5py.File(path, 'r') as file:
            return frozenset(file)
    except OSError as error:
        raise DataError(path, f'it is no HDF5 file ({error})', 'make or fetch it again') from error
