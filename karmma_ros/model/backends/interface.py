"""
The interface of all backends, and of the graphs that exported ones run.

Shape legend: n tokens of one modality, d fusion width, c classes of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from karmma_ros.modality import Modality
from karmma_ros.model.streaming import Parts
import numpy as np
from numpy.typing import NDArray

EAGER, COMPILED, ONNXRUNTIME, OPENVINO = 'eager', 'compiled', 'onnxruntime', 'openvino'
FP32, BF16, INT8 = 'fp32', 'bf16', 'int8'

Tokens = Any
"""The embedded tokens `[1, n, d]` of a modality, in the form that their backend keeps them."""
Input = NDArray[np.float32]
"""One clip's input of a modality, `[1, ...]` shaped as `ClipSpec.input_shape`."""
Logits = dict[str, NDArray[np.float32]]
"""Head → `[c]`."""


class Graph(Protocol):
    """A graph that runs asynchronously."""

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]:
        """Return the buffers to fill before `start`."""
        ...

    @property
    def outputs(self) -> Mapping[str, NDArray[Any]]:
        """Return the buffers to read after `wait`; the next `start` overwrites them."""
        ...

    def on(self, buffers: Mapping[str, NDArray[Any]]) -> Graph:
        """Return the same graph with other buffers for some of its inputs and outputs, by name."""
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


class Backend(Protocol):
    """
    A network that classifies one clip at a time, in one thread.

    A modality that is not given is absent: its encoder does not run. Any subset is accepted
    without preparation.
    """

    @property
    def name(self) -> str:
        """Return its name, a value of the setting `backend`."""
        ...

    @property
    def precision(self) -> str:
        """Return fp32, bf16 or int8."""
        ...

    @property
    def device(self) -> str:
        """Return the device it runs on: cpu, cuda:0 …."""
        ...

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Return the modalities the network takes, in canonical order."""
        ...

    @property
    def parts(self) -> Parts | None:
        """Return the network in chunks, where it streams and this backend can; else None."""
        ...

    def infer(self, inputs: Mapping[Modality, Input]) -> Logits:
        """Classify from the modalities given, at least one; their encoders may overlap."""
        ...

    def encode_clip(self, inputs: Mapping[Modality, Input]) -> dict[Modality, Tokens]:
        """Return the tokens of the modalities given as `infer` does, until the next call."""
        ...

    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Return a modality's tokens, which may be kept and fused repeatedly."""
        ...

    def fuse(self, tokens: Mapping[Modality, Tokens]) -> Logits:
        """Classify from this backend's tokens of the present modalities, at least one."""
        ...

    def clear(self) -> None:
        """Overwrite what previous clips left in buffers that outlive a call."""
        ...
