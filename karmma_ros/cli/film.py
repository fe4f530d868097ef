"""Films that OpenCV can read."""

from __future__ import annotations

from pathlib import Path

import cv2
from karmma_ros.errors import InvalidSettingError


def open_film(path: Path, rate: float | None) -> tuple[cv2.VideoCapture, float]:
    """
    Open a film; give it and its pictures a second, which `rate` overrules.

    :raises InvalidSettingError: when it is missing, unreadable or names no frame rate.
    """
    if not path.is_file():
        raise InvalidSettingError('CLIP', str(path), 'a video file that exists')
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise InvalidSettingError('CLIP', str(path), 'a film that OpenCV can read',
                                  'convert it, for instance to MJPEG in .avi')
    found = float(capture.get(cv2.CAP_PROP_FPS) if rate is None else rate)
    if not 0 < found < 1000:
        raise InvalidSettingError('frame rate', found, 'above 0 and below 1000',
                                  'give --rate if the film does not say')
    return capture, found


def no_pictures(path: Path) -> InvalidSettingError:
    """Give what is wrong with a film that opens but has no picture."""
    return InvalidSettingError('CLIP', str(path), 'a film with pictures in it',
                               'OpenCV opens this one but decodes no picture')
