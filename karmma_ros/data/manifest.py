"""
Any other data set, described by one CSV file with a line for each segment.

    split,start,stop,verb,noun,rgb,flow,audio,detections
    train,0.0,2.5,cut,onion,videos/a.mp4,computed,audio/a.wav,boxes/a.csv
    test,00:01:04.50,00:01:07,wash,pan,videos/b.mp4,,,

Any modality may have a column, such as `imu` or `rgb_wrist`; its type opens the file or folder.
Commas, semicolons or tabs separate the columns. Paths are relative to the file. An empty cell
means that the segment lacks that sensor: no two lines need the same ones.

A column `fold` names groups of training lines, such as persons, for cross-validation and
cross-fitting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
import json
import math
from pathlib import Path

from karmma_ros.clip import ClipSpec
from karmma_ros.data.samples import Splits
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.files import is_url
from karmma_ros.media.csv_table import parse_time, read_csv
from karmma_ros.media.sources import Source, SourceOptions, SourceSettings
from karmma_ros.modalities import modality_type
from karmma_ros.modality import in_order, is_modality, Modality, registered_types
from karmma_ros.prediction import NOUN, VERB, Vocabulary

SPLITS = ('train', 'validation', 'test')
COMPUTED = 'computed'
"""In the cell of a modality that can be computed from another, as flow from frames."""

_NEEDED = ('split', 'start', 'stop')
_NAME, _FOLD = 'name', 'fold'
_CLASSES_FORMAT = 'it must be {"verb": ["cut", …], "noun": ["onion", …]}'


@dataclass(frozen=True)
class ManifestSettings(SourceSettings):
    """A data set that is described by a CSV file."""

    file: str = ''
    """The CSV file. Columns: split, start, stop, the heads, modalities; optional: name, fold."""
    heads: tuple[str, ...] = (VERB, NOUN)
    """Columns that hold class names, each a head of the network."""
    classes: str = ''
    """
    JSON file, {head: [class name, …]}, in the order of the ids; empty: the names in the
    training lines, sorted.
    """
    background: str = ''
    """Class that stands for no action, which events do not announce; empty without one."""
    seed: int = 0
    """Seed of the positions of the training windows in longer segments."""
    held_out_fold: str = ''
    """Fold whose training lines validate instead of training, for cross-validation."""
    title: str = ''
    """Name of the data set, for the model card; empty: that of the file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.heads or set(self.heads) & {*_NEEDED, _NAME, _FOLD, *registered_types()}:
            raise InvalidSettingError(
                'manifest.heads', self.heads, 'one or more names, none of which is another column')


@dataclass(frozen=True)
class _Line:
    number: int
    split: str
    name: str
    start_s: float
    stop_s: float
    fold: str
    classes: Mapping[str, str]
    sources: Mapping[Modality, Source]


def open_splits(settings: ManifestSettings, spec: ClipSpec) -> Splits:
    """
    Open the data set that a manifest describes.

    Without validation lines the test split is the validation split too, and vice versa.

    :raises DataError: naming the line and the column that is wrong. `karmma data check`
        checks the files that it names.
    """
    path = Path(settings.file)
    if not settings.file:
        raise DataError('(nowhere)', 'there is no manifest', 'name one with manifest.file')
    lines = _Manifest(path, settings, spec).lines()
    held_out = [line for line in lines if line.split != 'train']
    if not held_out or len(held_out) == len(lines):
        raise DataError(path, f'no line is of split {"train" if held_out else "test"}',
                        'training and scoring need one each')
    vocabulary = _read_classes(Path(settings.classes), settings) if settings.classes else \
        _collect_classes(path, lines, settings)
    if settings.held_out_fold:
        lines = _hold_out(path, lines, settings.held_out_fold)
    by_split = {split: [line for line in lines if line.split == split] for split in SPLITS}
    clips = {
        split: SegmentDataset([_segment(path, line, vocabulary) for line in chosen], spec,
                            settings.seed)
        for split, chosen in by_split.items() if chosen
    }
    for split, each in clips.items():
        if not len(each):
            raise DataError(path, f'no line of split {split} names a recording',
                            'fill in the column of a sensor')
    return Splits(
        settings.title or path.stem, spec, vocabulary, train=clips['train'],
        validation=clips['validation' if 'validation' in clips else 'test'],
        test=clips['test' if 'test' in clips else 'validation'],
        folds=_folds(path, by_split['train']))


