"""
The node gives the results that the offline evaluation of the same messages gives.

The messages of a bag go through DDS to a node in this process, one at a time: the clock is set to
the time of a message, the message is published, and nothing happens before the node received it.
Its worker runs at a request. So node and offline code have the same messages at the same
times, however busy the machine is, and every window must be the same: its end, the samples it
rests on, its probabilities. The bag with the node's results is then evaluated as `karmma bag
evaluate` does it, which must find each window again.

One bag has the paper's sensors; another has an inertial sensor, depth and a skeleton, each of
which is silent for a while, and the masks are compared with rules that know nothing of the
package.

How threads, real time and a player of its own bear the load is tested in test_processes.py,
test_control.py and test_demo.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
import time

from ament_index_python.packages import get_package_share_directory
from audio_common_msgs.msg import AudioDataStamped
from geometry_msgs.msg import Point, Pose, PoseArray
from karmma_msgs.msg import ActionRecognition
from karmma_ros.bags.bag_run import Condition
from karmma_ros.bags.evaluate import evaluate_bag, Settings
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.recorded import matches, recorded_prediction, TOLERANCE
from karmma_ros.bags.replay import Replay, Run
from karmma_ros.bags.topics import choose_topics
from karmma_ros.cli.main import main
from karmma_ros.clip import ClipSpec
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.modalities import input_modalities
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.presets import only, preset
from karmma_ros.model.registry import find_model
from karmma_ros.node.executor import make_executor
from karmma_ros.node.lifecycle import KarmmaNode
from karmma_ros.node.messages import time_message, time_ns
from karmma_ros.node.session import Session
from karmma_ros.node.worker import Worker
from karmma_ros.prediction import Vocabulary
from karmma_ros.stream.settings import node_parameters
from karmma_ros.stream.window import Window
import numpy as np
import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, Imu
import torch
from vision_msgs.msg import Detection2DArray

RATE_HZ = 7.0  # no tick at the very time of a message
PERIOD_NS = int(1 / RATE_HZ * 1e9)
EPISODES, EPISODE_S = 2, 3.0
SILENCE_S = (3.0, 4.5)
"""The microphone is cut, so that not all windows rest on the same sensors."""
SENSORS = {'/image': Image, '/audio': AudioDataStamped, '/detections': Detection2DArray}

BODY_S, WINDOW_S, TIMEOUT_S = 6.0, 0.8, 0.4
BODY = {'/imu': Imu, '/depth': Image, '/skeleton': PoseArray}
BODY_RATES_HZ = {'imu': 50, 'depth': 10, 'skeleton': 25}
BODY_SILENT_S = {'imu': (1.2, 2.3), 'depth': (1.9, 3.1), 'skeleton': (4.0, 5.2)}
BODY_SPEC = ClipSpec(duration=WINDOW_S, num_frames=8, inputs={
    'imu': {'samples': 32}, 'depth': {'height': 16, 'width': 16},
    'skeleton': {'joints': 3, 'dimensions': 3, 'samples': 16}})
START_NS = 1_735_689_600_000_000_000
TYPE = 'karmma_msgs/msg/ActionRecognition'


class Lockstep:
    """A node in this process that takes one message, or one step of its clock, at a time."""

    def __init__(self, sensors: Mapping[str, type], values: Mapping[str, object]) -> None:
        self.sensors, self.values, self.calls = sensors, values, 0
        """Ticks of the rate and messages that were taken."""
        self.results: list[ActionRecognition] = []

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count what the node does, and let its worker run where a result is requested."""
        for name in ('_tick', '_on_message'):
            monkeypatch.setattr(Session, name, self._counted(getattr(Session, name)))
        monkeypatch.setattr(Worker, 'start', lambda worker: None)
        monkeypatch.setattr(Worker, 'request_report', lambda worker: None)
        monkeypatch.setattr(Worker, 'request_result', lambda worker: worker._publish(True))

    def _counted(self, method):
        def counted(session: Session) -> None:
            method(session)
            self.calls += 1
        return counted

    def start(self) -> None:
        """Make the node active before its clock runs, as `karmma bag evaluate` supposes it."""
        self.peer = rclpy.create_node('lockstep')
        self.clock = self.peer.create_publisher(Clock, '/clock', 10)
        self.publishers = {topic: self.peer.create_publisher(message_type, topic, 50)
                           for topic, message_type in self.sensors.items()}
        self.peer.create_subscription(
            ActionRecognition, 'action_recognition', self.results.append, 500)
        values = {**self.values, 'backend': 'eager', 'threads': 1, 'use_sim_time': True}
        self.node = KarmmaNode(enable_communication_interface=False, parameter_overrides=[
            Parameter(name, value=value) for name, value in values.items()])
        self.executor, _ = make_executor(self.peer)
        self.executor.add_node(self.node)
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self.until(lambda: all(p.get_subscription_count() for p in self.publishers.values())
                   and self.clock.get_subscription_count()
                   and self.peer.count_publishers('action_recognition'))

    def close(self) -> None:
        self.executor.shutdown()
        self.node.trigger_shutdown()
        self.node.destroy_node()
        self.peer.destroy_node()

    def until(self, condition, again=lambda: None) -> None:
        """Spin until the condition holds, calling `again` every second in the meantime."""
        deadline, due = time.monotonic() + 60, time.monotonic() + 1
        while not condition():
            assert time.monotonic() < deadline, 'the node does not take what it is sent'
            self.executor.spin_once(timeout_sec=0.05)
            if time.monotonic() > due:
                again()
                due = time.monotonic() + 1

    def tick(self, now_ns: int) -> None:
        """Set the clock to a time at which the rate has a tick, and wait for the tick."""
        before = self.calls
        self.set_clock(now_ns)
        self.until(lambda: self.calls > before)

    def set_clock(self, now_ns: int) -> None:
        """Set the clock; /clock is best effort, so it is published until it has arrived."""
        message = Clock(clock=time_message(now_ns))
        self.clock.publish(message)
        self.until(lambda: self.node.get_clock().now().nanoseconds == now_ns,
                   lambda: self.clock.publish(message))

    def send(self, topic: str, data: bytes) -> None:
        """Publish a message and wait until the node has taken it."""
        before = self.calls
        self.publishers[topic].publish(data)
        self.until(lambda: self.calls > before)


