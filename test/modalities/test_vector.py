"""Vectors of any signal: both message types, and what a publisher sends wrong."""

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import make_clip, unsupported_type
from karmma_ros.modalities.series import Series
from karmma_ros.modalities.vector import DOUBLES, FLOATS
from karmma_ros.modality import Modality
from karmma_ros.stream.availability import ModalityState
from modality_rig import ModalityRig, recorded, STORE, T0_NS
import numpy as np
import pytest

X = Modality('vector')
SPEC = ClipSpec(duration=1.0, num_frames=8, inputs={
    'vector': {'size': 3, 'samples': 16, 'mean': [1, 2, 3], 'std': [2, 2, 2]},
    'vector_gaze': {'size': 2, 'samples': 16}})


def message(values, type_name=FLOATS, offset=0):
    layout = STORE.types['std_msgs/msg/MultiArrayLayout']([], offset)
    dtype = np.float32 if type_name == FLOATS else np.float64
    return recorded(type_name, STORE.types[type_name](layout, np.array(values, dtype)))


@pytest.mark.parametrize('type_name', [FLOATS, DOUBLES])
def test_values_are_read_and_have_the_time_of_receiving(type_name):
    rig = ModalityRig(SPEC, 'vector', vector__type=type_name)
    assert rig.take('vector', type_name, message([1, 2, 3], type_name)) == ''
    assert rig.take('vector', type_name, message([9, 4, 5, 6], type_name, 1)) == ''
    assert rig.stream._sources[X].buffer.window(T0_NS).values.tolist() == [[1, 2, 3]]
    assert rig.status('vector').last_stamp_ns == T0_NS


def test_a_message_of_rclpy_is_read():
    array = pytest.importorskip('std_msgs.msg').Float32MultiArray(data=[1.0, 2.0])
    rig = ModalityRig(SPEC, 'vector_gaze')
    assert rig.take('vector_gaze', FLOATS, array) == ''


@pytest.mark.parametrize(('values', 'text'), [
    ([1, 2], 'vector_gaze: got 1 values; expected 2, as the model takes '
     '(clip.inputs.vector_gaze.size): remap vector to the topic that it was trained on'),
    ([1, np.nan, 5], 'vector_gaze: values [0] are NaN or infinity; expected finite numbers')])
def test_what_a_publisher_sends_wrong_is_the_sensor_s_reason(values, text):
    rig = ModalityRig(SPEC, 'vector_gaze')
    assert text in rig.take('vector_gaze', FLOATS, message(values, offset=1))
    status = rig.status('vector_gaze')
    assert status.state is ModalityState.INVALID and text[:80] in status.detail


def test_live_equals_training():
    values = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    rig = ModalityRig(SPEC, 'vector')
    for i, row in enumerate(values):
        rig.now_ns = T0_NS + i * NANOSECONDS // 30
        assert rig.take('vector', FLOATS, message(row)) == ''
    times = np.arange(40) * NANOSECONDS // 30
    file = make_clip(SPEC, {X: Series(times - times[-1], values)}).inputs[X]
    np.testing.assert_array_equal(rig.stream.window(rig.now_ns).clip().inputs[X], file)
    assert file.shape == SPEC.input_shape(X) == (3, 16)


def test_without_a_size_it_has_no_shape():
    with pytest.raises(
        InvalidSettingError, match='clip.inputs.vector.size is 0; expected the num'
    ):
        ClipSpec().input_shape(X)


def test_a_near_miss_has_a_remedy():
    assert unsupported_type('geometry_msgs/msg/WrenchStamped').modality is X
    assert ClipSpec.from_dict(SPEC.to_dict()) == SPEC
