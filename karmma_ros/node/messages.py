"""
The node's outputs: predictions, events and statuses as karmma_msgs, and their publishers.

Classes of karmma_msgs are named `msg.ActionEvent` and so on, apart from those they are
made of.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from builtin_interfaces.msg import Time
from karmma_msgs import msg
from karmma_ros.clip import NANOSECONDS
from karmma_ros.modality import Modality
from karmma_ros.model.bundle import Bundle
from karmma_ros.node.log import NodeLog
from karmma_ros.prediction import (
    action_heads,
    ActionScore,
    further_heads,
    LabelScore,
    NOUN,
    Prediction,
    VERB,
    Vocabulary,
)
from karmma_ros.stream.availability import ModalityStatus
from karmma_ros.stream.events import ActionEvent
from karmma_ros.stream.window import Window
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_LABEL_TOPICS = '~/verbs/label_info', '~/nouns/label_info'
_EVENTS_DEPTH = 50
"""Events are rare, and a slow subscriber shall miss none."""
_LATEST_NS = 2**31 * NANOSECONDS - 1
_MAX_LATENCY_S = 10.0
"""A higher end-to-end latency comes from a foreign clock."""
_MAX_COUNT = 2**32 - 1  # of a uint32
_NO_NOUN = LabelScore(-1, '', 0.0)
"""Of a model with one head."""


def time_message(time_ns: int) -> Time:
    """Return nanoseconds as builtin_interfaces/Time, which starts at zero and ends in 2038."""
    sec, nanosec = divmod(min(max(int(time_ns), 0), _LATEST_NS), NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def time_ns(message: Any) -> int:
    """Return builtin_interfaces/Time in nanoseconds."""
    return int(message.sec * NANOSECONDS + message.nanosec)


@dataclass(frozen=True)
class Publishing:
    """Parameters that results and events are published with."""

    top_k: int
    score_threshold: float
    subject_id: str
    model_id: str


def recognition_message(
    prediction: Prediction, window: Window, publishing: Publishing
) -> msg.ActionRecognition:
    """
    Return a result without sequence, frame_id and latencies, which the caller sets.

    Which heads of the model are in `verbs` and in `nouns` is decided by
    `prediction.action_heads`; `other_heads` has the others.
    """
    heads, top_k = tuple(prediction.vocabulary.heads), publishing.top_k
    verbs, nouns = _both([_labels(prediction, head, top_k) for head in action_heads(heads)])
    message = msg.ActionRecognition(
        header=Header(stamp=time_message(window.end_ns)),
        window_start=time_message(window.start_ns), window_end=time_message(window.end_ns),
        subject_id=publishing.subject_id, model_id=publishing.model_id,
        verbs=verbs, nouns=nouns,
        modalities=[status_message(s, s.modality in window.modalities)
                    for s in window.statuses],
        other_heads=[msg.HeadScores(head=head, labels=_labels(prediction, head, top_k))
                     for head in further_heads(heads)],
        unknown_score=prediction.unknown_score, is_unknown=prediction.is_unknown)
    message.actions = list(map(_action, prediction.top_actions(top_k)))
    if prediction.sets:
        message.prediction_sets = [
            msg.HeadScores(head=head, labels=list(map(_label, prediction.prediction_set(head))))
            for head in heads if head in prediction.sets]
    if prediction.without:
        message.leave_one_out = [_left_out(prediction, m) for m in prediction.without]
    best = [labels[0].score for labels in (verbs, nouns) if labels]
    message.above_threshold = min(best) >= publishing.score_threshold
    return message


def _both(parts: Sequence[list[Any]]) -> tuple[list[Any], list[Any]]:
    """Return what belongs to verbs and to nouns; nouns are empty for a model with one head."""
    return parts[0], (parts[1] if len(parts) > 1 else [])


def _action(action: ActionScore) -> msg.ActionScore:
    verb, noun = action.verb, action.noun or _NO_NOUN
    return msg.ActionScore(verb_id=verb.class_id, noun_id=noun.class_id, verb=verb.class_name,
                           noun=noun.class_name, score=action.score)


def _left_out(prediction: Prediction, modality: Modality) -> msg.LeaveOneOutScore:
    best, = prediction.without[modality].top_actions()
    return msg.LeaveOneOutScore(name=modality.value, score=prediction.score_without(modality),
                                action=_action(best))


def _labels(prediction: Prediction, head: str, k: int) -> list[msg.LabelScore]:
    return [_label(label) for label in prediction.top(head, k)]


def _label(label: LabelScore) -> msg.LabelScore:
    return msg.LabelScore(class_id=label.class_id, class_name=label.class_name, score=label.score)


def event_message(event: ActionEvent, publishing: Publishing, frame_id: str) -> msg.ActionEvent:
    """Return the message of an action that started or ended."""
    return msg.ActionEvent(
        header=Header(stamp=time_message(event.stamp_ns), frame_id=frame_id),
        phase=int(event.phase), event_id=event.event_id, subject_id=publishing.subject_id,
        verb=_label(event.verb), noun=_label(event.noun or _NO_NOUN), score=event.score,
        start=time_message(event.start_ns), end=time_message(event.end_ns),
        model_id=publishing.model_id)


def status_message(status: ModalityStatus, used: bool) -> msg.ModalityStatus:
    """Return one modality's status; `used` is true if the network used it in this result."""
    return msg.ModalityStatus(
        name=status.modality.value, state=int(status.state), used=used,
        last_stamp=time_message(status.last_stamp_ns),
        age=_seconds(status.age_ns), timeout=_seconds(status.timeout_ns),
        num_samples=int(status.num_samples), rate=float(status.rate),
        dropped=min(int(status.dropped), _MAX_COUNT),
        detail=status.detail)


