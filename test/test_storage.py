"""Files and arrays on disk: complete or absent, resumed, and made by one process at a time."""

import errno
import os
import subprocess
import sys

from karmma_ros.cli import main as command
from karmma_ros.errors import DataError
from karmma_ros.storage import (
    allocate,
    ArrayStore,
    file_lock,
    fingerprint,
    METADATA,
    open_arrays,
    PROGRESS,
    write_arrays,
    write_atomically,
)
import numpy as np
import pytest

LAYOUT = {'x': (np.float32, (2,)), 'label': (np.int64, ())}
FACTS = {'version': 1, 'size': (3, 4)}


def store(tmp_path, rows=10, facts=FACTS):
    return ArrayStore(tmp_path / 'arrays', facts, LAYOUT, rows)


def values(rows):
    x = np.arange(rows.start, rows.stop, dtype=np.float32)
    return {'x': np.stack([x, -x], 1), 'label': x.astype(np.int64)}


def fill(tmp_path, size=4, **settings):
    filled = store(tmp_path, **settings)
    for rows in filled.remaining(size):
        filled.write(rows, values(rows))
    filled.finish()
    return filled


def test_a_file_is_written_as_text_bytes_or_by_a_function(tmp_path):
    path = tmp_path / 'new' / 'file'
    write_atomically(path, 'ä')
    assert path.read_bytes() == 'ä'.encode()
    write_atomically(path, b'b')
    assert path.read_bytes() == b'b'
    write_atomically(path, lambda file: np.save(file, np.arange(3)))
    assert np.load(path).tolist() == [0, 1, 2]
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_previous_file(tmp_path):
    def fail(file):
        file.write(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    path = tmp_path / 'file'
    write_atomically(path, 'before')
    with pytest.raises(OSError, match='No space'):
        write_atomically(path, fail)
    assert path.read_text() == 'before' and list(tmp_path.iterdir()) == [path]


def test_a_fingerprint_depends_on_the_facts_and_not_on_their_order():
    assert fingerprint({'a': 1, 'b': [2]}) == fingerprint({'b': [2], 'a': 1}) == 'ae8a9a5052464275'
    assert fingerprint({'a': 1, 'b': [3]}) != fingerprint({'a': 1, 'b': [2]})


def test_a_filled_store_is_complete_and_opened(tmp_path):
    assert not store(tmp_path).complete
    fill(tmp_path)
    assert store(tmp_path).complete and not store(tmp_path, facts={'version': 2}).complete
    metadata, arrays = open_arrays(tmp_path / 'arrays')
    assert metadata == {'version': 1, 'size': [3, 4]}
    assert set(arrays) == set(LAYOUT)
    for name, expected in values(range(10)).items():
        assert arrays[name].dtype == LAYOUT[name][0]
        assert np.array_equal(arrays[name], expected)
    assert [path.name for path in tmp_path.iterdir()] == ['arrays']
    assert not (tmp_path / 'arrays' / PROGRESS).exists()


def test_a_stopped_run_computes_only_the_remaining_rows(tmp_path):
    first = store(tmp_path)
    assert first.remaining(4) == [range(4), range(4, 8), range(8, 10)]
    first.write(range(4, 8), values(range(4, 8)))
    assert store(tmp_path).remaining(3) == [range(3), range(3, 4), range(8, 10)]
    with pytest.raises(DataError, match='it is not complete: run the command'):
        open_arrays(tmp_path / 'arrays')
    fill(tmp_path)
    assert open_arrays(tmp_path / 'arrays')[1]['label'].tolist() == list(range(10))
    assert store(tmp_path, facts={'version': 2}).remaining(99) == [range(10)]


def test_rows_of_other_facts_are_computed_again(tmp_path):
    first = store(tmp_path)
    first.remaining(4)
    first.write(range(4), values(range(4)))
    assert store(tmp_path, facts={'version': 2}).remaining(99) == [range(10)]
    fill(tmp_path, facts={'version': 2})
    fill(tmp_path, facts={'version': 3})
    assert open_arrays(tmp_path / 'arrays')[0] == {'version': 3}


def test_a_line_of_progress_that_was_not_finished_does_not_count(tmp_path):
    first = store(tmp_path)
    first.remaining(4)
    (tmp_path / 'arrays.partial' / PROGRESS).write_text('0 4\nx\n4 8')
    assert store(tmp_path).remaining(99) == [range(4, 10)]


def test_a_damaged_folder_is_named(tmp_path):
    folder = tmp_path / 'arrays'
    with pytest.raises(DataError, match='there is no such folder'):
        open_arrays(folder)
    write_arrays(folder, {'x': np.arange(4)}, {'version': 1})
    (folder / 'x.npy').write_bytes(b'no array')
    with pytest.raises(DataError, match='x.npy is damaged.*: delete it, and it is computed again'):
        open_arrays(folder)
    (folder / METADATA).write_text('[]')
    with pytest.raises(DataError, match='it has no readable metadata.json'):
        open_arrays(folder)


MAKE = """
import pathlib, sys, time
from karmma_ros.storage import file_lock
folder = pathlib.Path(sys.argv[1])
with file_lock(folder):
    print('entered', flush=True)
    time.sleep(0.5)
    folder.mkdir()
"""


def test_a_second_process_waits_for_the_first(tmp_path):
    folder = tmp_path / 'cache' / 'tokens'
    with subprocess.Popen(
            [sys.executable, '-c', MAKE, str(folder)], stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b'entered\n'
        with file_lock(folder):
            assert folder.is_dir()
    assert first.returncode == 0


def test_an_array_holds_zeros_and_really_takes_the_space(tmp_path):
    allocate(tmp_path / 'x.npy', np.float16, (1000, 300))
    assert (tmp_path / 'x.npy').stat().st_blocks * 512 >= 600_000
    x = np.load(tmp_path / 'x.npy', mmap_mode='r+')
    assert x.shape == (1000, 300) and x.dtype == np.float16 and not x.any()


def test_a_full_disk_is_reported(tmp_path, monkeypatch, capsys):
    def full(file, start, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'posix_fallocate', full)
    with pytest.raises(OSError, match='No space left'):
        allocate(tmp_path / 'x.npy', np.uint8, (10,))
    status = command.main([
        'train', 'pretrain', '--data.synthetic_kitchen.train', '8', '--out',
        str(tmp_path / 'out'), '--run-dir', str(tmp_path / 'work'), '--cache', str(tmp_path)])
    assert status == 2
    printed = capsys.readouterr().err.splitlines()
    assert printed == ['karmma train: No space left on device: free some space and '
                       'give the same command again; what was finished is used']
