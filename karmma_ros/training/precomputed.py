"""
What a frozen network said of every clip, kept on disk so that it is asked only once.

Either the tokens of its encoders, from which its fusion block is trained, or its answers for
every subset of modalities, from which a student is taught. Both are of the clips as they are
scored: the middle of the segment, without augmentation.

Shape legend: s samples, m modalities, n tokens, e token width, u subsets, c classes of all heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import hashlib
import json
import os
from pathlib import Path
import shutil
from typing import Any

from karmma_ros.clip import Clip
from karmma_ros.data.samples import Batch, Clips, Sample
from karmma_ros.errors import DataError
from karmma_ros.modality import in_order, Modality, subsets
from karmma_ros.model.karmma import Karmma
from karmma_ros.storage import alone, lay_out, METADATA, read_metadata
from karmma_ros.training.loaders import scoring_loader
import numpy as np
import torch
from torch import nn, Tensor

VERSION = 1
PROGRESS, PRESENT = 'progress.txt', 'present'
Progress = Callable[[int, int], None]
Arrays = Mapping[str, np.ndarray]
_CACHES = 'it is rebuilt when it is gone: delete it'


def cache_tokens(
    network: Karmma, clips: Clips, folder: Path, *, data: str, batch_size: int = 32,
    workers: int = 0, device: str = 'cpu', progress: Progress = lambda done, total: None,
) -> Path:
    """
    Keep the tokens of a network's encoders, before they are reduced: float16 `[s, n, e]`.

    :param data: says which clips these are; what was written from others is written anew.
    """
    network = network.to(device).eval()
    heads = sorted(clips[0].labels)

    def ask(batch: Batch) -> dict[str, np.ndarray]:
        said = {head: batch.labels[head].cpu().numpy() for head in heads}
        said[PRESENT] = batch.present.cpu().numpy()
        for i, modality in enumerate(network.modalities):
            if bool(batch.present[:, i].any()):
                tokens = network.encoders[modality.value](batch.inputs[modality])
                said[modality.value] = tokens.cpu().numpy()
        return said

    sizes: dict[str, tuple[Any, tuple[int, ...]]] = {head: (np.int64, ()) for head in heads}
    sizes[PRESENT] = (np.bool_, (len(network.modalities),))
    for modality in network.modalities:
        shape = network.encoders[modality.value](
            torch.zeros(1, *network.input_shapes[modality], device=device)).shape
        sizes[modality.value] = (np.float16, tuple(shape[1:]))
    return _write(network.encoders, network, clips, folder, {'data': data, 'heads': heads},
                  sizes, ask, batch_size, workers, device, progress)


def write_answers(
    network: Karmma, clips: Clips, folder: Path, *, data: str, batch_size: int = 32,
    workers: int = 0, device: str = 'cpu', progress: Progress = lambda done, total: None,
) -> Path:
    """
    Keep a network's logits for every subset of its modalities: float32 `[s, u, c]`.

    Each encoder runs once a clip. A subset that a sample does not have holds NaN.
    """
    network = network.to(device).eval()
    chosen = subsets(network.modalities)
    columns = {m: i for i, m in enumerate(network.modalities)}
    heads = _head_sizes(network, device)

    def ask(batch: Batch) -> dict[str, np.ndarray]:
        answers = np.full((len(batch), len(chosen), sum(heads.values())), np.nan, np.float32)
        some = batch.present.any(1)  # a clip may have nothing that this network takes
        places = some.nonzero().squeeze(1)
        offered = batch.rows(some)
        tokens = network.encode_present(offered.inputs, offered.present) if len(offered) else {}
        for u, subset in enumerate(chosen):
            rows = offered.present[:, [columns[m] for m in subset]].all(1)
            if rows.any():
                logits = network.fuse({m: tokens[m][rows] for m in subset})
                said = torch.cat([logits[head] for head in heads], dim=1)
                answers[places[rows].cpu().numpy(), u] = said.float().cpu().numpy()
        return {'answers': answers, PRESENT: batch.present.cpu().numpy()}

    sizes = {'answers': (np.float32, (len(chosen), sum(heads.values()))),
             PRESENT: (np.bool_, (len(columns),))}
    return _write(network, network, clips, folder, {'data': data, 'heads': heads}, sizes, ask,
                  batch_size, workers, device, progress)


@torch.inference_mode()
def _head_sizes(network: Karmma, device: str) -> dict[str, int]:
    nothing = {m: torch.zeros(1, *network.input_shapes[m], device=device)
               for m in network.modalities}
    present = torch.ones(1, len(nothing), dtype=torch.bool, device=device)
    return {head: x.shape[1] for head, x in network(nothing, present).items()}


class TokenDataset:
    """
    The clips of a split as the tokens that `cache_tokens` kept: a `Clips`.

    :raises DataError: when the folder is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        metadata, self._arrays = _open(folder)
        self._heads = metadata['heads']
        self.modalities = in_order(Modality.parse(m) for m in metadata['modalities'])
        self.shapes = {m: self._arrays[m.value].shape[1:] for m in self.modalities}

    def __len__(self) -> int:
        return len(self._arrays[PRESENT])

    def __getitem__(self, index: int) -> Sample:
        """Return the tokens of a clip, float32 `[n, e]` for each modality that it has."""
        has = self._arrays[PRESENT][index]
        inputs = {m: self._arrays[m.value][index].astype(np.float32)
                  for m, there in zip(self.modalities, has) if there}
        labels = {head: int(self._arrays[head][index]) for head in self._heads}
        return Sample(Clip(inputs), labels, index)

    def visit(self, index: int, epoch: int) -> Sample:
        """Return the same as without an epoch: the tokens are of one window."""
        return self[index]

    def __getstate__(self) -> dict[str, Any]:
        return {'folder': self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state['folder'])  # type: ignore[misc]


