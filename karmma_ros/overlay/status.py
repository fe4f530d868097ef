"""
The recogniser's latest messages, and the view of them that is drawn.

Nothing here reads a clock: the caller passes `now_s`, from any clock that never jumps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from karmma_msgs.msg import ModalityStatus
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError, printable
from karmma_ros.modality import letter_of, Modality
from karmma_ros.node.messages import time_ns
from karmma_ros.overlay.drawing import Indicator, Label, SensorIndicator, View
from karmma_ros.stream.availability import ModalityState

_ENDED = 1
"""ActionEvent.ENDED."""
_RANKS = 3
"""Classes drawn of each head."""
_NAME_LENGTH, _DETAIL_LENGTH = 120, 500
_NAMES = {'rgb': 'camera', 'flow': 'flow', 'audio': 'audio', 'detections': 'detections'}
_INDICATORS = {
    ModalityState.DISABLED: Indicator.DISABLED, ModalityState.NEVER_RECEIVED: Indicator.OUT,
    ModalityState.STALE: Indicator.OUT, ModalityState.INSUFFICIENT: Indicator.OUT,
    ModalityState.INVALID: Indicator.INVALID, ModalityState.AVAILABLE: Indicator.UNUSED,
    ModalityState.UNINFORMATIVE: Indicator.UNINFORMATIVE,
}


class NodeStatus:
    """The newest message of each type, and when it was received."""

    def __init__(self, name: str = 'karmma') -> None:
        """Start without messages of the node called `name`."""
        self._name = name
        self._result: Any = None
        self._result_s = self._availability_s = float('-inf')
        self._availability: Any = None
        self._event: Any = None
        """The start of the action in progress."""
        self.state = ''
        """The node's lifecycle state; empty while it is not known."""

    def add_result(self, message: Any, now_s: float) -> None:
        """Store an ActionRecognition."""
        self._result, self._result_s = message, now_s

    def add_availability(self, message: Any, now_s: float) -> None:
        """Store a ModalityAvailability."""
        self._availability, self._availability_s = message, now_s

    def add_event(self, message: Any) -> None:
        """Store an ActionEvent."""
        self._event = None if message.phase == _ENDED else message

    def silence_s(self, now_s: float) -> float:
        """Return the time since the last ModalityAvailability, seconds."""
        return now_s - self._availability_s

    def view(
        self, now_s: float, result: Any = None, *, patience_s: float = 1.0,
        reason_length: int = 80, warning: str = '',
    ) -> View:
        """
        Return what to draw.

        :param result: the one that belongs to the image; None takes the newest, unless it
            was received longer than `patience_s` ago.
        :param reason_length: characters of the reason beside an indicator; 0 leaves it out.
        """
        if result is None and now_s - self._result_s <= patience_s:
            result = self._result
        if result is None:
            return View(self._idle_sensors(reason_length), warning=warning,
                        notice=f'no recognition: {self._reason(now_s)}')
        waited_s = max(now_s - self._result_s, 0.0) if result is self._result else 0.0
        action, action_s = self._action(result)
        contributions = _contributions(result)
        return View(
            tuple(replace(_sensor(s, reason_length, s.used),
                          contribution=contributions.get(s.name)) for s in result.modalities),
            tuple(_labels(scores) for scores in (result.verbs, result.nouns) if scores),
            notice='' if result.verbs or result.nouns else 'the model names no class',
            age_s=result.end_to_end_latency + waited_s if result.end_to_end_latency >= 0 else None,
            action=action, action_s=action_s, is_unknown=result.is_unknown, warning=warning)

    @property
    def _active(self) -> bool:
        """Return whether the node receives its inputs, as far as is known."""
        return self.state in ('', 'active')

    def _idle_sensors(self, reason_length: int) -> tuple[SensorIndicator, ...]:
        """Return the indicators without a result; all are off while the node is inactive."""
        statuses = self._availability.modalities if self._availability else ()
        if not self._active:
            return tuple(SensorIndicator(_letter(s.name), Indicator.DISABLED) for s in statuses)
        return tuple(_sensor(s, reason_length, used=False) for s in statuses)

    def _reason(self, now_s: float) -> str:
        if not self._active:
            return f'{self._name} is {printable(self.state, _NAME_LENGTH)}'
        if self._availability is None:
            return f'no message from {self._name} yet'
        if not self._availability.inference_possible:
            available = sum(s.state == ModalityStatus.AVAILABLE
                            for s in self._availability.modalities)
            return ('paused, or fewer sensors than min_modalities' if available
                    else 'no usable sensor')
        return 'no result yet' if self._result is None else (
            f'last result {now_s - self._result_s:.0f} s ago')

    def _action(self, result: Any) -> tuple[str, float]:
        """Return the action in progress, and its duration at the time of the result."""
        event = self._event
        if event is None:
            return '', 0.0
        duration_s = (time_ns(result.header.stamp) - time_ns(event.start)) / NANOSECONDS
        if duration_s < 0:  # a time jump: the event is of another run
            return '', 0.0
        name = f'{event.verb.class_name} {event.noun.class_name}'.strip()
        return printable(name, _NAME_LENGTH), duration_s


def _contributions(result: Any) -> dict[str, float]:
    """Return the part of the score of the best action that is lost without each input."""
    score = result.actions[0].score if result.actions else 0.0
    return {each.name: max(0.0, 1 - each.score / score) if score > 0 else 0.0
            for each in getattr(result, 'leave_one_out', ())}  # absent from older messages


def _labels(scores: Sequence[Any]) -> tuple[Label, ...]:
    return tuple(Label(printable(s.class_name, _NAME_LENGTH), s.score) for s in scores[:_RANKS])


def _sensor(status: Any, reason_length: int, used: bool) -> SensorIndicator:
    """Return the indicator of a ModalityStatus."""
    indicator = _INDICATORS.get(status.state, Indicator.INVALID)
    state = (ModalityState(status.state).label if status.state in _INDICATORS
             else f'in unknown state {status.state}')
    if indicator is Indicator.UNUSED:
        return SensorIndicator(_letter(status.name), Indicator.USED if used else indicator)
    reason = f'{_name(status.name)} {state}'
    if status.detail and indicator is not Indicator.DISABLED:
        reason += f': {printable(status.detail, _DETAIL_LENGTH)}'
    if len(reason) > reason_length:
        reason = reason[:max(reason_length - 1, 0)].rstrip() + '…' if reason_length else ''
    return SensorIndicator(_letter(status.name), indicator, reason)


def _letter(name: str) -> str:
    """Return the letter, and the first character of a suffix: `Vw` of `rgb_wrist`."""
    letter, _, suffix = letter_of(name).partition('_')
    return letter + suffix[:1]


def _name(name: str) -> str:
    """Return what an input is called: `camera`, `camera wrist`, `imu`."""
    try:
        own = Modality(name)
    except InvalidSettingError:  # of a package that is not installed here
        return printable(name, _NAME_LENGTH)
    return f'{_NAMES.get(own.type_name, own.type_name)} {own.suffix}'.rstrip().replace('_', ' ')
