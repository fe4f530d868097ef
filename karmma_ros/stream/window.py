"""
One window of sensor data, whose clip is prepared without a lock, and when to run inference on it.

Shape legend: t frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.modality import in_order, Modality
from karmma_ros.preprocess.clip_assembly import make_clip
from karmma_ros.preprocess.flow import estimate_flow, NO_MOVEMENT
from karmma_ros.stream.audio_buffer import SpectrogramCache
from karmma_ros.stream.availability import ModalityStatus
from karmma_ros.stream.buffers import Frame
import numpy as np
from numpy.typing import NDArray


class FlowCache:
    """
    Cache the flow between frames, so that overlapping windows compute it once.

    It holds the pairs of the last clip only. One thread may use it at a time: it belongs
    to the worker that prepares the windows.
    """

    def __init__(self, bound: float) -> None:
        self._bound = bound
        self._cached: dict[tuple[int, int], NDArray[np.uint8]] = {}

    @property
    def nbytes(self) -> int:
        """Return the memory held by flow."""
        return sum(flow.nbytes for flow in self._cached.values())

    def clip_flow(self, frames: tuple[Frame, ...]) -> NDArray[np.uint8]:
        """Return `preprocess.flow.clip_flow` of the frames, uint8 `[t, h, w, 2]`."""
        flow = np.full((len(frames), *frames[0].image.shape[:2], 2), NO_MOVEMENT, np.uint8)
        used: dict[tuple[int, int], NDArray[np.uint8]] = {}
        for i, (previous, current) in enumerate(zip(frames, frames[1:]), start=1):
            if previous is current:
                continue
            pair = previous.serial, current.serial
            pair_flow = self._cached.get(pair)
            if pair_flow is None:
                pair_flow = estimate_flow(previous.image, current.image, self._bound)
            flow[i] = used[pair] = pair_flow
        flow[0] = flow[min(1, len(frames) - 1)]
        self._cached = used
        return flow


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
    spans_ns: Mapping[Modality, tuple[int, int]]
    """Oldest and newest stamp of the samples of each modality."""
    frames: tuple[Frame, ...]
    """The t camera frames, repeats included; empty where no modality needs them."""
    audio: NDArray[np.float32] | None
    valid_mask: NDArray[np.bool_] | None
    """Bool `[n]`: false where `audio` holds zeros for a gap."""
    boxes: tuple[NDArray[np.float32], ...] | None
    flow_cache: FlowCache
    flows: tuple[NDArray[np.uint8], ...] = ()
    """The t flow images `[h, w, 2]` of a flow topic; empty for computed flow."""
    audio_first: int = 0
    """Index in the stream of the first sample of `audio`."""
    spectrogram_cache: SpectrogramCache | None = None
    """Without one the spectrogram is computed anew."""

    def __post_init__(self) -> None:
        object.__setattr__(self, 'spans_ns', MappingProxyType(dict(self.spans_ns)))

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
        return make_clip(
            self.spec,
            frames=self._stack() if Modality.RGB in chosen else None,
            flow=self._flow() if Modality.FLOW in chosen else None,
            audio=self.audio if Modality.AUDIO in chosen else None,
            valid_mask=self.valid_mask,
            spectrogram=self._spectrogram() if Modality.AUDIO in chosen else None,
            boxes=self.boxes if Modality.DETECTIONS in chosen else None,
        )

    def _flow(self) -> NDArray[np.uint8]:
        return np.stack(self.flows) if self.flows else self.flow_cache.clip_flow(self.frames)

    def _spectrogram(self) -> NDArray[np.float32] | None:
        if self.spectrogram_cache is None or self.audio is None or self.valid_mask is None:
            return None
        return self.spectrogram_cache.log_mel(self.audio, self.valid_mask, self.audio_first)

    def _stack(self) -> NDArray[np.uint8]:
        return np.stack([frame.image for frame in self.frames])


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
