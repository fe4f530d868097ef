"""A node with nothing but inputs, and sensors beside it."""

import array
from threading import Lock
import time

from audio_common_msgs.msg import AudioData, AudioDataStamped
from karmma_ros.clip import AudioSpec, ClipSpec, NANOSECONDS, VideoSpec
from karmma_ros.modality import PAPER_MODALITIES
from karmma_ros.node.declarations import DECLARATIONS
from karmma_ros.node.executor import make_executor
from karmma_ros.node.inputs import Inputs
from karmma_ros.node.messages import time_message
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.settings import with_topic
from karmma_ros.stream.source import InputSettings
import pytest
import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy

DEFAULTS = {d.name: d.default for d in DECLARATIONS}
SPEC = ClipSpec(duration=0.8, num_frames=8, video=VideoSpec(16, 16),
                audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=32, tiles=2,
                                tile_steps=40))
RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


class Rig:
    """A node with inputs and a stream, and a node of sensors beside it."""

    def __init__(self):
        self.sensors = rclpy.create_node('sensors')
        self.executor, _ = make_executor(self.sensors)
        self.publishers = {}
        self._sounded_ns = 0

    def start(self, modalities=PAPER_MODALITIES, overrides=None, remap=(), **values):
        values = {name.replace('__', '.'): value for name, value in values.items()}
        self.values = {**DEFAULTS, **values}
        self.node = self._node(
            'listener', cli_args=['--ros-args', *(a for rule in remap for a in ('-r', rule))],
            parameter_overrides=[Parameter(n, value=v) for n, v in (overrides or {}).items()])
        self.modalities = modalities
        self.inputs = Inputs(self.node, self.values, Lock(), lambda: None)
        self.feed(modalities)
        self.inputs.start()
        return self.inputs

    def feed(self, modalities):
        self.stream = SensorStream(
            SPEC, modalities, self._settings(), with_topic(self.values, modalities))
        self.inputs.feed(self.stream, SPEC, modalities)

    def set(self, **values):
        values = {name.replace('__', '.'): value for name, value in values.items()}
        self.values.update(values)
        self.stream.configure(self._settings(), with_topic(self.values, self.modalities))
        self.inputs.update(set(values))

    def send(self, topic, message, qos=RELIABLE, name='sensors'):
        """Publish once, stamped now; the publisher stays."""
        if hasattr(message, 'header'):
            message.header.stamp = time_message(self.now_ns())
            message.header.frame_id = 'there'
        self.publisher(type(message), topic, qos).publish(message)

    def send_audio(self):
        """Publish what a microphone recorded since the last call, at its true rate."""
        now_ns = self.now_ns()
        elapsed_ns = min(now_ns - self._sounded_ns, NANOSECONDS // 10)
        self._sounded_ns = now_ns
        data = b'\x10\x02' * max(1, elapsed_ns * 16_000 // NANOSECONDS)
        message = AudioDataStamped(audio=AudioData(data=array.array('B', data)))
        self.send('audio', message)

    def publisher(self, message_type, topic, qos=RELIABLE):
        key = message_type, topic, qos.reliability
        if key not in self.publishers:
            self.publishers[key] = self.sensors.create_publisher(message_type, topic, qos)
        return self.publishers[key]

    def silence(self, message_type, topic, qos=RELIABLE):
        self.sensors.destroy_publisher(self.publishers.pop((message_type, topic, qos.reliability)))

    def until(self, condition, timeout_s=10.0, step=lambda: None, watch=True):
        """Spin, with `step` 20 times a second and the inputs' watch ten times."""
        deadline, turn = time.monotonic() + timeout_s, 0
        while time.monotonic() < deadline:
            end = time.monotonic() + 0.05
            step()
            turn += 1
            if watch and turn % 2:
                self.inputs.check()
            while time.monotonic() < end:
                self.executor.spin_once(timeout_sec=0.01)
            if condition():
                return True
        return False

    def state(self, modality):
        return self.status(modality).state

    def status(self, modality):
        return {s.modality: s for s in self.stream.assess(self.now_ns())}[modality]

    def available(self, *modalities):
        return lambda: all(self.status(m).available for m in modalities)

    def subscriptions(self):
        return {s.topic_name: s for s in self.node.subscriptions
                if s.topic_name != '/parameter_events'}

    def now_ns(self):
        return self.sensors.get_clock().now().nanoseconds

    def close(self):
        if hasattr(self, 'inputs'):
            self.inputs.stop()
            assert self.subscriptions() == {}
        for node in list(self.executor.get_nodes()):
            self.executor.remove_node(node)
            node.destroy_node()
        self.executor.shutdown()

    def _settings(self):
        return {m: InputSettings(NANOSECONDS // 2, self.values[f'{m}.enabled'])
                for m in PAPER_MODALITIES}

    def _node(self, name, **options):
        node = rclpy.create_node(name, **options)
        self.executor.add_node(node)
        return node


@pytest.fixture
def rig(ros):
    rig = Rig()
    yield rig
    rig.close()


@pytest.fixture
def strangers(ros):
    """Return a node that might be on another machine: one process has one type for a topic."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('strangers', context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()
