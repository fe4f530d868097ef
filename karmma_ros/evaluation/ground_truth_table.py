"""
Tables of ground truth: one row an action, with its start, its stop and its classes.

Columns are found by their names; Epic-Kitchens' own tables are read as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
import re

from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.media.csv_table import parse_time, read_csv
from karmma_ros.prediction import NOUN, VERB, Vocabulary

UNKNOWN = -1
"""The class id of what the model has no name for, or the truth does not mention."""
_NUMBER = re.compile(r'\d{1,6}(\.0+)?', re.ASCII)
_MOST_SLIPS = 0.1
"""Above this fraction of contradictions the numbers are those of another vocabulary."""


class ClassNames:
    """Find classes by name, by a name that differs in spelling only, or by id."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._exact = {name: i for i, name in enumerate(names)}
        spelt: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            spelt.setdefault(_spelling(name), []).append(i)
        self._spelt = {key: ids[0] for key, ids in spelt.items() if len(ids) == 1}

    def __call__(self, text: str) -> tuple[str, int]:
        """Return the name and id in a truth."""
        class_id = self.named(text)
        if class_id == UNKNOWN and self.is_number(text):
            number = int(float(text))
            class_id = number if number < len(self._names) else UNKNOWN
        return (text, UNKNOWN) if class_id == UNKNOWN else (self._names[class_id], class_id)

    def __len__(self) -> int:
        return len(self._names)

    def named(self, text: str) -> int:
        """Return the id of the class of this name."""
        return self._exact.get(text, self._spelt.get(_spelling(text), UNKNOWN))

    def is_number(self, text: str) -> bool:
        """Whether a text is a class id and not a name."""
        return self.named(text) == UNKNOWN and _NUMBER.fullmatch(text) is not None

    def split(self, cells: Sequence[str]) -> tuple[str, str]:
        """Return the name and the number among the cells of a row; '' where there is none."""
        words = [cell for cell in cells if cell and not self.is_number(cell)]
        name = next((word for word in words if self.named(word) != UNKNOWN), '')
        number = next((cell for cell in cells if self.is_number(cell)), '')
        return name or next(iter(words), ''), number


class Labels:
    """
    The labels of one head: of a name and a number in one row, the name decides.

    A number counts where its row has no name, or one that is no class of the model, unless the
    numbers are those of another vocabulary.
    """

    def __init__(
        self, pairs: Sequence[tuple[str, str]], classes: ClassNames, head: str,
        names_only: bool = False,
    ) -> None:
        """
        Compare the rows.

        :param pairs: name and number of each row, '' where it has none.
        :param names_only: take no number: those of the rows belong to another vocabulary.
        """
        self._classes, self._head = classes, head
        self._pairs = pairs
        both = [(name, number) for name, number in pairs if name and number]
        self._compared = [each for each in both if classes.named(each[0]) != UNKNOWN]
        self._wrong = [each for each in self._compared
                       if classes.named(each[0]) != int(float(each[1]))]
        self._is_unchecked = bool(both) and not self._compared
        self._names_only = names_only
        self._is_foreign = len(self._wrong) > _MOST_SLIPS * len(self._compared)

    def texts(self) -> list[str]:
        """Return what stands for the class of each row."""
        return [self._text(name, number) for name, number in self._pairs]

    def remarks(self, source: str, is_trusted: bool = False) -> Iterator[str]:
        """
        Describe contradictions between names and numbers.

        :param is_trusted: the numbers are known to be those of the model's vocabulary.
        """
        if self._wrong:
            name, number = self._wrong[0]
            known, i = self._classes(number)
            theirs = f'is {known!r}' if i != UNKNOWN else 'does not exist'
            use = ('no number is used: they are those of another vocabulary' if self._is_foreign
                   else 'a number is used only where the name is no class of the model')
            yield (f'{source}: {len(self._wrong):,} of {len(self._compared):,} numbers of '
                   f'{self._head} contradict the names beside them, the first: {name!r} has '
                   f'number {number}, which in the model {theirs}; the names are used, {use}')
        elif self._is_unchecked and not self._names_only and not is_trusted:
            yield (f'{source}: no name of {self._head} is a class of the model: the numbers '
                   'beside them are used, unchecked')
        beyond = [number for name, number in self._pairs
                  if number and not name and int(float(number)) >= len(self._classes)]
        if beyond:
            yield (f'{source}: {len(beyond):,} numbers of {self._head} are beyond the '
                   f'{len(self._classes)} classes of the model, the first: {beyond[0]}; if they '
                   'are those of another vocabulary, the others are wrong too: give names')

    def _text(self, name: str, number: str) -> str:
        is_usable = number and not self._is_foreign and not self._names_only
        if not name:
            return number if is_usable or not number else f'number {number}'
        if self._classes.named(name) != UNKNOWN or not is_usable:
            return name
        return number if self._classes(number)[1] != UNKNOWN else name


