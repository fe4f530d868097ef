"""Messages counted by wrong indexes, statistics and metadata are read, or counted as missing."""

import sqlite3
import struct

from karmma_ros.bags.reader import Bag
from karmma_ros.bags.writer import BagWriter
from karmma_ros.errors import BagError
from mcap_file import BOOL, channel, Chunk, MAGIC, mcap, message, record, schema, text
import numpy as np
import pytest


def read(path):
    """Return (topic, time) of the messages, the missing ones and the warnings."""
    with Bag(path) as bag:
        for _ in range(2):  # missing messages are counted once, however often a bag is read
            messages = [(m.topic.name, m.received_ns)
                     for m in bag.messages(list(bag.topics.values()))]
        assert bag.messages_count >= len(messages)
        return messages, dict(bag.missing), list(bag.warnings)


def written(tmp_path, data, name='bag.mcap'):
    path = tmp_path / name
    path.write_bytes(data)
    return path


FIRST = [(1, 10), (2, 11), (1, 12)]
SECOND = [(1, 20), (2, 21), (2, 22)]
BOTH = [('/a', 10), ('/b', 11), ('/a', 12), ('/a', 20), ('/b', 21), ('/b', 22)]
ATTACHMENT = record(9, struct.pack('<QQ', 1, 1) + text(b'x') + text(b'y') + bytes(12))


@pytest.mark.parametrize('data', [
    pytest.param(mcap(Chunk(FIRST), Chunk(SECOND)), id='indexed'),
    pytest.param(mcap(Chunk(FIRST, indexed=()), Chunk(SECOND, indexed=())), id='without_index'),
    pytest.param(mcap(Chunk(FIRST), Chunk(SECOND, indexed=())), id='mixed'),
    pytest.param(mcap(Chunk(FIRST, indexed=()), Chunk(SECOND)), id='mixed_otherwise'),
    pytest.param(mcap(Chunk(FIRST, indexed=(1,)), Chunk(SECOND)), id='index_lacks_a_channel'),
    pytest.param(mcap(Chunk(FIRST, indexed=(2,)), Chunk(SECOND), summary=False),
                 id='index_lacks_a_channel_without_summary'),
    pytest.param(mcap(Chunk(FIRST), Chunk(SECOND), summary=False), id='without_summary'),
    pytest.param(mcap(Chunk(FIRST), *(message(*each) for each in SECOND)), id='unchunked_behind'),
    pytest.param(mcap(*(message(*each) for each in FIRST), ATTACHMENT,
                      *(message(*each) for each in SECOND)), id='attachment_between'),
    pytest.param(mcap(Chunk([]), Chunk(FIRST), Chunk([]), ATTACHMENT, Chunk(SECOND)),
                 id='empty_chunks'),
    pytest.param(mcap(Chunk(SECOND), Chunk(FIRST)), id='chunks_out_of_order'),
    pytest.param(mcap(*(message(*each) for each in SECOND + FIRST)), id='out_of_order'),
    pytest.param(mcap(Chunk(FIRST, definitions=schema() + channel(1) + channel(2, topic=b'/b')),
                      Chunk(SECOND), definitions=b''), id='defined_within_a_chunk'),
    pytest.param(mcap(Chunk([(1, 10), (2, 21), (1, 20)]), Chunk([(2, 22), (2, 11), (1, 12)])),
                 id='overlapping'),
])
def test_all_messages_are_read_however_they_are_laid_out(tmp_path, data):
    assert read(written(tmp_path, data)) == (BOTH, {}, [])


