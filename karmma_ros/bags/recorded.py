"""The recorded predictions of a node in a bag, compared with ours for the same windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from karmma_ros.bags.bag_run import RecordedComparison
from karmma_ros.bags.message_definitions import Topic
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.simulated_node import RecordedWindow
from karmma_ros.clip import NANOSECONDS
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.model.bundle import Bundle
from karmma_ros.prediction import action_heads, NOUN, VERB
import numpy as np

_LATER_FIELDS = tuple(bytes(count) for count in range(4, 24, 4))
"""
What older messages may lack at their end: the lengths of `other_heads`, `leave_one_out` and
`prediction_sets`, and between them `unknown_score` and `is_unknown`, aligned. All of it is zero.
"""
TOLERANCE = 1e-3
"""Scores that differ by less are equal: batches and threads round differently."""


@dataclass(frozen=True)
class RecordedPrediction:
    """One prediction of the recorded node."""

    window: RecordedWindow
    used: frozenset[str]
    """Names of the modalities that were used."""
    scores: Mapping[str, Mapping[int, float]]
    """Head → class id → score, of the best classes."""
    model_id: str


@dataclass(frozen=True)
class RecordedPredictions:
    """The recorded predictions of a bag."""

    topic: str
    """'' without such a topic."""
    predictions: tuple[RecordedPrediction, ...]
    unreadable: int = 0
    """Number of messages that cannot be read."""


def read_recorded(
    bag: Bag, topic: Topic | None, heads: Sequence[str] = (VERB, NOUN)
) -> RecordedPredictions:
    """
    Read the predictions that a node published while the bag was recorded.

    :param heads: of the model, in its order.
    """
    if topic is None:
        return RecordedPredictions('', ())
    try:
        read = bag.reader(topic)
    except ValueError:
        return RecordedPredictions(topic.name, (), topic.count)
    predictions, unreadable = [], 0
    for _, received_ns, data in bag.messages([topic]):
        try:
            predictions.append(recorded_prediction(_message(read, data), received_ns, heads))
        except (ValueError, AttributeError, TypeError):
            unreadable += 1
    return RecordedPredictions(topic.name, tuple(predictions), unreadable)


def _message(read: Callable[[bytes], Any], data: bytes) -> Any:
    """
    Read a message of the current layout, or of one whose last fields were not added yet.

    The others are needed only for a bag without the definitions of its types.
    """
    padded = bytes(data) + bytes(-len(data) % 4)
    for each in (data, *(padded + missing for missing in _LATER_FIELDS[:-1])):
        try:
            return read(each)
        except ValueError:
            continue
    return read(padded + _LATER_FIELDS[-1])


def recorded_prediction(
    message: Any, received_ns: int, heads: Sequence[str] = (VERB, NOUN)
) -> RecordedPrediction:
    """
    Convert a karmma_msgs/ActionRecognition of rclpy or of the rosbags library.

    :param heads: of the model, in its order.
    """
    end_ns = _ns(message.window_end)
    age_s = message.end_to_end_latency - message.inference_latency
    inference_ns = end_ns + round(age_s * NANOSECONDS) if age_s >= 0 else 0
    newest_ns = {str(status.name): _ns(status.last_stamp) for status in message.modalities}
    used = frozenset(str(status.name) for status in message.modalities if status.used)
    others = {str(each.head): each.labels for each in getattr(message, 'other_heads', ())}
    parts = dict(zip(action_heads(heads), (message.verbs, message.nouns)))
    return RecordedPrediction(
        RecordedWindow(end_ns, inference_ns, received_ns, newest_ns),
        used,
        {head: {int(s.class_id): float(s.score) for s in labels}
         for head, labels in {**others, **parts}.items()},
        str(message.model_id))


def _ns(time: Any) -> int:
    return int(time.sec * NANOSECONDS + time.nanosec)


def compare_recorded(
    recorded: RecordedPredictions, predictions: BagPredictions, bundle: Bundle
) -> RecordedComparison | None:
    """
    Compare recorded predictions with ours for the same windows; None without any.

    Windows are the same if they have the same end; predictions, if they use the same sensors and
    no score differs by more than `TOLERANCE`. Predictions of another model, and those without any
    class, are counted separately.
    """
    if not recorded.topic:
        return None
    own = [each for each in recorded.predictions if each.model_id == bundle.model_id]
    same_windows = [each for each in matches(own, predictions) if each is not None]
    same_sensors = [each for each in same_windows if each['sensors']]
    return RecordedComparison(
        topic=recorded.topic,
        predictions=len(recorded.predictions),
        unreadable=recorded.unreadable,
        of_another_model=len(recorded.predictions) - len(own),
        models=sorted({each.model_id for each in recorded.predictions}),
        without_classes=sum(not any(each.scores.values()) for each in own),
        same_window=len(same_windows),
        same_sensors=len(same_sensors),
        same_prediction=sum(each['difference'] <= TOLERANCE for each in same_sensors),
        same_best=sum(each['best'] for each in same_windows),
        largest_difference=max((e['difference'] for e in same_sensors
                                if isfinite(e['difference'])), default=0.0),
        tolerance=TOLERANCE)


def matches(
    recorded: Sequence[RecordedPrediction], predictions: BagPredictions
) -> list[dict[str, Any] | None]:
    """Compare each recorded prediction with ours; None where we have no such window."""
    rows = {int(end): row for row, end in enumerate(predictions.end_ns)}
    return [_compare(each, predictions, rows.get(each.window.end_ns)) for each in recorded]


def _compare(
    recorded: RecordedPrediction, predictions: BagPredictions, row: int | None
) -> dict[str, Any] | None:
    if row is None:
        return None
    differences: list[float] = []
    best = any(recorded.scores.values())
    for head, scores in recorded.scores.items():
        ours = predictions.probabilities.get(head)
        if ours is None or not scores:
            continue
        differences += [abs(float(ours[row, i]) - score) if 0 <= i < ours.shape[1] else inf
                        for i, score in scores.items()]
        best &= int(np.argmax(ours[row])) == max(scores, key=lambda i: scores[i])
    used = {m.value for m, has in zip(predictions.modalities, predictions.present[row]) if has}
    return {'sensors': used == recorded.used,
            'difference': max(differences, default=inf), 'best': best}
