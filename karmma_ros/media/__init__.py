"""Readers of recordings on a disk: the sources of `karmma_ros.data.segments`."""

from karmma_ros.media.audio_file import AudioFile, AudioHdf5
from karmma_ros.media.frames import FlowFolder, FlowTar, FrameFolder, FrameTar
from karmma_ros.media.sources import FlowFromVideo
from karmma_ros.media.video_file import VideoFile

__all__ = [
    'FlowFolder', 'FlowFromVideo', 'FlowTar', 'FrameFolder', 'FrameTar', 'AudioFile',
    'AudioHdf5', 'VideoFile',
]
