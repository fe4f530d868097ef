"""Readers of recordings on a disk: the sources of `karmma_ros.data.segments`."""

from karmma_ros.data.media.audio_file import AudioFile, AudioHdf5
from karmma_ros.data.media.frames import FlowFolder, FlowTar, FrameFolder, FrameTar
from karmma_ros.data.media.video_file import VideoFile
from karmma_ros.data.segments import FlowFromVideo

__all__ = [
    'FlowFolder', 'FlowFromVideo', 'FlowTar', 'FrameFolder', 'FrameTar', 'AudioFile',
    'AudioHdf5', 'VideoFile',
]
