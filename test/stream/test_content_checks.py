"""Messages that decode into wrong data are found through the intake, named, and not used."""

from types import SimpleNamespace as Fields

import cv2
from karmma_ros.clip import AudioSpec, BOX_OBJECT, ClipSpec, NANOSECONDS, VideoSpec
from karmma_ros.modalities import message_types as types
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.stream.availability import ModalityState
from karmma_ros.stream.ingest import MessageIngest, ReceivedMessage
from karmma_ros.stream.settings import make_stream, node_parameters
import numpy as np
import pytest

V, F, A, D = PAPER_MODALITIES
SPECS = {
    'short': ClipSpec(duration=0.8, num_frames=8, video=VideoSpec(16, 16), audio=AudioSpec(
        n_fft=256, win_length=256, hop_length=160, n_mels=32, tiles=2, tile_steps=40)),
    'long': ClipSpec(duration=3.0, num_frames=6, video=VideoSpec(24, 32), audio=AudioSpec(
        sample_rate=8000, n_fft=256, win_length=160, hop_length=80, n_mels=16, tiles=3,
        tile_steps=50)),
}
T0 = 1_700_000_000 * NANOSECONDS


class Robot:
    """An intake and its stream; `now` is in seconds since the start."""

    def __init__(self, spec='short', **values):
        values = {name.replace('__', '.'): value for name, value in values.items()}
        # The same message again and again is what test_content.py is about.
        off = {f'{m}.check_content': False for m in PAPER_MODALITIES
               if modality_type(m).content_check}
        self.values = {**node_parameters(), 'flow.source': 'topic', **off, **values}
        self.spec, self.now = SPECS[spec], 0.0
        self.ingest = MessageIngest(self.values)
        self.stream = self.new_stream()

    def new_stream(self):
        self.stream = make_stream(
            self.spec, PAPER_MODALITIES, self.values, with_topic={Modality.FLOW}
        )
        self.ingest.feed(self.stream)
        return self.stream

    def set(self, **values):
        self.values.update({name.replace('__', '.'): value for name, value in values.items()})
        self.ingest.read_parameters()

    @property
    def now_ns(self):
        return T0 + round(self.now * NANOSECONDS)

    @property
    def header(self):
        sec, nanosec = divmod(self.now_ns, NANOSECONDS)
        return Fields(stamp=Fields(sec=sec, nanosec=nanosec), frame_id='')

    def take(self, modality, type_name, message):
        return self.ingest.add(
            ReceivedMessage(modality, type_name, message, self.spec, self.values),
            self.now_ns,
        )

    def send(self, modality, type_name, make, seconds, hertz=10):
        for _ in range(round(seconds * hertz)):
            self.now += 1 / hertz
            assert self.take(modality, type_name, make(self.header)) == ''

    def status(self, modality):
        return {s.modality: s for s in self.stream.assess(self.now_ns)}[modality]


def image(array, encoding, big_endian=False):
    data = np.ascontiguousarray(array)
    if data.dtype == np.uint16 and big_endian:
        data = data.byteswap()
    step = data.strides[0]
    return lambda header: Fields(
        header=header, height=array.shape[0], width=array.shape[1], step=step, encoding=encoding,
        is_bigendian=int(big_endian), data=data.view(np.uint8).reshape(-1))


def boxes(*corners):
    def make(header):
        result = []
        for x1, y1, x2, y2 in corners:
            center = Fields(x=(x1 + x2) / 2, y=(y1 + y2) / 2, theta=0.0)
            result.append(Fields(results=[], bbox=Fields(
                center=center, size_x=x2 - x1, size_y=y2 - y1)))
        return Fields(header=header, detections=result)
    return make


def random_boxes(width, height, clip=True, seed=0):
    random = np.random.default_rng(seed)

    def make(header):
        x, y = random.uniform(0, width), random.uniform(0, height)
        w, h = random.uniform(0.1, 0.5, 2) * (width, height)
        most = (width, height) if clip else (np.inf, np.inf)
        return boxes((x, y, min(x + w, most[0]), min(y + h, most[1])))(header)
    return make


def audio(rate, seconds=0.05, scale=8000):
    samples = (np.sin(np.arange(round(rate * seconds)) / 9) * scale).astype('<i2')
    return lambda header: Fields(header=header, audio=Fields(data=samples.tobytes()))


