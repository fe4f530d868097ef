"""Quality of service, publishers of other types or too many of them: followed or named."""

import array
import time

from audio_common_msgs.msg import AudioData, AudioDataStamped
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import PAPER_MODALITIES
from karmma_ros.node.messages import time_message
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_data import pixels
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

V, F, A, D = PAPER_MODALITIES
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


def make_image(encoding='rgb8'):
    return Image(width=32, height=24, step=96, encoding=encoding,
                 data=array.array('B', pixels(24, 32).tobytes()))


def qos_of(rig, topic):
    return rig.subscriptions()[topic].qos_profile


def test_auto_follows_what_the_publishers_offer_and_not_each_blink(rig):
    inputs = rig.start()
    first = rig.subscriptions()['/image']
    assert first.qos_profile.reliability is ReliabilityPolicy.BEST_EFFORT
    rig.publisher(Image, 'image', RELIABLE)
    assert rig.until(lambda: rig.subscriptions()['/image'] is not first)
    assert qos_of(rig, '/image').reliability is ReliabilityPolicy.RELIABLE
    assert qos_of(rig, '/image').depth == 1
    assert inputs.facts(V)['qos'] == 'reliable, depth 1 (auto)'
    assert rig.until(rig.available(V), step=lambda: rig.send('image', make_image()))
    reliable = rig.subscriptions()['/image']
    # Without a publisher nothing changes.
    rig.silence(Image, 'image')
    assert rig.until(lambda: inputs.facts(V)['publishers'] == 'none')
    assert not rig.until(lambda: rig.subscriptions()['/image'] is not reliable, 0.5)
    rig.publisher(Image, 'image', BEST_EFFORT)
    assert rig.until(
        lambda: qos_of(rig, '/image').reliability is ReliabilityPolicy.BEST_EFFORT)
    assert rig.until(rig.available(V), step=lambda: rig.send('image', make_image(), BEST_EFFORT))
    assert inputs.problem(V) == ''


def test_reliable_publishers_that_exist_before_are_requested_as_reliable(rig):
    rig.publisher(Image, 'image', RELIABLE)
    rig.until(lambda: rig.sensors.count_publishers('/image'), watch=False)
    time.sleep(0.5)
    rig.start()
    assert rig.until(lambda: qos_of(rig, '/image').reliability is ReliabilityPolicy.RELIABLE, 3)


@pytest.mark.parametrize(('setting', 'reliability'), [
    ('sensor_data', ReliabilityPolicy.BEST_EFFORT), ('reliable', ReliabilityPolicy.RELIABLE)])
def test_a_fixed_choice_stays(rig, setting, reliability):
    rig.start(rgb__qos=setting)
    first = rig.subscriptions()['/image']
    rig.publisher(Image, 'image', RELIABLE)
    rig.publisher(Image, 'image', BEST_EFFORT)
    assert not rig.until(lambda: rig.subscriptions()['/image'] is not first, 1)
    assert first.qos_profile.reliability is reliability


def test_a_publisher_that_offers_too_little_is_named_until_it_is_mended(rig, capfd):
    inputs = rig.start(rgb__qos='reliable')
    assert not rig.until(rig.available(V), 1, lambda: rig.send('image', make_image(), BEST_EFFORT))
    assert inputs.problem(V) == (
        '/image: /sensors offers best effort, the node requests reliable, so nothing is '
        'received: set rgb.qos to auto or sensor_data')
    assert inputs.problem(F) == inputs.problem(V) and inputs.problem(A) == ''
    assert capfd.readouterr().err.count('offers best effort') == 1
    rig.set(rgb__qos='auto')
    assert rig.until(rig.available(V), step=lambda: rig.send('image', make_image(), BEST_EFFORT))
    assert inputs.problem(V) == ''


def test_the_event_of_the_middleware_reports_it_without_a_check(rig):
    inputs = rig.start(rgb__qos='reliable')
    rig.publisher(Image, 'image', BEST_EFFORT)
    assert rig.until(lambda: 'offers best effort' in inputs.problem(V), watch=False)
    rig.silence(Image, 'image', BEST_EFFORT)
    assert rig.until(lambda: inputs.problem(V) == '')


