"""Print recognitions, events and changes of the sensors: `python -m karmma_ros.node.watch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
import sys
from typing import Any

from karmma_msgs.msg import ActionEvent, ActionRecognition, ModalityAvailability
from karmma_ros.errors import printable
from karmma_ros.modality import letter_of
from karmma_ros.node.__main__ import run
from karmma_ros.stream.availability import ModalityState
import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile


def seconds(stamp: Any) -> float:
    """Return builtin_interfaces/Time in seconds."""
    return stamp.sec + stamp.nanosec * 1e-9


def modality_mask(statuses: Sequence[Any]) -> str:
    """Return which modalities a result rests on: `V F - D`."""
    return ' '.join(letter_of(s.name) if s.used else '-' for s in statuses)


def best_action(message: Any) -> tuple[str, float]:
    """Return the words and the score of the best action of an ActionRecognition."""
    best = [labels[0] for labels in (message.verbs, message.nouns) if labels]
    if not best:
        return '(no class in this message)', 0.0
    return ' '.join(label.class_name for label in best), prod(label.score for label in best)


def recognition_line(message: Any, start_s: float) -> str:
    """
    Return time, sensors, best action, score, latency and other heads of a result.

    If it is unknown, and what it would be without each input, come last.
    """
    action, score = best_action(message)
    latency = message.end_to_end_latency
    late = f'{latency * 1e3:4.0f} ms' if latency >= 0 else '   ? ms'
    return (
        f'{seconds(message.header.stamp) - start_s:6.1f} s  {modality_mask(message.modalities)}  '
        f'{action:<24} {score:4.2f}  {late}'
        + ''.join(
            f'  {other.head}: {other.labels[0].class_name} {other.labels[0].score:.2f}'
            for other in message.other_heads
            if other.labels
        )
        + ('  unknown action' if message.is_unknown else '')
        + leave_one_out(message)
    )


def leave_one_out(message: Any) -> str:
    """Return the score without each input, and the best action if it is another; or ''."""
    own = message.actions[0] if message.actions else None
    parts = []
    for each in getattr(message, 'leave_one_out', ()):  # of messages that were built earlier
        part = f'{letter_of(each.name)} {each.score:.2f}'
        if own and (each.action.verb_id, each.action.noun_id) != (own.verb_id, own.noun_id):
            part += f' ({" ".join(filter(None, (each.action.verb, each.action.noun)))})'
        parts.append(part)
    return f'  without {", ".join(parts)}' if parts else ''


def event_line(message: Any, start_s: float) -> str:
    """Return what started or ended, and when."""
    ended = message.phase == ActionEvent.ENDED
    what, when = ('ended', message.end) if ended else ('started', message.start)
    action = f'{message.verb.class_name} {message.noun.class_name}'.rstrip()
    return f'{seconds(when) - start_s:6.1f} s  {action} {what} ({message.score:.2f})'


class Changes:
    """Turn availability messages into one line for each modality whose state changed."""

    def __init__(self) -> None:
        self._states: dict[str, int] = {}

    def lines(self, message: Any) -> list[str]:
        """Return what changed since the last message, with the reason."""
        changed = [s for s in message.modalities if self._states.get(s.name) != s.state]
        self._states.update((s.name, s.state) for s in changed)
        return [
            f'{s.name}: {_label(s.state)}' + (f' ({s.detail})' if s.detail else '')
            for s in changed
        ]


def _label(state: int) -> str:
    """Return the name of a state, which a node of a later version may have added."""
    try:
        return ModalityState(state).label
    except ValueError:
        return f'unknown state {state}'


def subscribe(
    node: Node, on_recognition: Callable[[Any], None], on_availability: Callable[[Any], None],
    name: str = 'karmma',
) -> None:
    """Subscribe to what the node called `name` publishes."""
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(ActionRecognition, 'action_recognition', on_recognition, 10)
    node.create_subscription(
        ModalityAvailability, f'{name}/modality_availability', on_availability, latched)


class Watch:
    """Print messages as they arrive."""

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._changes = Changes()

    def recognition(self, message: Any) -> None:
        """Print a result; times count from the first one."""
        if self._start_s is None:
            self._start_s = seconds(message.header.stamp)
        _print(recognition_line(message, self._start_s))

    def event(self, message: Any) -> None:
        """Print that an action started or ended; no event comes before a result."""
        _print(event_line(message, self._start_s or 0.0))

    def availability(self, message: Any) -> None:
        """Print what changed."""
        for line in self._changes.lines(message):
            _print(f'          {line}')


def _print(line: str) -> None:
    print(printable(line, 500), flush=True)


def _watch_node() -> Node:
    node, watch = rclpy.create_node('karmma_watch'), Watch()
    subscribe(node, watch.recognition, watch.availability)
    node.create_subscription(ActionEvent, 'karmma/action_events', watch.event, 50)
    return node


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until SIGINT or SIGTERM."""
    return run('watch', 'Print recognitions, events and changes of the sensors.', _watch_node,
               arguments)


if __name__ == '__main__':
    sys.exit(main())
