"""
Video files, opened and decoded by PyAV (FFmpeg): frames with their own times, upright.

A file is local and regular, and is opened by this process alone: FFmpeg gets its bytes, not its
name, so that no name is taken for a URL, and only containers that refer to no other file are
accepted. One thread decodes: a loader runs many workers.

Shape legend: h height, w width.
"""

from __future__ import annotations

from collections.abc import Iterator
import errno
from fractions import Fraction
from pathlib import Path
import struct
from typing import Any, NoReturn

from karmma_ros.errors import DataError
import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 8192 * 4608
"""Of a frame; 8K video has 33 million."""

PLAYER = 'check whether a player plays it; else fetch it again'

UNINDEXED = frozenset({'mpegts', 'mpeg'})
"""Containers without an index, whose time begins anywhere."""

_CONTAINERS = ('mov', 'matroska', 'avi', *sorted(UNINDEXED), 'flv', 'asf', 'ogg', 'mxf')
_OPTIONS = {
    'format_whitelist': ','.join(_CONTAINERS),
    'protocol_whitelist': 'none',  # nothing that a container refers to is opened
    'enable_drefs': '0',
    'max_streams': '64',
}
_UNSTAMPED = 'avi'
"""This container has no presentation times: frames are shown in the order they are decoded in."""
_GENERATE_PTS = 1  # AVFMT_FLAG_GENPTS, set by PyAV: it guesses wrongly where B frames are packed
_BUFFER = 1 << 18
_PLAYLISTS = (b'#EXTM3U', b'ffconcat', b'<?xml', b'<MPD', b'<asx', b'[playlist]', b'v=0')
_COVER = 1 << 10  # AV_DISPOSITION_ATTACHED_PIC
_ROUNDED = Fraction(1, 500)
"""Up to this time base, times of frames are rounded noticeably: Matroska stores whole ms."""


