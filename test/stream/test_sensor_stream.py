from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
import itertools
import subprocess
import sys

import cv2
from karmma_ros.clip import AudioSpec, BOX_HAND, ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities.audio_buffer import AudioChunk
from karmma_ros.modalities.content_check import Finding
from karmma_ros.modalities.flow import ComputedFlow
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.stream.availability import ModalityState, ModalityStatus
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
import numpy as np
import pytest

V, F, A, D = PAPER_MODALITIES
MS = 1_000_000
T0 = 1_700_000_000_000
"""The test's clock starts here, milliseconds."""
SPEC = ClipSpec(duration=0.8, num_frames=8, video=VideoSpec(height=16, width=16),
                audio=AudioSpec(tiles=2, tile_steps=20, n_mels=8))
BOXES = np.array([[0.1, 0.1, 0.2, 0.2, BOX_HAND]], np.float32)
IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


class Rig:
    """A stream with its clock: times in milliseconds since the start of the test."""

    def __init__(self, modalities=PAPER_MODALITIES, **changes: InputSettings) -> None:
        settings = {m: changes.get(m.value, InputSettings(300 * MS)) for m in modalities}
        self.stream = SensorStream(SPEC, modalities, settings)
        self.now = 0

    @property
    def now_ns(self) -> int:
        return (T0 + self.now) * MS

    def feed(self, *modalities: Modality, until: int, offset: int = 0) -> None:
        """Send what the sensors give every 100 ms, stamped `offset` after the receipt."""
        while self.now < until:
            self.now += 100
            self.send(*modalities, stamp_ns=self.now_ns + offset * MS)

    def send(self, *modalities: Modality, stamp_ns: int) -> list[str]:
        reasons = []
        if V in modalities or F in modalities:
            reasons.append(self.stream.add(Modality.RGB, IMAGE, stamp_ns, self.now_ns))
        if A in modalities:
            start_ns = stamp_ns and stamp_ns - 100 * MS
            reasons.append(
                self.stream.add(
                    Modality.AUDIO,
                    AudioChunk(np.full(1600, 0.5, np.float32), 16_000),
                    start_ns,
                    self.now_ns,
                )
            )
        if D in modalities:
            reasons.append(self.stream.add(Modality.DETECTIONS, BOXES, stamp_ns, self.now_ns))
        return reasons

    def status(self, modality: Modality) -> ModalityStatus:
        return {s.modality: s for s in self.stream.assess(self.now_ns)}[modality]

    def states(self) -> str:
        """Return each modality's state by its number, in the order V F A D."""
        return ''.join(str(int(s.state)) for s in self.stream.assess(self.now_ns))


def test_nothing_received_is_reported():
    rig = Rig()
    assert rig.states() == '1111' and rig.stream.window(rig.now_ns) is None
    assert rig.status(A) == ModalityStatus(
        A, ModalityState.NEVER_RECEIVED, timeout_ns=300 * MS, detail='nothing received')
    assert rig.status(F).detail == 'derived from the camera: nothing received'


def test_all_sensors_make_all_modalities_available():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    assert rig.states() == '5555'
    assert all(s.detail == '' for s in rig.stream.assess(rig.now_ns))
    window = rig.stream.window(rig.now_ns)
    assert window.modalities == PAPER_MODALITIES
    assert (window.start_ns, window.end_ns) == (rig.now_ns - 800 * MS, rig.now_ns)
    assert window.statuses == rig.stream.assess(rig.now_ns)
    assert window.spans_ns == {
        V: (rig.now_ns - 700 * MS, rig.now_ns), F: (rig.now_ns - 700 * MS, rig.now_ns),
        A: (rig.now_ns - 800 * MS, rig.now_ns), D: (rig.now_ns - 700 * MS, rig.now_ns)}
    clip = window.clip()
    assert all(clip.inputs[m].shape == SPEC.input_shape(m) for m in PAPER_MODALITIES)


def test_status_counts_and_measures():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=2000)
    rig.now += 50
    for modality, samples in ((V, 8), (F, 8), (A, 12_800), (D, 8)):
        status = rig.status(modality)
        assert status.num_samples == samples
        assert status.rate == pytest.approx(10)
        assert status.age_ns == 50 * MS and status.dropped == 0
    assert rig.status(V).last_stamp_ns == rig.now_ns - 50 * MS


