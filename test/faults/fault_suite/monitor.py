"""A subscriber to all topics of the node and a client of its services."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from karmma_msgs.msg import ActionRecognition, ModalityAvailability, ModelInfo
from karmma_ros.node.messages import time_ns
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import GetParameters, SetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE, 'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE, 'cleanup': Transition.TRANSITION_CLEANUP,
}


@dataclass(frozen=True)
class ReceivedMessage:
    """A message and the time of its receipt, time.monotonic()."""

    time: float
    message: Any


class NodeMonitor:
    """Subscriptions to the node's topics; every message is stored."""

    def __init__(self) -> None:
        self.node = rclpy.create_node('monitor')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self.results: list[ReceivedMessage] = []
        self.availabilities: list[ReceivedMessage] = []
        self.diagnostics: list[ReceivedMessage] = []
        self.infos: list[ReceivedMessage] = []
        self._subscribe(ActionRecognition, 'action_recognition', self.results, 50)
        self._subscribe(ModalityAvailability, 'karmma/modality_availability', self.availabilities,
                     LATCHED)
        self._subscribe(ModelInfo, 'karmma/model_info', self.infos, LATCHED)
        self._subscribe(DiagnosticArray, '/diagnostics', self.diagnostics, 10)

    def _subscribe(
        self, message_type: type, topic: str, received: list[ReceivedMessage], qos: Any
    ) -> None:
        self.node.create_subscription(
            message_type,
            topic,
            lambda message: received.append(ReceivedMessage(time.monotonic(), message)),
            qos,
        )

    def close(self) -> None:
        """Destroy the node."""
        self._executor.shutdown()
        self.node.destroy_node()

    def spin_until(
        self, condition: Callable[[], Any], limit_s: float = 20.0,
        step: Callable[[], None] = lambda: None,
    ) -> bool:
        """Spin, calling `step` repeatedly, until the condition holds; return whether it did."""
        deadline = time.monotonic() + limit_s
        while True:
            if condition():
                return True
            if time.monotonic() >= deadline:
                return False
            step()
            self._executor.spin_once(timeout_sec=0.01)

    def spin(self, seconds: float) -> None:
        """Spin for some seconds."""
        self.spin_until(lambda: False, seconds)

    def result(self, limit_s: float = 30.0) -> ReceivedMessage | None:
        """Wait for a result that is new; None if none comes."""
        before = len(self.results)
        self.spin_until(lambda: len(self.results) > before, limit_s)
        return self.results[-1] if len(self.results) > before else None

    def result_with(self, *names: str, limit_s: float = 30.0) -> ReceivedMessage | None:
        """Wait for a new result that uses exactly these inputs."""
        before = len(self.results)
        wanted = list(names)
        if self.spin_until(lambda: any(used(h.message) == wanted for h in self.results[before:]),
                      limit_s):
            return next(h for h in self.results[before:] if used(h.message) == wanted)
        return None

    def status(self, part: str) -> Any:
        """Return the newest diagnostic status of a part of the node; None before there is one."""
        for received in reversed(self.diagnostics):
            for status in received.message.status:
                if status.name == f'karmma: {part}':
                    return status
        return None

    def call(self, message_type: type, service: str, request: Any, limit_s: float = 20.0) -> Any:
        """Call a service of the node and return its response; None when there is none."""
        client = self.node.create_client(message_type, service)
        try:
            if not self.spin_until(client.service_is_ready, limit_s):
                return None
            future = client.call_async(request)
            return future.result() if self.spin_until(future.done, limit_s) else None
        finally:
            self.node.destroy_client(client)

    def change(self, transition: str, limit_s: float = 60.0) -> bool:
        """Request a transition of the lifecycle; return whether it succeeded."""
        response = self.call(ChangeState, 'karmma/change_state', ChangeState.Request(
            transition=Transition(id=TRANSITIONS[transition])), limit_s)
        return bool(response and response.success)

    def begin(self, transition: str, limit_s: float = 20.0) -> None:
        """Request a transition without waiting for the response."""
        client = self.node.create_client(ChangeState, 'karmma/change_state')
        if self.spin_until(client.service_is_ready, limit_s):
            client.call_async(ChangeState.Request(
                transition=Transition(id=TRANSITIONS[transition])))

    def state(self, limit_s: float = 20.0) -> str:
        """Return the state of the lifecycle; empty when there is no response."""
        response = self.call(GetState, 'karmma/get_state', GetState.Request(), limit_s)
        return response.current_state.label if response else ''

    def set_parameter(self, name: str, value: Any) -> Any:
        """Set a parameter; return the response, None without any."""
        response = self.call(SetParameters, 'karmma/set_parameters', SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]))
        return response.results[0] if response else None

    def parameter(self, name: str) -> str:
        """Return a parameter that is a text; empty when there is no response."""
        response = self.call(GetParameters, 'karmma/get_parameters', GetParameters.Request(
            names=[name]))
        return response.values[0].string_value if response else ''


@contextmanager
def node_monitor() -> Iterator[NodeMonitor]:
    """Run a monitor during a block."""
    monitor = NodeMonitor()
    try:
        yield monitor
    finally:
        monitor.close()


def used(result: ActionRecognition) -> list[str]:
    """Return the names of the inputs that a result uses."""
    return [status.name for status in result.modalities if status.used]


def repeated(results: list[ReceivedMessage]) -> int:
    """Count results with a window that ended where another one's did, by one run of the node."""
    ends = [time_ns(received.message.window_end) for received in results]
    return len(ends) - len(set(ends))
