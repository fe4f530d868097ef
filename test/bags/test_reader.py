"""Bags of both storages, whole and damaged: what can be read is, and the rest is counted."""

import shutil
import struct
import zlib

from karmma_ros.bags.reader import Bag
from karmma_ros.bags.topics import choose_topics, parse_named
from karmma_ros.bags.writer import BagWriter
from karmma_ros.errors import BagError, KarmmaError
from karmma_ros.modality import Modality
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import get_typestore, Stores

START_NS = 1_700_000_000_000_000_000
STEP_NS = 50_000_000
PICTURES = 60
STORAGES = ['mcap', 'sqlite3']
CHUNK = 6
"""Number of this kind of record in mcap files."""


def write(path, storage='mcap', pictures=PICTURES):
    """Write a camera of noise, which no compression makes small, and a microphone."""
    random = np.random.default_rng(0)
    with BagWriter(path, storage=storage) as bag:
        for i in range(pictures):
            time_ns = START_NS + i * STEP_NS
            bag.image(time_ns, random.integers(0, 256, (48, 64, 3), np.uint8))
            bag.audio(time_ns, np.zeros(800, np.float32), time_ns + STEP_NS)
    return path


def read(path):
    """Return (topic, time) of all messages that can be read, the bag's losses and warnings."""
    with Bag(path) as bag:
        found = [(m.topic.name, m.received_ns) for m in bag.messages(list(bag.topics.values()))]
        return found, dict(bag.lost), list(bag.warnings)


def file_of(folder):
    return next(p for p in folder.iterdir() if p.suffix in ('.mcap', '.db3'))


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])


@pytest.mark.parametrize('storage', STORAGES)
def test_a_whole_bag_is_read_in_order_and_nothing_is_lost(tmp_path, storage):
    found, lost, warnings = read(write(tmp_path / 'bag', storage))
    assert len(found) == 2 * PICTURES and not lost and not warnings
    times = [time_ns for _, time_ns in found]
    assert times == sorted(times)
    with Bag(tmp_path / 'bag') as bag:
        assert bag.files.storage == storage
        assert (bag.start_ns, bag.end_ns) == (START_NS, START_NS + PICTURES * STEP_NS)


@pytest.mark.parametrize('storage', STORAGES)
def test_a_stretch_of_time_can_be_asked_for(tmp_path, storage):
    with Bag(write(tmp_path / 'bag', storage)) as bag:
        topics = [t for t in bag.topics.values() if t.name == '/image']
        start_ns, stop_ns = START_NS + 10 * STEP_NS, START_NS + 20 * STEP_NS
        times = [m.received_ns for m in bag.messages(topics, start_ns, stop_ns)]
    assert times == list(range(start_ns, stop_ns, STEP_NS))


@pytest.mark.parametrize('storage', STORAGES)
def test_pictures_come_back_as_they_were(tmp_path, storage):
    expected = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    with Bag(write(tmp_path / 'bag', storage, 2)) as bag:
        topic = next(t for t in bag.topics.values() if t.name == '/image')
        message = bag.reader(topic)(next(iter(bag.messages([topic]))).data)
    assert np.array_equal(np.asarray(message.data).reshape(48, 64, 3), expected)


@pytest.mark.parametrize('storage', STORAGES)
def test_without_metadata_all_is_read_and_it_is_said(tmp_path, storage):
    path = write(tmp_path / 'bag', storage)
    (path / 'metadata.yaml').unlink()
    found, lost, warnings = read(path)
    assert len(found) == 2 * PICTURES and not lost
    assert len(warnings) == 1 and 'metadata.yaml is missing' in warnings[0]


@pytest.mark.parametrize('storage', STORAGES)
def test_damaged_metadata_is_done_without(tmp_path, storage):
    path = write(tmp_path / 'bag', storage)
    (path / 'metadata.yaml').write_text('rosbag2_bagfile_information: [')
    found, _, warnings = read(path)
    assert len(found) == 2 * PICTURES
    assert 'metadata.yaml is damaged' in warnings[0]


@pytest.mark.parametrize('share', [0.3, 0.6, 0.95])
def test_a_cut_off_mcap_gives_what_is_before_the_cut(tmp_path, share):
    whole, _, _ = read(write(tmp_path / 'bag'))
    cut(file_of(tmp_path / 'bag'), share)
    found, lost, warnings = read(tmp_path / 'bag')
    assert 0.7 * share < len(found) / len(whole) <= share + 0.1
    assert set(found) <= set(whole) and len(set(found)) == len(found)
    # Nothing is lost without being counted, be it once as cut off and once as promised.
    assert len(whole) - len(found) <= sum(lost.values()) <= len(whole) - len(found) + 2
    assert any('is damaged' in text for text in warnings)


@pytest.mark.timeout(40)
def test_a_cut_off_sqlite_bag_is_read_or_refused_by_a_sentence(tmp_path):
    path = write(tmp_path / 'bag', 'sqlite3')
    cut(file_of(path), 0.5)
    try:
        found, lost, warnings = read(path)
    except BagError as error:
        assert 'record again' in str(error)
    else:
        assert 0 < len(found) < 2 * PICTURES
        assert sum(lost.values()) > 0 and any('is damaged' in text for text in warnings)


