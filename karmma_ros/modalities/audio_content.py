"""
Whether audio of a microphone holds anything.

Quiet surroundings are not silent: a microphone and its converter have noise. What is silent to
the last bit is a muted microphone, and what repeats to the last bit is a driver that hangs.

Shape legend: n samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from math import log10, sqrt
from typing import Any

from karmma_ros.modalities.audio_buffer import AudioChunk
from karmma_ros.modalities.content_check import ContentCheck, SampleContext
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modality import Modality
import numpy as np

_FULL_SCALE, _SAME_LEVEL = 0.99, 1e-4
"""Clipped samples all have the greatest level, near full scale; those of a loud tone differ."""
_RECENT = 16
"""Messages in which audio is searched that repeats: a driver may hang with several buffers."""
_LEAST_REPEATED = 16
"""Samples that are not equal by chance."""


class AudioContent(ContentCheck):
    """Find digital silence, clipped audio and buffers that repeat."""

    faults = ('silence', 'clipped', 'repeated')

    def __init__(self, modality: Modality, values: Mapping[str, Any]) -> None:
        super().__init__(modality, values)
        self._most_clipped = values[f'{modality}.max_clipped']
        self._recent: deque[int] = deque(maxlen=_RECENT)
        """Hashes of the messages before."""
        self._mean = 0.0
        """Of the message before."""
        self._silence_level = values[f'{modality}.silence_level']

    @classmethod
    def parameters(cls, name: str) -> tuple[Declaration, ...]:
        """Return the thresholds."""
        return (
            Declaration(f'{name}.silence_level', -90.0, 'Audio below this is digital silence, dB '
                        'of full scale (root mean square); quiet surroundings are above -80.',
                        (-200.0, 0.0)),
            Declaration(f'{name}.max_clipped', 0.05, 'Audio is clipped with more than this '
                        'fraction of its samples at full scale.', (0.0, 1.0)),
        )

    def update(self, sample: AudioChunk, context: SampleContext) -> dict[str, str]:
        """Take the audio of one message."""
        samples = sample.samples
        if not len(samples):
            return {}
        # The methods of arrays are written in Python, which would double the cost of this check.
        mean = float(np.add.reduce(samples)) / len(samples)
        centred = samples - np.float32(mean)
        # Of single samples, the mean of each shows the noise.
        deviation = max(sqrt(centred.dot(centred) / len(samples)), abs(mean - self._mean))
        self._mean = mean
        if deviation < 10 ** (self._silence_level / 20):
            level = f'{20 * log10(deviation):.0f} dB of full scale' if deviation else 'constant'
            return {'silence': f'digital silence: {level} at {mean:.3g}'}
        faults = {}
        highest = max(np.maximum.reduce(samples), -np.minimum.reduce(samples))
        clipped = 0.0
        if highest >= _FULL_SCALE - _SAME_LEVEL:
            least = max(float(highest), _FULL_SCALE) - _SAME_LEVEL
            clipped = np.count_nonzero(np.abs(samples) >= least) / len(samples)
        if clipped > self._most_clipped:
            faults['clipped'] = f'clipped: {clipped:.0%} of the samples are at full scale'
        if len(samples) >= _LEAST_REPEATED:
            content = hash(samples.tobytes())
            if content in self._recent:
                back = self._recent.index(content) + 1
                faults['repeated'] = (
                    f'repeated: audio equals that of {back} message{"s" * (back > 1)} before')
            self._recent.appendleft(content)
        return faults
