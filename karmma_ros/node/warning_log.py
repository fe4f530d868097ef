"""Log what the content checks find, once when it appears and once when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from karmma_ros.modality import Modality
from karmma_ros.stream.availability import ModalityStatus


class WarningLog:
    """Compare the warnings of all modalities with those before, and log each change."""

    def __init__(self, warn: Callable[[str], object], inform: Callable[[str], object]) -> None:
        """Take the logger's functions for a warning and for an information."""
        self._warn, self._inform = warn, inform
        self._warnings: dict[Modality, str] = {}

    def update(self, statuses: Iterable[ModalityStatus]) -> None:
        """Log each warning that has appeared, changed or ended since the last call."""
        for status in statuses:
            before = self._warnings.get(status.modality, '')
            if status.warning == before:
                continue
            self._warnings[status.modality] = status.warning
            if status.warning:
                self._warn(f'{status.modality}: {status.warning}')
            else:
                self._inform(f'{status.modality}: this warning has ended: {before}')
