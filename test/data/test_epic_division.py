"""Epic-Kitchens*: the 90/10 division and the file that it is shared by."""

from __future__ import annotations

from collections import Counter

from karmma_ros.data.epic_kitchens.annotations import divide, read_division, write_division
from karmma_ros.errors import DataError
import numpy as np
import pytest

IDS = [f'P01_01_{i}' for i in range(20)]


def test_a_division_is_nine_to_one_and_repeats():
    ids = [f'P01_01_{i}' for i in range(1005)]
    division = divide(ids, seed=3)
    assert Counter(division.values()) == {'train': 904, 'validation': 101}
    assert divide(ids[::-1], seed=3) == division
    assert divide(ids, seed=4) != division
    held = [int(i.rpartition('_')[2]) for i, part in division.items() if part == 'validation']
    assert 350 < np.mean(held) < 650  # drawn from everywhere


def test_what_is_written_is_read_back_in_any_order(tmp_path):
    path = tmp_path / 'new' / 'division.csv'
    division = divide(IDS, 0)
    write_division(path, division)
    assert list(path.parent.iterdir()) == [path]
    header, *lines = path.read_text().splitlines()
    assert header == 'narration_id,split' and lines == sorted(lines) and len(lines) == 20
    path.write_text('\n'.join([header, *lines[::-1]]))
    assert read_division(path, IDS) == division


@pytest.mark.parametrize(('edit', 'sentence'), [
    (lambda text: text.replace('P01_01_7,', 'P01_01_77,'), 'its 20 ids are not those of the 20'),
    (lambda text: text.replace('P01_01_7,train\n', ''), r'its 19 ids .* \(P01_01_7\)'),
    (lambda text: text + 'P01_01_7,train\n', r'its 21 ids .* \(one is there twice\)'),
    (lambda text: text.replace('validation', 'test'), "a split is 'test'; expected train or val"),
    (lambda text: text.replace('split', 'part'), 'it has no column split; it has narration_id, p'),
])
def test_a_division_of_others_is_refused(tmp_path, edit, sentence):
    path = tmp_path / 'division.csv'
    write_division(path, {**divide(IDS, 0), 'P01_01_7': 'train'})
    read_division(path, IDS)
    path.write_text(edit(path.read_text()))
    with pytest.raises(DataError, match=f'division.csv: {sentence}'):
        read_division(path, IDS)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match='division.csv: it cannot be written .*: name a file in'):
        write_division(tmp_path / 'file' / 'division.csv', divide(IDS, 0))
