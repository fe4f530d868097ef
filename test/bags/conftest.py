"""Small bags of the synthetic kitchen, and changed copies of bags."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

from karmma_ros.bags.message_definitions import TypeReader
from karmma_ros.bags.writer import BagWriter
from karmma_ros.cli.bag import write
from karmma_ros.cli.bag.write import kitchen as kitchen_sensors
from karmma_ros.data.synthetic_kitchen.episode import episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
import pytest
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

START_NS = 1_735_689_600_000_000_000


def write_kitchen(path: Path, episodes: int = 2, seconds: float = 3.0, rate: float = 15.0,
                  seed: int = 0, size: tuple[int, int] = (64, 48)) -> Path:
    """Write held-out actions."""
    options = Namespace(seconds=seconds, rate=rate, size=size)
    with BagWriter(path) as bag:
        for number in range(episodes):
            start_ns = START_NS + round(number * seconds * 1e9)
            shown = episode(Split.TEST, seed, number)
            write.write_events(bag, *kitchen_sensors(shown, start_ns, options))
    return path


def rewrite(source: Path, out: Path, change, more=()) -> Path:
    """
    Write a changed copy of a bag.

    :param change: returns new topic, time and message, or None to drop the message.
    :param more: (topic, type, definition text, time, message bytes) that are added.
    """
    written = []
    with Reader(source) as bag:
        readers = {c.id: TypeReader(c.msgtype, c.msgdef) for c in bag.connections}
        for connection, time_ns, data in bag.messages():
            read = readers[connection.id]
            changed = change(connection.topic, time_ns, read(data))
            if changed is not None:
                topic, when, message = changed
                store = read._store
                written.append((when, topic, connection.msgtype, store,
                                store.serialize_cdr(message, connection.msgtype)))
    written += [(when, topic, type_name, store, data)
                for topic, type_name, store, when, data in more]
    with Writer(out, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {}
        for when, topic, type_name, store, data in sorted(written, key=lambda each: each[0]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, type_name, typestore=store)
            writer.write(connections[topic], when, data)
    return out


@pytest.fixture(scope='session')
def bags():
    """Return functions that write bags."""
    return SimpleNamespace(kitchen=write_kitchen, rewrite=rewrite, start_ns=START_NS)


@pytest.fixture(scope='session')
def kitchen(tmp_path_factory):
    """Return a bag of two actions in 6 s: 15 frames a second, audio, boxes at 10 Hz."""
    return write_kitchen(tmp_path_factory.mktemp('kitchen') / 'kitchen.mcap')
