"""
Bags in sqlite3, row by row, by number: intact, cut off or damaged.

Only rows of real tables are read: what a view, a virtual table or a computed column would give is
made up by the database, without any bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
import heapq
import os
from pathlib import Path
import sqlite3
import time
from typing import Any
from urllib.parse import quote

from karmma_ros.bags.limits import MOST_BYTES, MOST_NAME, too_large
from karmma_ros.bags.message_definitions import FileTopic
from karmma_ros.bags.recovery_mcap import LATEST_NS
from karmma_ros.files import open_regular
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

_FORMATS = {'ros2msg': MessageDefinitionFormat.MSG, 'ros2idl': MessageDefinitionFormat.IDL}
_TABLES = {
    'topics': {'id', 'name', 'type', 'serialization_format'},
    'messages': {'topic_id', 'timestamp', 'data'},
}
"""The tables of rosbag2 and the columns of them that are read."""
_OPTIONAL = {
    'message_definitions': {'topic_type', 'encoding', 'encoded_message_definition'}}
_FURTHEST = 1 << 32
_MOST_FAILURES = 1000
"""After so many damaged places the rest of a bag is given up."""
_MOST_TOPICS, _MOST_TEXT = 65_536, 4 << 20
"""As many as an MCAP file may have, and characters of a definition or of QoS."""
_MOST_WAITING = 1_000_000
"""So many rows wait until those before them in time have been found."""
_STEP_S = 20.0
"""So long one row may take: seconds, where a damaged or hostile file makes sqlite search."""
_LIMIT_LENGTH, _LIMIT_SQL_LENGTH = 0, 1
"""sqlite's own numbers of its limits on texts, blobs and rows, and on statements."""
_ROW_BYTES = 8
"""No row takes less."""
_ROW = 'rowid, topic_id, timestamp, typeof(data), length(data)'
_LOWEST = -2**63
_NO_MESSAGE, _IN_PAGES = 'rows that are no message', 'in damaged pages'


