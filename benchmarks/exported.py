"""Exports of a network for the benchmarks, made where they lack."""

from __future__ import annotations

from collections.abc import Callable

from karmma_ros.data.samples import Clips, with_modalities
from karmma_ros.evaluation.inference import spread_evenly
from karmma_ros.model.backends.agreement import check_clip
from karmma_ros.model.backends.export import Calibration, export
from karmma_ros.model.backends.exports import Export, find_exports, FORMATS
from karmma_ros.model.backends.interface import INT8
from karmma_ros.model.bundle import Bundle

CALIBRATION = 32
"""Clips of the training split that give the ranges of int8."""


def exported(bundle: Bundle, words: str, calibration: Callable[[], Calibration]) -> Export:
    """
    Return an export of a network.

    :param words: its format and precision, such as `openvino int8`.
    :param calibration: gives the clips that int8 takes its ranges from.
    """
    target, precision = words.split()
    label = f'{FORMATS[target]} {precision}'
    exports = {each.label: each for each in find_exports(bundle)[0]}
    if label not in exports:
        exports[label], _ = export(
            bundle, target, precision, calibration() if precision == INT8 else None)
    return exports[label]


def noise(bundle: Bundle) -> Calibration:
    """Return one clip, enough for a network with random weights."""
    clip = check_clip(bundle.spec, bundle.network.modalities, seed=1)
    return {modality: [x] for modality, x in clip.items()}


def calibration_of(bundle: Bundle, clips: Clips) -> Calibration:
    """Take clips of a training split."""
    chosen = spread_evenly(len(clips), CALIBRATION)
    return {m: [own[i].clip.inputs[m][None] for i in chosen]
            for m in bundle.network.modalities for own in [with_modalities(clips, [m])]}
