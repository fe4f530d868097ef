"""One picture for each slot of a fixed grid in time."""

from __future__ import annotations

from bisect import bisect_left
from typing import Generic, Protocol, TypeVar

from karmma_ros.clip import ClipSpec
import numpy as np
from numpy.typing import NDArray

_SPARE_SLOTS = 2


class Stamped(Protocol):
    """A picture and its time; it is never written to."""

    @property
    def stamp_ns(self) -> int:
        """Give its time, nanoseconds."""
        ...

    @property
    def image(self) -> NDArray[np.uint8]:
        """Give the picture."""
        ...


Picture = TypeVar('Picture', bound=Stamped)


class Slots(Generic[Picture]):
    """
    Keep the first picture of each slot, as far back as a window reaches.

    Slot k holds stamps k × period up to (k + 1) × period, with the period at which a clip
    samples its t frames. Windows that overlap so share their pictures: what is done with
    each is done once.
    """

    def __init__(self, spec: ClipSpec) -> None:
        """Start empty."""
        self._count, self._period_ns = spec.num_frames, spec.frame_period_ns
        self._size = spec.video.height, spec.video.width
        self._pictures: dict[int, Picture] = {}
        self._newest: int | None = None

    @property
    def newest_ns(self) -> int | None:
        """Give the stamp of the picture in the newest slot that has one."""
        return None if self._newest is None else self._pictures[self._newest].stamp_ns

    @property
    def nbytes(self) -> int:
        """Give the memory held by pictures."""
        return sum(picture.image.nbytes for picture in self._pictures.values())

    def wants(self, stamp_ns: int) -> bool:
        """Tell whether a picture with this stamp would be kept."""
        slot = stamp_ns // self._period_ns
        return slot not in self._pictures and (
            self._newest is None or slot > self._newest - self._capacity)

    def select(self, end_ns: int) -> tuple[Picture, ...]:
        """
        Give the t pictures of the window that ends at `end_ns`, oldest first; () when empty.

        A slot without one shows the nearest earlier one, else the nearest later one.
        """
        slots = sorted(self._pictures)
        if not slots:
            return ()
        places = (bisect_left(slots, slot + 1) - 1 for slot in self._window(end_ns))
        return tuple(self._pictures[slots[max(0, place)]] for place in places)

    def own_slots(self, end_ns: int) -> int:
        """Count the slots of the window that have a picture of their own, 0..t."""
        return sum(slot in self._pictures for slot in self._window(end_ns))

    def clear(self) -> None:
        """Forget all pictures."""
        self._pictures.clear()
        self._newest = None

    def _put(self, picture: Picture) -> None:
        """Keep a picture that is wanted; what no window can reach any more is forgotten."""
        picture.image.flags.writeable = False
        slot = picture.stamp_ns // self._period_ns
        self._pictures[slot] = picture
        if self._newest is None or slot > self._newest:
            self._newest = slot
            for old in [k for k in self._pictures if k <= slot - self._capacity]:
                del self._pictures[old]

    @property
    def _capacity(self) -> int:
        return self._count + _SPARE_SLOTS

    def _window(self, end_ns: int) -> range:
        last = end_ns // self._period_ns
        return range(last - self._count + 1, last + 1)
