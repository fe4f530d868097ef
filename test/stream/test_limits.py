"""Coverage, freshness, clocks, hops and caches exactly at their limits."""

from __future__ import annotations

import gc
from types import SimpleNamespace
import weakref

from karmma_ros.clip import AudioSpec, BOX_HAND, ClipSpec, VideoSpec
from karmma_ros.modalities.audio_buffer import AudioBuffer, AudioChunk, SpectrogramCache
from karmma_ros.modalities.detection_buffer import DetectionBuffer
from karmma_ros.modalities.flow import FlowBuffer
from karmma_ros.modalities.frame_slots import StoredFrames
from karmma_ros.modalities.rgb import FrameBuffer
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.model.streaming import Chunks
from karmma_ros.preprocess.spectrogram import log_mel
from karmma_ros.stream.availability import ModalityState
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings, ReceiveStats, StampVerdict, Timeline
from karmma_ros.stream.token_cache import hop_for, TokenCache
import numpy as np
import pytest

V, F, A, D = PAPER_MODALITIES
MS = 1_000_000
T0 = 1_700_000_000_000
"""Milliseconds; a whole number of frames and of hops."""
SPEC = ClipSpec(duration=0.8, num_frames=8, video=VideoSpec(height=16, width=16),
                audio=AudioSpec(tiles=2, tile_steps=20, n_mels=8))
IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
BOXES = np.array([[0.1, 0.1, 0.2, 0.2, BOX_HAND]], np.float32)


def stream_of(*modalities: Modality, fraction: float = 0.5, timeout: int = 300,
              **options) -> SensorStream:
    setting = InputSettings(timeout * MS, min_coverage=fraction)
    return SensorStream(SPEC, modalities, {m: setting for m in modalities}, **options)


def send(stream: SensorStream, modality: Modality, stamp: int, now: int | None = None) -> str:
    """Send one sample; milliseconds since `T0`. Audio is of 100 ms and ends at its stamp."""
    stamp_ns, now_ns = (T0 + stamp) * MS, (T0 + (stamp if now is None else now)) * MS
    if modality is V:
        return stream.add(Modality.RGB, IMAGE, stamp_ns, now_ns)
    if modality is F:
        return stream.add(Modality.FLOW, np.ones((16, 16, 2), np.float32), stamp_ns, now_ns)
    if modality is D:
        return stream.add(Modality.DETECTIONS, BOXES, stamp_ns, now_ns)
    return stream.add(
        Modality.AUDIO,
        AudioChunk(np.full(1600, 0.5, np.float32), 16_000),
        stamp_ns - 100 * MS,
        now_ns,
    )


def fed(stream: SensorStream, *modalities: Modality, first: int = 100, last: int,
        ahead: int = 0) -> SensorStream:
    """Send a sample of each every 100 ms from `first` to `last`, stamped `ahead` of receipt."""
    for now in range(first, last + 1, 100):
        for modality in modalities:
            assert send(stream, modality, now + ahead, now) == ''
    return stream


def at(ms: int) -> int:
    return (T0 + ms) * MS


@pytest.mark.parametrize(('modality', 'fraction', 'last', 'state'), [
    (V, 2.01 / 8, 200, 3), (V, 2.0 / 8, 200, 5), (V, 2.99 / 8, 300, 5),
    (F, 2.01 / 8, 200, 3), (F, 2.99 / 8, 300, 5),
    (D, 3.01 / 8, 200, 3), (D, 3.0 / 8, 200, 5),
    (A, 3200.5 / 12_800, 200, 3), (A, 3200 / 12_800, 200, 5),
])
def test_coverage_is_rounded_up_to_samples(modality, fraction, last, state):
    stream = fed(stream_of(modality, fraction=fraction),
                 *([V] if modality is F else [modality]), last=last)
    status = stream.assess(at(last))[list(PAPER_MODALITIES).index(modality)]
    assert status.state == ModalityState(state), status.detail


def test_flow_of_a_topic_is_covered_by_its_own_frames():
    stream = fed(
        stream_of(F, fraction=2.01 / 8, with_topic={Modality.FLOW}), F, last=300
    )  # the first: a time
    assert stream.assess(at(300))[1].detail == '2 of 8 frames; it needs 3'


