"""`karmma train`: from a configuration file to a model directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
import os
from pathlib import Path
import platform
import shlex
import time

from jsonargparse import ArgumentParser
from karmma_ros.data.synthetic_kitchen.cache import write_split
from karmma_ros.data.synthetic_kitchen.dataset import WrittenKitchen
from karmma_ros.data.synthetic_kitchen.rendering import clip_spec
from karmma_ros.data.synthetic_kitchen.vocabulary import Split, vocabulary
from karmma_ros.evaluation.card import model_card
from karmma_ros.evaluation.subsets import markdown, score_subsets
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.presets import preset
from karmma_ros.model.pretrained import load_pretrained
from karmma_ros.training.run import loader, RunSettings, train_student
from karmma_ros.training.teacher import FrozenTeacher
from rich.progress import Progress, TaskID
import torch


@dataclass(frozen=True)
class KitchenSettings:
    """How much of the Synthetic Kitchen to render."""

    train: int = 7200
    """Training clips."""
    validation: int = 800
    """Validation clips."""
    test: int = 1600
    """Test clips."""
    seed: int = 0
    """Seed of everything that is rendered."""


@dataclass(frozen=True)
class StudentTraining:
    """A student's training from data to bundle."""

    preset: str = 'tiny'
    """Architecture by name."""
    teacher: str = ''
    """Model directory to distil from; empty: cross-entropy alone."""
    data: KitchenSettings = field(default_factory=KitchenSettings)
    run: RunSettings = field(default_factory=RunSettings)


def main(arguments: Sequence[str]) -> int:
    """Run `karmma train STAGE …`."""
    student = ArgumentParser(description='Cross-entropy, and distillation where a '
                             'teacher is given, under modality dropout.')
    student.add_argument('--config', action='config', help='a file of config/train/')
    student.add_class_arguments(StudentTraining)
    student.add_argument('--out', type=str, required=True, help='model directory to write')
    student.add_argument(
        '--work', type=str, default='', help='folder of rendered clips, checkpoint and log; a '
        'stopped run goes on from what is there (default: .cache/train/ and the name of OUT)')
    parser = ArgumentParser(prog='karmma train', description='Train a recogniser.')
    parser.add_subcommands(dest='stage').add_subcommand('student', student, help='the student')
    given = parser.parse_args(list(arguments)).student
    plain = student.instantiate(given)
    settings = StudentTraining(plain.preset, plain.teacher, plain.data, plain.run)
    out = Path(given.out)
    work = Path(given.work or Path('.cache') / 'train' / out.name)
    _train_student(settings, out, work, shlex.join(['karmma', 'train', *arguments]))
    return 0


def _train_student(settings: StudentTraining, out: Path, work: Path, command: str) -> None:
    began = time.monotonic()
    torch.manual_seed(settings.run.seed)
    config = preset(settings.preset)
    network = build(config, clip_spec(), vocabulary())
    for modality, report in load_pretrained(network, config).items():
        print(f'{modality}: {report}')
    teacher = _teacher(settings.teacher, network)
    splits = _render(settings.data, work / 'clips')
    train_student(network, splits[Split.TRAIN], splits[Split.VALIDATION], settings.run,
                  work / 'run', teacher)
    scores = _score(network, splits[Split.TEST], settings.run)
    print(markdown(scores))
    machine = platform.processor() or platform.machine()
    save_bundle(
        out, network, config, clip_spec(), vocabulary(),
        dataset='Synthetic Kitchen',
        card=model_card(
            name=out.name, dataset='Synthetic Kitchen', vocabulary=vocabulary(),
            parameters=sum(p.numel() for p in network.parameters()), scores=scores,
            clips=len(splits[Split.TEST]), command=command,
            made=f'{date.today()}, {machine}, {os.cpu_count()} cores, torch {torch.__version__}, '
                 f'{(time.monotonic() - began) / 60:.0f} minutes in all.'),
        metrics={'test_top1': scores})
    print(f'wrote {out}')


def _teacher(path: str, student: Karmma) -> FrozenTeacher | None:
    if not path:
        return None
    teacher = FrozenTeacher(load_bundle(path))
    teacher.check(student, clip_spec(), vocabulary())
    return teacher


def _render(settings: KitchenSettings, folder: Path) -> dict[Split, WrittenKitchen]:
    splits = {}
    with Progress() as progress:
        for split, count in (
            (Split.TRAIN, settings.train),
            (Split.VALIDATION, settings.validation),
            (Split.TEST, settings.test),
        ):
            task = progress.add_task(f'rendering {split}', total=count)
            place = write_split(
                folder / f'{split}_{count}_{settings.seed}', split, count, settings.seed,
                clip_spec(), workers=os.cpu_count() or 1, progress=partial(_show, progress, task))
            progress.update(task, completed=count)
            splits[split] = WrittenKitchen(place)
    return splits


def _show(progress: Progress, task: TaskID, done: int, total: int) -> None:
    progress.update(task, completed=done, total=total)


def _score(
    network: Karmma, dataset: WrittenKitchen, settings: RunSettings
) -> dict[str, dict[str, float]]:
    with Progress() as progress:
        task = progress.add_task('scoring every subset', total=len(dataset))
        return score_subsets(
            network, loader(dataset, network.modalities, settings),
            progress=lambda samples: progress.advance(task, samples))
