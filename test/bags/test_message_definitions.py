"""Types that are not installed: as defined in the bag, else as they were in Humble."""

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
    """Return a bag as Humble writes it, in sqlite3 without any definition."""
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
    messages = {}
    with Bag(humble) as bag:
        assert not bag.warnings and not bag.missing
        for topic, _, data in bag.messages(list(bag.topics.values())):
            messages[topic.name] = bag.reader(topic)(data)
    assert (messages['/image'].encoding, messages['/image'].width) == ('rgb8', 6)
    assert len(messages['/audio'].audio.data) == 16
    assert messages['/detections'].detections[0].results[0].hypothesis.class_id == 'hand'
    assert (messages['/ground_truth'].verb, messages['/ground_truth'].end.sec) == (
        'wash', START_NS // 10**9 + 1)


def test_the_definition_in_the_bag_is_used():
    """Two packages have the same name; only the bag states which it was."""
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


@pytest.mark.parametrize('text', ['no definition at all {', 'unknown_msgs/Object object'])
def test_a_definition_that_cannot_be_used_falls_back_to_a_predefined_one(text):
    definition = MessageDefinition(MessageDefinitionFormat.MSG, text)
    read = TypeReader('vision_msgs/msg/Detection2DArray', definition)
    assert 'vision_msgs/msg/Detection2D' in read._store.types


def test_audio_stamped_has_its_own_package():
    store = TypeReader('audio_common_msgs/msg/AudioStamped', None)._store
    fields = [name for name, _ in store.fielddefs['audio_common_msgs/msg/AudioData'][1]]
    assert 'float32_data' in fields


def test_an_unknown_type_is_a_sentence():
    with pytest.raises(ValueError, match='define my_msgs/msg/Own, and it is not predefined'):
        TypeReader('my_msgs/msg/Own', None)


def test_bytes_that_are_no_message_are_a_sentence():
    with pytest.raises(ValueError, match='are no sensor_msgs/msg/Image'):
        TypeReader('sensor_msgs/msg/Image', None)(b'\x00\x01\x00\x00\x05')
