"""What can still be read of an sqlite3 bag that is cut off or damaged: row by row, by number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
import heapq
from pathlib import Path
import sqlite3

from karmma_ros.evaluation.rosbag.recovery_mcap import FileTopic
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

_FORMATS = {'ros2msg': MessageDefinitionFormat.MSG, 'ros2idl': MessageDefinitionFormat.IDL}
_FURTHEST = 1 << 32
_MOST_FAILURES = 1000
"""After so many damaged places the rest of a bag is given up."""
_AHEAD_NS = 1_000_000_000
"""Rows are put in order of time among those up to this much later."""


class RecoveredSqlite:
    """One damaged file; its topics, and its messages in order of time."""

    def __init__(self, path: Path) -> None:
        """
        Read the topics and count the messages that can be read.

        :raises ValueError: when not even the topics can be read.
        """
        self.path, self.lost, self.unread = path, Counter[str](), 0
        self.topics: dict[int, FileTopic] = {}
        self.start_ns, self.end_ns = 2**63 - 1, 0
        self._bag = sqlite3.connect(f'file:{path}?mode=ro&immutable=1', uri=True,
                                    check_same_thread=False)
        self._bag.text_factory = lambda text: text.decode(errors='replace')
        self._gaps: set[int] = set()
        try:
            # So that a file shorter than its header says is read as far as it goes.
            self._bag.execute('PRAGMA writable_schema=ON')
            self._read_topics()
        except sqlite3.Error as error:
            self._bag.close()
            raise ValueError(f'its topics cannot be read ({error})') from None
        for topic, time_ns, _ in self._rows(with_data=False):
            if topic in self.topics:
                self.topics[topic].count += 1
            self.start_ns, self.end_ns = min(self.start_ns, time_ns), max(self.end_ns, time_ns)

    def close(self) -> None:
        """Close the file."""
        self._bag.close()

    def messages(
        self, chosen: Collection[int], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[int, int, bytes]]:
        """Give topic, time and bytes of the messages from `start_ns` until before `stop_ns`."""
        held: list[tuple[int, int, int, bytes]] = []
        newest_ns = 0
        for number, (topic, time_ns, data) in enumerate(self._rows(with_data=True)):
            if topic not in chosen or not start_ns <= time_ns < stop_ns:
                continue
            heapq.heappush(held, (time_ns, number, topic, data))
            newest_ns = max(newest_ns, time_ns)
            while held[0][0] < newest_ns - _AHEAD_NS:
                time_ns, _, topic, data = heapq.heappop(held)
                yield topic, time_ns, data
        while held:
            time_ns, _, topic, data = heapq.heappop(held)
            yield topic, time_ns, data

    def _read_topics(self) -> None:
        definitions = {}
        try:
            for type_name, form, text in self._bag.execute(
                    'SELECT topic_type, encoding, encoded_message_definition '
                    'FROM message_definitions'):
                if form in _FORMATS:
                    definitions[type_name] = MessageDefinition(_FORMATS[form], text)
        except sqlite3.Error:  # bags from before Iron have none
            pass
        for number, name, type_name, encoding in self._bag.execute(
                'SELECT id, name, type, serialization_format FROM topics'):
            self.topics[number] = FileTopic(name, type_name, encoding, definitions.get(type_name))

    def _rows(self, with_data: bool) -> Iterator[tuple[int, int, bytes]]:
        """
        Give topic, time and bytes of every row that can be read.

        Behind a damaged page it goes on at the next row that answers.
        """
        columns = 'id, topic_id, timestamp, ' + ('data' if with_data else "x''")
        good, last, step, limit, failures = 0, 0, 1, '', 0
        while step < _FURTHEST and failures < _MOST_FAILURES:
            found = False
            try:
                for number, topic, time_ns, data in self._bag.execute(
                        f'SELECT {columns} FROM messages WHERE id > ? ORDER BY id{limit}',
                        (last,)):
                    if number <= last:  # a damaged tree leads back
                        raise sqlite3.DatabaseError(f'row {number} comes after {last}')
                    if topic not in self.topics:  # what a damaged page holds is no row
                        raise sqlite3.DatabaseError(f'row {number} is of topic {topic!r}')
                    if step > 1:
                        self._note_gap(good, number)
                    good = last = number
                    found, step = True, 1
                    if isinstance(time_ns, int) and isinstance(data, bytes):
                        yield topic, time_ns, data
                if not limit or not found:
                    return
                limit = ''
            except sqlite3.Error:
                failures += 1
                # A row is fetched ahead: the next one alone may be well.
                if limit:
                    last, step = last + step, 2 * step
                limit = ' LIMIT 1'

    def _note_gap(self, last: int, number: int) -> None:
        """Count the rows between two that can be read, once however often they are met."""
        if last not in self._gaps:
            self._gaps.add(last)
            self.lost['in damaged pages'] += number - last - 1
