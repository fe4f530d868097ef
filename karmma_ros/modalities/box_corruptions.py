"""
Corruptions of the boxes of a detector.

Shape legend: n boxes of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from karmma_ros.clip import BOX_HAND, BOX_OBJECT, BOX_PAD
from karmma_ros.modalities.corruption import (
    Corruption,
    CorruptionContext,
    first_corrupted,
    InStream,
)
import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]
"""`[n, 5]`: corners x1, y1, x2, y2 in 0..1 and the category."""


def _hold(frames: Sequence[Boxes], fraction: float, context: CorruptionContext) -> list[Boxes]:
    first = first_corrupted(len(frames), fraction)
    return [*frames[:first], *[frames[max(0, first - 1)]] * (len(frames) - first)]


def _each(
    change: Callable[[Boxes, float, np.random.Generator], Boxes],
) -> Callable[[Sequence[Boxes], float, CorruptionContext], list[Boxes]]:
    """Return a corruption that changes the boxes of each message, without padding rows."""
    def corrupt(
        frames: Sequence[Boxes], level: float, context: CorruptionContext,
    ) -> list[Boxes]:
        return [change(boxes[boxes[:, 4] != BOX_PAD], level, context.varying).astype(np.float32)
                for boxes in frames]
    return corrupt


def _jitter(boxes: Boxes, deviation: float, rng: np.random.Generator) -> Boxes:
    moved = np.clip(boxes[:, :4] + rng.normal(0, deviation, (len(boxes), 4)), 0, 1)
    pairs = np.sort(moved.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    return np.concatenate([pairs, boxes[:, 4:]], axis=1)


def _miss(boxes: Boxes, probability: float, rng: np.random.Generator) -> Boxes:
    return boxes[rng.random(len(boxes)) >= probability]


def _swap_labels(boxes: Boxes, probability: float, rng: np.random.Generator) -> Boxes:
    swapped = rng.random(len(boxes)) < probability
    other = np.where(boxes[:, 4] == BOX_HAND, BOX_OBJECT, BOX_HAND)
    return np.column_stack([boxes[:, :4], np.where(swapped, other, boxes[:, 4])])


BOX_CORRUPTIONS: Mapping[str, Corruption] = {
    'stuck': Corruption('the boxes of one message repeated in the last {:.0%} of the window',
                        (0.2, 0.4, 0.6, 0.8, 1.0), _hold, InStream.HOLD),
    'jitter': Corruption('each edge moved at random, standard deviation {:.0%} of the frame',
                         (0.01, 0.02, 0.05, 0.1, 0.2), _each(_jitter)),
    'missing_boxes': Corruption('{:.0%} of the boxes left out', (0.2, 0.4, 0.6, 0.8, 1.0),
                                _each(_miss)),
    'wrong_label': Corruption('{:.0%} of the boxes with the other category, hand or object',
                              (0.1, 0.25, 0.5, 0.75, 1.0), _each(_swap_labels)),
}
"""Of the boxes of each message, float32 `[n, 5]`."""
