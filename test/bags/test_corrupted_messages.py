"""Messages that a player publishes in place of those of the bag."""

import re

from karmma_ros.bags.corrupted_messages import CorruptedMessages
from karmma_ros.bags.faults import parse_corrupt
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.writer import BagWriter
from karmma_ros.errors import InvalidSettingError
import numpy as np
import pytest

START = 1_700_000_000_000_000_000
TENTH = 100_000_000


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    """Two seconds of each sensor, a message each tenth."""
    path = tmp_path_factory.mktemp('bags') / 'bag.mcap'
    rng = np.random.default_rng(0)
    with BagWriter(path) as bag:
        for i in range(20):
            now = START + i * TENTH
            bag.image(now, rng.integers(60, 255, (24, 32, 3), np.uint8))
            bag.audio(now, rng.normal(0, 0.1, 1600).astype(np.float32), now + TENTH)
            bag.detections(now, [(i, 2, i + 4.5, 8)], ['hand'])
    return path


def changed(path, text):
    """Return second, original and changed message of each message of the corrupted topic."""
    fault, names = parse_corrupt(text), {'rgb': '/image', 'audio': '/audio',
                                         'detections': '/detections'}
    with Bag(path) as bag:
        topic, = (t for t in bag.topics.values() if t.name == names[fault.input])
        change, read = CorruptedMessages(bag, {fault: [topic]}), bag.reader(topic)
        pairs = []
        for _, time_ns, data in bag.messages([topic]):
            new = change(topic, time_ns, data)
            pairs.append(((time_ns - bag.start_ns) / 1e9, read(data),
                          None if new is None else read(new)))
    return pairs


def pixels(message):
    return message.data.reshape(message.height, message.width, 3).astype(float)


def test_images_are_corrupted_while_the_fault_lasts(path):
    for second, old, new in changed(path, 'camera=covered@0.5s..1s'):
        assert new.header.stamp == old.header.stamp and new.encoding == 'rgb8'
        if 0.5 <= second < 1:
            assert pixels(new).mean() < 60 < pixels(old).mean()
        else:
            np.testing.assert_array_equal(new.data, old.data)


def test_a_frozen_camera_repeats_its_first_image_with_new_stamps(path):
    pairs = changed(path, 'rgb=frozen@0.5s..1s')
    frozen = [pair for pair in pairs if 0.5 <= pair[0] < 1]
    for _, old, new in frozen:
        assert new.header.stamp == old.header.stamp
        np.testing.assert_array_equal(new.data, frozen[0][1].data)
    np.testing.assert_array_equal(pairs[-1][2].data, pairs[-1][1].data)


@pytest.mark.parametrize(('name', 'largest'), [('silence', 0), ('muted', 40)])
def test_a_muted_microphone_is_silent(path, name, largest):
    for _, old, new in changed(path, f'microphone={name}'):
        wave = new.audio.data.view('<i2').astype(int)
        assert np.abs(wave).max() <= largest < np.abs(old.audio.data.view('<i2').astype(int)).max()
        assert len(wave) == 1600 and new.header.stamp == old.header.stamp


def test_stuck_boxes_repeat(path):
    boxes = [new.detections[0].bbox.center.position.x
             for _, _, new in changed(path, 'detections=stuck@1s..')]
    assert len(set(boxes[:10])) == 10 and len(set(boxes[-9:])) == 1


def test_boxes_that_cannot_be_written_again_are_an_error(path):
    with pytest.raises(InvalidSettingError, match=re.escape(
            'those of /detections, vision_msgs/msg/Detection2DArray, cannot be written again')):
        changed(path, 'detections=jitter')


def test_noise_is_drawn_from_a_seed(path):
    first, second = (changed(path, 'camera=noise:3') for _ in range(2))
    for (_, _, a), (_, _, b) in zip(first, second):
        np.testing.assert_array_equal(a.data, b.data)
