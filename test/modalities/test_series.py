"""The resampling of timed vectors, their buffer, their coverage and the check of their rate."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.media.sources import SharedFrames, SourceOptions
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.rate_check import RateCheck
from karmma_ros.modalities.series import Series, SeriesBuffer
from karmma_ros.modalities.vector import VectorSpec
from karmma_ros.modality import Modality
from karmma_ros.preprocess.time_series import covered_slots, resample_series
import numpy as np
import pytest

MS = 1_000_000
SPEC = ClipSpec(duration=0.8, num_frames=8)
"""Slots of 100 ms; a quarter of the window is 200 ms."""


def resampled(times_ms, values, samples=8):
    values = np.array(values, np.float32).reshape(len(times_ms), -1)
    return resample_series(np.array(times_ms, np.int64) * MS, values, 800 * MS, samples)


def test_a_line_is_a_line_at_the_centres_of_equal_parts():
    times = np.arange(-900, 1, 90)
    np.testing.assert_allclose(resampled(times, times)[0], np.arange(-750, 0, 100), rtol=1e-6)


def test_before_the_first_and_after_the_last_vector_values_are_held():
    # By hand: 6 up to -500 ms, 2 from -400 ms on.
    np.testing.assert_allclose(resampled([-500, -400], [6, 2], 8)[0], [6, 6, 6, 4, 2, 2, 2, 2])


def test_across_a_gap_the_earlier_value_is_held():
    across = resampled([-800, -600, -200, 0], [0, 2, 10, 12])[0]
    np.testing.assert_allclose(across, [.5, 1.5, 2, 2, 2, 2, 10.5, 11.5])


def test_a_vector_shortly_before_the_window_counts_and_an_older_one_does_not():
    assert resampled([-900, -700], [0, 2])[0][0] == pytest.approx(1.5)
    assert resampled([-1001, -700], [0, 2])[0][0] == 2


def test_what_comes_after_the_end_makes_no_difference():
    np.testing.assert_array_equal(
        resampled([-400, -100, 50, 100], [1, 2, 99, 99]), resampled([-400, -100], [1, 2]))


def test_what_is_faster_than_the_samples_does_not_alias():
    times = np.arange(-799, 1)
    hum = 100 * np.sin(2 * np.pi * times / 8)  # 125 Hz, sampled at 10 Hz
    assert np.abs(resampled(times, hum)).max() < 3


def test_channels_are_interpolated_each_over_what_was_measured():
    series = resampled([-400, -300, -200], [[1, 5], [np.nan, 6], [3, 7]], 8)
    np.testing.assert_allclose(series[0], [1, 1, 1, 1, 1.5, 2.5, 3, 3])
    np.testing.assert_allclose(series[1], [5, 5, 5, 5, 5.5, 6.5, 7, 7])
    assert np.isnan(resampled([-400, -300], [[np.nan], [np.nan]])).all()


@pytest.mark.parametrize(('times', 'values'), [([], np.zeros((0, 2))), ([-5000], [[1, 2]]),
                                               ([10], [[1, 2]])])
def test_a_window_without_a_vector_is_an_error(times, values):
    with pytest.raises(InvalidSampleError, match='got no vector in the window'):
        resample_series(np.array(times, np.int64) * MS, np.array(values, np.float32), 800 * MS, 8)


def slots(*times_ms):
    return ''.join('.#'[int(x)] for x in covered_slots(
        np.array(times_ms, np.int64) * MS, 800 * MS, 8))


@pytest.mark.parametrize(('times', 'expected'), [
    (range(-790, 1, 10), '########'),
    (range(-790, -399, 10), '#####...'),  # cut: one slot is near
    ((), '........'), ((-50,), '......##'),
    (range(-800, 1, 200), '########'),  # slow, within a quarter of the window
    ((-800, -600, -200, 0), '###..###'),  # what is held does not count
    ((-800, 0), '#......#')])
def test_slots_with_a_vector_near_are_covered(times, expected):
    assert slots(*times) == expected


def filled(*stamps_ms, samples=8):
    buffer = SeriesBuffer(SPEC, 2, samples)
    for stamp in stamps_ms:
        buffer.add(np.array([stamp, -stamp], np.float32), stamp * MS)
    return buffer


def test_vectors_in_any_order_once_each():
    buffer = filled(1250, 1050, 1150, 1150)
    assert buffer.newest_ns == 1250 * MS
    window = buffer.window(1250 * MS)
    assert window.values.tolist() == [[1050, -1050], [1150, -1150], [1250, -1250]]
    assert window.span_ns == (1050 * MS, 1250 * MS)
    assert window.arrays().times_ns.tolist() == [-200 * MS, -100 * MS, 0]


def test_the_first_of_a_stamp_stays():
    buffer = filled(1000)
    buffer.add(np.array([7, 7], np.float32), 1000 * MS)
    assert buffer.window(1000 * MS).values.tolist() == [[1000, -1000]]


def test_a_stored_vector_is_not_the_message_s():
    buffer, vector = SeriesBuffer(SPEC, 2, 8), np.ones(2, np.float32)
    buffer.add(vector, 5 * MS)
    vector[:] = 9
    assert buffer.window(5 * MS).values.tolist() == [[1, 1]]


def test_memory_is_bounded_at_any_rate():
    buffer = filled(*range(0, 5000, 1))
    assert buffer.nbytes == 64 * 8 * 2 * 4
    slow = filled(*range(0, 500_000, 100), samples=10_000)
    assert slow.nbytes <= 14 * 2 * 4


def test_coverage_counts_slots_and_messages():
    coverage = filled(*range(1000, 1401, 10)).coverage(1400 * MS)
    assert (coverage.samples, coverage.covered, coverage.total) == (41, 5, 8)
    assert coverage.shortfall(6) == '5 of 8 slots with samples; it needs 6'
    assert filled().coverage(0).covered == filled(10).coverage(None).covered == 0


def test_what_may_be_missing_counts_where_it_is_seen_least():
    buffer = SeriesBuffer(SPEC, 4, 8, 2, 'joint')
    for stamp in range(1000, 1801, 50):
        second = np.nan if stamp > 1200 else 1.0
        buffer.add(np.array([1, 1, second, second], np.float32), stamp * MS)
    assert buffer.coverage(1800 * MS).shortfall(4) == (
        '3 of 8 slots with joint 1, which is seen least; it needs 4')


@pytest.mark.parametrize('vector', [
    np.zeros(3, np.float32), np.zeros(2), np.array([1, np.nan], np.float32),
    np.array([1, np.inf], np.float32), [1.0, 2.0]])
def test_refuses_bad_vectors_and_is_unchanged(vector):
    buffer = filled(50)
    with pytest.raises(InvalidSampleError):
        buffer.times_ns(vector, 150 * MS, 0)
    with pytest.raises(InvalidSampleError):
        buffer.add(vector, 150 * MS)
    assert buffer.newest_ns == 50 * MS


def test_cleared_buffer_has_nothing():
    buffer = filled(50, 150)
    buffer.clear()
    assert buffer.newest_ns is None and buffer.nbytes == 0
    assert buffer.coverage(150 * MS).covered == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=200), st.integers(0, 150))
def test_a_stream_gives_what_the_recording_gives(stamps, later):
    """Whatever the order of messages, the input is that of all vectors at once."""
    buffer = filled(*stamps, samples=64)
    end = max(stamps) + later
    kept = np.array(stamps, np.int64)
    recording = Series((kept - end) * MS, np.stack([kept, -kept], 1).astype(np.float32))
    live = buffer.window(end * MS).arrays()
    np.testing.assert_array_equal(*(
        resample_series(each.times_ns, each.values, 800 * MS, 64)
        for each in (live, recording)))


def test_seconds_give_the_same_series():
    series = Series.from_seconds([1.0, 1.5, 2.0], [[1], [2], [3]], 2.0)
    assert series.times_ns.tolist() == [-NANOSECONDS, -NANOSECONDS // 2, 0]
    assert series.values.dtype == np.float32


def checked(*rates, samples=64, seconds=4):
    """Return the check after so many seconds at each rate."""
    check, now_ns = RateCheck(), NANOSECONDS
    for rate in rates:
        for _ in range(round(seconds * rate)):
            now_ns += round(NANOSECONDS / rate)
            check.update(now_ns, samples, 2.0)
    return check


def test_a_file_gives_what_a_stream_gives(tmp_path):
    vector = modality_type(Modality('vector'))
    clip = replace(SPEC, inputs={'vector': VectorSpec(samples=16, size=2)})
    rng = np.random.default_rng(4)
    times_ms = np.cumsum(rng.integers(1, 60, 120))
    values = rng.random((120, 2)).astype(np.float32)
    buffer = vector.buffer(clip)
    for time_ms, value in zip(times_ms, values):
        buffer.add(value, int(time_ms) * MS)
    path = tmp_path / 'touch.csv'
    path.write_text('\n'.join(['time,left,right', *(
        f'{t / 1000},{a},{b}' for t, (a, b) in zip(times_ms, values))]))
    source = vector.open_source(path, SourceOptions(clip=clip))
    end_ms = int(times_ms[-1])
    window = vector.read_window(source, end_ms / 1000 - clip.duration, clip, SharedFrames())
    np.testing.assert_array_equal(
        vector.prepare(window, clip),
        vector.prepare(buffer.window(end_ms * MS).arrays(), clip))


def test_a_constant_rate_is_no_finding():
    for rate in (10, 50, 400, 1000):
        check = checked(rate)
        assert check.rate is None and check.change is None


def test_jitter_pauses_and_late_messages_are_no_finding():
    rng, check, now_ns = np.random.default_rng(0), RateCheck(), 0
    for i in range(2000):
        now_ns += round(rng.uniform(5, 15) * MS) + (3 * NANOSECONDS if i % 300 == 299 else 0)
        check.update(now_ns - (25 * MS if i % 50 == 0 else 0), 64, 2.0)
        assert check.rate is None and check.change is None


def test_a_rate_that_changes_is_reported_until_it_is_the_first_again():
    assert checked(50, 25).change.text == (
        '25 messages a second, 50 before: they are resampled; set a constant rate in the driver')
    assert checked(50, 25).change.usable
    assert checked(50, 25, 50).change is None


def test_a_rate_too_low_for_the_samples_is_reported():
    finding = checked(5, samples=128, seconds=10).rate
    assert finding.text == (
        '5 messages a second, expected 16 or more for the 128 samples of a 2 s window: raise the '
        'rate of the driver')


def test_a_rate_above_what_is_stored_is_reported():
    assert 'of which a window can hold 205: lower the rate' in checked(400, samples=8).rate.text


@pytest.mark.parametrize(('fields', 'text'), [
    ({'samples': 0}, 'clip.inputs.vector.samples is 0; expected an integer from 1'),
    ({'samples': 2.5}, 'clip.inputs.vector.samples is 2.5'),
    ({'size': -1}, 'clip.inputs.vector.size is -1'),
    ({'size': 2, 'mean': (1.0,)}, 'expected empty, or a number for each of 2 channels'),
    ({'size': 1, 'std': (0.0,)}, 'clip.inputs.vector.std is (0.0,); expected numbers above 0'),
    ({'size': 1, 'mean': (float('nan'),)}, 'clip.inputs.vector.mean')])
def test_a_field_out_of_range_is_named(fields, text):
    with pytest.raises(InvalidSettingError) as error:
        VectorSpec(**fields)
    assert text in str(error.value)


def test_vectors_without_stamps_that_are_received_together_are_all_stored():
    buffer = SeriesBuffer(SPEC, 1, 64)
    for i in range(30):  # a clock of 10 Hz and three messages in each of its steps
        buffer.add(np.array([i], np.float32), (1000 + i // 3 * 100) * MS, stamped=False)
    assert buffer.newest_ns == 1900 * MS + 2
    assert buffer.window(1900 * MS + 2).values[:, 0].tolist()[-24:] == list(range(6, 30))
