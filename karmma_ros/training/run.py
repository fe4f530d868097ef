"""One training run on Lightning: logs, progress, checkpoints, resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast
import warnings

from karmma_ros.data.samples import Batch, Clips, with_modalities
from karmma_ros.errors import DISK_FULL, InvalidSettingError
from karmma_ros.modality import subset_name
from karmma_ros.model.backends.selection import AUTO, choose_device
from karmma_ros.model.karmma import Karmma
from karmma_ros.training.checkpoints import (
    check_run,
    CHECKPOINT,
    CheckpointError,
    read_checkpoint,
    ResumeCheckpoint,
)
from karmma_ros.training.input_corruption import InputCorruption
from karmma_ros.training.loaders import EpochSampler, scoring_loader, training_loader
from karmma_ros.training.module import OptimizerSettings, RecognitionModule
from karmma_ros.training.teacher import Teacher
import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
import torch
from torch.utils.data import DataLoader

BEST = 'best.ckpt'
"""Name of the checkpoint of the highest action accuracy on the validation split."""


@dataclass(frozen=True)
class RunSettings:
    """Duration, batches and devices of a training run."""

    epochs: int = 100
    """Passes over the training split. Paper: 100."""
    batch_size: int = 6
    """Samples per optimizer step, over all devices. Paper: 6 for the student, 32 for the
    teacher."""
    accumulate_batches: int = 1
    """Batches into which a step is divided to save memory; the result is the same."""
    seed: int = 0
    """Seed of the weights, the order of samples, modality dropout and augmentation."""
    precision: str = '32-true'
    """Precision by Lightning's name: `32-true`, `bf16-mixed`, …"""
    workers: int = 0
    """Processes that load batches, for each device."""
    device: str = AUTO
    """`auto`, `cpu`, `cuda` or `cuda:N`; `auto` takes CUDA devices if there are any."""
    devices: str = '1'
    """Number of devices, the first ones of their kind; `auto`: all. 1 for a `cuda:N`."""
    nodes: int = 1
    """Machines that train together, started by `torchrun` or SLURM."""
    checkpoint_minutes: float = 10.0
    """A checkpoint is written this often, and after every epoch."""
    validate_every: int = 1
    """Epochs between two validations."""
    keep: str = 'best'
    """`best`: the weights of the epoch with the highest action accuracy on the validation split;
    `last`: those of the last epoch, which no split chooses: for one too small to choose."""
    progress: bool = True
    """Show a progress bar."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """Optimizer, regularisation and weights of the losses."""

    def __post_init__(self) -> None:
        for name in ('epochs', 'batch_size', 'accumulate_batches', 'nodes', 'validate_every'):
            if getattr(self, name) < 1:
                raise InvalidSettingError(name, getattr(self, name), 'an integer above 0')
        if self.keep not in ('best', 'last'):
            raise InvalidSettingError('keep', self.keep, 'best or last')
        if not self.checkpoint_minutes > 0:
            raise InvalidSettingError(
                'checkpoint_minutes', self.checkpoint_minutes, 'a number above 0')


def train(
    network: Karmma,
    training: Clips,
    validation: Clips,
    settings: RunSettings,
    folder: Path,
    teacher: Teacher | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Karmma:
    """
    Train a network in place; a run that was stopped resumes from its last checkpoint.

    The network ends with the weights of the epoch that was best on the validation split, or of
    the last one, by `settings.keep`.

    :param folder: for the checkpoints and the logs of the run.
    :param teacher: distil from it as well; None: cross-entropy alone.
    :param facts: what decides the run beside the settings, plain values by name, such as a digest
        of the clips: a run of others is not resumed.
    :raises TrainingStopped: when the run is interrupted, after a checkpoint.
    :raises CheckpointError: when the disk is full.
    :raises InvalidSettingError: for a checkpoint that this package did not write, or of another
        run, and for a validation split without the modalities of the network.
    """
    torch.manual_seed(settings.seed)
    last = folder / CHECKPOINT
    own = {**_decisive(settings), **(facts or {})}
    _check_validation(network, validation)
    step = _step_of(last, own)
    module = RecognitionModule(
        network, settings.optimizer, settings.seed, teacher, settings.accumulate_batches,
        InputCorruption.of_clips(settings.optimizer.corruption, settings.seed, training))
    shards, group = getattr(training, 'shuffled_shards', (None, 1))
    order = EpochSampler(
        len(training), settings.batch_size, settings.seed, step, shards, group)
    trainer = _trainer(settings, folder, own)
    with warnings.catch_warnings():
        # Lightning cannot know that the sampler itself resumes at the step.
        warnings.filterwarnings('ignore', "You're resuming from a checkpoint that ended before")
        for harmless in ('does not have many workers', 'exists and is not empty',
                         'smaller than the logging interval', 'in eval mode'):
            warnings.filterwarnings('ignore', f'.*{harmless}')
        try:
            trainer.fit(
                module, datamodule=_Loaders(module, training, validation, order, settings),
                ckpt_path=str(last) if step else None, weights_only=True)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise CheckpointError(folder / BEST, error) from error
    best = folder / BEST
    if settings.keep == 'best' and best.is_file():
        module.load_state_dict(read_checkpoint(best)['state_dict'])
    return network.cpu().eval()


class _Loaders(lightning.LightningDataModule):
    """The loaders, built once the number of processes is known."""

    def __init__(self, module: RecognitionModule, training: Clips, validation: Clips,
                 order: EpochSampler, settings: RunSettings) -> None:
        super().__init__()
        self._modalities = module.modalities
        self._training, self._validation = training, validation
        self._order, self._settings = order, settings

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches to train on."""
        return training_loader(self._training, self._modalities, self._order,
                               self._settings.accumulate_batches, self._settings.workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the batches to validate on."""
        return scoring_loader(self._validation, self._modalities, self._settings.batch_size,
                              self._settings.workers)


def _trainer(
    settings: RunSettings, folder: Path, facts: Mapping[str, Any]
) -> lightning.Trainer:
    several = settings.nodes > 1 or settings.devices != '1'
    return lightning.Trainer(
        max_epochs=settings.epochs,
        precision=cast(Any, settings.precision),
        accelerator=choose_device(settings.device, 'run.device').partition(':')[0],
        devices=_devices(settings),
        num_nodes=settings.nodes,
        # An encoder whose modality was dropped from a whole batch has no gradients.
        strategy='ddp_find_unused_parameters_true' if several else 'auto',
        accumulate_grad_batches=settings.accumulate_batches,
        gradient_clip_val=settings.optimizer.gradient_clip,
        check_val_every_n_epoch=settings.validate_every,
        use_distributed_sampler=False,
        logger=[CSVLogger(folder, name='log'), TensorBoardLogger(folder, name='tensorboard')],
        callbacks=[
            ModelCheckpoint(folder, BEST.removesuffix('.ckpt'), monitor='val/action', mode='max',
                            save_weights_only=True, enable_version_counter=False),
            ResumeCheckpoint(folder, settings.checkpoint_minutes, facts),
        ],
        enable_progress_bar=settings.progress,
        enable_model_summary=settings.progress,
        num_sanity_val_steps=0,
        log_every_n_steps=20,
    )


def _devices(settings: RunSettings) -> str | list[int]:
    """
    Return Lightning's `devices`: a number of them, or the one that is named.

    :raises InvalidSettingError: for one that is named and several at once.
    """
    named = settings.device.partition(':')[2]
    if not named:
        return settings.devices
    if settings.devices != '1':
        raise InvalidSettingError(
            'run.devices', settings.devices, f'1 with run.device {settings.device}',
            'give run.device cuda for the first ones')
    return [int(named)]


def _check_validation(network: Karmma, validation: Clips) -> None:
    """
    Check that an epoch can be scored; it reads the first clip only, unless that has no sensor.

    :raises InvalidSettingError: when no clip has a modality of the network.
    """
    clips = with_modalities(validation, network.modalities)
    if not any(m in clips[i].clip.inputs for i in range(len(clips)) for m in network.modalities):
        raise InvalidSettingError(
            'validation split', f'{len(clips)} clips without {subset_name(network.modalities)}',
            'a clip with a modality of the network')


_NOT_DECISIVE = ('accumulate_batches', 'workers', 'device', 'devices', 'nodes',
                 'checkpoint_minutes', 'progress')
"""Settings that a resumed run may have otherwise: the result is the same, up to rounding."""


def _decisive(settings: RunSettings) -> dict[str, Any]:
    """Return the settings that decide the result, plain values by name."""
    values = {name: value for name, value in asdict(settings).items() if name not in _NOT_DECISIVE}
    optimizer = values.pop('optimizer')
    return {**values, **{f'optimizer.{name}': value for name, value in optimizer.items()}}


def _step_of(checkpoint: Path, facts: Mapping[str, Any]) -> int:
    """
    Return the step after which a checkpoint was written; 0, if there is none.

    :raises InvalidSettingError: for one of another run.
    """
    if not checkpoint.exists():
        return 0
    content = read_checkpoint(checkpoint)
    check_run(checkpoint, content, facts)
    return int(content['global_step'])
