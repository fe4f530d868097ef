"""What the inputs subscribe to, and what they take."""

import array
from types import SimpleNamespace

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
import cv2
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import PAPER_MODALITIES
from karmma_ros.node.declarations import DECLARATIONS
from karmma_ros.node.inputs import check_inputs
from karmma_ros.node.lifecycle import KarmmaNode
from karmma_ros.node.message_handler import deserialize
from karmma_ros.node.messages import time_message
from karmma_ros.stream.availability import ModalityState
import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import serialize_message
from sensor_data import pixels, samples
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

V, F, A, D = PAPER_MODALITIES
DEFAULTS = {d.name: d.default for d in DECLARATIONS}
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def make_image(encoding='rgb8', pixel=3, width=32, height=24):
    return Image(width=width, height=height, step=pixel * width, encoding=encoding,
                 data=array.array('B', pixels(height, width, pixel).tobytes()))


def compressed(data_format='rgb8; jpeg compressed bgr8', codec='jpg'):
    _, data = cv2.imencode(f'.{codec}', pixels(24, 32))
    return CompressedImage(format=data_format, data=array.array('B', data.tobytes()))


def flow(pixels=1.0, encoding='32FC2'):
    noise = np.random.default_rng().normal(0, 1e-3, (24, 32, 2))
    field = (pixels + noise).astype(np.float32)
    return Image(width=32, height=24, step=256, encoding=encoding,
                 data=array.array('B', field.tobytes()))


def audio_data(count=800):
    return AudioData(data=array.array('B', samples(count).tobytes()))


def stamped_audio():
    return AudioDataStamped(audio=audio_data())


def test_it_listens_to_what_is_switched_on_and_the_model_takes(rig):
    rig.start((V, F, A), audio__enabled=False)
    assert set(rig.subscriptions()) == {'/image'}
    rig.set(rgb__enabled=False)
    assert set(rig.subscriptions()) == {'/image'}
    rig.set(flow__source='topic')
    assert set(rig.subscriptions()) == {'/flow'}
    rig.set(audio__enabled=True)
    assert set(rig.subscriptions()) == {'/flow', '/audio', '/audio_info'}
    rig.feed((A, D))
    assert set(rig.subscriptions()) == {'/audio', '/audio_info', '/detections'}
    rig.inputs.stop()
    rig.inputs.stop()
    assert rig.subscriptions() == {}
    rig.set(audio__enabled=False)
    assert rig.subscriptions() == {}
    rig.inputs.start()
    assert set(rig.subscriptions()) == {'/detections'}


def test_a_change_leaves_the_other_subscriptions_as_they_are(rig):
    rig.start()
    before = rig.subscriptions()
    rig.set(rgb__transport='compressed')
    rig.set(audio__sample_rate=48_000)
    rig.set(detections__min_score=0.5)
    after = rig.subscriptions()
    assert set(before) - set(after) == {'/image'}
    assert set(after) - set(before) == {'/image/compressed'}
    assert all(after[name] is before[name] for name in set(before) & set(after))


@pytest.mark.parametrize(('message', 'transport', 'topic', 'described'), [
    (make_image(), 'raw', 'image', 'rgb8, 32 x 24'),
    (make_image('bayer_grbg8', 1), 'raw', 'image', 'bayer_grbg8, 32 x 24'),
    (make_image('yuv422_yuy2', 2), 'raw', 'image', 'yuv422_yuy2, 32 x 24'),
    (compressed(), 'compressed', 'image/compressed', 'rgb8; jpeg compressed bgr8'),
    (compressed('png', 'png'), 'compressed', 'image/compressed', 'png'),
])
def test_images_raw_and_compressed(rig, message, transport, topic, described):
    inputs = rig.start(rgb__transport=transport)
    assert rig.until(rig.available(V, F), step=lambda: rig.send(topic, message))
    facts = inputs.facts(V)
    assert facts['topic'] == f'/{topic}' and facts['format'] == described
    assert facts['publishers'] == '/sensors' and facts['frame_id'] == 'there'
    assert inputs.frame_ids[V] == 'there' and inputs.problem(V) == ''
    assert inputs.facts(F) == {'source': 'computed from the camera', **facts}
    # The boxes know the size of the full image.
    assert inputs._messages._ingest._image_sizes[V] == (32, 24)


