"""
PyTorch: eager, `torch.compile` on a processor, CUDA graphs on a GPU.

A GPU waits for the operators of a small network to be launched one by one; a CUDA graph launches
all at once. Each encoder has its own graph and its own stream, so that they overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import in_order, Modality
from karmma_ros.model.backends.interface import BF16, COMPILED, EAGER, FP32, Input, Logits, Tokens
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.streaming import chunks_of, EagerParts, Parts
import torch
from torch import nn, Tensor


class Eager:
    """
    Run a network operator by operator, in fp32.

    The network has `modalities` and is called as `network(inputs, present)`: inputs `[1, ...]`
    of the present modalities, and bool `[1, m]` over all its modalities in canonical
    order; it returns logits `[1, c]` for each head. `encode` and `fuse` are those of `Karmma`;
    a network without them can only `infer`.
    """

    name, precision = EAGER, FP32

    def __init__(self, network: nn.Module, device: str | torch.device = 'cpu') -> None:
        self.device = str(device)
        self.modalities = in_order(cast(Any, network).modalities)
        self._network: Any = network.to(device).eval()
        self.parts: Parts | None = (
            EagerParts(cast(Any, network), device) if chunks_of(network) else None)

    @torch.inference_mode()
    def infer(self, inputs: Mapping[Modality, Input]) -> Logits:
        """See `Backend.infer`; the modalities are encoded one after another."""
        batch = {m: self._to_device(x) for m, x in inputs.items()}
        present = torch.tensor([[m in batch for m in self.modalities]], device=self.device)
        return to_numpy(self._network(batch, present))

    def encode_clip(self, inputs: Mapping[Modality, Input]) -> dict[Modality, Tokens]:
        """
        Return tensors on the device.

        :raises InvalidSettingError: for a network without `encode` and `fuse`.
        """
        if not (hasattr(self._network, 'encode') and hasattr(self._network, 'fuse')):
            raise InvalidSettingError(
                'leave_one_out', True, f'false: {type(self._network).__name__} has no tokens that '
                'could be fused again')
        return {m: self.encode(m, x) for m, x in inputs.items()}

    @torch.inference_mode()
    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Return a tensor on the device."""
        return self._network.encode(modality, self._to_device(x))

    @torch.inference_mode()
    def fuse(self, tokens: Mapping[Modality, Tokens]) -> Logits:
        """Classify from tensors on the device."""
        return to_numpy(self._network.fuse(tokens))

    def clear(self) -> None:
        """Do nothing: no tensor outlives a call."""

    def _to_device(self, x: Input) -> Tensor:
        return torch.from_numpy(x).to(self.device)


def to_numpy(logits: Mapping[str, Tensor]) -> Logits:
    """Bring the logits `[1, c]` of each head to the host, without the batch."""
    return {head: x[0].float().cpu().numpy() for head, x in logits.items()}


class EncoderOf(nn.Module):
    """One encoder of a network with its embedding, as a module."""

    def __init__(self, network: Karmma, modality: Modality) -> None:
        super().__init__()
        self.network, self.modality = network, modality

    def forward(self, x: Tensor) -> Tensor:
        """Map an input `[1, ...]` to tokens `[1, n, d]`."""
        return self.network.encode(self.modality, x)