def _spelling(name: str) -> str:
    return re.sub(r'[\s_-]+', '-', name.strip().casefold())


_START = ('start_timestamp', 'start_ns', 'start', 'start_s', 'start_sec', 'start_seconds',
          'start_time', 'begin', 'from')
_STOP = ('stop_timestamp', 'end_timestamp', 'stop_ns', 'end_ns', 'stop', 'end', 'stop_s', 'end_s',
         'stop_sec', 'end_sec', 'stop_seconds', 'end_seconds', 'stop_time', 'end_time', 'to')
_RECORDING = ('video_id', 'bag', 'recording', 'video')
_OF_ONE_HEAD = ('label', 'class', 'action')
_EPIC = {'video_id', 'verb_class', 'noun_class'}
_EPIC_EDITIONS = {'narration_id': ('100', {'verb': 97, 'noun': 300}),
                  'uid': ('55', {'verb': 125, 'noun': 352})}
"""Column of an edition of EPIC-KITCHENS → its name and the sizes of its vocabulary."""
_REMEDY = 'name the columns start, stop, verb, noun; docs/bags.md shows one'


@dataclass(frozen=True)
class Row:
    """One row, read but not yet compared with bag and vocabulary."""

    number: int
    """Line of the file, the header is 1."""
    start: int
    """Nanoseconds, from the start of the recording or of the clock."""
    stop: int
    labels: dict[str, str]
    """
    Head → class name or id as written; '' where the table has none.

    Of a table with `parts`, its words for verb and noun.
    """
    recording: str
    """The recording it belongs to; '' where the table has none."""


@dataclass(frozen=True)
class Table:
    """The rows of a file."""

    rows: tuple[Row, ...]
    broken: tuple[str, ...]
    """A sentence for every row that cannot be used."""
    from_start: bool
    """Whether its times are timecodes, which count from the start of the recording."""
    remarks: tuple[str, ...] = ()
    parts: bool = False
    """Whether no head of the model has a column, and the labels are those of verb and noun."""


def read_table(path: Path, vocabulary: Vocabulary) -> Table:
    """
    Read a CSV file with the columns start, stop and one for each head of the vocabulary.

    Where no head has one, columns `verb` and `noun` are read, as words.

    :raises InvalidSettingError: when it cannot be read at all or a column is missing.
    """
    header, lines = _lines(path)
    start, stop = _column(header, 'start', _START, path), _column(header, 'stop', _STOP, path)
    columns = _label_columns(header, vocabulary)
    parts = not columns
    if parts:
        columns = {part: [i] for part, i in _part_columns(header, vocabulary, path).items()}
    recording = next((header.index(name) for name in _RECORDING if name in header), None)
    classes = {head: ClassNames(vocabulary.heads.get(head, ())) for head in columns}
    times: list[tuple[int, int, int, str]] = []
    pairs: dict[str, list[tuple[str, str]]] = {head: [] for head in columns}
    broken: list[str] = []
    clocks = 0
    for number, cells in lines:
        try:
            begin, end = (_time_ns(cells[i], header[i]) for i in (start, stop))
        except ValueError as error:
            broken.append(f'row {number}: {error}')
            continue
        clocks += any(':' in cells[i] for i in (start, stop))
        times.append((
            number, begin, end, cells[recording].strip() if recording is not None else ''))
        for head, indices in columns.items():
            written = [cells[i].strip() for i in indices]
            pairs[head].append((written[0], '') if parts else classes[head].split(written))
    texts, remarks = _labels(pairs, classes, header, vocabulary, path)
    rows = tuple(Row(*each[:3], {head: texts[head][i] for head in columns}, each[3])
                 for i, each in enumerate(times))
    return Table(rows, tuple(broken), bool(rows) and clocks == len(rows),
                 () if parts else remarks, parts)


