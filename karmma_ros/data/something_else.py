"""
The boxes of Something-Else (Materzynska et al., CVPR 2020), in a form that fits in memory.

The annotations are gigabytes of JSON, `{video: [frame]}`. They are read once and kept as
arrays on disk, which all processes map.

Shape legend: v videos, f frames, n boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import json
import math
from pathlib import Path
import re
from typing import Any, NoReturn, TextIO
import warnings

from karmma_ros.clip import BOX_HAND, BOX_OBJECT
from karmma_ros.errors import DataError
from karmma_ros.media.boxes import BoxTrack
from karmma_ros.preprocess.box_array import normalise_boxes
from karmma_ros.storage import file_lock, open_arrays, read_metadata, REMEDY, write_arrays
import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 22
"""Characters read at a time."""

_SPACE = re.compile(r'[ \t\r\n]*')
_AFTER = tuple(' \t\r\n,:}')
"""What may follow a key or a value."""

_LONGEST_TOKEN = 1 << 16
"""Characters that a token may have; a longer one is an error."""


def json_members(
    path: Path, progress: Callable[[int], None] = lambda characters: None,
) -> Iterator[tuple[str, Any]]:
    """
    Return the key and value of every member of the JSON object in a file, in its order.

    :param progress: called with the number of characters each time some were read.
    :raises DataError: when the file is missing, or is no JSON object to its end.
    """
    try:
        with path.open(encoding='utf-8') as file:
            yield from _Text(path, file, progress).members()
    except OSError as error:
        raise DataError(path, error.strerror or str(error), 'check the path') from error
    except UnicodeDecodeError as error:
        raise DataError(path, f'it is no text ({error.reason})', _JSON_REMEDY) from error


_JSON_REMEDY = 'download or write it again'


class _Text:
    """The text that was read but not yet parsed, and its position in the file."""

    def __init__(self, path: Path, file: TextIO, progress: Callable[[int], None]) -> None:
        self.path, self.file, self.progress = path, file, progress
        self.text, self.at, self.dropped, self.ended = '', 0, 0, False
        self.decoder = json.JSONDecoder()

    def members(self) -> Iterator[tuple[str, Any]]:
        self._expect('{')
        if self._peek() == '}':
            self.at += 1
            return self._check_end()
        while True:
            if self._peek() != '"':
                self._complain('a member with a "name" was expected')
            key = self._value()
            self._expect(':')
            value = self._value()
            yield key, value
            if self._peek() != ',':
                break
            self.at += 1
        self._expect('}')
        return self._check_end()

    def _check_end(self) -> None:
        if self._peek():
            self._complain('something follows the end of its object')

    def _peek(self) -> str:
        """Skip white space and return the next character; none at the end of the file."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._read():
                return ''

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            self._complain(f'{character!r} was expected')
        self.at += 1

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if error.pos + _LONGEST_TOKEN < len(self.text) or not self._read():
                    self._complain(error.msg, error.pos)
                continue
            # A number at the end of the text may be incomplete: `0.` of 0.5.
            if self.text[end:end + 1] in _AFTER or not self._read():
                self.at = end
                return value

    def _read(self) -> bool:
        """Read more text; the parsed part is dropped."""
        piece = '' if self.ended else self.file.read(CHUNK)
        if not piece:
            self.ended = True
            return False
        self.text, self.dropped, self.at = self.text[self.at:] + piece, self.dropped + self.at, 0
        self.progress(len(piece))
        return True

    def _complain(self, what: str, at: int | None = None) -> NoReturn:
        at = self.at if at is None else at
        where = f'character {self.dropped + at}' if at < len(self.text) else 'its end: cut off?'
        raise DataError(self.path, f'it is no JSON object: {what}, at {where}', _JSON_REMEDY)


FRAME_RATE = 12.0
"""Hz; the annotations count frames at this rate, from 1."""

_MIDDLE = 0.5001
"""Frames from the end of a frame back to its middle; a hair more, so that a time between two
frames belongs to the later one, as in the video."""

VERSION = 1
"""Grows whenever equal files would give other arrays."""

