"""The player: what it mutes, what it refuses, and that its bytes arrive."""

import re
import sqlite3
import subprocess
import sys
import time

from karmma_msgs.msg import ActionAnnotation
from karmma_ros.bags.faults import Corrupt, parse_corrupt
from karmma_ros.bags.writer import BagWriter
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import PAPER_MODALITIES
from karmma_ros.node.player import corrupted_topics, main, muted_topics
from karmma_ros.stream.settings import parse_mute
import numpy as np
import pytest
import rclpy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

START = 1_700_000_000_000_000_000
V, F, A, D = PAPER_MODALITIES
TOPICS = {'/image': V, '/image/compressed': V, '/flow': F, '/audio': A, '/boxes': D,
          '/ground_truth': None}


@pytest.mark.parametrize(('what', 'expected'), [
    ('camera', {'/image', '/image/compressed'}), ('flow', {'/flow'}), ('audio', {'/audio'}),
    ('all', {'/image', '/image/compressed', '/flow', '/audio', '/boxes'}),
    ('/ground_truth', {'/ground_truth'}), ('/image', {'/image'}),
])
def test_a_mute_holds_back_every_topic_of_its_input(what, expected):
    mute = parse_mute(what)
    assert muted_topics([mute], TOPICS) == {mute: expected}


@pytest.mark.parametrize(('what', 'text'), [
    ('audio', r"'audio'; expected an input or topic of the bag: /image \(rgb\), /truth$"),
    ('/nose', "'/nose'; expected an input or topic of the bag"),
    ('flow', 'flow is computed from the camera here: mute rgb'),
    ('flow_wrist', 'computed from the camera .wrist. here: mute rgb_wrist'),
])
def test_a_mute_of_what_the_bag_lacks_is_an_error(what, text):
    with pytest.raises(InvalidSettingError, match=text):
        muted_topics([parse_mute(what)], {'/image': V, '/truth': None})


@pytest.mark.parametrize(('what', 'fault', 'topics'), [
    ('camera=covered@1s..2s', Corrupt('rgb', 'covered', 5, 1.0, 2.0),
     {'/image', '/image/compressed'}),
    ('/audio=hiss:3', Corrupt('audio', 'hiss', 3), {'/audio'}),
])
def test_a_corruption_affects_every_topic_of_its_input(what, fault, topics):
    assert corrupted_topics([parse_corrupt(what)], TOPICS) == {fault: topics}


@pytest.mark.parametrize(('what', 'text'), [
    ('/ground_truth=black', "--corrupt is '/ground_truth'; expected an input or topic of the bag"),
    ('/audio=black', "corruption of audio is 'black'; expected silence, muted, hiss"),
    ('imu=noise', "'imu'; expected an input or topic of the bag: /image"),
])
def test_a_corruption_that_cannot_be_is_an_error(what, text):
    with pytest.raises(InvalidSettingError, match=re.escape(text)):
        corrupted_topics([parse_corrupt(what)], TOPICS)


def test_the_command_reports_it_before_it_plays(bag, capsys):
    assert main([str(bag), '--mute', 'audio']) == 2
    assert 'topic of the bag: /ground_truth, /image (rgb)' in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'content'), [
    ('none.mcap', None), ('bad.mcap', b'no bag'), ('bad.db3', b'no bag'), ('bad.txt', b'no bag')])
def test_a_bag_that_cannot_be_read_is_a_sentence(tmp_path, capsys, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main([str(tmp_path / name)]) == 2
    assert 'a readable rosbag2 bag' in capsys.readouterr().err


@pytest.fixture
def bag(tmp_path):
    path = tmp_path / 'bag.mcap'
    with BagWriter(path) as writer:
        writer.annotation(START, START + 2_000_000_000, (0, 'wash'), (1, 'plate'))
        for index in range(20):
            image = np.full((6, 8, 3), index, np.uint8)
            writer.image(START + index * 100_000_000, image)
    return path


def test_the_bag_arrives_at_its_rate_but_for_what_is_muted(ros, bag):
    node = rclpy.create_node('listener')
    images, truths, clocks = [], [], []
    node.create_subscription(Image, 'image', images.append, 50)
    node.create_subscription(ActionAnnotation, 'ground_truth', truths.append, 50)
    node.create_subscription(Clock, 'clock', clocks.append, 500)
    started = time.monotonic()
    player = subprocess.Popen(
        [sys.executable, '-m', 'karmma_ros.node.player', str(bag), '--rate', '2', '--clock',
         '--mute', 'camera@0.45..0.95'], stdout=subprocess.PIPE, text=True)
    while player.poll() is None and time.monotonic() - started < 30:
        rclpy.spin_once(node, timeout_sec=0.05)
    for _ in range(600):
        rclpy.spin_once(node, timeout_sec=0.0)
    node.destroy_node()
    shades = [message.data[0] for message in images]
    assert shades == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    assert [(t.verb, t.noun) for t in truths] == [('wash', 'plate')]
    times = [c.clock.sec * 1_000_000_000 + c.clock.nanosec for c in clocks]
    assert times == sorted(times) and times[-1] == START + 1_900_000_000
    # The clock continues through the half second without images.
    assert sum(START + 450_000_000 < t < START + 950_000_000 for t in times) >= 5
    last = player.stdout.read().splitlines()[-1]
    assert last.startswith('replay: sent 1 /ground_truth, 15 /image in ')
    assert 0.9 <= float(last.split()[-2]) < 3


@pytest.mark.parametrize(('type_name', 'topic', 'text'), [
    ('std_msgs/msg/Bool', '/a b/../c', 'skipped: it cannot be published'),
    ('os/msg/system', '/a', 'is not installed'), ('x', '/a', 'is not installed'),
    ('std_msgs/msg/Bool', '/a', 'sent 1 /a in'),
])
def test_what_a_bag_promises_and_lacks_ends_with_1(tmp_path, type_name, topic, text):
    path = tmp_path / 'bag.db3'
    with sqlite3.connect(path) as rows:
        rows.execute('CREATE TABLE topics(id INTEGER PRIMARY KEY, name, type, '
                     'serialization_format, offered_qos_profiles)')
        rows.execute('CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data)')
        rows.execute("INSERT INTO topics VALUES(1, ?, ?, 'cdr', '[')", (topic, type_name))
        rows.execute('INSERT INTO messages VALUES(1, 1, 5, ?)', (b'\0\1\0\0\1',))
        rows.execute('INSERT INTO messages VALUES(2, 9, 6, ?)', (b'\0\1\0\0\1',))
    rows.close()
    run = subprocess.run([sys.executable, '-m', 'karmma_ros.node.player', str(path), '--wait',
                          '0'], capture_output=True, text=True)
    assert run.returncode == 1 and text in run.stdout
    assert 'not all was played: 1 messages of topics that the file does not define' in run.stderr
