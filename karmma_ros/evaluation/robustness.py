"""
Robustness to missing modalities: three numbers (the paper's Table VI) and its dropout curve.

The paper does not define the three numbers. Read as below, its 50 % row (average 24.23 %, with
V+F+A 34.99 %) gives a relative drop of 35.88 % where it prints 35.95 %; the mean over all subsets,
the full one included, would give 30.75 %.

The dropout curve (Fig. 4) is exact: each modality of a sample is dropped on its own with one
probability; where all would be, one of the sample's own stays, chosen uniformly. Since the result
of every subset is known, the accuracy is an expectation over the subsets: nothing is sampled. On
a bag a true action has the modalities that most of its windows have, and is predicted from the
windows that have the subset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import keys, PredictedActions, windows_of
from karmma_ros.evaluation.ground_truth import TrueAction
from karmma_ros.evaluation.predictions import BagPredictions, DatasetPredictions
from karmma_ros.modality import (
    in_order,
    Modality,
    PAPER_MODALITIES,
    parse_subset,
    subset_name,
    subsets,
)
import numpy as np
from numpy.typing import NDArray

Hits = dict[str, dict[str, NDArray[np.bool_]]]
"""Subset → head, and the action, → whether each sample is correct `[n]`; False where it lacks."""


def average_accuracy(column: Mapping[str, float]) -> float:
    """Return the mean accuracy over all subsets, the full one included; NaN if there is none."""
    return float(np.mean(list(column.values()))) if column else float('nan')


def relative_drop(column: Mapping[str, float], full: str) -> float:
    """
    Return the mean of (full − subset) / full over the other subsets.

    :param column: subset → accuracy.
    :param full: name of the subset that has all modalities.
    :returns: 0 when no accuracy is lost, 1 when all is; NaN without the full subset, without
        others, or where the full one is never correct.
    """
    others = [accuracy for subset, accuracy in column.items() if subset != full]
    if not others or not column.get(full):
        return float('nan')
    return float(1 - np.mean(others) / column[full])


def average_ranks(columns: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """
    Return the mean rank of each system over the subsets that all of them have; 1 is the best.

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
    """Return the subsets that every system has, in the order of the first."""
    first = next(iter(columns.values()), {})
    return [subset for subset in first if all(subset in c for c in columns.values())]


POINTS = tuple(i / 10 for i in range(10))
"""Dropout probabilities as in Fig. 4: 0 to 90 %."""


def subset_probabilities(own: Iterable[Modality], dropout: float) -> dict[str, float]:
    """
    Return the probability of each subset to be what is left of a sample's own modalities.

    :param dropout: probability of a modality to be dropped, 0 to 1.
    :raises InvalidSettingError: for another probability, or a sample without any modality.
    """
    if not 0 <= dropout <= 1:
        raise InvalidSettingError('dropout', dropout, 'a probability, 0 to 1')
    own = in_order(own)
    if not own:
        raise InvalidSettingError(
            'modalities', 'none', 'at least one', 'leave out samples without any modality')
    rescued = dropout ** len(own) / len(own)
    return {
        subset_name(subset): (1 - dropout) ** len(subset) * dropout ** (len(own) - len(subset))
        + (rescued if len(subset) == 1 else 0.0)
        for subset in subsets(own)}


def dropout_curve(
    predictions: DatasetPredictions, points: Sequence[float] = POINTS
) -> dict[str, list[float]]:
    """
    Return the expected top-1 accuracy at each dropout probability.

    :returns: head, and the action, → accuracy from 0 to 1 at each of the points. Samples with
        none of the network's modalities do not count; NaN if there are no others.
    :raises InvalidSettingError: when not every subset was scored.
    """
    missing = [subset_name(s) for s in subsets(predictions.modalities)
               if subset_name(s) not in predictions.logits and predictions.has(s).any()]
    if missing:
        raise InvalidSettingError(
            'subsets', ', '.join(predictions.logits), 'all that the samples have',
            f'score {", ".join(missing)} too')
    correct: Hits = {}
    for name, subset in predictions.subsets():
        has, correct[name] = predictions.has(subset), {}
        for key, hits in PredictedActions.of_subset(predictions, subset).hits().items():
            correct[name][key] = np.zeros(len(predictions), np.bool_)
            correct[name][key][has] = hits
    return _expected_accuracy(
        keys(predictions.heads), correct, predictions.modalities, predictions.present, points)


