"""The node's own answers in a bag, held against what the same windows give here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from karmma_ros.bags.reader import Bag, Topic
from karmma_ros.bags.replay import RecordedWindow
from karmma_ros.clip import NANOSECONDS
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.modality import Modality
from karmma_ros.model.bundle import Bundle
from karmma_ros.prediction import action_heads, NOUN, VERB
import numpy as np

_NO_OTHER_HEADS = bytes(7)
"""Padding and length of an empty array: completes a message from before `other_heads`."""
TOLERANCE = 1e-3
"""Scores that differ by less are the same: batches and threads round differently."""


@dataclass(frozen=True)
class RecordedPrediction:
    """One recorded answer."""

    asked: RecordedWindow
    """The window."""
    used: tuple[bool, ...]
    """Of rgb, flow, audio, detections."""
    scores: Mapping[str, Mapping[int, float]]
    """Head → class id → score, of the best few."""
    model_id: str


@dataclass(frozen=True)
class RecordedPredictions:
    """All of a bag."""

    topic: str
    found: tuple[RecordedPrediction, ...]
    unread: int = 0

    @property
    def asked(self) -> list[RecordedWindow]:
        """Return the windows, in the order of the answers."""
        return [echo.asked for echo in self.found]


def read_recorded(
    bag: Bag, topic: Topic | None, heads: Sequence[str] = (VERB, NOUN)
) -> RecordedPredictions:
    """
    Read what a node published while the bag was recorded.

    :param heads: of the model, in its order.
    """
    if topic is None:
        return RecordedPredictions('', ())
    try:
        read = bag.reader(topic)
    except ValueError:
        return RecordedPredictions(topic.name, (), topic.count)
    found, unread = [], 0
    for _, received_ns, data in bag.messages([topic]):
        try:
            found.append(recorded_prediction(_message(read, data), received_ns, heads))
        except (ValueError, AttributeError, TypeError):
            unread += 1
    return RecordedPredictions(topic.name, tuple(found), unread)


def _message(read: Callable[[bytes], Any], data: bytes) -> Any:
    """
    Read a message of the present layout, or of the one without `other_heads`.

    Only a bag that does not contain the definitions of its types needs the second.
    """
    try:
        return read(data)
    except ValueError:
        return read(bytes(data) + _NO_OTHER_HEADS)


def recorded_prediction(
    message: Any, received_ns: int, heads: Sequence[str] = (VERB, NOUN)
) -> RecordedPrediction:
    """
    Read a karmma_msgs/ActionRecognition, rclpy's or the rosbags library's.

    :param heads: of the model, in its order.
    """
    end_ns = _ns(message.window_end)
    age_s = message.end_to_end_latency - message.inference_latency
    inference_ns = end_ns + round(age_s * NANOSECONDS) if age_s >= 0 else 0
    newest_ns = {str(status.name): _ns(status.last_stamp) for status in message.modalities}
    used = {status.name: bool(status.used) for status in message.modalities}
    others = {str(each.head): each.labels for each in getattr(message, 'other_heads', ())}
    parts = dict(zip(action_heads(heads), (message.verbs, message.nouns)))
    return RecordedPrediction(
        RecordedWindow(end_ns, inference_ns, received_ns, newest_ns),
        tuple(used.get(m.value, False) for m in Modality),
        {head: {int(s.class_id): float(s.score) for s in labels}
         for head, labels in {**others, **parts}.items()},
        str(message.model_id))


def _ns(time: Any) -> int:
    return int(time.sec * NANOSECONDS + time.nanosec)


def compare_recorded(
    echoes: RecordedPredictions, answers: BagPredictions, bundle: Bundle
) -> dict[str, Any] | None:
    """
    Hold recorded answers against ours to the same windows; JSON-ready, None without any.

    A window is the same when it has the same end; an answer, when it rests on the same sensors
    and no score differs by `TOLERANCE`. Answers of another model, and those without any class,
    are counted apart.
    """
    if not echoes.topic:
        return None
    own = [echo for echo in echoes.found if echo.model_id == bundle.model_id]
    same_windows = [each for each in matches(own, answers) if each is not None]
    same_sensors = [each for each in same_windows if each['sensors']]
    return {
        'topic': echoes.topic,
        'answers': len(echoes.found),
        'unreadable': echoes.unread,
        'of_another_model': len(echoes.found) - len(own),
        'models': sorted({echo.model_id for echo in echoes.found}),
        'without_classes': sum(not any(echo.scores.values()) for echo in own),
        'same_window': len(same_windows),
        'same_sensors': len(same_sensors),
        'same_answer': sum(each['difference'] <= TOLERANCE for each in same_sensors),
        'same_best': sum(each['best'] for each in same_windows),
        'largest_difference': max((e['difference'] for e in same_sensors
                                   if isfinite(e['difference'])), default=0.0),
        'tolerance': TOLERANCE,
    }


def _compare(
    echo: RecordedPrediction, answers: BagPredictions, row: int | None
) -> dict[str, Any] | None:
    if row is None:
        return None
    differences: list[float] = []
    best = any(echo.scores.values())
    for head, scores in echo.scores.items():
        ours = answers.probabilities.get(head)
        if ours is None or not scores:
            continue
        differences += [abs(float(ours[row, i]) - score) if 0 <= i < ours.shape[1] else inf
                        for i, score in scores.items()]
        best &= int(np.argmax(ours[row])) == max(scores, key=lambda i: scores[i])
    return {'sensors': tuple(map(bool, answers.present[row])) == echo.used,
            'difference': max(differences, default=inf), 'best': best}


def matches(
    echoes: Sequence[RecordedPrediction], answers: BagPredictions
) -> list[dict[str, Any] | None]:
    """Return for each recorded answer how it compares; None where we have no such window."""
    ours = {int(end): row for row, end in enumerate(answers.end_ns)}
    return [_compare(echo, answers, ours.get(echo.asked.end_ns)) for echo in echoes]
