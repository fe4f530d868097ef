"""
Figures that the paper publishes, to be set beside ours; nothing is computed from them.

Subsets in the order of `karmma_ros.modality.subsets`. What the paper draws as bars (Fig. 6) was
read off its vector graphics, to 0.01.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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

DROPOUT_CURVES: Mapping[str, Mapping[str, Sequence[float]]] = {
    'EPIC-KITCHENS-100': {
        'baseline': (40.00, 36.16, 32.24, 28.38, 24.64, 21.55, 18.05, 15.82, 13.84, 12.79),
        'delta': (41.49, 39.45, 37.25, 34.77, 32.26, 29.85, 27.70, 25.93, 24.56, 23.43),
        'karmma': (43.00, 40.99, 38.79, 36.48, 33.82, 31.40, 29.78, 27.63, 26.14, 25.17)},
    'Something-Something V2': {
        'baseline': (57.31, 53.28, 49.09, 44.82, 40.58, 36.86, 32.99, 29.97, 27.39, 25.64),
        'delta': (60.31, 58.07, 55.51, 52.24, 49.07, 45.73, 42.46, 39.70, 37.54, 35.51),
        'karmma': (62.88, 61.36, 59.35, 57.31, 55.23, 53.30, 51.42, 50.17, 48.81, 47.66)},
}
"""Data set → system → action accuracy, %, as each sensor is dropped with 0 to 90 % (Fig. 4)."""

ENHANCEMENTS: Mapping[str, tuple[float, float, float]] = {
    'baseline': (50.08, 64.74, 38.94),
    'dropout': (51.30, 65.22, 39.82),
    'missing': (50.60, 65.61, 39.87),
    'distillation': (53.05, 67.24, 41.68),
    'longer': (54.80, 67.65, 43.00),
}
"""Row → noun, verb and action accuracy, % (Table III)."""

GAMMA: Mapping[float, tuple[float, float, float]] = {
    1.0: (50.60, 65.61, 39.87), 0.7: (53.05, 67.24, 41.68), 0.4: (52.03, 66.07, 40.17)}
"""γ → noun, verb and action accuracy, %; that of 0.1 is lost (Table IV)."""

TOKEN_CAP_ACCURACY: Mapping[int | None, float] = {None: 35.26, 300: 34.99}
"""Tokens a modality → the teacher's action accuracy, %; others are lost (Table V)."""

FUSION_MEMORY_GB: Mapping[int | None, float] = {None: 14.28, 300: 2.65}
"""Tokens a modality → memory of the fusion block; others are lost (Table V)."""

DROPOUT_AVERAGE: Mapping[float, float] = {0.0: 16.08, 0.25: 23.97, 0.5: 24.23}
"""Modality dropout → the teacher's mean accuracy over the subsets, % (Table VI)."""

DROPOUT_DROP: Mapping[float, float] = {0.0: 61.37, 0.5: 35.95}
"""Modality dropout → its mean relative drop, % (Table VI)."""

RADEVSKI_STUDENT = 41.81
"""Action accuracy of Radevski et al.'s student, RGB alone, % (Table II)."""