@pytest.mark.parametrize(
    ('stopped', 'states'),
    [
        ([V, F], '2255'),
        ([A], '5525'),
        ([D], '5552'),
        ([V, F, A], '2225'),
        (list(PAPER_MODALITIES), '2222'),
    ],
)
def test_a_sensor_that_stops_goes_stale_and_comes_back(stopped, states):
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    rest = [m for m in PAPER_MODALITIES if m not in stopped]
    rig.feed(*rest, until=1300)
    assert rig.states() == '5555'
    rig.feed(*rest, until=1400)
    assert rig.states() == states
    assert rig.status(stopped[0]).detail.endswith('last sample 0.4 s ago; the timeout is 0.3 s')
    assert rig.status(stopped[0]).rate == 0
    window = rig.stream.window(rig.now_ns)
    assert (window.modalities if window else ()) == tuple(rest)
    rig.feed(*PAPER_MODALITIES, until=1500)
    assert all(s.available or s.modality in stopped for s in rig.stream.assess(rig.now_ns))
    rig.feed(*PAPER_MODALITIES, until=2500)
    assert rig.states() == '5555'


def test_too_few_samples_are_insufficient_with_the_number_needed():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=200)
    assert rig.states() == '3333'
    assert rig.status(V).detail == '2 of 8 frames; it needs 4'
    assert rig.status(F).detail == 'derived from the camera: 2 of 8 frames; it needs 4'
    assert rig.status(A).detail == '0.2 of 0.8 s of audio; it needs 0.4'
    assert rig.status(D).detail == '3 of 8 frames with boxes; it needs 4'
    assert rig.stream.window(rig.now_ns) is None
    rig.feed(*PAPER_MODALITIES, until=400)
    assert rig.states() == '5555'


def test_coverage_is_a_setting_and_flow_needs_two_frames():
    little, much = InputSettings(300 * MS, min_coverage=0.01), InputSettings(300 * MS)
    rig = Rig(rgb=little, flow=little, audio=much, detections=much)
    rig.feed(*PAPER_MODALITIES, until=100)
    assert rig.states() == '5333'
    assert rig.status(F).detail == 'derived from the camera: 1 of 8 frames; it needs 2'
    rig.feed(*PAPER_MODALITIES, until=200)
    assert rig.states() == '5533'


def test_disabled_modalities_state_the_reason():
    rig = Rig((V, A, D), audio=InputSettings(300 * MS, enabled=False))
    rig.feed(*PAPER_MODALITIES, until=1000)
    assert rig.states() == '5005'
    assert rig.status(F).detail == 'the model does not take it'
    assert rig.status(A).detail == 'disabled by its setting'
    assert rig.stream.window(rig.now_ns).modalities == (V, D)


@pytest.mark.parametrize(('off', 'states'), [('rgb', '0555'), ('flow', '5055')])
def test_camera_serves_rgb_and_flow_apart(off, states):
    rig = Rig(**{off: InputSettings(300 * MS, enabled=False)})
    rig.feed(*PAPER_MODALITIES, until=1000)
    assert rig.states() == states
    clip = rig.stream.window(rig.now_ns).clip()
    assert clip.modalities == tuple(m for m in PAPER_MODALITIES if m.value != off)


def test_unused_camera_wants_no_image():
    rig = Rig((A,))
    assert not rig.stream.wants(Modality.RGB, rig.now_ns, rig.now_ns)
    assert rig.send(V, stamp_ns=rig.now_ns) == ['nothing uses this input']
    assert rig.stream.nbytes == Rig((A,)).stream.nbytes


def test_flow_dies_with_the_camera_whatever_its_own_timeout():
    rig = Rig(flow=InputSettings(10_000 * MS))
    rig.feed(*PAPER_MODALITIES, until=1000)
    rig.feed(A, D, until=1400)
    assert rig.states() == '2255'
    assert rig.status(F).timeout_ns == 300 * MS


def test_image_of_a_filled_slot_needs_no_decoding_but_keeps_the_camera_fresh():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    stamp_ns = rig.now_ns + 20 * MS
    rig.now += 290
    assert not rig.stream.wants(Modality.RGB, stamp_ns, rig.now_ns)
    rig.now += 290
    assert rig.states()[:2] == '55'
    assert rig.status(V).last_stamp_ns == stamp_ns and rig.status(V).age_ns == 290 * MS
    assert rig.stream.wants(Modality.RGB, rig.now_ns, rig.now_ns)


