"""
What a network answers to every sample and every subset of its sensors: all scores rest on it.

Shape legend: n samples, m modalities, c classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import json
import os
from pathlib import Path
from typing import Any, Protocol
import zipfile

from karmma_ros.data.samples import Batch
from karmma_ros.errors import FileError, InvalidSettingError, KarmmaError
from karmma_ros.modality import in_order, Modality, subset_name, subsets
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

VERSION = 1
"""Grows whenever the layout of the file changes."""

_DESCRIPTION, _PRESENT = 'description', 'present'


class Network(Protocol):
    """What can be scored: `Karmma`, or a backend in its place."""

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Return what it takes, in canonical order."""
        ...

    def eval(self) -> object:
        """Prepare to answer."""
        ...

    def encode_present(
        self, inputs: Mapping[Modality, Tensor], present: Tensor
    ) -> dict[Modality, Tensor]:
        """Encode as `Karmma.encode_present`."""
        ...

    def fuse(self, tokens: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """Classify as `Karmma.fuse`."""
        ...


class OutcomesError(FileError):
    """A file of outcomes is missing, damaged or of another version."""

    what = 'outcomes'


class NotFiniteError(KarmmaError):
    """A network answers with something that is no number."""

    def __init__(self, subset: str, head: str, samples: int) -> None:
        self.subset, self.head, self.samples = subset, head, samples
        super().__init__(
            f'the network answers NaN or infinity for {head} from {subset} to {samples} of the '
            'samples: its training diverged or its input is damaged')


@dataclass(frozen=True)
class Outcomes:
    """The logits of one network for each sample and each subset of modalities it has."""

    modalities: tuple[Modality, ...]
    """The network's, in canonical order."""
    logits: Mapping[str, Mapping[str, NDArray[np.float32]]]
    """Subset name → head → `[n, c]`, NaN where the sample lacks the subset; largest first."""
    present: NDArray[np.bool_]
    """`[n, m]`: what each sample has."""
    labels: Mapping[str, NDArray[np.int64]]
    """Head → class id `[n]`."""

    def __len__(self) -> int:
        return len(self.present)

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the heads in the order of the labels."""
        return tuple(self.labels)

    def has(self, subset: Iterable[Modality]) -> NDArray[np.bool_]:
        """Tell for each sample whether it has every modality of the subset: `[n]`."""
        columns = [self.modalities.index(m) for m in in_order(subset)]
        return np.asarray(self.present[:, columns].all(1))

    def save(self, path: Path | str) -> None:
        """Write one .npz file; it is there whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        description = {
            'version': VERSION, 'modalities': [m.value for m in self.modalities],
            'heads': list(self.labels), 'subsets': list(self.logits)}
        arrays: dict[str, Any] = {
            _DESCRIPTION: np.array(json.dumps(description)), _PRESENT: self.present}
        for head, ids in self.labels.items():
            arrays[f'label/{head}'] = ids
        for subset, by_head in self.logits.items():
            arrays |= {f'logits/{subset}/{head}': x for head, x in by_head.items()}
        partial = path.with_name(path.name + '.partial')
        with partial.open('wb') as file:
            np.savez(file, **arrays)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path | str) -> Outcomes:
        """
        Read what `save` wrote.

        :raises OutcomesError: when the file is missing, damaged or of another version.
        """
        remedy = 'delete it and score the model again'
        try:
            with np.load(path, allow_pickle=False) as arrays:
                description = json.loads(str(arrays[_DESCRIPTION]))
                if description['version'] != VERSION:
                    raise OutcomesError(
                        path, f'version is {description["version"]}, this package reads '
                        f'{VERSION}', remedy)
                heads = description['heads']
                return cls(
                    tuple(Modality.parse(m) for m in description['modalities']),
                    {s: {h: arrays[f'logits/{s}/{h}'] for h in heads}
                     for s in description['subsets']},
                    arrays[_PRESENT], {h: arrays[f'label/{h}'] for h in heads})
        except FileNotFoundError as error:
            raise OutcomesError(path, 'no such file', 'score the model first') from error
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise OutcomesError(path, f'is damaged ({error})', remedy) from error


@torch.inference_mode()
def collect(
    network: Network,
    batches: Iterable[Batch],
    device: str | torch.device = 'cpu',
    progress: Callable[[int], None] = lambda samples: None,
    chosen: Sequence[tuple[Modality, ...]] | None = None,
) -> Outcomes:
    """
    Ask a network about every subset of the modalities each sample has; each is encoded once.

    :param batches: with columns of `present` in the order of the network's modalities, and the
        labels of its heads.
    :param progress: called with the number of samples done after each batch.
    :param chosen: only these subsets of the network's modalities; None: all. What none of
        them names is not encoded.
    :raises InvalidSettingError: when there is no sample, or a subset the network does not know.
    :raises NotFiniteError: when an answer is NaN or infinite.
    """
    wanted = _wanted(network.modalities, chosen)
    network.eval()
    parts = []
    for batch in batches:
        batch = batch.to(device)
        logits = {
            subset_name(subset): _spread(subset, answers, rows, len(batch))
            for subset, rows, answers in _answers(network, batch, wanted)}
        labels = {head: ids.cpu().numpy() for head, ids in batch.labels.items()}
        parts.append(
            Outcomes(network.modalities, logits, batch.present.cpu().numpy(), labels))
        progress(len(batch))
    return concatenate(parts)


