"""`karmma calibrate`: fit temperatures and the threshold of unknown actions on validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from karmma_ros.calibration import Calibration
from karmma_ros.cli.evaluate import check_fit, needed
from karmma_ros.cli.open_data import open_data
from karmma_ros.cli.options import (
    add_custom_encoders_option,
    add_data_options,
    add_device_option,
    command_parser,
    CommandParser,
    data_cache,
    writing,
)
from karmma_ros.cli.progress import Bars
from karmma_ros.data.datasets import DataSettings
from karmma_ros.data.samples import Splits
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import score
from karmma_ros.evaluation.inference import collect
from karmma_ros.evaluation.model_card import calibration_table
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.evaluation.temperature_scaling import (
    check_clips,
    FALSE_ALARM_RATE,
    fit_calibration,
)
from karmma_ros.modality import main_subsets
from karmma_ros.model.backends.selection import choose_device
from karmma_ros.model.bundle import CALIBRATION, load_bundle, save_calibration
from karmma_ros.model.class_statistics import ClassStatistics, save_statistics
from karmma_ros.model.fusion import MultiHeadMLP
from karmma_ros.model.karmma import Karmma
from karmma_ros.training.added_classes import statistics_of, sums_of_batches
from karmma_ros.training.loaders import scoring_loader


def main(arguments: Sequence[str]) -> int:
    """Run `karmma calibrate MODEL`."""
    parser = _parser()
    given = parser.parse_args(list(arguments))
    settings: DataSettings = parser.instantiate(given).data
    device = choose_device(given.device, '--device')
    bundle = load_bundle(given.model, custom_encoders=given.custom_encoders, calibrated=False)
    bundle.vocabulary.check_softmax('a calibration')
    with Bars() as bars:
        splits = open_data(
            settings if given.class_means == 'all' else needed(settings, 'validation'),
            bundle.spec, data_cache(given, settings), bars)
        check_fit(bundle, splits)
        calibration, predictions = calibrate(
            bundle.network, splits, device, given.workers, bars, given.false_alarm_rate,
            given.coverage)
        statistics = class_statistics(
            bundle.network, splits, device, given.workers, bars, given.class_means)
    with writing('MODEL', bundle.path / CALIBRATION):
        save_calibration(bundle.path, calibration)
        if statistics is not None:
            save_statistics(bundle.path, statistics)
    print(calibration_table(score(predictions, calibration), calibration))
    print(f'wrote {bundle.path / CALIBRATION}, fitted on {calibration.fitted_on}; the table is of '
          'these very clips: score others with `karmma evaluate`, and write that into the card '
          'with --card')
    return 0


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma calibrate', 'Fit what makes the confidence of a model agree with its accuracy on '
        'the validation split, one temperature for each head and subset of the sensors, and the '
        'threshold above which an action counts as unknown. `karmma train` does it at its end. '
        'The means of its classes are written, too, for `karmma finetune --add-classes`.',
        'MODEL [OPTION ...]')
    parser.add_argument('model', type=str, metavar='MODEL', help='model directory to write '
                        f'{CALIBRATION} to')
    parser.add_argument('--false-alarm-rate', type=float, default=FALSE_ALARM_RATE, metavar='RATE',
                        help='fraction of the validation clips, whose actions are all known, that '
                        'shall count as unknown')
    parser.add_argument('--class-means', type=Literal['validation', 'all'], default='validation',
                        help='clips that the means of the classes are of: validation, or all of '
                        'training and validation, where validation has few of a class')
    parser.add_argument('--coverage', type=float, default=0.0, metavar='FRACTION',
                        help='also fit prediction sets: for every class, this fraction of its '
                        'clips shall have it in their set, as 0.9 (default: no sets)')
    parser.add_argument('--workers', type=int, default=0, help='processes that load clips')
    add_device_option(parser)
    add_custom_encoders_option(parser)
    add_data_options(parser)
    return parser


def class_statistics(
    network: Karmma, splits: Splits, device: str, workers: int, bars: Bars, of: str,
) -> ClassStatistics | None:
    """
    Return the statistics of the classes; None for heads that have none.

    :param of: `validation`, or `all`: of training and validation.
    """
    if not isinstance(network.heads, MultiHeadMLP):
        return None
    clips = [splits.validation] if of == 'validation' else [splits.train, splits.validation]
    batches = (batch for each in clips
               for batch in scoring_loader(each, network.modalities, 32, workers))
    totals = sums_of_batches(network.to(device), batches, device,
                             bars.counter('means of every class', sum(map(len, clips))))
    network.cpu()
    return statistics_of(totals)


def calibrate(
    network: Karmma, splits: Splits, device: str, workers: int, bars: Bars,
    false_alarm_rate: float = FALSE_ALARM_RATE, coverage: float = 0.0,
) -> tuple[Calibration, DatasetPredictions]:
    """
    Fit a calibration on the validation split; return the predictions for it, too.

    :raises InvalidSettingError: when the split has too few clips, or is the test split.
    """
    clips = splits.validation
    if clips is splits.test:
        raise InvalidSettingError(
            'validation split', 'the test split', 'other clips, for what is fitted on clips '
            'cannot be tested on them', 'reserve clips of the training split for validation')
    check_clips(len(clips), false_alarm_rate)
    predictions = collect(
        network.to(device), scoring_loader(clips, network.modalities, 32, workers), device,
        bars.counter('calibrating every subset', len(clips)),
        main_subsets(network.modalities))
    network.cpu()
    fitted_on = f'{len(clips):,} validation clips of {splits.name}'
    return fit_calibration(predictions, fitted_on, false_alarm_rate, coverage), predictions
