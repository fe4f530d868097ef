"""
Frames, one for each slot of a fixed grid in time, for every modality whose samples are images.

Shape legend: t frames, h height, w width.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from karmma_ros.clip import ClipSpec, CropSize
from karmma_ros.modalities.sample_buffer import Coverage, SampleBuffer
import numpy as np
from numpy.typing import NDArray

_SPARE_SLOTS = 2


class StampedImage(Protocol):
    """An image and its stamp; it is never written to."""

    @property
    def stamp_ns(self) -> int:
        """Return the stamp, nanoseconds."""
        ...

    @property
    def image(self) -> NDArray[Any]:
        """Return the image."""
        ...


Item = TypeVar('Item', bound=StampedImage)


@dataclass(frozen=True, eq=False)
class StoredFrames:
    """The t frames of a window, repeats included; `FrameSamples`."""

    frames: Sequence[StampedImage]

    @property
    def span_ns(self) -> tuple[int, int]:
        """Return the oldest and the newest stamp."""
        stamps = [frame.stamp_ns for frame in self.frames]
        return min(stamps), max(stamps)

    @property
    def images(self) -> list[NDArray[Any]]:
        """Return the images, which are never written to."""
        return [frame.image for frame in self.frames]

    def arrays(self) -> NDArray[Any]:
        """Return the images as one array, `[t, h, w, …]`."""
        return np.stack(self.images)

    def some_arrays(self, first: int, end: int) -> NDArray[Any]:
        """Return `arrays()[first:end]`."""
        return np.stack(self.images[first:end])


class FrameSlots(SampleBuffer, Generic[Item]):
    """
    Store the first frame of each slot, as far back as a window reaches.

    Slot k holds stamps k × period up to (k + 1) × period, with the period at which a clip
    samples its t frames. So windows that overlap share their frames, and each is processed once.
    """

    def __init__(self, clip: ClipSpec, size: CropSize | None = None) -> None:
        """
        Start empty.

        :param size: how frames are resized and cropped; None: as those of the clip's video.
        """
        self._count, self._period_ns = clip.num_frames, clip.frame_period_ns
        self._size = clip.video.crop_size if size is None else size
        self._capacity = self._count + _SPARE_SLOTS
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

    def keep_longer(self, spare_ns: int) -> None:
        """Keep as many slots more."""
        self._capacity = self._count + _SPARE_SLOTS - -spare_ns // self._period_ns

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
        if self._newest is None:
            return ()
        # What is kept longer, for an earlier window, is not in this one.
        oldest = min(self._newest, end_ns // self._period_ns) - self._count - _SPARE_SLOTS
        slots = sorted(slot for slot in self._frames if slot > oldest)
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

    def window(self, end_ns: int) -> StoredFrames:
        """Return the frames of the window that ends at `end_ns`; it has some."""
        return StoredFrames(self.select(end_ns))

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

    def _window(self, end_ns: int) -> range:
        last = end_ns // self._period_ns
        return range(last - self._count + 1, last + 1)