class CompiledCPU:
    """Compile the encoders at their first use, which takes a C++ compiler and up to minutes."""

    name, precision, device, parts = COMPILED, FP32, 'cpu', None

    def __init__(self, network: Karmma) -> None:
        self._network = network.to('cpu').eval()
        self.modalities = in_order(network.modalities)
        self._encoders = {
            m: torch.compile(EncoderOf(network, m).eval(), dynamic=False)
            for m in self.modalities}

    def infer(self, inputs: Mapping[Modality, Input]) -> Logits:
        """See `Backend.infer`; each encoder has all threads, one after another."""
        return self.fuse(self.encode_clip(inputs))

    def encode_clip(self, inputs: Mapping[Modality, Input]) -> dict[Modality, Tokens]:
        """Return tensors."""
        return {m: self.encode(m, x) for m, x in inputs.items()}

    @torch.inference_mode()
    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Return a tensor."""
        return self._encoders[modality](torch.from_numpy(x))

    @torch.inference_mode()
    def fuse(self, tokens: Mapping[Modality, Tokens]) -> Logits:
        """Classify from tensors; not compiled: every subset would be compiled anew."""
        return to_numpy(self._network.fuse(tokens))

    def clear(self) -> None:
        """Do nothing: no tensor outlives a call."""


class CompiledCUDA:
    """
    Capture the encoders, and the fusion of each subset at its first use, as CUDA graphs.

    Products are computed in bf16.
    """

    name, precision, parts = COMPILED, BF16, None

    def __init__(self, network: Karmma, shapes: Mapping[Modality, tuple[int, ...]],
                 device: str) -> None:
        self._network, self.device = network.to(device).eval(), device
        self.modalities = in_order(network.modalities)
        self._streams = {m: torch.cuda.Stream(device) for m in self.modalities}
        self._host = {m: torch.empty(1, *shapes[m], pin_memory=True) for m in self.modalities}
        self._encoders = {m: self._encoder(m) for m in self.modalities}
        self._fusions: dict[tuple[Modality, ...], Captured] = {}

    @torch.inference_mode()
    def infer(self, inputs: Mapping[Modality, Input]) -> Logits:
        """See `Backend.infer`: copies and encoders overlap, each on its stream."""
        return self._fuse(self.encode_clip(inputs))

    @torch.inference_mode()
    def encode_clip(self, inputs: Mapping[Modality, Input]) -> dict[Modality, Tokens]:
        """Return the encoders' buffers on the device."""
        main = torch.cuda.current_stream(self.device)
        for modality, x in inputs.items():
            stream = self._streams[modality]
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                self._launch(modality, x)
        for modality in inputs:
            main.wait_stream(self._streams[modality])
        return {m: self._encoders[m].output[TOKENS] for m in inputs}

    @torch.inference_mode()
    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Return a copy on the device."""
        self._launch(modality, x)
        tokens = self._encoders[modality].output[TOKENS].clone()
        torch.cuda.current_stream(self.device).synchronize()  # the host's buffer is free again
        return tokens

    @torch.inference_mode()
    def fuse(self, tokens: Mapping[Modality, Tokens]) -> Logits:
        """Classify from tensors on the device."""
        return self._fuse(tokens)

    @torch.inference_mode()
    def clear(self) -> None:
        """Compute every graph on zeros: inputs, outputs and all between are overwritten."""
        for host in self._host.values():
            host.zero_()
        for graph in (*self._encoders.values(), *self._fusions.values()):
            for buffer in graph.inputs:
                buffer.zero_()
            graph.replay()
        torch.cuda.synchronize(self.device)

    def _launch(self, modality: Modality, x: Input) -> None:
        graph = self._encoders[modality]
        self._host[modality].copy_(torch.from_numpy(x))
        graph.inputs[0].copy_(self._host[modality], non_blocking=True)
        graph.replay()

    def _fuse(self, tokens: Mapping[Modality, Tensor]) -> Logits:
        chosen = in_order(tokens)
        graph = self._fusions.get(chosen)
        if graph is None:
            graph = self._fusions[chosen] = self._fusion(chosen, tokens)
        for buffer, modality in zip(graph.inputs, chosen):
            buffer.copy_(tokens[modality])
        graph.replay()
        return to_numpy(graph.output)

    def _encoder(self, modality: Modality) -> Captured:
        x = torch.zeros(self._host[modality].shape, device=self.device)
        return Captured(
            lambda given: {TOKENS: self._network.encode(modality, given)}, [x])

    def _fusion(
        self, chosen: tuple[Modality, ...], tokens: Mapping[Modality, Tensor]
    ) -> Captured:
        return Captured(
            lambda *given: self._network.fuse(dict(zip(chosen, given))),
            [tokens[m].clone() for m in chosen])


TOKENS = 'tokens'
_WARM_UPS = 3
"""Libraries choose their kernels and reserve memory in the first runs."""


class Captured:
    """
    A computation as a CUDA graph, with the buffers that it reads and writes.

    :param compute: tensors → named tensors; nothing in it may wait for the GPU.
    :param inputs: on the GPU; they become the buffers.
    """

    def __init__(
        self, compute: Callable[..., Mapping[str, Tensor]], inputs: list[Tensor]
    ) -> None:
        self.inputs, device = inputs, inputs[0].device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.inference_mode(), torch.autocast('cuda', torch.bfloat16, cache_enabled=False):
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):
                    compute(*inputs)
            stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            # Another thread may load another model meanwhile.
            with torch.cuda.graph(self._graph, stream=stream, capture_error_mode='thread_local'):
                self.output = {name: x.float() for name, x in compute(*inputs).items()}

    def replay(self) -> None:
        """Compute again, from what the buffers hold now."""
        self._graph.replay()
