from __future__ import annotations

from array import array

from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.pcm import decode_pcm
import numpy as np
import pytest

WAVE = np.array([0.0, 0.5, -0.5, 0.25, -1.0], np.float32)


def s24(values: np.ndarray, order: str) -> bytes:
    return b''.join(int(v * 2 ** 23).to_bytes(3, order, signed=True) for v in values)


@pytest.mark.parametrize(('data', 'name'), [
    ((WAVE * 2 ** 7).astype(np.int8).tobytes(), 'S8'),
    ((WAVE * 2 ** 7 + 128).astype(np.uint8).tobytes(), 'U8'),
    ((WAVE * 2 ** 15).astype('<i2').tobytes(), 'S16LE'),
    ((WAVE * 2 ** 15).astype('>i2').tobytes(), 'S16BE'),
    ((WAVE * 2 ** 15).astype('<i2').tobytes(), ' s16le '),
    (s24(WAVE, 'little'), 'S24LE'),
    (s24(WAVE, 'big'), 'S24BE'),
    ((WAVE * 2.0 ** 31).astype('<i4').tobytes(), 'S32LE'),
    (WAVE.astype('<f4').tobytes(), 'F32LE'),
    (WAVE.astype('>f8').tobytes(), 'F64BE'),
])
def test_decodes_each_format(data, name):
    samples = decode_pcm(data, sample_format=name, channels=1)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, WAVE, atol=1e-6)


def test_name_without_byte_order_takes_the_flag():
    big = (WAVE * 2 ** 15).astype('>i2').tobytes()
    np.testing.assert_allclose(
        decode_pcm(big, sample_format='S16', channels=1, big_endian=True), WAVE)
    little = WAVE.astype('<f4').tobytes()
    np.testing.assert_allclose(decode_pcm(little, sample_format='F32', channels=1), WAVE)
    np.testing.assert_allclose(
        decode_pcm(little, sample_format='F32LE', channels=1, big_endian=True), WAVE)


def test_averages_channels():
    stereo = np.stack([WAVE, np.zeros_like(WAVE)], 1)
    np.testing.assert_allclose(
        decode_pcm(stereo.tobytes(), sample_format='F32LE', channels=2), WAVE / 2)


def test_clips_floats_beyond_full_scale():
    loud = np.array([3.0, -1e30, 1e300], '<f8')
    with pytest.raises(InvalidSampleError, match='infinity'):
        decode_pcm(loud.tobytes(), sample_format='F64LE', channels=1)
    np.testing.assert_array_equal(
        decode_pcm(loud[:2].tobytes(), sample_format='F64LE', channels=1), [1, -1])


@pytest.mark.parametrize('wrap', [
    bytes, bytearray, memoryview, lambda b: array('B', b), lambda b: np.frombuffer(b, np.uint8)])
def test_takes_every_type_of_bytes(wrap):
    samples = decode_pcm(wrap(WAVE.tobytes()), sample_format='F32LE', channels=1)
    np.testing.assert_array_equal(samples, WAVE)
    samples[:] = 0


def mp3_frame() -> bytes:
    """Return an MPEG-1 layer III frame, 128 kbit/s at 44.1 kHz: 417 bytes."""
    return b'\xff\xfb\x90\x00' + bytes(413)


@pytest.mark.parametrize('data', [
    mp3_frame() * 2,
    mp3_frame() * 2 + mp3_frame()[:99],
    b'\xff\xf3\x48\xc0' + bytes(140),
    b'ID3\x04\x00\x00\x00\x00\x00\x00' + bytes(20),
])
def test_reports_mp3_under_a_pcm_name(data):
    data += bytes(len(data) % 2)
    with pytest.raises(InvalidSampleError, match=r'compressed audio \(mp3\).*`format:=wave`'):
        decode_pcm(data, sample_format='S16LE', channels=1)


def test_single_mp3_frame_of_odd_length_is_named_too():
    with pytest.raises(InvalidSampleError, match='format:=wave'):
        decode_pcm(mp3_frame(), sample_format='S16LE', channels=1)


def test_chance_sync_word_is_no_mp3():
    quiet = np.zeros(400, '<i2')
    quiet[0] = int.from_bytes(b'\xff\xfb', 'little', signed=True)
    quiet[1] = int.from_bytes(b'\x90\x00', 'little', signed=True)
    assert len(decode_pcm(quiet.tobytes(), sample_format='S16LE', channels=1)) == 400


@pytest.mark.parametrize('name', ['mp3', 'audio/MPEG', 'ogg', 'flac'])
def test_compressed_formats_are_named_with_the_cure(name):
    with pytest.raises(InvalidSampleError, match='compressed audio.*format:=wave'):
        decode_pcm(bytes(8), sample_format=name, channels=1)


@pytest.mark.parametrize(('data', 'settings', 'text'), [
    (bytes(3), {}, 'got 3 bytes; expected a multiple of 2'),
    (bytes(6), {'channels': 2}, 'got 6 bytes; expected a multiple of 4'),
    (b'', {}, 'got 0 bytes'),
    (bytes(4), {'sample_format': 'S17LE'}, "sample format: got 'S17LE'; expected S8, U8, S16"),
    (bytes(4), {'sample_format': ''}, "sample format: got ''"),
    (bytes(4), {'channels': 0}, 'channels: got 0; expected 1 to 64'),
    (bytes(4), {'channels': -1}, 'channels: got -1'),
    (np.array([np.nan], '<f4').tobytes(), {'sample_format': 'F32LE'}, 'NaN or infinity'),
    (None, {}, 'got a NoneType'),
    ('text', {}, 'got a str'),
])
def test_reports_what_is_wrong(data, settings, text):
    with pytest.raises(InvalidSampleError, match=text):
        decode_pcm(data, **{'sample_format': 'S16LE', 'channels': 1, **settings})