SIZE = dict(detections__image_width=640, detections__image_height=480)


@pytest.mark.parametrize('spec', SPECS)
def test_boxes_in_fractions_are_detected_before_they_are_used_and_can_be_set(spec):
    robot = Robot(spec, **SIZE)
    fractions = boxes((0.2, 0.3, 0.4, 0.9), (0.5, 0.5, 1.0, 1.0))
    robot.send(D, types.DETECTIONS, fractions, 1.5)
    status = robot.status(D)
    assert status.state is ModalityState.INVALID and status.dropped == 0
    assert status.detail == status.warning == (
        'all boxes lie within 2 pixels of the corner of the 640 x 480 image: they seem to be '
        'fractions of the image, expected pixels: set detections.normalised to true')
    robot.set(detections__normalised=True)
    robot.send(D, types.DETECTIONS, fractions, 4)
    assert robot.status(D).available and robot.status(D).warning == ''
    result = robot.stream.window(robot.now_ns).samples[D].boxes[-1]
    np.testing.assert_allclose(
        result[:2], [[0.2, 0.3, 0.4, 0.9, BOX_OBJECT], [0.5, 0.5, 1, 1, BOX_OBJECT]], atol=1e-6)


def test_normalised_boxes_need_no_image():
    robot = Robot(detections__normalised=True)
    robot.send(D, types.DETECTIONS, boxes((0.2, 0.3, 0.4, 0.9)), 2)
    assert robot.status(D).available


def test_pixels_read_as_fractions_are_detected():
    robot = Robot(detections__normalised=True)
    robot.send(D, types.DETECTIONS, boxes((20, 30, 400, 90)), 2)
    assert robot.status(D).state is ModalityState.INVALID
    assert robot.status(D).detail == (
        'boxes reach 400, expected fractions of the image in 0..1: set detections.normalised to '
        'false')


def test_a_box_that_leaves_by_the_corner_is_no_fraction():
    robot = Robot(**SIZE)
    for _ in range(4):
        robot.send(D, types.DETECTIONS, boxes((0, 0, 90, 90)), 0.3)
        robot.send(D, types.DETECTIONS, boxes((0, 0, 1.5, 1.8)), 1.6)
        robot.send(D, types.DETECTIONS, boxes(), 2)
    assert robot.status(D).warning == '' and robot.status(D).available


def test_empty_messages_and_boxes_without_extent_are_no_fractions():
    robot = Robot(**SIZE)
    robot.send(D, types.DETECTIONS, boxes(), 3)
    robot.send(D, types.DETECTIONS, boxes((0, 0, 0, 0)), 3)
    assert robot.status(D).warning == ''


def test_it_recovers_when_the_detector_sends_pixels_after_all():
    robot = Robot(**SIZE)
    robot.send(D, types.DETECTIONS, boxes((0.2, 0.3, 0.4, 0.9)), 2)
    robot.send(D, types.DETECTIONS, boxes((20, 30, 40, 90)), 3)
    assert robot.status(D).available and robot.status(D).warning == ''
    for result in robot.stream.window(robot.now_ns).samples[D].boxes:
        np.testing.assert_allclose(result[0, :4] * [640, 480, 640, 480], [20, 30, 40, 90])


def test_boxes_of_a_larger_image_are_a_warning_with_the_size_they_reach():
    robot = Robot(**SIZE)
    robot.send(D, types.DETECTIONS, random_boxes(1280, 720), 5)
    status = robot.status(D)
    assert status.available and 'boxes lie outside of the 640 x 480 image (x ' in status.warning
    assert 'set detections.image_width and detections.image_height' in status.warning
    robot.set(detections__image_width=1280, detections__image_height=720)
    robot.send(D, types.DETECTIONS, random_boxes(1280, 720), 5)
    assert robot.status(D).warning == ''


def test_boxes_that_end_beyond_the_image_are_a_warning():
    robot = Robot(**SIZE)
    robot.send(D, types.DETECTIONS, boxes((300, 200, 900, 400)), 5)
    assert 'boxes end beyond the 640 x 480 image (x 300 to 900, y 200 to 400)' in (
        robot.status(D).warning)


def test_boxes_left_of_the_image_point_to_the_offset():
    robot = Robot(**SIZE)
    robot.send(D, types.DETECTIONS, boxes((-300, 200, -100, 400), (10, 10, 90, 90)), 5)
    assert robot.status(D).warning.endswith('or detections.offset_x and detections.offset_y')


