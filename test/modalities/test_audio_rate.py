"""Audio at another rate than expected is found; jitter, loss, backlogs and pauses are not one."""

from hypothesis import given, settings
from hypothesis import strategies as st
from karmma_ros.modalities.audio_rate import AudioFormat, AudioRateCheck
import numpy as np
import pytest

S = 1_000_000_000
START = 1_700_000_000 * S
S16 = AudioFormat(16_000, 1, 'S16LE')


class Microphone:
    """A source of chunks; it is `now` seconds since its start."""

    def __init__(self, true=16_000, audio_format=S16, chunk=0.032, jitter=0.0, loss=0.0,
                 stamped=True, tick=0.0, burst=1, speed=1.0, seed=0):
        self.check, self.format, self.true = AudioRateCheck(), audio_format, true
        self.chunk, self.jitter, self.loss, self.stamped = chunk, jitter, loss, stamped
        self.tick, self.burst, self.speed = tick, burst, speed
        self.random = np.random.default_rng(seed)
        self.now, self.number = 0.0, 0

    def play(self, seconds):
        """Send chunks; return the first finding and when it was there."""
        first, end = None, self.now + seconds
        while self.now < end:
            samples = round(self.chunk * self.true)
            self.number += 1
            time = self.now + self.random.uniform(0, self.jitter)
            if self.burst > 1:
                time = -(-self.number // self.burst) * self.burst * samples / self.true
            if self.tick:
                time = time // self.tick * self.tick
            self.now += samples / self.true
            if self.random.random() < self.loss:
                continue
            time_ns = START + round(time * self.speed * S)
            self.check.update(samples, self.format, time_ns if self.stamped else 0, time_ns)
            if first is None and self.check.finding is not None:
                first = self.now, self.check.finding
        return first


RATES = 'audio comes at about {} samples per second, expected 16000: set audio.sample_rate ({})'


@pytest.mark.parametrize(('true', 'text'), [
    (48_000, RATES.format(48_000, 48_000) + ' or audio.channels (3)'),
    (44_100, RATES.format(44_100, 44_100)
     + ' or audio.sample_rate (22050) with audio.channels (2)'),
    (88_200, RATES.format(88_200, 88_200)
     + ' or audio.sample_rate (44100) with audio.channels (2)'),
    (32_000, RATES.format(32_000, 32_000) + ', audio.channels (2) or audio.sample_format '
     '(S32LE or F32LE)'),
    (8_000, RATES.format(8_000, 8_000) + ' or audio.sample_format (U8); or messages are dropped '
     'regularly'),
    (16_700, RATES.format(16_700, 16_700)),
    (176_400, 'audio comes at about 176400 samples per second, expected 16000: set '
     'audio.sample_rate (44100) with audio.channels (2) and audio.sample_format (S32LE or F32LE), '
     'audio.sample_rate (176400) or audio.sample_rate (44100) with audio.channels (4)'),
])
@pytest.mark.parametrize('stamped', [True, False])
def test_another_rate_is_detected_within_three_seconds_with_what_to_set(true, text, stamped):
    when, finding = Microphone(true, stamped=stamped).play(4)
    assert finding.text == text and not finding.usable
    assert when < (1.0 if stamped and true > 20_000 else 3.1)


@pytest.mark.parametrize(('true', 'case'), [
    (15_900, None), (16_100, None), (16_001, None), (16_300, True), (15_700, True),
    (15_400, False), (16_600, False)])
def test_a_small_deviation_is_a_warning_and_above_3_percent_it_is_unusable(true, case):
    result = Microphone(true).play(4)
    assert (result and result[1].usable) is case


@pytest.mark.parametrize('hardness', [
    {'jitter': 0.2}, {'jitter': 0.2, 'stamped': False}, {'chunk': 1.0}, {'chunk': 0.005},
    {'chunk': 0.25, 'jitter': 0.02}, {'tick': 0.1}, {'tick': 0.25, 'stamped': False},
    {'loss': 0.2}, {'burst': 4, 'stamped': False}])
@pytest.mark.parametrize('true', [48_000, 32_000])
def test_a_gross_excess_is_detected_whatever_the_timing_is_like(true, hardness):
    when, finding = Microphone(true, **hardness).play(8)
    assert when < 6 and not finding.usable


@pytest.mark.parametrize('speed', [0.1, 0.5, 2, 10])
def test_stamps_count_and_not_the_speed_of_a_replay(speed):
    class Replayed(Microphone):
        """A bag at another speed: stamps are those of the recording, receipts are not."""

        def play(self, seconds):
            for i in range(round(seconds / 0.032)):
                stamp_ns = START + i * S * 512 // self.true
                self.check.update(512, S16, stamp_ns, START + round(i * 0.032 * S / speed))
            return self.check.finding
    assert Replayed().play(30) is None
    assert '48000' in Replayed(48_000).play(30).text


@settings(max_examples=25, deadline=None)
@given(loss=st.sampled_from([0, 0.01, 0.1, 0.3, 0.5, 0.7]),
       chunk=st.sampled_from([0.01, 0.032, 0.1, 0.25, 1.0]),
       jitter=st.sampled_from([0, 0.005, 0.05, 0.2]), stamped=st.booleans(),
       tick=st.sampled_from([0, 0, 0.01, 0.1, 0.25]), burst=st.sampled_from([1, 1, 5, 20]),
       rate=st.sampled_from([8000, 16_000, 44_100, 48_000]), ppm=st.integers(-500, 500),
       seed=st.integers(0, 1000))
def test_the_right_rate_is_never_a_finding(
        loss, chunk, jitter, stamped, tick, burst, rate, ppm, seed):
    source = Microphone(
        rate, AudioFormat(rate, 2, 'F32LE'), chunk, jitter, loss, stamped, tick, burst,
        1 + ppm * 1e-6, seed)
    assert source.play(30) is None


@pytest.mark.parametrize('seconds', [0.2, 0.6, 1.5, 5, 20])
def test_a_backlog_that_comes_at_once_is_no_rate(seconds):
    source = Microphone(stamped=False)
    for _ in range(3):
        for _ in range(round(seconds / 0.032)):
            source.check.update(512, S16, 0, START + round(source.now * S))
            assert source.check.finding is None
        assert source.play(5) is None
        source.now += seconds


@pytest.mark.parametrize('pause', [0.3, 1.0, 5.0, -3.0])
def test_pauses_and_jumps_of_the_clock_are_no_rate(pause):
    source = Microphone()
    for length in (0.5, 1.2, 3.0, 0.8, 2.0, 6.0):
        assert source.play(length) is None
        source.now += pause


def test_every_second_chunk_dropped_is_named_beside_the_rate():
    check = AudioRateCheck()
    for i in range(0, 200, 2):
        check.update(512, S16, START + i * 32_000_000, 0)
    assert check.finding.text.endswith('; or messages are dropped regularly')


def test_it_recovers_when_the_rate_becomes_right_again():
    source = Microphone(48_000)
    assert source.play(5) is not None
    source.true = 16_000
    source.play(5)
    assert source.check.finding is None


def test_it_recovers_at_once_when_audio_is_read_otherwise():
    source = Microphone(48_000)
    assert source.play(5) is not None
    source.format = AudioFormat(48_000, 1, 'S16LE', 'audio_info')
    assert source.play(10) is None


def test_a_finding_stays_the_same_while_nothing_changes():
    source = Microphone(48_000, jitter=0.1)
    assert source.play(3) is not None
    first = source.check.finding
    source.play(20)
    source.now += 3.0
    source.play(2)
    assert source.check.finding is first


@pytest.mark.parametrize(('audio_format', 'true', 'text'), [
    (AudioFormat(16_000, 2, 'S16LE'), 8000, '8000 samples per second per channel, expected 16000: '
     'set audio.sample_rate (8000), audio.channels (1) or audio.sample_format (U8)'),
    (AudioFormat(48_000, 1, 'S32LE'), 24_000, 'set audio.sample_rate (24000) or '
     'audio.sample_format (S16LE)'),
    (AudioFormat(16_000, 1, 'S16BE'), 32_000, 'audio.sample_format (S32BE or F32BE)'),
    (AudioFormat(16_000, 1, 'S16LE', 'audio_info'), 48_000, 'expected 16000 as audio_info states: '
     'have the driver state its true format (sample rate 48000, or other channels)'),
    (AudioFormat(44_100, 2, 'S16LE', 'each message'), 48_000, 'as each message states'),
])
def test_the_settings_proposed_fit_how_audio_is_read(audio_format, true, text):
    _, finding = Microphone(true, audio_format).play(4)
    assert text in finding.text