def test_an_image_whose_slot_is_filled_is_counted_without_being_read(rig, monkeypatch):
    rig.start((V,))
    read = []
    monkeypatch.setattr('karmma_ros.node.message_handler.deserialize', lambda data, name: (
        read.append(name), deserialize(data, name))[1])
    callback = rig.inputs._messages.callback(V, 'sensor_msgs/msg/Image')

    def receive(stamp_ns):
        image = make_image()
        image.header.stamp = time_message(stamp_ns)
        callback(serialize_message(image))
        return rig.status(V)
    period_ns = rig.stream._spec.frame_period_ns
    first_ns = rig.now_ns() // period_ns * period_ns
    for i, offset_ns in enumerate((0, 1_000_000, period_ns - 1)):
        status = receive(first_ns + offset_ns)
        assert status.last_stamp_ns == first_ns + offset_ns and status.dropped == 0, i
    assert len(read) == 1
    receive(first_ns + period_ns)
    assert len(read) == 2
    for number, data in enumerate((b'', b'\0\1\0\0\0\0'), 1):
        callback(data)
        assert rig.status(V).dropped == number
    image = make_image()
    image.header.stamp.sec = -1
    callback(serialize_message(image))
    assert rig.status(V).dropped == 3


def test_compressed_images_of_a_remapped_camera(rig):
    rig.start(rgb__transport='compressed', remap=['image:=/head/image_raw'])
    assert '/head/image_raw/compressed' in rig.subscriptions()
    rig.inputs.stop()
    rig.start(rgb__transport='compressed', remap=['image/compressed:=/jpegs'])
    assert '/jpegs' in rig.subscriptions() and rig.inputs.facts(V)['topic'] == '/jpegs'


def test_the_transport_can_change_while_the_camera_runs(rig):
    rig.start()

    def both():
        rig.send('image', make_image())
        rig.send('image/compressed', compressed())
    assert rig.until(rig.available(V), step=both)
    rig.set(rgb__transport='compressed')
    assert rig.until(lambda: 'jpeg' in rig.inputs.facts(V)['format'], step=both)
    assert rig.state(V) is ModalityState.AVAILABLE


def test_a_bad_compressed_image_is_refused_by_name(rig):
    rig.start(rgb__transport='compressed')
    bad = CompressedImage(format='16UC1; compressedDepth png', data=array.array('B', b'123'))
    assert rig.until(lambda: rig.status(V).dropped, step=lambda: rig.send('image/compressed', bad))
    assert 'compressedDepth is no colour image' in rig.status(V).detail


def test_flow_of_a_topic_outlives_the_camera(rig):
    inputs = rig.start(flow__source='topic')

    def all_of_it():
        rig.send('image', make_image())
        rig.send('flow', flow())
    assert rig.until(rig.available(V, F), step=all_of_it)
    assert rig.until(lambda: rig.state(V) is ModalityState.STALE,
                     step=lambda: rig.send('flow', flow()))
    assert rig.state(F) is ModalityState.AVAILABLE
    assert rig.stream.window(rig.now_ns()).modalities == (F,)
    assert inputs.facts(F)['format'] == '32FC2, 32 x 24' and inputs.frame_ids[F] == 'there'
    bad = flow(encoding='64FC1')
    assert rig.until(lambda: rig.status(F).dropped, step=lambda: rig.send('flow', bad))
    assert rig.until(lambda: 'expected 32FC2' in rig.status(F).detail,
                     step=lambda: rig.send('flow', bad))


@pytest.mark.parametrize(('type_name', 'message'), [
    ('AudioData', audio_data), ('AudioDataStamped', stamped_audio)])
def test_audio_with_stamps_and_without(rig, type_name, message):
    inputs = rig.start(audio__type=f'audio_common_msgs/msg/{type_name}')
    assert rig.until(rig.available(A), step=lambda: rig.send('audio', message()))
    assert inputs.facts(A)['format'] == 'S16LE, 16000 Hz, 1 channel'
    assert abs(rig.stream.window(rig.now_ns()).end_ns - rig.now_ns()) < NANOSECONDS


