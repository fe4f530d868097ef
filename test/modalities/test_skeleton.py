"""Joints of a person: three message types, missing joints, channels, and wrong trackers."""

from types import SimpleNamespace as Fields

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modalities import make_clip, unsupported_type
from karmma_ros.modalities.series import Series
from karmma_ros.modalities.skeleton import MARKERS, POSES, SKELETON
from karmma_ros.modality import Modality
from karmma_ros.preprocess.joints import skeleton_input
from karmma_ros.stream.availability import ModalityState
from modality_rig import header, ModalityRig, point, recorded, STORE, T0_NS
import numpy as np
import pytest

S = Modality('skeleton')
FLAT = ClipSpec(duration=2.0, num_frames=8, inputs={'skeleton': {'joints': 4, 'samples': 16}})
SPACE = ClipSpec(duration=2.0, num_frames=8, inputs={
    'skeleton': {'joints': 4, 'dimensions': 3, 'samples': 16}})
BODY = np.array([[0, 0, 1], [0.2, 0, 1.4], [-0.2, 0, 1.4], [0, 0.1, 1.7]])
"""Hip, left and right shoulder, head; metres, z is up."""


def in_image(points=BODY[:, [0, 2]], confidence=0.9):
    """Return a Skeleton2D, whose package is not installed here."""
    confidences = np.broadcast_to(confidence, len(points))
    return Fields(header=header(T0_NS), skeleton=[
        Fields(x=float(x), y=float(y), c=float(c)) for (x, y), c in zip(points, confidences)])


def poses(points=BODY, stamp_ns=T0_NS):
    types = STORE.types
    orientation = types['geometry_msgs/msg/Quaternion'](x=0.0, y=0.0, z=0.0, w=1.0)
    return recorded(POSES, types[POSES](header=header(stamp_ns), poses=[
        types['geometry_msgs/msg/Pose'](types['geometry_msgs/msg/Point'](*map(float, each)),
                                        orientation) for each in points]))


def marker(shape, number, position=(0, 0, 0), points=(), ns='', action=0):
    return Fields(header=header(T0_NS), ns=ns, id=number, type=shape, action=action,
                  pose=Fields(position=point(*map(float, position))),
                  points=[point(*map(float, each)) for each in points])


def stored(rig, name='skeleton'):
    return rig.stream._sources[Modality(name)].buffer._values[-1].reshape(4, -1)


def test_joints_in_the_image_are_read():
    rig = ModalityRig(FLAT, 'skeleton')
    assert rig.take('skeleton', SKELETON, in_image()) == ''
    np.testing.assert_allclose(stored(rig), BODY[:, [0, 2]], rtol=1e-6)


def test_an_image_that_is_not_square_can_be_corrected():
    rig = ModalityRig(FLAT, 'skeleton', skeleton__aspect_ratio=2.0)
    rig.take('skeleton', SKELETON, in_image())
    np.testing.assert_allclose(stored(rig), BODY[:, [0, 2]] * [2, 1], rtol=1e-6)


def test_poses_of_a_bag_are_read():
    rig = ModalityRig(SPACE, 'skeleton')
    assert rig.take('skeleton', POSES, poses()) == ''
    np.testing.assert_allclose(stored(rig), BODY, rtol=1e-6)
    assert rig.status('skeleton').last_stamp_ns == T0_NS


@pytest.mark.parametrize('markers', [
    [marker(5, 9), marker(7, 0, points=BODY), marker(8, 1, points=BODY[:2])],
    [marker(9, 7), *(marker(2, i, BODY[i]) for i in (3, 1, 0, 2)), marker(4, 8, points=BODY)],
    [marker(2, 0, (9, 9, 9), action=3), marker(2, 0, (9, 9, 9), ns='other'),
     *(marker(2, i, each, ns='me') for i, each in enumerate(BODY))]])
def test_markers_are_read(markers):
    named = any(each.ns for each in markers)
    rig = ModalityRig(SPACE, 'skeleton', skeleton__namespace='me' if named else '')
    assert rig.take('skeleton', MARKERS, Fields(markers=markers)) == ''
    np.testing.assert_allclose(stored(rig), BODY, rtol=1e-6)
    assert rig.status('skeleton').last_stamp_ns == T0_NS  # of the first marker


def test_markers_of_rclpy_are_read():
    messages = pytest.importorskip('visualization_msgs.msg')
    points = pytest.importorskip('geometry_msgs.msg')
    array = messages.MarkerArray(markers=[messages.Marker(
        type=7, points=[points.Point(x=float(x), y=float(y), z=float(z)) for x, y, z in BODY])])
    rig = ModalityRig(SPACE, 'skeleton')
    assert rig.take('skeleton', MARKERS, array) == ''
    np.testing.assert_allclose(stored(rig), BODY, rtol=1e-6)


