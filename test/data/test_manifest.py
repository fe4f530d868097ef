"""Any data set by one CSV file: what a line gives, and which lines are refused and how."""

from dataclasses import replace
import json

import cv2
from karmma_ros.clip import BOX_HAND
from karmma_ros.data.check import check_dataset
from karmma_ros.data.manifest import ManifestSettings, open_splits
from karmma_ros.data.samples import collate
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.modalities.imu import STANDARD_GRAVITY
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.preprocess.optical_flow import NO_MOVEMENT
import numpy as np
import pytest
import soundfile

V, F, A, D = PAPER_MODALITIES
HEADER = 'split,start,stop,verb,noun,rgb,flow,audio,detections\n'
GOOD = (
    'train,0,2,stir,pan,video.mp4,computed,,',
    'train,00:00:01.50,0:02.5,cut,cup,frames,flow,audio.wav,boxes.csv',
    'validation,0,1,cut,pan,,,audio.wav,',
    'test,0.5,1.5,stir,cup,video.mp4,,,boxes.csv',
)
FPS, LENGTH = 10, 30
"""Of the video and of the frames; frame n, counted from 1, is of grey 8 n."""


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a recording of each modality."""
    video = cv2.VideoWriter(
        str(tmp_path / 'video.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), FPS, (64, 48))
    for name in ('frames', 'flow/u', 'flow/v'):
        (tmp_path / name).mkdir(parents=True)
    for number in range(1, LENGTH + 1):
        grey = np.full((48, 64, 3), 8 * number, np.uint8)
        video.write(grey)
        cv2.imwrite(str(tmp_path / 'frames' / f'{number:06d}.jpg'), grey)
        for part, value in (('u', NO_MOVEMENT + number), ('v', NO_MOVEMENT - number)):
            cv2.imwrite(str(tmp_path / 'flow' / part / f'{number:06d}.jpg'),
                        np.full((48, 64), value, np.uint8))
    video.release()
    tone = np.sin(2 * np.pi * 440 * np.arange(3 * 22_050) / 22_050).astype(np.float32)
    soundfile.write(tmp_path / 'audio.wav', tone, 22_050)
    rows = [f'{i / 10},{i / 100},0,1,1,hand' for i in range(30)]
    (tmp_path / 'boxes.csv').write_text('\n'.join(['time,x1,y1,x2,y2,category', *rows]) + '\n')
    return tmp_path


def manifest(folder, *lines, header=HEADER):
    path = folder / 'manifest.csv'
    path.write_text(header + '\n'.join(lines) + '\n', encoding='utf-8')
    return path


def opened(folder, spec, *lines, header=HEADER, **changes):
    path = manifest(folder, *lines, header=header)
    settings = {'file': str(path), 'frame_rate': float(FPS), **changes}
    return open_splits(ManifestSettings(**settings), spec)


def greys(frames):
    """Return the frame numbers that normalised frames `[3, t, h, w]` show."""
    return [round((float(x) * 0.229 + 0.485) * 255 / 8 + 0.2) for x in frames[0].mean((1, 2))]


def test_the_splits_hold_their_lines(folder, spec):
    splits = opened(folder, spec, *GOOD)
    assert splits.name == 'manifest' and splits.spec == spec
    assert splits.vocabulary.heads == {'verb': ('cut', 'stir'), 'noun': ('cup', 'pan')}
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [2, 1, 1]
    first, second = splits.train.segments
    assert (first.start_s, first.stop_s, first.labels) == (0, 2, {'verb': 1, 'noun': 1})
    assert (second.start_s, second.stop_s, second.labels) == (1.5, 2.5, {'verb': 0, 'noun': 0})
    assert [s.name for s in splits.train.segments] == ['line 2', 'line 3']
    assert [set(s.sources) for s in splits.train.segments] == [{V, F}, {V, F, A, D}]
    assert set(splits.validation.segments[0].sources) == {A}
    assert opened(folder, spec, *GOOD, title='My kitchen').name == 'My kitchen'


def test_every_type_of_file_is_read_at_the_right_time(folder, spec):
    splits = opened(folder, spec, *GOOD)
    clip = splits.train[1].clip  # 1.5 s to 2.5 s, a frame each quarter of a second
    assert clip.modalities == (V, F, A, D)
    for modality in PAPER_MODALITIES:
        assert clip.inputs[modality].shape == spec.input_shape(modality)
    assert greys(clip.inputs[V]) == [16, 18, 21, 23]
    u, v = ((clip.inputs[F][c].mean((1, 2)) * std + mean) * 255 - NO_MOVEMENT
            for c, mean, std in ((0, 0.485, 0.229), (1, 0.456, 0.224)))
    assert u == pytest.approx([16, 18, 21, 23], abs=1) and v == pytest.approx(-u, abs=2)
    assert clip.inputs[D][:, 0, 0] == pytest.approx([0.15, 0.17, 0.2, 0.22], abs=0.011)
    assert (clip.inputs[D][:, 0, 4] == BOX_HAND).all()
    assert clip.inputs[A].std() > 0
    assert greys(splits.test[0].clip.inputs[V]) == [6, 8, 11, 13]


def test_flow_is_computed_for_cells_with_computed(folder, spec):
    clip = opened(folder, spec, *GOOD).train[0].clip
    assert clip.inputs[F].shape == spec.input_shape(F)


def test_samples_of_different_sensors_make_a_batch(folder, spec):
    splits = opened(folder, spec, *GOOD)
    batch = collate([splits.train[0], splits.train[1], splits.validation[0]], PAPER_MODALITIES)
    assert batch.present.tolist() == [
        [True, True, False, False], [True] * 4, [False, False, True, False]]


def test_lines_of_one_video_have_the_same_source(folder, spec):
    lines = [f'train,{i},{i + 1},stir,cup,video.mp4,computed,,' for i in (0, 1)]
    first, second = opened(folder, spec, *lines, GOOD[3]).train.segments
    assert first.sources[V] is second.sources[V] is second.sources[F].video


@pytest.mark.parametrize(('rest', 'same'), [('test', 'validation'), ('validation', 'test')])
def test_a_split_without_lines_is_the_other_one(folder, spec, rest, same):
    splits = opened(folder, spec, GOOD[0], f'{rest},0,1,stir,pan,video.mp4,,,')
    assert splits.validation is splits.test and len(splits.test) == 1, same


def test_columns_may_be_few_and_of_any_order_with_names_and_other_heads(folder, spec):
    splits = opened(
        folder, spec, 'audio.wav,open,2,1,train,one', 'audio.wav,open,3,1,test,two',
        header='audio,action,stop,start,split,name\n', heads=('action',))
    assert splits.vocabulary.heads == {'action': ('open',)}
    assert [s.name for s in splits.train.segments] == ['one']
    assert splits.test[0].clip.modalities == (A,)


FOLDS = 'split,fold,start,stop,verb,noun,audio\n'
FOLDED = ('train,anna,0,2,stir,pan,audio.wav', 'train,ben,0,2,cut,pan,audio.wav',
          'train,anna,1,2,cut,cup,', 'train,ben,1,2,cut,cup,audio.wav',
          'test,,0,1,cut,pan,audio.wav')


def test_the_clips_know_their_folds_and_one_may_validate(folder, spec):
    splits = opened(folder, spec, *FOLDED, header=FOLDS)
    assert splits.folds == ('anna', 'ben', 'ben')  # a line without any file is no clip
    held = opened(folder, spec, *FOLDED, header=FOLDS, held_out_fold='anna')
    assert held.folds == ('ben', 'ben')
    assert [s.start_s for s in held.validation.segments] == [0]
    assert len(held.test) == 1 and held.vocabulary == splits.vocabulary


@pytest.mark.parametrize(('lines', 'fold', 'complaint'), [
    (FOLDED, 'carl', "held_out_fold is 'carl'; expected one of several folds of training lines, "
     'here anna, ben'),
    (FOLDED[1:2] + FOLDED[3:], 'ben', "is 'ben'; expected one of several"),
    ((*FOLDED, 'train,,0,1,cut,pan,audio.wav'), '', 'line 7: fold is empty, though other'),
    (('train,,0,1,cut,pan,audio.wav', *FOLDED), '', 'line 2: fold is empty, though other'),
])
def test_wrong_folds_are_named(folder, spec, lines, fold, complaint):
    with pytest.raises(DataError, match=complaint):
        opened(folder, spec, *lines, header=FOLDS, held_out_fold=fold)


def test_the_classes_may_come_from_a_file_in_its_order(folder, spec):
    classes = {'noun': ['pan', 'lid', 'cup'], 'verb': ['stir', 'cut', 'wash']}
    (folder / 'classes.json').write_text(json.dumps(classes))
    splits = opened(folder, spec, *GOOD, classes=str(folder / 'classes.json'))
    assert splits.vocabulary.heads == {
        'verb': ('stir', 'cut', 'wash'), 'noun': ('pan', 'lid', 'cup')}
    assert splits.train.segments[1].labels == {'verb': 1, 'noun': 2}


def test_the_background_class_is_named(folder, spec):
    assert opened(folder, spec, *GOOD, background='cut').vocabulary.background == 'cut'
    with pytest.raises(InvalidSettingError, match="background is 'idle'; expected a class"):
        opened(folder, spec, *GOOD, background='idle')


def test_a_line_without_any_file_is_left_out(folder, spec):
    splits = opened(folder, spec, *GOOD, 'train,0,1,cut,cup,,,,')
    assert len(splits.train) == 2 and splits.train.left_out == 1


def test_a_truncated_video_is_missing_from_its_sample(folder, spec):
    content = (folder / 'video.mp4').read_bytes()
    (folder / 'video.mp4').write_bytes(content[:len(content) // 3])
    splits = opened(folder, spec, *GOOD)
    with pytest.warns(UserWarning, match=r'video\.mp4.*segment line 5, rgb'):
        assert splits.test[0].clip.modalities == (D,)


@pytest.mark.parametrize(('change', 'encoding'), [
    (lambda text: text.replace(',', ';').replace('0.5', '0,5').replace('02.5', '02,5'), 'utf-8'),
    (lambda text: text.replace(',', '\t'), 'utf-16'),
    (lambda text: text.replace(HEADER, HEADER.title()), 'utf-8-sig'),
    (lambda text: '\n'.join(f'{i or ""},{line}' for i, line in enumerate(text.splitlines())),
     'utf-8'),
])
def test_a_manifest_may_come_from_any_spreadsheet(folder, spec, change, encoding):
    plain = opened(folder, spec, *GOOD)
    path = folder / 'manifest.csv'
    path.write_text(change(path.read_text()), encoding=encoding)
    splits = open_splits(ManifestSettings(file=str(path), frame_rate=float(FPS)), spec)
    assert splits.vocabulary == plain.vocabulary
    for split in ('train', 'validation', 'test'):
        assert getattr(splits, split).segments == getattr(plain, split).segments


# -- time series, depth and several of a type ----------------------------------------------

IMU, DEPTH, SKELETON = Modality('imu'), Modality('depth'), Modality('skeleton')
ALL_HEADER = 'split,start,stop,verb,noun,imu,Depth,skeleton,rgb_wrist,flow_wrist\n'
ALL_LINES = (
    'train,0.5,2.5,stir,pan,imu.csv,depth,skeleton.npy,video.mp4,computed',
    'train,0,2,cut,cup,,,skeleton.npy,,',
    'test,0.5,2.5,stir,pan,imu.csv,,,video.mp4,',
)
SETTINGS = {
    'rates': {'skeleton': 30.0, 'depth': float(FPS)},
    'scale': {'imu': [STANDARD_GRAVITY] * 3 + [np.pi / 180] * 3},
}


@pytest.fixture
def recorded(folder):
    """Return the folder with an inertial sensor in g and °/s, joints and depth beside the rest."""
    times = np.arange(0, 3, 0.01)
    lines = [f'{t:.2f},{t / 10:.4f},0,1,0,0,{100 * t:.4f}' for t in times]
    (folder / 'imu.csv').write_text('\n'.join(['time,ax,ay,az,gx,gy,gz', *lines]))
    joints = np.random.default_rng(3).random((90, 5, 3)).astype(np.float32)
    np.save(folder / 'skeleton.npy', joints)
    (folder / 'depth').mkdir()
    for number in range(1, LENGTH + 1):
        image = np.full((48, 64), 1000 + 100 * number, np.uint16)
        image[:, 32:] += 200
        cv2.imwrite(str(folder / 'depth' / f'{number:06d}.png'), image)
    return folder


@pytest.fixture
def wide(spec):
    return replace(spec, inputs={
        'imu': {'samples': 20, 'lengths': False}, 'depth': {'height': 8, 'width': 8},
        'skeleton': {'samples': 16, 'joints': 5, 'dimensions': 3},
        'rgb_wrist': {'height': 20, 'width': 24}})


def test_a_column_may_be_any_modality(recorded, wide):
    splits = opened(recorded, wide, *ALL_LINES, header=ALL_HEADER, **SETTINGS)
    sample = splits.train[0]
    names = ['flow_wrist', 'imu', 'depth', 'skeleton', 'rgb_wrist']
    assert {str(m) for m in sample.clip.inputs} == set(names)
    for modality, x in sample.clip.inputs.items():
        assert x.shape == wide.input_shape(modality) and np.isfinite(x).all()
    assert sample.clip.inputs[Modality('rgb_wrist')].shape == (3, 4, 20, 24)
    assert greys(sample.clip.inputs[Modality('rgb_wrist')]) == [11, 13, 16, 18]
    assert set(splits.train[1].clip.inputs) == {SKELETON}
    assert splits.train.segments[0].sources[Modality('flow_wrist')].video is \
        splits.train.segments[0].sources[Modality('rgb_wrist')]


def test_series_and_depth_are_those_of_the_window(recorded, wide):
    clip = opened(recorded, wide, *ALL_LINES, header=ALL_HEADER, **SETTINGS).train[0].clip
    x = clip.inputs[IMU]  # 1.0 s to 2.0 s: the centre of 0.5 s to 2.5 s
    at = 1.0 + (np.arange(20) + 0.5) / 20
    assert x[0] == pytest.approx(at / 10, abs=1e-3)
    assert x[2] == pytest.approx(np.ones(20), abs=1e-5)
    assert x[5] == pytest.approx(np.radians(100 * at) / 2, abs=1e-2)
    # Depth is relative to the window: 2.1 m to 2.8 m on the left, 0.2 m more on the right.
    relative = clip.inputs[DEPTH][1]
    assert (relative[:, :, 7] - relative[:, :, 0]) == pytest.approx(0.2 / 0.25, abs=0.02)
    assert np.diff(relative[:, 0, 0]) == pytest.approx(
        np.array([0.2, 0.3, 0.2]) / 0.25, abs=0.03)


def test_what_is_wrong_with_a_series_is_named(recorded, wide):
    with pytest.raises(DataError, match=r"line 2: skeleton is 'skeleton.npy'; expected the rate "
                       r'of its samples: set manifest\.rates\.skeleton'):
        opened(recorded, wide, *ALL_LINES, header=ALL_HEADER)
    with pytest.raises(DataError, match=r"line 2: imu is 'video.mp4'; expected a time series"):
        opened(recorded, wide, ALL_LINES[0].replace('imu.csv', 'video.mp4'),
               header=ALL_HEADER, **SETTINGS)
    with pytest.raises(DataError, match=r"line 2: depth is 'video.mp4'; expected the unit"):
        opened(recorded, wide, ALL_LINES[0].replace(',depth,', ',video.mp4,'),
               header=ALL_HEADER, **SETTINGS)
    with pytest.raises(DataError, match=r"flow_wrist is 'computed'; expected a folder where the "
                       'cell of rgb_wrist is empty'):
        opened(recorded, wide, 'train,0,1,cut,cup,,,,,computed', header=ALL_HEADER, **SETTINGS)


@pytest.mark.parametrize(('fields', 'columns', 'chosen'), [
    (['position'], 'elbow,grip,wrist', [2, 0]),
    (['velocity', 'position'], 'wrist.position,elbow.velocity,wrist.velocity,elbow.position',
     [2, 1, 0, 3]),
])
def test_joints_are_chosen_by_their_names(folder, spec, fields, columns, chosen):
    names = columns.split(',')
    lines = [','.join(map(str, (t / 10, *range(len(names))))) for t in range(30)]
    (folder / 'joints.csv').write_text('\n'.join([f'time,{columns}', *lines]))
    clip = replace(spec, inputs={
        'joint_state': {'names': ['wrist', 'elbow'], 'fields': fields, 'samples': 4}})
    splits = opened(folder, clip, 'train,0,2,cut,cup,joints.csv', 'test,0,2,cut,cup,joints.csv',
                    header='split,start,stop,verb,noun,joint_state\n')
    x = splits.train[0].clip.inputs[Modality('joint_state')]
    assert x.tolist() == [[float(each)] * 4 for each in chosen]


def test_a_damaged_series_is_missing_from_its_sample(recorded, wide):
    path = recorded / 'imu.csv'
    path.write_text(path.read_text().replace('1.50,0.1500', '1.50,'))
    splits = opened(recorded, wide, *ALL_LINES, header=ALL_HEADER, **SETTINGS)
    with pytest.warns(UserWarning, match=r"imu.csv: line 152: ax is ''; expected a number"):
        assert IMU not in splits.train[0].clip.inputs


def test_the_check_reads_series_and_depth(recorded, wide):
    splits = opened(recorded, wide, *ALL_LINES, header=ALL_HEADER, **SETTINGS)
    report = check_dataset(splits, decode=2)
    assert report.intact
    counts = report.splits['train'].modalities
    assert {str(m): c.decoded for m, c in counts.items()} == {
        'rgb_wrist': 1, 'flow_wrist': 1, 'imu': 1, 'depth': 1, 'skeleton': 2}
    (recorded / 'imu.csv').write_text('a,b\n1,2\n')
    counts = check_dataset(splits).splits['train'].modalities[IMU]
    assert counts.missing == 1 and "the column 'time' is missing" in counts.examples[0]


# -- lines that are wrong ------------------------------------------------------------------

@pytest.mark.parametrize(('line', 'complaint'), [
    ('tests,0,1,cut,cup,video.mp4,,,', "line 6: split is 'tests'; expected train, validation, te"),
    ('train,x,1,cut,cup,video.mp4,,,', "line 6: start is 'x'; expected seconds from 0 on, or HH:"),
    ('train,-1,1,cut,cup,video.mp4,,,', "line 6: start is '-1'"),
    ('train,0,1:2:3:4,cut,cup,video.mp4,,,', "line 6: stop is '1:2:3:4'"),
    ('train,0,nan,cut,cup,video.mp4,,,', "line 6: stop is 'nan'"),
    ('train,0,,cut,cup,video.mp4,,,', "line 6: stop is ''"),
    ('train,2,1,cut,cup,video.mp4,,,', "line 6: stop is '1'; expected later than start, 2"),
    ('train,0,1,,cup,video.mp4,,,', "line 6: verb is ''; expected the name of a class"),
    ('train,0,1,cut,cup', 'line 6: it has fewer cells than there are columns'),
    ('train,0,1,cut,cup,video.mp4,,,,more', 'line 6: it has more cells than there are columns'),
    ('train,0,1,cut,cup,,computed,,', "line 6: flow is 'computed'; expected a folder where the"),
    ('train,0,1,cut,cup,,,video.mp4,', "line 6: audio is 'video.mp4'; expected an audio file (wav,"
     ' flac): extract it with `ffmpeg -i video.mp4 -vn -ac 1 -af aresample=async=1:first_p'
     'ts=0 video.wav`'),
    ('train,0,1,cut,cup,http://127.0.0.1/a.mp4,,,', "line 6: rgb is 'http://127.0.0.1/a.mp4'; ex"
     'pected a local file or folder: URLs are not fetched: download it'),
    ('train,0,1,cut,cup,,,tcp:127.0.0.1:9,', "line 6: audio is 'tcp:127.0.0.1:9'; expected a lo"),
    ('test,0,1,chop,cup,video.mp4,,,', "line 6: verb is 'chop', which is no class: no training"),
    ('validation,0,1,cut,spoon,video.mp4,,,', "line 6: noun is 'spoon', which is no class"),
])
def test_a_wrong_line_is_named(folder, spec, line, complaint):
    with pytest.raises(DataError) as caught:
        opened(folder, spec, *GOOD, line)
    assert complaint in str(caught.value) and 'manifest.csv' in str(caught.value)


def test_lines_are_counted_as_an_editor_counts_them(folder, spec):
    with pytest.raises(DataError, match=r"line 4: split is 'wrong'"):
        opened(folder, spec, 'train,0,1,"a verb\nof two lines",cup,video.mp4,,,',
               'wrong,0,1,cut,cup,video.mp4,,,')


@pytest.mark.parametrize(
    ('header', 'complaint'),
    [
        (
            HEADER.replace('audio', 'adio'),
            "line 1: the column 'adio' is unknown: expected columns are ",
        ),
        (HEADER.replace('split,', ''), "line 1: the column 'split' is missing"),
        (HEADER.replace('verb', 'name'), "line 1: the column 'verb' is missing"),
        (HEADER.replace('flow', 'rgb'), "line 1: the column 'rgb' is there twice"),
        (
            'split,start,stop,verb,noun\n',
            'line 1: no sensor has a column: add at least one of rgb',
        ),
        ('', "line 1: the column 'train' is unknown"),
    ],
)
def test_wrong_columns_are_named(folder, spec, header, complaint):
    with pytest.raises(DataError) as caught:
        opened(folder, spec, *GOOD, header=header)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(('lines', 'complaint'), [
    (GOOD[:2], 'no line is of split test: training and scoring need one each'),
    (GOOD[2:], 'no line is of split train: training'),
    ((), 'no line is of split test: training'),
    (('train,0,2,cut,pan,,,,', GOOD[2]), 'no line of split train names a recording: fill in'),
])
def test_a_manifest_without_a_split_is_refused(folder, spec, lines, complaint):
    with pytest.raises(DataError) as caught:
        opened(folder, spec, *lines)
    assert complaint in str(caught.value)


def test_a_manifest_that_is_none_is_named(tmp_path, spec):
    with pytest.raises(DataError, match=r'there is no manifest: name one with manifest\.file'):
        open_splits(ManifestSettings(), spec)
    with pytest.raises(DataError, match=r'none\.csv: No such file or directory'):
        open_splits(ManifestSettings(file=str(tmp_path / 'none.csv')), spec)
    (tmp_path / 'video.csv').write_bytes(b'\xff\xd8\xff\x00')
    with pytest.raises(DataError, match=r'video\.csv: it is no CSV file .*: save it as CSV'):
        open_splits(ManifestSettings(file=str(tmp_path / 'video.csv')), spec)


@pytest.mark.parametrize(('content', 'complaint'), [
    ('{"verb": ["cut"', 'it is no JSON'),
    ('[]', 'its heads are not verb, noun'),
    ('{"verb": ["cut"]}', 'its heads are not verb, noun: it must be {"verb": ["cut", …]'),
    ('{"verb": ["cut"], "noun": {"pan": 0}}', 'noun is no list of names'),
    ('{"verb": ["cut", 3], "noun": ["pan"]}', 'verb is no list of names'),
    ('{"verb": ["cut", "cut"], "noun": ["pan"]}', 'verb is empty or has a name twice'),
    ('{"verb": [], "noun": ["pan"]}', 'verb is empty or has a name twice'),
    ('{"verb": ["stir"], "noun": ["pan", "cup"]}', "line 3: verb is 'cut', which is no class"),
])
def test_wrong_files_of_classes_are_named(folder, spec, content, complaint):
    (folder / 'classes.json').write_text(content)
    with pytest.raises(DataError) as caught:
        opened(folder, spec, *GOOD, classes=str(folder / 'classes.json'))
    assert complaint in str(caught.value)


@pytest.mark.parametrize(('changes', 'text'), [
    ({'heads': ()}, 'manifest.heads is ()'),
    ({'heads': ('rgb',)}, "manifest.heads is ('rgb',); expected one or more names, none of"),
    ({'frame_rate': 0.0}, 'manifest.frame_rate is 0.0; expected a number above 0'),
    ({'detections_rate': -1.0}, 'manifest.detections_rate is -1.0'),
    ({'frames': 'one.jpg'}, "manifest.frames is 'one.jpg'"),
])
def test_settings_out_of_range_are_named(changes, text):
    with pytest.raises(InvalidSettingError) as caught:
        ManifestSettings(**changes)
    assert text in str(caught.value)