def test_clocks_that_differ_by_a_window_still_agree():
    stream = stream_of(V, D)
    fed(stream, V, D, last=100)
    send(stream, V, 900)
    send(stream, D, 1700, 900)
    assert stream.assess(at(900))[0].detail == '0 of 8 frames; it needs 4'
    send(stream, D, 1701, 901)
    assert stream.assess(at(901))[3].detail == (
        'its stamps are 0.801 s ahead of the others: their clocks differ')


def test_the_newest_of_clocks_that_agree_ends_the_window():
    stream = stream_of(V, D, fraction=1 / 8)
    send(stream, V, 0)
    send(stream, D, 800, 0)
    assert stream.window(at(0)).end_ns == at(800)


@pytest.mark.parametrize(('last', 'end'), [(1400, 1400), (1500, None)])
def test_a_window_one_length_back_is_of_another_clock(last, end):
    stream = stream_of(V, A, D)
    fed(stream, A, D, last=1000, ahead=1200)
    fed(stream, V, last=900)
    assert stream.window(at(1000)).end_ns == at(2200)
    fed(stream, V, first=1000, last=last)
    window = stream.window(at(last))
    assert (window and window.end_ns) == (end and at(end))


def test_the_slower_of_two_cameras_decides_the_hop():
    stream = stream_of(V, F, with_topic={Modality.FLOW}, hop=4)
    fed(stream, V, F, first=0, last=700)
    fed(stream, V, first=800, last=1100)
    assert stream.window(at(1000)).end_ns == at(800) - 1


def test_a_hop_is_complete_with_the_frame_of_its_last_slot():
    stream = stream_of(V, hop=4)
    fed(stream, V, first=0, last=600)
    assert stream.window(at(600)).end_ns == at(400) - 1
    send(stream, V, 700)
    assert stream.window(at(700)).end_ns == at(700)  # the newest sample, not the slot's end


def test_a_stale_camera_does_not_hold_the_hops_of_others():
    stream = stream_of(V, A, hop=4)
    fed(stream, V, A, first=0, last=800)
    fed(stream, A, first=900, last=1300)
    window = stream.window(at(1300))
    assert window.modalities == (A,) and window.end_ns == at(1300)


@pytest.mark.parametrize(('age', 'fresh'), [
    (300, True), (301, False), (-300, True), (-301, False)])
def test_freshness_ends_after_the_timeout_on_either_side(age, fresh):
    stats = ReceiveStats()
    stats.add(0, 1000)
    stats.drop('bad', 1000)
    assert stats.fresh(1000 + age, 300) is fresh
    assert stats.failing(1000 + age, 300) is fresh


def test_the_rate_is_that_of_the_intervals_and_the_stamp_the_newest():
    stats = ReceiveStats()
    for now, stamp in ((0, 5), (100 * MS, 9), (200 * MS, 7)):
        stats.add(stamp, now)
    assert stats.rate(200 * MS, 300 * MS) == 10 and stats.last_stamp_ns == 9
    stats.drop('bad', 200 * MS)
    stats.clear()
    assert (stats.dropped, stats.received, stats.last_stamp_ns) == (1, False, 0)
    assert not stats.failing(200 * MS, 300 * MS)


def test_a_stray_stamp_that_repeats_is_no_other_clock():
    timeline = Timeline(100)
    stamps = [(1000, 0), (5000, 10), (5000, 10), (5001, 10)]
    assert [timeline.check(stamp, stamp, now) for stamp, now in stamps] == [
        StampVerdict.ACCEPT, StampVerdict.DROP, StampVerdict.DROP, StampVerdict.RESTART]


def test_a_stamp_of_1970_is_none_before_it():
    stream = stream_of(A)
    audio = np.zeros(160, np.float32)
    assert 'expected 0 or more' in stream.add(Modality.AUDIO, AudioChunk(audio, 16_000), -1, 0)
    assert stream.add(Modality.AUDIO, AudioChunk(audio, 16_000), 1, 0) == ''


def test_slots_reach_two_frames_further_back_than_a_window():
    buffer = FrameBuffer(SPEC)
    for slot in (10, 11, 20):
        buffer.add(IMAGE, slot * 100 * MS)
    assert buffer.nbytes == 2 * 16 * 16 * 3  # 11 and 20
    assert not buffer.wants(1000 * MS) and not buffer.wants(1100 * MS)
    assert buffer.wants(1200 * MS)
    buffer.add(IMAGE, 1200 * MS)
    assert buffer.newest_ns == 2000 * MS


