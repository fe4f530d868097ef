"""
Depth images, raw or compressed.

Shape legend: t frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TYPE_CHECKING

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSampleError, printable
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.depth_content import DepthContent
from karmma_ros.modalities.frame_slots import FrameSlots
from karmma_ros.modalities.image_corruptions import DEPTH_CORRUPTIONS
from karmma_ros.modalities.message_types import COMPRESSED_IMAGE, IMAGE
from karmma_ros.modalities.modality_type import InputDecoder, InputMessage, ModalityType, Values
from karmma_ros.modalities.series import check_field
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.depth_images import (
    checked_metres,
    compressed_depth_values,
    depth_input,
    depth_metres,
    depth_values,
    fit_depth,
    has_return,
    METRES,
    MILLIMETRES,
    MOST_METRES,
    person_crop,
    stored_metres,
)
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from karmma_ros.media.sources import DepthSource, SharedFrames, SourceOptions
    from torch import Tensor

CENTRE, PERSON = 'centre', 'person'
_MOST_PIXELS = 1024
_LONGEST = 60
"""Characters that are kept of an encoding."""


@dataclass(frozen=True)
class DepthSpec:
    """How depth images become channels: silhouette, relative depth and its change."""

    height: int = 48
    """Height of the crop, pixels."""
    width: int = 48
    """Width of the crop, pixels."""
    crop: str = CENTRE
    """`centre`: the largest crop of that aspect ratio. `person`: a square around the returns of
    the window, as high as they reach; set `far` in front of what stands behind the person."""
    near: float = 0.1
    """Nearer returns are left out, metres."""
    far: float = 10.0
    """Farther returns are left out, metres."""
    spread: float = 0.25
    """Metres from the median of the window that become 1: half the depth of a person."""

    def __post_init__(self) -> None:
        for field in ('height', 'width'):
            value = getattr(self, field)
            check_field('depth', field, value, type(value) is int and 0 < value <= _MOST_PIXELS,
                        f'an integer from 1 to {_MOST_PIXELS}')
        check_field('depth', 'crop', self.crop, self.crop in (CENTRE, PERSON),
                    f'{CENTRE} or {PERSON}')
        for field in ('near', 'far', 'spread'):
            value = getattr(self, field)
            check_field('depth', field, value, isinstance(value, (int, float)) and isfinite(value)
                        and 0 <= value <= MOST_METRES, f'a number from 0 to {MOST_METRES:g}')
        check_field('depth', 'far', self.far, self.far > self.near, f'above near = {self.near:g}')
        check_field('depth', 'spread', self.spread, self.spread > 0, 'a number above 0')

    def stored(
        self, values: NDArray[Any], scale: float = 0.0, min_returns: float = 0.0,
    ) -> NDArray[np.float16]:
        """
        Return what is stored of an image: metres, NaN without a return, of the size of the crop.

        For a person it is all of the image, smaller. Applied twice it changes nothing more.

        :param values: `[h, w]`, uint16 in millimetres, or floats in metres.
        :param scale: metres in one unit, 0 for these.
        :param min_returns: fraction of the pixels that must have a return, of any distance.
        :raises UninformativeSampleError: without any return, or with fewer.
        :raises InvalidSampleError: for another unit.
        """
        fitted = fit_depth(values, self.height, self.width, self.crop == PERSON)
        return depth_metres(fitted, self.near, self.far, scale, min_returns)


@dataclass(frozen=True, eq=False)
class DepthFrame:
    """One stored depth image; it is never written to again."""

    stamp_ns: int
    image: NDArray[np.float16]
    """Metres `[h, w]`, as `DepthSpec.stored` returns it."""


class DepthBuffer(FrameSlots[DepthFrame]):
    """Store one depth image for each slot."""

    def __init__(self, clip: ClipSpec, spec: DepthSpec) -> None:
        super().__init__(clip, (spec.height, spec.width))
        self._spec = spec

    def times_ns(self, sample: Any, stamp_ns: int, now_ns: int) -> tuple[int, int]:
        """Check a depth image float16 `[h, w]`; return its stamp."""
        check_array('depth', sample, np.float16, ('h', 'w'))
        return super().times_ns(sample, stamp_ns, now_ns)

    def add(self, sample: NDArray[np.float16], start_ns: int, stamped: bool = True) -> None:
        """
        Store a copy of metres `[h, w]`; the first of a slot stays.

        Images of another size replace those before: the camera has another mode.

        :raises InvalidSampleError: for another type or shape.
        """
        check_array('depth', sample, np.float16, ('h', 'w'))
        if not self.wants(start_ns):
            return
        image = np.array(fit_depth(
            sample, self._spec.height, self._spec.width, self._spec.crop == PERSON), order='C')
        if any(frame.image.shape != image.shape for frame in self._frames.values()):
            self.clear()
        self._put(DepthFrame(start_ns, image))


class DepthDecoder(InputDecoder):
    """Decode depth images."""

    def describe(self, received: InputMessage) -> str:
        """Return the encoding and the size."""
        message = received.message
        if received.type_name == COMPRESSED_IMAGE:
            return str(message.format)
        return f'{printable(message.encoding, _LONGEST)}, {message.width} x {message.height}'


class Depth(ModalityType):
    """Depth images (Z)."""

    name, letter, sensor = 'depth', 'Z', 'the depth camera'
    what, silence = 'the depth camera', 'an image after which it is stale'
    spec_class = DepthSpec
    read_with = ('scale',)
    is_image = has_frames = True
    message_types = (IMAGE, COMPRESSED_IMAGE)
    compressed_suffix = '/compressedDepth'
    depth = 1  # the newest image alone, so that a slow machine is not behind
    decoder, content_check = DepthDecoder, DepthContent
    corruptions = DEPTH_CORRUPTIONS
    unsupported = {
        'sensor_msgs/msg/PointCloud2': f'remap depth to the {IMAGE} that it was made of',
        'stereo_msgs/msg/DisparityImage':
            f'publish depth as {IMAGE} of encoding 32FC1, metres',
    }
    encoders = {
        'tiny': ('depth_cnn', {}),
        'tiny_causal': ('causal_depth', {}),
        'tiny_teacher': ('depth_cnn', {'widths': (48, 96, 144, 192)}),
    }

    def input_shape(self, clip: ClipSpec) -> tuple[int, ...]:
        """Return `[3, t, h, w]`."""
        spec: DepthSpec = self.spec(clip)
        return 3, clip.num_frames, spec.height, spec.width

    def prepare(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float32]:
        """
        Return the input from t depth images `[t, h, w]` of any size.

        They are as `DepthSpec.stored` returns them, or as files have them: float32 in metres or
        uint16 in millimetres.
        """
        spec: DepthSpec = self.spec(clip)
        if not isinstance(arrays, np.ndarray) or arrays.dtype not in (
                np.float16, np.float32, np.uint16):
            got = arrays.dtype if isinstance(arrays, np.ndarray) else type(arrays).__name__
            raise InvalidSampleError(
                f'{self.modality}: got {got}; expected float16 or float32 in metres, or uint16 in '
                'millimetres')
        check_array(str(self.modality), arrays, arrays.dtype.type, (clip.num_frames, 'h', 'w'))
        person = spec.crop == PERSON
        fitted = fit_depth(arrays, spec.height, spec.width, person)
        if arrays.dtype == np.float16:
            # What is stored was checked: in a window nobody may be in range.
            frames = fitted if not person else person_crop(
                fitted, np.isfinite(fitted), spec.height, spec.width)
        else:
            metres = checked_metres(fitted)
            if person:
                metres = person_crop(metres, has_return(metres, spec.near, spec.far),
                                     spec.height, spec.width)
            frames = stored_metres(metres, spec.near, spec.far)
        return depth_input(frames, spec.spread)

    def messages_of(self, arrays: Any, clip: ClipSpec) -> list[tuple[float, Any]]:
        """Return each image as it is stored, None for one that is dropped without a return."""
        spec: DepthSpec = self.spec(clip)
        return [(time_s, stored_or_none(spec, image)) for time_s, image in
                super().messages_of(arrays, clip)]

    def buffer(self, clip: ClipSpec) -> DepthBuffer:
        """Return an empty buffer."""
        return DepthBuffer(clip, self.spec(clip))

    def read(
        self, message: Any, type_name: str, clip: ClipSpec, values: Values
    ) -> NDArray[np.float16]:
        """Decode an image to what is stored of it."""
        spec: DepthSpec = self.spec(clip)
        scale, least = values[f'{self.modality}.scale'], values[f'{self.modality}.min_returns']
        try:
            return spec.stored(_values(message, type_name), scale, least)
        except InvalidSampleError as error:
            raise type(error)(str(error).replace('depth.', f'{self.modality}.')) from None

    def open_source(self, path: Path, options: SourceOptions) -> DepthSource:
        """Open a grey video, a folder of PNGs or an array."""
        from karmma_ros.media.depth_video import open_depth
        return open_depth(path, self.modality, options)

    def read_window(
        self, source: DepthSource, start_s: float, clip: ClipSpec, frames: SharedFrames,
    ) -> NDArray[np.float32]:
        """Return depth images `[t, h, w]`, metres."""
        from karmma_ros.media.sources import frame_times
        return source.depth(frame_times(start_s, clip))

    def augment(self, x: Tensor, strength: float, rand: Callable[..., Tensor]) -> Tensor:
        """Shift images, and erase a part."""
        from karmma_ros.modalities.transforms import vary_depth
        return vary_depth(x, strength, rand)

    def rank(self, encoding: str) -> int:
        """Take depth alone; raw depth in millimetres is the most common."""
        if encoding.partition(';')[0].strip() not in (MILLIMETRES, METRES):
            return 0
        return 2 if encoding.startswith(MILLIMETRES) else 1

    def parameters(self) -> tuple[Declaration, ...]:
        """Return the parameters of a depth camera."""
        return (
            Declaration(f'{self.modality}.transport', 'raw', 'raw subscribes to '
                        f'sensor_msgs/Image of encoding 16UC1 or 32FC1 on {self.topic_name}; '
                        'compressed to sensor_msgs/CompressedImage on '
                        f'{self.topic_name}{self.compressed_suffix}.',
                        choices=('raw', 'compressed')),
            Declaration(f'{self.modality}.scale', 0.0, "Metres in one unit of the sensor's "
                        'values; 0 takes 0.001 for 16UC1 and 1 for 32FC1, as REP 118 has it.',
                        (0.0, 100.0)),
            Declaration(f'{self.modality}.min_returns', 0.002, 'Fraction of the pixels that must '
                        'have a return of any distance; an image with fewer is dropped, and the '
                        'input is uninformative while all are.', (0.0, 1.0)),
        )

    def type_name(self, values: Values) -> str:
        """Return the message type that the parameter `transport` chooses."""
        compressed = values[f'{self.modality}.transport'] == 'compressed'
        return COMPRESSED_IMAGE if compressed else IMAGE


def stored_or_none(spec: DepthSpec, image: NDArray[Any]) -> NDArray[np.float16] | None:
    """Return what is stored of an image; None for one that shows nothing."""
    if image.dtype == np.float16:
        return image  # its number of returns is not known any more
    try:
        return spec.stored(image)
    except InvalidSampleError:
        return None


def _values(message: Any, type_name: str) -> NDArray[Any]:
    if type_name == COMPRESSED_IMAGE:
        return compressed_depth_values(message.data, message.format)
    return depth_values(
        message.data, encoding=message.encoding, height=message.height, width=message.width,
        step=message.step, is_bigendian=bool(message.is_bigendian))
