"""One window of sensor data, prepared without a lock, and when to run inference on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from karmma_ros.clip import Clip, ClipSpec, NANOSECONDS
from karmma_ros.modalities import make_clip
from karmma_ros.modalities.sample_buffer import WindowSamples
from karmma_ros.modality import in_order, Modality
from karmma_ros.stream.availability import ModalityStatus


@dataclass(frozen=True, eq=False)
class Window:
    """The sensor data of `(start_ns, end_ns]`, of the modalities that are available."""

    spec: ClipSpec
    start_ns: int
    end_ns: int
    """The newest stamp among the inputs."""
    modalities: tuple[Modality, ...]
    """Those of this window, in canonical order."""
    statuses: tuple[ModalityStatus, ...]
    """Of every modality, when the window was made, in canonical order."""
    samples: Mapping[Modality, WindowSamples]
    """Those of each modality."""

    def __post_init__(self) -> None:
        object.__setattr__(self, 'samples', MappingProxyType(dict(self.samples)))

    @property
    def spans_ns(self) -> dict[Modality, tuple[int, int]]:
        """Return the oldest and newest stamp of the samples of each modality."""
        return {modality: samples.span_ns for modality, samples in self.samples.items()}

    @property
    def oldest_ns(self) -> int:
        """Return the oldest stamp of all samples."""
        return min(oldest for oldest, _ in self.spans_ns.values())

    @property
    def newest_ns(self) -> int:
        """Return the newest stamp of all samples."""
        return max(newest for _, newest in self.spans_ns.values())

    def clip(self, keep: Iterable[Modality] | None = None) -> Clip:
        """
        Prepare the network's inputs, of all modalities of the window or those to keep.

        This is the expensive part: flow, spectrogram, normalisation. It reads nothing that the
        inputs write to, but updates the caches: one thread at a time.
        """
        chosen = in_order(self.modalities if keep is None else set(keep) & set(self.modalities))
        return make_clip(self.spec, {m: self.samples[m].arrays() for m in chosen})


def tick_period_ns(spec: ClipSpec, rate: float, hop: int = 0) -> int:
    """
    Return the period of the ticks of an `InferenceTrigger`.

    It is rounded down as rclpy does it: a nanosecond adds up to many milliseconds since 1970.

    :param rate: inferences per second.
    :param hop: frames from one window of a streaming network to the next; 0 for others. Two ticks
        a hop miss no window.
    """
    return hop * spec.frame_period_ns // 2 if hop else int(1 / rate * NANOSECONDS)


class InferenceTrigger:
    """
    Run inference once per tick, delayed to the next frame that fills a clip slot.

    A clip shows one frame for each slot in time, so that a window between two of them would show
    the network nothing new from the camera. A tick without such a frame before the next tick runs
    inference at that next tick. There are as many inferences as ticks, each on the newest data.
    """

    def __init__(self, every_frame: bool = False) -> None:
        """
        Wait for the first tick.

        :param every_frame: run inference at each frame, whether a tick is due or not: a streaming
            network has a window when a hop is complete, and none before.
        """
        self._every_frame = every_frame
        self._due = False
        self._newest_ns: int | None = None

    def on_tick(self) -> bool:
        """Return whether to run inference now: no frame came since the last tick."""
        waited, self._due = self._due, True
        return waited

    def on_frame(self, newest_ns: int | None) -> bool:
        """
        Return whether to run inference now, after a message.

        :param newest_ns: the stamp of the newest frame that a clip may show; None without.
        """
        shown = newest_ns is not None and newest_ns != self._newest_ns
        self._newest_ns = newest_ns
        if not shown or not (self._due or self._every_frame):
            return False
        self._due = False
        return True
