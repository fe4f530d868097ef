"""
What the loss of sensors costs on the user's own bag: Table I and Fig. 4 of the paper.

The conditions that are subsets answer with only some of the sensors of each window. From them
the accuracy under random loss follows exactly, by `evaluation.dropping`: a true action has the
sensors that most of its windows have, and is answered by the windows that have the subset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from karmma_ros.evaluation.bag_predictions import Answers
from karmma_ros.evaluation.dropping import dropping_curve, POINTS
from karmma_ros.evaluation.ground_truth import TrueAction
from karmma_ros.evaluation.predictions import Outcomes
from karmma_ros.evaluation.scores import Asked, windows_of
from karmma_ros.modality import in_order, Modality, parse_subset, subset_name, subsets
import numpy as np
from numpy.typing import NDArray

_LEAST = 1e-12
"""Probability below which a logarithm is not taken."""


def own_sensors(actions: Sequence[TrueAction], answers: Answers) -> NDArray[np.bool_]:
    """Give what most windows of each action have, `[n, 4]`; of equals the larger set."""
    own = np.zeros((len(actions), len(Modality)), np.bool_)
    for i, action in enumerate(actions):
        rows = answers.present[windows_of(action, answers)]
        if len(rows):
            kinds, counts = np.unique(rows, axis=0, return_counts=True)
            own[i] = kinds[max(range(len(kinds)), key=lambda k: (counts[k], kinds[k].sum()))]
    return own


def curve(
    by_subset: Mapping[str, Asked], own: NDArray[np.bool_], points: Sequence[float] = POINTS
) -> dict[str, list[float]] | None:
    """
    Give the expected top-1 accuracy at each probability of losing a sensor.

    :param by_subset: the same n actions, asked with each subset.
    :param own: what each action has, `[n, 4]`.
    :returns: head, and the joint score, → accuracy; None unless every subset was asked.
    """
    modalities = in_order(m for name in by_subset for m in parse_subset(name))
    names = [subset_name(subset) for subset in subsets(modalities)]
    if not names or set(names) != set(by_subset):
        return None
    first = by_subset[names[0]]
    known = np.all(list(first.scored.values()), axis=0)
    present = own[:, [list(Modality).index(m) for m in modalities]]
    known &= present.any(1)
    if not known.any():
        return None
    outcomes = Outcomes(
        modalities,
        {name: {head: np.log(np.maximum(p[known], _LEAST)).astype(np.float32)
                for head, p in by_subset[name].chances.items()} for name in names},
        present[known], {head: ids[known] for head, ids in first.truth.items()})
    return dropping_curve(outcomes, points)


def agreement(reference: Answers, other: Answers, heads: Sequence[str]) -> dict[str, float]:
    """
    Tell how often another condition gives the same best classes as the windows as recorded.

    A window is compared with the nearest of the other condition whose end differs by less than
    half the usual step.

    :returns: `compared` share of the windows as recorded, and `same` of those compared.
    """
    if not len(reference) or not len(other):
        return {'compared': 0.0, 'same': float('nan')}
    step = np.median(np.diff(reference.end_ns)) if len(reference) > 1 else 0
    order = np.argsort(other.end_ns, kind='stable')
    ends = other.end_ns[order]
    right = np.clip(np.searchsorted(ends, reference.end_ns), 0, len(ends) - 1)
    left = np.maximum(right - 1, 0)
    nearer = np.abs(ends[left] - reference.end_ns) < np.abs(ends[right] - reference.end_ns)
    places = np.where(nearer, left, right)
    close = np.abs(ends[places] - reference.end_ns) <= step / 2
    same = np.ones(int(close.sum()), np.bool_)
    for head in heads:
        mine = reference.probabilities[head][close].argmax(1)
        same &= mine == other.probabilities[head][order[places[close]]].argmax(1)
    return {'compared': float(close.mean()),
            'same': float(same.mean()) if len(same) else float('nan')}