_DTYPES = {'videos': np.int64, 'video_offsets': np.int64, 'frames': np.int32,
          'frame_offsets': np.int64, 'boxes': np.float32}
_FRAME_NUMBER = re.compile(r'(\d+)\.\w+$')
_FORMAT = ('the format is {"VIDEO": [{"name": "VIDEO/0001.jpg", "labels": [{"box2d": {"x1": …, '
           '"y1": …, "x2": …, "y2": …}, "standard_category": "0000" or "hand"}]}]}')

Progress = Callable[[int, int], None]
"""Called with the bytes done and the total."""


_Row = tuple[float, float, float, float, float]


@dataclass(frozen=True)
class _Track:
    """The boxes of one video as the annotations have them."""

    numbers: NDArray[np.int32]
    """Of the frames, ascending, `[f]`."""
    counts: NDArray[np.int64]
    """Boxes of each frame, `[f]`."""
    rows: NDArray[np.float32]
    """x1, y1, x2, y2 in pixels and the category, `[n, 5]`."""
    dropped: int
    """Number of invalid boxes."""


class BoxArchive:
    """
    The boxes of every video, mapped from a folder that `write_archive` wrote.

    Pickling it carries the folder's name alone.

    :raises DataError: when the folder is missing, incomplete or of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open()

    def _open(self) -> None:
        metadata, self._arrays = open_arrays(self.folder)
        if metadata['version'] != VERSION or not set(_DTYPES) <= set(self._arrays):
            raise DataError(self.folder, f'it is incomplete or not of version {VERSION}', REMEDY)

    def __getstate__(self) -> dict[str, Any]:
        return {'folder': self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder = state['folder']
        self._open()

    def __len__(self) -> int:
        return len(self._arrays['videos'])

    def __contains__(self, video: int) -> bool:
        return self._find(video) is not None

    def last_time(self, video: int) -> float:
        """Return the second at which the last frame of a video ends; 0 for one without boxes."""
        index = self._find(video)
        if index is None:
            return 0.0
        stop = self._arrays['video_offsets'][index + 1]
        return float(self._arrays['frames'][stop - 1]) / FRAME_RATE

    def track(self, video: int, width: int, height: int) -> BoxTrack:
        """
        Return the boxes of a video, divided by the size of its frames in pixels.

        The time of a frame's boxes is the middle of the interval in which it is shown, so that a
        time gets the boxes of the frame that is shown then. Without boxes the track is empty.
        """
        index = self._find(video)
        offsets = self._arrays['video_offsets']
        start, stop = (0, 0) if index is None else (offsets[index], offsets[index + 1])
        rows_of = np.asarray(self._arrays['frame_offsets'][start:stop + 1])
        rows = np.array(self._arrays['boxes'][rows_of[0]:rows_of[-1]])
        rows[:, :4] = normalise_boxes(rows[:, :4], width, height)
        times_s = (self._arrays['frames'][start:stop] - _MIDDLE) / FRAME_RATE
        return BoxTrack(times_s, rows_of - rows_of[0], rows, 1 / FRAME_RATE)

    def _find(self, video: int) -> int | None:
        videos = self._arrays['videos']
        index = int(np.searchsorted(videos, video))
        return index if index < len(videos) and videos[index] == video else None


def annotation_files(path: Path) -> list[Path]:
    """
    Return the JSON files of a folder, sorted, or the one file that `path` is.

    :raises DataError: when there is none.
    """
    if path.is_file():
        return [path]
    files = sorted(path.glob('*.json')) if path.is_dir() else []
    if not files:
        raise DataError(
            path, 'there are no box annotations (*.json)', 'get those of Something-Else '
            '(bounding_box_smthsmth_part1.json, …), or leave `boxes` empty to go without')
    return files


def write_archive(
    files: Sequence[Path], folder: Path, progress: Progress = lambda done, total: None,
) -> BoxArchive:
    """
    Read annotation files into `folder`, unless it has them already, unchanged.

    Invalid boxes (not finite, of a negative size) are skipped and counted in a warning.

    :param progress: called with the bytes done and the bytes in all.
    :raises DataError: for a file that does not have the format, or a folder that cannot be
        written.
    """
    wanted = {'version': VERSION, 'files': [_file_state(path) for path in files]}
    if read_metadata(folder) == wanted:
        return BoxArchive(folder)
    if folder.exists() and read_metadata(folder) is None:
        raise DataError(folder, 'it exists and holds something else',
                        'name another folder with `cache`')
    try:
        with file_lock(folder):  # fails before the minutes that reading takes
            if read_metadata(folder) != wanted:
                write_arrays(folder, _arrays_of(_read(files, progress)), wanted)
    except OSError as error:
        raise DataError(folder, f'it cannot be written ({error.strerror})',
                        'name a folder of yours, with free space, with `cache`') from error
    return BoxArchive(folder)


def _file_state(path: Path) -> list[Any]:
    """
    Return what differs when a file was changed, without reading its gigabytes.

    A tool may restore the time of modification, but not that of the last change of the file.
    """
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(files: Sequence[Path], progress: Progress) -> dict[int, _Track]:
    total, done = sum(path.stat().st_size for path in files), 0

    def count(characters: int) -> None:
        nonlocal done
        done += characters
        progress(min(done, total), total)

    tracks: dict[int, _Track] = {}
    for path in files:
        for name, frames in json_members(path, count):
            tracks[_video_number(path, name)] = _read_track(path, name, frames)
    dropped = sum(track.dropped for track in tracks.values())
    if dropped:
        warnings.warn(f'data {files[0].parent}: {dropped} boxes are not finite or have a '
                      'negative size: skipped', stacklevel=3)
    return tracks


def _video_number(path: Path, name: str) -> int:
    try:
        return int(name)
    except ValueError:
        raise DataError(path, f'video {name!r} is no number', _FORMAT) from None


def _read_track(path: Path, video: str, frames: Any) -> _Track:
    rows_of: dict[int, list[_Row]] = {}
    try:
        for frame in frames:
            number = int(_FRAME_NUMBER.search(frame['name'])[1])  # type: ignore[index]
            rows_of[number] = [_row(label) for label in _best_first(frame['labels'])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(path, f'a frame of video {video} is wrong ({error!r})',
                        _FORMAT) from error
    kept = {number: [row for row in rows_of[number] if _is_box(row)] for number in sorted(rows_of)}
    rows = [row for boxes in kept.values() for row in boxes]
    return _Track(
        np.array(list(kept), np.int32), np.array(list(map(len, kept.values())), np.int64),
        np.array(rows, np.float32).reshape(-1, 5), sum(map(len, rows_of.values())) - len(rows))


def _best_first(labels: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Order detections by their score; manual annotations have none and keep their order."""
    return sorted(labels, key=lambda label: -float(label.get('score') or 0))


