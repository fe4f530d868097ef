"""Hostile bags: whatever they contain, memory, time and other bags are safe."""

import os
from pathlib import Path
import resource
import socket
import sqlite3
import struct
import subprocess
import sys

from karmma_ros.bags import limits
from karmma_ros.bags.message_definitions import TypeReader
from karmma_ros.bags.metadata import read_metadata
from karmma_ros.bags.reader import Bag
from karmma_ros.errors import BagError
from karmma_ros.storage import scratch_folder
import lz4.frame
from mcap_file import BOOL, channel, Chunk, mcap, message, record, schema
import pytest
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

ZEROS = bytes(1 << 20)
MEMORY_MB = 400
"""Memory that reading a bag may take; its limit on chunks is 128 MiB."""


def memory_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def read(path):
    """Return the number of messages, the missing ones and the warnings; in bounded memory."""
    before = memory_mb()
    try:
        with Bag(path) as bag:
            for _ in range(2):  # missing messages are counted once, however often a bag is read
                count = sum(1 for _ in bag.messages(list(bag.topics.values())))
            return count, dict(bag.missing), list(bag.warnings)
    finally:
        assert memory_mb() - before < MEMORY_MB


def written(tmp_path, data, name='bag.mcap'):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def zstd_of(first, megabytes):
    engine = limits.zstd.ZstdCompressor()
    out = [engine.compress(first)] + [engine.compress(ZEROS) for _ in range(megabytes)]
    return b''.join([*out, engine.flush()])


def lz4_of(first, megabytes):
    engine = lz4.frame.LZ4FrameCompressor()
    out = [engine.begin(), engine.compress(first)]
    out += [engine.compress(ZEROS) for _ in range(megabytes)]
    return b''.join([*out, engine.flush()])


@pytest.mark.parametrize(('name', 'pack'), [(b'zstd', zstd_of), (b'lz4', lz4_of)])
@pytest.mark.parametrize('stated_size', [100, 1 << 40])
def test_a_chunk_that_expands_without_end_is_missing(tmp_path, name, pack, stated_size):
    first = message(1, 10) + struct.pack('<BQ', 200, 1200 << 20)
    bomb = Chunk([(1, 10)], compression=name, content=pack(first, 1200), size=stated_size)
    path = written(tmp_path, mcap(bomb, Chunk([(1, 20)])))
    count, missing, warnings = read(path)
    assert count == 1 and sum(missing.values()) == 1 and 'the chunk at byte' in warnings[0]


def test_chunks_that_expand_beyond_the_limit_of_a_file_are_rejected(tmp_path):
    bomb = Chunk([], compression=b'zstd', content=zstd_of(b'', 1), size=100 << 20)
    with pytest.raises(BagError, match='its chunks expand to more than 200 times'):
        read(written(tmp_path, mcap(*[bomb] * 11)))


def test_overlapping_chunks_are_not_all_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr('karmma_ros.bags.recovery_mcap.MAX_OVERLAP', 500)
    chunks = [Chunk([(1, 1), *((1, t) for t in range(100 + i, 500, 100)), (1, 999)])
              for i in range(4)]
    count, missing, _ = read(written(tmp_path, mcap(*chunks)))
    assert 6 <= count < 24 and count + sum(missing.values()) == 24
    assert 'overlap in time' in next(iter(missing))


def test_more_messages_than_bytes_are_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, 'FREE_MESSAGES', 100)
    raw = message(1, 5) * 100_000
    chunk = Chunk([(1, 5)], indexed=(), compression=b'zstd',
                  content=limits.zstd.compress(raw), size=len(raw), crc=0)
    with pytest.raises(BagError, match='too many for its'):
        read(written(tmp_path, mcap(chunk)))


def test_a_chunk_of_many_small_messages_takes_bounded_memory(tmp_path):
    raw = message(1, 5) * 200_000
    chunk = Chunk([(1, 5)], indexed=(), compression=b'zstd',
                  content=limits.zstd.compress(raw), size=len(raw), crc=0)
    assert read(written(tmp_path, mcap(chunk)))[:2] == (200_000, {})


