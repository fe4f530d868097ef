from __future__ import annotations

from karmma_ros.clip import VideoSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.preprocess.resize import resize_and_crop, resize_and_crop_vectors, video_input
import numpy as np
import pytest

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize('source', [(480, 640), (640, 480), (20, 300), (7, 5), (1, 1), (64, 64)])
@pytest.mark.parametrize('size', [(64, 64), (48, 80), (1, 1)])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_gives_the_size_asked_for(source, size, channels):
    image = RANDOM.integers(0, 256, (*source, channels), dtype=np.uint8)
    assert resize_and_crop(image, *size).shape == (*size, channels)


def test_keeps_the_centre_of_the_long_side():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    np.testing.assert_array_equal(resize_and_crop(image, 5, 5), 200)
    np.testing.assert_array_equal(resize_and_crop(image.transpose(1, 0, 2), 5, 5), 200)


def test_averages_when_shrinking():
    dots = np.zeros((16, 16, 3), np.uint8)
    dots[::4, ::4] = 160
    np.testing.assert_array_equal(resize_and_crop(dots, 4, 4), 10)


def test_interpolates_when_growing():
    image = np.array([[0, 200]], np.uint8).repeat(2, 0)[..., None].repeat(3, 2)
    row = resize_and_crop(image, 4, 4)[0, :, 0]
    np.testing.assert_array_equal(row, [0, 50, 150, 200])


def test_right_size_is_not_touched():
    image = RANDOM.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    assert resize_and_crop(image, 8, 9) is image


def test_normalises_by_the_formula():
    spec = VideoSpec(height=5, width=4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    frames = RANDOM.integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    got = video_input(frames, spec)
    wanted = (frames / 255.0 - np.array(spec.mean)) / np.array(spec.std)
    assert got.shape == (3, 3, 5, 4) and got.dtype == np.float32
    np.testing.assert_allclose(got, wanted.transpose(3, 0, 1, 2), atol=1e-6)


@pytest.mark.parametrize(('frames', 'text'), [
    (np.zeros((2, 5, 5, 3), np.uint8), r'\[2, 5, 5, 3\]; expected uint8 \[t, 5, 4, 3\]'),
    (np.zeros((2, 5, 4, 3), np.float32), 'got float32'),
    (np.zeros((0, 5, 4, 3), np.uint8), 'none of them empty'),
    (None, 'got a NoneType'),
])
def test_refuses_frames_of_another_type(frames, text):
    with pytest.raises(InvalidSampleError, match=text):
        video_input(frames, VideoSpec(height=5, width=4))


@pytest.mark.parametrize(('image', 'size', 'text'), [
    (np.zeros((0, 4, 3), np.uint8), (2, 2), r'image: got uint8 \[0, 4, 3\]'),
    (np.zeros((4, 4), np.uint8), (2, 2), r'\[h, w, c\]'),
    (np.zeros((4, 4, 3), np.float64), (2, 2), 'float64'),
    (np.zeros((4, 4, 3), np.uint8), (0, 2), 'crop size: got 0 x 2'),
])
def test_refuses_images_of_another_type(image, size, text):
    with pytest.raises(InvalidSampleError, match=text):
        resize_and_crop(image, *size)


@pytest.mark.parametrize(('height', 'width'), [(12, 20), (8, 30)])
def test_vectors_are_cropped_where_nothing_is_scaled(height, width):
    """A field with one side of the crop's length is cut at the other."""
    field = np.random.default_rng(0).normal(0, 1, (height, width, 2)).astype(np.float32)
    top, left = (height - 8) // 2, (width - 20) // 2
    np.testing.assert_array_equal(
        resize_and_crop_vectors(field, 8, 20), field[top:top + 8, left:left + 20])
