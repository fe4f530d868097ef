"""
Corruptions of the frames of cameras, of depth cameras and of flow.

Shape legend: t frames, h height, w width, c channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
from karmma_ros.modalities.corruption import (
    Corruption,
    CorruptionContext,
    first_corrupted,
    InStream,
)
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""RGB `[t, h, w, 3]`."""
_PARTS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Fraction of the window, at its end."""


def freeze(frames: NDArray[Any], fraction: float, context: CorruptionContext) -> NDArray[Any]:
    """Repeat one frame until the end of the window."""
    first = first_corrupted(len(frames), fraction)
    frozen = frames.copy()
    frozen[first:] = frames[max(0, first - 1)]
    return frozen


def fill_end(value: float) -> Callable[[NDArray[Any], float, CorruptionContext], NDArray[Any]]:
    """Return a corruption that sets all values to one until the end of the window."""
    def fill(frames: NDArray[Any], fraction: float, context: CorruptionContext) -> NDArray[Any]:
        filled = frames.copy()
        filled[first_corrupted(len(frames), fraction):] = value
        return filled
    return fill


def _to_levels(frames: NDArray[Any]) -> Frames:
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _noise(shape: tuple[int, ...], deviation: Any, context: CorruptionContext) -> NDArray[Any]:
    return context.varying.standard_normal(shape, np.float32) * deviation


def _blurred(frames: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    return np.stack([cv2.GaussianBlur(frame.astype(np.float32), (0, 0), max(sigma, 1e-3),
                                      borderType=cv2.BORDER_REPLICATE) for frame in frames])


def _ramp(shape: tuple[int, ...], context: CorruptionContext) -> NDArray[np.float32]:
    """Return the distance from one side of the image, chosen at random, 0 to 1 `[h, w]`."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    sides = (x + 0.5) / width, (y + 0.5) / height
    side = int(context.fixed.integers(4))
    distance = sides[side % 2]
    return np.asarray(distance if side < 2 else 1 - distance, np.float32)


def _cover(frames: Frames, transmission: float, context: CorruptionContext) -> Frames:
    """Let a part of the scene's light pass, blurred; add light that leaks in, and noise."""
    height, width = frames.shape[1:3]
    distance = _ramp((height, width), context)
    dark, leak = context.fixed.uniform(2, 10), context.fixed.uniform(5, 50)
    tint = context.fixed.uniform(0.5, 1.0, 3)
    deviation = context.fixed.uniform(1.5, 4)
    light = dark + leak * np.exp(-distance / 0.2)[..., None] * tint
    scene = transmission * _blurred(frames, 0.15 * min(height, width))
    return _to_levels(scene + light + _noise(frames.shape, deviation, context))


def _cover_half(frames: Frames, fraction: float, context: CorruptionContext) -> Frames:
    """Cover the frame from one side, with a soft edge."""
    passes = np.clip((_ramp(frames.shape[1:3], context) - fraction) / 0.08 + 0.5, 0, 1)[..., None]
    covered = 4 + _noise(frames.shape, 2.0, context)
    return _to_levels(frames * passes + covered * (1 - passes))


def _blur(frames: Frames, fraction: float, context: CorruptionContext) -> Frames:
    return _to_levels(_blurred(frames, fraction * min(frames.shape[1:3])))


def _darken(frames: Frames, exposure: float, context: CorruptionContext) -> Frames:
    """Take less light, whose own noise and that of the sensor then count."""
    dark = exposure * frames.astype(np.float32)
    return _to_levels(dark + _noise(frames.shape, np.sqrt(0.5 * dark + 4), context))


def _overexpose(frames: Frames, exposure: float, context: CorruptionContext) -> Frames:
    return _to_levels(exposure * frames.astype(np.float32))


def _add_noise(frames: Frames, deviation: float, context: CorruptionContext) -> Frames:
    return _to_levels(frames + _noise(frames.shape, deviation, context))