def test_no_window_without_newer_data():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    assert rig.stream.window(rig.now_ns) is not None
    rig.now += 10
    assert rig.stream.window(rig.now_ns) is None
    rig.feed(D, until=rig.now + 1)
    window = rig.stream.window(rig.now_ns)
    assert window.end_ns == rig.now_ns and rig.stream.window(rig.now_ns) is None


def test_window_ends_at_the_newest_stamp_of_fresh_inputs_only():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    rig.send(D, stamp_ns=rig.now_ns + 150 * MS)
    assert rig.stream.window(rig.now_ns).end_ns == (T0 + 1150) * MS
    rig.feed(V, until=1400, offset=-20)
    assert rig.states() == '5522'
    assert rig.stream.window(rig.now_ns).end_ns == (T0 + 1380) * MS


def test_empty_detections_are_fresh_data():
    rig = Rig((D,))
    for _ in range(8):
        rig.now += 100
        rig.stream.add(Modality.DETECTIONS, np.zeros((0, 5), np.float32), rig.now_ns, rig.now_ns)
    assert rig.states() == '0005'
    clip = rig.stream.window(rig.now_ns).clip()
    np.testing.assert_array_equal(clip.inputs[D], 0)


@pytest.mark.parametrize(
    'send',
    [
        lambda s, t, now: s.add(Modality.RGB, np.zeros((0, 4, 3), np.uint8), t, now),
        lambda s, t, now: s.add(Modality.RGB, None, t, now),
        lambda s, t, now: s.add(
            Modality.AUDIO, AudioChunk(np.full(9, np.nan, np.float32), 16_000), t, now
        ),
        lambda s, t, now: s.add(
            Modality.AUDIO, AudioChunk(np.zeros(0, np.float32), 16_000), t, now
        ),
        lambda s, t, now: s.add(Modality.AUDIO, AudioChunk(np.zeros(9, np.float32), 0), t, now),
        lambda s, t, now: s.add(
            Modality.AUDIO, AudioChunk(np.zeros((9, 2), np.float32), 16_000), t, now
        ),
        lambda s, t, now: s.add(Modality.DETECTIONS, np.full((1, 5), np.nan, np.float32), t, now),
        lambda s, t, now: s.add(
            Modality.DETECTIONS, np.array([[0.5, 0, 0.1, 1, 1]], np.float32), t, now
        ),
        lambda s, t, now: s.add(Modality.DETECTIONS, None, t, now),
        lambda s, t, now: s.add(Modality.RGB, IMAGE, -5, now),
    ],
)
def test_bad_sample_is_dropped_counted_and_named(send):
    rig = Rig()
    reason = send(rig.stream, rig.now_ns, rig.now_ns)
    assert '; expected ' in reason
    bad = [s for s in rig.stream.assess(rig.now_ns) if s.state is ModalityState.INVALID]
    assert bad and all(s.dropped == 1 and reason in s.detail for s in bad)
    rig.feed(*PAPER_MODALITIES, until=1000)
    assert rig.states() == '5555' and rig.status(bad[0].modality).dropped == 1


def test_messages_that_could_not_be_decoded_are_counted_and_named():
    rig = Rig()
    rig.stream.reject(V, "image encoding: got 'yuv422'", rig.now_ns)
    rig.stream.reject(A, 'mp3', rig.now_ns)
    assert rig.states() == '4441'
    assert rig.status(F).detail == "derived from the camera: image encoding: got 'yuv422'"
    assert rig.status(A).dropped == 1
    rig.now += 301
    assert rig.states() == '1111'
    rig.feed(A, until=1200)
    rig.stream.reject(A, 'mp3', rig.now_ns)
    assert rig.states() == '1151' and rig.status(A).detail == ''


def test_good_then_only_bad_messages_are_invalid():
    rig = Rig((A,))
    rig.feed(A, until=1000)
    for _ in range(4):
        rig.now += 100
        rig.stream.reject(A, 'mp3', rig.now_ns)
    assert rig.states() == '0040' and rig.status(A).detail == 'mp3'


def test_rejecting_a_disabled_modality_is_no_matter():
    rig = Rig((V,))
    rig.stream.reject(A, 'mp3', rig.now_ns)
    assert rig.states() == '1000' and rig.status(A).dropped == 0


