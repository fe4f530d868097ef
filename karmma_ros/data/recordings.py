"""
Labelled bags as a data set: clips that a replay of each bag has extracted, and a label file.

They are extracted elsewhere (`bags.training_clips`), as the node makes its windows; here they
are opened. Each recording is a folder of arrays with `windows` rows for each of its segments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
import warnings

from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.cluster.bucket import bucket_cache
from karmma_ros.data.labels.label_file import ActionLabel, background_of, completed, LabelTable
from karmma_ros.data.samples import Sample, Splits
from karmma_ros.errors import count_text, DataError, InvalidSettingError
from karmma_ros.modality import in_order, Modality
from karmma_ros.prediction import Vocabulary
from karmma_ros.storage import open_arrays
import numpy as np
from numpy.typing import NDArray

EXTRACTED = 'extracted'
"""Array that marks the rows that have a clip."""
_PRESENT = '_present'
SPLITS = ('train', 'validation', 'test')


@dataclass(frozen=True)
class BagSettings:
    """Rosbags with a label file."""

    files: tuple[str, ...] = ()
    """Bags or videos: files, folders of a bag, or folders that contain some; also of a bucket,
    as s3://BUCKET/PATH with * for any name."""
    labels: str = ''
    """Label file: recording, start, stop, verb, noun (or action), optionally split."""
    windows: int = 5
    """Windows of each segment, evenly spread over it; each epoch trains on another one."""
    topics: tuple[str, ...] = ()
    """Topics by modality, as rgb=/front/image; the others are found by their types."""
    parameters: str = ''
    """Parameter file of the node whose timeouts and thresholds hold; empty: the defaults."""
    background: str = ''
    """Class that stands for no action; empty: `nothing`, if it is a class."""
    title: str = ''
    """Name of the data set, for the model card; empty: that of the label file."""
    bucket_cache: float = 50
    """Largest size of the bags of buckets that each machine keeps, GiB."""

    def __post_init__(self) -> None:
        check_windows('bags.windows', self.windows)
        bucket_cache(self.bucket_cache, 'bags.bucket_cache')


def check_windows(setting: str, windows: int) -> None:
    """
    Check the number of windows of a segment.

    :raises InvalidSettingError: that names the setting.
    """
    if not 1 <= windows <= 100:
        raise InvalidSettingError(setting, windows, 'a number from 1 to 100')


def input_array(modality: Modality) -> str:
    """Return the name of the array with the inputs of a modality."""
    return modality.value


def present_array(modality: Modality) -> str:
    """Return the name of the array that marks the rows that have the modality."""
    return modality.value + _PRESENT


@dataclass(frozen=True)
class ExtractedRecording:
    """A folder with the clips of one recording, and the labels of its segments."""

    folder: Path
    labels: tuple[ActionLabel, ...]
    notes: tuple[str, ...] = ()
    """A sentence for damage of the bag, and for labels that end after it."""


