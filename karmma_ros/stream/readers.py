"""
The fields of ROS messages to timed samples, for the node and for bags read without ROS.

Only attributes are looked at, so that rclpy's messages serve as well as those of the
rosbags library.

Shape legend: h height, w width, n samples or boxes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.preprocess.audio import decode_pcm
from karmma_ros.preprocess.detections import CategoryMap, normalise_boxes
from karmma_ros.preprocess.image import decode_image
import numpy as np
from numpy.typing import NDArray

# An empty one is said by drivers that know only one.
_RAW_CODINGS = ('', 'wave', 'raw', 'pcm')


def stamp_ns_of(header: Any) -> int:
    """
    Give header.stamp, nanoseconds; 0 where the publisher set none.

    :raises InvalidSampleError: for a time before 1970, which no clock gives.
    """
    stamp_ns = int(header.stamp.sec * NANOSECONDS + header.stamp.nanosec)
    if stamp_ns < 0:
        raise InvalidSampleError(f'header.stamp: got {stamp_ns / NANOSECONDS} s; it may be 0 or '
                                 'more')
    return stamp_ns


def read_image(message: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
    """
    Read a sensor_msgs/Image as RGB uint8 `[h, w, 3]`, cropped to `size` (height, width).

    :raises InvalidSampleError: when the fields do not make a picture.
    """
    return decode_image(
        message.data, encoding=message.encoding, height=message.height, width=message.width,
        step=message.step, is_bigendian=bool(message.is_bigendian), size=size)


class AudioReader:
    """Read audio_common_msgs/AudioData, which does not say its own format."""

    def __init__(self, sample_rate: int, channels: int, sample_format: str) -> None:
        """
        Take the format: hertz, interleaved channels, and GStreamer's name, as `S16LE`.

        :raises InvalidSettingError: for a sample format that cannot be decoded.
        """
        self.sample_rate, self._channels, self._format = sample_rate, channels, sample_format
        self._contradiction = ''
        try:
            self(b'\x00' * 64 * self._channels)
        except InvalidSampleError as problem:
            raise InvalidSettingError('audio.sample_format', self._format,
                                      'a format that can be decoded', str(problem)) from None

    def __call__(self, data: Any) -> NDArray[np.float32]:
        """
        Give mono float32 `[n]` in [-1, 1].

        :raises InvalidSampleError: for bytes that are not sound in this format, and while
            the driver says that it sends another.
        """
        if self._contradiction:
            raise InvalidSampleError(self._contradiction)
        return decode_pcm(data, sample_format=self._format, channels=self._channels)


    def compare(self, info: Any) -> None:
        """Hold audio_common_msgs/AudioInfo, if the driver sends it, against the parameters."""
        pairs = {
            'audio.sample_rate': (info.sample_rate, self.sample_rate),
            'audio.channels': (info.channels, self._channels),
            'audio.sample_format': (info.sample_format.upper(), self._format.upper()),
        }
        if info.coding_format.lower() not in _RAW_CODINGS:
            self._contradiction = (
                f'audio_info: the driver sends {info.coding_format}; start it with format:=wave')
            return
        wrong = [f'{name} is {ours}, but audio_info says {theirs}: set it to that'
                 for name, (theirs, ours) in pairs.items() if theirs and theirs != ours]
        self._contradiction = '; '.join(wrong)


class DetectionReader:
    """Read vision_msgs/Detection2DArray, which does not say how large its picture is."""

    def __init__(self, hand_classes: Iterable[str] = (), width: int = 0, height: int = 0) -> None:
        """Take the class ids of hands and the picture's size, 0 for the camera's."""
        self._size = width, height
        self._categories = CategoryMap({class_id: 'hand' for class_id in hand_classes})
        self.camera_size: tuple[int, int] = (0, 0)
        """Width and height of the newest camera picture; (0, 0) before the first one."""

    def __call__(self, message: Any) -> NDArray[np.float32]:
        """
        Give float32 `[n, 5]`: x1, y1, x2, y2 in 0..1 and the category, best score first.

        :raises InvalidSampleError: for impossible boxes or an unknown picture size.
        """
        found = sorted(message.detections, key=_score, reverse=True)
        if not found:
            return np.zeros((0, 5), np.float32)
        width, height = (given or seen for given, seen in zip(self._size, self.camera_size))
        if not (width and height):
            raise InvalidSampleError(
                'the size of the picture the boxes lie in is not known before a picture came: set '
                'detections.image_width and detections.image_height')
        corners = np.array([_corners(each.bbox) for each in found], np.float64)
        categories = [self._categories(_class_id(each)) for each in found]
        boxes = normalise_boxes(corners, width, height)
        return np.column_stack([boxes, categories]).astype(np.float32)


def _corners(box: Any) -> tuple[float, float, float, float]:
    """Give x1, y1, x2, y2; a negative size ends up as x2 < x1, which is refused later."""
    center = box.center.position
    half_x, half_y = box.size_x / 2, box.size_y / 2
    return center.x - half_x, center.y - half_y, center.x + half_x, center.y + half_y


def _best(detection: Any) -> Any:
    return max((r.hypothesis for r in detection.results), key=lambda h: h.score, default=None)


def _score(detection: Any) -> float:
    best = _best(detection)
    return float(best.score) if best is not None else 0.0


def _class_id(detection: Any) -> str:
    best = _best(detection)
    return str(best.class_id) if best is not None else ''
