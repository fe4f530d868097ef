"""Samples that are valid and show nothing are found, named with figures, and masked."""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace as Fields

from karmma_ros.clip import AudioSpec, ClipSpec, NANOSECONDS, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import message_types as types
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.content_check import ContentCheck
from karmma_ros.modalities.imu import IMU
from karmma_ros.modalities.joint_state import JOINT_STATE
from karmma_ros.modalities.skeleton import POSES
from karmma_ros.modality import load_type, Modality, REGISTRY
from karmma_ros.stream.availability import ModalityState
from karmma_ros.stream.settings import input_settings
from modality_rig import header, ModalityRig, point
import numpy as np
import pytest

SPEC = ClipSpec(duration=2.0, num_frames=16, video=VideoSpec(40, 40), audio=AudioSpec(
    n_fft=256, win_length=256, hop_length=160, n_mels=16, tiles=1, tile_steps=50))
UNINFORMATIVE = ModalityState.UNINFORMATIVE
RANDOM = np.random.default_rng(0)
Y, X = np.mgrid[0:96, 0:128] / 96
OBJECTS = ((np.sin(9 * X) > 0.3) ^ (np.cos(7 * Y + 2 * X) > 0)) * 150.0 + 30


def camera(levels, noise=0.0, tint=(1.0, 1.0, 1.0)):
    """Return an image message of grey levels `[h, w]`, with sensor noise."""
    image = np.asarray(levels, np.float64)[..., None] * np.array(tint)
    image = np.broadcast_to(image, (*Y.shape, 3))
    image = np.clip(image + RANDOM.normal(0, noise, image.shape), 0, 255).astype(np.uint8)
    return lambda stamp: Fields(
        header=stamp, height=96, width=128, step=384, encoding='rgb8', is_bigendian=0,
        data=image.reshape(-1))


def microphone(samples):
    """Return an audio message of samples in [-1, 1]."""
    data = np.clip(np.round(np.asarray(samples) * 32768), -32768, 32767).astype('<i2').tobytes()
    return lambda stamp: Fields(header=stamp, audio=Fields(data=data))


def hiss(level_db, samples=512):
    return RANDOM.normal(0, 10 ** (level_db / 20), samples)


class Sensors(ModalityRig):
    """Inputs that are fed for some seconds, 30 frames and 31 chunks of audio a second."""

    def play(self, seconds, name, make, type_name, hertz=30.0):
        """Send messages; return the statuses after each."""
        statuses = []
        for _ in range(round(seconds * hertz)):
            self.now_ns += round(NANOSECONDS / hertz)
            assert self.take(name, type_name, make()(header(self.now_ns))) == ''
            statuses.append(self.status(name))
        return statuses

    def camera(self, seconds, make):
        return self.play(seconds, 'rgb', make, types.IMAGE)

    def microphone(self, seconds, make):
        return self.play(seconds, 'audio', make, types.AUDIO_DATA_STAMPED, 31.25)


def lit():
    return camera(OBJECTS, 3)


LEAK = np.exp(-X / 0.2)
COVERED = {
    'black': lambda: camera(0 * X),
    'noise': lambda: camera(0 * X + 3, 2),
    'strong noise': lambda: camera(0 * X + 2, 10),
    'light from the side': lambda: camera(3 + 40 * LEAK, 4),
    'light from a corner': lambda: camera(3 + 60 * np.exp(-np.hypot(X, Y) / 0.3), 2),
    'a finger that glows': lambda: camera(30 + 20 * X, 2, (2.0, 0.5, 0.3)),
}
DARK = {
    'evening': lambda: camera(OBJECTS * 0.2, 3),
    'night': lambda: camera(OBJECTS * 0.06, 4),
    'a light in the dark': lambda: camera(200 * (np.hypot(X - 0.6, Y - 0.5) < 0.05), 3),
}


