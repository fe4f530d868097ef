"""Inference on the windows of streams: each modality is encoded once and fused per subset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from karmma_ros.evaluation.inference import fuse_subsets, scatter, Subset
from karmma_ros.modality import in_order, Modality
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.streaming import chunks_of, EagerParts
from karmma_ros.stream.token_cache import TokenCache
from karmma_ros.stream.window import Window
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SubsetPredictions:
    """The predictions for the windows of a batch that have one subset."""

    rows: NDArray[np.int64]
    """`[r]`: their indices in the batch."""
    probabilities: dict[str, NDArray[np.float32]]
    """Head → `[r, c]`; NaN where a logit is NaN or infinite."""
    unknown_score: NDArray[np.float32]
    """`[r]`."""
    is_unknown: NDArray[np.bool_]
    """`[r]`."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A window as the network takes it."""

    inputs: Mapping[Modality, Any]
    """A clip's inputs; for a stateful network, its tokens `[1, n, d]`."""

    @property
    def modalities(self) -> Subset:
        """Return the present modalities in canonical order."""
        return in_order(self.inputs)


def inference_for(bundle: Bundle, device: str | torch.device = 'cpu') -> BatchInference:
    """Return the inference that gives what the node gives; some encoders are stateful."""
    stateful = any(each.stateful for each in chunks_of(bundle.network).values())
    return StatefulInference(bundle, device) if stateful else BatchInference(bundle, device)


class BatchInference:
    """Inference on windows in batches, with one network in evaluation mode on one device."""

    stateful = False
    """Whether a prediction depends on the windows that were prepared before."""

    def __init__(self, bundle: Bundle, device: str | torch.device = 'cpu') -> None:
        self.device = torch.device(device)
        self.network = bundle.network.to(self.device).eval()
        self.modalities: Subset = self.network.modalities
        self._calibration = bundle.calibration

    def prepare(self, run_index: int, window: Window) -> Prepared:
        """
        Prepare a window.

        :param run_index: the run it is of; the windows of one run come in their order.
        :raises InvalidSampleError: when it cannot be prepared.
        """
        return Prepared(window.clip().inputs)

    @torch.inference_mode()
    def __call__(
        self, windows: Sequence[Prepared], wanted: Sequence[Sequence[Subset]],
    ) -> dict[Subset, SubsetPredictions]:
        """
        Predict the subsets wanted of each window, which must have their modalities.

        The probabilities are those of `Recogniser`, up to the rounding of a larger batch.
        """
        rows: dict[Subset, list[int]] = {}
        for row, chosen in enumerate(wanted):
            for subset in chosen:
                rows.setdefault(subset, []).append(row)
        needed = {m for subset in rows for m in subset}
        tokens = {}
        for modality in (m for m in self.modalities if m in needed):
            own = [row for row, window in enumerate(windows) if modality in window.inputs]
            encoded = self._encode(modality, [windows[row] for row in own])
            tokens[modality] = scatter(encoded, own, len(windows))
        indices = {s: torch.tensor(own, device=self.device) for s, own in rows.items()}
        return {subset: self._predictions(np.array(rows[subset]), subset, logits)
                for subset, logits in fuse_subsets(self.network, tokens, indices)}

    def _predictions(
        self, rows: NDArray[np.int64], subset: Subset, logits: Mapping[str, Tensor]
    ) -> SubsetPredictions:
        output = self._calibration.apply(subset, {h: _finite_rows(x) for h, x in logits.items()})
        return SubsetPredictions(
            rows, {head: p.astype(np.float32) for head, p in output.probabilities.items()},
            output.unknown_score.astype(np.float32), output.is_unknown)

    def _encode(self, modality: Modality, windows: Sequence[Prepared]) -> Tensor:
        inputs = torch.from_numpy(np.stack([window.inputs[modality] for window in windows]))
        return self.network.encode(modality, inputs.to(self.device))


class StatefulInference(BatchInference):
    """A network whose tokens depend on frames before the window, encoded as the node does."""

    stateful = True

    def __init__(self, bundle: Bundle, device: str | torch.device = 'cpu') -> None:
        super().__init__(bundle, device)
        parts = EagerParts(self.network, self.device)
        self._caches: defaultdict[int, TokenCache] = defaultdict(lambda: TokenCache(parts))

    def prepare(self, run_index: int, window: Window) -> Prepared:
        """Encode the frames of a window that are new since the last one of its run."""
        return Prepared(self._caches[run_index].tokens(window))

    def _encode(self, modality: Modality, windows: Sequence[Prepared]) -> Tensor:
        return torch.cat([window.inputs[modality] for window in windows])


def _finite_rows(logits: Tensor) -> NDArray[np.float64]:
    """Return logits `[r, c]`; NaN in the rows where one is NaN or infinite."""
    x: NDArray[np.float64] = logits.double().cpu().numpy()
    x[~np.isfinite(x).all(axis=1)] = np.nan
    return x
