"""Class names from the files that data sets and published models come with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import csv
import io
from pathlib import Path

from karmma_ros.errors import first_line, InvalidSettingError
from karmma_ros.files import read_regular
from karmma_ros.model.untrusted_files import read_json
from karmma_ros.prediction import NOUN, VERB, Vocabulary

_MOST = 4 * 2**20
"""Bytes of a file."""
Pairs = Mapping[str, tuple[int, ...]]
"""Head → its class in each pair."""


def read_class_names(path: Path) -> tuple[str, ...]:
    """
    Return the names of classes by class id.

    Of JSON, a list, or a mapping between name and id, in either direction, as `labels.json` of
    Something-Something; of any other file, its lines.

    :raises InvalidSettingError: when it has none, or an id is missing or there twice.
    """
    try:
        if path.suffix == '.json':
            return _distinct(_by_id(read_json(path)))
        lines = _text(path).splitlines()
        return _distinct(tuple(line.strip() for line in lines if line.strip()))
    except (OSError, ValueError, TypeError) as error:
        raise _unusable(path, _reason(error)) from error


def read_pairs(path: Path, verbs: Path, nouns: Path) -> tuple[Vocabulary, Pairs]:
    """
    Return the classes of Epic-Kitchens, and those that each pair consists of.

    :param path: a pair in each line, as `take,plate`.
    :param verbs: EPIC_100_verb_classes.csv, with the columns `id` and `key`.
    :param nouns: EPIC_100_noun_classes.csv, likewise.
    :raises InvalidSettingError: for a line that is no pair of these.
    """
    names = {VERB: read_keys(verbs), NOUN: read_keys(nouns)}
    ids = {head: {name: i for i, name in enumerate(each)} for head, each in names.items()}
    pairs: dict[str, list[int]] = {head: [] for head in names}
    for number, line in enumerate(read_class_names(path), start=1):
        parts = [part.strip() for part in line.split(',')]
        for head, part in zip(names, parts):
            if len(parts) != len(names) or part not in ids[head]:
                raise _unusable(path, f'line {number}, {line!r}, is no verb and noun of '
                                f'{verbs.name} and {nouns.name}')
            pairs[head].append(ids[head][part])
    return Vocabulary(names), {head: tuple(each) for head, each in pairs.items()}


def read_keys(path: Path, id_column: str = 'id', name_column: str = 'key') -> tuple[str, ...]:
    """
    Return the names of classes by id, from a table such as those of Epic-Kitchens-100.

    :raises InvalidSettingError: for a file without the columns, or ids that miss.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(_text(path))))
        return _by_id({row[name_column]: row[id_column] for row in rows})
    except KeyError as error:
        raise _unusable(path, f'it has no column {error}, expected {id_column} and '
                        f'{name_column}') from error
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise _unusable(path, _reason(error)) from error


def _by_id(content: object) -> tuple[str, ...]:
    if isinstance(content, dict):
        if all(str(key).isdigit() for key in content):
            content = {name: key for key, name in content.items()}
        names = {int(i): str(name) for name, i in content.items()}
        if sorted(names) != list(range(len(content))):
            raise ValueError('its ids are not 0, 1, 2 …, each once')
        content = [names[i] for i in range(len(names))]
    if not isinstance(content, list) or not content:
        raise ValueError('it is no list of names, and no mapping between names and ids')
    return tuple(map(str, content))


def _text(path: Path) -> str:
    return read_regular(path, _MOST).decode('utf-8-sig')


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError('it has no names')
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f'it has {name!r} {count} times')
    return names


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else first_line(error)


def _unusable(path: Path, problem: str) -> InvalidSettingError:
    return InvalidSettingError('--classes', str(path), 'a file with the names of classes', problem)


def check_count(names: Sequence[object], path: Path, wanted: int) -> None:
    """
    Refuse a list of another length than the classifier has classes.

    :raises InvalidSettingError: with both.
    """
    if len(names) != wanted:
        raise InvalidSettingError(
            '--classes', str(path), f'{wanted} classes, as the weights have',
            f'it has {len(names)}')
