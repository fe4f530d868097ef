"""
The experiments of the reproduction: each trains and scores one network, in a folder of its own.

An experiment is described by settings alone. Its key is a digest of them and of those of the
experiments that it builds on, so that a result is reused exactly where it would be the same.
`run_all` runs them on workers, each as soon as its dependencies are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
import json
import logging
import os
from pathlib import Path
import time
from typing import Any
import warnings

from karmma_ros.cluster.engine import (
    check_shared,
    map_tasks,
    Report,
    Workers,
    WorkerStoppedError,
)
from karmma_ros.data.samples import Clips, Splits
from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings, open_splits
from karmma_ros.data.synthetic_kitchen.dataset import VERSION as KITCHEN_VERSION
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.errors import KarmmaError
from karmma_ros.evaluation.classification import score
from karmma_ros.evaluation.inference import collect
from karmma_ros.evaluation.schema import to_json
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.karmma import Karmma
from karmma_ros.storage import fingerprint, write_atomically
from karmma_ros.training.loaders import scoring_loader
from karmma_ros.training.precomputed import FeatureCache, network_on_tokens, TeacherLogitCache
from karmma_ros.training.run import RunSettings, train
import torch

VERSION = 1
"""Increases whenever equal settings would give other results."""

ENCODER, ENSEMBLE, TOKENS, TEACHER, STUDENT = (
    'encoder', 'ensemble', 'tokens', 'teacher', 'student')
RESULT = 'result.json'
SPLITS = ('train', 'validation', 'test')


@dataclass(frozen=True)
class Experiment:
    """What is trained, from what, and how."""

    name: str
    """Path-like: what it is, and the seed."""
    role: str
    """
    `encoder`: one encoder with a classifier. `ensemble`: encoders side by side, not trained.
    `tokens`: the tokens of frozen encoders for every clip. `teacher`: fusion over those tokens.
    `student`: all of a network.
    """
    config: ModelConfig
    run: RunSettings = field(default_factory=RunSettings)
    encoders: Mapping[Modality, str] = field(default_factory=dict)
    """Modality → experiment that its encoder comes from."""
    tokens: str = ''
    """Teacher: the experiment with the tokens."""
    teacher: str = ''
    """Student: the experiment that it is distilled from."""
    pretraining: KitchenSettings | None = None
    """Clips whose training split to train on in place of the data set's own; with other classes
    it is validated and scored on them, too."""

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Return the experiments that must be done first."""
        others = (*self.encoders.values(), self.tokens, self.teacher)
        return tuple(dict.fromkeys(name for name in others if name))


Experiments = Mapping[str, Experiment]
"""Name → experiment, dependencies first."""


@dataclass(frozen=True)
class ExperimentResult:
    """The result of one experiment on the test split."""

    key: str
    """Digest of all that decides it."""
    minutes: float
    top1: Mapping[str, Mapping[str, float]] | None = None
    """Subset → head, and the action, → accuracy, 0 to 1; absent where nothing is classified."""
    calibration_error: Mapping[str, Mapping[str, float]] | None = None
    """The same keys → expected calibration error."""
    trainable_parameters: int | None = None

    def accuracy(self, subset: str | None = None, key: str = 'action') -> float:
        """Return a top-1 accuracy; without a subset, that of all modalities it takes."""
        top1 = self.top1 or {}
        return (next(iter(top1.values())) if subset is None else top1[subset])[key]


def key_of(experiment: Experiment, experiments: Experiments, data: KitchenSettings) -> str:
    """Return the digest of all that decides a result, 16 hexadecimal digits."""
    run = asdict(experiment.run)
    for irrelevant in ('workers', 'progress', 'checkpoint_minutes', 'device', 'devices'):
        del run[irrelevant]
    clips = asdict(data)
    others = asdict(experiment.pretraining) if experiment.pretraining else {}
    # At these values they change nothing: results from before they existed stay valid.
    for settings, name, neutral in (
            (run, 'keep', 'best'), (run['optimizer'], 'mixup', 0.0),
            (run['optimizer'], 'corruption', 0.0), (run['optimizer'], 'encoder_lr_mult', 1.0),
            (clips, 'domain', 'kitchen'),
            (others, 'domain', 'kitchen'), (clips, 'idle', 0.0), (others, 'idle', 0.0),
            *((each, name, ()) for each in (clips, others) for name in ('verbs', 'nouns'))):
        if settings.get(name) == neutral:
            del settings[name]
    facts = {
        'versions': [VERSION, KITCHEN_VERSION], 'kind': experiment.role, 'run': run,
        'config': experiment.config.to_dict(), 'data': clips,
        'pretraining': others or None,
        'clip': clip_spec().to_dict(),
        'encoders': {m.value: name for m, name in experiment.encoders.items()},
        'needs': [key_of(experiments[n], experiments, data) for n in experiment.dependencies]}
    return fingerprint(facts)


