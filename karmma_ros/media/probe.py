"""
Properties of a video file: length, size, origin of time, and whether its times can be used.

Second 0 is where the file begins: at its first frame, or at its first audio where that comes
earlier.

FFmpeg reserves 32 bytes for every frame that a table of an mp4 or mov claims, before it reads the
first, so that a file of a kilobyte could take gigabytes: tables that do not fit into the file are
refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
import struct
from typing import Any, NamedTuple

from karmma_ros.errors import DataError
from karmma_ros.media.video_reader import transcode, UNINDEXED, VideoReader
import numpy as np
from numpy.typing import NDArray

MAX_SCAN_BYTES = 64 << 20
"""
Up to here all packets of a file are read once, to check their times: 0.1 s from a warm disk.
Larger files are trusted to have an index that is right, except containers that have none.
"""

_MAX_REORDER = 16
"""Frames by which a frame may be stored before or after its turn, in any codec."""
_VARIES = 1.5
"""Ratio of the longest to the usual time between two frames from which on their rate varies."""
TRUNCATED_S = 1.0
"""Seconds by which a container may overstate its length; what is beyond is damage."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file whose first frame was decoded."""

    width: int
    height: int
    """Pixels as stored, but upright."""
    rate: float
    """Frames a second on average; 0 when unknown."""
    duration_s: float
    """Seconds from second 0 to the end of the last frame; 0 when unknown."""
    truncated_s: float
    """Length that the container states, where the file ends before; else 0."""
    first_pts: int
    """Time stamp of the frame that is shown first, and its second."""
    offset_s: float
    seekable: bool
    """Whether time stamps stay the same after a seek."""
    notes: tuple[str, ...]
    """Peculiarities of the file, and how it is read."""


_ORIENTATIONS = {
    (1, 0, 0, 1): '', (0, 1, -1, 0): 'rotates it by 90 degrees clockwise',
    (-1, 0, 0, -1): 'rotates it by 180 degrees',
    (0, -1, 1, 0): 'rotates it by 90 degrees counterclockwise'}


class _Times(NamedTuple):
    """Times of the packets of a whole file."""

    pts: NDArray[np.int64]
    """Ascending time stamps of the frames."""
    last: int
    """How long the last one is shown, in the unit of `pts`."""
    stamped: bool
    """Whether each packet has a time stamp of its own, none is reckoned from another."""
    others_end: float
    """Second, counted as the container does, at which the other streams end."""


def examine(reader: VideoReader, size: int) -> VideoInfo:
    """
    Decode the first frame of an open file, and check the times of all as far as it is cheap.

    :param size: of the file, bytes.
    :raises DataError: when no frame can be decoded, or the times cannot be used.
    """
    first = next(reader.decoded(), None)
    if first is None:
        raise DataError(reader.path, 'no frame of it can be decoded', transcode(reader.path))
    reader.square(first)
    turned = reader.matrix(first)
    width, height = (first.width, first.height) if turned[0] else (first.height, first.width)
    offset_s = _offset_s(reader)
    stream, tick = reader.stream, reader.tick
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    notes = list(_notes(reader, first, turned, offset_s))
    stated_s = offset_s + float(stream.duration * tick) if stream.duration else 0.0
    if size > MAX_SCAN_BYTES and reader.format not in UNINDEXED:
        stamp = reader.stamp(first)
        if stamp is None:
            raise reader.without_times()
        return VideoInfo(width, height, rate, stated_s or reader.length_s, 0.0, stamp,
                         offset_s, True, tuple(notes))
    times = _scan(reader)
    first_pts, last_pts = int(times.pts[0]), int(times.pts[-1])
    # Without presentation times, frames are later than their packets by a constant delay.
    delay = (reader.stamp(first) or first_pts) - first_pts if reader.unstamped else 0
    duration_s = offset_s + float((last_pts + times.last - first_pts) * tick)
    if not stated_s and times.others_end - float(first_pts * tick) < duration_s + TRUNCATED_S:
        stated_s = reader.length_s
    truncated_s = stated_s if stated_s - duration_s > TRUNCATED_S else 0.0
    notes += _rate_notes(times.pts, tick)
    seekable = times.stamped or reader.format not in UNINDEXED
    if not seekable:
        notes.append('most of its frames have no time stamp of their own: each clip is decoded '
                     'from the start of the file')
    return VideoInfo(width, height, rate or _mean_rate(times, tick), duration_s, truncated_s,
                     first_pts + delay, offset_s, seekable, tuple(notes))


