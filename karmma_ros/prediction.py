"""The output of the network: class scores with their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from karmma_ros.errors import InvalidSettingError, is_printable
from karmma_ros.modality import Modality
import numpy as np
from numpy.typing import NDArray

VERB, NOUN = 'verb', 'noun'
"""The two heads of an action in Epic-Kitchens; other data sets may have other heads."""

_LONGEST_NAME = 500


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """
    Return the probabilities over the last axis, computed in float64: `[..., c]`.

    :param temperature: the logits are divided by it; above 1 makes less sure.
    """
    shifted = logits.astype(np.float64) / temperature
    exponentials = np.exp(shifted - shifted.max(-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(-1, keepdims=True))


def sigmoid(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the probability of each class on its own, computed in float64: `[..., c]`."""
    return np.asarray(0.5 * (1 + np.tanh(logits.astype(np.float64) / (2 * temperature))))


ACTIVATIONS = {'softmax': softmax, 'sigmoid': sigmoid}
"""What makes probabilities of the logits of a head."""


def action_heads(heads: Sequence[str]) -> tuple[str, ...]:
    """
    Return the one or two heads that an action consists of, that of the verb first.

    The heads `verb` and `noun` have their positions by name. The other heads of the model, in
    its order, take the positions that are left: `[gesture]` and `[noun]` are an action of one
    part, `[gesture, hand]` one of two. From the third head on (`tool` in `[verb, noun, tool]`)
    a head is no part of an action.
    """
    others = [head for head in heads if head not in (VERB, NOUN)]
    parts = [head if head in heads else others.pop(0) if others else None
             for head in (VERB, NOUN)]
    return tuple(head for head in parts if head is not None)


def further_heads(heads: Sequence[str]) -> tuple[str, ...]:
    """Return the heads that are no part of an action, in the order of the model."""
    parts = action_heads(heads)
    return tuple(head for head in heads if head not in parts)


@dataclass(frozen=True)
class LabelScore:
    """One class of a head with its probability."""

    class_id: int
    class_name: str
    score: float


@dataclass(frozen=True)
class ActionScale:
    """
    How the score of an action follows from the product of the probabilities of its parts.

    >>> from karmma_ros.prediction import ActionScale
    >>> [round(float(scale(0.2)), 3) for scale in (
    ...     ActionScale(), ActionScale(exponent=2.0), ActionScale(beta=(2.0, 2.0, 0.0)))]
    [0.2, 0.04, 0.059]
    """

    exponent: float = 1.0
    """The product is first taken to this power; 1 where `beta` is fitted."""
    beta: tuple[float, float, float] = (1.0, 1.0, 0.0)
    """
    a, b, c of beta calibration (Kull et al., Beta calibration, AISTATS 2017, eq. 3).

    A product p becomes the probability of the log-odds a ln(p) - b ln(1 - p) + c; it stays p with
    1, 1, 0. Greater scores stay greater, for a and b are above 0.
    """

    def __call__(self, product: NDArray[np.floating] | float) -> NDArray[np.float64]:
        """Return the scores `[...]` of products `[...]`; they need not sum to one."""
        p = np.asarray(product, np.float64) ** self.exponent
        if self.beta == (1.0, 1.0, 0.0):
            return p
        a, b, c = self.beta
        with np.errstate(divide='ignore'):
            odds = a * np.log(p) - b * np.log1p(-p.clip(max=1.0)) + c
            return np.asarray(1.0 / (1.0 + np.exp(-odds)))


@dataclass(frozen=True)
class ActionScore:
    """One class of each head that an action consists of."""

    verb: LabelScore
    """Of the first of `action_heads`."""
    noun: LabelScore | None
    """Of the second; None for a model with one head."""
    scale: ActionScale = ActionScale()
    """Of the model's calibration."""

    @property
    def score(self) -> float:
        """Return the product of the probabilities of its parts, on the scale."""
        return float(self.scale(self.verb.score * (1.0 if self.noun is None else self.noun.score)))


