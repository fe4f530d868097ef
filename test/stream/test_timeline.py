from __future__ import annotations

from karmma_ros.stream.source import StampVerdict, Timeline
import pytest

SPAN = 100


def verdicts(*samples: tuple[int, int]) -> list[StampVerdict]:
    """Judge (stamp, now) pairs on one timeline."""
    timeline = Timeline(SPAN)
    return [timeline.check(stamp, stamp, now) for stamp, now in samples]


@pytest.mark.parametrize(('stamp', 'now', 'verdict'), [
    (1010, 10, StampVerdict.ACCEPT),
    (1000, 10, StampVerdict.ACCEPT),
    (900, 10, StampVerdict.ACCEPT),
    (899, 10, StampVerdict.DROP),
    (1110, 10, StampVerdict.ACCEPT),
    (1111, 10, StampVerdict.DROP),
    (1600, 500, StampVerdict.ACCEPT),
    (1601, 500, StampVerdict.DROP),
    (1101, -500, StampVerdict.DROP),
])
def test_second_sample_is_held_against_the_first(stamp, now, verdict):
    assert verdicts((1000, 0), (stamp, now)) == [StampVerdict.ACCEPT, verdict]


def test_one_outlier_is_dropped_and_discarded():
    assert verdicts((1000, 0), (5000, 1), (1010, 10), (6000, 11), (1020, 20)) == [
        StampVerdict.ACCEPT,
        StampVerdict.DROP,
        StampVerdict.ACCEPT,
        StampVerdict.DROP,
        StampVerdict.ACCEPT,
    ]


@pytest.mark.parametrize('far', [50_000, 10])
def test_two_in_a_row_that_agree_are_a_jump(far):
    assert verdicts((1000, 0), (far, 10), (far + 10, 20), (far + 20, 30), (1030, 40)) == [
        StampVerdict.ACCEPT,
        StampVerdict.DROP,
        StampVerdict.RESTART,
        StampVerdict.ACCEPT,
        StampVerdict.DROP,
    ]


def test_two_in_a_row_that_disagree_are_two_accidents():
    assert verdicts((1000, 0), (50_000, 10), (90_000, 20), (1030, 30)) == [
        StampVerdict.ACCEPT, StampVerdict.DROP, StampVerdict.DROP, StampVerdict.ACCEPT]


def test_a_repeated_stray_stamp_proves_nothing():
    assert verdicts((1000, 0), (50_000, 10), (50_000, 20)) == [
        StampVerdict.ACCEPT,
        StampVerdict.DROP,
        StampVerdict.DROP,
    ]


def test_a_first_stamp_that_was_wrong_is_overcome():
    assert verdicts((10 ** 18, 0), (1000, 10), (1010, 20), (1020, 30)) == [
        StampVerdict.ACCEPT, StampVerdict.DROP, StampVerdict.RESTART, StampVerdict.ACCEPT]


def test_long_chunks_follow_each_other():
    timeline = Timeline(SPAN)
    for i in range(4):
        assert timeline.check(1000 * i, 1000 * (i + 1), 0) is StampVerdict.ACCEPT


def test_mismatch_reports_how_far_off_it_is():
    timeline = Timeline(2_000_000_000)
    timeline.check(10_000_000_000, 10_000_000_000, 0)
    assert timeline.mismatch(13_500_000_000) == (
        'stamp: got 3.500 s ahead of the newest sample; expected within 2 s')
    assert 'got 4.000 s behind the newest' in timeline.mismatch(6_000_000_000)
