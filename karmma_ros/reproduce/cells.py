"""
One trained and scored network of the reproduction, and how it comes about.

A cell is described by settings alone. Its key is a digest of them and of those of the cells
that it builds on, so that a result is used again exactly where it would come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
import hashlib
import json
import logging
import multiprocessing
import os
from pathlib import Path
import signal
import time
from typing import Any
import warnings

from karmma_ros.data.samples import Clips, Splits
from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings, open_splits
from karmma_ros.data.synthetic_kitchen.dataset import VERSION as KITCHEN_VERSION
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.evaluation.classification import score
from karmma_ros.evaluation.inference import collect
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.karmma import Karmma
from karmma_ros.training.loaders import scoring_loader
from karmma_ros.training.precomputed import FeatureCache, network_on_tokens, TeacherLogitCache
from karmma_ros.training.run import RunSettings, train
import torch

VERSION = 1
"""Grows whenever equal settings would give other results."""

ENCODER, ENSEMBLE, TOKENS, TEACHER, STUDENT = (
    'encoder', 'ensemble', 'tokens', 'teacher', 'student')
RESULT = 'result.json'
SPLITS = ('train', 'validation', 'test')


@dataclass(frozen=True)
class Experiment:
    """What is trained, from what, and how."""

    name: str
    """Path-like: what it is, and the seed."""
    kind: str
    """
    `encoder`: one encoder with a classifier. `ensemble`: encoders side by side, not trained.
    `tokens`: what frozen encoders say of every clip. `teacher`: fusion over those tokens.
    `student`: all of a network.
    """
    config: ModelConfig
    run: RunSettings = field(default_factory=RunSettings)
    encoders: Mapping[Modality, str] = field(default_factory=dict)
    """Modality → cell that its encoder comes from."""
    tokens: str = ''
    """Teacher: the cell with the tokens."""
    teacher: str = ''
    """Student: the cell that it is taught by."""
    pretraining: KitchenSettings | None = None
    """Clips whose training split to train on in place of the data set's own."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the cells that must be there first."""
        others = (*self.encoders.values(), self.tokens, self.teacher)
        return tuple(dict.fromkeys(name for name in others if name))


def key_of(cell: Experiment, cells: Mapping[str, Experiment], data: KitchenSettings) -> str:
    """Return the digest of all that decides a cell's result, 16 hexadecimal digits."""
    run = asdict(cell.run)
    for unimportant in ('workers', 'progress', 'checkpoint_minutes', 'device', 'devices'):
        del run[unimportant]
    facts = {
        'versions': [VERSION, KITCHEN_VERSION], 'kind': cell.kind, 'run': run,
        'config': cell.config.to_dict(), 'data': asdict(data),
        'pretraining': cell.pretraining and asdict(cell.pretraining),
        'clip': clip_spec().to_dict(),
        'encoders': {m.value: name for m, name in cell.encoders.items()},
        'needs': [key_of(cells[name], cells, data) for name in cell.needs]}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