def test_a_message_larger_than_any_is_missing(tmp_path):
    big = struct.pack('<BQ', 5, (129 << 20) + 22) + struct.pack('<HIQQ', 1, 0, 10, 10)
    path = written(tmp_path, mcap(message(1, 5)).replace(message(1, 5), message(1, 5) + big))
    with path.open('r+b') as file:  # a hole takes no disk
        data = file.read()
        offset = data.index(big) + len(big)
        file.seek(offset + (129 << 20))
        file.write(data[offset:])
        file.seek(offset)
        file.write(bytes(len(data) - offset))
    assert read(path)[:2] == (1, {'messages larger than 128 MiB': 1})


def database(tmp_path, statements, name='bag.db3'):
    path = tmp_path / name
    bag = sqlite3.connect(path)
    bag.execute('CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, '
                'serialization_format TEXT, offered_qos_profiles TEXT)')
    bag.execute("INSERT INTO topics VALUES(1, '/a', 'std_msgs/msg/Bool', 'cdr', '')")
    for statement in statements:
        bag.execute(*statement) if isinstance(statement, tuple) else bag.execute(statement)
    bag.commit()
    bag.close()
    return path


_ENDLESS = 'WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) '
_TABLE = 'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data)'


@pytest.mark.parametrize(('statements', 'sentence'), [
    ([f'CREATE VIEW messages AS {_ENDLESS} SELECT n AS id, 1 AS topic_id, n AS timestamp, '
      'zeroblob(1000) AS data FROM r'], 'its table messages is a view; expected a table'),
    ([], 'its table messages is missing; expected a table'),
    (['CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data BLOB GENERATED '
      'ALWAYS AS (zeroblob(900000000)) VIRTUAL)',
      'INSERT INTO messages(topic_id, timestamp) VALUES(1, 5)'], 'data missing or computed'),
    (['CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data, rowid)'],
     'rowid missing or computed'),
    (['CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data) WITHOUT ROWID'],
     'no such column: rowid'),
    ([_TABLE, 'ALTER TABLE topics RENAME TO others',
      f"CREATE VIEW topics AS {_ENDLESS} SELECT n AS id, '/' || n AS name, 'x' AS type, "
      "'cdr' AS serialization_format, '' AS offered_qos_profiles FROM r"],
     'its table topics is a view'),
    ([_TABLE, f"CREATE VIEW message_definitions AS {_ENDLESS} SELECT n AS topic_type, 'ros2msg' "
      'AS encoding, zeroblob(100000000) AS encoded_message_definition FROM r'],
     'its table message_definitions is a view'),
    ([_TABLE.replace('CREATE TABLE messages', 'CREATE VIRTUAL TABLE messages USING fts5')
      .replace('INTEGER PRIMARY KEY', '')], 'expected a table'),
])
@pytest.mark.timeout(20)
def test_a_database_that_computes_its_messages_is_rejected(tmp_path, statements, sentence):
    with pytest.raises(BagError, match=sentence):
        read(database(tmp_path, statements))


def test_messages_of_a_database_are_bounded(tmp_path):
    bomb = zstd_of(BOOL, 1200)
    path = database(tmp_path, [
        _TABLE, ('INSERT INTO messages VALUES(1, 1, 10, ?)', (bomb,)),
        ('INSERT INTO messages VALUES(2, 1, 20, ?)', (limits.zstd.compress(BOOL),)),
        ('INSERT INTO messages VALUES(3, 1, 30, ?)', (bomb[:1000],)),
        ('INSERT INTO messages VALUES(4, 1, 40, zeroblob(?))', (129 << 20,))])
    assert read(path)[:2] == (1, {
        'messages larger than 128 MiB': 2, 'messages whose compression is cut off': 1})


def test_decompression_stops_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, 'FREE_EXPANSION', 50 << 20)
    path = written(tmp_path, zstd_of(b'SQLite format 3\0', 100), 'bag.db3.zstd')
    with pytest.raises(BagError, match='expands to more than 200 times its size'):
        read(path)
    assert not list(Path(os.environ.get('TMPDIR', '/tmp')).glob(f'karmma_bag_{os.getpid()}_*'))


_INFORMATION = 'rosbag2_bagfile_information:\n  relative_file_paths: [bag.mcap]\n'