def test_chosen_joints_of_a_message_are_those_of_the_model():
    rig = ModalityRig(SPACE, 'skeleton', skeleton__joints=['5', '4', '1', '0'])
    assert rig.take('skeleton', POSES, poses([*BODY, (5, 5, 5), (6, 6, 6)])) == ''
    np.testing.assert_allclose(stored(rig)[:, 0], [6, 5, 0.2, 0])


@pytest.mark.parametrize('joints', [['a'], ['-1'], ['1.5'], ['99999999999999']])
def test_indices_that_are_none_are_refused_at_configure(joints):
    with pytest.raises(InvalidSettingError, match='skeleton.joints is .* expected the indices'):
        ModalityRig(SPACE, 'skeleton', skeleton__joints=joints)


@pytest.mark.parametrize(('changes', 'spec', 'type_name', 'message', 'text'), [
    ({}, SPACE, POSES, poses(BODY[:3]),
     'skeleton: got 3 joints; expected 4, as the model takes: have the tracker send the joints '
     'that it was trained on, of one person, or set skeleton.joints to their indices in the '
     'message'),
    ({'skeleton__joints': ['0', '1']}, SPACE, POSES, poses(), 'got 2 joints; expected 4'),
    ({'skeleton__joints': ['0', '1', '2', '9']}, SPACE, POSES, poses(BODY[:3]), 'got 3 joints'),
    ({}, SPACE, POSES, poses(np.tile(BODY, (900, 1))), 'got 1001 joints; expected 4'),
    ({}, SPACE, MARKERS, Fields(markers=[]), 'got 0 joints; expected 4'),
    ({}, SPACE, SKELETON, in_image(), 'which lies in the image; expected joints in space, as the '
     f'model takes: set skeleton.type to {POSES} or {MARKERS}'),
    ({}, FLAT, SKELETON, in_image(confidence=0.0),
     'got no joint of 4 (NaN, or a confidence up to skeleton.min_confidence); expected a person'),
    ({'skeleton__min_confidence': 0.95}, FLAT, SKELETON, in_image(), 'got no joint of 4'),
    ({}, SPACE, POSES, poses(np.full((4, 3), np.nan)), 'got no joint of 4'),
    ({}, SPACE, POSES, poses(np.zeros((4, 3))), 'got joints that all coincide'),
    ({}, SPACE, POSES, Fields(header=header(T0_NS)), 'AttributeError')])
def test_what_a_tracker_sends_wrong_is_the_sensor_s_reason(
        changes, spec, type_name, message, text):
    rig = ModalityRig(spec, 'skeleton', **changes)
    assert text in rig.take('skeleton', type_name, message)
    status = rig.status('skeleton')
    assert status.state is ModalityState.INVALID and text[:100] in status.detail


def walk(rig, seconds, hidden=None, rate=30, name='skeleton'):
    for _ in range(round(seconds * rate)):
        rig.now_ns += NANOSECONDS // rate
        body = BODY + np.sin((rig.now_ns - T0_NS) / NANOSECONDS)
        if hidden is not None:
            body[hidden] = np.nan
        assert rig.take(name, POSES, poses(body, rig.now_ns)) == ''


def test_a_joint_that_is_hidden_for_a_while_is_interpolated():
    rig = ModalityRig(SPACE, 'skeleton')
    walk(rig, 1.0)
    walk(rig, 0.3, hidden=3)
    walk(rig, 0.7)
    clip = rig.stream.window(rig.now_ns).clip().inputs[S]
    complete = ModalityRig(SPACE, 'skeleton')
    walk(complete, 2.0)
    np.testing.assert_allclose(
        clip, complete.stream.window(complete.now_ns).clip().inputs[S], atol=0.2)


def test_a_joint_that_is_hidden_for_long_is_named_in_the_reason():
    rig = ModalityRig(SPACE, 'skeleton')
    walk(rig, 0.5)
    walk(rig, 2.0, hidden=3)
    assert rig.status('skeleton').detail == (
        '1 of 8 slots with joint 3, which is seen least; it needs 4')
    assert rig.stream.window(rig.now_ns) is None


def test_a_joint_that_is_never_seen_is_an_error_in_training():
    series = Series.from_seconds([0.0], [[*BODY[:3].ravel(), np.nan, np.nan, np.nan]], 1.0)
    with pytest.raises(InvalidSampleError) as error:
        make_clip(SPACE, {S: series})
    assert str(error.value) == (
        'skeleton: joints 3 are not seen in the window; expected each once or more: train without '
        'them (clip.inputs.skeleton.joints)')


def test_live_equals_training():
    rng = np.random.default_rng(0)
    bodies = (BODY + rng.normal(size=(90, 4, 3))).astype(np.float32)
    bodies[40:45, 2] = np.nan
    rig = ModalityRig(SPACE, 'skeleton')
    for i, body in enumerate(bodies):
        rig.now_ns = T0_NS + i * NANOSECONDS // 30
        rig.take('skeleton', POSES, poses(body, rig.now_ns))
    times = np.arange(90) * NANOSECONDS // 30
    file = Series(times - times[-1], bodies.reshape(90, -1))
    np.testing.assert_array_equal(rig.stream.window(rig.now_ns).clip().inputs[S],
                                  make_clip(SPACE, {S: file}).inputs[S])


