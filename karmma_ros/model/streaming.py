"""
A network in the pieces that a live stream runs it in.

An encoder that keeps stretches of a clip apart, chunks or single frames, is run on the newest
stretch only; what the older ones gave is kept. `EagerParts` does it in PyTorch,
`backends.exported.Exported` with graphs of one stretch.

Shape legend: t frames, c frames of a chunk, p stretches of a clip, h height, w width, n tokens
of a clip, d fusion width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from karmma_ros.modality import Modality
from karmma_ros.model.encoders.causal import CausalFrames
from karmma_ros.model.encoders.video import ChunkedEncoder
from karmma_ros.model.karmma import Karmma
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn

Input = NDArray[np.float32]
"""One clip's input of a modality, or some frames of it, `[1, ...]`."""
Part = Any
"""The embedded tokens `[n / p, d]` of one stretch, in the form that their runtime keeps them."""
Tokens = Any
"""The embedded tokens `[1, n, d]` of a clip, in that form."""
Past = Any
"""What an encoder remembers of the frames before."""


@dataclass(frozen=True)
class Chunks:
    """How an encoder takes the frames of a clip apart."""

    count: int
    """Stretches of a clip (p)."""
    remembers: bool
    """Each is a frame, encoded with a memory of those before it; else they are chunks."""
    skips_first: bool
    """The first frame of each is not looked at."""


class Parts(Protocol):
    """A network, stretch by stretch."""

    @property
    def stretches(self) -> Mapping[Modality, Chunks]:
        """Tell of the modalities that come in stretches; the others are encoded as a whole."""
        ...

    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Embed a clip of a modality that does not come in stretches."""
        ...

    def encode_chunk(self, modality: Modality, x: Input) -> Part:
        """Embed one chunk, `[1, 3, c, h, w]`, without its place in the clip."""
        ...

    def encode_next(
        self, modality: Modality, x: Input, past: Past | None
    ) -> tuple[list[Part], Past]:
        """
        Embed the next frames of a stream, `[1, 3, t, h, w]`, without their places in the clip.

        :param past: as the call before gave it; None: nothing came before.
        :returns: a part for each frame, and what to tell the next call.
        """
        ...

    def in_order(self, modality: Modality, parts: Sequence[Part]) -> Tokens:
        """Make a clip of p parts, oldest first, telling each its place."""
        ...


def chunks_of(network: nn.Module) -> dict[Modality, Chunks]:
    """Tell which modalities of a network come in stretches; none of most networks."""
    found: dict[Modality, Chunks] = {}
    for name, encoder in getattr(network, 'encoders', nn.ModuleDict()).items():
        if getattr(network, 'embeddings')[name].parts != getattr(encoder, 'parts', 1):
            continue  # an ensemble: its tokens are means of the whole clip
        if isinstance(encoder, ChunkedEncoder):
            found[Modality(name)] = Chunks(encoder.parts, False, encoder.skips_first)
        elif isinstance(encoder, CausalFrames):
            found[Modality(name)] = Chunks(encoder.parts, True, False)
    return found


def positions_of(network: Karmma) -> dict[Modality, NDArray[np.float32]]:
    """Return what tells each stretch of a clip its place, `[p, d]`: zeros where there is one."""
    places = {}
    for modality, each in chunks_of(network).items():
        embedding = network.embedding(modality)
        tokens = embedding.order_tokens
        places[modality] = (
            np.zeros((each.count, embedding.project.out_features), np.float32)
            if tokens is None else tokens.detach().cpu().numpy().copy())
    return places


def chunks_in(x: Input, count: int) -> list[Input]:
    """Take a clip's frames `[1, 3, t, h, w]` apart: `[1, 3, t / p, h, w]` each, oldest first."""
    return np.split(x, count, axis=2)


class EagerParts:
    """`Parts` of a network in evaluation mode, by PyTorch, operator by operator."""

    def __init__(self, network: Karmma, device: str | torch.device = 'cpu') -> None:
        self._network, self._device = network.to(device).eval(), device
        self.stretches = chunks_of(network)

    @torch.inference_mode()
    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Return a tensor on the device, as all here do."""
        return self._network.encode(modality, self._send(x))

    @torch.inference_mode()
    def encode_chunk(self, modality: Modality, x: Input) -> Part:
        """Embed one chunk."""
        return self._network.encode_chunks(modality, self._send(x))[0]

    @torch.inference_mode()
    def encode_next(
        self, modality: Modality, x: Input, past: Past | None
    ) -> tuple[list[Part], Past]:
        """Embed the next frames."""
        parts, past = self._network.encode_next(modality, self._send(x), past)
        return list(parts), past

    @torch.inference_mode()
    def in_order(self, modality: Modality, parts: Sequence[Part]) -> Tokens:
        """Make a clip of its parts."""
        return self._network.embedding(modality).in_order(torch.stack(list(parts))[None])

    def _send(self, x: Input) -> torch.Tensor:
        return torch.from_numpy(x).to(self._device)