def availability_message(
    statuses: Sequence[ModalityStatus], now_ns: int, possible: bool,
    used: Collection[Modality] = (),
) -> msg.ModalityAvailability:
    """Return every modality's state at node time `now_ns`."""
    return msg.ModalityAvailability(
        header=Header(stamp=time_message(now_ns)), inference_possible=possible,
        modalities=[status_message(s, s.modality in used) for s in statuses])


def heads_note(vocabulary: Vocabulary) -> str:
    """Return which head is published as what; empty for a model with verb and noun alone."""
    parts, others = action_heads(tuple(vocabulary.heads)), further_heads(tuple(vocabulary.heads))
    if parts == (VERB, NOUN) and not others:
        return ''
    text = f'verbs has the classes of head {parts[0]}, ' + (
        f'nouns those of {parts[1]}' if len(parts) > 1 else 'nouns is empty')
    return text + (f', other_heads those of {", ".join(others)}; actions, above_threshold, '
                   'action_events and label_info have verbs and nouns only' if others else '')


def label_info_message(
    message_type: Any, names: Sequence[str], threshold: float, now_ns: int,
) -> Any:
    """Return the classes of one head as vision_msgs/LabelInfo, `message_type`."""
    message = message_type(header=Header(stamp=time_message(now_ns)), threshold=threshold)
    vision_class = import_module('vision_msgs.msg').VisionClass
    message.class_map = [
        vision_class(class_id=i, class_name=name) for i, name in enumerate(names)]
    return message


def published_classes(vocabulary: Vocabulary) -> tuple[list[str], list[str]]:
    """Return the class names of `verbs` and of `nouns`, by class id."""
    return _both([list(vocabulary.heads[head]) for head in action_heads(tuple(vocabulary.heads))])


def model_info_message(bundle: Bundle, device: str, now_ns: int) -> msg.ModelInfo:
    """Return the description of the loaded model."""
    modalities, heads = bundle.network.modalities, bundle.vocabulary.heads
    verbs, nouns = published_classes(bundle.vocabulary)
    return msg.ModelInfo(
        header=Header(stamp=time_message(now_ns)), model_id=bundle.model_id,
        model_path=str(bundle.path), sha256=bundle.sha256, device=device,
        dataset=_trained_on(bundle),
        modalities=[m.value for m in modalities],
        verbs=verbs, nouns=nouns,
        num_frames=bundle.spec.num_frames, window_duration=bundle.spec.duration,
        audio_sample_rate=bundle.spec.audio.sample_rate if Modality.AUDIO in modalities else 0,
        other_heads=[msg.HeadClasses(head=head, classes=list(heads[head]))
                     for head in further_heads(tuple(heads))])


def _trained_on(bundle: Bundle) -> str:
    """Return the data set, and the licence if that forbids commercial use."""
    text, note = bundle.dataset, 'no commercial use'
    return text if bundle.commercial_use or note in text else f'{text}; {bundle.licence}: {note}'


def end_to_end_latency(stamp_ns: int, now_ns: int) -> float:
    """Return seconds from the newest sample to now; -1 where the stamps are of another clock."""
    latency = (now_ns - stamp_ns) / NANOSECONDS
    if abs(latency) > _MAX_LATENCY_S:
        return -1.0
    # Simulated time advances in steps: a stamp may be a little later than now.
    return max(latency, 0.0)


def _seconds(duration_ns: int) -> float:
    return -1.0 if duration_ns < 0 else duration_ns / NANOSECONDS


class Outputs:
    """Publishers of results, while the node is active, and of the model, latched."""

    def __init__(self, node: LifecycleNode) -> None:
        """Create the publishers; label maps only where vision_msgs is installed."""
        self._node = node
        self.recognition = node.create_lifecycle_publisher(
            msg.ActionRecognition, 'action_recognition', 10)
        self.events = node.create_lifecycle_publisher(
            msg.ActionEvent, '~/action_events', _EVENTS_DEPTH)
        self.availability = node.create_lifecycle_publisher(
            msg.ModalityAvailability, '~/modality_availability', LATCHED)
        self._info = node.create_publisher(msg.ModelInfo, '~/model_info', LATCHED)
        self._label_type = _label_info_type()
        if self._label_type is None:
            NodeLog(node).info(
                'vision_msgs is not installed, or has no LabelInfo: no label_info is published; '
                'model_info has the class names')
        self._labels = [node.create_publisher(self._label_type, topic, LATCHED)
                        for topic in _LABEL_TOPICS if self._label_type]

    def describe(self, bundle: Bundle, device: str, threshold: float, now_ns: int) -> None:
        """Publish which model is in use and its class names."""
        self._info.publish(model_info_message(bundle, device, now_ns))
        for names, publisher in zip(published_classes(bundle.vocabulary), self._labels):
            publisher.publish(label_info_message(self._label_type, names, threshold, now_ns))

    def destroy(self) -> None:
        """Destroy all publishers."""
        # `destroy_publisher` would leave these among the managed entities.
        for publisher in (self.recognition, self.events, self.availability):
            self._node.destroy_lifecycle_publisher(publisher)
        for publisher in (self._info, *self._labels):
            self._node.destroy_publisher(publisher)


def _label_info_type() -> Any:
    try:
        return import_module('vision_msgs.msg').LabelInfo
    except (ImportError, AttributeError):
        return None