def _row(label: Mapping[str, Any]) -> _Row:
    box, name = label['box2d'], label.get('standard_category') or label['category']
    category = BOX_HAND if name == 'hand' else BOX_OBJECT
    return float(box['x1']), float(box['y1']), float(box['x2']), float(box['y2']), category


def _is_box(row: _Row) -> bool:
    x1, y1, x2, y2 = row[:4]
    return all(map(math.isfinite, row)) and x1 <= x2 and y1 <= y2


def _arrays_of(tracks: Mapping[int, _Track]) -> dict[str, NDArray[Any]]:
    """Return the tracks end to end, as `BoxArchive` reads them."""
    ordered = [tracks[video] for video in sorted(tracks)]
    nothing = np.zeros((0, 5), np.float32)
    arrays = {
        'videos': np.array(sorted(tracks)),
        'video_offsets': _offsets([np.array([len(track.numbers) for track in ordered])]),
        'frames': np.concatenate([np.zeros(0), *(track.numbers for track in ordered)]),
        'frame_offsets': _offsets([track.counts for track in ordered]),
        'boxes': np.concatenate([nothing, *(track.rows for track in ordered)]),
    }
    return {name: np.asarray(arrays[name], dtype) for name, dtype in _DTYPES.items()}


def _offsets(counts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return where each of the runs of these lengths begins, and where the last one ends."""
    return np.cumsum(np.concatenate([[0], *counts]), dtype=np.int64)
