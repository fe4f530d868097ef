"""The boxes of Something-Else as arrays on disk: all of them, in place, and read once."""

import json
import pickle

from karmma_ros.clip import BOX_HAND, BOX_OBJECT
from karmma_ros.data.something_else import annotation_files, BoxArchive, write_archive
from karmma_ros.errors import DataError
import numpy as np
import pytest

FPS, WIDTH, HEIGHT = 12, 64, 48


def frame_boxes(video, number):
    """Annotate a frame: an object whose right edge is the number, and a hand."""
    return {'name': f'{video}/{number:04d}.jpg', 'nr_instances': 2, 'labels': [
        {'box2d': {'x1': 0, 'y1': 0, 'x2': number, 'y2': 12.0}, 'category': 'cup',
         'standard_category': '0000'},
        {'box2d': {'x1': 32, 'y1': 24, 'x2': 64.001, 'y2': 48}, 'category': 'hand',
         'standard_category': 'hand'}]}


def archive_of(tmp_path, content, name='boxes.json'):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return write_archive([tmp_path / name], tmp_path / 'arrays')


def test_progress_counts_the_bytes_of_all_files(tmp_path):
    for part in (1, 2):
        content = {str(part): [frame_boxes(part, number) for number in range(1, 9)]}
        (tmp_path / f'part{part}.json').write_text(json.dumps(content))
    files, seen = annotation_files(tmp_path), []
    write_archive(files, tmp_path / 'arrays', lambda done, total: seen.append((done, total)))
    total = sum(path.stat().st_size for path in files)
    assert seen[-1] == (total, total) and seen == sorted(seen)


def test_frames_are_known_by_their_names_and_boxes_that_are_none_are_left_out(tmp_path):
    frames = [frame_boxes(7, 20), frame_boxes(7, 10)]  # in no order, with gaps
    frames[0]['labels'][0]['box2d']['x2'] = -3
    frames[1]['labels'][1]['box2d']['y1'] = float('nan')
    frames.append({'name': '7/0011.jpg', 'labels': []})
    with pytest.warns(UserWarning, match='2 boxes are not finite or have a negative size'):
        archive = archive_of(tmp_path, {'7': frames})
    track = archive.track(7, WIDTH, HEIGHT)
    times = [9.5 / FPS, 10.5 / FPS, 15 / FPS, 19.5 / FPS]
    boxes = track.boxes(times)
    assert [boxes[:, 4].tolist() for boxes in boxes] == [[BOX_OBJECT], [], [], [BOX_HAND]]
    assert archive.last_time(7) == 20 / FPS
    assert 7 in archive and 8 not in archive and len(archive) == 1
    assert [len(b) for b in archive.track(8, WIDTH, HEIGHT).boxes([0.5])] == [0]
    assert archive.last_time(8) == 0


def test_detections_come_by_score_and_may_lack_the_standard_category(tmp_path):
    frame = frame_boxes(7, 6)
    frame['labels'][0]['score'], frame['labels'][1]['score'] = 0.2, 0.9
    for label in frame['labels']:
        del label['standard_category']
    boxes, = archive_of(tmp_path, {'7': [frame]}).track(7, WIDTH, HEIGHT).boxes([5.5 / FPS])
    assert boxes[:, 4].tolist() == [BOX_HAND, BOX_OBJECT]


def test_an_archive_travels_by_name(tmp_path):
    content = {'7': [frame_boxes(7, n) for n in range(1, 30)]}
    archive = archive_of(tmp_path, content)
    assert len(pickle.dumps(archive)) < 500
    again = pickle.loads(pickle.dumps(archive))
    assert np.array_equal(again.track(7, 64, 48).rows, archive.track(7, 64, 48).rows)


@pytest.mark.parametrize(('content', 'complaint'), [
    ('{"7": [{"name": "7/0001.jpg", "lab', 'boxes.json: it is no JSON object'),
    ('not JSON', "boxes.json: it is no JSON object: '{' was expected, at character 0"),
    ({'seven': []}, "video 'seven' is no number: the format is"),
    ({'7': {'labels': []}}, 'a frame of video 7 is wrong'),
    ({'7': [{'name': '7/first.jpg', 'labels': []}]}, 'a frame of video 7 is wrong'),
    ({'7': [{'name': '7/0001.jpg'}]}, "is wrong (KeyError('labels'))"),
    ({'7': [{'name': '7/0001.jpg', 'labels': [{'box2d': {'x1': 1}, 'category': 'cup'}]}]},
     "is wrong (KeyError('y1'))"),
    ({'7': 5}, 'a frame of video 7 is wrong'),
])
def test_wrong_boxes_are_named_and_nothing_is_left_behind(tmp_path, content, complaint):
    with pytest.raises(DataError) as caught:
        archive_of(tmp_path, content)
    assert complaint in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {'boxes.json', 'arrays.lock'}


def test_folders_without_boxes_or_not_to_be_written_are_named(tmp_path):
    with pytest.raises(DataError, match=r'there are no box annotations \(\*\.json\): get those'):
        annotation_files(tmp_path)
    (tmp_path / 'arrays').mkdir()
    (tmp_path / 'arrays' / 'thesis.tex').write_text('precious')
    with pytest.raises(DataError, match='it exists and holds something else: name another'):
        archive_of(tmp_path, {})
    assert (tmp_path / 'arrays' / 'thesis.tex').is_file()
    (tmp_path / 'file').write_text('{}')
    with pytest.raises(DataError, match='it cannot be written'):
        write_archive([tmp_path / 'file'], tmp_path / 'file' / 'arrays')
    with pytest.raises(DataError, match='there is no such folder: run the command'):
        BoxArchive(tmp_path / 'none')


def test_a_damaged_archive_is_named(tmp_path):
    archive_of(tmp_path, {'7': [frame_boxes(7, 1)]})
    (tmp_path / 'arrays' / 'boxes.npy').write_bytes(b'')
    with pytest.raises(DataError, match='boxes.npy is damaged .*: delete it, and it is computed'):
        BoxArchive(tmp_path / 'arrays')
