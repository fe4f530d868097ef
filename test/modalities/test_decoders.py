"""Message fields to arrays, and what is refused."""

from array import array
from types import SimpleNamespace

import cv2
from karmma_ros.clip import BOX_HAND, BOX_OBJECT
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modalities.audio import AudioDecoder, StampedAudioDecoder
from karmma_ros.modalities.detections import DetectionDecoder
from karmma_ros.modalities.flow import read_flow
from karmma_ros.modalities.modality_type import stamp_ns_of
from karmma_ros.modalities.rgb import read_compressed_image, read_image
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


def test_boxes_become_corners_in_units_of_the_camera_image_best_first():
    reader = DetectionDecoder()
    reader.camera_size = 100, 50
    result = boxes(reader, detection(50, 25, 20, 10, ('cup', 0.4)),
                  detection(10, 10, 20, 20, ('left_hand', 0.9)))
    np.testing.assert_allclose(
        result, [[0, 0, 0.2, 0.4, BOX_HAND], [0.4, 0.4, 0.6, 0.6, BOX_OBJECT]], atol=1e-6)
    assert result.dtype == np.float32


def test_the_detectors_own_image_size_comes_first():
    reader = DetectionDecoder(width=200, height=100)
    reader.camera_size = 100, 50
    assert boxes(reader, detection(50, 25, 20, 10, ('cup', 1)))[0, 2] == pytest.approx(0.3)


def test_the_best_hypothesis_names_the_class():
    reader = DetectionDecoder(['39'])
    reader.camera_size = 100, 100
    result = boxes(reader, detection(50, 50, 2, 2, ('7', 0.2), ('39', 0.7)), detection(5, 5, 2, 2))
    assert result[:, 4].tolist() == [BOX_HAND, BOX_OBJECT]


def test_no_boxes_are_fresh_data_even_before_the_first_image():
    assert boxes(DetectionDecoder()).shape == (0, 5)


def test_without_a_image_size_boxes_are_refused_with_the_way_out():
    with pytest.raises(InvalidSampleError, match='set detections.image_width'):
        boxes(DetectionDecoder(), detection(5, 5, 2, 2, ('cup', 1)))


@pytest.mark.parametrize('box', [
    (float('nan'), 5, 2, 2), (5, 5, -2, 2), (5, 5, 2, -0.1), (5, float('inf'), 2, 2),
    (5, 5, float('nan'), 2),
])
def test_impossible_boxes_are_refused(box):
    reader = DetectionDecoder()
    reader.camera_size = 100, 100
    with pytest.raises(InvalidSampleError, match='boxes'):
        boxes(reader, detection(*box, ('cup', 1)))


def test_audio_is_mixed_to_one_channel():
    reader = AudioDecoder(48_000, 2, 'S16LE')
    stereo = np.array([[16384, 0], [-16384, -16384]], '<i2').tobytes()
    np.testing.assert_allclose(reader(stereo), [0.25, -0.5])
    assert reader.sample_rate == 48_000


@pytest.mark.parametrize('name', ['mp3', 'S17LE', ''])
def test_a_format_that_cannot_be_decoded_fails_at_once(name):
    with pytest.raises(InvalidSettingError, match='audio.sample_format'):
        AudioDecoder(16_000, 1, name)


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


@pytest.mark.parametrize(('summary', 'predictions'), [
    (info(sample_rate=44_100), 'audio.sample_rate is 16000, but audio_info has 44100, which is'),
    (info(channels=2), 'audio.channels is 1, but audio_info has 2'),
    (info(sample_format='F32LE'), 'audio.sample_format is S16LE, but audio_info has F32LE'),
    (info(), ''), (info(0, 0, '', ''), ''), (info(sample_format='s16le'), ''),
])
def test_the_format_that_the_driver_states_has_priority_over_the_parameters(summary, predictions):
    reader = AudioDecoder(16_000, 1, 's16le')
    assert reader.apply_info(summary).startswith(predictions) and bool(predictions) == bool(
        reader.apply_info(summary)
    )
    assert reader.sample_rate == (summary.sample_rate or 16_000)
    number = {'F32LE': np.float32(0.25), 'S16LE': np.int16(8192)}[
        (summary.sample_format or 'S16LE').upper()]
    data = np.full(4 * (summary.channels or 1), number).tobytes()
    np.testing.assert_array_equal(reader(data), np.full(4, 0.25, np.float32))


