"""
The state of a stateful encoder between runs of its graphs, without a copy.

What a part of the encoder keeps of a frame is a buffer. A run reads the buffers of the frames
before, and writes those of the new frames over the oldest ones, which no later run reads. So there
are as many sets of buffers as a ring has positions, and a graph is bound to each of them once.

Shape legend: t frames, n tokens of a frame, d fusion width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from karmma_ros.model.backends.graphs import INPUT, KEPT, PAST, TOKENS
from karmma_ros.model.backends.interface import Graph
from karmma_ros.model.streaming import Input, MOST_UNSETTLED
import numpy as np
from numpy.typing import NDArray

_Buffer = NDArray[np.float32]


class EncoderState:
    """
    What an encoder keeps of the frames of one stream, and the graphs that read and write it.

    :param graphs: number of new frames → the graph that takes so many; one takes a single frame.
    """

    def __init__(self, graphs: Mapping[int, Graph]) -> None:
        self._graphs = dict(sorted(graphs.items(), reverse=True))
        shapes = {_part(name): buffer.shape for name, buffer in graphs[1].inputs.items()
                  if name.startswith(PAST)}
        self._lengths = past_lengths(graphs[1])
        self._size = max(self._lengths.values(), default=0) + max(*graphs, MOST_UNSETTLED)
        self._rings = {part: [np.zeros(shape, np.float32) for _ in range(self._size)]
                       for part, shape in shapes.items()}
        self._bound: dict[tuple[int, int], Graph] = {}
        self._count = 0
        """Frames of the stream so far; frame i is kept in the buffer i modulo the ring's size."""

    def zero(self) -> None:
        """Start a stream, before which there is nothing."""
        for ring in self._rings.values():
            for buffer in ring:
                buffer[...] = 0

    def encode(self, x: Input) -> list[_Buffer]:
        """
        Encode the next frames of the stream, as few runs as there are graphs for.

        :param x: `[1, 3, t, h, w]`.
        :returns: copies of the tokens of each frame, `[n, d]`.
        """
        tokens: list[_Buffer] = []
        while (left := x.shape[2] - len(tokens)) > 0:
            frames = next(number for number in self._graphs if number <= left)
            graph = self._graph(frames)
            graph.inputs[INPUT][...] = x[:, :, len(tokens):len(tokens) + frames]
            graph.run()
            tokens.extend(graph.outputs[TOKENS].copy())
            self._count += frames
        return tokens

    def take_back(self, frames: int) -> None:
        """
        Return to the state before the last call of `encode`, of at most `MOST_UNSETTLED` frames.

        Nothing that was kept of the frames before has been overwritten: the ring is longer.

        :param frames: of that call.
        """
        self._count -= frames

    def _graph(self, frames: int) -> Graph:
        """Return the graph of so many frames, bound to the buffers of the next ones."""
        key = frames, self._count % self._size
        if key not in self._bound:
            self._bound[key] = self._graphs[frames].on(self._buffers(*key))
        return self._bound[key]

    def _buffers(self, frames: int, start: int) -> Mapping[str, _Buffer]:
        buffers = {}
        for part, ring in self._rings.items():
            length = self._lengths[part]
            kept = min(frames, length)
            spans = {PAST: (start - length, length), KEPT: (start + frames - kept, kept)}
            for prefix, (first, count) in spans.items():
                for j in range(count):
                    buffers[f'{prefix}{part}.{j}'] = ring[(first + j) % self._size]
        return buffers


def past_lengths(graph: Graph) -> dict[str, int]:
    """Return how many frames before each part of an encoder takes, by its number."""
    return dict(Counter(_part(name) for name in graph.inputs if name.startswith(PAST)))


def _part(name: str) -> str:
    return name.split('.')[1]
