"""The reader of the rosbags library returns what was written."""

from pathlib import Path

from karmma_ros.bags.writer import BagWriter, MissingTypesError
from karmma_ros.errors import InvalidSettingError
import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

START = 1_700_000_000_000_000_000


def write_one_of_each(path, **options):
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    with BagWriter(path, **options) as bag:
        bag.annotation(START, START + 2_000_000_000, (3, 'wash'), (1, 'plate'))
        bag.image(START, image)
        bag.audio(START, np.array([0, 0.5, -1, 1], np.float32), START + 250_000)
        bag.detections(START + 1, [(1, 2, 5, 4)], ['hand'], [0.75])
    return image


def read(path):
    """Return topic → (connection, bag time, message), with the types the bag itself defines."""
    store = get_typestore(Stores.EMPTY)
    messages = {}
    with Reader(path) as bag:
        for connection in bag.connections:
            types = get_types_from_msg(connection.msgdef.data, connection.msgtype)
            store.register({k: v for k, v in types.items() if k not in store.types})
        for connection, time_ns, data in bag.messages():
            message = store.deserialize_cdr(data, connection.msgtype)
            messages[connection.topic] = connection, time_ns, message
    return messages


@pytest.mark.parametrize('name', ['bag.mcap', 'bag.db3', 'folder'])
def test_everything_comes_back(tmp_path, name):
    image = write_one_of_each(tmp_path / name)
    messages = read(tmp_path / name)
    assert {topic: c.msgtype for topic, (c, _, _) in messages.items()} == {
        '/image': 'sensor_msgs/msg/Image',
        '/audio': 'audio_common_msgs/msg/AudioDataStamped',
        '/detections': 'vision_msgs/msg/Detection2DArray',
        '/ground_truth': 'karmma_msgs/msg/ActionAnnotation',
    }
    message = messages['/image'][2]
    assert (message.encoding, message.height, message.width, message.step) == ('rgb8', 4, 6, 18)
    np.testing.assert_array_equal(message.data, image.reshape(-1))
    truth = messages['/ground_truth'][2]
    assert (truth.verb_id, truth.verb, truth.noun_id, truth.noun) == (3, 'wash', 1, 'plate')
    assert truth.end.sec - truth.header.stamp.sec == 2


def test_audio_is_s16le_stamped_at_its_first_sample_and_received_at_its_last(tmp_path):
    write_one_of_each(tmp_path / 'bag.mcap')
    _, received_ns, message = read(tmp_path / 'bag.mcap')['/audio']
    assert message.audio.data.tobytes() == np.array([0, 16384, -32767, 32767], '<i2').tobytes()
    assert message.header.stamp.nanosec == 0
    assert received_ns == START + 250_000


def test_boxes_are_center_and_size_in_pixels(tmp_path):
    write_one_of_each(tmp_path / 'bag.mcap')
    box, = read(tmp_path / 'bag.mcap')['/detections'][2].detections
    assert (box.bbox.center.position.x, box.bbox.center.position.y) == (3, 3)
    assert (box.bbox.size_x, box.bbox.size_y) == (4, 2)
    hypothesis = box.results[0].hypothesis
    assert (hypothesis.class_id, hypothesis.score) == ('hand', 0.75)


def test_qos_and_type_hash_are_in_the_folder_for_other_tools(tmp_path):
    write_one_of_each(tmp_path / 'folder')
    metadata = (tmp_path / 'folder' / 'metadata.yaml').read_text()
    assert metadata.count('RIHS01_') == 4
    assert metadata.count('reliability: 1') == 4
    assert (tmp_path / 'folder' / 'folder.mcap').is_file()


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match='the video ends'):
        with BagWriter(tmp_path / 'bag.mcap') as bag:
            bag.image(START, np.zeros((4, 4, 3), np.uint8))
            raise RuntimeError('the video ends')
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bag_is_not_overwritten(tmp_path):
    (tmp_path / 'bag.mcap').write_text('precious')
    with pytest.raises(InvalidSettingError, match='does not exist yet'):
        BagWriter(tmp_path / 'bag.mcap')


def test_an_unknown_storage_is_refused(tmp_path):
    with pytest.raises(InvalidSettingError, match="storage is 'zip'; expected mcap or sqlite3"):
        BagWriter(tmp_path / 'bag', storage='zip')


def test_a_missing_message_package_is_a_sentence_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    with pytest.raises(MissingTypesError, match=r'vision_msgs under AMENT_PREFIX_PATH .*install'):
        with BagWriter(tmp_path / 'bag.mcap') as bag:
            bag.detections(START, [], [])
    assert not Path(tmp_path / 'bag.mcap').exists()


def test_an_inertial_sensor_and_a_skeleton_come_back(tmp_path):
    joints = np.arange(6, dtype=np.float64).reshape(2, 3)
    with BagWriter(tmp_path / 'bag.mcap') as bag:
        bag.imu(START, (0.1, 0.2, 9.8), (0.0, -1.5, 2.0))
        bag.skeleton(START + 1, joints)
    messages = read(tmp_path / 'bag.mcap')
    imu, skeleton = messages['/imu'][2], messages['/skeleton'][2]
    acceleration, rotation = imu.linear_acceleration, imu.angular_velocity
    assert (acceleration.x, acceleration.y, acceleration.z) == (0.1, 0.2, 9.8)
    assert (rotation.x, rotation.y, rotation.z) == (0.0, -1.5, 2.0)
    assert imu.orientation_covariance[0] == -1 and imu.header.stamp.nanosec == 0
    assert [[p.position.x, p.position.y, p.position.z] for p in skeleton.poses] == joints.tolist()
    assert messages['/skeleton'][0].msgtype == 'geometry_msgs/msg/PoseArray'
