"""A replay cuts the windows that a node would have cut, from the bag's clock alone."""

from dataclasses import replace
import os
import struct

from karmma_ros.bags.bag_message import BagMessage
from karmma_ros.bags.faults import Delay, DropMessages, Mute
from karmma_ros.bags.reader import Bag, Message
from karmma_ros.bags.replay import RecordedWindow, Replay, Run
from karmma_ros.bags.topics import choose_topics
from karmma_ros.clip import AudioSpec, ClipSpec, NANOSECONDS, VideoSpec
from karmma_ros.modality import Modality
from karmma_ros.stream.availability import ModalityState
from karmma_ros.stream.ingest import MessageIngest
from karmma_ros.stream.settings import make_stream, node_parameters
import numpy as np
import pytest

ALL = tuple(Modality)
SPEC = ClipSpec(duration=1.0, num_frames=8, video=VideoSpec(24, 24),
                audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=16, tiles=1,
                                tile_steps=50))
VALUES = node_parameters()


def replayed(path, *runs, spec=SPEC, values=None, modalities=ALL, hop=0, echoed=()):
    with Bag(path) as bag:
        choice = choose_topics(bag, {}, modalities)
        replay = Replay(bag, choice, spec, modalities, {**VALUES, **(values or {})},
                        runs or [Run()], echoed, hop)
        return list(replay.cuts()), replay


def content(cut):
    """Return all that decides what the network sees."""
    window = cut.window
    parts = [np.stack([f.image for f in window.frames])] if window.frames else []
    parts += [window.audio] if window.audio is not None else []
    parts += list(window.boxes or ())
    return (cut.inference_ns, window.start_ns, window.end_ns, window.modalities,
            b''.join(np.ascontiguousarray(part).tobytes() for part in parts))


def asked(cut):
    """Return what the answer to a window would tell of it."""
    newest = {s.modality.value: s.last_stamp_ns for s in cut.window.statuses}
    return RecordedWindow(
        cut.window.end_ns, cut.inference_ns, cut.inference_ns + 20_000_000, newest
    )


def test_windows_are_asked_for_once_a_period_when_a_picture_comes_that_they_show(kitchen):
    cuts, _ = replayed(kitchen)
    assert len(cuts) == pytest.approx(6 / 0.2, abs=3)
    shown = [cut for cut in cuts if cut.window.frames]  # the first rest on sound alone
    assert len(shown) > 0.8 * len(cuts)
    for cut in shown:
        # Pictures are received at their stamps, before the boxes of the same time.
        assert cut.inference_ns == cut.window.end_ns == cut.window.frames[-1].stamp_ns
        assert cut.window.start_ns == cut.window.end_ns - SPEC.duration_ns


def test_without_a_camera_windows_are_asked_for_at_whole_periods(kitchen):
    cuts, _ = replayed(kitchen, Run((Mute('rgb'),)))
    assert len(cuts) == pytest.approx(6 / 0.2, abs=3)
    for cut in cuts:
        assert cut.inference_ns % 200_000_000 == 0
        # Sound is received every 32 ms: nothing is older, and nothing of the tick or later.
        assert cut.inference_ns - 67_000_000 <= cut.window.end_ns < cut.inference_ns


def test_the_same_bag_gives_the_same_windows(kitchen):
    first, second = ([content(cut) for cut in replayed(kitchen)[0]] for _ in range(2))
    assert first == second


def test_it_is_what_the_streams_own_rules_give(kitchen):
    """Feed a stream by hand, message by message, and cut where the node would."""
    with Bag(kitchen) as bag:
        choice = choose_topics(bag, {}, ALL)
        roles = {t.name: (r, bag.reader(t)) for r, t in choice.topics.items() if r != 'truth'}
        stream = make_stream(SPEC, ALL, VALUES, False)
        intake, tick_ns, due, slots, ends = MessageIngest(VALUES), bag.start_ns, False, set(), []
        intake.feed(stream)

        def look(now_ns):
            window = stream.window(now_ns)
            ends.extend([(now_ns, window.end_ns, window.modalities)] if window else [])
        for topic, now_ns, data in bag.messages(list(bag.topics.values())):
            while tick_ns <= now_ns:
                if due:
                    look(tick_ns)
                due, tick_ns = True, tick_ns + 200_000_000
            if topic.name in roles:
                role, read = roles[topic.name]
                intake.add(BagMessage(role, topic.type, 0, now_ns, data, read, (24, 24)), now_ns)
                slot = now_ns // SPEC.frame_period_ns
                if role == 'rgb' and slot not in slots:
                    slots.add(slot)
                    if due:
                        look(now_ns)
                    due = False
    cuts, _ = replayed(kitchen)
    assert [(c.inference_ns, c.window.end_ns, c.window.modalities) for c in cuts] == ends


