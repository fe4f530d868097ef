"""
Decode the fields of ROS messages to arrays, for the node and for bags read without ROS.

Only attributes are read, so that messages of rclpy and of the rosbags library both serve.

Shape legend: h height, w width, n samples or boxes.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, isfinite, sin
import sys
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError, printable
from karmma_ros.preprocess.compressed_image import (
    decode_compressed,
    is_wide_png,
    largest_png_value,
)
from karmma_ros.preprocess.detections import CategoryMap, normalise_boxes
from karmma_ros.preprocess.flow import decode_flow
from karmma_ros.preprocess.image import decode_image, WIDE
from karmma_ros.preprocess.image import is_wide as is_wide_encoding
from karmma_ros.preprocess.image import largest_value as largest_image_value
from karmma_ros.preprocess.pcm import decode_pcm
from karmma_ros.stream.audio_rate import AudioFormat
from karmma_ros.stream.content_checks import BoxFrame
from karmma_ros.stream.message_types import COMPRESSED_IMAGE
import numpy as np
from numpy.typing import NDArray

# Drivers that know only one leave it empty.
_RAW_CODINGS = ('', 'wave', 'raw', 'pcm')
_LONGEST = 60
"""Characters that are kept of what a driver calls its format."""

_MAX_DETECTIONS = 5000
"""More would keep the callbacks of all other inputs waiting."""

# PortAudio's sample formats, which the other audio_common_msgs carry, to field and name.
_PORTAUDIO = {
    0x01: ('float32_data', 'F32'), 0x02: ('int32_data', 'S32'), 0x08: ('int16_data', 'S16'),
    0x10: ('int8_data', 'S8'), 0x20: ('uint8_data', 'U8'),
}


def stamp_ns_of(header: Any) -> int:
    """
    Return header.stamp, nanoseconds; 0 where the publisher set none.

    :raises InvalidSampleError: for a time before 1970, which no clock gives.
    """
    stamp_ns = int(header.stamp.sec * NANOSECONDS + header.stamp.nanosec)
    if stamp_ns < 0:
        raise InvalidSampleError(f'header.stamp: got {stamp_ns / NANOSECONDS} s; expected 0 or '
                                 'more')
    return stamp_ns


def read_image(message: Any, size: tuple[int, int], bits: int = WIDE) -> NDArray[np.uint8]:
    """
    Read a sensor_msgs/Image as RGB uint8 `[h, w, 3]`, cropped to `size` (height, width).

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
    message: Any, size: tuple[int, int], bits: int = WIDE,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """
    Read a sensor_msgs/CompressedImage as RGB, as `read_image` does one that is not.

    Also return the height and width of the image before it is cropped.

    :raises InvalidSampleError: for anything but a complete JPEG or PNG.
    """
    return decode_compressed(message.data, description=message.format, size=size, bits=bits)


def read_flow(message: Any, size: tuple[int, int]) -> NDArray[np.float32]:
    """
    Read a sensor_msgs/Image of encoding 32FC2 as displacements float32 `[h, w, 2]`.

    They are in pixels of the crop `size` (height, width) since the frame before.

    :raises InvalidSampleError: when the fields do not make a flow.
    """
    return decode_flow(
        message.data, encoding=message.encoding, height=message.height, width=message.width,
        step=message.step, is_bigendian=bool(message.is_bigendian), size=size)


