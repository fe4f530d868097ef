"""The members of a JSON object one by one: a file of gigabytes in the memory of one member."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import json
from pathlib import Path
import re
from typing import Any, NoReturn, TextIO

from karmma_ros.errors_data import DataError

CHUNK = 1 << 22
"""Characters read at a time."""

_SPACE = re.compile(r'[ \t\r\n]*')
_AFTER = tuple(' \t\r\n,:}')
"""What may follow a key or a value."""

_LONGEST_TOKEN = 1 << 16
"""Characters: where a token longer than this would be cut off, the text is simply wrong."""


def json_members(
    path: Path, progress: Callable[[int], None] = lambda characters: None,
) -> Iterator[tuple[str, Any]]:
    """
    Give the key and value of every member of the JSON object in a file, in its order.

    :param progress: called with the number of characters each time some were read.
    :raises DataError: when the file is missing, or is no JSON object to its end.
    """
    try:
        with path.open(encoding='utf-8') as file:
            yield from _Text(path, file, progress).members()
    except OSError as error:
        raise DataError(path, error.strerror or str(error), 'check the path') from error
    except UnicodeDecodeError as error:
        raise DataError(path, f'it is no text ({error.reason})', _REMEDY) from error


_REMEDY = 'download or write it again'


class _Text:
    """What is read but not yet understood, and where in the file it lies."""

    def __init__(self, path: Path, file: TextIO, progress: Callable[[int], None]) -> None:
        self.path, self.file, self.progress = path, file, progress
        self.text, self.at, self.dropped, self.ended = '', 0, 0, False
        self.decoder = json.JSONDecoder()

    def members(self) -> Iterator[tuple[str, Any]]:
        self._expect('{')
        if self._peek() == '}':
            self.at += 1
            return self._check_end()
        while True:
            if self._peek() != '"':
                self._complain('a member with a "name" was expected')
            key = self._value()
            self._expect(':')
            value = self._value()
            yield key, value
            if self._peek() != ',':
                break
            self.at += 1
        self._expect('}')
        return self._check_end()

    def _check_end(self) -> None:
        if self._peek():
            self._complain('something follows the end of its object')

    def _peek(self) -> str:
        """Pass over white space and give the next character; at the end of the file none."""
        while True:
            found = _SPACE.match(self.text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._read():
                return ''

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            self._complain(f'{character!r} was expected')
        self.at += 1

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if error.pos + _LONGEST_TOKEN < len(self.text) or not self._read():
                    self._complain(error.msg, error.pos)
                continue
            # A number near the end of what was read may go on behind it: `0.` of 0.5.
            if self.text[end:end + 1] in _AFTER or not self._read():
                self.at = end
                return value

    def _read(self) -> bool:
        """Read on; what is understood is forgotten."""
        piece = '' if self.ended else self.file.read(CHUNK)
        if not piece:
            self.ended = True
            return False
        self.text, self.dropped, self.at = self.text[self.at:] + piece, self.dropped + self.at, 0
        self.progress(len(piece))
        return True

    def _complain(self, what: str, at: int | None = None) -> NoReturn:
        at = self.at if at is None else at
        where = f'character {self.dropped + at}' if at < len(self.text) else 'its end: cut off?'
        raise DataError(self.path, f'it is no JSON object: {what}, at {where}', _REMEDY)
