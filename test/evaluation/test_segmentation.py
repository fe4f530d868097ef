from __future__ import annotations

from collections.abc import Sequence
import random

from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.segmentation import (
    argmax_segments,
    count_matches,
    edit_score,
    event_segments,
    iou,
    match_segments,
    OVERLAPS,
    Segment,
    SegmentCounts,
    start_delays,
)
from karmma_ros.prediction import LabelScore
from karmma_ros.stream.events import ActionEvent, Phase
import pytest

TRUTH = [Segment(0, 10, 'cut'), Segment(10, 20, 'wash'), Segment(30, 40, 'cut')]


def spelt(text: Sequence[str]) -> list[Segment]:
    """Return one segment of one second a letter."""
    return [Segment(i, i + 1, letter) for i, letter in enumerate(text)]


@pytest.mark.parametrize(('a', 'b', 'expected'), [
    ((0, 10), (0, 10), 1.0),
    ((0, 10), (5, 15), 5 / 15),
    ((0, 10), (2, 4), 0.2),
    ((0, 10), (10, 20), 0.0),
    ((0, 10), (15, 20), 0.0),
    ((3, 3), (3, 3), 0.0),
])
def test_iou(a, b, expected):
    assert iou(Segment(*a, 'x'), Segment(*b, 'x')) == pytest.approx(expected)
    assert iou(Segment(*b, 'x'), Segment(*a, 'x')) == pytest.approx(expected)


def test_counts_by_hand():
    # IoU: 8/10 with the first cut, 2/10 again with the first, the wrong label, 3/12 with the last.
    predicted = [Segment(0, 8, 'cut'), Segment(8, 10, 'cut'), Segment(10, 20, 'cut'),
                 Segment(37, 42, 'cut')]
    assert count_matches(TRUTH, predicted, 0.1) == SegmentCounts(2, 2, 1)
    assert count_matches(TRUTH, predicted, 0.25) == SegmentCounts(
        true_positives=2, false_positives=2, false_negatives=1)
    assert count_matches(TRUTH, predicted, 0.26) == SegmentCounts(1, 3, 2)
    f1 = count_matches(TRUTH, predicted, 0.25).f1
    assert f1 == pytest.approx(4 / 7)  # precision 1/2, recall 2/3


def test_a_true_segment_is_taken_by_the_first_that_reaches_it():
    predicted = [Segment(0, 4, 'cut'), Segment(4, 10, 'cut')]
    assert match_segments(TRUTH, predicted, 0.1) == [(0, 0)]
    assert match_segments(TRUTH, predicted, 0.5) == [(0, 1)]


def test_only_the_best_overlap_is_tried():
    # The second one overlaps the first cut most, which is taken; the third cut stays unfound.
    truth = [Segment(0, 10, 'cut'), Segment(10, 12, 'cut')]
    predicted = [Segment(0, 5, 'cut'), Segment(5, 11, 'cut')]
    assert match_segments(truth, predicted, 0.1) == [(0, 0)]


@pytest.mark.parametrize('overlap', OVERLAPS)
@pytest.mark.parametrize(('truth', 'predicted', 'f1', 'edit'), [
    ([], [], 1.0, 1.0),
    (TRUTH, [], 0.0, 0.0),
    ([], TRUTH, 0.0, 0.0),
    (TRUTH, TRUTH, 1.0, 1.0),
])
def test_edges(truth, predicted, f1, edit, overlap):
    assert count_matches(truth, predicted, overlap).f1 == f1
    assert edit_score(truth, predicted) == edit


def test_streams_add_up():
    parts = [count_matches(TRUTH, p, 0.5) for p in (TRUTH, [], TRUTH[:1])]
    total = sum(parts, SegmentCounts(0, 0, 0))
    assert total == SegmentCounts(4, 0, 5)
    assert total.f1 == pytest.approx(8 / 13)


@pytest.mark.parametrize(('truth', 'predicted', 'distance'), [
    ('abc', 'abc', 0),
    ('abc', 'abxbc', 2),
    ('kitten', 'sitting', 3),
    ('abcd', 'bcda', 2),
    ('ab', 'ba', 2),
])
def test_edit_score_by_hand(truth, predicted, distance):
    expected = 1 - distance / max(len(truth), len(predicted))
    assert edit_score(spelt(truth), spelt(predicted)) == pytest.approx(expected)
    assert edit_score(spelt(predicted), spelt(truth)) == pytest.approx(expected)


@pytest.mark.parametrize('seed', range(4))
def test_edit_score_of_random_orders_is_levenshtein(seed):
    rng = random.Random(seed)
    a, b = (rng.choices('xyz', k=length) for length in (60, 75))
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    assert edit_score(spelt(a), spelt(b)) == pytest.approx(1 - row[-1] / 75)


def test_edit_score_knows_no_times():
    assert edit_score(TRUTH, [Segment(90, 91, s.label) for s in TRUTH]) == 1.0


def test_delays_are_those_of_matched_segments():
    predicted = [Segment(1, 10, 'cut'), Segment(21, 25, 'wash'), Segment(28, 41, 'cut')]
    assert start_delays(TRUTH, predicted) == [1, -2]
    assert start_delays(TRUTH, predicted, announced=[4, 23, 33]) == [4, 3]
    assert start_delays(TRUTH, []) == []


def test_refuses_what_makes_no_sense():
    with pytest.raises(InvalidSettingError, match='overlap is 0; expected an IoU above 0'):
        count_matches(TRUTH, TRUTH, 0)
    with pytest.raises(InvalidSettingError, match=r"segment is \(3, 2, 'x'\); expected one that"):
        count_matches(TRUTH, [Segment(3, 2, 'x')], 0.5)
    with pytest.raises(InvalidSettingError, match='announced is 1; expected 3 times, one a seg'):
        start_delays(TRUTH, TRUTH, announced=[1.0])


def test_argmax_by_hand():
    recognitions = [(10, 'a'), (20, 'a'), (30, 'b'), (40, None), (50, 'b'), (90, 'b'), (100, 'b')]
    assert argmax_segments(recognitions, max_gap=30) == [
        (10, 25, 'a'), (25, 35, 'b'), (45, 50, 'b'), (90, 100, 'b')]
    assert argmax_segments(recognitions, max_gap=40)[2:] == [(45, 100, 'b')]


@pytest.mark.parametrize(('recognitions', 'expected'), [
    ([], []),
    ([(5, None)], []),
    ([(5, 'a')], [(5, 5, 'a')]),
    ([(5, 'a'), (95, 'b')], [(5, 5, 'a'), (95, 95, 'b')]),
    ([(5, None), (15, 'a'), (25, None)], [(10, 20, 'a')]),
])
def test_argmax_edges(recognitions, expected):
    assert argmax_segments(recognitions, max_gap=30) == expected


def test_events_that_ended_are_segments():
    verb, noun = LabelScore(0, 'cut', 0.9), LabelScore(1, 'cup', 0.8)
    events = [
        ActionEvent(Phase.STARTED, 0, verb, noun, 0.5, 10, 20, 25),
        ActionEvent(Phase.ENDED, 0, verb, noun, 0.7, 10, 60, 70),
        ActionEvent(Phase.ENDED, 1, verb, None, 0.7, 60, 80, 90)]
    assert event_segments(events) == [(10, 60, ('cut', 'cup')), (60, 80, ('cut',))]
