"""
Optical flow: from a topic, or computed from the frames of a camera.

The flow of a topic is scaled to the period of the clip's frames, as training had it.

Shape legend: t frames, h height, w width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TYPE_CHECKING

from karmma_ros.clip import ClipSpec, CropSize, FlowSpec, NANOSECONDS
from karmma_ros.errors import printable
from karmma_ros.modalities.content_check import Finding, Persistence
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.flow_content import FlowContent
from karmma_ros.modalities.frame_slots import FrameSlots, StoredFrames
from karmma_ros.modalities.image_corruptions import FLOW_CORRUPTIONS
from karmma_ros.modalities.message_types import IMAGE
from karmma_ros.modalities.modality_type import (
    InputDecoder,
    InputMessage,
    ModalityType,
    Values,
)
from karmma_ros.modalities.rgb import FLOW_ENCODING, Frame, SizedImage
from karmma_ros.modality import Modality
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.optical_flow import (
    check_displacement,
    check_video_size,
    clip_flow,
    decode_flow,
    estimate_flow,
    flow_input,
    NO_MOVEMENT,
    quantise_flow,
    THIRD_CHANNEL,
)
from karmma_ros.preprocess.resize import resize_and_crop_vectors, restored_images
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from karmma_ros.media.sources import (
        FlowFromVideo,
        FlowSource,
        SharedFrames,
        SourceOptions,
        VideoSource,
    )
    from torch import Tensor


def read_flow(message: Any, size: CropSize) -> NDArray[np.float32]:
    """
    Read a sensor_msgs/Image of encoding 32FC2 as displacements float32 `[h, w, 2]`.

    They are in pixels of the crop `size` since the frame before.

    :raises InvalidSampleError: when the fields do not make a flow.
    """
    return decode_flow(
        message.data, encoding=message.encoding, height=message.height, width=message.width,
        step=message.step, is_bigendian=bool(message.is_bigendian), size=size)


_STAMPS = 10
_MAX_INTERVAL_RATIO = 1.5
"""An interval this many times the median means that messages were dropped."""


@dataclass(frozen=True, eq=False)
class FlowFrame:
    """One stored flow; its image is never written to again."""

    stamp_ns: int
    """Of the later of the two frames."""
    image: NDArray[np.uint8]
    """`[h, w, 2]` of the crop's size, as `quantise_flow` returns it."""


