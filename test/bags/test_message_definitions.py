"""Types that this machine does not have: from the bag itself, else as they were in Humble."""

import sqlite3

from karmma_ros.bags.message_definitions import TypeReader
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.writer import BagWriter
import numpy as np
import pytest
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

START_NS = 1_700_000_000_000_000_000


@pytest.fixture
def humble(tmp_path, monkeypatch):
    """Return a bag as Humble writes it: sqlite3 without any definition."""
    path = tmp_path / 'humble.db3'
    with BagWriter(path) as bag:
        bag.annotation(START_NS, START_NS + 10**9, (1, 'wash'), (2, 'cup'))
        bag.image(START_NS, np.zeros((4, 6, 3), np.uint8))
        bag.audio(START_NS, np.zeros(8, np.float32), START_NS + 500_000)
        bag.detections(START_NS, [(1, 1, 3, 3)], ['hand'])
    bag = sqlite3.connect(path)
    bag.execute('DROP TABLE message_definitions')
    bag.execute('DROP TABLE schema')
    bag.execute('ALTER TABLE topics DROP COLUMN type_description_hash')
    bag.commit()
    bag.close()
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    return path


def test_a_humble_bag_is_read_without_ros(humble):
    found = {}
    with Bag(humble) as bag:
        assert not bag.warnings and not bag.lost
        for topic, _, data in bag.messages(list(bag.topics.values())):
            found[topic.name] = bag.reader(topic)(data)
    assert (found['/image'].encoding, found['/image'].width) == ('rgb8', 6)
    assert len(found['/audio'].audio.data) == 16
    assert found['/detections'].detections[0].results[0].hypothesis.class_id == 'hand'
    assert (found['/ground_truth'].verb, found['/ground_truth'].stop.sec) == (
        'wash', START_NS // 10**9 + 1)


def test_the_bags_own_definition_counts():
    """mgonzs13's package has the name of another one; only the bag knows which it was."""
    text = 'std_msgs/Header header\nuint8 more\n' + '=' * 80 + (
        '\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n') + (
        '=' * 80 + '\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n')
    name = 'audio_common_msgs/msg/AudioDataStamped'
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(text, name))
    types = store.types
    time = types['builtin_interfaces/msg/Time'](1, 2)
    data = store.serialize_cdr(types[name](types['std_msgs/msg/Header'](time, 'x'), 7), name)
    read = TypeReader(name, MessageDefinition(MessageDefinitionFormat.MSG, text))
    assert read(data).more == 7


@pytest.mark.parametrize('text', ['no definition at all {', 'unknown_msgs/Thing thing'])
def test_a_definition_that_cannot_be_used_falls_back_to_what_is_known(text):
    definition = MessageDefinition(MessageDefinitionFormat.MSG, text)
    read = TypeReader('vision_msgs/msg/Detection2DArray', definition)
    assert 'vision_msgs/msg/Detection2D' in read._store.types


def test_told_audio_has_its_own_package():
    store = TypeReader('audio_common_msgs/msg/AudioStamped', None)._store
    fields = [name for name, _ in store.fielddefs['audio_common_msgs/msg/AudioData'][1]]
    assert 'float32_data' in fields


def test_a_type_that_nobody_knows_is_a_sentence():
    with pytest.raises(ValueError, match='does not define my_msgs/msg/Own, nor is it known here'):
        TypeReader('my_msgs/msg/Own', None)


def test_bytes_that_are_no_message_are_a_sentence():
    with pytest.raises(ValueError, match='are no sensor_msgs/msg/Image'):
        TypeReader('sensor_msgs/msg/Image', None)(b'\x00\x01\x00\x00\x05')