@dataclass(frozen=True)
class Both:
    """The results of the node and of the offline code for the same messages."""

    live: list[ActionRecognition]
    windows: list[Window]
    """Of the offline code, at its own times."""
    offline: BagPredictions
    recorded: dict
    """How the node's results in the bag compare with the offline ones."""


@pytest.fixture(scope='module')
def kitchen(ros, tmp_path_factory):
    """Compare both for a bag of the paper's sensors."""
    folder = tmp_path_factory.mktemp('kitchen')
    words = ['--episodes', str(EPISODES), '--seconds', str(EPISODE_S)]
    assert main(['bag', 'synthetic', str(folder / 'kitchen.mcap'), *words]) == 0
    copy(folder / 'kitchen.mcap', folder / 'played', [])
    return compare(folder, SENSORS, {'model': 'synthetic_kitchen'})


@pytest.fixture(scope='module')
def body(ros, tmp_path_factory):
    """Compare both for a bag of other sensors."""
    folder = tmp_path_factory.mktemp('body')
    torch.manual_seed(0)
    config, vocabulary = only(preset('tiny'), BODY_RATES_HZ), Vocabulary({'action': ('a', 'b')})
    network = build(config, BODY_SPEC, vocabulary)
    save_bundle(folder / 'model', network, config, BODY_SPEC, vocabulary, dataset='none', card='')
    write_body(folder / 'played')
    return compare(folder, BODY, {'model': str(folder / 'model'), **{
        f'{name}.timeout': TIMEOUT_S for name in BODY_RATES_HZ}})


