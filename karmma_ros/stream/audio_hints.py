"""Which settings of audio would explain a rate that differs from the expected one."""

from __future__ import annotations

from dataclasses import dataclass
import re

_COMMON = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400,
           192000)
_SPEECH = (16000, 22050, 24000, 32000, 44100, 48000)
"""Rates that are proposed together with other channels."""
_CLOSE = 0.02
_BYTES = {'S8': 1, 'U8': 1, 'S16': 2, 'S24': 3, 'S32': 4, 'F32': 4, 'F64': 8}
_LIKELY = {1: ('U8',), 2: ('S16',), 3: ('S24',), 4: ('S32', 'F32'), 8: ('F64',)}
"""Bytes of a sample → the formats that drivers use."""
_MOST_CHANNELS = 8
"""More are not proposed."""
_MOST_LIKELY_RATE = 96_000
"""Above it, samples of more bytes in stereo are the likeliest reason."""


@dataclass(frozen=True)
class AudioFormat:
    """How audio is read."""

    rate: int
    channels: int
    sample_format: str
    """GStreamer's name, as `S16LE`."""
    stated_by: str = ''
    """What states it: `audio_info` or `each message`; empty for the parameters."""

    @property
    def stated(self) -> str:
        """Return a clause on what states the rate; '' for the parameters."""
        return f' as {self.stated_by} states' if self.stated_by else ''


def nominal_rate(lowest: float, measured: float, highest: float) -> int:
    """Return the common sample rate within a measurement, the nearest; else three digits."""
    margin = _CLOSE / 2 * measured
    near = [common for common in _COMMON if lowest - margin <= common <= highest + margin]
    if near:
        return min(near, key=lambda common: abs(common - measured))
    return int(float(f'{measured:.3g}'))


def hints(rate: int, audio_format: AudioFormat) -> str:
    """
    Return what to set so that audio is read at its true rate.

    :param rate: samples received per second and channel.
    """
    if audio_format.stated_by:
        return f'have the driver state its true format (sample rate {rate}, or other channels)'
    ratio, channels = rate / audio_format.rate, audio_format.channels
    proposals = [*_stereo_of_more_bytes(rate, audio_format), f'audio.sample_rate ({rate})']
    fitting = _whole(ratio * channels)
    if fitting and fitting != channels:
        proposals.append(f'audio.channels ({fitting})')
    elif not fitting:
        proposals += _both(rate * channels, channels)
    proposals += _formats(ratio, audio_format.sample_format)
    return 'set ' + ', '.join(proposals[:-1]) + ' or ' * (len(proposals) > 1) + proposals[-1]


def _whole(value: float) -> int:
    """Return the number of channels that is close; 0 for none."""
    count = round(value)
    return count if 1 <= count <= _MOST_CHANNELS and abs(value - count) < _CLOSE * count else 0


def _both(values: int, channels: int) -> list[str]:
    """Propose a common rate with other channels, as 44100 Hz in stereo."""
    for other in (1, 2, 4, 6, 8):
        rate = round(values / other)
        if other != channels and rate in _SPEECH:
            return [f'audio.sample_rate ({rate}) with audio.channels ({other})']
    return []


def _stereo_of_more_bytes(rate: int, audio_format: AudioFormat) -> list[str]:
    """Propose rate, channels and format together, as 44100 Hz in stereo with S32."""
    kind, order = _kind(audio_format.sample_format)
    if rate <= _MOST_LIKELY_RATE or audio_format.channels != 1 or kind != 'S16':
        return []
    return [f'audio.sample_rate ({true}) with audio.channels (2) and audio.sample_format '
            f'({" or ".join(name + order for name in _LIKELY[size])})'
            for size in (3, 4) for true in [round(rate * _BYTES[kind] / size / 2)]
            if true in _SPEECH]


def _kind(sample_format: str) -> tuple[str, str]:
    """Return a format without its byte order, and the order."""
    name = sample_format.strip().upper()
    kind = re.sub('(LE|BE)$', '', name)
    return kind, name[len(kind):] or 'LE'


def _formats(ratio: float, sample_format: str) -> list[str]:
    """Propose formats whose samples have another number of bytes."""
    kind, order = _kind(sample_format)
    size = _BYTES.get(kind, 0) * ratio
    near = [b for b in _LIKELY if abs(size - b) < _CLOSE * b]
    names = [name if name == 'U8' else name + order for b in near for name in _LIKELY[b]]
    if not names or abs(ratio - 1) < 0.1:
        return []
    return [f'audio.sample_format ({" or ".join(names)})']
