"""Messages of every kind go into the stream; whatever is wrong with one is said and counted."""

from types import SimpleNamespace as Fields

from karmma_ros.clip import AudioSpec, ClipSpec, NANOSECONDS, VideoSpec
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.stream import message_types as types
from karmma_ros.stream.ingest import MessageIngest, ReceivedMessage
from karmma_ros.stream.settings import make_stream, node_parameters
import numpy as np
import pytest

SPEC = ClipSpec(duration=0.8, num_frames=8, video=VideoSpec(16, 16),
                audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=32, tiles=2,
                                tile_steps=40))
CROP = 16, 16
NOW_NS = 1_700_000_000 * NANOSECONDS
V, F, A, D = Modality


def header(stamp_ns=NOW_NS):
    sec, nanosec = divmod(stamp_ns, NANOSECONDS)
    return Fields(stamp=Fields(sec=sec, nanosec=nanosec), frame_id='there')


def picture(**fields):
    data = np.full(24 * 96, 90, np.uint8)
    return Fields(**{**dict(header=header(), height=24, width=32, step=96, encoding='rgb8',
                            is_bigendian=0, data=data), **fields})


def flow():
    return picture(encoding='32FC2', step=256, data=np.zeros(24 * 256, np.uint8))


def boxes(x=16.0):
    box = Fields(center=Fields(x=x, y=12.0, theta=0.0), size_x=8.0, size_y=6.0)
    return Fields(header=header(), detections=[Fields(results=[], bbox=box)])


def bare(data=b'\x10\x02' * 320):
    return Fields(data=data)


def told(rate=16_000):
    info = Fields(format=0x08, channels=1, rate=rate, chunk=320)
    return Fields(header=header(), audio=Fields(
        info=info, audio_data=Fields(int16_data=np.full(320, 500, np.int16))))


KINDS = {
    'picture': (V, types.IMAGE, picture()),
    'flow': (F, types.IMAGE, flow()),
    'bare sound': (A, types.AUDIO_DATA, bare()),
    'sound of the drivers': (A, types.AUDIO_DATA_STAMPED, Fields(header=header(), audio=bare())),
    'sound that tells its format': (A, types.AUDIO_STAMPED, told()),
    'boxes': (D, types.DETECTIONS, boxes()),
}


class Lock:
    """A lock that tells whether it is held."""

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
        self.lock = Lock()
        self.intake = MessageIngest(values, self.lock)
        self.stream = make_stream(SPEC, tuple(Modality), values, flow_topic=True)
        self.intake.feed(self.stream)

    def take(self, modality, type_name, message, now_ns=NOW_NS):
        return self.intake.add(ReceivedMessage(modality, type_name, message, CROP), now_ns)

    def status(self, modality):
        return {s.modality: s for s in self.stream.assess(NOW_NS)}[modality]


@pytest.fixture
def rig():
    return Rig()


@pytest.mark.parametrize('kind', KINDS)
def test_a_message_of_each_kind_is_stored(rig, kind):
    modality, type_name, message = KINDS[kind]
    assert rig.take(modality, type_name, message) == ''
    status = rig.status(modality)
    assert status.age_ns == 0 and status.dropped == 0
    # Bare sound ends with the time of receipt.
    assert status.last_stamp_ns == NOW_NS - (20_000_000 if kind == 'bare sound' else 0)


@pytest.mark.parametrize('kind, message, reason', [
    ('picture', picture(encoding='rgb9'), "got 'rgb9'"),
    ('picture', picture(header=header(-NANOSECONDS)), 'header.stamp: got -1.0 s'),
    ('picture', Fields(header=header()), 'AttributeError'),
    ('flow', picture(), 'encoding'),
    ('bare sound', bare(b'\x01' * 641), 'bytes'),
    ('boxes', boxes(float('nan')), 'box'),
])
def test_what_cannot_be_used_is_said_and_counted(rig, kind, message, reason):
    modality, type_name, _ = KINDS[kind]
    assert reason in rig.take(modality, type_name, message)
    status = rig.status(modality)
    assert status.dropped == 1 and reason in status.detail


def test_the_lock_is_not_held_while_a_message_is_decoded(rig):
    class Slow:
        modality, type_name, stamp_ns, message = V, types.IMAGE, NOW_NS, picture()

        def image(self):
            assert not rig.lock.held
            return ReceivedMessage(V, types.IMAGE, self.message, CROP).image()
    assert rig.intake.add(Slow(), NOW_NS) == ''
    assert rig.status(V).age_ns == 0


def test_a_picture_whose_slot_is_filled_is_not_decoded_but_counts_as_received(rig):
    class Unwanted:
        modality, type_name, stamp_ns, message = V, types.IMAGE, NOW_NS + 1, None

        def image(self):
            raise AssertionError('it was decoded')
    assert rig.take(V, types.IMAGE, picture()) == ''
    assert rig.intake.add(Unwanted(), NOW_NS + 1) == ''
    assert rig.status(V).last_stamp_ns == NOW_NS + 1


def test_boxes_lie_in_the_newest_picture_where_its_size_is_not_given():
    rig = Rig(detections__image_width=0, detections__image_height=0)
    assert 'the size of the picture' in rig.take(D, types.DETECTIONS, boxes())
    assert rig.take(V, types.IMAGE, picture()) == ''
    assert rig.take(D, types.DETECTIONS, boxes()) == ''
    rig.intake.read_parameters()
    assert rig.take(D, types.DETECTIONS, boxes()) == ''


INFO = dict(sample_rate=8000, channels=1, sample_format='S16LE', coding_format='wave')


def test_what_the_driver_says_of_its_sound_holds_until_it_is_forgotten(rig):
    assert 'audio.sample_rate is 16000' in rig.intake.take_info(Fields(**INFO))
    rig.intake.read_parameters()
    assert '8000 Hz' in rig.intake.describe_audio(types.AUDIO_DATA)
    rig.intake.reset_info()
    assert '16000 Hz' in rig.intake.describe_audio(types.AUDIO_DATA)


def test_information_that_is_none_changes_nothing(rig):
    with pytest.raises(InvalidSampleError, match='audio_info: AttributeError'):
        rig.intake.take_info(Fields())
    rig.intake.read_parameters()
    assert rig.take(A, types.AUDIO_DATA, bare()) == ''


def test_the_format_of_sound_that_tells_it_is_known_after_the_first(rig):
    assert rig.intake.describe_audio(types.AUDIO_STAMPED) == 'as in each message'
    rig.take(A, types.AUDIO_STAMPED, told(8000))
    assert '8000 Hz' in rig.intake.describe_audio(types.AUDIO_STAMPED)


def test_parameters_that_cannot_be_used_are_refused():
    with pytest.raises(InvalidSettingError, match=r'audio\.sample_format'):
        Rig(audio__sample_format='MP3')
