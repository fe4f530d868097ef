"""Something-Something V2 in its owner's formats, made here in small."""

import json

import cv2
from karmma_ros.clip import BOX_HAND, BOX_OBJECT
from karmma_ros.data import something_else
from karmma_ros.data.something_something import (
    class_name,
    open_splits,
    read_classes,
    SomethingSomethingSettings,
)
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.modality import Modality
import numpy as np
import pytest
from torch.utils.data import DataLoader

FPS, FRAMES, WIDTH, HEIGHT = 12, 36, 64, 48
CLASSES = ('Moving part of something', 'Opening something', 'Putting something onto something',
           'Stacking number of something')
TEMPLATES = ('Moving [part] of [something]', 'Opening [something]',
             'Putting [something] onto [something]', 'Stacking [number of] [something]')
V, F, D = Modality.RGB, Modality.FLOW, Modality.DETECTIONS


def frame(number):
    """Return frame `number`, counted from 1: its grey level encodes the number."""
    return np.full((HEIGHT, WIDTH, 3), 5 * number, np.uint8)


def shown(sample):
    """Return the number of each frame of a clip."""
    frames = sample.clip.inputs[V]
    grey = (frames * np.reshape([0.229, 0.224, 0.225], (3, 1, 1, 1))
            + np.reshape([0.485, 0.456, 0.406], (3, 1, 1, 1))) * 255
    return [round(float(x)) for x in grey.mean((0, 2, 3)) / 5 + 0.25]  # codecs darken a little


def boxed(sample):
    """Return the number that the box of the object in each frame encodes."""
    rows = sample.clip.inputs[D]
    return [round(float(r[r[:, 4] == BOX_OBJECT][0, 2]) * WIDTH) if (r[:, 4] == BOX_OBJECT).any()
            else None for r in rows]


def write_video(path, frames=FRAMES, codec='VP80'):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), FPS, (WIDTH, HEIGHT))
    for number in range(1, frames + 1):
        writer.write(frame(number))
    writer.release()


def frame_boxes(video, number):
    """Annotate a frame: an object whose right edge is the number, and a hand."""
    return {'name': f'{video}/{number:04d}.jpg', 'nr_instances': 2, 'labels': [
        {'box2d': {'x1': 0, 'y1': 0, 'x2': number, 'y2': 12.0}, 'category': 'cup',
         'standard_category': '0000'},
        {'box2d': {'x1': 32, 'y1': 24, 'x2': 64.001, 'y2': 48}, 'category': 'hand',
         'standard_category': 'hand'}]}


@pytest.fixture
def root(tmp_path):
    """Return a folder as the owner's packages unpack to, with boxes for all videos but one."""
    (tmp_path / 'labels').mkdir()
    entries = [{'id': str(video), 'label': TEMPLATES[video % 4].replace('[', ''),
                'template': TEMPLATES[video % 4], 'placeholders': ['a cup']}
               for video in range(100, 112)]
    write(tmp_path, 'labels', {name: str(i) for i, name in reversed([*enumerate(CLASSES)])})
    write(tmp_path, 'train', entries[:8])
    write(tmp_path, 'validation', entries[8:])
    for video in range(100, 112):
        write_video(tmp_path / '20bn-something-something-v2' / f'{video}.webm')
    boxes = {str(video): [frame_boxes(video, number) for number in range(1, FRAMES + 1)]
             for video in range(100, 111)}
    halves = [dict(list(boxes.items())[:5]), dict(list(boxes.items())[5:])]
    (tmp_path / 'boxes').mkdir()
    for part, half in enumerate(halves, 1):
        name = f'bounding_box_smthsmth_part{part}.json'
        (tmp_path / 'boxes' / name).write_text(json.dumps(half))
    return tmp_path


def write(root, name, content):
    (root / 'labels' / f'{name}.json').write_text(json.dumps(content))


def settings(root, **changes):
    return SomethingSomethingSettings(**{'root': str(root), 'boxes': 'boxes', **changes})


def test_the_splits_are_the_official_ones(root, spec):
    splits = open_splits(settings(root), spec)
    assert splits.name == 'Something-Something V2' and splits.spec == spec
    assert splits.vocabulary.heads == {'action': CLASSES}
    assert splits.test is splits.validation
    assert [s.name for s in splits.train.segments] == [str(v) for v in range(100, 108)]
    assert [s.name for s in splits.test.segments] == [str(v) for v in range(108, 112)]
    labels = [s.labels for s in splits.train.segments]
    assert labels == [{'action': video % 4} for video in range(100, 108)]


def test_a_clip_is_from_the_centre_and_its_modalities_agree(root, spec):
    sample = open_splits(settings(root), spec).train[3]
    assert sample.clip.modalities == (V, F, D)
    for modality in (V, F, D):
        assert sample.clip.inputs[modality].shape == spec.input_shape(modality)
    # A window of 1 s in the middle of 3 s: from 1 s on, a frame each quarter of a second.
    assert shown(sample) == boxed(sample) == [13, 16, 19, 22]
    assert sample.labels == {'action': 103 % 4} and sample.index == 3
    hand = sample.clip.inputs[D][:, 0]
    assert hand == pytest.approx(np.tile([0.5, 0.5, 1, 1, BOX_HAND], (4, 1)))


