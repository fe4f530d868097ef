"""JPEG and PNG of compressed_image_transport, and what must never be decoded."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import cv2
from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.compressed_image import decode_compressed
from karmma_ros.preprocess.image_headers import MAX_PIXELS, MAX_SCANS, read_header
from karmma_ros.preprocess.resize import resize_and_crop
import numpy as np
import pytest

RGB = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48))
BGR = np.ascontiguousarray(RGB[..., ::-1])


def encode(image: np.ndarray, codec: str = 'png') -> bytes:
    ok, data = cv2.imencode(f'.{codec}', image)
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
def test_grey_images(codec):
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


def test_the_image_is_cropped_like_any_other_and_its_own_size_returned():
    decoded, size = decode_compressed(PNG, description='', size=(24, 24))
    assert decoded.shape == (24, 24, 3) and size == (48, 64)


def test_a_image_taken_sideways_comes_out_upright():
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    turned = JPEG[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + JPEG[2:]
    decoded, size = decode_compressed(turned, description='jpeg')
    assert size == (64, 48)
    assert np.abs(decoded.astype(int) - np.rot90(RGB, -1)).mean() < 6


def png_of(width: int, height: int) -> bytes:
    """Return a few bytes that state an image of this size."""
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
    png_of(MAX_PIXELS + 1, 1), png_of(5500, 5500), jpeg_of(65_500, 65_500), jpeg_of(64, 0)])
def test_a_header_that_states_a_huge_image_is_refused_before_decoding(bomb, monkeypatch):
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    with pytest.raises(InvalidSampleError, match=r'image size: got \d+ x \d+'):
        decode_compressed(bomb, description='jpeg')


@pytest.mark.parametrize(('data', 'description', 'text'), [
    (PNG, '16UC1; compressedDepth png', 'compressedDepth is no colour image.*remap image'),
    (b'\0' * 30, '32FC1; compressedDepth rvl', 'compressedDepth'),
    (b'', 'jpeg', 'got 0 bytes that start with nothing; expected a jpeg or a png'),
    (b'RIFF1234WEBP' + bytes(90), 'webp', 'compressed.format'),
    (b'\0\0\0\x01g' + bytes(90), 'h264', 'jpeg or a png'),
    (b'\r\n' + JPEG, 'jpeg', 'start with 0d 0a ff d8 .*a jpeg begins at byte 2; publish it with'),
    (JPEG[:-200], 'jpeg', r'of a jpeg without an end \(FF D9\); .*part of it was lost'),
    (JPEG[:-200] + b'\xff' * 300, 'jpeg', 'without an end'),
    (JPEG[:-200] + JPEG, 'jpeg', f'another jpeg begins at byte {len(JPEG) - 200} before the end'),
    (JPEG[:200], 'jpeg', 'without an end'),
    (PNG[:-20], 'png', r'of a png without an end \(IEND\)'),
    (PNG[:8] + PNG[33:], 'png', 'header of a png'),
    (JPEG[:2] + b'\xff\xd9', 'jpeg', 'ends at byte 4 without an image'),
    (None, 'jpeg', 'got a NoneType'),
])
def test_reports_what_is_wrong(data, description, text):
    with pytest.raises(InvalidSampleError, match=text):
        decode_compressed(data, description=description)


@pytest.mark.parametrize('behind', [
    bytes(500), b'\xff' * 500, b'\r\n', bytes(range(256)) * 16, JPEG[:300], JPEG, PNG])
@pytest.mark.parametrize('image', [JPEG, PNG], ids=['jpeg', 'png'])
def test_bytes_behind_the_end_do_no_harm(image, behind):
    """ESP32 cameras send the rest of their buffer along, others pad their last packet."""
    padded, _ = decode_compressed(image + behind, description='')
    complete, _ = decode_compressed(image, description='')
    np.testing.assert_array_equal(padded, complete)


def hidden(jpeg: bytes, trick: bytes) -> bytes:
    """Put a small frame header where one who skips by the trick's length reads next."""
    small = b'\xff\xc0' + struct.pack('>HBHHB', 17, 8, 16, 16, 3) + bytes(
        [1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1])
    behind_jfif = 20
    body = jpeg[behind_jfif:]
    return (jpeg[:behind_jfif] + trick + struct.pack('>H', len(body) + 2) + body + small
            + b'\xff\xd9')


