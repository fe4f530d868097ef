"""The declaration of a parameter: its default, its range and its description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from karmma_ros.errors import InvalidSettingError, is_printable


@dataclass(frozen=True)
class Declaration:
    """One parameter; a change takes effect at the next result, unless it is `fixed`."""

    name: str
    default: Any
    """Its type is the type of the parameter."""
    description: str
    range: tuple[float, float] | None = None
    """Lowest and highest value, both allowed."""
    choices: tuple[str, ...] = ()
    length: int = 0
    """Most characters of a text; 0 for the limit of all texts."""
    fixed: bool = False
    """Read once, at start or by configure: it may not change until cleanup."""
    read_only: bool = False
    """Only the start of the node sets it: no request changes it, in any state."""

    @property
    def text(self) -> str:
        """Return the description, with when the value may change."""
        if self.read_only:
            return f'{self.description} Read-only: set at start, by no request.'
        return self.description + (
            ' Read once, at start or by configure.' if self.fixed else '')

    @property
    def allowed(self) -> str:
        """Return which values are allowed."""
        if self.choices:
            return ' or '.join(self.choices)
        name = _TYPE_NAMES[type(self.default)]
        if self.length:
            return f'{name} of at most {self.length} characters'
        return f'{name} from {self.range[0]} to {self.range[1]}' if self.range else name

    def check(self, value: Any) -> Any:
        """
        Return the value in the declared type; an integer is valid for a double.

        :raises InvalidSettingError: when the value is of another type or out of range.
        """
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if isinstance(self.default, list) and value is not None:
            value = list(value)
        if type(value) is not type(self.default):
            raise InvalidSettingError(self.name, value, self.allowed, self._remedy())
        if self.range and not self.range[0] <= value <= self.range[1]:
            raise InvalidSettingError(self.name, value, self.allowed)
        if self.choices and value not in self.choices:
            raise InvalidSettingError(self.name, value, self.allowed)
        self._check_texts(value)
        return value

    def _check_texts(self, value: Any) -> None:
        """
        Limit what is copied into messages and logs, and the time to compare it.

        :raises InvalidSettingError: for a list or a text that is too long, or not printable.
        """
        texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        if len(texts) > _MAX_TEXTS:
            raise InvalidSettingError(
                self.name, value, f'a list of at most {_MAX_TEXTS} texts; it has {len(texts)}')
        most = self.length or _MAX_LENGTH
        for text in texts:
            if not isinstance(text, str):
                raise InvalidSettingError(self.name, value, self.allowed, self._remedy())
            if len(text) > most:
                raise InvalidSettingError(
                    self.name, text, f'text of at most {most} characters; it has {len(text)}')
            if not is_printable(text):
                raise InvalidSettingError(
                    self.name, text, 'printable text',
                    'leave control, format and surrogate characters out')

    def _remedy(self) -> str:
        return f'write it as in `{self.name}: {_yaml(self.default)}`'


_MAX_TEXTS, _MAX_LENGTH = 1000, 4096
"""Entries of a list, and characters of a text: as many as of a path."""
_TYPE_NAMES = {
    bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text',
    list: 'a list of texts',
}


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
