"""Boxes by time: the nearest frame within half a period, from arrays and from a CSV file."""

from karmma_ros.clip import BOX_HAND, BOX_OBJECT
from karmma_ros.errors import DataError
from karmma_ros.media.boxes import BoxFile, BoxTrack, read_boxes
from karmma_ros.preprocess.box_array import check_boxes
import numpy as np
import pytest

HEADER = 'time,x1,y1,x2,y2,category\n'


def row(x1, category=BOX_OBJECT):
    return np.array([x1, 0, 1, 1, category], np.float32)


def firsts(track, times):
    """Return the left edges of the boxes at each time."""
    return [[round(float(x), 3) for x in boxes[:, 0]] for boxes in track.boxes(times)]


def test_the_nearest_frame_counts_within_half_a_period():
    track = BoxTrack.of_rows(np.array([1.0, 1.1, 1.1, 1.3]), np.stack(
        [row(0.1), row(0.2), row(0.3), row(0.4)]), period_s=0.1)
    assert firsts(track, [0.949, 0.951, 1.04, 1.06, 1.149, 1.151, 1.249, 1.251, 1.35, 1.36, 9]) \
        == [[], [0.1], [0.1], [0.2, 0.3], [0.2, 0.3], [], [], [0.4], [0.4], [], []]
    assert track.problem() is None


def test_half_a_period_is_within_reach_however_times_are_rounded():
    times = np.arange(100) / 12
    track = BoxTrack.of_rows(times, np.stack([row(i / 100) for i in range(100)]), 1 / 12)
    halves = [(i + 0.5) / 12 for i in range(99)]
    assert all(len(boxes) == 1 for boxes in firsts(track, halves))


def test_rows_come_in_any_order_and_those_of_a_frame_keep_theirs():
    track = BoxTrack.of_rows(
        np.array([2.0, 1.0, 2.0, 1.0]), np.stack([row(0.4), row(0.1), row(0.3), row(0.2)]))
    assert track.period_s == 1.0
    assert firsts(track, [1.0, 2.0]) == [[0.1, 0.2], [0.4, 0.3]]


def test_the_period_is_the_median_and_of_one_frame_a_second():
    times = np.array([0, 0.5, 1.0, 1.5, 9.0])
    assert BoxTrack.of_rows(times, np.stack([row(0)] * 5)).period_s == 0.5
    assert BoxTrack.of_rows(times[:1], row(0)[None]).period_s == 1.0


def test_a_track_without_boxes_gives_none():
    track = BoxTrack.of_rows(np.zeros(0), np.zeros((0, 5), np.float32))
    assert [boxes.shape for boxes in track.boxes([0.0, 1.0])] == [(0, 5), (0, 5)]


def test_a_file_of_boxes(tmp_path):
    path = tmp_path / 'boxes.csv'
    path.write_text('category,time,x1,y1,x2,y2\nHand,0.5,0.1,0.2,0.3,0.4\n'
                    'object,0.5,0.5,0,1,1\nobject,0.75,0,0,1,1\n')
    source = BoxFile(path)
    assert source.problem() is None
    boxes = source.boxes([0.5, 0.7, 2.0])
    assert boxes[0] == pytest.approx(
        np.array([[0.1, 0.2, 0.3, 0.4, BOX_HAND], [0.5, 0, 1, 1, BOX_OBJECT]]))
    assert [len(boxes) for boxes in boxes] == [2, 1, 0]
    for boxes in boxes:
        check_boxes(boxes)


def test_the_rate_that_is_given_counts(tmp_path):
    path = tmp_path / 'boxes.csv'
    path.write_text(HEADER + '0.5,0,0,1,1,hand\n1.5,0,0,1,1,hand\n')
    assert [len(b) for b in BoxFile(path).boxes([0.9])] == [1]
    assert [len(b) for b in BoxFile(path, 0.1).boxes([0.9])] == [0]


def test_a_file_with_a_heading_alone_holds_no_boxes(tmp_path):
    path = tmp_path / 'boxes.csv'
    path.write_text(HEADER)
    assert [len(boxes) for boxes in BoxFile(path).boxes([0.0])] == [0]


@pytest.mark.parametrize(('text', 'complaint'), [
    ('', 'its columns are missing: they must be time, x1'),
    ('time,left\n1,2\n', 'its columns are time, left: they must be time, x1'),
    (HEADER + '1,0,0,1,1,hand\n1,x,0,1,1,hand\n', "line 3: x1 is 'x': it must be a number"),
    (HEADER + '1,0,0,1\n', 'line 2: y2 is None: it must be a number'),
    (HEADER + '1,0,0,1,1,foot\n', "line 2: category is 'foot': it must be hand or object"),
    (HEADER + '1,0,0,640,1,hand\n', 'line 2: boxes: got a coordinate of 640; expected 0 to 1'),
    (HEADER + '1,0.5,0,0.4,1,hand\n', 'line 2: boxes: got corners (0.5, 0), (0.4, 1)'),
    (HEADER + '1,nan,0,0.4,1,hand\n', 'line 2: boxes: got NaN'),
    (HEADER + 'inf,0,0,0.4,1,hand\n', "line 2: time is 'inf': give seconds"),
])
def test_a_wrong_file_is_named_with_the_line(tmp_path, text, complaint):
    path = tmp_path / 'boxes.csv'
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_boxes(path)
    assert complaint in str(caught.value) and 'boxes.csv' in str(caught.value)


def test_a_missing_file_is_reported_by_both_methods(tmp_path):
    source = BoxFile(tmp_path / 'none.csv')
    assert source.problem() == f'{tmp_path / "none.csv"}: there is no such file'
    with pytest.raises(DataError, match=r'none\.csv: No such file'):
        source.boxes([0.0])
    (tmp_path / 'film.csv').write_bytes(b'\xff\xd8\x00')
    with pytest.raises(DataError, match='it is no CSV file'):
        read_boxes(tmp_path / 'film.csv')
