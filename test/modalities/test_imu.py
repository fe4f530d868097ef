"""Inertial sensors: messages, units, channels, and what is wrong with a driver."""

from types import SimpleNamespace as Fields

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modalities import make_clip, modality_type, unsupported_type
from karmma_ros.modalities.imu import IMU, ImuCheck, ImuSpec
from karmma_ros.modalities.series import Series
from karmma_ros.modality import Modality, parse_subset, subset_name
from karmma_ros.stream.availability import ModalityState
from modality_rig import header, ModalityRig, MS, point, recorded, STORE, T0_NS
import numpy as np
import pytest

GRAVITY = 9.80665
SPEC = ClipSpec(duration=2.0, num_frames=16)


def message(stamp_ns, acceleration=(0.1, 0.2, GRAVITY), rotation=(0.5, -0.25, 1.0)):
    vector = STORE.types['geometry_msgs/msg/Vector3']
    covariance = np.zeros(9)
    sent = STORE.types[IMU](
        header=header(stamp_ns),
        orientation=STORE.types['geometry_msgs/msg/Quaternion'](x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=covariance, angular_velocity_covariance=covariance,
        linear_acceleration_covariance=covariance, angular_velocity=vector(*rotation),
        linear_acceleration=vector(*acceleration))
    return recorded(IMU, sent)


def feed(rig, seconds, rate=50, name='imu', **vectors):
    """Send a sensor's messages, with its noise; vectors are functions of the time in seconds."""
    reasons, noise = set(), np.random.default_rng(0)
    vectors = {'acceleration': lambda t: (0.1, 0.2, GRAVITY),
               'rotation': lambda t: (0.5, -0.25, 1.0), **vectors}
    for _ in range(round(seconds * rate)):
        rig.now_ns += NANOSECONDS // rate
        now_s = (rig.now_ns - T0_NS) / NANOSECONDS
        reasons.add(rig.take(name, IMU, message(
            rig.now_ns, **{each: np.multiply(vector(now_s), noise.normal(1, 1e-4, 3)).tolist()
                           for each, vector in vectors.items()})))
    return reasons


def test_its_names():
    assert Modality.parse('I') is Modality('imu') and Modality('imu_thigh').letter == 'I_thigh'
    assert subset_name(parse_subset('imu_thigh+imu+V')) == 'V+I+I_thigh'


def test_a_message_of_a_bag_is_read():
    rig = ModalityRig(SPEC, 'imu')
    assert rig.take('imu', IMU, message(T0_NS)) == ''
    stored = rig.stream._sources[Modality('imu')].buffer.window(T0_NS).values
    np.testing.assert_allclose(stored, [[0.1, 0.2, GRAVITY, 0.5, -0.25, 1.0]], rtol=1e-6)


def test_a_message_of_rclpy_is_read():
    imu = pytest.importorskip('sensor_msgs.msg').Imu()
    imu.linear_acceleration.z, imu.angular_velocity.x = GRAVITY, 2.0
    rig = ModalityRig(SPEC, 'imu')
    assert rig.take('imu', IMU, imu) == ''  # without a stamp: the time of receipt
    assert rig.status('imu').last_stamp_ns == T0_NS


def test_units_that_parameters_name_become_those_of_si():
    rig = ModalityRig(SPEC, 'imu', imu__acceleration_unit='g',
                      imu__angular_velocity_unit='deg/s')
    rig.take('imu', IMU, message(T0_NS, (0.0, 0.0, 1.0), (180.0, 0.0, 0.0)))
    stored = rig.stream._sources[Modality('imu')].buffer.window(T0_NS).values
    np.testing.assert_allclose(stored, [[0, 0, GRAVITY, np.pi, 0, 0]], rtol=1e-6)


def test_channels_are_vectors_and_their_lengths():
    series = Series.from_seconds([0.0], [[0, 0, 2 * GRAVITY, 3.0, 4.0, 0]], 1.0)
    clip = make_clip(SPEC, {Modality('imu'): series}).inputs[Modality('imu')]
    assert clip.shape == SPEC.input_shape(Modality('imu')) == (8, 128)
    np.testing.assert_allclose(clip[:, 0], [0, 0, 2, 1.5, 2, 0, 1, 2.5], rtol=1e-6)


def test_lengths_can_be_left_out():
    spec = ClipSpec(inputs={'imu': {'samples': 64, 'lengths': False}})
    assert spec.input_shape(Modality('imu')) == (6, 64)
    series = Series.from_seconds([0.0], [[1, 2, 3, 4, 5, 6]], 1.0)
    assert make_clip(spec, {Modality('imu'): series}).inputs[Modality('imu')].shape == (6, 64)


@pytest.mark.parametrize('rate', [50, 400])
def test_live_equals_training(rate):
    """The window of a stream is that of a file with the same vectors, to the last bit."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3 * rate, 6)).astype(np.float32)
    rig = ModalityRig(SPEC, 'imu')
    late = rate + rng.permutation(2 * rate - 1)  # up to two seconds, as messages may be
    order = [*range(rate), *late, 3 * rate - 1]
    for i in order:
        rig.now_ns = T0_NS + i * NANOSECONDS // rate
        rig.take('imu', IMU, message(rig.now_ns, tuple(map(float, vectors[i, :3])),
                                     tuple(map(float, vectors[i, 3:]))))
    rig.now_ns = T0_NS + (3 * rate - 1) * NANOSECONDS // rate
    live = rig.stream.window(rig.now_ns).clip().inputs[Modality('imu')]
    times = np.arange(3 * rate) * NANOSECONDS // rate
    file = Series(times - times[-1], vectors)
    np.testing.assert_array_equal(live, make_clip(SPEC, {Modality('imu'): file}).inputs[
        Modality('imu')])


def test_any_rate_gives_nearly_the_same_input():
    def motion(rate):
        times = np.arange(0, 3, 1 / rate)
        wave = np.sin(2 * np.pi * times)
        values = np.stack([wave, wave, GRAVITY + wave, wave, wave, wave], 1)
        return make_clip(SPEC, {Modality('imu'): Series.from_seconds(times, values, 2.9)}).inputs[
            Modality('imu')]
    for rate in (25, 100, 200, 1000):
        np.testing.assert_allclose(motion(rate), motion(50), atol=0.06)


def moving(now_s):
    return (np.sin(now_s), 0.3, GRAVITY + 2 * np.sin(9 * now_s))


def test_a_good_sensor_is_available_and_has_no_warning():
    rig = ModalityRig(SPEC, 'imu')
    assert feed(rig, 5, acceleration=moving,
                rotation=lambda t: (3 * np.sin(7 * t), 0.01, 0.0)) == {''}
    status = rig.status('imu')
    assert status.available and status.warning == '' and status.rate == pytest.approx(50)


def test_the_unit_g_is_detected_and_the_parameter_fixes_it():
    rig = ModalityRig(SPEC, 'imu_thigh')
    feed(rig, 4, name='imu_thigh', acceleration=lambda t: (0.1, 0.0, 0.98 + 0.2 * np.sin(9 * t)))
    status = rig.status('imu_thigh')
    assert status.state is ModalityState.INVALID
    assert 'expected about 9.8: the driver seems to send g: set imu_thigh.acceleration_unit to ' \
        'g' in status.detail
    rig.values['imu_thigh.acceleration_unit'] = 'g'
    rig.ingest.read_parameters()
    feed(rig, 4, name='imu_thigh', acceleration=lambda t: (0.1, 0.0, 0.98))
    assert rig.status('imu_thigh').available and rig.status('imu_thigh').warning == ''


@pytest.mark.parametrize(('vectors', 'changes', 'text', 'usable'), [
    ({'rotation': lambda t: (0.0, 90.0, 5.0)}, {},
     'the driver seems to send °/s: set imu.angular_velocity_unit to deg/s', False),
    ({}, {'imu__acceleration_unit': 'g'}, 'set imu.acceleration_unit to m/s2', False),
    ({'acceleration': lambda t: (0.0, 0.0, 981.0)}, {}, 'have the driver send m/s² or g', False),
    ({'acceleration': lambda t: (0.0, 0.0, 0.0)}, {},
     'linear_acceleration is 0 in all messages: it seems not to be measured; remap imu to a '
     'topic with both vectors (realsense2_camera: set unite_imu_method to 2)', False),
    ({'rotation': lambda t: (0.0, 0.0, 0.0)}, {}, 'angular_velocity is 0 in all messages', True),
    ({'acceleration': lambda t: (0.02, 0.0, 0.01)}, {}, 'gravity seems to be removed', True)])
def test_what_a_driver_sends_wrong_is_named_with_its_fix(vectors, changes, text, usable):
    rig = ModalityRig(SPEC, 'imu', **changes)
    feed(rig, 5, **vectors)
    status = rig.status('imu')
    assert text in status.warning
    assert status.state is (ModalityState.AVAILABLE if usable else ModalityState.INVALID)


def test_a_rate_that_changes_is_a_warning():
    rig = ModalityRig(SPEC, 'imu')
    feed(rig, 4, 100)
    feed(rig, 4, 25)
    status = rig.status('imu')
    assert status.available and status.warning.startswith(
        '25 messages a second, 100 before: they are resampled')


def test_a_rate_too_low_for_the_window_is_a_warning():
    rig = ModalityRig(SPEC, 'imu')
    feed(rig, 6, 8)
    assert 'expected 16 or more for the 128 samples of a 2 s window' in rig.status('imu').warning


def test_an_unmeasured_vector_is_dropped_with_the_reason():
    rig = ModalityRig(SPEC, 'imu_thigh')
    reason = feed(rig, 0.1, name='imu_thigh', rotation=lambda t: (np.nan, 0.0, 0.0)).pop()
    assert reason == ('imu_thigh: angular_velocity is [nan, 0.0, 0.0]; expected finite numbers: '
                      'it is not measured; remap imu to a topic with both vectors')
    assert rig.status('imu_thigh').state is ModalityState.INVALID
    assert 'angular_velocity is' in rig.status('imu_thigh').detail


def test_what_is_no_imu_is_counted_and_nothing_crashes():
    rig = ModalityRig(SPEC, 'imu')
    assert 'AttributeError' in rig.take('imu', IMU, Fields())
    assert 'TypeError' in rig.take('imu', IMU, Fields(
        linear_acceleration=point(None, 1, 2), angular_velocity=point(0, 0, 0)))
    assert rig.status('imu').dropped == 2


def test_too_few_messages_are_insufficient_with_the_number_needed():
    rig = ModalityRig(SPEC, 'imu')
    feed(rig, 0.5)
    assert rig.status('imu').detail == '5 of 16 slots with samples; it needs 8'


@pytest.mark.parametrize('arrays', [
    np.zeros((4, 6), np.float32), Series(np.zeros(4, np.int64), np.zeros((4, 5), np.float32)),
    Series(np.zeros(3, np.int64), np.zeros((4, 6), np.float32)),
    Series(np.zeros(1, np.int64), np.full((1, 6), np.nan, np.float32)),
    Series(np.zeros(0, np.int64), np.zeros((0, 6), np.float32))])
def test_other_arrays_are_refused(arrays):
    with pytest.raises(InvalidSampleError):
        make_clip(SPEC, {Modality('imu'): arrays})


def test_its_specification_is_kept_in_json():
    spec = ClipSpec(inputs={'imu': ImuSpec(64), 'imu_thigh': {'samples': 32}})
    assert ClipSpec.from_dict(spec.to_dict()) == spec
    assert spec.input_shape(Modality('imu_thigh')) == (8, 32)
    with pytest.raises(InvalidSettingError, match='clip.inputs.imu.samples is 0'):
        ClipSpec(inputs={'imu': {'samples': 0}})
    with pytest.raises(InvalidSettingError, match='clip.inputs.imu.lengths is 1'):
        ImuSpec(lengths=1)


def test_a_near_miss_has_a_remedy():
    assert unsupported_type('novatel_msgs/msg/RawImu').remedy == f'publish {IMU}'
    assert unsupported_type('sensor_msgs/msg/MagneticField').modality == 'imu'
    assert unsupported_type(IMU) is None


def test_several_have_topics_and_parameters_of_their_own():
    assert modality_type(Modality('imu_thigh')).topic_name == 'imu_thigh'
    rig = ModalityRig(SPEC, 'imu', 'imu_thigh')
    assert 'imu_thigh.acceleration_unit' in rig.values
    feed(rig, 2)
    assert rig.available == 'I'
    assert rig.stream.nbytes < 6 * 4 * 64 * 128


def test_memory_is_bounded_while_the_stamp_stands_still():
    rig = ModalityRig(SPEC, 'imu')
    feed(rig, 2)
    stamp_ns = rig.now_ns
    for _ in range(5000):
        rig.now_ns += MS
        rig.take('imu', IMU, message(stamp_ns))
    check = rig.ingest._decoders[Modality('imu')]._check
    assert len(check._block) <= 4096


def test_a_finding_is_replaced_by_one_that_makes_the_data_unusable():
    check = ImuCheck()

    def update(seconds, start_s, acceleration, rotation):
        for i in range(seconds * 50):
            check.update(np.array([*acceleration, *rotation], np.float32), 'm/s2',
                         start_s * NANOSECONDS + i * 20 * MS)
        return check.findings['missing']

    first = update(5, 0, (0, 0, GRAVITY), (0, 0, 0))
    assert first.usable and 'angular_velocity' in first.text
    second = update(5, 5, (0, 0, 0), (1, 0, 0))
    assert not second.usable and 'linear_acceleration' in second.text


def test_samples_that_were_read_with_another_unit_are_void():
    rig = ModalityRig(SPEC, 'imu')
    feed(rig, 3)
    rig.values['imu.angular_velocity_unit'] = 'deg/s'
    rig.ingest.read_parameters()
    feed(rig, 0.5)
    assert rig.status('imu').state is ModalityState.INSUFFICIENT
    feed(rig, 2)
    window = rig.stream.window(rig.now_ns).samples[Modality('imu')]
    np.testing.assert_allclose(window.values[:, 3], 0.5 * np.pi / 180, rtol=1e-2)
    count = len(rig.stream._sources[Modality('imu')].buffer._stamps)
    rig.values['imu.timeout'] = 0.7
    rig.ingest.read_parameters()
    feed(rig, 0.02)
    assert len(rig.stream._sources[Modality('imu')].buffer._stamps) >= count
