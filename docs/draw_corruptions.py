"""
Draw the corruptions of cameras and microphones on clips of the synthetic kitchen.

`python docs/draw_corruptions.py docs/images/corruptions.jpg`
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.data.synthetic_kitchen.episode import camera_frames, clip_spec, episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.preprocess.spectrogram import log_mel
import numpy as np

SEVERITIES = (1, 3, 5)
HEIGHT, WIDTH, CAPTION = 90, 120, 18
"""Pixels of a tile, and of the line under it."""
CLIP = 1
"""Index in the test split."""


def sheet(spec: ClipSpec) -> np.ndarray:
    """Draw one row for each corruption: uint8 `[h, w, 3]`, the clean clip on the left."""
    kitchen, rows = episode(Split.TEST, 0, CLIP), []
    frames = camera_frames(kitchen, 2.0, spec)
    audio = kitchen.audio(2.0, spec.duration, spec.audio.sample_rate)
    for modality, arrays, draw in (
            (Modality.RGB, frames, lambda x: x[-1]),
            (Modality.AUDIO, audio, lambda x: _spectrogram(x, spec))):
        own = modality_type(modality)
        for name in own.corruptions:
            tiles = [_tile(draw(arrays), 'as recorded')]
            tiles += [_tile(draw(own.corrupt(name, severity, arrays, spec,
                                             np.random.default_rng(3))), f'{name} {severity}')
                      for severity in SEVERITIES]
            rows.append(np.hstack(tiles))
    half = (len(rows) + 1) // 2
    blank = np.full_like(rows[0], 255)
    right = [*rows[half:], *[blank] * (2 * half - len(rows))]
    columns = [np.vstack(rows[:half]), np.vstack(right)]
    return np.hstack([columns[0], np.full((len(columns[0]), 12, 3), 255, np.uint8), columns[1]])


def _spectrogram(samples: np.ndarray, spec: ClipSpec) -> np.ndarray:
    levels = np.clip((log_mel(samples, spec.audio)[::-1] + 60) / 90, 0, 1)
    return cv2.applyColorMap((255 * levels).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]


def _tile(image: np.ndarray, caption: str) -> np.ndarray:
    tile = np.full((HEIGHT + CAPTION, WIDTH, 3), 255, np.uint8)
    tile[:HEIGHT, :-4] = cv2.resize(image, (WIDTH - 4, HEIGHT), interpolation=cv2.INTER_AREA)
    cv2.putText(tile, caption, (2, HEIGHT + 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (30, 30, 30), 1,
                cv2.LINE_AA)
    return tile


def main() -> None:
    """Write the sheet to the file named on the command line."""
    parser = argparse.ArgumentParser(description='Draw corruptions of the synthetic kitchen.')
    parser.add_argument('path', type=Path, help='image file to write (.jpg or .png)')
    path = parser.parse_args().path
    path.parent.mkdir(parents=True, exist_ok=True)
    spec = replace(clip_spec(), video=VideoSpec(HEIGHT, WIDTH - 4))
    if not cv2.imwrite(str(path), sheet(spec)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88]):
        parser.exit(1, f'{path} cannot be written\n')


if __name__ == '__main__':
    main()
