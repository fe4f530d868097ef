"""
The tokens of a window, of which only what is new is encoded.

Windows overlap. Where the network's encoders keep stretches of time apart (`EncoderConfig.chunk`,
`causal_frames`), the tokens of the frames that were there before are still right: they depend on
those frames alone, and what a stretch's place in the window adds is added afterwards.

Shape legend: t frames, h height, w width, p stretches of time, n tokens, d fusion width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import gcd
from typing import Protocol

from karmma_ros.clip import ClipSpec
from karmma_ros.modality import in_order, Modality
from karmma_ros.model.streaming import Chunks, Part, Parts, Past, Tokens
from karmma_ros.preprocess.flow import flow_input
from karmma_ros.preprocess.resize import video_input
from karmma_ros.stream.window import Window
import numpy as np
from numpy.typing import NDArray

NumberedImages = Sequence[NDArray[np.uint8]]
"""The t pictures of a window; they are never written to, so that each is told by its identity."""
Prepare = Callable[[int, int], NDArray[np.float32]]
"""From a first frame and the one after the last to the network's input `[1, 3, t, h, w]`."""


def hop_for(chunks: Mapping[Modality, Chunks], spec: ClipSpec, rate: float) -> int:
    """
    Return the number of frames from one window to the next, so that tokens can be used again.

    The largest divisor of the chunks' length that gives at least `rate` answers a second, or
    1 where no divisor does; 0 for a network that encodes every window anew.

    :param rate: answers a second.
    """
    if not chunks:
        return 0
    shared = gcd(*(spec.num_frames // each.count for each in chunks.values()))
    most = spec.num_frames / spec.duration / rate
    return max((hop for hop in range(1, shared + 1) if shared % hop == 0 and hop <= most),
               default=1)


class TokenCache:
    """
    Return the embedded tokens of one window after the other.

    One thread may use it at a time: it belongs to the worker that prepares the windows. It holds
    what the windows to come can use of the last one, and the pictures that this is of.
    """

    def __init__(self, network: Parts) -> None:
        self._network = network
        self._memories: dict[Modality, _Memory] = {
            modality: (_Frames if each.stateful else _Chunks)(network, modality)
            for modality, each in network.chunks.items()}

    def tokens(
        self, window: Window, keep: Iterable[Modality] | None = None,
    ) -> dict[Modality, Tokens]:
        """Embed the modalities of a window, or those of them to keep, to be fused."""
        kept = set(window.modalities if keep is None else keep)
        return {m: self._tokens(window, m) for m in in_order(kept & set(window.modalities))}

    def reset(self, modalities: Iterable[Modality] = tuple(Modality)) -> None:
        """Clear the tokens, the images and what the encoders keep of these modalities."""
        for modality in set(modalities) & set(self._memories):
            self._memories[modality].reset()

    def _tokens(self, window: Window, modality: Modality) -> Tokens:
        memory = self._memories.get(modality)
        if memory is None:
            x = window.clip({modality}).inputs[modality]
            return self._network.encode(modality, x[None])
        parts = memory.parts(_pictures(window, modality), _preparing(window, modality))
        return self._network.in_order(modality, parts)


class _Memory(Protocol):
    """What is kept of one modality."""

    def parts(self, pictures: NumberedImages, prepare: Prepare) -> list[Part]:
        """Return the embedded stretches of a window, oldest first."""
        ...

    def reset(self) -> None:
        """Forget all."""
        ...


class _Chunks:
    """Embedded chunks by the pictures that they were made of."""

    def __init__(self, network: Parts, modality: Modality) -> None:
        self._network, self._modality = network, modality
        self._stretches = network.chunks[modality]
        self._known: dict[tuple[int, ...], tuple[Part, NumberedImages]] = {}

    def parts(self, pictures: NumberedImages, prepare: Prepare) -> list[Part]:
        size = len(pictures) // self._stretches.count
        found = [self._part(pictures[i:i + size], partial(prepare, i, i + size))
                 for i in range(0, len(pictures), size)]
        # No later window can show a chunk of which some picture has left this one.
        shown = set(_identities(pictures))
        self._known = {key: kept for key, kept in self._known.items() if shown.issuperset(key)}
        return found

    def _part(self, chunk: NumberedImages, prepared: Callable[[], NDArray[np.float32]]) -> Part:
        key = _identities(chunk[1:] if self._stretches.skips_first else chunk)
        if key not in self._known:
            part = self._network.encode_chunk(self._modality, prepared())
            self._known[key] = part, chunk  # held, so that each picture's identity stays its own
        return self._known[key][0]

    def reset(self) -> None:
        self._known = {}


class _Frames:
    """Embedded frames of one stream in their order, and what the encoder remembers of them."""

    def __init__(self, network: Parts, modality: Modality) -> None:
        self._network, self._modality = network, modality
        self._seen: NumberedImages = []
        self._parts: list[Part] = []
        self._past: Past | None = None

    def parts(self, pictures: NumberedImages, prepare: Prepare) -> list[Part]:
        count, new = len(pictures), self._moved(pictures)
        if new == count:
            self.reset()
        if new:
            parts, self._past = self._network.encode_next(
                self._modality, prepare(count - new, count), self._past)
            self._parts = [*self._parts[new:], *parts]
        self._seen = list(pictures)
        return self._parts

    def _moved(self, pictures: NumberedImages) -> int:
        """
        Count the frames by which the window has moved on; all, where it shows another past.

        The first picture does not count: that of a window's flow is no frame's own.
        """
        seen, shown = _identities(self._seen), _identities(pictures)
        count = len(shown)
        return next((new for new in range(count - 1) if seen[new + 1:] == shown[1:count - new]),
                    count)

    def reset(self) -> None:
        self._seen, self._parts, self._past = [], [], None


def _identities(pictures: NumberedImages) -> tuple[int, ...]:
    return tuple(map(id, pictures))


def _pictures(window: Window, modality: Modality) -> NumberedImages:
    """Return what the frames of a modality are told by; computed flow is told by its frames."""
    if modality is Modality.FLOW and window.flows:
        return window.flows
    return [frame.image for frame in window.frames]


def _preparing(window: Window, modality: Modality) -> Prepare:
    """Return what prepares some of a window's frames as `Window.clip` prepares all."""
    spec = window.spec
    if modality is Modality.RGB:
        return lambda first, end: video_input(
            np.stack([frame.image for frame in window.frames[first:end]]), spec.video)[None]
    if window.flows:
        return lambda first, end: flow_input(np.stack(window.flows[first:end]), spec.flow)[None]
    return lambda first, end: flow_input(
        window.flow_cache.clip_flow(window.frames)[first:end], spec.flow)[None]
