"""
The label file while it is edited: one recording is replaced at a time, everything else is kept.

Rows of other recordings, rows that cannot be read and columns that are not known stay as they are.
A revision of the rows of a recording shows whether somebody else has changed them meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import csv
from dataclasses import dataclass, field
import io
import json
from math import isfinite
from pathlib import Path
from threading import Lock
from typing import Any

from karmma_ros.data.labels.label_file import (
    ActionLabel,
    HEADS,
    LabelColumns,
    LATE_S,
    RECORDING,
    recording_name,
    seconds,
    START,
    STOP,
)
from karmma_ros.errors import DataError, InvalidSettingError, is_printable, KarmmaError, printable
from karmma_ros.media.csv_table import csv_rows, csv_separator, parse_time
from karmma_ros.prediction import NOUN, VERB
from karmma_ros.storage import file_lock, fingerprint, write_atomically

_LONGEST_NAME = 200
"""Characters of the name of a class."""
_MOST_LABELS = 100_000
_EQUAL_S = 0.0005
"""Times that differ by less are written alike."""


class ConflictError(KarmmaError):
    """The labels of a recording were changed by somebody else since they were read."""


@dataclass(frozen=True)
class EditedLabel:
    """One label in the page."""

    start_s: float
    stop_s: float
    classes: Mapping[str, str]
    """Head → class name."""
    cells: Mapping[str, str] | None = None
    """Column → text of its row when it was read; None for a new one."""

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {'start': self.start_s, 'stop': self.stop_s, 'classes': dict(self.classes),
                'cells': None if self.cells is None else dict(self.cells)}

    @classmethod
    def parse(cls, given: Any, heads: Sequence[str]) -> EditedLabel:
        """
        Check a label of a request.

        :raises InvalidSettingError: when it cannot be used.
        """
        try:
            cells = given.get('cells')
            label = cls(
                float(given['start']), float(given['stop']),
                {head: str(name).strip() for head, name in given['classes'].items()
                 if str(name).strip()},
                None if cells is None else {str(name): str(x) for name, x in cells.items()})
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InvalidSettingError('label', json.dumps(given)[:200],
                                      'an object with start, stop and classes') from None
        if not 0 <= label.start_s < label.stop_s < 1e9 or not isfinite(label.stop_s):
            raise InvalidSettingError('label', f'{label.start_s:g} to {label.stop_s:g} s',
                                      'a stop after its start, and 0 s or more')
        if not all(isinstance(name, str) for name in given['classes'].values()):
            raise InvalidSettingError('classes', given['classes'], 'names')
        if not label.classes or not set(label.classes) <= set(heads):
            raise InvalidSettingError('classes', dict(label.classes),
                                      f'a class of {" or ".join(heads)}')
        for head, name in label.classes.items():
            if cells is not None and label.cells and label.cells.get(head, '').strip() == name:
                continue  # it was in the file, and stays as it is
            if len(name) > _LONGEST_NAME or not is_printable(name):
                raise InvalidSettingError(
                    f'class of {label.start_s:g} to {label.stop_s:g} s', printable(name),
                    f'at most {_LONGEST_NAME} printable characters')
        return label

    def ends_as_read(self, stop_column: str) -> bool:
        """Return whether its stop is that of the row that it was read from."""
        return self.cells is not None and _is_at(self.cells.get(stop_column, ''), self.stop_s)


@dataclass(frozen=True)
class RecordingLabels:
    """The labels of one recording as they stand in the file."""

    labels: tuple[EditedLabel, ...]
    revision: str
    """Changes with the rows of the recording."""
    problems: tuple[str, ...] = ()
    """A sentence for each row that is no label; it is kept."""

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {'labels': [label.to_dict() for label in self.labels],
                'revision': self.revision, 'problems': list(self.problems)}


@dataclass
class _Table:
    """The file as it is: every cell, and what separates them."""

    columns: LabelColumns
    header: list[str]
    rows: list[tuple[int, list[str]]]
    separator: str = ','
    _of: dict[str, list[int]] = field(default_factory=dict)
    """Recording → indices of its rows."""

    def __post_init__(self) -> None:
        for index, (_, row) in enumerate(self.rows):
            self._of.setdefault(self.columns.recording(row), []).append(index)

    def indices(self, recording: str) -> list[int]:
        return self._of.get(recording, [])

    def text(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self.separator, lineterminator='\n')
        writer.writerow(self.header)
        writer.writerows(row for _, row in self.rows)
        return text.getvalue()


class LabelStore:
    """
    A label file, of which one recording is read and written at a time.

    :param heads: of a file that does not exist yet.
    """

    def __init__(self, path: Path, heads: Sequence[str] = (VERB, NOUN)) -> None:
        """
        Read the file, if it exists.

        :raises DataError: when it cannot be read or names no recordings.
        :raises InvalidSettingError: for heads that a label file does not have.
        """
        if not heads or not set(heads) <= set(HEADS):
            raise InvalidSettingError('--heads', ' '.join(heads), ' or '.join(HEADS))
        self.path, self._new_heads = path, tuple(heads)
        self._lock = Lock()
        self._table()

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the heads of the labels."""
        return self._table().columns.heads

    def check_ends(self, labels: Sequence[EditedLabel], length_s: float) -> None:
        """
        Check that what was edited ends within its recording.

        :raises InvalidSettingError: for a label that ends later, unless it does in the file.
        """
        column = self._table().columns.names[STOP]
        for label in labels:
            if label.stop_s > length_s + LATE_S and not label.ends_as_read(column):
                raise InvalidSettingError(
                    'stop', f'{label.stop_s:g} s', f'up to {length_s:.1f} s, where the recording '
                    'ends', f'of {"/".join(label.classes.values())} from {label.start_s:g} s')

    def labels(self) -> list[ActionLabel]:
        """Return every label of the file."""
        table = self._table()
        every = [table.columns.label(row, '') for _, row in table.rows]
        return [label for label in every if isinstance(label, ActionLabel)]

    def counts(self) -> dict[tuple[str, ...], Counter[str]]:
        """Return class → labels of each recording; a class is its names in order of the heads."""
        counts: dict[tuple[str, ...], Counter[str]] = {}
        heads = self.heads
        for label in self.labels():
            names = tuple(label.classes.get(head, '') for head in heads)
            counts.setdefault(names, Counter())[label.recording] += 1
        return counts

    def load(self, recording: str) -> RecordingLabels:
        """
        Return the labels of a recording.

        :raises DataError: when the file cannot be read.
        """
        return self._recording(self._table(), recording)

    def save(
        self, recording: str, revision: str, labels: Sequence[EditedLabel],
    ) -> RecordingLabels:
        """
        Replace the labels of a recording, atomically; everything else is kept.

        A new label takes from the other rows of its recording what they agree on, such as the
        split or the person.

        :param revision: of the labels that were edited.
        :raises ConflictError: when the file has another revision now.
        :raises OSError: when the file cannot be written; it is as before then.
        """
        if len(labels) > _MOST_LABELS:
            raise InvalidSettingError('labels', len(labels), f'at most {_MOST_LABELS:,}')
        with self._lock, file_lock(self.path.with_name(f'.{self.path.name}')):
            table = self._table()
            if self._recording(table, recording).revision != revision:
                raise ConflictError(
                    f'the labels of {recording} in {self.path.name} were changed elsewhere')
            _replace_rows(table, recording, labels)
            write_atomically(self.path.resolve(), table.text())
            return self._recording(self._table(), recording)

    def _table(self) -> _Table:
        if not self.path.exists():
            header = [RECORDING, START, STOP, *self._new_heads]
            return _Table(LabelColumns.of(self.path, header), header, [])
        rows = list(csv_rows(self.path))
        header = rows[0][1] if rows else [RECORDING, START, STOP, *self._new_heads]
        columns = LabelColumns.of(self.path, header)
        if not columns.names[RECORDING]:
            raise DataError(self.path, 'it has no column recording',
                            'add one with the name of the bag of each row')
        return _Table(columns, header, rows[1:], csv_separator(self.path) if rows else ',')

    def _recording(self, table: _Table, recording: str) -> RecordingLabels:
        labels, problems, cells = [], [], []
        for index in table.indices(recording):
            line, row = table.rows[index]
            cells.append(row)
            label = table.columns.label(row, f'{self.path.name}: line {line}')
            if isinstance(label, str):
                problems.append(label)
            else:
                labels.append(EditedLabel(
                    label.start_s, label.stop_s, label.classes, table.columns.cells(row)))
        revision = fingerprint({'header': table.header, 'rows': cells})
        return RecordingLabels(tuple(labels), revision, tuple(problems))


