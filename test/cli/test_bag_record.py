"""The command for recording: what it names, and the QoS file beside it."""

import shlex

from karmma_ros.cli.bag import record
from karmma_ros.errors import InvalidSettingError
import pytest
from ruamel.yaml import YAML


def asked(capsys, tmp_path, *words):
    assert record.main(['afternoon', '--qos-file', str(tmp_path / 'qos.yaml'), *words]) == 0
    command = shlex.split(capsys.readouterr().out)
    return command, YAML(typ='safe').load((tmp_path / 'qos.yaml').read_text())


def test_sensors_and_predictions_are_recorded(capsys, tmp_path):
    command, qos = asked(capsys, tmp_path, '--distro', 'jazzy')
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
    command, _ = asked(capsys, tmp_path, '--distro', 'humble', '--node', 'none')
    assert '--topics' not in command
    assert command[-4:] == ['/image', '/audio', '/detections', '/audio_info']


def test_topics_of_the_robot_and_a_node_in_a_namespace(capsys, tmp_path):
    command, qos = asked(
        capsys, tmp_path, '--image', '/cam/color', '--audio', 'none', '--flow', '/flow',
        '--ground-truth', '/truth', '--node', '/kitchen/karmma', '--reliable')
    assert command[command.index('--topics') + 1:] == [
        '/cam/color', '/flow', '/detections', '/truth', '/kitchen/action_recognition',
        '/kitchen/karmma/action_events', '/kitchen/karmma/modality_availability',
        '/kitchen/karmma/model_info']
    assert set(qos) == {'/cam/color', '/flow', '/detections', '/truth'}
    assert qos['/cam/color']['reliability'] == 'reliable'


@pytest.mark.parametrize(('words', 'sentence'), [
    (['--image', 'image'], r"--image is 'image'; expected the full name"),
    (['--image', 'none', '--audio', 'none', '--detections', 'none'], 'nothing to evaluate'),
])
def test_what_cannot_be_recorded_is_a_sentence(capsys, tmp_path, words, sentence):
    with pytest.raises(InvalidSettingError, match=sentence):
        asked(capsys, tmp_path, *words)