@pytest.mark.parametrize('covered', COVERED.values(), ids=COVERED)
def test_a_covered_lens_is_black_within_a_second_and_back_within_a_window(covered):
    rig = Sensors(SPEC, 'rgb', 'flow')
    assert all(s.state is not UNINFORMATIVE for s in rig.camera(3, lit))
    assert rig.available == 'V F'
    states = [s.state for s in rig.camera(2, covered)]
    assert UNINFORMATIVE in states[:30] and set(states[30:]) == {UNINFORMATIVE}
    status = rig.status('rgb')
    assert status.detail.startswith('black: mean ') and status.detail.endswith(' for 2.0 s')
    assert status.warning and status.warning in status.detail
    assert rig.status('flow').detail == f'derived from the camera: {status.detail}'
    assert rig.available == '' and rig.stream.window(rig.now_ns) is None
    assert rig.camera(2, lit)[-1].available and rig.status('rgb').warning == ''
    images = np.stack(rig.stream.window(rig.now_ns).samples[Modality.RGB].images)
    assert images.mean(axis=(1, 2, 3)).min() > 60  # none of the covered lens


@pytest.mark.parametrize('dark', DARK.values(), ids=DARK)
def test_in_the_dark_the_camera_stays(dark):
    rig = Sensors(SPEC, 'rgb')
    rig.camera(3, dark)
    assert rig.status('rgb').available and not rig.status('rgb').warning


@pytest.mark.parametrize(('make', 'text'), [
    (lambda: microphone(np.zeros(512)), 'digital silence: constant at 0'),
    (lambda: microphone(np.full(512, -0.25)), 'digital silence: constant at -0.25'),
    (lambda: microphone(RANDOM.integers(0, 2, 512) / 32768), 'digital silence: -'),
])
def test_digital_silence_is_detected_within_a_second(make, text):
    rig = Sensors(SPEC, 'audio')
    assert rig.microphone(3, lambda: microphone(hiss(-50)))[-1].available
    states = [s.state for s in rig.microphone(2, make)]
    assert UNINFORMATIVE in states[:31] and set(states[31:]) == {UNINFORMATIVE}
    assert rig.status('audio').detail.startswith(text)
    assert rig.microphone(2, lambda: microphone(hiss(-50)))[-1].available
    assert np.ptp(rig.stream.window(rig.now_ns).samples[Modality.AUDIO].samples) > 0


@pytest.mark.parametrize('level_db', [-50, -70, -80])
def test_quiet_surroundings_are_not_silent(level_db):
    rig = Sensors(SPEC, 'audio')
    rig.microphone(3, lambda: microphone(hiss(level_db)))
    assert rig.status('audio').available


STILL = camera(OBJECTS, 3)
"""One image of a driver that hangs."""
SNOW = [camera(RANDOM.uniform(0, 255, Y.shape)) for _ in range(31)]
BLIND = {
    'frozen: ': lambda: STILL,
    'blown out: 100% of the pixels are 250 of 255 or above': lambda: camera(0 * X + 255, 2),
    'constant: all pixels are red 20, green 60, blue 200':
        lambda: camera(0 * X + 200, 0, (0.1, 0.3, 1.0)),
    'noise: ': lambda: SNOW[RANDOM.integers(len(SNOW))],
}


@pytest.mark.parametrize('text', BLIND)
def test_images_that_show_nothing_are_detected_within_a_second(text):
    rig = Sensors(SPEC, 'rgb')
    rig.camera(3, lit)
    states = [s.state for s in rig.camera(1.5, BLIND[text])]
    assert UNINFORMATIVE in states[:31] and set(states[31:]) == {UNINFORMATIVE}
    assert rig.status('rgb').detail.startswith(text)
    assert rig.camera(2, lit)[-1].available