class VideoReader:
    """An open video file. Its frames are PyAV's; `rgb` gives their pixels."""

    def __init__(self, path: Path, file: Any) -> None:
        """
        Open the container in a file.

        :raises DataError: when it is none, or has no video that can be decoded.
        """
        self.path, self._file = path, file
        self._av = _library(path)
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self._container: Any = None
        self.format = ''
        """First name of the container's format."""
        self.reopen()
        self.tick = Fraction(self.stream.time_base or 1)
        """Seconds of a unit of `pts`."""
        self.first_pts, self.offset_s = self.stream.start_time or 0, 0.0
        """Time stamp of the first frame, and its second."""
        self.seekable = True
        """False decodes from the start, whatever the time."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the container; the file stays open."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def reopen(self) -> None:
        """Open the container anew, at its start."""
        self.close()
        self._file.seek(0)
        try:
            self._container = self._av.open(
                self._file, container_options=_OPTIONS, metadata_errors='replace',
                buffer_size=_BUFFER)
        except (self._av.error.FFmpegError, ValueError, MemoryError, OverflowError) as error:
            self._refuse(error)
        self.format = self._container.format.name.split(',')[0]
        if self.unstamped:
            self._container.flags &= ~_GENERATE_PTS
        self.stream = self._choose()
        context = self.stream.codec_context
        context.thread_type, context.thread_count = 'NONE', 1
        context.options = {'max_pixels': str(MAX_PIXELS)}

    @property
    def streams(self) -> list[Any]:
        """Return the streams of the container."""
        return list(self._container.streams)

    @property
    def length_s(self) -> float:
        """Return the length that the container states for all streams; 0 where it does not."""
        length = self._container.duration
        return length / 1e6 if length and length > 0 else 0.0

    @property
    def slack_s(self) -> float:
        """Return the seconds by which rounding may have put a frame after its time."""
        return 1e-6 + (0.75 * float(self.tick) if self.tick <= _ROUNDED else 0.0)

    @property
    def unstamped(self) -> bool:
        """Whether frames have no presentation times, only an order."""
        return self.format == _UNSTAMPED

    def stamp(self, item: Any, previous: int | None = None) -> int | None:
        """
        Return the time of a frame or packet, in ticks; None where it is not known.

        :param previous: that of the frame before.
        """
        if not self.unstamped:
            return item.pts
        # The last frames come out when the packets are over, and have not even that.
        return item.dts if item.dts is not None or previous is None else previous + 1

    def second(self, pts: int) -> float:
        """Return the second of a time stamp."""
        return self.offset_s + float((pts - self.first_pts) * self.tick)

    def frames(self, start_s: float = 0.0) -> Iterator[tuple[float, Any]]:
        """
        Yield second and frame in the order of times, from the frame shown at `start_s` or before.

        :raises DataError: when the file is damaged, or its times are.
        """
        back = 0.0
        while True:
            sought = (self.seekable and start_s - back > self.offset_s
                      and self._seek(start_s - back))
            if not sought:
                self.reopen()
            timed = self._timed(from_start=not sought)
            first = next(timed, None)
            if not sought or (first is not None and first[0] <= start_s + self.slack_s):
                break
            # The container led to a key frame after the time, as transport streams may.
            back = max(2 * back, 1.0)
        if first is not None:
            yield first
            yield from timed

    def decoded(self) -> Iterator[Any]:
        """
        Yield frames from where the container stands.

        :raises DataError: when the file is damaged. What cannot be decoded before the first frame
            is skipped: recordings of a broadcast begin anywhere.
        """
        last: Any = None
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
                frames = [] if packet is None else packet.decode()
            except self._av.error.EOFError:
                return
            except (self._av.error.FFmpegError, ValueError, MemoryError) as error:
                if last is None and isinstance(error, self._av.error.InvalidDataError):
                    continue
                stamp = None if last is None else self.stamp(last)
                at = '' if stamp is None else f' after {self.second(stamp):.2f} s'
                raise DataError(self.path, f'it breaks off{at} ({_reason(error)})', PLAYER) \
                    from error
            if packet is None:
                return
            for last in frames:
                yield last

    def packets(self) -> Iterator[Any]:
        """Yield the packets of every stream, from where the container stands."""
        try:
            yield from self._container.demux()
        except (self._av.error.FFmpegError, ValueError, MemoryError) as error:
            self._refuse(error)

    def rgb(self, frame: Any) -> NDArray[np.uint8]:
        """
        Return the pixels of a frame, `[h, w, 3]`: upright, with square pixels.

        :raises DataError: when they are damaged or too many.
        """
        if frame.is_corrupt:
            raise DataError(self.path, 'a frame is damaged', PLAYER)
        width, height = self.square(frame)
        converted = self._convert(frame, width, height, 'rgb24')
        return _upright(converted.to_ndarray(), *self.matrix(frame))

    def grey(self, frame: Any) -> NDArray[Any]:
        """
        Return the brightness of a frame, `[h, w]` uint8 from 0 to 255, or uint16; upright.

        :raises DataError: when the pixels are damaged, too many, or of another number of bits.
        """
        if frame.is_corrupt:
            raise DataError(self.path, 'a frame is damaged', PLAYER)
        width, height = self.square(frame)
        bits, name = frame.format.components[0].bits, frame.format.name
        if bits > 8 and name not in ('gray16le', 'gray16be'):
            raise DataError(
                self.path, f'its pixels are {name}; expected 8 bits, or grey of 16 (gray16le)',
                transcode(self.path, '-c:v ffv1 -pix_fmt gray16le'))
        # No mean of two depths: it would be a place where nothing is.
        converted = self._convert(frame, width, height, name if bits > 8 else 'gray', 'POINT')
        return _upright(converted.to_ndarray()[..., None], *self.matrix(frame))[..., 0]

    def square(self, frame: Any) -> tuple[int, int]:
        """
        Return width and height of a frame, as stored, once its pixels are square.

        :raises DataError: when it has more than `MAX_PIXELS`.
        """
        aspect = self.aspect
        width, height = round(frame.width * max(aspect, 1)), round(frame.height / min(aspect, 1))
        self._check_pixels(width, height)
        return width, height

    @property
    def aspect(self) -> Fraction:
        """Return width by height of a pixel."""
        return Fraction(self.stream.sample_aspect_ratio or 1)

    def matrix(self, frame: Any) -> tuple[int, int, int, int]:
        """
        Return the signs a, b, c, d of a frame's display matrix: x' = a x + c y, y' = b x + d y.

        :raises DataError: when the frame is to be rotated by no multiple of 90 degrees.
        """
        side = next((side for side in frame.side_data if side.type.name == 'DISPLAYMATRIX'), None)
        if side is None:
            return 1, 0, 0, 1
        a, b, _, c, d = struct.unpack('=9i', bytes(side)[:36])[:5]
        limit = max(abs(a), abs(b), abs(c), abs(d)) / 100
        signs = [0 if abs(x) <= limit else 1 if x > 0 else -1 for x in (a, b, c, d)]
        if [bool(x) for x in signs] not in ([True, False, False, True],
                                            [False, True, True, False]):
            raise DataError(self.path, 'it is to be rotated by an angle that is no multiple of 90 '
                            'degrees', transcode(self.path))
        return signs[0], signs[1], signs[2], signs[3]

    def without_times(self) -> DataError:
        """Return the error of frames without times."""
        return DataError(self.path, 'its frames have no time stamps', transcode(
            self.path, '-c:v libx264', '-r 30 '))

    def backwards(self, second: float) -> DataError:
        """Return the error of frames whose times decrease."""
        return DataError(
            self.path, f'its time stamps run backwards after {second:.2f} s, as in files that '
            'were joined byte by byte', transcode(self.path, '-vf setpts=N/30/TB -r 30 -an'))

    def _convert(self, frame: Any, width: int, height: int, pixels: str,
                 interpolation: str | None = None) -> Any:
        # A later PyAV converts in as many threads as there are cores, unless set otherwise.
        threads = {'threads': 1} if int(self._av.__version__.split('.')[0]) >= 17 else {}
        try:
            return self._reformatter.reformat(frame, width, height, pixels,
                                              interpolation=interpolation, **threads)
        except (self._av.error.FFmpegError, ValueError) as error:
            raise DataError(self.path, f'a frame cannot be converted to {pixels} ({error})',
                            transcode(self.path)) from error

    def _timed(self, from_start: bool) -> Iterator[tuple[float, Any]]:
        """
        Yield second and frame.

        :param from_start: False skips the frames before the first key frame: after a seek they may
            refer to frames that were not decoded.
        """
        previous = None
        for frame in self.decoded():
            sure = from_start or bool(frame.key_frame)
            stamp = self.stamp(frame, previous)
            if not sure or (stamp is None and not from_start):
                continue
            from_start = True
            if stamp is None:
                raise self.without_times()
            if previous is not None and stamp < previous:
                raise self.backwards(self.second(previous))
            previous = stamp
            yield self.second(stamp), frame

    def _seek(self, second: float) -> bool:
        ticks = int(Fraction(second + self.slack_s - self.offset_s) / self.tick)
        if self.unstamped:
            next(self.decoded(), None)  # only there it may state how B frames are packed
        try:
            self._container.seek(self.first_pts + ticks, stream=self.stream)
        except (self._av.error.FFmpegError, OverflowError):
            return False
        return True

    def _choose(self) -> Any:
        streams = [s for s in self._container.streams
                   if s.type == 'video' and not s.disposition.value & _COVER]
        if not streams:
            raise DataError(self.path, 'it has no video', 'give a file with a video stream')
        stream = next((s for s in streams if s.codec_context is not None), None)
        if stream is None:
            raise DataError(self.path, 'FFmpeg has no decoder for its codec',
                            transcode(self.path))
        self._check_pixels(stream.codec_context.width, stream.codec_context.height)
        return stream

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise DataError(
                self.path, f'its frames have {width} x {height} pixels; expected at most '
                f'{MAX_PIXELS:,} pixels', transcode(self.path, '-vf scale=-2:1080'))

    def _is_playlist(self) -> bool:
        self._file.seek(0)
        return bool(self._file.read(64).lstrip(b'\xef\xbb\xbf \r\n').startswith(_PLAYLISTS))

    def _refuse(self, error: Exception) -> NoReturn:
        problem, remedy = 'it cannot be opened as a video', PLAYER
        if getattr(error, 'errno', None) == errno.EINVAL:  # the class differs between versions
            problem += (f': expected one file (mp4, {", ".join(_CONTAINERS)}) with at most '
                        f'{_OPTIONS["max_streams"]} streams, no playlist')
            remedy = transcode(self.path)
        elif self._is_playlist():
            problem, remedy = f'{problem}: it is a playlist', 'give the video file itself'
        elif not isinstance(error, self._av.error.InvalidDataError):
            problem += f' ({_reason(error)})'
        raise DataError(self.path, problem, remedy) from error


def transcode(path: Path, options: str = '-c:v libx264', before: str = '') -> str:
    """Return a remedy: the command that makes a file which can be read."""
    return f'convert it: `ffmpeg {before}-i {path.name} {options} {path.stem}_new.mp4`'


def _library(path: Path) -> Any:
    try:
        import av  # only here: it loads FFmpeg, which folders of images do not need
        import av.video.reformatter
    except ImportError as error:
        raise DataError(path, f'video files are read by PyAV, which is missing ({error})',
                        'pip install av, as requirements/runtime.txt pins it') from error
    return av


def _reason(error: Exception) -> str:
    return getattr(error, 'strerror', None) or str(error) or type(error).__name__


def _upright(pixels: NDArray[Any], a: int, b: int, c: int, d: int) -> NDArray[Any]:
    """Apply a display matrix, given by its signs, to `[h, w, c]`."""
    if a == 0:
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(pixels[::d, ::a])
