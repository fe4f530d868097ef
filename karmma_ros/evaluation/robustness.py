"""
Robustness in three numbers (the paper's Table VI), from a column of Table I.

The paper does not define them. Read as below, its 50 % row (average 24.23 %, with V+F+A 34.99 %)
gives a relative drop of 35.88 % where it prints 35.95 %; the mean over all subsets, the full one
included, would give 30.75 %.
"""

from __future__ import annotations

from collections.abc import Mapping

from karmma_ros.errors import InvalidSettingError
import numpy as np


def average_accuracy(column: Mapping[str, float]) -> float:
    """Give the mean accuracy over all subsets, the full one included; NaN if there is none."""
    return float(np.mean(list(column.values()))) if column else float('nan')


def relative_drop(column: Mapping[str, float], full: str) -> float:
    """
    Give the mean of (full − subset) / full over the other subsets.

    :param column: subset → accuracy.
    :param full: name of the subset that has all sensors.
    :returns: 0 when nothing is lost, 1 when everything is; NaN without the full subset,
        without others, or where the full one is never right.
    """
    others = [accuracy for subset, accuracy in column.items() if subset != full]
    if not others or not column.get(full):
        return float('nan')
    return float(1 - np.mean(others) / column[full])


def average_ranks(columns: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """
    Give the mean rank of each system over the subsets that all of them have; 1 is the best.

    Systems that tie share the mean of their ranks.

    :param columns: system → subset → accuracy.
    :raises InvalidSettingError: when the systems have no subset in common.
    """
    common = common_subsets(columns)
    if not common:
        raise InvalidSettingError(
            'systems', ', '.join(columns), 'systems with at least one subset in common')
    table = np.array([[column[subset] for subset in common] for column in columns.values()])
    better = (table[None] > table[:, None]).sum(1)  # [systems, subsets]
    equal = (table[None] == table[:, None]).sum(1)
    ranks = (better + (equal + 1) / 2).mean(1)
    return dict(zip(columns, ranks.tolist()))


def common_subsets(columns: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Give the subsets that every system has, in the order of the first."""
    first = next(iter(columns.values()), {})
    return [subset for subset in first if all(subset in c for c in columns.values())]