def test_boxes_that_all_end_at_the_size_of_a_detector_are_a_warning():
    robot = Robot(**SIZE)
    robot.send(D, types.DETECTIONS, random_boxes(300, 300), 8)
    assert 'all boxes lie within 300 x 300 of the 640 x 480 image' in robot.status(D).warning


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize(('width', 'height', 'clip'), [
    (640, 480, True), (310, 333, True), (300, 200, False), (600, 440, False)])
def test_boxes_of_the_right_size_are_no_warning(width, height, clip, seed):
    robot = Robot(**SIZE)
    make = random_boxes(width * (1 if clip else 0.5), height * (1 if clip else 0.5), clip, seed)
    robot.send(D, types.DETECTIONS, make, 20)
    assert robot.status(D).warning == '' and robot.status(D).available


def test_an_offset_moves_the_boxes_of_a_crop_into_the_image():
    # A camera of 640 x 480; the detector works on its middle 480 x 480, as 240 x 240 pixels.
    robot = Robot(detections__image_width=320, detections__image_height=240,
                  detections__offset_x=40.0)
    robot.send(D, types.DETECTIONS, boxes((0, 60, 120, 240)), 2)
    np.testing.assert_allclose(
        robot.stream.window(robot.now_ns).samples[D].boxes[-1][0, :4], [0.125, 0.25, 0.5, 1.0])


DIM = np.random.default_rng(0).integers(100, 1024, (48, 64, 3)).astype(np.uint16)
DIM[0, 0] = 1023
WIDE = {
    'rgb16': DIM, 'bgr16': DIM, 'mono16': DIM[..., :1], '16UC1': DIM[..., :1], '16UC3': DIM,
    'rgba16': np.dstack([DIM, np.full(DIM.shape[:2], 65_535, np.uint16)]),
    'bayer_rggb16': DIM[..., :1], 'bayer_gbrg16': DIM[..., 1:2],
}


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('encoding', WIDE)
def test_ten_bit_values_in_sixteen_are_detected_and_can_be_set(encoding, big_endian):
    robot = Robot('long')
    robot.send(V, types.IMAGE, image(WIDE[encoding], encoding, big_endian), 8)
    status = robot.status(V)
    assert status.available and status.warning == (
        f'images are nearly black: largest value 1023 of 65535 ({encoding}); the camera probably '
        'sends 10 bit values: set rgb.bits (10)' + (
            ', or remap image if this topic is depth' if encoding in ('mono16', '16UC1') else ''))
    robot.set(rgb__bits=10)
    robot.send(V, types.IMAGE, image(WIDE[encoding], encoding, big_endian), 5)
    assert robot.status(V).warning == ''
    shown = robot.stream.window(robot.now_ns).samples[V].frames[-1].image
    assert 120 < shown.mean() < 160, 'the values take the whole range'


@pytest.mark.parametrize(('most', 'bits'), [(255, 8), (900, 10), (4095, 12), (3000, 12)])
def test_the_bits_proposed_hold_the_largest_value(most, bits):
    robot = Robot()
    values = np.full((24, 32, 3), most, np.uint16)
    robot.send(V, types.IMAGE, image(values, 'rgb16'), 4)
    assert f'largest value {most} of 65535' in robot.status(V).warning
    assert robot.status(V).warning.endswith(f'set rgb.bits ({bits})')


def test_ten_bit_values_in_a_png_are_detected_and_can_be_set():
    def make(header):
        return Fields(header=header, format='rgb16; png compressed bgr16',
                      data=cv2.imencode('.png', DIM)[1].reshape(-1))
    robot = Robot()
    robot.send(V, types.COMPRESSED_IMAGE, make, 4)
    assert robot.status(V).warning.endswith(
        'largest value 1023 of 65535 (16 bit PNG); the camera probably sends 10 bit values: set '
        'rgb.bits (10)')
    robot.set(rgb__bits=10)
    robot.send(V, types.COMPRESSED_IMAGE, make, 2)
    assert robot.status(V).warning == ''
    assert robot.stream.window(robot.now_ns).samples[V].frames[-1].image.mean() > 100