def test_frames_and_boxes_agree_at_every_position_of_the_window(root, spec):
    clips = open_splits(settings(root), spec).train
    starts = set()
    for epoch in range(30):
        sample = clips.training_sample(0, epoch)
        assert shown(sample) == boxed(sample)
        starts.add(shown(sample)[0])
    assert len(starts) > 10 and min(starts) >= 1 and max(starts) <= 25


@pytest.mark.parametrize('pattern', ['{:06d}.jpg', '{:04d}.png'])
def test_extracted_frames_give_the_same(root, spec, pattern):
    for number in range(1, FRAMES + 1):
        path = root / 'frames' / '103' / pattern.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), frame(number))
    clips = open_splits(settings(root, videos='frames/{id}', frames=pattern), spec).train
    assert clips.segments[3].stop_s == FRAMES / FPS
    assert shown(clips[3]) == boxed(clips[3]) == [13, 16, 19, 22]
    for epoch in range(10):
        assert shown(clips.training_sample(3, epoch)) == boxed(clips.training_sample(3, epoch))


def test_scaled_videos_keep_their_boxes(root, spec):
    half, full = (
        open_splits(settings(root, boxes_height=height), spec).train[0].clip.inputs[D][..., :4]
        for height in (2 * HEIGHT, 0))
    assert full.any() and half * 2 == pytest.approx(full, abs=1e-4)


def test_what_was_not_recorded_has_no_source(root, spec):
    splits = open_splits(settings(root), spec)
    assert set(splits.test.segments[3].sources) == {V, F}  # video 111 has no boxes
    bare = open_splits(settings(root, boxes='', flow='none'), spec)
    assert set(bare.train.segments[0].sources) == {V}
    assert bare.train[0].clip.modalities == (V,)


@pytest.mark.parametrize('fraction', [0.25, 0.5])
def test_training_videos_can_be_reserved_for_validation(root, spec, fraction):
    def names(seed):
        splits = open_splits(settings(root, validation_fraction=fraction, seed=seed), spec)
        parts = [[s.name for s in clips.segments]
                 for clips in (splits.train, splits.validation, splits.test)]
        assert sorted(parts[0] + parts[1]) == [str(v) for v in range(100, 108)]
        assert len(parts[1]) == 8 * fraction
        assert parts[2] == [str(v) for v in range(108, 112)]
        return parts[1]
    assert names(0) == names(0)
    assert len({tuple(names(seed)) for seed in range(5)}) > 1


def test_the_older_names_of_the_annotations_are_read(root, spec):
    for name in ('labels', 'train', 'validation'):
        (root / 'labels' / f'{name}.json').rename(root / f'something-something-v2-{name}.json')
    assert len(open_splits(settings(root), spec).train) == 8
    (root / 'something-something-v2-train.json').rename(root / 'mine.json')
    assert len(open_splits(settings(root, train='mine.json'), spec).train) == 8


def test_ids_may_be_numbers(root, spec):
    write(root, 'labels', {name: i for i, name in enumerate(CLASSES)})
    assert open_splits(settings(root), spec).vocabulary.heads == {'action': CLASSES}


def test_only_the_brackets_of_a_template_go():
    assert [class_name(t) for t in TEMPLATES] == list(CLASSES)
    assert class_name('Putting [something], [something] and [something] on the table') == \
        'Putting something, something and something on the table'


@pytest.mark.filterwarnings('ignore:This process.*multi-threaded')
@pytest.mark.parametrize('start', ['fork', 'spawn'])
def test_workers_read_the_same_clips(root, spec, start):
    clips = open_splits(settings(root), spec).train
    loader = DataLoader(clips, batch_size=None, num_workers=1, multiprocessing_context=start)
    for index, sample in enumerate(loader):
        assert boxed(sample) == boxed(clips[index]) == [13, 16, 19, 22]
        assert np.array_equal(sample.clip.inputs[V], clips[index].clip.inputs[V])
    assert index == 7


def test_a_broken_video_leaves_its_boxes(root, spec):
    path = root / '20bn-something-something-v2' / '100.webm'
    path.write_bytes(path.read_bytes()[:20])
    clips = open_splits(settings(root), spec).train
    with pytest.raises(DataError, match=r'100\.webm'), pytest.warns(UserWarning, match='100'):
        clips[0]  # even the boxes need the size of the pictures
    assert any('100.webm' in path for path in clips.unreadable)


def test_a_truncated_video_is_left_out_with_a_warning(root, spec):
    path = root / '20bn-something-something-v2' / '101.webm'
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 4])
    clips = open_splits(settings(root), spec).train
    with pytest.warns(UserWarning, match=r'101\.webm'):
        sample = clips[1]
    assert sample.clip.modalities == (D,)
    assert boxed(sample) == [13, 16, 19, 22]


