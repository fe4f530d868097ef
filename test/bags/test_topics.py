"""Topics are chosen by type and encoding, or by the user."""

from karmma_ros.bags.reader import Bag
from karmma_ros.bags.topics import choose_topics, message_types, parse_topics
from karmma_ros.bags.writer import BagWriter
from karmma_ros.errors import BagError, InvalidSettingError
from karmma_ros.modalities import message_types as types
from karmma_ros.modalities import unsupported_type
from karmma_ros.modality import Modality, PAPER_MODALITIES
import numpy as np
import pytest
from rosbags.typesys import get_types_from_msg

ALL = PAPER_MODALITIES


def chosen(path, named=None, modalities=ALL, with_topic=()):
    with Bag(path) as bag:
        choice = choose_topics(bag, named or {}, modalities, with_topic)
        return {role: topic.name for role, topic in choice.topics.items()}, choice.notes


def test_all_sensors_and_the_ground_truth_are_chosen(kitchen):
    topics, notes = chosen(kitchen)
    assert topics == {'rgb': '/image', 'audio': '/audio', 'detections': '/detections',
                     'truth': '/ground_truth'}
    assert 'rgb: /image (sensor_msgs/msg/Image, 90 messages, 15.0 Hz)' in notes


@pytest.fixture(scope='module')
def crowded(bags, kitchen, tmp_path_factory):
    """Return a bag with a second, greyer camera, depth and flow beside the kitchen's topics."""
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


def test_image_topics_are_ranked_by_their_encoding(crowded):
    topics, notes = chosen(crowded)
    assert topics['rgb'] == '/image' and 'flow' not in topics
    assert any('not /a_grey' in note and '/a_depth' not in note for note in notes)
    assert any('--topics flow=/flow' in note for note in notes)


def test_flow_is_a_topic_if_wanted_or_without_a_camera(crowded):
    assert chosen(crowded, with_topic={Modality.FLOW})[0]['flow'] == '/flow'
    assert chosen(crowded, {'flow': '/flow'})[0]['flow'] == '/flow'
    assert chosen(crowded, {'rgb': 'none'})[0] == {
        'flow': '/flow', 'audio': '/audio', 'detections': '/detections',
        'truth': '/ground_truth'}


def test_a_named_topic_is_used_and_none_disables_a_role(crowded):
    topics, _ = chosen(crowded, parse_topics(['camera=/a_grey', 'audio=none']))
    assert topics['rgb'] == '/a_grey' and 'audio' not in topics


@pytest.mark.parametrize(('named', 'sentence'), [
    ({'rgb': '/audio'}, r"--topics rgb is '/audio \(audio_common.*expected sensor_msgs/msg/Image"),
    ({'audio': '/mic'}, r"--topics audio is '/mic'; expected a topic of the bag: .*/image"),
])
def test_a_wrong_name_is_an_error_that_lists_the_topics(kitchen, named, sentence):
    with pytest.raises(InvalidSettingError, match=sentence):
        chosen(kitchen, named)


@pytest.mark.parametrize('word', ['audio', 'smell=/x', 'audio=', '=x'])
def test_words_without_role_or_topic_are_rejected(word):
    with pytest.raises(InvalidSettingError):
        parse_topics([word])


def test_a_bag_without_any_sensor_is_a_sentence(tmp_path):
    with BagWriter(tmp_path / 'bag.mcap') as bag:
        bag.annotation(10**18, 10**18 + 1, (0, 'wash'), (0, 'cup'))
    with pytest.raises(BagError, match=r'no topic of a type that the model takes: .*/ground_tru'):
        chosen(tmp_path / 'bag.mcap')


def test_only_what_the_model_takes_is_chosen(kitchen):
    assert set(chosen(kitchen, modalities=(Modality.AUDIO,))[0]) == {'audio', 'truth'}
    assert set(chosen(kitchen, modalities=(Modality.FLOW,))[0]) == {'rgb', 'truth'}


FFMPEG, VIDEO = 'ffmpeg_image_transport_msgs/msg/FFMPEGPacket', 'foxglove_msgs/msg/CompressedVideo'


