"""
The tokens of a window, of which only those of new frames are encoded.

Windows overlap. Where the network encodes chunks separately (`EncoderConfig.chunk`,
`causal_frames`), the tokens of the frames of the last window are still valid: they depend on
those frames alone, and the embedding of a chunk's position in the window is added afterwards.

Shape legend: t frames, h height, w width, p chunks, n tokens, d fusion width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import gcd
from typing import cast, Protocol

from karmma_ros.clip import ClipSpec
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.sample_buffer import FrameSamples
from karmma_ros.modality import in_order, Modality
from karmma_ros.model.streaming import Chunks, Part, Parts, Past, Tokens
from karmma_ros.stream.window import Window
import numpy as np
from numpy.typing import NDArray

Images = Sequence[NDArray[np.uint8]]
"""The t images of a window; they are never written to, so that `id` identifies each."""
Prepare = Callable[[int, int], NDArray[np.float32]]
"""From a first frame and the one after the last to the network's input `[1, 3, t, h, w]`."""


def hop_for(chunks: Mapping[Modality, Chunks], spec: ClipSpec, rate: float) -> int:
    """
    Return the number of frames from one window to the next, so that tokens can be used again.

    The largest divisor of the chunks' length that allows at least `rate` results a second, or
    1 where no divisor does; 0 for a network that encodes every window anew.

    :param rate: results a second.
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
    the tokens of the last window that later windows can use, and their images.
    """

    def __init__(self, network: Parts) -> None:
        self._network = network
        self._caches: dict[Modality, _Cache] = {
            modality: (_FrameCache if each.stateful else _ChunkCache)(network, modality)
            for modality, each in network.chunks.items()}

    def tokens(
        self, window: Window, keep: Iterable[Modality] | None = None,
    ) -> dict[Modality, Tokens]:
        """Embed the modalities of a window, or those of them to keep, to be fused."""
        kept = set(window.modalities if keep is None else keep)
        return {m: self._tokens(window, m) for m in in_order(kept & set(window.modalities))}

    def reset(self, modalities: Iterable[Modality] | None = None) -> None:
        """Clear the tokens, the images and what the encoders keep of some modalities, or all."""
        cached = set(self._caches)
        for modality in cached if modalities is None else cached & set(modalities):
            self._caches[modality].reset()

    def _tokens(self, window: Window, modality: Modality) -> Tokens:
        cache = self._caches.get(modality)
        if cache is None:
            x = window.clip({modality}).inputs[modality]
            return self._network.encode(modality, x[None])
        samples = cast(FrameSamples, window.samples[modality])
        parts = cache.parts(samples.images, _preparation(window, modality, samples))
        return self._network.in_order(modality, parts)


class _Cache(Protocol):
    """The cached tokens of one modality."""

    def parts(self, images: Images, prepare: Prepare) -> list[Part]:
        """Return the embedded chunks of a window, oldest first."""
        ...

    def reset(self) -> None:
        """Discard everything."""
        ...


class _ChunkCache:
    """Embedded chunks by the images that they were made of."""

    def __init__(self, network: Parts, modality: Modality) -> None:
        self._network, self._modality = network, modality
        self._chunks = network.chunks[modality]
        self._cached: dict[tuple[int, ...], tuple[Part, Images]] = {}

    def parts(self, images: Images, prepare: Prepare) -> list[Part]:
        size = len(images) // self._chunks.count
        parts = [self._part(images[i:i + size], partial(prepare, i, i + size))
                 for i in range(0, len(images), size)]
        # No later window can have a chunk with an image that is not in this one.
        ids = set(_ids(images))
        self._cached = {key: part for key, part in self._cached.items() if ids.issuperset(key)}
        return parts

    def _part(self, chunk: Images, prepared: Callable[[], NDArray[np.float32]]) -> Part:
        key = _ids(chunk[1:] if self._chunks.skips_first else chunk)
        if key not in self._cached:
            part = self._network.encode_chunk(self._modality, prepared())
            self._cached[key] = part, chunk  # stored, so that no other image gets the same id
        return self._cached[key][0]

    def reset(self) -> None:
        self._cached = {}


class _FrameCache:
    """Embedded frames of one stream in their order, and the state of the encoder."""

    def __init__(self, network: Parts, modality: Modality) -> None:
        self._network, self._modality = network, modality
        self._images: Images = []
        self._parts: list[Part] = []
        self._past: Past | None = None

    def parts(self, images: Images, prepare: Prepare) -> list[Part]:
        count, new = len(images), self._count_new(images)
        if new == count:
            self.reset()
        if new:
            parts, self._past = self._network.encode_next(
                self._modality, prepare(count - new, count), self._past)
            self._parts = [*self._parts[new:], *parts]
        self._images = list(images)
        return self._parts

    def _count_new(self, images: Images) -> int:
        """
        Count the new frames at the end of a window; all, where its earlier frames differ.

        The first image does not count: that of a window's flow repeats the second.
        """
        before, now = _ids(self._images), _ids(images)
        count = len(now)
        return next((new for new in range(count - 1) if before[new + 1:] == now[1:count - new]),
                    count)

    def reset(self) -> None:
        self._images, self._parts, self._past = [], [], None


def _ids(images: Images) -> tuple[int, ...]:
    return tuple(map(id, images))


def _preparation(window: Window, modality: Modality, samples: FrameSamples) -> Prepare:
    """Return a function that prepares some of a window's frames as `Window.clip` prepares all."""
    own = modality_type(modality)
    return lambda first, end: own.prepare_frames(
        samples.some_arrays(first, end), window.spec)[None]
