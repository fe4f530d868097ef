"""
Outputs of frozen networks, computed once for every clip and kept on disk.

`FeatureCache` holds the tokens of a network's encoders, from which its fusion block is trained.
`TeacherLogitCache` holds a teacher's logits for every subset of modalities, from which a student
is distilled. Both are of the clips as they are scored: the middle of the segment, not augmented.

Shape legend: s samples, m modalities, n tokens, e token width, u subsets, c classes of all heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
import hashlib
from pathlib import Path
from typing import Any

from karmma_ros.clip import Clip
from karmma_ros.data.samples import Batch, Clips, Sample
from karmma_ros.modality import in_order, Modality, subsets
from karmma_ros.model.karmma import Karmma
from karmma_ros.storage import Arrays, ArrayStore, file_lock, Layout, open_arrays
from karmma_ros.training.loaders import scoring_loader
import numpy as np
import torch
from torch import nn, Tensor

VERSION = 2
PRESENT, LOGITS = 'present', 'logits'


@dataclass(frozen=True)
class Inference:
    """How a cache is computed."""

    batch_size: int = 32
    workers: int = 0
    """Processes that load clips."""
    device: str = 'cpu'
    progress: Callable[[int, int], None] = lambda done, total: None
    """Called with the clips that are done, and all."""
    openvino: bool = False
    """Whether OpenVINO computes the encoders, faster and in bf16 where the processor has it."""

    def encoders(self, network: Karmma) -> AbstractContextManager[None]:
        """Return a context in which a network has the encoders that are wanted."""
        if not self.openvino:
            return nullcontext()
        from karmma_ros.model.backends.compiled_encoders import openvino_encoders  # loads runtimes

        return openvino_encoders(network)

    @property
    def facts(self) -> dict[str, Any]:
        """Return what of it changes the outputs, JSON-ready."""
        return {'encoders': 'openvino'} if self.openvino else {}


class FeatureCache:
    """
    The clips of a split as the tokens of a network's encoders: a `Clips`.

    The tokens are kept as float16 `[s, n, e]`, before they are reduced.

    :raises DataError: when the folder is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        metadata, self._arrays = open_arrays(folder)
        self._heads = metadata['heads']
        self.modalities = in_order(Modality.parse(m) for m in metadata['modalities'])
        self.shapes = {m: self._arrays[m.value].shape[1:] for m in self.modalities}

    @classmethod
    def build(
        cls, folder: Path, network: Karmma, clips: Clips, data: str,
        inference: Inference = Inference(),
    ) -> FeatureCache:
        """
        Open the cache of a network; compute what is missing.

        :param data: identifies the clips; a cache of others is computed anew.
        """
        network = network.to(inference.device).eval()
        heads = sorted(clips[0].labels)
        layout: dict[str, tuple[Any, tuple[int, ...]]] = {head: (np.int64, ()) for head in heads}
        layout[PRESENT] = (np.bool_, (len(network.modalities),))
        for modality in network.modalities:
            zeros = torch.zeros(1, *network.input_shapes[modality], device=inference.device)
            with torch.inference_mode():
                shape = network.encoders[modality.value](zeros).shape
            layout[modality.value] = (np.float16, tuple(shape[1:]))
        _fill(folder, network, network.encoders, clips, data, heads, layout,
              lambda batch: _features(network, batch), inference)
        return cls(folder)

    def __len__(self) -> int:
        return len(self._arrays[PRESENT])

    def __getitem__(self, index: int) -> Sample:
        """Return the tokens of a clip, float32 `[n, e]` for each modality that it has."""
        present = self._arrays[PRESENT][index]
        inputs = {m: self._arrays[m.value][index].astype(np.float32)
                  for m, has in zip(self.modalities, present) if has}
        labels = {head: int(self._arrays[head][index]) for head in self._heads}
        return Sample(Clip(inputs), labels, index)

    def training_sample(self, index: int, epoch: int) -> Sample:
        """Return the same in every epoch: the tokens are of one window."""
        return self[index]

    def __getstate__(self) -> dict[str, Any]:
        return {'folder': self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state['folder'])  # type: ignore[misc]


def network_on_tokens(network: Karmma, features: FeatureCache) -> Karmma:
    """
    Return the network from its encoders' tokens on.

    It shares all that is not an encoder with the network that it came from: training the one
    trains the other.
    """
    return Karmma(
        {m: nn.Identity() for m in network.modalities},
        {m: network.embeddings[m.value] for m in network.modalities},  # type: ignore[misc]
        network.fusion, network.heads, network.token_cap,
        fill_missing=network.fill_missing, reduce=network.reduce, freeze_encoders=False,
        input_shapes=features.shapes)


