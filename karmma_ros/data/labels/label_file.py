"""
The label file: a CSV table with one row for each action in a recording.

Its columns are `recording, start, stop`, one for each head (`verb` and `noun`, or `action`), and
optionally `split` and groups of recordings such as `person`. It is read for training and for
scoring alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import csv
from dataclasses import dataclass, field, replace
import io
from os.path import splitext
from pathlib import Path
import re
from urllib.parse import unquote

from karmma_ros.errors import count_text, DataError
from karmma_ros.media.csv_table import parse_time, read_csv
from karmma_ros.media.video_audio import AUDIO_SUFFIXES
from karmma_ros.media.video_file import VIDEO_SUFFIXES
from karmma_ros.prediction import NOUN, VERB
from karmma_ros.storage import write_atomically

START, STOP, RECORDING, SPLIT, ACTION = 'start', 'stop', 'recording', 'split', 'action'
_NAMES = {
    RECORDING: (RECORDING, 'bag', 'video', 'video_id'),
    START: (START, 'start_s', 'start_timestamp', 'start_time', 'begin'),
    STOP: (STOP, 'end', 'stop_s', 'end_s', 'stop_timestamp', 'stop_time', 'end_time'),
}
"""Column → names that are read for it, the first of which is written."""
_COMPRESSED = ('.zstd', '.zst')
_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES | {
    '.mcap', '.db3', '.bag', '.csv', '.tsv', '.txt', '.eaf', '.boris', '.json', '.xml'}
"""What the names of bags, videos, audio files and label files end with."""
NOTHING = 'nothing'
"""Class that stands for no action unless another one is named."""
_UPLOAD = re.compile(r'^[0-9a-f]{8}-')
LATE_S = 0.5
"""By how much a label may end after its bag, whose last message is before the end of an action."""
HEADS = (VERB, NOUN, ACTION)
_FORMAT = f'name the columns {RECORDING}, {START}, {STOP} and {VERB}, {NOUN} or {ACTION}'


@dataclass(frozen=True)
class ActionLabel:
    """One labelled action."""

    recording: str
    """Name of the recording without its folder and suffix; empty where the file names none."""
    start_s: float
    stop_s: float
    """Seconds from the start of the recording."""
    classes: Mapping[str, str]
    """Head → class name."""
    split: str = ''
    groups: Mapping[str, str] = field(default_factory=dict)
    """Further columns, such as person or place."""

    @property
    def text(self) -> str:
        """Return the class names, joined by /."""
        return '/'.join(self.classes.values())


@dataclass(frozen=True)
class LabelTable:
    """Labels of one or more recordings, in the order of the file."""

    labels: tuple[ActionLabel, ...]
    problems: tuple[str, ...] = ()
    """A sentence for each row or annotation that was not used."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the heads that have labels: verb, noun, action and others by name."""
        own = {head for label in self.labels for head in label.classes}
        return (*(h for h in HEADS if h in own), *sorted(own - set(HEADS)))


def recording_name(path: str) -> str:
    """
    Return the name by which labels refer to a recording: without its folder and suffix.

    Paths of other systems are read as well. A suffix is that of a bag, compressed or not, a video,
    an audio file or a label file: a date such as `2026.11.28` has none.
    """
    name = path.replace('\\', '/').rstrip('/').rpartition('/')[2]
    stem, suffix = splitext(name)
    if suffix.casefold() in _COMPRESSED:
        stem, suffix = splitext(stem)
    return stem if suffix.casefold() in _SUFFIXES else name


def media_recording(source: str, is_url: bool = False) -> str:
    """
    Return the recording of a media file.

    Label Studio adds eight digits to the names of uploads, and names local files in a query.

    :param source: path or URL; on the web, or of Label Studio, also one with a query.
    :param is_url: whether special characters are encoded although it has no scheme.
    """
    path, is_served = source, source.startswith(('http://', 'https://', '/data/'))
    if is_served:
        path, _, query = source.partition('#')[0].partition('?')
        local = next((x[2:] for x in query.split('&') if x.startswith('d=')), '')
        path = local if local and path.rstrip('/').endswith('/data/local-files') else path
    decoded = unquote(path) if is_url or is_served or '://' in path else path
    if '/data/upload/' in path:
        folder, _, file = decoded.rpartition('/')
        decoded = f'{folder}/{_UPLOAD.sub("", file)}'
    return recording_name(decoded)