def test_a_person_who_never_moves_gives_positions_alone():
    x = skeleton_input(np.tile(BODY, (16, 1, 1)).astype(np.float32), 0.125, root=(0,),
                       scale=(3, 0))
    body = (BODY - BODY[0]) / np.linalg.norm(BODY[3] - BODY[0])
    np.testing.assert_allclose(x[:12], np.tile(body.reshape(-1, 1), 16), atol=1e-6)
    np.testing.assert_array_equal(x[12:], 0)


def test_movement_is_counted_in_seconds():
    joints = np.zeros((16, 2, 2), np.float32)
    joints[:, 1, 0] = 1.0
    joints[:, 1, 1] = np.arange(16)
    for interval_s in (0.1, 0.05):
        movement = skeleton_input(joints, interval_s, root=(0,), scale=(0, 1))[4:]
        size = np.median(np.hypot(1, np.arange(16)))
        np.testing.assert_allclose(movement[3, 1:], 0.3 / interval_s / size, rtol=1e-5)


@pytest.mark.parametrize('up', [0, 1, 2])
def test_where_a_person_stands_and_faces_and_how_tall_makes_no_difference(up):
    rng = np.random.default_rng(up)
    joints = rng.normal(size=(16, 4, 3))
    first, second = (axis for axis in range(3) if axis != up)
    turn = np.eye(3)
    turn[np.ix_((first, second), (first, second))] = [[np.cos(2), -np.sin(2)],
                                                      [np.sin(2), np.cos(2)]]
    options = {'root': (0,), 'shoulders': (1, 2), 'up': up}
    x, other = (skeleton_input(each.astype(np.float32), 0.1, **options)
                for each in (joints, 1.7 * joints @ turn.T + [4, 5, 6]))
    np.testing.assert_allclose(x, other, atol=1e-4)
    across = (x[:12].reshape(4, 3, 16)[1] - x[:12].reshape(4, 3, 16)[2]).mean(1)
    assert across[first] > 0 and across[second] == pytest.approx(0, abs=1e-5)
    kept = skeleton_input((joints @ turn.T).astype(np.float32), 0.1, root=(0,))
    assert not np.allclose(x, kept, atol=0.1)


def test_no_size_is_none_to_divide_by():
    assert np.isfinite(skeleton_input(np.ones((4, 3, 2), np.float32), 0.1, scale=(0, 1))).all()


@pytest.mark.parametrize(('fields', 'text'), [
    ({'joints': 1}, 'clip.inputs.skeleton.joints is 1; expected an integer from 2'),
    ({'dimensions': 4}, 'clip.inputs.skeleton.dimensions is 4; expected 2 or 3'),
    ({'root': [18]}, 'clip.inputs.skeleton.root is (18,); expected joints from 0 to 17'),
    ({'scale': [1]}, 'clip.inputs.skeleton.scale is (1,); expected empty, or two joints'),
    ({'scale': [1, 1]}, 'expected empty, or two joints'),
    ({'shoulders': [2, 5]}, 'clip.inputs.skeleton.shoulders is (2, 5); expected empty with 2'),
    ({'up': 'w'}, "clip.inputs.skeleton.up is 'w'; expected x, y or z"),
    ({'feet': 1}, 'clip.inputs.skeleton field')])
def test_a_field_out_of_range_is_named(fields, text):
    with pytest.raises(InvalidSettingError) as error:
        ClipSpec(inputs={'skeleton': fields})
    assert text in str(error.value)


def test_its_specification_is_kept_in_json():
    spec = ClipSpec(inputs={'skeleton': {
        'joints': 20, 'dimensions': 3, 'root': [2], 'scale': [0, 2], 'shoulders': [4, 8],
        'up': 'y'}})
    assert ClipSpec.from_dict(spec.to_dict()) == spec
    assert spec.input_shape(S) == (120, 64)


def test_a_near_miss_has_a_remedy():
    assert unsupported_type('zed_msgs/msg/Skeleton3D').modality is S
    for type_name in (SKELETON, POSES, MARKERS):
        assert unsupported_type(type_name) is None


def test_the_stamp_of_markers_is_that_of_the_first_that_adds():
    delete_all = marker(0, 0, action=3)
    delete_all.header = header(0)
    rig = ModalityRig(SPACE, 'skeleton')
    rig.now_ns = T0_NS + NANOSECONDS // 2
    message = Fields(markers=[delete_all, marker(7, 0, points=BODY)])
    assert rig.take('skeleton', MARKERS, message) == ''
    assert rig.status('skeleton').last_stamp_ns == T0_NS