def test_the_newest_word_of_the_driver_counts():
    reader = AudioDecoder(16_000, 1, 'S16LE')
    reader.apply_info(info(48_000, 2, 'S32LE'))
    assert len(reader(bytes(64))) == 8 and str(reader) == 'S32LE, 48000 Hz, 2 channels'
    reader.apply_info(info(22_050))
    assert len(reader(bytes(64))) == 32 and str(reader) == 'S16LE, 22050 Hz, 1 channel'


def test_compressed_audio_is_refused_until_the_driver_publishes_other():
    reader = AudioDecoder(16_000, 1, 'S16LE')
    assert 'start it with format:=wave' in reader.apply_info(info(coding_format='mp3'))
    with pytest.raises(InvalidSampleError, match='driver sends mp3; start it with format:=wave'):
        reader(bytes(64))
    reader.apply_info(info())
    assert len(reader(bytes(64))) == 32


def test_a_format_of_the_driver_that_cannot_be_read_is_named():
    reader = AudioDecoder(16_000, 1, 'S16LE')
    reader.apply_info(info(sample_format='S24_32LE'))
    with pytest.raises(InvalidSampleError, match="audio sample format: got 'S24_32LE'"):
        reader(bytes(64))


FIELDS = ('float32_data', 'int32_data', 'int16_data', 'int8_data', 'uint8_data')
STATED = {
    1: ('float32_data', array('f', [0.5, -0.5, 0.25, 0.25])),
    2: ('int32_data', array('i', [2 ** 30, -2 ** 30, 2 ** 29, 2 ** 29])),
    8: ('int16_data', array('h', [2 ** 14, -2 ** 14, 2 ** 13, 2 ** 13])),
    16: ('int8_data', array('b', [64, -64, 32, 32])),
    32: ('uint8_data', array('B', [192, 64, 160, 160])),
}


def audio_stamped(number, channels, rate, **data):
    empty = dict.fromkeys(FIELDS, array('b'))
    return SimpleNamespace(audio=SimpleNamespace(
        audio_data=SimpleNamespace(**{**empty, **data}),
        info=SimpleNamespace(format=number, channels=channels, rate=rate, chunk=2)))


@pytest.mark.parametrize('number', STATED)
@pytest.mark.parametrize('case', [lambda data: data, np.array])
def test_audio_that_states_its_format(number, case):
    field, data = STATED[number]
    reader = StampedAudioDecoder()
    mono = reader(audio_stamped(number, 1, 16_000, **{field: case(data)}))
    np.testing.assert_allclose(mono, [0.5, -0.5, 0.25, 0.25])
    stereo = reader(audio_stamped(number, 2, 48_000, **{field: case(data)}))
    np.testing.assert_allclose(stereo, [0, 0.25])
    assert reader.sample_rate == 48_000 and '48000 Hz, 2 channel' in str(reader)


@pytest.mark.parametrize(('message', 'text'), [
    (audio_stamped(4, 1, 16_000), 'audio.info.format: got 4; expected .*1 .F32.'),
    (audio_stamped(8, 0, 16_000, int16_data=array('h', [1])), 'audio channels: got 0'),
    (audio_stamped(8, 2, 16_000, int16_data=array('h', [1])), 'multiple of 4'),
    (audio_stamped(8, 1, 16_000, float32_data=array('f', [1])), 'got 0 bytes'),
    (audio_stamped(1, 1, 16_000, float32_data=array('f', [float('nan')])), 'NaN'),
])
def test_audio_whose_format_does_not_fit_is_refused(message, text):
    with pytest.raises(InvalidSampleError, match=text):
        StampedAudioDecoder()(message)


def test_boxes_are_left_out_by_class_and_score():
    reader = DetectionDecoder(['', '0'], 100, 100, ignored_classes=['', 'person'], min_score=0.3)
    result = boxes(reader, detection(50, 50, 2, 2, ('person', 0.9)),
                  detection(50, 50, 4, 2, ('cup', 0.2)), detection(50, 50, 6, 2, ('', 0.5)),
                  detection(50, 50, 8, 2, ('0', 0.3)))
    assert [round(100 * (b[2] - b[0])) for b in result] == [6, 8]
    assert result[:, 4].tolist() == [BOX_OBJECT, BOX_HAND]


