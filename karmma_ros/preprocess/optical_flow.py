"""
Dense optical flow of sampled frames, as 8-bit images.

The pixel value 128 is no movement; ±bound pixels a frame span 0..255, as in the
released flow of Epic-Kitchens.

Shape legend: t frames, h height, w width.
"""

from __future__ import annotations

from typing import Any

import cv2
from karmma_ros.clip import CropSize, FLOW_PRESETS, FlowSpec, VideoSpec
from karmma_ros.errors import InvalidSampleError, InvalidSettingError, printable
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.image import check_layout, flat_bytes
from karmma_ros.preprocess.resize import normalise_image, resize_and_crop_vectors
import numpy as np
from numpy.typing import NDArray

NO_MOVEMENT = 128
"""The pixel value of a displacement of zero."""

THIRD_CHANNEL = 0
"""The network's input is (u, v, 0): the paper's data holds a black third channel."""

UNKNOWN = 1e9
"""Displacements of this size stand for unknown ones, as in Middlebury's flow files."""

_FLOW_PIXEL = 8
"""Bytes of one pixel of 32FC2."""

_MIN_SIDE = 16
"""Below this many pixels on the shorter side OpenCV's DIS fails, or brings the process down."""


def check_video_size(spec: VideoSpec, scale: int = 1) -> None:
    """
    Check that flow can be computed from the frames of a model, so many times smaller.

    :raises InvalidSettingError: when they are too small for DIS.
    """
    for name, side in (('height', spec.height), ('width', spec.width)):
        if side < _MIN_SIDE * scale:
            raise InvalidSettingError(
                f'clip.video.{name} of the model', side,
                f'{_MIN_SIDE * scale} pixels or more to compute flow from the camera',
                'set flow.source to topic, or flow.enabled to false')


def estimate_flow(
    previous: NDArray[np.uint8], current: NDArray[np.uint8], bound: float,
    preset: str = 'medium', scale: int = 1,
) -> NDArray[np.uint8]:
    """
    Estimate how each pixel moved from `previous` to `current`, two RGB `[h, w, 3]`.

    Return uint8 `[h / scale, w / scale, 2]`, rightward and downward displacement. Frames that are
    equal give exactly `NO_MOVEMENT` at no cost.

    :param bound: in pixels of the flow.
    :param preset: one of `clip.FLOW_PRESETS`.
    :param scale: frames are reduced by it before.

    :raises InvalidSampleError: when the frames differ in size or are too small for DIS.
    """
    check_array('previous frame', previous, np.uint8, ('h', 'w', 3))
    check_array('current frame', current, np.uint8, (*previous.shape[:2], 3))
    if np.array_equal(previous, current):
        return np.full(_flow_shape(previous, scale), NO_MOVEMENT, np.uint8)
    return _flow_between(_grey(previous, scale), _grey(current, scale), bound, preset)


def clip_flow(
    frames: NDArray[np.uint8], bound: float, preset: str = 'medium', scale: int = 1,
) -> NDArray[np.uint8]:
    """
    Estimate the flow of RGB frames `[t, h, w, 3]`: uint8 `[t, h / scale, w / scale, 2]`.

    Flow i leads from frame i - 1 to frame i; the first, which has no frame before it,
    repeats the second. One frame alone gives no movement. The arguments are those of
    `estimate_flow`.

    :raises InvalidSampleError: when the frames are too small for DIS.
    """
    check_array('frames', frames, np.uint8, ('t', 'h', 'w', 3))
    flow = np.full((len(frames), *_flow_shape(frames[0], scale)), NO_MOVEMENT, np.uint8)
    grey = _grey(frames[0], scale) if len(frames) > 1 else None
    for i in range(1, len(frames)):
        if np.array_equal(frames[i - 1], frames[i]):
            continue
        previous, grey = grey, _grey(frames[i], scale)
        assert previous is not None
        flow[i] = _flow_between(previous, grey, bound, preset)
    if len(frames) > 1:
        flow[0] = flow[1]
    return flow


def quantise_flow(displacement: NDArray[np.float32], bound: float) -> NDArray[np.uint8]:
    """
    Turn displacements in pixels a frame, float32 `[h, w, 2]`, into pixel values.

    :raises InvalidSampleError: for a value that is not finite.
    """
    check_displacement(displacement)
    return _quantise(displacement, bound)


