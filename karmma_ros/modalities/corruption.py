"""
What corruptions of sensor data have in common.

A corruption turns the samples of a sensor into those of one that is covered, muted, hung, noisy or
dirty: they decode, and are wrong. Each has a name and five severities. Models are evaluated and
trained on them; a content check (`content_check.py`) finds those that show nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
import numpy as np
from numpy.typing import NDArray

SEVERITIES = (1, 2, 3, 4, 5)


class InStream(Enum):
    """How a corruption is applied to one message after another."""

    EACH = 'each'
    """To each message by itself."""
    COMPLETE = 'complete'
    """To each message by itself, at severity 5: in a window the severity is when it began."""
    HOLD = 'hold'
    """All messages have the content of the first one."""
    DROP = 'drop'
    """Messages are dropped; the level is the probability."""


@dataclass(frozen=True)
class CorruptionContext:
    """What a corruption depends on beside the samples and its level."""

    fixed: np.random.Generator
    """Of what stays the same while the corruption lasts, such as where light leaks in."""
    varying: np.random.Generator
    """Of what differs from sample to sample, such as noise."""
    times_s: NDArray[np.float64]
    """When each sample was taken, seconds since the corruption began, `[n]`."""
    scale: Any = 1.0
    """How large usual values are, of each channel or of all."""
    parts: int = 1
    """Equal parts of a sample, such as joints, of which each may be missing."""


@dataclass(frozen=True)
class Corruption:
    """One corruption of the samples of a type, at five severities."""

    description: str
    """What it does; `{}` stands for the level."""
    levels: tuple[float, float, float, float, float]
    """What each severity means, from 1 to 5."""
    apply: Callable[[Any, float, CorruptionContext], Any]
    """From samples, a level and the context to corrupted samples; none is changed in place."""
    in_stream: InStream = InStream.EACH

    def level(self, severity: int) -> float:
        """
        Return the level of a severity.

        :raises InvalidSettingError: for another than 1 to 5.
        """
        if severity not in SEVERITIES:
            raise InvalidSettingError('severity', severity, 'an integer from 1 to 5')
        return self.levels[severity - 1]


def first_corrupted(count: int, fraction: float) -> int:
    """Return the index of the first of `count` samples that a fraction at the end begins with."""
    return count - round(count * fraction)


class Corruptible:
    """The corruptions of the samples of a modality, which `ModalityType` has."""

    modality: Modality
    corruptions: ClassVar[Mapping[str, Corruption]] = {}
    """Name → what a sensor that is covered, muted, hung or noisy makes of samples."""

    def corruption(self, name: str) -> Corruption:
        """
        Return a corruption by its name.

        :raises InvalidSettingError: listing those that exist.
        """
        if name not in self.corruptions:
            raise InvalidSettingError(
                f'corruption of {self.modality}', name, ', '.join(self.corruptions) or 'none')
        return self.corruptions[name]

    def corrupt(
        self, name: str, severity: int, arrays: Any, clip: ClipSpec, rng: np.random.Generator,
    ) -> Any:
        """
        Return the samples of a window as a corrupted sensor gives them; `arrays` stay.

        :param arrays: what `ModalityType.prepare` takes, and what is returned.
        :raises InvalidSettingError: for an unknown name or severity.
        """
        corruption = self.corruption(name)
        samples = self.samples_of(arrays)
        context = CorruptionContext(rng, rng, self.sample_times(arrays, clip),
                                    self.usual_size(samples, clip), self.parts(clip))
        return self.with_samples(
            arrays, corruption.apply(samples, corruption.level(severity), context))

    def corrupt_sample(
        self, name: str, severity: int, sample: Any, clip: ClipSpec, since_s: float, seed: int,
        index: int,
    ) -> Any:
        """
        Return one sample of a stream as a corrupted sensor gives it.

        Those that hold or drop messages (`InStream`) are applied to the messages instead.

        :param since_s: seconds since the corruption began.
        :param seed: the same for all messages.
        :param index: of the message.
        """
        corruption = self.corruption(name)
        complete = corruption.in_stream is InStream.COMPLETE
        level = corruption.level(max(SEVERITIES) if complete else severity)
        window = self.window_of_one(sample)
        samples = self.samples_of(window)
        context = CorruptionContext(
            np.random.default_rng(seed), np.random.default_rng((seed, index)),
            since_s + self.sample_times(window, clip), self.usual_size(samples, clip),
            self.parts(clip))
        return self.only_sample(
            sample, self.with_samples(window, corruption.apply(samples, level, context)))

    @property
    def input_corruptions(self) -> tuple[str, ...]:
        """Return the names of those that `corrupt_input` can apply."""
        restores = type(self).restore is not Corruptible.restore
        return tuple(self.corruptions) if restores else ()

    def corrupt_input(
        self, name: str, severity: int, x: NDArray[np.float32], clip: ClipSpec,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Return an input of the network as `corrupt` and `ModalityType.prepare` make it."""
        prepare: Any = getattr(self, 'prepare')
        return np.asarray(prepare(self.corrupt(name, severity, self.restore(x, clip), clip, rng),
                                  clip))

    def restore(self, x: NDArray[np.float32], clip: ClipSpec) -> Any:
        """Return what `ModalityType.prepare` made an input from, where that is possible."""
        raise NotImplementedError(f'the samples of {self.modality} cannot be restored')

    def samples_of(self, arrays: Any) -> Any:
        """Return what the corruptions take, its first axis over samples."""
        return arrays

    def with_samples(self, arrays: Any, samples: Any) -> Any:
        """Return the arrays of a window with other samples."""
        return samples

    def window_of_one(self, sample: Any) -> Any:
        """Return the window, as `samples_of` takes it, that one sample makes."""
        return np.asarray(sample)[None]

    def only_sample(self, sample: Any, arrays: Any) -> Any:
        """Return the sample of a window of one, in place of `sample`."""
        return arrays[0]

    def sample_times(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float64]:
        """Return the seconds from the first sample of a window to each."""
        count = len(self.samples_of(arrays))
        return np.arange(count, dtype=np.float64) * (clip.duration / count)

    def usual_size(self, samples: Any, clip: ClipSpec) -> Any:
        """Return how large usual values are, of each channel or of all."""
        return 1.0

    def truncate(self, arrays: Any, fraction: float, clip: ClipSpec) -> Any:
        """Return a window after whose first fraction nothing is received any more."""
        samples = self.samples_of(arrays)
        first = max(1, round(len(samples) * fraction))
        return self.with_samples(arrays, np.concatenate([
            samples[:first], np.repeat(samples[first - 1:first], len(samples) - first, axis=0)]))

    def messages_of(self, arrays: Any, clip: ClipSpec) -> Sequence[tuple[float, Any]]:
        """Return second and sample of each message that a window may have been made of."""
        return list(zip(self.sample_times(arrays, clip).tolist(), self.samples_of(arrays)))

    def stand_ins(self, sample: Any, clip: ClipSpec) -> tuple[Any, Any]:
        """Return what a content check reads of the message and of the decoder of a sample."""
        return None, None

    def parts(self, clip: ClipSpec) -> int:
        """Return the number of equal parts of a sample, of which each may be missing."""
        return 1
