"""A ROS domain of the test process's own, a small model, and simulated sensors."""

import array
import gc
from itertools import count
import random
import time

from audio_common_msgs.msg import AudioDataStamped
from karmma_msgs.msg import ActionRecognition, ModalityAvailability
from karmma_ros.clip import AudioSpec, ClipSpec, VideoSpec
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import save_bundle
from karmma_ros.model.presets import preset
from karmma_ros.node.executor import make_executor
from karmma_ros.node.lifecycle import KarmmaNode
from karmma_ros.node.messages import time_message
import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_data import pixels, samples
from sensor_msgs.msg import Image
import torch
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope='session')
def bundle(tmp_path_factory):
    """Return the directory of a model with random weights and a window of 0.8 s."""
    torch.manual_seed(0)
    spec = ClipSpec(
        duration=0.8, num_frames=8, video=VideoSpec(32, 32),
        audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=32, tiles=2,
                        tile_steps=40))
    path = tmp_path_factory.mktemp('models') / 'random'
    config = preset('tiny')
    save_bundle(path, build(config, spec, vocabulary()), config, spec, vocabulary(),
                dataset='none', card='# Random weights\n')
    return path


@pytest.fixture
def stage(ros):
    """Return a stage; its nodes are destroyed afterwards."""
    gc.collect()  # of an earlier node of this name, whose late end closes /rosout for both
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def perform(stage, bundle):
    """Put an active node on the stage; its own clock turns ten times a second."""
    def start(**overrides):
        values = {'model': str(bundle), 'rate': 10.0, 'threads': 1, **overrides}
        node = KarmmaNode(enable_communication_interface=False, parameter_overrides=[
            Parameter(name.replace('__', '.'), value=value) for name, value in values.items()])
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        stage.host(node)
        assert stage.until(stage.connected)
        return node
    return start


class Periodic:
    """
    Call functions at most a number of times a second, from a loop that turns faster.

    Between two calls the loop turns often enough to deliver what they sent: on a busy machine the
    rate is lower, and no queue overflows.
    """

    def __init__(self, hertz, *calls):
        self.period, self.calls = 1 / hertz, calls
        self.due, self.turns = time.monotonic(), 0

    def __call__(self):
        self.turns += 1
        if time.monotonic() >= self.due and self.turns > len(self.calls):
            self.due, self.turns = time.monotonic() + self.period, 0
            for call in self.calls:
                call()


class Stage:
    """Play the sensors to a node and keep what it publishes."""

    def __init__(self):
        self.node = rclpy.create_node('stage')
        self.executor, _ = make_executor(self.node)
        self.guests = []
        self.audio_ns = 0
        self.results, self.availabilities = [], []
        self.images = self.node.create_publisher(Image, 'image', 10)
        self.audio = self.node.create_publisher(AudioDataStamped, 'audio', 50)
        self.boxes = self.node.create_publisher(Detection2DArray, 'detections', 10)
        self.node.create_subscription(
            ActionRecognition, 'action_recognition', self.results.append, 50)
        self.node.create_subscription(
            ModalityAvailability, 'karmma/modality_availability', self.availabilities.append,
            LATCHED)

    @staticmethod
    def periodic(hertz, *calls):
        """Return a step for `until` that calls functions a number of times a second."""
        return Periodic(hertz, *calls)

    def steady(self, hertz):
        """
        Return a step for `until`: all sensors, with stamps that are one period apart.

        They are so on a busy machine too, where the step is called late.
        """
        period_ns = 1_000_000_000 // hertz
        stamps = count(self.now_ns(), period_ns)

        def send():
            stamp_ns = next(stamps)
            self.send_audio(stamp_ns - period_ns, samples(16_000 // hertz).tobytes())
            self.send_boxes(stamp_ns)
            self.send_image(stamp_ns)
        return Periodic(hertz, send, *[lambda: None] * 4)

    def host(self, node):
        """Spin another node along."""
        self.guests.append(node)
        self.executor.add_node(node)
        return node

    def close(self):
        for guest in self.guests:
            self.executor.remove_node(guest)
            guest.trigger_shutdown()
            guest.destroy_node()
        self.executor.shutdown()
        self.node.destroy_node()

    def until(self, condition, timeout_s=30.0, step=lambda: None):
        """Spin, calling `step` all the time, until the condition holds; return whether it did."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            step()
            self.executor.spin_once(timeout_sec=0.01)
            if condition():
                return True
        return False

    def spin(self, seconds, step=lambda: None):
        """Spin for a while, on a busy machine too for as many turns as an idle one makes."""
        turns = count()
        self.until(lambda: next(turns) > 100 * seconds, step=step)
        self.until(lambda: False, seconds, step)

    def drain(self):
        """Spin until no results come any more."""
        number = -1
        while number != len(self.results):
            number = len(self.results)
            self.spin(0.3)

    def connected(self):
        """Return whether the node subscribes to all three sensors and its results are received."""
        return (all(p.get_subscription_count() for p in (self.images, self.audio, self.boxes))
                and self.node.count_publishers('action_recognition') > 0)

    def status(self, name):
        """Return the newest status of a modality."""
        return next(s for s in self.availabilities[-1].modalities if s.name == name)

    def now_ns(self):
        return self.node.get_clock().now().nanoseconds

    def send_image(self, stamp_ns=None, size=(64, 48), shade=90, **fields):
        """Publish an image; `fields` replace the valid ones."""
        width, height = size
        message = Image(width=width, height=height, step=3 * width, encoding='rgb8',
                        data=array.array('B', pixels(height, width, 3, shade).tobytes()))
        self._publish(self.images, message, stamp_ns, fields)

    def send_audio(self, stamp_ns=None, data=None, rate=16_000):
        """Publish the audio since the last call, or the bytes given."""
        now_ns, before_ns = self.now_ns(), self.audio_ns
        length_ns = now_ns - before_ns if now_ns - before_ns < 1_000_000_000 else 20_000_000
        if data is None:
            self.audio_ns = now_ns
            data = samples(max(1, length_ns * rate // 1_000_000_000)).tobytes()
        message = AudioDataStamped()
        message.audio.data = array.array('B', data)
        stamp_ns = now_ns - length_ns if stamp_ns is None else stamp_ns
        self._publish(self.audio, message, stamp_ns, {})

    def send_boxes(self, stamp_ns=None, boxes=((10.0, 10.0, 8.0, 6.0),)):
        """Publish a box for each (centre x, centre y, width, height) in pixels."""
        message = Detection2DArray()
        for x, y, size_x, size_y in boxes:
            box = Detection2D(results=[ObjectHypothesisWithPose()])
            box.results[0].hypothesis.class_id = 'hand'
            jitter = random.uniform(0, 1e-3)
            box.bbox.center.position.x, box.bbox.center.position.y = x + jitter, y
            box.bbox.size_x, box.bbox.size_y = size_x, size_y
            message.detections.append(box)
        self._publish(self.boxes, message, stamp_ns, {})

    def _publish(self, publisher, message, stamp_ns, fields):
        message.header.stamp = time_message(self.now_ns() if stamp_ns is None else stamp_ns)
        for name, value in fields.items():
            setattr(message, name, value)
        publisher.publish(message)
