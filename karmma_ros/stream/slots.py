"""One sample for each slot of a fixed grid in time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Generic, TypeVar

Sample = TypeVar('Sample')

_SPARE_SLOTS = 2


class Slots(Generic[Sample]):
    """
    Keep the first sample of each slot, as far back as a window reaches.

    Slot k holds stamps k × period up to (k + 1) × period, with the period at which a clip
    samples its frames. Windows that overlap so share their samples: what is done with
    each is done once.
    """

    def __init__(self, count: int, period_ns: int) -> None:
        """Take the number of slots in a window and their length."""
        self._count, self._period_ns = count, period_ns
        self._samples: dict[int, Sample] = {}
        self._newest: int | None = None

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples.values())

    @property
    def newest(self) -> Sample | None:
        """Give the sample of the newest slot that has one."""
        return None if self._newest is None else self._samples[self._newest]

    def wants(self, stamp_ns: int) -> bool:
        """Tell whether a sample with this stamp would be kept."""
        slot = stamp_ns // self._period_ns
        return slot not in self._samples and (
            self._newest is None or slot > self._newest - self._capacity)

    def put(self, stamp_ns: int, sample: Sample) -> None:
        """Keep a sample that is wanted; what no window can reach any more is forgotten."""
        slot = stamp_ns // self._period_ns
        self._samples[slot] = sample
        if self._newest is None or slot > self._newest:
            self._newest = slot
            for old in [k for k in self._samples if k <= slot - self._capacity]:
                del self._samples[old]

    def select(self, end_ns: int) -> tuple[Sample, ...]:
        """
        Give the samples of the window that ends at `end_ns`, oldest first; () when empty.

        A slot without a sample shows the nearest earlier one, else the nearest later one.
        """
        slots = sorted(self._samples)
        if not slots:
            return ()
        places = (bisect_left(slots, slot + 1) - 1 for slot in self._window(end_ns))
        return tuple(self._samples[slots[max(0, place)]] for place in places)

    def own(self, end_ns: int) -> int:
        """Count the slots of the window that have a sample of their own."""
        return sum(slot in self._samples for slot in self._window(end_ns))

    def clear(self) -> None:
        """Forget all samples."""
        self._samples.clear()
        self._newest = None

    @property
    def _capacity(self) -> int:
        return self._count + _SPARE_SLOTS

    def _window(self, end_ns: int) -> range:
        last = end_ns // self._period_ns
        return range(last - self._count + 1, last + 1)
