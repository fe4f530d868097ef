"""
Outputs of a frozen fusion block for every window and subset of modalities, kept on disk.

Heads are trained on them in seconds: neither clips nor encoders are needed again.

Shape legend: w windows of a recording, r windows in all, u subsets, k output tokens (one for each
modality and [CLS]), d fusion width, m modalities, b batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from karmma_ros.data.recordings import WindowClips
from karmma_ros.data.samples import Batch
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import main_subsets, Modality
from karmma_ros.model.fusion import FusionBlock, QueryFusion
from karmma_ros.model.karmma import Karmma
from karmma_ros.storage import ArrayStore, file_lock, Layout, open_arrays
from karmma_ros.training.loaders import scoring_loader
from karmma_ros.training.precomputed import digest, Inference
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor

VERSION = 1
"""Grows whenever equal weights and windows would give other features."""
_FUSED, _PRESENT, _SEGMENT = 'fused', 'present', 'segment'

Subset = tuple[Modality, ...]


def frozen_digest(network: Karmma) -> str:
    """Return the digest of all weights that features depend on: those below the heads."""
    return digest(nn.ModuleList([network.encoders, network.embeddings, network.fusion]))


def build_features(
    network: Karmma, clips: WindowClips, name: str, cache: Path, inference: Inference,
) -> Path:
    """
    Compute the features of the windows of a recording, unless they are in the cache.

    A stopped computation resumes; no more than a batch is in memory.

    :param name: decided by everything that decides the clips.
    :returns: the folder.
    :raises InvalidSettingError: for a network without a fusion block.
    """
    if not isinstance(network.fusion, (FusionBlock, QueryFusion)):
        raise InvalidSettingError('fusion', type(network.fusion).__name__, 'a fusion block')
    chosen, weights = main_subsets(network.modalities), frozen_digest(network)
    facts = {'version': VERSION, 'clips': name, 'weights': weights,
             'modalities': [m.value for m in network.modalities], **inference.facts}
    shape = len(chosen), len(network.modalities) + 1, network.fusion.cls.shape[0]
    layout: Layout = {_FUSED: (np.float16, shape), _SEGMENT: (np.int64, ()),
                      _PRESENT: (np.bool_, (len(network.modalities),))}
    suffix = '_openvino' if inference.openvino else ''
    store = ArrayStore(cache / f'{name}_{weights[:8]}{suffix}', facts, layout, len(clips))
    network = network.to(inference.device).eval()
    with file_lock(store.folder), inference.encoders(network):
        if not store.complete:
            done = next((rows.start for rows in store.remaining(len(clips))), len(clips))
            for batch in scoring_loader(clips, network.modalities, inference.batch_size,
                                        inference.workers, done):
                rows = range(done, done + len(batch))
                fused = _fuse(network, chosen, batch.to(inference.device), shape)
                store.write(rows, {
                    _FUSED: fused, _PRESENT: batch.present.numpy(),
                    _SEGMENT: clips.segments[rows.start:rows.stop]})
                done = rows.stop
                inference.progress(done, len(clips))
            store.finish()
    return store.folder


@torch.inference_mode()
def _fuse(
    network: Karmma, chosen: Sequence[Subset], batch: Batch, shape: tuple[int, ...]
) -> NDArray[np.float16]:
    """Return the features `[b, u, k, d]`, zero where a window lacks a subset."""
    fused = np.zeros((len(batch), *shape), np.float16)
    columns = {m: i for i, m in enumerate(network.modalities)}
    some = batch.present.any(1).nonzero().squeeze(1)
    if not len(some):
        return fused
    present = batch.present[some]
    tokens = network.encode_present({m: x[some] for m, x in batch.inputs.items()}, present)
    for u, subset in enumerate(chosen):
        rows = present[:, [columns[m] for m in subset]].all(1).nonzero().squeeze(1)
        if len(rows):
            x, _ = network.fuse_tokens({m: tokens[m][rows] for m in subset})
            kept = _columns(network, subset) if x.shape[1] < shape[1] else slice(None)
            where = some[rows].cpu().numpy()
            values = np.zeros((len(rows), *shape[1:]), np.float16)
            values[:, kept] = x.half().cpu().numpy()
            fused[where, u] = values
    return fused


def _columns(network: Karmma, subset: Subset) -> list[int]:
    """Return the output tokens of a network that leaves absent modalities out."""
    return [*(i for i, m in enumerate(network.modalities) if m in subset),
            len(network.modalities)]


@dataclass(frozen=True)
class Windows:
    """Some windows with one subset each: what heads are trained and scored on."""

    tokens: Tensor
    """`[b, k, d]`."""
    counted: Tensor | None
    """Bool `[b, k]`; None: all tokens count."""


class FusedFeatures:
    """
    The features of the windows of some recordings, one after another.

    :param folders: of the recordings, as `build_features` returns them.
    :param segments: of each recording, the number of its segments.
    :raises DataError: when a folder is missing or damaged.
    """

    def __init__(
        self, network: Karmma, folders: Sequence[Path], segments: Sequence[int]
    ) -> None:
        self.modalities = network.modalities
        self.subsets = main_subsets(network.modalities)
        self._subset_of = {frozenset(s): u for u, s in enumerate(self.subsets)}
        self.counted = None if network.fill_missing else torch.tensor(
            [[i in _columns(network, s) for i in range(len(self.modalities) + 1)]
             for s in self.subsets])
        arrays = [open_arrays(folder)[1] for folder in folders]
        self._fused = [each[_FUSED] for each in arrays]
        first = np.cumsum([0, *segments])
        self._location = np.array(
            [(i, row) for i, each in enumerate(arrays) for row in range(len(each[_SEGMENT]))],
            np.int64).reshape(-1, 2)
        self.segment: NDArray[np.int64] = np.concatenate(
            [each[_SEGMENT] + start for each, start in zip(arrays, first)])
        """Of each window, the index of its segment in all recordings, `[r]`."""
        self.present: NDArray[np.bool_] = np.concatenate([each[_PRESENT] for each in arrays])
        """`[r, m]`."""
        self.segments = int(first[-1])
        rows = np.flatnonzero(self.present.any(1))
        ends = np.searchsorted(self.segment[rows], range(self.segments + 1))
        self._rows = [rows[a:b] for a, b in zip(ends, ends[1:])]

    def rows_of(self, segment: int) -> NDArray[np.int64]:
        """Return the windows of a segment that have any modality, in order of time."""
        return self._rows[segment]

    def middle(self, segment: int) -> int:
        """Return the window in the middle of a segment; -1 without any."""
        rows = self.rows_of(segment)
        return int(rows[len(rows) // 2]) if len(rows) else -1

    def subset_index(self, present: NDArray[np.bool_]) -> int:
        """Return the index of a subset, as bool `[m]`; -1 for one that is not fused."""
        own = frozenset(m for m, has in zip(self.modalities, present) if has)
        return self._subset_of.get(own, -1)

    def has(self, rows: NDArray[np.int64], subset: int) -> NDArray[np.bool_]:
        """Return which windows have every modality of a subset, bool `[b]`."""
        columns = [self.modalities.index(m) for m in self.subsets[subset]]
        return np.asarray(self.present[rows][:, columns].all(1))

    def read(self, rows: Sequence[int] | NDArray[np.int64], subset: Sequence[int]) -> Windows:
        """Read windows, each with the subset of its index."""
        tokens = np.stack([
            self._fused[recording][row, u]
            for (recording, row), u in zip(self._location[np.asarray(rows)].tolist(), subset)])
        counted = None if self.counted is None else self.counted[list(subset)]
        return Windows(torch.from_numpy(tokens.astype(np.float32)), counted)
