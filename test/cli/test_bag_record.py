"""The command for recording: what it names, and the QoS file beside it."""

import shlex

from karmma_ros.cli.bag import record
from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import save_bundle
from karmma_ros.model.presets import only, preset
from karmma_ros.prediction import Vocabulary
import pytest
from ruamel.yaml import YAML


def recorded(capsys, tmp_path, *words):
    assert record.main(['afternoon', '--qos-file', str(tmp_path / 'qos.yaml'), *words]) == 0
    command = shlex.split(capsys.readouterr().out)
    return command, YAML(typ='safe').load((tmp_path / 'qos.yaml').read_text())


def test_sensors_and_predictions_are_recorded(capsys, tmp_path):
    command, qos = recorded(capsys, tmp_path, '--distro', 'jazzy')
    assert command[:3] == ['ros2', 'bag', 'record']
    assert command[command.index('--output') + 1] == 'afternoon'
    assert command[command.index('--topics') + 1:] == [
        '/image', '/audio', '/detections', '/audio_info', '/action_recognition',
        '/karmma/action_events', '/karmma/modality_availability', '/karmma/model_info']
    assert command[command.index('--qos-profile-overrides-path') + 1] == str(
        tmp_path / 'qos.yaml')
    assert qos['/image']['reliability'] == 'best_effort'
    assert qos['/audio_info'] == {
        'history': 'keep_last', 'depth': 10, 'reliability': 'reliable',
        'durability': 'transient_local'}


def test_humble_takes_topics_as_they_come(capsys, tmp_path):
    command, _ = recorded(capsys, tmp_path, '--distro', 'humble', '--node', 'none')
    assert '--topics' not in command
    assert command[-4:] == ['/image', '/audio', '/detections', '/audio_info']


def test_topics_of_the_robot_and_a_node_in_a_namespace(capsys, tmp_path):
    command, qos = recorded(
        capsys, tmp_path, '--image', '/cam/color', '--audio', 'none', '--flow', '/flow',
        '--ground-truth', '/truth', '--node', '/kitchen/karmma', '--reliable')
    assert command[command.index('--topics') + 1:] == [
        '/cam/color', '/flow', '/detections', '/truth', '/kitchen/action_recognition',
        '/kitchen/karmma/action_events', '/kitchen/karmma/modality_availability',
        '/kitchen/karmma/model_info']
    assert set(qos) == {'/cam/color', '/flow', '/detections', '/truth'}
    assert qos['/cam/color']['reliability'] == 'reliable'


@pytest.fixture
def wearable(tmp_path):
    """Save a model of two inertial sensors, joints, and flow of the camera at the wrist."""
    clip = ClipSpec(num_frames=4, video=VideoSpec(32, 32), inputs={
        'joint_state': {'names': ['elbow']}})
    config = only(preset('tiny'), ['imu', 'imu_thigh', 'joint_state', 'flow_wrist'])
    vocabulary = Vocabulary({'action': ('wave', 'walk')})
    save_bundle(tmp_path / 'wearable', build(config, clip, vocabulary), config, clip, vocabulary,
                dataset='ours', card='')
    return str(tmp_path / 'wearable')


def test_the_topics_of_a_model_s_inputs_are_recorded(capsys, tmp_path, wearable):
    command, qos = recorded(capsys, tmp_path, '--model', wearable, '--node', 'none',
                         '--topics', 'imu_thigh=/thigh/imu')
    topics = ['/image_wrist', '/imu', '/thigh/imu', '/joint_states']
    assert command[command.index('--topics') + 1:] == topics
    assert list(qos) == topics and qos['/imu']['depth'] == 800
    command, _ = recorded(capsys, tmp_path, '--model', wearable, '--node', 'none', '--topics',
                       'flow_wrist=/wrist/flow', 'rgb_wrist=none')
    assert command[command.index('--topics') + 1:] == [
        '/wrist/flow', '/imu', '/imu_thigh', '/joint_states']


def test_further_topics_are_recorded_without_a_model(capsys, tmp_path):
    command, _ = recorded(capsys, tmp_path, '--node', 'none', '--audio', 'none', '--topics',
                       'imu=/imu/data')
    assert command[command.index('--topics') + 1:] == ['/image', '/detections', '/imu/data']


def test_the_audio_format_of_every_microphone_is_recorded(capsys, tmp_path):
    words = ['--node', 'none', '--image', 'none', '--detections', 'none', '--topics',
             'audio_left=/left/audio']
    command, qos = recorded(capsys, tmp_path, *words)
    assert command[command.index('--topics') + 1:] == [
        '/audio', '/left/audio', '/audio_info', '/left/audio_info', '/audio_info_left']
    assert qos['/left/audio_info']['durability'] == 'transient_local'
    command, qos = recorded(capsys, tmp_path, *words, 'audio_info_left=/mic/info')
    assert command[-2:] == ['/audio_info', '/mic/info']
    assert qos['/mic/info']['depth'] == 10 and '/audio_info_info_left' not in qos
    command, _ = recorded(capsys, tmp_path, *words, 'audio_info_left=/audio_info')
    assert command[-2:] == ['/left/audio', '/audio_info']
    command, _ = recorded(
        capsys, tmp_path, *words, 'audio_info_left=none', '--audio-info', 'none')
    assert command[-2:] == ['/audio', '/left/audio']


@pytest.mark.parametrize(('words', 'sentence'), [
    (['--topics', 'imu=data'], r"--topics is 'data'; expected the full name"),
    (['--topics', 'smell=/x'], "--topics is 'smell=/x'; expected ROLE=/topic"),
    (['--topics', 'truth=/x'], "--topics is 'truth'; expected a modality"),
    (['--topics', 'audio_info=/x'], "--topics is 'audio_info'; expected a modality"),
    (['--image', 'image'], r"--image is 'image'; expected the full name"),
    (['--image', 'none', '--audio', 'none', '--detections', 'none'], 'nothing to evaluate'),
])
def test_what_cannot_be_recorded_is_a_sentence(capsys, tmp_path, words, sentence):
    with pytest.raises(InvalidSettingError, match=sentence):
        recorded(capsys, tmp_path, *words)
