"""
The recent camera frames, flow and boxes, in bounded memory.

Times are stamps in integer nanoseconds. Each buffer takes samples in any order and stores those
that can still be part of a window that ends at its newest sample or later.

Camera frames and flow are stored one for each slot of a fixed grid in time. The flow of a topic is
scaled to the period of the clip's frames, as training had it.

Shape legend: t frames, h height, w width, n boxes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from karmma_ros.clip import ClipSpec
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.detections import detection_input
from karmma_ros.preprocess.flow import quantise_flow
from karmma_ros.preprocess.resize import resize_and_crop, resize_and_crop_vectors
from karmma_ros.stream.availability import Coverage
import numpy as np
from numpy.typing import NDArray

_SPARE_SLOTS = 2
_MESSAGES_PER_FRAME = 16


class StampedImage(Protocol):
    """An image and its stamp; it is never written to."""

    @property
    def stamp_ns(self) -> int:
        """Return the stamp, nanoseconds."""
        ...

    @property
    def image(self) -> NDArray[np.uint8]:
        """Return the image."""
        ...


Item = TypeVar('Item', bound=StampedImage)


class FrameSlots(Generic[Item]):
    """
    Store the first frame of each slot, as far back as a window reaches.

    Slot k holds stamps k × period up to (k + 1) × period, with the period at which a clip
    samples its t frames. So windows that overlap share their frames, and each is processed once.
    """

    def __init__(self, spec: ClipSpec) -> None:
        """Start empty."""
        self._count, self._period_ns = spec.num_frames, spec.frame_period_ns
        self._size = spec.video.height, spec.video.width
        self._frames: dict[int, Item] = {}
        self._newest: int | None = None

    @property
    def newest_ns(self) -> int | None:
        """Return the stamp of the frame in the newest slot that has one."""
        return None if self._newest is None else self._frames[self._newest].stamp_ns

    @property
    def nbytes(self) -> int:
        """Return the memory held by frames."""
        return sum(frame.image.nbytes for frame in self._frames.values())

    def wants(self, stamp_ns: int) -> bool:
        """Return whether a frame with this stamp would be stored."""
        slot = stamp_ns // self._period_ns
        return slot not in self._frames and (
            self._newest is None or slot > self._newest - self._capacity)

    def select(self, end_ns: int) -> tuple[Item, ...]:
        """
        Return the t frames of the window that ends at `end_ns`, oldest first; () when empty.

        A slot without one has the nearest earlier frame, else the nearest later one.
        """
        slots = sorted(self._frames)
        if not slots:
            return ()
        indices = (bisect_left(slots, slot + 1) - 1 for slot in self._window(end_ns))
        return tuple(self._frames[slots[max(0, index)]] for index in indices)

    def filled_slots(self, end_ns: int) -> int:
        """Count the slots of the window that have a frame of their own, 0..t."""
        return sum(slot in self._frames for slot in self._window(end_ns))

    def coverage(self, end_ns: int | None) -> Coverage:
        """Return the coverage of the window that ends at `end_ns`."""
        filled = 0 if end_ns is None else self.filled_slots(end_ns)
        return Coverage(filled, filled, self._count, 'frames')

    def clear(self) -> None:
        """Discard all frames."""
        self._frames.clear()
        self._newest = None

    def _put(self, frame: Item) -> None:
        """Store a frame that is wanted; discard those that no window can reach any more."""
        frame.image.flags.writeable = False
        slot = frame.stamp_ns // self._period_ns
        self._frames[slot] = frame
        if self._newest is None or slot > self._newest:
            self._newest = slot
            for old in [k for k in self._frames if k <= slot - self._capacity]:
                del self._frames[old]

    @property
    def _capacity(self) -> int:
        return self._count + _SPARE_SLOTS

    def _window(self, end_ns: int) -> range:
        last = end_ns // self._period_ns
        return range(last - self._count + 1, last + 1)


@dataclass(frozen=True, eq=False)
class Frame:
    """One stored camera frame; its image is never written to again."""

    stamp_ns: int
    serial: int
    """Distinguishes frames even where a clock that jumped back repeats a stamp."""
    image: NDArray[np.uint8]
    """RGB `[h, w, 3]`, of the crop's size."""


