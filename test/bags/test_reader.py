"""Bags of both storages, intact and damaged: readable messages are read, others counted."""

import shutil
import struct
import zlib

from karmma_ros.bags.reader import Bag
from karmma_ros.bags.topics import choose_topics, parse_topics
from karmma_ros.bags.writer import BagWriter
from karmma_ros.errors import BagError, KarmmaError
from karmma_ros.modality import Modality, PAPER_MODALITIES
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import get_typestore, Stores

START_NS = 1_700_000_000_000_000_000
STEP_NS = 50_000_000
FRAMES = 60
STORAGES = ['mcap', 'sqlite3']
CHUNK = 6
"""Number of this opcode of record in mcap files."""


def write(path, storage='mcap', frames=FRAMES):
    """Write a camera of noise, which no compression makes small, and a microphone."""
    random = np.random.default_rng(0)
    with BagWriter(path, storage=storage) as bag:
        for i in range(frames):
            time_ns = START_NS + i * STEP_NS
            bag.image(time_ns, random.integers(0, 256, (48, 64, 3), np.uint8))
            bag.audio(time_ns, np.zeros(800, np.float32), time_ns + STEP_NS)
    return path


def read(path):
    """Return (topic, time) of the readable messages, the missing ones and the warnings."""
    with Bag(path) as bag:
        messages = [(m.topic.name, m.received_ns) for m in bag.messages(list(bag.topics.values()))]
        return messages, dict(bag.missing), list(bag.warnings)


def file_of(folder):
    return next(p for p in folder.iterdir() if p.suffix in ('.mcap', '.db3'))


def truncate(path, fraction):
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * fraction)])


@pytest.mark.parametrize('storage', STORAGES)
def test_an_intact_bag_is_read_completely_and_in_order(tmp_path, storage):
    messages, missing, warnings = read(write(tmp_path / 'bag', storage))
    assert len(messages) == 2 * FRAMES and not missing and not warnings
    times = [time_ns for _, time_ns in messages]
    assert times == sorted(times)
    with Bag(tmp_path / 'bag') as bag:
        assert bag.files.storage == storage
        assert (bag.start_ns, bag.end_ns) == (START_NS, START_NS + FRAMES * STEP_NS)


@pytest.mark.parametrize('storage', STORAGES)
def test_a_time_range_is_read(tmp_path, storage):
    with Bag(write(tmp_path / 'bag', storage)) as bag:
        topics = [t for t in bag.topics.values() if t.name == '/image']
        start_ns, stop_ns = START_NS + 10 * STEP_NS, START_NS + 20 * STEP_NS
        times = [m.received_ns for m in bag.messages(topics, start_ns, stop_ns)]
    assert times == list(range(start_ns, stop_ns, STEP_NS))


@pytest.mark.parametrize('storage', STORAGES)
def test_images_are_read_unchanged(tmp_path, storage):
    expected = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    with Bag(write(tmp_path / 'bag', storage, 2)) as bag:
        topic = next(t for t in bag.topics.values() if t.name == '/image')
        message = bag.reader(topic)(next(iter(bag.messages([topic]))).data)
    assert np.array_equal(np.asarray(message.data).reshape(48, 64, 3), expected)


@pytest.mark.parametrize('storage', STORAGES)
def test_without_metadata_all_is_read_with_a_warning(tmp_path, storage):
    path = write(tmp_path / 'bag', storage)
    (path / 'metadata.yaml').unlink()
    messages, missing, warnings = read(path)
    assert len(messages) == 2 * FRAMES and not missing
    assert len(warnings) == 1 and 'metadata.yaml is missing' in warnings[0]


@pytest.mark.parametrize('storage', STORAGES)
def test_damaged_metadata_is_not_needed(tmp_path, storage):
    path = write(tmp_path / 'bag', storage)
    (path / 'metadata.yaml').write_text('rosbag2_bagfile_information: [')
    messages, _, warnings = read(path)
    assert len(messages) == 2 * FRAMES
    assert 'metadata.yaml is damaged' in warnings[0]


@pytest.mark.parametrize('fraction', [0.3, 0.6, 0.95])
def test_a_truncated_mcap_is_read_up_to_its_end(tmp_path, fraction):
    complete, _, _ = read(write(tmp_path / 'bag'))
    truncate(file_of(tmp_path / 'bag'), fraction)
    messages, missing, warnings = read(tmp_path / 'bag')
    assert 0.7 * fraction < len(messages) / len(complete) <= fraction + 0.1
    assert set(messages) <= set(complete) and len(set(messages)) == len(messages)
    # A message of the truncated record counts twice.
    assert 0 <= sum(missing.values()) - (len(complete) - len(messages)) <= 2
    assert any('is damaged' in text for text in warnings)


@pytest.mark.timeout(40)
def test_a_truncated_sqlite_bag_is_read_or_rejected_with_a_sentence(tmp_path):
    path = write(tmp_path / 'bag', 'sqlite3')
    truncate(file_of(path), 0.5)
    try:
        messages, missing, warnings = read(path)
    except BagError as error:
        assert 'record again' in str(error)
    else:
        assert 0 < len(messages) < 2 * FRAMES
        assert sum(missing.values()) > 0 and any('is damaged' in text for text in warnings)


