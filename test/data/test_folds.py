"""Folds of cross-validation: every class is in several, wherever the labels allow it."""

from pathlib import Path

from karmma_ros.data.folds import divide
from karmma_ros.data.labels.label_file import ActionLabel
import numpy as np

NAMES = tuple('abcdefgh')


def labels(*rows):
    return [ActionLabel(recording, 2.0 * n, 2.0 * n + 1, {'action': name})
            for n, (recording, name) in enumerate(rows)]


def folds_of(division, own, name):
    return {int(fold) for fold, label in zip(division.folds, own)
            if label.classes['action'] == name}


def test_recordings_that_all_have_every_class_are_left_out():
    own = labels(*((recording, name) for recording in ('monday', 'tuesday', 'wednesday')
                   for name in NAMES))
    division = divide(Path('labels.csv'), own)
    assert division.text == 'by leaving one recording out'
    assert all(folds_of(division, own, name) == {0, 1, 2} for name in NAMES)
    assert len({(x.recording, fold) for x, fold in zip(own, division.folds)}) == 3


def test_a_recording_for_each_class_is_divided_in_time():
    own = labels(*((f'recording_{name}', name) for name in NAMES for _ in range(6)))
    division = divide(Path('labels.csv'), own)
    assert division.text == ('in parts of each class, whose scores are too good: most are in one '
                             'recording alone')
    assert all(folds_of(division, own, name) == set(range(5)) for name in NAMES)
    assert np.all(np.diff(division.folds[:6]) >= 0)  # neighbours are in one part


def test_one_recording_with_one_class_after_another_is_divided_by_class():
    own = labels(*(('monday', name) for name in NAMES for _ in range(4)))
    division = divide(Path('labels.csv'), own)
    assert all(folds_of(division, own, name) == set(range(4)) for name in NAMES)
    mixed = labels(*(('monday', name) for _ in range(5) for name in NAMES))
    division = divide(Path('labels.csv'), mixed)
    assert division.text == 'in parts of the only recording, whose scores are too good'
