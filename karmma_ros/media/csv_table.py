"""
Tables in CSV files, in the dialects that spreadsheets of different countries write.

Commas, semicolons or tabs separate the columns; a byte-order mark, a line `sep=;` and the unnamed
index column of pandas and R are skipped.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
import csv
from decimal import Decimal, InvalidOperation
import io
from itertools import chain
from pathlib import Path
import re
from typing import NamedTuple

from karmma_ros.errors import DataError
from karmma_ros.files import open_data_file

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SEPARATOR_LINE = re.compile(r'sep=([,;\t])\r?\n?', re.IGNORECASE)
_TIMECODE = re.compile(r'(?:(\d+):)?(\d+):(\d+(?:\.\d*)?)', re.ASCII)
_INDEX = re.compile(r'(Unnamed: 0)?', re.IGNORECASE)
_MAX_BYTES = 1 << 30


class CsvTable(NamedTuple):
    """Header and rows of a file, with stripped cells."""

    header: list[str]
    """Names of the columns; empty for a file without any line."""
    rows: list[tuple[int, list[str]]]
    """Line in the file, counted from 1, and cells; empty rows are skipped."""


def read_csv(path: Path) -> CsvTable:
    """
    Read a table.

    :raises DataError: when it cannot be read, is not in UTF-8 (or UTF-16) or is no CSV.
    """
    rows = list(csv_rows(path))
    return _without_unnamed(CsvTable(rows[0][1], rows[1:]) if rows else CsvTable([], []))


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """
    Yield the line and the stripped cells of each row that is not empty; the first is the header.

    :raises DataError: as `read_csv`.
    """
    with _open_text(path) as text:
        yield from _rows(path, text)


@contextmanager
def _open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a file in the encoding that it begins with; raise as `read_csv`."""
    try:
        with open_data_file(path, _MAX_BYTES) as file:
            data = io.BufferedReader(file)  # type: ignore[type-var]
            encoding = 'utf-16' if data.peek(2).startswith(_UTF_16) else 'utf-8-sig'
            yield io.TextIOWrapper(data, encoding, newline='')
    except FileNotFoundError as error:
        raise DataError(path, 'No such file or directory', 'check the path') from error
    except UnicodeDecodeError as error:
        raise DataError(path, f'it is no CSV file in UTF-8 ({error})',
                        'save it as CSV in UTF-8') from error
    except OSError as error:
        raise DataError(path, f'it cannot be read ({error.strerror})', 'check the disk') from error


def csv_separator(path: Path) -> str:
    """
    Return what separates the columns of a file.

    :raises DataError: when it cannot be read.
    """
    with _open_text(path) as text:
        return _separator(next(text, ''))


def _separator(line: str) -> str:
    """Return what separates the columns of a table that begins with this line."""
    stated = _SEPARATOR_LINE.fullmatch(line)
    return stated[1] if stated else max(',;\t', key=line.count)


def _rows(path: Path, text: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    lines = (line.replace('\0', '') for line in text)
    first = next(lines, '')
    stated = _SEPARATOR_LINE.fullmatch(first)
    skipped = int(stated is not None)
    reader = csv.reader(lines if stated else chain([first], lines), delimiter=_separator(first),
                        skipinitialspace=True, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield skipped + reader.line_num, cells
    except csv.Error as error:
        raise DataError(path, f'it is no CSV file (line {skipped + reader.line_num}: {error})',
                        'save it as CSV in UTF-8') from error


def _without_unnamed(table: CsvTable) -> CsvTable:
    """Remove an unnamed first column, and unnamed last columns without any content."""
    header, rows = table
    begin = int(len(header) > 1 and _INDEX.fullmatch(header[0]) is not None)
    end = len(header)
    while end > begin and not header[end - 1] and not any(
            row[end - 1] for _, row in rows if len(row) >= end):
        end -= 1
    removed = len(header) - end
    return CsvTable(header[begin:end], [
        (number, row[begin:end] + row[end + removed:]) for number, row in rows])


def parse_time(text: str) -> Decimal:
    """
    Parse seconds or a timecode: `75.5`, `1:15.5` or `0:01:15.5`, also with a decimal comma.

    :raises ValueError: for any other text.
    """
    text = text.strip().replace(',', '.')
    match = _TIMECODE.fullmatch(text)
    hours, minutes, seconds = match.groups('0') if match else ('0', '0', text)
    try:
        value = int(hours) * 3600 + int(minutes) * 60 + Decimal(seconds)
    except InvalidOperation:
        value = Decimal('nan')
    if not value.is_finite():
        raise ValueError(f'a time is {text[:40]!r}; expected seconds or a timecode, as 75.5 or '
                         '0:01:15.5')
    return value
