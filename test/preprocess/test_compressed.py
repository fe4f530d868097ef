"""JPEG and PNG of compressed_image_transport, and what must never be decoded."""

from __future__ import annotations

import struct
import zlib

import cv2
from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.compressed import decode_compressed, MAX_PIXELS
import numpy as np
import pytest

RGB = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48))
BGR = np.ascontiguousarray(RGB[..., ::-1])


def encode(picture: np.ndarray, codec: str = 'png') -> bytes:
    ok, data = cv2.imencode(f'.{codec}', picture)
    assert ok
    return data.tobytes()


JPEG, PNG = encode(BGR, 'jpg'), encode(BGR)


@pytest.mark.parametrize('description', [
    'rgb8; png compressed bgr8', 'bgr8; png compressed bgr8', 'png', '', 'jpeg', 'rgb8; png'])
def test_colours_are_right_whatever_the_source_was(description):
    decoded, size = decode_compressed(PNG, description=description)
    np.testing.assert_array_equal(decoded, RGB)
    assert size == (48, 64)


def test_a_jpeg_is_nearly_what_it_was():
    decoded, _ = decode_compressed(JPEG, description='bgr8; jpeg compressed bgr8')
    assert np.abs(decoded.astype(int) - RGB).mean() < 6


def test_what_was_compressed_as_rgb_comes_back_as_rgb():
    decoded, _ = decode_compressed(encode(RGB), description='rgb8; png compressed rgb8')
    np.testing.assert_array_equal(decoded, RGB)


@pytest.mark.parametrize('codec', ['jpg', 'png'])
def test_grey_pictures(codec):
    grey = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)
    decoded, _ = decode_compressed(encode(grey, codec), description='mono8; x compressed mono8')
    assert np.abs(decoded.astype(int) - grey[..., None]).mean() < 6


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_alpha_is_left_out_and_of_16_bits_the_high_byte_is_kept(dtype):
    wide = np.dstack([BGR, BGR[..., :1]]).astype(dtype) * (257 if dtype is np.uint16 else 1)
    decoded, _ = decode_compressed(encode(wide), description='bgra16; png compressed bgra16')
    np.testing.assert_array_equal(decoded, RGB)


@pytest.mark.parametrize('bits', [8, 16])
def test_a_mosaic_in_a_png_is_put_together(bits):
    raw = np.zeros((8, 8), np.uint8)
    raw[::2, ::2] = 200  # red only
    raw = raw if bits == 8 else raw.astype(np.uint16) * 256
    decoded, _ = decode_compressed(
        encode(raw), description=f'bayer_rggb{bits}; png compressed ')
    np.testing.assert_array_equal(decoded[4, 4], [200, 0, 0])


def test_the_picture_is_cropped_like_any_other_and_its_own_size_told():
    decoded, size = decode_compressed(PNG, description='', size=(24, 24))
    assert decoded.shape == (24, 24, 3) and size == (48, 64)


def test_a_picture_taken_sideways_comes_out_upright():
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    turned = JPEG[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + JPEG[2:]
    decoded, size = decode_compressed(turned, description='jpeg')
    assert size == (64, 48)
    assert np.abs(decoded.astype(int) - np.rot90(RGB, -1)).mean() < 6


def png_of(width: int, height: int) -> bytes:
    """Give a few bytes that announce a picture of this size."""
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(b'\0' * 1000)
    chunks = [header, b'IDAT' + packed, b'IEND']
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(c) - 4) + c + struct.pack('>I', zlib.crc32(c)) for c in chunks)


def jpeg_of(width: int, height: int) -> bytes:
    at = JPEG.index(b'\xff\xc0')
    return JPEG[:at + 5] + struct.pack('>HH', height, width) + JPEG[at + 9:]


@pytest.mark.parametrize('bomb', [
    png_of(100_000, 100_000), png_of(2 ** 31 - 1, 2 ** 31 - 1), png_of(0, 5),
    png_of(MAX_PIXELS + 1, 1), jpeg_of(65_500, 65_500), jpeg_of(64, 0)])
def test_a_header_that_announces_a_huge_picture_is_refused_before_decoding(bomb, monkeypatch):
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    with pytest.raises(InvalidSampleError, match=r'image size: got \d+ x \d+'):
        decode_compressed(bomb, description='jpeg')


@pytest.mark.parametrize(('data', 'description', 'text'), [
    (PNG, '16UC1; compressedDepth png', 'compressedDepth is no picture.*remap image'),
    (b'\0' * 30, '32FC1; compressedDepth rvl', 'compressedDepth'),
    (b'', 'jpeg', 'got 0 bytes that start with nothing; it may be a jpeg or a png'),
    (b'RIFF1234WEBP' + bytes(90), 'webp', 'compressed.format'),
    (b'\0\0\0\x01g' + bytes(90), 'h264', 'jpeg or a png'),
    (JPEG[:-200], 'jpeg', 'without an end.*part of it was lost'),
    (PNG[:-20], 'png', 'without an end'),
    (JPEG[:40] + b'\xff\xd9', 'jpeg', 'image size: got 0 x 0'),
    (None, 'jpeg', 'got a NoneType'),
])
def test_says_what_is_wrong(data, description, text):
    with pytest.raises(InvalidSampleError, match=text):
        decode_compressed(data, description=description)


def test_zeros_after_the_end_do_no_harm():
    padded, _ = decode_compressed(JPEG + bytes(500), description='jpeg')
    whole, _ = decode_compressed(JPEG, description='jpeg')
    np.testing.assert_array_equal(padded, whole)


@pytest.mark.parametrize('picture', [JPEG, PNG], ids=['jpeg', 'png'])
def test_damaged_bytes_are_a_picture_or_an_error_that_says_so(picture):
    random = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(picture)
        for place in random.integers(2, len(data), random.integers(1, 6)):
            data[place] = random.integers(256)
        try:
            decoded, _ = decode_compressed(bytes(data), description='', size=(8, 8))
            assert decoded.shape == (8, 8, 3)
        except InvalidSampleError as error:
            assert str(error).startswith('image ')
