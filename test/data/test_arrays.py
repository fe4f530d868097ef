"""Space for an array is claimed before it is filled."""

import errno
import os

from karmma_ros.cli import main as command
from karmma_ros.storage import lay_out
import numpy as np
import pytest


def test_it_holds_zeros_and_really_takes_the_space(tmp_path):
    lay_out(tmp_path / 'x.npy', np.float16, (1000, 300))
    assert (tmp_path / 'x.npy').stat().st_blocks * 512 >= 600_000
    x = np.load(tmp_path / 'x.npy', mmap_mode='r+')
    assert x.shape == (1000, 300) and x.dtype == np.float16 and not x.any()


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch, capsys):
    def full(file, start, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'posix_fallocate', full)
    with pytest.raises(OSError, match='No space left'):
        lay_out(tmp_path / 'x.npy', np.uint8, (10,))
    status = command.main([
        'train', 'pretrain', '--data.synthetic_kitchen.train', '8', '--out',
        str(tmp_path / 'out'), '--run-dir', str(tmp_path / 'work'), '--cache', str(tmp_path)])
    assert status == 2
    told = capsys.readouterr().err.splitlines()
    assert told == ['karmma train: [Errno 28] No space left on device: free some space and give '
                    'the same command again; what was finished is used']
