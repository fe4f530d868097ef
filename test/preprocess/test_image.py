from __future__ import annotations

from array import array

import cv2
from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.image import decode_image, ENCODINGS
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
def test_takes_every_type_of_bytes(data):
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
    ({'encoding': 'bayer_rgbw8'}, r"encoding: got 'bayer_rgbw8'; expected rgb8,.*image_proc"),
    ({'encoding': ''}, "encoding: got ''"),
    ({'encoding': None}, 'encoding: got None'),
    ({'height': 0}, 'size: got 5 x 0; expected 1 x 1'),
    ({'width': 0}, 'size: got 0 x 6'),
    ({'width': -5}, 'size: got -5 x 6'),
    ({'step': 14}, 'step: got 14; expected 15 or more'),
    ({'step': 0}, 'step: got 0'),
    ({'step': 16}, r'data: got 90 bytes; expected 96 \(step 16 x height 6\)'),
    ({'height': 5}, 'data: got 90 bytes; expected 75'),
    ({'height': 2 ** 32 - 1, 'width': 2 ** 32 - 1, 'step': 2 ** 32 - 1}, 'step: got 4294967295'),
])
def test_reports_what_is_wrong(changes, text):
    with pytest.raises(InvalidSampleError, match=text):
        decode(RGB, **{'encoding': 'rgb8', **changes})


@pytest.mark.parametrize(('data', 'text'), [
    (RGB.tobytes()[:-1], 'got 89 bytes; expected 90'),
    (b'', 'got 0 bytes'),
    (array('B'), 'got 0 bytes'),
    (np.zeros(90, np.float32), 'got float32'),
    ('text', 'got a str'),
    (None, 'got a NoneType'),
])
def test_refuses_data_that_is_no_image(data, text):
    with pytest.raises(InvalidSampleError, match=text):
        decode_image(data, encoding='rgb8', height=6, width=5, step=15)


# Colours that a mosaic or shared chroma of flat areas gives back.
RED, GREEN, BLUE, GREY_90 = (200, 30, 40), (20, 180, 60), (30, 50, 210), (90, 90, 90)
FIELDS = np.array([[RED, GREEN], [BLUE, GREY_90]], np.uint8).repeat(12, 0).repeat(12, 1)
"""Four squares, `[24, 24, 3]`."""
INNER = [np.s_[4:8, 4:8], np.s_[4:8, 16:20], np.s_[16:20, 4:8], np.s_[16:20, 16:20]]


def mosaic(pixels: np.ndarray, pattern: str) -> np.ndarray:
    """Keep of each pixel the one colour that ROS's name gives it: two rows, left to right."""
    out = np.empty(pixels.shape[:2], np.uint8)
    for index, letter in enumerate(pattern):
        row, column = divmod(index, 2)
        out[row::2, column::2] = pixels[row::2, column::2, 'rgb'.index(letter)]
    return out


def assert_same_fields(decoded: np.ndarray, tolerance: int) -> None:
    for inner in INNER:
        near = np.abs(decoded[inner].astype(int) - FIELDS[inner])
        assert near.max() <= tolerance, (decoded[inner][0, 0], FIELDS[inner][0, 0])


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('big_endian', [None, False, True])
@pytest.mark.parametrize('padding', [0, 3])
def test_bayer_patterns_are_named_by_their_first_two_rows(pattern, big_endian, padding):
    raw = mosaic(FIELDS, pattern)
    if big_endian is not None:
        raw = (raw.astype(np.uint16) * 256 + 77).astype('>u2' if big_endian else '<u2')
    rows = np.pad(raw.view(np.uint8).reshape(24, -1), ((0, 0), (0, padding)))
    decoded = decode_image(
        rows.tobytes(), encoding=f'bayer_{pattern}{8 if big_endian is None else 16}', height=24,
        width=24, step=rows.shape[1], is_bigendian=bool(big_endian))
    assert decoded.shape == (24, 24, 3)
    assert_same_fields(decoded, 0)


def to_yuv(pixels: np.ndarray) -> np.ndarray:
    """Return BT.601 luma and chroma, 16 to 235 and 16 to 240, as the standard defines them."""
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0],
                       [112.0, -93.786, -18.214]])
    return np.rint(pixels / 255 @ matrix.T + [16, 128, 128]).astype(np.uint8)


