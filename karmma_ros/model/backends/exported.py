"""
A network of exported graphs, whichever runtime runs them.

Inputs and outputs are buffers that are made once; an answer from a clip allocates no memory of
its own but the few logits. Live, the tokens of stretches are kept, and what encoders remember.

Shape legend: t frames, p stretches of a clip, n tokens of a clip, d fusion width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
import time
from typing import Any, Protocol

from karmma_ros.errors import BundleError, InvalidSettingError
from karmma_ros.modality import in_order, Modality
from karmma_ros.model.backends.exports import Export, remedy
from karmma_ros.model.backends.graphs import FUSION, INPUT, KEPT, LOGITS, PAST, PRESENT, TOKENS
from karmma_ros.model.backends.interface import Input, Logits, Tokens
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.streaming import (
    Chunks,
    chunks_in,
    chunks_of,
    Part,
    Parts,
    Past,
    positions_of,
)
import numpy as np
from numpy.typing import NDArray


class Graph(Protocol):
    """A graph that runs beside the caller."""

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]:
        """Return the buffers to fill before `start`."""
        ...

    @property
    def outputs(self) -> Mapping[str, NDArray[Any]]:
        """Return the buffers to read after `wait`; the next `start` overwrites them."""
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


def most_bytes(network: Karmma) -> int:
    """
    Return how large a file of an export may be, before it is read.

    A graph holds some of the network's weights and tables that are made of them once, as those of
    the relative positions of Video Swin, which take less than the weights do.
    """
    weights = sum(4 * tensor.numel() for tensor in network.state_dict().values())
    return 2 * weights + 2**26


class Exported:
    """
    Run encoders and fusion as graphs, on the processor.

    It is its own `parts` where encoders come in stretches.

    :param encoders: modality → graph from `input` to `tokens`, of a clip or of one stretch.
    :param fusion: graph from `present` and the tokens of each modality to the logits.
    :param stretches: of the encoders that come in stretches.
    :param places: modality → what tells each stretch its place, `[p, d]`.
    """

    device = 'cpu'

    def __init__(
        self, name: str, precision: str, encoders: Mapping[Modality, Graph], fusion: Graph,
        stretches: Mapping[Modality, Chunks] | None = None,
        places: Mapping[Modality, NDArray[np.float32]] | None = None,
    ) -> None:
        self.name, self.precision = name, precision
        self.modalities = in_order(encoders)
        self.stretches = dict(stretches or {})
        self._places = dict(places or {})
        self._fusion = fusion
        # What runs in our own thread comes last, and is waited for first: it is then that it runs.
        self._encoders = dict(
            sorted(encoders.items(), key=lambda item: isinstance(item[1], InPlace)))
        self._memories = {m: [(x, graph.outputs[KEPT + name.removeprefix(PAST)])
                              for name, x in graph.inputs.items() if name.startswith(PAST)]
                          for m, graph in encoders.items()}

    @property
    def parts(self) -> Parts | None:
        """Return this, if it streams."""
        return self if self.stretches else None

    def infer(self, inputs: Mapping[Modality, Input]) -> Logits:
        """
        Answer as `Backend.infer`: encoders run at the same time.

        Those that come in stretches run one after the other, meanwhile.
        """
        for modality, x in inputs.items():
            self._check(modality, x)
        whole = {m: graph for m, graph in self._encoders.items()
                 if m in inputs and m not in self.stretches}
        for modality, graph in whole.items():
            graph.inputs[INPUT][...] = inputs[modality]
        for graph in whole.values():
            graph.start()
        tokens = {m: self._stretch_by_stretch(m, x)
                  for m, x in inputs.items() if m in self.stretches}
        for graph in reversed(whole.values()):
            graph.wait()
        return self.fuse(tokens | {m: graph.outputs[TOKENS] for m, graph in whole.items()})

    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Return an array of its own."""
        self._check(modality, x)
        if modality in self.stretches:
            return self._stretch_by_stretch(modality, x)
        return self._run(modality, x)

    def fuse(self, tokens: Mapping[Modality, Tokens]) -> Logits:
        """Answer from arrays."""
        buffers = self._fusion.inputs
        for column, modality in enumerate(self.modalities):
            if PRESENT in buffers:  # a network of one modality has no need of it
                buffers[PRESENT][0, column] = modality in tokens
            # What is absent is not read, but what was there before might be NaN, and spread.
            buffers[modality.value][...] = tokens.get(modality, 0)
        self._fusion.run()
        logits = self._fusion.outputs.items()
        return {name.removeprefix(LOGITS): x[0].copy() for name, x in logits}

    def clear(self) -> None:
        """Compute every graph on zeros, which overwrites what lies between, and zero its ends."""
        for graph in (*self._encoders.values(), self._fusion):
            for name, buffer in graph.inputs.items():
                buffer[...] = name == PRESENT
            graph.run()
            for buffer in (*graph.inputs.values(), *graph.outputs.values()):
                buffer[...] = 0

    def encode_chunk(self, modality: Modality, x: Input) -> Part:
        """Return an array of its own."""
        part: Part = self._run(modality, x)[0]
        return part

    def encode_next(
        self, modality: Modality, x: Input, past: Past | None
    ) -> tuple[list[Part], Past]:
        """Return arrays of their own; what is remembered of nothing is zero."""
        memory, parts = self._memories[modality], []
        for (before, _), given in zip(memory, past or repeat(0)):
            before[...] = given
        for frame in chunks_in(x, x.shape[2]):
            parts.append(self._run(modality, frame)[0])
            for before, after in memory:
                before[...] = after
        return parts, tuple(after.copy() for _, after in memory)

    def in_order(self, modality: Modality, parts: Sequence[Part]) -> Tokens:
        """Make an array of a clip's parts."""
        placed = np.stack(parts) + self._places[modality][:, None]  # [p, n / p, d]
        return placed.reshape(1, -1, placed.shape[-1])

    def _stretch_by_stretch(self, modality: Modality, x: Input) -> Tokens:
        own = self.stretches[modality]
        if own.remembers:
            return self.in_order(modality, self.encode_next(modality, x, None)[0])
        chunks = chunks_in(x, own.count)
        return self.in_order(modality, [self.encode_chunk(modality, chunk) for chunk in chunks])

    def _run(self, modality: Modality, x: Input) -> NDArray[np.float32]:
        graph = self._encoders[modality]
        graph.inputs[INPUT][...] = x
        graph.run()
        return graph.outputs[TOKENS].copy()

    def _check(self, modality: Modality, x: Input) -> None:
        """Refuse another shape than a clip's: an assignment would repeat it."""
        wanted = list(self._encoders[modality].inputs[INPUT].shape)
        if modality in self.stretches:
            wanted[2] *= self.stretches[modality].count
        if list(x.shape) != wanted:
            raise InvalidSettingError(
                f'inputs.{modality}', list(x.shape), f'an array {wanted}',
                'prepare it by the clip specification that the network was built with')


