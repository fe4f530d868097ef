"""The cluster of two nodes that the tests of a file share."""

import os
from pathlib import Path

from clusters import two_nodes
import pytest

HELPERS = Path(__file__).resolve().parents[1] / 'helpers'


@pytest.fixture(scope='module')
def tasks_path():
    """Let the workers import the tasks of tests."""
    pytest.importorskip('ray', reason='pip install -r requirements/cluster.txt')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', f'{HELPERS}:{os.environ.get("PYTHONPATH", "")}')
        yield


@pytest.fixture(scope='module')
def nodes(tasks_path):
    """Yield an address, and what kills the second node: the last test of a file does."""
    with two_nodes() as (address, kill):
        yield address, kill


@pytest.fixture(scope='module')
def cluster(nodes):
    """Return the address of two nodes of one core each; the second claims to have a GPU."""
    return nodes[0]