class FrameBuffer(FrameSlots[Frame]):
    """Store one camera frame for each slot: each is resized once, and its flow computed once."""

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec)
        self._serial = 0

    def add(self, image: NDArray[np.uint8], stamp_ns: int) -> None:
        """
        Store a copy of an RGB image `[h, w, 3]`, resized to the crop; the first of a slot stays.

        :raises InvalidSampleError: for anything but a non-empty uint8 image.
        """
        check_array('image', image, np.uint8, ('h', 'w', 3))
        if not self.wants(stamp_ns):
            return
        self._serial += 1
        resized = np.array(resize_and_crop(image, *self._size), order='C')
        self._put(Frame(stamp_ns, self._serial, resized))


_STAMPS = 10
_MAX_INTERVAL_RATIO = 1.5
"""An interval this many times the median means that messages were dropped."""


@dataclass(frozen=True, eq=False)
class FlowFrame:
    """One stored flow; its image is never written to again."""

    stamp_ns: int
    """Of the later of the two frames."""
    image: NDArray[np.uint8]
    """`[h, w, 2]` of the crop's size, as `quantise_flow` returns it."""


class FlowBuffer(FrameSlots[FlowFrame]):
    """
    Store one flow for each slot of the grid on which a clip samples its frames.

    A message has the movement since the source's last frame, a clip that since its own:
    so the vectors are scaled by the ratio of these times. The first message, which
    nothing precedes, is not stored: only its stamp is used.
    """

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec)
        self._bound = spec.flow.bound
        self._stamps: deque[int] = deque(maxlen=_STAMPS)

    def record_stamp(self, stamp_ns: int) -> None:
        """Record the stamp of a message that is not stored, for the interval of the next one."""
        if not self._stamps or stamp_ns > self._stamps[-1]:
            self._stamps.append(stamp_ns)

    def add(self, flow: NDArray[np.float32], stamp_ns: int) -> None:
        """
        Store displacements `[h, w, 2]`, in pixels of theirs since the frame before.

        :raises InvalidSampleError: for another type or shape, NaN or infinity.
        """
        check_array('flow', flow, np.float32, ('h', 'w', 2))
        self.record_stamp(stamp_ns)
        interval_ns = self._interval_ns(stamp_ns)
        if interval_ns is None or not self.wants(stamp_ns):
            return
        resized = resize_and_crop_vectors(flow, *self._size)
        scaled = resized * np.float32(self._period_ns / interval_ns)
        self._put(FlowFrame(stamp_ns, quantise_flow(scaled, self._bound)))

    def select(self, end_ns: int) -> tuple[FlowFrame, ...]:
        """
        Return the t flows of the window that ends at `end_ns`, oldest first; () when empty.

        As for frames, but the first repeats the second: in training the first frame has none
        before it.
        """
        chosen = super().select(end_ns)
        return chosen[1:2] + chosen[1:] if len(chosen) > 1 else chosen

    def clear(self) -> None:
        """Discard all flow."""
        super().clear()
        self._stamps.clear()

    def _interval_ns(self, stamp_ns: int) -> int | None:
        """Return the time between the two frames of a message; None before a second message."""
        stamps = list(self._stamps)
        intervals = [later - earlier for earlier, later in zip(stamps, stamps[1:])]
        if not intervals:
            return None
        median_ns = sorted(intervals)[(len(intervals) - 1) // 2]
        own_ns = intervals[-1] if stamp_ns == stamps[-1] else median_ns
        return own_ns if own_ns <= _MAX_INTERVAL_RATIO * median_ns else median_ns


class DetectionBuffer:
    """Store the boxes of recent messages; an empty message means that nothing was detected."""

    def __init__(self, spec: ClipSpec) -> None:
        self._spec = spec.detections
        self._count, self._period_ns = spec.num_frames, spec.frame_period_ns
        self._duration_ns = spec.duration_ns
        self._stamps: list[int] = []
        self._boxes: list[NDArray[np.float32]] = []

    @property
    def newest_ns(self) -> int | None:
        """Return the stamp of the newest message."""
        return self._stamps[-1] if self._stamps else None

    @property
    def nbytes(self) -> int:
        """Return the memory held by boxes."""
        return sum(boxes.nbytes for boxes in self._boxes)

    def add(self, boxes: NDArray[np.float32], stamp_ns: int) -> None:
        """
        Store the boxes of one message, `[n, 5]`, normalised; the first of a stamp stays.

        Only what the network can be given is stored: hands first, `max_boxes` at most.

        :raises InvalidSampleError: for what `detection_input` does not take.
        """
        kept = detection_input([boxes], self._spec)[0]
        index = bisect_left(self._stamps, stamp_ns)
        if self._stamps[index:index + 1] == [stamp_ns]:
            return
        self._stamps.insert(index, stamp_ns)
        self._boxes.insert(index, kept)
        oldest_ns = self._stamps[-1] - self._duration_ns - _SPARE_SLOTS * self._period_ns
        surplus = max(bisect_left(self._stamps, oldest_ns),
                      len(self._stamps) - _MESSAGES_PER_FRAME * self._count)
        del self._stamps[:surplus], self._boxes[:surplus]

    def select(self, end_ns: int) -> list[int]:
        """
        Return for each of the t slots the index of its message, -1 for none.

        It is the one nearest to the slot's centre, of those up to `end_ns`, and no further
        away than one slot or, with a slower detector, its median period: a quarter of the
        window at most.
        """
        usable = bisect_left(self._stamps, end_ns + 1)
        tolerance_ns = self._tolerance_ns()
        last = end_ns // self._period_ns
        return [
            self._nearest(slot * self._period_ns + self._period_ns // 2, usable, tolerance_ns)
            for slot in range(last - self._count + 1, last + 1)
        ]

    def boxes(self, indices: Sequence[int]) -> tuple[NDArray[np.float32], ...]:
        """Return the boxes `[max_boxes, 5]` of the chosen messages; none where it is -1."""
        nothing = np.zeros((0, 5), np.float32)
        return tuple(nothing if index < 0 else self._boxes[index] for index in indices)

    def stamps_ns(self, indices: Sequence[int]) -> list[int]:
        """Return the stamps of the chosen messages in ascending order, each once."""
        return sorted({self._stamps[index] for index in indices if index >= 0})

    def coverage(self, end_ns: int | None) -> Coverage:
        """Return the coverage of the window that ends at `end_ns`."""
        indices = [] if end_ns is None else [i for i in self.select(end_ns) if i >= 0]
        return Coverage(len(set(indices)), len(indices), self._count, 'frames with boxes')

    def clear(self) -> None:
        """Discard all messages."""
        self._stamps.clear()
        self._boxes.clear()

    def _tolerance_ns(self) -> int:
        intervals = sorted(b - a for a, b in zip(self._stamps, self._stamps[1:]))
        median_ns = intervals[len(intervals) // 2] if intervals else 0
        return max(self._period_ns, min(median_ns, self._duration_ns // 4))

    def _nearest(self, time_ns: int, usable: int, tolerance_ns: int) -> int:
        after = bisect_left(self._stamps, time_ns, 0, usable)
        near = [i for i in (after - 1, after)
                if 0 <= i < usable and abs(self._stamps[i] - time_ns) <= tolerance_ns]
        return min(near, key=lambda i: abs(self._stamps[i] - time_ns), default=-1)