def test_audio_changes_its_format_as_the_driver_publishes(rig, capfd):
    inputs = rig.start()
    infos = rig.sensors.create_publisher(AudioInfo, 'audio_info', LATCHED)
    rig.until(rig.available(A), step=lambda: rig.send('audio', stamped_audio()))
    infos.publish(AudioInfo(sample_rate=48_000, channels=2, sample_format='S32LE'))
    assert rig.until(lambda: inputs.facts(A)['format'] == 'S32LE, 48000 Hz, 2 channels',
                     step=lambda: rig.send('audio', stamped_audio()))
    assert 'audio_info has 48000' in capfd.readouterr().err
    # A parameter changes nothing while the driver speaks; it is requested anew at each start.
    rig.set(audio__channels=4)
    assert rig.until(lambda: inputs.facts(A)['format'] == 'S32LE, 48000 Hz, 2 channels',
                     step=lambda: rig.send('audio', stamped_audio()))
    rig.sensors.destroy_publisher(infos)
    inputs.stop()
    # EventsExecutor keeps a publisher until its next turn: it would send again what is latched.
    assert rig.until(lambda: not rig.sensors.count_publishers('audio_info'), watch=False)
    inputs.start()
    assert rig.until(lambda: inputs.facts(A).get('format') == 'S16LE, 16000 Hz, 4 channels',
                     step=lambda: rig.send('audio', stamped_audio()))


def test_audio_parameters_change_live(rig):
    inputs = rig.start()
    rig.set(audio__sample_format='U8', audio__sample_rate=8000)
    assert rig.until(lambda: inputs.facts(A).get('format') == 'U8, 8000 Hz, 1 channel',
                     step=lambda: rig.send('audio', stamped_audio()))


@pytest.mark.parametrize(('values', 'changed', 'text'), [
    ({'audio.sample_format': 'mp3'}, {'audio.sample_format'}, 'audio.sample_format is .*wave'),
    ({'audio.type': 'audio_common_msgs/msg/AudioStamped'}, {'audio.type'},
     'audio.type is .*github.com/mgonzs13/audio_common.*or set audio.type to'),
])
def test_a_change_to_what_cannot_be_read_is_refused(values, changed, text):
    with pytest.raises(InvalidSettingError, match=text):
        check_inputs({**DEFAULTS, **values}, changed)
    check_inputs({**DEFAULTS, **values, 'audio.sample_format': 'S16LE', 'audio.enabled': False},
                 changed)


def test_a_message_package_that_is_not_installed_is_named_and_the_rest_continues(rig, monkeypatch):
    inputs = rig.start()
    monkeypatch.setitem(rig.values, 'audio.type', 'audio_common_msgs/msg/AudioStamped')
    with pytest.raises(InvalidSettingError, match='source its workspace last'):
        rig.feed(PAPER_MODALITIES)
    rig.set(audio__type='audio_common_msgs/msg/AudioStamped')
    inputs.check()
    assert 'github.com/mgonzs13' in inputs.problem(A) and inputs.problem(V) == ''
    assert set(rig.subscriptions()) == {'/image', '/detections'}
    rig.set(audio__type='audio_common_msgs/msg/AudioData')
    assert inputs.problem(A) == '' and '/audio' in rig.subscriptions()


def test_what_is_switched_off_is_discarded_and_comes_back(rig):
    rig.start()

    def both():
        rig.send('image', make_image())
        rig.send('detections', Detection2DArray())
    assert rig.until(rig.available(V, F, D), step=both)
    rig.set(rgb__enabled=False)
    assert rig.until(lambda: rig.state(V) is ModalityState.DISABLED, 2, both)
    assert rig.state(F) is ModalityState.AVAILABLE and rig.inputs.problem(V) == ''
    rig.set(flow__enabled=False)
    assert '/image' not in rig.subscriptions()
    assert rig.until(rig.available(D), 2, both)
    rig.set(rgb__enabled=True)
    assert rig.state(V) is ModalityState.NEVER_RECEIVED
    assert rig.until(rig.available(V, D), step=both)


def test_audio_of_the_other_package_of_this_name(rig):
    """Its class is not installed here, so the message is handed over by hand."""
    inputs = rig.start()
    take = inputs._messages.callback(A, 'audio_common_msgs/msg/AudioStamped')
    data = SimpleNamespace(int16_data=array.array('h', [1000, -1000] * 2400))
    message = SimpleNamespace(
        header=Header(), audio=SimpleNamespace(
            audio_data=data, info=SimpleNamespace(format=8, channels=2, rate=48_000, chunk=2400)))

    def speak():
        message.header.stamp = time_message(rig.now_ns())
        take(message)
    assert rig.until(rig.available(A), step=speak)
    assert inputs.facts(A)['format'] == 'S16, 48000 Hz, 2 channel(s)'
    message.audio.info.format = 4
    assert rig.until(lambda: rig.status(A).dropped, step=speak)


