"""Messages of every type are stored in the stream; what is wrong with one is counted."""

from types import SimpleNamespace as Fields

from karmma_ros.clip import AudioSpec, ClipSpec, NANOSECONDS, VideoSpec
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modalities import message_types as types
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.stream.ingest import MessageIngest, ReceivedMessage
from karmma_ros.stream.settings import make_stream, node_parameters
import numpy as np
import pytest
from sensor_data import pixels, samples

SPEC = ClipSpec(duration=0.8, num_frames=8, video=VideoSpec(16, 16),
                audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=32, tiles=2,
                                tile_steps=40))
NOW_NS = 1_700_000_000 * NANOSECONDS
V, F, A, D = PAPER_MODALITIES


def header(stamp_ns=NOW_NS):
    sec, nanosec = divmod(stamp_ns, NANOSECONDS)
    return Fields(stamp=Fields(sec=sec, nanosec=nanosec), frame_id='there')


def image_message(**fields):
    data = pixels(24, 32).reshape(-1)
    return Fields(**{**dict(header=header(), height=24, width=32, step=96, encoding='rgb8',
                            is_bigendian=0, data=data), **fields})


def flow():
    return image_message(encoding='32FC2', step=256, data=np.zeros(24 * 256, np.uint8))


def boxes(x=16.0):
    box = Fields(center=Fields(x=x, y=12.0, theta=0.0), size_x=8.0, size_y=6.0)
    return Fields(header=header(), detections=[Fields(results=[], bbox=box)])


def bare(data=None):
    return Fields(data=samples(320).tobytes() if data is None else data)


def summary(rate=16_000):
    info = Fields(format=0x08, channels=1, rate=rate, chunk=320)
    return Fields(header=header(), audio=Fields(
        info=info, audio_data=Fields(int16_data=samples(320))))


CASES = {
    'image': (V, types.IMAGE, image_message()),
    'flow': (F, types.IMAGE, flow()),
    'bare audio': (A, types.AUDIO_DATA, bare()),
    'audio of the drivers': (A, types.AUDIO_DATA_STAMPED, Fields(header=header(), audio=bare())),
    'audio that states its format': (A, types.AUDIO_STAMPED, summary()),
    'boxes': (D, types.DETECTIONS, boxes()),
}


class Lock:
    """A lock that knows whether it is held."""

    held = False

    def __enter__(self):
        assert not self.held
        self.held = True

    def __exit__(self, *_):
        self.held = False


class Rig:
    """An intake and its stream."""

    def __init__(self, **values):
        values = {name.replace('__', '.'): value for name, value in values.items()}
        values = {**node_parameters(), 'detections.image_width': 32,
                  'detections.image_height': 24, **values}
        self.lock, self.values = Lock(), values
        self.ingest = MessageIngest(values, self.lock)
        self.stream = make_stream(SPEC, PAPER_MODALITIES, values, with_topic={Modality.FLOW})
        self.ingest.feed(self.stream)

    def take(self, modality, type_name, message, now_ns=NOW_NS):
        return self.ingest.add(self.received(modality, type_name, message), now_ns)

    def received(self, modality, type_name, message=None):
        return ReceivedMessage(modality, type_name, message, SPEC, self.values)

    def status(self, modality):
        return {s.modality: s for s in self.stream.assess(NOW_NS)}[modality]


@pytest.fixture
def rig():
    return Rig()


@pytest.mark.parametrize('case', CASES)
def test_a_message_of_each_type_is_stored(rig, case):
    modality, type_name, message = CASES[case]
    assert rig.take(modality, type_name, message) == ''
    status = rig.status(modality)
    assert status.age_ns == 0 and status.dropped == 0
    # Bare audio ends with the time of receipt.
    assert status.last_stamp_ns == NOW_NS - (20_000_000 if case == 'bare audio' else 0)