class _Manifest:
    """Reader of one file; equal paths give the same source."""

    def __init__(self, path: Path, settings: ManifestSettings, spec: ClipSpec) -> None:
        self.path, self.settings = path, settings
        self.options = SourceOptions(
            clip=spec, **{f.name: getattr(settings, f.name) for f in fields(SourceSettings)})
        self._opened: dict[tuple[Modality, str], Source] = {}

    def lines(self) -> list[_Line]:
        table = read_csv(self.path)
        columns = self._columns(table.header)
        return [self._line(number, columns, cells) for number, cells in table.rows]

    def _columns(self, header: Sequence[str]) -> list[str]:
        """Return the columns in the spelling of the settings; case does not matter."""
        named = (*_NEEDED, _NAME, _FOLD, *self.settings.heads)
        known = {name.casefold(): name for name in named}
        columns = []
        for name in header:
            lower = name.casefold()
            other = lower if is_modality(lower) else name
            columns.append(name if name in named else known.get(lower, other))
        self._check_columns(columns, named)
        return columns

    def _check_columns(self, columns: Sequence[str], named: Sequence[str]) -> None:
        listing = ', '.join([*named, *registered_types()])
        remedy = (f'expected columns are {listing}, or one of several of a type, as rgb_wrist; '
                  'manifest.heads names the heads')
        for column in columns:
            unknown = column not in named and not is_modality(column)
            if unknown or columns.count(column) > 1:
                problem = 'unknown' if unknown else 'there twice'
                raise DataError(
                    self.path, f'line 1: the column {column!r} is {problem}', remedy)
        for column in (*_NEEDED, *self.settings.heads):
            if column not in columns:
                raise DataError(self.path, f'line 1: the column {column!r} is missing', remedy)
        self.modalities = in_order(Modality(name) for name in columns if name not in named)
        if not self.modalities:
            raise DataError(self.path, 'line 1: no sensor has a column',
                            f'add at least one of {", ".join(registered_types())}')

    def _line(self, number: int, columns: Sequence[str], cells: Sequence[str]) -> _Line:
        if len(cells) != len(columns):
            count = 'more' if len(cells) > len(columns) else 'fewer'
            raise DataError(
                self.path, f'line {number}: it has {count} cells than there are columns',
                'correct it')
        row = dict(zip(columns, cells))
        if row['split'] not in SPLITS:
            raise self._wrong(number, 'split', row['split'], ', '.join(SPLITS))
        start, stop = (self._seconds(number, column, row[column]) for column in ('start', 'stop'))
        if stop <= start:
            raise self._wrong(number, 'stop', row['stop'], f'later than start, {row["start"]}')
        for head in self.settings.heads:
            if not row[head]:
                raise self._wrong(number, head, row[head], 'the name of a class')
        return _Line(
            number, row['split'], row.get(_NAME) or f'line {number}', start, stop,
            row.get(_FOLD, ''), {head: row[head] for head in self.settings.heads},
            self._sources(number, row))

    def _seconds(self, number: int, column: str, text: str) -> float:
        try:
            seconds = float(parse_time(text))
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise self._wrong(number, column, text, 'seconds from 0 on, or HH:MM:SS.cc')
        return seconds

    def _sources(self, number: int, row: Mapping[str, str]) -> dict[Modality, Source]:
        return {modality: self._source(number, modality, row)
                for modality in self.modalities if row[modality]}

    def _source(self, number: int, modality: Modality, row: Mapping[str, str]) -> Source:
        text, own = row[modality], modality_type(modality)
        if own.derived_from and text == COMPUTED:
            camera = own.source(self.options.clip)
            if camera is None or not row.get(camera):
                raise self._wrong(number, modality, text,
                                  f'a folder where the cell of {camera} is empty')
            return own.computed_source(self._source(number, camera, row))
        path = self.path.parent / text
        if is_url(text) and not path.exists():
            raise self._wrong(number, modality, text, 'a local file or folder',
                              'URLs are not fetched: download it')
        if (modality, text) not in self._opened:
            try:
                self._opened[modality, text] = own.open_source(path, self.options)
            except DataError as error:
                raise DataError(self.path, f'line {number}: {modality} is {text!r}; '
                                f'{error.problem}', error.remedy) from error
        return self._opened[modality, text]

    def _wrong(
        self, number: int, column: str, got: str, allowed: str, remedy: str = 'correct it',
    ) -> DataError:
        return DataError(
            self.path, f'line {number}: {column} is {got!r}; expected {allowed}', remedy)