@pytest.fixture(scope='module')
def unread(bags, kitchen, tmp_path_factory):
    """Return a kitchen whose camera is video, with more types that cannot be read beside it."""
    path = tmp_path_factory.mktemp('unread') / 'bag'
    others = {'/cam/ffmpeg': FFMPEG, '/video': VIDEO, '/boxes': 'vision_msgs/msg/Detection3DArray',
              '/mic': 'my_robot_msgs/msg/AudioChunk', '/tags': 'tag_msgs/msg/AprilTagDetection'}
    with Bag(kitchen) as bag:
        image = next(t for t in bag.topics.values() if t.name == '/image')
        store = bag.reader(image)._store
        for type_name in others.values():
            store.register(get_types_from_msg('std_msgs/Header header\nuint8[] data', type_name))
        read, empty = bag.reader(image), np.zeros(4, np.uint8)
        more = [(topic, type_name, store, message.received_ns, store.serialize_cdr(
            store.types[type_name](read(message.data).header, empty), type_name))
            for message in bag.messages([image]) for topic, type_name in others.items()]
    return bags.rewrite(
        kitchen, path, lambda topic, *rest: None if topic == '/image' else (topic, *rest), more)


def choice_of(path, named=None, modalities=ALL):
    with Bag(path) as bag:
        return choose_topics(bag, named or {}, modalities)


def test_every_topic_of_a_known_type_that_is_not_read_is_named_with_what_to_do(unread):
    notes = choice_of(unread).unread
    assert len(notes) == 4 and not any('/tags' in note for note in notes)
    video = next(note for note in notes if note.startswith('/cam/ffmpeg'))
    assert video.startswith(f'/cam/ffmpeg ({FFMPEG}, 90 messages) is not read: republish it raw: ')
    assert 'in_transport:=ffmpeg' in video and 'in/ffmpeg:=/cam/ffmpeg' in video
    assert any('/video' in note and 'H.264' in note for note in notes)
    assert any('/boxes' in note and 'in metres' in note for note in notes)
    assert any('/mic' in note and types.AUDIO_DATA_STAMPED in note for note in notes)


def test_only_sensors_that_are_wanted_are_named(unread):
    assert choice_of(unread, {'rgb': 'none', 'audio': 'none'}, (Modality.RGB, Modality.DETECTIONS)
                     ).unread[0].startswith('/boxes')
    assert choice_of(unread, modalities=(Modality.AUDIO,)).unread[0].startswith('/mic')


def test_the_remedy_names_no_topic_that_would_be_rejected(unread):
    with pytest.raises(BagError, match='/cam/ffmpeg .*republish it raw') as failure:
        choice_of(unread, modalities=(Modality.RGB,))
    assert '--topics' not in str(failure.value)
    with pytest.raises(InvalidSettingError, match='/video .foxglove.*expected sensor_msgs.*H.264'):
        choice_of(unread, {'rgb': '/video'})


def test_the_remedy_names_topics_that_fit(bags, crowded, tmp_path):
    grey = bags.rewrite(crowded, tmp_path / 'bag', lambda topic, *rest: (
        (topic, *rest) if topic in ('/a_depth', '/ground_truth') else None), [])
    with pytest.raises(BagError, match='name one with --topics: rgb=/a_depth, flow=/a_depth'):
        choice_of(grey)


def test_without_any_topic_that_fits_the_types_are_named(tmp_path):
    with BagWriter(tmp_path / 'bag.mcap') as bag:
        bag.annotation(10**18, 10**18 + 1, (0, 'wash'), (0, 'cup'))
    with pytest.raises(BagError, match='record one of sensor_msgs/msg/Image') as failure:
        choice_of(tmp_path / 'bag.mcap')
    assert '--topics' not in str(failure.value)


@pytest.mark.parametrize('type_name', [
    t for role in (*PAPER_MODALITIES, 'audio_info', 'truth', 'recognition')
    for t in message_types(role)])
def test_no_type_that_is_read_is_in_the_table_of_the_others(type_name):
    assert unsupported_type(type_name) is None


@pytest.mark.parametrize(('type_name', 'modality'), [
    ('theora_image_transport/msg/Packet', Modality.RGB), ('x_msgs/msg/VideoFrame', Modality.RGB),
    ('audio_utils_msgs/msg/AudioFrame', Modality.AUDIO), ('a/msg/Detections', Modality.DETECTIONS),
    ('yolov8_msgs/msg/DetectionArray', Modality.DETECTIONS), ('sensor_msgs/msg/CameraInfo', None),
    ('visualization_msgs/msg/ImageMarker', None),
    ('sensor_msgs/msg/PointCloud2', Modality('depth')), ('a/msg/ImuRaw', Modality('imu')),
    ('sensor_msgs/msg/LaserScan', None)])
def test_types_are_judged_by_table_and_by_name(type_name, modality):
    topics = unsupported_type(type_name)
    assert (topics and topics.modality) is modality
