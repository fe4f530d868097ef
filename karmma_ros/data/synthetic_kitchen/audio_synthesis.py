"""
Audio of an episode: the verb gives the rhythm, the noun the timbre.

Audio is synthesised in blocks of a second that depend on their number alone, so that any interval
of an episode can be rendered separately and continues its neighbours without a gap.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from karmma_ros.data.synthetic_kitchen.motion import Rhythm, TAU
from karmma_ros.data.synthetic_kitchen.objects import Timbre
from karmma_ros.data.synthetic_kitchen.vocabulary import Domain, generator, IDLE, Stream
from karmma_ros.errors import InvalidSettingError
import numpy as np

TAPS = 256
"""Length of the filter of the rustle, samples."""

TAIL_S = 0.5
"""Duration of a hit, seconds."""

ENVELOPE_RATE = 400
"""Points a second at which envelopes are computed."""

BLOCKS_KEPT = 4


@dataclass(frozen=True)
class Pattern:
    """Audio of a verb in each cycle."""

    rustle: float
    """Strength of the noise that follows the envelope of the verb."""
    hits: tuple[tuple[float, float], ...]
    """Position in the cycle (0..1) and strength of each hit."""


PATTERNS = {
    'wash': Pattern(1.0, ()),
    'cut': Pattern(0.35, ((0.97, 1.0),)),
    'pour': Pattern(1.0, ()),
    'mix': Pattern(0.8, ((0.30, 0.45),)),
    'shake': Pattern(0.7, ((0.25, 0.6), (0.75, 0.6))),
    'scrape': Pattern(1.0, ()),
    'peel': Pattern(1.0, ((0.72, 0.3),)),
    'squeeze': Pattern(1.0, ()),
    IDLE: Pattern(0.0, ()),
}


def envelope(verb: str, u: np.ndarray) -> np.ndarray:
    """Return the loudness 0..1 of the rustle of a verb at cycle counts `u`."""
    part = u % 1.0
    if verb == 'wash':
        return 0.6 + 0.25 * np.sin(2 * TAU * u) + 0.15 * np.sin(TAU * u / 3)
    if verb == 'cut':
        return np.clip(1 - np.abs(part - 0.85) / 0.12, 0, 1)
    if verb == 'pour':
        return (0.5 - 0.5 * np.cos(TAU * u)) ** 0.8
    if verb == 'mix':
        return (0.5 + 0.5 * np.sin(TAU * u)) ** 1.5
    if verb == 'shake':
        return np.abs(np.cos(TAU * u)) ** 2
    if verb == 'scrape':
        return np.abs(np.cos(TAU * u)) ** 0.7
    if verb == 'peel':
        return np.where(part < 0.72, (part / 0.72) ** 1.3, 0.0)
    return np.exp(-((part - 0.5) / 0.13) ** 2)


@dataclass(frozen=True)
class Mix:
    """Loudness of each component in one episode."""

    action: float
    evenness: float
    """Fraction of the rustle that does not depend on the stroke, 0..1."""
    knock: float
    """Strength of the hits of the verb."""
    fan: float
    hiss: float
    hum: tuple[float, float]
    """Frequency (Hz) and strength."""
    clatter: float
    """Hits a second that do not belong to the action."""
    clatter_strength: float
    corner: float
    """Frequency above which the fan's noise falls, Hz."""

    @classmethod
    def draw(cls, rng: np.random.Generator, domain: Domain) -> Mix:
        """Sample the loudness of one episode."""
        background = BACKGROUNDS[domain]
        noise = 0.03 * 10 ** (rng.uniform(*background.noise_db) / 20)
        return cls(0.08 * 10 ** (rng.uniform(-4, 3) / 20), float(rng.uniform(*EVENNESS)),
                   float(rng.uniform(0.35, 1.1)), noise, background.hiss * noise,
                   (float(rng.uniform(*background.hum_hz)), background.hum * noise),
                   float(rng.uniform(0.0, background.clatter_hz)),
                   float(rng.uniform(0.02, 0.08)), background.corner)


@dataclass(frozen=True)
class Background:
    """Audio beside the action in a domain: a kitchen's fan, or a machine's whine."""

    noise_db: tuple[float, float]
    """Range of the loudness of the fan, dB."""
    hiss: float
    """White noise, as a fraction of the fan's."""
    hum_hz: tuple[float, float]
    hum: float
    """Strength of the hum, as the same fraction."""
    clatter_hz: float
    corner: float


BACKGROUNDS = {Domain.KITCHEN: Background((2.0, 13.0), 0.5, (90, 240), 0.3, 2.5, 250),
               Domain.GARAGE: Background((0.0, 9.0), 0.1, (350, 900), 0.9, 1.0, 1600)}
EVENNESS = (0.0, 0.5)