def assemble(export: Export, network: Karmma, make: Callable[[Path], Graph]) -> Exported:
    """
    Put the graphs of an export together.

    :param make: a graph from its file.
    :raises BundleError: for one that is missing, or is not of this network.
    """
    stretches = chunks_of(network)

    def graph(name: str, fits: Callable[[Graph], bool]) -> Graph:
        made = make(path := export.graph(name))
        if not fits(made):
            raise BundleError(path, 'is a graph of another network', remedy(export.runtime))
        return made

    fusion = graph(FUSION, lambda made: set(network.modalities) == {*made.inputs} - {PRESENT})
    encoders = {}
    for m in network.modalities:
        own = stretches.get(m)
        x = _stretch_of((1, *network.input_shapes[m]), 2, own)
        tokens = _stretch_of(fusion.inputs[m.value].shape, 1, own)
        encoders[m] = graph(m.value, partial(
            _encodes, x=x, tokens=tokens, remembers=own is not None and own.remembers))
    return Exported(
        export.runtime, export.precision, encoders, fusion, stretches, positions_of(network))


def _stretch_of(
    shape: tuple[int, ...], axis: int, stretches: Chunks | None
) -> tuple[int, ...]:
    if stretches is None:
        return shape
    return (*shape[:axis], shape[axis] // stretches.count, *shape[axis + 1:])


def _encodes(
    graph: Graph, x: tuple[int, ...], tokens: tuple[int, ...], remembers: bool
) -> bool:
    """Return whether a graph takes and gives what an encoder does, and all that it remembers."""
    takes, gives = ({name: buffer.shape for name, buffer in buffers.items()}
                    for buffers in (graph.inputs, graph.outputs))
    past, kept = ({name.removeprefix(kind): ports.pop(name)
                   for name in list(ports) if name.startswith(kind)}
                  for kind, ports in ((PAST, takes), (KEPT, gives)))
    return (takes, gives) == ({INPUT: x}, {TOKENS: tokens}) and (
        past == kept and bool(past) == remembers)