class ExperimentRunner:
    """
    Makes cells, each in a folder of its own; what is there already is not made again.

    :param root: folder of the cells.
    :param cache: folder of the rendered data set.
    """

    def __init__(self, root: Path, cache: Path, cells: Mapping[str, Experiment],
                 data: KitchenSettings) -> None:
        self._root, self._cache = root, cache
        self._cells, self._data = cells, data

    def splits(self) -> Splits:
        """Open the data set."""
        return open_splits(self._data, clip_spec(), self._cache)

    def folder(self, name: str) -> Path:
        """Return the folder of a cell's present settings."""
        key = key_of(self._cells[name], self._cells, self._data)
        return self._root / name / key

    def result(self, name: str) -> dict[str, Any] | None:
        """Return the result of a cell; None, if it was not made to its end."""
        try:
            return dict(json.loads((self.folder(name) / RESULT).read_text()))
        except (OSError, ValueError):
            return None

    def make(self, name: str) -> dict[str, Any]:
        """Train and score a cell whose needs are there; go on where an earlier try stopped."""
        if (done := self.result(name)) is not None:
            return done
        cell, folder, splits = self._cells[name], self.folder(name), self.splits()
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        network = self._network(cell, splits)
        result = {} if cell.kind == TOKENS else self._train(cell, network, splits, folder)
        if cell.kind == TOKENS:
            for split in SPLITS:
                FeatureCache.build(
                    folder / split, network, getattr(splits, split), repr(self._data))
        result['minutes'] = round((time.monotonic() - began) / 60, 2)
        partial = folder / (RESULT + '.partial')
        partial.write_text(json.dumps(result, indent=1))
        partial.replace(folder / RESULT)
        for checkpoint in (folder / 'run').glob('*.ckpt'):
            checkpoint.unlink()
        return result

    def _train(
        self, cell: Experiment, network: Karmma, splits: Splits, folder: Path
    ) -> dict[str, Any]:
        """Train a network, keep it and what its students need, and score it."""
        trained, clips = network, {split: getattr(splits, split) for split in SPLITS}
        if cell.pretraining is not None:
            clips['train'] = open_splits(cell.pretraining, clip_spec(), self._cache).train
        if cell.kind == TEACHER:
            place = self.folder(cell.tokens)
            clips = {split: FeatureCache(place / split) for split in SPLITS}
            trained = network_on_tokens(network, clips['train'])
        if cell.kind != ENSEMBLE:
            train(trained, clips['train'], clips['validation'], cell.run, folder / 'run',
                  self._teacher(cell))
        if any(other.teacher == cell.name for other in self._cells.values()):
            TeacherLogitCache.build(
                folder / 'logits', trained, clips['train'], repr(self._data))
        save_bundle(folder / 'model', network.eval(), cell.config, splits.spec,
                    splits.vocabulary, dataset=splits.name, card=f'# {cell.name}\n')
        result = _scores(trained, clips['test'])
        result['trained'] = sum(p.numel() for p in trained.parameters() if p.requires_grad)
        return result

    def _network(self, cell: Experiment, splits: Splits) -> Karmma:
        torch.manual_seed(cell.run.seed)
        network = build(cell.config, splits.spec, splits.vocabulary)
        for modality, source in cell.encoders.items():
            given = load_bundle(self.folder(source) / 'model').network
            network.encoders[modality.value].load_state_dict(
                given.encoders[modality.value].state_dict())
            if cell.kind == ENSEMBLE:  # there the embedding is the classifier
                network.embeddings[modality.value].load_state_dict(
                    given.embeddings[modality.value].state_dict())
        return network

    def _teacher(self, cell: Experiment) -> TeacherLogitCache | None:
        return TeacherLogitCache(self.folder(cell.teacher) / 'logits') if cell.teacher else None


def _scores(network: Karmma, clips: Clips) -> dict[str, Any]:
    """Score every subset: top-1 accuracy of each head and the action, and calibration."""
    predictions = collect(network, scoring_loader(clips, network.modalities, 64))
    top1, error = {}, {}
    for subset, found in score(predictions).items():
        top1[subset] = {key: round(s.top1, 6) for key, s in found.scores.items()}
        error[subset] = {key: round(s.calibration_error, 6) for key, s in found.scores.items()}
    return {'top1': top1, 'calibration_error': error}


Made = Callable[[str, Mapping[str, Any]], None]


def with_needs(wanted: Iterable[str], cells: Mapping[str, Experiment]) -> list[str]:
    """Return the wanted cells and all that they need, in the order of `cells`."""
    found: set[str] = set()
    open_ones = list(wanted)
    while open_ones:
        name = open_ones.pop()
        if name not in found:
            found.add(name)
            open_ones += cells[name].needs
    return [name for name in cells if name in found]


def make_all(
    workshop: ExperimentRunner,
    cells: Mapping[str, Experiment],
    names: Iterable[str],
    jobs: int,
    made: Made,
) -> None:
    """
    Make cells, `jobs` at a time; the first that fails stops the rest.

    :param names: with all that they need (`with_needs`).
    :param made: called with name and result of each.
    """
    waiting = list(names)
    done: set[str] = set()
    running: dict[Future[dict[str, Any]], str] = {}
    # Not fork: torch's threads would not survive it.
    context = multiprocessing.get_context('spawn')
    threads = max(1, (os.cpu_count() or 1) // jobs)
    pool = ProcessPoolExecutor(jobs, context, initializer=_prepare, initargs=(threads,))
    try:
        while waiting or running:
            for name in [n for n in waiting if done.issuperset(cells[n].needs)]:
                if len(running) == jobs:
                    break
                waiting.remove(name)
                running[pool.submit(workshop.make, name)] = name
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                name = running.pop(future)
                made(name, future.result())
                done.add(name)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(threads: int) -> None:
    # An interrupt stops a training between two steps (its Keeper sees to it); what follows the
    # training takes seconds and is finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore', module='lightning')
