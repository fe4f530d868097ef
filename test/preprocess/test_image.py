from __future__ import annotations

from array import array

import cv2
from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.image import decode_image
import numpy as np
import pytest

RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
BGR = RGB[..., ::-1]
ALPHA = np.full((6, 5, 1), 77, np.uint8)
GREY = RGB[..., :1]


def decode(pixels: np.ndarray, encoding: str, **changes: object) -> np.ndarray:
    height, width = pixels.shape[:2]
    layout = {'height': height, 'width': width, 'step': pixels[0].nbytes, 'encoding': encoding}
    return decode_image(pixels.tobytes(), **{**layout, **changes})


@pytest.mark.parametrize(('pixels', 'encoding', 'wanted'), [
    (RGB, 'rgb8', RGB),
    (BGR, 'bgr8', RGB),
    (np.concatenate([RGB, ALPHA], 2), 'rgba8', RGB),
    (np.concatenate([BGR, ALPHA], 2), 'bgra8', RGB),
    (GREY, 'mono8', np.repeat(GREY, 3, 2)),
    (GREY.astype('<u2') * 256 + 99, 'mono16', np.repeat(GREY, 3, 2)),
])
def test_decodes_each_encoding(pixels, encoding, wanted):
    np.testing.assert_array_equal(decode(pixels, encoding), wanted)


def test_mono16_honours_the_byte_order():
    pixels = (GREY.astype(np.uint16) * 256 + 99).astype('>u2')
    np.testing.assert_array_equal(
        decode(pixels, 'mono16', is_bigendian=True), np.repeat(GREY, 3, 2))


@pytest.mark.parametrize('padding', [1, 2, 7])
@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono8', 'rgba8'])
def test_honours_row_padding_that_is_no_multiple_of_a_pixel(padding, encoding):
    pixels = {'rgb8': RGB, 'bgr8': BGR, 'mono8': GREY,
              'rgba8': np.concatenate([RGB, ALPHA], 2)}[encoding]
    rows = np.full((6, pixels[0].nbytes + padding), 255, np.uint8)
    rows[:, :-padding] = pixels.reshape(6, -1)
    for size in (None, (3, 3), (12, 10)):
        padded = decode_image(rows.tobytes(), encoding=encoding, height=6, width=5,
                              step=rows.shape[1], size=size)
        np.testing.assert_array_equal(padded, decode(pixels, encoding, size=size))


@pytest.mark.parametrize('data', [
    RGB.tobytes(), bytearray(RGB.tobytes()), memoryview(RGB.tobytes()),
    array('B', RGB.tobytes()), RGB.reshape(-1), RGB,
])
def test_takes_every_kind_of_bytes(data):
    decoded = decode_image(data, encoding='rgb8', height=6, width=5, step=15)
    np.testing.assert_array_equal(decoded, RGB)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono8'])
@pytest.mark.parametrize('size', [None, (6, 5), (3, 3)])
def test_result_owns_its_memory(encoding, size):
    message = bytearray(RGB.tobytes() if encoding != 'mono8' else GREY.tobytes())
    step = 5 if encoding == 'mono8' else 15
    decoded = decode_image(
        message, encoding=encoding, height=6, width=5, step=step, size=size)
    before = decoded.copy()
    message[:] = bytes(len(message))
    np.testing.assert_array_equal(decoded, before)
    assert decoded.flags.c_contiguous and decoded.flags.writeable


def test_resizes_before_swapping_channels(monkeypatch):
    seen = []
    convert = cv2.cvtColor
    monkeypatch.setattr(cv2, 'cvtColor', lambda a, code: seen.append(a.shape) or convert(a, code))
    pixels = np.zeros((48, 64, 3), np.uint8)
    assert decode(pixels, 'bgr8', size=(8, 8)).shape == (8, 8, 3)
    assert seen == [(8, 8, 3)]


@pytest.mark.parametrize(('changes', 'text'), [
    ({'encoding': 'bayer_rggb8'}, r"encoding: got 'bayer_rggb8'; it may be rgb8,.*image_proc"),
    ({'encoding': ''}, "encoding: got ''"),
    ({'encoding': None}, 'encoding: got None'),
    ({'height': 0}, 'size: got 5 x 0; it may be 1 x 1'),
    ({'width': 0}, 'size: got 0 x 6'),
    ({'width': -5}, 'size: got -5 x 6'),
    ({'step': 14}, 'step: got 14; it may be 15 or more'),
    ({'step': 0}, 'step: got 0'),
    ({'step': 16}, r'data: got 90 bytes; it may be 96 \(step 16 x height 6\)'),
    ({'height': 5}, 'data: got 90 bytes; it may be 75'),
    ({'height': 2 ** 32 - 1, 'width': 2 ** 32 - 1, 'step': 2 ** 32 - 1}, 'step: got 4294967295'),
])
def test_says_what_is_wrong(changes, text):
    with pytest.raises(InvalidSampleError, match=text):
        decode(RGB, **{'encoding': 'rgb8', **changes})


@pytest.mark.parametrize(('data', 'text'), [
    (RGB.tobytes()[:-1], 'got 89 bytes; it may be 90'),
    (b'', 'got 0 bytes'),
    (array('B'), 'got 0 bytes'),
    (np.zeros(90, np.float32), 'got float32'),
    ('text', 'got a str'),
    (None, 'got a NoneType'),
])
def test_refuses_data_that_is_no_image(data, text):
    with pytest.raises(InvalidSampleError, match=text):
        decode_image(data, encoding='rgb8', height=6, width=5, step=15)
