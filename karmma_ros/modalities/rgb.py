"""
RGB video: camera images, raw or compressed.

Shape legend: t frames, h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TYPE_CHECKING

from karmma_ros.clip import ClipSpec, CropSize, NANOSECONDS, VideoSpec
from karmma_ros.errors import printable
from karmma_ros.modalities.content_check import Finding, Persistence
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.frame_slots import FrameSlots
from karmma_ros.modalities.image_content import CameraContent
from karmma_ros.modalities.image_corruptions import FRAME_CORRUPTIONS
from karmma_ros.modalities.message_types import COMPRESSED_IMAGE, IMAGE
from karmma_ros.modalities.modality_type import (
    InputDecoder,
    InputMessage,
    ModalityType,
    Values,
)
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.compressed_image import (
    decode_compressed,
    is_wide_png,
    largest_png_value,
)
from karmma_ros.preprocess.image import decode_image, WIDE
from karmma_ros.preprocess.image import is_wide as is_wide_encoding
from karmma_ros.preprocess.image import largest_value as largest_image_value
from karmma_ros.preprocess.resize import crop_unless_cropped, restored_images, video_input
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from karmma_ros.media.sources import SharedFrames, SourceOptions, VideoSource
    from torch import Tensor

SizedImage = tuple[NDArray[Any], tuple[int, int]]
"""A decoded image or flow, and its width and height before it was cropped."""


def read_image(message: Any, size: CropSize, bits: int = WIDE) -> NDArray[np.uint8]:
    """
    Read a sensor_msgs/Image as RGB uint8 `[h, w, 3]`, resized and cropped to `size`.

    :param bits: significant bits of 16 bit channels.
    :raises InvalidSampleError: when the fields do not make an image.
    """
    return decode_image(
        message.data, encoding=message.encoding, height=message.height, width=message.width,
        step=message.step, is_bigendian=bool(message.is_bigendian), size=size, bits=bits)


def is_wide(message: Any, type_name: str) -> bool:
    """Whether an image has 16 bits for a value, of which fewer may be significant."""
    if type_name == COMPRESSED_IMAGE:
        return is_wide_png(message.data)
    return is_wide_encoding(message.encoding)


def largest_value(message: Any, type_name: str) -> tuple[int, str]:
    """Return the largest value of an image that `is_wide`, and its encoding."""
    if type_name == COMPRESSED_IMAGE:
        return largest_png_value(message.data), '16 bit PNG'
    return largest_image_value(
        message.data, encoding=message.encoding, height=message.height, width=message.width,
        step=message.step, is_bigendian=bool(message.is_bigendian)), message.encoding


def read_compressed_image(
    message: Any, size: CropSize, bits: int = WIDE,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """
    Read a sensor_msgs/CompressedImage as RGB, as `read_image` does one that is not.

    Also return the height and width of the image before it is cropped.

    :raises InvalidSampleError: for anything but a complete JPEG or PNG.
    """
    return decode_compressed(message.data, description=message.format, size=size, bits=bits)


@dataclass(frozen=True, eq=False)
class Frame:
    """One stored camera frame; its image is never written to again."""

    stamp_ns: int
    serial: int
    """Distinguishes frames even where a clock that jumped back repeats a stamp."""
    image: NDArray[np.uint8]
    """RGB `[h, w, 3]`, of the crop's size."""


class FrameBuffer(FrameSlots[Frame]):
    """Store one camera frame for each slot: each is resized once, and its flow computed once."""

    def __init__(self, clip: ClipSpec, size: CropSize | None = None) -> None:
        super().__init__(clip, size)
        self._serial = 0

    def times_ns(self, sample: Any, stamp_ns: int, now_ns: int) -> tuple[int, int]:
        """Check an RGB image uint8 `[h, w, 3]`; return its stamp."""
        check_array('image', sample, np.uint8, ('h', 'w', 3))
        return super().times_ns(sample, stamp_ns, now_ns)

    def add(self, sample: NDArray[np.uint8], start_ns: int, stamped: bool = True) -> None:
        """
        Store a copy of an RGB image `[h, w, 3]`, cropped or to be cropped; a slot keeps its first.

        :raises InvalidSampleError: for anything but a non-empty uint8 image.
        """
        check_array('image', sample, np.uint8, ('h', 'w', 3))
        if not self.wants(start_ns):
            return
        self._serial += 1
        resized = np.array(crop_unless_cropped(sample, self._size), order='C')
        self._put(Frame(start_ns, self._serial, resized))


_DARK = 16
"""Of 256: a sixteenth of the range."""
_USUAL_BITS = (8, 10, 12, 14, 16)
_MAY_BE_DEPTH = ('mono16', '16UC1')
_SECONDS, _MESSAGES = 3 * NANOSECONDS, 5