def test_qos_overrides(rig):
    inputs = rig.start(overrides={
        'qos_overrides./image.subscription.depth': 3,
        'qos_overrides./image.subscription.reliability': 'reliable'})
    assert qos_of(rig, '/image').depth == 3
    assert qos_of(rig, '/detections').depth == 5
    assert inputs.facts(V)['qos'] == 'reliable, depth 3 (qos_overrides)'
    first = rig.subscriptions()['/image']
    rig.publisher(Image, 'image', BEST_EFFORT)
    assert rig.until(lambda: 'start the node without qos_overrides./image.subscription.reliability'
                     in inputs.problem(V))
    assert rig.subscriptions()['/image'] is first
    # The same again after a restart of the inputs.
    inputs.stop()
    inputs.start()
    assert qos_of(rig, '/image').depth == 3
    assert qos_of(rig, '/image').reliability is ReliabilityPolicy.RELIABLE


def test_an_override_of_depth_leaves_auto_free(rig):
    rig.start(overrides={'qos_overrides./image.subscription.depth': 3})
    rig.publisher(Image, 'image', RELIABLE)
    assert rig.until(lambda: qos_of(rig, '/image').reliability is ReliabilityPolicy.RELIABLE)
    assert qos_of(rig, '/image').depth == 3


@pytest.mark.parametrize(('name', 'value', 'text'), [
    ('depth', 'many', "depth is 'many'; expected a whole number from 1"),
    ('depth', 0, 'depth is 0'), ('depth', -3, 'depth is -3'),
    ('depth', 9999, 'depth is 9999; .* to 1000'),
    ('history', 'keep_some', "history is 'keep_some'; expected keep_last or keep_all"),
    ('reliability', 'perhaps', "reliability is 'perhaps'; expected reliable or best_effort"),
    ('reliability', 3, 'reliability is 3'),
])
def test_overrides_that_are_none(rig, name, value, text):
    with pytest.raises(InvalidSettingError, match=f'qos_overrides./image.subscription.{text}'):
        rig.start(overrides={f'qos_overrides./image.subscription.{name}': value})
    assert rig.inputs.problem(V) != '' and '/detections' in rig.subscriptions()


def test_an_input_that_fails_when_the_stream_is_replaced_stops_no_other(rig, capfd):
    rig.start(overrides={'qos_overrides./flow.subscription.depth': 0})
    rig.values['flow.source'] = 'topic'
    rig.feed(rig.modalities)
    assert 'depth is 0' in rig.inputs.problem(F) and 'depth is 0' in capfd.readouterr().err
    assert rig.until(rig.available(V), step=lambda: rig.send('image', make_image()))
    rig.values['flow.source'] = 'computed'
    rig.inputs.check()
    assert rig.inputs.problem(F) == ''


@pytest.mark.parametrize(('values', 'message_type', 'topic', 'modality', 'text'), [
    ({}, CompressedImage, 'image', V,
     'publishes sensor_msgs/msg/CompressedImage, not sensor_msgs/msg/Image: set rgb.transport to '
     'compressed and remap image/compressed to /image'),
    ({'rgb__transport': 'compressed'}, Image, 'image/compressed', V,
     'set rgb.transport to raw and remap image to /image/compressed'),
    ({}, AudioData, 'audio', A, 'set audio.type to audio_common_msgs/msg/AudioData'),
    ({}, String, 'detections', D, 'remap detections to a topic of vision_msgs/msg/Detection2D'),
    ({'flow__source': 'topic'}, String, 'flow', F, 'remap flow to a topic of sensor_msgs/msg/I'),
])
def test_a_topic_of_another_type_is_named_with_its_fix(
        rig, strangers, values, message_type, topic, modality, text):
    inputs = rig.start(**values)
    publisher = strangers.create_publisher(message_type, topic, 5)
    assert rig.until(lambda: text in inputs.problem(modality)
                     and '/strangers publishes' in inputs.problem(modality))
    strangers.destroy_publisher(publisher)
    assert rig.until(lambda: inputs.problem(modality) == '')


