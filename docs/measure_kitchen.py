"""
Measure the constants of `clip_spec` on the training split.

`python docs/measure_kitchen.py`
"""

from __future__ import annotations

from dataclasses import replace

from karmma_ros.data.synthetic_kitchen.episode import clip_spec, episode, render_clip, start_of
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.preprocess.spectrogram import log_mel
import numpy as np

CLIPS = 400


def measure_audio(clips: int = CLIPS, seed: int = 0) -> tuple[float, float]:
    """Return mean and standard deviation of the log-mel spectrograms, decibels."""
    spec = clip_spec()
    values = []
    for index in range(clips):
        start = start_of(Split.TRAIN, seed, index)
        audio = episode(Split.TRAIN, seed, index).audio(
            start, spec.duration, spec.audio.sample_rate)
        values.append(log_mel(audio, spec.audio))
    return float(np.mean(values)), float(np.std(values))


def measure_flow(clips: int = CLIPS // 4, seed: int = 0) -> dict[float, float]:
    """Return percentiles of the displacement on moving objects, pixels a frame."""
    spec = clip_spec()
    wide = replace(spec, flow=replace(spec.flow, bound=30.0))
    sizes = []
    for index in range(clips):
        flow = render_clip(Split.TRAIN, seed, index, wide).flow.astype(np.float32)
        size = np.abs((flow - 128) * 30.0 / 127.5).max(axis=-1)
        sizes.append(size[size > 1.0])
    moving = np.concatenate(sizes)
    return {p: float(np.percentile(moving, p)) for p in (50.0, 90.0, 95.0, 99.0)}


if __name__ == '__main__':
    mean, std = measure_audio()
    print(f'AUDIO_MEAN, AUDIO_STD = {mean:.2f}, {std:.2f}')
    print('displacement:', ', '.join(f'{p:g} % {v:.1f} px' for p, v in measure_flow().items()))