class ValueRangeCheck:
    """
    Find images of 16 bit channels whose values use fewer bits than that, or more than `rgb.bits`.

    Cameras send 10 or 12 bit values in 16 bit; taken for 16 bit they are nearly black.
    """

    def __init__(self) -> None:
        self.finding: Finding | None = None
        self._bits = WIDE
        self._value, self._encoding = 0, ''
        self._restart()

    def update(
        self, image: NDArray[np.uint8], bits: int, largest: Callable[[], tuple[int, str]],
        now_ns: int,
    ) -> None:
        """
        Take an image of 16 bit channels as it was decoded, RGB `[h, w, 3]`.

        :param bits: significant bits that it was decoded with.
        :param largest: gives the largest value of its data and its encoding. It is called for
            images that are suspicious only.
        """
        if bits != self._bits:
            self._bits, self.finding = bits, None
            self._restart()
        brightest = int(image.max())
        suspicious = brightest < _DARK if bits == WIDE else brightest == 255
        if suspicious and self.finding is None:
            value, self._encoding = largest()
            suspicious = value > 0 if bits == WIDE else value >= 1 << bits
            self._value = max(self._value, value)
        if not suspicious:
            self._value = 0
        if not self._persistence.update(suspicious, now_ns):
            self.finding = None
        elif self.finding is None:
            self.finding = Finding(self._text())

    def _restart(self) -> None:
        self._persistence = Persistence(_SECONDS, _MESSAGES)
        self._value, self._encoding = 0, ''

    def _text(self) -> str:
        bits = next(each for each in _USUAL_BITS if self._value < 1 << each)
        most = (1 << self._bits) - 1
        if self._bits < WIDE:
            return (f'largest value {self._value} in {self._encoding} images, expected up to '
                    f'{most} with rgb.bits {self._bits}: set rgb.bits ({bits})')
        depth = (', or remap image if this topic is depth' if self._encoding in _MAY_BE_DEPTH
                 else '')
        return (f'images are nearly black: largest value {self._value} of {most} '
                f'({self._encoding}); the camera probably sends {bits} bit values: set rgb.bits '
                f'({bits}){depth}')


class CameraDecoder(InputDecoder):
    """Decode camera images, and enter their size."""

    def decode(self, received: InputMessage, now_ns: int) -> NDArray[np.uint8]:
        """Return RGB uint8 `[h, w, 3]`, cropped."""
        image: NDArray[np.uint8]
        image, self.image_sizes[self.modality] = received.read()
        message, type_name = received.message, received.type_name
        if is_wide(message, type_name):
            self._range.update(image, self.parameter('bits'),
                               lambda: largest_value(message, type_name), now_ns)
        self.set_finding('range', self._range.finding)
        return image

    def describe(self, received: InputMessage) -> str:
        """Return the encoding and the size."""
        message = received.message
        if received.type_name == COMPRESSED_IMAGE:
            return str(message.format)
        return f'{printable(message.encoding, _LONGEST)}, {message.width} x {message.height}'

    def reset(self) -> None:
        """Start the check of the values' range anew."""
        super().reset()
        self._range = ValueRangeCheck()


_LONGEST = 60
"""Characters that are kept of an encoding."""


def transport_remedy(name: str) -> str:
    """Return how to decode what a plugin of image_transport publishes."""
    return (f'republish it raw: `ros2 run image_transport republish {name} raw '
            f'--ros-args -p in_transport:={name} -p out_transport:=raw -r in/{name}:={{topic}} '
            '-r out:=/image`')  # arguments for Humble, parameters from Iron on


_BY_DECODER = 'decode it to sensor_msgs/msg/Image with a node of its project'


DEPTH_ENCODINGS = ('16UC1', '32FC1', 'mono16', '16SC1')
FLOW_ENCODING = '32FC2'


