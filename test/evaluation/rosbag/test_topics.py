"""Topics are found by what they carry; the user may know better."""

from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.bags import BagWriter
from karmma_ros.evaluation.rosbag.errors import BagError
from karmma_ros.evaluation.rosbag.reading import Bag
from karmma_ros.evaluation.rosbag.topics import choose_topics, parse_named
from karmma_ros.modality import Modality
import numpy as np
import pytest

ALL = tuple(Modality)


def chosen(path, named=None, modalities=ALL, flow=False):
    with Bag(path) as bag:
        choice = choose_topics(bag, named or {}, modalities, flow)
        return {role: topic.name for role, topic in choice.topics.items()}, choice.notes


def test_all_sensors_and_the_truth_are_found(kitchen):
    found, notes = chosen(kitchen)
    assert found == {'rgb': '/image', 'audio': '/audio', 'detections': '/detections',
                     'truth': '/ground_truth'}
    assert 'rgb: /image (sensor_msgs/msg/Image, 90 messages, 15.0 Hz)' in notes


@pytest.fixture(scope='module')
def crowded(bags, kitchen, tmp_path_factory):
    """Give a bag with a second, greyer camera, depth and flow beside the kitchen's topics."""
    path = tmp_path_factory.mktemp('crowded') / 'bag'
    with Bag(kitchen) as bag:
        image = next(t for t in bag.topics.values() if t.name == '/image')
        store = bag.reader(image)._store
        more = []
        for message in bag.messages([image]):
            read = bag.reader(image)(message.data)
            for topic, encoding, size in (('/a_grey', 'mono8', 1), ('/a_depth', '16UC1', 2),
                                          ('/flow', '32FC2', 8)):
                other = store.types[image.type](
                    read.header, 48, 64, encoding, 0, 64 * size,
                    np.zeros(48 * 64 * size, np.uint8))
                more.append((topic, image.type, store, message.received_ns,
                             store.serialize_cdr(other, image.type)))
    return bags.rewrite(kitchen, path, lambda *message: message, more)


def test_pictures_are_told_apart_by_their_encoding(crowded):
    found, notes = chosen(crowded)
    assert found['rgb'] == '/image' and 'flow' not in found
    assert any('not /a_grey' in note and '/a_depth' not in note for note in notes)
    assert any('--topics flow=/flow' in note for note in notes)


def test_flow_is_a_topic_where_it_is_asked_for_or_the_camera_is_not_there(crowded):
    assert chosen(crowded, flow=True)[0]['flow'] == '/flow'
    assert chosen(crowded, {'flow': '/flow'})[0]['flow'] == '/flow'
    assert chosen(crowded, {'rgb': 'none'})[0] == {
        'flow': '/flow', 'audio': '/audio', 'detections': '/detections',
        'truth': '/ground_truth'}


def test_a_named_topic_is_taken_and_none_is_left_out(crowded):
    found, _ = chosen(crowded, parse_named(['camera=/a_grey', 'audio=none']))
    assert found['rgb'] == '/a_grey' and 'audio' not in found


@pytest.mark.parametrize(('named', 'sentence'), [
    ({'rgb': '/audio'}, r"--topics rgb is '/audio \(audio_common.*may be sensor_msgs/msg/Image"),
    ({'audio': '/mic'}, r"--topics audio is '/mic'; it may be a topic of the bag: .*/image"),
])
def test_a_wrong_name_says_what_there_is(kitchen, named, sentence):
    with pytest.raises(InvalidSettingError, match=sentence):
        chosen(kitchen, named)


@pytest.mark.parametrize('word', ['audio', 'smell=/x', 'audio=', '=x'])
def test_words_that_name_nothing_are_refused(word):
    with pytest.raises(InvalidSettingError):
        parse_named([word])


def test_a_bag_without_any_sensor_is_a_sentence(tmp_path):
    with BagWriter(tmp_path / 'bag.mcap') as bag:
        bag.annotation(10**18, 10**18 + 1, (0, 'wash'), (0, 'cup'))
    with pytest.raises(BagError, match=r'no topic of a type that the model takes: .*/ground_tru'):
        chosen(tmp_path / 'bag.mcap')


def test_only_what_the_model_takes_is_chosen(kitchen):
    assert set(chosen(kitchen, modalities=(Modality.AUDIO,))[0]) == {'audio', 'truth'}
    assert set(chosen(kitchen, modalities=(Modality.FLOW,))[0]) == {'rgb', 'truth'}
