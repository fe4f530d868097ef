from __future__ import annotations

from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.spectrogram import resample, StreamResampler
import numpy as np
import pytest


def sine(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize('rate', [8_000, 22_050, 44_100, 48_000])
def test_a_sine_stays_that_sine(rate):
    got = resample(sine(rate), rate, 16_000)
    assert abs(len(got) - 16_000) <= 1 and got.dtype == np.float32
    np.testing.assert_allclose(got[800:15_000], sine(16_000)[800:15_000], atol=1e-3)


@pytest.mark.parametrize('rate', [8_000, 44_100, 48_000])
def test_pieces_join_without_seam_or_delay(rate):
    stream, audio = StreamResampler(rate, 16_000), sine(rate)
    sizes = np.random.default_rng(0).integers(1, rate // 20, 200)
    pieces = np.split(audio, np.minimum(np.cumsum(sizes), len(audio)))
    got = np.concatenate([stream.push(piece) for piece in pieces])
    assert 16_000 * (1 - 0.13) < len(got) <= 16_000
    np.testing.assert_allclose(got[800:], sine(16_000)[800:len(got)], atol=1e-3)


def test_reset_starts_anew():
    stream = StreamResampler(44_100, 16_000)
    first = stream.push(sine(44_100))
    stream.reset()
    np.testing.assert_array_equal(stream.push(sine(44_100)), first)


def test_equal_rates_pass_through():
    audio = sine(16_000)
    assert resample(audio, 16_000, 16_000) is audio
    stream = StreamResampler(16_000, 16_000)
    stream.reset()
    assert stream.push(audio) is audio


@pytest.mark.parametrize('rate', [0, -1, 10 ** 9])
def test_refuses_a_rate_that_is_none(rate):
    for call in (lambda: StreamResampler(rate, 16_000), lambda: resample(sine(10), 16_000, rate)):
        with pytest.raises(InvalidSampleError, match=f'sample rate: got {rate}; expected 1 to'):
            call()


def test_refuses_samples_of_another_type():
    with pytest.raises(InvalidSampleError, match='samples: got int16'):
        StreamResampler(8_000, 16_000).push(np.zeros(4, np.int16))