class FlowBuffer(FrameSlots[FlowFrame]):
    """
    Store one flow for each slot of the grid on which a clip samples its frames.

    A message has the movement since the source's last frame, a clip that since its own:
    so the vectors are scaled by the ratio of these times. The first message, which
    nothing precedes, is not stored: only its stamp is used.
    """

    def __init__(
        self, clip: ClipSpec, size: CropSize | None = None, bound: float | None = None,
    ) -> None:
        super().__init__(clip, size)
        self._bound = clip.flow.own_bound if bound is None else bound
        self._stamps: deque[int] = deque(maxlen=_STAMPS)

    def times_ns(self, sample: Any, stamp_ns: int, now_ns: int) -> tuple[int, int]:
        """Check displacements float32 `[h, w, 2]`; return the stamp, that of the later frame."""
        check_displacement(sample)
        return super().times_ns(sample, stamp_ns, now_ns)

    def skip(self, stamp_ns: int) -> None:
        """Record the stamp of a message that is not stored, for the interval of the next one."""
        if not self._stamps or stamp_ns > self._stamps[-1]:
            self._stamps.append(stamp_ns)

    def add(self, sample: NDArray[np.float32], start_ns: int, stamped: bool = True) -> None:
        """
        Store displacements `[h, w, 2]`, in pixels of theirs since the frame before.

        :raises InvalidSampleError: for another type or shape, NaN or infinity.
        """
        check_array('flow', sample, np.float32, ('h', 'w', 2))
        self.skip(start_ns)
        interval_ns = self._interval_ns(start_ns)
        if interval_ns is None or not self.wants(start_ns):
            return
        cropped = sample.shape[:2] == self._size[:2]
        resized = sample if cropped else resize_and_crop_vectors(sample, *self._size)
        scaled = resized * np.float32(self._period_ns / interval_ns)
        self._put(FlowFrame(start_ns, quantise_flow(scaled, self._bound)))

    def select(self, end_ns: int) -> tuple[FlowFrame, ...]:
        """
        Return the t flows of the window that ends at `end_ns`, oldest first; () when empty.

        As for frames, but the first repeats the second: in training the first frame has none
        before it.
        """
        chosen = super().select(end_ns)
        return chosen[1:2] + chosen[1:] if len(chosen) > 1 else chosen

    def clear(self) -> None:
        """Discard all flow."""
        super().clear()
        self._stamps.clear()

    def _interval_ns(self, stamp_ns: int) -> int | None:
        """Return the time between the two frames of a message; None before a second message."""
        stamps = list(self._stamps)
        intervals = [later - earlier for earlier, later in zip(stamps, stamps[1:])]
        if not intervals:
            return None
        median_ns = sorted(intervals)[(len(intervals) - 1) // 2]
        own_ns = intervals[-1] if stamp_ns == stamps[-1] else median_ns
        return own_ns if own_ns <= _MAX_INTERVAL_RATIO * median_ns else median_ns


class FlowCache:
    """
    Cache the flow between frames, so that overlapping windows compute it once.

    It holds the pairs of the last clip only. One thread may use it at a time: it belongs
    to the worker that prepares the windows.
    """

    def __init__(self, bound: float, preset: str = 'medium', scale: int = 1) -> None:
        """Take the arguments of `estimate_flow`."""
        self._estimate = partial(estimate_flow, bound=bound, preset=preset, scale=scale)
        self._scale = scale
        self._cached: dict[tuple[int, int], NDArray[np.uint8]] = {}

    @property
    def nbytes(self) -> int:
        """Return the memory held by flow."""
        return sum(flow.nbytes for flow in self._cached.values())

    def clip_flow(self, frames: Sequence[Frame]) -> NDArray[np.uint8]:
        """Return `preprocess.optical_flow.clip_flow` of the frames."""
        height, width = (side // self._scale for side in frames[0].image.shape[:2])
        flow = np.full((len(frames), height, width, 2), NO_MOVEMENT, np.uint8)
        used: dict[tuple[int, int], NDArray[np.uint8]] = {}
        for i, (previous, current) in enumerate(zip(frames, frames[1:]), start=1):
            if previous is current:
                continue
            pair = previous.serial, current.serial
            pair_flow = self._cached.get(pair)
            if pair_flow is None:
                pair_flow = self._estimate(previous.image, current.image)
            flow[i] = used[pair] = pair_flow
        flow[0] = flow[min(1, len(frames) - 1)]
        self._cached = used
        return flow


@dataclass(frozen=True, eq=False)
class ComputedFlow:
    """The flow between the frames of a window, computed when it is needed; `FrameSamples`."""

    frames: StoredFrames
    cache: FlowCache

    @property
    def span_ns(self) -> tuple[int, int]:
        """Return the oldest and the newest stamp of the frames."""
        return self.frames.span_ns

    @property
    def images(self) -> list[NDArray[Any]]:
        """Return the camera's images, which identify the frames of the flow."""
        return self.frames.images

    def arrays(self) -> NDArray[np.uint8]:
        """Return the flow, uint8 `[t, h, w, 2]`."""
        return self.cache.clip_flow(self.frames.frames)  # type: ignore[arg-type]

    def some_arrays(self, first: int, end: int) -> NDArray[np.uint8]:
        """Return `arrays()[first:end]`."""
        return self.arrays()[first:end]


_MESSAGES = 5


class FlowCheck:
    """Find flow of another unit: movements that are larger than the image."""

    def __init__(self) -> None:
        self.finding: Finding | None = None
        self._persistence = Persistence(NANOSECONDS, _MESSAGES)

    def update(self, flow: NDArray[np.float32], now_ns: int) -> None:
        """Take displacements in pixels, `[h, w, 2]`."""
        mean = float(np.abs(flow).mean())
        if not self._persistence.update(mean > max(flow.shape[:2]), now_ns):
            self.finding = None
        elif self.finding is None:
            self.finding = Finding(
                f'flow is {mean / flow.shape[1]:.1f} times the width of the image on average, '
                'expected pixels from the frame before to this one: have its publisher send '
                'pixels per frame', usable=False)


class FlowDecoder(InputDecoder):
    """Decode the displacements of a flow topic."""

    def decode(self, received: InputMessage, now_ns: int) -> NDArray[np.float32]:
        """Return displacements float32 `[h, w, 2]`, cropped."""
        flow: NDArray[np.float32]
        flow, _ = received.read()
        self._check.update(flow, now_ns)
        self.set_finding('unit', self._check.finding)
        return flow

    def describe(self, received: InputMessage) -> str:
        """Return the encoding and the size."""
        message = received.message
        return f'{printable(message.encoding, 60)}, {message.width} x {message.height}'

    def reset(self) -> None:
        """Start the check of the unit anew."""
        super().reset()
        self._check = FlowCheck()


_DENSE = f'it holds no flow for each pixel: publish {IMAGE} of encoding 32FC2'


class Flow(ModalityType):
    """Optical flow (F)."""

    name, letter, sensor = 'flow', 'F', 'optical flow'
    what = 'optical flow'
    silence = "a message on the flow topic after which it is stale; computed flow shares the " \
        "camera's"
    spec_class, spec_field = FlowSpec, 'flow'
    derived_from = 'rgb'
    is_image = has_frames = skips_first = packs_samples = True
    message_types = (IMAGE,)
    decoder, content_check = FlowDecoder, FlowContent
    corruptions = FLOW_CORRUPTIONS
    unsupported = {
        'mavros_msgs/msg/OpticalFlow': _DENSE,
        'mavros_msgs/msg/OpticalFlowRad': _DENSE,
        'px4_msgs/msg/SensorOpticalFlow': _DENSE,
    }
    unsupported_names = 'OpticalFlow', f'publish {IMAGE} of encoding 32FC2'

    def input_shape(self, clip: ClipSpec) -> tuple[int, ...]:
        """Return `[3, t, h, w]`."""
        return 3, clip.num_frames, *self._size(clip)[:2]

    def clip_fields(self, clip: ClipSpec) -> dict[str, Any]:
        """Return the fields of its own, and the size of its camera's frames."""
        height, width, *resize = clip.of(self.source(clip)).crop_size
        fields = {**super().clip_fields(clip), 'video.height': height, 'video.width': width}
        return {**fields, 'video.resize': tuple(*resize)}

    def prepare(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float32]:
        """Return the input from flow uint8 `[t, h, w, 2]`, as `clip_flow` returns it."""
        check_array('flow', arrays, np.uint8, (clip.num_frames, *self._size(clip)[:2], 2))
        return self.prepare_frames(arrays, clip)

    def prepare_frames(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float32]:
        """Return the input from some of the frames."""
        return flow_input(arrays, self.spec(clip))

    def prepare_batch(self, samples: Tensor, clip: ClipSpec) -> Tensor:
        """Return the inputs of flow `[b, t, h, w, 2]`."""
        from karmma_ros.modalities.transforms import normalise_batch
        spec = self.spec(clip)
        return normalise_batch(samples, spec.mean, spec.std, THIRD_CHANNEL)

    def restore(self, x: NDArray[np.float32], clip: ClipSpec) -> NDArray[np.uint8]:
        """Return the 8-bit flow."""
        spec = self.spec(clip)
        return restored_images(x[:2], spec.mean, spec.std)

    def usual_size(self, samples: NDArray[Any], clip: ClipSpec) -> float:
        """Return the largest displacement, in the unit of the samples."""
        return 127.0 if samples.dtype == np.uint8 else float(self.spec(clip).own_bound)

    def messages_of(self, arrays: Any, clip: ClipSpec) -> list[tuple[float, Any]]:
        """Return displacements in pixels."""
        scale = self.spec(clip).own_bound / self.usual_size(arrays, clip)
        return [(time_s, (np.asarray(flow, np.float32) - NO_MOVEMENT) * scale)
                for time_s, flow in super().messages_of(arrays, clip)]

    def stand_ins(self, sample: Any, clip: ClipSpec) -> tuple[Any, Any]:
        """Return the specification, which names the camera."""
        return SimpleNamespace(spec=clip), None

    def recomputed(self, frames: NDArray[np.uint8], clip: ClipSpec) -> NDArray[np.uint8]:
        """Return the flow of other frames of the camera, as `prepare` takes it."""
        return clip_flow(frames, *self.spec(clip).estimation)

    def buffer(self, clip: ClipSpec) -> FlowBuffer:
        """Return an empty buffer of the flow of a topic."""
        return FlowBuffer(clip, self._size(clip), self.spec(clip).own_bound)

    def read(self, message: Any, type_name: str, clip: ClipSpec, values: Values) -> SizedImage:
        """Decode displacements, cropped; also return their width and height before."""
        return read_flow(message, self._size(clip)), (message.width, message.height)

    def open_source(self, path: Path, options: SourceOptions) -> FlowSource:
        """Open a folder with the images of u and v in folders of these names."""
        from karmma_ros.media.frames import FlowFolder
        from karmma_ros.media.video_file import ExtractedFlow
        return ExtractedFlow(FlowFolder(
            path, options.folder_rate(self.modality), pattern=options.frames,
            size=self._size(options.clip)))

    def computed_source(self, source: VideoSource) -> FlowFromVideo:
        """Return the flow of a camera's recording."""
        from karmma_ros.media.sources import FlowFromVideo
        return FlowFromVideo(source)

    def read_window(
        self, source: FlowSource | FlowFromVideo, start_s: float, clip: ClipSpec,
        frames: SharedFrames,
    ) -> NDArray[np.uint8]:
        """Return flow `[t, h, w, 2]`, cropped, or computed from the cropped frames."""
        from karmma_ros.media.sources import crop_all, FlowFromVideo, frame_times
        times = frame_times(start_s, clip)
        if isinstance(source, FlowFromVideo):
            size = clip.of(self.source(clip)).crop_size
            return clip_flow(frames.cropped(source.video, times, size),
                             *self.spec(clip).estimation)
        return crop_all(source.flow(times), self._size(clip))

    def rank(self, encoding: str) -> int:
        """Take displacements alone."""
        return int(encoding == FLOW_ENCODING)

    def parameters(self) -> tuple[Declaration, ...]:
        """Return where flow comes from."""
        return (Declaration(
            f'{self.modality}.source', 'computed', 'computed takes it from the camera; topic '
            f'subscribes to sensor_msgs/Image of encoding 32FC2 on {self.topic_name}.',
            choices=('computed', 'topic')),)

    def source(self, clip: ClipSpec) -> Modality:
        """Return its camera: that of its specification, else the one with the same suffix."""
        camera = self.spec(clip).camera
        return Modality(camera) if camera else self.modality.sibling('rgb')

    def derivation(self, clip: ClipSpec) -> Callable[[StoredFrames], ComputedFlow]:
        """Return what computes it from the frames of its camera, each pair once."""
        cache = FlowCache(*self.spec(clip).estimation)
        return lambda frames: ComputedFlow(frames, cache)

    def check_derivation(self, clip: ClipSpec) -> None:
        """Refuse frames that are too small to compute flow."""
        check_video_size(clip.of(self.source(clip)), self.spec(clip).scale)

    def _size(self, clip: ClipSpec) -> CropSize:
        size: CropSize = self.spec(clip).crop_size(clip.of(self.source(clip)))
        return size