@pytest.mark.parametrize('compression', [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags_are_read(tmp_path, compression):
    store = get_typestore(Stores.ROS2_HUMBLE)
    writer = Writer(tmp_path / 'bag', version=8, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    text = store.types['std_msgs/msg/String']
    with writer:
        topic = writer.add_connection('/said', 'std_msgs/msg/String', typestore=store)
        for i in range(20):
            data = store.serialize_cdr(text(data=f'word {i} ' * 20), 'std_msgs/msg/String')
            writer.write(topic, START_NS + i, data)
    with Bag(tmp_path / 'bag') as bag:
        (said,) = bag.topics.values()
        read_text = bag.reader(said)
        words = [read_text(message.data).data for message in bag.messages([said])]
        assert words == [f'word {i} ' * 20 for i in range(20)] and not bag.lost
        assert 'zstd' in bag.files.storage


def with_checksums(path):
    """Write the checksum of each chunk, as recorders do but not the rosbags library."""
    data, place, chunks = bytearray(path.read_bytes()), 8, []
    while place < len(data) - 8:
        kind, length = struct.unpack_from('<BQ', data, place)
        if kind == CHUNK:
            (name,) = struct.unpack_from('<I', data, place + 37)
            first, last = place + 49 + name, place + 9 + length
            struct.pack_into('<I', data, place + 33, zlib.crc32(data[first:last]))
            chunks.append((first, last))
        place += 9 + length
    path.write_bytes(data)
    return chunks


@pytest.mark.parametrize('checked', [True, False])
def test_damage_within_pixels_is_noticed_where_the_recorder_wrote_checksums(tmp_path, checked):
    path = file_of(write(tmp_path / 'bag', pictures=800))
    whole, lost, warnings = read(path.parent)
    chunks = with_checksums(path) if checked else []
    assert read(path.parent) == (whole, {}, []) == (whole, lost, warnings)
    assert len(chunks) >= 2 * checked
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 255
    path.write_bytes(data)
    found, lost, warnings = read(path.parent)
    assert set(found) <= set(whole) and len(set(found)) == len(found)
    assert sum(lost.values()) == len(whole) - len(found)
    if checked:
        assert 0 < len(found) < len(whole)
        assert any('is damaged' in text and 'checksum' in text for text in warnings)
    else:
        assert found == whole and not warnings


@pytest.mark.parametrize(('make', 'sentence'), [
    (lambda path: None, 'no such file or folder'),
    (lambda path: path.mkdir(), 'there is no .mcap or .db3 file'),
    (lambda path: path.write_text('no bag'), 'its name ends in nothing'),
    (lambda path: write(path, 'mcap', 0), 'there is no message in it'),
    (lambda path: write(path, 'sqlite3', 0), 'there is no message in it'),
])
def test_what_is_no_bag_is_refused_by_a_sentence(tmp_path, make, sentence):
    make(tmp_path / 'bag')
    with pytest.raises(BagError, match=sentence) as failure, Bag(tmp_path / 'bag'):
        pass
    assert isinstance(failure.value, KarmmaError)


@pytest.mark.parametrize('suffix', ['.mcap', '.db3'])
@pytest.mark.parametrize('content', [b'', b'not a bag at all', bytes(4096)])
def test_a_file_that_only_has_the_name_of_a_bag_is_refused(tmp_path, suffix, content):
    path = tmp_path / f'bag{suffix}'
    path.write_bytes(content)
    with pytest.raises(BagError, match='there is no message in it'), Bag(path):
        pass


def test_a_folder_with_one_file_missing_reads_the_other_and_says_so(tmp_path):
    path = write(tmp_path / 'bag')
    first = file_of(path)
    metadata = (path / 'metadata.yaml').read_text()
    shutil.copy(first, path / 'bag_1.mcap')
    (path / 'metadata.yaml').write_text(metadata.replace(
        f'- {first.name}\n', f'- {first.name}\n  - gone.mcap\n', 1))
    found, _, warnings = read(path)
    assert len(found) == 2 * PICTURES
    assert any('gone.mcap' in text and 'is not there' in text for text in warnings)


def test_a_topic_of_the_wrong_type_is_refused_by_name(tmp_path):
    with Bag(write(tmp_path / 'bag', pictures=3)) as bag:
        with pytest.raises(KarmmaError, match='/audio .*expected .*sensor_msgs/msg/Image'):
            choose_topics(bag, parse_named(['rgb=/audio']), tuple(Modality))
        with pytest.raises(KarmmaError, match='/nowhere.*a topic of the bag: /image'):
            choose_topics(bag, parse_named(['rgb=/nowhere']), tuple(Modality))


def test_a_bag_of_other_things_is_refused_with_what_it_holds(tmp_path):
    with Bag(write(tmp_path / 'bag', pictures=3)) as bag:
        with pytest.raises(BagError, match='no topic of a type that the model takes.*/image'):
            choose_topics(bag, {}, (Modality.DETECTIONS,))
