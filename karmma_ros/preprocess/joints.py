"""
Joints of one person to the network's channels.

Shape legend: t samples of the window, j joints, d dimensions (2 or 3).
"""

from __future__ import annotations

from collections.abc import Sequence

from karmma_ros.errors import InvalidSampleError
import numpy as np
from numpy.typing import NDArray

_SMALLEST = 1e-6
"""A body of this size is none."""
_VELOCITY_S = 0.3
"""Seconds over which velocities are counted, so that quick movements are about 1."""


def skeleton_input(
    joints: NDArray[np.float32], interval_s: float, root: Sequence[int] = (),
    scale: Sequence[int] = (), shoulders: Sequence[int] = (), up: int = 2,
) -> NDArray[np.float32]:
    """
    Centre, scale and turn a skeleton; return positions and velocities.

    In each sample it is centred on its root. Over the window it has one scale and, in 3-D, one
    turn about the vertical, so that the person faces the same way on average.

    :param joints: `[t, j, d]`, finite, in metres or fractions of the image.
    :param interval_s: time between two samples.
    :param root: joints whose mean is the origin, usually the hip; none: the mean of all.
    :param scale: two joints whose distance, the median over the window, becomes 1, such as head
        and hip; none: the root mean square of all distances from the origin.
    :param shoulders: left and right joint, whose mean line is turned to the first horizontal
        axis; none, and in 2-D: nothing is turned.
    :param up: vertical axis, 0 to 2.
    :returns: `[2 · j · d, t]`: positions, then the movement in 0.3 s.
    :raises InvalidSampleError: for other shapes.
    """
    if joints.ndim != 3 or joints.shape[2] not in (2, 3) or not joints.shape[1]:
        raise InvalidSampleError(
            f'skeleton: got {list(joints.shape)}; expected [t, joints, 2] or [t, joints, 3]')
    origin = joints[:, list(root)] if root else joints
    centred = joints - origin.mean(1, keepdims=True)
    size = _size(centred, scale)
    if shoulders and joints.shape[2] == 3:
        centred = _turned(centred, shoulders, up)
    positions = centred.reshape(len(joints), -1).T / size
    movement = np.diff(positions, axis=1, prepend=positions[:, :1]) * (_VELOCITY_S / interval_s)
    return np.asarray(np.concatenate([positions, movement]), np.float32)


def _size(centred: NDArray[np.float32], scale: Sequence[int]) -> float:
    """Return the size of a person; that of all joints where that of two is none."""
    size = 0.0
    if scale:
        first, second = scale
        size = float(np.median(np.linalg.norm(centred[:, first] - centred[:, second], axis=1)))
    if size <= _SMALLEST:
        size = float(np.sqrt((centred ** 2).sum(2).mean()))
    return size if size > _SMALLEST else 1.0


def _turned(
    centred: NDArray[np.float32], shoulders: Sequence[int], up: int
) -> NDArray[np.float32]:
    """Turn about the vertical axis so that the mean line across the shoulders has no depth."""
    first, second = (axis for axis in range(3) if axis != up)
    across = (centred[:, shoulders[0]] - centred[:, shoulders[1]]).mean(0)
    length = float(np.hypot(across[first], across[second]))
    if not length > _SMALLEST:
        return centred
    cosine, sine = across[first] / length, across[second] / length
    turned = centred.copy()
    turned[..., first] = cosine * centred[..., first] + sine * centred[..., second]
    turned[..., second] = cosine * centred[..., second] - sine * centred[..., first]
    return turned
