"""
Draw what is recognised on the camera's images: `python -m karmma_ros.overlay.node`.

A result is drawn on the image it belongs to. When results or images stay away, what is known is
drawn all the same, with the reason. Nothing is received, decoded or drawn without a subscriber.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence
import sys
import time
from typing import Any

import cv2
from karmma_msgs.msg import ActionEvent, ActionRecognition, ModalityAvailability
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities.modality_type import stamp_ns_of
from karmma_ros.node.__main__ import run
from karmma_ros.node.declarations import OVERLAY_DECLARATIONS
from karmma_ros.node.log import describe, NodeLog
from karmma_ros.node.parameters import guard_services, overrides_warning, Parameters, Values
from karmma_ros.overlay.camera import Camera, camera_settings, decode_image
from karmma_ros.overlay.drawing import draw, enlarge, Image, load_fonts, placeholder
from karmma_ros.overlay.status import NodeStatus
from lifecycle_msgs.srv import GetState
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

_TIMER_PERIOD_S = 0.25
_SILENCE_S = 2.5
"""The active recogniser publishes the availability of its inputs once a second."""
_REQUEST_PERIOD_S = 1.0
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Overlay(Node):
    """Publish the camera's image with the prediction and the sensors' indicators on it."""

    def __init__(self, name: str = 'karmma_overlay', **options: Any) -> None:
        """
        Subscribe to the recogniser; to the camera once the overlay itself has a subscriber.

        :raises InvalidSettingError: for a parameter that cannot be used.
        """
        super().__init__(name, **options)
        self._log = NodeLog(self)
        self.parameters = Parameters(
            self, (_check_font,), self._on_changed, OVERLAY_DECLARATIONS)
        for problem in self.parameters.problems:
            raise problem
        self.parameters.frozen = True
        guard_services(self, self._log)
        warning = overrides_warning(self)
        if warning:
            self._log.warning(warning)
        recogniser = self.parameters['recogniser']
        self._status = NodeStatus(recogniser)
        self._fonts = load_fonts(self.parameters['font'])
        self._out = self.create_publisher(ImageMessage, '~/image', 1)
        self._out_compressed = self.create_publisher(CompressedImage, '~/image/compressed', 1)
        self._camera: Camera | None = None
        self._paired_s = float('-inf')
        self.create_subscription(
            ActionRecognition, 'action_recognition', self._guarded(self._on_result), 10)
        self.create_subscription(
            ModalityAvailability, f'{recogniser}/modality_availability',
            self._guarded(self._on_availability), _LATCHED)
        self.create_subscription(
            ActionEvent, f'{recogniser}/action_events',
            self._guarded(self._status.add_event), 50)
        self._lifecycle = _LifecycleState(self, recogniser)
        # Steady, to run also while simulated time stands still.
        self.create_timer(_TIMER_PERIOD_S, self._guarded(self._on_timer),
                          clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _on_changed(self, names: set[str]) -> None:
        if 'font' in names:
            self._fonts = load_fonts(self.parameters['font'])

    def _guarded(self, act: Callable[..., None]) -> Callable[..., None]:
        """Let no message end the executor, whatever its content."""
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
        stamp_ns_of(message.header)  # rejects what no pairing could take
        self._status.add_result(message, time.monotonic())
        if self._camera is not None:
            self._camera.add_result(message)

    def _on_availability(self, message: Any) -> None:
        self._status.add_availability(message, time.monotonic())
        self._status.state = ''

    def _on_timer(self) -> None:
        """Follow the subscribers, and draw for them while results stay away."""
        self._update_camera()
        camera, now_s, patience_s = self._camera, time.monotonic(), self.parameters['patience']
        if camera is None:
            return
        if self._status.silence_s(now_s) > _SILENCE_S:
            self._lifecycle.request(now_s, self._on_state)
        if now_s - max(self._paired_s, camera.since_s) >= patience_s:
            self._show(camera, camera.newest, None, camera.problem(patience_s))

    def _on_state(self, label: str) -> None:
        if self._status.silence_s(time.monotonic()) > _SILENCE_S:
            self._status.state = label

    def _update_camera(self) -> None:
        """Subscribe to the camera as it is published now, or unsubscribe without a viewer."""
        viewed = any(p.get_subscription_count() for p in (self._out, self._out_compressed))
        before = self._camera.settings if self._camera is not None else None
        settings = camera_settings(self, self.parameters, before) if viewed else None
        if self._camera is not None and self._camera.settings != settings:
            self._camera.close()
            self._camera = None
        if settings is not None and self._camera is None:
            self._camera = Camera(self, settings, self._guarded, self._on_pair)

    def _on_pair(self, image: Any, result: Any) -> None:
        if self._camera is not None:
            self._paired_s = time.monotonic()
            self._guarded(self._show)(self._camera, image, result)

    def _show(self, camera: Camera, message: Any, result: Any, warning: str = '') -> None:
        """Draw on an image of the camera, or on a placeholder, and publish it."""
        header = Header(stamp=self.get_clock().now().to_msg())
        image = placeholder()
        if message is not None:
            header = message.header
            try:
                image = decode_image(message)
            except InvalidSampleError as problem:
                self._warn(f'{camera.settings.topic}: {problem}')
                warning = f'image unreadable: {problem}'
        view = self._status.view(
            time.monotonic(), result, patience_s=self.parameters['patience'],
            reason_length=self.parameters['reason_length'], warning=warning)
        enlarged = enlarge(image, self.parameters['min_width'])
        self._publish(draw(enlarged, view, self._fonts), header)

    def _publish(self, image: Image, header: Any) -> None:
        height, width = image.shape[:2]
        if self._out.get_subscription_count():
            self._out.publish(ImageMessage(
                header=header, height=height, width=width, encoding='rgb8', step=3 * width,
                data=array.array('B', image.tobytes())))
        if self._out_compressed.get_subscription_count():
            quality = [cv2.IMWRITE_JPEG_QUALITY, self.parameters['jpeg_quality']]
            _, data = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
            self._out_compressed.publish(CompressedImage(
                header=header, format='jpeg', data=array.array('B', data.tobytes())))


def _check_font(values: Values, changed: set[str]) -> None:
    if 'font' in changed:
        load_fonts(values['font'])


class _LifecycleState:
    """Request the state of a lifecycle node, without ever waiting for the response."""

    def __init__(self, node: Node, name: str) -> None:
        self._client = node.create_client(GetState, f'{name}/get_state')
        self._requested_s = float('-inf')
        self._response: Any = None

    def request(self, now_s: float, on_state: Callable[[str], None]) -> None:
        """Pass on the state's label, or that the node is not running, about once a second."""
        if now_s - self._requested_s < _REQUEST_PERIOD_S:
            return
        self._requested_s = now_s
        if not self._client.service_is_ready():
            on_state('not running')
            return
        if self._response is not None and not self._response.done():
            self._client.remove_pending_request(self._response)  # a node that hangs
        self._response = self._client.call_async(GetState.Request())
        self._response.add_done_callback(
            lambda done: None if done.result() is None
            else on_state(done.result().current_state.label))


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw until SIGINT or SIGTERM."""
    return run('overlay', "Draw what is recognised on the camera's images.", Overlay, arguments)


if __name__ == '__main__':
    sys.exit(main())
