"""What the network says: class scores with their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from karmma_ros.errors import InvalidSettingError, is_printable
import numpy as np
from numpy.typing import NDArray

VERB, NOUN = 'verb', 'noun'
"""The two heads of an action in Epic-Kitchens; other data sets may have other heads."""

_LONGEST_NAME = 500


@dataclass(frozen=True)
class LabelScore:
    """One class of a head with its probability."""

    class_id: int
    class_name: str
    score: float


@dataclass(frozen=True)
class ActionScore:
    """A verb and a noun; the score is the product of their probabilities."""

    verb: LabelScore
    noun: LabelScore

    @property
    def score(self) -> float:
        """Give the product of the two probabilities."""
        return self.verb.score * self.noun.score


@dataclass(frozen=True)
class Vocabulary:
    """The class names of every head, by class id."""

    heads: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        for head, names in self.heads.items():
            if not names or len(set(names)) != len(names):
                raise InvalidSettingError(
                    f'classes.{head}', list(names), 'a list of distinct names, at least one')
            for name in (head, *names):
                if not is_printable(name) or len(name) > _LONGEST_NAME:
                    raise InvalidSettingError(
                        f'classes.{head}', name, 'printable names of at most '
                        f'{_LONGEST_NAME} characters', 'names end up in messages and displays')

    @property
    def sizes(self) -> dict[str, int]:
        """Give the number of classes of each head."""
        return {head: len(names) for head, names in self.heads.items()}


@dataclass(frozen=True)
class Prediction:
    """The probabilities of one clip."""

    probabilities: Mapping[str, NDArray[np.floating]]
    """For each head a float array `[classes]` that sums to one."""
    vocabulary: Vocabulary

    def top(self, head: str, k: int = 1) -> list[LabelScore]:
        """Give the `k` best classes of a head by descending score; all, if it has fewer."""
        names = self.vocabulary.heads.get(head, ())
        scores = self.probabilities.get(head, np.empty(0))
        order = np.argsort(-scores, kind='stable')[:k]
        return [LabelScore(int(i), names[i], float(scores[i])) for i in order]

    def top_actions(self, k: int = 1) -> list[ActionScore]:
        """
        Give the `k` best verb-noun pairs by descending product; none without both heads.

        The k best pairs lie within the k best of each head, so no full product is formed.
        """
        pairs = [ActionScore(v, n) for v in self.top(VERB, k) for n in self.top(NOUN, k)]
        return sorted(pairs, key=lambda pair: -pair.score)[:k]
