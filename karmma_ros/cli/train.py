"""`karmma train`: train a model directory from a configuration, in the stages of the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import date
from functools import partial
import logging
import os
from pathlib import Path
import shlex
import sys
import time
from typing import Any

from karmma_ros.calibration import Calibration
from karmma_ros.cli.calibrate import calibrate
from karmma_ros.cli.main import dispatch
from karmma_ros.cli.open_data import open_data
from karmma_ros.cli.options import (
    add_cache_option,
    add_custom_encoders_option,
    add_output_option,
    check_writable,
    command_parser,
    CommandParser,
    data_cache,
    model_folder,
    open_model,
    this_machine,
)
from karmma_ros.cli.progress import Bars
from karmma_ros.clip import ClipSpec
from karmma_ros.data.datasets import cache_windows, clips_digest
from karmma_ros.data.samples import Splits
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import score, top1
from karmma_ros.evaluation.inference import collect
from karmma_ros.evaluation.model_card import accuracy_table, confidence_section, model_card
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.modality import Modality
from karmma_ros.model.backends.selection import choose_device
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import Bundle, save_bundle, WEIGHTS
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.hub import is_hub_reference
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.licences import inherited_licence, licence_note, with_licence
from karmma_ros.model.presets import only, preset, unimodal
from karmma_ros.model.pretrained import find_weights, load_pretrained
from karmma_ros.model.untrusted_files import digest_of_file
from karmma_ros.training.checkpoints import TrainingStopped
from karmma_ros.training.loaders import scoring_loader
from karmma_ros.training.precomputed import (
    CrossFittedTeacher,
    digest,
    FeatureCache,
    Inference,
    network_on_tokens,
    TeacherLogitCache,
)
from karmma_ros.training.run import RunSettings, train
from karmma_ros.training.stages import Pretraining, Stage, STAGES, StudentTraining, TeacherTraining
from karmma_ros.training.teacher import check_teacher, FrozenTeacher, Teacher
import torch


def main(arguments: Sequence[str]) -> int:
    """Run `karmma train STAGE …`."""
    return dispatch('karmma train', {name: text for name, (_, text) in STAGES.items()}, _run,
                    arguments)


def _run(name: str, arguments: list[str]) -> int:
    stage = STAGES[name][0]
    parser = _parser(name, stage)
    given = parser.parse_args(arguments)
    plain = parser.instantiate(given)
    settings = stage(**{name: plain[name] for name in _fields(stage)})
    run_dir = Path(
        given.run_dir or Path('.cache') / 'train' / '_'.join(given.out.parts).strip('/')
    )
    # Lightning's tips and the like; warnings are still printed.
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    command = shlex.join(['karmma', 'train', name, *arguments])
    try:
        run_stage(settings, given.out, run_dir, data_cache(given, settings.data), command)
    except TrainingStopped as stop:
        print(f'karmma train: {stop}', file=sys.stderr)
        return 130
    return 0


def _fields(stage: type[Stage]) -> list[str]:
    return [field.name for field in fields(stage)]


def _parser(name: str, stage: type[Stage]) -> CommandParser:
    parser = command_parser(
        f'karmma train {name}', stage.__doc__, '--config YAML --out DIR [OPTION ...]')
    parser.add_argument('--config', action='config', metavar='YAML',
                        help='configuration, such as one of config/train/; options after it '
                        'override it')
    add_output_option(parser, 'model directory to write')
    parser.add_argument(
        '--run-dir', type=str, default='', metavar='DIR', help='directory for checkpoints, logs '
        'and caches, from which a stopped run resumes (default: .cache/train/ and the parts of '
        '--out)')
    add_cache_option(parser)
    if issubclass(stage, TeacherTraining):
        parser.add_argument('--cache-features', type=bool, default=True, help="keep the encoders' "
                            'tokens of every clip on disk, so that an epoch takes seconds')
    if issubclass(stage, StudentTraining):
        parser.add_argument('--cache-teacher', type=bool, default=True, help="keep the teacher's "
                            'logits of every clip and subset on disk')
        add_custom_encoders_option(parser)
    parser.add_class_arguments(
        stage, skip={'cache_features', 'cache_teacher', 'custom_encoders'} & {*_fields(stage)})
    return parser


def run_stage(settings: Stage, out: Path, run_dir: Path, cache: Path, command: str) -> None:
    """Train one stage and write the model directory `out`."""
    began = time.monotonic()
    check_writable(out, '--out')
    config = architecture(settings)
    if settings.base and settings.data.clip is None:
        clip = open_model(settings.base, 'base', named=False).spec
        settings = replace(settings, data=replace(settings.data, clip=clip))
    # What is wrong with these is reported before the data set is opened.
    _device(settings.run)
    for modality in config.modalities:
        if config.encoders[modality].weights:
            find_weights(config.encoders[modality])
    with Bars() as bars:
        splits = open_data(settings.data, None, cache, bars)
    torch.manual_seed(settings.run.seed)
    network = build(config, splits.spec, splits.vocabulary)
    _load_weights(settings, network, config, splits.spec)
    if isinstance(settings, TeacherTraining) and settings.cache_features:
        _train_on_tokens(settings, network, splits, run_dir)
    else:
        with Bars() as bars:
            splits = cache_windows(splits, settings.data, network.modalities, cache,
                                   max(1, settings.run.workers), bars)
        teacher = _teacher(settings, network, splits, run_dir, cache)
        train(network, splits.train, splits.validation, settings.run, run_dir / 'run', teacher,
              _facts(settings, network, splits))
    if int(os.environ.get('RANK', os.environ.get('LOCAL_RANK', '0'))):
        return  # only the first of several processes writes the model
    calibration, problem = Calibration(), ''
    if not isinstance(settings, Pretraining):
        calibration, problem = _calibrate(network, splits, settings.run)
    _write(out, network, config, splits, settings.run, command, began, calibration, problem,
           _licences(config, settings))


def _load_weights(
    settings: Stage, network: Karmma, config: ModelConfig, spec: ClipSpec
) -> None:
    """
    Load the initial weights of the encoders, and print a report on each.

    :raises InvalidSettingError: for weights that do not fit, unless the settings allow it.
    """
    models = {Modality.parse(name) for name, weights in settings.weights.items()
              if _is_model(weights)}
    # Trained on tokens, encoders are frozen whatever the preset is.
    frozen = isinstance(settings, TeacherTraining) and settings.cache_features
    allowed = settings.allow_mismatched_weights
    reports = load_pretrained(network, config, spec, frozen=frozen, allow_mismatch=allowed)
    for modality, report in reports.items():
        print(f'{modality}: {report}')
        # What the weights of a library lack is left to training.
        if modality in models and report.random and not allowed:
            raise InvalidSettingError(
                f'weights.{modality}', report.source,
                f'a model whose {modality} encoder is that of {settings.preset}',
                f'pretrain it with --preset {settings.preset}')


def architecture(settings: Stage) -> ModelConfig:
    """
    Return the architecture that a stage trains.

    :raises InvalidSettingError: for an unknown preset or modality.
    """
    config = _base_architecture(settings.base) if settings.base else preset(settings.preset)
    given = {Modality.parse(m): encoder for m, encoder in settings.encoders.items()}
    config = replace(config, encoders={**config.encoders, **given})
    wanted = list(settings.modalities)
    if isinstance(settings, Pretraining):
        wanted.append(settings.modality)
    encoders = {**config.encoders, **only(config, wanted).encoders}
    for name, weights in settings.weights.items():
        modality = Modality.parse(name)
        if modality not in encoders:
            raise InvalidSettingError(
                'weights', name, ', '.join(encoders), f'{settings.preset} has no other encoders')
        if _is_model(weights):
            weights = str(model_folder(weights, f'weights.{name}', named=False) / WEIGHTS)
        encoders[modality] = replace(encoders[modality], weights=weights)
    config = only(replace(config, encoders=encoders), settings.modalities)
    if isinstance(settings, Pretraining):
        return unimodal(config, Modality.parse(settings.modality))
    return config


def _base_architecture(base: str) -> ModelConfig:
    """Return the architecture of a model, with encoders that start from its weights."""
    bundle = open_model(base, 'base', named=False)
    encoders = {m: replace(encoder, weights=str(bundle.path / WEIGHTS))
                for m, encoder in bundle.config.encoders.items()}
    # Pairs are of its own classes; the classifiers are new ones.
    return replace(bundle.config, preset=bundle.name, encoders=encoders, pairs={})


def _licences(config: ModelConfig, settings: Stage) -> dict[str, Any]:
    """Return what is stored of the licences of the models that a training starts from."""
    folders = [Path(encoder.weights).parent for encoder in config.encoders.values()
               if Path(encoder.weights).name == WEIGHTS]
    if isinstance(settings, StudentTraining):
        folders += [model_folder(each, 'teacher', named=False)
                    for each in (settings.teacher, *settings.fold_teachers.values()) if each]
    return inherited_licence(folders)


def _is_model(weights: str) -> bool:
    return is_hub_reference(weights) or bool(weights) and Path(weights).is_dir()


def _train_on_tokens(
    settings: TeacherTraining, network: Karmma, splits: Splits, run_dir: Path
) -> None:
    """Train what follows the encoders on their cached tokens."""
    clips = {}
    with Bars() as bars:
        for name in ('train', 'validation'):
            split = getattr(splits, name)
            clips[name] = FeatureCache.build(
                run_dir / 'tokens' / name, network, split, clips_digest(split, settings.data),
                _inference(settings.run, partial(bars, f'tokens of {name}')))
    optimizer = replace(settings.run.optimizer, augmentation=0.0, corruption=0.0)
    train(network_on_tokens(network.cpu(), clips['train']), clips['train'], clips['validation'],
          replace(settings.run, optimizer=optimizer), run_dir / 'run',
          facts=_facts(settings, network, splits))
    network.eval()


def _facts(settings: Stage, network: Karmma, splits: Splits) -> dict[str, Any]:
    """Return what decides a run beside its settings, before its first step."""
    facts = {
        'classes': {head: list(names) for head, names in splits.vocabulary.heads.items()},
        'training clips': clips_digest(splits.train, settings.data),
        'validation clips': clips_digest(splits.validation, settings.data),
        'initial weights': digest(network)}
    if isinstance(settings, StudentTraining):
        facts['teacher'] = {fold: digest_of_file(
            model_folder(folder, 'teacher', named=False) / WEIGHTS).hex()
            for fold, folder in settings.teachers.items()}
    return facts


def _teacher(
    settings: Stage, student: Karmma, splits: Splits, run_dir: Path, cache: Path
) -> Teacher | None:
    if not isinstance(settings, StudentTraining):
        return None
    if settings.fold_teachers:
        _check_folds(settings, splits)
    networks, clips = {}, {}
    for fold, folder in settings.teachers.items():
        bundle = open_model(
            folder, 'teacher', custom_encoders=settings.custom_encoders, named=False)
        own = splits
        if settings.cache_teacher and bundle.spec != splits.spec:
            own = _clips_of_teacher(settings, bundle, splits, cache)
        check_teacher(bundle, student, own.spec, splits.vocabulary)
        networks[fold], clips[fold] = bundle.network, own.train
    if not settings.cache_teacher or not networks:
        return FrozenTeacher(networks['']) if networks else None
    caches = {}
    with Bars() as bars:
        for i, (fold, network) in enumerate(networks.items()):
            title = f"the teacher's logits, without {fold}" if fold else "the teacher's logits"
            caches[fold] = TeacherLogitCache.build(
                run_dir / (f'logits_{i}' if fold else 'logits'), network, clips[fold],
                clips_digest(clips[fold], settings.data),
                _inference(settings.run, partial(bars, title)))
    return CrossFittedTeacher(caches, splits.folds) if settings.fold_teachers else caches['']


def _clips_of_teacher(
    settings: StudentTraining, bundle: Bundle, splits: Splits, cache: Path
) -> Splits:
    """Open the same clips as a teacher takes them, such as with flow of another size."""
    if bundle.spec.duration != splits.spec.duration:
        return splits  # it would see something else; `check_teacher` refuses it
    with Bars() as bars:
        cache /= 'teacher'  # what is kept for the student is in use
        own = open_data(settings.data, bundle.spec, cache, bars)
        return cache_windows(own, settings.data, bundle.network.modalities, cache,
                             max(1, settings.run.workers), bars)


def _check_folds(settings: StudentTraining, splits: Splits) -> None:
    folds = sorted(set(splits.folds))
    if not folds or set(folds) != set(settings.fold_teachers):
        raise InvalidSettingError(
            'fold_teachers', ', '.join(settings.fold_teachers),
            f'the folds of the training clips, {", ".join(folds)}' if folds else
            'a data set that names folds, as the column fold of a manifest')
    if settings.teacher or not settings.cache_teacher:
        raise InvalidSettingError(
            'teacher' if settings.teacher else 'cache_teacher',
            settings.teacher or settings.cache_teacher,
            'none beside fold_teachers' if settings.teacher else 'true beside fold_teachers')


def _inference(settings: RunSettings, progress: Callable[[int, int], None]) -> Inference:
    return Inference(workers=settings.workers, device=_device(settings), progress=progress)


def _device(settings: RunSettings) -> str:
    return choose_device(settings.device, 'run.device')


def _calibrate(
    network: Karmma, splits: Splits, settings: RunSettings
) -> tuple[Calibration, str]:
    """Return the calibration, or an empty one and why there is none."""
    try:
        with Bars() as bars:
            return calibrate(network, splits, _device(settings), settings.workers, bars)[0], ''
    except InvalidSettingError as error:
        return Calibration(), str(error)


def _confidence(
    predictions: DatasetPredictions, calibration: Calibration, problem: str
) -> str:
    """Return what the card states about the confidence."""
    if not calibration:
        return f'The probabilities are not calibrated: {problem}.' if problem else ''
    return confidence_section(score(predictions, calibration), calibration)


def _write(
    out: Path, network: Karmma, config: ModelConfig, splits: Splits, settings: RunSettings,
    command: str, began: float, calibration: Calibration, problem: str, source: Mapping[str, Any],
) -> None:
    device = _device(settings)
    with Bars() as bars:
        batches = scoring_loader(splits.test, network.modalities, 32, settings.workers)
        predictions = collect(network.to(device), batches, device,
                              bars.counter('scoring every subset', len(splits.test)))
    scores, confidence = top1(predictions), _confidence(predictions, calibration, problem)
    print(accuracy_table(scores), *([confidence] if confidence else []), sep='\n\n')
    save_bundle(
        out, network.cpu(), config, splits.spec, splits.vocabulary,
        dataset=splits.name + licence_note(source),
        card=with_licence(model_card(
            name=out.name, dataset=splits.name, vocabulary=splits.vocabulary,
            parameters=sum(p.numel() for p in network.parameters()), scores=scores,
            clips=len(splits.test), command=command,
            provenance=f'{date.today()}, {this_machine()}, '
                 f'{(time.monotonic() - began) / 60:.0f} minutes in all.',
            calibration=confidence), source),
        metrics={'test_top1': scores}, calibration=calibration, source=source)
    print(f'wrote {out}')