FRAME_CORRUPTIONS: Mapping[str, Corruption] = {
    'black': Corruption('black frames in the last {:.0%} of the window', _PARTS, fill_end(0),
                        InStream.COMPLETE),
    'frozen': Corruption('one frame repeated in the last {:.0%} of the window', _PARTS, freeze,
                         InStream.HOLD),
    'covered': Corruption('a lens that lets {:.0%} of the light pass, with light that leaks in '
                          'and noise', (0.3, 0.15, 0.08, 0.03, 0.0), _cover),
    'half_covered': Corruption('{:.0%} of the frame covered from one side',
                               (0.3, 0.4, 0.5, 0.65, 0.8), _cover_half),
    'blur': Corruption('Gaussian blur, sigma {:.1%} of the shorter side',
                       (0.01, 0.02, 0.035, 0.055, 0.08), _blur),
    'low_light': Corruption('{:.1%} of the light, with the noise of the sensor',
                            (0.4, 0.2, 0.1, 0.05, 0.025), _darken),
    'overexposed': Corruption('{:g} times the light, up to white', (1.5, 2.5, 4.0, 7.0, 12.0),
                              _overexpose),
    'noise': Corruption('Gaussian noise, standard deviation {:g} of 255',
                        (8.0, 16.0, 32.0, 64.0, 100.0), _add_noise),
}
"""Of RGB frames uint8 `[t, h, w, 3]`."""


def _zero_flow(flow: NDArray[Any], fraction: float, context: CorruptionContext) -> NDArray[Any]:
    """Set no movement: 128 of 8-bit flow, or 0 pixels."""
    return fill_end(128 if flow.dtype == np.uint8 else 0)(flow, fraction, context)


def _add_flow_noise(flow: NDArray[Any], level: float, context: CorruptionContext) -> NDArray[Any]:
    noisy = flow + _noise(flow.shape, level * context.scale, context)
    return _to_levels(noisy) if flow.dtype == np.uint8 else noisy.astype(flow.dtype)


FLOW_CORRUPTIONS: Mapping[str, Corruption] = {
    'zero': Corruption('no movement in the last {:.0%} of the window', _PARTS, _zero_flow,
                       InStream.COMPLETE),
    'frozen': Corruption('one flow repeated in the last {:.0%} of the window', _PARTS, freeze,
                         InStream.HOLD),
    'noise': Corruption('Gaussian noise, standard deviation {:.0%} of the largest displacement',
                        (0.05, 0.1, 0.2, 0.4, 0.8), _add_flow_noise),
}
"""Of flow `[t, h, w, 2]` of a topic or a file: 8-bit, or float32 in pixels. Flow that is computed
from a camera is that of the corrupted camera instead."""


def _no_return(frames: NDArray[Any]) -> Any:
    """Return what stands for no return: 0 of integers, else NaN."""
    return 0 if frames.dtype == np.uint16 else np.nan


def _remove_returns(
    frames: NDArray[Any], fraction: float, context: CorruptionContext,
) -> NDArray[Any]:
    """Remove the returns of some pixels, others in each frame."""
    removed = context.varying.random(frames.shape, np.float32) < fraction
    return np.where(removed, _no_return(frames), frames).astype(frames.dtype)


def _cover_half_of_depth(
    frames: NDArray[Any], fraction: float, context: CorruptionContext,
) -> NDArray[Any]:
    covered = _ramp(frames.shape[1:3], context) < fraction
    return np.where(covered, _no_return(frames), frames).astype(frames.dtype)


def _add_depth_noise(
    frames: NDArray[Any], metres: float, context: CorruptionContext,
) -> NDArray[Any]:
    integers = frames.dtype == np.uint16
    noise = _noise(frames.shape, 1000 * metres if integers else metres, context)
    noisy = np.maximum(frames.astype(np.float32) + noise, 1 if integers else 0.001)
    noisy = np.where(frames == 0, 0, noisy) if integers else noisy
    return np.asarray(np.clip(np.rint(noisy), 0, 65535) if integers else noisy).astype(
        frames.dtype)


DEPTH_CORRUPTIONS: Mapping[str, Corruption] = {
    'frozen': FRAME_CORRUPTIONS['frozen'],
    'missing_returns': Corruption('{:.0%} of the pixels without a return',
                                  (0.2, 0.4, 0.6, 0.8, 0.95), _remove_returns),
    'half_covered': Corruption('no returns in {:.0%} of the frame, from one side',
                               (0.3, 0.4, 0.5, 0.65, 0.8), _cover_half_of_depth),
    'noise': Corruption('Gaussian noise, standard deviation {:g} m',
                        (0.01, 0.03, 0.1, 0.2, 0.4), _add_depth_noise),
}
"""Of depth images `[t, h, w]`: metres, NaN without a return, or uint16 in millimetres."""
