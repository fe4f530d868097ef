"""
Camera frames to the network's video input.

Shape legend: t frames, h height, w width, c channels.
"""

from __future__ import annotations

from typing import Any

import cv2
from karmma_ros.clip import CropSize, VideoSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.arrays import check_array
import numpy as np
from numpy.typing import NDArray


def resize_and_crop(
    image: NDArray[np.uint8], height: int, width: int, resize: tuple[int, ...] = (),
) -> NDArray[np.uint8]:
    """
    Fit the short side, then crop the centre: `[h, w, c]` becomes `[height, width, c]`.

    The centre is cropped from the source, before resizing: the same result for less work.
    Pixels are averaged when shrinking (no aliasing) and interpolated when growing. An
    image of the right size comes back as it is, without a copy.

    :param resize: short side, or height and width, that the image has before the crop; empty: the
        smallest that the crop fits into.
    :raises InvalidSampleError: for anything but a non-empty uint8 image.
    """
    check_array('image', image, np.uint8, ('h', 'w', 'c'))
    return np.asarray(_fit(image, height, width, resize)[0], np.uint8)


def crop_unless_cropped(image: NDArray[np.uint8], size: CropSize) -> NDArray[np.uint8]:
    """Return `resize_and_crop` of an image, or an image that has the size of the crop as it is."""
    return image if image.shape[:2] == size[:2] else resize_and_crop(image, *size)


def resize_and_crop_vectors(
    field: NDArray[np.float32], height: int, width: int, resize: tuple[int, ...] = (),
) -> NDArray[np.float32]:
    """
    Fit a field of displacements `[h, w, 2]` as `resize_and_crop` fits images.

    The vectors, (x, y) in pixels, become as much shorter or longer as the image does.

    :raises InvalidSampleError: for anything but a non-empty float32 field.
    """
    check_array('flow', field, np.float32, ('h', 'w', 2))
    fitted, (across, down) = _fit(field, height, width, resize)
    if (across, down) == (1, 1):  # cut at most
        return np.asarray(fitted, np.float32)
    return np.asarray(fitted * np.array([across, down], np.float32), np.float32)


def video_input(frames: NDArray[np.uint8], spec: VideoSpec) -> NDArray[np.float32]:
    """
    Normalise RGB frames `[t, h, w, 3]` to the network's float32 `[3, t, h, w]`.

    :raises InvalidSampleError: when the frames do not have the size of the crop.
    """
    check_array('frames', frames, np.uint8, ('t', spec.height, spec.width, 3))
    out = np.empty((3, *frames.shape[:3]), np.float32)
    normalise_image(frames, spec.mean, spec.std, out)
    return out


def normalise_image(
    frames: NDArray[np.uint8],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    out: NDArray[np.float32],
) -> None:
    """Write `(pixel / 255 - mean) / std` of `[t, h, w, c]` to the first c of `[*, t, h, w]`."""
    for channel in range(frames.shape[3]):
        scale = np.float32(1 / (255 * std[channel]))
        np.multiply(frames[..., channel], scale, out=out[channel], dtype=np.float32)
        out[channel] -= np.float32(mean[channel] / std[channel])


def restored_images(
    x: NDArray[np.float32], mean: tuple[float, ...], std: tuple[float, ...],
) -> NDArray[np.uint8]:
    """Return the images `[t, h, w, c]` that `normalise_image` made `[c, t, h, w]` from."""
    scaled = [255 * (channel * std[i] + mean[i]) for i, channel in enumerate(x)]
    return np.asarray(np.clip(np.rint(np.stack(scaled, axis=-1)), 0, 255), np.uint8)


def _fit(
    image: NDArray[Any], height: int, width: int, resize: tuple[int, ...],
) -> tuple[NDArray[Any], tuple[float, float]]:
    """Resize and crop; also return how much wider and higher a pixel has become."""
    if height <= 0 or width <= 0:
        raise InvalidSampleError(f'crop size: got {height} x {width}; expected 1 x 1 or more')
    if image.shape[:2] == (height, width) and not resize:
        return image, (1, 1)
    source = _centre(image, height, width, resize)
    shrinks = source.shape[0] > height or source.shape[1] > width
    resized = cv2.resize(
        source, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    # OpenCV drops the axis of a single channel.
    return (np.asarray(resized).reshape(height, width, image.shape[2]),
            (width / source.shape[1], height / source.shape[0]))


def _centre(
    image: NDArray[Any], height: int, width: int, resize: tuple[int, ...],
) -> NDArray[Any]:
    h, w = image.shape[:2]
    if len(resize) == 2:
        down, across = resize[0] / h, resize[1] / w
    else:
        down = across = resize[0] / min(h, w) if resize else max(height / h, width / w)
    crop_h = min(h, max(1, round(height / down)))
    crop_w = min(w, max(1, round(width / across)))
    top, left = (h - crop_h) // 2, (w - crop_w) // 2
    return image[top:top + crop_h, left:left + crop_w]
