"""
The calibration of a model: what makes probabilities of its logits, and detects unknown actions.

The logits of each head are divided by a temperature (Guo et al., On Calibration of Modern Neural
Networks, ICML 2017). Fewer sensors make a network less sure by another amount than they make it
less accurate, so that each subset of its modalities has temperatures of its own. A clip whose
unknown score is above the threshold of its subset shows none of the classes of the model. A
prediction set has the classes of a head among which the true one is in a stated fraction of clips,
for every class (conformal prediction: Vovk et al., Algorithmic Learning in a Random World, 2005).

All of it is fitted by `karmma_ros.evaluation.temperature_scaling`. A model without a calibration
has temperatures of 1 and no thresholds.

Shape legend: c classes of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
import math
from typing import Any

from karmma_ros.errors import InvalidSettingError, is_printable
from karmma_ros.modality import in_order, Modality, subset_name
from karmma_ros.prediction import action_heads, ActionScale, ACTIVATIONS
import numpy as np
from numpy.typing import NDArray

FORMAT = 'karmma_ros.calibration/1'
_LOWEST, _HIGHEST = 0.01, 100.0
"""Temperatures beyond these come from no network."""
_MAX_SUBSETS, _MAX_SCORE = 4096, 1e9
_LONGEST_TEXT = 500
_FIELDS = ('fitted_on', 'false_alarm_rate', 'subsets')
_SUBSET_FIELDS = ('temperatures', 'unknown_threshold', 'action_exponent')
_COVERAGE, _SET_THRESHOLDS = 'coverage', 'set_thresholds'
"""Fields of a calibration with prediction sets, and of its subsets."""
_BETA = 'action_beta'
"""Field of a subset; calibrations of earlier revisions lack it."""

Subset = tuple[Modality, ...]


@dataclass(frozen=True)
class SubsetCalibration:
    """The calibration of the predictions from one subset of the modalities."""

    temperatures: Mapping[str, float] = field(default_factory=dict)
    """Head → temperature; 1 for a head that is missing."""
    unknown_threshold: float | None = None
    """A clip with a greater unknown score shows an unknown action; None: none does."""
    action_scale: ActionScale = ActionScale()
    """
    From the product of the probabilities of its parts to the score of an action.

    The product is the probability of an action whose verb and noun are right independently, which
    they are not.
    """
    set_thresholds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Head → for each class, the least probability with which it is in the prediction set."""


@dataclass(frozen=True, eq=False)
class CalibratedOutput:
    """Class probabilities, and whether they are to be trusted; of one clip or of a batch."""

    probabilities: dict[str, NDArray[np.float64]]
    """Head → `[..., c]`; sums to one over the classes, except with sigmoid."""
    action_scale: ActionScale
    """As in `SubsetCalibration`."""
    unknown_score: NDArray[np.float64]
    """`[...]`: the greater, the less the clip resembles any action of the model."""
    is_unknown: NDArray[np.bool_]
    """`[...]`: whether the score is above the threshold."""
    sets: dict[str, NDArray[np.bool_]]
    """Head → which classes are in the prediction set, `[..., c]`; empty without coverage."""


