"""The overlay: the view of a status, decoded images, and the node over real ROS."""

from __future__ import annotations

import array
import os
import signal
import subprocess
import sys
import time
from types import ModuleType

import cv2
import karmma_msgs.msg
from karmma_msgs.msg import (
    ActionEvent,
    ActionRecognition,
    ActionScore,
    LabelScore,
    ModalityAvailability,
    ModalityStatus,
)
from karmma_ros.errors import InvalidSampleError
from karmma_ros.node.messages import time_message, time_ns
from karmma_ros.overlay import camera as camera_module
from karmma_ros.overlay import node as module
from karmma_ros.overlay.camera import decode_image
from karmma_ros.overlay.drawing import Indicator
from karmma_ros.overlay.node import Overlay
from karmma_ros.overlay.status import NodeStatus
from karmma_ros.stream.availability import ModalityState
import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SECOND = 1_000_000_000
NAMES = ('rgb', 'flow', 'audio', 'detections')


def status(name='rgb', state=ModalityStatus.AVAILABLE, used=True, detail=''):
    return ModalityStatus(name=name, state=state, used=used, detail=detail)


def result(stamp_ns=10 * SECOND, verb='cut', noun='cup', modalities=None, latency=0.05):
    message = ActionRecognition(
        verbs=[LabelScore(class_name=verb, score=0.9)], end_to_end_latency=latency,
        nouns=[LabelScore(class_name=noun, score=0.8)] if noun else [],
        modalities=[status(n) for n in NAMES] if modalities is None else modalities)
    message.header.stamp = time_message(stamp_ns)
    return message


def availability(possible, **states):
    return ModalityAvailability(inference_possible=possible, modalities=[
        status(n, states.get(n, ModalityStatus.AVAILABLE), False) for n in NAMES])


# --- the view --------------------------------------------------------------------------------

def test_a_result_shows_what_it_rests_on():
    node_status = NodeStatus()
    node_status.add_result(result(modalities=[
        status('rgb'), status('flow', used=False), status('audio', ModalityStatus.STALE, False,
                                                          'last sample 0.6 s ago'),
        status('detections', ModalityStatus.INVALID, False, 'no image size'),
        status('depth', ModalityState.UNINFORMATIVE, False, 'frozen for 1.4 s')]), 1.0)
    view = node_status.view(1.2)
    assert [s.state for s in view.sensors] == [
        Indicator.USED,
        Indicator.UNUSED,
        Indicator.OUT,
        Indicator.INVALID,
        Indicator.UNINFORMATIVE,
    ]
    assert [s.letter for s in view.sensors] == ['V', 'F', 'A', 'D', 'Z']
    assert view.sensors[4].reason == 'depth shows nothing: frozen for 1.4 s'
    assert view.sensors[2].reason == 'audio stale: last sample 0.6 s ago'
    assert [labels[0].name for labels in view.labels] == ['cut', 'cup']
    assert view.age_s == pytest.approx(0.25), 'it has grown older since it came'
    assert not view.notice and not view.is_unknown


def test_a_result_of_an_unknown_action_is_marked():
    node_status, message = NodeStatus(), result()
    message.is_unknown = True
    node_status.add_result(message, 1.0)
    assert node_status.view(1.2).is_unknown


def test_the_fraction_of_the_score_that_each_input_adds_is_shown():
    node_status, message = NodeStatus(), result()
    message.actions = [ActionScore(score=0.8)]
    message.leave_one_out = [karmma_msgs.msg.LeaveOneOutScore(name='rgb', score=0.2),
                             karmma_msgs.msg.LeaveOneOutScore(name='audio', score=0.9)]
    node_status.add_result(message, 1.0)
    sensors = node_status.view(1.2).sensors
    assert [s.contribution for s in sensors] == [pytest.approx(0.75), None, 0.0, None]


def test_inputs_of_any_type_have_letters_and_names():
    node_status = NodeStatus()
    node_status.add_result(result(modalities=[
        status(name, ModalityStatus.STALE, False)
        for name in ('rgb_wrist', 'imu', 'imu_left_arm', 'gaze', 'rgb_\x00')]), 1.0)
    sensors = node_status.view(1.2).sensors
    assert [s.letter for s in sensors] == ['Vw', 'I', 'Il', 'G', 'R']
    assert [s.reason for s in sensors[:4]] == [
        'camera wrist stale', 'imu stale', 'imu left arm stale', 'gaze stale']


