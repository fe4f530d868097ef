"""`karmma export`: write what OpenVINO or ONNX Runtime reads into a model directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from karmma_ros.cli.options import data_of_config, typed_parser
from karmma_ros.cli.progress import Bars
from karmma_ros.data.datasets import DataSettings, open_splits
from karmma_ros.data.samples import Clips
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.scoring import spread_evenly
from karmma_ros.modality import Modality
from karmma_ros.model.backends.export import Calibration, check_request, export
from karmma_ros.model.backends.exports import FORMATS
from karmma_ros.model.backends.interface import BF16, FP32, Input, INT8
from karmma_ros.model.bundle import Bundle, load_bundle


def main(arguments: Sequence[str]) -> int:
    """Run `karmma export MODEL --to FORMAT`."""
    parser = _parser()
    given = parser.parse_args([*data_of_config(arguments), *arguments])
    _, precision = check_request(given.to, given.precision)
    bundle = load_bundle(given.model, custom_encoders=given.custom_encoders)
    calibration = None
    if precision == INT8:
        settings: DataSettings = parser.instantiate(given).data
        cache = Path(given.cache or Path('.cache') / settings.dataset)
        calibration = _calibration(bundle, settings, cache, given.calibration)
    written, trials = export(bundle, given.to, precision, calibration)
    print(f'wrote {written.folder}: ' + ', '.join(map(str, reversed(trials))))
    return 0


def _parser() -> ArgumentParser:
    parser = typed_parser(
        prog='karmma export', description='Write graphs of a model that run several times as '
        'fast as PyTorch into its directory; the node takes them by itself. They are checked '
        'against PyTorch first.')
    parser.add_argument('model', type=str, metavar='MODEL', help='model directory')
    parser.add_argument('--to', type=str, required=True, metavar='FORMAT',
                        help=f'{" or ".join(FORMATS)}')
    parser.add_argument(
        '--precision', type=str, default=None, help=f'{FP32}, {BF16} (OpenVINO) or {INT8} '
        '(default: bf16 for OpenVINO, fp32 for ONNX)')
    parser.add_argument('--calibration', type=int, default=32, metavar='N',
                        help='int8: take its ranges from N clips of the training split (default: '
                        '32)')
    parser.add_argument('--config', type=str, help='int8: file whose section `data` says which '
                        'data, such as one of config/train/')
    parser.add_class_arguments(DataSettings, 'data')
    parser.add_argument('--cache', type=str, default='', help='folder of what is made of the '
                        'data set once (default: .cache/ and its name)')
    parser.add_argument('--custom-encoders', action='store_true',
                        help='allow models that name encoder classes of their own: runs them')
    return parser


def _calibration(
    bundle: Bundle, settings: DataSettings, cache: Path, count: int
) -> Calibration:
    """
    Take clips of the training split at even distances.

    :raises InvalidSettingError: when they lack a modality of the model.
    """
    with Bars() as bars:
        clips = open_splits(settings, bundle.spec, cache, bars).train
    chosen = spread_evenly(len(clips), count)
    calibration = {m: Inputs(clips, chosen, m) for m in bundle.network.modalities}
    for modality, inputs in calibration.items():
        if next(iter(inputs), None) is None:
            raise InvalidSettingError(
                '--calibration', f'{len(chosen)} clips without {modality}',
                f'clips of every modality of the model; {modality} is one')
    return calibration


class Inputs:
    """The inputs of one modality, one at a time: clips of video take much memory."""

    def __init__(self, clips: Clips, chosen: Sequence[int], modality: Modality) -> None:
        self._clips, self._chosen, self._modality = clips, chosen, modality

    def __iter__(self) -> Iterator[Input]:
        for index in self._chosen:
            given: Mapping[Modality, Any] = self._clips[index].clip.inputs
            if self._modality in given:
                yield given[self._modality][None]