class AudioDecoder:
    """
    Decode the bytes of ros-drivers' audio_common_msgs, which do not state their format.

    AudioInfo does. Where the driver publishes one, it has priority over the parameters.
    """

    def __init__(self, sample_rate: int, channels: int, sample_format: str) -> None:
        """
        Take the format: hertz, interleaved channels, and GStreamer's name, as `S16LE`.

        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self._given = self._used = sample_rate, channels, sample_format
        self._from_info = False
        self._unsupported = ''
        """Why the driver's audio cannot be decoded."""
        try:
            decode_pcm(b'\x00' * 64 * channels, sample_format=sample_format, channels=channels)
        except InvalidSampleError as problem:
            raise InvalidSettingError('audio.sample_format', sample_format,
                                      'a format that can be decoded', str(problem)) from None

    @property
    def format(self) -> AudioFormat:
        """Return how audio is read now, and what states it."""
        return AudioFormat(*self._used, stated_by='audio_info' if self._from_info else '')

    @property
    def sample_rate(self) -> int:
        """Return the rate of what is read now, Hz."""
        return self._used[0]

    def __str__(self) -> str:
        rate, channels, sample_format = self._used
        return f'{sample_format}, {rate} Hz, {channels} channel{"s" * (channels != 1)}'

    def __call__(self, data: Any) -> NDArray[np.float32]:
        """
        Return mono float32 `[n]` in [-1, 1].

        :raises InvalidSampleError: for bytes that are not audio in this format, and while
            the driver states that it publishes compressed audio.
        """
        if self._unsupported:
            raise InvalidSampleError(self._unsupported)
        _, channels, sample_format = self._used
        return decode_pcm(data, sample_format=sample_format, channels=channels)

    def apply_info(self, info: Any) -> str:
        """
        Use the format that audio_common_msgs/AudioInfo states; the newest one counts.

        Return a sentence when it contradicts the parameters, else ''.
        """
        name = printable(info.sample_format.strip(), _LONGEST).upper()
        stated = info.sample_rate, info.channels, name
        given = (*self._given[:2], self._given[2].strip().upper())
        self._used = tuple(  # type: ignore[assignment]
            new or old for new, old in zip(stated, given))
        self._from_info, self._unsupported = bool(info.sample_rate), ''
        if info.coding_format.lower() not in _RAW_CODINGS:
            self._unsupported = (
                f'audio_info: the driver sends {printable(info.coding_format, _LONGEST)}; start '
                'it with format:=wave')
        names = 'audio.sample_rate', 'audio.channels', 'audio.sample_format'
        return self._unsupported or ', '.join(
            f'{name} is {ours}, but audio_info has {printable(theirs, _LONGEST)}, which is used'
            for name, ours, theirs in zip(names, given, self._used) if ours != theirs)


class StampedAudioDecoder:
    """
    Decode AudioStamped of the other audio_common_msgs, mgonzs13's, which states its format.

    Rate and channels may change from message to message.
    """

    def __init__(self) -> None:
        self.format = AudioFormat(0, 0, '', 'each message')
        """Of the last message."""

    @property
    def sample_rate(self) -> int:
        """Return the rate of the last message, Hz."""
        return self.format.rate

    def __str__(self) -> str:
        if not self.format.rate:
            return 'as in each message'
        rate, channels, name = self.format.rate, self.format.channels, self.format.sample_format
        return f'{name}, {rate} Hz, {channels} channel(s)'

    def __call__(self, message: Any) -> NDArray[np.float32]:
        """
        Return mono float32 `[n]` in [-1, 1].

        :raises InvalidSampleError: for a format that cannot be read.
        """
        info, data = message.audio.info, message.audio.audio_data
        try:
            field, name = _PORTAUDIO[info.format]
        except KeyError:
            known = ', '.join(f'{number} ({name})' for number, (_, name) in _PORTAUDIO.items())
            raise InvalidSampleError(
                f"audio.info.format: got {info.format}; expected PortAudio's number of a format: "
                f'{known}: set format of audio_capturer_node to one of them') from None
        samples = decode_pcm(
            getattr(data, field), sample_format=name, channels=info.channels,
            big_endian=sys.byteorder == 'big')
        self.format = AudioFormat(info.rate, info.channels, name, 'each message')
        return samples