def speed(stamps: list[int], shown: int) -> float:
    """Return pixels a slot of messages of one pixel, in the slot of the last stamp."""
    buffer = FlowBuffer(SPEC)
    for stamp in stamps:
        buffer.add(np.full((16, 16, 2), 4.0, np.float32), stamp * MS)
    value = int(buffer.select(shown * MS)[-1].image[0, 0, 0])
    return (value - 128) / 127.5 * SPEC.flow.bound / 4.0


@pytest.mark.parametrize(('last', 'expected'), [(450, 1 / 1.5), (451, 1.0)])
def test_a_pause_above_half_as_long_again_is_dropped_messages(last, expected):
    assert speed([0, 100, 200, 300, last], last) == pytest.approx(expected, abs=0.05)


def test_the_usual_time_is_the_lower_median():
    # Gaps of 100, 100, 200 and 200: the last, 200, is over 1.5 times 100, not over 200.
    assert speed([0, 100, 200, 400, 600], 600) == pytest.approx(1.0, abs=0.05)


def audio_of(*chunks: tuple[int, int], tolerance_ns: int = 50 * MS) -> AudioBuffer:
    """Return a buffer of ones: (stamp in ns, samples), 1000 a second."""
    buffer = AudioBuffer(ClipSpec(duration=0.4, audio=AudioSpec(
        sample_rate=1000, n_fft=64, win_length=10, hop_length=5, n_mels=8)))
    for stamp_ns, count in chunks:
        buffer.add_chunk(np.ones(count, np.float32), 1000, stamp_ns, tolerance_ns)
    return buffer


@pytest.mark.parametrize(('off_ns', 'newest'), [
    (-50 * MS, 1300), (-50 * MS - 1, 1250), (50 * MS, 1300), (50 * MS + 1, 1350)])
def test_jitter_of_the_tolerance_is_laid_end_to_end_and_no_more(off_ns, newest):
    buffer = audio_of((1000 * MS, 200), (1200 * MS + off_ns, 100))
    assert buffer.newest_ns == newest * MS


def test_audio_with_an_offset_for_a_second_restarts_in_that_second():
    chunks = [(round(t * 100) * MS + (20 * MS if t else 0), 100) for t in range(11)]
    assert audio_of(*chunks).newest_ns == 1100 * MS
    assert audio_of(*chunks, (1120 * MS, 100)).newest_ns == 1220 * MS


def test_without_stamps_the_offset_may_be_larger():
    chunks = [(t * 100 * MS + (40 * MS if t else 0), 100) for t in range(16)]
    assert audio_of(*chunks, tolerance_ns=500 * MS).newest_ns == 1600 * MS
    assert audio_of(*chunks).newest_ns == 1640 * MS


def test_a_cleared_buffer_has_another_spectrogram():
    buffer = audio_of((1000 * MS, 200))
    before = buffer.spectrogram
    buffer.clear()
    assert buffer.spectrogram is not before


def detections(*stamps: int) -> DetectionBuffer:
    buffer = DetectionBuffer(SPEC)
    for stamp in stamps:
        buffer.add(BOXES, stamp * MS)
    return buffer


def test_boxes_of_the_very_end_count_and_later_ones_do_not():
    buffer = detections(700)
    assert buffer.select(700 * MS)[-1] == 0 and buffer.select(700 * MS - 1)[-1] == -1


def test_boxes_reach_one_slot_from_its_centre_at_most():
    buffer = detections(1000)
    # Slot centres of the window that ends at 1350: 650, 750, …, 1350.
    assert buffer.select(1350 * MS) == [-1, -1, -1, 0, 0, -1, -1, -1]
    assert detections(950).select(1350 * MS) == [-1, -1, 0, 0, 0, -1, -1, -1]


def test_a_slow_detector_reaches_a_quarter_of_the_window():
    buffer = detections(0, 700, 1400)
    # Slot centres are 1050, 1150, …, 1750; a quarter of the window is 200 ms.
    assert buffer.select(1750 * MS) == [-1, -1, 1, 1, 1, 1, -1, -1]


@pytest.mark.parametrize('step', [0, 5, 10, 40, 150, 195, 200, 205, 3, 7, -5, -40])
def test_the_cached_spectrogram_is_the_complete_one_at_every_column(step):
    spec = AudioSpec(sample_rate=1000, n_fft=32, win_length=15, hop_length=5, n_mels=8, tiles=2,
                     tile_steps=20)
    audio = np.random.default_rng(0).standard_normal(2000).astype(np.float32)
    cache, valid = SpectrogramCache(spec), np.ones(200, np.bool_)
    for first in (600, 600 + step, 600 + 2 * step):
        window = audio[first:first + 200]
        np.testing.assert_allclose(
            cache.log_mel(window, valid, first), log_mel(window, spec), atol=1e-4)


