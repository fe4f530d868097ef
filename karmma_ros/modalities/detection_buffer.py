"""
The boxes of recent messages.

Shape legend: t frames, n boxes of a message.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from karmma_ros.clip import ClipSpec, DetectionSpec
from karmma_ros.modalities.sample_buffer import Coverage, SampleBuffer
from karmma_ros.preprocess.box_array import check_boxes, detection_input
import numpy as np
from numpy.typing import NDArray

_SPARE_SLOTS = 2
_MESSAGES_PER_FRAME = 16


@dataclass(frozen=True, eq=False)
class StoredBoxes:
    """The boxes of one window."""

    boxes: tuple[NDArray[np.float32], ...]
    """One `[n, 5]` for each of the t frames."""
    span_ns: tuple[int, int]
    """Oldest and newest stamp of their messages."""

    def arrays(self) -> tuple[NDArray[np.float32], ...]:
        """Return the boxes of each frame."""
        return self.boxes


class DetectionBuffer(SampleBuffer):
    """Store the boxes of recent messages; an empty message means that nothing was detected."""

    def __init__(self, clip: ClipSpec, spec: DetectionSpec | None = None) -> None:
        self._spec = clip.detections if spec is None else spec
        self._count, self._period_ns = clip.num_frames, clip.frame_period_ns
        self._duration_ns = clip.duration_ns
        self._spare_ns, self._most = _SPARE_SLOTS * self._period_ns, (
            _MESSAGES_PER_FRAME * self._count)
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

    def keep_longer(self, spare_ns: int) -> None:
        """Keep messages for this much longer, and as many more."""
        self._spare_ns += spare_ns
        self._most += _MESSAGES_PER_FRAME * -(-spare_ns // self._period_ns)

    def times_ns(self, sample: Any, stamp_ns: int, now_ns: int) -> tuple[int, int]:
        """Check the boxes of a message, float32 `[n, 5]`; return its stamp."""
        check_boxes(sample)
        return super().times_ns(sample, stamp_ns, now_ns)

    def add(self, sample: NDArray[np.float32], start_ns: int, stamped: bool = True) -> None:
        """
        Store the boxes of one message, `[n, 5]`, normalised; the first of a stamp stays.

        Only what the network can be given is stored: hands first, `max_boxes` at most.

        :raises InvalidSampleError: for what `detection_input` does not take.
        """
        kept = detection_input([sample], self._spec)[0]
        index = bisect_left(self._stamps, start_ns)
        if self._stamps[index:index + 1] == [start_ns]:
            return
        self._stamps.insert(index, start_ns)
        self._boxes.insert(index, kept)
        oldest_ns = self._stamps[-1] - self._duration_ns - self._spare_ns
        surplus = max(bisect_left(self._stamps, oldest_ns), len(self._stamps) - self._most)
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

    def window(self, end_ns: int) -> StoredBoxes:
        """Return the boxes of the window that ends at `end_ns`; it has some."""
        indices = self.select(end_ns)
        stamps = self.stamps_ns(indices)
        return StoredBoxes(self.boxes(indices), (stamps[0], stamps[-1]))

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
