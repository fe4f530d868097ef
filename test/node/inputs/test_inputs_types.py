"""Message types beside the usual ones: yolo_msgs, and those that cannot be read."""

from types import SimpleNamespace

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import message_types as types
from karmma_ros.modalities import modality_type, unsupported_type
from karmma_ros.modalities.imu import IMU
from karmma_ros.modalities.joint_state import JOINT_STATE
from karmma_ros.modalities.message_types import DETECTIONS, IMAGE, YOLO
from karmma_ros.modalities.skeleton import MARKERS, POSES, SKELETON
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.node import subscription
from karmma_ros.node.subscription import fix_hint, InputTopic, message_class
import numpy as np
import pytest
from yolo_msgs.msg import Detection, DetectionArray

V, A, D = Modality.RGB, Modality.AUDIO, Modality.DETECTIONS
SIZE = {'detections__image_width': 100, 'detections__image_height': 50}


def yolo(name='left hand'):
    detection = Detection(class_name=name, class_id=3, score=0.5)
    detection.bbox.center.position.x, detection.bbox.center.position.y = 50.0, 25.0
    detection.bbox.size.x, detection.bbox.size.y = 20.0, 10.0
    return DetectionArray(detections=[detection])


def test_boxes_of_yolo_ros_are_an_input(rig):
    inputs = rig.start(detections__type=YOLO, **SIZE)
    assert rig.until(rig.available(D), step=lambda: rig.send('detections', yolo()))
    window = rig.stream.window(rig.now_ns())
    np.testing.assert_allclose(
        next(each for each in window.samples[D].boxes if len(each))[0], [0.4, 0.4, 0.6, 0.6, 1],
        atol=1e-6)
    assert inputs.facts(D)['type'] == YOLO and inputs.problem(D) == ''


def test_the_type_of_the_boxes_is_pointed_to_and_changes_live(rig, strangers):
    publisher = strangers.create_publisher(DetectionArray, 'detections', 5)
    inputs = rig.start(**SIZE)
    problem = f'publishes {YOLO}, not {DETECTIONS}: set detections.type to {YOLO}'
    assert rig.until(lambda: problem in inputs.problem(D))
    rig.set(detections__type=YOLO)
    assert rig.until(rig.available(D), step=lambda: publisher.publish(yolo()))
    assert inputs.problem(D) == ''


def test_yolo_msgs_that_are_not_installed_are_named_with_a_fix(monkeypatch):
    def missing(name):
        raise ImportError(name)
    assert message_class(YOLO, D) is DetectionArray
    monkeypatch.setattr(subscription, 'import_module', missing)
    with pytest.raises(InvalidSettingError, match='detections.type is .*github.com/mgonzs13/yolo_r'
                       '.*or set detections.type to vision_msgs'):
        message_class(YOLO, D)
    with pytest.raises(InvalidSettingError, match='^audio_left.type is .*or set audio_left.type '
                       'to .*, or set audio_left.enabled'):
        message_class(types.AUDIO_STAMPED, Modality('audio_left'))


@pytest.mark.parametrize('offered', [
    name for m in PAPER_MODALITIES for name in modality_type(m).unsupported])
def test_each_type_that_cannot_be_read_has_its_cure(offered):
    """By the table that the evaluation of bags uses, too."""
    modality, remedy = unsupported_type(offered)
    assert fix_hint(modality, '/x', IMAGE, offered) == remedy.format(topic='/x')
    assert fix_hint(V if modality is A else A, '/x', IMAGE, offered).startswith('remap ')


def test_another_transport_of_the_camera_is_named_with_its_cure(rig, monkeypatch):
    """Its type is not installed here, so that only the graph is made up."""
    publishers = InputTopic._publishers
    monkeypatch.setattr(InputTopic, '_publishers', lambda self, topic='': [
        SimpleNamespace(topic_type='ffmpeg_image_transport_msgs/msg/FFMPEGPacket')
    ] if topic == '/image/ffmpeg' else publishers(self, topic))
    inputs = rig.start()
    assert '/image: no publisher, but /image/ffmpeg is, of ffmpeg' in inputs.problem(V)
    assert 'in/ffmpeg:=/image/ffmpeg' in inputs.problem(V)
    rig.set(rgb__transport='compressed')
    assert 'but /image/ffmpeg is' in inputs.problem(V)


@pytest.mark.parametrize(('modality', 'topic', 'expected', 'offered', 'hint'), [
    ('imu_thigh', '/x', IMU, 'std_msgs/msg/String',
     f'remap imu_thigh to a topic of {IMU}'),
    ('imu', '/mag', IMU, 'sensor_msgs/msg/MagneticField', 'it has no acceleration'),
    ('skeleton', '/x', SKELETON, POSES, f'set skeleton.type to {POSES}'),
    ('joint_state', '/x', JOINT_STATE, 'control_msgs/msg/DynamicJointState',
     f'remap joint_states to the {JOINT_STATE} of joint_state_broadcaster'),
    ('depth', '/points', IMAGE, 'sensor_msgs/msg/PointCloud2',
     f'remap depth to the {IMAGE} that it was made of'),
    ('depth', '/d/compressedDepth', IMAGE, types.COMPRESSED_IMAGE,
     'set depth.transport to compressed and remap depth to /d'),
    ('depth', '/d', IMAGE, types.COMPRESSED_IMAGE,
     'set depth.transport to compressed and remap depth/compressedDepth to /d')])
def test_a_topic_of_another_type_has_its_cure(modality, topic, expected, offered, hint):
    assert fix_hint(Modality(modality), topic, expected, offered).startswith(hint)


def test_another_type_of_skeleton_is_proposed_where_hri_msgs_is_not_installed():
    with pytest.raises(InvalidSettingError) as error:
        message_class(SKELETON, Modality('skeleton_left'))
    assert str(error.value) == (
        f'skeleton_left.enabled is True; expected true only where {SKELETON} is installed: '
        'install ros-$ROS_DISTRO-hri-msgs and source ROS again, or set skeleton_left.type to '
        f'{POSES} or {MARKERS}, or set skeleton_left.enabled to false')
