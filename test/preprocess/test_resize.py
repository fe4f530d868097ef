from __future__ import annotations

from karmma_ros.clip import VideoSpec
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.preprocess.resize import (
    crop_unless_cropped,
    resize_and_crop,
    resize_and_crop_vectors,
    video_input,
)
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


def test_resizes_the_short_side_before_the_crop():
    """Of a short side of 256 a crop of 224 leaves 16 pixels at either end."""
    image = RANDOM.integers(0, 256, (256, 340, 3), dtype=np.uint8)
    size = VideoSpec(resize=(256,)).crop_size
    np.testing.assert_array_equal(resize_and_crop(image, *size), image[16:240, 58:282])
    twice = image.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(resize_and_crop(twice, *size), image[16:240, 58:282])
    np.testing.assert_array_equal(
        resize_and_crop(twice.transpose(1, 0, 2), *size), image[16:240, 58:282].transpose(1, 0, 2))


def test_resizes_both_sides_before_the_crop():
    """R(2+1)D sees a frame of any shape as 128 x 171, whose centre is cropped."""
    image = RANDOM.integers(0, 256, (128, 171, 3), dtype=np.uint8)
    size = VideoSpec(112, 112, resize=(128, 171)).crop_size
    expected = image[8:120, 29:141]
    np.testing.assert_array_equal(resize_and_crop(image, *size), expected)
    np.testing.assert_array_equal(resize_and_crop(image.repeat(3, 0), *size), expected)


def test_a_camera_of_the_size_of_the_crop_is_resized_too():
    image = np.arange(224, dtype=np.uint8)[None, :, None].repeat(224, 0).repeat(3, 2)
    size = VideoSpec(resize=(256,)).crop_size
    assert resize_and_crop(image, *size)[0, 0, 0] == 14  # 224 * 16 / 256
    assert crop_unless_cropped(image, size) is image


def test_vectors_are_resized_with_their_image():
    field = np.full((128, 200, 2), (3, 4), np.float32)
    cropped = resize_and_crop_vectors(field, 224, 224, (256,))
    np.testing.assert_allclose(cropped, np.broadcast_to([6, 8], (224, 224, 2)), rtol=1e-6)


@pytest.mark.parametrize('resize', [(200,), (256, 200), (256, 256, 256), 256, (256.5,), ('256',)])
def test_refuses_a_resize_that_the_crop_does_not_fit(resize):
    with pytest.raises(InvalidSettingError, match='clip.video.resize'):
        VideoSpec(resize=resize)
