"""Errors with the values that their texts are made of, and printable texts from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import errno
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
import re
from typing import Any, TypeVar
from unicodedata import category

_Error = TypeVar('_Error', bound='KarmmaError')

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What an OSError's `errno` is when the disk is full, or the quota of the user is."""
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
"""What it is for a file in place of a folder or the reverse, or without the permission."""
VALUE_LENGTH, SENTENCE_LENGTH = 200, 4000
"""Most characters of a value from outside, and of a whole error text or log line."""
_UNPRINTABLE = frozenset({'Cc', 'Cf', 'Cs', 'Co', 'Cn', 'Zl', 'Zp'})
"""Unicode categories: control, format (bidi among them), surrogate, private, none, separators."""
_JOINERS = '\u200c\u200d'
_UNPICKLED = re.compile(r'GLOBAL (\w+(?:\.\w+)+)')
"""What PyTorch calls the class or function that it does not unpickle."""


def count_text(count: int, noun: str, verb: str = '') -> str:
    """Return a number with its noun and a verb in the plural, such as `1 file is`."""
    words = [f'{count:,}', noun if count == 1 else f'{noun}s']
    if verb:
        singular = {'are': 'is', 'have': 'has'}.get(verb, f'{verb}s')
        words.append(singular if count == 1 else verb)
    return ' '.join(words)


def printable(value: object, limit: int = VALUE_LENGTH) -> str:
    r"""
    Return a text from outside as one line that is safe in a log, a report and a terminal.

    Control, format, bidi and surrogate characters and line separators become escapes such as
    `\x1b`. A longer text is cut to `limit` characters, which end with the count of those left
    out. Applied twice it changes nothing more.
    """
    text = value if isinstance(value, str) else str(value)
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    shown, pieces = 0, []
    for piece in _escaped(text[:limit + 1]):
        shown += len(piece)
        pieces.append(piece)
    if len(text) <= limit and shown <= limit:
        return ''.join(pieces)
    available = limit - len(_left_out(len(text)))
    while pieces and shown > available:
        shown -= len(pieces.pop())
    return (''.join(pieces) + _left_out(len(text) - len(pieces)))[:limit]


def is_printable(text: str) -> bool:
    """
    Whether a text that is passed on to others holds nothing that `printable` would escape.

    The two joiners (ZWNJ, ZWJ) count as printable: names in Persian or Hindi need them.
    """
    return all(character.isprintable() or character in _JOINERS
               or category(character) not in _UNPRINTABLE for character in text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without PyTorch's advice to run a file's code."""
    if isinstance(error, UnpicklingError):
        named = _UNPICKLED.search(str(error))
        return 'it contains something else than tensors and plain values' + (
            f', {named[1]}, which is not read: that would run code' if named else
            ', or is damaged')
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _escaped(text: str) -> Iterator[str]:
    """Yield each character, or its escape."""
    for character in text:
        plain = character.isascii() and character.isprintable()
        yield character if plain or category(character) not in _UNPRINTABLE else (
            character.encode('unicode_escape', 'surrogatepass').decode('ascii'))


def _left_out(count: int) -> str:
    return f'… ({count} characters left out)'


class KarmmaError(Exception):
    """
    Everything this package raises on purpose; its text is one printable line.

    It is pickled as the arguments of its class, from which that builds the text again.
    """

    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls: type[_Error], *arguments: object, **named: object) -> _Error:
        error = super().__new__(cls, *arguments)
        error._given = arguments, named
        return error

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        arguments, named = self._given
        return partial(type(self), **named) if named else type(self), arguments

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(printable(each, SENTENCE_LENGTH) if isinstance(each, str) else each
                           for each in arguments))


class FileError(KarmmaError):
    """A file or folder cannot be used."""

    what = 'file'
    """How the text begins; a subclass has its own."""

    def __init__(self, path: Path | str, problem: str, remedy: str) -> None:
        self.path, self.problem, self.remedy = Path(path), problem, remedy
        super().__init__(f'{self.what} {printable(path, 1000)}: {printable(problem, 1500)}: '
                         f'{printable(remedy, 1200)}')


class InvalidSettingError(KarmmaError, ValueError):
    """
    A parameter, option or configuration field holds a value it may not.

    >>> from karmma_ros.errors import InvalidSettingError
    >>> print(InvalidSettingError('rate', 0, 'a number from 0.1 to 60'))
    rate is 0; expected a number from 0.1 to 60
    """

    def __init__(self, name: str, got: object, allowed: str, remedy: str = '') -> None:
        self.name, self.got, self.allowed, self.remedy = name, got, allowed, remedy
        sentence = (f'{printable(name)} is {printable(repr(got))}; expected '
                    f'{printable(allowed, 2000)}')
        super().__init__(f'{sentence}: {printable(remedy, 1500)}' if remedy else sentence)


class InvalidSampleError(KarmmaError, ValueError):
    """One sensor message cannot be used; the caller drops and counts it."""


class UninformativeSampleError(InvalidSampleError):
    """One sensor message can be read and shows nothing; it is dropped and counted too."""


class BundleError(FileError):
    """A model directory is missing, damaged or of another kind than expected."""

    what = 'model'


class DataError(FileError):
    """A file or folder of a data set is missing, damaged or holds invalid values."""

    what = 'data'


class BagError(FileError):
    """A bag, or what is wanted of it, cannot be read."""

    what = 'bag'
