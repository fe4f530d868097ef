"""
A network of exported graphs, for any runtime.

Inputs and outputs are buffers that are allocated once; inference on a clip allocates the logits
only. On a stream, the tokens of chunks and the states of encoders are kept.

Shape legend: t frames, p chunks of a clip, n tokens of a clip, d fusion width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
import math
from pathlib import Path
import time
from typing import Any

from karmma_ros.errors import BundleError, InvalidSettingError
from karmma_ros.modality import in_order, Modality
from karmma_ros.model.backends.encoder_state import EncoderState, past_lengths
from karmma_ros.model.backends.exports import Export, remedy
from karmma_ros.model.backends.graphs import (
    FRAMES_AT_ONCE,
    FUSION,
    graph_name,
    INPUT,
    KEPT,
    LOGITS,
    PAST,
    PRESENT,
    TOKENS,
)
from karmma_ros.model.backends.interface import Graph, Input, Logits, Tokens
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


class Inline:
    """
    A small graph, run in the thread of the caller: another thread would cost more time.

    :param seconds: that a run takes.
    """

    def __init__(self, graph: Graph, seconds: float = 0.0) -> None:
        self._graph, self.seconds = graph, seconds
        self.inputs, self.outputs, self.run = graph.inputs, graph.outputs, graph.run

    def on(self, buffers: Mapping[str, NDArray[Any]]) -> Graph:
        """Return the graph with other buffers, also run in the thread of the caller."""
        return Inline(self._graph.on(buffers), self.seconds)

    def start(self) -> None:
        """Do nothing; `wait` computes."""

    def wait(self) -> None:
        """Compute."""
        self.run()


def with_threads(make: Callable[[int], Graph], most: int) -> Graph:
    """Return a graph with as many threads as it can use; a small one runs in the caller's."""
    graph = make(1)
    if (seconds := _seconds(graph)) < SMALL_S:
        return Inline(graph, seconds)
    if most == 1:
        return graph
    del graph  # it may hold much memory
    return make(most)


def _seconds(graph: Graph) -> float:
    """Return the time that a run takes, of a large graph as far as it shows that it is large."""
    least = math.inf
    for _ in range(3):  # the first run prepares
        started = time.perf_counter()
        graph.run()
        least = min(least, time.perf_counter() - started)
        if least < SMALL_S:
            break
    return least