@pytest.mark.parametrize('compression', [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags_are_read(tmp_path, compression):
    store = get_typestore(Stores.ROS2_HUMBLE)
    writer = Writer(tmp_path / 'bag', version=8, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    text = store.types['std_msgs/msg/String']
    with writer:
        topic = writer.add_connection('/text', 'std_msgs/msg/String', typestore=store)
        for i in range(20):
            data = store.serialize_cdr(text(data=f'word {i} ' * 20), 'std_msgs/msg/String')
            writer.write(topic, START_NS + i, data)
    with Bag(tmp_path / 'bag') as bag:
        (topic,) = bag.topics.values()
        read_text = bag.reader(topic)
        words = [read_text(message.data).data for message in bag.messages([topic])]
        assert words == [f'word {i} ' * 20 for i in range(20)] and not bag.missing
        assert 'zstd' in bag.files.storage


def with_checksums(path):
    """Write the checksum of each chunk, as recorders do but not the rosbags library."""
    data, offset, chunks = bytearray(path.read_bytes()), 8, []
    while offset < len(data) - 8:
        opcode, length = struct.unpack_from('<BQ', data, offset)
        if opcode == CHUNK:
            (name,) = struct.unpack_from('<I', data, offset + 37)
            first, last = offset + 49 + name, offset + 9 + length
            struct.pack_into('<I', data, offset + 33, zlib.crc32(data[first:last]))
            chunks.append((first, last))
        offset += 9 + length
    path.write_bytes(data)
    return chunks


@pytest.mark.parametrize('checked', [True, False])
def test_damage_within_pixels_is_noticed_where_the_recorder_wrote_checksums(tmp_path, checked):
    path = file_of(write(tmp_path / 'bag', frames=800))
    complete, missing, warnings = read(path.parent)
    chunks = with_checksums(path) if checked else []
    assert read(path.parent) == (complete, {}, []) == (complete, missing, warnings)
    assert len(chunks) >= 2 * checked
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 255
    path.write_bytes(data)
    messages, missing, warnings = read(path.parent)
    assert set(messages) <= set(complete) and len(set(messages)) == len(messages)
    assert sum(missing.values()) == len(complete) - len(messages)
    if checked:
        assert 0 < len(messages) < len(complete)
        assert any('is damaged' in text and 'checksum' in text for text in warnings)
    else:
        assert messages == complete and not warnings


@pytest.mark.parametrize(('make', 'sentence'), [
    (lambda path: None, 'no such file or folder'),
    (lambda path: path.mkdir(), 'there is no .mcap or .db3 file'),
    (lambda path: path.write_text('no bag'), 'its name ends in nothing'),
    (lambda path: write(path, 'mcap', 0), 'there is no message in it'),
    (lambda path: write(path, 'sqlite3', 0), 'there is no message in it'),
])
def test_other_paths_are_rejected_with_a_sentence(tmp_path, make, sentence):
    make(tmp_path / 'bag')
    with pytest.raises(BagError, match=sentence) as failure, Bag(tmp_path / 'bag'):
        pass
    assert isinstance(failure.value, KarmmaError)


@pytest.mark.parametrize('suffix', ['.mcap', '.db3'])
@pytest.mark.parametrize('content', [b'', b'not a bag at all', bytes(4096)])
def test_other_contents_are_rejected(tmp_path, suffix, content):
    path = tmp_path / f'bag{suffix}'
    path.write_bytes(content)
    with pytest.raises(BagError, match='there is no message in it'), Bag(path):
        pass


def test_a_folder_with_a_missing_file_is_read_with_a_warning(tmp_path):
    path = write(tmp_path / 'bag')
    first = file_of(path)
    metadata = (path / 'metadata.yaml').read_text()
    shutil.copy(first, path / 'bag_1.mcap')
    (path / 'metadata.yaml').write_text(metadata.replace(
        f'- {first.name}\n', f'- {first.name}\n  - gone.mcap\n', 1))
    messages, _, warnings = read(path)
    assert len(messages) == 2 * FRAMES
    assert any('gone.mcap' in text and 'does not exist' in text for text in warnings)


def test_a_topic_of_the_wrong_type_is_rejected_by_name(tmp_path):
    with Bag(write(tmp_path / 'bag', frames=3)) as bag:
        with pytest.raises(KarmmaError, match='/audio .*expected .*sensor_msgs/msg/Image'):
            choose_topics(bag, parse_topics(['rgb=/audio']), PAPER_MODALITIES)
        with pytest.raises(KarmmaError, match='/nowhere.*a topic of the bag: /image'):
            choose_topics(bag, parse_topics(['rgb=/nowhere']), PAPER_MODALITIES)


def test_a_bag_without_a_usable_topic_is_rejected_with_a_list_of_its_topics(tmp_path):
    with Bag(write(tmp_path / 'bag', frames=3)) as bag:
        with pytest.raises(BagError, match='no topic of a type that the model takes.*/image'):
            choose_topics(bag, {}, (Modality.DETECTIONS,))