def _scan(reader: VideoReader) -> _Times:
    """Read every packet of a file, and check the times of the frames."""
    reader.reopen()
    index = reader.stream.index
    stamps: list[int] = []
    stamped = True
    stored, last, others_end = None, (0, 0), 0.0
    for packet in reader.packets():
        length = packet.duration or 0
        if packet.stream_index != index:
            if packet.pts is not None and packet.time_base is not None:
                others_end = max(others_end, float((packet.pts + length) * packet.time_base))
            continue
        stamp = reader.stamp(packet)
        if stamp is None or packet.is_discard:
            continue
        if stored is not None and packet.dts is not None and packet.dts < stored:
            raise reader.backwards(float((stored - min(stamps)) * reader.tick))
        stored = packet.dts if packet.dts is not None else stored
        last = max(last, (stamp, length)) if stamps else (stamp, length)
        stamped = stamped and packet.pos is not None
        stamps.append(stamp)
    if not stamps:
        raise reader.without_times()
    pts = np.array(stamps, np.int64)
    _check_order(reader, pts)
    pts.sort()
    shown = last[1] or (int(pts[-1] - pts[-2]) if len(pts) > 1 else 0) or int(
        1 / (reader.tick * (reader.stream.average_rate or 30)))
    return _Times(pts, shown, stamped, others_end)


def _check_order(reader: VideoReader, pts: NDArray[np.int64]) -> None:
    """Refuse time stamps, in the order in which they are stored, that no codec reorders so."""
    if len(pts) > _MAX_REORDER + 1:
        early = np.maximum.accumulate(pts)[:-_MAX_REORDER - 1]
        wrong = np.flatnonzero(pts[_MAX_REORDER + 1:] < early)
        if len(wrong):
            raise reader.backwards(float((int(early[wrong[0]]) - int(pts.min())) * reader.tick))


def _offset_s(reader: VideoReader) -> float:
    """Return by how much the video starts after the file, which may begin with audio."""
    begin = _start_s(reader.stream)
    audio = [start for start in map(_start_s, (s for s in reader.streams if s.type == 'audio'))
             if start is not None]
    if begin is None or not audio:
        return 0.0
    # Where time has an origin of its own, audio before it only fills the decoder.
    first = min(audio) if reader.format in UNINDEXED else max(min(audio), 0.0)
    return max(0.0, begin - first)


def _start_s(stream: Any) -> float | None:
    if stream.start_time is None or stream.time_base is None:
        return None
    return float(stream.start_time * stream.time_base)


def _mean_rate(times: _Times, tick: Fraction) -> float:
    span = int(times.pts[-1] - times.pts[0]) * tick
    return float((len(times.pts) - 1) / span) if span else 0.0


def _notes(reader: VideoReader, first: Any, turned: tuple[int, int, int, int], offset_s: float,
           ) -> Iterator[str]:
    how = _ORIENTATIONS.get(turned, 'mirrors it')
    if how:
        yield f'its header {how}: frames are read upright'
    if reader.aspect != 1:
        yield f'its pixels are {reader.aspect} as wide as high: frames are stretched to fit'
    if first.interlaced_frame:
        yield 'it is interlaced: frames are read as stored, both fields in one'
    if offset_s > reader.slack_s:
        yield f'its first frame comes {offset_s:.2f} s after its first audio, which is second 0'
    if sum(stream.type == 'video' for stream in reader.streams) > 1:
        yield 'it has several video streams: the first is read'


def _rate_notes(pts: NDArray[np.int64], tick: Fraction) -> Iterator[str]:
    gaps = np.diff(pts)
    gaps = gaps[gaps > 0]
    if len(gaps) and gaps.max() > _VARIES * np.median(gaps) + 2:
        slow, fast = (float(1 / (int(gap) * tick)) for gap in (gaps.max(), np.median(gaps)))
        yield (f'its frame rate varies ({slow:.3g} to {fast:.3g} frames a second): frames are '
               'read by their own times')


_MAX_TABLES = 512 << 20
_MAX_BOXES = 1 << 20


def check_tables(path: Path, file: Any, size: int) -> None:
    """
    Check what the tables of a file claim against its size; other containers pass.

    :param file: open for reading, at any place; it is left at any place.
    :param size: of the file, bytes.
    :raises DataError: when a table claims more frames than there are bytes.
    """
    file.seek(0)
    if file.read(12)[4:8] not in (b'ftyp', b'moov', b'moof', b'styp', b'wide', b'free', b'skip',
                                  b'mdat', b'sidx'):
        return
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        length, box_type = struct.unpack('>I4s', head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack('>Q', head[8:])[0]
        length = size - at if length == 0 else length
        if length < 8:
            return
        if box_type in (b'moov', b'moof'):
            file.seek(at)
            _check(path, file.read(min(length, size - at, _MAX_TABLES)), size)
        at += length
    raise DataError(path, f'it has over {_MAX_BOXES:,} boxes', 'convert it anew')


def _check(path: Path, box: bytes, size: int) -> None:
    for name, offset in ((b'stsz', 12), (b'stz2', 12), (b'trun', 8)):
        at = box.find(name)
        while at >= 0:
            count = int.from_bytes(box[at + offset:at + offset + 4], 'big')
            if count > size:
                raise DataError(
                    path, f'it claims {count:,} frames in {size:,} bytes',
                    'fetch it again: it is damaged, or made to do harm')
            at = box.find(name, at + 4)