@pytest.mark.parametrize(('array', 'encoding'), [
    (DIM * 64, 'rgb16'), (np.zeros((24, 32, 1), np.uint16), 'mono16'),
    (np.full((24, 32, 3), 3, np.uint8), 'rgb8'), (np.full((24, 32, 1), 2, np.uint8), 'mono8')])
def test_images_that_use_their_range_or_are_dark_in_eight_bits_are_no_warning(array, encoding):
    robot = Robot()
    robot.send(V, types.IMAGE, image(array, encoding), 6)
    assert robot.status(V).warning == '' and robot.status(V).available


def test_a_single_bright_image_is_no_warning_and_a_bright_scene_ends_one():
    robot = Robot()
    robot.send(V, types.IMAGE, image(DIM, 'rgb16'), 2.5)
    robot.send(V, types.IMAGE, image(DIM * 60, 'rgb16'), 0.2)
    robot.send(V, types.IMAGE, image(DIM, 'rgb16'), 2.5)
    assert robot.status(V).warning == ''
    robot.send(V, types.IMAGE, image(DIM, 'rgb16'), 2)
    assert robot.status(V).warning
    robot.send(V, types.IMAGE, image(DIM * 60, 'rgb16'), 1)
    assert robot.status(V).warning == ''


def test_values_above_the_bits_that_are_set_are_detected():
    robot = Robot(rgb__bits=10)
    robot.send(V, types.IMAGE, image(DIM * 4, 'rgb16'), 5)
    assert robot.status(V).warning == (
        'largest value 4092 in rgb16 images, expected up to 1023 with rgb.bits 10: set rgb.bits '
        '(12)')


def test_flow_larger_than_the_image_is_not_used():
    def flow(value):
        field = np.full((24, 32, 2), value, np.float32)
        return image(field, '32FC2')
    robot = Robot()
    robot.send(F, types.IMAGE, flow(12.0), 2)
    assert robot.status(F).available and robot.status(F).warning == ''
    robot.send(F, types.IMAGE, flow(-500.0), 2)
    assert robot.status(F).state is ModalityState.INVALID
    assert 'times the width of the image on average, expected pixels' in robot.status(F).detail
    robot.send(F, types.IMAGE, flow(0.0), 2)
    assert robot.status(F).available


@pytest.mark.parametrize('spec', SPECS)
def test_audio_at_another_rate_is_not_used_until_the_parameter_is_right(spec):
    robot = Robot(spec)
    for _ in range(80):
        robot.send(A, types.AUDIO_DATA_STAMPED, audio(48_000), 0.05, hertz=20)
        assert not (robot.now > 1 and robot.status(A).available)
    assert robot.status(A).state is ModalityState.INVALID
    assert robot.status(A).detail == (
        'audio comes at about 48000 samples per second, expected 16000: set audio.sample_rate '
        '(48000) or audio.channels (3)')
    robot.set(audio__sample_rate=48_000)
    robot.send(A, types.AUDIO_DATA_STAMPED, audio(48_000), 4, hertz=20)
    assert robot.status(A).available and robot.status(A).warning == ''
    valid = robot.stream.window(robot.now_ns)
    assert 0 <= valid.end_ns - robot.now_ns <= 51_000_000, 'nothing lies farther ahead'


def test_audio_info_that_comes_late_ends_the_finding_and_clears_what_was_read_otherwise():
    robot = Robot()
    robot.send(A, types.AUDIO_DATA_STAMPED, audio(48_000), 3, hertz=20)
    assert robot.status(A).warning
    robot.ingest.apply_info(A, Fields(
        sample_rate=48_000, channels=1, sample_format='S16LE', coding_format='wave'))
    robot.send(A, types.AUDIO_DATA_STAMPED, audio(48_000), 0.1, hertz=20)
    assert robot.status(A).state is ModalityState.INSUFFICIENT and not robot.status(A).warning
    robot.send(A, types.AUDIO_DATA_STAMPED, audio(48_000), 2, hertz=20)
    assert robot.status(A).available


def test_a_new_stream_knows_the_findings_and_a_new_start_does_not():
    robot = Robot(**SIZE)
    robot.send(D, types.DETECTIONS, boxes((0.2, 0.3, 0.4, 0.9)), 2)
    robot.new_stream()
    assert robot.status(D).warning
    robot.ingest.reset()
    assert robot.status(D).warning == ''
