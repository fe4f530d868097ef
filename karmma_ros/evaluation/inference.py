"""
Many windows and many subsets of their sensors, asked at once; each sensor is encoded once.

Shape legend: r windows that have a subset, n tokens, d fusion width, c classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from karmma_ros.modality import in_order, Modality
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.streaming import chunks_of, EagerParts
from karmma_ros.prediction import softmax
from karmma_ros.stream.token_cache import TokenCache
from karmma_ros.stream.window import Window
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

Subset = tuple[Modality, ...]


@dataclass(frozen=True, eq=False)
class SubsetPredictions:
    """The answers to the windows of a batch that have one subset."""

    rows: NDArray[np.int64]
    """`[r]`: their places in the batch."""
    probabilities: dict[str, NDArray[np.float32]]
    """Head → `[r, c]`; NaN where the network gave no number."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A window as the network takes it."""

    inputs: Mapping[Modality, Any]
    """A clip's inputs; of a network that remembers, its tokens `[1, n, d]`."""

    @property
    def modalities(self) -> Subset:
        """Return what is there, in canonical order."""
        return in_order(self.inputs)


def inference_for(bundle: Bundle, device: str | torch.device = 'cpu') -> BatchInference:
    """Return what asks a network as the node does: some remember what was before the window."""
    remembers = any(each.stateful for each in chunks_of(bundle.network).values())
    return StatefulInference(bundle, device) if remembers else BatchInference(bundle, device)


class BatchInference:
    """One network, in evaluation mode, on one device."""

    remembers = False
    """Whether an answer depends on the windows that were prepared before."""

    def __init__(self, bundle: Bundle, device: str | torch.device = 'cpu') -> None:
        self.device = torch.device(device)
        self.network = bundle.network.to(self.device).eval()
        self.modalities: Subset = self.network.modalities

    def prepare(self, lane: int, window: Window) -> Prepared:
        """
        Prepare a window.

        :param lane: where it comes from; the windows of one lane come in their order.
        :raises InvalidSampleError: when it cannot be prepared.
        """
        return Prepared(window.clip().inputs)

    @torch.inference_mode()
    def __call__(
        self, clips: Sequence[Prepared], wanted: Sequence[Sequence[Subset]],
    ) -> dict[Subset, SubsetPredictions]:
        """
        Ask about each window the subsets wanted of it; it must have all that they name.

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
            answers[subset] = SubsetPredictions(
                np.array(those), {head: _probabilities(x) for head, x in logits.items()})
        return answers

    def _encode(self, modality: Modality, clips: Sequence[Prepared]) -> Tensor:
        inputs = torch.from_numpy(np.stack([clip.inputs[modality] for clip in clips]))
        return self.network.encode(modality, inputs.to(self.device))

    def _pick(self, tokens: Tensor, held: Sequence[int], wanted: Sequence[int]) -> Tensor:
        """Return the tokens `[r, n, d]` of some clips, from those of the clips that are held."""
        if len(held) == len(wanted):
            return tokens
        place = {row: i for i, row in enumerate(held)}
        return tokens[torch.tensor([place[row] for row in wanted], device=tokens.device)]


class StatefulInference(BatchInference):
    """A network whose tokens depend on frames before the window, as the node has encoded them."""

    remembers = True

    def __init__(self, bundle: Bundle, device: str | torch.device = 'cpu') -> None:
        super().__init__(bundle, device)
        parts = EagerParts(self.network, self.device)
        self._memos: defaultdict[int, TokenCache] = defaultdict(lambda: TokenCache(parts))

    def prepare(self, lane: int, window: Window) -> Prepared:
        """Encode what is new of a window since the last of its lane."""
        return Prepared(self._memos[lane].tokens(window))

    def _encode(self, modality: Modality, clips: Sequence[Prepared]) -> Tensor:
        return torch.cat([clip.inputs[modality] for clip in clips])


def _probabilities(logits: Tensor) -> NDArray[np.float32]:
    x = logits.double().cpu().numpy()
    x[~np.isfinite(x).all(axis=1)] = np.nan
    return softmax(x).astype(np.float32)