@pytest.mark.parametrize(('data', 'count', 'why', 'left'), [
    pytest.param(mcap(Chunk(FIRST), Chunk(SECOND), more=3), 3, 'statistics', BOTH,
                 id='statistics_count_more'),
    pytest.param(mcap(Chunk(FIRST, crc=1), Chunk(SECOND)), 3, 'in a damaged chunk', BOTH[3:],
                 id='wrong_checksum'),
    pytest.param(mcap(Chunk(FIRST, crc=1, indexed=()), Chunk(SECOND)), 3, '', BOTH[3:],
                 id='wrong_checksum_without_index'),
    pytest.param(mcap(Chunk(FIRST, crc=1, indexed=()), Chunk(SECOND), summary=False), 1,
                 'in a damaged chunk', BOTH[3:], id='wrong_checksum_without_anything'),
    pytest.param(mcap(Chunk(FIRST, compression=b'br'), Chunk(SECOND)), 3, 'in a damaged chunk',
                 BOTH[3:], id='unknown_compression'),
    pytest.param(mcap(Chunk([(1, 10), (9, 11)]), Chunk(SECOND)), 1, 'does not define',
                 [BOTH[0], *BOTH[3:]], id='undefined_channel'),
    pytest.param(mcap(channel(2, topic=b'/c'), Chunk(FIRST), Chunk(SECOND)), 1, 'contradict', BOTH,
                 id='channel_defined_twice'),
    pytest.param(mcap(schema(name=b'std_msgs/msg/Int8'), Chunk(FIRST), Chunk(SECOND)), 1,
                 'contradict', BOTH, id='schema_defined_twice'),
    pytest.param(mcap(Chunk(FIRST), Chunk(SECOND), end=False), 1, 'cut off', BOTH,
                 id='end_is_missing'),
    pytest.param(mcap(Chunk(FIRST), b'\0' * 20, Chunk(SECOND)), 1, 'cut off', BOTH,
                 id='damage_between_chunks'),
    pytest.param(mcap(Chunk(FIRST), record(5, b'abc'), Chunk(SECOND)), 1, 'cut off', BOTH,
                 id='short_message'),
    pytest.param(mcap(Chunk(FIRST), record(7, b'\1\0\0\0'), Chunk(SECOND)), 1, 'cut off', BOTH,
                 id='short_index'),
    pytest.param(mcap(Chunk([*FIRST, (1, 2**63), (1, 2**64 - 1)]), Chunk(SECOND)), 2, '2262', BOTH,
                 id='times_out_of_range'),
    pytest.param(mcap(*(message(*each) for each in [*FIRST, (1, 2**63), *SECOND])), 1, '2262',
                 BOTH, id='times_out_of_range_unchunked'),
])
@pytest.mark.filterwarnings('error')
def test_missing_messages_are_counted(tmp_path, data, count, why, left):
    messages, missing, _ = read(written(tmp_path, data))
    assert messages == left
    assert sum(missing.values()) == count and any(why in reason for reason in missing)


def test_a_warning_names_the_compression_that_is_not_known(tmp_path):
    data = mcap(Chunk(FIRST, compression=b'br'), Chunk(SECOND))
    _, _, warnings = read(written(tmp_path, data))
    assert "its compression is 'br'; expected zstd, lz4 or none" in warnings[0]


def test_a_range_of_time_is_read_from_chunks_whose_times_are_wrong(tmp_path):
    data = bytearray(mcap(Chunk(FIRST), Chunk(SECOND)))
    offset = data.index(b'\6' + struct.pack('<Q', len(Chunk(FIRST).records()[0]) - 9))
    struct.pack_into('<QQ', data, offset + 9, 0, 0)
    with Bag(written(tmp_path, bytes(data))) as bag:
        times = [m.received_ns for m in bag.messages(list(bag.topics.values()), 11, 21)]
        assert times == [11, 12, 20] and bag.start_ns == 10


def folder(tmp_path, storage='mcap', frames=4):
    path = tmp_path / 'bag'
    with BagWriter(path, storage=storage) as bag:
        for i in range(frames):
            bag.image(1000 + i, np.zeros((4, 4, 3), np.uint8))
    return path


def changed(path, old, new):
    metadata = path / 'metadata.yaml'
    assert old in metadata.read_text()
    metadata.write_text(metadata.read_text().replace(old, new, 1))
    return path


def test_more_messages_in_metadata_are_missing(tmp_path):
    path = changed(folder(tmp_path), '\n  message_count: 4', '\n  message_count: 9')
    messages, missing, _ = read(path)
    assert len(messages) == 4 and sum(missing.values()) == 5
    assert 'metadata.yaml' in next(iter(missing))


def test_more_messages_of_a_topic_in_metadata_are_missing(tmp_path):
    path = folder(tmp_path)
    text_of = (path / 'metadata.yaml').read_text()
    head, _, topics = text_of.partition('topics_with_message_count')
    (path / 'metadata.yaml').write_text(
        f'{head}topics_with_message_count{topics.replace("message_count: 4", "message_count: 6")}')
    assert sum(read(path)[1].values()) == 2