def test_a_model_with_one_head_has_one_column():
    node_status = NodeStatus()
    node_status.add_result(result(noun='', latency=-1.0), 1.0)
    assert len(node_status.view(1.0).labels) == 1
    assert node_status.view(1.0).age_s is None, 'stamps of a foreign clock have no age'


@pytest.mark.parametrize('update, reason', [
    (lambda n: None, 'no message from karmma yet'),
    (lambda n: setattr(n, 'state', 'not running'), 'karmma is not running'),
    (lambda n: n.add_availability(availability(True), 0), 'no result yet'),
    (lambda n: n.add_availability(availability(False), 0), 'min_modalities'),
    (lambda n: n.add_availability(availability(False, **dict.fromkeys(NAMES, 2)), 0),
     'no usable sensor'),
    (lambda n: (n.add_availability(availability(True), 0), n.add_result(result(), -5.4)),
     'last result 7 s ago'),
])
def test_silence_has_a_reason(update, reason):
    node_status = NodeStatus()
    update(node_status)
    view = node_status.view(1.5, patience_s=1.0)
    assert view.notice.startswith('no recognition: ') and reason in view.notice
    assert not view.labels


def test_while_the_node_is_inactive_every_indicator_is_off():
    node_status = NodeStatus()
    node_status.add_availability(availability(False, audio=ModalityStatus.STALE), 0.0)
    assert {s.state for s in node_status.view(1.0).sensors} == {Indicator.UNUSED, Indicator.OUT}
    node_status.state = 'inactive'
    assert [s.state for s in node_status.view(1.0).sensors] == [Indicator.DISABLED] * 4
    assert 'karmma is inactive' in node_status.view(1.0).notice


def test_reasons_are_shortened_or_left_out():
    node_status = NodeStatus()
    node_status.add_result(result(modalities=[status('audio', 2, False, 'x' * 100)]), 0.0)
    assert len(node_status.view(0.0, reason_length=20).sensors[0].reason) == 20
    assert node_status.view(0.0, reason_length=0).sensors[0].reason == ''


def test_the_action_in_progress_is_shown_until_it_ends():
    node_status = NodeStatus()
    started = ActionEvent(phase=ActionEvent.STARTED, start=time_message(8 * SECOND),
                          verb=LabelScore(class_name='cut'), noun=LabelScore(class_name='cup'))
    node_status.add_event(started)
    node_status.add_result(result(10 * SECOND), 0.0)
    view = node_status.view(0.0)
    assert (view.action, view.action_s) == ('cut cup', pytest.approx(2.0))
    node_status.add_result(result(7 * SECOND), 0.0)
    assert not node_status.view(0.0).action, 'time has jumped back'
    node_status.add_event(ActionEvent(phase=ActionEvent.ENDED))
    node_status.add_result(result(10 * SECOND), 0.0)
    assert not node_status.view(0.0).action


def test_a_state_or_sensor_of_a_later_version_is_survived():
    node_status = NodeStatus()
    node_status.add_result(result(modalities=[status('lidar', 99), status('')]), 0.0)
    assert [s.letter for s in node_status.view(0.0).sensors] == ['L', '?']


def test_what_is_drawn_has_no_control_characters_and_an_end():
    hostile = '\x1b[31m\n\u202e' * 10_000
    node_status = NodeStatus()
    node_status.add_result(result(verb=hostile, noun=hostile, modalities=[
        status(hostile, ModalityStatus.STALE, False, hostile)]), 0.0)
    node_status.add_event(ActionEvent(verb=LabelScore(class_name=hostile)))
    view = node_status.view(0.0, reason_length=500)
    texts = [view.action, view.sensors[0].reason, *(h[0].name for h in view.labels)]
    assert all(0 < len(text) <= 500 and text.isprintable() for text in texts)
    node_status.state = hostile
    assert node_status.view(9.0).notice.isprintable()


# --- images ---------------------------------------------------------------------------------

def image_message(height=6, width=8, encoding='rgb8', shade=50, step=0, **fields):
    step = step or 3 * width
    return Image(**{'height': height, 'width': width, 'encoding': encoding, 'step': step,
                    'data': array.array('B', bytes([shade]) * step * height), **fields})


def test_images_keep_their_size_and_padding_is_left_out():
    assert decode_image(image_message(step=29)).shape == (6, 8, 3)
    with pytest.raises(InvalidSampleError, match='got 5 bytes'):
        decode_image(image_message(data=array.array('B', b'12345')))


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_compressed_images_are_read(suffix):
    _, data = cv2.imencode(suffix, np.full((6, 8, 3), (10, 20, 200), np.uint8))
    message = CompressedImage(format='x', data=array.array('B', data.tobytes()))
    assert np.abs(decode_image(message)[3, 3] - np.array([200, 20, 10])).max() < 8


