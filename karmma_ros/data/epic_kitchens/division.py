"""
Epic-Kitchens*: 90 % of the training segments to train on, 10 % to validate on.

The authors' own division is not published. Ours is drawn by a seed and can be kept in a file
(columns narration_id, split), so that others train on the same.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path

from karmma_ros.data.epic_kitchens.annotations import read_table
from karmma_ros.errors_data import DataError
import numpy as np

TRAIN, VALIDATION = 'train', 'validation'


def divide(narration_ids: Sequence[str], seed: int) -> dict[str, str]:
    """
    Draw narration_id → `train` or `validation`; 60,495 and 6,722 of the 67,217.

    The order in which the ids are given does not matter.
    """
    ids = sorted(narration_ids)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(ids))
    train = len(ids) * 9 // 10
    return {ids[i]: TRAIN if place < train else VALIDATION for place, i in enumerate(order)}


def write_division(path: Path, division: dict[str, str]) -> None:
    """
    Write a division, sorted by narration_id; whole or not at all.

    :raises DataError: when it cannot be written.
    """
    text = 'narration_id,split\n' + ''.join(f'{i},{division[i]}\n' for i in sorted(division))
    partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
        os.replace(partial, path)
    except OSError as error:
        raise DataError(path, f'it cannot be written ({error})',
                        'name a file in a folder that can be written to') from error


def read_division(path: Path, narration_ids: Sequence[str]) -> dict[str, str]:
    """
    Read a division that covers exactly the given ids.

    :raises DataError: when it cannot be read or covers others.
    """
    rows = read_table(path, ('narration_id', 'split'))
    remedy = 'delete it, and it is drawn anew by the seed'
    strange = {row['split'] for row in rows} - {TRAIN, VALIDATION}
    if strange:
        raise DataError(path, f'a split is {min(strange)!r}; it may be {TRAIN} or {VALIDATION}',
                        remedy)
    division = {row['narration_id']: row['split'] for row in rows}
    differing = set(division) ^ set(narration_ids)
    if differing or len(division) != len(rows):
        raise DataError(
            path, f'its {len(rows)} ids are not those of the {len(narration_ids)} training '
            f'segments ({min(differing) if differing else "one is there twice"})', remedy)
    return division
