"""
The audio of video files, and complete audio files.

Shape legend: n samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from karmma_ros.errors import DataError
from karmma_ros.files import open_data_file
from karmma_ros.media.video_file import open_video
import numpy as np
from numpy.typing import NDArray

AUDIO_SUFFIXES = frozenset({
    '.wav', '.flac', '.ogg', '.oga', '.opus', '.mp3', '.m4a', '.aac', '.aif', '.aiff', '.wma'})
"""What the names of audio files end with."""
_LONGEST_S = 24 * 3600


def video_audio(path: Path, rate: int) -> NDArray[np.float32] | None:
    """
    Return the first audio stream of a video as mono `[n]` in [-1, 1]; None where it has none.

    Sample 0 is at second 0 of the video, as `VideoFile` counts. Where the stream has a gap or a
    damaged packet, there is silence.

    :param rate: Hz.
    :raises DataError: when the video cannot be read.
    """
    with open_video(path) as (reader, info):
        origin_s = float(info.first_pts * reader.tick) - info.offset_s
    return _track(path, rate, origin_s)


def audio_track(path: Path, rate: int) -> NDArray[np.float32]:
    """
    Return an audio file as mono `[n]` in [-1, 1], from its first sample.

    :param rate: Hz.
    :raises DataError: when it is missing, or holds no audio that can be decoded.
    """
    audio = _track(path, rate)
    if audio is None or not len(audio):
        raise DataError(path, 'it holds no audio', 'record or extract it again')
    return audio


def _track(path: Path, rate: int, origin_s: float | None = None) -> NDArray[np.float32] | None:
    """Return the first audio stream; `origin_s` is second 0, None the time of the first sample."""
    import av  # only here, as in `video_reader`

    parts: list[tuple[int, NDArray[np.float32]]] = []
    with open_data_file(path) as file:
        try:
            with av.open(file, metadata_errors='replace') as container:
                if not container.streams.audio:
                    return None
                for second, samples in _decoded(av, container, rate):
                    origin_s = second if origin_s is None else origin_s
                    first = round((second - origin_s) * rate)
                    if not first < _LONGEST_S * rate:
                        raise DataError(path, f'its audio has a time of {second:,.0f} s',
                                        f'expected at most {_LONGEST_S:,} s: write it anew')
                    parts.append((first, samples))
        except (av.error.FFmpegError, ValueError) as error:
            raise DataError(path, f'its audio cannot be read ({error})',
                            'write it anew with ffmpeg, as a wav file') from error
    audio = np.zeros(max((first + len(x) for first, x in parts), default=0), np.float32)
    for first, samples in parts:
        begin, end = max(0, first), max(0, first + len(samples))
        audio[begin:end] = samples[begin - first:]  # nothing of what ends before the video begins
    return audio


def _decoded(
    av: Any, container: Any, rate: int,
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Yield the second and the samples of each part."""
    stream = container.streams.audio[0]
    resampler = av.AudioResampler('fltp', None, rate)  # its mono is louder than the mean
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in frames:
            if frame.pts is None:
                continue
            for each in resampler.resample(frame):
                yield float(each.pts * each.time_base), each.to_ndarray().mean(0)
    for each in resampler.resample(None):
        if each.pts is not None:
            yield float(each.pts * each.time_base), each.to_ndarray().mean(0)
