"""
Check the sample rate of audio against the times of its chunks.

Raw audio states neither rate nor channels. With the wrong ones it decodes without an error,
at another speed: 48 kHz read as 16 kHz lasts three times as long as it took to record.

Times are the stamps where there are any, else the times of receipt.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
import re

from karmma_ros.clip import NANOSECONDS
from karmma_ros.modalities.content_check import Finding
import numpy as np

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
    fitting = _channel_count(ratio * channels)
    if fitting and fitting != channels:
        proposals.append(f'audio.channels ({fitting})')
    elif not fitting:
        proposals += _both(rate * channels, channels)
    proposals += _formats(ratio, audio_format.sample_format)
    return 'set ' + ', '.join(proposals[:-1]) + ' or ' * (len(proposals) > 1) + proposals[-1]


def _channel_count(value: float) -> int:
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
    encoding, order = _split_format(audio_format.sample_format)
    if rate <= _MOST_LIKELY_RATE or audio_format.channels != 1 or encoding != 'S16':
        return []
    return [f'audio.sample_rate ({true}) with audio.channels (2) and audio.sample_format '
            f'({" or ".join(name + order for name in _LIKELY[size])})'
            for size in (3, 4) for true in [round(rate * _BYTES[encoding] / size / 2)]
            if true in _SPEECH]


def _split_format(sample_format: str) -> tuple[str, str]:
    """Return a format without its byte order, and the order."""
    name = sample_format.strip().upper()
    encoding = re.sub('(LE|BE)$', '', name)
    return encoding, name[len(encoding):] or 'LE'


def _formats(ratio: float, sample_format: str) -> list[str]:
    """Propose formats whose samples have another number of bytes."""
    encoding, order = _split_format(sample_format)
    size = _BYTES.get(encoding, 0) * ratio
    near = [b for b in _LIKELY if abs(size - b) < _CLOSE * b]
    names = [name if name == 'U8' else name + order for b in near for name in _LIKELY[b]]
    if not names or abs(ratio - 1) < 0.1:
        return []
    return [f'audio.sample_format ({" or ".join(names)})']


UNUSABLE, NOTICEABLE = 0.03, 0.01
"""Deviation of the rate from which on audio is not used, and from which on there is a warning."""

_GAP_NS = NANOSECONDS // 2
_LONG_GAP_NS = 2 * NANOSECONDS
_SEGMENTS, _MANY_SEGMENTS, _FEW_SEGMENTS, _LEAST_SEGMENTS = 12, 8, 6, 3
_GROSS = 0.25
"""A deviation that needs less evidence."""
_POINTS, _MOST_POINTS = 64, 2048


@dataclass(frozen=True)
class _Interval:
    """A recent interval of time over which the rate is measured."""

    span_ns: int
    least: float
    """Smallest deviation that counts."""
    steadiness: float
    """The rates of its parts may differ by at most this part of the deviation."""
    drop_limit: float
    """They must differ by less than this part of what randomly dropped chunks would cause."""


_FIRST = _Interval(600_000_000, _GROSS, 0.25, 0.0)
_SHORT = _Interval(3 * NANOSECONDS, 0.0, 0.3, 0.25)
_LONG = _Interval(24 * NANOSECONDS, 0.0, 0.5, 0.33)
"""The first is for a gross excess right at the start, before the modality is available."""


class AudioRateCheck:
    """
    Compare the samples received with the time that has passed.

    A deviation counts when it is larger than the jitter of the times explains, and when it is
    steady: a backlog that comes at once, and randomly dropped chunks, are not. A pause or
    a jump of the clock starts the measurement anew; the finding stays until there is another.
    """

    def __init__(self) -> None:
        self.finding: Finding | None = None
        self._reported_ratio = 1.0
        self._format: AudioFormat | None = None
        self._stamped = False
        self._samples = self._chunks = 0
        self._last_ns: int | None = None
        self._restart(stamped=False)

    def update(self, samples: int, audio_format: AudioFormat, stamp_ns: int, now_ns: int) -> None:
        """
        Add a chunk of so many samples of one channel; the result is in `finding`.

        :param stamp_ns: of its first sample; 0 without one.
        :param now_ns: the time of receipt.
        """
        if audio_format != self._format:
            self._format, self.finding = audio_format, None
            self._restart(self._stamped)
        stamped = stamp_ns != 0
        time_ns = stamp_ns if stamped else now_ns
        if stamped != self._stamped or self._is_gap(time_ns, samples / audio_format.rate):
            self._restart(stamped)
        # A stamp is that of the first sample; received is a chunk after its last one.
        before = self._samples
        self._samples += samples
        self._chunks += 1
        self._last_ns = time_ns
        for meter in self._meters:
            if meter.add(time_ns, before if stamped else self._samples, self._chunks,
                         audio_format.rate):
                self._evaluate(meter, audio_format)

    def _restart(self, stamped: bool) -> None:
        self._stamped, self._last_ns = stamped, None
        self._samples = self._chunks = 0
        self._usual_ns = _LONG_GAP_NS
        self._meters = [_Meter(_FIRST), _Meter(_SHORT), _Meter(_LONG)]

    def _is_gap(self, time_ns: int, length_s: float) -> bool:
        """Whether a chunk does not continue what is measured."""
        if self._last_ns is None:
            return False
        step_ns = time_ns - self._last_ns
        longest_ns = _GAP_NS + 4 * max(round(length_s * NANOSECONDS), self._usual_ns)
        self._usual_ns = max(0, step_ns)
        return not -_GAP_NS <= step_ns <= longest_ns

    def _evaluate(self, meter: _Meter, audio_format: AudioFormat) -> None:
        if meter.interval is _FIRST and not (self._stamped and self.finding is None):
            return
        rate = meter.measure(audio_format.rate)
        if rate is None:
            return
        if meter.interval is not _FIRST:
            self._meters = [each for each in self._meters if each.interval is not _FIRST]
        limit = next((each for each in (UNUSABLE, NOTICEABLE)
                      if rate.differs(max(each, meter.interval.least))), 0.0)
        if limit:
            self._report(rate, audio_format, limit)
        elif self.finding is not None and rate.agrees(
                NOTICEABLE if self.finding.usable else UNUSABLE):
            self.finding = None

    def _report(self, rate: _Rate, audio_format: AudioFormat, limit: float) -> None:
        """Set the finding; it stays while it lies within the new measurement."""
        usable, before = limit != UNUSABLE, self.finding
        if before is not None and (
                before.usable == usable or not rate.agrees(UNUSABLE) and not before.usable) and (
                rate.lowest <= self._reported_ratio <= rate.highest):
            return
        hertz = nominal_rate(*(audio_format.rate * each
                               for each in (rate.lowest, rate.ratio, rate.highest)))
        self._reported_ratio = hertz / audio_format.rate
        self.finding = Finding(_describe(hertz, audio_format, usable), usable)


def _describe(hertz: int, audio_format: AudioFormat, usable: bool) -> str:
    per = ' per channel' if audio_format.channels > 1 else ''
    dropped = ('; or messages are dropped regularly' if not usable and hertz < audio_format.rate
               else '')
    return (f'audio comes at about {hertz} samples per second{per}, expected {audio_format.rate}'
            f'{audio_format.stated}: {hints(hertz, audio_format)}{dropped}')


@dataclass(frozen=True)
class _Rate:
    """Samples received per sample expected, and how certain that is."""

    ratio: float
    lowest: float
    highest: float
    steady: bool
    """Whether it is a constant rate rather than a backlog, or randomly dropped chunks."""

    def differs(self, limit: float) -> bool:
        """Whether it certainly deviates from 1 by more than a limit."""
        return self.steady and (self.lowest > 1 + limit or self.highest < 1 - limit)

    def agrees(self, limit: float) -> bool:
        """Whether it certainly deviates from 1 by less than a limit."""
        return 1 - limit < self.lowest and self.highest < 1 + limit


class _Meter:
    """The recent points (time, samples, chunks) of one interval."""

    def __init__(self, interval: _Interval) -> None:
        self.interval = interval
        self._points: deque[tuple[int, int, int]] = deque(maxlen=_MOST_POINTS)
        self._due_ns: int | None = None

    def add(self, time_ns: int, samples: int, chunks: int, rate: int) -> bool:
        """Keep a point, unless it is too near to the last one; whether to measure again."""
        points, span_ns = self._points, self.interval.span_ns
        if points and (samples - points[-1][1]) * NANOSECONDS * _POINTS < span_ns * rate:
            return False
        points.append((time_ns, samples, chunks))
        while len(points) > 2 and time_ns - points[1][0] >= span_ns:
            points.popleft()
        if self._due_ns is None:
            self._due_ns = time_ns + span_ns * 9 // 10
        if time_ns < self._due_ns:
            return False
        self._due_ns = time_ns + span_ns // 6
        return True

    def measure(self, rate: int) -> _Rate | None:
        """
        Measure the rate over parts with equal numbers of samples; None with too few chunks.

        What is measured is the slowness, time passed for each second of audio.
        """
        times, samples, chunks = np.array(self._points, np.int64).T
        passed = (times - times[0]) / NANOSECONDS
        audio = (samples - samples[0]) / rate
        edges = np.unique(np.searchsorted(audio, np.linspace(0, audio[-1], _SEGMENTS + 1)))
        parts = len(edges) - 1
        if parts < _LEAST_SEGMENTS or passed[-1] <= 0:
            return None
        slowness = np.diff(passed[edges]) / np.diff(audio[edges])
        mean, spread = float(passed[-1] / audio[-1]), float(np.std(slowness, ddof=1))
        steps = np.diff(passed)
        # So much the times of single chunks are off; both ends may be.
        off = float(steps.max() - steps.mean())
        tolerance = max(3 * spread / parts ** 0.5, 2 * off / float(audio[-1]))
        if parts < _FEW_SEGMENTS:
            tolerance = max(tolerance, _GROSS * mean)
        steady = spread <= self.interval.steadiness * abs(1 - mean)
        if mean > 1:
            # Coarse times hide what randomly dropped chunks would show, and so do few parts.
            seen = max(spread, off * parts / float(audio[-1]) / 2)
            by_drops = _spread_by_drops(mean, float(np.diff(chunks[edges]).mean()))
            steady = steady and (
                parts >= _MANY_SEGMENTS and seen < self.interval.drop_limit * by_drops)
        return _Rate(1 / mean, 1 / (mean + tolerance), 1 / max(mean - tolerance, 1e-9), steady)


def _spread_by_drops(slowness: float, chunks: float) -> float:
    """
    Return the standard deviation of the slowness of parts if chunks were dropped at random.

    Received are `chunks` in a part, so that the number dropped is negative binomial.
    """
    dropped = 1 - 1 / slowness
    return float((dropped / chunks) ** 0.5 / (1 - dropped))
