"""
The encoders of a network by OpenVINO, to encode many clips on a processor.

Shape legend: b batch, n tokens, e token width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.backends.graphs import INPUT, TOKENS, write_encoder
from karmma_ros.model.backends.interface import EAGER, Graph, OPENVINO
from karmma_ros.model.backends.openvino_runtime import compile_graph
from karmma_ros.model.karmma import Karmma
import torch
from torch import nn, Tensor

TOLERANCE = 0.05
"""Greatest difference of the tokens from those of PyTorch, as a fraction of their size."""


@contextmanager
def openvino_encoders(network: Karmma) -> Iterator[None]:
    """
    Let OpenVINO compute the encoders of a network on the processor while the context lasts.

    The first input of each is also encoded by PyTorch, and the tokens are compared.
    """
    eager = dict(network.encoders.items())
    for name, encoder in eager.items():
        network.encoders[name] = _CompiledEncoder(name, encoder)
    try:
        yield
    finally:
        for name, encoder in eager.items():
            network.encoders[name] = encoder


class _CompiledEncoder(nn.Module):
    def __init__(self, name: str, encoder: nn.Module) -> None:
        super().__init__()
        self._name, self._encoder = name, encoder.eval()
        self._graph: Graph | None = None

    def forward(self, x: Tensor) -> Tensor:
        """
        Encode one input after another: `[b, ...]` → `[b, n, e]`.

        :raises InvalidSettingError: when the tokens of the first differ from those of PyTorch, or
            OpenVINO is not installed.
        """
        graph = self._graph
        if graph is None:
            graph = self._graph = self._compiled(x[:1])
        return torch.cat([_run(graph, row[None]) for row in x])

    def _compiled(self, example: Tensor) -> Graph:
        with TemporaryDirectory() as folder, torch.inference_mode(False):  # which is not traced
            path = Path(folder, 'encoder.onnx')
            write_encoder(self._encoder, path, example.clone())
            graph = compile_graph(path, torch.get_num_threads())
        expected = self._encoder(example)
        difference = float((_run(graph, example) - expected).norm() / expected.norm())
        if not difference <= TOLERANCE:
            raise InvalidSettingError(
                '--backend', OPENVINO, EAGER, f'the tokens of {self._name} differ from those of '
                f'PyTorch by {difference:.1%}, of which {TOLERANCE:.0%} are allowed')
        return graph


def _run(graph: Graph, x: Tensor) -> Tensor:
    graph.inputs[INPUT][...] = x.numpy()
    graph.run()
    return torch.from_numpy(graph.outputs[TOKENS].copy())