@pytest.mark.parametrize('height', [60, 72, 120, 240])
def test_noise_of_small_cameras_is_a_fault(height):
    width = height * 4 // 3
    snow = [Fields(height=height, width=width, step=3 * width, encoding='rgb8', is_bigendian=0,
                   data=RANDOM.normal(128, 60, 3 * height * width).clip(0, 255).astype(np.uint8))
            for _ in range(7)]
    rig = Sensors(replace(SPEC, video=VideoSpec(32, 32)), 'rgb')
    rig.camera(1.5, lambda: lambda stamp: Fields(
        **vars(snow[RANDOM.integers(7)]), header=stamp))
    assert rig.status('rgb').detail.startswith('noise: ')


CLEAR = {
    'a still scene': lambda: camera(OBJECTS, 0.7),
    'a bright scene': lambda: camera(OBJECTS * 1.8, 3),
    'a window beside the cook': lambda: camera(np.where(X > 0.4, 255, OBJECTS), 3),
    'a white wall': lambda: camera(190 + 20 * X, 2),
    'noise in poor light': lambda: camera(OBJECTS * 0.3, 25),
    'a fine texture': lambda: camera(128 + 60 * (np.indices(Y.shape).sum(0) % 2), 5),
}


@pytest.mark.parametrize('make', CLEAR.values(), ids=CLEAR)
def test_what_a_camera_may_well_see_is_no_fault(make):
    rig = Sensors(SPEC, 'rgb')
    rig.camera(4, make)
    assert rig.status('rgb').available and not rig.status('rgb').warning