@pytest.mark.parametrize(('transport', 'message', 'topic', 'text'), [
    ('raw', CompressedImage(), 'image/compressed', 'set rgb.transport to compressed'),
    ('compressed', Image(), 'image', 'set rgb.transport to raw')])
def test_the_other_transport_is_pointed_to(rig, transport, message, topic, text):
    inputs = rig.start(rgb__transport=transport)
    assert rig.until(lambda: text in inputs.problem(V), step=lambda: rig.send(topic, message))


def test_two_cameras_on_one_topic_are_named_and_survived(rig):
    inputs = rig.start()
    shift = [0]

    def both():
        rig.send('image', make_image())
        late = make_image('bgr8')
        late.header.stamp = time_message(rig.now_ns() - 300_000_000)
        rig.publisher(Image, 'image', BEST_EFFORT).publish(late)
        shift[0] += 1
    assert rig.until(rig.available(V), step=both)
    assert rig.until(lambda: '2 publishers, /sensors and /sensors: their messages interleave'
                     in inputs.problem(V), step=both)
    ends = []
    for _ in range(20):
        rig.until(lambda: False, 0.05, both)
        window = rig.stream.window(rig.now_ns())
        ends += [window.end_ns] if window else []
    assert len(ends) > 5 and ends == sorted(set(ends))
    assert rig.now_ns() - ends[-1] < NANOSECONDS


def test_resubscribing_amid_traffic_breaks_nothing(rig):
    rig.start()
    for turn in range(30):
        for _ in range(5):
            rig.send('image', make_image())
            rig.send_audio()
            rig.executor.spin_once(timeout_sec=0.01)
        rig.set(rgb__qos=('reliable', 'sensor_data')[turn % 2])
        rig.set(audio__enabled=bool(turn % 3))
        rig.inputs.check()
    rig.set(rgb__qos='auto', audio__enabled=True)

    def both():
        rig.send('image', make_image())
        rig.send_audio()
    assert rig.until(rig.available(V, A), step=both)


def test_a_topic_that_this_process_has_under_another_type_stops_nothing_else(rig):
    rig.publisher(String, 'image')
    with pytest.raises(RuntimeError, match='Failed to create subscription'):
        rig.start()
    inputs = rig.inputs
    assert 'Failed to create subscription' in inputs.problem(V)
    assert '/detections' in rig.subscriptions()
    rig.silence(String, 'image')
    inputs.check()
    assert inputs.problem(V) == '' and '/image' in rig.subscriptions()


def test_auto_gives_no_advice_on_qos_while_it_changes_by_itself(rig, capfd):
    inputs = rig.start()
    rig.publisher(Image, 'image', RELIABLE)
    assert rig.until(lambda: qos_of(rig, '/image').reliability is ReliabilityPolicy.RELIABLE)
    rig.silence(Image, 'image', RELIABLE)
    rig.publisher(Image, 'image', BEST_EFFORT)
    problems = set()
    assert rig.until(lambda: problems.add(inputs.problem(V)) or
                     qos_of(rig, '/image').reliability is ReliabilityPolicy.BEST_EFFORT)
    assert not [each for each in problems if 'rgb.qos' in each]
    assert 'rgb.qos' not in capfd.readouterr().err


def test_an_input_that_never_came_is_warned_about_once_by_topic(rig, capfd, monkeypatch):
    monkeypatch.setattr('karmma_ros.node.subscription._PATIENCE_S', 0.5)
    rig.start()
    rig.publisher(Image, 'image', BEST_EFFORT)
    assert not rig.until(lambda: False, 2.0, lambda: rig.send('audio', AudioDataStamped()))
    lines = [line for line in capfd.readouterr().err.splitlines() if 'nothing received' in line]
    assert len(lines) == 2
    assert ('rgb: nothing received on /image (sensor_msgs/msg/Image) for 0.5 s: published by '
            '/sensors (sensor_msgs/msg/Image, best effort): check that it sends') in lines[0]
    assert ('detections: nothing received on /detections (vision_msgs/msg/Detection2DArray) for '
            '0.5 s: no publisher: start the driver, remap the topic, or set '
            'detections.enabled to false') in lines[1]