class ExperimentRunner:
    """
    Runs experiments, each in a folder of its own; one that is done is not run again.

    :param root: folder of the experiments.
    :param cache: folder of the rendered data set.
    """

    def __init__(
        self, root: Path, cache: Path, experiments: Experiments, data: KitchenSettings
    ) -> None:
        self._root, self.cache = root, cache
        self._experiments, self._data = experiments, data

    def folder(self, name: str) -> Path:
        """Return the folder of an experiment's present settings."""
        return self._root / name / self._key(name)

    def result(self, name: str) -> ExperimentResult | None:
        """Return the result of an experiment; None if it is not done."""
        try:
            return ExperimentResult(**json.loads((self.folder(name) / RESULT).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def run(self, name: str) -> ExperimentResult:
        """Train and score an experiment whose dependencies are done; resume a stopped one."""
        if (done := self.result(name)) is not None:
            return done
        experiment, folder = self._experiments[name], self.folder(name)
        splits = self._splits(experiment)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        network = self._network(experiment, splits)
        scores: dict[str, Any] = {}
        if experiment.role == TOKENS:
            for split in SPLITS:
                FeatureCache.build(
                    folder / split, network, getattr(splits, split), repr(self._data))
        else:
            scores = self._train(experiment, network, splits, folder)
        minutes = round((time.monotonic() - began) / 60, 2)
        result = ExperimentResult(self._key(name), minutes, **scores)
        write_atomically(folder / RESULT, json.dumps(to_json(result), indent=1))
        for checkpoint in (folder / 'run').glob('*.ckpt'):
            checkpoint.unlink()
        return result

    def _splits(self, experiment: Experiment) -> Splits:
        """Return what to train and score on: other classes are of other clips in every split."""
        splits = open_splits(self._data, clip_spec(), self.cache)
        if experiment.pretraining is None:
            return splits
        others = open_splits(experiment.pretraining, clip_spec(), self.cache)
        return replace(splits, train=others.train) if (
            others.vocabulary == splits.vocabulary) else others

    def _key(self, name: str) -> str:
        return key_of(self._experiments[name], self._experiments, self._data)

    def _train(
        self, experiment: Experiment, network: Karmma, splits: Splits, folder: Path
    ) -> dict[str, Any]:
        """Train a network, save it and what its students need, and score it."""
        trained, clips = network, {split: getattr(splits, split) for split in SPLITS}
        if experiment.role == TEACHER:
            features = self.folder(experiment.tokens)
            clips = {split: FeatureCache(features / split) for split in SPLITS}
            trained = network_on_tokens(network, clips['train'])
        if experiment.role != ENSEMBLE:
            teacher = experiment.teacher and TeacherLogitCache(
                self.folder(experiment.teacher) / 'logits')
            train(trained, clips['train'], clips['validation'], experiment.run, folder / 'run',
                  teacher or None)
        if any(other.teacher == experiment.name for other in self._experiments.values()):
            TeacherLogitCache.build(
                folder / 'logits', trained, clips['train'], repr(self._data))
        save_bundle(folder / 'model', network.eval(), experiment.config, splits.spec,
                    splits.vocabulary, dataset=splits.name, card=f'# {experiment.name}\n')
        return {**_scores(trained, clips['test']), 'trainable_parameters': sum(
            p.numel() for p in trained.parameters() if p.requires_grad)}

    def _network(self, experiment: Experiment, splits: Splits) -> Karmma:
        torch.manual_seed(experiment.run.seed)
        network = build(experiment.config, splits.spec, splits.vocabulary)
        for modality, source in experiment.encoders.items():
            pretrained = load_bundle(self.folder(source) / 'model').network
            network.encoders[modality.value].load_state_dict(
                pretrained.encoders[modality.value].state_dict())
            if experiment.role == ENSEMBLE:  # its embedding is the classifier
                network.embeddings[modality.value].load_state_dict(
                    pretrained.embeddings[modality.value].state_dict())
        return network


def _scores(network: Karmma, clips: Clips) -> dict[str, Any]:
    """Score every subset: top-1 accuracy of each head and the action, and calibration."""
    predictions = collect(network, scoring_loader(clips, network.modalities, 64))
    top1, error = {}, {}
    for subset, each in score(predictions).items():
        top1[subset] = {key: round(s.top1, 6) for key, s in each.scores.items()}
        error[subset] = {key: round(s.calibration_error, 6) for key, s in each.scores.items()}
    return {'top1': top1, 'calibration_error': error}


def with_dependencies(wanted: Iterable[str], experiments: Experiments) -> list[str]:
    """Return the wanted experiments and all dependencies, in the order of `experiments`."""
    needed: set[str] = set()
    pending = list(wanted)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += experiments[name].dependencies
    return [name for name in experiments if name in needed]


def run_all(
    runner: ExperimentRunner, experiments: Experiments, names: Sequence[str], workers: Workers,
    on_result: Callable[[str, ExperimentResult], None],
    note: Callable[[str], None] = lambda line: None,
) -> None:
    """
    Run experiments, several at a time; the first that fails stops the rest.

    :param names: with all dependencies (`with_dependencies`).
    :param on_result: called with name and result of each.
    :param note: called with sentences on workers that end, and on waiting for the first one.
    :raises KarmmaError: of an experiment, or when there is no such cluster.
    """
    numbers = {name: number for number, name in enumerate(names)}

    def take(number: int, outcome: ExperimentResult | KarmmaError) -> None:
        if isinstance(outcome, WorkerStoppedError):
            raise KarmmaError(f'experiment {names[number]}: {outcome}; free some memory, or give '
                              'a smaller --jobs') from outcome
        if isinstance(outcome, KarmmaError):
            raise outcome
        on_result(names[number], outcome)

    map_tasks(
        _run, names, partial(_prepared, runner, _threads(workers, len(names))), workers,
        on_result=take, note=note,
        needs={numbers[name]: [numbers[other] for other in experiments[name].dependencies]
               for name in names})


def _threads(workers: Workers, tasks: int) -> int:
    """Return the threads of each worker; 0: torch's default, in this process."""
    if workers.address:
        return workers.cpus
    count = min(workers.count, tasks)
    return max(1, (os.cpu_count() or 1) // count) if count > 1 else 0


def _prepared(runner: ExperimentRunner, threads: int) -> ExperimentRunner:
    check_shared('--cache', runner.cache)
    if threads:
        torch.set_num_threads(threads)
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore', module='lightning')
    return runner


def _run(runner: ExperimentRunner, name: str, report: Report) -> ExperimentResult:
    return runner.run(name)