@pytest.mark.parametrize('data', [b'', b'not an image'])
def test_broken_compressed_images_are_refused(data):
    with pytest.raises(InvalidSampleError):
        decode_image(CompressedImage(format='jpeg', data=array.array('B', data)))


def test_what_only_cv_bridge_reads_is_left_to_it_and_only_then(monkeypatch):
    requested = []

    class CvBridge:
        def imgmsg_to_cv2(self, message, desired_encoding='passthrough'):
            requested.append((message.encoding, desired_encoding))
            return np.zeros((6, 8, 3), np.uint8)

    bridge = ModuleType('cv_bridge')
    bridge.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, 'cv_bridge', bridge)
    camera_module._cv_bridge.cache_clear()
    try:
        decode_image(image_message())
        assert not requested
        assert decode_image(image_message(encoding='strange8')).shape == (6, 8, 3)
        assert requested == [('strange8', 'rgb8')]
        with pytest.raises(InvalidSampleError):  # it would not notice that bytes are missing
            decode_image(image_message(encoding='strange8', data=array.array('B', b'123')))
    finally:
        camera_module._cv_bridge.cache_clear()


# --- the node -------------------------------------------------------------------------------

class Rig:
    """A camera, a recogniser and a viewer around a real overlay node."""

    def __init__(self, monkeypatch, **parameters):
        monkeypatch.setattr(module, '_TIMER_PERIOD_S', 0.05)
        self.node, self.executor = rclpy.create_node('rig'), SingleThreadedExecutor()
        self.overlay = Overlay(parameter_overrides=[
            Parameter(name, value=value)
            for name, value in {'patience': 0.3, **parameters}.items()])
        self.executor.add_node(self.node)
        self.executor.add_node(self.overlay)
        self.camera = self.node.create_publisher(Image, 'image', 10)
        self.results = self.node.create_publisher(ActionRecognition, 'action_recognition', 10)
        self.availability = self.node.create_publisher(
            ModalityAvailability, 'karmma/modality_availability', LATCHED)
        self.seen, self.views, self.viewer = [], [], None
        draw = module.draw
        monkeypatch.setattr(module, 'draw', lambda image, view, fonts: (
            self.views.append(view), draw(image, view, fonts))[1])

    def close(self):
        for node in (self.overlay, self.node):
            self.executor.remove_node(node)
            node.destroy_node()
        self.executor.shutdown()

    def open_viewer(self, message_type=Image, topic='karmma_overlay/image'):
        self.viewer = self.node.create_subscription(message_type, topic, self.seen.append, 10)

    def close_viewer(self):
        self.node.destroy_subscription(self.viewer)

    def until(self, condition, timeout_s=30.0, step=lambda: None):
        """Spin, calling `step` ten times a second; return whether the condition became true."""
        deadline, due = time.monotonic() + timeout_s, 0.0
        while time.monotonic() < deadline:
            if time.monotonic() >= due:
                due = time.monotonic() + 0.1
                step()
            self.executor.spin_once(timeout_sec=0.01)
            if condition():
                return True
        return False

    def ready(self):
        """Return whether camera, recogniser and viewer have found the overlay, for good."""
        requested = [info.qos_profile.reliability
                 for info in self.node.get_subscriptions_info_by_topic('image')]
        return requested == [ReliabilityPolicy.RELIABLE] and self.results.get_subscription_count()

    def show(self, stamp_ns, **fields):
        message = image_message(**{'height': 48, 'width': 64, **fields})
        message.header.stamp, message.header.frame_id = time_message(stamp_ns), 'optical'
        self.camera.publish(message)

    def notice(self):
        return self.views[-1].notice if self.views else ''

    def warning(self):
        return self.views[-1].warning if self.views else ''


@pytest.fixture
def rig(ros, monkeypatch):
    rigs = []

    def open_(**parameters):
        rigs.append(Rig(monkeypatch, **parameters))
        return rigs[-1]
    yield open_
    for each in rigs:
        each.close()