def test_a_sample_format_that_cannot_be_read_fails_at_once(rig):
    with pytest.raises(InvalidSettingError, match='audio.sample_format is .mp3.'):
        rig.start(audio__sample_format='mp3')


def test_the_node_recognises_from_compressed_images_and_flow_of_a_topic(stage, bundle):
    node = KarmmaNode(enable_communication_interface=False, parameter_overrides=[
        Parameter(name, value=value) for name, value in {
            'model': str(bundle), 'rate': 20.0, 'threads': 1, 'rgb.transport': 'compressed',
            'flow.source': 'topic', 'audio.enabled': False}.items()])
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    stage.host(node)
    images = stage.node.create_publisher(CompressedImage, 'image/compressed', 5)
    flows = stage.node.create_publisher(Image, 'flow', 5)

    def play():
        for publisher, message in ((images, compressed()), (flows, flow())):
            message.header.stamp = time_message(stage.now_ns())
            publisher.publish(message)

    def used():
        return stage.results and [m.name for m in stage.results[-1].modalities if m.used]
    step = stage.periodic(20, play, *[lambda: None] * 4)
    assert stage.until(lambda: used() == ['rgb', 'flow'], 15, step)
    node.set_parameters([Parameter('rgb.enabled', value=False)])
    assert stage.until(lambda: used() == ['flow'], 10, step)
    node.set_parameters([Parameter('rgb.enabled', value=True),
                         Parameter('flow.source', value='computed')])
    assert stage.until(lambda: used() == ['rgb', 'flow'], 10, step)
    assert stage.node.count_subscribers('flow') == 0
    for publisher in (images, flows):
        stage.node.destroy_publisher(publisher)


FORGED = '\x1b[2J\x1b[31m\n[INFO] [1.0] [karmma]: all is well\n' + 'A' * 1_000_000


@pytest.mark.parametrize(('damage', 'got'), [
    (lambda data: data[:60], '60 bytes are no sensor_msgs/msg/Image'),
    (lambda data: b'', '0 bytes are no sensor_msgs/msg/Image'),
    (lambda data: data[:4] + b'\xff' * (len(data) - 4), 'bytes are no sensor_msgs/msg/Image'),
])
def test_bytes_that_are_no_image_are_dropped_with_the_reason(rig, capfd, damage, got):
    rig.start()
    take = rig.inputs._messages.callback(V, 'sensor_msgs/msg/Image')
    take(damage(bytes(serialize_message(make_image()))))
    status = rig.status(V)
    assert status.dropped == 1 and got in capfd.readouterr().err
    assert rig.until(rig.available(V), step=lambda: rig.send('image', make_image()))


def test_no_text_of_a_message_forges_or_floods_the_log(rig, capfd):
    inputs = rig.start()
    messages = inputs._messages
    for i in range(50):
        messages.on_info(A, AudioInfo(coding_format=f'{i}{FORGED}', sample_format=FORGED))
        image = make_image()
        image.encoding, image.header.frame_id = f'{i}{FORGED}', FORGED
        messages.callback(V, 'sensor_msgs/msg/Image')(serialize_message(image))
        messages.callback(A, 'audio_common_msgs/msg/AudioDataStamped')(stamped_audio())
    lines = capfd.readouterr().err.splitlines()
    assert all('[WARN]' in line and len(line) < 2500 and line.isprintable() for line in lines)
    named = ['audio: audio_info: the driver sends 0\\x1b[2J',
             "rgb: message dropped: image encoding: got '0",
             'audio: message dropped: audio_info: the driver', 'rgb: header.stamp is zero',
             'audio: header.stamp is zero']
    assert [sum(name in line for line in lines) for name in named] == [1] * 5
    assert len(lines) == len(named)
    for modality in (V, A):
        status = next(s for s in rig.stream.assess(rig.now_ns()) if s.modality is modality)
        assert status.detail.isprintable() and len(status.detail) <= 300
        for fact in inputs.facts(modality).values():
            assert fact.isprintable() and len(fact) <= 300
    assert len(inputs.frame_ids[V]) <= 255 and inputs.frame_ids[V].isprintable()
