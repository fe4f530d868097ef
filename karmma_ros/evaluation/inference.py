"""
Inference on every subset of the modalities: each modality is encoded once and fused per subset.

Batches of a data set are predicted by `collect`, in shards that a stopped run resumes by
`collect_sharded`; windows of a stream by `window_inference.BatchInference`.

Shape legend: b samples of a batch, r of them that have a subset, m modalities, n tokens,
d fusion width, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
import math
from pathlib import Path
from typing import Any, cast, Protocol

from karmma_ros.data.samples import Batch, Clips, collate, with_modalities
from karmma_ros.errors import InvalidSettingError, KarmmaError
from karmma_ros.evaluation.predictions import DatasetPredictions, PredictionsError
from karmma_ros.modality import in_order, Modality, subset_name, subsets
from karmma_ros.model.backends.exports import FORMATS
from karmma_ros.model.backends.interface import Backend
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Subset as Rows

SHARD_SIZE = 512
"""Clips whose predictions are written to one file."""

Subset = tuple[Modality, ...]


class Network(Protocol):
    """What can be evaluated: `Karmma`, or a backend in its place."""

    @property
    def modalities(self) -> Subset:
        """Return its modalities in canonical order."""
        ...

    def eval(self) -> object:
        """Switch to evaluation mode."""
        ...

    def encode_present(
        self, inputs: Mapping[Modality, Tensor], present: Tensor
    ) -> dict[Modality, Tensor]:
        """Encode as `Karmma.encode_present`."""
        ...

    def fuse(self, tokens: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """Classify as `Karmma.fuse`."""
        ...


class NotFiniteError(KarmmaError):
    """A network returns NaN or infinity."""

    def __init__(self, subset: str, head: str, samples: int) -> None:
        self.subset, self.head, self.samples = subset, head, samples
        super().__init__(
            f'the network returns NaN or infinity for {head} from {subset} in {samples} of the '
            'samples: its training diverged or its input is damaged')


@dataclass(frozen=True)
class LoaderSettings:
    """How clips are loaded and where they are processed; no prediction depends on it."""

    batch_size: int = 16
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

    :param limit: None or more than `count`: all.
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
    settings: LoaderSettings,
    *,
    chosen: Sequence[Subset] | None = None,
    progress: Callable[[int], None] = lambda samples: None,
    shard_size: int = SHARD_SIZE,
) -> DatasetPredictions:
    """
    Predict clips, or read the predictions that an earlier run has written.

    :param folder: keeps the shards; it must be of this very network, these clips and subsets.
    :param chosen: as for `collect`.
    :param progress: called with the number of samples done, those read included.
    """
    shards = []
    for number in range(math.ceil(len(indices) / shard_size)):
        rows = indices[number * shard_size:(number + 1) * shard_size]
        path = folder / f'{number:05d}.npz'
        shard = _load_shard(path, len(rows))
        if shard is None:
            loader = DataLoader(
                Rows(cast(Any, with_modalities(clips, network.modalities)), rows),
                settings.batch_size, num_workers=settings.workers,
                pin_memory=settings.device.startswith('cuda'),
                collate_fn=partial(collate, modalities=network.modalities))
            shard = collect(network, loader, settings.device, progress, chosen)
            shard.save(path)
        else:
            progress(len(rows))
        shards.append(shard)
    return DatasetPredictions.concatenate(shards)


def _load_shard(path: Path, count: int) -> DatasetPredictions | None:
    """Return a shard that was written; None without one, or with a damaged one."""
    try:
        shard = DatasetPredictions.load(path)
    except PredictionsError:
        return None
    return shard if len(shard) == count else None


@torch.inference_mode()
def collect(
    network: Network,
    batches: Iterable[Batch],
    device: str | torch.device = 'cpu',
    progress: Callable[[int], None] = lambda samples: None,
    chosen: Sequence[Subset] | None = None,
) -> DatasetPredictions:
    """
    Predict every subset of the modalities that each sample has.

    :param batches: with columns of `present` in the order of the network's modalities, and the
        labels of its heads.
    :param progress: called with the number of samples done after each batch.
    :param chosen: only these subsets of the network's modalities; None: all. A modality in none
        of them is not encoded.
    :raises InvalidSettingError: when there is no sample, or a subset the network does not have.
    :raises NotFiniteError: when a logit is NaN or infinite.
    """
    wanted = _known_subsets(network.modalities, chosen)
    network.eval()
    parts = []
    for batch in batches:
        batch = batch.to(device)
        logits = {
            subset_name(subset): _spread(subset, by_head, rows, len(batch))
            for subset, rows, by_head in _predict_batch(network, batch, wanted)}
        labels = {head: ids.cpu().numpy() for head, ids in batch.labels.items()}
        parts.append(DatasetPredictions(
            network.modalities, logits, batch.present.cpu().numpy(), labels))
        progress(len(batch))
    return DatasetPredictions.concatenate(parts)


def _known_subsets(modalities: Subset, chosen: Sequence[Subset] | None) -> list[Subset]:
    known = subsets(modalities)
    for subset in chosen or ():
        if in_order(subset) not in known:
            raise InvalidSettingError(
                'subset', subset_name(subset), f'made of {subset_name(modalities)}, which the '
                'network has')
    return [s for s in known if chosen is None or s in {in_order(c) for c in chosen}]


def _predict_batch(
    network: Network, batch: Batch, wanted: Sequence[Subset]
) -> Iterator[tuple[Subset, Tensor, dict[str, Tensor]]]:
    """Yield each subset any sample has, the rows of those samples `[r]` and head → `[r, c]`."""
    columns = {m: i for i, m in enumerate(network.modalities)}
    needed = torch.tensor([any(m in subset for subset in wanted) for m in columns])
    present = batch.present & needed.to(batch.present.device)
    some = present.any(1).nonzero().squeeze(1)  # the network refuses a sample without any
    if not len(some):
        return
    present = present[some]
    tokens = network.encode_present({m: x[some] for m, x in batch.inputs.items()}, present)
    rows = {subset: present[:, [columns[m] for m in subset]].all(1).nonzero().squeeze(1)
            for subset in wanted}
    for subset, logits in fuse_subsets(network, tokens, rows):
        yield subset, some[rows[subset]], logits


def fuse_subsets(
    network: Network, tokens: Mapping[Modality, Tensor], rows: Mapping[Subset, Tensor]
) -> Iterator[tuple[Subset, dict[str, Tensor]]]:
    """
    Classify from tokens that were encoded once.

    :param tokens: modality → `[b, n, d]`.
    :param rows: subset → the rows `[r]` that have it; those without a row are left out.
    :returns: subset and head → logits `[r, c]`.
    """
    for subset, chosen in rows.items():
        if len(chosen):
            yield subset, network.fuse({
                m: tokens[m] if len(chosen) == len(tokens[m]) else tokens[m][chosen]
                for m in subset})


def _spread(
    subset: Subset, logits: Mapping[str, Tensor], rows: Tensor, samples: int
) -> dict[str, NDArray[np.float32]]:
    """Return each head's rows `[r, c]` in `[samples, c]`, NaN elsewhere."""
    spread: dict[str, NDArray[np.float32]] = {}
    for head, x in logits.items():
        broken = int((~torch.isfinite(x)).any(1).sum())
        if broken:
            raise NotFiniteError(subset_name(subset), head, broken)
        spread[head] = np.full((samples, x.shape[1]), np.nan, np.float32)
        spread[head][rows.cpu().numpy()] = x.float().cpu().numpy()
    return spread