def _replace_rows(table: _Table, recording: str, labels: Sequence[EditedLabel]) -> None:
    """Put the rows of a recording where the first of them was, those that are no label first."""
    columns, indices = table.columns, table.indices(recording)
    before = [table.rows[i][1] for i in indices]
    first = indices[0] if indices else len(table.rows)
    agreed = _agreed(columns, before)
    kept = [row for row in before if isinstance(columns.label(row, ''), str)]
    edited = [_row(columns, recording, label, agreed) for label in sorted(
        labels, key=lambda each: (each.start_s, each.stop_s))]
    others = set(indices)
    rows = [each for i, each in enumerate(table.rows) if i < first]
    rows += [(0, row) for row in (*kept, *edited)]
    rows += [each for i, each in enumerate(table.rows) if i > first and i not in others]
    table.rows = rows


def _agreed(columns: LabelColumns, rows: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return the columns besides times and classes in which all rows have the same cell."""
    own = {columns.names[START], columns.names[STOP], *columns.heads, ''}
    each = [columns.cells(row) for row in rows]
    return {name: each[0][name] for name in columns.header
            if each and name not in own and len({cells[name] for cells in each}) == 1}


def _row(
    columns: LabelColumns, recording: str, label: EditedLabel, agreed: Mapping[str, str],
) -> list[str]:
    """Return the cells of a label; of one that was read only those that were edited change."""
    cells = dict(agreed if label.cells is None else label.cells)
    if recording_name(cells.get(columns.names[RECORDING], '')) != recording:
        cells[columns.names[RECORDING]] = recording
    for column, time_s in ((START, label.start_s), (STOP, label.stop_s)):
        if not _is_at(cells.get(columns.names[column], ''), time_s):
            cells[columns.names[column]] = seconds(time_s)
    cells.update({head: label.classes.get(head, '') for head in columns.heads})
    return [cells.get(key, '') for key in columns.keys]


def _is_at(text: str, time_s: float) -> bool:
    """Return whether a cell has a time already, as exactly as it would be written."""
    try:
        return abs(float(parse_time(text)) - time_s) < _EQUAL_S
    except ValueError:
        return False
