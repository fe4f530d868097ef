"""
What the parts of a split bag have in common.

`ros2 bag record` writes latched messages once. When it splits a bag, what the audio driver states
of its format is in the first part only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any

from karmma_ros.bags.metadata import PACKED, storage_suffix
from karmma_ros.bags.reader import Bag
from karmma_ros.errors import KarmmaError
from karmma_ros.stream import message_types as types

_PART = re.compile(r'(.+)_(\d+)')


@dataclass(frozen=True)
class EarlierInfo:
    """What an earlier part of a split bag states of the audio format."""

    message: Any
    """audio_common_msgs/AudioInfo."""
    path: Path
    """Of the part."""

    @property
    def fields(self) -> list[Any]:
        """Return what is stated, JSON-ready."""
        message = self.message
        return [int(message.sample_rate), int(message.channels), str(message.sample_format),
                str(message.coding_format)]


def earlier_parts(path: Path, given: Iterable[Path]) -> list[Path]:
    """Return which of the given files are earlier parts of the same bag, the latest first."""
    own = _part(path)
    if own is None:
        return []
    parts = {each: part for each in given if (part := _part(each)) is not None}
    return sorted((each for each, part in parts.items() if part[0] == own[0] and part[1] < own[1]),
                  key=lambda each: -parts[each][1])


def find_earlier_info(path: Path, given: Iterable[Path]) -> EarlierInfo | None:
    """Return the audio format that the latest earlier part states; None where none does."""
    for part in earlier_parts(path, given):
        try:
            message = _last_info(part)
        except (KarmmaError, ValueError, OSError):  # it is named where it is evaluated itself
            continue
        if message is not None:
            return EarlierInfo(message, part)
    return None


def _part(path: Path) -> tuple[tuple[Path, str], int] | None:
    """Return bag and number of a file of a split bag, as `kitchen_1.mcap`."""
    suffix = storage_suffix(path)
    if not suffix:
        return None
    name = path.with_suffix('').stem if path.suffix in PACKED else path.stem
    match = _PART.fullmatch(name)
    return None if match is None else ((path.resolve().parent, match[1] + suffix), int(match[2]))


def _last_info(path: Path) -> Any:
    message = None
    with Bag(path) as bag:
        topics = [t for t in bag.topics.values() if t.type == types.AUDIO_INFO and t.count]
        for each in bag.messages(topics) if topics else ():
            message = bag.reader(each.topic)(each.data)
    return message
