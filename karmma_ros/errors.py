"""Errors that carry facts and build their own sentence."""

from __future__ import annotations

import errno
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What an OSError's `errno` is when there is no room, or none for this user."""


class KarmmaError(Exception):
    """Everything this package raises on purpose."""


class InvalidSettingError(KarmmaError, ValueError):
    """A parameter, option or configuration field holds a value it may not."""

    def __init__(self, name: str, got: object, allowed: str, remedy: str = '') -> None:
        self.name, self.got, self.allowed, self.remedy = name, got, allowed, remedy
        sentence = f'{name} is {got!r}; it may be {allowed}'
        super().__init__(f'{sentence}: {remedy}' if remedy else sentence)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.name, self.got, self.allowed, self.remedy)


class InvalidSampleError(KarmmaError, ValueError):
    """One sensor message cannot be used; the caller drops it, counts it and goes on."""


class BundleError(KarmmaError):
    """A model directory is missing, damaged or of another kind than expected."""

    def __init__(self, path: Path | str, problem: str, remedy: str) -> None:
        self.path, self.problem, self.remedy = Path(path), problem, remedy
        super().__init__(f'model {path}: {problem}: {remedy}')

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.path, self.problem, self.remedy)
