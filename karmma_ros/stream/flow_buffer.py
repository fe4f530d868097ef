"""
The recent optical flow of a topic, as training saw the flow between its frames.

Shape legend: t frames, h height, w width.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from karmma_ros.clip import ClipSpec
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.flow import quantise_flow
from karmma_ros.preprocess.video import resize_and_crop_vectors
from karmma_ros.stream.slots import Slots
import numpy as np
from numpy.typing import NDArray

_STAMPS = 10
_LOSS = 1.5
"""A pause this many times as long as usual is taken for lost messages, not for slow ones."""


@dataclass(frozen=True, eq=False)
class FlowPicture:
    """One flow that is kept; its picture is never written to again."""

    stamp_ns: int
    """Of the later of the two frames."""
    image: NDArray[np.uint8]
    """`[h, w, 2]` of the crop's size, as `quantise_flow` gives it."""


class FlowBuffer(Slots[FlowPicture]):
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
        self._put(FlowPicture(stamp_ns, picture))

    def select(self, end_ns: int) -> tuple[FlowPicture, ...]:
        """
        Give the t flows of the window that ends at `end_ns`, oldest first; () when empty.

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
        """Give the time between the two frames of a message; None before a second one came."""
        stamps = list(self._stamps)
        gaps = [later - earlier for earlier, later in zip(stamps, stamps[1:])]
        if not gaps:
            return None
        usual_ns = sorted(gaps)[(len(gaps) - 1) // 2]
        own_ns = gaps[-1] if stamp_ns == stamps[-1] else usual_ns
        return own_ns if own_ns <= _LOSS * usual_ns else usual_ns
