"""What a split gives to training and scoring, and samples of any modalities → one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast, Protocol

from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.modality import Modality
from karmma_ros.prediction import Vocabulary
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One labelled clip."""

    clip: Clip
    labels: Mapping[str, int]
    """Head → class id."""
    index: int = -1
    """Its place in its split; -1 where that is of no account."""


class Clips(Protocol):
    """A split of a data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Return a clip as it is scored: always the same."""
        ...

    def visit(self, index: int, epoch: int) -> Sample:
        """Return a clip as it is trained on in an epoch: another window each time, say."""
        ...


def taking(clips: Clips, modalities: Sequence[Modality]) -> Clips:
    """Return the same clips with nothing else prepared, where that spares a data set work."""
    narrower = getattr(clips, 'taking', None)
    return clips if narrower is None else cast(Clips, narrower(modalities))


@dataclass  # not frozen: Lightning puts tensors of another precision into a copy
class Batch:
    """Clips side by side; b samples, m modalities in canonical order."""

    inputs: Mapping[Modality, Tensor]
    """Modality → float32 `[b, ...]`; zeros where a sample lacks it."""
    present: Tensor
    """Bool `[b, m]`."""
    labels: Mapping[str, Tensor]
    """Head → int64 `[b]`."""
    index: Tensor
    """Int64 `[b]`: each sample's place in its split."""

    def __len__(self) -> int:
        return len(self.present)

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on another device."""
        return Batch(
            {m: x.to(device, non_blocking=True) for m, x in self.inputs.items()},
            self.present.to(device),
            {head: ids.to(device) for head, ids in self.labels.items()},
            self.index.to(device),
        )

    def rows(self, chosen: Tensor) -> Batch:
        """Return the samples that a bool `[b]` marks."""
        return Batch(
            {m: x[chosen] for m, x in self.inputs.items()},
            self.present[chosen],
            {head: ids[chosen] for head, ids in self.labels.items()},
            self.index[chosen],
        )


def collate(samples: Sequence[Sample], modalities: Sequence[Modality]) -> Batch:
    """Put samples side by side; no two need the same modalities (no alignment needed)."""
    inputs: dict[Modality, Tensor] = {}
    present = torch.zeros(len(samples), len(modalities), dtype=torch.bool)
    for column, modality in enumerate(modalities):
        given = [sample.clip.inputs.get(modality) for sample in samples]
        like = next((x for x in given if x is not None), None)
        if like is None:
            continue
        present[:, column] = torch.tensor([x is not None for x in given])
        inputs[modality] = torch.from_numpy(
            np.stack([np.zeros_like(like) if x is None else x for x in given]))
    labels = {
        head: torch.tensor([sample.labels[head] for sample in samples])
        for head in samples[0].labels
    }
    return Batch(inputs, present, labels, torch.tensor([sample.index for sample in samples]))


@dataclass(frozen=True)
class Splits:
    """The three splits of a data set; two of them may be the same clips."""

    name: str
    """The data set in words, such as `EPIC-KITCHENS-100`."""
    spec: ClipSpec
    """How the clips were made."""
    vocabulary: Vocabulary
    """The heads and their class names."""
    train: Clips
    validation: Clips
    test: Clips
