"""Divide labelled segments into splits and folds by recording, or by person or other group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from karmma_ros.data.labels.label_file import ActionLabel
from karmma_ros.data.recordings import check_splits, SPLITS
from karmma_ros.errors import DataError, InvalidSettingError
import numpy as np
from numpy.typing import NDArray

MOST_FOLDS = 5
RECORDING = 'recording'
TRAIN, VALIDATION, TEST = SPLITS


@dataclass(frozen=True)
class Division:
    """What each of n segments is for."""

    splits: tuple[str, ...]
    """`train`, `validation` or `test`, `[n]`."""
    folds: NDArray[np.int64]
    """`[n]`: fold of cross-validation of a training segment; -1 of others, or without folds."""
    text: str
    """How the model is validated, in words."""

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the segments of a split."""
        return np.flatnonzero(np.array(self.splits) == split)


def divide(path: Path, labels: Sequence[ActionLabel], split_by: str = RECORDING) -> Division:
    """
    Divide segments by the column `split`; without validation, training is divided into folds.

    A fold is a group of the training segments: one recording where there are five or fewer,
    otherwise several. Of a single group each fold is a part of its time. Where most segments are
    of classes that no other fold has, each fold is a part of every class instead.

    :param path: of the label file, which errors name.
    :param split_by: `recording`, or a further column of the label file such as `person`.
    :raises DataError: for another split than train, validation and test, or a group without one.
    :raises InvalidSettingError: for a column that the labels lack.
    """
    groups = [_group(label, split_by, labels) for label in labels]
    check_splits(path, labels)
    splits = tuple(label.split or TRAIN for label in labels)
    if split_by != RECORDING:
        _check_groups(path, groups, splits, split_by)
    none = np.full(len(labels), -1)
    if VALIDATION in splits or TRAIN not in splits:
        return Division(splits, none, 'on the validation split')
    training = [i for i, split in enumerate(splits) if split == TRAIN]
    own = sorted({groups[i] for i in training})
    folds = none.copy()
    if len(own) > 1:
        for i in training:
            folds[i] = own.index(groups[i]) % MOST_FOLDS
        text = (f'by leaving one {split_by} out' if len(own) <= MOST_FOLDS else
                f'in {MOST_FOLDS} folds of {len(own)} {split_by}s')
    else:
        in_time = sorted(training, key=lambda i: labels[i].start_s)
        for i, chosen in enumerate(np.array_split(in_time, min(MOST_FOLDS, len(training)))):
            folds[chosen] = i
        text = f'in parts of the only {split_by}, whose scores are too good'
    if _without_class(labels, training, folds) > 0.5:
        folds[training] = _folds_of_classes(labels, training)
        text = (f'in parts of each class, whose scores are too good: most are in one {split_by} '
                'alone')
    return Division(splits, folds, text)


def _without_class(
    labels: Sequence[ActionLabel], training: Sequence[int], folds: NDArray[np.int64]
) -> float:
    """Return the fraction of training segments with a class that their fold alone has."""
    own: dict[tuple[str, str], set[int]] = {}
    for i in training:
        for each in labels[i].classes.items():
            own.setdefault(each, set()).add(int(folds[i]))
    return sum(any(len(own[each]) == 1 for each in labels[i].classes.items())
               for i in training) / len(training)


def _folds_of_classes(
    labels: Sequence[ActionLabel], training: Sequence[int]
) -> list[int]:
    """Return the fold of each training segment: a part of the time of all of its classes."""
    members: dict[str, list[int]] = {}
    for i in sorted(training, key=lambda i: (labels[i].recording, labels[i].start_s)):
        members.setdefault(labels[i].text, []).append(i)
    folds = {i: fold for own in members.values() for fold, part in enumerate(
        np.array_split(own, min(MOST_FOLDS, len(own)))) for i in part.tolist()}
    return [folds[i] for i in training]


def _group(label: ActionLabel, split_by: str, labels: Sequence[ActionLabel]) -> str:
    if split_by == RECORDING:
        return label.recording
    if not label.groups.get(split_by):
        columns = sorted({name for each in labels for name, x in each.groups.items() if x})
        raise InvalidSettingError(
            '--split-by', split_by, ', '.join([RECORDING, *columns]),
            f'{label.text} of {label.recording} has no {split_by}: fill in the column of every '
            'label')
    return label.groups[split_by]


def _check_groups(
    path: Path, groups: Sequence[str], splits: Sequence[str], split_by: str
) -> None:
    own: dict[str, str] = {}
    for group, split in zip(groups, splits):
        if own.setdefault(group, split) != split:
            raise DataError(
                path, f'{split_by} {group!r} is in the splits {own[group]} and {split}',
                f'put all labels of a {split_by} into one split, or leave --split-by out')


def class_ids(
    labels: Sequence[ActionLabel], heads: Mapping[str, tuple[str, ...]]
) -> dict[str, NDArray[np.int64]]:
    """Return head → class id of each label, -1 for a class that is not among the names."""
    index = {head: {name: i for i, name in enumerate(names)} for head, names in heads.items()}
    return {head: np.array([own.get(x.classes.get(head, ''), -1) for x in labels], np.int64)
            for head, own in index.items()}
