"""
Write what the runtimes read into a model directory.

Every export begins as ONNX, traced from the network. int8 is made there, and OpenVINO's own
files are converted from it. A new export is compared with eager before it replaces an old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
import shutil
import tempfile

from karmma_ros.errors import BundleError, InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.backends.agreement import check_clip, predict_subsets
from karmma_ros.model.backends.exports import (
    Export,
    export_folder,
    FORMATS,
    PRECISIONS,
    write_eager_logits,
    write_manifest,
)
from karmma_ros.model.backends.graphs import feeds, graph_of, write_graphs
from karmma_ros.model.backends.interface import BF16, EAGER, Input, INT8, OPENVINO
from karmma_ros.model.backends.onnx_runtime import quantise
from karmma_ros.model.backends.openvino_runtime import is_sensitive, write_openvino
from karmma_ros.model.backends.pytorch import Eager
from karmma_ros.model.backends.selection import read_export, Trial, try_out
from karmma_ros.model.bundle import Bundle
import torch

Calibration = Mapping[Modality, Iterable[Input]]
"""Modality → inputs `[1, ...]` as they come."""


def check_request(target: str, precision: str | None) -> tuple[str, str]:
    """
    Return the backend and the precision to export for; None: its first precision.

    :raises InvalidSettingError: for a format or a precision that does not exist.
    """
    if target not in FORMATS:
        raise InvalidSettingError('--to', target, ' or '.join(FORMATS))
    runtime = FORMATS[target]
    precision = precision or PRECISIONS[runtime][0]
    if precision not in PRECISIONS[runtime]:
        raise InvalidSettingError(
            '--precision', precision, f'{", ".join(PRECISIONS[runtime])} with --to {target}')
    return runtime, precision


def export(
    bundle: Bundle, target: str, precision: str | None = None,
    calibration: Calibration | None = None,
) -> tuple[Export, list[Trial]]:
    """
    Write an export of a model for the processor, replacing one of that runtime and precision.

    :param target: `openvino` or `onnx`.
    :param calibration: clips that int8 takes its ranges from.
    :returns: the export, and the trials of eager and of it on the check clip; int8 uses the first
        calibration clip.
    :raises BundleError: when its outputs differ from the network's.
    :raises InvalidSettingError: for a precision that does not exist, int8 without clips, a
        runtime that is not installed, or an encoder that cannot be exported.
    """
    runtime, precision = check_request(target, precision)
    for modality, encoder in bundle.network.encoders.items():
        if not getattr(encoder, 'exportable', True):
            raise InvalidSettingError(
                'MODEL', bundle.model_id, 'a model whose encoders can be exported',
                f'{bundle.config.encoders[Modality(modality)].name} runs with PyTorch only')
    if precision == INT8 and not calibration:
        raise InvalidSettingError(
            'calibration', None, 'clips that int8 takes its ranges from')
    target_folder = export_folder(bundle, runtime, precision)
    target_folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target_folder.parent, prefix='.writing_') as folder:
        draft = Export(runtime, precision, Path(folder) / 'draft')
        draft.folder.mkdir()
        _write(bundle, draft, calibration or {})
        clip = {m: next(iter(clips)) for m, clips in (calibration or {}).items()}
        eager = Eager(bundle.network)
        trials = list(try_out(
            bundle, eager, {draft.label: lambda: read_export(bundle, draft)},
            clip if precision == INT8 else None))
        _check(bundle, trials[1])
        noise = check_clip(bundle.spec, eager.modalities)
        write_eager_logits(draft, noise, predict_subsets(eager, noise))
        write_manifest(bundle, draft, {
            'torch': torch.__version__, 'date': date.today().isoformat(),
            'difference': trials[1].difference})
        shutil.rmtree(target_folder, ignore_errors=True)
        draft.folder.replace(target_folder)
    return Export(runtime, precision, target_folder), trials


def _write(bundle: Bundle, draft: Export, calibration: Calibration) -> None:
    direct = draft.runtime != OPENVINO and draft.precision != INT8
    with tempfile.TemporaryDirectory() as folder:
        for path in write_graphs(bundle, draft.folder if direct else Path(folder)):
            source, encoder = path, graph_of(path.stem)
            if draft.precision == INT8 and encoder:  # the fusion is small, and would suffer
                source, (modality, frames) = path.with_stem(f'{path.stem}_int8'), encoder
                quantise(path, source, feeds(
                    bundle.network, modality, calibration[modality], frames))
            if draft.runtime == OPENVINO:
                write_openvino(source, draft.folder / f'{path.stem}.xml',
                               half=draft.precision == BF16
                               and not is_sensitive(path.stem, bundle.network))
            elif not direct:
                shutil.copyfile(source, draft.folder / path.name)


def _check(bundle: Bundle, trial: Trial) -> None:
    if trial.error is not None:
        raise trial.error
    if not trial.agrees:
        raise BundleError(bundle.path, f'the export is not kept: {trial}',
                          f'take a higher precision, or backend {EAGER}')
