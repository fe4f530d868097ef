"""
EPIC-KITCHENS-100 from files in the official formats, which are made here.

KARMMA_EPIC_ANNOTATIONS may name a folder with the official ones, whose numbers are published.
"""

from __future__ import annotations

from collections import Counter
import csv
from dataclasses import replace
import os
from pathlib import Path
import pickle
import shutil
import tarfile

import cv2
import h5py
from karmma_ros.data.epic_kitchens import EpicKitchensSettings, open_splits
from karmma_ros.data.epic_kitchens.annotations import (
    divide,
    flow_stride,
    frame_rate,
    prune,
    read_annotations,
    read_vocabulary,
    seconds,
    TRAIN,
    VALIDATION,
)
from karmma_ros.data.samples import collate
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.media import (
    AudioFile,
    AudioHdf5,
    FlowFolder,
    FlowFromVideo,
    FlowTar,
    FrameFolder,
    FrameTar,
    VideoFile,
)
from karmma_ros.media.frames import frame_numbers
from karmma_ros.modality import PAPER_MODALITIES
import numpy as np
import pytest
import soundfile

V, F, A, D = PAPER_MODALITIES

HEADER = (
    'narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,'
    'start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes'
).split(',')


def row(narration_id, start, stop, verb=0, noun=2, **changes) -> dict[str, str]:
    """Return one row as it is published."""
    video = narration_id.rpartition('_')[0]
    fps = 60 if len(video) == 6 else 50
    values = [
        narration_id, video[:3], video, '00:00:00.560', start, stop,
        *(str(n) for n in frame_numbers([seconds(start), seconds(stop)], fps)),
        'take plate', 'take', str(verb), 'plate', str(noun), "['plate', 'cup']", f'[{noun}, 13]']
    return {**dict(zip(HEADER, values)), **changes}


