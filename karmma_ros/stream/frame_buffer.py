"""
One frame for each slot of a fixed grid in time, of a camera or of a flow topic.

The flow of a topic is scaled to the period of the clip's frames, as training had it.

Shape legend: t frames, h height, w width.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from karmma_ros.clip import ClipSpec
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.flow import quantise_flow
from karmma_ros.preprocess.resize import resize_and_crop_vectors
import numpy as np
from numpy.typing import NDArray

_SPARE_SLOTS = 2


class Stamped(Protocol):
    """A picture and its time; it is never written to."""

    @property
    def stamp_ns(self) -> int:
        """Return its time, nanoseconds."""
        ...

    @property
    def image(self) -> NDArray[np.uint8]:
        """Return the picture."""
        ...


Picture = TypeVar('Picture', bound=Stamped)


class FrameSlots(Generic[Picture]):
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
        """Return the stamp of the picture in the newest slot that has one."""
        return None if self._newest is None else self._pictures[self._newest].stamp_ns

    @property
    def nbytes(self) -> int:
        """Return the memory held by pictures."""
        return sum(picture.image.nbytes for picture in self._pictures.values())

    def wants(self, stamp_ns: int) -> bool:
        """Return whether a picture with this stamp would be kept."""
        slot = stamp_ns // self._period_ns
        return slot not in self._pictures and (
            self._newest is None or slot > self._newest - self._capacity)

    def select(self, end_ns: int) -> tuple[Picture, ...]:
        """
        Return the t pictures of the window that ends at `end_ns`, oldest first; () when empty.

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


_STAMPS = 10
_LOSS = 1.5
"""A pause this many times as long as usual is taken for lost messages, not for slow ones."""


@dataclass(frozen=True, eq=False)
class FlowImage:
    """One flow that is kept; its picture is never written to again."""

    stamp_ns: int
    """Of the later of the two frames."""
    image: NDArray[np.uint8]
    """`[h, w, 2]` of the crop's size, as `quantise_flow` gives it."""


class FlowBuffer(FrameSlots[FlowImage]):
    """
    Keep one flow for each slot of the grid on which a clip samples its frames.

    A message tells the movement since the source's last frame, a clip that since its own:
    so the vectors are stretched by the ratio of these times. The first message, which
    nothing precedes, only sets the time.
    """

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec)
        self._bound = spec.flow.bound
        self._stamps: deque[int] = deque(maxlen=_STAMPS)

    def note(self, stamp_ns: int) -> None:
        """Take notice of a message that is not wanted: it tells how long a frame lasts."""
        if not self._stamps or stamp_ns > self._stamps[-1]:
            self._stamps.append(stamp_ns)

    def add(self, flow: NDArray[np.float32], stamp_ns: int) -> None:
        """
        Keep displacements `[h, w, 2]`, in pixels of theirs since the frame before.

        :raises InvalidSampleError: for another type or shape, NaN or infinity.
        """
        check_array('flow', flow, np.float32, ('h', 'w', 2))
        self.note(stamp_ns)
        interval_ns = self._interval_ns(stamp_ns)
        if interval_ns is None or not self.wants(stamp_ns):
            return
        field = resize_and_crop_vectors(flow, *self._size)
        picture = quantise_flow(field * np.float32(self._period_ns / interval_ns), self._bound)
        self._put(FlowImage(stamp_ns, picture))

    def select(self, end_ns: int) -> tuple[FlowImage, ...]:
        """
        Return the t flows of the window that ends at `end_ns`, oldest first; () when empty.

        As for frames, but the first repeats the second: in training the first frame has none
        before it.
        """
        chosen = super().select(end_ns)
        return chosen[1:2] + chosen[1:] if len(chosen) > 1 else chosen

    def clear(self) -> None:
        """Forget all flow."""
        super().clear()
        self._stamps.clear()

    def _interval_ns(self, stamp_ns: int) -> int | None:
        """Return the time between the two frames of a message; None before a second one came."""
        stamps = list(self._stamps)
        gaps = [later - earlier for earlier, later in zip(stamps, stamps[1:])]
        if not gaps:
            return None
        usual_ns = sorted(gaps)[(len(gaps) - 1) // 2]
        own_ns = gaps[-1] if stamp_ns == stamps[-1] else usual_ns
        return own_ns if own_ns <= _LOSS * usual_ns else usual_ns