class Rgb(ModalityType):
    """RGB video (V)."""

    name, letter, sensor = 'rgb', 'V', 'the camera'
    what, silence = 'the camera for RGB', 'an image after which the camera is stale'
    spec_class, spec_field = VideoSpec, 'video'
    read_with = ('bits',)
    is_image = has_frames = packs_samples = True
    message_types = (IMAGE, COMPRESSED_IMAGE)
    topic, depth = 'image', 1  # the newest image alone, so that a slow machine is not behind
    decoder, content_check = CameraDecoder, CameraContent
    corruptions = FRAME_CORRUPTIONS
    unsupported = {
        'ffmpeg_image_transport_msgs/msg/FFMPEGPacket': transport_remedy('ffmpeg'),
        'theora_image_transport/msg/Packet': transport_remedy('theora'),
        'h264_msgs/msg/Packet': transport_remedy('h264'),
        'foxglove_msgs/msg/CompressedVideo':
            f'it is H.264, H.265, VP9 or AV1: publish {COMPRESSED_IMAGE} (jpeg), or '
            'decode it with foxglove_compressed_video_transport',
        'foxglove_msgs/msg/CompressedImage': f'publish it as {COMPRESSED_IMAGE}',
        'foxglove_msgs/msg/RawImage': f'publish it as {IMAGE}',
        'realsense2_camera_msgs/msg/RGBD':
            'take the colour topic that the driver publishes beside it',
        'rtabmap_msgs/msg/RGBDImage': 'take the colour topic that it was made of',
        'hbm_img_msgs/msg/HbmMsg1080P': _BY_DECODER,
    }
    unsupported_names = r'(?i:Image|Video|JPEG|H26[45])', f'publish {IMAGE} or {COMPRESSED_IMAGE}'

    def input_shape(self, clip: ClipSpec) -> tuple[int, ...]:
        """Return `[3, t, h, w]`."""
        spec = self.spec(clip)
        return 3, clip.num_frames, spec.height, spec.width

    def prepare(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float32]:
        """Return the input from RGB frames uint8 `[t, h, w, 3]` of the crop's size."""
        check_array('frames', arrays, np.uint8, (clip.num_frames, *self._size(clip)[:2], 3))
        return self.prepare_frames(arrays, clip)

    def prepare_frames(self, arrays: Any, clip: ClipSpec) -> NDArray[np.float32]:
        """Return the input from some of the frames."""
        return video_input(arrays, self.spec(clip))

    def prepare_batch(self, samples: Tensor, clip: ClipSpec) -> Tensor:
        """Return the inputs of frames `[b, t, h, w, 3]`."""
        from karmma_ros.modalities.transforms import normalise_batch
        spec = self.spec(clip)
        return normalise_batch(samples, spec.mean, spec.std)

    def restore(self, x: NDArray[np.float32], clip: ClipSpec) -> NDArray[np.uint8]:
        """Return the RGB frames."""
        spec = self.spec(clip)
        return restored_images(x, spec.mean, spec.std)

    def buffer(self, clip: ClipSpec) -> FrameBuffer:
        """Return an empty buffer."""
        return FrameBuffer(clip, self._size(clip))

    def read(self, message: Any, type_name: str, clip: ClipSpec, values: Values) -> SizedImage:
        """Decode an image, cropped; also return its width and height before."""
        size, bits = self._size(clip), values[f'{self.modality}.bits']
        if type_name == COMPRESSED_IMAGE:
            image, (height, width) = read_compressed_image(message, size, bits)
            return image, (width, height)
        return read_image(message, size, bits), (message.width, message.height)

    def open_source(self, path: Path, options: SourceOptions) -> VideoSource:
        """Open a video file or a folder of frames."""
        from karmma_ros.media.video_file import open_frames
        return open_frames(path, self._size(options.clip), options.frames,
                           options.folder_rate(self.modality))

    def read_window(
        self, source: VideoSource, start_s: float, clip: ClipSpec, frames: SharedFrames,
    ) -> NDArray[np.uint8]:
        """Return RGB frames `[t, h, w, 3]`, cropped."""
        from karmma_ros.media.sources import frame_times
        return frames.cropped(source, frame_times(start_s, clip), self._size(clip))

    def rank(self, encoding: str) -> int:
        """Prefer colour to grey; depth and flow do not fit."""
        raw = encoding.partition(';')[0].strip()  # `16UC1; png compressed` of a compressed one
        if raw in (*DEPTH_ENCODINGS, FLOW_ENCODING) or 'compressedDepth' in encoding:
            return 0
        return 1 if raw in ('mono8', '8UC1') else 2

    def augment(self, x: Tensor, strength: float, rand: Callable[..., Tensor]) -> Tensor:
        """Vary light and colour."""
        from karmma_ros.modalities.transforms import jitter_colour
        return jitter_colour(x, strength, rand)

    def parameters(self) -> tuple[Declaration, ...]:
        """Return the parameters of a camera."""
        return (
            Declaration(f'{self.modality}.transport', 'raw', 'raw subscribes to '
                        f'sensor_msgs/Image on {self.topic_name}; compressed to '
                        f'sensor_msgs/CompressedImage on {self.topic_name}/compressed.',
                        choices=('raw', 'compressed')),
            Declaration(f'{self.modality}.bits', 16, 'Significant bits of images with 16 bit '
                        'channels: 10 or 12 for a camera whose values end at 1023 or 4095; 16 '
                        'takes the whole range.', (8, 16)),
        )

    def type_name(self, values: Values) -> str:
        """Return the message type that the parameter `transport` chooses."""
        compressed = values[f'{self.modality}.transport'] == 'compressed'
        return COMPRESSED_IMAGE if compressed else IMAGE

    def _size(self, clip: ClipSpec) -> CropSize:
        size: CropSize = self.spec(clip).crop_size
        return size
