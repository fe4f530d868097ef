#!/usr/bin/env python3
"""
Say something when somebody starts to wash something: an example to copy from.

Debounced: not again within `pause` seconds. Aware of the sensors: what the camera showed is
stated, what was only heard or guessed from boxes is asked.

    python3 react_to_action.py --ros-args -p verb:=cut -p pause:=30.0
"""

from karmma_msgs.msg import ActionEvent, ActionRecognition, ModalityStatus
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import String


class ReactToAction(Node):
    """Turn one kind of action into words on the topic `say`."""

    def __init__(self, **options):
        super().__init__('react_to_action', **options)
        self.verb = self.declare_parameter('verb', 'wash').value
        self.pause_ns = round(self.declare_parameter('pause', 10.0).value * 1e9)
        self.said_ns = None
        self.used = set()
        self.say = self.create_publisher(String, 'say', 10)
        self.create_subscription(ActionRecognition, 'action_recognition', self.note, 10)
        self.create_subscription(ActionEvent, 'karmma/action_events', self.react, 50)

    def note(self, result):
        """Remember which sensors the newest result rests on."""
        self.used = {modality.name for modality in result.modalities if modality.used}

    def react(self, event):
        """Say it once when the action starts; ENDED and other verbs are nothing to us."""
        if event.phase != ActionEvent.STARTED or event.verb.class_name != self.verb:
            return
        now_ns = self.get_clock().now().nanoseconds
        # A bag that starts anew takes the clock back; what was said then does not count.
        if self.said_ns is not None and 0 <= now_ns - self.said_ns < self.pause_ns:
            return
        self.said_ns = now_ns
        self.say.publish(String(data=self.words(event)))

    def words(self, event):
        """State what was seen, ask about the rest."""
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
