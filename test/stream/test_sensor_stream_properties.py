"""
Whatever the sensors send: no exception, bounded memory, exact shapes, true states.

The specifications are small, with audio at 1 kHz: slots of 100 ms in a window of 400 ms, slots of
125 ms in one of 750 ms. Timeouts, coverage and hops differ from example to example.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import event, given, settings
from hypothesis import strategies as st
from karmma_ros.clip import AudioSpec, BOX_OBJECT, ClipSpec, DetectionSpec, VideoSpec
from karmma_ros.modalities.audio_buffer import AudioChunk
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.stream.availability import ModalityState
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
import numpy as np

V, F, A, D = PAPER_MODALITIES
MS = 1_000_000
TIMEOUT = 250
SPEC = ClipSpec(
    duration=0.4, num_frames=4, video=VideoSpec(height=16, width=16),
    audio=AudioSpec(sample_rate=1000, n_fft=64, win_length=10, hop_length=5, n_mels=4, tiles=2,
                    tile_steps=9),
    detections=DetectionSpec(max_boxes=2))
LONG = ClipSpec(
    duration=0.75, num_frames=6, video=VideoSpec(height=16, width=24),
    audio=AudioSpec(sample_rate=1000, n_fft=32, win_length=20, hop_length=8, n_mels=3, tiles=3,
                    tile_steps=7),
    detections=DetectionSpec(max_boxes=3))
SETTINGS = {m: InputSettings(TIMEOUT * MS) for m in PAPER_MODALITIES}

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)
AUDIO = np.random.default_rng(1).uniform(-1, 1, 5000).astype(np.float32)
FLOWS = np.random.default_rng(2).normal(0, 9, (7, 20, 24, 2)).astype(np.float32)
FRESH = (ModalityState.INSUFFICIENT, ModalityState.AVAILABLE)

elapsed = st.sampled_from([0, 0, 1, 20, 50, 100, 100, 240, 260, 1000, -30, -5000])
offsets = st.one_of(
    st.integers(-60, 60), st.sampled_from([-250, -1000, 300, 2000, 10 ** 9, -10 ** 8]),
    st.none())
"""Milliseconds from receipt to stamp; None is a stamp of zero."""
cases = st.sampled_from(['image', 'image', 'flow', 'flow', 'audio', 'audio', 'boxes', 'boxes',
                         'bad', 'reject', 'clear', 'settings', 'check', 'check', 'check'])


def most_bytes(spec: ClipSpec, hop: int = 0) -> int:
    """Return the memory of all frames, flows, audio with its mask and boxes."""
    t, size = spec.num_frames, spec.video.height * spec.video.width
    t += hop + t if hop else 0  # for windows that end a hop and a late camera earlier
    return ((t + 2) * size * (3 + 2) + (spec.audio_samples + spec.audio.sample_rate // 2) * 5
            + 16 * t * spec.detections.max_boxes * 5 * 4)


@dataclass
class Player:
    """Drive a stream and check each result against what must always be true."""

    flow_topic: bool
    spec: ClipSpec = SPEC
    hop: int = 0
    timeouts: tuple[int, ...] = (TIMEOUT,) * 4
    """Of each modality, milliseconds."""
    fraction: float = 0.5
    stream: SensorStream = field(init=False)
    now: int = 1_000_000
    last_good: dict[Modality, int] = field(default_factory=dict)
    last_bad: dict[Modality, int] = field(default_factory=dict)
    dropped: dict[Modality, int] = field(default_factory=dict)
    last_end: int | None = None
    changed: bool = False
    """Something was sent since the last window."""
    off: frozenset[Modality] = frozenset()

    def __post_init__(self) -> None:
        self.stream = SensorStream(
            self.spec, PAPER_MODALITIES, self.settings(), [F] if self.flow_topic else [], self.hop)

    def settings(self) -> dict[Modality, InputSettings]:
        return {m: InputSettings(timeout * MS, m not in self.off, self.fraction)
                for m, timeout in zip(PAPER_MODALITIES, self.timeouts)}

    def timeout(self, modality: Modality) -> int:
        """Return the timeout of what serves a modality: that of RGB before flow's."""
        source = self.source(modality)
        served = [m for m in PAPER_MODALITIES if self.source(m) is source and m not in self.off]
        return self.timeouts[list(PAPER_MODALITIES).index(served[0])]

    def source(self, modality: Modality) -> Modality:
        return V if modality is F and not self.flow_topic else modality

    def play(self, case: str, stamp: int, size: int) -> None:
        stamp_ns, now_ns = stamp * MS, self.now * MS
        stream = self.stream
        if case == 'image':
            wanted = stream.wants(Modality.RGB, stamp_ns, now_ns)
            image = IMAGES[size % 7]
            self._note(V, stream.add(Modality.RGB, image, stamp_ns, now_ns) if wanted else '')
        elif case == 'flow':
            wanted = stream.wants(Modality.FLOW, stamp_ns, now_ns)
            self._note(
                F, stream.add(Modality.FLOW, FLOWS[size % 7], stamp_ns, now_ns) if wanted else ''
            )
        elif case == 'audio':
            rate = 2000 if size % 5 == 0 else 1000
            self._note(
                A, stream.add(Modality.AUDIO, AudioChunk(AUDIO[:size], rate), stamp_ns, now_ns)
            )
        elif case == 'boxes':
            boxes = np.full((size % 4, 5), [0.1, 0.2, 0.3, 0.4, BOX_OBJECT], np.float32)
            self._note(D, stream.add(Modality.DETECTIONS, boxes, stamp_ns, now_ns))
        elif case == 'bad':
            self._note(V, stream.add(Modality.RGB, IMAGES[0, :, :, 0], stamp_ns, now_ns))
            self._note(F, stream.add(Modality.FLOW, FLOWS[0, :, :, 0], stamp_ns, now_ns))
            self._note(A, stream.add(Modality.AUDIO, AudioChunk(AUDIO[:9], -1), stamp_ns, now_ns))
            self._note(D, stream.add(Modality.DETECTIONS, AUDIO[:5], stamp_ns, now_ns))
        elif case == 'reject':
            stream.reject(A, 'mp3', now_ns)
            self._note(A, 'mp3')
        elif case == 'settings':
            self._switch(size)
        elif case == 'clear':
            stream.clear()
            self.last_good, self.last_bad, self.last_end = {}, {}, None
        self.changed |= case != 'check'

    def end(self) -> None:
        assert self.stream.nbytes <= most_bytes(self.spec, self.hop)
        self._check_states()
        self._check_window()

    def _switch(self, number: int) -> None:
        """Switch some modalities off, others on; what nothing uses is discarded."""
        self.off = frozenset(m for i, m in enumerate(PAPER_MODALITIES) if number >> i & 1)
        self.stream.configure(self.settings())
        for source in set(PAPER_MODALITIES) - self._sources():
            self.last_good.pop(source, None)
            self.last_bad.pop(source, None)

    def _sources(self) -> set[Modality]:
        return {self.source(m) for m in PAPER_MODALITIES if m not in self.off}

    def _note(self, modality: Modality, reason: str) -> None:
        if modality not in self._sources():
            assert not reason or 'nothing uses' in reason or reason == 'mp3'
            return
        book = self.last_bad if reason else self.last_good
        book[modality] = self.now
        self.dropped[modality] = self.dropped.get(modality, 0) + bool(reason)

    def _check_states(self) -> None:
        statuses = self.stream.assess(self.now * MS)
        assert [s.modality for s in statuses] == list(PAPER_MODALITIES)
        for status in statuses:
            source = self.source(status.modality)
            if status.modality in self.off:
                assert status.state is ModalityState.DISABLED
                continue
            good, bad = self.last_good.get(source), self.last_bad.get(source)
            timeout = self.timeout(status.modality)
            if good is not None and abs(self.now - good) <= timeout:
                assert status.state in FRESH
            elif bad is not None and abs(self.now - bad) <= timeout:
                assert status.state is ModalityState.INVALID
            elif good is None:
                assert status.state is ModalityState.NEVER_RECEIVED
            else:
                assert status.state is ModalityState.STALE
            assert status.age_ns == (-1 if good is None else max(0, self.now - good) * MS)
            assert status.dropped == self.dropped.get(source, 0)
            assert (status.detail == '') == status.available
            assert np.isfinite(status.rate) and status.rate >= 0
            assert 0 <= status.num_samples <= (
                self.spec.audio_samples if source is A else 16 * self.spec.num_frames)

    def _check_window(self) -> None:
        statuses = self.stream.assess(self.now * MS)
        window = self.stream.window(self.now * MS)
        assert self.stream.window(self.now * MS) is None
        if window is None:
            return
        if self.last_end is not None:
            # Without news only inputs of another clock can take over, when one falls silent.
            leap = window.end_ns - self.last_end
            assert leap > 0 or leap <= -self.spec.duration_ns
            # With hops a camera that goes stale lets the others continue, without a new frame.
            assert self.changed or abs(leap) >= self.spec.duration_ns or self.hop
        self.last_end, self.changed = window.end_ns, False
        assert window.statuses == statuses or self.hop  # assessed at the end of the hop
        assert window.modalities == tuple(
            s.modality for s in window.statuses if s.available) != ()
        assert not self.off & set(window.modalities)
        assert window.start_ns == window.end_ns - self.spec.duration_ns
        assert set(window.spans_ns) == set(window.modalities)
        for oldest_ns, newest_ns in window.spans_ns.values():
            assert oldest_ns <= newest_ns <= window.end_ns + MS
        clip = window.clip()
        assert clip.modalities == window.modalities
        for modality, array in clip.inputs.items():
            assert array.shape == self.spec.input_shape(modality)
            assert array.dtype == np.float32 and np.isfinite(array).all()
        event(f'window of {len(window.modalities)}')


