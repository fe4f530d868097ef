"""
Figures that the paper publishes, to be set beside ours; nothing is computed from them.

Subsets in the order of `karmma_ros.modality.subsets`. What the paper draws as bars (Fig. 6) was
read off its vector graphics, to 0.01.
"""

from __future__ import annotations

from collections.abc import Mapping

_SUBSETS = ('V+F+A', 'V+F', 'V+A', 'F+A', 'V', 'F', 'A')

GFLOPS: Mapping[str, Mapping[str, float]] = {
    'karmma_teacher': dict(zip(
        _SUBSETS, (1707.17, 1137.01, 1137.01, 1137.01, 567.96, 567.96, 567.96))),
    'karmma_student': dict(zip(
        _SUBSETS, (358.17, 353.03, 181.28, 181.28, 176.38, 176.38, 4.67))),
    'karmma_student_v': {'V': 176.0},
}
"""Preset → subset → billions of operations a clip (Fig. 6; Table II gives whole ones)."""

MEMORY_GB: Mapping[str, Mapping[str, float]] = {
    'karmma_teacher': dict(zip(_SUBSETS, (2.510, 2.127, 2.146, 2.127, 1.762, 1.762, 1.762))),
    'karmma_student': dict(zip(_SUBSETS, (1.324, 1.289, 1.195, 1.182, 1.139, 1.139, 0.0996))),
}
"""Preset → subset → memory at inference (Fig. 6)."""

TRAINABLE_MILLIONS: Mapping[str, float] = {
    'karmma_teacher': 84.65 / 7.5,
    'karmma_student_v': 29.64,
    'radevski': 84.65,
}
"""Preset → parameters that are trained (Table II; the teacher's "7.5 times fewer", Sec. IV-B)."""

TOKEN_CAP_GFLOPS: Mapping[str, Mapping[int | None, float]] = {
    'karmma_teacher': {None: 1759.0, 500: 1725.0, 300: 1707.0, 100: 1693.0},
}
"""Preset → tokens a modality (None: all) → billions of operations with all sensors (Table V)."""
