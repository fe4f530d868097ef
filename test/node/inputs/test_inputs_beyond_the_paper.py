"""A node with two inertial sensors, compressed depth and a skeleton, on topics of its own."""

import struct

import cv2
from geometry_msgs.msg import Point, Pose, PoseArray
from karmma_msgs.msg import ModalityStatus
from karmma_ros.clip import ClipSpec
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import save_bundle
from karmma_ros.model.presets import only, preset
from karmma_ros.node.lifecycle import KarmmaNode
from karmma_ros.node.messages import time_message
from karmma_ros.prediction import Vocabulary
import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Imu
import torch

NAMES = ('imu', 'imu_thigh', 'depth', 'skeleton')
SPEC = ClipSpec(duration=0.8, num_frames=8, inputs={
    'imu': {'samples': 32}, 'imu_thigh': {'samples': 32}, 'depth': {'height': 16, 'width': 16},
    'skeleton': {'joints': 3, 'dimensions': 3, 'samples': 16}})
POSES = 'geometry_msgs/msg/PoseArray'
DEPTH = np.random.default_rng(0).integers(1000, 2000, (24, 32)).astype(np.uint16)


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    """Return a model of these inputs."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('models') / 'other_inputs'
    config, vocabulary = only(preset('tiny'), NAMES), Vocabulary({'action': ('wave', 'sit')})
    save_bundle(path, build(config, SPEC, vocabulary), config, SPEC, vocabulary, dataset='none',
                card='')
    return path


class Sensors:
    """The sensors' publishers."""

    def __init__(self, stage):
        self.stage = stage
        types = {'imu': Imu, 'imu_thigh': Imu, 'depth/compressedDepth': CompressedImage,
                 'skeleton': PoseArray}
        self.publishers = {topic.partition('/')[0]: stage.node.create_publisher(type_, topic, 50)
                           for topic, type_ in types.items()}
        self.silent = set()

    @property
    def connected(self):
        return all(p.get_subscription_count() for p in self.publishers.values())

    def send(self):
        now_ns = self.stage.now_ns()
        imu = Imu()
        imu.linear_acceleration.z, imu.angular_velocity.x = 9.8, 0.1 + now_ns % 97 / 97
        body = PoseArray(poses=[Pose(position=Point(x=float(i), y=now_ns % 89 / 89, z=1.0))
                                for i in range(3)])
        image = DEPTH + np.uint16(now_ns % 83)
        head = struct.pack('<iff', 0, 0, 0) + cv2.imencode('.png', image)[1].tobytes()
        depth = CompressedImage(format='16UC1; compressedDepth png', data=head)
        for name, message in zip(NAMES, (imu, imu, depth, body)):
            if name not in self.silent:
                message.header.stamp = time_message(now_ns)
                self.publishers[name].publish(message)


def node_of(path, **overrides):
    values = {'model': str(path), 'rate': 10.0, 'threads': 1,
              'depth.transport': 'compressed', **overrides}
    return KarmmaNode(enable_communication_interface=False, parameter_overrides=[
        Parameter(name, value=value) for name, value in values.items()])


def test_inputs_of_any_type_come_and_go(stage, path):
    node = node_of(path)
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    stage.host(node)
    sensors = Sensors(stage)
    step = stage.periodic(20, sensors.send)
    assert stage.until(lambda: sensors.connected)

    def states(expected, **of):
        return lambda: bool(stage.availabilities) and all(
            stage.status(name).state == of.get(name, expected) for name in NAMES)

    assert stage.until(states(ModalityStatus.AVAILABLE), step=step)
    assert stage.until(lambda: stage.results, step=step)
    sensors.silent = {'imu_thigh'}
    assert stage.until(states(ModalityStatus.AVAILABLE, imu_thigh=ModalityStatus.STALE),
                       step=step)
    count = len(stage.results)
    assert stage.until(lambda: len(stage.results) > count + 3, step=step)
    sensors.silent = set()
    assert stage.until(states(ModalityStatus.AVAILABLE), step=step)


def test_a_message_package_that_is_absent_is_named_at_configure(path, stage, monkeypatch):
    node = stage.host(node_of(path, **{'skeleton.type': 'hri_msgs/msg/Skeleton2D'}))
    texts = []
    monkeypatch.setattr('karmma_ros.node.log.NodeLog.error', lambda _, text: texts.append(text))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert any(f'set skeleton.type to {POSES}' in text for text in texts), texts
