"""Proposals that a person has rejected, kept so that they are not shown again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import json
from pathlib import Path
from threading import Lock
from typing import Any

from karmma_ros.errors import InvalidSettingError
from karmma_ros.storage import file_lock, write_atomically

_MOST = 100_000
_SHARED = 0.5
"""Intersection over union of the times from which a proposal is a rejected one again."""


@dataclass(frozen=True)
class Rejection:
    """What was rejected: an action from start to stop, seconds."""

    start_s: float
    stop_s: float
    classes: Mapping[str, str]

    @classmethod
    def parse(cls, given: Any) -> Rejection:
        """
        Read it from JSON.

        :raises InvalidSettingError: when it is none.
        """
        try:
            return cls(float(given['start']), float(given['stop']),
                       {str(head): str(name) for head, name in given['classes'].items()})
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InvalidSettingError('proposal', json.dumps(given)[:200],
                                      'an object with start, stop and classes') from None

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {'start': self.start_s, 'stop': self.stop_s, 'classes': dict(self.classes)}

    def covers(self, given: Mapping[str, Any]) -> bool:
        """Return whether a proposal is of the same classes at nearly the same time."""
        shared = min(self.stop_s, given['stop']) - max(self.start_s, given['start'])
        union = max(self.stop_s, given['stop']) - min(self.start_s, given['start'])
        return dict(given['classes']) == dict(self.classes) and shared > _SHARED * union


class Rejections:
    """
    The rejected proposals of all recordings of a label file.

    :param path: file that keeps them; None keeps them until the command ends.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._lock = path, Lock()
        self._own = self._read()

    def add(self, recording: str, rejection: Rejection) -> None:
        """Keep a rejection."""
        with self._lock:
            if self._path is None:
                self._own.setdefault(recording, []).append(rejection)
                return
            with file_lock(self._path):
                self._own = self._read()  # another page may have added some
                self._own.setdefault(recording, []).append(rejection)
                if sum(map(len, self._own.values())) <= _MOST:
                    write_atomically(self._path, json.dumps({
                        name: [each.to_dict() for each in own]
                        for name, own in self._own.items()}))

    def left(self, recording: str, proposals: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the proposals, JSON-ready, that were not rejected."""
        with self._lock:
            own = list(self._own.get(recording, ()))
        return [each for each in proposals if not any(r.covers(each) for r in own)]

    def _read(self) -> dict[str, list[Rejection]]:
        """Return what the file has; nothing where it is missing or damaged."""
        try:
            text = '' if self._path is None else self._path.read_text(encoding='utf-8')
            return {str(name): [Rejection.parse(each) for each in own]
                    for name, own in json.loads(text or '{}').items()}
        except (OSError, ValueError, AttributeError, TypeError, InvalidSettingError):
            return {}