# -- annotations that are wrong ------------------------------------------------------------

SOMETHING_ELSE_ORDER = {name: i for i, name in enumerate(reversed(CLASSES))}


@pytest.mark.parametrize(('name', 'content', 'complaint'), [
    ('labels', SOMETHING_ELSE_ORDER, 'seems to be that of Something-Else: take the labels.json'),
    ('labels', {'Opening something': 1}, 'the ids of its 1 classes are wrong at 0'),
    ('labels', {'Opening something': 0, 'Zipping something': 200}, 'classes are wrong at 1'),
    ('labels', {'Opening something': 'first'}, 'a class id is no number'),
    ('labels', [], 'it holds no classes'),
    ('train', {'id': 1}, 'it is no list of videos'),
    ('train', [], 'it is no list of videos'),
    ('train', [{'id': '5'}], 'entry 0 has no "id" that is a number or no "template"'),
    ('train', [{'id': 'x', 'template': 'Opening [something]'}], 'entry 0 has no "id" that is a'),
    ('train', [{'id': '5', 'template': 'Eating [something]'}],
     "video 5 has the template 'Eating [something]', which is no class"),
])
def test_a_wrong_annotation_is_named(root, spec, name, content, complaint):
    write(root, name, content)
    with pytest.raises(DataError) as caught:
        open_splits(settings(root), spec)
    assert complaint in str(caught.value) and f'{name}.json' in str(caught.value)


def test_the_labels_that_something_else_ships_are_refused(tmp_path):
    order = ('Pretending to put something on a surface', 'Putting something on a surface',
             'Tilting something with something on it until it falls off')
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps({name: i for i, name in enumerate(order)}))
    assert read_classes(path) == order  # these three happen to be in order; the fourth is not
    path.write_text(json.dumps({name: i for i, name in enumerate(
        (*order, 'Lifting something with something on it'))}))
    with pytest.raises(DataError, match='seems to be that of Something-Else'):
        read_classes(path)


@pytest.mark.parametrize('name', ['labels', 'train', 'validation'])
def test_a_missing_or_broken_annotation_is_named(root, spec, name):
    path = root / 'labels' / f'{name}.json'
    path.write_text(path.read_text()[:-5])
    with pytest.raises(DataError, match=rf'{name}\.json: it is no JSON .*: download it again'):
        open_splits(settings(root), spec)
    path.unlink()
    with pytest.raises(DataError, match=rf'labels/{name}\.json or {name}\.json or .* is missing'):
        open_splits(settings(root), spec)
    with pytest.raises(DataError, match=r'mine\.json: No such file or directory'):
        open_splits(settings(root, **{name: 'mine.json'}), spec)


@pytest.mark.parametrize('folder', ['', 'nowhere'])
def test_a_missing_folder_is_named(tmp_path, spec, folder):
    with pytest.raises(DataError, match='there is no such folder: name that of Something'):
        open_splits(settings(folder and tmp_path / folder), spec)


@pytest.mark.parametrize(('changes', 'text'), [
    ({'flow': 'tvl1'}, "something_something.flow is 'tvl1'; expected computed or none"),
    ({'videos': 'films/1.webm'}, 'something_something.videos is'),
    ({'videos': '{id}/{name}.webm'}, 'something_something.videos is'),
    ({'frames': 'first.jpg'}, "something_something.frames is 'first.jpg'"),
    ({'frames': '{:06d.jpg'}, 'something_something.frames is'),
    ({'validation_fraction': 1.0}, 'something_something.validation_fraction is 1.0'),
    ({'frame_rate': 0.0}, 'something_something.frame_rate is 0.0'),
    ({'boxes_height': -1}, 'something_something.boxes_height is -1'),
])
def test_settings_out_of_range_are_named(changes, text):
    with pytest.raises(InvalidSettingError) as caught:
        SomethingSomethingSettings(**changes)
    assert text in str(caught.value)


# -- boxes in compact form -----------------------------------------------------------------

def test_boxes_are_read_once_and_again_when_they_change(root, spec, monkeypatch):
    open_splits(settings(root), spec)
    assert (root / 'boxes.arrays' / 'boxes.npy').is_file()
    calls = []
    original = something_else.json_members
    monkeypatch.setattr(something_else, 'json_members',
                        lambda *a: calls.append(a[0]) or original(*a))
    open_splits(settings(root), spec)
    assert calls == []
    path = root / 'boxes' / 'bounding_box_smthsmth_part1.json'
    path.write_text(json.dumps({'100': [frame_boxes(100, 19)]}))
    clips = open_splits(settings(root), spec).train
    assert len(calls) == 2
    assert boxed(clips[0]) == [None, None, 19, None]
    assert set(clips.segments[1].sources) == {V, F}
    elsewhere = open_splits(settings(root, cache=str(root / 'mine' / 'cache')), spec)
    assert elsewhere.train.segments[0].sources[D]
    assert (root / 'mine' / 'cache' / 'boxes.arrays').is_dir()
    assert not list(root.glob('*.partial'))
