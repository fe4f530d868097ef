"""`karmma label`: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

from functools import partial
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

from karmma_ros.bags.writer import BagWriter
from karmma_ros.cli.main import main
import numpy as np
import pytest


@pytest.fixture
def bag(tmp_path):
    path = tmp_path / 'short.mcap'
    with BagWriter(path) as writer:
        for number in range(3):
            writer.image(10**18 + number * 10**8, np.zeros((48, 64, 3), np.uint8))
    return path


def test_it_prints_the_address_and_ends_by_ctrl_c(bag, tmp_path):
    process = subprocess.Popen(
        [sys.executable, '-m', 'karmma_ros.cli.main', 'label', str(bag), '--labels',
         str(tmp_path / 'labels.csv'), '--no-browser'], stdout=subprocess.PIPE, text=True,
        # Tests that run in the background of a shell inherit that it ignores Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
    try:
        first, address = process.stdout.readline(), process.stdout.readline().strip()
        assert first.startswith('1 recording, labels in') and first.strip().endswith('labels.csv')
        assert re.fullmatch(r'http://127\.0\.0\.1:\d+/[\w-]{32}/', address)
        with urlopen(address, timeout=30) as page:
            assert b'<title>karmma label' in page.read()
        with pytest.raises(HTTPError, match='403'):
            urlopen(address[:-5] + '/', timeout=30)
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and 'ended; the labels are in' in rest


@pytest.mark.parametrize('arguments, sentence', [
    (['no.mcap', '--labels', 'x.csv'], 'no.mcap: no such file or folder: check the path'),
    (['.', '--labels', 'x.csv'], 'no bag is there'),
    (['BAG', '--labels', 'x.csv', '--port', '99999'], '--port is 99999; expected a number from 0'),
    (['BAG', '--labels', 'x.csv', '--heads', 'gesture'], "--heads is 'gesture'; expected verb"),
    (['BAG', '--labels', 'bad.csv'], 'expected start'),
    (['BAG', '--labels', 'bad.csv/x.csv'], 'bad.csv is a file'),
    (['BAG', '--labels', 'readonly/x.csv'], 'readonly is read-only for this user')])
def test_what_cannot_be_labelled_is_refused(
        bag, tmp_path, capsys, monkeypatch, arguments, sentence):
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path / 'empty')
    (tmp_path / 'empty' / 'bad.csv').write_text('a,b\n1,2\n')
    (tmp_path / 'empty' / 'readonly').mkdir()
    access = os.access
    monkeypatch.setattr('os.access', lambda path, *rest, **options: (
        Path(path).name != 'readonly' and access(path, *rest, **options)))
    given = [str(bag) if each == 'BAG' else each for each in arguments]
    assert main(['label', *given, '--no-browser']) == 2
    assert sentence in capsys.readouterr().err


def test_a_port_in_use_is_refused(bag, tmp_path, capsys):
    from karmma_ros.labelling.application import LabelApplication
    from karmma_ros.labelling.label_store import LabelStore
    from karmma_ros.labelling.page_server import PageServer
    labels = tmp_path / 'labels.csv'
    with PageServer(LabelApplication({}, LabelStore(labels))) as server:
        port = server.server_port
        assert main(['label', str(bag), '--labels', str(labels), '--port', str(port)]) == 2
    assert f'--port is {port}; expected a free port, or 0 for any' in capsys.readouterr().err
