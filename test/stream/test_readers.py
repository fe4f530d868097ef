"""Message fields to arrays, and what is refused."""

from types import SimpleNamespace

from karmma_ros.clip import BOX_HAND, BOX_OBJECT
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.stream.readers import AudioReader, DetectionReader, read_image, stamp_ns_of
import numpy as np
import pytest


def detection(x, y, size_x, size_y, *hypotheses):
    return SimpleNamespace(
        bbox=SimpleNamespace(
            center=SimpleNamespace(position=SimpleNamespace(x=x, y=y)), size_x=size_x,
            size_y=size_y),
        results=[SimpleNamespace(hypothesis=SimpleNamespace(class_id=c, score=s))
                 for c, s in hypotheses])


def boxes(reader, *detections):
    return reader(SimpleNamespace(detections=list(detections)))


def test_boxes_become_corners_in_units_of_the_camera_picture_best_first():
    reader = DetectionReader()
    reader.camera_size = 100, 50
    found = boxes(reader, detection(50, 25, 20, 10, ('cup', 0.4)),
                  detection(10, 10, 20, 20, ('left_hand', 0.9)))
    np.testing.assert_allclose(
        found, [[0, 0, 0.2, 0.4, BOX_HAND], [0.4, 0.4, 0.6, 0.6, BOX_OBJECT]], atol=1e-6)
    assert found.dtype == np.float32


def test_the_detectors_own_picture_size_comes_first():
    reader = DetectionReader(width=200, height=100)
    reader.camera_size = 100, 50
    assert boxes(reader, detection(50, 25, 20, 10, ('cup', 1)))[0, 2] == pytest.approx(0.3)


def test_the_best_hypothesis_names_the_class():
    reader = DetectionReader(['39'])
    reader.camera_size = 100, 100
    found = boxes(reader, detection(50, 50, 2, 2, ('7', 0.2), ('39', 0.7)), detection(5, 5, 2, 2))
    assert found[:, 4].tolist() == [BOX_HAND, BOX_OBJECT]


def test_no_boxes_are_fresh_data_even_before_a_picture_came():
    assert boxes(DetectionReader()).shape == (0, 5)


def test_without_a_picture_size_boxes_are_refused_with_the_way_out():
    with pytest.raises(InvalidSampleError, match='set detections.image_width'):
        boxes(DetectionReader(), detection(5, 5, 2, 2, ('cup', 1)))


@pytest.mark.parametrize('box', [
    (float('nan'), 5, 2, 2), (5, 5, -2, 2), (5, 5, 2, -0.1), (5, float('inf'), 2, 2),
    (5, 5, float('nan'), 2),
])
def test_impossible_boxes_are_refused(box):
    reader = DetectionReader()
    reader.camera_size = 100, 100
    with pytest.raises(InvalidSampleError, match='boxes'):
        boxes(reader, detection(*box, ('cup', 1)))


def test_sound_is_mixed_to_one_channel():
    reader = AudioReader(48_000, 2, 'S16LE')
    stereo = np.array([[16384, 0], [-16384, -16384]], '<i2').tobytes()
    np.testing.assert_allclose(reader(stereo), [0.25, -0.5])
    assert reader.sample_rate == 48_000


@pytest.mark.parametrize('name', ['mp3', 'S17LE', ''])
def test_a_format_that_cannot_be_decoded_fails_at_once(name):
    with pytest.raises(InvalidSettingError, match='audio.sample_format'):
        AudioReader(16_000, 1, name)


def test_stamps_are_nanoseconds_and_not_before_1970():
    header = SimpleNamespace(stamp=SimpleNamespace(sec=2, nanosec=5))
    assert stamp_ns_of(header) == 2_000_000_005
    header.stamp.sec = -1
    with pytest.raises(InvalidSampleError, match='header.stamp'):
        stamp_ns_of(header)


def test_an_image_is_cropped_to_the_models_size():
    message = SimpleNamespace(
        data=bytes(range(4 * 8 * 3)), encoding='bgr8', height=4, width=8, step=24,
        is_bigendian=0)
    image = read_image(message, (4, 4))
    np.testing.assert_array_equal(image[0, 0], [8, 7, 6])
    message.step = 23
    with pytest.raises(InvalidSampleError, match='image step'):
        read_image(message, (4, 4))


def info(sample_rate=16_000, channels=1, sample_format='S16LE', coding_format='wave'):
    return SimpleNamespace(sample_rate=sample_rate, channels=channels,
                           sample_format=sample_format, coding_format=coding_format)


@pytest.mark.parametrize(('told', 'sentence'), [
    (info(sample_rate=44_100), 'audio.sample_rate is 16000, but audio_info says 44100'),
    (info(channels=2), 'audio.channels is 1, but audio_info says 2'),
    (info(sample_format='F32LE'), 'audio.sample_format is S16LE, but audio_info says F32LE'),
    (info(coding_format='mp3'), 'start it with format:=wave'),
])
def test_sound_is_refused_while_the_driver_says_it_sends_another_format(told, sentence):
    reader = AudioReader(16_000, 1, 's16le')
    reader.compare(told)
    with pytest.raises(InvalidSampleError, match=sentence):
        reader(b'\0' * 64)
    reader.compare(info())
    assert len(reader(b'\0' * 64)) == 32