class Network:
    """Parts of a network that embed the value of a frame and count what they embed."""

    runs_in_parallel = False

    def __init__(self, chunks: Chunks) -> None:
        self.chunks, self.encoded = {V: chunks}, 0

    def encode_chunk(self, modality, x):
        self.encoded += x.shape[2]
        return [round(float(frame.mean()), 3) for frame in np.moveaxis(x[0], 1, 0)]

    def encode_next(self, modality, x, past, unsettled=0):
        self.encoded += x.shape[2]
        parts = [round(float(frame.mean()), 3) for frame in np.moveaxis(x[0], 1, 0)]
        return parts, (past or 0) + len(parts)

    def in_order(self, modality, parts):
        return list(parts)


def window_of(*shades: int | np.ndarray) -> SimpleNamespace:
    """Return a window of frames, each of one shade or given as it is."""
    images = [shade if isinstance(shade, np.ndarray) else np.full((16, 16, 3), shade, np.uint8)
              for shade in shades]
    frames = StoredFrames([SimpleNamespace(image=image) for image in images])
    return SimpleNamespace(spec=SPEC, modalities=(V,), samples={V: frames})


def frames(count: int) -> list[np.ndarray]:
    return [np.full((16, 16, 3), shade, np.uint8) for shade in range(count)]


def test_cached_chunks_hold_their_frames():
    """A frame that is freed gives its identity to another one."""
    cache = TokenCache(Network(Chunks(2, False, False)))
    window = window_of(*range(4))
    held = [weakref.ref(frame.image) for frame in window.samples[V].frames]
    cache.tokens(window)
    del window
    gc.collect()
    assert all(reference() is not None for reference in held)


@pytest.mark.parametrize(('skips_first', 'encoded'), [(False, 2), (True, 0)])
def test_a_chunk_is_known_by_the_frames_that_it_shows(skips_first, encoded):
    network, (a, b, c, d, other) = Network(Chunks(2, False, skips_first)), frames(5)
    cache = TokenCache(network)
    cache.tokens(window_of(a, b, c, d))
    network.encoded = 0
    cache.tokens(window_of(other, b, c, d))
    assert network.encoded == encoded
    cache.tokens(window_of(other, b, c, a))
    assert network.encoded == encoded + 2


def test_chunks_that_left_the_window_are_encoded_anew():
    network, (a, b, c, d, e, f) = Network(Chunks(2, False, False)), frames(6)
    cache = TokenCache(network)
    for shown in ((a, b, c, d), (c, d, e, f), (a, b, c, d)):
        cache.tokens(window_of(*shown))
    assert network.encoded == 4 + 2 + 2
    cache.reset()
    cache.tokens(window_of(a, b, c, d))
    assert network.encoded == 8 + 4


def test_frames_are_encoded_once_and_their_tokens_move_along():
    network, all_frames = Network(Chunks(4, True, False)), frames(20)
    cache = TokenCache(network)
    for first, new in ((0, 4), (1, 1), (3, 2), (4, 1), (4, 0), (6, 2), (10, 4), (9, 4)):
        before = network.encoded
        shown = all_frames[first:first + 4]
        tokens = cache.tokens(window_of(*shown))[V]
        assert network.encoded - before == new
        complete = TokenCache(Network(Chunks(4, True, False))).tokens(window_of(*shown))[V]
        assert tokens == complete and len(tokens) == 4
    assert cache._caches[V]._stream._past == 4  # counts anew after each jump


def test_the_first_image_of_a_window_of_flow_is_no_frame_of_its_own():
    network, (b, c, d, e, x, y) = Network(Chunks(4, True, False)), frames(6)
    cache = TokenCache(network)
    cache.tokens(window_of(x, b, c, d))
    cache.tokens(window_of(y, c, d, e))
    assert network.encoded == 4 + 1


@pytest.mark.parametrize(('rate', 'hop'), [(2.5, 4), (2.51, 2), (5, 2), (5.01, 1), (10, 1)])
def test_a_hop_that_gives_the_very_rate_is_taken(rate, hop):
    assert hop_for({V: Chunks(2, False, False)}, SPEC, rate) == hop