class TeacherLogitCache:
    """
    A teacher whose logits for every subset were computed beforehand; see `Teacher`.

    The logits are kept as float32 `[s, u, c]`; those of a subset that a sample lacks are NaN.

    :raises DataError: when the folder is missing or damaged.
    """

    reads: tuple[Modality, ...] = ()

    def __init__(self, folder: Path) -> None:
        metadata, self._arrays = open_arrays(folder)
        self._heads: dict[str, int] = metadata['heads']
        self.modalities = in_order(Modality.parse(m) for m in metadata['modalities'])
        self._bits = {m: 1 << i for i, m in enumerate(self.modalities)}
        self._subset_index = np.zeros(1 << len(self.modalities), np.int64)
        for u, subset in enumerate(subsets(self.modalities)):
            self._subset_index[sum(self._bits[m] for m in subset)] = u

    @classmethod
    def build(
        cls, folder: Path, network: Karmma, clips: Clips, data: str,
        inference: Inference = Inference(),
    ) -> TeacherLogitCache:
        """
        Open the cache of a teacher; compute what is missing. Each encoder runs once a clip.

        :param data: identifies the clips; a cache of others is computed anew.
        """
        network = network.to(inference.device).eval()
        heads = _head_sizes(network, inference.device)
        layout: Layout = {
            LOGITS: (np.float32, (len(subsets(network.modalities)), sum(heads.values()))),
            PRESENT: (np.bool_, (len(network.modalities),))}
        _fill(folder, network, network, clips, data, heads, layout,
              lambda batch: _subset_logits(network, heads, batch), inference)
        return cls(folder)

    def __call__(self, batch: Batch, present: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """Return the logits of each head for the clips that the batch's index names."""
        index = batch.index.cpu().numpy()
        code = np.zeros(len(index), np.int64)
        for i, m in enumerate(self.modalities):
            has = self._arrays[PRESENT][index, i]
            code += self._bits[m] * (has & present[m].cpu().numpy() if m in present else has)
        logits = torch.from_numpy(self._arrays[LOGITS][index, self._subset_index[code]])
        parts = logits.to(batch.present.device).split(list(self._heads.values()), dim=1)
        return dict(zip(self._heads, parts))


class CrossFittedTeacher:
    """
    Teachers that were each trained without one fold, for the clips of that fold; see `Teacher`.

    A network is surer of the clips that it was trained on than of others; the logits of a clip
    are of one that has not seen it (cross-fitting).

    :param teachers: fold → the logits of the teacher without it.
    :param folds: of each clip.
    """

    reads: tuple[Modality, ...] = ()

    def __init__(
        self, teachers: Mapping[str, TeacherLogitCache], folds: Sequence[str]
    ) -> None:
        self.modalities = next(iter(teachers.values())).modalities
        self._teachers = list(teachers.values())
        names = list(teachers)
        self._teacher_of = torch.tensor([names.index(fold) for fold in folds])

    def __call__(self, batch: Batch, present: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """Return the logits of each head for the clips that the batch's index names."""
        chosen = self._teacher_of[batch.index.cpu()].to(batch.present.device)
        parts: dict[str, Tensor] = {}
        for i, teacher in enumerate(self._teachers):
            for head, logits in teacher(batch, present).items():
                parts[head] = torch.where(
                    (chosen == i)[:, None], logits, parts.get(head, logits))
        return parts


def _features(network: Karmma, batch: Batch) -> dict[str, np.ndarray]:
    """Return labels, present modalities and tokens of a batch."""
    rows = {head: ids.cpu().numpy() for head, ids in batch.labels.items()}
    rows[PRESENT] = batch.present.cpu().numpy()
    for i, modality in enumerate(network.modalities):
        if bool(batch.present[:, i].any()):
            tokens = network.encoders[modality.value](batch.inputs[modality])
            rows[modality.value] = tokens.cpu().numpy()
    return rows


def _subset_logits(
    network: Karmma, heads: Mapping[str, int], batch: Batch
) -> dict[str, np.ndarray]:
    """Return present modalities and the logits `[s, u, c]` of a batch."""
    chosen = subsets(network.modalities)
    columns = {m: i for i, m in enumerate(network.modalities)}
    values = np.full((len(batch), len(chosen), sum(heads.values())), np.nan, np.float32)
    some = batch.present.any(1)  # a clip may have nothing that this network takes
    positions = some.nonzero().squeeze(1)
    usable = batch.rows(some)
    tokens = network.encode_present(usable.inputs, usable.present) if len(usable) else {}
    for u, subset in enumerate(chosen):
        rows = usable.present[:, [columns[m] for m in subset]].all(1)
        if rows.any():
            logits = network.fuse({m: tokens[m][rows] for m in subset})
            joined = torch.cat([logits[head] for head in heads], dim=1)
            values[positions[rows].cpu().numpy(), u] = joined.float().cpu().numpy()
    return {LOGITS: values, PRESENT: batch.present.cpu().numpy()}


@torch.inference_mode()
def _head_sizes(network: Karmma, device: str) -> dict[str, int]:
    zeros = {m: torch.zeros(1, *network.input_shapes[m], device=device)
             for m in network.modalities}
    present = torch.ones(1, len(zeros), dtype=torch.bool, device=device)
    return {head: x.shape[1] for head, x in network(zeros, present).items()}


@torch.inference_mode()
def _fill(
    folder: Path, network: Karmma, frozen: nn.Module, clips: Clips, data: str, heads: Any,
    layout: Layout, compute: Callable[[Batch], Arrays], inference: Inference,
) -> None:
    """Compute the rows of all clips, unless they are there for these weights and clips."""
    facts = {'version': VERSION, 'data': data, 'clips': len(clips), 'heads': heads,
             'weights': digest(frozen), 'modalities': [m.value for m in network.modalities],
             **inference.facts}
    store = ArrayStore(folder, facts, layout, len(clips))
    with file_lock(folder), inference.encoders(network):
        if store.complete:
            return
        done = next((rows.start for rows in store.remaining(len(clips))), len(clips))
        for batch in scoring_loader(
                clips, network.modalities, inference.batch_size, inference.workers, done):
            rows = range(done, done + len(batch))
            store.write(rows, compute(batch.to(inference.device)))
            done = rows.stop
            inference.progress(done, len(clips))
        store.finish()


def digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's weights, hexadecimal."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
