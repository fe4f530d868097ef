"""A replay makes the windows that a node would have made, by the clock of the bag alone."""

from dataclasses import replace
import os
import struct

from karmma_ros.bags.bag_message import BagMessage
from karmma_ros.bags.faults import Delay, DropMessages, Mute
from karmma_ros.bags.reader import Bag, Message
from karmma_ros.bags.replay import Replay, Run
from karmma_ros.bags.simulated_node import RecordedWindow
from karmma_ros.bags.topics import choose_topics
from karmma_ros.clip import AudioSpec, ClipSpec, NANOSECONDS, VideoSpec
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.stream.availability import ModalityState
from karmma_ros.stream.ingest import MessageIngest
from karmma_ros.stream.settings import make_stream, node_parameters
import numpy as np
import pytest

ALL = V, F, A, D = PAPER_MODALITIES
SPEC = ClipSpec(duration=1.0, num_frames=8, video=VideoSpec(24, 24),
                audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=16, tiles=1,
                                tile_steps=50))
VALUES = node_parameters()


def replayed(path, *runs, spec=SPEC, values=None, modalities=ALL, hop=0, recorded=()):
    with Bag(path) as bag:
        choice = choose_topics(bag, {}, modalities)
        replay = Replay(bag, choice, spec, modalities, {**VALUES, **(values or {})},
                        runs or [Run()], recorded, hop)
        return list(replay.windows()), replay


def content(request):
    """Return the times and samples of a window."""
    window = request.window
    samples = window.samples
    parts = [np.stack(samples[m].images) for m in (V, F) if m in samples]
    parts += [samples[A].samples] if A in samples else []
    parts += list(samples[D].boxes) if D in samples else []
    return (request.inference_ns, window.start_ns, window.end_ns, window.modalities,
            b''.join(np.ascontiguousarray(part).tobytes() for part in parts))


def recorded_window(request):
    """Return a window as its recorded prediction describes it."""
    newest = {s.modality.value: s.last_stamp_ns for s in request.window.statuses}
    return RecordedWindow(
        request.window.end_ns, request.inference_ns, request.inference_ns + 20_000_000, newest
    )


def test_inference_runs_once_a_period_at_a_frame(kitchen):
    requests, _ = replayed(kitchen)
    assert len(requests) == pytest.approx(6 / 0.2, abs=3)
    shown = [
        request for request in requests if V in request.window.samples
    ]  # the first have audio only
    assert len(shown) > 0.8 * len(requests)
    for request in shown:
        # Frames are received at their stamps, before the boxes of the same time.
        assert (
            request.inference_ns
            == request.window.end_ns
            == request.window.samples[V].frames[-1].stamp_ns
        )
        assert request.window.start_ns == request.window.end_ns - SPEC.duration_ns


def test_without_a_camera_inference_runs_at_multiples_of_the_period(kitchen):
    requests, _ = replayed(kitchen, Run((Mute('rgb'),)))
    assert len(requests) == pytest.approx(6 / 0.2, abs=3)
    for request in requests:
        assert request.inference_ns % 200_000_000 == 0
        # Audio is received every 32 ms: nothing is older, and nothing of the tick or later.
        assert request.inference_ns - 67_000_000 <= request.window.end_ns < request.inference_ns


def test_the_same_bag_gives_the_same_windows(kitchen):
    first, second = ([content(request) for request in replayed(kitchen)[0]] for _ in range(2))
    assert first == second


def test_windows_are_those_of_a_sensor_stream(kitchen):
    """Feed a stream message by message, and make windows when the node would."""
    with Bag(kitchen) as bag:
        choice = choose_topics(bag, {}, ALL)
        roles = {t.name: (r, bag.reader(t)) for r, t in choice.topics.items() if r != 'truth'}
        stream = make_stream(SPEC, ALL, VALUES, ())
        ingest, tick_ns, due, slots, ends = MessageIngest(VALUES), bag.start_ns, False, set(), []
        ingest.feed(stream)

        def infer(now_ns):
            window = stream.window(now_ns)
            ends.extend([(now_ns, window.end_ns, window.modalities)] if window else [])
        for topic, now_ns, data in bag.messages(list(bag.topics.values())):
            while tick_ns <= now_ns:
                if due:
                    infer(tick_ns)
                due, tick_ns = True, tick_ns + 200_000_000
            if topic.name in roles:
                role, read = roles[topic.name]
                ingest.add(
                    BagMessage(role, topic.type, 0, now_ns, data, read, SPEC, VALUES), now_ns
                )
                slot = now_ns // SPEC.frame_period_ns
                if role == 'rgb' and slot not in slots:
                    slots.add(slot)
                    if due:
                        infer(now_ns)
                    due = False
    requests, _ = replayed(kitchen)
    assert [(c.inference_ns, c.window.end_ns, c.window.modalities) for c in requests] == ends


