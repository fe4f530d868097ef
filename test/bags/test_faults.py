"""Faults are parsed, applied and reproducible by their seed."""

from karmma_ros.bags.faults import (
    Corrupt,
    Delay,
    describe,
    DropInterval,
    DropMessages,
    Faults,
    on_inputs,
    parse_corrupt,
    parse_delay,
    parse_drop_interval,
    parse_drop_messages,
)
from karmma_ros.errors import InvalidSettingError
from karmma_ros.stream.settings import Mute, parse_mute
import pytest

START_NS = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def receive_times(faults, sensor='audio', seed=0, count=2000, rate=10):
    injected = Faults(faults, seed, START_NS)
    return [injected.receive_ns(sensor, i, START_NS + i * SECOND // rate) for i in range(count)]


def fraction_dropped(times):
    return sum(t is None for t in times) / len(times)


@pytest.mark.parametrize(('parse', 'text', 'expected'), [
    (parse_drop_interval, 'audio=0.5', DropInterval('audio', 0.5)),
    (parse_drop_interval, '50%', DropInterval('all', 0.5)),
    (parse_drop_messages, 'detections=5%', DropMessages('detections', 0.05)),
    (parse_delay, 'video=300ms', Delay('rgb', 0.3)),
    (parse_delay, '0.25s', Delay('all', 0.25)),
    (parse_mute, 'video@10s..20s', Mute('rgb', 10, 20)),
    (parse_mute, 'audio@30..', Mute('audio', 30)),
    (parse_mute, 'camera', Mute('rgb')), (parse_mute, 'all@1..2', Mute('all', 1, 2)),
    (parse_mute, 'audio@3s..6s', Mute('audio', 3, 6)),
    (parse_mute, '/front/image@1.5..2', Mute('/front/image', 1.5, 2)),
    (parse_drop_messages, '/audio=5%', DropMessages('/audio', 0.05)),
    (parse_corrupt, 'camera=covered@10s..20s', Corrupt('rgb', 'covered', 5, 10, 20)),
    (parse_corrupt, 'microphone=silence', Corrupt('audio', 'silence')),
    (parse_corrupt, 'audio=hiss:2@3..', Corrupt('audio', 'hiss', 2, 3)),
    (parse_corrupt, '/front/image=blur:1', Corrupt('/front/image', 'blur', 1)),
])
def test_options_are_parsed(parse, text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ('parse', 'text', 'option'),
    [
        (parse_drop_interval, 'audio=2', '--drop-intervals'),
        (parse_drop_interval, 'audio=nan', '--drop-intervals'),
        (parse_drop_interval, 'audio=', '--drop-intervals'),
        (parse_drop_interval, 'nose=0.5', '--drop-intervals'),
        (parse_drop_messages, '-5%', '--drop-messages'),
        (parse_drop_messages, '', '--drop-messages'),
        (parse_delay, 'audio=-1', '--delay'),
        (parse_delay, 'audio=inf', '--delay'),
        (parse_mute, 'audio@20..10', '--mute'),
        (parse_mute, 'audio@x..y', '--mute'),
        (parse_mute, '', '--mute'),
        (parse_mute, 'audio@3', '--mute'),
        (parse_mute, 'audio@1.2.3..4', '--mute'),
        (parse_mute, 'smell@1..2', '--mute'),
        (parse_mute, 'audio@..', '--mute'),
        (parse_corrupt, 'camera', '--corrupt'),
        (parse_corrupt, 'all=noise', '--corrupt'),
        (parse_corrupt, 'camera=blur:6', '--corrupt'),
        (parse_corrupt, 'camera=blur@20..10', '--corrupt'),
        (parse_corrupt, 'nose=blur', '--corrupt'),
        (parse_corrupt, 'camera=hiss', 'expected black, frozen, covered'),
    ],
)
def test_wrong_values_are_rejected_by_the_name_of_the_option(parse, text, option):
    with pytest.raises(InvalidSettingError, match=option):
        parse(text)


def test_mute_silences_its_sensor_from_start_until_before_stop():
    times = receive_times([Mute('audio', 10, 20)], rate=1, count=30)
    assert [i for i, t in enumerate(times) if t is None] == list(range(10, 20))
    assert None not in receive_times([Mute('audio', 10, 20)], 'rgb')


def test_delay_moves_the_receive_time_and_drops_nothing():
    times = receive_times([Delay('audio', 0.3)], rate=1, count=5)
    assert times == [START_NS + i * SECOND + 300_000_000 for i in range(5)]


def test_single_messages_are_dropped_with_the_probability():
    times = receive_times([DropMessages('audio', 0.2)])
    assert fraction_dropped(times) == pytest.approx(0.2, abs=0.03)
    assert fraction_dropped(receive_times([DropMessages('audio', 0)])) == 0
    assert fraction_dropped(receive_times([DropMessages('audio', 1)])) == 1


def test_intervals_are_dropped_completely():
    times = receive_times([DropInterval('audio', 0.5, 2.0)], count=20_000)
    intervals = [times[i:i + 20] for i in range(0, len(times), 20)]
    assert all(fraction_dropped(each) in (0, 1) for each in intervals)
    assert fraction_dropped(times) == pytest.approx(0.5, abs=0.06)


def test_the_seed_decides():
    same, other = (
        receive_times([DropMessages('all', 0.5)], seed=7),
        receive_times([DropMessages('all', 0.5)], seed=8),
    )
    assert same == receive_times([DropMessages('all', 0.5)], seed=7)
    assert same != other


def test_all_means_each_sensor_on_its_own():
    audio, rgb = (receive_times([DropInterval('all', 0.5)], sensor) for sensor in ('audio', 'rgb'))
    assert fraction_dropped(audio) > 0 and fraction_dropped(rgb) > 0
    assert [t is None for t in audio] != [t is None for t in rgb]


def test_faults_of_another_sensor_change_nothing():
    alone = receive_times([DropMessages('audio', 0.5)])
    assert receive_times([DropInterval('rgb', 0.5), DropMessages('audio', 0.5)]) == alone


def test_a_larger_fraction_drops_all_that_a_smaller_one_does():
    less, more = (receive_times([DropInterval('audio', p)]) for p in (0.3, 0.6))
    assert all(b is None for a, b in zip(less, more) if a is None)


def test_flow_without_a_topic_of_its_own_has_no_faults():
    assert on_inputs([Mute('flow')], {'flow': '/flow'}) == (Mute('flow'),)
    assert on_inputs([Mute('all')], {'rgb': '/image'}) == (Mute('all'),)
    with pytest.raises(InvalidSettingError, match='computed from the camera'):
        on_inputs([Mute('flow')], {'rgb': '/image'})
    with pytest.raises(InvalidSettingError, match=r"'flow_wrist'; expected rgb \(/image\) or all: "
                       r'flow_wrist is computed .* \(wrist\) here: inject .* into rgb_wrist'):
        on_inputs([Mute('flow_wrist')], {'rgb': '/image'})


def test_a_topic_stands_for_the_input_that_it_is():
    topics = {'rgb': '/front/image', 'audio': '/mic', 'truth': '/truth'}
    assert on_inputs([Mute('/mic', 1, 2), DropMessages('/front/image', 0.1)], topics) == (
        Mute('audio', 1, 2), DropMessages('rgb', 0.1))
    for other in ('/truth', '/rear/image'):
        with pytest.raises(InvalidSettingError, match=r'rgb \(/front/image\), audio \(/mic\) or'):
            on_inputs([Mute(other)], topics)


def test_faults_are_described_in_words():
    assert describe(
        [DropInterval('audio', 0.5), Mute('rgb', 10, 20), Delay('all', 0.3), Mute('flow')]
    ) == (
        'audio dropped 50% of 5 s intervals, rgb muted 10 s..20 s, all delayed 0.3 s, flow muted'
    )


def test_a_corruption_is_described_and_checked_for_the_input_of_a_topic():
    assert str(Corrupt('rgb', 'covered', 5, 10, 20)) == 'rgb covered 10 s..20 s'
    assert str(Corrupt('audio', 'hiss', 2)) == 'audio hiss of severity 2'
    topics = {'rgb': '/image', 'audio': '/audio'}
    fault, = on_inputs([Corrupt('/image', 'blur')], topics)
    assert fault == Corrupt('rgb', 'blur')
    with pytest.raises(InvalidSettingError, match='expected silence, muted, hiss'):
        on_inputs([Corrupt('/audio', 'blur')], topics)
    with pytest.raises(InvalidSettingError, match='inject the fault into rgb'):
        on_inputs([Corrupt('flow', 'noise')], topics)


def test_dropout_drops_messages_while_it_lasts():
    times = receive_times([Corrupt('imu', 'dropout', 3, 50, 150)], 'imu')
    assert None not in times[:500] + times[1500:]
    assert fraction_dropped(times[500:1500]) == pytest.approx(0.7, abs=0.06)
    assert None not in receive_times([Corrupt('imu', 'noise')], 'imu')