@pytest.fixture(params=['kitchen', 'body'])
def both(request):
    return request.getfixturevalue(request.param)


def body_times(name: str) -> np.ndarray:
    """Return when a sensor of the other bag sends, in seconds."""
    times = np.arange(0.01, BODY_S, 1 / BODY_RATES_HZ[name])
    first, last = BODY_SILENT_S[name]
    return times[(times < first) | (times > last)]


def write_body(path: Path) -> None:
    """Write a bag of an inertial sensor, depth and a skeleton."""
    random, events = np.random.default_rng(0), []
    for name in BODY_RATES_HZ:
        for time_s in body_times(name):
            message = BODY[f'/{name}']()
            if name == 'imu':
                message.linear_acceleration.z, message.angular_velocity.x = 9.8, random.normal()
            elif name == 'depth':
                pixels = random.integers(1000, 2000, (24, 32), np.uint16)
                message = Image(height=24, width=32, step=64, encoding='16UC1',
                                data=pixels.tobytes())
            else:
                message.poses = [Pose(position=Point(x=random.normal(), y=float(i), z=1.0))
                                 for i in range(3)]
            stamp_ns = START_NS + round(time_s * 1e9)
            message.header.stamp = time_message(stamp_ns)
            events.append((stamp_ns + 2_000_000, name, serialize_message(message)))
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            name: writer.add_connection(
                f'/{name}', f'{(t := BODY[f"/{name}"]).__module__.split(".")[0]}/msg/{t.__name__}',
                typestore=store)
            for name in BODY_RATES_HZ}
        for received_ns, name, data in sorted(events, key=lambda event: event[0]):
            writer.write(connections[name], received_ns, data)


def compare(folder: Path, sensors: Mapping[str, type], values: Mapping[str, object]) -> Both:
    """Play the bag `played` live and offline; evaluate it with the node's results in it."""
    parameters = {'rate': RATE_HZ, **values}
    live = play(folder / 'played', sensors, parameters)
    copy(folder / 'played', folder / 'recorded', live)
    bundle = load_bundle(find_model(str(values['model'])))
    modalities = bundle.network.modalities
    settings = {**node_parameters(modalities=input_modalities(modalities, bundle.spec)),
                **parameters}
    evaluated = evaluate_bag(folder / 'recorded', bundle, Settings(settings), run_dir=None)
    with Bag(folder / 'played') as bag:
        windows = [request.window for request in Replay(
            bag, choose_topics(bag, {}, modalities), bundle.spec, modalities, settings,
            [Run()], []).windows()]
    return Both(live, windows, evaluated.predictions[Condition()], evaluated.recorded)


def play(
    path: Path, sensors: Mapping[str, type], values: Mapping[str, object],
) -> list[ActionRecognition]:
    """Play a bag to a node in lockstep; return all its results."""
    steps = Lockstep(sensors, values)
    with pytest.MonkeyPatch.context() as patch, Reader(path) as bag:
        steps.patch(patch)
        connections = [c for c in bag.connections if c.topic in sensors]
        steps.start()
        try:
            tick_ns = bag.start_time // PERIOD_NS * PERIOD_NS
            for connection, now_ns, data in bag.messages(connections):
                while tick_ns <= now_ns:
                    steps.tick(tick_ns)
                    tick_ns += PERIOD_NS
                if steps.node.get_clock().now().nanoseconds != now_ns:
                    steps.set_clock(now_ns)
                steps.send(connection.topic, bytes(data))
            published = steps.node._session.worker.timings.results
            steps.until(lambda: len(steps.results) == published)
        finally:
            steps.close()
    for message in steps.results:
        message.inference_latency = 0.0  # by the clock of the bag, which stood still meanwhile
    return steps.results


def published_ns(message: ActionRecognition) -> int:
    return time_ns(message.header.stamp) + round(message.end_to_end_latency * 1e9)


