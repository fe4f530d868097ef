"""
Bags from any distribution, whole or damaged, through the rosbags library.

Each file is read by the library as long as it can; from where it cannot go on, what is left is
read by `recovery_mcap` or `recovery_sqlite`, and what is lost is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Union

from karmma_ros.evaluation.rosbag.definitions import TypeReader
from karmma_ros.evaluation.rosbag.errors import BagError
from karmma_ros.evaluation.rosbag.files import (
    BagFiles,
    decompress_file,
    find_files,
    PACKED,
    storage_suffix,
    unpack_message,
)
from karmma_ros.evaluation.rosbag.recovery_mcap import FileTopic, RecoveredMcap
from karmma_ros.evaluation.rosbag.recovery_sqlite import RecoveredSqlite
from rosbags.rosbag2 import Reader

LATEST_NS = 2**63 - 1
"""Later than any message."""

Recovered = Union[RecoveredMcap, RecoveredSqlite]


@dataclass
class Topic:
    """One topic of the bag."""

    name: str
    type: str
    count: int = 0
    encoding: str = 'cdr'
    definitions: list[Any] = field(default_factory=list)
    """What its files say of the type; the first one that is there counts."""


class Message(NamedTuple):
    """One message as it lies in the bag."""

    topic: Topic
    received_ns: int
    """When the recorder received it."""
    data: bytes
    """CDR."""


class Bag:
    """One bag, open for reading; a context manager. Messages can be read as often as wanted."""

    def __init__(self, path: Path | str) -> None:
        """
        Find the files; nothing is opened yet.

        :raises BagError: when there are none.
        """
        self.files: BagFiles = find_files(Path(path))
        self.path = self.files.path
        self.warnings: list[str] = list(self.files.warnings)
        self.lost: Counter[str] = Counter()
        """Why messages could not be read → how many."""
        self.topics: dict[tuple[str, str], Topic] = {}
        """By name and type."""
        self._parts: list[_Part] = []
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
        """Give the time of the first message."""
        return min((p.start_ns for p in self._parts if p.count), default=0)

    @property
    def end_ns(self) -> int:
        """Give the time of the last message."""
        return max((p.end_ns for p in self._parts if p.count), default=0)

    @property
    def messages_count(self) -> int:
        """Count the messages that can be read."""
        return sum(topic.count for topic in self.topics.values())

    def reader(self, topic: Topic) -> TypeReader:
        """
        Give what turns the bytes of a topic into messages.

        :raises ValueError: when its type is not known, or it is not CDR.
        """
        if topic.encoding != 'cdr':
            raise ValueError(f'{topic.name} is encoded as {topic.encoding!r}, not as CDR')
        given = next((d for d in topic.definitions if d is not None and d.data), None)
        return TypeReader(topic.type, given)

    def messages(
        self, topics: Collection[Topic], start_ns: int = 0, stop_ns: int = LATEST_NS,
    ) -> Iterator[Message]:
        """Give the messages of some topics received from `start_ns` until before `stop_ns`."""
        wanted = {(topic.name, topic.type) for topic in topics}
        for part in self._parts:
            if part.end_ns < start_ns or part.start_ns >= stop_ns:
                continue
            for key, time_ns, data in part.messages(wanted, start_ns, stop_ns):
                try:
                    yield Message(self.topics[key], time_ns, unpack_message(data))
                except Exception:  # zstd's own kind, on damaged data
                    self.lost['messages whose compression is damaged'] += 1
            self._take_over(part)

    def _open(self) -> None:
        for path in self.files.files:
            try:
                part = self._stack.enter_context(_Part(self._unpacked(path)))
            except ValueError as error:
                self.warnings.append(f'{path.name} cannot be read: {error}')
                self.lost['files that cannot be read'] += 1
                continue
            self._parts.append(part)
            self._take_over(part)
            for topic in part.topics.values():
                self._note(topic)
        if not self.messages_count:
            self._refuse()
        self._compare()

    def _unpacked(self, path: Path) -> Path:
        if path.suffix not in PACKED:
            return path
        folder = self._stack.enter_context(TemporaryDirectory(prefix='karmma_bag_'))
        target = Path(folder, path.stem)
        problem = decompress_file(path, target)
        if problem:
            self.warnings.append(f'{path.name}: {problem}; what could be unpacked is used')
        return target

    def _note(self, found: FileTopic) -> None:
        topic = self.topics.setdefault(
            (found.name, found.type), Topic(found.name, found.type, encoding=found.encoding))
        topic.count += found.count
        topic.definitions.append(found.definition)

    def _take_over(self, part: _Part) -> None:
        """Take what a part has found out about itself."""
        self.lost.update(part.lost)
        self.warnings += part.warnings
        part.lost.clear()
        part.warnings.clear()

    def _compare(self) -> None:
        """Hold what is there against what metadata.yaml promises."""
        missing = (self.files.promised or 0) - self.messages_count - sum(self.lost.values())
        if missing > 0:
            self.lost['named by metadata.yaml, but not in the files'] += missing

    def _refuse(self) -> None:
        why = '; '.join(self.warnings) or 'its files are whole'
        raise BagError(
            self.path, f'there is no message in it ({why})',
            'record again: `karmma bag record` prints the command, and `ros2 topic hz TOPIC` '
            'tells beforehand whether anything is published')


class _Part:
    """One file of a bag: read by the library, else recovered."""

    def __init__(self, path: Path) -> None:
        self.path, self.lost, self.warnings = path, Counter[str](), list[str]()
        self.topics: dict[int, FileTopic] = {}
        self._reader: Any = None
        self._rest: Recovered | None = None

    def __enter__(self) -> _Part:
        """
        Open the file.

        :raises ValueError: when nothing of it can be read.
        """
        reader = Reader(self.path)
        try:
            reader.open()
        except Exception as error:  # rosbags raises a kind of its own for each damage
            self._recover(f'{type(error).__name__}: {error}')
            return self
        self._reader = reader
        self._ids = {(c.id, c.topic): number for number, c in enumerate(reader.connections)}
        self.topics = {
            number: FileTopic(c.topic, c.msgtype, getattr(c.ext, 'serialization_format', ''),
                              c.msgdef, c.msgcount)
            for number, c in enumerate(reader.connections)}
        self.start_ns, self.end_ns = reader.start_time, max(0, reader.end_time - 1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._rest is not None:
            self._rest.close()

    @property
    def count(self) -> int:
        return sum(topic.count for topic in self.topics.values())

    def messages(
        self, wanted: Collection[tuple[str, str]], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[tuple[str, str], int, bytes]]:
        """Give name and type, time and bytes of each message wanted."""
        last_ns, same = start_ns, 0
        if self._rest is None:
            try:
                for key, time_ns, data in self._by_library(wanted, start_ns, stop_ns):
                    same = same + 1 if time_ns == last_ns else 1
                    last_ns = time_ns
                    yield key, time_ns, data
                return
            except Exception as error:  # rosbags' own, apsw's, zstd's, struct's …
                self._recover(f'{type(error).__name__}: {error}')
        assert self._rest is not None
        for key, time_ns, data in self._by_recovery(wanted, last_ns, stop_ns):
            if time_ns == last_ns and same:  # given before the damage was met
                same -= 1
                continue
            yield key, time_ns, data

    def _by_library(
        self, wanted: Collection[tuple[str, str]], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[tuple[str, str], int, bytes]]:
        chosen = [c for c in self._reader.connections if (c.topic, c.msgtype) in wanted]
        if not chosen:
            return
        whole = start_ns <= self.start_ns and stop_ns > self.end_ns
        limits = (None, None) if whole else (start_ns, stop_ns)
        for connection, time_ns, data in self._reader.messages(chosen, *limits):
            yield (connection.topic, connection.msgtype), time_ns, data

    def _by_recovery(
        self, wanted: Collection[tuple[str, str]], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[tuple[str, str], int, bytes]]:
        assert self._rest is not None
        keys = {number: (t.name, t.type) for number, t in self._rest.topics.items()}
        chosen = {number for number, key in keys.items() if key in wanted}
        for number, time_ns, data in self._rest.messages(chosen, start_ns, stop_ns):
            yield keys[number], time_ns, data
        self.lost.update(self._rest.lost)
        self._rest.lost.clear()

    def _recover(self, why: str) -> None:
        """
        Go on by our own means.

        :raises ValueError: when they do not help either.
        """
        if self.path.stat().st_size == 0:
            raise ValueError('it is empty')
        kind = RecoveredMcap if storage_suffix(self.path) == '.mcap' else RecoveredSqlite
        self._rest = rest = kind(self.path)
        self.topics, self.start_ns, self.end_ns = rest.topics, rest.start_ns, rest.end_ns
        self.lost.update(rest.lost)
        rest.lost.clear()
        unread = f'; {rest.unread:,} bytes at its end are unreadable' if rest.unread > 8 else ''
        self.warnings.append(
            f'{self.path.name} is damaged ({_short(why)}); what can be read is used{unread}')


def _short(text: str) -> str:
    line = ' '.join(text.split())
    return line if len(line) <= 160 else line[:157] + '…'