def check_displacement(displacement: NDArray[np.float32]) -> None:
    """
    Check displacements for `quantise_flow`: float32 `[h, w, 2]`, finite.

    :raises InvalidSampleError: for anything else.
    """
    check_array('flow', displacement, np.float32, ('h', 'w', 2))
    if not np.isfinite(displacement).all():
        raise InvalidSampleError('flow: got NaN or infinity; expected finite pixels a frame')


def flow_input(flow: NDArray[np.uint8], spec: FlowSpec) -> NDArray[np.float32]:
    """
    Normalise flow images `[t, h, w, 2]` to the network's float32 `[3, t, h, w]`.

    :raises InvalidSampleError: for another type or shape.
    """
    check_array('flow', flow, np.uint8, ('t', 'h', 'w', 2))
    out = np.empty((3, *flow.shape[:3]), np.float32)
    normalise_image(flow, spec.mean, spec.std, out)
    out[2] = (THIRD_CHANNEL / 255 - spec.mean[2]) / spec.std[2]
    return out


def decode_flow(
    data: Any, *, encoding: str, height: int, width: int, step: int, size: CropSize,
    is_bigendian: bool = False,
) -> NDArray[np.float32]:
    """
    Decode a `sensor_msgs/Image` of encoding 32FC2 to displacements float32 `[h, w, 2]`.

    They are (x, y) in pixels between this frame and the one before it, resized and cropped
    to `size` as the video is, and scaled along. Where the movement is not
    known (NaN, infinity, or `UNKNOWN` and above) there is none.

    :raises InvalidSampleError: for another encoding, fields that do not fit each other, or
        when the movement is not known at most of the pixels.
    """
    if encoding != '32FC2':
        raise InvalidSampleError(
            f'flow encoding: got {printable(repr(encoding), 60)}; expected 32FC2, rightward '
            'and downward pixels between two frames: remap flow to such a topic, or set '
            'flow.source to computed')
    flat = flat_bytes(data)
    check_layout(encoding, height, width, step, _FLOW_PIXEL, 2, flat.size)
    view: NDArray[np.float32] = np.ndarray(
        (height, width, 2), '>f4' if is_bigendian else '<f4', flat,
        strides=(step, _FLOW_PIXEL, _FLOW_PIXEL // 2))
    field = np.require(view, np.float32, 'A')  # a copy only where the bytes lie askew
    return np.array(resize_and_crop_vectors(_known(field), *size), np.float32, order='C')


def _known(field: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return zero where either part of the displacement is not known."""
    if cv2.checkRange(field, quiet=True, minVal=-UNKNOWN / 2, maxVal=UNKNOWN / 2)[0]:
        return field  # by far the most, in a tenth of the time
    # Not finite compares as false, too.
    known: NDArray[np.bool_] = np.asarray((np.abs(field) < UNKNOWN).all(axis=2))
    if 2 * np.count_nonzero(known) < known.size:
        raise InvalidSampleError(
            f'flow: got {np.count_nonzero(known)} of {known.size} pixels with a finite '
            'displacement; expected half of them or more')
    return np.where(known[..., None], field, np.float32(0))


def _flow_between(
    previous: NDArray[np.uint8], current: NDArray[np.uint8], bound: float, preset: str,
) -> NDArray[np.uint8]:
    if min(previous.shape) < _MIN_SIDE:
        h, w = previous.shape
        raise InvalidSampleError(
            f'frame size for flow: got {w} x {h}; expected {_MIN_SIDE} pixels or more each way')
    # A new object each time (3 % dearer): an old one keeps settings that a frame of another
    # size made it choose, and scratch memory that threads must not share.
    estimator: Any = cv2.DISOpticalFlow.create(_PRESETS[preset])
    flow = estimator.calc(previous, current, None)
    return _quantise(np.asarray(flow, np.float32), bound)


def _quantise(displacement: NDArray[np.float32], bound: float) -> NDArray[np.uint8]:
    scaled = displacement * np.float32(127.5 / bound)
    scaled += NO_MOVEMENT
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0, 255, out=scaled)
    return np.asarray(scaled, np.uint8)


def _grey(frame: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
    if scale == 1:
        return grey
    height, width = _flow_shape(frame, scale)[:2]
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _flow_shape(frame: NDArray[np.uint8], scale: int) -> tuple[int, int, int]:
    return frame.shape[0] // scale, frame.shape[1] // scale, 2


_PRESETS = dict(zip(FLOW_PRESETS, (
    cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST, cv2.DISOPTICAL_FLOW_PRESET_FAST,
    cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)))