class Soundtrack:
    """The audio of one episode."""

    def __init__(self, verb: str, timbre: Timbre, rhythm: Rhythm, mix: Mix, seed: int) -> None:
        self.verb, self.timbre, self.rhythm, self.mix, self.seed = verb, timbre, rhythm, mix, seed
        self._blocks: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()

    def render(self, start_s: float, duration_s: float, rate: int) -> np.ndarray:
        """
        Return the audio from `start_s` on: float32 `[round(duration_s * rate)]` in -1..1.

        :raises InvalidSettingError: for a start before 0 or a rate below 8 kHz.
        """
        if start_s < 0:
            raise InvalidSettingError('start_s', start_s, 'at least 0')
        if rate < 8000:
            raise InvalidSettingError('sample_rate', rate, 'at least 8000 Hz')
        first = round(start_s * rate)
        last = round((start_s + duration_s) * rate)
        blocks = range(first // rate, max(first, last - 1) // rate + 1)
        audio = np.concatenate([self._block(b, rate) for b in blocks])
        offset = blocks[0] * rate
        return audio[first - offset:last - offset]

    def _block(self, number: int, rate: int) -> np.ndarray:
        key = (number, rate)
        if key not in self._blocks:
            self._blocks[key] = self._make(number, rate)
            if len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return self._blocks[key]

    def _make(self, number: int, rate: int) -> np.ndarray:
        audio = self._rustle(number, rate) + self._hits(number, rate)
        audio = self.mix.action * audio + self._background(number, rate)
        audio += self._clatter(number, rate)
        return np.tanh(audio).astype(np.float32)

    def _rustle(self, number: int, rate: int) -> np.ndarray:
        noise = _coloured(Stream.RUSTLE, self.seed, number, rate, _resonances(self.timbre, rate))
        coarse = number + np.arange(ENVELOPE_RATE + 1) / ENVELOPE_RATE
        loudness = envelope(self.verb, self.rhythm.phase(coarse))
        loudness = self.mix.evenness + (1 - self.mix.evenness) * loudness
        fine = number + np.arange(rate) / rate
        return PATTERNS[self.verb].rustle * noise * np.interp(fine, coarse, loudness)

    def _hits(self, number: int, rate: int) -> np.ndarray:
        out = np.zeros(rate)
        for position, strength in PATTERNS[self.verb].hits:
            first = int(np.floor(self.rhythm.phase(number - TAIL_S) - position)) - 1
            last = int(np.ceil(self.rhythm.phase(number + 1.0) - position)) + 1
            for cycle in range(max(0, first), max(0, last) + 1):
                rng = generator(Stream.HIT, self.seed, cycle, round(100 * position))
                gain, late = rng.uniform(0.6, 1.3), rng.normal(0, 0.008)
                start_s = self.rhythm.time_of(cycle + position) + late
                gain *= 4.0 * self.mix.knock * strength
                _add(out, start_s - number, rate, gain, self.timbre)
        return out

    def _background(self, number: int, rate: int) -> np.ndarray:
        frequency, strength = self.mix.hum
        t = number + np.arange(rate) / rate
        fan = _coloured(Stream.FAN, self.seed, number, rate, _fan(rate, self.mix.corner))
        hiss = generator(Stream.FAN, self.seed, number, rate, 1).standard_normal(rate)
        hum = np.sin(TAU * frequency * t) + 0.5 * np.sin(2 * TAU * frequency * t)
        return self.mix.fan * fan + self.mix.hiss * hiss + strength * hum

    def _clatter(self, number: int, rate: int) -> np.ndarray:
        out = np.zeros(rate)
        for second in (number - 1, number):
            if second < 0:
                continue
            rng = generator(Stream.CLATTER, self.seed, second)
            for _ in range(rng.poisson(self.mix.clatter)):
                start_s, pitch = second + rng.uniform(), np.exp(rng.uniform(5.8, 7.8))
                timbre = Timbre(tuple(pitch * rng.uniform(0.95, 1.05) * np.array([1, 1.6, 2.7])),
                                (1.0, 0.8, 0.5), float(rng.uniform(0.015, 0.09)), 0.3)
                gain = 4.0 * self.mix.clatter_strength * rng.uniform(0.3, 1.0)
                _add(out, start_s - number, rate, gain, timbre)
        return out


def _add(out: np.ndarray, start_s: float, rate: int, gain: float, timbre: Timbre) -> None:
    """Add a damped oscillation that starts `start_s` seconds after the start of the block."""
    start = round(start_s * rate)
    stop = start + round(TAIL_S * rate)
    low, high = max(start, 0), min(stop, len(out))
    if low >= high:
        return
    t = np.arange(low - start, high - start) / rate
    for order, (f, strength) in enumerate(zip(timbre.partials, timbre.strengths)):
        if f < 0.48 * rate:
            decay = timbre.ring / (1 + 0.35 * order)
            out[low:high] += 0.4 * gain * strength * np.exp(-t / decay) * np.sin(TAU * f * t)


def _coloured(stream: Stream, seed: int, number: int, rate: int, kernel: np.ndarray) -> np.ndarray:
    """Filter a block of white noise, continuing the block before."""
    # A block's last samples are drawn first: its successor needs them and nothing else of it.
    before = generator(stream, seed, number, rate)
    after = generator(stream, seed, number + 1, rate)
    lead, tail = before.standard_normal(TAPS), after.standard_normal(TAPS)
    noise = np.concatenate([lead, before.standard_normal(rate - TAPS), tail])
    size = 1 << (len(noise) - 1).bit_length()
    spectrum = np.fft.rfft(noise, size) * np.fft.rfft(kernel, size)
    return np.fft.irfft(spectrum, size)[TAPS:TAPS + rate]


def _resonances(timbre: Timbre, rate: int) -> np.ndarray:
    """Return the filter whose peaks are the timbre's partials, of unit power."""
    f = np.maximum(np.fft.rfftfreq(TAPS, 1 / rate), 20.0)
    curve = sum(strength * np.exp(-0.5 * (np.log2(f / p) / timbre.breadth) ** 2)
                for p, strength in zip(timbre.partials, timbre.strengths))
    return _kernel(curve + 0.02)


def _fan(rate: int, corner: float) -> np.ndarray:
    f = np.maximum(np.fft.rfftfreq(TAPS, 1 / rate), 20.0)
    return _kernel(1 / np.sqrt(1 + (f / corner) ** 2))


def _kernel(curve: np.ndarray) -> np.ndarray:
    kernel = np.roll(np.fft.irfft(curve, TAPS), TAPS // 2) * np.hanning(TAPS)
    return kernel / np.sqrt(np.sum(kernel ** 2))
