"""
Bags from any distribution, intact or damaged, as data of a stranger.

Each file is read by `recovery_mcap` or `recovery_sqlite`, within the limits of `limits`; what the
file or metadata.yaml promises and what cannot be read is counted as lost. The readers of the
rosbags library do neither: they believe the indexes of a file, and decompress without bound. Its
message types and its decoder are used (`definitions`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Union

from karmma_ros.bags.limits import MOST_DEFINITION, MOST_DEFINITIONS, unpack_message
from karmma_ros.bags.message_definitions import FileTopic, TypeReader
from karmma_ros.bags.metadata import BagFiles, decompress_file, find_files, PACKED, storage_suffix
from karmma_ros.bags.recovery_mcap import LATEST_NS, RecoveredMcap
from karmma_ros.bags.recovery_sqlite import RecoveredSqlite
from karmma_ros.errors import BagError, printable
from karmma_ros.storage import scratch_folder

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
    qos: str = ''
    """What its publishers offered, YAML as rosbag2 writes it; '' where that is not known."""


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
        self._readers: dict[tuple[str, str], TypeReader] = {}
        self._parsed = 0
        self._unusable: set[tuple[tuple[str, str], int, int]] = set()
        """Messages that cannot be decompressed: counted once, however often they are read."""
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
        """Count the messages that can be read."""
        return sum(topic.count for topic in self.topics.values())

    def reader(self, topic: Topic) -> TypeReader:
        """
        Return what turns the bytes of a topic into messages.

        :raises ValueError: when its type is not known, or it is not CDR.
        """
        if topic.encoding != 'cdr':
            raise ValueError(f'{topic.name} is encoded as {topic.encoding!r}, not as CDR')
        given = next((d for d in topic.definitions if d is not None and d.data), None)
        key = topic.type, '' if given is None else given.data
        if key not in self._readers:
            self._parsed += min(len(key[1]), MOST_DEFINITION)
            if self._parsed > MOST_DEFINITIONS:
                raise ValueError(f'the definitions of {printable(topic.type)} and others have '
                                 f'more than {MOST_DEFINITIONS:,} characters')
            self._readers[key] = TypeReader(topic.type, given)
        return self._readers[key]

    def messages(
        self, topics: Collection[Topic], start_ns: int = 0, stop_ns: int = LATEST_NS,
    ) -> Iterator[Message]:
        """Return the messages of some topics received from `start_ns` until before `stop_ns`."""
        wanted = {(topic.name, topic.type) for topic in topics}
        for part in self._parts:
            if part.end_ns < start_ns or part.start_ns >= stop_ns:
                continue
            for key, time_ns, data in part.messages(wanted, start_ns, stop_ns):
                try:
                    content = unpack_message(data)
                except ValueError as error:
                    if (key, time_ns, len(data)) not in self._unusable:
                        self._unusable.add((key, time_ns, len(data)))
                        self.lost[str(error)] += 1
                    continue
                yield Message(self.topics[key], time_ns, content)
            self._take_over(part)

    def _open(self) -> None:
        for path in self.files.files:
            try:
                part = self._stack.enter_context(_Part(self._unpacked(path)))
            except (ValueError, OSError) as error:
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
        target = self._stack.enter_context(scratch_folder()) / path.stem
        problem = decompress_file(path, target)
        if problem:
            self.lost['files that cannot be decompressed to their end'] += 1
            self.warnings.append(f'{path.name}: {problem}; what could be unpacked is used')
        return target

    def _note(self, found: FileTopic) -> None:
        topic = self.topics.setdefault(
            (found.name, found.type), Topic(found.name, found.type, encoding=found.encoding))
        topic.count += found.count
        topic.definitions.append(found.definition)
        topic.qos = topic.qos or found.qos

    def _take_over(self, part: _Part) -> None:
        """Take what a part has found out about itself."""
        self.lost.update(part.lost)
        self.warnings += part.warnings
        part.lost.clear()
        part.warnings.clear()

    def _compare(self) -> None:
        """Compare what is there with what metadata.yaml promises."""
        promised, total = self.files.topics, (self.files.promised or 0) - self.messages_count
        found = Counter({key: topic.count for key, topic in self.topics.items()})
        missing = max(total, (promised - found).total()) - sum(self.lost.values())
        if missing > 0:
            self.lost['named by metadata.yaml, but not in the files'] += missing
        elif self.files.missing:  # nobody knows what is in them
            self.lost['files that are not there or not read'] += len(self.files.missing)
        if self.files.promised is not None and total < 0:
            self.warnings.append(f'metadata.yaml names {self.files.promised:,} messages, its '
                                 f'files hold {self.messages_count:,}; all are read')

    def _refuse(self) -> None:
        lost = [f'{count:,} {why}' for why, count in self.lost.items()]
        why = '; '.join([*self.warnings, *lost]) or 'its files are whole'
        raise BagError(
            self.path, f'there is no message in it ({why})',
            'record again: `karmma bag record` prints the command, and `ros2 topic hz TOPIC` '
            'tells beforehand whether anything is published')


class _Part:
    """One file of a bag."""

    def __init__(self, path: Path) -> None:
        self.path, self.lost, self.warnings = path, Counter[str](), list[str]()

    def __enter__(self) -> _Part:
        """
        Open the file.

        :raises ValueError: when nothing of it can be read.
        :raises OSError: when it cannot be opened.
        """
        if self.path.stat().st_size == 0:
            raise ValueError('it is empty')
        reader = RecoveredMcap if storage_suffix(self.path) == '.mcap' else RecoveredSqlite
        self._reader: Recovered = reader(self.path)
        self.topics = self._reader.topics
        self._keys = {number: (topic.name, topic.type) for number, topic in self.topics.items()}
        self.start_ns, self.end_ns = self._reader.start_ns, self._reader.end_ns
        self._take_over()
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def count(self) -> int:
        return sum(topic.count for topic in self.topics.values())

    def messages(
        self, wanted: Collection[tuple[str, str]], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[tuple[str, str], int, bytes]]:
        """Return name and type, time and bytes of each message wanted."""
        chosen = {number for number, key in self._keys.items() if key in wanted}
        for number, time_ns, data in self._reader.messages(chosen, start_ns, stop_ns):
            yield self._keys[number], time_ns, data
        self._take_over()

    def _take_over(self) -> None:
        """Take what the reader has found out."""
        rest = self._reader
        self.lost.update(rest.lost)
        rest.lost.clear()
        if rest.damage:
            unread = (f'; {rest.unread:,} bytes at its end are unreadable'
                      if rest.unread > 8 else '')
            why = _short('; '.join(rest.damage[:3]))
            self.warnings.append(
                f'{self.path.name} is damaged ({why}); what can be read is used{unread}')
            rest.damage.clear()


def _short(text: str) -> str:
    line = ' '.join(text.split())
    return line if len(line) <= 160 else line[:157] + '…'
