"""
Batches in an order that depends on the seed and the step alone.

An optimizer step takes `batch_size` samples of an epoch's order. They may be divided into batches
whose gradients are accumulated, and over processes: neither changes which samples a step has and
which of their modalities are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from karmma_ros.data.samples import (
    Batch,
    Clips,
    collate,
    Sample,
    with_modalities,
    without_preparation,
)
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset, Sampler


class EpochSampler(Sampler[int]):
    """
    Shuffle a split anew each epoch, for complete steps; the remainder is left out.

    Yields `epoch · count + index`.

    :param count: samples of the split.
    :param step: step of the run to start at; the samples before it in its epoch are skipped.
    :param shards: the shard of each sample. Then the shards are shuffled, and samples among
        `group` shards in turn, so that only these have to be in a cache. None: among all.
    """

    def __init__(self, count: int, batch_size: int, seed: int, step: int = 0,
                 shards: Sequence[int] | None = None, group: int = 1) -> None:
        self.steps = count // batch_size
        if not self.steps:
            raise InvalidSettingError(
                'batch_size', batch_size, f'at most {count}, the number of training samples')
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._shards, self._group = shards, group
        self.epoch, self.skip = divmod(step, self.steps)

    def set_epoch(self, epoch: int) -> None:
        """Start another epoch; called by Lightning."""
        if epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    def __len__(self) -> int:
        return self.steps * self.batch_size // processes()[1]

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.count, generator=generator)
        if self._shards is not None:
            shards = torch.tensor(self._shards)
            drawn = torch.randperm(int(shards.max()) + 1, generator=generator) // self._group
            order = order[drawn[shards[order]].argsort(stable=True)]
        rank, world = processes()
        chosen = order[self.skip * self.batch_size:self.steps * self.batch_size][rank::world]
        return iter((self.epoch * self.count + chosen).tolist())


class IndexedDataset(Dataset[Sample]):
    """
    The clips of a split, each with its index.

    :param training: read by `training_sample`; else as for scoring.
    """

    def __init__(self, clips: Clips, training: bool) -> None:
        self.clips, self.training = clips, training

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int) -> Sample:
        epoch, index = divmod(key, len(self.clips))
        sample = self.clips.training_sample(index, epoch) if self.training else self.clips[index]
        return replace(sample, index=index)


def training_loader(
    clips: Clips, modalities: Sequence[Modality], order: EpochSampler, accumulate_batches: int,
    workers: int,
) -> DataLoader[Batch]:
    """
    Return the batches of an epoch.

    :param accumulate_batches: batches of a step on each process.
    :raises InvalidSettingError: when a step's samples cannot be divided evenly.
    """
    divisor = accumulate_batches * processes()[1]
    batch_size, rest = divmod(order.batch_size, divisor)
    if rest:
        raise InvalidSettingError(
            'batch_size', order.batch_size,
            f'a multiple of {divisor}, the batches of a step on all devices')
    dataset = IndexedDataset(without_preparation(with_modalities(clips, modalities)), True)
    return _loader(dataset, modalities, batch_size, workers, order)


def scoring_loader(
    clips: Clips, modalities: Sequence[Modality], batch_size: int, workers: int = 0,
    first: int = 0,
) -> DataLoader[Batch]:
    """Return the clips as they are scored, from `first` on, divided over the processes."""
    rank, world = processes()
    dataset = IndexedDataset(without_preparation(with_modalities(clips, modalities)), False)
    return _loader(
        dataset, modalities, batch_size, workers, range(first + rank, len(clips), world))


def _loader(
    dataset: IndexedDataset, modalities: Sequence[Modality], batch_size: int, workers: int,
    sampler: Sampler[int] | Sequence[int],
) -> DataLoader[Batch]:
    return DataLoader(
        cast(Any, dataset), batch_size, sampler=sampler, num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=partial(collate, modalities=tuple(modalities),
                           clip=getattr(dataset.clips, 'spec', None),
                           unprepared=getattr(dataset.clips, 'unprepared', ())))


def processes() -> tuple[int, int]:
    """Return the number of this training process, from 0, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
