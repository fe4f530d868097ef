"""
Many clips and many subsets of their sensors, asked at once; each sensor is encoded once.

Shape legend: b clips, r clips that have a subset, c classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from karmma_ros.clip import Clip
from karmma_ros.modality import Modality
from karmma_ros.model.bundle import Bundle
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

Subset = tuple[Modality, ...]


@dataclass(frozen=True, eq=False)
class SubsetAnswers:
    """The answers to the clips of a batch that have one subset."""

    rows: NDArray[np.int64]
    """`[r]`: their places in the batch."""
    probabilities: dict[str, NDArray[np.float32]]
    """Head → `[r, c]`; NaN where the network gave no number."""


class Asker:
    """One network, in evaluation mode, on one device."""

    def __init__(self, bundle: Bundle, device: str | torch.device = 'cpu') -> None:
        self.device = torch.device(device)
        self.network = bundle.network.to(self.device).eval()
        self.modalities: Subset = self.network.modalities

    @torch.inference_mode()
    def __call__(
        self, clips: Sequence[Clip], wanted: Sequence[Sequence[Subset]],
    ) -> dict[Subset, SubsetAnswers]:
        """
        Ask about each clip the subsets wanted of it; it must have all that they name.

        The answers are those of `Recogniser`, up to the rounding of a larger batch.
        """
        rows: dict[Subset, list[int]] = {}
        for row, subsets in enumerate(wanted):
            for subset in subsets:
                rows.setdefault(subset, []).append(row)
        named = {m for subset in rows for m in subset}
        places = {m: [i for i, clip in enumerate(clips) if m in clip.inputs]
                  for m in self.modalities if m in named}
        tokens = {m: self._encode(m, [clips[i] for i in those])
                  for m, those in places.items() if those}
        answers = {}
        for subset, those in rows.items():
            picked = {m: self._pick(tokens[m], places[m], those) for m in subset}
            logits = self.network.fuse(picked)
            answers[subset] = SubsetAnswers(
                np.array(those), {head: _softmax(x) for head, x in logits.items()})
        return answers

    def _encode(self, modality: Modality, clips: Sequence[Clip]) -> Tensor:
        inputs = torch.from_numpy(np.stack([clip.inputs[modality] for clip in clips]))
        return self.network.encode(modality, inputs.to(self.device))

    def _pick(self, tokens: Tensor, held: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """Give the tokens `[r, n, d]` of some clips, from those of the clips that are held."""
        if len(held) == len(wanted):
            return tokens
        place = {row: i for i, row in enumerate(held)}
        return tokens[torch.tensor([place[row] for row in wanted], device=tokens.device)]


def _softmax(logits: Tensor) -> NDArray[np.float32]:
    x = logits.double().cpu().numpy()
    x[~np.isfinite(x).all(axis=1)] = np.nan
    scores = np.exp(x - x.max(axis=1, keepdims=True))
    return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
