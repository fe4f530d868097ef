"""One training run on Lightning: logs, progress, checkpoints, resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from karmma_ros.data.batch import Batch, collate, Sample
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.karmma import Karmma
from karmma_ros.training.student import Optimisation, StudentModule
from karmma_ros.training.teacher import FrozenTeacher
import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, Dataset, DistributedSampler

CHECKPOINT = 'last.ckpt'
"""Name of the checkpoint, in the folder of the run, that a later run resumes from."""


@dataclass(frozen=True)
class RunSettings:
    """How long and in which portions to train."""

    epochs: int = 100
    """Passes over the training split. Paper: 100."""
    batch_size: int = 6
    """Samples a step. Paper: 6 for the student, 32 for the teacher."""
    seed: int = 0
    """Seed of the weights, the order of samples, modality dropout and augmentation."""
    precision: str = '32-true'
    """Lightning's name of the arithmetic: `32-true`, `bf16-mixed`, …"""
    workers: int = 0
    """Processes that prepare batches beside the training."""
    optimisation: Optimisation = field(default_factory=Optimisation)

    def __post_init__(self) -> None:
        for name in ('epochs', 'batch_size'):
            if getattr(self, name) < 1:
                raise InvalidSettingError(name, getattr(self, name), 'an integer above 0')


def loader(
    dataset: Dataset[Sample],
    modalities: Sequence[Modality],
    settings: RunSettings,
    shuffle: bool = False,
) -> DataLoader[Batch]:
    """Give batches of a dataset; shuffled, the order depends on seed and epoch alone."""
    sampler: DistributedSampler[Sample] | None = None
    if shuffle:
        sampler = DistributedSampler(dataset, num_replicas=1, rank=0, seed=settings.seed)
    return DataLoader(
        cast(Any, dataset), settings.batch_size, sampler=sampler, drop_last=shuffle,
        num_workers=settings.workers, persistent_workers=settings.workers > 0,
        collate_fn=partial(collate, modalities=modalities))


def train_student(
    network: Karmma,
    training: Dataset[Sample],
    validation: Dataset[Sample],
    settings: RunSettings,
    folder: Path,
    teacher: FrozenTeacher | None = None,
) -> Karmma:
    """
    Train a network in place; a run that was stopped goes on from its last whole epoch.

    :param folder: keeps the checkpoint and the logs of the run.
    :param teacher: distil from it as well; None: cross-entropy alone.
    """
    last = folder / CHECKPOINT
    trainer = lightning.Trainer(
        max_epochs=settings.epochs,
        precision=cast(Any, settings.precision),
        gradient_clip_val=settings.optimisation.clip,
        logger=CSVLogger(folder, name='log'),
        callbacks=[ModelCheckpoint(
            folder, filename=CHECKPOINT.removesuffix('.ckpt'), enable_version_counter=False)],
        log_every_n_steps=20,
    )
    trainer.fit(
        StudentModule(network, settings.optimisation, settings.seed, teacher),
        loader(training, network.modalities, settings, shuffle=True),
        loader(validation, network.modalities, settings),
        ckpt_path=str(last) if last.is_file() else None,
        weights_only=False,
    )
    return network.eval()
