"""Score a split in portions that are kept on disk, so that a stopped run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
import math
from pathlib import Path
from typing import Any, cast

from karmma_ros.data.samples import Clips, collate, taking
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.predictions import (
    collect,
    concatenate,
    Network,
    Outcomes,
    OutcomesError,
)
from karmma_ros.modality import Modality
from karmma_ros.model.backends.exports import FORMATS
from karmma_ros.model.backends.interface import Backend
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

PORTION = 512
"""Clips after which what was found is written down."""


@dataclass(frozen=True)
class LoaderSettings:
    """How the work is done; it has no say in what comes out."""

    batch_size: int = 16
    """Clips at once."""
    workers: int = 0
    """Processes that prepare batches beside the network."""
    device: str = 'cpu'

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InvalidSettingError('batch size', self.batch_size, 'an integer above 0')
        if self.workers < 0:
            raise InvalidSettingError('workers', self.workers, 'an integer from 0 on')


def spread_evenly(count: int, limit: int | None) -> list[int]:
    """
    Choose `limit` of `count` clips at even distances: data sets are sorted by video or class.

    :param limit: None, or more than there are: all.
    :raises InvalidSettingError: when the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise InvalidSettingError('limit', limit, 'an integer above 0')
    if limit is None or limit >= count:
        return list(range(count))
    return [i * count // limit for i in range(limit)]


def collect_sharded(
    network: Network,
    clips: Clips,
    indices: Sequence[int],
    folder: Path,
    pace: LoaderSettings,
    *,
    chosen: Sequence[tuple[Modality, ...]] | None = None,
    progress: Callable[[int], None] = lambda samples: None,
    portion: int = PORTION,
) -> Outcomes:
    """
    Ask a network about clips, or find the answers that an earlier run has written.

    :param folder: keeps the portions; it must be of this very network, these clips and subsets.
    :param chosen: as for `collect`.
    :param progress: called with the number of samples done, those found included.
    """
    parts = []
    for number in range(math.ceil(len(indices) / portion)):
        rows = indices[number * portion:(number + 1) * portion]
        path = folder / f'{number:05d}.npz'
        found = _found(path, len(rows))
        if found is None:
            found = collect(
                network, _batches(clips, rows, network.modalities, pace), pace.device, progress,
                chosen)
            found.save(path)
        else:
            progress(len(rows))
        parts.append(found)
    return concatenate(parts)


def _found(path: Path, count: int) -> Outcomes | None:
    """Return a portion that was written; a damaged one is made again."""
    try:
        found = Outcomes.load(path)
    except OutcomesError:
        return None
    return found if len(found) == count else None


def _batches(
    clips: Clips, rows: Sequence[int], modalities: tuple[Modality, ...], pace: LoaderSettings
) -> DataLoader[Any]:
    chosen = Subset(cast(Any, taking(clips, modalities)), rows)
    return DataLoader(
        chosen, pace.batch_size, num_workers=pace.workers,
        pin_memory=pace.device.startswith('cuda'),
        collate_fn=partial(collate, modalities=modalities))


class BackendNetwork:
    """
    Ask a backend about batches, one clip after the other: it takes no more at once.

    Shape legend: b samples, m modalities, n tokens, d fusion width, c classes.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.modalities = backend.modalities
        self._takes_arrays = backend.name in FORMATS.values()

    def eval(self) -> None:
        """Do nothing: a backend never trains."""

    def encode_present(
        self, inputs: Mapping[Modality, Tensor], present: Tensor
    ) -> dict[Modality, Tensor]:
        """
        Encode as `Karmma.encode_present`.

        :param inputs: modality → `[b, ...]` as `ClipSpec.input_shape` says.
        :param present: bool `[b, m]`.
        :returns: modality → `[b, n, d]`, zero where a sample lacks it; a modality absent from
            the whole batch has no entry.
        """
        tokens = {}
        for column, modality in enumerate(self.modalities):
            rows = present[:, column].nonzero().squeeze(1).tolist()
            if rows:
                encoded = torch.cat([self._encode(modality, inputs[modality][r]) for r in rows])
                tokens[modality] = encoded.new_zeros(len(present), *encoded.shape[1:])
                tokens[modality][rows] = encoded
        return tokens

    def fuse(self, tokens: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """Answer from tokens `[b, n, d]` of the modalities that are there: head → `[b, c]`."""
        count = len(next(iter(tokens.values())))
        own = {m: x.numpy() for m, x in tokens.items()} if self._takes_arrays else tokens
        answers = [self._backend.fuse({m: x[row:row + 1] for m, x in own.items()})
                   for row in range(count)]
        return {head: torch.stack([torch.from_numpy(answer[head]) for answer in answers])
                for head in answers[0]}

    def _encode(self, modality: Modality, x: Tensor) -> Tensor:
        return torch.as_tensor(self._backend.encode(modality, x[None].numpy()))
