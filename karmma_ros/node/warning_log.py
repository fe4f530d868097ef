"""Log what the content checks find, once when it appears and once when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from karmma_ros.modality import Modality
from karmma_ros.stream.availability import ModalityStatus

Write = Callable[[str, str], bool]
"""Takes a line and its topic; False when the topic is throttled."""


class WarningLog:
    """
    Compare the warnings of all modalities with those that were logged, and log each change.

    A change that is throttled is logged later, unless it has been undone by then.
    """

    def __init__(self, warn: Write, inform: Write) -> None:
        """Take the log's functions for a warning and for an information."""
        self._warn, self._inform = warn, inform
        self._logged: dict[Modality, str] = {}

    def update(self, statuses: Iterable[ModalityStatus]) -> None:
        """Log each warning that has appeared, changed or ended since it was last logged."""
        for status in statuses:
            if status.warning != self._logged.get(status.modality, '') and self._write(status):
                self._logged[status.modality] = status.warning

    def _write(self, status: ModalityStatus) -> bool:
        topic = f'{status.modality} content'
        if status.warning:
            return self._warn(status.warning_line, topic)
        before = self._logged[status.modality]
        return self._inform(f'{status.modality}: this warning has ended: {before}', topic)
