"""
Draw what is recognised on the camera's picture: `python -m karmma_ros.overlay.node`.

A result is drawn on the picture it belongs to. When results or pictures stay away, what there
is is drawn all the same, with the reason. Nothing is received, decoded or drawn unless somebody
looks.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
import sys
import time
from typing import Any

import cv2
from karmma_msgs.msg import ActionEvent, ActionRecognition, ModalityAvailability
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError, printable
from karmma_ros.node.__main__ import run
from karmma_ros.node.declarations import OVERLAY_DECLARATIONS
from karmma_ros.node.log import describe, NodeLog
from karmma_ros.node.parameters import name_problem, overrides_warning
from karmma_ros.node.services import guard_services
from karmma_ros.overlay.drawing import draw, enlarge, Image, placeholder
from karmma_ros.overlay.lettering import choose_text_renderer
from karmma_ros.overlay.pairing import decode_picture, Pairing, pairing
from karmma_ros.overlay.status import NodeStatus
from karmma_ros.stream.decoders import stamp_ns_of
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

_LOOK_PERIOD_S = 0.25
_SILENCE_S = 2.5
"""The recogniser speaks of its inputs once a second while it is active."""
_ASK_PERIOD_S = 1.0
_BACKWARD_JUMP_NS = NANOSECONDS
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Overlay(Node):
    """Publish the camera's picture with the answer, the lamps and the reasons drawn on it."""

    def __init__(self, name: str = 'karmma_overlay', **options: Any) -> None:
        """
        Listen to the recogniser; the camera's turn comes when somebody looks.

        :raises InvalidSettingError: for a parameter that cannot be used.
        """
        super().__init__(name, **options)
        self._log = NodeLog(self)
        self._declare()
        recogniser = self._value('recogniser')
        self._news = NodeStatus(recogniser)
        self._lettering, self._font = (
            choose_text_renderer(self._value('font')),
            self._value('font'),
        )
        self._out = self.create_publisher(ImageMessage, '~/image', 1)
        self._out_compressed = self.create_publisher(CompressedImage, '~/image/compressed', 1)
        self._camera: _Camera | None = None
        self._paired_s = float('-inf')
        self.create_subscription(
            ActionRecognition, 'action_recognition', self._guarded(self._on_result), 10)
        self.create_subscription(
            ModalityAvailability, f'{recogniser}/modality_availability',
            self._guarded(self._on_availability), _LATCHED)
        self.create_subscription(
            ActionEvent, f'{recogniser}/action_events',
            self._guarded(self._news.hear_event), 50)
        self._lifecycle = _LifecycleState(self, recogniser)
        # Steady: it ticks on when simulated time stands still.
        self.create_timer(_LOOK_PERIOD_S, self._guarded(self._look),
                          clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _declare(self) -> None:
        for declaration in OVERLAY_DECLARATIONS:
            descriptor = ParameterDescriptor(
                description=declaration.description, dynamic_typing=True,
                additional_constraints=declaration.allowed, read_only=declaration.fixed)
            self.declare_parameter(declaration.name, declaration.default, descriptor)
            self._value(declaration.name)
        self.add_on_set_parameters_callback(self._judge)

        guard_services(self, self._log, partial(name_problem, self))
        warning = overrides_warning(self)
        if warning:
            self._log.warning(warning)

    def _judge(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            for declaration in OVERLAY_DECLARATIONS:
                for change in changes:
                    if change.name == declaration.name:
                        declaration.check(change.value)
                        if change.name == 'font':
                            choose_text_renderer(change.value)
        except InvalidSettingError as problem:
            return SetParametersResult(successful=False, reason=str(problem))
        except Exception as error:  # rclpy would send no response at all
            return SetParametersResult(successful=False, reason=printable(describe(error)))
        return SetParametersResult(successful=True)

    def _value(self, name: str) -> Any:
        declaration = next(d for d in OVERLAY_DECLARATIONS if d.name == name)
        return declaration.check(self.get_parameter(name).value)

    def _guarded(self, act: Callable[..., None]) -> Callable[..., None]:
        """Let no message end the executor, whatever is in it."""
        def callback(*arguments: Any) -> None:
            try:
                act(*arguments)
            except InvalidSampleError as problem:
                self._warn(str(problem))
            except Exception as error:
                self._warn(describe(error))
        return callback

    def _warn(self, text: str) -> None:
        self._log.warning(text, topic='message')

    def _on_result(self, message: Any) -> None:
        stamp_ns_of(message.header)  # refuses what no pairing could take
        self._news.hear_result(message, time.monotonic())
        if self._camera is not None:
            self._camera.pairing.add_result(message)

    def _on_availability(self, message: Any) -> None:
        self._news.hear_availability(message, time.monotonic())
        self._news.state = ''

    def _look(self) -> None:
        """See whether somebody looks, and draw for them when results do not make us."""
        looked_at = any(p.get_subscription_count() for p in (self._out, self._out_compressed))
        self._attend(looked_at)
        camera, now_s = self._camera, time.monotonic()
        if camera is None:
            return
        if self._news.silent_s(now_s) > _SILENCE_S:
            self._lifecycle.ask(now_s, self._on_state)
        if now_s - max(self._paired_s, camera.since_s) >= self._value('patience'):
            self._show(camera, camera.newest, None, camera.problem(self._value('patience')))

    def _on_state(self, label: str) -> None:
        if self._news.silent_s(time.monotonic()) > _SILENCE_S:
            self._news.state = label

    def _attend(self, looked_at: bool) -> None:
        """Subscribe to the camera as it is to be now, or drop it."""
        before = self._camera.settings if self._camera is not None else None
        settings = _camera_settings(self, self._value, before) if looked_at else None
        if self._camera is not None and self._camera.settings != settings:
            self._camera.close()
            self._camera = None
        if settings is not None and self._camera is None:
            self._camera = _Camera(self, settings, self._guarded, self._on_pair)

    def _on_pair(self, picture: Any, result: Any) -> None:
        if self._camera is not None:
            self._paired_s = time.monotonic()
            self._guarded(self._show)(self._camera, picture, result)

    def _show(self, camera: _Camera, message: Any, result: Any, warning: str = '') -> None:
        """Draw on a picture of the camera, or on that which stands for it."""
        header = Header(stamp=self.get_clock().now().to_msg())
        image = placeholder()
        if message is not None:
            header = message.header
            try:
                image = decode_picture(message)
            except InvalidSampleError as problem:
                self._warn(f'{camera.settings.topic}: {problem}')
                warning = f'picture unreadable: {problem}'
        view = self._news.view(
            time.monotonic(), result, patience_s=self._value('patience'),
            reason_length=self._value('reason_length'), warning=warning)
        self._publish(draw(enlarge(image, self._value('min_width')), view, self._letters()),
                      header)

    def _letters(self) -> Any:
        if self._font != self._value('font'):
            self._font = self._value('font')
            self._lettering = choose_text_renderer(self._font)
        return self._lettering

    def _publish(self, image: Image, header: Any) -> None:
        height, width = image.shape[:2]
        if self._out.get_subscription_count():
            self._out.publish(ImageMessage(
                header=header, height=height, width=width, encoding='rgb8', step=3 * width,
                data=array.array('B', image.tobytes())))
        if self._out_compressed.get_subscription_count():
            _, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                                   [cv2.IMWRITE_JPEG_QUALITY, self._value('jpeg_quality')])
            self._out_compressed.publish(CompressedImage(
                header=header, format='jpeg', data=array.array('B', data.tobytes())))


@dataclass(frozen=True)
class _CameraSettings:
    """How to subscribe to the camera, and what the pairing needs."""

    topic: str
    compressed: bool
    reliability: Any
    queue_size: int
    slop_s: float


class _Camera:
    """The camera while somebody looks: its subscription, newest picture and pairing."""

    def __init__(
        self, node: Node, settings: _CameraSettings,
        guarded: Callable[[Callable[..., None]], Callable[..., None]],
        on_pair: Callable[[Any, Any], None],
    ) -> None:
        """Subscribe."""
        self.settings, self._node, self._on_pair = settings, node, on_pair
        self.since_s = time.monotonic()
        self.newest: Any = None
        self.pairing = self._new_pairing()
        self._newest_ns, self._newest_s = 0, self.since_s
        self._subscription = node.create_subscription(
            CompressedImage if settings.compressed else ImageMessage, settings.topic,
            guarded(self._on_picture), QoSProfile(depth=2, reliability=settings.reliability))

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _on_picture(self, message: Any) -> None:
        stamp_ns = stamp_ns_of(message.header)
        if stamp_ns < self._newest_ns - _BACKWARD_JUMP_NS:
            # Pictures from before a jump of time would push all later ones out of the queue.
            self.pairing = self._new_pairing()
        self.newest, self._newest_ns, self._newest_s = message, stamp_ns, time.monotonic()
        self.pairing.add_picture(message)

    def _new_pairing(self) -> Pairing:
        return pairing(self._on_pair, self.settings.queue_size, self.settings.slop_s)

    def problem(self, patience_s: float) -> str:
        """Say why the newest picture is old; empty when it is not."""
        silent_s = time.monotonic() - self._newest_s
        if silent_s < patience_s:
            return ''
        if not self._node.count_publishers(self.settings.topic):
            return f'nobody publishes {self.settings.topic}'
        return f'no picture for {silent_s:.0f} s'


def _camera_settings(
    node: Node, value: Callable[[str], Any], before: _CameraSettings | None,
) -> _CameraSettings:
    """Say how to subscribe, given what is published now; a camera that is gone may come back."""
    raw, transport = node.resolve_topic_name('image'), value('transport')
    # Behind `image` as it is remapped: then one remapping serves either transport.
    packed = f'{raw}/compressed'
    compressed = transport == 'compressed'
    if transport == 'auto' and not node.count_publishers(raw):
        compressed = bool(node.count_publishers(packed)) or (
            before is not None and before.compressed)
    topic = packed if compressed else raw
    # Reliable from whom offers it, for of large pictures much is lost otherwise.
    offers = {p.qos_profile.reliability for p in node.get_publishers_info_by_topic(topic)}
    reliability = ReliabilityPolicy.BEST_EFFORT
    if offers == {ReliabilityPolicy.RELIABLE}:
        reliability = ReliabilityPolicy.RELIABLE
    elif not offers and before is not None and before.topic == topic:
        reliability = before.reliability
    return _CameraSettings(topic, compressed, reliability, value('queue_size'), value('slop'))


class _LifecycleState:
    """Ask a lifecycle node for its state, without ever waiting for it."""

    def __init__(self, node: Node, name: str) -> None:
        self._client = node.create_client(GetState, f'{name}/get_state')
        self._asked_s = float('-inf')
        self._answer: Any = None

    def ask(self, now_s: float, tell: Callable[[str], None]) -> None:
        """Ask now and then, and tell the state's label, or that there is no such node."""
        if now_s - self._asked_s < _ASK_PERIOD_S:
            return
        self._asked_s = now_s
        if not self._client.service_is_ready():
            tell('not running')
            return
        if self._answer is not None and not self._answer.done():
            self._client.remove_pending_request(self._answer)  # a node that hangs
        self._answer = self._client.call_async(GetState.Request())
        self._answer.add_done_callback(
            lambda done: None if done.result() is None
            else tell(done.result().current_state.label))


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw until SIGINT or SIGTERM."""
    return run('overlay', "Draw what is recognised on the camera's images.", Overlay, arguments)


if __name__ == '__main__':
    sys.exit(main())
