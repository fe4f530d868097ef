"""Where a command writes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from karmma_ros.errors import InvalidSettingError


@contextmanager
def writing(setting: str, path: Path) -> Iterator[None]:
    """
    Tell which setting is wrong when a path cannot be written to.

    :raises InvalidSettingError: then.
    """
    try:
        yield
    except OSError as error:
        raise InvalidSettingError(setting, str(path), 'a path that can be written to',
                                  error.strerror or str(error)) from None
