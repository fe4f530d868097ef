"""
A network whose encoders run chunk by chunk on a stream.

An encoder of chunks, or of single frames with a state, runs on the newest chunk only; the tokens
of older ones are kept. `EagerParts` does it in PyTorch, `backends.exported.Exported` with graphs
of one chunk.

Shape legend: t frames, c frames of a chunk, p chunks of a clip, h height, w width, n tokens of a
clip, d fusion width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.model.encoders.causal import StatefulEncoder
from karmma_ros.model.encoders.video import ChunkedEncoder
from karmma_ros.model.karmma import Karmma
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn

Input = NDArray[np.float32]
"""One clip's input of a modality, or some frames of it, `[1, ...]`."""
Part = Any
"""The embedded tokens `[n / p, d]` of one chunk, in the form of their runtime."""
Tokens = Any
"""The embedded tokens `[1, n, d]` of a clip, in that form."""
Past = Any
"""The state of an encoder after the previous frames."""


MOST_UNSETTLED = 2
"""Newest frames of a stream that may be given again."""


@dataclass(frozen=True)
class Chunks:
    """How an encoder splits the frames of a clip."""

    count: int
    """Chunks of a clip (p)."""
    stateful: bool
    """Each chunk is one frame, encoded with a state; else chunks are independent."""
    skips_first: bool
    """The first frame of each is ignored."""
    newest: bool = False
    """Only the last frame's tokens are fused: they depend on the frames before."""
    columns: int = 0
    """Mel columns of a chunk of audio, or samples of one of a series, which stands for a frame; 0
    of frames."""

    def unsettled(self, modality: Modality) -> int:
        """Return the newest frames of a window that may change, as those of a series do."""
        if modality_type(modality).takes_chunks or modality.type_name == Modality.AUDIO.value:
            return 0
        return min(MOST_UNSETTLED, self.count - 1)

    def frames(self, x: Input) -> Input:
        """
        Return the frames `[1, 3, t, h, w]` of a clip.

        Those of a spectrogram are `[1, 1, t, f, c]`, of a series `[1, channels, t, samples]`.
        """
        if not self.columns:
            return x
        split = x.reshape(*x.shape[:-1], self.count, self.columns)
        return np.ascontiguousarray(np.moveaxis(split, -2, 2))

    def shape_of_frames(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of `frames` of a clip of some shape."""
        if not self.columns:
            return tuple(shape)
        return (*shape[:2], self.count, *shape[2:-1], self.columns)

    def shape_of_clip(self, frame: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of a clip from that of one of its frames or chunks, `[1, c, …]`."""
        if not self.columns:
            return (*frame[:2], frame[2] * self.count, *frame[3:])
        return (*frame[:2], *frame[3:-1], frame[-1] * self.count)


class Parts(Protocol):
    """A network, chunk by chunk."""

    @property
    def chunks(self) -> Mapping[Modality, Chunks]:
        """Return the chunked modalities; the others are encoded a clip at a time."""
        ...

    @property
    def runs_in_parallel(self) -> bool:
        """Whether encoding modalities in several threads takes less time."""
        ...

    def encode(self, modality: Modality, x: Input) -> Tokens:
        """Embed a clip of a modality that is not chunked."""
        ...

    def encode_chunk(self, modality: Modality, x: Input) -> Part:
        """Embed one chunk, `[1, 3, c, h, w]`, without its position in the clip."""
        ...

    def encode_next(
        self, modality: Modality, x: Input, past: Past | None, unsettled: int = 0,
    ) -> tuple[list[Part], Past]:
        """
        Embed the next frames of a stream, as `Chunks.frames`, without their positions in the clip.

        :param past: the state that the previous call returned, which may be changed and is not to
            be used again; None: start of the stream.
        :param unsettled: frames at the end, at most `MOST_UNSETTLED`, that may change: the next
            call will give them again.
        :returns: a part for each frame, and the state after those that are settled.
        """
        ...

    def in_order(self, modality: Modality, parts: Sequence[Part]) -> Tokens:
        """Join the p parts of a clip, oldest first, and add their positions."""
        ...


def chunks_of(network: nn.Module) -> dict[Modality, Chunks]:
    """Return the chunked modalities of a network; most networks have none."""
    chunks: dict[Modality, Chunks] = {}
    for name, encoder in getattr(network, 'encoders', nn.ModuleDict()).items():
        if getattr(network, 'embeddings')[name].parts != getattr(encoder, 'parts', 1):
            continue  # an ensemble: its tokens are means of the whole clip
        if isinstance(encoder, ChunkedEncoder):
            chunks[Modality(name)] = Chunks(encoder.parts, False, encoder.skips_first)
        elif isinstance(encoder, StatefulEncoder):
            columns = getattr(encoder, 'columns', 0)
            frames = encoder.parts if columns else getattr(network, 'input_shapes')[name][1]
            chunks[Modality(name)] = Chunks(
                frames, True, False, newest=encoder.parts < frames, columns=columns)
    return chunks


def positions_of(network: Karmma) -> dict[Modality, NDArray[np.float32]]:
    """Return the position embedding of each chunk that is fused, `[p, d]`: zeros for only one."""
    positions = {}
    for modality in chunks_of(network):
        embedding = network.embedding(modality)
        tokens = embedding.order_tokens
        positions[modality] = (
            np.zeros((embedding.parts, embedding.project.out_features), np.float32)
            if tokens is None else tokens.detach().cpu().numpy().copy())
    return positions


def chunks_in(x: Input, count: int) -> list[Input]:
    """Split a clip's frames `[1, 3, t, h, w]`: `[1, 3, t / p, h, w]` each, oldest first."""
    return np.split(x, count, axis=2)


def newest(
    parts: Parts, clip: Mapping[Modality, Input], hop: int = 1
) -> Callable[[], dict[Modality, Tokens]]:
    """
    Return what encodes the newest of each modality, and joins it with what is known of a clip.

    It takes the time that a live window takes.

    :param hop: new frames; the newest chunk of audio is new if it is as long, or longer.
    """
    most = max((each.count for each in parts.chunks.values()), default=1)
    encoders = {m: _newest_of(parts, m, x, hop, most) for m, x in clip.items()}
    return lambda: {m: tokens() for m, tokens in encoders.items()}


def _newest_of(
    parts: Parts, modality: Modality, x: Input, hop: int, most: int
) -> Callable[[], Tokens]:
    own = parts.chunks.get(modality)
    if own is None:
        return lambda: parts.encode(modality, x)
    known: Sequence[Part]
    if not own.stateful:
        chunk = chunks_in(x, own.count)[-1]
        known = [parts.encode_chunk(modality, chunk)] * (own.count - 1)
        return lambda: parts.in_order(modality, [*known, parts.encode_chunk(modality, chunk)])
    x = own.frames(x)
    unsettled = own.unsettled(modality)
    known, past = parts.encode_next(modality, x, None, unsettled)
    new = x[:, :, :min(own.count, -(-hop * own.count // most) + unsettled)]

    def encode() -> Tokens:
        nonlocal past
        encoded, past = parts.encode_next(modality, new, past, unsettled)
        return parts.in_order(modality, [*known[new.shape[2]:], *encoded])
    return encode


class EagerParts:
    """`Parts` of a network in evaluation mode, by PyTorch, operator by operator."""

    runs_in_parallel = False

    def __init__(self, network: Karmma, device: str | torch.device = 'cpu') -> None:
        self._network, self._device = network.to(device).eval(), device
        self.chunks = chunks_of(network)

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
        self, modality: Modality, x: Input, past: Past | None, unsettled: int = 0,
    ) -> tuple[list[Part], Past]:
        """Embed the next frames."""
        settled = x.shape[2] - unsettled
        parts: list[Part] = []
        if settled:
            first, past = self._network.encode_next(modality, self._send(x[:, :, :settled]), past)
            parts.extend(first)
        if unsettled:
            parts.extend(self._network.encode_next(
                modality, self._send(x[:, :, settled:]), past)[0])
        return parts, past

    @torch.inference_mode()
    def in_order(self, modality: Modality, parts: Sequence[Part]) -> Tokens:
        """Join the parts of a clip."""
        embedding = self._network.embedding(modality)
        return embedding.in_order(torch.stack(list(parts)[-embedding.parts:])[None])

    def _send(self, x: Input) -> torch.Tensor:
        return torch.from_numpy(x).to(self._device)
