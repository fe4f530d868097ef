"""
What every backend does.

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
"""One clip's input of a modality, `[1, ...]` as `ClipSpec.input_shape` says."""
Logits = dict[str, NDArray[np.float32]]
"""Head → `[c]`."""


class Backend(Protocol):
    """
    A network that answers for one clip at a time, in one thread.

    A modality that is not given is absent: its encoder does not run. Any subset is taken as it
    comes, without preparation.
    """

    @property
    def name(self) -> str:
        """Return its name, as the setting `backend` has it."""
        ...

    @property
    def precision(self) -> str:
        """Return what it was made for: fp32, bf16 or int8."""
        ...

    @property
    def device(self) -> str:
        """Return where it runs: cpu, cuda:0 …."""
        ...

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Return the modalities the network takes, in canonical order."""
        ...

    @property
    def parts(self) -> Parts | None:
        """Return the network stretch by stretch, if it streams and this runs it so; else None."""
        ...

    def infer(self, inputs: Mapping[Modality, Input]) -> Logits:
        """Answer from the modalities given, at least one; their encoders overlap."""
        ...

    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Return a modality's tokens, to keep and to fuse as often as wanted."""
        ...

    def fuse(self, tokens: Mapping[Modality, Tokens]) -> Logits:
        """Answer from this backend's tokens of the modalities that are there, at least one."""
        ...

    def clear(self) -> None:
        """Overwrite what the clips before have left in buffers that outlast a call."""
        ...
