"""Messages no sensor should send: dropped, counted, named in the status, and survived."""

import array
import time

from audio_common_msgs.msg import AudioInfo
from builtin_interfaces.msg import Time
from karmma_msgs.msg import ModalityStatus
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header

SUCCESS = TransitionCallbackReturn.SUCCESS
SECOND = 1_000_000_000
# One MPEG 1 layer III frame header at 128 kbit/s and 44.1 kHz, with the 417 bytes it promises.
MP3 = (b'\xff\xfb\x90\x00' + b'\x55' * 413) * 3


def dropped(stage, name):
    return stage.availabilities and stage.status(name).dropped


BAD_IMAGES = {
    'unknown encoding': ({'encoding': 'yuv420p'}, 'encoding'),
    'depth': ({'encoding': '32FC1'}, 'colour topic'),
    'mosaic of other size': ({'encoding': 'bayer_rggb16', 'step': 64}, 'step'),
    'empty encoding': ({'encoding': ''}, 'encoding'),
    'step too short': ({'step': 10}, 'step'),
    'step too long': ({'step': 1000}, 'data'),
    'truncated': ({'data': array.array('B', b'\0' * 100)}, 'data'),
    'no data': ({'data': array.array('B')}, 'data'),
    'zero width': ({'width': 0}, 'size'),
    'zero size': ({'width': 0, 'height': 0, 'step': 0, 'data': array.array('B')}, 'size'),
    'size beyond the data': ({'width': 4_000_000_000, 'height': 4_000_000_000}, 'step'),
}


@pytest.mark.parametrize('case', BAD_IMAGES)
def test_bad_images(stage, perform, case):
    fields, named = BAD_IMAGES[case]
    perform()
    assert stage.until(lambda: dropped(stage, 'rgb'), 10,
                       stage.periodic(20, lambda: stage.send_image(**fields)))
    assert stage.until(lambda: stage.status('rgb').state == ModalityStatus.INVALID, 5,
                       stage.periodic(20, lambda: stage.send_image(**fields)))
    assert named in stage.status('rgb').detail
    assert stage.status('flow').state != ModalityStatus.AVAILABLE
    # A good camera afterwards is recognised as ever.
    assert stage.until(lambda: stage.results, 10, stage.periodic(20, stage.send_image))


BAD_AUDIO = {
    'odd number of bytes': (b'\x01' * 641, 'bytes'),
    'nothing': (b'', 'bytes'),
    'mp3': (MP3, 'format:=wave'),
    'mp3 with a tag': (b'ID3' + bytes(61), 'format:=wave'),
}


@pytest.mark.parametrize('case', BAD_AUDIO)
def test_bad_audio(stage, perform, case):
    data, named = BAD_AUDIO[case]
    perform()
    bad = stage.periodic(30, lambda: stage.send_audio(data=data))
    assert stage.until(lambda: dropped(stage, 'audio'), 10, bad)
    assert stage.until(lambda: stage.status('audio').state == ModalityStatus.INVALID, 5, bad)
    assert named in stage.status('audio').detail
    assert stage.until(lambda: stage.results, 10, stage.periodic(50, stage.send_audio))


def test_audio_at_another_rate_is_not_used_until_the_parameter_is_right(stage, perform, capfd):
    node = perform()
    text = ('audio comes at about 48000 samples per second, expected 16000: set audio.sample_rate '
            '(48000) or audio.channels (3)')
    play = stage.periodic(20, stage.send_image, lambda: stage.send_audio(rate=48_000))
    assert stage.until(lambda: stage.availabilities and stage.status('audio').detail == text, 15,
                       play)
    assert stage.status('audio').state == ModalityStatus.INVALID
    assert stage.until(lambda: stage.results and not stage.results[-1].modalities[2].used, 5, play)
    logged = stage.until(lambda: False, 1.5, play) or capfd.readouterr().err
    assert logged.count(text) == 1
    node.set_parameters([Parameter('audio.sample_rate', value=48_000)])
    assert stage.until(
        lambda: stage.status('audio').state == ModalityStatus.AVAILABLE, 10, play)