def network_on_tokens(network: Karmma, clips: TokenDataset) -> Karmma:
    """
    Return the network from its encoders' tokens on, for `TokenDataset`.

    It shares all that is not an encoder with the network that it came from: training the one
    trains the other.
    """
    return Karmma(
        {m: nn.Identity() for m in network.modalities},
        {m: network.embeddings[m.value] for m in network.modalities},  # type: ignore[misc]
        network.fusion, network.heads, network.token_cap,
        fill_missing=network.fill_missing, reduce=network.reduce, freeze_encoders=False,
        input_shapes=clips.shapes)


class CachedTeacher:
    """
    A teacher that answers from what `write_answers` kept; see `Teacher`.

    :raises DataError: when the folder is missing or damaged.
    """

    reads: tuple[Modality, ...] = ()

    def __init__(self, folder: Path) -> None:
        metadata, self._arrays = _open(folder)
        self._heads: dict[str, int] = metadata['heads']
        self.modalities = in_order(Modality.parse(m) for m in metadata['modalities'])
        self._bits = {m: 1 << i for i, m in enumerate(self.modalities)}
        place = np.zeros(1 << len(self.modalities), np.int64)
        for u, subset in enumerate(subsets(self.modalities)):
            place[sum(self._bits[m] for m in subset)] = u
        self._place = place

    def __call__(self, batch: Batch, present: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """Return the logits of each head for the clips that the batch's index names."""
        index = batch.index.cpu().numpy()
        code = np.zeros(len(index), np.int64)
        for i, m in enumerate(self.modalities):
            has = self._arrays[PRESENT][index, i]
            code += self._bits[m] * (has & present[m].cpu().numpy() if m in present else has)
        said = torch.from_numpy(self._arrays['answers'][index, self._place[code]])
        parts = said.to(batch.present.device).split(list(self._heads.values()), dim=1)
        return dict(zip(self._heads, parts))


@torch.inference_mode()
def _write(
    source: nn.Module, network: Karmma, clips: Clips, folder: Path, facts: Mapping[str, Any],
    sizes: Mapping[str, tuple[Any, tuple[int, ...]]],
    ask: Callable[[Batch], dict[str, np.ndarray]],
    batch_size: int, workers: int, device: str, progress: Progress,
) -> Path:
    """Ask for every clip; go on where an earlier run was cut off, rebuild what is of others."""
    metadata = json.loads(json.dumps({
        **facts, 'version': VERSION, 'clips': len(clips), 'weights': digest(source),
        'modalities': [m.value for m in network.modalities]}))
    with alone(folder):
        if read_metadata(folder) != metadata:
            _ask_all(network, clips, folder, metadata, sizes, ask, batch_size, workers, device,
                     progress)
    return folder


def _ask_all(
    network: Karmma, clips: Clips, folder: Path, metadata: Mapping[str, Any],
    sizes: Mapping[str, tuple[Any, tuple[int, ...]]],
    ask: Callable[[Batch], dict[str, np.ndarray]],
    batch_size: int, workers: int, device: str, progress: Progress,
) -> None:
    partial = folder.with_name(folder.name + '.partial')
    if read_metadata(partial) != metadata:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, (kind, shape) in sizes.items():
            lay_out(partial / f'{name}.npy', kind, (len(clips), *shape))
        (partial / METADATA).write_text(json.dumps(metadata, indent=1))
    done = _done(partial)
    arrays = {name: np.load(partial / f'{name}.npy', mmap_mode='r+') for name in sizes}
    for batch in scoring_loader(clips, network.modalities, batch_size, workers, done):
        for name, values in ask(batch.to(device)).items():
            arrays[name][done:done + len(batch)] = values
            arrays[name].flush()
        done += len(batch)
        (partial / PROGRESS).write_text(f'{done}\n')
        progress(done, len(clips))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's weights, hexadecimal."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _done(partial: Path) -> int:
    try:
        text = (partial / PROGRESS).read_text()
    except OSError:
        return 0
    return int(text) if text.endswith('\n') else 0


def _open(folder: Path) -> tuple[dict[str, Any], Arrays]:
    metadata = read_metadata(folder)
    if metadata is None:
        raise DataError(folder, f'it has no readable {METADATA}', _CACHES)
    try:
        arrays = {p.stem: np.load(p, mmap_mode='r') for p in folder.glob('*.npy')}
    except (OSError, ValueError) as error:
        raise DataError(folder, f'is damaged ({error})', _CACHES) from error
    return metadata, arrays