@dataclass(frozen=True)
class Calibration:
    """
    The temperatures and thresholds of a model; without any, its logits are taken as they are.

    >>> from karmma_ros.calibration import Calibration, SubsetCalibration
    >>> from karmma_ros.modality import parse_subset
    >>> import numpy as np
    >>> audio = parse_subset('A')
    >>> calibration = Calibration({audio: SubsetCalibration({'verb': 2.0})})
    >>> logits = {'verb': np.array([4.0, 0.0])}
    >>> calibration.apply(audio, logits).probabilities['verb'].round(2).tolist()
    [0.88, 0.12]
    >>> Calibration().apply(audio, logits).probabilities['verb'].round(2).tolist()
    [0.98, 0.02]
    """

    subsets: Mapping[Subset, SubsetCalibration] = field(default_factory=dict)
    """Those that it was fitted for."""
    false_alarm_rate: float = 0.0
    """Fraction of the clips of known actions above the thresholds, where they were fitted."""
    fitted_on: str = ''
    """The clips that it was fitted on, in words."""
    coverage: float = 0.0
    """Fraction of the clips of each class whose prediction set has it; 0: there are no sets."""
    activations: Mapping[str, str] = field(default_factory=dict)
    """As `Vocabulary.activations`; it belongs to the model and is not stored with the rest."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the heads that have temperatures."""
        return tuple(dict.fromkeys(
            head for each in self.subsets.values() for head in each.temperatures))

    def __bool__(self) -> bool:
        return bool(self.subsets)

    def describe(self, modalities: Iterable[Modality]) -> str:
        """Return what it was fitted on, and the threshold of unknown actions of a subset."""
        if not self:
            return 'none: temperatures of 1, and every action is known'
        text = f'fitted on {self.fitted_on or "clips that are not stated"}'
        threshold = self.of(modalities).unknown_threshold
        if self.coverage:
            text += f'; prediction sets of {self.coverage:.1%} coverage'
        if threshold is None:
            return f'{text}; every action is known'
        return (f'{text}; from {subset_name(modalities)}, a result is unknown with a score above '
                f'{threshold:.2f}, as {self.false_alarm_rate:.1%} of known actions are')

    def of(self, modalities: Iterable[Modality]) -> SubsetCalibration:
        """
        Return the calibration of a subset, or of the most similar one that was fitted.

        Most similar is the one that differs in the fewest modalities; of several, the smallest,
        which is the least sure.
        """
        subset = in_order(modalities)
        if subset in self.subsets or not self.subsets:
            return self.subsets.get(subset, SubsetCalibration())
        nearest = min(self.subsets, key=lambda each: (len({*each} ^ {*subset}), len(each)))
        return self.subsets[nearest]

    def apply(
        self, modalities: Iterable[Modality], logits: Mapping[str, NDArray[np.floating]],
    ) -> CalibratedOutput:
        """
        Return the probabilities of logits predicted from some modalities.

        :param logits: head → `[..., c]`; a row of NaN stays one, and is not unknown.
        """
        own, score = self.of(modalities), unknown_score(logits)
        probabilities = {head: ACTIVATIONS[self.activations.get(head, 'softmax')](
            x, own.temperatures.get(head, 1.0)) for head, x in logits.items()}
        # The coverage of a subset does not hold for a similar one.
        thresholds = own.set_thresholds if in_order(modalities) in self.subsets else {}
        return CalibratedOutput(
            probabilities, own.action_scale, score, self.is_unknown(modalities, score),
            {head: np.asarray(probabilities[head] >= least) for head, least in thresholds.items()})

    def is_unknown(
        self, modalities: Iterable[Modality], score: NDArray[np.float64] | float
    ) -> NDArray[np.bool_]:
        """Return whether unknown scores `[...]` are above the threshold of some modalities."""
        threshold = self.of(modalities).unknown_threshold
        return np.asarray(score > (math.inf if threshold is None else threshold))

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` reads, JSON-ready."""
        return {
            'format': FORMAT, 'fitted_on': self.fitted_on,
            'false_alarm_rate': self.false_alarm_rate,
            **({_COVERAGE: self.coverage} if self.coverage else {}),
            'subsets': {subset_name(subset): {
                'temperatures': dict(own.temperatures),
                'unknown_threshold': own.unknown_threshold,
                'action_exponent': own.action_scale.exponent,
                **({_BETA: list(own.action_scale.beta)}
                   if own.action_scale.beta != ActionScale().beta else {}),
                **({_SET_THRESHOLDS: {head: list(each)
                                      for head, each in own.set_thresholds.items()}}
                   if own.set_thresholds else {}),
            } for subset, own in self.subsets.items()}}

    @classmethod
    def from_dict(
        cls, content: Any, modalities: Iterable[Modality], heads: Mapping[str, int],
    ) -> Calibration:
        """
        Read what `to_dict` returned; nothing of it is trusted.

        :param modalities: those of the model.
        :param heads: those of the model, with the number of classes of each.
        :raises InvalidSettingError: for anything else than a calibration of such a model.
        """
        given = content.get('format') if isinstance(content, dict) else None
        if given != FORMAT:
            raise InvalidSettingError('format', given, repr(FORMAT))
        _check_keys('calibration', content, ('format', *_FIELDS), _COVERAGE)
        subsets = content['subsets']
        if not isinstance(subsets, dict) or not 1 <= len(subsets) <= _MAX_SUBSETS:
            raise InvalidSettingError(
                'subsets', type(subsets).__name__, f'an object with 1 to {_MAX_SUBSETS} subsets')
        text = content['fitted_on']
        if not isinstance(text, str) or len(text) > _LONGEST_TEXT or not is_printable(text):
            raise InvalidSettingError('fitted_on', text, 'a printable text')
        letters = {m.letter: m for m in modalities}
        return cls(
            {_subset(name, letters): _subset_calibration(name, own, heads)
             for name, own in subsets.items()},
            _number('false_alarm_rate', content['false_alarm_rate'], 0.0, 1.0), text,
            _number(_COVERAGE, content.get(_COVERAGE, 0.0), 0.0, 1.0))


def unknown_score(logits: Mapping[str, NDArray[np.floating]]) -> NDArray[np.float64]:
    """
    Return how little a clip resembles any action of the model.

    It is the energy of the logits (Liu et al., Energy-based Out-of-distribution Detection,
    NeurIPS 2020), the sum over the heads that an action consists of.

    :param logits: head → `[..., c]`.
    :returns: `[...]`.
    """
    return -np.sum([_logsumexp(logits[head]) for head in action_heads(tuple(logits))], axis=0)


def _logsumexp(x: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = x.astype(np.float64)
    highest = wide.max(-1)
    return np.asarray(highest + np.log(np.exp(wide - highest[..., None]).sum(-1)))


def _check_keys(name: str, content: Any, expected: tuple[str, ...], *optional: str) -> None:
    if not isinstance(content, dict) or {*content} - {*optional} != {*expected}:
        got = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InvalidSettingError(name, got, f'an object with {", ".join(expected)}')


def _subset(name: str, letters: Mapping[str, Modality]) -> Subset:
    subset = in_order(letters[part] for part in name.split('+') if part in letters)
    if subset_name(subset) != name:
        raise InvalidSettingError('subset', name, f'made of {", ".join(letters)}, the modalities '
                                  'of the model, in their order')
    return subset


def _subset_calibration(name: str, own: Any, heads: Mapping[str, int]) -> SubsetCalibration:
    _check_keys(f'subsets.{name}', own, _SUBSET_FIELDS, _SET_THRESHOLDS, _BETA)
    temperatures, threshold = own['temperatures'], own['unknown_threshold']
    if not isinstance(temperatures, dict) or not set(temperatures) <= set(heads):
        raise InvalidSettingError(f'subsets.{name}.temperatures', temperatures,
                                  f'an object with the heads {", ".join(sorted(heads))}')
    return SubsetCalibration(
        {head: _number(f'subsets.{name}.temperatures.{head}', x, _LOWEST, _HIGHEST)
         for head, x in temperatures.items()},
        None if threshold is None else
        _number(f'subsets.{name}.unknown_threshold', threshold, -_MAX_SCORE, _MAX_SCORE),
        _action_scale(f'subsets.{name}', own),
        _set_thresholds(f'subsets.{name}.{_SET_THRESHOLDS}', own.get(_SET_THRESHOLDS, {}), heads))


def _action_scale(name: str, own: Mapping[str, Any]) -> ActionScale:
    exponent = _number(f'{name}.action_exponent', own['action_exponent'], 1.0, _HIGHEST)
    beta = own.get(_BETA, [*ActionScale().beta])
    if not isinstance(beta, list) or len(beta) != 3:
        got = len(beta) if isinstance(beta, list) else type(beta).__name__
        raise InvalidSettingError(f'{name}.{_BETA}', got, '3 numbers')
    a, b, c = [_number(f'{name}.{_BETA}', x, lowest, _HIGHEST)
               for x, lowest in zip(beta, (_LOWEST, _LOWEST, -_HIGHEST))]
    return ActionScale(exponent, (a, b, c))


def _set_thresholds(
    name: str, content: Any, heads: Mapping[str, int],
) -> dict[str, tuple[float, ...]]:
    if not isinstance(content, dict) or not set(content) <= set(heads):
        raise InvalidSettingError(name, content, f'an object with the heads {", ".join(heads)}')
    for head, values in content.items():
        if not isinstance(values, list) or len(values) != heads[head]:
            got = len(values) if isinstance(values, list) else type(values).__name__
            raise InvalidSettingError(f'{name}.{head}', got, f'{heads[head]} numbers, one a class')
    return {head: tuple(_number(f'{name}.{head}', x, 0.0, 1.0) for x in values)
            for head, values in content.items()}


def _number(name: str, value: Any, lowest: float, highest: float) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not lowest <= value <= highest:  # NaN is in no interval
        raise InvalidSettingError(name, value, f'a number from {lowest:g} to {highest:g}')
    return float(value)