@dataclass
class BagClips:
    """
    A split: segments of recordings, of which at least one window could be extracted.

    :param located: of each segment the index of its recording, its index in that, and its class
        ids.
    """

    folders: Sequence[Path]
    located: Sequence[tuple[int, int, Mapping[str, int]]]
    windows: int
    spec: ClipSpec
    _arrays: list[dict[str, NDArray[Any]]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self._arrays = [open_arrays(folder)[1] for folder in self.folders]

    def __len__(self) -> int:
        return len(self.located)

    def __getitem__(self, index: int) -> Sample:
        """Return the window in the middle of a segment, or the nearest that could be extracted."""
        rows = self._rows(index)
        return self._sample(index, rows[len(rows) // 2])

    def training_sample(self, index: int, epoch: int) -> Sample:
        """Return one of the windows of a segment, another one in each epoch."""
        rows = self._rows(index)
        return self._sample(index, rows[epoch % len(rows)])

    def windows_of(self, index: int) -> int:
        """Return how many windows a segment has, which the epochs take in turn."""
        return len(self._rows(index))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_arrays': []}  # each process maps the files

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def _rows(self, index: int) -> list[int]:
        if not 0 <= index < len(self):
            raise IndexError(f'segment {index} of {len(self)}')
        recording, segment, _ = self.located[index]
        first = segment * self.windows
        return [first + int(i) for i in np.flatnonzero(
            self._arrays[recording][EXTRACTED][first:first + self.windows])]

    def _sample(self, index: int, row: int) -> Sample:
        recording, _, labels = self.located[index]
        return Sample(_clip(self._arrays[recording], row), labels, index)


class WindowClips:
    """
    Every extracted window of one recording, without labels: a `Clips`.

    :param windows: of each segment.
    """

    def __init__(self, recording: ExtractedRecording, windows: int) -> None:
        self._folder = recording.folder
        self._arrays = open_arrays(recording.folder)[1]
        self._rows = np.flatnonzero(self._arrays[EXTRACTED])
        self.segments: NDArray[np.int64] = self._rows // windows
        """Of each window, the index of its segment in the recording."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Return a window."""
        return Sample(_clip(self._arrays, int(self._rows[index])), {}, index)

    def training_sample(self, index: int, epoch: int) -> Sample:
        """Return the same in every epoch."""
        return self[index]

    def has(self, modality: Modality) -> bool:
        """Return whether any window has a modality."""
        present = self._arrays.get(present_array(modality))
        return present is not None and bool(present[self._rows].any())


def _clip(arrays: Mapping[str, NDArray[Any]], row: int) -> Clip:
    names = [name for name in arrays if name != EXTRACTED and not name.endswith(_PRESENT)]
    return Clip({m: np.array(arrays[input_array(m)][row]) for m in in_order(map(Modality, names))
                 if arrays[present_array(m)][row]})


def open_recordings(
    settings: BagSettings, spec: ClipSpec, recordings: Sequence[ExtractedRecording],
) -> Splits:
    """
    Open the splits: by the column `split`, or with every fifth recording for validation.

    Without validation recordings the test split is the validation split too, and vice versa.

    :raises DataError: when nothing is left to train on or to score.
    """
    path = Path(settings.labels)
    splits = _splits(path, [each.labels for each in recordings])
    every = [label for each in recordings for label in each.labels]
    background = background_of(every, settings.background)
    labels = _completed(path, recordings, background)
    training = [x for own, names in zip(labels, splits)
                for x, name in zip(own, names) if x is not None and name == SPLITS[0]]
    if not training:
        raise DataError(path, 'its labels are of one recording; expected one to train on and '
                        'another to score', 'label a second recording, or add a column split')
    names = {head: tuple(sorted({x.classes[head] for x in training if head in x.classes}))
             for head in LabelTable(tuple(every)).heads}
    if not settings.background and not any(background in each for each in names.values()):
        background = ''
    vocabulary = Vocabulary(names, background)
    folders = [each.folder for each in recordings]
    clips, foreign = {}, []
    for split in SPLITS:
        segments = []
        for i, own in enumerate(labels):
            for j, label in enumerate(own):
                if label is not None and splits[i][j] == split:
                    ids = _ids(label, vocabulary)
                    segments += [(i, j, ids)] if ids else []
                    foreign += [] if ids else [label]
        opened = BagClips(folders, segments, settings.windows, spec)
        extracted = [x for n, x in enumerate(segments) if opened._rows(n)]
        if extracted:
            clips[split] = BagClips(folders, extracted, settings.windows, spec)
    if foreign:
        warnings.warn(
            f'{path}: {count_text(len(foreign), "label", "are")} not scored, since no recording '
            f'for training has the class: {foreign[0].text} of {foreign[0].recording} and others',
            stacklevel=2)
    if SPLITS[0] not in clips or len(clips) < 2:
        raise DataError(path, f'its recordings have clips of {", ".join(clips) or "no split"}; '
                        'expected clips to train on and others to score',
                        'label a second recording, or add a column split')
    return Splits(
        settings.title or path.stem, spec, vocabulary, clips['train'],
        clips['validation' if 'validation' in clips else 'test'],
        clips['test' if 'test' in clips else 'validation'])


def _completed(
    path: Path, recordings: Sequence[ExtractedRecording], background: str,
) -> list[list[ActionLabel | None]]:
    """Return the labels of each recording as `completed`, with a warning of those left out."""
    complete, note = completed([x for each in recordings for x in each.labels], background)
    if note:
        warnings.warn(f'{path}: {note}', stacklevel=3)
    if not any(complete):
        raise DataError(path, note or 'it has no label of these recordings',
                        'give every label a class of each head')
    remaining = iter(complete)
    return [[next(remaining) for _ in each.labels] for each in recordings]


def _splits(path: Path, labels: Sequence[Sequence[ActionLabel]]) -> list[list[str]]:
    """Return the split of each label of each recording."""
    given = [x.split for each in labels for x in each]
    if not any(given):
        chosen = [SPLITS[i % 5 == 4 or i + 1 == len(labels) < 5] for i in range(len(labels))]
        return [[split] * len(each) for split, each in zip(chosen, labels)]
    check_splits(path, [x for each in labels for x in each])
    return [[x.split for x in each] for each in labels]


def check_splits(path: Path, labels: Sequence[ActionLabel]) -> None:
    """
    Check that every label has a split, or none has.

    :raises DataError: for a label with none, or with another than train, validation and test.
    """
    wrong = [x for x in labels if x.split not in SPLITS]
    if wrong and any(x.split for x in labels):
        first = min(wrong, key=lambda label: label.split)
        raise DataError(path, f'a split is {first.split!r}; expected {", ".join(SPLITS)}',
                        f'name the split of every label, as of {first.text} of {first.recording} '
                        f'at {first.start_s:g} s')


def _ids(label: ActionLabel, vocabulary: Vocabulary) -> dict[str, int]:
    """Return head → class id; empty where a class is not trained on."""
    if any(label.classes.get(head, '') not in names for head, names in vocabulary.heads.items()):
        return {}
    return {head: names.index(label.classes[head]) for head, names in vocabulary.heads.items()}
