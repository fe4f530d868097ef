"""
The lifecycle node `karmma`.

configure loads and warms up the model, activate starts inputs and worker, deactivate
stops and joins them, cleanup frees everything. No transition lets an exception out:
rclpy would swallow it without a word, so it is logged here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

from karmma_msgs.msg import ActionRecognition, ModalityAvailability, ModelInfo
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import KarmmaError
from karmma_ros.modality import Modality
from karmma_ros.node.inputs import Inputs
from karmma_ros.node.loading import choose_device, load_recogniser
from karmma_ros.node.messages import availability_message, model_info_message
from karmma_ros.node.parameters import Parameters
from karmma_ros.node.worker import Outputs, Worker
from karmma_ros.stream.sensors import InputSettings, SensorStream
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_WATCHDOG_PERIOD_S = 0.5
# A player that starts together with the node may need this many watchdog periods.
_CLOCKLESS_TICKS = 10
_BACKWARD_JUMP = Duration(seconds=-0.1)


@dataclass(frozen=True)
class _Configured:
    """What configure makes and cleanup frees."""

    stream: SensorStream
    lock: Lock
    inputs: Inputs
    outputs: Outputs
    worker: Worker
    info: Any


class KarmmaNode(LifecycleNode):
    """Recognise actions from whichever of its sensors are alive."""

    def __init__(self, name: str = 'karmma', **options: Any) -> None:
        """Declare the parameters; everything else waits for configure."""
        super().__init__(name, **options)
        self._configured: _Configured | None = None
        self._activation: ExitStack | None = None
        self._clockless_ticks = 0
        self.parameters = Parameters(self)

    @property
    def _parts(self) -> _Configured:
        assert self._configured is not None  # rclpy's state machine sees to it
        return self._configured

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, warm it up, and make everything that activation starts."""
        return self._attempt('configure', self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start from empty buffers."""
        return self._attempt('activate', lambda: self._activate(state), self._stop)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the inputs and wait for the worker; the model stays loaded."""
        return self._attempt('deactivate', lambda: self._deactivate(state), self._stop)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and the publishers."""
        return self._attempt('cleanup', self._release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free, from whatever state."""
        return self._attempt('shutdown', lambda: self._shut_down(state))

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that configure can be tried again."""
        return self._attempt('error handling', self._release)

    def _attempt(
        self, what: str, act: Callable[[], None], undo: Callable[[], None] = lambda: None
    ) -> TransitionCallbackReturn:
        try:
            act()
            return TransitionCallbackReturn.SUCCESS
        except KarmmaError as error:
            self.get_logger().error(f'{what} failed: {error}')
        except Exception as error:
            self.get_logger().error(f'{what} failed: {type(error).__name__}: {error}')
        with suppress(Exception):
            undo()
        return TransitionCallbackReturn.FAILURE

    def _configure(self) -> None:
        for problem in self.parameters.problems:
            raise problem
        device = choose_device(self.parameters['device'])
        bundle, recogniser = load_recogniser(
            self.parameters['model'], device, self.parameters['threads'])
        modalities, lock = bundle.network.modalities, Lock()
        stream = SensorStream(bundle.spec, modalities, _input_settings(self.parameters))
        crop = bundle.spec.video.height, bundle.spec.video.width
        inputs = Inputs(self, self.parameters, stream, lock, modalities, crop)
        # Publishers last: nothing after them fails, so none is left behind.
        outputs = self._outputs()
        worker = Worker(self, self.parameters, recogniser, bundle.model_id, stream, lock, inputs,
                        outputs)
        info = self.create_publisher(ModelInfo, '~/model_info', _LATCHED)
        info.publish(model_info_message(bundle, device, self._now_ns()))
        self._configured = _Configured(stream, lock, inputs, outputs, worker, info)
        self.parameters.frozen = True
        self.get_logger().info(
            f'model {bundle.model_id} on {device}, inputs '
            f'{", ".join(m.value for m in modalities)}, window {bundle.spec.duration:g} s')

    def _outputs(self) -> Outputs:
        return Outputs(
            self.create_lifecycle_publisher(ActionRecognition, 'action_recognition', 10),
            self.create_lifecycle_publisher(
                ModalityAvailability, '~/modality_availability', _LATCHED))

    def _activate(self, state: LifecycleState) -> None:
        parts = self._parts
        self._clear()
        super().on_activate(state)
        # Undone in reverse, as far as it went: inputs, clocks, and the worker last.
        with ExitStack() as stack:
            parts.worker.start()
            stack.callback(parts.worker.stop)
            self._start_clocks(stack)
            stack.callback(parts.inputs.stop)
            parts.inputs.start()
            self._activation = stack.pop_all()

    def _start_clocks(self, stack: ExitStack) -> None:
        jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=_BACKWARD_JUMP, on_clock_change=True),
            post_callback=self._on_time_jump)
        stack.callback(jumps.unregister)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timers = [
            self.create_timer(1 / self.parameters['rate'], self._parts.worker.wake),
            # Reports the inputs even when simulated time stands still.
            self.create_timer(_WATCHDOG_PERIOD_S, self._watch, clock=steady),
        ]
        for timer in timers:
            stack.callback(self.destroy_timer, timer)

    def _deactivate(self, state: LifecycleState) -> None:
        self._stop()
        self._say_inactive()
        super().on_deactivate(state)

    def _stop(self) -> None:
        """Undo `_activate`."""
        activation, self._activation = self._activation, None
        if activation is not None:
            activation.close()

    def _release(self) -> None:
        """Undo `_configure`."""
        self._stop()
        parts, self._configured = self._configured, None
        self.parameters.frozen = False
        if parts is not None:
            # `destroy_publisher` would leave these two among the managed entities.
            self.destroy_lifecycle_publisher(parts.outputs.recognition)
            self.destroy_lifecycle_publisher(parts.outputs.availability)
            self.destroy_publisher(parts.info)

    def _shut_down(self, state: LifecycleState) -> None:
        if self._activation is not None:
            self._deactivate(state)
        self._release()

    def _watch(self) -> None:
        """Look after what the rate timer cannot when its clock stands still."""
        waits = self.get_clock().ros_time_is_active and self._now_ns() == 0
        self._clockless_ticks = self._clockless_ticks + 1 if waits else 0
        if self._clockless_ticks >= _CLOCKLESS_TICKS:
            self.get_logger().warning(
                'use_sim_time is true but nothing publishes /clock: play the bag with --clock or '
                'set use_sim_time to false', throttle_duration_sec=10.0)
        self._parts.worker.watch()

    def _on_time_jump(self, jump: Any) -> None:
        self._clear()
        self.get_logger().info('time jumped: the sensor buffers start anew')

    def _clear(self) -> None:
        with self._parts.lock:
            self._parts.stream.clear()

    def _say_inactive(self) -> None:
        """Leave no late joiner with the belief that the inputs are looked after."""
        with self._parts.lock:
            statuses = self._parts.stream.assess(self._now_ns())
        self._parts.outputs.availability.publish(
            availability_message(statuses, self._now_ns(), possible=False))

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def _input_settings(parameters: Parameters) -> dict[Modality, InputSettings]:
    """Give each modality its timeout and coverage; flow shares the camera's."""
    settings = {}
    for modality in Modality:
        source = Modality.RGB if modality is Modality.FLOW else modality
        settings[modality] = InputSettings(
            timeout_ns=round(parameters[f'{source}.timeout'] * NANOSECONDS),
            enabled=parameters[f'{modality}.enabled'],
            min_coverage=parameters[f'{source}.min_coverage'])
    return settings