def checked(label: ActionLabel, where: str) -> ActionLabel | str:
    """Return a label, or a sentence on why it cannot be used; `where` names it."""
    if not label.classes or not any(label.classes.values()):
        return f'{where}: got no class; expected {VERB} and {NOUN}, or {ACTION}'
    if label.start_s < 0:
        return f'{where}: got a start of {label.start_s:g} s; expected 0 s or more'
    if not label.stop_s > label.start_s:
        return (f'{where}: got {label.start_s:g} to {label.stop_s:g} s; expected a stop after the '
                'start')
    return label


def split_table(results: Iterable[ActionLabel | str]) -> LabelTable:
    """Return the labels, and the sentences on what is none, of results of `checked`."""
    every = list(results)
    return LabelTable(tuple(each for each in every if isinstance(each, ActionLabel)),
                      tuple(each for each in every if isinstance(each, str)))


@dataclass(frozen=True)
class LabelColumns:
    """Which columns of a table a label file has."""

    header: tuple[str, ...]
    """Names of the columns, in lower case."""
    names: Mapping[str, str]
    """`recording`, `start` and `stop` → name in the header; empty where there is no recording."""
    heads: tuple[str, ...]

    @classmethod
    def of(cls, path: Path, header: Sequence[str]) -> LabelColumns:
        """
        Assign the columns of a file.

        :raises DataError: when it lacks one.
        """
        header = tuple(name.casefold() for name in header)
        twice = [name for name in dict.fromkeys(header) if name and header.count(name) > 1]
        if twice:
            raise DataError(path, f'it has {header.count(twice[0])} columns {twice[0]}; expected '
                            'each name once', 'rename or remove one')
        columns = {}
        for column, names in _NAMES.items():
            columns[column] = next((name for name in names if name in header), '')
            if not columns[column] and column != RECORDING:
                raise DataError(path, f'its columns are {", ".join(header) or "none"}; expected '
                                f'{" or ".join(names)} among them', _FORMAT)
        heads = tuple(head for head in HEADS if head in header)
        if not heads:
            raise DataError(path, f'its columns are {", ".join(header)}; expected {VERB} and '
                            f'{NOUN}, or {ACTION}', _FORMAT)
        return cls(header, columns, heads)

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the columns that are neither head nor split."""
        known = {*self.names.values(), SPLIT, *self.heads}
        return tuple(name for name in self.header if name and name not in known)

    @property
    def keys(self) -> tuple[str, ...]:
        """Return what stands for each column: its name, or a space and its index without one."""
        return tuple(name or f' {i}' for i, name in enumerate(self.header))

    def cells(self, row: Sequence[str]) -> dict[str, str]:
        """Return the cells of a row by `keys`; those that it lacks are empty."""
        return dict(zip(self.keys, [*row, *[''] * len(self.header)]))

    def recording(self, row: Sequence[str]) -> str:
        """Return the name of the recording of a row."""
        return recording_name(self.cells(row).get(self.names[RECORDING], ''))

    def label(self, row: Sequence[str], where: str) -> ActionLabel | str:
        """Return the label of a row, or a sentence on why it cannot be used."""
        if any(row[len(self.header):]):
            return (f'{where}: got {len(row)} cells; expected the {len(self.header)} of the '
                    'header: is there a decimal comma, or another separator, without quotes?')
        cells = self.cells(row)
        try:
            start_s, stop_s = (float(parse_time(cells[self.names[c]])) for c in (START, STOP))
        except ValueError as error:
            return f'{where}: {error}'
        return checked(ActionLabel(
            self.recording(row), start_s, stop_s,
            {head: cells[head] for head in self.heads if cells[head]},
            cells.get(SPLIT, ''), {each: cells[each] for each in self.groups}), where)


def read_label_file(path: Path) -> LabelTable:
    """
    Read a label file.

    Columns that are no head (all others than verb, noun and action) are groups.

    :raises DataError: when it cannot be read, or lacks a column.
    """
    table = read_csv(path)
    columns = LabelColumns.of(path, table.header)
    return split_table(columns.label(row, f'{path.name}: line {number}')
                       for number, row in table.rows)


def write_label_file(path: Path, labels: Sequence[ActionLabel]) -> None:
    """Write a label file, atomically: one that exists is complete."""
    write_atomically(path, label_text(labels))


def label_text(labels: Sequence[ActionLabel]) -> str:
    """Return the text of a label file."""
    heads = LabelTable(tuple(labels)).heads or (VERB, NOUN)
    splits = [SPLIT] if any(label.split for label in labels) else []
    groups = sorted({name for label in labels for name in label.groups})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([RECORDING, START, STOP, *heads, *splits, *groups])
    for label in labels:
        writer.writerow([
            label.recording, seconds(label.start_s), seconds(label.stop_s),
            *(label.classes.get(head, '') for head in heads),
            *([label.split] if splits else []), *(label.groups.get(g, '') for g in groups)])
    return text.getvalue()


def seconds(value: float) -> str:
    """Return a time with milliseconds, without trailing zeros."""
    return f'{value:.3f}'.rstrip('0').rstrip('.')


def background_of(labels: Sequence[ActionLabel], given: str = '') -> str:
    """Return the class that stands for no action: that given, else `nothing` if a label has it."""
    return given or (NOTHING if any(NOTHING in x.classes.values() for x in labels) else '')


def completed(
    labels: Sequence[ActionLabel], background: str,
) -> tuple[list[ActionLabel | None], str]:
    """
    Give every label a class of each head, which a label of the background has of all.

    :param background: class that stands for no action; empty: none does.
    :returns: the labels, None for one that lacks a head, and a note on these, empty without any.
    """
    heads = LabelTable(tuple(labels)).heads
    filled = [replace(x, classes={head: x.classes.get(head) or background for head in heads})
              if background and background in x.classes.values() else x for x in labels]
    complete = [x if set(x.classes) == set(heads) else None for x in filled]
    missing = complete.count(None)
    return complete, (f'{count_text(missing, "label", "are")} left out, without one of '
                      f'{", ".join(heads)}' if missing else '')


def read_classes_map(path: Path) -> dict[str, dict[str, str]]:
    """
    Read a table that renames classes: column `label` and one for each head.

    A row whose heads are all empty drops its label.

    :returns: text of a label → head → class name.
    :raises DataError: when it cannot be read, lacks the column `label` or every head, or has
        another column.
    """
    table = read_csv(path)
    header = [name.casefold() for name in table.header]
    heads = [name for name in header if name and name != 'label']
    if 'label' not in header or not heads or not set(heads) <= set(HEADS):
        raise DataError(path, f'its columns are {", ".join(header) or "none"}; expected label and '
                        f'{VERB}, {NOUN} or {ACTION}, and no others',
                        'give it a header line: label,verb,noun')
    rows = (dict(zip(header, [*cells, *[''] * len(header)])) for _, cells in table.rows)
    return {row['label'].casefold(): {head: row[head] for head in heads if row[head]}
            for row in rows}


def with_classes(
    table: LabelTable, classes: Mapping[str, Mapping[str, str]],
) -> LabelTable:
    """Rename the classes by `read_classes_map`; what the map does not name stays as it is."""
    renamed, dropped = [], 0
    for label in table.labels:
        new = classes.get(label.text.casefold(), label.classes)
        dropped += not new
        if new:
            renamed.append(replace(label, classes=new))
    note = f'{count_text(dropped, "label", "are")} dropped by the map of classes'
    return LabelTable(tuple(renamed), table.problems + ((note,) if dropped else ()))