def test_the_camera_is_subscribed_to_only_while_it_has_a_viewer(rig):
    rig = rig()
    assert rig.until(rig.results.get_subscription_count)
    # A node that was killed in an earlier test is missed by the middleware after 20 seconds.
    assert rig.until(lambda: not rig.camera.get_subscription_count())
    assert not rig.until(rig.camera.get_subscription_count, 0.5)
    rig.open_viewer()
    assert rig.until(rig.camera.get_subscription_count)
    rig.close_viewer()
    assert rig.until(lambda: not rig.camera.get_subscription_count())
    rig.open_viewer()
    assert rig.until(rig.camera.get_subscription_count), 'and again'


def test_no_image_is_kept_without_a_viewer(rig, traces):
    rig = rig(min_width=0)
    rig.open_viewer()
    assert rig.until(rig.ready)
    rng = np.random.default_rng()

    def show():
        noise = rng.integers(0, 255, 64 * 48 * 3).astype(np.uint8).tobytes()
        traces.note('image', noise)
        rig.show(10 * SECOND, data=array.array('B', noise))
    assert rig.until(lambda: len(rig.seen) > 3, step=show)
    rig.seen.clear()
    assert traces.left(), 'the newest is drawn when results stay away'
    rig.close_viewer()
    assert rig.until(lambda: rig.overlay._camera is None)
    rig.until(lambda: False, 0.2)
    rig.seen.clear()
    assert traces.left() == []


def test_a_result_is_drawn_on_its_image(rig):
    rig = rig(patience=60.0, min_width=0)
    rig.open_viewer()
    assert rig.until(rig.ready)

    def show_images():
        for stamp_ns in (9 * SECOND, 10 * SECOND, 11 * SECOND):
            rig.show(stamp_ns)
    rig.until(lambda: False, 0.3, show_images)
    assert not rig.seen, 'nothing before there is a result'
    assert rig.until(lambda: rig.seen, step=lambda: (
        show_images(), rig.results.publish(result(10 * SECOND + 30_000_000))))
    drawn = rig.seen[0]
    assert time_ns(drawn.header.stamp) == 10 * SECOND and drawn.header.frame_id == 'optical'
    assert (drawn.width, drawn.height, drawn.encoding, drawn.step) == (64, 48, 'rgb8', 192)
    assert rig.views[0].labels[0][0].name == 'cut'
    assert [s.state for s in rig.views[0].sensors] == [Indicator.USED] * 4


def test_after_a_jump_back_in_time_results_find_their_images_again(rig):
    rig = rig(patience=60.0)
    rig.open_viewer()
    assert rig.until(rig.ready)

    def jump():
        for stamp_ns in (*range(100 * SECOND, 120 * SECOND, SECOND), 5 * SECOND):
            rig.show(stamp_ns)
            rig.until(lambda: False, 0.01)
        rig.results.publish(result(5 * SECOND))
    assert rig.until(lambda: rig.seen, step=jump)
    assert time_ns(rig.seen[0].header.stamp) == 5 * SECOND


def test_without_results_the_image_is_shown_with_the_reason(rig):
    rig = rig()
    rig.availability.publish(availability(
        False, rgb=ModalityStatus.INVALID, flow=ModalityStatus.INVALID,
        audio=ModalityStatus.STALE, detections=ModalityStatus.DISABLED))
    rig.open_viewer()
    assert rig.until(rig.ready)
    assert rig.until(lambda: rig.seen and 'no usable sensor' in rig.notice(),
                         step=lambda: rig.show(10 * SECOND))
    assert [s.state for s in rig.views[-1].sensors] == [
        Indicator.INVALID, Indicator.INVALID, Indicator.OUT, Indicator.DISABLED]
    assert rig.seen[-1].width == 640, 'a small image is enlarged'


def test_an_inactive_recogniser_is_named(rig):
    rig = rig()
    karmma = LifecycleNode('karmma')
    rig.executor.add_node(karmma)
    rig.open_viewer()
    try:
        assert rig.until(lambda: 'karmma is unconfigured' in rig.notice())
    finally:
        rig.executor.remove_node(karmma)
        karmma.destroy_node()


def test_results_without_a_camera_are_shown_all_the_same(rig):
    rig = rig()
    rig.node.destroy_publisher(rig.camera)
    rig.open_viewer()
    assert rig.until(rig.results.get_subscription_count)

    def result_drawn():
        rig.results.publish(result(modalities=[status('audio')]))
        return bool(rig.views and rig.views[-1].labels)
    assert rig.until(result_drawn)
    assert rig.warning() == 'no publisher on /image'