@pytest.mark.parametrize('trick', [
    b'\xff\x00', b'\xff\xff\x00', b'\xff\x01', b'\xff\xd0', b'\xff\xd7', b'\0\0', b'\xc0\x0e'])
def test_a_frame_header_cannot_be_hidden_from_the_check(trick, monkeypatch):
    honest = hidden(JPEG, trick)
    assert cv2.imdecode(np.frombuffer(honest, np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)
    assert read_header(np.frombuffer(honest, np.uint8)).width == 64
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    with pytest.raises(InvalidSampleError, match='image size: got 32000 x 32000'):
        decode_compressed(hidden(jpeg_of(32_000, 32_000), trick), description='jpeg')


@pytest.mark.parametrize(('code', 'text'), [
    (b'\xc3', 'process C3; expected a baseline or progressive'), (b'\xc9', 'process C9')])
def test_processes_that_no_camera_uses_are_refused(code, text):
    at = JPEG.index(b'\xff\xc0')
    with pytest.raises(InvalidSampleError, match=text):
        decode_compressed(JPEG[:at + 1] + code + JPEG[at + 2:], description='jpeg')


def progressive_of(width: int, height: int, scans: int) -> bytes:
    """Return a grey progressive JPEG whose scans are a few bytes each."""
    def segment(code: int, content: bytes) -> bytes:
        return b'\xff' + bytes([code]) + struct.pack('>H', len(content) + 2) + content
    table = bytes([1] + [0] * 15)
    head = b'\xff\xd8' + segment(0xDB, b'\0' + b'\1' * 64) + segment(
        0xC2, struct.pack('>BHHB', 8, height, width, 1) + b'\1\x11\0') + segment(
        0xC4, b'\0' + table + b'\0') + segment(0xC4, b'\x10' + table + b'\xe0')
    each = segment(0xDA, b'\1\1\0\1\1\0') + b'\x7f' * 8
    return head + segment(0xDA, b'\1\1\0\0\0\0') + each * (scans - 1) + b'\xff\xd9'


def test_scans_are_bounded_in_number_and_in_what_they_walk(monkeypatch):
    few = progressive_of(64, 64, MAX_SCANS)
    assert decode_compressed(few, description='')[1] == (64, 64)
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    for bomb in (progressive_of(64, 64, 2000), progressive_of(6000, 5000, 10)):
        with pytest.raises(InvalidSampleError, match=r'image scans: got \d+ or more .*100 or few'):
            decode_compressed(bomb, description='jpeg')


@pytest.mark.parametrize('sampling', [
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444])
def test_what_an_encoder_writes_at_8k_passes(sampling):
    """Of a progressive image the encoder writes ten scans."""
    grey = np.full((4320, 7680), 90, np.uint8)
    image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if sampling else grey
    for progressive, limit in ((0, 1), (1, 2)):
        flat = cv2.imencode('.jpg', image[::limit], [
            cv2.IMWRITE_JPEG_PROGRESSIVE, progressive,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling])[1]
        assert read_header(flat).width == 7680


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(monkeypatch):
    image = cv2.resize(BGR, (4800, 3600), interpolation=cv2.INTER_CUBIC)
    data = encode(image, 'jpg')
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0'
    turned = data[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + data[2:]
    complete, _ = decode_compressed(data, description='')
    decode, shapes = cv2.imdecode, []

    def recorded(*arguments):
        result = decode(*arguments)
        shapes.append(result.shape)
        return result
    monkeypatch.setattr(cv2, 'imdecode', recorded)
    small, size = decode_compressed(data, description='', size=(224, 224))
    assert size == (3600, 4800) and shapes == [(900, 1200, 3)]
    assert np.abs(small.astype(int) - resize_and_crop(complete, 224, 224)).mean() < 1
    assert decode_compressed(turned, description='', size=(224, 224))[1] == (4800, 3600)


def test_what_is_packed_beside_the_pixels_of_a_png_is_not_unpacked():
    """A text of 1 kB that unpacks to a gigabyte, an animation, and a second header."""
    def chunk(name: bytes, content: bytes) -> bytes:
        return (struct.pack('>I', len(content)) + name + content
                + struct.pack('>I', zlib.crc32(name + content)))
    control = chunk(b'acTL', struct.pack('>II', 2, 0)) + chunk(
        b'fcTL', struct.pack('>IIIIIHHBB', 0, 60_000, 60_000, 0, 0, 1, 1, 0, 0))
    beside = control + chunk(b'zTXt', b'x\0\0' + zlib.compress(bytes(100_000))) + chunk(
        b'iCCP', b'x\0\0' + zlib.compress(bytes(100_000)))
    png = PNG[:33] + beside + PNG[33:]
    assert read_header(np.frombuffer(png, np.uint8)).data.tobytes() == PNG
    np.testing.assert_array_equal(decode_compressed(png, description='')[0], RGB)
    with pytest.raises(InvalidSampleError, match='header of a png'):
        decode_compressed(PNG[:33] + PNG[8:], description='')


_FUZZ = r"""
import resource, sys
import cv2
import numpy as np
from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.image_headers import MAX_PIXELS, read_header
resource.setrlimit(resource.RLIMIT_AS, (3_000_000_000, 3_000_000_000))
random = np.random.default_rng(7)
image = cv2.resize(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48))
seeds = [cv2.imencode(suffix, image, options)[1] for suffix, options in (
    ('.jpg', []), ('.jpg', [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    ('.jpg', [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]), ('.png', []))]
marks = [b'\xff', b'\xff\xff', b'\xff\xc0\0\x11\x08\x7d\0\x7d\0\3', b'\xff\xdd\0\4\0\1']
marks += [b'\xff' + bytes([code]) for code in (0, 1, 0xC4, 0xD0, 0xD8, 0xD9, 0xDA, 0xDC, 0xE1)]
decoded = refused = 0
for _ in range(6000):
    data = bytearray(seeds[random.integers(len(seeds))].tobytes())
    for _ in range(random.integers(1, 4)):
        at = int(random.integers(2, len(data)))
        at = at if random.random() < 0.5 else min(at % 700 + 2, len(data) - 1)
        action = random.integers(4)
        if action == 0:
            data[at] = random.integers(256)
        elif action == 1:
            data[at:at] = marks[random.integers(len(marks))]
        elif action == 2:
            data[at:at + int(random.integers(1, 30))] = marks[random.integers(len(marks))]
        else:
            at = data.find(0xFF, at)
            data[at + 2:at + 4] = random.bytes(2)
    flat = np.frombuffer(bytes(data), np.uint8)
    try:
        seen = read_header(flat)
    except InvalidSampleError:
        refused += 1
        continue
    try:  # the bytes as they came, not as the check cut them
        found = cv2.imdecode(flat, cv2.IMREAD_COLOR)
    except cv2.error:
        continue
    if found is not None:
        assert sorted(found.shape[:2]) == sorted((seen.height, seen.width)), bytes(data).hex()
        decoded += 1
print(decoded, refused)
"""


def test_the_check_sees_the_size_that_the_decoder_makes():
    """Under a limit of memory, for the decoder would take what a hidden header states."""
    done = subprocess.run([sys.executable, '-c', _FUZZ], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    decoded, refused = map(int, done.stdout.split())
    assert decoded > 500 and refused > 500


@pytest.mark.parametrize('image', [JPEG, PNG], ids=['jpeg', 'png'])
def test_damaged_bytes_are_an_image_or_an_error(image):
    random = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(image)
        for index in random.integers(2, len(data), random.integers(1, 6)):
            data[index] = random.integers(256)
        try:
            decoded, _ = decode_compressed(bytes(data), description='', size=(8, 8))
            assert decoded.shape == (8, 8, 3)
        except InvalidSampleError as error:
            assert str(error).startswith('image ')
