"""
Turn the predictions of a sliding window into actions that start and end.

Every prediction is for the centre of its window: when the border between two actions is there,
each has half of the probability. All starts and ends of events are such centres, so the length of
the window shifts nothing. Neither does the smoothing: it decides that an action is in progress or
has ended; the border is then taken from the predictions themselves.

A prediction of an unknown action counts as background: all of its probability is that of no
action. A window over the border between two actions is often unknown, for a moment: what is
unknown for less than `min_duration` moves no start and no end.

Shape legend: v classes of the first head, n classes of the second, k predictions.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import reduce
from itertools import groupby
from math import exp, isfinite, prod

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.prediction import action_heads, LabelScore, Prediction, Vocabulary
import numpy as np
from numpy.typing import NDArray

_Ids = tuple[int, ...]
"""One class of each head, or `_BACKGROUND`."""

_BACKGROUND: _Ids = ()
"""Every combination with a background class in it, and what is unknown, taken together."""

_MAX_PREDICTIONS = 512
"""Stored, whatever their rate."""


@dataclass(frozen=True)
class EventSettings:
    """When an action has started and when it has ended; the defaults suit 5 results a second."""

    smoothing: float = 1.2
    """Time constant of the exponential smoothing of probabilities, seconds; 0 smooths nothing."""
    start: float = 0.4
    """An action starts when its smoothed score reaches this."""
    end: float = 0.2
    """
    An action ends when its smoothed score falls below this, less than `start`.

    Another action takes its place only with a lead of more than `start` - `end`.
    """
    min_duration: float = 1.0
    """What has not lasted for this long is no event, seconds."""
    max_gap: float = 1.0
    """Without a prediction for longer than this, the action has ended, seconds."""
    background: str | None = None
    """Class, of any head, that stands for no action; None: that of the model, if it has one."""

    def __post_init__(self) -> None:
        for name in ('smoothing', 'min_duration'):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise InvalidSettingError(f'events.{name}', value, 'seconds, 0 or more')
        if not (isfinite(self.max_gap) and self.max_gap > 0):
            raise InvalidSettingError('events.max_gap', self.max_gap, 'seconds, above 0')
        if not 0 < self.start <= 1:
            raise InvalidSettingError(
                'events.start', self.start, 'a score above 0 and at most 1')
        if not 0 < self.end < self.start:
            raise InvalidSettingError(
                'events.end', self.end, f'a score above 0 and below events.start = {self.start:g}')
        if self.background == '':
            raise InvalidSettingError(
                'events.background', '', 'the name of a class, or None for that of the model')

    def of(self, vocabulary: Vocabulary) -> EventSettings:
        """Return these settings with the background class of a model where none is given."""
        return replace(self, background=self.background or vocabulary.background or None)


class Phase(IntEnum):
    """Whether the action of an event has started or ended."""

    STARTED = 0
    ENDED = 1


@dataclass(frozen=True)
class ActionEvent:
    """An action has started, or has ended; the two share an id."""

    phase: Phase
    event_id: int
    """Counts up; never used twice."""
    verb: LabelScore
    """Of the first head of `prediction.action_heads`, whatever its name."""
    noun: LabelScore | None
    """Of the second; None for a model with one head."""
    score: float
    """Smoothed probability of verb and noun together: STARTED now, ENDED the highest of all."""
    start_ns: int
    end_ns: int
    """STARTED: the action lasts until here at least; ENDED never has an earlier end."""
    stamp_ns: int
    """When this was known: stamp of the prediction, or the time given to `advance`."""


@dataclass(frozen=True, eq=False)
class _TimedScores:
    """One prediction: the centre of its window and the probabilities of each head."""

    centre_ns: int
    scores: tuple[NDArray[np.float64], ...]
    is_unknown: bool


@dataclass(frozen=True)
class _Candidate:
    """A combination of classes that is probable enough to be in progress, and since when."""

    ids: _Ids
    start_ns: int


class ActionEvents:
    """
    Turn predictions into events that never overlap, each STARTED followed by its ENDED.

    Verb and noun are smoothed together, as the product of their probabilities: so there is no
    "wash bread" between "cut bread" and "wash cup". Which heads of a model these are
    is decided by `prediction.action_heads`. No clock is read; memory is bounded; equal
    predictions give equal events.

    :raises InvalidSettingError: when the vocabulary lacks the background class.

    >>> from karmma_ros.prediction import Prediction, Vocabulary
    >>> from karmma_ros.stream.events import ActionEvents, EventSettings
    >>> import numpy as np
    >>> vocabulary = Vocabulary({'verb': ('cut', 'wash'), 'noun': ('cup', 'pan')})
    >>> washing = Prediction(
    ...     {'verb': np.array([0.1, 0.9]), 'noun': np.array([0.9, 0.1])}, vocabulary)
    >>> events = ActionEvents(EventSettings(), vocabulary)
    >>> for stamp_ns in range(2_000_000_000, 6_000_000_000, 500_000_000):
    ...     for event in events.push(stamp_ns, stamp_ns - 2_000_000_000, washing):
    ...         print(event.phase.name, event.verb.class_name, event.noun.class_name)
    STARTED wash cup
    """

    def __init__(self, settings: EventSettings, vocabulary: Vocabulary) -> None:
        self._settings = settings = settings.of(vocabulary)
        self._heads = action_heads(tuple(vocabulary.heads))
        self._names = tuple(vocabulary.heads[head] for head in self._heads)
        self._background = self._find(settings.background)
        self._background_mask = self._make_background_mask()
        self._gap_ns = round(settings.max_gap * NANOSECONDS)
        self._min_ns = round(settings.min_duration * NANOSECONDS)
        # The step response of the smoothing lacks 1/150 after five time constants.
        self._stored_ns = round(5 * settings.smoothing * NANOSECONDS) + 2 * self._min_ns
        self._ids = 0
        self._stamp_ns: int | None = None
        self._joint: NDArray[np.float64] | None = None  # [v, n] or [v], sums to 1 - _unknown
        self._unknown = 0.0  # smoothed
        self._recent: deque[_TimedScores] = deque(maxlen=_MAX_PREDICTIONS)
        self._active: tuple[_Ids, ActionEvent] | None = None
        self._earliest_ns: int | None = None  # no later event starts or ends before it

    def push(
        self, stamp_ns: int, window_start_ns: int, prediction: Prediction,
    ) -> list[ActionEvent]:
        """
        Add the prediction of the window `(window_start_ns, stamp_ns]`; return the new events.

        One that is not newer than the last is ignored: after a jump of the clock call `clear`.

        :raises InvalidSampleError: for a window that ends before it starts, or probabilities
            that do not fit the vocabulary; nothing has changed then.
        """
        if window_start_ns > stamp_ns:
            raise InvalidSampleError(
                f'window: got a start {window_start_ns - stamp_ns} ns after its end; expected '
                'at most at its end')
        scores = tuple(self._probabilities(i, prediction) for i in range(len(self._heads)))
        if self._stamp_ns is not None and stamp_ns <= self._stamp_ns:
            return []
        events = self.advance(stamp_ns)
        self._smooth(stamp_ns, scores, prediction.is_unknown)
        self._store((window_start_ns + stamp_ns) // 2, scores, prediction.is_unknown)
        return events + self._decide()

    def advance(self, now_ns: int) -> list[ActionEvent]:
        """
        Set the time, by the clock of the stamps; a gap that is too long ends the action.

        The smoothed probabilities are discarded with it: after a gap nothing is known.
        """
        late = self._stamp_ns is not None and now_ns - self._stamp_ns > self._gap_ns
        if self._joint is None or not late:
            return []
        events = self._end(now_ns)
        self._joint = None
        self._recent.clear()
        return events

    def clear(self) -> list[ActionEvent]:
        """
        End the action and discard everything, as when the clock has jumped back or the node stops.

        Ids continue, so that none is used twice.
        """
        events = [] if self._stamp_ns is None else self._end(self._stamp_ns)
        self._stamp_ns = self._joint = self._earliest_ns = None
        self._recent.clear()
        return events

    def take_over(self, other: ActionEvents) -> list[ActionEvent]:
        """Take over from another, with other settings or classes: end its action."""
        events = other.clear()
        self._ids = other._ids
        return events

    def _find(self, background: str | None) -> _Ids:
        """Return for each head the id of the background class, -1 where it has none."""
        ids = tuple(names.index(background) if background in names else -1
                    for names in self._names)
        if background is not None and max(ids) < 0:
            raise InvalidSettingError(
                'events.background', background,
                f'a class of {" or ".join(self._heads)}', 'leave it out if the model has none')
        return ids

    def _make_background_mask(self) -> NDArray[np.bool_]:
        mask = np.zeros([len(names) for names in self._names], np.bool_)
        for axis, i in enumerate(self._background):
            if i >= 0:
                np.moveaxis(mask, axis, 0)[i] = True
        return mask

    def _probabilities(self, i: int, prediction: Prediction) -> NDArray[np.float64]:
        head, classes = self._heads[i], len(self._names[i])
        scores = np.array(prediction.probabilities.get(head, ()), np.float64)
        if scores.shape != (classes,) or not np.isfinite(scores).all():
            raise InvalidSampleError(
                f'prediction of head {head!r}: got an array {list(scores.shape)}; expected '
                f'{classes} finite probabilities')
        return scores

    def _smooth(
        self, stamp_ns: int, scores: tuple[NDArray[np.float64], ...], is_unknown: bool
    ) -> None:
        """Smooth as if the new probabilities held since the last stamp: exact for any interval."""
        joint, unknown = reduce(np.multiply.outer, scores), float(is_unknown)
        if is_unknown:
            joint = np.zeros_like(joint)
        if self._joint is not None and self._stamp_ns is not None and self._settings.smoothing:
            step = (stamp_ns - self._stamp_ns) / NANOSECONDS
            old = exp(-step / self._settings.smoothing)
            joint = old * self._joint + (1 - old) * joint
            unknown = old * self._unknown + (1 - old) * unknown
        self._joint, self._unknown, self._stamp_ns = joint, unknown, stamp_ns

    def _store(
        self, centre_ns: int, scores: tuple[NDArray[np.float64], ...], is_unknown: bool
    ) -> None:
        if self._recent:  # the windows may differ in length
            centre_ns = max(centre_ns, self._recent[-1].centre_ns)
        self._recent.append(_TimedScores(centre_ns, scores, is_unknown))
        while len(self._recent) > 2 and self._recent[0].centre_ns < centre_ns - self._stored_ns:
            self._recent.popleft()

    def _decide(self) -> list[ActionEvent]:
        assert self._joint is not None and self._stamp_ns is not None
        settings, best, score = self._settings, self._best(), 0.0
        if self._active is not None:
            ids, event = self._active
            score = self._score(ids)
            if score > event.score:
                self._active = ids, self._event(event.event_id, ids, event.start_ns)
            lead = self._score(best) - score
            if score >= settings.end and lead <= settings.start - settings.end:
                return []
        candidate = self._candidate(best)
        events: list[ActionEvent] = []
        if score < settings.end or candidate is not None:
            events += self._end(self._stamp_ns, candidate)
        if self._active is None and candidate is not None and best != _BACKGROUND:
            started = self._event(self._ids, best, candidate.start_ns)
            self._ids += 1
            self._active, self._earliest_ns = (best, started), started.end_ns
            events.append(started)
        return events

    def _best(self) -> _Ids:
        assert self._joint is not None
        actions = np.where(self._background_mask, 0.0, self._joint)
        ids = tuple(int(i) for i in np.unravel_index(actions.argmax(), actions.shape))
        return _BACKGROUND if self._score(_BACKGROUND) >= self._score(ids) else ids

    def _score(self, ids: _Ids) -> float:
        assert self._joint is not None
        if ids == _BACKGROUND:
            return float(self._joint[self._background_mask].sum()) + self._unknown
        return float(self._joint[ids].sum())

    def _candidate(self, ids: _Ids) -> _Candidate | None:
        """Return since when a combination is in progress; None while it is weak or brief."""
        if self._score(ids) < self._settings.start:
            return None
        start_ns = self._above_since_ns(ids)
        if self._earliest_ns is not None:
            start_ns = max(start_ns, self._earliest_ns)
        lasted_ns = self._recent[-1].centre_ns - start_ns
        return _Candidate(ids, start_ns) if lasted_ns >= self._min_ns else None

    def _end(self, stamp_ns: int, successor: _Candidate | None = None) -> list[ActionEvent]:
        """End the action, at the latest where its successor starts."""
        if self._active is None:
            return []
        assert self._earliest_ns is not None, 'an active event has an earliest end'
        ids, event = self._active
        end_ns = max(self._above_until_ns(ids), self._earliest_ns)
        if successor is not None:
            end_ns = min(end_ns, successor.start_ns)
        self._active, self._earliest_ns = None, end_ns
        return [replace(event, phase=Phase.ENDED, end_ns=end_ns, stamp_ns=stamp_ns)]

    def _above_since_ns(self, ids: _Ids) -> int:
        """Return the border between predictions below `end` and those above it that follow."""
        # Older ones have less weight: else the same action long before would bridge the pause.
        surplus = self._surplus(ids) * self._weights()
        first = len(surplus) - 1 - int(surplus[::-1].cumsum().argmax())
        return self._border_ns(first - 1, first)

    def _above_until_ns(self, ids: _Ids) -> int:
        """Return the border between predictions above `end` and those below it that follow."""
        last = int(self._surplus(ids).cumsum().argmax())
        return self._border_ns(last, last + 1)

    def _weights(self) -> NDArray[np.float64]:
        """Return the weight of each stored prediction by its age, `[k]`; 1 for the newest."""
        settings = self._settings
        fading_ns = max(settings.smoothing, settings.min_duration, 1e-9) * NANOSECONDS
        ages = [self._recent[-1].centre_ns - each.centre_ns for each in self._recent]
        return np.asarray(np.exp(-np.array(ages) / fading_ns))

    def _border_ns(self, before: int, after: int) -> int:
        """Return the time half-way between two predictions, or that of the only one."""
        indices = [i for i in (before, after) if 0 <= i < len(self._recent)]
        return sum(self._recent[i].centre_ns for i in indices) // len(indices)

    def _surplus(self, ids: _Ids) -> NDArray[np.float64]:
        """Return by how much each stored prediction exceeds the lower threshold, `[k]`."""
        # The higher one would be late: at the border verb and noun have a half each, a quarter
        # together.
        scores: list[float] = []
        for is_unknown, group in groupby(self._recent, lambda each: each.is_unknown):
            run = list(group)
            if is_unknown and run[-1].centre_ns - run[0].centre_ns >= self._min_ns:
                scores += [float(ids == _BACKGROUND)] * len(run)
            else:
                scores += [self._probability(each.scores, ids) for each in run]
        return np.array(scores) - self._settings.end

    def _probability(self, scores: tuple[NDArray[np.float64], ...], ids: _Ids) -> float:
        """Return the probability of a combination in one prediction."""
        if ids == _BACKGROUND:
            return 1 - prod(1 - float(s[i]) for s, i in zip(scores, self._background) if i >= 0)
        return prod(float(s[i]) for s, i in zip(scores, ids))

    def _event(self, event_id: int, ids: _Ids, start_ns: int) -> ActionEvent:
        """Return the STARTED event of a combination, with its score now."""
        assert self._joint is not None and self._stamp_ns is not None
        labels = [self._label(axis, i) for axis, i in enumerate(ids)]
        return ActionEvent(
            Phase.STARTED, event_id, labels[0], labels[1] if len(labels) > 1 else None,
            self._score(ids), start_ns, self._recent[-1].centre_ns, self._stamp_ns)

    def _label(self, axis: int, class_id: int) -> LabelScore:
        assert self._joint is not None
        score = float(self._joint.take(class_id, axis).sum())
        return LabelScore(class_id, self._names[axis][class_id], score)