SMALL_S = 0.005
"""A graph that takes less than this is small."""
_BESIDE_S = 0.001
"""From this on it is worth to run a graph of a stream beside that of another modality."""


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

    It is its own `parts` where encoders are chunked.

    :param encoders: modality → graph from `input` to `tokens`, of a clip, chunk or frame.
    :param fusion: graph from `present` and the tokens of each modality to the logits.
    :param chunks: of the chunked encoders.
    :param positions: modality → position embedding of each chunk, `[p, d]`.
    :param several: stateful modality → number of frames → graph that takes so many at once.
    """

    device = 'cpu'

    def __init__(
        self, name: str, precision: str, encoders: Mapping[Modality, Graph], fusion: Graph,
        chunks: Mapping[Modality, Chunks] | None = None,
        positions: Mapping[Modality, NDArray[np.float32]] | None = None,
        several: Mapping[Modality, Mapping[int, Graph]] | None = None,
    ) -> None:
        self.name, self.precision = name, precision
        self.modalities = in_order(encoders)
        self.chunks = dict(chunks or {})
        self._positions = dict(positions or {})
        self._fusion = fusion
        # Inline graphs come last and are waited for first: they run in `wait`.
        self._encoders = dict(
            sorted(encoders.items(), key=lambda item: isinstance(item[1], Inline)))
        self._several = dict(several or {})
        self._of_clips: dict[Modality, EncoderState] = {}
        """States for clips, kept for their buffers alone."""

    @property
    def parts(self) -> Parts | None:
        """Return this, if it streams."""
        return self if self.chunks else None

    @property
    def runs_in_parallel(self) -> bool:
        """Whether a graph of one chunk takes more time than another thread costs."""
        return any(not isinstance(graph, Inline) or graph.seconds > _BESIDE_S
                   for graph in self._encoders.values())

    def infer(self, inputs: Mapping[Modality, Input]) -> Logits:
        """
        Classify as `Backend.infer`: encoders run at the same time.

        Meanwhile the chunked ones run one after the other.
        """
        return self.fuse(self.encode_clip(inputs))

    def encode_clip(self, inputs: Mapping[Modality, Input]) -> dict[Modality, Tokens]:
        """Return the graphs' buffers, and arrays of the chunked encoders."""
        for modality, x in inputs.items():
            self._check(modality, x)
        unchunked = {m: graph for m, graph in self._encoders.items()
                     if m in inputs and m not in self.chunks}
        for modality, graph in unchunked.items():
            graph.inputs[INPUT][...] = inputs[modality]
        for graph in unchunked.values():
            graph.start()
        tokens = {m: self._encode_chunks(m, x)
                  for m, x in inputs.items() if m in self.chunks}
        for graph in reversed(unchunked.values()):
            graph.wait()
        return tokens | {m: graph.outputs[TOKENS] for m, graph in unchunked.items()}

    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Return a copy."""
        self._check(modality, x)
        if modality in self.chunks:
            return self._encode_chunks(modality, x)
        return self._run(modality, x)

    def fuse(self, tokens: Mapping[Modality, Tokens]) -> Logits:
        """Classify from arrays."""
        buffers = self._fusion.inputs
        for column, modality in enumerate(self.modalities):
            if PRESENT in buffers:  # a network of one modality has no mask
                buffers[PRESENT][0, column] = modality in tokens
            # An absent modality is not attended to, but a NaN left in its buffer would spread.
            buffers[modality.value][...] = tokens.get(modality, 0)
        self._fusion.run()
        logits = self._fusion.outputs.items()
        return {name.removeprefix(LOGITS): x[0].copy() for name, x in logits}

    def clear(self) -> None:
        """Run every graph on zeros, which overwrites all within; zero its inputs and outputs."""
        self._of_clips.clear()
        several = (graph for graphs in self._several.values() for graph in graphs.values())
        for graph in (*self._encoders.values(), *several, self._fusion):
            for name, buffer in graph.inputs.items():
                buffer[...] = name == PRESENT
            graph.run()
            for buffer in (*graph.inputs.values(), *graph.outputs.values()):
                buffer[...] = 0

    def encode_chunk(self, modality: Modality, x: Input) -> Part:
        """Return a copy."""
        part: Part = self._run(modality, x)[0]
        return part

    def encode_next(
        self, modality: Modality, x: Input, past: Past | None, unsettled: int = 0,
    ) -> tuple[list[Part], Past]:
        """Return copies; the state is the one given, or a new one."""
        state: EncoderState = self._new_state(modality) if past is None else past
        settled = x.shape[2] - unsettled
        parts = [*state.encode(x[:, :, :settled]), *state.encode(x[:, :, settled:])]
        state.take_back(unsettled)
        return parts, state

    def in_order(self, modality: Modality, parts: Sequence[Part]) -> Tokens:
        """Join the parts of a clip, an array."""
        positions = self._positions[modality]
        placed = np.stack(parts[-len(positions):]) + positions[:, None]  # [p, n / p, d]
        return placed.reshape(1, -1, placed.shape[-1])

    def _encode_chunks(self, modality: Modality, x: Input) -> Tokens:
        own = self.chunks[modality]
        if own.stateful:
            if modality not in self._of_clips:
                self._of_clips[modality] = self._new_state(modality)
            self._of_clips[modality].zero()
            return self.in_order(modality, self._of_clips[modality].encode(own.frames(x)))
        chunks = chunks_in(x, own.count)
        return self.in_order(modality, [self.encode_chunk(modality, chunk) for chunk in chunks])

    def _new_state(self, modality: Modality) -> EncoderState:
        return EncoderState({1: self._encoders[modality], **self._several.get(modality, {})})

    def _run(self, modality: Modality, x: Input) -> NDArray[np.float32]:
        graph = self._encoders[modality]
        graph.inputs[INPUT][...] = x
        graph.run()
        return graph.outputs[TOKENS].copy()

    def _check(self, modality: Modality, x: Input) -> None:
        """Refuse another shape than a clip's: an assignment would broadcast it."""
        wanted = list(self._encoders[modality].inputs[INPUT].shape)
        if own := self.chunks.get(modality):
            wanted = list(own.shape_of_clip(wanted))
        if list(x.shape) != wanted:
            raise InvalidSettingError(
                f'inputs.{modality}', list(x.shape), f'an array {wanted}',
                'prepare it by the clip specification that the network was built with')