def yuv_rows(encoding: str) -> np.ndarray:
    """Return the rows of bytes of the four squares in a YUV encoding."""
    y, u, v = np.moveaxis(to_yuv(FIELDS), 2, 0)
    first, second = (v, u) if encoding == 'nv21' else (u, v)
    if encoding == 'nv24':
        return np.concatenate([y, np.dstack([u, v]).reshape(48, 24)])
    if encoding in ('nv12', 'nv21'):
        return np.concatenate([y, np.dstack([first, second])[::2, ::2].reshape(12, 24)])
    chroma = np.where(np.arange(24) % 2, v, u)
    pair = (chroma, y) if encoding in ('yuv422', 'uyvy') else (y, chroma)
    return np.dstack(pair).reshape(24, 48)


@pytest.mark.parametrize('encoding', [
    'yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv', 'nv12', 'nv21', 'nv24'])
@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('size', [None, (24, 24)])
def test_luma_and_chroma(encoding, padding, size):
    rows = yuv_rows(encoding)
    if encoding == 'nv24' and padding:
        # The rows of chroma are two rows of luma long.
        luma, chroma = rows[:24], rows[24:].reshape(24, 48)
        data = np.concatenate([np.pad(luma, ((0, 0), (0, padding))).ravel(), np.concatenate([
            np.pad(chroma[:, :24], ((0, 0), (0, padding))),
            np.pad(chroma[:, 24:], ((0, 0), (0, padding)))], 1).ravel()])
    else:
        data = np.pad(rows, ((0, 0), (0, padding)))
    decoded = decode_image(data.tobytes(), encoding=encoding, height=24, width=24,
                           step=rows.shape[1] + padding, size=size)
    assert_same_fields(decoded, 4)


@pytest.mark.parametrize(('encoding', 'width', 'height'), [
    ('yuyv', 5, 4), ('nv12', 4, 5), ('nv21', 5, 4)])
def test_shared_colours_need_even_sizes(encoding, width, height):
    step = 2 * width if encoding == 'yuyv' else width
    rows = height if encoding == 'yuyv' else height * 3 // 2
    with pytest.raises(InvalidSampleError, match='expected even numbers'):
        decode_image(bytes(step * rows), encoding=encoding, height=height, width=width, step=step)


def test_incomplete_planes_are_refused_with_the_number_of_bytes_expected():
    with pytest.raises(InvalidSampleError, match=r'got 16 bytes; expected 24 .* x 1.5 for nv12'):
        decode_image(bytes(16), encoding='nv12', height=4, width=4, step=4)


@pytest.mark.parametrize(('encoding', 'pixels'), [
    ('rgb16', RGB), ('bgr16', BGR), ('16UC3', BGR), ('mono16', GREY), ('16UC1', GREY),
    ('rgba16', np.concatenate([RGB, ALPHA], 2)), ('bgra16', np.concatenate([BGR, ALPHA], 2)),
    ('16UC4', np.concatenate([BGR, ALPHA], 2))])
@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('size', [None, (3, 3)])
def test_of_16_bits_the_high_byte_is_kept(encoding, pixels, order, size):
    wide = (pixels.astype(np.uint16) * 256 + 99).astype(f'{order}u2')
    decoded = decode(wide, encoding, is_bigendian=order == '>', size=size)
    wanted = RGB if pixels.shape[2] > 1 else np.repeat(GREY, 3, 2)
    np.testing.assert_array_equal(decoded, decode(wanted, 'rgb8', size=size))


@pytest.mark.parametrize(('encoding', 'pixels'), [
    ('8UC1', GREY), ('8UC3', BGR), ('8UC4', np.concatenate([BGR, ALPHA], 2))])
def test_opencvs_types_are_taken_as_opencv_takes_them(encoding, pixels):
    wanted = RGB if pixels.shape[2] > 1 else np.repeat(GREY, 3, 2)
    np.testing.assert_array_equal(decode(pixels, encoding), wanted)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_no_size_of_any_encoding_brings_the_process_down(encoding):
    for height, width in ((1, 1), (2, 2), (1, 4), (4, 2), (3, 3), (5, 4)):
        for step in range(1, 40):
            for rows in (height, height * 3 // 2, height * 3):
                try:
                    decoded = decode_image(bytes(step * rows), encoding=encoding, height=height,
                                           width=width, step=step, size=(6, 7))
                    assert decoded.shape == (6, 7, 3)
                except InvalidSampleError:
                    pass


@pytest.mark.parametrize(('encoding', 'remedy'), [
    ('32FC2', 'set flow.source to topic'), ('32FC1', 'colour topic'), ('32SC1', 'image_proc'),
    ('yuv420p', 'image_proc'), ('jpeg', 'rgb.transport')])
def test_other_encodings_come_with_the_way_out(encoding, remedy):
    with pytest.raises(InvalidSampleError, match=f'rgb8, .*{remedy}') as raised:
        decode(RGB, encoding)
    assert len(str(raised.value)) <= 300  # as much as a status tells