@dataclass(frozen=True)
class Vocabulary:
    """
    The class names of every head, by class id.

    >>> from karmma_ros.prediction import Vocabulary
    >>> Vocabulary({'verb': ('cut', 'wash'), 'noun': ('cup', 'pan', 'egg')}).sizes
    {'verb': 2, 'noun': 3}
    """

    heads: Mapping[str, tuple[str, ...]]
    background: str = ''
    """Class, of any head, that stands for no action; empty without one."""
    activations: Mapping[str, str] = field(default_factory=dict)
    """Head → `sigmoid`, where several classes can be present at once; of others it is `softmax`:
    the probabilities of their classes sum to one."""

    def __post_init__(self) -> None:
        for head, activation in self.activations.items():
            if head not in self.heads or activation not in tuple(ACTIVATIONS):
                raise InvalidSettingError(
                    f'activations.{head}', activation,
                    f'{" or ".join(ACTIVATIONS)} of one of the heads {", ".join(self.heads)}')
        if not self.heads:
            raise InvalidSettingError('classes', {}, 'at least one head with its class names')
        for head, names in self.heads.items():
            if not names or len(set(names)) != len(names):
                raise InvalidSettingError(
                    f'classes.{head}', list(names), 'a list of distinct names, at least one')
            for name in (head, *names):
                if not is_printable(name) or len(name) > _LONGEST_NAME:
                    raise InvalidSettingError(
                        f'classes.{head}', name, 'printable names of at most '
                        f'{_LONGEST_NAME} characters', 'names end up in messages and displays')
        if self.background and not any(self.background in n for n in self.heads.values()):
            raise InvalidSettingError(
                'background', self.background, f'a class of {" or ".join(self.heads)}',
                'leave it out if no class stands for no action')

    def check_softmax(self, what: str) -> None:
        """
        Refuse heads whose classes can be present at once.

        :param what: what takes one class of each head.
        :raises InvalidSettingError: for the first of them.
        """
        for head, activation in self.activations.items():
            if activation != 'softmax':
                raise InvalidSettingError(
                    f'activations.{head}', activation, f'softmax, for {what}',
                    'several of its classes can be present at once')

    @property
    def sizes(self) -> dict[str, int]:
        """Return the number of classes of each head."""
        return {head: len(names) for head, names in self.heads.items()}


@dataclass(frozen=True)
class Prediction:
    """
    The probabilities of one clip.

    >>> from karmma_ros.prediction import Prediction, Vocabulary
    >>> import numpy as np
    >>> vocabulary = Vocabulary({'verb': ('cut', 'wash'), 'noun': ('cup', 'pan')})
    >>> prediction = Prediction(
    ...     {'verb': np.array([0.2, 0.8]), 'noun': np.array([0.5, 0.5])}, vocabulary)
    >>> best, = prediction.top_actions()
    >>> best.verb.class_name, best.noun.class_name, best.score
    ('wash', 'cup', 0.4)
    """

    probabilities: Mapping[str, NDArray[np.floating]]
    """For each head a float array `[classes]`; it sums to one, except with sigmoid."""
    vocabulary: Vocabulary
    unknown_score: float = 0.0
    """The greater, the less the clip resembles any action of the model."""
    is_unknown: bool = False
    """Whether the score is above the threshold of the model's calibration."""
    action_scale: ActionScale = ActionScale()
    """Of the scores of actions."""
    sets: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Head → which of its classes are in the prediction set, `[classes]`; empty without sets."""
    without: Mapping[Modality, Prediction] = field(default_factory=dict)
    """The prediction without each of its modalities; empty unless they were left out in turn."""

    def top(self, head: str, k: int = 1) -> list[LabelScore]:
        """
        Return the `k` best classes of a head by descending score; all, if it has fewer.

        :raises KeyError: for a head that the model lacks.
        """
        names, scores = self.vocabulary.heads[head], self.probabilities[head]
        order = np.argsort(-scores, kind='stable')[:k]
        return [LabelScore(int(i), names[i], float(scores[i])) for i in order]

    def top_actions(self, k: int = 1) -> list[ActionScore]:
        """
        Return the `k` best actions by descending score: pairs, or classes of the only head.

        The k best pairs lie within the k best of each head, so no full product is formed.
        """
        first, *second = action_heads(tuple(self.vocabulary.heads))
        nouns: Sequence[LabelScore | None] = self.top(second[0], k) if second else (None,)
        pairs = [ActionScore(v, n, self.action_scale)
                 for v in self.top(first, k) for n in nouns]
        return sorted(pairs, key=lambda pair: -pair.score)[:k]

    def prediction_set(self, head: str) -> list[LabelScore]:
        """
        Return the classes among which the true one is, with the coverage of the calibration.

        They are in descending order of their scores; there may be none.

        :raises KeyError: for a head without a prediction set.
        """
        chosen = self.sets[head]
        return [label for label in self.top(head, len(chosen)) if chosen[label.class_id]]

    def score_without(self, modality: Modality) -> float:
        """
        Return the score of the best action without one modality.

        :raises KeyError: for a modality that was not left out.
        """
        best, other = self.top_actions()[0], self.without[modality]
        heads = action_heads(tuple(self.vocabulary.heads))
        verb, *noun = [replace(label, score=float(other.probabilities[head][label.class_id]))
                       for head, label in zip(heads, (best.verb, best.noun)) if label is not None]
        return ActionScore(verb, noun[0] if noun else None, other.action_scale).score