@pytest.mark.parametrize(('text', 'sentence'), [
    (_INFORMATION + '  a: ' + '[' * 1000, 'nested more than 32 levels'),
    (_INFORMATION + '  a:\n' + '  - x\n' * 2000, 'more than 1,000 entries'),
    (_INFORMATION + '#' * (1 << 20), 'more than 1,048,576 bytes'),
    (_INFORMATION + '  a: !' + '!' * 70_000, 'longer than 65,536 characters'),
    (_INFORMATION.replace('bag.mcap', '[bag.mcap]'), 'names no file'),
    ('rosbag2_bagfile_information: *a', 'KeyError'),
    ('!!python/object/apply:os.system [exit]', 'TypeError'), ('\0', 'ReaderError'),
])
@pytest.mark.timeout(30)
def test_metadata_within_limits_or_none(tmp_path, monkeypatch, text, sentence):
    monkeypatch.setattr('karmma_ros.bags.metadata._MAX_EVENTS', 1000)
    path = written(tmp_path, mcap(Chunk([(1, 5)])))
    (tmp_path / 'metadata.yaml').write_text(text)
    count, _, warnings = read(path.parent)
    assert count == 1 and 'metadata.yaml is damaged' in warnings[0] and sentence in warnings[0]


def test_aliases_in_metadata_take_no_memory(tmp_path):
    laughs = ''.join(f'  a{i + 1}: &a{i + 1} [{", ".join([f"*a{i}"] * 9)}]\n' for i in range(30))
    path = written(tmp_path, (_INFORMATION + '  a0: &a0 [x]\n' + laughs
                              + '  compression_mode: *a30\n').encode(), 'metadata.yaml')
    with pytest.raises(ValueError, match='a name in it is no text'):
        read_metadata(path)
    path.write_text((_INFORMATION + '  a0: &a0 [x]\n' + laughs))
    assert read_metadata(path).files == ('bag.mcap',)


def test_no_file_outside_the_folder_is_read(tmp_path):
    outside = written(tmp_path, mcap(Chunk([(1, 5)])), 'outside.mcap')
    folder = tmp_path / 'bag'
    folder.mkdir()
    named = ['../outside.mcap', str(outside), '..', '/', 'a\\0b.mcap']
    (folder / 'metadata.yaml').write_text(
        'rosbag2_bagfile_information:\n  relative_file_paths:\n'
        + ''.join(f'    - "{each}"\n' for each in named))
    with pytest.raises(BagError, match='no .mcap or .db3 file'):
        read(folder)


def pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize('make', [
    pipe, unix_socket, lambda path: path.symlink_to('/dev/zero'),
    lambda path: (pipe(path.with_name('pipe')), path.symlink_to('pipe'))])
@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_neither_bag_nor_metadata(tmp_path, make):
    folder = tmp_path / 'bag'
    folder.mkdir()
    make(folder / 'metadata.yaml')
    make(tmp_path / 'bag.mcap')
    with pytest.raises(BagError, match='neither a folder nor a regular file'):
        read(tmp_path / 'bag.mcap')
    written(folder, mcap(Chunk([(1, 5)])))
    count, _, warnings = read(folder)
    assert count == 1 and 'metadata.yaml is damaged' in warnings[0]
    (folder / 'metadata.yaml').unlink()
    (folder / 'bag.mcap').rename(folder / 'bag_0.mcap')
    (folder / 'bag_1.mcap').symlink_to(tmp_path / 'bag.mcap')
    assert read(folder)[0] == 1


def reader(text, name='p/msg/T'):
    return TypeReader(name, MessageDefinition(MessageDefinitionFormat.MSG, text))


_LINE = '=' * 80 + '\nMSG: '
_DOUBLING = ''.join(f'{_LINE}p/T{i}\np/T{i + 1} a\np/T{i + 1} b\n' for i in range(40))


@pytest.mark.parametrize('text', [
    f'p/A a\n{_LINE}p/A\np/A a\n', f'p/T0 a\n{_DOUBLING}{_LINE}p/T40\nbool a\n',
    f'p/A[] a\n{_LINE}p/A\nuint8 ONE=1\n', f'p/A[2000000000] a\n{_LINE}p/A\nuint8 ONE=1\n',
    f'p/A[2000000000] a\n{_LINE}p/A\nbool a\n', 'string[2000000000] a\n',
    'string a\n' * 20_000])
