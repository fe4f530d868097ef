"""PyTorch as it is: what the other backends are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from karmma_ros.modality import in_order, Modality
from karmma_ros.model.backends.interface import EAGER, FP32, Input, Logits, Tokens
from karmma_ros.model.streaming import EagerParts, Parts, stretches_of
import torch
from torch import nn, Tensor


class Eager:
    """
    Run a network operator by operator, in fp32.

    The network has `modalities` and is called as `network(inputs, present)`: inputs `[1, ...]`
    of the modalities that are there, and bool `[1, m]` over all its modalities in canonical
    order; it gives logits `[1, c]` for each head. `encode` and `fuse` are those of `Karmma`.
    """

    name, precision = EAGER, FP32

    def __init__(self, network: nn.Module, device: str | torch.device = 'cpu') -> None:
        self.device = str(device)
        self.modalities = in_order(cast(Any, network).modalities)
        self._network: Any = network.to(device).eval()
        self.parts: Parts | None = (
            EagerParts(cast(Any, network), device) if stretches_of(network) else None)

    @torch.inference_mode()
    def infer(self, inputs: Mapping[Modality, Input]) -> Logits:
        """Answer as `Backend.infer`; the modalities are encoded one after another."""
        batch = {m: self._to_device(x) for m, x in inputs.items()}
        present = torch.tensor([[m in batch for m in self.modalities]], device=self.device)
        return to_numpy(self._network(batch, present))

    @torch.inference_mode()
    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Give a tensor on the device."""
        return self._network.encode(modality, self._to_device(x))

    @torch.inference_mode()
    def fuse(self, tokens: Mapping[Modality, Tokens]) -> Logits:
        """Answer from tensors on the device."""
        return to_numpy(self._network.fuse(tokens))

    def clear(self) -> None:
        """Do nothing: no tensor outlasts a call."""

    def _to_device(self, x: Input) -> Tensor:
        return torch.from_numpy(x).to(self.device)


def to_numpy(logits: Mapping[str, Tensor]) -> Logits:
    """Bring the logits `[1, c]` of each head to the host, without the batch."""
    return {head: x[0].float().cpu().numpy() for head, x in logits.items()}
