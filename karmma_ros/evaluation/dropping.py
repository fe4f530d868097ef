"""
Accuracy under random loss of sensors (the paper's Fig. 4), exactly.

Each modality of a sample is dropped on its own with one probability; where all would be, one of
the sample's own stays, drawn uniformly. Since the outcome of every subset is known, the
accuracy is an expectation over the subsets: nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import hits, keys
from karmma_ros.evaluation.predictions import Outcomes, scored
from karmma_ros.modality import in_order, Modality, subset_name, subsets
import numpy as np
from numpy.typing import NDArray

POINTS = tuple(i / 10 for i in range(10))
"""Probabilities of dropping as in Fig. 4: 0 to 90 %."""


def subset_probabilities(own: Iterable[Modality], dropping: float) -> dict[str, float]:
    """
    Give the probability of each subset to be what is left of a sample's own modalities.

    :param dropping: chance of a modality to be dropped, 0 to 1.
    :raises InvalidSettingError: for another chance, or a sample without any modality.
    """
    if not 0 <= dropping <= 1:
        raise InvalidSettingError('dropping', dropping, 'a probability, 0 to 1')
    own = in_order(own)
    if not own:
        raise InvalidSettingError(
            'modalities', 'none', 'at least one', 'leave out samples without any sensor')
    rescued = dropping ** len(own) / len(own)
    return {
        subset_name(subset): (1 - dropping) ** len(subset) * dropping ** (len(own) - len(subset))
        + (rescued if len(subset) == 1 else 0.0)
        for subset in subsets(own)}


def dropping_curve(
    outcomes: Outcomes, points: Sequence[float] = POINTS
) -> dict[str, list[float]]:
    """
    Give the expected top-1 accuracy for each probability of dropping.

    :returns: head, and the action, → accuracy from 0 to 1 at each of the points. Samples with
        none of the network's modalities do not count; NaN if there are no others.
    :raises InvalidSettingError: when not every subset was scored.
    """
    _check(outcomes)
    sums = {key: np.zeros(len(points)) for key in keys(outcomes.heads)}
    right = _right(outcomes)
    kinds, kind = np.unique(outcomes.present, axis=0, return_inverse=True)
    for i, row in enumerate(kinds):
        own = tuple(m for m, here in zip(outcomes.modalities, row) if here)
        for at, point in enumerate(points if own else ()):
            for subset, chance in subset_probabilities(own, point).items():
                for key, total in sums.items():
                    total[at] += chance * right[subset][key][kind.ravel() == i].sum()
    count = int(outcomes.present.any(1).sum())
    return {key: [float(x) / count if count else float('nan') for x in total]
            for key, total in sums.items()}


def curve_of_column(
    column: Mapping[str, float], points: Sequence[float] = POINTS
) -> list[float]:
    """
    Give the curve that follows from an accuracy for every subset (a column of Table I).

    It holds where every sample has every modality: then only the accuracies matter, and the
    curve is a polynomial in the probability whose degree is the number of modalities.

    :param column: name of every subset of some modalities → accuracy, in any unit.
    :raises InvalidSettingError: when a subset is missing.
    """
    own = in_order(Modality.parse(letter) for name in column for letter in name.split('+'))
    missing = [subset_name(s) for s in subsets(own) if subset_name(s) not in column]
    if missing:
        raise InvalidSettingError(
            'subsets', ', '.join(column), f'every subset of {subset_name(own)}',
            f'add {", ".join(missing)}')
    return [sum(chance * column[subset] for subset, chance in
                subset_probabilities(own, point).items()) for point in points]


def _right(outcomes: Outcomes) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Give subset → head, and the action, → whether it is right `[n]`; False where it lacks."""
    right: dict[str, dict[str, NDArray[np.bool_]]] = {}
    for name, subset in scored(outcomes):
        has, right[name] = outcomes.has(subset), {}
        for key, hit in hits(outcomes, subset).items():
            right[name][key] = np.zeros(len(outcomes), np.bool_)
            right[name][key][has] = hit
    return right


def _check(outcomes: Outcomes) -> None:
    missing = [subset_name(s) for s in subsets(outcomes.modalities)
               if subset_name(s) not in outcomes.logits and outcomes.has(s).any()]
    if missing:
        raise InvalidSettingError(
            'subsets', ', '.join(outcomes.logits), 'all that the samples have',
            f'score {", ".join(missing)} too')
