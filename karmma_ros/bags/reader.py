"""
Reader of bags of any ROS 2 distribution, which may be damaged and come from anywhere.

Each file is read by `recovery_mcap` or `recovery_sqlite`, within the limits of `limits`. Messages
that the files or metadata.yaml count and that cannot be read are counted as missing. The readers
of the rosbags library do neither: they trust the indexes of a file, and decompress without limit.
Its type parser and its deserializer are used (`message_definitions`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Union

from karmma_ros.bags.limits import decompress_message, MAX_DEFINITION, MAX_DEFINITIONS
from karmma_ros.bags.message_definitions import Topic, TypeReader
from karmma_ros.bags.metadata import (
    BagFiles,
    decompress_file,
    find_files,
    is_compressed,
    storage_suffix,
)
from karmma_ros.bags.recovery_mcap import LATEST_NS, RecoveredMcap
from karmma_ros.bags.recovery_sqlite import RecoveredSqlite
from karmma_ros.bags.video_messages import is_media, VideoMessages
from karmma_ros.errors import BagError, printable
from karmma_ros.storage import scratch_folder

Key = tuple[str, str]
"""Name and type of a topic."""


class Message(NamedTuple):
    """One message in serialized form."""

    topic: Topic
    received_ns: int
    """When the recorder received it."""
    data: bytes
    """CDR."""


class Bag:
    """
    One bag; a context manager. Messages can be read any number of times.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from karmma_ros.bags.reader import Bag
    >>> from karmma_ros.bags.writer import BagWriter
    >>> import numpy as np
    >>> with TemporaryDirectory() as folder:
    ...     with BagWriter(Path(folder, 'short.mcap')) as bag:
    ...         bag.image(1_000_000_000, np.zeros((48, 64, 3), np.uint8))
    ...     with Bag(Path(folder, 'short.mcap')) as bag:
    ...         for message in bag.messages(bag.topics.values()):
    ...             print(message.topic.name, message.received_ns)
    /image 1000000000
    """

    def __init__(self, path: Path | str) -> None:
        """
        Find the files, without opening them.

        :raises BagError: when there are none.
        """
        self.files: BagFiles = find_files(Path(path))
        self.path = self.files.path
        self.warnings: list[str] = list(self.files.warnings)
        self.missing: Counter[str] = Counter()
        """Reason → messages that could not be read."""
        self.topics: dict[Key, Topic] = {}
        self._parts: list[_File] = []
        self._readers: dict[tuple[str, str], TypeReader] = {}
        """Type and definition → its reader."""
        self._parsed = 0
        """Characters of the definitions parsed so far."""
        self._unusable: set[tuple[Key, int, int]] = set()
        """Messages that cannot be decompressed, to count them once."""
        self._stack = ExitStack()

    def __enter__(self) -> Bag:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def start_ns(self) -> int:
        """Return the time of the first message."""
        return min((p.start_ns for p in self._parts if p.count), default=0)

    @property
    def end_ns(self) -> int:
        """Return the time of the last message."""
        return max((p.end_ns for p in self._parts if p.count), default=0)

    @property
    def messages_count(self) -> int:
        """Return the number of messages that can be read."""
        return sum(topic.count for topic in self.topics.values())

    def reader(self, topic: Topic) -> TypeReader:
        """
        Return the reader of the messages of a topic.

        :raises ValueError: when its type is not known, or its encoding is not CDR.
        """
        if topic.encoding != 'cdr':
            raise ValueError(f'the encoding of {topic.name} is {topic.encoding!r}; expected cdr')
        definition = topic.definition
        key = topic.type, '' if definition is None else definition.data
        if key not in self._readers:
            self._parsed += min(len(key[1]), MAX_DEFINITION)
            if self._parsed > MAX_DEFINITIONS:
                raise ValueError(f'the definitions of {printable(topic.type)} and others have '
                                 f'more than {MAX_DEFINITIONS:,} characters')
            self._readers[key] = TypeReader(topic.type, definition)
        return self._readers[key]

    def messages(
        self, topics: Collection[Topic], start_ns: int = 0, stop_ns: int = LATEST_NS,
    ) -> Iterator[Message]:
        """Yield the messages of some topics that were received in [start_ns, stop_ns)."""
        wanted = {(topic.name, topic.type) for topic in topics}
        for part in self._parts:
            if part.end_ns < start_ns or part.start_ns >= stop_ns:
                continue
            for key, time_ns, data in part.messages(wanted, start_ns, stop_ns):
                try:
                    content = decompress_message(data)
                except ValueError as error:
                    if (key, time_ns, len(data)) not in self._unusable:
                        self._unusable.add((key, time_ns, len(data)))
                        self.missing[str(error)] += 1
                    continue
                yield Message(self.topics[key], time_ns, content)
            self._collect_damage(part)

    def _open(self) -> None:
        for path in self.files.files:
            try:
                part = _File(self._decompressed(path))
            except (ValueError, OSError) as error:
                self.warnings.append(f'{path.name} cannot be read: {error}')
                self.missing['files that cannot be read'] += 1
                continue
            self._stack.callback(part.reader.close)
            self._parts.append(part)
            self._collect_damage(part)
            for topic in part.reader.topics.values():
                self._add_topic(topic)
        if not self.messages_count:
            self._raise_empty()
        self._compare_with_metadata()

    def _decompressed(self, path: Path) -> Path:
        if not is_compressed(path):
            return path
        target = self._stack.enter_context(scratch_folder()) / path.stem
        problem = decompress_file(path, target)
        if problem:
            self.missing['files that cannot be decompressed to their end'] += 1
            self.warnings.append(f'{path.name}: {problem}; the decompressed part is used')
        return target

    def _add_topic(self, other: Topic) -> None:
        """Add a topic of one file to those of the bag."""
        topic = self.topics.setdefault(
            (other.name, other.type), replace(other, count=0, definition=None))
        topic.count += other.count
        if topic.definition is None and other.definition is not None and other.definition.data:
            topic.definition = other.definition
        topic.qos = topic.qos or other.qos

    def _collect_damage(self, part: _File) -> None:
        """Move the counts and descriptions of the damage of a file to those of the bag."""
        reader = part.reader
        self.missing.update(reader.missing)
        reader.missing.clear()
        if reader.damage:
            unread = (f'; {reader.unread_bytes:,} bytes at its end are unreadable'
                      if reader.unread_bytes > 8 else '')
            self.warnings.append(f'{part.path.name} is damaged ({_short(reader.damage[:3])}); its '
                                 f'readable messages are used{unread}')
            reader.damage.clear()

    def _compare_with_metadata(self) -> None:
        """Count the messages that metadata.yaml counts and the files do not contain."""
        stated = self.files.messages
        excess = (stated or 0) - self.messages_count
        counts = Counter({key: topic.count for key, topic in self.topics.items()})
        missing = max(excess, (self.files.topics - counts).total()) - sum(self.missing.values())
        if missing > 0:
            self.missing['messages counted by metadata.yaml, but not in the files'] += missing
        elif self.files.missing:  # with an unknown number of messages
            self.missing['files that do not exist or are not read'] += len(self.files.missing)
        if stated is not None and excess < 0:
            self.warnings.append(f'metadata.yaml counts {stated:,} messages, its files contain '
                                 f'{self.messages_count:,}; all are read')

    def _raise_empty(self) -> None:
        counts = [f'{reason}: {count:,}' for reason, count in self.missing.items()]
        reasons = '; '.join([*self.warnings, *counts]) or 'its files are intact'
        raise BagError(
            self.path, f'there is no message in it ({reasons})',
            'record again: `karmma bag record` prints the command, and `ros2 topic hz TOPIC` '
            'checks beforehand whether anything is published')


class _File:
    """One file of a bag, open."""

    def __init__(self, path: Path) -> None:
        """
        Open the file.

        :raises ValueError: when nothing of it can be read.
        :raises OSError: when it cannot be opened.
        """
        if path.stat().st_size == 0:
            raise ValueError('it is empty')
        self.path = path
        self.reader: Union[RecoveredMcap, RecoveredSqlite, VideoMessages]
        if is_media(path):
            self.reader = VideoMessages(path)
        else:
            self.reader = (
                RecoveredMcap if storage_suffix(path) == '.mcap' else RecoveredSqlite)(path)
        self.start_ns, self.end_ns = self.reader.start_ns, self.reader.end_ns
        self._keys = {i: (topic.name, topic.type) for i, topic in self.reader.topics.items()}

    @property
    def count(self) -> int:
        return sum(topic.count for topic in self.reader.topics.values())

    def messages(
        self, wanted: Collection[Key], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[Key, int, bytes]]:
        """Yield topic, time and bytes of the messages of the topics wanted."""
        chosen = {number for number, key in self._keys.items() if key in wanted}
        for number, time_ns, data in self.reader.messages(chosen, start_ns, stop_ns):
            yield self._keys[number], time_ns, data


def _short(damage: list[str]) -> str:
    line = ' '.join('; '.join(damage).split())
    return line if len(line) <= 160 else line[:157] + '…'
