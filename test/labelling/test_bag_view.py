"""Frames, audio and signals of a bag, against those that were written into it."""

from __future__ import annotations

import io
import time

import cv2
from karmma_ros.bags.writer import BagWriter
from karmma_ros.errors import BagError, InvalidSettingError
from karmma_ros.labelling.bag_audio import joined, TimedAudio
from karmma_ros.labelling.bag_view import BagView, NEXT, PREVIOUS
from karmma_ros.modality import Modality, registered_types
from karmma_ros.stream.settings import node_parameters
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
import soundfile

START_NS, RATE, LENGTH_S = 10**18, 16_000, 8.0
VALUES = node_parameters(None, map(Modality, registered_types()))


def tone(time_s):
    """Return a tone of 1 kHz from 2 to 4 s, silence otherwise."""
    return np.where((time_s >= 2) & (time_s < 4), 0.5 * np.sin(2000 * np.pi * time_s),
                    0).astype(np.float32)


@pytest.fixture(params=['mcap', 'sqlite3'])
def path(request, tmp_path):
    """Return a bag whose frames show their number as brightness; boxes from 5 s on."""
    path = tmp_path / ('bag.mcap' if request.param == 'mcap' else 'bag')
    events = []
    for number in range(80):
        events.append((number * 0.1, 'image', number))
    for number in range(250):
        events.append(((number + 1) * 0.032, 'audio', number))
    for number in range(50, 80):
        events.append((number * 0.1 + 0.01, 'boxes', number))
    with BagWriter(path, storage=request.param) as bag:
        for time_s, what, number in sorted(events):
            now_ns = START_NS + round(time_s * 1e9)
            if what == 'image':
                bag.image(now_ns, np.full((48, 64, 3), 3 * number, np.uint8))
            elif what == 'audio':
                times = number * 0.032 + np.arange(512) / RATE
                bag.audio(START_NS + round(number * 0.032e9), tone(times), now_ns)
            else:
                bag.detections(now_ns, [(6, 5, 32, 24)] * 3, ['hand'] * 3)
    return path


@pytest.fixture
def view(path):
    view = BagView(path, VALUES)
    yield view
    view.close()


def brightness(frame):
    image = np.asarray(cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), 1))
    return image.mean() / 3


def test_a_frame_is_the_one_that_is_shown_at_a_time(view):
    camera, = view.cameras
    for time_s in (0.0, 1.05, 3.999, 7.9, 2.0, 100.0):
        frame = view.frame(camera, time_s)
        if time_s > 20:
            assert frame is None
            continue
        number = int(min(time_s, 7.9) * 10 + 1e-6)
        assert frame.time_s == pytest.approx(number / 10)
        assert brightness(frame) == pytest.approx(number, abs=1)
    after = view.frame(camera, frame_time := view.frame(camera, 4.02).time_s, NEXT)
    assert after.time_s == pytest.approx(4.1)
    assert view.frame(camera, after.time_s, PREVIOUS).time_s == frame_time
    with pytest.raises(InvalidSettingError, match='camera is .*expected /image'):
        view.frame('/other', 0.0)


def test_frames_that_are_kept_are_bounded(view):
    camera, = view.cameras
    for number in range(80):
        view.frame(camera, number / 10)
    assert len(view._frames) == 48


def test_audio_of_an_interval_is_exact(view):
    samples, rate = soundfile.read(io.BytesIO(view.wav(1.5, 4.5)))
    expected = tone(1.5 + np.arange(3 * RATE) / RATE)
    assert rate == RATE and len(samples) == 3 * RATE
    assert np.abs(samples - expected).max() < 2e-3


def test_chunks_with_jitter_are_joined_and_gaps_are_not():
    chunk = np.ones(1600, np.float32)
    chunks = [TimedAudio(t, chunk, RATE) for t in (0, 0.11, 0.19, 0.3, 1.0, 1.1)]
    parts = list(joined(iter(chunks)))
    assert [(part.start_s, len(part.samples)) for part in parts] == [(0, 6400), (1.0, 3200)]
    long = list(joined((TimedAudio(i / 10, chunk, RATE) for i in range(100)), most_s=4.0))
    assert len(long) > 1 and sum(len(part.samples) for part in long) == 160_000
    assert [p.start_s for p in long[1:]] == pytest.approx(
        np.cumsum([len(p.samples) / RATE for p in long])[:-1])