def assemble(
    export: Export, network: Karmma, make: Callable[[Path, int], Graph], threads: int
) -> Exported:
    """
    Put the graphs of an export together.

    :param make: a graph from its file and the most threads it may use.
    :param threads: the most in all. Of several encoders with a state each has one: they run at
        the same time, and threads of one graph would wait for each other.
    :raises BundleError: for one that is missing, or is not of this network.
    """
    chunks = chunks_of(network)

    def graph(name: str, fits: Callable[[Graph], bool], most: int = threads) -> Graph:
        candidate = make(path := export.graph(name), most)
        if f'{PAST}0' in candidate.inputs:
            raise BundleError(path, 'is a graph of an earlier version of karmma_ros, whose state '
                              'had to be copied', remedy(export.runtime))
        if not fits(candidate):
            raise BundleError(path, 'is a graph of another network', remedy(export.runtime))
        return candidate

    fusion = graph(FUSION, lambda g: set(network.modalities) == {*g.inputs} - {PRESENT})
    encoders, several = {}, {}
    beside = 1 if sum(own.stateful for own in chunks.values()) > 1 else threads
    for m in network.modalities:
        own = chunks.get(m)
        x = (1, *network.input_shapes[m])
        x = own.shape_of_frames(x) if own else x
        x = _chunk_shape(x, 2, own)
        tokens = fusion.inputs[m.value].shape
        tokens = tokens if own and own.newest else _chunk_shape(tokens, 1, own)
        if own is None or not own.stateful:
            encoders[m] = graph(m.value, partial(_encodes, x=x, tokens=tokens))
            continue
        graphs = {frames: graph(graph_name(m, frames), partial(
            _encodes_next, x=_times(x, 2, frames), tokens=_times(tokens, 0, frames)), beside)
            for frames in FRAMES_AT_ONCE if frames <= own.count}
        encoders[m], several[m] = graphs.pop(1), graphs
    return Exported(export.runtime, export.precision, encoders, fusion, chunks,
                    positions_of(network), several)


def _chunk_shape(
    shape: tuple[int, ...], axis: int, chunks: Chunks | None
) -> tuple[int, ...]:
    if chunks is None:
        return shape
    return (*shape[:axis], shape[axis] // chunks.count, *shape[axis + 1:])


def _times(shape: tuple[int, ...], axis: int, factor: int) -> tuple[int, ...]:
    return (*shape[:axis], shape[axis] * factor, *shape[axis + 1:])


def _encodes(graph: Graph, x: tuple[int, ...], tokens: tuple[int, ...]) -> bool:
    """Whether a graph has the input and the output of an encoder of clips or chunks."""
    return (_shapes(graph.inputs), _shapes(graph.outputs)) == ({INPUT: x}, {TOKENS: tokens})


def _encodes_next(graph: Graph, x: tuple[int, ...], tokens: tuple[int, ...]) -> bool:
    """Whether a graph has the inputs and outputs of an encoder with a state, for t frames."""
    takes, gives = _shapes(graph.inputs), _shapes(graph.outputs)
    lengths = past_lengths(graph)
    wanted = {INPUT: x}, {TOKENS: tokens}
    for part, length in lengths.items():
        frame = takes.get(f'{PAST}{part}.0', ())
        for ports, prefix, count in zip(wanted, (PAST, KEPT), (length, min(length, x[2]))):
            ports.update({f'{prefix}{part}.{j}': frame for j in range(count)})
    return bool(lengths) and (takes, gives) == wanted


def _shapes(buffers: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    return {name: buffer.shape for name, buffer in buffers.items()}
