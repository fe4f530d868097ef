"""Valid messages of every sensor, from which malformed ones are derived."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

from audio_common_msgs.msg import AudioDataStamped
import cv2
from karmma_ros.node.messages import time_message
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

SECOND = 1_000_000_000
_RANDOM = np.random.default_rng(0)


def header(stamp_ns: int, frame_id: str = 'sensor') -> Header:
    """Return a header."""
    return Header(stamp=time_message(stamp_ns), frame_id=frame_id)


def _pixels(height: int, width: int, shade: int) -> np.ndarray:
    """Return squares of two levels about a shade, with noise: a camera that sees something."""
    y, x = np.mgrid[0:height, 0:width] * 4 // max(height, width)
    levels = shade + 20 * ((x + y) % 2 * 2 - 1)[..., None]
    noise = _RANDOM.normal(0, 3, (height, width, 3))
    return np.clip(levels + noise, 0, 255).astype(np.uint8)


def image(
    stamp_ns: int, width: int = 16, height: int = 12, shade: int = 90, frame_id: str = 'camera',
) -> Image:
    """Return an rgb8 image of grey squares with noise."""
    return Image(
        header=header(stamp_ns, frame_id), width=width, height=height, step=3 * width,
        encoding='rgb8', data=array.array('B', _pixels(height, width, shade).tobytes()))


def compressed(stamp_ns: int, width: int = 16, height: int = 12, shade: int = 90) -> Any:
    """Return the same as JPEG."""
    _, data = cv2.imencode('.jpg', _pixels(height, width, shade))
    return CompressedImage(header=header(stamp_ns, 'camera'), format='rgb8; jpeg compressed bgr8',
                           data=array.array('B', data.tobytes()))


def flow(stamp_ns: int, width: int = 16, height: int = 12, pixels: float = 1.0) -> Image:
    """Return 32FC2 flow that is nearly the same everywhere."""
    values = (pixels + _RANDOM.normal(0, 1e-3, (height, width, 2))).astype('<f4')
    return Image(
        header=header(stamp_ns, 'camera'), width=width, height=height, step=8 * width,
        encoding='32FC2', data=array.array('B', values.tobytes()))


def audio(stamp_ns: int, samples: int = 1024, level: int = 4096) -> AudioDataStamped:
    """Return S16LE mono audio whose first sample has the stamp."""
    message = AudioDataStamped(header=header(stamp_ns, 'microphone'))
    wave = np.clip(_RANDOM.normal(0, level, samples), -32768, 32767)
    message.audio.data = array.array('B', wave.astype('<i2').tobytes())
    return message


def boxes(
    stamp_ns: int, centres_and_sizes: Sequence[Sequence[float]] = ((8.0, 6.0, 4.0, 3.0),),
) -> Detection2DArray:
    """Return a box for each (centre x, centre y, width, height) in pixels."""
    message = Detection2DArray(header=header(stamp_ns, 'camera'))
    for x, y, size_x, size_y in ([float(value) for value in each] for each in centres_and_sizes):
        # Floats: without its checks of fields, rclpy makes a number near 0 of an integer.
        box = Detection2D(results=[ObjectHypothesisWithPose()])
        box.results[0].hypothesis.class_id = 'hand'
        box.results[0].hypothesis.score = 0.9
        jitter = float(_RANDOM.uniform(0, 1e-3))
        box.bbox.center.position.x, box.bbox.center.position.y = x + jitter, y
        box.bbox.size_x, box.bbox.size_y = size_x, size_y
        message.detections.append(box)
    return message


def _blank(level: int, deviation: float = 0.0) -> Any:
    """Return a maker of images of one level with noise."""
    def make(stamp_ns: int, **fields: Any) -> Image:
        message = image(stamp_ns, **fields)
        levels = _RANDOM.normal(level, deviation, len(message.data))
        message.data = array.array('B', np.clip(levels, 0, 255).astype(np.uint8).tobytes())
        return message
    return make


def _tone(scale: float) -> Any:
    """Return a maker of audio that is multiplied by a factor and clipped."""
    def make(stamp_ns: int, **fields: Any) -> AudioDataStamped:
        message = audio(stamp_ns, **fields)
        wave = np.frombuffer(message.audio.data, '<i2') * scale
        limited = np.clip(wave, -32768, 32767).astype('<i2')
        message.audio.data = array.array('B', limited.tobytes())
        return message
    return make


def _boxes_at(*rows: Sequence[float]) -> Any:
    def make(stamp_ns: int, **fields: Any) -> Detection2DArray:
        return boxes(stamp_ns, rows)
    return make


UNINFORMATIVE = {
    'image': {'black': _blank(0), 'covered': _blank(6, 3.0), 'blown out': _blank(255),
              'constant': _blank(128), 'noise': _blank(128, 60.0)},
    'audio': {'silence': _tone(0.0), 'clipped': _tone(100.0)},
    'boxes': {'without area': _boxes_at((8.0, 6.0, 0.0, 0.0)),
              'outside': _boxes_at((-500.0, -400.0, 4.0, 3.0))},
}
"""Message → fault → maker of valid messages that show nothing; `repeat` is one more."""

REPEAT = 'repeat'
"""The same message again and again: frozen images, repeated audio, stuck boxes."""

MAKERS = {'image': image, 'compressed': compressed, 'flow': flow, 'audio': audio, 'boxes': boxes}