def _lines(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the header, in small letters, and the filled rows with their line numbers."""
    try:
        table = read_csv(path)
    except DataError as error:
        raise InvalidSettingError(
            '--ground-truth',
            str(path),
            f'a CSV file that can be read ({error.problem}), or the name '
            'of a topic in the bag that starts with /',
            error.remedy,
        ) from None
    if not table.header:
        raise InvalidSettingError('--ground-truth', str(path), 'a table with a header', _REMEDY)
    header = [name.casefold() for name in table.header]
    filled = ((n, row + [''] * (len(header) - len(row))) for n, row in table.rows)
    return header, filled


def _column(header: Sequence[str], what: str, names: Sequence[str], path: Path) -> int:
    for name in names:
        if name in header:
            return header.index(name)
    raise InvalidSettingError(
        f'columns of {path}', ', '.join(header), f'ones with {what} or {names[0]}', _REMEDY)


def _label_columns(
    header: Sequence[str], vocabulary: Vocabulary,
) -> dict[str, list[int]]:
    """Return head → its columns with names and numbers, empty if no head has one."""
    columns: dict[str, list[int]] = {}
    for head in vocabulary.heads:
        key = head.casefold()
        names = [f'{key}_class', f'{key}_id', key, f'{key}_name', f'{key}_label']
        if len(vocabulary.heads) == 1:
            names += _OF_ONE_HEAD
        indices = [header.index(name) for name in names if name in header]
        if indices:
            columns[head] = indices
    return columns


def _labels(
    pairs: Mapping[str, Sequence[tuple[str, str]]], classes: Mapping[str, ClassNames],
    header: Sequence[str], vocabulary: Vocabulary, path: Path,
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Return head → the label of each row, and remarks on the choice."""
    sizes = vocabulary.sizes
    edition, theirs = next((own for column, own in _EPIC_EDITIONS.items()
                            if _EPIC | {column} <= set(header)), ('', {}))
    is_theirs = bool(edition) and all(sizes.get(head) == size for head, size in theirs.items())
    foreign = bool(edition) and not is_theirs
    remarks = [f'{path.name} has no column {head}: that head is not scored'
               for head in vocabulary.heads if head not in pairs]
    nameless = [head for head, each in pairs.items() if not any(name for name, _ in each)]
    if foreign and any(pairs.values()) and len(nameless) == len(pairs):
        raise InvalidSettingError(
            f'columns of {path}', ', '.join(header), 'ones with the names of '
            f'{" and ".join(pairs)}', f'the numbers are those of EPIC-KITCHENS-{edition}, not of '
            'this model: add the names')
    if foreign:
        remarks.append(
            f'{path.name} numbers the classes of EPIC-KITCHENS-{edition}, which are not those of '
            'this model: the words in its columns verb and noun are used')
        remarks += [f'{path.name} has no name of any {head}: its numbers are not used'
                    for head in nameless]
    labels = {head: Labels(each, classes[head], head, names_only=foreign)
              for head, each in pairs.items()}
    for each in labels.values():
        remarks += () if foreign else each.remarks(path.name, is_trusted=is_theirs)
    return {head: each.texts() for head, each in labels.items()}, tuple(remarks)


def _part_columns(
    header: Sequence[str], vocabulary: Vocabulary, path: Path
) -> dict[str, int]:
    """
    Return the columns with the words for verb and noun, for heads of other names.

    :raises InvalidSettingError: when there is none.
    """
    columns = {part: header.index(name) for part in (NOUN, VERB)
               for name in (f'{part}_label', f'{part}_name', part) if name in header}
    if VERB not in columns or VERB in vocabulary.heads:
        one = next((name for name in _OF_ONE_HEAD if name in header), None)
        problem = f' (its column {one} is for a model with one head)' if one else ''
        raise InvalidSettingError(
            f'columns of {path}', ', '.join(header),
            f'ones with {" or ".join(vocabulary.heads)}, the heads of the model{problem}',
            f'name the columns start, stop, {", ".join(vocabulary.heads)}; docs/bags.md shows one')
    return columns


def _time_ns(text: str, column: str) -> int:
    """
    Parse seconds, a timecode or, in a column `…_ns`, nanoseconds.

    :raises ValueError: for any other text.
    """
    try:
        value = parse_time(text)
    except ValueError as error:
        raise ValueError(str(error).replace('a time', column, 1)) from None
    if abs(value) > 10 ** 19:
        raise ValueError(f'{column} is {text[:40]!r}; expected a time before the year 2262')
    if ':' not in text:
        if column.endswith('_ns') or abs(value) > 10 ** 17:
            return int(value)
        if abs(value) > 10 ** 11:  # since 1970 in milli- or microseconds
            value /= 1_000 if abs(value) < 10 ** 14 else 1_000_000
    return int((value * 1_000_000_000).to_integral_value())
