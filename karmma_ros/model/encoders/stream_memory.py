"""
Video encoders frame by frame, and what their layers keep, in the order of the layers.

Shape legend: b batch, t frames, k frames that a layer sees, c channels, n tokens of a frame, e
token width. Frames of several videos lie side by side, `[t · b, ...]`, time outermost, as in
`karmma_ros.model.encoders.causal`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
import math

from karmma_ros.model.encoders.causal import Past
import torch
from torch import nn, Tensor
from torch.nn import functional

Frames = tuple[Tensor, ...]


class StreamMemory:
    """
    The state of an encoder during one step: each layer takes its own and leaves the next.

    :param past: as the step before gave it; None: nothing came before, which is zero everywhere.
    :param batch: number of videos (b).
    """

    def __init__(self, past: Past | None, batch: int) -> None:
        self._past: Iterator[Frames] | None = None if past is None else (
            part.unbind(1) if isinstance(part, Tensor) else part for part in past)
        self._batch = batch
        self._kept: list[Frames] = []

    @property
    def kept(self) -> Past:
        """Return the state for the next step."""
        return tuple(self._kept)

    def over_time(self, x: Tensor, k: int, term: Callable[[Tensor, int], Tensor]) -> Tensor:
        """
        Return for each frame the sum of terms of it and of those before it; keep k - 1 frames.

        :param x: `[t · b, ...]`.
        :param k: frames that the layer sees.
        :param term: from frames, and their index from 0 for the oldest to k - 1, to terms.
        """
        if self._past is None:  # all frames of a video at once
            seen = torch.cat([x.new_zeros((k - 1) * self._batch, *x.shape[1:]), x])
            self._kept.append(seen[len(x):].split(self._batch))
            first = (i * self._batch for i in range(k))
            return reduce(torch.add, (
                term(seen[start:start + len(x)], i) for i, start in enumerate(first)))
        new = x.split(self._batch)  # one by one: in a graph, where each is an input, no copy
        frames = (*next(self._past), *new)
        self._kept.append(frames[len(new):])
        sums = [reduce(torch.add, (term(frames[n + i], i) for i in range(k)))
                for n in range(len(new))]
        return sums[0] if len(sums) == 1 else torch.cat(sums)

    def preceded(self, x: Tensor, chunks: int, length: int) -> Tensor:
        """
        Return a series `[b, c, p · s]` after the samples before it, `[b, c, length + p · s]`.

        :param chunks: into which the series is divided (p); as many as needed are kept.
        """
        size = int(x.shape[2]) // chunks
        count = math.ceil(length / size)
        if self._past is None:
            seen = functional.pad(x, (count * size, 0))
            self._kept.append(seen[:, :, -count * size:].split(size, 2))
        else:
            parts = (*next(self._past), *x.split(size, 2))
            self._kept.append(parts[-count:])
            seen = torch.cat(parts, 2)
        return seen[:, :, count * size - length:]

    def delayed(self, x: Tensor) -> Tensor:
        """Return for each frame `[t · b, ...]` the one before it."""
        before = (x.new_zeros(self._batch, *x.shape[1:]),) if self._past is None else next(
            self._past)
        frames = (*before, *x.split(self._batch))
        self._kept.append(frames[-1:])
        return frames[0] if len(frames) == 2 else torch.cat(frames[:-1])

    def running_mean(self, x: Tensor, rates: Frames) -> Tensor:
        """
        Return for each frame `[t · b, c]` the mean of it and of all before it.

        :param rates: as `rates` gives them.
        """
        mean = x.new_zeros(self._batch, *x.shape[1:]) if self._past is None else next(
            self._past)[0]
        means = []
        for frame, rate in zip(x.split(self._batch), rates):
            mean = mean + (frame - mean) * rate
            means.append(mean)
        self._kept.append((mean,))
        return means[0] if len(means) == 1 else torch.cat(means)

    def rates(self, x: Tensor, horizon: int) -> Frames:
        """
        Return by how much each frame changes a mean, `[b, 1]`: 1, 1/2, 1/3 … 1 / horizon.

        :param x: `[t · b, ...]`.
        :param horizon: frames after which older ones fade; a mean of all frames of a long stream
            would change less and less.
        """
        count = x.new_zeros(self._batch, 1) if self._past is None else next(self._past)[0]
        rates = []
        for _ in range(len(x) // self._batch):
            count = (count + 1).clamp(max=horizon)
            rates.append(1 / count)
        self._kept.append((count,))
        return tuple(rates)


class FrameEncoder(nn.Module):
    """
    A video encoder that takes one frame after the other.

    :param input_shape: `[3, t, h, w]`.
    :param classifier_tokens: only the token that the model's own classifier gets at the last
        frame, of the mean of all.
    """

    def __init__(self, input_shape: Sequence[int], classifier_tokens: bool) -> None:
        super().__init__()
        self.parts = 1 if classifier_tokens else input_shape[1]
        self.classifier_tokens = classifier_tokens

    def forward(self, x: Tensor) -> Tensor:
        """Encode a clip `[b, 3, t, h, w]` that nothing precedes into tokens `[b, t · n, e]`."""
        tokens, _ = self.step(x, None)
        return tokens[:, -1:] if self.classifier_tokens else tokens

    def step(self, x: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """
        Encode the next frames of a stream.

        :param x: `[b, 3, t, h, w]`, any number of frames.
        :param past: as the step before gave it; None: nothing came before.
        :returns: tokens `[b, t · n, e]`, and the state for the next step.
        """
        memory = StreamMemory(past, len(x))
        features = self.encode_frames(frames_of(x), memory)
        return frame_tokens(features, len(x)), memory.kept

    def encode_frames(self, x: Tensor, memory: StreamMemory) -> Tensor:
        """Map frames `[t · b, 3, h, w]` to what their tokens are, `[t · b, e, rows, columns]`."""
        raise NotImplementedError


def frames_of(x: Tensor) -> Tensor:
    """Return videos `[b, c, t, h, w]` as frames `[t · b, c, h, w]`, channels innermost."""
    frames = x.permute(2, 0, 1, 3, 4).flatten(0, 1)
    return frames.contiguous(memory_format=torch.channels_last)  # faster on a CPU


def frame_tokens(x: Tensor, batch: int) -> Tensor:
    """Return feature maps of frames `[t · b, e, h, w]` as tokens `[b, t · n, e]`."""
    tokens = x.flatten(2).transpose(1, 2).unflatten(0, (-1, batch))  # [t, b, n, e]
    return tokens.transpose(0, 1).flatten(1, 2)
