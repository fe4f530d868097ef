"""Video and audio files that a command line names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, ExitStack
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any, TYPE_CHECKING

from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.files import is_url, no_such_file
from karmma_ros.media.audio_file import check_format
from karmma_ros.media.probe import VideoInfo
from karmma_ros.media.video_audio import AUDIO_SUFFIXES
from karmma_ros.media.video_file import open_video
from karmma_ros.media.video_reader import VideoReader
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import soundfile


@dataclass
class OpenVideo:
    """An open video; its frames can be read once."""

    path: Path
    reader: VideoReader
    info: VideoInfo
    rate: float
    """Frames a second; on average, if the times of the frames are used."""
    fixed: bool
    """Whether `rate` replaces the times of the frames."""

    @property
    def stated_s(self) -> float:
        """Return the length that the file states, seconds; 0 where it does not."""
        stated_s = self.info.truncated_s or self.info.duration_s
        return stated_s * (self.info.rate or self.rate) / self.rate if self.fixed else stated_s

    def frames(self) -> Iterator[tuple[float, Any]]:
        """
        Yield second and frame, for `rgb`, of each frame.

        :raises InvalidSettingError: when no frame can be decoded, or the file is damaged.
        """
        try:
            for index, (second, frame) in enumerate(self.reader.frames()):
                yield index / self.rate if self.fixed else second, frame
        except DataError as error:
            raise unreadable(error) from error

    def rgb(self, frame: Any) -> NDArray[np.uint8]:
        """
        Return the pixels of a frame, upright: `[h, w, 3]`.

        :raises InvalidSettingError: when they are damaged.
        """
        try:
            return self.reader.rgb(frame)
        except DataError as error:
            raise unreadable(error) from error

    def length_s(self, frame: Any) -> float:
        """Return for how long a frame is shown, as the file states it."""
        stated = float((frame.duration or 0) * self.reader.tick)
        return 1 / self.rate if self.fixed or not stated else stated


@contextmanager
def open_video_file(path: Path, rate: float | None) -> Iterator[OpenVideo]:
    """
    Open a video.

    :param rate: frames a second; None uses the times of the frames.
    :raises InvalidSettingError: when it is missing, cannot be read, or states no frame rate.
    """
    if rate is not None and not 0 < rate < 1000:
        raise InvalidSettingError('frame rate', rate, 'above 0 and below 1000')
    if not path.exists():
        error = no_such_file(path)
        raise InvalidSettingError('VIDEO', str(path), 'a video file that exists',
                                  error.remedy if is_url(str(path)) else '')
    if path.suffix.casefold() in AUDIO_SUFFIXES:
        raise InvalidSettingError(
            'VIDEO', str(path), 'a video',
            'an audio file is a recording for `karmma bag evaluate`, or --audio of a video')
    with ExitStack() as stack:
        try:
            reader, info = stack.enter_context(open_video(path))
        except DataError as error:
            raise unreadable(error) from error
        stated = info.rate if 0 < info.rate < 1000 else 0.0
        if rate is None and not stated:
            raise InvalidSettingError('frame rate', info.rate, 'above 0 and below 1000',
                                      'give --rate if the file does not state it')
        yield OpenVideo(path, reader, info, stated if rate is None else rate, rate is not None)


def unreadable(error: DataError) -> InvalidSettingError:
    """Return what is wrong with a video, as an error of the option that names it."""
    return InvalidSettingError('VIDEO', str(error.path), 'a video that FFmpeg can decode',
                               f'{error.problem}: {error.remedy}')


@contextmanager
def open_audio_file(path: Path) -> Iterator[soundfile.SoundFile]:
    """
    Open the file of `--audio`.

    :raises InvalidSettingError: when it is missing, or libsndfile cannot read it.
    """
    import soundfile  # only here: videos without audio do not need the library

    if not path.is_file():
        raise InvalidSettingError('--audio', str(path), 'an audio file that exists')
    expected = 'an audio file that libsndfile can read'
    try:
        # In bytes: not every name is UTF-8.
        with soundfile.SoundFile(os.fsencode(path)) as file:
            check_format(path, file.samplerate, file.channels)
            yield file
    except DataError as error:
        raise InvalidSettingError('--audio', str(path), expected, error.problem) from None
    except (OSError, soundfile.SoundFileError) as error:
        raise InvalidSettingError('--audio', str(path), expected, str(error)) from None
