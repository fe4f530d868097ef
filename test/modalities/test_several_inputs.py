"""Two inertial sensors, depth and a skeleton in one stream, each silent for a while."""

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.modalities.imu import IMU
from karmma_ros.modalities.message_types import IMAGE
from karmma_ros.modalities.skeleton import POSES
from karmma_ros.modality import Modality, registered_types
from karmma_ros.stream.availability import ModalityState
from modality_rig import header, ModalityRig, STORE
import numpy as np
import pytest

NAMES = ('imu', 'imu_thigh', 'depth', 'skeleton')
LETTERS = {'imu': 'I', 'imu_thigh': 'I_thigh', 'depth': 'Z', 'skeleton': 'S'}
RATES = {'imu': 50, 'imu_thigh': 25, 'depth': 25, 'skeleton': 25}
SPEC = ClipSpec(duration=2.0, num_frames=16, inputs={
    'imu': {'samples': 64}, 'imu_thigh': {'samples': 64},
    'depth': {'height': 8, 'width': 8},
    'skeleton': {'joints': 3, 'dimensions': 3, 'samples': 32}})
TYPES = {'imu': IMU, 'imu_thigh': IMU, 'depth': IMAGE, 'skeleton': POSES}


def message(name, stamp_ns):
    types, wave = STORE.types, float(np.sin(stamp_ns / NANOSECONDS * 5))
    if TYPES[name] == IMU:
        vector = types['geometry_msgs/msg/Vector3']
        return types[IMU](header(stamp_ns), None, None, vector(wave, 0.1, 0.1), None,
                          vector(wave, 0.0, 9.8), None)
    if name == 'depth':
        metres = (2 + wave / 4 + np.indices((16, 16)).sum(0) / 30).astype(np.float32)
        return types[IMAGE](header(stamp_ns), 16, 16, '32FC1', 0, 64,
                            metres.view(np.uint8).reshape(-1))
    return types[POSES](header(stamp_ns), [
        types['geometry_msgs/msg/Pose'](types['geometry_msgs/msg/Point'](i, wave, 1.0), None)
        for i in range(3)])


def run(rig, seconds, silent=()):
    """Let all sensors send that are not silent."""
    for tick in range(round(seconds * 50)):
        rig.now_ns += NANOSECONDS // 50
        for name in NAMES:
            if name not in silent and tick % (50 // RATES[name]) == 0:
                assert rig.take(name, TYPES[name], message(name, rig.now_ns)) == ''


@pytest.fixture
def rig():
    rig = ModalityRig(SPEC, *NAMES)
    run(rig, 3)
    return rig


def test_all_are_available_and_in_the_clip(rig):
    assert rig.available == 'I I_thigh Z S'
    window = rig.stream.window(rig.now_ns)
    inputs = window.clip().inputs
    assert {str(m): x.shape for m, x in inputs.items()} == {
        'imu': (8, 64), 'imu_thigh': (8, 64), 'depth': (3, 16, 8, 8), 'skeleton': (18, 32)}
    assert all(np.isfinite(x).all() and x.any() for x in inputs.values())
    for modality, (oldest, newest) in window.spans_ns.items():
        assert window.start_ns < oldest < newest <= window.end_ns, modality
    assert all(rig.status(name).warning == '' for name in NAMES)


@pytest.mark.parametrize('silent', NAMES)
def test_a_silent_sensor_is_masked_and_returns(rig, silent):
    others = ' '.join(LETTERS[name] for name in NAMES if name != silent)
    run(rig, 1.5, silent={silent})
    assert rig.available == others
    assert rig.status(silent).state is ModalityState.STALE
    assert rig.stream.window(rig.now_ns).modalities == tuple(
        Modality(name) for name in NAMES if name != silent)
    run(rig, 0.3)
    assert rig.status(silent).state is ModalityState.INSUFFICIENT
    assert ' of 16 ' in rig.status(silent).detail and rig.available == others
    run(rig, 0.9)
    assert rig.available == 'I I_thigh Z S'
    assert len(rig.stream.window(rig.now_ns).clip().inputs) == 4


def test_when_all_are_silent_no_window_is_returned(rig):
    run(rig, 1.2, silent=NAMES)
    assert rig.available == '' and rig.stream.window(rig.now_ns) is None
    run(rig, 2)
    assert rig.available == 'I I_thigh Z S'


def test_a_parameter_switches_one_off():
    rig = ModalityRig(SPEC, *NAMES, imu_thigh__enabled=False)
    run(rig, 2, silent={'imu_thigh'})
    assert rig.available == 'I Z S'
    assert rig.status('imu_thigh').state is ModalityState.DISABLED


def test_the_registry_has_them_in_order():
    assert list(registered_types())[:9] == [
        'rgb', 'flow', 'audio', 'detections', 'imu', 'depth', 'skeleton', 'joint_state', 'vector']
    assert ''.join(e.letter for e in registered_types().values())[:9] == 'VFADIZSJX'