TRAINING = [
    row('P01_01_0', '00:00:00.14', '00:00:01.37', 3, 3),
    row('P01_01_1', '00:00:00.50', '00:00:03.00', 0, 299, narration_timestamp=''),
    row('P01_102_0', '00:00:00.00', '00:00:02.00', 96, 0),
    row('P02_01_0', '00:00:01.00', '00:00:01.20', 1, 2),
    row('P02_02_0', '00:00:01.00', '00:00:01.20', 1, 2),
]
SCORING = [
    row('P01_03_0', '00:00:00.00', '00:00:01.89', 0, 2),
    row('P01_03_1', '00:00:00.20', '00:00:01.00', 0, 205, all_noun_classes='[205, 2]'),
    row('P01_03_2', '00:00:00.20', '00:00:01.00', 0, 299),
]


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    with open(path, 'w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def annotations(tmp_path) -> Path:
    folder = tmp_path / 'annotations'
    folder.mkdir()
    write_table(folder / TRAIN, TRAINING)
    write_table(folder / VALIDATION, SCORING)
    for name, key, count in (('verb_classes', 'verb', 97), ('noun_classes', 'noun', 300)):
        write_table(folder / f'EPIC_100_{name}.csv', [
            {'id': str(i), 'key': f'{key}{i}', 'instances': "['a',\n 'b']", 'category': 'x'}
            for i in range(count)])
    return folder


def write_image(path: Path, level: int, grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((32, 48) if grey else (32, 48, 3), level, np.uint8)
    assert cv2.imwrite(str(path), image)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Return frames and flow of P01_01 loose, of P01_102 in tars, a video of P01_03 and P02_01."""
    root = tmp_path_factory.mktemp('media') / 'EPIC-KITCHENS'
    for video, count in (('P01_01', 181), ('P01_102', 101)):
        flow = root / 'P01' / 'flow_frames' / video
        for number in range(1, count):
            name = f'frame_{number:010d}.jpg'
            write_image(root / 'P01' / 'rgb_frames' / video / name, number)
            for part in 'uv' if number < count // flow_stride(video) else '':
                write_image(flow / part / name, number, grey=True)
    for part in ('rgb_frames', 'flow_frames'):
        folder = root / 'P01' / part / 'P01_102'
        with tarfile.open(folder.with_suffix('.tar'), 'w') as archive:
            archive.add(folder, '.')
        shutil.rmtree(folder)
    for video in ('P01_03', 'P02_01'):
        path = root / video[:3] / 'videos' / f'{video}.MP4'
        path.parent.mkdir(parents=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 59.94, (48, 32))
        for _ in range(120):
            writer.write(np.full((32, 48, 3), 90, np.uint8))
        writer.release()
    return root


@pytest.fixture
def settings(root, annotations) -> EpicKitchensSettings:
    return EpicKitchensSettings(str(root), str(annotations))


def test_a_row_is_read_as_published(annotations):
    first, second, third, *_ = read_annotations(annotations / TRAIN)
    assert (first.narration_id, first.video_id) == ('P01_01_0', 'P01_01')
    assert (first.start_s, first.stop_s) == (0.14, 1.37)
    assert (first.verb, first.noun) == (3, 3)
    assert (second.noun, third.verb) == (299, 96)


@pytest.mark.parametrize(('text', 'wanted'), [
    ('00:00:00.00', 0), ('00:00:09.49', 9.49), ('01:02:03.5', 3723.5), ('10:00:00', 36_000)])
def test_timestamps(text, wanted):
    assert seconds(text) == pytest.approx(wanted)


@pytest.mark.parametrize('text', ['', '1.5', '00:61:00.00', '00:00:60.00', '0:0:1', 'nan',
                                  '-00:00:01.00', '00:00:01.00 '])
def test_what_is_no_timestamp(text):
    with pytest.raises(ValueError, match='expected HH:MM:SS.cc'):
        seconds(text)


def test_rates_and_strides_go_by_the_video():
    assert [(frame_rate(v), flow_stride(v)) for v in ('P01_01', 'P37_99', 'P01_101', 'P37_199')] \
        == [(60, 2), (60, 2), (50, 1), (50, 1)]


def test_pruning_goes_by_the_main_noun(annotations):
    train, scoring = (read_annotations(annotations / name) for name in (TRAIN, VALIDATION))
    assert [n.noun for n in prune(scoring, train)] == [2, 299]


@pytest.mark.parametrize(('change', 'sentence'), [
    ({'verb_class': '97'}, r"row 2 \(P01_01_1\): verb_class is '97'; expected 0 to 96"),
    ({'noun_class': '300'}, r"row 2 \(P01_01_1\): noun_class is '300'; expected 0 to 299"),
    ({'noun_class': '-1'}, "noun_class is '-1'"),
    ({'noun_class': '2.5'}, "noun_class is '2.5'"),
    ({'noun_class': ''}, "noun_class is ''"),
    ({'stop_timestamp': '00:00:00.40'},
     r'row 2 \(P01_01_1\): it stops at 00:00:00.40, before its start at 00:00:00.50'),
    ({'start_timestamp': '0.5 s'}, "a timestamp is '0.5 s'; expected HH:MM:SS.cc"),
    ({'video_id': 'P01_1001'}, "video_id is 'P01_1001'; expected PXX_YY or PXX_1YY"),
    ({'video_id': '../../P01_01'}, 'video_id is'),
    ({'narration_id': 'P01_01_0'}, "row 2: narration_id 'P01_01_0' is there twice"),
])
def test_a_wrong_row_is_named(annotations, change, sentence):
    rows = [TRAINING[0], {**TRAINING[1], **change}, *TRAINING[2:]]
    write_table(annotations / TRAIN, rows)
    with pytest.raises(DataError, match=f'{TRAIN}: .*{sentence}.*: fetch it again from https'):
        read_annotations(annotations / TRAIN)


def test_a_missing_column_is_named(annotations):
    renamed = [{{'noun_class': 'noun_id'}.get(k, k): v for k, v in r.items()} for r in TRAINING]
    write_table(annotations / TRAIN, renamed)
    with pytest.raises(DataError, match='it has no column noun_class; it has narration_id, '
                                        'participant_id, .*noun_id.*all_noun_classes'):
        read_annotations(annotations / TRAIN)


def test_the_test_split_is_refused_for_want_of_labels(annotations, settings):
    public = HEADER[:8]  # as EPIC_100_test_timestamps.csv
    write_table(annotations / VALIDATION, [{k: r[k] for k in public} for r in SCORING])
    with pytest.raises(DataError, match='it has no labels; those of the test split are not '
                                        'published: score on the pruned validation split'):
        read_annotations(annotations / VALIDATION)
    with pytest.raises(InvalidSettingError, match="split is 'test'.*cannot be scored"):
        replace(settings, split='test')


def test_files_that_are_none_are_named(annotations, tmp_path):
    with pytest.raises(DataError, match='there is no such file: fetch it from https'):
        read_annotations(tmp_path / 'gone.csv')
    (annotations / TRAIN).write_bytes(b'\xff\xfe\x00\x80\n')
    with pytest.raises(DataError, match='it is no CSV table'):
        read_annotations(annotations / TRAIN)
    (annotations / TRAIN).write_text('')
    with pytest.raises(DataError, match='it has no labels|it has no column'):
        read_annotations(annotations / TRAIN)
    (annotations / TRAIN).write_text(','.join(HEADER) + '\nP01_01_0,P01\n')
    with pytest.raises(DataError, match=r"row 1 \(P01_01_0\): video_id is ''"):
        read_annotations(annotations / TRAIN)


def test_all_classes_are_kept(annotations):
    vocabulary = read_vocabulary(annotations)
    assert vocabulary.sizes == {'verb': 97, 'noun': 300}
    assert vocabulary.heads['noun'][299] == 'noun299'


def test_the_second_noun_file_goes_on_with_other_classes(annotations):
    first = annotations / 'EPIC_100_noun_classes.csv'
    text = first.read_text() + '300,hand:left,"[]",body\n301,hand:right,"[]",body\n'
    first.unlink()
    (annotations / 'EPIC_100_noun_classes_v2.csv').write_text(text)
    assert read_vocabulary(annotations).sizes['noun'] == 300


def test_the_classes_of_another_edition_are_refused(annotations):
    path = annotations / 'EPIC_100_verb_classes.csv'
    path.write_text('\n'.join(path.read_text().split('\n')[:50]))
    with pytest.raises(DataError, match='ids are not 0 to 96 in this order: take that of EPIC'):
        read_vocabulary(annotations)
    path.write_text('verb_id,class_key\n0,take\n')
    with pytest.raises(DataError, match='it has no column id, key; it has verb_id, class_key'):
        read_vocabulary(annotations)
    path.unlink()
    with pytest.raises(DataError, match='EPIC_100_verb_classes.csv: there is no such file'):
        read_vocabulary(annotations)


def test_splits_of_the_complete_data_set(settings, spec):
    splits = open_splits(settings, spec)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (4, 2, 2)
    assert splits.train.left_out == 1  # of P02_02 there is nothing
    assert splits.name == 'EPIC-KITCHENS-100' and splits.spec == spec
    assert splits.vocabulary.sizes == {'verb': 97, 'noun': 300}
    sample = splits.train[2]
    assert sample.labels == {'verb': 96, 'noun': 0}
    for modality, values in sample.clip.inputs.items():
        assert values.shape == spec.input_shape(modality)
    batch = collate([splits.train[i] for i in range(4)], (V, F))
    assert batch.present.tolist() == [[True, True]] * 3 + [[True, False]]


def test_every_recording_is_read_from_its_layout(settings, spec):
    splits = open_splits(settings, spec)
    types = [{m: type(s) for m, s in segment.sources.items()}
             for segment in (*splits.train.segments, splits.test.segments[0])]
    assert types == [{V: FrameFolder, F: FlowFolder}, {V: FrameFolder, F: FlowFolder},
                     {V: FrameTar, F: FlowTar}, {V: VideoFile}, {V: VideoFile}]
    one, two = splits.train.segments[:2]
    assert one.sources is two.sources
    tar = splits.train.segments[2].sources
    assert (tar[V].fps, tar[F].fps, tar[F].stride) == (50, 50, 1)
    assert (one.sources[V].fps, one.sources[F].fps, one.sources[F].stride) == (60, 60, 2)


def test_the_frames_of_a_segment_are_those_of_its_rate(settings, spec):
    splits = open_splits(settings, spec)
    shown = {}
    for index in (1, 2):
        sample = splits.train[index]
        for modality in (V, F):
            norm = spec.video if modality is V else spec.flow
            red = sample.clip.inputs[modality][0, :, 8, 8]
            shown[index, modality] = (255 * (red * norm.std[0] + norm.mean[0])).round().tolist()
    # P01_01_1 lies at 0.5 .. 3 s: the window of a second begins at 1.25 s, four frames.
    rgb = [int(t * 60) for t in (1.25, 1.5, 1.75, 2.0)]
    assert shown[1, V] == pytest.approx(rgb, abs=1)
    assert shown[1, F] == pytest.approx([n // 2 for n in rgb], abs=1)
    assert shown[2, V] == shown[2, F] == pytest.approx([25, 37, 50, 62], abs=1)


def test_what_is_preferred_and_what_is_computed(settings, spec):
    computed = open_splits(replace(settings, flow='computed'), spec)
    assert isinstance(computed.train.segments[0].sources[F], FlowFromVideo)
    assert computed.test[0].clip.modalities == (V, F)
    tars = open_splits(replace(settings, rgb='tar', flow='none'), spec)
    assert [type(s.sources[V]) for s in tars.train.segments] == [FrameTar]
    assert (tars.train.left_out, len(tars.test)) == (4, 0)
    flow = open_splits(replace(settings, rgb='none'), spec)
    assert [tuple(s.sources) for s in flow.train.segments] == [(F,)] * 3


def test_audio_is_read_from_a_folder_or_a_file(settings, spec, tmp_path):
    folder = tmp_path / 'audio'
    folder.mkdir()
    tone = np.sin(np.arange(5 * 24_000) / 10).astype(np.float32)
    soundfile.write(folder / 'P02_02.wav', tone, 24_000)
    soundfile.write(folder / 'P01_01.flac', tone, 24_000)
    with h5py.File(folder / 'all.hdf5', 'w') as file:
        file['P02_02'] = file['P01_01'] = tone
    for audio, source_type in ((folder, AudioFile), (folder / 'all.hdf5', AudioHdf5)):
        splits = open_splits(replace(settings, audio=str(audio)), spec)
        assert splits.train.left_out == 0
        sources = {s.name: s.sources for s in splits.train.segments}
        assert {name: tuple(s) for name, s in sources.items()} == {
            'P01_01_0': (V, F, A), 'P01_01_1': (V, F, A), 'P01_102_0': (V, F),
            'P02_01_0': (V,), 'P02_02_0': (A,)}
        assert type(sources['P02_02_0'][A]) is source_type
        assert splits.train[4].clip.modalities == (A,)


@pytest.mark.parametrize(('change', 'error', 'sentence'), [
    ({'root': 'gone'}, DataError, 'gone: there is no such folder: correct root: .*holds P01'),
    ({'annotations': 'gone'}, DataError, 'correct annotations: the folder that holds EPIC_100'),
    ({'root': ''}, InvalidSettingError, "root is ''; expected a folder: .* holds P01"),
    ({'audio': 'gone'}, DataError, 'gone: there is no such folder: correct audio'),
    ({'audio': 'gone.hdf5'}, DataError, 'gone.hdf5: there is no such file: correct audio'),
    ({'audio': __file__}, DataError, 'there is no such folder'),
    ({'split': 'all'}, InvalidSettingError, "split is 'all'; expected epic_kitchens, "),
    ({'rgb': 'gulp'}, InvalidSettingError, "rgb is 'gulp'; expected auto, frames, tar, video"),
    ({'flow': True}, InvalidSettingError, 'flow is True; expected files, computed, none'),
    ({'seed': -1}, InvalidSettingError, 'seed is -1; expected 0 or more'),
    ({'audio_rate': 0}, InvalidSettingError, 'audio_rate is 0; expected 1 or more'),
])
def test_wrong_settings_are_named(settings, spec, change, error, sentence):
    with pytest.raises(error, match=sentence):
        open_splits(replace(settings, **change), spec)


def test_no_recording_at_all_is_an_error(settings, spec, annotations):
    with pytest.raises(DataError, match='there is no recording of any of the 5 training segments'):
        open_splits(replace(settings, root=str(annotations)), spec)


def star(settings, tmp_path, annotations) -> EpicKitchensSettings:
    """Write twenty training segments and settings for the division."""
    rows = [row(f'P01_01_{i}', '00:00:00.50', '00:00:02.00', 0, (2, 299)[i % 2])
            for i in range(20)]
    write_table(annotations / TRAIN, rows)
    return replace(settings, split='epic_kitchens_star',
                   division=str(tmp_path / 'new' / 'division.csv'))


def test_the_division_is_written_and_read_back(settings, spec, tmp_path, annotations):
    settings = star(settings, tmp_path, annotations)
    path = Path(settings.division)
    splits = open_splits(settings, spec)
    names = [{s.name for s in part.segments} for part in (splits.train, splits.validation)]
    assert [len(part) for part in names] == [18, 2] and not names[0] & names[1]
    assert {s.name for s in splits.test.segments} == {'P01_03_0', 'P01_03_2'}
    lines = path.read_text().splitlines()
    assert lines[0] == 'narration_id,split' and len(lines) == 21
    assert os.listdir(path.parent) == ['division.csv']
    again = open_splits(replace(settings, seed=99), spec)  # the file counts, not the seed
    assert {s.name for s in again.validation.segments} == names[1]
    drawn = open_splits(replace(settings, seed=99, division=''), spec)
    assert {s.name for s in drawn.validation.segments} != names[1]


def test_splits_travel_to_a_worker(settings, spec):
    clips = open_splits(settings, spec).train
    again = pickle.loads(pickle.dumps(clips))
    for index in (0, 2):
        np.testing.assert_array_equal(
            again.training_sample(index, 5).clip.inputs[V],
            clips.training_sample(index, 5).clip.inputs[V],
        )


@pytest.mark.skipif('KARMMA_EPIC_ANNOTATIONS' not in os.environ,
                    reason='KARMMA_EPIC_ANNOTATIONS names no folder')
def test_the_official_files_give_the_published_numbers():
    folder = Path(os.environ['KARMMA_EPIC_ANNOTATIONS'])
    train, scoring = (read_annotations(folder / name) for name in (TRAIN, VALIDATION))
    pruned = prune(scoring, train)
    assert (len(train), len(scoring), len(pruned)) == (67_217, 9_668, 9_644)
    kept = set(pruned)
    assert Counter(n.noun for n in scoring if n not in kept) == {
        205: 6, 240: 14, 288: 2, 295: 2}
    division = divide([n.narration_id for n in train], 0)
    assert Counter(division.values()) == {'train': 60_495, 'validation': 6_722}
    assert read_vocabulary(folder).sizes == {'verb': 97, 'noun': 300}
    with open(folder / VALIDATION, newline='') as file:
        published = [(int(r['start_frame']), int(r['stop_frame'])) for r in csv.DictReader(file)]
    assert published == [
        tuple(frame_numbers([n.start_s, n.stop_s], frame_rate(n.video_id))) for n in scoring]
