"""
The annotation files of EPIC-KITCHENS-100: CSV tables of segments and of classes.

Epic-Kitchens* trains on 90 % of the training segments and validates on 10 %. The authors' division
is not published. Ours depends on a seed and can be kept in a file (columns narration_id, split).
"""

from __future__ import annotations

from collections.abc import Sequence
import csv
from dataclasses import dataclass
from pathlib import Path
import re

from karmma_ros.errors import DataError
from karmma_ros.media.csv_table import parse_time
from karmma_ros.prediction import NOUN, VERB, Vocabulary
from karmma_ros.storage import write_atomically
import numpy as np

TRAIN, VALIDATION = 'EPIC_100_train.csv', 'EPIC_100_validation.csv'

CLASSES = {
    VERB: (('EPIC_100_verb_classes.csv',), 97),
    NOUN: (('EPIC_100_noun_classes.csv', 'EPIC_100_noun_classes_v2.csv'), 300),
}
"""
Head → its files, of which the first that exists is read, and the number of its classes.

The second file of nouns has five more, of VISOR, such as left hand, which no segment has.
"""

SOURCE = 'https://github.com/epic-kitchens/epic-kitchens-100-annotations'

_LABELS = {VERB: 'verb_class', NOUN: 'noun_class'}
_NEEDED = ('narration_id', 'video_id', 'start_timestamp', 'stop_timestamp', *_LABELS.values())
_REMEDY = f'fetch it again from {SOURCE}'
_TIMESTAMP = re.compile(r'\d+:[0-5]\d:[0-5]\d(?:\.\d+)?', re.ASCII)
_VIDEO = re.compile(r'P\d\d_(1?)\d\d', re.ASCII)


@dataclass(frozen=True)
class Narration:
    """One labelled segment, in seconds of its video."""

    narration_id: str
    video_id: str
    start_s: float
    stop_s: float
    verb: int
    noun: int


def read_annotations(path: Path) -> list[Narration]:
    """
    Read the segments of a split.

    The columns that are not used may be missing or null, as narration_timestamp is in 70 rows
    of the validation split.

    :raises DataError: naming the column, or the row and its value, that is wrong.
    """
    narrations: dict[str, Narration] = {}
    for number, row in enumerate(read_table(path, _NEEDED), 1):
        try:
            narration = _narration(row)
        except ValueError as error:
            raise DataError(path, f'row {number} ({row["narration_id"]}): {error}',
                            _REMEDY) from None
        if narration.narration_id in narrations:
            raise DataError(
                path, f'row {number}: narration_id {narration.narration_id!r} is there twice',
                _REMEDY)
        narrations[narration.narration_id] = narration
    return list(narrations.values())


def read_vocabulary(folder: Path) -> Vocabulary:
    """
    Read the names of the 97 verb and 300 noun classes.

    :raises DataError: when a file is missing or holds other ids than 0, 1, 2, ...
    """
    heads = {}
    for head, (names, count) in CLASSES.items():
        path = next((folder / name for name in names if (folder / name).is_file()),
                    folder / names[0])
        rows = read_table(path, ('id', 'key'))[:count]
        if [row['id'] for row in rows] != [str(i) for i in range(count)]:
            raise DataError(path, f'its {len(rows)} ids are not 0 to {count - 1} in this order',
                            'take that of EPIC-KITCHENS-100, not of another edition')
        heads[head] = tuple(row['key'] for row in rows)
        if len(set(heads[head])) < count:
            raise DataError(path, 'a key is there twice', _REMEDY)
    return Vocabulary(heads)


def prune(validation: Sequence[Narration], train: Sequence[Narration]) -> list[Narration]:
    """
    Leave out the segments whose noun never occurs in training.

    What counts is the main noun, noun_class: one of the four nouns (205, 240, 288, 295) does
    occur among all_noun_classes of a training row. 9,644 of 9,668 segments remain.
    """
    seen = {narration.noun for narration in train}
    return [narration for narration in validation if narration.noun in seen]


def frame_rate(video_id: str) -> int:
    """
    Return the frames a second of the released frames: 60 for PXX_YY, 50 for PXX_1YY.

    The videos were resampled to this rate, whatever that of the camera was.
    """
    return 50 if _is_extension(video_id) else 60