def test_zero_stamps_mean_the_time_of_receiving():
    rig = Rig()
    while rig.now < 1000:
        rig.now += 100
        assert rig.send(*PAPER_MODALITIES, stamp_ns=0) == ['', '', '']
    assert rig.states() == '5555'
    window = rig.stream.window(rig.now_ns)
    assert window.end_ns == rig.now_ns
    assert window.spans_ns[A] == (rig.now_ns - 800 * MS, rig.now_ns)
    assert (window.samples[A].samples == 0.5).all()


def test_unstamped_audio_in_bursts_is_complete():
    rig = Rig((A,))
    for _ in range(4):
        rig.now += 300
        for _ in range(3):
            rig.send(A, stamp_ns=0)
    assert (rig.stream.window(rig.now_ns).samples[A].samples == 0.5).all()


def test_stray_stamp_is_dropped_and_two_in_a_row_restart():
    rig = Rig((V,))
    rig.feed(V, until=1000)
    far_ns = rig.now_ns + 3_600_000 * MS
    reason, = rig.send(V, stamp_ns=far_ns)
    assert reason == ('stamp: got 3600.000 s ahead of the newest sample; '
                      'expected within 0.8 s')
    assert rig.states()[0] == '5' and rig.status(V).dropped == 1
    rig.now += 100
    assert rig.send(V, stamp_ns=far_ns + 100 * MS) == ['']
    assert rig.status(V).detail == '1 of 8 frames; it needs 4'
    assert rig.status(V).last_stamp_ns == far_ns + 100 * MS


def test_clock_that_jumps_back_gives_windows_again():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=2000)
    assert rig.stream.window(rig.now_ns) is not None
    ends = []
    while rig.now < 4000:
        rig.now += 100
        rig.send(*PAPER_MODALITIES, stamp_ns=rig.now_ns - 60_000 * MS)
        window = rig.stream.window(rig.now_ns)
        ends += [window.end_ns] if window else []
    assert rig.states() == '5555'
    assert len(ends) >= 14 and ends == sorted(set(ends))
    assert ends[-1] == rig.now_ns - 60_000 * MS
    assert rig.status(V).last_stamp_ns == ends[-1]


def test_clear_starts_anew_but_keeps_the_counts():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    rig.stream.reject(A, 'mp3', rig.now_ns)
    rig.stream.window(rig.now_ns)
    rig.stream.clear()
    assert rig.states() == '1111' and rig.status(A).dropped == 1
    assert rig.stream.window(rig.now_ns) is None
    rig.now = 0
    rig.feed(*PAPER_MODALITIES, until=1000)
    assert rig.states() == '5555' and rig.stream.window(rig.now_ns) is not None


def test_one_foreign_clock_does_not_put_out_the_others():
    rig = Rig()
    while rig.now < 1000:
        rig.now += 100
        rig.send(V, D, stamp_ns=rig.now_ns)
        rig.send(A, stamp_ns=rig.now_ns + 7_200_000 * MS)
    assert rig.states() == '5535'
    assert rig.status(A).detail == (
        'its stamps are 7200.000 s ahead of the others: their clocks differ')
    assert rig.stream.window(rig.now_ns).end_ns == rig.now_ns
    rig.feed(A, until=1400, offset=7_200_000)
    assert rig.states() == '2252'
    assert rig.stream.window(rig.now_ns).modalities == (A,)
    rig.feed(V, D, until=2000)
    assert rig.states() == '5525'
    assert rig.stream.window(rig.now_ns).end_ns == rig.now_ns


def test_receivers_clock_that_jumps_back_leaves_nothing_fresh():
    rig = Rig((V,))
    rig.feed(V, until=1000)
    rig.now -= 5000
    assert rig.states() == '2000' and rig.status(V).age_ns == 0
    rig.feed(V, until=-3000, offset=5000)
    assert rig.states() == '5000' and rig.status(V).rate == pytest.approx(10)


@pytest.mark.parametrize(('values', 'text'), [
    ({'timeout_ns': 0}, 'timeout_ns is 0; expected a number above 0'),
    ({'timeout_ns': 1, 'min_coverage': 0.0}, 'min_coverage is 0.0; expected a number above 0'),
    ({'timeout_ns': 1, 'min_coverage': 1.1}, 'min_coverage is 1.1'),
    ({'timeout_ns': 1, 'min_coverage': float('nan')}, 'min_coverage is nan'),
])
def test_settings_are_checked_with_what_is_expected(values, text):
    with pytest.raises(InvalidSettingError, match=text):
        InputSettings(**values)