def dropout_curve_of_actions(
    by_subset: Mapping[str, PredictedActions],
    own: NDArray[np.bool_],
    points: Sequence[float] = POINTS,
    columns: Sequence[Modality] = PAPER_MODALITIES,
) -> dict[str, list[float]] | None:
    """
    Return the expected top-1 accuracy on a bag at each dropout probability.

    :param by_subset: subset → the same n actions, predicted from it.
    :param own: which of the modalities `columns` each action has, `[n, m]`.
    :returns: head, and the action, → accuracy; None unless every subset was predicted.
    """
    modalities = in_order(m for name in by_subset for m in parse_subset(name))
    if not by_subset or set(by_subset) != {subset_name(s) for s in subsets(modalities)}:
        return None
    first = next(iter(by_subset.values()))
    present = own[:, [columns.index(m) for m in modalities]]
    known = np.all(list(first.labelled.values()), axis=0) & present.any(1)
    if not known.any():
        return None
    correct = {name: {key: hits[known] for key, hits in actions.hits().items()}
               for name, actions in by_subset.items()}
    return _expected_accuracy(keys(first.heads), correct, modalities, present[known], points)


def _expected_accuracy(
    score_keys: Sequence[str], correct: Hits, modalities: Sequence[Modality],
    present: NDArray[np.bool_], points: Sequence[float],
) -> dict[str, list[float]]:
    """Return key → the accuracy expected at each point of samples that have `present` `[n, m]`."""
    sums = {key: np.zeros(len(points)) for key in score_keys}
    rows, row_of = np.unique(present, axis=0, return_inverse=True)
    for i, row in enumerate(rows):
        own = tuple(m for m, is_present in zip(modalities, row) if is_present)
        samples = row_of.ravel() == i
        for at, point in enumerate(points if own else ()):
            for subset, probability in subset_probabilities(own, point).items():
                for key, total in sums.items():
                    total[at] += probability * correct[subset][key][samples].sum()
    count = int(present.any(1).sum())
    return {key: [float(x) / count if count else float('nan') for x in total]
            for key, total in sums.items()}


def curve_of_column(
    column: Mapping[str, float], points: Sequence[float] = POINTS
) -> list[float]:
    """
    Return the curve that follows from an accuracy for every subset (a column of Table I).

    It holds where every sample has every modality: then only the accuracies matter, and the
    curve is a polynomial in the probability whose degree is the number of modalities.

    :param column: name of every subset of some modalities → accuracy, in any unit.
    :raises InvalidSettingError: when a subset is missing.
    """
    own = in_order(m for name in column for m in parse_subset(name))
    missing = [subset_name(s) for s in subsets(own) if subset_name(s) not in column]
    if missing:
        raise InvalidSettingError(
            'subsets', ', '.join(column), f'every subset of {subset_name(own)}',
            f'add {", ".join(missing)}')
    return [sum(probability * column[subset] for subset, probability in
                subset_probabilities(own, point).items()) for point in points]


def majority_modalities(
    actions: Sequence[TrueAction], predictions: BagPredictions
) -> NDArray[np.bool_]:
    """Return what most windows of each action have, `[n, m]`; of equals the larger set."""
    own = np.zeros((len(actions), len(predictions.modalities)), np.bool_)
    for i, action in enumerate(actions):
        present = predictions.present[windows_of(action, predictions)]
        if len(present):
            rows, counts = np.unique(present, axis=0, return_counts=True)
            own[i] = rows[max(range(len(rows)), key=lambda k: (counts[k], rows[k].sum()))]
    return own


def agreement(
    reference: BagPredictions, other: BagPredictions, heads: Sequence[str]
) -> dict[str, float]:
    """
    Return how often another condition gives the same best classes as the windows as recorded.

    A window is compared with the nearest of the other condition whose end differs by less than
    half the usual step.

    :returns: `compared`, the fraction of the windows as recorded, and `same`, that of the
        compared ones.
    """
    if not len(reference) or not len(other):
        return {'compared': 0.0, 'same': float('nan')}
    step = np.median(np.diff(reference.end_ns)) if len(reference) > 1 else 0
    order = np.argsort(other.end_ns, kind='stable')
    ends = other.end_ns[order]
    right = np.clip(np.searchsorted(ends, reference.end_ns), 0, len(ends) - 1)
    left = np.maximum(right - 1, 0)
    left_is_nearer = (np.abs(ends[left] - reference.end_ns)
                      < np.abs(ends[right] - reference.end_ns))
    nearest = np.where(left_is_nearer, left, right)
    is_close = np.abs(ends[nearest] - reference.end_ns) <= step / 2
    same = np.ones(int(is_close.sum()), np.bool_)
    for head in heads:
        same &= (reference.probabilities[head][is_close].argmax(1)
                 == other.probabilities[head][order[nearest[is_close]]].argmax(1))
    return {'compared': float(is_close.mean()),
            'same': float(same.mean()) if len(same) else float('nan')}
