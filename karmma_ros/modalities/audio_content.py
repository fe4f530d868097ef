"""
Whether audio of a microphone holds anything.

A quiet room is not silent: a microphone and its converter have noise. What is silent to the last
bit is a muted microphone or a driver without one.

Shape legend: n samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log10
from typing import Any

from karmma_ros.modalities.audio_buffer import AudioChunk
from karmma_ros.modalities.content_check import ContentCheck, SampleContext
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modality import Modality


class AudioContent(ContentCheck):
    """Find digital silence."""

    faults = ('silence',)

    def __init__(self, modality: Modality, values: Mapping[str, Any]) -> None:
        super().__init__(modality, values)
        self._mean = 0.0
        """Of the message before."""
        self._silence_level = values[f'{modality}.silence_level']

    @classmethod
    def parameters(cls, name: str) -> tuple[Declaration, ...]:
        """Return the thresholds."""
        return (Declaration(
            f'{name}.silence_level', -90.0, 'Audio below this is digital silence, dB of full '
            'scale (root mean square); a quiet room is above -80.', (-200.0, 0.0)),)

    def update(self, sample: AudioChunk, context: SampleContext) -> dict[str, str]:
        """Take the audio of one message."""
        samples = sample.samples
        if not len(samples):
            return {}
        mean = float(samples.mean())
        # Of single samples, the mean of each shows the noise.
        deviation = max(float(samples.std()), abs(mean - self._mean))
        self._mean = mean
        if not deviation < 10 ** (self._silence_level / 20):
            return {}
        level = f'{20 * log10(deviation):.0f} dB of full scale' if deviation else 'constant'
        return {'silence': f'digital silence: {level} at {mean:.3g}'}
