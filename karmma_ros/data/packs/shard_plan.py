"""Which windows of which segments each shard of a data pack has: a plan without reading any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from karmma_ros.data.packs.pack_format import SPLITS
from karmma_ros.data.samples import Clips, Splits
from karmma_ros.data.segments import SegmentDataset


@dataclass(frozen=True)
class Shard:
    """Consecutive segments of a split."""

    number: int
    split: str
    segments: range


def distinct_clips(splits: Splits) -> dict[str, Clips | str]:
    """Return split → its clips, or the name of an earlier split with the same."""
    named: dict[str, Clips | str] = {}
    for name in SPLITS:
        clips: Clips = getattr(splits, name)
        named[name] = next((other for other, each in named.items() if each is clips), clips)
    return named


def plan_shards(clips: Mapping[str, Clips], windows: int, rows: int) -> Iterator[Shard]:
    """Divide each split into shards of complete segments with at most so many rows."""
    number = 0
    for split, each in clips.items():
        first, used = 0, 0
        for index in range(len(each)):
            needed = len(set(window_starts(each, index, windows if split == SPLITS[0] else 0)))
            if used and used + needed > rows:
                yield Shard(number, split, range(first, index))
                number, first, used = number + 1, index, 0
            used += needed
        yield Shard(number, split, range(first, len(each)))
        number += 1


def window_starts(clips: Clips, index: int, windows: int) -> list[Any]:
    """
    Return what each window of a segment is known by: those of the epochs, then the scored one.

    Of recordings it is the second at which it begins; of others the epoch, None for the last.
    """
    if isinstance(clips, SegmentDataset):
        return [clips.start_of(index, epoch) for epoch in (*range(windows), None)]
    own = getattr(clips, 'windows_of', lambda index: 1)(index) if windows else 0
    return [*range(own), None]
