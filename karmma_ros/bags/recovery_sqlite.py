"""
Reader of sqlite3 files that may be truncated or damaged.

Rows are read one by one in order of their rowid. Only ordinary tables and columns are read: views,
virtual tables and generated columns compute their contents, without any limit.
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

from karmma_ros.bags.limits import MAX_MESSAGE, MAX_NAME, too_large
from karmma_ros.bags.message_definitions import Topic
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
_MAX_STEP = 1 << 32
"""Rowids skipped at once behind a damaged page."""
_MAX_FAILURES = 1000
"""Errors after which the rest of a file is not read."""
_MAX_TOPICS, _MAX_TEXT = 65_536, 4 << 20
"""Topics, as many as an MCAP file may have, and characters of a definition or of QoS."""
_MAX_WAITING = 1_000_000
"""Rows held back to yield them in order of time."""
_TIMEOUT_S = 20.0
"""Time for one row: a damaged or hostile file may make sqlite search without end."""
_LIMIT_LENGTH, _LIMIT_SQL_LENGTH = 0, 1
"""SQLITE_LIMIT_LENGTH (of strings, blobs and rows) and SQLITE_LIMIT_SQL_LENGTH."""
_ROW_BYTES = 8
"""Lower bound of the size of a row."""
_ROW = 'rowid, topic_id, timestamp, typeof(data), length(data)'
_LOWEST = -2**63
_NO_MESSAGE, _IN_PAGES = 'rows that are no message', 'rows in damaged pages'


class RecoveredSqlite:
    """The topics of one file, and its messages in order of time."""

    unread_bytes = 0

    def __init__(self, path: Path) -> None:
        """
        Read the topics and count the messages that can be read.

        :raises ValueError: when not even the topics can be read.
        """
        self.missing: Counter[str] = Counter()
        """Reason → messages that could not be read."""
        self.damage: list[str] = []
        """Descriptions of the damage; empty for an intact file."""
        self.topics: dict[int, Topic] = {}
        self.start_ns, self.end_ns = LATEST_NS, 0
        open_regular(path).close()
        self._bag = _connect(path)
        self._deadline = time.monotonic() + _TIMEOUT_S
        self._bag.set_progress_handler(lambda: time.monotonic() > self._deadline, 10_000)
        self._gaps: set[int] = set()
        self._damaged: set[int] = set()
        self._max_rows = path.stat().st_size // _ROW_BYTES
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
        """Yield topic, time and bytes of the messages in [start_ns, stop_ns)."""
        all_wanted = start_ns <= self.start_ns and stop_ns > self.end_ns
        rows = self._rows() if all_wanted or self._gaps else self._between(start_ns, stop_ns)
        wanted = (row for row in rows if row[1] in chosen and start_ns <= row[2] < stop_ns)
        for rowid, topic, time_ns in self._in_order(wanted):
            data = self._data(rowid)
            if data is not None:
                yield topic, time_ns, data

    def _in_order(self, rows: Iterator[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
        """Sort rows by time with a heap that covers the largest disorder in the file."""
        waiting: list[tuple[int, int, int]] = []
        newest_ns = 0
        for rowid, topic, time_ns in rows:
            heapq.heappush(waiting, (time_ns, rowid, topic))
            newest_ns = max(newest_ns, time_ns)
            while waiting and (waiting[0][0] <= newest_ns - self._disorder_ns
                               or len(waiting) > _MAX_WAITING):
                time_ns, rowid, topic = heapq.heappop(waiting)
                yield rowid, topic, time_ns
        while waiting:
            time_ns, rowid, topic = heapq.heappop(waiting)
            yield rowid, topic, time_ns

    def _data(self, rowid: int) -> bytes | None:
        """Return the message of a row; None, and count it, if its pages are damaged."""
        row = None
        try:
            row = self._query(
                'SELECT data FROM messages WHERE rowid = ? AND length(data) <= ?',
                rowid, MAX_MESSAGE).fetchone()
        except sqlite3.Error as error:
            if rowid not in self._damaged:
                self._note_damage(error)
        if row is not None and isinstance(row[0], bytes):
            return row[0]
        if rowid not in self._damaged:
            self._damaged.add(rowid)
            self.missing[_IN_PAGES] += 1
        return None

    def _query(self, sql: str, *values: int) -> sqlite3.Cursor:
        self._deadline = time.monotonic() + _TIMEOUT_S
        return self._bag.execute(sql, values)

    def _note_damage(self, error: sqlite3.Error) -> None:
        if len(self.damage) < 3:
            self.damage.append(str(error))

    def _check_tables(self) -> None:
        # Also reads files that are shorter than their header states.
        self._bag.execute('PRAGMA writable_schema=ON')
        self._bag.execute('PRAGMA trusted_schema=OFF')
        for name, columns in {**_TABLES, **_OPTIONAL}.items():
            objects = self._query(
                f"SELECT type, rootpage FROM sqlite_master WHERE name = '{name}'").fetchall()
            if not objects and name in _OPTIONAL:
                continue
            if [object_type for object_type, page in objects if page] != ['table']:
                actual = f'a {objects[0][0]}' if objects else 'missing'
                raise ValueError(
                    f'its table {name} is {actual}; expected a table, as rosbag2 writes it')
            hidden = {row[1]: row[6] for row in self._query(f'PRAGMA table_xinfo({name})')}
            self._columns |= {f'{name}.{column}' for column in hidden if not hidden[column]}
            unfit = sorted(column for column in columns if hidden.get(column, 1))
            if unfit or {'rowid', '_rowid_', 'oid'} & set(hidden):
                raise ValueError(f'its table {name} has {", ".join(unfit) or "rowid"} missing or '
                                 'computed; expected columns as rosbag2 writes them')

    def _read_topics(self) -> None:
        definitions = {}
        if 'message_definitions.encoding' in self._columns:
            for type_name, form, text in self._query(
                    'SELECT topic_type, encoding, encoded_message_definition '
                    'FROM message_definitions LIMIT ?', _MAX_TOPICS):
                if form in _FORMATS and isinstance(text, str) and len(text) <= _MAX_TEXT:
                    definitions[type_name] = MessageDefinition(_FORMATS[form], text)
        qos = 'offered_qos_profiles' if 'topics.offered_qos_profiles' in self._columns else "''"
        for number, *texts, offered in self._query(
                f'SELECT id, name, type, serialization_format, {qos} FROM topics LIMIT ?',
                _MAX_TOPICS):
            if not isinstance(number, int) or not all(
                    isinstance(text, str) and len(text) <= MAX_NAME for text in texts):
                self.missing['unreadable definitions'] += 1
                continue
            name, type_name, encoding = texts
            offered = offered if isinstance(offered, str) and len(offered) <= _MAX_TEXT else ''
            self.topics[number] = Topic(
                name, type_name, encoding, definitions.get(type_name), qos=offered)

    def _count(self) -> None:
        newest_ns = 0
        for _, topic, time_ns in self._rows(note=True):
            self.topics[topic].count += 1
            self.start_ns, self.end_ns = min(self.start_ns, time_ns), max(self.end_ns, time_ns)
            self._disorder_ns = max(self._disorder_ns, newest_ns - time_ns)
            newest_ns = max(newest_ns, time_ns)

    def _between(self, start_ns: int, stop_ns: int) -> Iterator[tuple[int, int, int]]:
        """
        Yield the rows between two times, by the index of the table if it has one.

        Where that is damaged, the rows that it does not reach follow.
        """
        reached = set()
        try:
            for row in self._query(
                    f'SELECT {_ROW} FROM messages WHERE timestamp >= ? AND timestamp < ?',
                    start_ns, stop_ns):
                reached.add(row[0])
                if not self._problem(*row):
                    yield row[:3]
        except sqlite3.Error as error:
            self._note_damage(error)
            yield from (row for row in self._rows()
                        if row[0] not in reached and start_ns <= row[2] < stop_ns)

    def _problem(
        self, rowid: int, topic: Any, time_ns: Any, data_type: str, length: int
    ) -> str:
        """Return why a row is not a message; '' if it is."""
        if topic not in self.topics:
            return 'messages of topics that the file does not define'
        if not isinstance(time_ns, int) or data_type != 'blob':
            return _NO_MESSAGE
        if not 0 <= time_ns < LATEST_NS:
            return 'messages with a time before 1970 or after the year 2262'
        return too_large('messages') if length > MAX_MESSAGE else ''

    def _rows(self, note: bool = False) -> Iterator[tuple[int, int, int]]:
        """
        Yield rowid, topic and time of every row that can be read.

        Behind a damaged page, continue at the next readable row.

        :param note: count the rows that cannot be read.
        """
        good, last, step, limit, failures = 0, _LOWEST, 1, '', 0
        while step < _MAX_STEP and failures < _MAX_FAILURES:
            any_row = False
            try:
                for rowid, *rest in self._query(
                        f'SELECT {_ROW} FROM messages WHERE rowid > ? ORDER BY rowid{limit}',
                        last):
                    self._deadline = time.monotonic() + _TIMEOUT_S
                    if rowid <= last:  # a damaged tree leads back
                        raise sqlite3.DatabaseError(f'row {rowid} comes after {last}')
                    if step > 1:
                        self._note_gap(good, rowid)
                    good = last = rowid
                    any_row, step = True, 1
                    problem = self._problem(rowid, *rest)
                    if not problem:
                        yield rowid, rest[0], rest[1]
                    elif note:
                        self.missing[problem] += 1
                if not limit or not any_row:
                    if note and step > 1:  # the last rows
                        self.missing[_IN_PAGES] += 1
                    return
                limit = ''
            except sqlite3.Error as error:
                failures += 1
                self._note_damage(error)
                # sqlite fetches a row ahead: the next one alone may be intact.
                if limit:
                    last, step = max(last, 0) + step, 2 * step
                limit = ' LIMIT 1'
        if note:  # at least one row; the number is unknown
            self.missing[_IN_PAGES] += 1

    def _note_gap(self, last: int, rowid: int) -> None:
        """Count the unreadable rows between two readable ones, once."""
        if last not in self._gaps:
            self._gaps.add(last)
            self.missing[_IN_PAGES] += max(0, min(rowid - last - 1, self._max_rows))


def _connect(path: Path) -> sqlite3.Connection:
    bag = sqlite3.connect(f'file:{quote(os.fsencode(path))}?mode=ro&immutable=1', uri=True,
                          check_same_thread=False)
    bag.text_factory = lambda text: text.decode(errors='replace')
    if hasattr(bag, 'setlimit'):  # Python 3.11
        bag.setlimit(_LIMIT_LENGTH, MAX_MESSAGE)
        bag.setlimit(_LIMIT_SQL_LENGTH, _MAX_TEXT)
    return bag
