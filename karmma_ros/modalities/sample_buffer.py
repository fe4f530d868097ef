"""
What every buffer of samples offers, and the samples of a window that it returns.

Shape legend: t frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray


@dataclass(frozen=True)
class Coverage:
    """How much of the window has samples of its own."""

    samples: int
    """Frames, audio samples or messages in the window."""
    covered: int
    """Units of the window that are covered: slots of frames, or audio samples."""
    total: int
    """Units in a window."""
    name: str
    """Of the unit that people read."""
    per: int = 1
    """Units in one of that."""

    def shortfall(self, needed: int) -> str:
        """Return what there is and what is needed, as a text."""
        covered, total, least = (f'{each / self.per:g}'
                                 for each in (self.covered, self.total, needed))
        return f'{covered} of {total} {self.name}; it needs {least}'


class WindowSamples(Protocol):
    """The samples of one window; nothing writes to them any more."""

    @property
    def span_ns(self) -> tuple[int, int]:
        """Return the oldest and the newest stamp among them."""
        ...

    def arrays(self) -> Any:
        """Return them as `ModalityType.prepare` takes them; this may be expensive."""
        ...


class FrameSamples(WindowSamples, Protocol):
    """Samples that are images, one for each frame of the clip."""

    @property
    def images(self) -> Sequence[NDArray[Any]]:
        """Return an image for each of the t frames, which identifies it by `id`."""
        ...

    def some_arrays(self, first: int, end: int) -> NDArray[Any]:
        """Return `arrays()[first:end]` without computing the others, where that is possible."""
        ...


class SampleBuffer(ABC):
    """
    The recent samples of one input, in bounded memory.

    Times are stamps in integer nanoseconds. Samples come in any order; those that can still be
    part of a window that ends at the newest one or later are kept (`keep_longer`: or earlier).
    """

    @property
    @abstractmethod
    def newest_ns(self) -> int | None:
        """Return the stamp of the newest sample, None without any."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Return the memory held by samples."""

    def keep_longer(self, spare_ns: int) -> None:
        """
        Keep samples for windows that end by this much before the newest one; called when empty.

        Those of streaming networks do.
        """

    def times_ns(self, sample: Any, stamp_ns: int, now_ns: int) -> tuple[int, int]:
        """
        Check a sample; return the times of its beginning and end.

        :param stamp_ns: 0 without one: the time of receipt is used.
        :raises InvalidSampleError: for a sample that cannot be used.
        """
        return stamp_ns or now_ns, stamp_ns or now_ns

    @abstractmethod
    def add(self, sample: Any, start_ns: int, stamped: bool) -> None:
        """
        Store a sample that `times_ns` has checked.

        :param stamped: whether its time is a stamp, not the time of receipt.
        :raises InvalidSampleError: for a sample that cannot be used.
        """

    def wants(self, stamp_ns: int) -> bool:
        """Return whether a sample with this stamp would be stored; if not, it is not decoded."""
        return True

    def skip(self, stamp_ns: int) -> None:
        """Record the stamp of a sample that is not wanted."""

    @abstractmethod
    def coverage(self, end_ns: int | None) -> Coverage:
        """Return the coverage of the window that ends at `end_ns`; None: of no window."""

    @abstractmethod
    def window(self, end_ns: int) -> WindowSamples:
        """Return the samples of the window that ends at `end_ns`; it has some."""

    @abstractmethod
    def clear(self) -> None:
        """Discard all samples."""