def test_modality_without_settings_is_refused():
    with pytest.raises(InvalidSettingError, match='settings of audio is None'):
        SensorStream(SPEC, [V, A], {V: InputSettings(MS)})


def test_window_needs_no_lock_afterwards():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    window, other = rig.stream.window(rig.now_ns), Rig()
    other.feed(*PAPER_MODALITIES, until=1000)
    before = other.stream.window(other.now_ns).clip()
    rig.feed(*PAPER_MODALITIES, until=5000)
    rig.stream.clear()
    after = window.clip()
    for modality in PAPER_MODALITIES:
        np.testing.assert_array_equal(after.inputs[modality], before.inputs[modality])


def test_package_loads_neither_torch_nor_ros_before_the_recogniser():
    code = ('import sys, karmma_ros.stream.sensor_stream, karmma_ros.stream.window; '
            'print([m for m in ("torch", "rclpy") if m in sys.modules])')
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == '[]'


FLOW = np.full((24, 32, 2), 1.5, np.float32)


class FlowRig(Rig):
    """A rig whose flow comes on a topic of its own."""

    def __init__(self, modalities=PAPER_MODALITIES, **changes: InputSettings) -> None:
        super().__init__(modalities, **changes)
        settings = {m: changes.get(m.value, InputSettings(300 * MS)) for m in modalities}
        self.stream = SensorStream(SPEC, modalities, settings, with_topic={Modality.FLOW})

    def send(self, *modalities: Modality, stamp_ns: int) -> list[str]:
        reasons = super().send(*(m for m in modalities if m is not F), stamp_ns=stamp_ns)
        if F in modalities and self.stream.wants(Modality.FLOW, stamp_ns, self.now_ns):
            reasons.append(self.stream.add(Modality.FLOW, FLOW, stamp_ns, self.now_ns))
        return reasons


def test_flow_of_a_topic_lives_on_when_the_camera_dies():
    rig = FlowRig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    assert rig.states() == '5555'
    rig.feed(F, A, D, until=1400)
    assert rig.states() == '2555'
    window = rig.stream.window(rig.now_ns)
    assert window.modalities == (F, A, D)
    # The first flow repeats the second.
    assert window.spans_ns[F] == (rig.now_ns - 600 * MS, rig.now_ns)
    assert window.clip().inputs[F].shape == SPEC.input_shape(F)


def test_flow_of_a_topic_dies_alone_by_its_own_timeout():
    rig = FlowRig(flow=InputSettings(150 * MS, min_coverage=1.0))
    rig.feed(*PAPER_MODALITIES, until=700)
    assert rig.status(F).detail == '6 of 8 frames; it needs 8'
    rig.feed(*PAPER_MODALITIES, until=900)
    assert rig.states() == '5555' and rig.status(F).timeout_ns == 150 * MS
    rig.feed(V, A, D, until=1100)
    assert rig.states() == '5255'
    assert rig.status(F).detail == 'last sample 0.2 s ago; the timeout is 0.15 s'
    assert rig.stream.window(rig.now_ns).modalities == (V, A, D)


def test_no_flow_is_computed_where_it_has_a_topic():
    rig = FlowRig((V, F))
    rig.feed(V, until=1000)
    assert rig.states() == '5100' and rig.status(F).detail == 'nothing received'
    rig.feed(V, F, until=2000)
    flow = rig.stream.window(rig.now_ns).clip().inputs[F]
    assert np.ptp(flow[0]) == 0 and np.ptp(flow[1]) == 0


def test_flow_that_is_not_wanted_keeps_it_fresh_and_the_time():
    rig = FlowRig((F,))
    for _ in range(40):
        rig.now += 25
        rig.send(F, stamp_ns=rig.now_ns)
    assert rig.states() == '0500'
    # 1.5 pixels in 25 ms and an image half as large are 1.5 x 16 / 24 x 4 = 4 in 100 ms.
    image = rig.stream.window(rig.now_ns).samples[F].images[-1]
    np.testing.assert_array_equal(image, round(128 + 4 * 127.5 / 20))


@pytest.mark.parametrize('flow', [
    None, np.full((4, 4, 2), np.nan, np.float32), np.zeros((4, 4, 2)), IMAGE])
