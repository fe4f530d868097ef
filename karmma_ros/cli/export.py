"""`karmma export`: write what OpenVINO or ONNX Runtime reads into a model directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from karmma_ros.cli.open_data import open_data
from karmma_ros.cli.options import (
    add_custom_encoders_option,
    add_data_options,
    command_parser,
    CommandParser,
    data_cache,
)
from karmma_ros.cli.progress import Bars
from karmma_ros.data.datasets import DataSettings
from karmma_ros.data.samples import Clips
from karmma_ros.errors import BundleError, InvalidSettingError
from karmma_ros.evaluation.inference import spread_evenly
from karmma_ros.modality import Modality
from karmma_ros.model.backends.export import Calibration, check_request, export
from karmma_ros.model.backends.exports import FORMATS
from karmma_ros.model.backends.interface import BF16, FP32, Input, INT8
from karmma_ros.model.bundle import Bundle, load_bundle


def main(arguments: Sequence[str]) -> int:
    """Run `karmma export MODEL --to FORMAT`."""
    parser = _parser()
    given = parser.parse_args(list(arguments))
    _, precision = check_request(given.to, given.precision)
    bundle = load_bundle(given.model, custom_encoders=given.custom_encoders)
    calibration = None
    if precision == INT8:
        settings: DataSettings = parser.instantiate(given).data
        calibration = _calibration(
            bundle, settings, data_cache(given, settings), given.calibration)
    try:
        written, trials = export(bundle, given.to, precision, calibration)
    except BundleError as error:
        if given.precision is not None or precision == FP32:
            raise
        print(f'note: {error}; {FP32} is written instead')
        written, trials = export(bundle, given.to, FP32)
    print(f'wrote {written.folder}: ' + ', '.join(map(str, reversed(trials))))
    return 0


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma export', 'Export a model for OpenVINO or ONNX Runtime, which run it several times '
        'as fast as PyTorch. The files go into the model directory, where the node finds them. '
        'Their outputs are compared with those of PyTorch first.',
        'MODEL --to FORMAT [OPTION ...]')
    parser.add_argument('model', type=str, metavar='MODEL', help='model directory')
    parser.add_argument('--to', type=str, required=True, metavar='FORMAT',
                        help=f'format to write, {" or ".join(FORMATS)}')
    parser.add_argument(
        '--precision', type=str, help=f'precision of the weights, {FP32}, {BF16} (OpenVINO) or '
        f'{INT8} (default: {BF16} for OpenVINO, {FP32} for ONNX)')
    parser.add_argument('--calibration', type=int, default=32, metavar='N',
                        help='int8: number of clips of the training split to calibrate with; '
                        '--config or --data.* names the data set')
    add_custom_encoders_option(parser)
    add_data_options(parser)
    return parser


def _calibration(
    bundle: Bundle, settings: DataSettings, cache: Path, count: int
) -> Calibration:
    """
    Take clips of the training split at even distances.

    :raises InvalidSettingError: when they lack a modality of the model.
    """
    with Bars() as bars:
        clips = open_data(settings, bundle.spec, cache, bars).train
    chosen = spread_evenly(len(clips), count)
    calibration = {m: CalibrationInputs(clips, chosen, m) for m in bundle.network.modalities}
    for modality, inputs in calibration.items():
        if next(iter(inputs), None) is None:
            raise InvalidSettingError(
                '--calibration', f'{len(chosen)} clips without {modality}',
                f'clips of every modality of the model; {modality} is one')
    return calibration


class CalibrationInputs:
    """The inputs of one modality, one at a time: clips of video take much memory."""

    def __init__(self, clips: Clips, chosen: Sequence[int], modality: Modality) -> None:
        self._clips, self._chosen, self._modality = clips, chosen, modality

    def __iter__(self) -> Iterator[Input]:
        for index in self._chosen:
            given: Mapping[Modality, Any] = self._clips[index].clip.inputs
            if self._modality in given:
                yield given[self._modality][None]
