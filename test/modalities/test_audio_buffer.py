from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from karmma_ros.clip import AudioSpec, ClipSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities.audio_buffer import AudioBuffer
import numpy as np
import pytest

MS = 1_000_000
HOP = 5
SPEC = ClipSpec(duration=0.4, audio=AudioSpec(
    sample_rate=1000, n_fft=64, win_length=10, hop_length=HOP, n_mels=8))
"""A thousand samples a second: a sample's index is its time in milliseconds."""
CAPACITY = 900
TOLERANCE = 50


def ones(count: int, value: float = 1.0) -> np.ndarray:
    return np.full(count, value, np.float32)


def buffer_of(*chunks: tuple[int, int, float]) -> AudioBuffer:
    """Return a buffer of chunks (stamp in ms, samples, value)."""
    buffer = AudioBuffer(SPEC)
    for stamp, count, value in chunks:
        buffer.add_chunk(ones(count, value), 1000, stamp * MS)
    return buffer


def check(buffer: AudioBuffer, end_ms: int, *parts: tuple[int, float | None]) -> None:
    """Compare the window with segments (samples, value); None is what is not valid."""
    audio, valid = buffer.read(end_ms * MS)
    wanted = np.concatenate([ones(n, 0 if v is None else v) for n, v in parts])
    valid = np.concatenate([ones(n, v is not None) for n, v in parts]).astype(bool)
    np.testing.assert_array_equal(audio, wanted)
    np.testing.assert_array_equal(valid, valid)
    assert buffer.count_valid(end_ms * MS) == valid.sum()


def test_chunks_lie_end_to_end():
    buffer = buffer_of((1000, 200, 1), (1200, 200, 2))
    check(buffer, 1400, (200, 1), (200, 2))
    assert buffer.newest_ns == 1400 * MS
    assert buffer.span_ns(1400 * MS) == (1000 * MS, 1400 * MS)


@pytest.mark.parametrize('jitter', [-50, -20, 20, 50])
def test_small_jitter_is_smoothed(jitter):
    buffer = buffer_of((1000, 200, 1), (1200 + jitter, 100, 2), (1300 - jitter, 100, 3))
    check(buffer, 1400, (200, 1), (100, 2), (100, 3))


def test_gap_is_silence_that_is_not_valid():
    buffer = buffer_of((1000, 100, 1), (1300, 100, 2))
    check(buffer, 1400, (100, 1), (200, None), (100, 2))


def test_late_chunk_fills_its_hole_and_no_more():
    buffer = buffer_of((1000, 100, 1), (1300, 100, 2), (1050, 300, 3))
    check(buffer, 1400, (100, 1), (200, 3), (100, 2))


def test_run_goes_on_after_a_late_chunk():
    buffer = buffer_of((1000, 100, 1), (1300, 50, 2), (1100, 100, 3), (1350, 50, 4))
    check(buffer, 1400, (100, 1), (100, 3), (100, None), (50, 2), (50, 4))


def test_duplicate_changes_nothing():
    buffer = buffer_of((1000, 200, 1), (1200, 200, 2), (1000, 200, 9), (1200, 200, 9))
    check(buffer, 1400, (200, 1), (200, 2))


def test_window_beyond_the_ends_is_not_valid():
    buffer = buffer_of((1000, 200, 1))
    check(buffer, 1300, (100, None), (200, 1), (100, None))
    check(buffer, 900, (400, None))
    check(buffer, 9000, (400, None))


def test_empty_buffer_is_silent():
    buffer = AudioBuffer(SPEC)
    check(buffer, 1000, (400, None))
    assert buffer.newest_ns is None


def test_far_chunk_leaves_itself_alone():
    buffer = buffer_of((1000, 400, 1), (10 ** 9, 100, 2))
    check(buffer, 10 ** 9 + 100, (300, None), (100, 2))


def test_huge_chunk_keeps_its_end():
    buffer, audio = AudioBuffer(SPEC), np.arange(5000, dtype=np.float32)
    size = buffer.nbytes
    buffer.add_chunk(audio, 1000, 1000 * MS)
    np.testing.assert_array_equal(buffer.read(6000 * MS)[0], audio[-400:])
    assert buffer.nbytes == size and buffer.newest_ns == 6000 * MS


def test_tolerance_can_be_widened():
    buffer = buffer_of((1000, 200, 1))
    buffer.add_chunk(ones(200, 2), 1000, 1400 * MS, tolerance_ns=300 * MS)
    check(buffer, 1400, (200, 1), (200, 2))


