"""The snippet of docs/node.md that runs the node beside others ends without a traceback."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import threading

import pytest

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'node.md'


def snippet():
    """Return the code block that adds the node to an executor."""
    blocks = [each.partition('```')[0] for each in PAGE.read_text().split('```python\n')[1:]]
    code, = (each for each in blocks if 'KarmmaNode(' in each)
    return code


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['INT', 'TERM'])
def test_it_runs_and_stops_in_order(ros, bundle, number):
    code = snippet().replace("'synthetic_kitchen'", repr(str(bundle)))
    assert str(bundle) in code
    process = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.PIPE, text=True,
                               env={**os.environ, 'PYTHONUNBUFFERED': '1'})
    timer = threading.Timer(90, process.kill)
    timer.start()
    lines = []
    for line in process.stderr:
        lines.append(line)
        if 'active: receives /image (sensor_msgs/msg/Image), /audio (' in line:
            threading.Timer(1.0, process.send_signal, [number]).start()
    timer.cancel()
    assert process.wait() == 0, ''.join(lines)
    assert any('active: receives' in line for line in lines)
    assert not [line for line in lines if 'Traceback' in line or 'ERROR' in line], ''.join(lines)
