#!/usr/bin/env python3
"""
Speak when a person starts to wash something: an example to copy from.

Debounced: not again within `pause` seconds. Aware of the sensors: with the camera the action is
stated, with audio or boxes only it is a question.

    python3 react_to_action.py --ros-args -p verb:=cut -p pause:=30.0
"""

from karmma_msgs.msg import ActionEvent, ActionRecognition, ModalityStatus
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import String


class ReactToAction(Node):
    """Publish a sentence when an action of one verb starts."""

    def __init__(self, **options):
        super().__init__('react_to_action', **options)
        self.verb = self.declare_parameter('verb', 'wash').value
        self.pause_ns = round(self.declare_parameter('pause', 10.0).value * 1e9)
        self.spoken_ns = None
        self.used = set()
        self.publisher = self.create_publisher(String, 'say', 10)
        self.create_subscription(ActionRecognition, 'action_recognition', self.on_result, 10)
        self.create_subscription(ActionEvent, 'karmma/action_events', self.on_event, 50)

    def on_result(self, result):
        """Store which sensors the newest result rests on."""
        self.used = {modality.name for modality in result.modalities if modality.used}

    def on_event(self, event):
        """Speak once when the action starts; ignore ENDED and other verbs."""
        if event.phase != ActionEvent.STARTED or event.verb.class_name != self.verb:
            return
        now_ns = self.get_clock().now().nanoseconds
        # A bag that restarts sets the clock back; what was spoken before does not count.
        if self.spoken_ns is not None and 0 <= now_ns - self.spoken_ns < self.pause_ns:
            return
        self.spoken_ns = now_ns
        self.publisher.publish(String(data=self.sentence(event)))

    def sentence(self, event):
        """Return a statement if the camera was used, else a question."""
        action = event.verb.class_name
        if event.noun.class_name:  # a model with one head has no noun
            action += f' the {event.noun.class_name}'
        if ModalityStatus.RGB in self.used:
            return f'You {action}.'
        return f'Do you {action}?'


def main():
    rclpy.init()
    node = ReactToAction()
    try:
        # rclpy.spin() may sleep through a SIGTERM while no message comes.
        while rclpy.ok():
            rclpy.spin_once(node, timeout_sec=0.5)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
