"""The learning rate over time."""

from __future__ import annotations

import math


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.01) -> float:
    """
    Give the factor of the peak learning rate: linear warm-up, then cosine back to the start.

    :param step: from 0 to `total` - 1.
    :param warmup: steps of the rise from `floor` to 1.
    :param floor: factor at the first step and at the last.
    """
    if step < warmup:
        return floor + (1 - floor) * step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - 1 - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
