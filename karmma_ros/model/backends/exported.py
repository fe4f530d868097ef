"""
A network of exported graphs, whichever runtime runs them.

Inputs and outputs are buffers that are made once; an answer allocates no memory of its own but
the few logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import time
from typing import Any, Protocol

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import in_order, Modality
from karmma_ros.model.backends.graphs import INPUT, LOGITS, PRESENT, TOKENS
from karmma_ros.model.backends.interface import Input, Logits, Tokens
from numpy.typing import NDArray


class Graph(Protocol):
    """A graph that runs beside the caller."""

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]:
        """Give the buffers to fill before `start`."""
        ...

    @property
    def outputs(self) -> Mapping[str, NDArray[Any]]:
        """Give the buffers to read after `wait`; the next `start` overwrites them."""
        ...

    def start(self) -> None:
        """Begin to compute."""
        ...

    def wait(self) -> None:
        """Return when it is done."""
        ...

    def run(self) -> None:
        """Compute in the thread of the caller."""
        ...


class InPlace:
    """A graph so small that to hand it to another thread takes longer than to run it."""

    def __init__(self, graph: Graph) -> None:
        self.inputs, self.outputs, self.run = graph.inputs, graph.outputs, graph.run

    def start(self) -> None:
        """Leave it to `wait`."""

    def wait(self) -> None:
        """Compute."""
        self.run()


def with_threads(make: Callable[[int], Graph], most: int) -> Graph:
    """
    Make a graph with as many threads as it can use.

    A small one runs in that of the caller: to share it takes longer than to compute it, the more
    so where other programs have work for the processor.
    """
    graph = make(1)
    if _quick(graph):
        return InPlace(graph)
    if most == 1:
        return graph
    del graph  # it may hold much memory
    return make(most)


def _quick(graph: Graph) -> bool:
    for _ in range(3):  # the first run prepares
        started = time.perf_counter()
        graph.run()
        if time.perf_counter() - started < SMALL_S:
            return True
    return False


SMALL_S = 0.005
"""A graph that takes less than this is small."""


class Exported:
    """
    Run encoders and fusion as graphs, on the processor.

    :param encoders: modality → graph from `input` to `tokens`.
    :param fusion: graph from `present` and the tokens of each modality to the logits.
    """

    device, parts = 'cpu', None

    def __init__(
        self, name: str, precision: str, encoders: Mapping[Modality, Graph], fusion: Graph
    ) -> None:
        self.name, self.precision = name, precision
        self.modalities = in_order(encoders)
        self._fusion = fusion
        # What runs in our own thread comes last, and is waited for first: it is then that it runs.
        self._encoders = dict(
            sorted(encoders.items(), key=lambda item: isinstance(item[1], InPlace)))

    def infer(self, inputs: Mapping[Modality, Input]) -> Logits:
        """Answer as `Backend.infer`: all encoders run at the same time."""
        for modality, x in inputs.items():
            self._fill(modality, x)
        chosen = [graph for m, graph in self._encoders.items() if m in inputs]
        for graph in chosen:
            graph.start()
        for graph in reversed(chosen):
            graph.wait()
        return self._fuse({m: self._encoders[m].outputs[TOKENS] for m in inputs})

    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Give an array of its own."""
        self._fill(modality, x)
        graph = self._encoders[modality]
        graph.run()
        return graph.outputs[TOKENS].copy()

    def fuse(self, tokens: Mapping[Modality, Tokens]) -> Logits:
        """Answer from arrays."""
        return self._fuse(tokens)

    def _fill(self, modality: Modality, x: Input) -> None:
        buffer = self._encoders[modality].inputs[INPUT]
        if x.shape != buffer.shape:  # an assignment would repeat it
            raise InvalidSettingError(
                f'inputs.{modality}', list(x.shape), f'an array {list(buffer.shape)}',
                'prepare it by the clip specification that the network was built with')
        buffer[...] = x

    def _fuse(self, tokens: Mapping[Modality, NDArray[Any]]) -> Logits:
        buffers = self._fusion.inputs
        for column, modality in enumerate(self.modalities):
            if PRESENT in buffers:  # a network of one modality has no need of it
                buffers[PRESENT][0, column] = modality in tokens
            # What is absent is not read, but what was there before might be NaN, and spread.
            buffers[modality.value][...] = tokens.get(modality, 0)
        self._fusion.run()
        logits = self._fusion.outputs.items()
        return {name.removeprefix(LOGITS): x[0].copy() for name, x in logits}