def _hold_out(path: Path, lines: Sequence[_Line], fold: str) -> list[_Line]:
    """Return the lines with one fold of the training lines as the validation lines."""
    folds = {line.fold for line in lines if line.split == 'train'}
    if fold not in folds or len(folds) == 1:
        raise DataError(
            path, f'manifest.held_out_fold is {fold!r}; expected one of several folds of training '
            f'lines, here {", ".join(sorted(folds - {""})) or "none"}',
            'name the fold of each training line in a column fold')
    return [
        replace(line, split='validation') if line.split == 'train' and line.fold == fold else line
        for line in lines if line.split != 'validation']


def _folds(path: Path, lines: Sequence[_Line]) -> tuple[str, ...]:
    """Return the fold of each training line that is a clip; every line has one, or none."""
    clips = [line for line in lines if line.sources]
    for line in clips:
        if bool(line.fold) != bool(clips[0].fold):
            empty = clips[0] if line.fold else line
            raise DataError(path, f'line {empty.number}: fold is empty, though other training '
                            'lines have one', 'name its fold')
    return tuple(line.fold for line in clips if line.fold)


def _read_classes(path: Path, settings: ManifestSettings) -> Vocabulary:
    try:
        heads = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise DataError(path, error.strerror or str(error), 'check manifest.classes') from error
    except ValueError as error:
        raise DataError(path, f'it is no JSON ({error})', _CLASSES_FORMAT) from error
    if not isinstance(heads, dict) or set(heads) != set(settings.heads):
        raise DataError(path, f'its heads are not {", ".join(settings.heads)}', _CLASSES_FORMAT)
    for head, names in heads.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(path, f'{head} is no list of names', _CLASSES_FORMAT)
        if not names or len(set(names)) < len(names):
            raise DataError(path, f'{head} is empty or has a name twice', _CLASSES_FORMAT)
    return Vocabulary({head: tuple(heads[head]) for head in settings.heads}, settings.background)


def _collect_classes(
    path: Path, lines: Sequence[_Line], settings: ManifestSettings,
) -> Vocabulary:
    train = [line for line in lines if line.split == 'train']
    return Vocabulary({
        head: tuple(sorted({line.classes[head] for line in train})) for head in settings.heads},
        settings.background)


def _segment(path: Path, line: _Line, vocabulary: Vocabulary) -> LabelledSegment:
    labels = {}
    for head, name in line.classes.items():
        names = vocabulary.heads[head]
        if name not in names:
            raise DataError(
                path, f'line {line.number}: {head} is {name!r}, which is no class: no training '
                'line and no file of classes has it',
                'correct it, or list every class with manifest.classes')
        labels[head] = names.index(name)
    return LabelledSegment(line.name, line.start_s, line.stop_s, labels, line.sources)
