"""Pictures as large as they come, for people to look at; the network's are read elsewhere."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any

from karmma_ros.errors import InvalidSampleError
from karmma_ros.stream.decoders import read_compressed_image, read_image
import numpy as np
from numpy.typing import NDArray

_WHOLE: Any = None
"""No size to crop to."""


def decode_picture(message: Any) -> NDArray[np.uint8]:
    """
    Give a sensor_msgs/Image or CompressedImage as RGB uint8 `[h, w, 3]`.

    Our own reader honours any padding of rows; what it does not know is left to cv_bridge,
    where that is installed.

    :raises InvalidSampleError: when neither makes a picture of it.
    """
    if hasattr(message, 'format'):
        return read_compressed_image(message, _WHOLE)[0]
    try:
        return read_image(message, _WHOLE)
    except InvalidSampleError:
        picture = _by_cv_bridge(message)
        if picture is None:
            raise
        return picture


def _by_cv_bridge(message: Any) -> NDArray[np.uint8] | None:
    """Decode the encodings that only cv_bridge knows; None where it cannot."""
    # It does not look whether the bytes are as many as the fields say.
    bridge = _cv_bridge() if len(message.data) == message.step * message.height > 0 else None
    if bridge is None:
        return None
    try:
        picture = np.asarray(bridge.imgmsg_to_cv2(message, 'rgb8'), np.uint8)
    except Exception:  # its own, OpenCV's, KeyError …: what is said is our reader's sentence
        return None
    return picture if picture.shape == (message.height, message.width, 3) else None


@lru_cache(maxsize=1)
def _cv_bridge() -> Any:
    try:
        return import_module('cv_bridge').CvBridge()
    except Exception:  # one built for another numpy raises more than ImportError
        return None