def test_cleared_buffer_starts_anew():
    buffer = buffer_of((1000, 400, 1))
    buffer.clear()
    check(buffer, 1400, (400, None))
    buffer.add_chunk(ones(100, 2), 1000, 50 * MS)
    check(buffer, 150, (300, None), (100, 2))


def test_spectrograms_are_discarded_with_their_audio():
    def spectrogram(value):
        buffer.add_chunk(np.linspace(0, value, 400, dtype=np.float32), 1000, 1000 * MS)
        audio, valid = buffer.read(1400 * MS)
        return buffer.spectrogram.log_mel(audio, valid, buffer.first(1400 * MS))
    buffer = AudioBuffer(SPEC)
    before = spectrogram(1)
    buffer.clear()
    assert np.abs(spectrogram(10)[:, 40] - before[:, 40]).max() > 10


@pytest.mark.parametrize('rate', [2000, 1500])
def test_other_rates_are_resampled_without_a_seam(rate):
    times = np.arange(2 * rate) / rate
    audio = np.sin(2 * np.pi * 40 * times).astype(np.float32)
    buffer = AudioBuffer(SPEC)
    for start in range(0, len(audio), rate // 10):
        buffer.add_chunk(audio[start:start + rate // 10], rate, start * 1_000_000_000 // rate)
    end_ns = buffer.newest_ns
    stop = end_ns // MS // HOP * HOP
    assert 1000 < stop <= 2000
    got, valid = buffer.read(end_ns)
    assert valid.all()
    np.testing.assert_allclose(
        got, np.sin(2 * np.pi * 40 * np.arange(stop - 400, stop) / 1000), atol=0.01)


def test_rate_that_changes_starts_a_new_run_at_its_stamp():
    def sine(start_ms: int, rate: int) -> np.ndarray:
        times = start_ms / 1000 + np.arange(rate // 10) / rate
        return np.sin(2 * np.pi * 40 * times).astype(np.float32)

    buffer = AudioBuffer(SPEC)
    for start in range(1000, 3000, 100):
        rate = 1000 if start < 1800 else 4000
        buffer.add_chunk(sine(start, rate), rate, start * MS)
    stop = buffer.newest_ns // MS
    assert 1900 < stop <= 3000
    for end in range(1800, stop, 100):
        if end > stop - 400:  # the ring still holds this window
            audio, valid = buffer.read(end * MS)
            wanted = np.sin(2 * np.pi * 40 * np.arange(end - 400, end) / 1000)
            assert valid.all()
            # The filter starts without the samples before.
            np.testing.assert_allclose(audio, wanted, atol=0.5)
            np.testing.assert_allclose(audio[-100:], wanted[-100:], atol=0.01)


@pytest.mark.parametrize(('samples', 'rate', 'text'), [
    (np.zeros(4, np.int16), 1000, 'samples: got int16'),
    (np.zeros((4, 2), np.float32), 1000, 'samples: got float32'),
    (np.zeros(4, np.float32), 0, 'sample rate: got 0'),
    (np.zeros(4, np.float32), -5, 'sample rate: got -5'),
])
def test_refuses_what_is_no_audio_and_is_unchanged(samples, rate, text):
    buffer = buffer_of((1000, 200, 1))
    with pytest.raises(InvalidSampleError, match=text):
        buffer.add_chunk(samples, rate, 1200 * MS)
    buffer.add_chunk(ones(200, 2), 1000, 1200 * MS)
    check(buffer, 1400, (200, 1), (200, 2))


class Tape:
    """The same rules on an endless tape: a dict from index to value."""

    def __init__(self) -> None:
        self.valid: dict[int, float] = {}
        self.end: int | None = None
        self.next: int | None = None
        """The next stamp of the segment."""
        self.index = 0
        """The next index of the segment."""
        self.side, self.since = 0, 0

    def add(self, stamp: int, values: list[float]) -> None:
        stamp += max(0, len(values) - CAPACITY)
        values = values[-CAPACITY:]
        late = self.next is not None and stamp < self.next - TOLERANCE
        if late:
            self._receive(stamp, values)
            return
        if self.next is None or stamp > self.next + TOLERANCE or self._stays_off(stamp):
            self.next, self.index, self.side = stamp, stamp, 0
        self._receive(self.index, values)
        self.next += len(values)
        self.index += len(values)

    def read(self, stop: int) -> list[float | None]:
        return [self.valid.get(i) if i >= self.end - CAPACITY else None
                for i in range(stop - 400, stop)]

    def _stays_off(self, stamp: int) -> bool:
        off = stamp - self.next
        side = 0 if abs(off) <= 10 else 1 if off > 0 else -1
        if side != self.side:
            self.side, self.since = side, stamp
        return side != 0 and stamp >= self.since + 1000

    def _receive(self, start: int, values: list[float]) -> None:
        for i, value in enumerate(values):
            self.valid.setdefault(start + i, value)
        end = start + len(values)
        self.end = end if self.end is None else max(self.end, end)


jitter = st.integers(-TOLERANCE, TOLERANCE)
steps = st.one_of(
    st.just(0), jitter, st.integers(-1500, 1500), st.sampled_from([-100_000, 100_000]))
lengths = st.integers(1, 250)
streams = st.one_of(
    st.lists(st.tuples(steps, lengths | st.just(1000)), min_size=1, max_size=30),
    st.lists(st.tuples(jitter | st.integers(11, 50) | st.integers(-50, -11), lengths),
             min_size=15, max_size=30))
"""Anything; and a clock that jitters, or goes wrong."""


@settings(max_examples=150, deadline=None)
@given(streams, st.integers(-500, 500))
def test_ring_is_an_endless_tape_within_its_capacity(chunks, end):
    buffer, tape = AudioBuffer(SPEC), Tape()
    size, expected, values = buffer.nbytes, 500_000, iter(range(1, 10 ** 6))
    for step, count in chunks:
        stamp = expected + step
        chunk = [float(next(values)) for _ in range(count)]
        buffer.add_chunk(np.array(chunk, np.float32), 1000, stamp * MS)
        tape.add(stamp, chunk)
        expected = tape.next
        assert buffer.newest_ns == tape.end * MS and buffer.nbytes == size
        for stop in (tape.end, tape.end + end):
            wanted = tape.read(stop // HOP * HOP)
            audio, valid = buffer.read(stop * MS)
            np.testing.assert_array_equal(audio, [v or 0 for v in wanted])
            np.testing.assert_array_equal(valid, [v is not None for v in wanted])


def test_unstamped_audio_with_dropped_chunks_catches_up_after_a_second(spec):
    buffer, rate, chunk = AudioBuffer(spec), 16_000, 320
    now_ns, tolerance_ns = 1000 * MS, 500_000_000
    for i in range(300):  # 20 ms each; 0.3 s are lost after the 50th, which is below the tolerance
        now_ns += 20_000_000 + (300_000_000 if i == 50 else 0)
        buffer.add_chunk(np.full(chunk, 0.1, np.float32), rate, now_ns - 20_000_000, tolerance_ns)
        lag_ns = now_ns - buffer.newest_ns
        assert lag_ns <= (320_000_000 if 50 <= i <= 101 else 60_000_000), i


@pytest.mark.parametrize(('late_ms', 'tolerance_ms'), [(20, 50), (40, 50), (300, 500)])
def test_audio_that_began_late_is_aligned_after_a_second(spec, late_ms, tolerance_ms):
    buffer, chunk_ns = AudioBuffer(spec), 20 * MS
    for i in range(120):
        stamp_ns = 1000 * MS + i * chunk_ns
        stated_ns = stamp_ns + (0 if i else late_ms * MS)
        buffer.add_chunk(np.full(320, 0.1, np.float32), 16_000, stated_ns, tolerance_ms * MS)
        ahead_ns = buffer.newest_ns - (stamp_ns + chunk_ns)
        again_ns = (2020 + late_ms) * MS  # what was heard ahead of its time stays
        assert ahead_ns <= (late_ms * MS if stamp_ns < again_ns else 0), i
    assert ahead_ns == 0
    assert buffer.count_valid(buffer.newest_ns) == spec.audio_samples


@pytest.mark.parametrize('dropped_ms', [20, 40, 60])
def test_stamped_audio_with_dropped_chunks_is_aligned_after_a_second(spec, dropped_ms):
    buffer, stamp_ns = AudioBuffer(spec), 1000 * MS
    for i in range(120):
        stamp_ns += 20 * MS + (dropped_ms * MS if i == 50 else 0)
        buffer.add_chunk(np.full(320, 0.1, np.float32), 16_000, stamp_ns)
        lag_ns = stamp_ns + 20 * MS - buffer.newest_ns
        assert lag_ns <= (dropped_ms * MS if 50 <= i <= 101 else 0), i


def test_chunks_that_arrive_in_bursts_are_no_loss(spec):
    buffer, now_ns = AudioBuffer(spec), 1000 * MS
    for burst in range(30):  # ten chunks of 20 ms at once, every 0.2 s
        for _ in range(10):
            buffer.add_chunk(np.zeros(320, np.float32), 16_000, now_ns - 20_000_000, 500_000_000)
        now_ns += 200_000_000
        if burst > 3:
            end_ns = buffer.newest_ns
            assert buffer.count_valid(end_ns) == spec.audio_samples