def test_boxes_that_are_left_out_need_no_image_size():
    reader = DetectionDecoder(ignored_classes=['person'])
    assert boxes(reader, detection(50, 50, 2, 2, ('person', 0.9))).shape == (0, 5)


def test_a_score_that_is_no_number_counts_as_none():
    result = [detection(50, 50, 2, 2, ('cup', float('nan'))), detection(50, 50, 4, 2, ('cup', .1))]
    assert len(boxes(DetectionDecoder((), 100, 100), *result)) == 2
    assert len(boxes(DetectionDecoder((), 100, 100, min_score=0.05), *result)) == 1


def test_boxes_beside_the_image_are_left_out_and_those_across_its_border_cropped():
    result = boxes(DetectionDecoder((), 100, 50), detection(-10, 20, 10, 10, ('a', 1)),
                  detection(150, 20, 10, 10, ('b', 1)), detection(0, 50, 20, 20, ('c', 1)),
                  detection(50, 80, 20, 20, ('d', 1)))
    np.testing.assert_allclose(result[:, :4], [[0, 0.8, 0.1, 1]], atol=1e-6)


def test_a_box_at_an_angle_is_held_by_an_upright_one():
    turned = detection(50, 50, 40, 20, ('cup', 1))
    turned.bbox.center.theta = np.pi / 2
    result = boxes(DetectionDecoder((), 100, 100), turned)
    np.testing.assert_allclose(result[0, :4], [0.4, 0.3, 0.6, 0.7], atol=1e-6)


def test_a_flood_of_boxes_is_refused_before_it_is_sorted():
    message = SimpleNamespace(detections=[None] * 5001)
    with pytest.raises(InvalidSampleError, match='boxes: got 5001; expected 5000'):
        DetectionDecoder((), 100, 100)(message)


def test_the_layout_of_old_bags():
    old = SimpleNamespace(
        bbox=SimpleNamespace(center=SimpleNamespace(x=50.0, y=25.0, theta=0.0), size_x=20.0,
                             size_y=10.0),
        results=[SimpleNamespace(id='hand', score=0.5, pose=None)])
    new = detection(50, 25, 20, 10, ('hand', 0.5))
    reader = DetectionDecoder((), 100, 50)
    np.testing.assert_array_equal(boxes(reader, old), boxes(reader, new))


def test_a_flow_message_is_in_pixels_of_the_crop():
    field = np.zeros((20, 40, 2), np.float32)
    field[..., 0], field[..., 1] = 4, -2
    message = SimpleNamespace(data=field.tobytes(), encoding='32FC2', height=20, width=40,
                              step=320, is_bigendian=0)
    np.testing.assert_allclose(read_flow(message, (10, 10)), np.tile([2, -1], (10, 10, 1)))


def test_a_compressed_image_is_cropped_and_its_size_returned():
    ok, data = cv2.imencode('.png', np.zeros((12, 16, 3), np.uint8))
    message = SimpleNamespace(data=array('B', data.tobytes()), format='rgb8; png compressed bgr8')
    image, size = read_compressed_image(message, (4, 4))
    assert image.shape == (4, 4, 3) and size == (12, 16)


def test_the_layout_of_yolo_msgs_whose_classes_go_by_their_names():
    def yolo(name, score=0.5, number=7):
        return SimpleNamespace(
            class_name=name, class_id=number, score=score, bbox=SimpleNamespace(
                center=SimpleNamespace(position=SimpleNamespace(x=50.0, y=25.0), theta=0.0),
                size=SimpleNamespace(x=20.0, y=10.0)))
    reader = DetectionDecoder(['paw', '7'], 100, 50, ignored_classes=['cup'], min_score=0.2)
    same = detection(50, 25, 20, 10, ('left hand', 0.5))
    np.testing.assert_array_equal(boxes(reader, yolo('left hand')), boxes(reader, same))
    result = boxes(reader, yolo('paw', 0.9), yolo('fork', 0.8), yolo('cup', 0.7), yolo('', 0.6),
                  yolo('spoon', 0.1))
    assert result[:, 4].tolist() == [BOX_HAND, BOX_OBJECT, BOX_HAND]
    assert boxes(reader, yolo('fork', float('nan'))).shape == (0, 5)