class RecoveredSqlite:
    """One file; its topics, and its messages in order of time."""

    def __init__(self, path: Path) -> None:
        """
        Read the topics and count the messages that can be read.

        :raises ValueError: when not even the topics can be read.
        """
        self.path, self.lost, self.unread = path, Counter[str](), 0
        self.damage: list[str] = []
        """What is wrong with the file; nothing, where it is intact."""
        self.topics: dict[int, FileTopic] = {}
        self.start_ns, self.end_ns = LATEST_NS, 0
        open_regular(path).close()
        self._bag = _connect(path)
        self._deadline = time.monotonic() + _STEP_S
        self._bag.set_progress_handler(lambda: time.monotonic() > self._deadline, 10_000)
        self._gaps: set[int] = set()
        self._damaged: set[int] = set()
        self._most_rows = path.stat().st_size // _ROW_BYTES
        self._disorder_ns, self._columns = 0, set[str]()
        try:
            self._check_tables()
            self._read_topics()
            self._count()
        except sqlite3.Error as error:
            self._bag.close()
            raise ValueError(f'its topics cannot be read ({error})') from None
        except BaseException:
            self._bag.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._bag.close()

    def messages(
        self, chosen: Collection[int], start_ns: int, stop_ns: int,
    ) -> Iterator[tuple[int, int, bytes]]:
        """Return topic, time and bytes of the messages from `start_ns` until before `stop_ns`."""
        all_wanted = start_ns <= self.start_ns and stop_ns > self.end_ns
        rows = self._rows() if all_wanted or self._gaps else self._between(start_ns, stop_ns)
        wanted = (row for row in rows if row[1] in chosen and start_ns <= row[2] < stop_ns)
        for number, topic, time_ns in self._in_order(wanted):
            data = self._data(number)
            if data is not None:
                yield topic, time_ns, data

    def _in_order(self, rows: Iterator[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
        """Put rows in order of time, as far as they are from it in the file."""
        held: list[tuple[int, int, int]] = []
        newest_ns = 0
        for number, topic, time_ns in rows:
            heapq.heappush(held, (time_ns, number, topic))
            newest_ns = max(newest_ns, time_ns)
            while held and (held[0][0] <= newest_ns - self._disorder_ns
                            or len(held) > _MOST_WAITING):
                time_ns, number, topic = heapq.heappop(held)
                yield number, topic, time_ns
        while held:
            time_ns, number, topic = heapq.heappop(held)
            yield number, topic, time_ns

    def _data(self, number: int) -> bytes | None:
        """Return the message of a row; None where its pages are damaged, which is counted."""
        try:
            found = self._query(
                'SELECT data FROM messages WHERE rowid = ? AND length(data) <= ?',
                number, MOST_BYTES).fetchone()
        except sqlite3.Error as error:
            found = None
            if number not in self._damaged:
                self._note_damage(error)
        if found is not None and isinstance(found[0], bytes):
            return found[0]
        if number not in self._damaged:
            self._damaged.add(number)
            self.lost[_IN_PAGES] += 1
        return None

    def _query(self, sql: str, *values: int) -> sqlite3.Cursor:
        self._deadline = time.monotonic() + _STEP_S
        return self._bag.execute(sql, values)

    def _note_damage(self, error: sqlite3.Error) -> None:
        if len(self.damage) < 3:
            self.damage.append(str(error))

    def _check_tables(self) -> None:
        # So that a file shorter than its header states is read as far as it goes.
        self._bag.execute('PRAGMA writable_schema=ON')
        self._bag.execute('PRAGMA trusted_schema=OFF')
        for name, columns in {**_TABLES, **_OPTIONAL}.items():
            found = self._query(
                f"SELECT type, rootpage FROM sqlite_master WHERE name = '{name}'").fetchall()
            if not found and name in _OPTIONAL:
                continue
            if [kind for kind, page in found if page] != ['table']:
                what = found[0][0] if found else 'missing'
                raise ValueError(f'its {name} is {what}; expected a table, as rosbag2 writes it')
            facts = {row[1]: row[6] for row in self._query(f'PRAGMA table_xinfo({name})')}
            self._columns |= {f'{name}.{column}' for column, hidden in facts.items() if not hidden}
            unfit = sorted(column for column in columns if facts.get(column, 1))
            if unfit or {'rowid', '_rowid_', 'oid'} & set(facts):
                raise ValueError(f'its table {name} has {", ".join(unfit) or "rowid"} missing or '
                                 'computed; expected columns as rosbag2 writes them')

    def _read_topics(self) -> None:
        definitions = {}
        if 'message_definitions.encoding' in self._columns:
            for type_name, form, text in self._query(
                    'SELECT topic_type, encoding, encoded_message_definition '
                    'FROM message_definitions LIMIT ?', _MOST_TOPICS):
                if form in _FORMATS and isinstance(text, str) and len(text) <= _MOST_TEXT:
                    definitions[type_name] = MessageDefinition(_FORMATS[form], text)
        qos = 'offered_qos_profiles' if 'topics.offered_qos_profiles' in self._columns else "''"
        for number, *texts, offered in self._query(
                f'SELECT id, name, type, serialization_format, {qos} FROM topics LIMIT ?',
                _MOST_TOPICS):
            if not isinstance(number, int) or not all(
                    isinstance(text, str) and len(text) <= MOST_NAME for text in texts):
                self.lost['unreadable definitions'] += 1
                continue
            name, type_name, encoding = texts
            offered = offered if isinstance(offered, str) and len(offered) <= _MOST_TEXT else ''
            self.topics[number] = FileTopic(
                name, type_name, encoding, definitions.get(type_name), qos=offered)

    def _count(self) -> None:
        newest_ns = 0
        for _, topic, time_ns in self._rows(note=True):
            self.topics[topic].count += 1
            self.start_ns, self.end_ns = min(self.start_ns, time_ns), max(self.end_ns, time_ns)
            self._disorder_ns = max(self._disorder_ns, newest_ns - time_ns)
            newest_ns = max(newest_ns, time_ns)

    def _between(self, start_ns: int, stop_ns: int) -> Iterator[tuple[int, int, int]]:
        """Return the rows between two times, by the index of the table if there is one."""
        try:
            for row in self._query(
                    f'SELECT {_ROW} FROM messages WHERE timestamp >= ? AND timestamp < ?',
                    start_ns, stop_ns):
                if not self._fault(*row):
                    yield row[:3]
        except sqlite3.Error as error:
            self._note_damage(error)

    def _fault(self, number: int, topic: Any, time_ns: Any, kind: str, length: int) -> str:
        """Return why a row is of no use; '' where it is of use."""
        if topic not in self.topics:
            return 'messages of topics that the file does not define'
        if not isinstance(time_ns, int) or kind != 'blob':
            return _NO_MESSAGE
        if not 0 <= time_ns < LATEST_NS:
            return 'messages with a time before 1970 or after the year 2262'
        return too_large('messages') if length > MOST_BYTES else ''

    def _rows(self, note: bool = False) -> Iterator[tuple[int, int, int]]:
        """
        Return number, topic and time of every row that can be read.

        Behind a damaged page it goes on at the next row that answers.

        :param note: count those that cannot.
        """
        good, last, step, limit, failures = 0, _LOWEST, 1, '', 0
        while step < _FURTHEST and failures < _MOST_FAILURES:
            found = False
            try:
                for number, *rest in self._query(
                        f'SELECT {_ROW} FROM messages WHERE rowid > ? ORDER BY rowid{limit}',
                        last):
                    self._deadline = time.monotonic() + _STEP_S
                    if number <= last:  # a damaged tree leads back
                        raise sqlite3.DatabaseError(f'row {number} comes after {last}')
                    if step > 1:
                        self._note_gap(good, number)
                    good = last = number
                    found, step = True, 1
                    fault = self._fault(number, *rest)
                    if not fault:
                        yield number, rest[0], rest[1]
                    elif note:
                        self.lost[fault] += 1
                if not limit or not found:
                    if note and step > 1:  # the last rows
                        self.lost[_IN_PAGES] += 1
                    return
                limit = ''
            except sqlite3.Error as error:
                failures += 1
                self._note_damage(error)
                # A row is fetched ahead: the next one alone may be well.
                if limit:
                    last, step = max(last, 0) + step, 2 * step
                limit = ' LIMIT 1'
        if note:  # nobody knows how many rows follow
            self.lost[_IN_PAGES] += 1

    def _note_gap(self, last: int, number: int) -> None:
        """Count the rows between two that can be read, once however often they are met."""
        if last not in self._gaps:
            self._gaps.add(last)
            self.lost[_IN_PAGES] += max(0, min(number - last - 1, self._most_rows))


def _connect(path: Path) -> sqlite3.Connection:
    bag = sqlite3.connect(f'file:{quote(os.fsencode(path))}?mode=ro&immutable=1', uri=True,
                          check_same_thread=False)
    bag.text_factory = lambda text: text.decode(errors='replace')
    if hasattr(bag, 'setlimit'):  # Python 3.11
        bag.setlimit(_LIMIT_LENGTH, MOST_BYTES)
        bag.setlimit(_LIMIT_SQL_LENGTH, _MOST_TEXT)
    return bag
