"""
Extract clips for training from labelled bags, as the node makes its windows.

A replay of the bag makes the windows; some of each labelled segment are kept. The clips of a bag
are computed once, and again when the bag or its labels change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import heapq
from pathlib import Path
import re
from typing import Any
import warnings

from karmma_ros.bags.audio_infos import earlier_audio_infos, fields_of, topics_of_file
from karmma_ros.bags.collect import bag_digest
from karmma_ros.bags.metadata import NAME, storage_suffix
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.replay import FOREIGN_CLOCK_NS, Replay, Run
from karmma_ros.bags.topics import choose_topics, parse_topics
from karmma_ros.bags.video_messages import is_audio, is_media, is_video
from karmma_ros.clip import Clip, ClipSpec, NANOSECONDS
from karmma_ros.cluster.bucket import bucket_cache, expand, folder_content, url_of
from karmma_ros.cluster.engine import (
    check_shared,
    map_tasks,
    ONE,
    raising,
    Report,
    Workers,
)
from karmma_ros.data.labels.label_file import (
    ActionLabel,
    LabelTable,
    LATE_S,
    read_label_file,
    recording_name,
)
from karmma_ros.data.recordings import (
    BagSettings,
    EXTRACTED,
    ExtractedRecording,
    input_array,
    present_array,
    SPLITS,
)
from karmma_ros.errors import BagError, count_text, DataError, printable
from karmma_ros.modalities import modality_type
from karmma_ros.modality import in_order, Modality, PAPER_MODALITIES
from karmma_ros.storage import ArrayStore, file_lock, fingerprint, write_atomically
from karmma_ros.stream.settings import node_parameters, with_topic
from karmma_ros.stream.window import Window
import numpy as np

VERSION = 2
"""Grows whenever equal settings would give other clips."""
Progress = Callable[[str, int, int], None]
_NOTES, _MOST_NOTE = 'notes.txt', 400
"""What the inputs rejected or found wrong; characters of a line."""
_Job = tuple[Path, 'tuple[ActionLabel, ...]', 'tuple[str, ...]']
"""A bag, its labels and the notes on them."""


@dataclass(frozen=True)
class _Extraction:
    """What is the same for every bag."""

    settings: BagSettings
    spec: ClipSpec
    values: Mapping[str, Any]
    cache: Path
    modalities: tuple[Modality, ...]

    def check(self) -> None:
        """Check in a worker that its machine has the cache."""
        check_shared('--cache', self.cache)

    def extract(self, state: None, job: _Job, progress: Report) -> ExtractedRecording:
        """Return the clips of a bag, computed unless they are in the cache."""
        path, labels, notes = job
        with open_bag(path, self.settings) as bag:
            if url_of(path):  # else it was checked before any was extracted
                notes = _check_inside(Path(self.settings.labels), bag, labels)
            named = parse_topics(self.settings.topics)
            modalities = self.modalities
            bags = () if url_of(path) else tuple(find_bags(self.settings.files).values())
            choice = choose_topics(
                bag, topics_of_file(bag, named, bags), modalities,
                with_topic(self.values, modalities), self.spec)
            used = tuple(m for m in modalities if m.value in choice.topics or (
                modality_type(m).source(self.spec) or m).value in choice.topics)
            facts = {
                'version': VERSION, 'bag': bag_digest(bag.files.sources),
                'spec': self.spec.to_dict(), 'values': dict(self.values),
                'topics': choice.to_dict(), 'modalities': [m.value for m in used],
                'windows': self.settings.windows,
                'segments': [[x.start_s, x.stop_s] for x in labels]}
            infos = earlier_audio_infos(path, choice, named, bags)
            if infos:
                facts['audio_info'] = fields_of(infos)
            store = self._store(recording_name(path.name), facts, used, len(labels))
            with file_lock(store.folder):
                if not store.complete:
                    replay = Replay(bag, choice, self.spec, used, self.values, [Run()],
                                    audio_infos=infos)
                    self._fill(store, bag, replay, labels, progress)
                    write_atomically(store.folder / _NOTES, '\n'.join(
                        printable(f'{bag.path.name}: {line}', _MOST_NOTE)
                        for line in replay.nodes[0].problems))
        return ExtractedRecording(store.folder, labels, (*notes, *_read_notes(store.folder)))

    def _store(
        self, name: str, facts: dict[str, Any], modalities: Sequence[Modality], segments: int,
    ) -> ArrayStore:
        layout: dict[str, Any] = {EXTRACTED: (np.bool_, ())}
        for modality in modalities:
            shape = modality_type(modality).input_shape(self.spec)
            layout[input_array(modality)] = np.float32, shape
            layout[present_array(modality)] = np.bool_, ()
        folder = self.cache / 'bags' / f'{name}_{fingerprint(facts)}'
        return ArrayStore(folder, facts, layout, segments * self.settings.windows)

    def _fill(
        self, store: ArrayStore, bag: Bag, replay: Replay, labels: Sequence[ActionLabel],
        progress: Report,
    ) -> None:
        length_ns = bag.end_ns - bag.start_ns
        store.remaining(1)  # allocates the arrays
        ends = [(end_ns, i * self.settings.windows + window) for i, label in enumerate(labels)
                for window, end_ns in enumerate(window_ends(
                    bag.start_ns + round(label.start_s * NANOSECONDS),
                    bag.start_ns + round(label.stop_s * NANOSECONDS),
                    self.spec.duration_ns, self.settings.windows))]
        for row, clip in extract_clips(
                replay, ends, self.spec.duration_ns,
                lambda now_ns: progress(now_ns - bag.start_ns, length_ns)):
            arrays: dict[str, Any] = {EXTRACTED: np.array([True])}
            for modality, inputs in clip.inputs.items():
                arrays[input_array(modality)] = inputs[None]
                arrays[present_array(modality)] = np.array([True])
            store.write(range(row, row + 1), arrays)
        progress(length_ns, length_ns)
        store.finish()


def _read_notes(folder: Path) -> list[str]:
    try:
        return (folder / _NOTES).read_text(encoding='utf-8').splitlines()
    except OSError:  # of a process that ended before it wrote them
        return []


def window_ends(start_ns: int, stop_ns: int, length_ns: int, windows: int) -> list[int]:
    """Return where the windows of a segment end: evenly spread, or centred on a short one."""
    spare = stop_ns - start_ns - length_ns
    if spare <= 0 or windows == 1:
        return [(start_ns + stop_ns + length_ns) // 2]
    return [start_ns + length_ns + spare * i // (windows - 1) for i in range(windows)]


def extract_clips(
    replay: Replay, ends: Sequence[tuple[int, int]], length_ns: int,
    progress: Callable[[int], None] = lambda now_ns: None,
) -> Iterator[tuple[int, Clip]]:
    """
    Yield the row and the clip of the first window that ends at each of some times or after.

    A time that no window ends at within half a window has no clip: the sensors were silent. After
    the last window that one is taken, for a short segment at the end of a recording.

    :param ends: time and row, on the clock of the bag.
    """
    waiting = list(ends)
    heapq.heapify(waiting)
    last: tuple[int, Window] | None = None
    for request in replay.windows(progress):
        window = request.window
        end_ns = window.end_ns
        if abs(request.inference_ns - end_ns) > FOREIGN_CLOCK_NS:
            end_ns = request.inference_ns
        clip = None
        while waiting and waiting[0][0] <= end_ns:
            wanted_ns, row = heapq.heappop(waiting)
            if end_ns - wanted_ns <= length_ns // 2:
                clip = clip or window.clip()
                yield row, clip
        if not waiting:
            return
        last = end_ns, window
    if last is not None:
        end_ns, window = last
        near = [row for wanted_ns, row in sorted(waiting) if wanted_ns - end_ns <= length_ns // 2]
        clip = window.clip() if near else None
        yield from ((row, clip) for row in near if clip is not None)


@contextmanager
def open_bag(path: Path, settings: BagSettings) -> Iterator[Bag]:
    """
    Open a bag; that of a bucket is downloaded, unless it was.

    :raises BagError: when it cannot be read.
    """
    buckets = bucket_cache(settings.bucket_cache, 'bags.bucket_cache')
    with buckets.local(path) as local, Bag(local) as bag:
        yield bag


def find_bags(paths: Sequence[str]) -> dict[str, Path]:
    """
    Return recording → bag, video or audio file, for files and for folders that contain some.

    A folder within it is one bag when it has a metadata.yaml, or when all of its bag files are
    numbered from 0 after one name, as rosbag2 does; so is the folder itself, after its own name.
    In such a folder a video is left out that a bag of the same name was made of, and an audio file
    that has the name of either. Paths may be those of buckets, with asterisks.

    :raises BagError: when there is none, or two have the same name.
    """
    bags: dict[str, Path] = {}
    for path in (path for each in paths for path in expand(Path(each))):
        for bag in _bags_of_bucket(path) if url_of(path) else _bags_below(path):
            name = recording_name(bag.name)
            if bags.setdefault(name, bag) != bag:
                raise BagError(url_of(bag) or bag, f'{url_of(bags[name]) or bags[name]} is a '
                               f'recording of the same name, {name}',
                               'rename one: labels refer to recordings by name')
    if not bags:
        raise BagError(', '.join(paths) or '(nowhere)', 'no bag is there',
                       'name bags, videos or audio files, or folders that contain mcap, sqlite3, '
                       'video or audio files or folders of a bag')
    return bags


def _bags_below(path: Path) -> list[Path]:
    """Return a bag, or those of a folder."""
    if not path.exists():
        raise BagError(path, 'no such file or folder', 'check the path')
    if path.name in ('', '..'):  # else the recording has no name
        path = path.resolve()
    if not path.is_dir():
        return [path]
    inside = sorted(path.iterdir())
    if _is_bag([each for each in inside if not each.is_dir()], path.name):
        return [path]
    return _with_media(
        [each for each in inside if (
            _is_bag(each.iterdir()) if each.is_dir() else storage_suffix(each))],
        [each for each in inside if is_media(each) and each.is_file()])


def _bags_of_bucket(path: Path) -> list[Path]:
    """Return a bag of a bucket, or those of a folder of it."""
    inside = folder_content(path)
    if inside is None:
        return [path]
    files = [each for each in inside if storage_suffix(each) or is_media(each)]
    if _is_bag(inside, path.name):
        return [path]
    folders = [each for each in inside
               if each not in files and _is_bag(folder_content(each) or ())]
    return _with_media(
        sorted([*folders, *(each for each in files if not is_media(each))]),
        [each for each in files if is_media(each)])


def _is_bag(content: Iterable[Path], name: str = '') -> bool:
    """
    Return whether the content of a folder is that of one bag.

    :param name: that the files of a bag without metadata.yaml are numbered after; empty: any.
    """
    files = list(content)
    if any(each.name == NAME for each in files):
        return True
    names = [recording_name(each.name) for each in files if storage_suffix(each)]
    matches = [re.fullmatch(r'(.+)_(\d+)', each) for each in names]
    numbered = [match.groups() for match in matches if match is not None]
    first = name or (numbered[0][0] if numbered else '')
    return (first, '0') in numbered and len(numbered) == len(names) and all(
        each == first for each, _ in numbered)


def _with_media(bags: list[Path], media: list[Path]) -> list[Path]:
    """Return bags, the videos that none of them was made of, and other audio files."""
    every = list(bags)
    for is_own in (is_video, is_audio):
        names = {recording_name(each.name) for each in every}
        every += [each for each in media
                  if is_own(each) and recording_name(each.name) not in names]
    return every


def labels_of_bags(
    path: Path, labels: Sequence[ActionLabel], bags: Collection[str],
) -> tuple[tuple[ActionLabel, ...], str]:
    """
    Return the labels of the bags, and a note on those of other recordings.

    A label file may also label recordings that are held back for `karmma bag evaluate`.

    :param path: label file, for errors.
    :param bags: names of the recordings.
    :raises DataError: when no label is left, or one is for training and its bag is missing.
    """
    names = ', '.join(sorted(bags)[:8])
    if any(not label.recording for label in labels):
        raise DataError(path, 'a label names no recording', 'fill in the column recording with '
                        f'the names of the bags: {names}')
    own = tuple(label for label in labels if label.recording in bags)
    others = [label for label in labels if label.recording not in bags]
    needed = [x for x in others if not own or x.split in SPLITS[:2]]
    if needed:
        raise DataError(path, f'recording {needed[0].recording!r} is none of the bags: {names}',
                        'add the bag, or remove its labels')
    elsewhere = sorted({label.recording for label in others})
    return own, (f'{count_text(len(others), "label", "are")} of recordings that are none of the '
                 f'bags, and not used: {", ".join(elsewhere[:8])}' if others else '')


def extract_recordings(
    settings: BagSettings, spec: ClipSpec, cache: Path, progress: Progress = lambda *_: None, *,
    table: LabelTable | None = None, modalities: Collection[Modality] | None = None,
    workers: Workers = ONE,
) -> list[ExtractedRecording]:
    """
    Return the clips of each labelled bag, computed unless they are in the cache.

    :param table: the labels, where they are others than those of the label file.
    :param modalities: to extract; None: all that the clips may have.
    :param workers: what the bags are extracted by, several at a time.
    :raises DataError: for labels that cannot be read, are outside of their recording or name one
        that is not there.
    :raises BagError: for a bag that cannot be read.
    """
    path, bags = Path(settings.labels), find_bags(settings.files)
    if not settings.labels:
        raise DataError('(nowhere)', 'there is no label file', 'name one with bags.labels')
    table = read_label_file(path) if table is None else table
    if table.problems:
        raise DataError(path, table.problems[0], 'correct it: no label is dropped in silence')
    own, note = labels_of_bags(path, table.labels, bags)
    if note:
        warnings.warn(note, stacklevel=2)
    by_recording: dict[str, list[ActionLabel]] = {}
    for label in own:
        by_recording.setdefault(label.recording, []).append(label)
    values = node_parameters(
        Path(settings.parameters) if settings.parameters else None,
        [Modality(name) for name in spec.inputs])
    extraction = _Extraction(
        settings, spec, values, cache,
        in_order({*PAPER_MODALITIES, *map(Modality, spec.inputs)} if modalities is None
                 else modalities))
    notes = {}
    for name, labels in by_recording.items():
        if not url_of(bags[name]):
            with Bag(bags[name]) as bag:
                notes[name] = _check_inside(path, bag, labels)
    names = sorted(by_recording)
    (cache / 'bags').mkdir(parents=True, exist_ok=True)
    return map_tasks(
        extraction.extract, [(bags[x], tuple(by_recording[x]), notes.get(x, ())) for x in names],
        extraction.check, workers, on_result=raising([bags[name] for name in names]),
        progress=lambda i, done, total: progress(f'extracting {bags[names[i]].name}', done, total))


def _check_inside(path: Path, bag: Bag, labels: Sequence[ActionLabel]) -> tuple[str, ...]:
    """Return a sentence for damage of the bag, and for labels that end after it."""
    length_s, damage = (bag.end_ns - bag.start_ns) / NANOSECONDS, tuple(bag.warnings)
    for label in labels:
        if label.start_s >= length_s:
            raise DataError(
                path, f'{label.text} of {label.recording} starts at {label.start_s:g} s; expected '
                f'a start within the bag of {length_s:.1f} s',
                '; '.join(['times count from the start of the bag, in seconds', *damage]))
    late = [label for label in labels if label.stop_s > length_s + LATE_S]
    if not late:
        return damage
    return (*damage, f'{count_text(len(late), "label", "end")} after the bag of {length_s:.1f} s, '
            f'such as {late[0].text} of {late[0].recording} at {late[0].stop_s:g} s: what is '
            'recorded of them is used')