def scanned(view):
    """Return the signals in 80 columns after the pass over the bag."""
    view.signals.start()
    deadline = time.monotonic() + 60
    while view.signals.progress < 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    return view.signals.to_dict(0.0, view.length_s, 80)


def test_signals_show_when_something_happens(view):
    view.signals.start()
    drawn = scanned(view)
    assert drawn['progress'] == 1 and drawn['error'] == ''
    low, high = map(np.array, drawn['waveform'])
    loud = np.flatnonzero(high > 40)
    assert loud.min() == 20 and loud.max() == 39 and (low[loud] < -40).all()
    early = view.signals.to_dict(0.0, 1.0, 40)  # the loud part begins at second 2
    assert max(early['waveform'][1]) < 40
    tracks = {track['role']: np.array(track['values']) for track in drawn['tracks']}
    assert set(tracks) == {'rgb', 'detections'}
    assert not tracks['detections'][:49].any() and tracks['detections'][51:79].max() > 200
    assert tracks['rgb'].max() > 200
    image = cv2.imdecode(
        np.frombuffer(view.signals.spectrogram(0.0, 8.0, 80), np.uint8), 1)
    assert image.shape == (64, 80, 3)
    assert image[:, 25:35].mean() > 2 * image[:, 50:70].mean()


def test_a_bag_without_audio_has_none(tmp_path):
    with BagWriter(tmp_path / 'silent.mcap') as bag:
        bag.image(START_NS, np.zeros((48, 64, 3), np.uint8))
    view = BagView(tmp_path / 'silent.mcap', VALUES)
    assert not view.has_audio and view.wav(0, 1) is None and view.length_s == 0
    assert view.signals.to_dict(0, 1, 10)['waveform'] is None
    view.close()
    with pytest.raises(BagError, match='no such file'):
        BagView(tmp_path / 'no.mcap', VALUES)




def test_sensors_of_any_type_have_activity(tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    vector, stamp = types['geometry_msgs/msg/Vector3'], types['builtin_interfaces/msg/Time']
    with Writer(tmp_path / 'imu', version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection('/imu', 'sensor_msgs/msg/Imu', typestore=store)
        for number in range(400):
            now_ns = START_NS + number * 10_000_000
            shake = (-1) ** number * 5.0 if 100 <= number < 200 else 0.0
            header = types['std_msgs/msg/Header'](
                stamp=stamp(now_ns // 10**9, now_ns % 10**9), frame_id='wrist')
            message = types['sensor_msgs/msg/Imu'](
                header, types['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 1.0), np.zeros(9),
                vector(0.0, 0.0, 0.0), np.zeros(9), vector(shake, 0.0, 9.8), np.zeros(9))
            writer.write(topic, now_ns, store.serialize_cdr(message, 'sensor_msgs/msg/Imu'))
    view = BagView(tmp_path / 'imu', VALUES)
    assert view.cameras == () and not view.has_audio
    drawn = scanned(view)
    track, = drawn['tracks']
    values = np.array(track['values'])
    assert (track['role'], track['label']) == ('imu', 'inertial sensor')
    assert np.flatnonzero(values > 100).tolist() == list(range(20, 41))
    view.close()


def test_of_a_bag_that_breaks_off_the_rest_is_shown(path, tmp_path):
    if path.is_dir():
        path = next(path.glob('*.db3'))
    data = path.read_bytes()
    damaged = tmp_path / f'damaged{path.suffix}'
    damaged.write_bytes(data[:len(data) * 6 // 10])
    view = BagView(damaged, VALUES)
    assert any('damaged' in note for note in view.notes)
    assert 1 < view.length_s < 7.5
    assert view.frame('/image', 1.0).time_s == pytest.approx(1.0)
    assert scanned(view)['error'] == ''
    view.close()