def test_when_the_camera_dies_its_last_image_stays(rig):
    rig = rig(min_width=0)
    rig.open_viewer()
    assert rig.until(rig.ready)
    assert rig.until(
        lambda: rig.seen and time_ns(rig.seen[-1].header.stamp) == 7 * SECOND,
        step=lambda: rig.show(7 * SECOND))
    rig.node.destroy_publisher(rig.camera)
    assert rig.until(lambda: rig.warning() == 'no publisher on /image')
    rig.seen.clear()
    assert rig.until(lambda: rig.seen)
    assert time_ns(rig.seen[-1].header.stamp) == 7 * SECOND
    assert (rig.seen[-1].width, rig.seen[-1].height) == (64, 48)


def test_bad_images_are_named_and_survived(rig):
    rig = rig()
    rig.open_viewer()
    assert rig.until(rig.ready)
    bad = [{'encoding': 'strange8'}, {'data': array.array('B', b'123')}, {'height': 0, 'width': 0}]
    for fields in bad:
        rig.views.clear()
        assert rig.until(lambda: 'image unreadable: image' in rig.warning(),
                             step=lambda: rig.show(10 * SECOND, **fields)), fields
    rig.show(-5 * SECOND)
    rig.results.publish(result(-5 * SECOND))
    assert rig.until(lambda: rig.views[-1].warning == '',
                         step=lambda: rig.show(11 * SECOND))
    assert rig.until(lambda: rig.views[-1].labels,
                         step=lambda: rig.results.publish(result(11 * SECOND)))


def test_reliable_is_requested_of_a_reliable_camera_only(rig):
    rig = rig()
    rig.open_viewer()
    assert rig.until(rig.ready)

    def requested():
        infos = rig.node.get_subscriptions_info_by_topic('image')
        return {info.qos_profile.reliability for info in infos}
    assert rig.until(lambda: requested() == {ReliabilityPolicy.RELIABLE})
    lossy = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    other = rig.node.create_publisher(Image, 'image', lossy)
    assert rig.until(other.get_subscription_count), 'it must receive from every camera'
    assert rig.until(lambda: requested() == {ReliabilityPolicy.BEST_EFFORT})


@pytest.mark.parametrize('transport', ['auto', 'compressed'])
def test_compressed_in_and_out(rig, transport):
    rig = rig(transport=transport)
    rig.node.destroy_publisher(rig.camera)
    camera = rig.node.create_publisher(CompressedImage, 'image/compressed', 10)
    rig.open_viewer(CompressedImage, 'karmma_overlay/image/compressed')
    assert rig.until(camera.get_subscription_count)
    _, data = cv2.imencode('.jpg', np.full((48, 64, 3), 90, np.uint8))
    assert rig.until(lambda: rig.seen, step=lambda: camera.publish(
        CompressedImage(format='jpeg', data=array.array('B', data.tobytes()))))
    drawn = cv2.imdecode(np.frombuffer(rig.seen[-1].data, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (480, 640, 3)


def test_parameters_are_described_checked_and_live(rig):
    overlay = rig().overlay
    for declaration in module.OVERLAY_DECLARATIONS:
        described = overlay.describe_parameter(declaration.name)
        assert described.description and described.additional_constraints

    def change(name, value):
        return overlay.set_parameters([Parameter(name, value=value)])[0]
    assert change('slop', 1).successful, 'a whole number serves for a double'
    assert "transport is 'carrier pigeon'" in change('transport', 'carrier pigeon').reason
    assert 'nowhere.ttf' in change('font', 'nowhere.ttf').reason
    assert not change('recogniser', 'other').successful


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(ros, number):
    process = subprocess.Popen([sys.executable, '-m', 'karmma_ros.overlay.node'],
                               stderr=subprocess.PIPE, text=True)
    node = rclpy.create_node('watcher')
    try:
        deadline = time.monotonic() + 15
        while 'karmma_overlay' not in node.get_node_names() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert 'karmma_overlay' in node.get_node_names()
        process.send_signal(number)
        assert process.wait(timeout=5) == 0
        assert 'Traceback' not in process.stderr.read()
    finally:
        process.kill()
        node.destroy_node()


def test_a_wrong_parameter_ends_it_with_a_sentence(ros):
    done = subprocess.run(
        [sys.executable, '-m', 'karmma_ros.overlay.node', '--ros-args', '-p', 'slop:=99.0'],
        capture_output=True, text=True, timeout=30, env=dict(os.environ))
    assert done.returncode == 2
    assert done.stderr.startswith('overlay: slop is 99.0; expected a number from 0.001 to 10')
