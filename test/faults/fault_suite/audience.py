"""One who listens to all that the node says, and may ask it for something."""

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
class DetectedAction:
    """A message and the moment of its receipt, time.monotonic()."""

    time: float
    message: Any


class DemoMonitor:
    """Subscriptions to the node's topics; everything heard is kept."""

    def __init__(self) -> None:
        self.node = rclpy.create_node('audience')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self.results: list[DetectedAction] = []
        self.availabilities: list[DetectedAction] = []
        self.diagnostics: list[DetectedAction] = []
        self.infos: list[DetectedAction] = []
        self._listen(ActionRecognition, 'action_recognition', self.results, 50)
        self._listen(ModalityAvailability, 'karmma/modality_availability', self.availabilities,
                     LATCHED)
        self._listen(ModelInfo, 'karmma/model_info', self.infos, LATCHED)
        self._listen(DiagnosticArray, '/diagnostics', self.diagnostics, 10)

    def _listen(self, kind: type, topic: str, heard: list[DetectedAction], qos: Any) -> None:
        self.node.create_subscription(
            kind,
            topic,
            lambda message: heard.append(DetectedAction(time.monotonic(), message)),
            qos,
        )

    def close(self) -> None:
        """Leave."""
        self._executor.shutdown()
        self.node.destroy_node()

    def until(
        self, condition: Callable[[], Any], limit_s: float = 20.0,
        step: Callable[[], None] = lambda: None,
    ) -> bool:
        """Listen, calling `step` all the time, until the condition holds; tell whether it did."""
        deadline = time.monotonic() + limit_s
        while True:
            if condition():
                return True
            if time.monotonic() >= deadline:
                return False
            step()
            self._executor.spin_once(timeout_sec=0.01)

    def listen(self, seconds: float) -> None:
        """Listen for a while."""
        self.until(lambda: False, seconds)

    def result(self, limit_s: float = 30.0) -> DetectedAction | None:
        """Wait for a result that is new; None if none comes."""
        before = len(self.results)
        self.until(lambda: len(self.results) > before, limit_s)
        return self.results[-1] if len(self.results) > before else None

    def result_with(self, *names: str, limit_s: float = 30.0) -> DetectedAction | None:
        """Wait for a new result that rests on just these inputs."""
        before = len(self.results)
        wanted = list(names)
        if self.until(lambda: any(used(h.message) == wanted for h in self.results[before:]),
                      limit_s):
            return next(h for h in self.results[before:] if used(h.message) == wanted)
        return None

    def status(self, part: str) -> Any:
        """Return the newest diagnostic status of a part of the node; None before there is one."""
        for heard in reversed(self.diagnostics):
            for status in heard.message.status:
                if status.name == f'karmma: {part}':
                    return status
        return None

    def ask(self, kind: type, service: str, request: Any, limit_s: float = 20.0) -> Any:
        """Call a service of the node and give its answer; None when none comes."""
        client = self.node.create_client(kind, service)
        try:
            if not self.until(client.service_is_ready, limit_s):
                return None
            future = client.call_async(request)
            return future.result() if self.until(future.done, limit_s) else None
        finally:
            self.node.destroy_client(client)

    def change(self, transition: str, limit_s: float = 60.0) -> bool:
        """Ask for a transition of the lifecycle; tell whether it succeeded."""
        answer = self.ask(ChangeState, 'karmma/change_state', ChangeState.Request(
            transition=Transition(id=TRANSITIONS[transition])), limit_s)
        return bool(answer and answer.success)

    def begin(self, transition: str, limit_s: float = 20.0) -> None:
        """Ask for a transition and do not wait for the answer."""
        client = self.node.create_client(ChangeState, 'karmma/change_state')
        if self.until(client.service_is_ready, limit_s):
            client.call_async(ChangeState.Request(
                transition=Transition(id=TRANSITIONS[transition])))

    def state(self, limit_s: float = 20.0) -> str:
        """Ask for the state of the lifecycle; empty when there is no answer."""
        answer = self.ask(GetState, 'karmma/get_state', GetState.Request(), limit_s)
        return answer.current_state.label if answer else ''

    def set_parameter(self, name: str, value: Any) -> Any:
        """Set a parameter; give the answer with successful and reason, None without any."""
        answer = self.ask(SetParameters, 'karmma/set_parameters', SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]))
        return answer.results[0] if answer else None

    def parameter(self, name: str) -> str:
        """Ask for a parameter that is a text; empty when there is no answer."""
        answer = self.ask(GetParameters, 'karmma/get_parameters', GetParameters.Request(
            names=[name]))
        return answer.values[0].string_value if answer else ''


@contextmanager
def audience() -> Iterator[DemoMonitor]:
    """Listen during a block."""
    made = DemoMonitor()
    try:
        yield made
    finally:
        made.close()


def used(result: ActionRecognition) -> list[str]:
    """Return the names of the inputs that a result rests on."""
    return [status.name for status in result.modalities if status.used]


def repeated(results: list[DetectedAction]) -> int:
    """Count results with a window that ended where another one's did, by one run of the node."""
    ends = [time_ns(heard.message.window_end) for heard in results]
    return len(ends) - len(set(ends))