@pytest.mark.timeout(20)
def test_a_definition_without_bound_is_rejected(text):
    with pytest.raises(ValueError, match='does not define p/msg/T'):
        reader(text)


@pytest.mark.parametrize(('text', 'data'), [
    ('uint8[] a\n', struct.pack('<I', 2**32 - 1)), ('string a\n', struct.pack('<I', 2**32 - 1)),
    ('string[] a\n', struct.pack('<I', 2**32 - 1)), ('float64[2000000000] a\n', bytes(60)),
    (f'p/A[] a\n{_LINE}p/A\nbool a\n', struct.pack('<I', 2**32 - 1) + bytes(90)),
])
@pytest.mark.timeout(20)
def test_a_length_beyond_the_bytes_is_rejected(text, data):
    before = memory_mb()
    with pytest.raises(ValueError, match='the bytes are no p/msg/T'):
        reader(text)(b'\0\1\0\0' + data)
    assert memory_mb() - before < 100


def test_messages_of_nested_arrays_are_bounded_and_frames_are_not():
    boxes = reader(f'p/A[] a\n{_LINE}p/A\nbool a\n')
    with pytest.raises(ValueError, match='has 1,048,577 bytes; expected at most 1,048,576'):
        boxes(bytes((1 << 20) + 1))
    pixels = reader('uint8[] a\n')
    assert len(pixels(b'\0\1\0\0' + struct.pack('<I', 9 << 20) + bytes(9 << 20)).a) == 9 << 20


def test_definitions_of_a_bag_are_bounded_in_all(tmp_path):
    definitions = b''.join(
        schema(i, b'p/msg/T%d' % i, definition=b'#' + b'x' * 120_000 + b'\nbool data\n')
        + channel(i, i, b'/%d' % i) for i in range(1, 7))
    path = written(tmp_path, mcap(Chunk([(1, 5)]), definitions=definitions))
    with Bag(path) as bag:
        topics = list(bag.topics.values())
        for topic in topics[:4]:
            assert bag.reader(topic) is bag.reader(topic)
        with pytest.raises(ValueError, match='definitions of p/msg/T5 and others have more than'):
            bag.reader(topics[4])


def test_thousands_of_topics_are_listed_in_one_short_sentence(tmp_path):
    from karmma_ros.bags.topics import choose_topics
    from karmma_ros.modality import Modality
    definitions = schema() + b''.join(
        channel(i, 1, b'/\x1b[2J../../%d' % i) for i in range(1, 5001))
    path = written(tmp_path, mcap(Chunk([(1, 5)]), definitions=definitions))
    with Bag(path) as bag, pytest.raises(BagError, match='and 4,980 more') as failure:
        choose_topics(bag, {}, (Modality.RGB,))
    assert len(str(failure.value)) < 2500 and '\x1b' not in str(failure.value)


_LEFT = """
import os, signal, sys
from pathlib import Path
from karmma_ros.storage import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / 'large').write_text('x')
    print(folder, flush=True)
    os.kill(os.getpid(), int(sys.argv[2]) or signal.SIGKILL)
    sys.stdin.read()
"""


def test_the_temporary_folder_of_a_killed_process_is_removed_by_the_next(tmp_path):
    subprocess.run([sys.executable, '-c', _LEFT, tmp_path, '9'], capture_output=True)
    (left,) = tmp_path.iterdir()
    others = [tmp_path / '.karmma_bag_mine', tmp_path / f'.karmma_bag_{2**22 + 1}_file',
              tmp_path / f'.karmma_bag_{2**22 + 1}_link']
    others[0].mkdir()
    others[1].write_text('')
    others[2].symlink_to(others[0])
    living = subprocess.Popen([sys.executable, '-c', _LEFT, tmp_path, str(int(18))],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        kept = Path(living.stdout.readline().strip())
        with scratch_folder(tmp_path) as folder:
            assert folder.is_dir() and (kept / 'large').is_file() and not left.exists()
        assert sorted(tmp_path.iterdir()) == sorted([kept, *others])
    finally:
        living.kill()
        living.communicate()


def test_attachments_and_unknown_records_are_no_damage(tmp_path):
    path = written(tmp_path, mcap(record(200, bytes(99)), Chunk([(1, 5)]), record(12, b'x')))
    assert read(path) == (1, {}, [])