class BackendNetwork:
    """A backend as a `Network`: it takes one clip after another, for it takes no more at once."""

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

        :param inputs: modality → `[b, ...]`, shapes as in `ClipSpec.input_shape`.
        :param present: bool `[b, m]`.
        :returns: modality → `[b, n, d]`, zero where a sample lacks it; a modality absent from
            the whole batch has no entry.
        """
        tokens = {}
        for column, modality in enumerate(self.modalities):
            rows = present[:, column].nonzero().squeeze(1).tolist()
            if rows:
                encoded = torch.cat([self._encode(modality, inputs[modality][r]) for r in rows])
                tokens[modality] = scatter(encoded, rows, len(present))
        return tokens

    def fuse(self, tokens: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """Classify from tokens `[b, n, d]` of the present modalities: head → `[b, c]`."""
        count = len(next(iter(tokens.values())))
        own = {m: x.numpy() for m, x in tokens.items()} if self._takes_arrays else tokens
        logits = [self._backend.fuse({m: x[row:row + 1] for m, x in own.items()})
                  for row in range(count)]
        return {head: torch.stack([torch.from_numpy(each[head]) for each in logits])
                for head in logits[0]}

    def _encode(self, modality: Modality, x: Tensor) -> Tensor:
        return torch.as_tensor(self._backend.encode(modality, x[None].numpy()))


def scatter(tokens: Tensor, rows: Sequence[int], count: int) -> Tensor:
    """Return tokens `[r, n, d]` at their rows of `[count, n, d]`, zero elsewhere."""
    if len(rows) == count:
        return tokens
    scattered = tokens.new_zeros(count, *tokens.shape[1:])
    scattered[list(rows)] = tokens
    return scattered