def test_the_rate_is_a_parameter(kitchen):
    cuts, _ = replayed(kitchen, values={'rate': 10.0})
    assert len(cuts) == pytest.approx(60, abs=5)


def test_a_streaming_network_gets_a_window_for_each_hop(kitchen):
    cuts, _ = replayed(kitchen, hop=2)
    hops = [(cut.window.end_ns // SPEC.frame_period_ns + 1) // 2 for cut in cuts]
    assert len(cuts) > 15
    assert hops == list(range(hops[0], hops[0] + len(hops)))


@pytest.mark.timeout(60)
def test_a_clock_that_is_set_while_recording_costs_no_time(kitchen, bags, tmp_path):
    """As in a recorder with simulated time, whose first messages come before the clock."""
    def early(topic, time_ns, message):
        return topic, time_ns - (bags.start_ns - 10**9) * (time_ns < bags.start_ns + 2e9), message
    cuts, replay = replayed(bags.rewrite(kitchen, tmp_path / 'bag', early))
    times = [cut.inference_ns for cut in cuts]
    assert 5 <= sum(t < 4e9 for t in times) <= 12
    # All that the stream knew is old after the jump, but a window's length of the new is not.
    assert sum(t > bags.start_ns + 2e9 for t in times) > 10
    assert replay.longest_pause_ns > bags.start_ns - 10**10
    assert len(replay.lanes[0].states) < 20


def test_too_few_inputs_give_no_window(kitchen):
    assert replayed(kitchen, Run((Mute('audio'),)), values={'min_modalities': 4})[0] == []
    assert replayed(kitchen, values={'min_modalities': 4})[0]


def test_a_muted_sensor_goes_stale_and_comes_back(kitchen, bags):
    cuts, replay = replayed(kitchen, Run((Mute('audio', 2.0, 4.0),)))
    sounded = {round((c.inference_ns - bags.start_ns) / NANOSECONDS, 1):
               Modality.AUDIO in c.window.modalities for c in cuts}
    assert sounded[2.0] and not sounded[3.0] and sounded[5.4]
    states = replay.lanes[0].states
    place = 1 + ALL.index(Modality.AUDIO)
    assert int(ModalityState.STALE) in states[:, place]
    assert (np.diff(states[:, 0]) > 0).all()
    changes = (states[1:, 1:] != states[:-1, 1:]).any(axis=1)
    assert changes.all()


def test_a_delay_leaves_stamps_and_order_of_a_sensor(kitchen):
    cuts, _ = replayed(kitchen, Run((Delay('rgb', 0.25), Mute('audio'), Mute('detections'))))
    for cut in cuts:
        assert cut.inference_ns - cut.window.end_ns >= 250_000_000
    assert len(cuts) > 10


def test_a_delay_beyond_the_end_of_the_bag_loses_the_sensor(kitchen):
    cuts, _ = replayed(kitchen, Run((Delay('all', 60.0),)))
    assert cuts == []


def test_runs_beside_each_other_are_as_runs_alone(kitchen):
    runs = Run(), Run((DropMessages('all', 0.3),), 4), Run((Delay('audio', 0.1),), 4)
    together, _ = replayed(kitchen, *runs)
    for number, run in enumerate(runs):
        alone, _ = replayed(kitchen, run)
        assert [content(c) for c in together if c.lane == number] == [content(c) for c in alone]


def test_a_disabled_sensor_is_not_fed(kitchen):
    cuts, replay = replayed(kitchen, values={'audio.enabled': False})
    assert all(Modality.AUDIO not in cut.window.modalities for cut in cuts)
    assert set(replay.lanes[0].states[:, 3]) == {int(ModalityState.DISABLED)}


def test_without_stamps_the_time_of_receipt_counts(kitchen, bags, tmp_path):
    def unstamped(topic, time_ns, message):
        if hasattr(message, 'header'):
            stamp = replace(message.header.stamp, sec=0, nanosec=0)
            message.header = replace(message.header, stamp=stamp)
        return topic, time_ns, message
    cuts, replay = replayed(bags.rewrite(kitchen, tmp_path / 'bag', unstamped))
    assert len(cuts) > 20
    assert all(0 <= cut.inference_ns - cut.window.end_ns < 100_000_000 for cut in cuts)
    assert not replay.lanes[0].refusals.counts


def test_messages_that_cannot_be_used_are_counted_with_the_first_reason(kitchen, bags, tmp_path):
    def odd(topic, time_ns, message):
        if topic == '/image' and (time_ns // 1_000_000) % 3 == 0:
            message.encoding = 'rgb9'
        return topic, time_ns, message
    cuts, replay = replayed(bags.rewrite(kitchen, tmp_path / 'bag', odd))
    refusals = replay.lanes[0].refusals
    assert refusals.counts['rgb'] > 5
    assert "got 'rgb9'" in refusals.first['rgb']
    assert len(cuts) > 20


def test_a_recorded_window_is_cut_where_it_ended(kitchen):
    cuts, _ = replayed(kitchen, values={'rate': 7.0})
    again, _ = replayed(kitchen, echoed=list(map(asked, cuts)))
    found = [content(cut)[1:] for cut in again if cut.lane == 1]
    assert found == [content(cut)[1:] for cut in cuts]


def test_a_recorded_window_is_cut_where_the_recorder_heard_the_sensors_at_other_times(
    kitchen, bags, tmp_path,
):
    def heard(seed):
        chance, last = np.random.default_rng(seed), {}

        def late(topic, time_ns, message):
            last[topic] = max(last.get(topic, 0), time_ns + int(chance.exponential(5e6)))
            return topic, last[topic], message
        return bags.rewrite(kitchen, tmp_path / f'bag{seed}', late)
    by_node, by_recorder = heard(1), heard(2)
    cuts, _ = replayed(by_node, values={'rate': 10.0})
    again, _ = replayed(by_recorder, echoed=list(map(asked, cuts)))
    assert [content(cut)[1:] for cut in again if cut.lane == 1] == [
        content(cut)[1:] for cut in cuts]


@pytest.mark.parametrize('order', ['<', '>'])
def test_the_stamp_of_a_picture_is_read_without_the_picture(order):
    data = bytes([0, order == '<', 0, 0]) + struct.pack(f'{order}iI', 17, 5) + b'rest'

    def read(_):
        raise AssertionError('the message was decoded')
    delivery = BagMessage('rgb', 'sensor_msgs/msg/Image', 0, 1, data, read, (8, 8))
    assert delivery.stamp_ns == 17_000_000_005


def resident_bytes():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='needs /proc')
def test_memory_stays_flat_over_gigabytes(kitchen):
    """A bag that goes on and on: 3 GB of VGA pictures pass, made one by one."""
    with Bag(kitchen) as bag:
        choice = choose_topics(bag, {}, ALL)
        image = choice.topics['rgb']
        store = bag.reader(image)._store
        first = bag.reader(image)(next(iter(bag.messages([image]))).data)
        large = replace(first, height=480, width=640, step=1920,
                        data=np.zeros(480 * 1920, np.uint8))
        template = bytes(store.serialize_cdr(large, image.type))
        used, sizes = [], [0]

        def messages(topics, start_ns=0, stop_ns=0):
            for number in range(3300):
                time_ns = bag.start_ns + number * 33_333_333
                stamp = struct.pack('<iI', *divmod(time_ns, NANOSECONDS))
                data = template[:4] + stamp + template[12:]
                sizes[0] += len(data)
                yield Message(image, time_ns, data)
        bag.messages = messages
        replay = Replay(bag, choice, SPEC, ALL, VALUES, [Run()])
        for number, _ in enumerate(replay.cuts()):
            if number % 100 == 20:
                used.append(resident_bytes())
    assert sizes[0] > 3e9
    assert max(used) - used[0] < 30e6, [u // 2**20 for u in used]
