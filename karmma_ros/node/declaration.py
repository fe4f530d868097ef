"""One parameter of a node: its kind, range and meaning, and how a value is held against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from karmma_ros.errors import InvalidSettingError, is_printable
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor


@dataclass(frozen=True)
class Declaration:
    """One parameter; a change takes effect at the next result, unless `fixed` says otherwise."""

    name: str
    default: Any
    """Its type is the parameter's type."""
    description: str
    range: tuple[float, float] | None = None
    """Lowest and highest value, both allowed."""
    choices: tuple[str, ...] = ()
    length: int = 0
    """Most characters of a text, where they are fewer than of any text."""
    fixed: bool = False
    """Read by `configure`: from there to cleanup it may not change."""

    @property
    def allowed(self) -> str:
        """Say what the value may be."""
        if self.choices:
            return ' or '.join(self.choices)
        kind = _KINDS[type(self.default)]
        if self.length:
            return f'{kind} of at most {self.length} characters'
        return f'{kind} from {self.range[0]} to {self.range[1]}' if self.range else kind

    def check(self, value: Any) -> Any:
        """
        Give the value in the declared type; a whole number serves for a double.

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
        Bound what is copied into messages and logs, and how long it takes to compare.

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

    def descriptor(self) -> ParameterDescriptor:
        """Give what `ros2 param describe` shows."""
        when = ' Read by configure.' if self.fixed else ''
        descriptor = ParameterDescriptor(
            name=self.name, description=self.description + when,
            additional_constraints=self.allowed)
        if self.range and isinstance(self.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=self.range[0], to_value=self.range[1])]
        elif self.range:
            descriptor.integer_range = [
                IntegerRange(from_value=int(self.range[0]), to_value=int(self.range[1]))]
        return descriptor

    def _remedy(self) -> str:
        return f'write it as in `{self.name}: {_yaml(self.default)}`'


_MAX_TEXTS, _MAX_LENGTH = 1000, 4096
"""Entries of a list, and characters of a text: as many as of a path."""
_KINDS = {
    bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text',
    list: 'a list of texts',
}


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