def concatenate(parts: Sequence[Outcomes]) -> Outcomes:
    """
    Put the samples of several outcomes of one network one after another.

    :raises InvalidSettingError: when there is none, or they are of other modalities or heads.
    """
    if not parts:
        raise InvalidSettingError('samples', 0, 'at least one', 'give a split that is not empty')
    first = parts[0]
    for part in parts:
        if (part.modalities, part.heads) != (first.modalities, first.heads):
            raise InvalidSettingError(
                'outcomes', f'of {subset_name(part.modalities)}, {", ".join(part.heads)}',
                f'of {subset_name(first.modalities)}, {", ".join(first.heads)} like the first')
    widths = {head: x.shape[1] for part in parts
              for by_head in part.logits.values() for head, x in by_head.items()}
    if widths and set(widths) != set(first.heads):
        raise InvalidSettingError(
            'labels', f'for {", ".join(first.heads)}', f'for the heads {", ".join(widths)}',
            'use the data set that the network was trained on')
    seen = {name for part in parts for name in part.logits}
    logits: dict[str, dict[str, NDArray[np.float32]]] = defaultdict(dict)
    for name in (subset_name(s) for s in subsets(first.modalities)):
        for head in widths if name in seen else ():
            logits[name][head] = np.concatenate(
                [_rows(part, name, head, widths[head]) for part in parts])
    return Outcomes(
        first.modalities, dict(logits), np.concatenate([part.present for part in parts]),
        {head: np.concatenate([part.labels[head] for part in parts]) for head in first.heads})


def scored(outcomes: Outcomes) -> Iterator[tuple[str, tuple[Modality, ...]]]:
    """Return name and modalities of each subset that was scored for any sample, largest first."""
    for subset in subsets(outcomes.modalities):
        if subset_name(subset) in outcomes.logits and outcomes.has(subset).any():
            yield subset_name(subset), subset


def _wanted(
    modalities: tuple[Modality, ...], chosen: Sequence[tuple[Modality, ...]] | None
) -> list[tuple[Modality, ...]]:
    known = subsets(modalities)
    for subset in chosen or ():
        if in_order(subset) not in known:
            raise InvalidSettingError(
                'subset', subset_name(subset), f'made of {subset_name(modalities)}, which the '
                'network has')
    return [s for s in known if chosen is None or s in {in_order(c) for c in chosen}]


def _answers(
    network: Network, batch: Batch, wanted: Sequence[tuple[Modality, ...]]
) -> Iterator[tuple[tuple[Modality, ...], Tensor, dict[str, Tensor]]]:
    """Return each subset that is there with the rows that have it `[r]` and head → `[r, c]`."""
    columns = {m: i for i, m in enumerate(network.modalities)}
    needed = torch.tensor([any(m in subset for subset in wanted) for m in columns])
    offered = batch.present & needed.to(batch.present.device)
    some = offered.any(1).nonzero().squeeze(1)  # the network refuses a sample without any
    if not len(some):
        return
    offered = offered[some]
    tokens = network.encode_present({m: x[some] for m, x in batch.inputs.items()}, offered)
    for subset in wanted:
        here = offered[:, [columns[m] for m in subset]].all(1)
        if here.any():
            yield subset, some[here], network.fuse({m: tokens[m][here] for m in subset})


def _spread(
    subset: tuple[Modality, ...], answers: Mapping[str, Tensor], rows: Tensor, samples: int
) -> dict[str, NDArray[np.float32]]:
    """Put each head's rows `[r, c]` at their places in `[samples, c]`, NaN elsewhere."""
    spread: dict[str, NDArray[np.float32]] = {}
    for head, x in answers.items():
        broken = int((~torch.isfinite(x)).any(1).sum())
        if broken:
            raise NotFiniteError(subset_name(subset), head, broken)
        spread[head] = np.full((samples, x.shape[1]), np.nan, np.float32)
        spread[head][rows.cpu().numpy()] = x.float().cpu().numpy()
    return spread


def _rows(part: Outcomes, subset: str, head: str, classes: int) -> NDArray[np.float32]:
    if subset in part.logits:
        return part.logits[subset][head]
    return np.full((len(part), classes), np.nan, np.float32)