players = st.builds(
    Player, st.booleans(), st.sampled_from([SPEC, LONG]), st.sampled_from([0, 0, 1, 2]),
    st.tuples(*[st.sampled_from([TIMEOUT, 30, 2000])] * 4), st.sampled_from([0.5, 0.01, 0.7, 1.0]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(cases, elapsed, offsets, st.integers(1, 3000)), max_size=60),
       players)
def test_nothing_the_sensors_send_breaks_the_stream(messages, player):
    for case, step, offset, size in messages:
        player.now = max(0, player.now + step)
        stamp = 0 if offset is None else player.now + offset
        player.play(case, stamp, size)
        player.end()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_streams_under_disturbance(data):
    """Regular sensors with jitter, cuts, swaps and jumps: most calls return a window."""
    player = data.draw(players)
    shift = 0
    for _ in range(data.draw(st.integers(1, 40))):
        player.now += 50
        shift += data.draw(st.sampled_from([0] * 20 + [-3000, 10_000]))
        for case in data.draw(st.sampled_from([
                ('image', 'flow', 'audio', 'boxes'), ('image', 'flow', 'audio', 'boxes'),
                ('audio', 'boxes'), ('image', 'boxes'), ('flow', 'audio'), ('image',), ()])):
            jitter = data.draw(st.integers(-20, 20))
            player.play(case, player.now + shift + jitter, 50)
        player.end()


