"""Of several processes one makes what all need, and the others wait for it."""

import subprocess
import sys

from karmma_ros.storage import alone

MAKE = """
import pathlib, sys, time
from karmma_ros.storage import alone
folder = pathlib.Path(sys.argv[1])
with alone(folder):
    print('entered', flush=True)
    time.sleep(0.5)
    folder.mkdir()
"""


def test_the_second_waits_for_the_first(tmp_path):
    folder = tmp_path / 'cache' / 'tokens'
    with subprocess.Popen(
            [sys.executable, '-c', MAKE, str(folder)], stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b'entered\n'
        with alone(folder):
            assert folder.is_dir()
    assert first.returncode == 0
