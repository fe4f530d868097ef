"""`karmma finetune`: a model of a team's own classes from their bags and one label file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
import logging
from pathlib import Path
import shlex
import sys
import time
from typing import Literal

from jsonargparse import Namespace
from karmma_ros.cli.finetune.base_model import with_concatenated_heads, without_missing
from karmma_ros.cli.finetune.head_choice import fit_added, fit_heads
from karmma_ros.cli.finetune.labelled_bags import (
    check_added,
    compute_features,
    extract,
    open_labels,
    report_labels,
    report_sensors,
)
from karmma_ros.cli.finetune.model_record import write_model
from karmma_ros.cli.finetune.unfrozen import (
    fitted_of,
    parse_added,
    train_unfrozen,
    UnfreezeSettings,
    with_added_modalities,
)
from karmma_ros.cli.options import (
    add_bucket_option,
    add_cache_option,
    add_custom_encoders_option,
    add_device_option,
    add_output_option,
    add_worker_options,
    check_writable,
    command_parser,
    CommandParser,
    open_model,
    worker_device,
    workers_of,
)
from karmma_ros.cli.progress import Bars
from karmma_ros.cluster.bucket import bucket_cache
from karmma_ros.data.folds import RECORDING
from karmma_ros.data.recordings import BagSettings, check_windows
from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.backends.interface import EAGER, OPENVINO
from karmma_ros.model.backends.selection import choose_device
from karmma_ros.model.bundle import Bundle, CONFIG, WEIGHTS
from karmma_ros.model.class_statistics import load_statistics
from karmma_ros.model.fusion import MultiHeadMLP
from karmma_ros.model.joined import UNTRAINED, with_fusion_block
from karmma_ros.training.head_training import HeadSettings
from karmma_ros.training.precomputed import Inference


def main(arguments: Sequence[str]) -> int:
    """Run `karmma finetune RECORDING … --labels FILE --from MODEL --out DIR`."""
    try:
        return _finetune(arguments)
    except KeyboardInterrupt:
        print('karmma finetune: stopped before the model was written; the same command resumes',
              file=sys.stderr)
        return 130


def _finetune(arguments: Sequence[str]) -> int:
    began = time.monotonic()
    given = _parser().parse_args(list(arguments))
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    check_windows('--windows', given.windows)
    bucket_cache(given.bucket_cache, '--bucket-cache')
    settings = HeadSettings(steps=given.steps, seed=given.seed)
    workers = workers_of(given)
    device = choose_device('auto' if workers.address else given.device, '--device')
    if given.backend == OPENVINO and device != 'cpu':
        raise InvalidSettingError('--backend', OPENVINO, f'{EAGER} on {device}',
                                  'or add --device cpu')
    _check_out(given.out)
    base = open_model(given.base, '--from', custom_encoders=given.custom_encoders)
    unfrozen = given.unfreeze != 'none'
    check_base(base, unfrozen)
    if not isinstance(base.network.heads, MultiHeadMLP):
        base = with_fusion_block(base)
    unfreeze = UnfreezeSettings(
        given.unfreeze, given.epochs, given.seed, given.teacher, device, given.workers,
        given.backend == OPENVINO,
    ) if unfrozen else None
    _check_unfreeze(given)
    added = parse_added(given.add_modalities)
    base = with_added_modalities(base, added) if added else base
    bags = BagSettings(
        tuple(given.recordings), given.labels, given.windows, tuple(given.topics),
        given.parameters, given.background, bucket_cache=given.bucket_cache)
    old = load_statistics(base) if given.add_classes else None
    known = base.vocabulary if given.add_classes else None
    labelled = open_labels(bags, given.classes_map, given.split_by, known)
    report_labels(labelled, base.spec, known)
    command = shlex.join(['karmma', 'finetune', *arguments])
    with Bars() as bars:
        labelled = extract(labelled, base, Path(given.cache or Path('.cache') / 'bags'), bars,
                           workers)
        modalities = base.network.modalities
        check_added(labelled, base.spec, added)
        if old is None:
            base = with_concatenated_heads(without_missing(base, labelled))
        inference = Inference(16, given.workers, worker_device(given, workers),
                              openvino=given.backend == OPENVINO)
        features = compute_features(labelled, base, inference, bars, workers)
    report_sensors(labelled, base, modalities)
    with Bars() as bars:
        fitted = (fit_heads(base, features, labelled, settings, bars) if old is None else
                  fit_added(base, features, labelled, settings, bars, old))
    if unfreeze is not None and not fitted.interrupted:
        with Bars() as bars:
            unfrozen = train_unfrozen(base, labelled, unfreeze, labelled.cache, bars)
        base = replace(base, network=unfrozen.network)
        with Bars() as bars:
            features = compute_features(labelled, base, inference, bars, workers)
        for line in fitted.notes:
            print(f'note: {line}')
        fitted = fitted_of(unfrozen, features, labelled, fitted, unfreeze)
        fitted.interrupted = unfrozen.stopped
    for line in fitted.notes:
        print(f'note: {line}')
    write_model(given.out, base, labelled, features, fitted, command, _options(given), began)
    return 130 if fitted.interrupted else 0


def check_base(base: Bundle, unfreeze: bool = False) -> None:
    """
    Check that new heads can be trained over a model.

    :param unfreeze: whether its fusion block is trained, too.
    :raises InvalidSettingError: when it has no fusion block, or one that is not trained.
    """
    base.vocabulary.check_softmax('fine-tuning')
    problem = str(base.source.get(UNTRAINED, ''))
    if not isinstance(base.network.heads, MultiHeadMLP):
        problem = f'fusion {base.config.fusion}, which has no block below its heads'
    if problem and not unfreeze:
        raise InvalidSettingError(
            '--from', str(base.path), 'a model whose fusion block is trained',
            f'{problem}; add --unfreeze fusion, which trains one over its frozen encoders')


def _check_unfreeze(given: Namespace) -> None:
    if given.unfreeze != 'none' and given.add_classes:
        raise InvalidSettingError('--unfreeze', given.unfreeze, 'none with --add-classes',
                                  'the old classes would be lost')
    if given.add_modalities and given.unfreeze != 'all':
        raise InvalidSettingError(
            '--add-modalities', ', '.join(given.add_modalities), 'none without --unfreeze all',
            'encoders from nothing have to be trained')
    if given.teacher and given.unfreeze == 'none':
        raise InvalidSettingError('--teacher', given.teacher, 'a model with --unfreeze',
                                  'heads alone are not distilled: add --unfreeze all')


def _check_out(out: Path) -> None:
    check_writable(out, '--out')
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (
            (out / CONFIG).exists() or (out / WEIGHTS).exists()):
        raise InvalidSettingError(
            '--out', str(out), 'a new directory, or that of a model, which is replaced')


def _options(given: Namespace) -> dict[str, object]:
    options = {name: value for name, value in vars(given).items() if name != 'base'}
    return {'from': given.base, **{
        name: str(value) if isinstance(value, Path) else value
        for name, value in options.items()}}


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma finetune', 'Train a model of other classes from labelled bags. Encoders and '
        'fusion block of a model stay as they are, unless --unfreeze is given; new heads are '
        'trained over them in minutes.',
        'RECORDING ... --labels FILE --from MODEL --out DIR [OPTION ...]')
    parser.add_argument('recordings', nargs='+', type=str, metavar='RECORDING', help='bags '
                        'or videos: files, folders of a bag, or folders that contain some; also '
                        's3://BUCKET/PATH and other URLs, with * for any name')
    parser.add_argument('--labels', required=True, type=str, metavar='FILE', help='label file: '
                        'recording, start, stop, verb, noun (or action), optionally split')
    parser.add_argument('--from', dest='base', required=True, type=str, metavar='MODEL',
                        help='model to start from: a name, a directory, or '
                        'hf://ORGANISATION/NAME@REVISION on the Hub')
    add_output_option(parser, 'model directory to write; the record of the run is in its folder '
                      'run')
    parser.add_argument('--add-classes', action='store_true', help='keep the classes of the '
                        'model and add those of the labels, without the data of the old ones')
    parser.add_argument('--classes-map', type=str, default='', metavar='FILE', help='table with '
                        'the columns label, verb, noun or label, action that renames classes; a '
                        'label without a class in it is dropped')
    parser.add_argument('--split-by', type=str, default=RECORDING, metavar='COLUMN',
                        help='what no two folds share: recording, or a column of the label '
                        'file such as person or place, which no two splits may share either')
    parser.add_argument('--background', type=str, default='', metavar='CLASS', help='class that '
                        'stands for no action (default: nothing, if it is a class)')
    parser.add_argument('--windows', type=int, default=5, help='windows of each segment')
    parser.add_argument('--topics', type=str, nargs='+', default=[], metavar='MODALITY=TOPIC',
                        help='topics of the bags; the others are chosen by their types')
    parser.add_argument('--parameters', type=str, default='', metavar='YAML', help='parameter '
                        'file of the node whose timeouts and thresholds hold')
    parser.add_argument('--steps', type=int, default=HeadSettings.steps,
                        help='optimizer steps of the heads')
    parser.add_argument('--unfreeze', type=Literal['none', 'fusion', 'all'], default='none',
                        help='train also the fusion block, or all weights, after the heads')
    parser.add_argument('--add-modalities', type=str, nargs='+', default=[], metavar='MODALITY',
                        help='sensors that the model lacks and the bags have, such as imu or '
                        '"skeleton={joints: 20}": their encoders start from nothing, with '
                        '--unfreeze all')
    parser.add_argument('--epochs', type=int, default=20, help='passes over all windows with '
                        '--unfreeze')
    parser.add_argument('--teacher', type=str, default='', metavar='MODEL', help='model of the '
                        'same classes to distil from with --unfreeze')
    parser.add_argument('--seed', type=int, default=0, help='seed of the heads, the order of '
                        'windows and modality dropout')
    parser.add_argument('--workers', type=int, default=0, help='processes that load clips')
    parser.add_argument('--backend', type=Literal['eager', 'openvino'], default=EAGER, help='what '
                        'computes frozen encoders; openvino is several times as fast on a '
                        'processor')
    add_device_option(parser)
    add_worker_options(parser, 'bags that are extracted and encoded')
    add_bucket_option(parser)
    add_cache_option(parser)
    add_custom_encoders_option(parser)
    return parser