slots = st.integers(0, 30)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(slots, st.integers(0, 99)), min_size=1, max_size=25),
       st.sampled_from([SPEC, LONG]), st.sampled_from([0.5, 0.3, 0.6, 1.0]))
def test_frames_of_any_order_against_a_table_of_slots(stamps, spec, fraction):
    """Within one timeline RGB is available exactly when enough of the slots were filled."""
    stream = SensorStream(spec, [V], {V: InputSettings(TIMEOUT * MS, min_coverage=fraction)})
    t, period, duration = (spec.num_frames, spec.frame_period_ns // MS, spec.duration_ns // MS)
    table: dict[int, int] = {}
    newest = previous = 0
    for i, (slot, within) in enumerate(stamps):
        # Receipt runs far enough ahead for no stamp to be a jump forward.
        now, stamp = 10_000 * (i + 1), 100_000 + slot * period + within
        if table and (stamp < newest - duration or stamp == previous):
            continue  # a jump back, or a stamp that repeats
        previous = stamp
        stream.add(Modality.RGB, IMAGES[0], stamp * MS, now * MS)
        newest = max(newest, stamp)
        if not table or slot > max(table) - t - 2:
            table.setdefault(slot, stamp)
        end = max(table)
        own = [table[s] for s in range(end - t + 1, end + 1) if s in table]
        status = stream.assess(now * MS)[0]
        assert status.num_samples == len(own)
        assert status.available == (len(own) >= fraction * t - 1e-9)
        window = stream.window(now * MS)
        if window is not None:
            shown = [frame.stamp_ns // MS for frame in window.samples[V].frames]
            assert len(shown) == t and shown == sorted(shown)
            assert set(own) <= set(shown) <= set(table.values())
            assert window.end_ns == table[end] * MS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-45, 45), st.integers(10, 120)), min_size=1, max_size=40),
       st.sampled_from([SPEC, LONG]))
def test_jittered_audio_is_never_torn(chunks, spec):
    """Stamps that jitter by less than the tolerance leave no hole and change no sample."""
    stream, n = SensorStream(spec, [A], {A: SETTINGS[A]}), spec.audio_samples
    start = sent = 0
    for i, (jitter, size) in enumerate(chunks):
        if sent + size > len(AUDIO):
            break
        # Were every stamp of a second late, audio would have been dropped.
        stamp = 500_000 + start + (jitter if i % 4 else min(jitter, 0) if i else 0)
        now = 500_000 + start + size
        assert (
            stream.add(
                Modality.AUDIO, AudioChunk(AUDIO[sent : sent + size], 1000), stamp * MS, now * MS
            )
            == ''
        )
        start, sent = start + size, sent + size
        # A window ends with a whole column of the spectrogram.
        used = sent - (500_000 + sent) % spec.audio.hop_length
        status = stream.assess(now * MS)[2]
        assert status.num_samples == min(used, n)
        window = stream.window(now * MS)
        if window is not None:
            valid = AUDIO[max(0, used - n):used]
            np.testing.assert_array_equal(window.samples[A].samples[n - len(valid):], valid)
            np.testing.assert_array_equal(window.samples[A].samples[:n - len(valid)], 0)
