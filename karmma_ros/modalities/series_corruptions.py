"""
Corruptions of timed vectors: inertial sensors, joints, any signal.

Shape legend: n vectors, c channels, j joints, d dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping

from karmma_ros.modalities.corruption import Corruption, CorruptionContext, InStream
from karmma_ros.modalities.image_corruptions import freeze
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""`[n, c]`."""
_DRIFT_S = 2.0
"""Seconds after which a drift has reached its level."""


def _add_noise(vectors: Vectors, level: float, context: CorruptionContext) -> Vectors:
    noise = context.varying.standard_normal(vectors.shape) * level * context.scale
    return np.asarray(vectors + noise, np.float32)


def _drift(vectors: Vectors, level: float, context: CorruptionContext) -> Vectors:
    """Add a bias that grows with time, up or down in each channel."""
    direction = context.fixed.choice((-1.0, 1.0), vectors.shape[1])
    bias = level * context.scale * direction * context.times_s[:, None] / _DRIFT_S
    return np.asarray(vectors + bias, np.float32)


def _drop(vectors: Vectors, probability: float, context: CorruptionContext) -> Vectors:
    """Hold the vector before each one that is dropped; the first one stays."""
    kept = context.varying.random(len(vectors)) >= probability
    kept[:1] = True
    return vectors[np.maximum.accumulate(np.where(kept, np.arange(len(vectors)), 0))]


def _hide_joints(vectors: Vectors, probability: float, context: CorruptionContext) -> Vectors:
    """Hide single joints; in a window each is seen once, or it would have no position."""
    joints = vectors.copy().reshape(len(vectors), context.parts, -1)
    hidden = context.varying.random(joints.shape[:2]) < probability
    if len(vectors) > 1:
        seen = context.varying.integers(len(vectors), size=context.parts)
        hidden[seen, np.arange(context.parts)] = False
    else:
        hidden[0, context.varying.integers(context.parts)] = False
    joints[hidden] = np.nan
    return np.asarray(joints.reshape(vectors.shape))


SERIES_CORRUPTIONS: Mapping[str, Corruption] = {
    'stuck': Corruption('one vector repeated in the last {:.0%} of the window',
                        (0.2, 0.4, 0.6, 0.8, 1.0), freeze, InStream.HOLD),
    'noise': Corruption('Gaussian noise, standard deviation {:g} of the usual size of a channel',
                        (0.1, 0.25, 0.5, 1.0, 2.0), _add_noise),
    'drift': Corruption('a bias that grows to {:g} of the usual size of a channel within 2 s',
                        (0.25, 0.5, 1.0, 2.0, 4.0), _drift),
    'dropout': Corruption('{:.0%} of the messages dropped', (0.3, 0.5, 0.7, 0.85, 0.95), _drop,
                          InStream.DROP),
}
"""Of timed vectors float32 `[n, c]`."""

SKELETON_CORRUPTIONS: Mapping[str, Corruption] = {
    **SERIES_CORRUPTIONS,
    'missing_joints': Corruption('each joint unseen in {:.0%} of the messages',
                                 (0.1, 0.3, 0.5, 0.7, 0.9), _hide_joints),
}
"""Of joints `[n, j · d]`."""