def flow_stride(video_id: str) -> int:
    """Return the frames for each released flow image: 2 for PXX_YY, 1 for PXX_1YY."""
    return 1 if _is_extension(video_id) else 2


def seconds(timestamp: str) -> float:
    """
    Read a timestamp HH:MM:SS.cc.

    :raises ValueError: when it is none.
    """
    if not _TIMESTAMP.fullmatch(timestamp):
        raise ValueError(f'a timestamp is {timestamp!r}; expected HH:MM:SS.cc')
    return float(parse_time(timestamp))


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """
    Read a CSV table that has some columns.

    :raises DataError: when there is no such table, a column is missing or a row is short.
    """
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file, skipinitialspace=True, restval='')
            names, rows = list(reader.fieldnames or ()), list(reader)
    except FileNotFoundError:
        raise DataError(path, 'there is no such file', f'fetch it from {SOURCE}') from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(path, f'it is no CSV table ({error})', _REMEDY) from error
    missing = [column for column in columns if column not in names]
    if set(_LABELS.values()) <= set(missing) and 'video_id' in names:
        raise DataError(
            path, 'it has no labels; those of the test split are not published',
            f'score on the pruned validation split instead ({VALIDATION})')
    if missing:
        raise DataError(path, f'it has no column {", ".join(missing)}; it has '
                        f'{", ".join(names) or "none"}', _REMEDY)
    return rows


def _is_extension(video_id: str) -> bool:
    match = _VIDEO.fullmatch(video_id)
    assert match is not None, video_id
    return match[1] == '1'


def _narration(row: dict[str, str]) -> Narration:
    video_id = row['video_id']
    if not _VIDEO.fullmatch(video_id):
        raise ValueError(f'video_id is {video_id!r}; expected PXX_YY or PXX_1YY')
    start, stop = seconds(row['start_timestamp']), seconds(row['stop_timestamp'])
    if stop < start:
        raise ValueError(f'it stops at {row["stop_timestamp"]}, before its start at '
                         f'{row["start_timestamp"]}')
    verb, noun = (_label(row, head) for head in (VERB, NOUN))
    return Narration(row['narration_id'], video_id, start, stop, verb, noun)


def _label(row: dict[str, str], head: str) -> int:
    text, count = row[_LABELS[head]], CLASSES[head][1]
    if not text.isdecimal() or int(text) >= count:
        raise ValueError(f'{_LABELS[head]} is {text!r}; expected 0 to {count - 1}')
    return int(text)


TRAIN_PART, VALIDATION_PART = 'train', 'validation'


def divide(narration_ids: Sequence[str], seed: int) -> dict[str, str]:
    """
    Return narration_id → `train` or `validation`, at random: 60,495 and 6,722 of the 67,217.

    The order of the ids does not matter.
    """
    ids = sorted(narration_ids)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(ids))
    train = len(ids) * 9 // 10
    return {ids[i]: TRAIN_PART if position < train else VALIDATION_PART
            for position, i in enumerate(order)}


def write_division(path: Path, division: dict[str, str]) -> None:
    """
    Write a division, sorted by narration_id; complete or not at all.

    :raises DataError: when it cannot be written.
    """
    text = 'narration_id,split\n' + ''.join(f'{i},{division[i]}\n' for i in sorted(division))
    try:
        write_atomically(path, text)
    except OSError as error:
        raise DataError(path, f'it cannot be written ({error})',
                        'name a file in a folder that can be written to') from error


def read_division(path: Path, narration_ids: Sequence[str]) -> dict[str, str]:
    """
    Read a division that covers exactly the given ids.

    :raises DataError: when it cannot be read or covers others.
    """
    rows = read_table(path, ('narration_id', 'split'))
    remedy = 'delete it, and it is computed again from the seed'
    unknown = {row['split'] for row in rows} - {TRAIN_PART, VALIDATION_PART}
    if unknown:
        raise DataError(path, f'a split is {min(unknown)!r}; expected {TRAIN_PART} or '
                        f'{VALIDATION_PART}', remedy)
    division = {row['narration_id']: row['split'] for row in rows}
    differing = set(division) ^ set(narration_ids)
    if differing or len(division) != len(rows):
        raise DataError(
            path, f'its {len(rows)} ids are not those of the {len(narration_ids)} training '
            f'segments ({min(differing) if differing else "one is there twice"})', remedy)
    return division