def test_fewer_messages_in_metadata_are_a_warning_and_all_are_read(tmp_path):
    path = changed(folder(tmp_path), '\n  message_count: 4', '\n  message_count: 1')
    messages, missing, warnings = read(path)
    assert len(messages) == 4 and not missing
    assert 'counts 1 messages, its files contain 4; all are read' in warnings[0]


@pytest.mark.parametrize('count', ['message_count: 4', 'message_count: unknown'])
def test_a_split_bag_with_a_missing_part_is_incomplete(tmp_path, count):
    path = changed(folder(tmp_path), '\n  message_count: 4', f'\n  {count}')
    messages, missing, warnings = read(changed(path, '- bag.mcap', '- bag.mcap\n  - bag_1.mcap'))
    assert len(messages) == 4 and sum(missing.values()) == 1
    assert 'bag_1.mcap' in warnings[0]


def test_a_part_that_metadata_does_not_name_is_noted(tmp_path):
    path = folder(tmp_path)
    (path / 'bag_1.mcap').write_bytes((path / 'bag.mcap').read_bytes())
    messages, _, warnings = read(path)
    assert len(messages) == 4 and 'bag_1.mcap' in warnings[0] and 'not read' in warnings[0]


def database(tmp_path, rows, name='bag.db3'):
    path = tmp_path / name
    with sqlite3.connect(path) as bag:
        bag.execute('CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, '
                    'serialization_format TEXT, offered_qos_profiles TEXT)')
        bag.execute("INSERT INTO topics VALUES(1, '/a', 'std_msgs/msg/Bool', 'cdr', '')")
        bag.execute('CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data)')
        bag.executemany('INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)', rows)
    bag.close()
    return path


@pytest.mark.parametrize('name', ['bag.db3', 'what? 50%#1.db3', 'K\udcfcche.db3'])
def test_rows_are_read_in_order_of_time_however_far_apart(tmp_path, name):
    times = [5, 3_000_000_000, 4, 10**18, 1, 10**18 - 1]
    messages, missing, _ = read(database(tmp_path, [(1, t, BOOL) for t in times], name))
    assert [time_ns for _, time_ns in messages] == sorted(times) and not missing


@pytest.mark.parametrize(('row', 'why'), [
    ((2, 5, BOOL), 'does not define'), ((1, 'abc', BOOL), 'no message'),
    ((1, 5, 'text'), 'no message'), ((1, 5, None), 'no message'), (('1', 5, BOOL), 'not define'),
    ((1, -1, BOOL), 'before 1970'), ((1, 2**63 - 1, BOOL), '2262'),
])
def test_rows_that_are_no_messages_are_counted(tmp_path, row, why):
    messages, missing, _ = read(database(tmp_path, [(1, 1, BOOL), row, (1, 2, BOOL)]))
    assert messages == [('/a', 1), ('/a', 2)]
    assert sum(missing.values()) == 1 and why in next(iter(missing))


def test_a_range_of_time_is_read_from_a_database(tmp_path):
    path = database(tmp_path, [(1, t, BOOL) for t in (7, 3, 5, 9)])
    with Bag(path) as bag:
        assert [m.received_ns for m in bag.messages(list(bag.topics.values()), 4, 9)] == [5, 7]


def test_a_write_ahead_log_is_missing(tmp_path):
    path = database(tmp_path, [(1, 1, BOOL)])
    path.with_name('bag.db3-wal').write_bytes(b'frames')
    messages, missing, warnings = read(path)
    assert len(messages) == 1 and sum(missing.values()) == 1 and 'wal_checkpoint' in warnings[0]


def test_a_bag_without_any_message_is_an_error_that_counts_the_missing_ones(tmp_path):
    path = written(tmp_path, mcap(Chunk(FIRST, crc=7, indexed=())))
    with pytest.raises(BagError, match='checksum does not match.*in a damaged chunk: 1; '
                       'messages counted'):
        read(path)
    with pytest.raises(BagError, match='it does not begin with the magic bytes of MCAP'):
        read(written(tmp_path, MAGIC[:6] + b'xx' + bytes(90)))