def copy(source, target, results):
    """Copy a bag without the audio of `SILENCE_S`, and add the node's results."""
    with Reader(source) as bag, Writer(
            target, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        store = types('karmma_msgs', 'audio_common_msgs', 'vision_msgs')
        connections = {c.id: writer.add_connection(
            c.topic, c.msgtype, typestore=store,
            offered_qos_profiles=c.ext.offered_qos_profiles) for c in bag.connections}
        silence = range(*(bag.start_time + round(s * 1e9) for s in SILENCE_S))
        for connection, received_ns, data in bag.messages():
            if connection.topic != '/audio' or received_ns not in silence:
                writer.write(connections[connection.id], received_ns, bytes(data))
        if results:
            connection = writer.add_connection('/action_recognition', TYPE, typestore=store)
        for result in results:
            writer.write(connection, published_ns(result), serialize_message(result))


def types(*packages):
    store, texts = get_typestore(Stores.ROS2_JAZZY), {}
    for package in packages:
        for path in Path(get_package_share_directory(package), 'msg').glob('*.msg'):
            texts.update(get_types_from_msg(path.read_text(), f'{package}/msg/{path.stem}'))
    store.register(texts)
    return store


def used(message: ActionRecognition) -> tuple[str, ...]:
    return tuple(s.name for s in message.modalities if s.used)


def test_the_node_misses_a_sensor_for_a_while(kitchen):
    masks = set(map(used, kitchen.live))
    assert {('rgb', 'flow', 'audio', 'detections'), ('rgb', 'flow', 'detections')} <= masks
    assert len(kitchen.live) >= 0.7 * EPISODES * EPISODE_S * RATE_HZ


def test_the_masks_of_other_sensors_are_right(body):
    """A sensor is used when it sent in its timeout, and in enough of the window."""
    certain = []
    for message in body.live:
        now_s = (published_ns(message) - START_NS) / 1e9
        end_s = (time_ns(message.window_end) - START_NS) / 1e9
        for name in BODY_RATES_HZ:
            times = body_times(name)
            times = times[times + 0.002 <= now_s]
            fresh = bool(len(times)) and now_s - times[-1] - 0.002 <= TIMEOUT_S
            in_window = times[(times > end_s - WINDOW_S) & (times <= end_s)]
            covered = len(in_window) / BODY_RATES_HZ[name] / WINDOW_S
            if fresh and 0.35 < covered < 0.65:
                continue  # depends on where the grid of the window lies
            expected = fresh and covered > 0.5
            certain.append((name in used(message)) == expected)
            assert certain[-1], (name, now_s, end_s, covered, used(message))
    assert len(certain) > 0.8 * len(BODY_RATES_HZ) * len(body.live) > 80
    assert {('imu', 'depth', 'skeleton'), ('depth', 'skeleton'), ('skeleton',),
            ('imu', 'skeleton'), ('imu', 'depth')} == set(map(used, body.live))


def test_both_have_the_same_windows(both):
    assert [time_ns(m.window_end) for m in both.live] == [w.end_ns for w in both.windows]
    for message, window in zip(both.live, both.windows):
        assert [(s.name, s.state, s.num_samples, time_ns(s.last_stamp)) for s in (
            message.modalities)] == [
            (str(s.modality), int(s.state), s.num_samples, s.last_stamp_ns)
            for s in window.statuses]
        assert used(message) == tuple(map(str, window.modalities))


def test_both_have_the_same_predictions(both):
    heads = tuple(both.offline.probabilities)
    compared = matches(
        [recorded_prediction(m, published_ns(m), heads) for m in both.live], both.offline)
    assert len(compared) == len(both.live) > 0
    for each in compared:
        assert each is not None and each['sensors'] and each['best']
        assert each['difference'] <= TOLERANCE == 1e-3


def test_the_bag_with_the_results_of_the_node_is_evaluated_to_the_same(both):
    recorded, count = both.recorded, len(both.live)
    assert not recorded.unreadable and not recorded.of_another_model
    assert [recorded.predictions, recorded.same_window, recorded.same_prediction,
            recorded.same_best] == [count] * 4