def test_a_driver_that_publishes_mp3(stage, perform, capfd):
    perform()
    infos = stage.node.create_publisher(
        AudioInfo, 'audio_info', QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    good = stage.periodic(50, stage.send_audio)
    assert stage.until(lambda: stage.results, 10, good)
    infos.publish(AudioInfo(sample_rate=16_000, channels=1, coding_format='mp3'))
    assert stage.until(lambda: stage.status('audio').state == ModalityStatus.INVALID, 5, good)
    assert 'format:=wave' in stage.status('audio').detail
    stage.results.clear()
    infos.publish(AudioInfo(sample_rate=16_000, channels=1, coding_format='wave'))
    assert stage.until(lambda: stage.results, 10, good)
    assert 'the driver sends mp3' in capfd.readouterr().err
    stage.node.destroy_publisher(infos)


BAD_BOXES = {
    'NaN': (float('nan'), 10.0, 5.0, 5.0),
    'infinite': (10.0, float('inf'), 5.0, 5.0),
    'negative size': (10.0, 10.0, -5.0, 5.0),
}


@pytest.mark.parametrize('case', BAD_BOXES)
def test_bad_boxes(stage, perform, case):
    perform(detections__image_width=64, detections__image_height=48)
    bad = stage.periodic(20, lambda: stage.send_boxes(boxes=[BAD_BOXES[case]]))
    assert stage.until(lambda: dropped(stage, 'detections'), 10, bad)
    assert stage.until(
        lambda: stage.status('detections').state == ModalityStatus.INVALID, 5, bad)
    assert 'boxes' in stage.status('detections').detail
    assert stage.until(lambda: stage.results, 10, stage.periodic(20, stage.send_boxes))


def test_boxes_in_an_image_of_unknown_size_name_the_parameters(stage, perform):
    perform()
    bad = stage.periodic(20, stage.send_boxes)
    assert stage.until(lambda: dropped(stage, 'detections'), 10, bad)
    assert stage.until(
        lambda: 'set detections.image_width' in stage.status('detections').detail, 5, bad)
    # The camera's own size helps as well; empty messages need none.
    assert stage.until(lambda: stage.results and len(
        [s for s in stage.results[-1].modalities if s.used]) == 3, 10,
        stage.periodic(20, stage.send_image, stage.send_boxes))


def test_stamps_of_zero_are_replaced_by_the_node_s_time(stage, perform):
    perform()
    assert stage.until(
        lambda: stage.results, 10, stage.periodic(20, lambda: stage.send_image(stamp_ns=0))
    )
    result = stage.results[-1]
    assert abs(stage.now_ns() / SECOND - result.header.stamp.sec) < 5


def test_a_single_stamp_from_the_past_is_dropped_and_counted(stage, perform):
    perform()
    good = stage.periodic(20, stage.send_image)
    assert stage.until(lambda: stage.results, 10, good)
    stage.until(lambda: False, 0.2)  # the newest image alone is kept, and none may replace it
    stage.send_image(stamp_ns=stage.now_ns() - 3600 * SECOND)
    assert stage.until(lambda: dropped(stage, 'rgb') == 1, 5)
    stage.results.clear()
    assert stage.until(lambda: stage.results, 5, good)


def test_stamps_before_1970_are_dropped(stage, perform):
    perform()
    header = Header(stamp=Time(sec=-5))
    bad = stage.periodic(20, lambda: stage.send_image(header=header))
    assert stage.until(lambda: dropped(stage, 'rgb'), 10, bad)
    assert stage.until(lambda: 'stamp' in stage.status('rgb').detail, 5, bad)


def test_when_simulated_time_jumps_back_the_buffers_start_anew(stage, perform):
    clock = stage.node.create_publisher(Clock, '/clock', 10)
    perform(use_sim_time=True)
    time_s = [1000.0]

    def tick():
        time_s[0] += 0.05
        stamp_ns = round(time_s[0] * SECOND)
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(stamp_ns, SECOND)
        clock.publish(message)
        stage.send_image(stamp_ns=stamp_ns)

    step = stage.periodic(20, tick)
    assert stage.until(lambda: len(stage.results) > 3, 20, step)
    assert stage.results[-1].header.stamp.sec >= 1000
    time_s[0] = 10.0
    assert stage.until(
        lambda: stage.status('rgb').state == ModalityStatus.INSUFFICIENT, 5, step)
    assert stage.until(lambda: 10 < stage.results[-1].header.stamp.sec < 100, 10, step)
    stage.node.destroy_publisher(clock)


def test_no_clock_is_logged_and_reported(stage, perform, capfd):
    perform(use_sim_time=True)
    assert stage.until(lambda: len(stage.availabilities) >= 2, 10)
    assert not stage.availabilities[-1].inference_possible
    assert stage.until(lambda: 'nothing publishes /clock' in capfd.readouterr().err, 15)


def test_fewer_inputs_than_asked_for_give_no_result(stage, perform):
    node = perform(min_modalities=3)
    step = stage.periodic(20, stage.send_image)
    assert stage.until(lambda: stage.availabilities and stage.status(
        'flow').state == ModalityStatus.AVAILABLE, 10, step)
    assert stage.results == [] and not stage.availabilities[-1].inference_possible
    node.set_parameters([Parameter('min_modalities', value=2)])
    assert stage.until(lambda: stage.results, 10, step)


def test_a_network_that_fails_is_logged_and_the_next_clip_tried(
    stage, perform, monkeypatch, capfd
):
    node = perform()
    recogniser = node._session.worker.engine.recogniser
    recognise, calls = recogniser.recognise, []

    def fail_once(window, **options):
        calls.append(window)
        if len(calls) == 1:
            raise RuntimeError('out of memory')
        return recognise(window, **options)

    monkeypatch.setattr(recogniser, 'recognise', fail_once)
    assert stage.until(lambda: stage.results, 10, stage.periodic(20, stage.send_image))
    assert 'no result: RuntimeError: out of memory' in capfd.readouterr().err


def test_deactivation_waits_for_the_network(stage, perform, monkeypatch):
    node = perform()
    recogniser, ends = node._session.worker.engine.recogniser, []
    recognise, begun = recogniser.recognise, []

    def dawdle(window, **options):
        begun.append(window)
        time.sleep(0.5)
        ends.append(window)
        return recognise(window, **options)

    monkeypatch.setattr(recogniser, 'recognise', dawdle)
    assert stage.until(lambda: len(begun) > len(ends), 10, stage.periodic(20, stage.send_image))
    assert node.trigger_deactivate() == SUCCESS
    assert len(ends) == len(begun)
    assert node.trigger_cleanup() == SUCCESS


def test_after_deactivation_nothing_comes_and_the_last_word_is_that_nothing_can(stage, perform):
    node = perform()
    step = stage.periodic(20, stage.send_image)
    assert stage.until(lambda: stage.results, 10, step)
    assert node.trigger_deactivate() == SUCCESS
    stage.until(lambda: False, 0.3)
    stage.results.clear()
    stage.until(lambda: False, 0.5, step)
    assert stage.results == [] and not stage.availabilities[-1].inference_possible
    assert node.trigger_activate() == SUCCESS
    assert stage.until(lambda: stage.results and stage.results[-1].sequence == 0, 10, step)