class DetectionDecoder:
    """
    Decode vision_msgs/Detection2DArray, which does not state the size of its image.

    The layouts from before vision_msgs 4, as old bags have them, are decoded as well, and
    yolo_msgs/DetectionArray, whose class ids are its class names.
    """

    def __init__(
        self, hand_classes: Iterable[str] = (), width: int = 0, height: int = 0,
        ignored_classes: Iterable[str] = (), min_score: float = 0.0, normalised: bool = False,
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """
        Take the class ids of hands and the image's size, 0 for the camera's.

        :param ignored_classes: class ids of boxes that are left out; '' names none.
        :param min_score: boxes below it are left out.
        :param normalised: boxes are fractions of the image, whose size does not matter then.
        :param offset: added to x and y of the boxes, in their unit.
        """
        self._normalised, self._offset = normalised, offset
        self._size = width, height
        self._categories = CategoryMap({each: 'hand' for each in hand_classes if each})
        self._ignored = frozenset(each for each in ignored_classes if each)
        self._min_score = min_score
        self.camera_size: tuple[int, int] = (0, 0)
        """Width and height of the newest camera image; (0, 0) before the first one."""
        self.corners: NDArray[np.float64] = np.zeros((0, 4))
        """The boxes of the last message as received, x1, y1, x2, y2."""

    @property
    def frame(self) -> BoxFrame:
        """Return how boxes are read now; a size of 0 is not known."""
        size = tuple(given or seen for given, seen in zip(self._size, self.camera_size))
        return BoxFrame((1, 1) if self._normalised else (size[0], size[1]), self._normalised,
                        self._offset)

    def __call__(self, message: Any) -> NDArray[np.float32]:
        """
        Return float32 `[n, 5]`: x1, y1, x2, y2 in 0..1 and the category, best score first.

        A box that lies outside of the image is left out.

        :raises InvalidSampleError: for impossible or too many boxes, or an unknown image size.
        """
        if len(message.detections) > _MAX_DETECTIONS:
            raise InvalidSampleError(
                f'boxes: got {len(message.detections)}; expected {_MAX_DETECTIONS} or fewer: '
                "raise the detector's threshold")
        named = [(*_best(each), each.bbox) for each in message.detections]
        scored = sorted((each for each in named if self._wanted(*each[:2])),
                        key=lambda each: each[0], reverse=True)
        self.corners = np.array([_corners(box) for _, _, box in scored], np.float64).reshape(-1, 4)
        if not scored:
            return np.zeros((0, 5), np.float32)
        frame = self.frame
        if not all(frame.size):
            raise InvalidSampleError(
                'the size of the image that the boxes lie in is not known before the first image: '
                'set detections.image_width and detections.image_height')
        corners = self.corners + frame.offset * 2
        categories = [self._categories(class_id) for _, class_id, _ in scored]
        boxes = np.column_stack([normalise_boxes(corners, *frame.size), categories])
        outside = ((corners[:, 2:] <= 0) | (corners[:, :2] >= frame.size)).any(axis=1)
        return boxes[~outside].astype(np.float32)

    def _wanted(self, score: float, class_id: str) -> bool:
        return class_id not in self._ignored and score >= self._min_score


def _corners(box: Any) -> tuple[float, float, float, float]:
    """
    Return x1, y1, x2, y2 of what an upright box must hold to hold this one.

    A negative size ends up as x2 < x1, which is refused later.
    """
    center = getattr(box.center, 'position', box.center)
    size_x, size_y = (box.size.x, box.size.y) if hasattr(box, 'size') else (box.size_x, box.size_y)
    half_x, half_y = size_x / 2, size_y / 2
    theta = getattr(box.center, 'theta', 0.0)
    if theta and isfinite(theta) and half_x >= 0 and half_y >= 0:
        across, down = abs(cos(theta)), abs(sin(theta))
        half_x, half_y = half_x * across + half_y * down, half_x * down + half_y * across
    return center.x - half_x, center.y - half_y, center.x + half_x, center.y + half_y


def _best(detection: Any) -> tuple[float, str]:
    """Return score and class id of the likeliest hypothesis; a score that is no number is 0."""
    if hasattr(detection, 'class_name'):  # yolo_msgs: one hypothesis, with a name
        score = float(detection.score) if isfinite(detection.score) else 0.0
        return score, str(detection.class_name or detection.class_id)
    hypotheses = [getattr(result, 'hypothesis', result) for result in detection.results]
    scored = [(float(h.score) if isfinite(h.score) else 0.0, h) for h in hypotheses]
    if not scored:
        return 0.0, ''
    score, best = max(scored, key=lambda each: each[0])
    return score, str(best.class_id if hasattr(best, 'class_id') else best.id)
