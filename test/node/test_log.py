"""Lines of the log are printable, short, and throttled by topic."""

from pathlib import Path

from karmma_ros.node import log as module
from karmma_ros.node.log import NodeLog
import pytest


class Node:
    """A node that keeps what is logged."""

    def __init__(self):
        self.lines = []

    def get_logger(self):
        return self

    def warning(self, text):
        self.lines.append(text)

    info = error = warning


@pytest.fixture
def node():
    return Node()


def test_a_line_cannot_forge_another(node):
    NodeLog(node).warning('audio: \x1b[2J\n[INFO] [1.0] [karmma]: all is well' + 'A' * 10**6)
    line, = node.lines
    assert line.startswith('audio: \\x1b[2J\\n[INFO]') and len(line) <= module.LINE_LENGTH


def test_different_texts_on_one_topic_are_one_line_in_a_period(node, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, 'monotonic', lambda: now[0])
    log = NodeLog(node)
    written = []
    for i in range(250):
        now[0] = 100 + i / 10
        written += [log.warning(f'bad message {i}', topic='audio')]
    assert node.lines == ['bad message 0', 'bad message 100', 'bad message 200']
    assert [i for i, done in enumerate(written) if done] == [0, 100, 200]


def test_topics_do_not_silence_each_other(node):
    log = NodeLog(node)
    assert log.error('a', topic='rgb') and log.error('b', topic='audio') and log.info('c')
    assert not log.info('d', topic='rgb')
    log.reset()
    assert log.info('e', topic='rgb')
    assert node.lines == ['a', 'b', 'c', 'e']


def test_nothing_else_writes_to_a_logger():
    folder = Path(module.__file__).parent
    sources = {path.name: path.read_text(encoding='utf-8') for path in folder.glob('*.py')}
    assert [name for name, text in sources.items() if 'get_logger(' in text] == ['log.py']
