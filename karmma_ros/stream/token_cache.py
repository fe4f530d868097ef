"""
The tokens of a window, of which only those of new frames are encoded.

Windows overlap. Where the network encodes chunks separately (`EncoderConfig.chunk`, encoders with
a state), the tokens of the frames of the last window are still valid: they depend on
those frames alone, and the embedding of a chunk's position in the window is added afterwards.

Shape legend: t frames, h height, w width, p chunks, n tokens, d fusion width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import gcd, lcm
from typing import cast, Protocol

from karmma_ros.clip import ClipSpec
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.audio_buffer import StoredAudio
from karmma_ros.modalities.sample_buffer import FrameSamples
from karmma_ros.modality import in_order, Modality
from karmma_ros.model.streaming import Chunks, Input, Part, Parts, Past, Tokens
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

    The largest that allows at least `rate` results a second, else 1: a divisor of the length of
    chunks that are independent; of an encoder with a state, which is used again at any distance,
    complete chunks. 0 for a network that encodes every window anew.

    :param rate: results a second.
    """
    if not chunks:
        return 0
    independent = gcd(*(spec.num_frames // each.count for each in chunks.values()
                        if not each.stateful))  # 0 without any, of which all are divisors
    length = lcm(*(max(1, spec.num_frames // each.count)
                   for each in chunks.values() if each.stateful))
    most = spec.num_frames / spec.duration / rate
    return max((hop for hop in range(1, int(most) + 1)
                if independent % hop == 0 and (hop % length == 0 or length % hop == 0)), default=1)


class TokenCache:
    """
    Return the embedded tokens of one window after the other.

    One thread may use it at a time: it belongs to the worker that prepares the windows. It holds
    the tokens of the last window that later windows can use, and their images.
    """

    def __init__(self, network: Parts) -> None:
        self._network = network
        self._caches: dict[Modality, _Cache] = {
            modality: _cache_of(network, modality, each)
            for modality, each in network.chunks.items()}
        self._threads = ThreadPoolExecutor(
            _THREADS, 'karmma tokens') if network.runs_in_parallel else None

    def tokens(
        self, window: Window, keep: Iterable[Modality] | None = None,
    ) -> dict[Modality, Tokens]:
        """Embed the modalities of a window, or those of them to keep, to be fused."""
        kept = set(window.modalities if keep is None else keep)
        chosen = in_order(kept & set(window.modalities))
        if self._threads is None or len(chosen) < 2:
            return {m: self._tokens(window, m) for m in chosen}
        # Each modality has buffers and caches of its own: none is used by two threads.
        begun = {m: self._threads.submit(self._tokens, window, m) for m in chosen}
        wait(begun.values())
        return {m: future.result() for m, future in begun.items()}

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
        return self._network.in_order(modality, cache.parts(window))


_THREADS = 2
"""Modalities that are prepared and encoded at the same time."""


class _Cache(Protocol):
    """The cached tokens of one modality."""

    def parts(self, window: Window) -> list[Part]:
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

    def parts(self, window: Window) -> list[Part]:
        images, prepare = _frames(window, self._modality)
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
    """Embedded frames of one stream, and the state of the encoder."""

    def __init__(self, network: Parts, modality: Modality) -> None:
        self._modality = modality
        self._stream = _Stream(network, modality)
        self._images: Images = []

    def parts(self, window: Window) -> list[Part]:
        images, prepare = _frames(window, self._modality)
        parts = self._stream.parts(_ids(images), prepare)
        self._images = list(images)  # stored, so that no other image gets the same id
        return parts

    def reset(self) -> None:
        self._images = []
        self._stream.reset()


class _ContentCache:
    """
    Embedded chunks of audio, of another series or of frames, by what the network gets of them.

    Windows that end within a chunk, as every second one where a chunk lasts two frames, have a
    stream of their own.
    """

    def __init__(self, network: Parts, modality: Modality) -> None:
        self._network, self._modality = network, modality
        self._chunks = network.chunks[modality]
        self._streams: dict[int, _Stream] = {}

    def parts(self, window: Window) -> list[Part]:
        x = self._chunks.frames(window.clip({self._modality}).inputs[self._modality][None])
        samples = window.samples[self._modality]
        if isinstance(samples, StoredAudio):
            keys = samples.chunk_keys(self._chunks.count, self._chunks.columns)
            stream = self._stream([start for start, _ in keys], window.spec)
        else:
            starts = _starts(window, x.shape[2])
            stream = self._stream(starts, window.spec)
            stream.contents = {start: _content(stream.contents.get(start), x[:, :, i])
                               for i, start in enumerate(starts)}
            keys = [(start, each.number) for start, each in stream.contents.items()]
        return stream.parts(keys, lambda first, end: x[:, :, first:end])

    def _stream(self, starts: Sequence[int], spec: ClipSpec) -> _Stream:
        """Return the stream of windows whose chunks start there, or begin it."""
        offset = starts[0] % (starts[1] - starts[0]) if len(starts) > 1 else 0
        stream = self._streams.pop(offset, None) or _Stream(
            self._network, self._modality, self._chunks.unsettled(self._modality))
        self._streams[offset] = stream  # the last used is the last
        for old in list(self._streams)[:-max(1, spec.num_frames // self._chunks.count)]:
            del self._streams[old]
        return stream

    def reset(self) -> None:
        self._streams = {}


@dataclass(frozen=True, eq=False)
class _Content:
    """What the network gets of a chunk, `[1, c, ...]`, and a number that no other content has."""

    x: Input
    number: int


_NUMBERS = count()
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5
"""
Differences by which content is the same: times within a window are rounded, so that interpolated
samples differ by some 1e-8 from one window to the next.
"""


def _content(known: _Content | None, x: Input) -> _Content:
    """Return the known content where `x` is the same."""
    if known is not None and np.allclose(known.x, x, _RELATIVE, _ABSOLUTE):
        return known
    return _Content(x.copy(), next(_NUMBERS))


def _starts(window: Window, chunks: int) -> list[int]:
    """
    Return when each chunk of a window starts: the same content at another time is another.

    Windows that are a frame apart have the starts of whole frames in common.
    """
    frames_ns = window.spec.num_frames * window.spec.frame_period_ns
    return [window.end_ns - frames_ns + i * frames_ns // chunks for i in range(chunks)]


class _Stream:
    """
    Embedded frames in their order, by the keys of what they show, and the encoder's state.

    :param unsettled: newest frames of a window that may change, as samples of a series do that are
        interpolated from those received later. The state is that before them.
    """

    def __init__(self, network: Parts, modality: Modality, unsettled: int = 0) -> None:
        self._network, self._modality, self._unsettled = network, modality, unsettled
        self._keys: tuple[Hashable, ...] = ()
        self._parts: list[Part] = []
        self._past: Past | None = None
        self.contents: dict[int, _Content] = {}
        """Start of a chunk → its content; empty where keys are known otherwise."""

    def parts(self, keys: Sequence[Hashable], prepare: Prepare) -> list[Part]:
        """Return the embedded frames of a window; those with new keys are encoded."""
        now = tuple(keys)
        new = self._count_new(now)
        known = len(now) - new
        if not known:
            self.reset()
        if new and now != self._keys:
            parts, self._past = self._network.encode_next(
                self._modality, prepare(known, len(now)), self._past, self._unsettled)
            settled = self._parts[:len(self._parts) - self._unsettled]
            self._parts = [*settled[len(settled) - known:], *parts]
        self._keys = now
        return self._parts

    def _count_new(self, now: tuple[Hashable, ...]) -> int:
        """
        Count the frames at the end of a window to encode; all, where its earlier frames differ.

        The first frame of images does not count: that of a window's flow repeats the second.
        """
        first = 0 if self._unsettled else 1
        settled = self._keys[:len(self._keys) - self._unsettled]
        for new in range(self._unsettled, len(now) - first):
            known = len(now) - new  # the frames before the new ones
            if known > len(settled):
                continue
            if settled[len(settled) - known + first:] == now[first:known]:
                return new
        return len(now)

    def reset(self) -> None:
        """Start a stream."""
        self._keys, self._parts, self._past = (), [], None


def _cache_of(network: Parts, modality: Modality, chunks: Chunks) -> _Cache:
    if not chunks.stateful:
        return _ChunkCache(network, modality)
    if not chunks.columns and modality_type(modality).takes_chunks:
        return _FrameCache(network, modality)
    return _ContentCache(network, modality)


def _ids(images: Images) -> tuple[int, ...]:
    return tuple(map(id, images))


def _frames(window: Window, modality: Modality) -> tuple[Images, Prepare]:
    """Return a window's images, and what prepares some of them as `Window.clip` prepares all."""
    own, samples = modality_type(modality), cast(FrameSamples, window.samples[modality])
    return samples.images, lambda first, end: own.prepare_frames(
        samples.some_arrays(first, end), window.spec)[None]