@pytest.mark.parametrize('repeats', [2, 6, 15])
def test_a_slower_camera_may_repeat_images(repeats):
    rig = Sensors(SPEC, 'rgb')
    for _ in range(120 // repeats):
        image = lit()
        rig.camera(repeats / 30, lambda image=image: image)
        assert rig.status('rgb').state is not UNINFORMATIVE


@pytest.mark.parametrize(('make', 'text'), [
    (lambda chunks=[microphone(hiss(-20)) for _ in range(1)]: chunks[0],
     'repeated: audio equals that of 1 message before'),
    (lambda chunks=[microphone(hiss(-20)) for _ in range(4)]: chunks.append(chunks.pop(0))
     or chunks[-1], 'repeated: audio equals that of 4 messages before'),
    (lambda: microphone(hiss(20)), 'clipped: 9'),
])
def test_audio_that_repeats_or_clips_is_detected_within_a_second(make, text):
    rig = Sensors(SPEC, 'audio')
    rig.microphone(3, lambda: microphone(hiss(-20)))
    states = [s.state for s in rig.microphone(1.5, make)]
    assert UNINFORMATIVE in states[:31] and set(states[31:]) == {UNINFORMATIVE}
    assert rig.status('audio').detail.startswith(text)
    assert rig.microphone(2, lambda: microphone(hiss(-20)))[-1].available


def tone(period):
    """Return a maker of the next audio of a tone at full scale, of a period in samples."""
    start = count(step=512)
    return lambda: np.sin(2 * np.pi / period * (next(start) + np.arange(512)))


@pytest.mark.parametrize('samples', [lambda: hiss(-8), tone(44.3), tone(314.7)],
                         ids=['hiss', 'tone', 'low tone'])
def test_loud_audio_is_no_fault(samples):
    rig = Sensors(SPEC, 'audio')
    rig.microphone(3, lambda: microphone(samples()))
    assert rig.status('audio').available and not rig.status('audio').warning


def detector(*corners):
    """Return a message of boxes x1, y1, x2, y2, pixels."""
    def make(stamp):
        return Fields(header=stamp, detections=[
            Fields(results=[], bbox=Fields(
                center=Fields(x=(x1 + x2) / 2, y=(y1 + y2) / 2, theta=0.0),
                size_x=x2 - x1, size_y=y2 - y1)) for x1, y1, x2, y2 in corners])
    return make


def moving_box():
    x, y = RANDOM.uniform(10, 300, 2)
    return detector((x, y, x + 90, y + 60))


BOXES = {'detections__image_width': 640, 'detections__image_height': 480}


@pytest.mark.parametrize(('make', 'text', 'seconds'), [
    (lambda: detector((20.3, 30.1, 80.7, 90.2)), 'stuck: 1 box equal in each message', 1),
    (lambda: detector((20, 30, 81, 91), (200, 30, 250.5, 91)), 'stuck: 2 boxes equal', 5.5),
    (lambda: detector((700 + RANDOM.uniform(), 30, 800, 90)), 'outside of the image: 1 of 1', 1),
    (lambda: detector((RANDOM.uniform(0, 99), 30, 99.0, 30)), 'without area: 1 of 1 boxes', 1),
])
def test_boxes_that_show_nothing_are_detected(make, text, seconds):
    rig = Sensors(SPEC, 'detections', **BOXES)
    rig.play(3, 'detections', moving_box, types.DETECTIONS, 10)
    rig.play(seconds, 'detections', make, types.DETECTIONS, 10)
    status = rig.status('detections')
    assert status.state is UNINFORMATIVE and status.detail.startswith(text)
    assert rig.play(2, 'detections', moving_box, types.DETECTIONS, 10)[-1].available


@pytest.mark.parametrize('make', [
    detector, lambda: detector((20, 30, 80, 90)), moving_box,
    lambda: detector((20.1, 30, 80, 90), (700, 30, RANDOM.uniform(710, 800), 90))],
    ids=['nothing', 'whole pixels at rest', 'moving', 'one of two outside'])
def test_boxes_that_may_well_be_are_no_fault(make):
    rig = Sensors(SPEC, 'detections', **BOXES)
    rig.play(4, 'detections', make, types.DETECTIONS, 10)
    assert rig.status('detections').available


def flow(pixels, noise=0.0):
    field = np.full((24, 32, 2), pixels, np.float32) + RANDOM.normal(0, noise, (24, 32, 2))
    return lambda stamp: Fields(
        header=stamp, height=24, width=32, step=256, encoding='32FC2', is_bigendian=0,
        data=field.astype(np.float32).view(np.uint8).reshape(-1))


def moving():
    """Return images of objects that move: about half of them change from frame to frame."""
    return camera(np.roll(OBJECTS, RANDOM.integers(0, 96), axis=1), 3)


@pytest.mark.parametrize(('see', 'make', 'text'), [
    (moving, lambda: flow(0), 'zero: no movement in 1600 pixels while the images of rgb change'),
    (lit, lambda: flow(0), ''),
    (moving, lambda: flow(0, 0.01), ''),
    (lit, lambda: flow(2.0), 'frozen: flow is equal in every pixel'),
], ids=['zero', 'a still scene', 'little movement', 'frozen'])
def test_flow_is_compared_with_its_camera(see, make, text):
    rig = Sensors(SPEC, 'rgb', 'flow', flow__source='topic')
    rig.stream.configure(rig.stream._settings, {Modality.FLOW})
    rig.ingest.read_parameters()
    for _ in range(90):
        rig.camera(1 / 30, see)
        rig.now_ns -= round(NANOSECONDS / 30)
        rig.play(1 / 30, 'flow', make, types.IMAGE)
    status = rig.status('flow')
    assert (status.state is UNINFORMATIVE) == bool(text) and status.detail.startswith(text)
    assert rig.status('rgb').available


def vector(values):
    linear, angular = point(*values[:3]), point(*values[3:])
    return lambda stamp: Fields(
        header=stamp, linear_acceleration=linear, angular_velocity=angular)


def poses(joints):
    return lambda stamp: Fields(
        header=stamp, poses=[Fields(position=point(*map(float, each))) for each in joints])


def joints(position, velocity):
    return lambda stamp: Fields(header=stamp, name=['a', 'b'], position=np.array(position),
                                velocity=np.array(velocity), effort=np.array([]))


REST = np.array([0.1, 0.2, 9.8, 0.01, 0.0, 0.0])
PERSON = np.arange(9.0).reshape(3, 3) ** 0.5
SERIES = {
    'imu': (IMU, lambda: vector(REST), lambda: vector(REST + RANDOM.normal(0, 0.01, 6)),
            'stuck at 0.1, 0.2, 9.8, 0.01, 0, 0'),
    'skeleton': (POSES, lambda: poses(PERSON),
                 lambda: poses(PERSON + RANDOM.normal(0, 0.001, (3, 3))), 'stuck at 0, 1, 1.414'),
    'joint_state': (JOINT_STATE, lambda: joints([0.5, 1.0], [0.0, 0.4]),
                    lambda: joints([0.5, 1.0], [0.0, 0.001]),
                    'stuck: all positions are equal at a velocity of 0.4'),
}
SERIES_SPEC = ClipSpec(duration=2.0, num_frames=16, inputs={
    'skeleton': {'joints': 3, 'dimensions': 3}, 'joint_state': {'names': ['a', 'b']},
    'depth': {'height': 24, 'width': 32}})


@pytest.mark.parametrize('name', SERIES)
def test_vectors_that_are_not_measured_anew_are_detected(name):
    type_name, stuck, right, text = SERIES[name]
    rig = Sensors(SERIES_SPEC, name)
    assert rig.play(3, name, right, type_name)[-1].available
    states = [s.state for s in rig.play(1.5, name, stuck, type_name)]
    assert UNINFORMATIVE in states[:30] and set(states[30:]) == {UNINFORMATIVE}
    assert rig.status(name).detail.startswith(text)
    assert rig.play(2, name, right, type_name)[-1].available


def depth(metres, noise=0.0):
    image = np.asarray(metres + RANDOM.normal(0, noise, (24, 32)), np.float32)
    image = np.where(np.asarray(metres) > 0, image, 0).astype(np.float32)
    return lambda stamp: Fields(
        header=stamp, height=24, width=32, step=128, encoding='32FC1', is_bigendian=0,
        data=image.view(np.uint8).reshape(-1))


SCENE = 1 + np.indices((24, 32)).sum(0) / 20
HANGING = depth(SCENE, 0.01)


@pytest.mark.parametrize(('make', 'text'), [
    (lambda: depth(np.zeros((24, 32))), 'depth: got no return'),
    (lambda: depth(np.eye(24, 32)[::-1] * (np.arange(32) < 1)), 'depth: got returns in 1 of 768'),
    (lambda: depth(np.full((24, 32), 2.0)), 'constant: 768 pixels are 2 m'),
    (lambda: HANGING, 'frozen: images are equal in every pixel'),
])
def test_depth_that_shows_nothing_is_detected_within_a_second(make, text):
    rig = Sensors(SERIES_SPEC, 'depth')
    for seconds, shown in ((3, lambda: depth(SCENE, 0.01)), (1, make), (2, None)):
        for _ in range(round(seconds * 30)):
            rig.now_ns += round(NANOSECONDS / 30)
            message = (shown or (lambda: depth(SCENE, 0.01)))()(header(rig.now_ns))
            rig.take('depth', types.IMAGE, message)
        status = rig.status('depth')
        assert status.available != (shown is make)
    rig.now_ns += 1
    assert status.available
    for _ in range(30):
        rig.now_ns += round(NANOSECONDS / 30)
        rig.take('depth', types.IMAGE, make()(header(rig.now_ns)))
    status = rig.status('depth')
    assert status.state is UNINFORMATIVE and status.detail.startswith(text)


def test_depth_without_anybody_in_range_is_no_fault():
    rig = Sensors(SERIES_SPEC, 'depth')
    rig.play(3, 'depth', lambda: depth(np.full((24, 32), 12.0), 0.01), types.IMAGE)
    assert rig.status('depth').available


def test_others_are_recognised_without_the_sensor_that_shows_nothing():
    rig = Sensors(SPEC, 'rgb', 'audio')
    for step in range(150):
        rig.camera(1 / 30, lit if step < 90 else COVERED['noise'])
        rig.now_ns -= round(NANOSECONDS / 30)
        rig.microphone(1 / 31.25, lambda: microphone(hiss(-50)))
    assert rig.available == 'A'
    assert rig.stream.window(rig.now_ns).modalities == (Modality.AUDIO,)


def test_a_fault_that_is_interrupted_is_none_and_one_that_is_established_persists():
    rig = Sensors(SPEC, 'rgb')
    rig.camera(2, lit)
    for _ in range(6):
        rig.camera(0.5, COVERED['noise'])
        assert rig.camera(0.2, lit)[-1].state is not UNINFORMATIVE
    rig.camera(1, COVERED['noise'])
    assert rig.camera(0.13, lit)[-1].state is UNINFORMATIVE  # one frame of the clip
    rig.camera(0.3, COVERED['noise'])
    assert rig.status('rgb').detail.endswith('for 1.4 s')


def test_the_check_can_be_disabled_after_it_has_detected_a_fault():
    rig = Sensors(SPEC, 'rgb')
    rig.camera(3, COVERED['noise'])
    rig.values['rgb.check_content'] = False
    rig.ingest.read_parameters()
    rig.camera(2, COVERED['noise'])
    assert rig.status('rgb').available
    rig.values['rgb.check_content'] = True
    rig.ingest.read_parameters()
    rig.camera(1, COVERED['noise'])
    assert rig.status('rgb').state is UNINFORMATIVE


def test_nothing_is_kept_of_an_input_that_is_disabled():
    rig = Sensors(SPEC, 'rgb', 'audio')
    rig.camera(1, COVERED['noise'])
    rig.values['rgb.enabled'] = False
    rig.stream.configure(input_settings(rig.values, rig.modalities, SPEC, ()))
    rig.ingest.read_parameters()
    assert set(rig.ingest._monitors) == {Modality.AUDIO}
    rig.values['rgb.enabled'] = True
    rig.stream.configure(input_settings(rig.values, rig.modalities, SPEC, ()))
    rig.ingest.read_parameters()
    assert rig.ingest._monitors[Modality.RGB].check._last is None
    assert rig.camera(0.1, lit)[-1].state is ModalityState.INSUFFICIENT


def test_a_new_threshold_starts_the_check_anew():
    rig = Sensors(SPEC, 'audio')
    rig.microphone(3, lambda: microphone(hiss(-80)))
    rig.values['audio.silence_level'] = -60.0
    rig.ingest.read_parameters()
    rig.microphone(1, lambda: microphone(hiss(-80)))
    assert rig.status('audio').detail.startswith('digital silence: -80 dB of full scale')


def test_samples_of_any_size_are_judged():
    rig = Sensors(ClipSpec(duration=1.0, num_frames=4, video=VideoSpec(1, 3)), 'rgb')
    rig.camera(1, lit)
    rig = Sensors(SPEC, 'audio')
    for _ in range(3):
        rig.play(1, 'audio', lambda: microphone(hiss(-50, 1)), types.AUDIO_DATA_STAMPED, 500)
        assert rig.status('audio').state is not UNINFORMATIVE


@pytest.mark.parametrize('name', REGISTRY)
def test_every_type_states_its_check_or_that_it_has_none(name):
    if REGISTRY[name].location.startswith('karmma_ros.'):
        own = load_type(name, REGISTRY[name].location)
        assert 'content_check' in vars(own), f'{own.__name__}: state content_check; None: no check'


def _checked():
    all_types = [modality_type(Modality(name)) for name in REGISTRY]
    return [each for each in all_types if each.content_check is not None]


@pytest.mark.parametrize('own', _checked(), ids=lambda own: own.name)
def test_every_check_names_its_faults_and_limits_its_thresholds(own):
    assert issubclass(own.content_check, ContentCheck) and own.content_check.faults
    names = {each.name: each for each in own.declarations()}
    assert names[f'{own.name}.check_content'].default is True
    for each in names.values():
        if isinstance(each.default, float):
            assert each.range, f'{each.name} has no range'
            with pytest.raises(InvalidSettingError, match=each.name):
                each.check(each.range[1] + 1)
