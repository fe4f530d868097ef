"""
What the recognising node has said of late, as something to draw.

Nothing here reads a clock: the caller passes `now_s`, from any clock that never jumps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from karmma_msgs.msg import ModalityStatus
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError, printable
from karmma_ros.modality import Modality
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
}


class NodeStatus:
    """Keep the newest of each kind of message, and when it came."""

    def __init__(self, name: str = 'karmma') -> None:
        """Listen to what the node called `name` says."""
        self._name = name
        self._result: Any = None
        self._result_s = self._availability_s = float('-inf')
        self._availability: Any = None
        self._running: Any = None
        self.state = ''
        """Of the node's lifecycle; empty while it is not known."""

    def hear_result(self, message: Any, now_s: float) -> None:
        """Take an ActionRecognition."""
        self._result, self._result_s = message, now_s

    def hear_availability(self, message: Any, now_s: float) -> None:
        """Take a ModalityAvailability."""
        self._availability, self._availability_s = message, now_s

    def hear_event(self, message: Any) -> None:
        """Take an ActionEvent."""
        self._running = None if message.phase == _ENDED else message

    def silent_s(self, now_s: float) -> float:
        """Return how long the node has said nothing about its inputs, seconds."""
        return now_s - self._availability_s

    def view(
        self, now_s: float, result: Any = None, *, patience_s: float = 1.0,
        reason_length: int = 80, warning: str = '',
    ) -> View:
        """
        Say what there is to draw.

        :param result: the one that belongs to the picture; None takes the newest, unless it
            came longer than `patience_s` ago.
        :param reason_length: characters of the words beside a lamp; 0 leaves them out.
        """
        if result is None and now_s - self._result_s <= patience_s:
            result = self._result
        if result is None:
            return View(self._idle_sensors(reason_length), warning=warning,
                        notice=f'no recognition: {self._reason(now_s)}')
        waited_s = max(now_s - self._result_s, 0.0) if result is self._result else 0.0
        running, running_s = self._under_way(result)
        return View(
            tuple(_sensor(s, reason_length, s.used) for s in result.modalities),
            tuple(_labels(scores) for scores in (result.verbs, result.nouns) if scores),
            notice='' if result.verbs or result.nouns else 'the model names no class',
            age_s=result.end_to_end_latency + waited_s if result.end_to_end_latency >= 0 else None,
            running=running, running_s=running_s, warning=warning)

    @property
    def _listens(self) -> bool:
        """Return whether the node looks after its inputs, as far as is known."""
        return self.state in ('', 'active')

    def _idle_sensors(self, reason_length: int) -> tuple[SensorIndicator, ...]:
        """Return the lamps while there is no answer; all are off while the node is inactive."""
        statuses = self._availability.modalities if self._availability else ()
        if not self._listens:
            return tuple(SensorIndicator(_letter(s.name), Indicator.DISABLED) for s in statuses)
        return tuple(_sensor(s, reason_length, used=False) for s in statuses)

    def _reason(self, now_s: float) -> str:
        if not self._listens:
            return f'{self._name} is {printable(self.state, _NAME_LENGTH)}'
        if self._availability is None:
            return f'{self._name} has said nothing yet'
        if not self._availability.inference_possible:
            available = sum(s.state == ModalityStatus.AVAILABLE
                            for s in self._availability.modalities)
            return ('paused, or fewer sensors than min_modalities' if available
                    else 'no sensor can be used')
        return 'no result has come' if self._result is None else (
            f'the last result came {now_s - self._result_s:.0f} s ago')

    def _under_way(self, result: Any) -> tuple[str, float]:
        """Name the action that runs and how long it had when the result was made."""
        event = self._running
        if event is None:
            return '', 0.0
        lasts_s = (time_ns(result.header.stamp) - time_ns(event.start)) / NANOSECONDS
        if lasts_s < 0:  # time has jumped back: it belongs to another run
            return '', 0.0
        return printable(
            f'{event.verb.class_name} {event.noun.class_name}'.strip(), _NAME_LENGTH), lasts_s


def _labels(scores: Sequence[Any]) -> tuple[Label, ...]:
    return tuple(Label(printable(s.class_name, _NAME_LENGTH), s.score) for s in scores[:_RANKS])


def _sensor(status: Any, reason_length: int, used: bool) -> SensorIndicator:
    """Return the lamp of a ModalityStatus."""
    lamp = _INDICATORS.get(status.state, Indicator.INVALID)
    state = (ModalityState(status.state).label if status.state in _INDICATORS
             else f'in unknown state {status.state}')
    if lamp is Indicator.UNUSED:
        return SensorIndicator(_letter(status.name), Indicator.USED if used else lamp)
    reason = f'{_NAMES.get(status.name, printable(status.name, _NAME_LENGTH))} {state}'
    if status.detail and lamp is not Indicator.DISABLED:
        reason += f': {printable(status.detail, _DETAIL_LENGTH)}'
    if len(reason) > reason_length:
        reason = reason[:max(reason_length - 1, 0)].rstrip() + '…' if reason_length else ''
    return SensorIndicator(_letter(status.name), lamp, reason)


def _letter(name: str) -> str:
    """Return the paper's letter, or that of a modality of a later version."""
    try:
        return Modality.parse(name).letter
    except InvalidSettingError:
        return printable(name[:1]).upper() or '?'
