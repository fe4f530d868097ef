"""Images and audio as sensors send them: with structure and with noise."""

import numpy as np

_RANDOM = np.random.default_rng(0)


def pixels(height, width, channels=3, shade=90):
    """Return uint8 `[h, w, c]`: squares of two levels about a shade, and noise."""
    y, x = np.mgrid[0:height, 0:width] * 4 // max(height, width, 1)
    levels = shade + 20 * ((x + y) % 2 * 2 - 1)[..., None]
    noise = _RANDOM.normal(0, 3, (height, width, channels))
    return np.clip(levels + noise, 0, 255).astype(np.uint8)


def samples(count, level=1000):
    """Return noise of a level, int16 `[n]`."""
    return np.clip(_RANDOM.normal(0, level, count), -32768, 32767).astype('<i2')
