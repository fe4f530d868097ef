"""The player: what it mutes, what it refuses, and that its bytes arrive."""

import subprocess
import sys
import time

from karmma_msgs.msg import ActionAnnotation
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.bags import BagWriter
from karmma_ros.node.replay import main, Mute
import numpy as np
import pytest
import rclpy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

IMAGE = 'sensor_msgs/msg/Image'
AUDIO = 'audio_common_msgs/msg/AudioDataStamped'
START = 1_700_000_000_000_000_000


@pytest.mark.parametrize(('text', 'expected'), [
    ('audio@3s..6s', Mute(AUDIO, 3, 6)),
    ('camera@1.5..2', Mute(IMAGE, 1.5, 2)),
    ('rgb@10..', Mute(IMAGE, 10)),
    ('detections', Mute('vision_msgs/msg/Detection2DArray')),
    ('/image@1s..2s', Mute('/image', 1, 2)),
])
def test_mutes_are_read(text, expected):
    assert Mute.parse(text) == expected


@pytest.mark.parametrize('text', ['smell@1..2', 'audio@x..y', 'audio@3', '', 'audio@1.2.3..4'])
def test_a_mute_that_cannot_be_read_names_what_may_be(text):
    with pytest.raises(InvalidSettingError, match='camera, audio, detections'):
        Mute.parse(text)


def test_flow_cannot_be_muted_by_itself():
    with pytest.raises(InvalidSettingError, match='computed from the camera: mute that'):
        Mute.parse('flow@1..2')


def test_a_mute_holds_from_its_start_until_before_its_stop():
    mute = Mute.parse('audio@3..6')
    assert [mute.covers('/a', AUDIO, t) for t in (2.9, 3.0, 5.9, 6.0)] == [
        False, True, True, False]
    assert not mute.covers('/a', IMAGE, 4)


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
            picture = np.full((6, 8, 3), index, np.uint8)
            writer.image(START + index * 100_000_000, picture)
    return path


def test_the_bag_arrives_at_its_pace_but_for_what_is_muted(ros, bag):
    node = rclpy.create_node('listener')
    images, truths, clocks = [], [], []
    node.create_subscription(Image, 'image', images.append, 50)
    node.create_subscription(ActionAnnotation, 'ground_truth', truths.append, 50)
    node.create_subscription(Clock, 'clock', clocks.append, 500)
    started = time.monotonic()
    player = subprocess.Popen(
        [sys.executable, '-m', 'karmma_ros.node.replay', str(bag), '--rate', '2', '--clock',
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
    # The clock goes on through the half second without pictures.
    assert sum(START + 450_000_000 < t < START + 950_000_000 for t in times) >= 5
    last = player.stdout.read().splitlines()[-1]
    assert last.startswith('replay: sent 1 /ground_truth, 15 /image in ')
    assert 0.9 <= float(last.split()[-2]) < 3
