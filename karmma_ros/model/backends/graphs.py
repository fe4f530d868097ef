"""
A network as ONNX graphs: one for each encoder, and one for fusion and heads.

They are traced from the network itself. The graph of the fusion takes the tokens of all
modalities and a mask, so that it answers for any subset; those of an encoder know nothing of
the other modalities. All shapes are fixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
import warnings

from karmma_ros.modality import Modality
from karmma_ros.model.backends.agreement import check_clip
from karmma_ros.model.backends.compiled import EncoderOf
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.karmma import Karmma
import torch
from torch import nn, Tensor
from torch.overrides import TorchFunctionMode

FUSION = 'fusion'
INPUT, TOKENS, PRESENT, LOGITS = 'input', 'tokens', 'present', 'logits.'
"""Names of inputs and outputs; that of a head's logits is followed by the head's."""
OPSET = 17
"""The first one that has layer normalisation as one operator."""


class _Fusion(nn.Module):
    def __init__(self, network: Karmma) -> None:
        super().__init__()
        self.network = network

    def forward(self, present: Tensor, *tokens: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.network.modalities, tokens))
        return tuple(self.network.fuse(given, present).values())


def write_graphs(bundle: Bundle, folder: Path) -> list[Path]:
    """
    Write `MODALITY.onnx` for each modality and `fusion.onnx`.

    An encoder maps `input` `[1, ...]` to `tokens` `[1, n, d]`; the fusion maps `present`
    `[1, m]` and the tokens, each called as its modality, to `logits.HEAD` for each head.
    """
    network, written = bundle.network, []
    with _traceable():
        tokens: dict[Modality, Tensor] = {}
        for modality, x in check_clip(bundle.spec, network.modalities).items():
            example = torch.from_numpy(x)
            tokens[modality] = network.encode(modality, example)
            path = folder / f'{modality}.onnx'
            _export(EncoderOf(network, modality), (example,), path, [INPUT], [TOKENS])
            written.append(path)
        written.append(_write_fusion(bundle, tokens, folder / f'{FUSION}.onnx'))
    return written


def _write_fusion(bundle: Bundle, tokens: Mapping[Modality, Tensor], path: Path) -> Path:
    # One is absent: with all of them there the network takes a shorter way, which has no mask.
    present = torch.ones(1, len(tokens), dtype=torch.bool)
    present[0, -1] = len(tokens) == 1
    names = [PRESENT, *(m.value for m in tokens)]
    logits = [LOGITS + head for head in bundle.vocabulary.heads]
    _export(_Fusion(bundle.network), (present, *tokens.values()), path, names, logits)
    return path


def _export(
    module: nn.Module, example: tuple[Tensor, ...], path: Path, inputs: list[str],
    outputs: list[str],
) -> None:
    torch.onnx.export(
        module.eval(), example, str(path), input_names=inputs, output_names=outputs,
        opset_version=OPSET, dynamo=False)


@contextmanager
def _traceable() -> Iterator[None]:
    """Take the ways through PyTorch that can be traced, and keep its advice to itself."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator for a whole layer: no graph
    try:
        with torch.no_grad(), _PlainTranspose(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the tracer; what it makes is checked
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _PlainTranspose(TorchFunctionMode):
    """Write `x.mT` as the transposition that it is: the exporter does not know it."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, '__self__', None) is torch.Tensor.mT:
            return args[0].transpose(-2, -1)
        return func(*args, **(kwargs or {}))