def test_the_rate_is_a_parameter(kitchen):
    requests, _ = replayed(kitchen, values={'rate': 10.0})
    assert len(requests) == pytest.approx(60, abs=5)


def test_a_streaming_network_gets_a_window_for_each_hop(kitchen):
    requests, _ = replayed(kitchen, hop=2)
    hops = [(request.window.end_ns // SPEC.frame_period_ns + 1) // 2 for request in requests]
    assert len(requests) > 15
    assert hops == list(range(hops[0], hops[0] + len(hops)))


@pytest.mark.timeout(60)
def test_a_clock_that_is_set_while_recording_takes_no_time(kitchen, bags, tmp_path):
    """As in a recorder with simulated time, whose first messages come before the clock."""
    def early(topic, time_ns, message):
        return topic, time_ns - (bags.start_ns - 10**9) * (time_ns < bags.start_ns + 2e9), message
    requests, replay = replayed(bags.rewrite(kitchen, tmp_path / 'bag', early))
    times = [request.inference_ns for request in requests]
    assert 5 <= sum(t < 4e9 for t in times) <= 12
    # After the jump all old samples are stale; a window of new ones is available.
    assert sum(t > bags.start_ns + 2e9 for t in times) > 10
    assert replay.longest_pause_ns > bags.start_ns - 10**10
    assert len(replay.nodes[0].states) < 20


def test_a_sensor_that_shows_nothing_is_in_no_window_of_a_bag(kitchen, bags, tmp_path):
    def muted(topic, time_ns, message):
        if topic == '/audio' and time_ns > bags.start_ns + 2 * NANOSECONDS:
            message.audio.data = np.zeros_like(message.audio.data)
        return topic, time_ns, message
    requests, replay = replayed(bags.rewrite(kitchen, tmp_path / 'bag', muted))
    late = [c for c in requests if c.inference_ns > bags.start_ns + 3 * NANOSECONDS]
    assert late and all(A not in c.window.modalities and V in c.window.modalities for c in late)
    states = replay.nodes[0].states
    assert states[-1].tolist()[1:] == [5, 5, int(ModalityState.UNINFORMATIVE), 5]
    warning, = replay.nodes[0].warnings
    assert warning.startswith('audio: digital silence: constant at 0 (second 2.')
    assert replay.nodes[0].details['audio'].startswith('digital silence: constant at 0 for ')
    rest = replayed(bags.rewrite(kitchen, tmp_path / 'other', muted),
                    values={'audio.check_content': False})[0]
    assert A in rest[-1].window.modalities


def test_too_few_inputs_give_no_window(kitchen):
    assert replayed(kitchen, Run((Mute('audio'),)), values={'min_modalities': 4})[0] == []
    assert replayed(kitchen, values={'min_modalities': 4})[0]


def test_a_muted_sensor_becomes_stale_and_available_again(kitchen, bags):
    requests, replay = replayed(kitchen, Run((Mute('audio', 2.0, 4.0),)))
    with_audio = {round((c.inference_ns - bags.start_ns) / NANOSECONDS, 1):
               Modality.AUDIO in c.window.modalities for c in requests}
    assert with_audio[2.0] and not with_audio[3.0] and with_audio[5.4]
    states = replay.nodes[0].states
    column = 1 + ALL.index(Modality.AUDIO)
    assert int(ModalityState.STALE) in states[:, column]
    assert (np.diff(states[:, 0]) > 0).all()
    changes = (states[1:, 1:] != states[:-1, 1:]).any(axis=1)
    assert changes.all()


def test_a_delay_leaves_stamps_and_order_of_a_sensor(kitchen):
    requests, _ = replayed(kitchen, Run((Delay('rgb', 0.25), Mute('audio'), Mute('detections'))))
    for request in requests:
        assert request.inference_ns - request.window.end_ns >= 250_000_000
    assert len(requests) > 10


def test_a_delay_beyond_the_end_of_the_bag_drops_the_sensor(kitchen):
    requests, _ = replayed(kitchen, Run((Delay('all', 60.0),)))
    assert requests == []


def test_runs_do_not_depend_on_other_runs(kitchen):
    runs = Run(), Run((DropMessages('all', 0.3),), 4), Run((Delay('audio', 0.1),), 4)
    together, _ = replayed(kitchen, *runs)
    for number, run in enumerate(runs):
        alone, _ = replayed(kitchen, run)
        assert [content(c) for c in together if c.run_index == number] == [
            content(c) for c in alone
        ]


def test_a_disabled_sensor_is_not_fed(kitchen):
    requests, replay = replayed(kitchen, values={'audio.enabled': False})
    assert all(Modality.AUDIO not in request.window.modalities for request in requests)
    assert set(replay.nodes[0].states[:, 3]) == {int(ModalityState.DISABLED)}


def test_without_stamps_the_receive_time_counts(kitchen, bags, tmp_path):
    def unstamped(topic, time_ns, message):
        if hasattr(message, 'header'):
            stamp = replace(message.header.stamp, sec=0, nanosec=0)
            message.header = replace(message.header, stamp=stamp)
        return topic, time_ns, message
    requests, replay = replayed(bags.rewrite(kitchen, tmp_path / 'bag', unstamped))
    assert len(requests) > 20
    assert all(
        0 <= request.inference_ns - request.window.end_ns < 100_000_000 for request in requests
    )
    assert not replay.nodes[0].rejected.counts


def test_messages_that_cannot_be_used_are_counted_with_the_first_reason(kitchen, bags, tmp_path):
    def odd(topic, time_ns, message):
        if topic == '/image' and (time_ns // 1_000_000) % 3 == 0:
            message.encoding = 'rgb9'
        return topic, time_ns, message
    requests, replay = replayed(bags.rewrite(kitchen, tmp_path / 'bag', odd))
    rejected = replay.nodes[0].rejected
    assert rejected.counts['rgb'] > 5
    assert "got 'rgb9'" in rejected.first['rgb']
    assert len(requests) > 20


def test_recorded_windows_are_reproduced(kitchen):
    requests, _ = replayed(kitchen, values={'rate': 7.0})
    again, _ = replayed(kitchen, recorded=list(map(recorded_window, requests)))
    windows = [content(request)[1:] for request in again if request.run_index == 1]
    assert windows == [content(request)[1:] for request in requests]


def test_recorded_windows_are_reproduced_if_the_recorder_received_messages_at_other_times(
    kitchen, bags, tmp_path,
):
    def received(seed):
        random, last = np.random.default_rng(seed), {}

        def late(topic, time_ns, message):
            last[topic] = max(last.get(topic, 0), time_ns + int(random.exponential(5e6)))
            return topic, last[topic], message
        return bags.rewrite(kitchen, tmp_path / f'bag{seed}', late)
    by_node, by_recorder = received(1), received(2)
    requests, _ = replayed(by_node, values={'rate': 10.0})
    again, _ = replayed(by_recorder, recorded=list(map(recorded_window, requests)))
    assert [content(request)[1:] for request in again if request.run_index == 1] == [
        content(request)[1:] for request in requests]


@pytest.mark.parametrize('order', ['<', '>'])
def test_the_stamp_of_an_image_is_read_without_decoding(order):
    data = bytes([0, order == '<', 0, 0]) + struct.pack(f'{order}iI', 17, 5) + b'rest'

    def read(_):
        raise AssertionError('the message was decoded')
    message = BagMessage('rgb', 'sensor_msgs/msg/Image', 0, 1, data, read, SPEC, VALUES)
    assert message.stamp_ns == 17_000_000_005


def resident_bytes():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='needs /proc')
def test_memory_stays_flat_over_gigabytes(kitchen):
    """Replay 3 GB of VGA frames, generated one by one."""
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
        values = {**VALUES, 'rgb.check_content': False}  # all frames are equal
        replay = Replay(bag, choice, SPEC, ALL, values, [Run()])
        for number, _ in enumerate(replay.windows()):
            if number % 100 == 20:
                used.append(resident_bytes())
    assert sizes[0] > 3e9
    assert max(used) - used[0] < 30e6, [u // 2**20 for u in used]
