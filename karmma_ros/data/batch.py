"""Samples of any modalities → one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from karmma_ros.clip import Clip
from karmma_ros.modality import Modality
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One labelled clip."""

    clip: Clip
    labels: Mapping[str, int]
    """Head → class id."""


@dataclass(frozen=True)
class Batch:
    """Clips side by side; b samples, m modalities in canonical order."""

    inputs: Mapping[Modality, Tensor]
    """Modality → float32 `[b, ...]`; zeros where a sample lacks it."""
    present: Tensor
    """Bool `[b, m]`."""
    labels: Mapping[str, Tensor]
    """Head → int64 `[b]`."""

    def __len__(self) -> int:
        return len(self.present)

    def to(self, device: torch.device | str) -> Batch:
        """Give the same batch on another device."""
        return Batch(
            {m: x.to(device, non_blocking=True) for m, x in self.inputs.items()},
            self.present.to(device),
            {head: ids.to(device) for head, ids in self.labels.items()},
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
    return Batch(inputs, present, labels)
