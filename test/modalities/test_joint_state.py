"""Joint states of a robot: chosen names and fields, and what a driver lacks."""

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import make_clip, modality_type
from karmma_ros.modalities.joint_state import JOINT_STATE
from karmma_ros.modalities.series import Series
from karmma_ros.modality import Modality
from karmma_ros.stream.availability import ModalityState
from modality_rig import header, ModalityRig, recorded, STORE, T0_NS
import numpy as np
import pytest

J = Modality('joint_state')


def spec(**fields):
    return ClipSpec(duration=1.0, num_frames=8, inputs={
        'joint_state': {'names': ['wrist', 'elbow'], 'samples': 16, **fields}})


def message(stamp_ns=T0_NS, names=('elbow', 'base', 'wrist'), position=(1.0, 2.0, 3.0),
            velocity=(), effort=()):
    fields = (np.array(each, np.float64) for each in (position, velocity, effort))
    state = STORE.types[JOINT_STATE](header(stamp_ns), list(names), *fields)
    return recorded(JOINT_STATE, state)


def stored(rig):
    return rig.stream._sources[J].buffer._values[-1].tolist()


def test_the_chosen_joints_are_read_in_their_order():
    rig = ModalityRig(spec(), 'joint_state')
    assert rig.take('joint_state', JOINT_STATE, message()) == ''
    assert stored(rig) == [3, 1]


def test_fields_follow_each_other():
    rig = ModalityRig(spec(fields=['position', 'effort']), 'joint_state')
    assert rig.take('joint_state', JOINT_STATE, message(effort=(7, 8, 9))) == ''
    assert stored(rig) == [3, 1, 9, 7]


def test_a_message_of_rclpy_is_read():
    state = pytest.importorskip('sensor_msgs.msg').JointState(
        name=['elbow', 'wrist'], position=[1.0, 2.0])
    rig = ModalityRig(spec(), 'joint_state')
    assert rig.take('joint_state', JOINT_STATE, state) == '' and stored(rig) == [2, 1]


def test_a_robot_may_call_its_joints_otherwise():
    rig = ModalityRig(spec(), 'joint_state', joint_state__names=['l/wrist', 'l/elbow'])
    assert rig.take('joint_state', JOINT_STATE, message(names=('l/elbow', 'x', 'l/wrist'))) == ''
    assert stored(rig) == [3, 1]


@pytest.mark.parametrize(('fields', 'changes', 'sent', 'text'), [
    ({}, {}, message(names=('elbow', 'b', 'c')),
     'joint_state: got joints elbow, b, c without wrist: remap joint_states to a topic with all '
     'joints of the model, or set joint_state.names to what this robot calls them'),
    ({'fields': ['velocity']}, {}, message(),
     'got 0 values of velocity for 3 joints; expected one for each: the driver does not publish '
     'velocity; train without it (clip.inputs.joint_state.fields)'),
    ({}, {}, message(position=(1, 2, np.nan)),
     'position of wrist is NaN or infinity; expected finite numbers: the joint is not measured'),
    ({}, {'joint_state__names': ['a']}, message(),
     'joint_state.names has 1 names; expected 2, one for each joint of the model: wrist, elbow')])
def test_what_a_driver_lacks_is_the_sensor_s_reason(fields, changes, sent, text):
    rig = ModalityRig(spec(**fields), 'joint_state', **changes)
    assert text in rig.take('joint_state', JOINT_STATE, sent)
    status = rig.status('joint_state')
    assert status.state is ModalityState.INVALID and text[:80] in status.detail


def test_names_twice_are_refused_at_configure():
    with pytest.raises(InvalidSettingError, match='joint_state.names is .* each once'):
        ModalityRig(spec(), 'joint_state', joint_state__names=['a', 'a'])


def test_another_joint_that_is_not_measured_does_not_matter():
    rig = ModalityRig(spec(), 'joint_state')
    assert rig.take('joint_state', JOINT_STATE, message(position=(1, np.nan, 3))) == ''


def test_live_equals_training_and_channels_are_standardised():
    own = spec(mean=[1.0, -1.0], std=[2.0, 4.0])
    values = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    rig = ModalityRig(own, 'joint_state')
    for i, (wrist, elbow) in enumerate(values):
        rig.now_ns = T0_NS + i * NANOSECONDS // 30
        rig.take('joint_state', JOINT_STATE, message(
            rig.now_ns, ('wrist', 'elbow'), (float(wrist), float(elbow))))
    times = np.arange(40) * NANOSECONDS // 30
    file = make_clip(own, {J: Series(times - times[-1], values)}).inputs[J]
    np.testing.assert_array_equal(rig.stream.window(rig.now_ns).clip().inputs[J], file)
    plain = make_clip(spec(), {J: Series(times - times[-1], values)}).inputs[J]
    np.testing.assert_allclose(file, (plain - [[1], [-1]]) / [[2], [4]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(('fields', 'text'), [
    ({'names': ['a', 'a']}, 'clip.inputs.joint_state.names is .*expected names of joints, each'),
    ({'names': ['']}, 'names of joints'), ({'fields': []}, 'some of position, velocity, effort'),
    ({'fields': ['torque']}, 'clip.inputs.joint_state.fields'),
    ({'mean': [1.0]}, 'a number for each of 2 channels')])
def test_a_field_out_of_range_is_named(fields, text):
    with pytest.raises(InvalidSettingError, match=text):
        spec(**fields)


def test_without_names_it_has_no_shape():
    with pytest.raises(InvalidSettingError, match='clip.inputs.joint_state.names is .*expected'):
        ClipSpec().input_shape(J)


def test_its_topic_and_json():
    assert modality_type(J).topic_name == 'joint_states'
    assert modality_type(Modality('joint_state_left')).topic_name == 'joint_states_left'
    assert ClipSpec.from_dict(spec().to_dict()) == spec()
    assert spec(fields=['position', 'velocity']).input_shape(J) == (4, 16)