def test_bad_flow_is_dropped_counted_and_named(flow):
    rig = FlowRig((F,))
    assert 'flow: got' in rig.stream.add(Modality.FLOW, flow, rig.now_ns, rig.now_ns)
    assert rig.states() == '0400' and rig.status(F).dropped == 1
    rig.stream.reject(F, 'flow encoding', rig.now_ns)
    assert rig.status(F).dropped == 2 and rig.status(F).detail == 'flow encoding'


def test_flow_without_a_topic_is_not_taken():
    rig = Rig()
    assert not rig.stream.wants(Modality.FLOW, rig.now_ns, rig.now_ns)
    assert rig.stream.add(Modality.FLOW, FLOW, rig.now_ns, rig.now_ns) == 'nothing uses this input'
    assert rig.states() == '1111'


def sliding(dx: float, dy: float, height: int = 72, width: int = 96) -> Iterator[np.ndarray]:
    """Return images in which everything moves by so many pixels each."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)
    for i in itertools.count():
        moved = np.float32([[1, 0, i * dx - 150], [0, 1, i * dy - 150]])
        yield cv2.warpAffine(texture, moved, (width, height))


@pytest.mark.parametrize('hertz', [10, 30])
def test_flow_of_a_topic_gives_the_clip_that_computed_flow_gives(hertz):
    """Everything moves by 3 pixels rightward and 1.5 upward in 100 ms, of 96 x 72."""
    spec = ClipSpec(duration=0.8, num_frames=8, video=VideoSpec(height=48, width=48))
    settings = {F: InputSettings(300 * MS)}
    computed = SensorStream(spec, [F], settings)
    received = SensorStream(spec, [F], settings, with_topic={Modality.FLOW})
    images = sliding(30 / hertz, -15 / hertz)
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before = None
    for i in range(3 * hertz // 2):
        image, stamp_ns = next(images), T0 * MS + i * 1000 * MS // hertz
        assert computed.add(Modality.RGB, image, stamp_ns, stamp_ns) == ''
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if before is not None:
            flow = estimator.calc(before, grey, None)
            assert received.add(Modality.FLOW, flow, stamp_ns, stamp_ns) == ''
        before = grey
    ours = received.window(stamp_ns).clip().inputs[F]
    theirs = computed.window(stamp_ns).clip().inputs[F]
    level = 1 / 255 / np.reshape(spec.flow.std, (3, 1, 1, 1))  # one step of the picture
    inner = np.s_[:, :, 8:-8, 8:-8]
    assert (np.abs(ours - theirs) / level)[inner].mean() < 0.8
    # It moves 2 pixels rightward and 1 upward in the crop: 12.75 and -6.4 steps.
    still = (128 / 255 - np.reshape(spec.flow.mean, (3, 1, 1, 1))) / np.reshape(
        spec.flow.std, (3, 1, 1, 1))
    for each in (ours, theirs):
        steps = ((each - still) / level)[inner].mean((1, 2, 3))
        np.testing.assert_allclose(steps[:2], [12.75, -6.4], atol=0.8)


def on(*modalities: Modality, timeout: int = 300) -> dict[Modality, InputSettings]:
    return {m: InputSettings(timeout * MS, enabled=m in modalities) for m in PAPER_MODALITIES}


@pytest.mark.parametrize('off', list(PAPER_MODALITIES))
def test_what_is_disabled_is_discarded_at_once_and_nothing_else_is(off):
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    before, full = rig.stream.assess(rig.now_ns), rig.stream.nbytes
    rig.stream.configure(on(*(m for m in PAPER_MODALITIES if m is not off)))
    after = rig.stream.assess(rig.now_ns)
    assert [a == b for a, b in zip(before, after)] == [m is not off for m in PAPER_MODALITIES]
    assert rig.status(off).state is ModalityState.DISABLED
    assert rig.stream.window(rig.now_ns).modalities == tuple(
        m for m in PAPER_MODALITIES if m is not off
    )
    # The camera serves the other of the two.
    assert (rig.stream.nbytes < full) == (off is D)
    if off is A:
        assert not rig.stream._sources[A].buffer._samples.any()
    rig.stream.configure(on(*PAPER_MODALITIES))
    kept = off in (V, F)
    assert rig.status(off).state == (
        ModalityState.AVAILABLE if kept else ModalityState.NEVER_RECEIVED)
    rig.feed(*PAPER_MODALITIES, until=2000)
    assert rig.states() == '5555'


def test_without_rgb_and_flow_no_frame_is_left():
    rig = Rig()
    empty = rig.stream.nbytes
    rig.feed(V, F, until=1000)
    rig.stream.window(rig.now_ns).clip()
    rig.stream.configure(on(A, D))
    assert rig.stream.nbytes == empty and F not in rig.stream._derivations
    assert not rig.stream.wants(Modality.RGB, rig.now_ns, rig.now_ns)
    assert rig.states() == '0011'


def test_an_earlier_window_is_unchanged_afterwards():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    window = rig.stream.window(rig.now_ns)
    rig.stream.configure(on(A))
    assert window.clip().modalities == PAPER_MODALITIES


def test_timeouts_and_coverage_change_live():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    rig.now += 250
    rig.stream.configure(on(*PAPER_MODALITIES, timeout=200))
    assert rig.states() == '2222' and rig.status(V).timeout_ns == 200 * MS
    rig.stream.configure({m: InputSettings(300 * MS, min_coverage=1.0) for m in PAPER_MODALITIES})
    assert rig.states() == '5555'
    rig.feed(V, until=1300)
    assert rig.states()[0] == '3'


def test_flow_can_change_its_source():
    rig = FlowRig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    rig.stream.configure(on(*PAPER_MODALITIES), with_topic=())
    window = rig.stream.window(rig.now_ns)
    assert rig.states() == '5555' and isinstance(window.samples[F], ComputedFlow)
    rig.stream.configure(on(*PAPER_MODALITIES), with_topic={Modality.FLOW})
    assert rig.states() == '5155'
    rig.feed(*PAPER_MODALITIES, until=2000)
    assert rig.states() == '5555' and len(rig.stream.window(rig.now_ns).samples[F].images) == 8


def test_settings_that_lack_a_modality_change_nothing():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    with pytest.raises(InvalidSettingError, match='settings of detections is None'):
        rig.stream.configure({m: InputSettings(MS) for m in (V, F, A)})
    assert rig.states() == '5555'


def test_a_finding_is_a_warning_beside_the_state_of_its_modality():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    rig.stream.set_finding(V, 'range', Finding('nearly black'))
    assert rig.states() == '5555'
    assert rig.status(V).warning == 'nearly black' and rig.status(V).detail == ''
    assert rig.status(V).warning_line == 'rgb: nearly black'
    assert replace(rig.status(V), warning='rgb has ten bits').warning_line == 'rgb has ten bits'
    assert rig.status(F).warning == ''
    rig.stream.set_finding(V, 'range', None)
    assert rig.status(V).warning == ''


def test_data_that_a_check_finds_unusable_is_in_no_window_until_it_is_right_again():
    rig = Rig()
    rig.feed(*PAPER_MODALITIES, until=1000)
    rig.stream.set_finding(A, 'rate', Finding('48000, expected 16000', usable=False))
    rig.stream.set_finding(A, 'other', Finding('something else'))
    status = rig.status(A)
    assert status.state is ModalityState.INVALID
    assert status.detail == status.warning == '48000, expected 16000; something else'
    assert rig.stream.window(rig.now_ns).modalities == (V, F, D)
    rig.stream.set_finding(A, 'rate', None)
    assert rig.states() == '5535', 'what was stored meanwhile is cleared'
    rig.feed(*PAPER_MODALITIES, until=2000)
    assert rig.states() == '5555' and rig.status(A).warning == 'something else'


def test_stamps_of_unusable_data_do_not_move_the_window():
    rig = Rig()
    rig.feed(V, F, D, until=1000)
    assert (
        rig.stream.add(
            Modality.AUDIO, AudioChunk(np.zeros(8000, np.float32), 16_000), rig.now_ns, rig.now_ns
        )
        == ''
    )
    rig.stream.set_finding(A, 'rate', Finding('wrong', usable=False))
    assert rig.stream.window(rig.now_ns).end_ns == rig.now_ns


def test_a_finding_on_the_camera_is_that_of_the_flow_where_rgb_is_off():
    rig = Rig((F,))
    rig.feed(V, until=1000)
    rig.stream.set_finding(V, 'range', Finding('too dark', usable=False))
    assert rig.status(F).warning == 'too dark'
    assert rig.status(F).detail == 'derived from the camera: too dark'


@pytest.mark.parametrize(('height', 'width', 'name'), [(15, 16, 'height'), (16, 15, 'width')])
def test_frames_too_small_to_compute_flow_are_refused(height, width, name):
    spec = replace(SPEC, video=VideoSpec(height=height, width=width))
    settings = {m: InputSettings(300 * MS) for m in PAPER_MODALITIES}
    with pytest.raises(InvalidSettingError) as caught:
        SensorStream(spec, PAPER_MODALITIES, settings)
    assert str(caught.value) == (
        f'clip.video.{name} of the model is 15; expected 16 pixels or more to compute flow from '
        'the camera: set flow.source to topic, or flow.enabled to false')
    SensorStream(spec, (V, A, D), settings)
    SensorStream(spec, PAPER_MODALITIES, {**settings, F: InputSettings(300 * MS, enabled=False)})
    stream = SensorStream(spec, PAPER_MODALITIES, settings, with_topic={Modality.FLOW})
    with pytest.raises(InvalidSettingError):
        stream.configure(settings, with_topic=())
    assert stream.add(Modality.FLOW, np.zeros((9, 9, 2), np.float32), T0 * MS, T0 * MS) == ''


W = Modality('rgb_wrist')


def streaming(*modalities: Modality, hop: int, timeout: int = 800) -> SensorStream:
    spec = ClipSpec(duration=1.6, num_frames=16, video=VideoSpec(height=16, width=16))
    settings = {m: InputSettings(timeout * MS) for m in modalities}
    return SensorStream(spec, modalities, settings, hop=hop)


@pytest.mark.parametrize('offset', [None, -100_000, 100_000])
def test_a_camera_that_repeats_stamps_or_has_another_clock_stops_no_streaming_model(offset):
    stream, ends = streaming(V, W, hop=1), []
    for k in range(80):
        now_ns = (T0 + 100 * k) * MS
        stream.add(V, IMAGE, now_ns, now_ns)
        other_ns = now_ns + offset * MS if offset else min(now_ns, (T0 + 3000) * MS)
        stream.add(W, IMAGE, other_ns, now_ns)
        window = stream.window(now_ns)
        if window is not None:
            ends.append(window.end_ns)
    assert ends[-1] == now_ns
    assert ends[-20:] == [ends[-1] - 100 * MS * k for k in reversed(range(20))]


@pytest.mark.parametrize(('hop', 'delay', 'every'), [(1, 500, 1), (8, 0, 8)])
def test_windows_of_a_streaming_model_repeat_no_frame(hop, delay, every):
    """Of a second camera that is late, and of a worker that is late by most of a hop."""
    stream, windows = streaming(*((V, W) if delay else (V,)), hop=hop), []
    for k in range(80):
        now_ns = (T0 + 100 * k) * MS
        stream.add(V, IMAGE, now_ns, now_ns)
        if delay and k > 5:
            stream.add(W, IMAGE, now_ns - delay * MS, now_ns)
        window = stream.window(now_ns) if k % every == every // 2 else None
        windows += [] if window is None else [window]
    for window in windows[-5:]:
        last = window.end_ns // (100 * MS)
        for modality in window.modalities:
            stamps = [frame.stamp_ns // (100 * MS) for frame in window.samples[modality].frames]
            assert stamps == list(range(last - 15, last + 1))
    assert windows[-1].end_ns < now_ns - 300 * MS


def test_a_window_needs_as_many_modalities_as_are_requested():
    rig = Rig((V, D))
    rig.feed(V, until=1000)
    assert rig.stream.window(rig.now_ns, 2) is None
    assert rig.stream.window(rig.now_ns, 1) is not None, 'the end was not used up'


def test_an_only_input_whose_stamps_repeat_is_insufficient():
    rig = Rig((V,))
    rig.feed(V, until=1000)
    stamp_ns = rig.now_ns
    while rig.now < 1300:
        rig.now += 100
        rig.send(V, stamp_ns=stamp_ns)
    assert rig.status(V).available, 'for as long as the timeout'
    rig.now += 100
    rig.send(V, stamp_ns=stamp_ns)
    status = rig.status(V)
    assert status.state is ModalityState.INSUFFICIENT
    assert status.detail == 'its stamps repeat: the same one for 0.4 s'
    rig.feed(V, until=1500)
    assert rig.status(V).available and rig.stream.window(rig.now_ns) is not None