@pytest.mark.parametrize('case, message, reason', [
    ('image', image_message(encoding='rgb9'), "got 'rgb9'"),
    ('image', image_message(header=header(-NANOSECONDS)), 'header.stamp: got -1.0 s'),
    ('image', Fields(header=header()), 'AttributeError'),
    ('flow', image_message(), 'encoding'),
    ('bare audio', bare(b'\x01' * 641), 'bytes'),
    ('boxes', boxes(float('nan')), 'box'),
])
def test_what_cannot_be_used_is_reported_and_counted(rig, case, message, reason):
    modality, type_name, _ = CASES[case]
    assert reason in rig.take(modality, type_name, message)
    status = rig.status(modality)
    assert status.dropped == 1 and reason in status.detail


def test_the_lock_is_not_held_while_a_message_is_decoded(rig):
    class Slow:
        modality, type_name, stamp_ns, message = V, types.IMAGE, NOW_NS, image_message()

        def read(self):
            assert not rig.lock.held
            return rig.received(V, types.IMAGE, self.message).read()
    assert rig.ingest.add(Slow(), NOW_NS) == ''
    assert rig.status(V).age_ns == 0


def test_a_image_whose_slot_is_filled_is_not_decoded_but_counts_as_received(rig):
    class Unwanted:
        modality, type_name, stamp_ns, message = V, types.IMAGE, NOW_NS + 1, None

        def read(self):
            raise AssertionError('it was decoded')
    assert rig.take(V, types.IMAGE, image_message()) == ''
    assert rig.ingest.add(Unwanted(), NOW_NS + 1) == ''
    assert rig.status(V).last_stamp_ns == NOW_NS + 1


def test_boxes_lie_in_the_newest_image_where_its_size_is_not_given():
    rig = Rig(detections__image_width=0, detections__image_height=0)
    assert 'the size of the image' in rig.take(D, types.DETECTIONS, boxes())
    assert rig.take(V, types.IMAGE, image_message()) == ''
    assert rig.take(D, types.DETECTIONS, boxes()) == ''
    rig.ingest.read_parameters()
    assert rig.take(D, types.DETECTIONS, boxes()) == ''


INFO = dict(sample_rate=8000, channels=1, sample_format='S16LE', coding_format='wave')


def test_the_format_that_the_driver_states_is_used_until_reset(rig):
    assert 'audio.sample_rate is 16000' in rig.ingest.apply_info(A, Fields(**INFO))
    rig.ingest.read_parameters()
    assert '8000 Hz' in rig.ingest.describe(rig.received(A, types.AUDIO_DATA))
    rig.ingest.reset()
    assert '16000 Hz' in rig.ingest.describe(rig.received(A, types.AUDIO_DATA))


def test_information_that_is_none_changes_nothing(rig):
    with pytest.raises(InvalidSampleError, match='audio_info: AttributeError'):
        rig.ingest.apply_info(A, Fields())
    rig.ingest.read_parameters()
    assert rig.take(A, types.AUDIO_DATA, bare()) == ''


def test_the_format_of_stamped_audio_is_known_after_the_first(rig):
    assert rig.ingest.describe(rig.received(A, types.AUDIO_STAMPED)) == 'as in each message'
    rig.take(A, types.AUDIO_STAMPED, summary(8000))
    assert '8000 Hz' in rig.ingest.describe(rig.received(A, types.AUDIO_STAMPED))


def test_parameters_that_cannot_be_used_are_refused():
    with pytest.raises(InvalidSettingError, match=r'audio\.sample_format'):
        Rig(audio__sample_format='MP3')


def test_parameters_in_reasons_are_those_of_the_input():
    modalities = tuple(map(Modality, ('rgb_left', 'audio_left', 'detections_left')))
    values = node_parameters(None, modalities)
    stream = make_stream(SPEC, modalities, values, ())
    ingest = MessageIngest(values)
    ingest.feed(stream)

    def take(modality, type_name, message):
        return ingest.add(ReceivedMessage(modality, type_name, message, SPEC, values), NOW_NS)
    assert 'set detections_left.image_width and detections_left.image_height' in take(
        modalities[2], types.DETECTIONS, boxes())
    assert 'set rgb_left.transport to compressed' in take(
        modalities[0], types.IMAGE, image_message(encoding='jpeg'))
    stated = Fields(sample_rate=48_000, channels=1, sample_format='S16LE', coding_format='wave')
    assert ingest.apply_info(modalities[1], stated).startswith('audio_left.sample_rate is 16000')
