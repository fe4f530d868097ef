"""The publishers of a configured node."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from karmma_msgs.msg import ActionEvent, ActionRecognition, ModalityAvailability, ModelInfo
from karmma_ros.model.bundle import Bundle
from karmma_ros.node.log import NodeLog
from karmma_ros.node.messages import label_info_message, model_info_message, published_classes
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_LABEL_TOPICS = '~/verbs/label_info', '~/nouns/label_info'
# Events are rare, and each matters: one who reads slowly shall miss none.
_EVENTS_DEPTH = 50


class Outputs:
    """What is recognised, published while the node is active, and what the model is, latched."""

    def __init__(self, node: LifecycleNode) -> None:
        """Make the publishers; label maps only where vision_msgs is installed."""
        self._node = node
        self.recognition = node.create_lifecycle_publisher(
            ActionRecognition, 'action_recognition', 10)
        self.events = node.create_lifecycle_publisher(
            ActionEvent, '~/action_events', _EVENTS_DEPTH)
        self.availability = node.create_lifecycle_publisher(
            ModalityAvailability, '~/modality_availability', LATCHED)
        self._info = node.create_publisher(ModelInfo, '~/model_info', LATCHED)
        self._label_type = _label_info_type()
        if self._label_type is None:
            NodeLog(node).info(
                'vision_msgs has no LabelInfo here, or is not installed: no label_info is '
                'published; model_info has the class names')
        self._labels = [node.create_publisher(self._label_type, topic, LATCHED)
                        for topic in _LABEL_TOPICS if self._label_type]

    def describe(self, bundle: Bundle, device: str, threshold: float, now_ns: int) -> None:
        """Tell which model answers and what its classes are called."""
        self._info.publish(model_info_message(bundle, device, now_ns))
        for names, publisher in zip(published_classes(bundle.vocabulary), self._labels):
            publisher.publish(label_info_message(self._label_type, names, threshold, now_ns))

    def destroy(self) -> None:
        """Take all publishers down."""
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
