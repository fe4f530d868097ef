"""Clips that are extracted from labelled bags are those of the node; labels are checked."""

from dataclasses import replace

from karmma_ros.bags.metadata import find_files
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.replay import Replay, Run
from karmma_ros.bags.topics import choose_topics
from karmma_ros.bags.training_clips import extract_recordings, find_bags, window_ends
from karmma_ros.cli.main import main
from karmma_ros.cli.open_data import open_data
from karmma_ros.clip import NANOSECONDS
from karmma_ros.data.datasets import clips_digest, DataSettings, open_splits
from karmma_ros.data.labels.label_file import ActionLabel, write_label_file
from karmma_ros.data.recordings import BagSettings
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.errors import BagError, DataError, InvalidSettingError
from karmma_ros.modality import PAPER_MODALITIES
from karmma_ros.stream.settings import node_parameters
import numpy as np
import pytest

SPEC = replace(clip_spec(), num_frames=4, video=replace(clip_spec().video, height=24, width=24))
BREAD, CUP = {'verb': 'cut', 'noun': 'bread'}, {'verb': 'wash', 'noun': 'cup'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return a folder with two bags of 8 s."""
    folder = tmp_path_factory.mktemp('bags')
    for seed, name in enumerate(('monday', 'tuesday')):
        words = ['--episodes', '2', '--seconds', '4', '--size', '32x24', '--seed', str(seed)]
        assert main(['bag', 'synthetic', str(folder / f'{name}.mcap'), *words]) == 0
    return folder


@pytest.fixture
def settings(folder, tmp_path):
    """Return settings with labels of both bags."""
    return labelled(folder, tmp_path, [
        ActionLabel('monday', 0.0, 4.0, BREAD), ActionLabel('monday', 4.5, 5.5, CUP),
        ActionLabel('tuesday', 1.0, 4.0, CUP)])


def labelled(folder, tmp_path, labels, **changes):
    path = tmp_path / 'labels.csv'
    write_label_file(path, labels)
    return BagSettings((str(folder),), str(path), **changes)


def opened(settings, cache, recordings=None):
    extracted = recordings or extract_recordings(settings, SPEC, cache)
    return open_splits(DataSettings('bags', bags=settings), SPEC, cache, recordings=extracted)


def test_clips_are_those_that_the_node_makes(settings, folder, tmp_path):
    splits = opened(settings, tmp_path)
    with Bag(folder / 'monday.mcap') as bag:
        values = node_parameters()
        choice = choose_topics(bag, {}, PAPER_MODALITIES, spec=SPEC)
        replay = Replay(bag, choice, SPEC, PAPER_MODALITIES, values, [Run()])
        clips = {r.window.end_ns: r.window.clip() for r in replay.windows()}
        start_ns = bag.start_ns
    for epoch, end_ns in enumerate(window_ends(
            start_ns, start_ns + 4 * NANOSECONDS, SPEC.duration_ns, 5)):
        first = next(clips[end] for end in sorted(clips) if end >= end_ns)
        clip = splits.train.training_sample(0, epoch).clip
        assert clip.modalities == first.modalities == PAPER_MODALITIES
        for modality in PAPER_MODALITIES:
            assert np.array_equal(clip.inputs[modality], first.inputs[modality])


def test_splits_classes_and_epochs(settings, tmp_path):
    splits = opened(settings, tmp_path)
    assert splits.vocabulary.heads == {'verb': ('cut', 'wash'), 'noun': ('bread', 'cup')}
    assert (len(splits.train), len(splits.validation)) == (2, 1)
    assert splits.validation is splits.test or len(splits.test) == 1
    assert splits.train[0].labels == {'verb': 0, 'noun': 0}
    assert splits.validation[0].labels == {'verb': 1, 'noun': 1}
    different = {splits.train.training_sample(0, e).clip.inputs['audio'].tobytes()
                 for e in range(10)}
    assert len(different) == 5
    # A segment that is shorter than the window has one.
    assert np.array_equal(splits.train.training_sample(1, 0).clip.inputs['audio'],
                          splits.train.training_sample(1, 3).clip.inputs['audio'])


def test_they_are_extracted_once_and_again_when_the_labels_move(settings, folder, tmp_path):
    seen = []
    first = extract_recordings(
        settings, SPEC, tmp_path, lambda task, done, total: seen.append(task))
    assert set(seen) == {'extracting monday.mcap', 'extracting tuesday.mcap'}
    seen.clear()
    assert extract_recordings(settings, SPEC, tmp_path, lambda *words: seen.append(words)) == first
    assert not seen
    digest = clips_digest(opened(settings, tmp_path).train, DataSettings('bags', bags=settings))
    moved = labelled(folder, tmp_path, [
        ActionLabel('monday', 0.5, 4.0, BREAD), ActionLabel('tuesday', 1.0, 4.0, BREAD)])
    again = extract_recordings(moved, SPEC, tmp_path)
    assert again[0].folder != first[0].folder
    splits = opened(moved, tmp_path, again)
    assert clips_digest(splits.train, DataSettings('bags', bags=moved)) != digest


def test_a_class_of_scored_recordings_alone_is_left_out_with_a_warning(folder, tmp_path):
    settings = labelled(folder, tmp_path, [
        ActionLabel('monday', 0.0, 4.0, BREAD), ActionLabel('tuesday', 0.0, 3.0, BREAD),
        ActionLabel('tuesday', 4.0, 7.0, CUP)])
    with pytest.warns(UserWarning, match='1 label is not scored, since .*wash/cup of tuesday'):
        splits = opened(settings, tmp_path)
    assert len(splits.validation) == 1


def test_nothing_is_the_background_class(folder, tmp_path):
    settings = labelled(folder, tmp_path, [
        ActionLabel('monday', 0.0, 3.0, {'action': 'nothing'}, 'train'),
        ActionLabel('monday', 4.0, 7.0, {'action': 'cut'}, 'train'),
        ActionLabel('tuesday', 0.0, 3.0, {'action': 'cut'}, 'test')])
    splits = opened(settings, tmp_path)
    assert splits.vocabulary.background == 'nothing'
    assert splits.validation[0].labels == {'action': 0}


def test_background_without_a_noun_is_trained_and_other_rows_without_one_are_named(
        folder, tmp_path):
    settings = labelled(folder, tmp_path, [
        ActionLabel('monday', 0.0, 2.0, {'verb': 'nothing'}, 'train'),
        ActionLabel('monday', 2.0, 4.0, {'verb': 'cut'}, 'train'),
        ActionLabel('monday', 5.0, 7.0, BREAD, 'train'),
        ActionLabel('tuesday', 0.0, 3.0, {'verb': 'nothing'}, 'test')])
    with pytest.warns(UserWarning) as caught:
        splits = opened(settings, tmp_path)
    assert [str(x.message) for x in caught] == [
        f'{settings.labels}: 1 label is left out, without one of verb, noun']
    assert splits.vocabulary.heads == {'verb': ('cut', 'nothing'), 'noun': ('bread', 'nothing')}
    assert splits.vocabulary.background == 'nothing'
    assert [splits.train[i].labels for i in range(2)] == [
        {'verb': 1, 'noun': 1}, {'verb': 0, 'noun': 0}]
    assert splits.test[0].labels == {'verb': 1, 'noun': 1}


def test_the_same_recording_may_be_in_two_splits(folder, tmp_path):
    settings = labelled(folder, tmp_path, [
        ActionLabel('monday', 0.0, 3.0, BREAD, 'train'),
        ActionLabel('monday', 4.0, 7.0, BREAD, 'validation')])
    splits = opened(settings, tmp_path)
    assert len(splits.train) == len(splits.validation) == 1


@pytest.mark.parametrize(('labels', 'complaint'), [
    ([ActionLabel('friday', 0, 3, BREAD)], "recording 'friday' is none of the bags: monday, tue"),
    ([ActionLabel('monday', 50, 53, BREAD)],
     r'cut/bread of monday starts at 50 s; expected a start within the bag of \d'),
    ([ActionLabel('monday', 0, 3, BREAD)], 'its labels are of one recording; expected one to'),
    ([ActionLabel('monday', 0, 3, BREAD, 'x'), ActionLabel('tuesday', 0, 3, BREAD)],
     "a split is ''; expected train, validation, test: name the split of every label, as of "
     'cut/bread of tuesday at 0 s'),
    ([ActionLabel('', 0, 3, BREAD)], 'a label names no recording: fill in the column recording'),
])
def test_labels_that_do_not_fit_are_named(folder, tmp_path, labels, complaint):
    with pytest.raises(DataError, match=complaint):
        opened(labelled(folder, tmp_path, labels), tmp_path)


def test_labels_of_other_recordings_are_left_out_with_a_warning(folder, tmp_path):
    settings = labelled(folder, tmp_path, [
        ActionLabel('monday', 0, 3, BREAD), ActionLabel('tuesday', 0, 3, BREAD),
        ActionLabel('friday', 0, 3, BREAD)])
    with pytest.warns(UserWarning, match='1 label is of recordings .* not used: friday'):
        splits = opened(settings, tmp_path)
    assert len(splits.train) == len(splits.validation) == 1


def test_damage_of_a_bag_and_labels_that_end_after_it_are_noted(folder, tmp_path):
    content = (folder / 'monday.mcap').read_bytes()
    (tmp_path / 'monday.mcap').write_bytes(content[:len(content) * 6 // 10])
    settings = labelled(tmp_path, tmp_path, [ActionLabel('monday', 0, 20, BREAD)])
    recording, = extract_recordings(settings, SPEC, tmp_path / 'cache')
    assert 'monday.mcap is damaged' in recording.notes[0]
    assert recording.notes[-1].startswith('1 label ends after the bag of ')
    assert 'such as cut/bread of monday at 20 s: what is recorded of' in recording.notes[-1]
    data = DataSettings('bags', bags=settings)
    with pytest.warns(UserWarning, match='is damaged'), pytest.raises(DataError):
        open_data(data, SPEC, tmp_path / 'cache')
    with pytest.raises(DataError, match='in seconds; monday.mcap is damaged'):
        extract_recordings(labelled(
            tmp_path, tmp_path, [ActionLabel('monday', 7.5, 8, BREAD)]), SPEC, tmp_path)


def test_a_label_that_cannot_be_read_stops_the_command(folder, tmp_path):
    path = tmp_path / 'labels.csv'
    path.write_text('recording,start,stop,verb,noun\nmonday,3,1,cut,bread\n')
    with pytest.raises(DataError, match='line 2: got 3 to 1 s; .*no label is dropped in silence'):
        extract_recordings(BagSettings((str(folder),), str(path)), SPEC, tmp_path)
    with pytest.raises(DataError, match='there is no label file'):
        extract_recordings(BagSettings((str(folder),)), SPEC, tmp_path)


def test_bags_are_named_by_their_files(folder, tmp_path):
    assert list(find_bags([str(folder)])) == ['monday', 'tuesday']
    assert list(find_bags([str(folder / 'monday.mcap')])) == ['monday']
    (tmp_path / 'monday.mcap').write_bytes(b'')
    with pytest.raises(BagError, match='is a recording of the same name, monday'):
        find_bags([str(folder), str(tmp_path)])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(BagError, match='no bag is there'):
        find_bags([str(tmp_path / 'empty')])
    with pytest.raises(BagError, match='none: no such file or folder: check the path'):
        find_bags([str(folder), str(tmp_path / 'none')])
    with pytest.raises(InvalidSettingError, match='bags.windows is 0; expected a number from 1'):
        BagSettings(windows=0)


def test_bags_without_metadata_compressed_and_in_capitals_are_named(tmp_path, monkeypatch):
    kitchen = tmp_path / 'kitchen'
    for name in ('day_1.mcap', 'day_2.mcap', 'tue/tue_0.mcap', 'tue/tue_1.mcap', 'wed.mcap.zstd',
                 'thu.MCAP', 'notes/a.txt', 'fri/early.db3', 'late/late_0.mcap',
                 'late/other.mcap'):
        (kitchen / name).parent.mkdir(parents=True, exist_ok=True)
        (kitchen / name).touch()
    every = {name: str(path.relative_to(kitchen)) for name, path in find_bags(
        [str(kitchen)]).items()}
    assert every == {
        'day_1': 'day_1.mcap', 'day_2': 'day_2.mcap', 'tue': 'tue', 'wed': 'wed.mcap.zstd',
        'thu': 'thu.MCAP'}  # the others hold several bags, or one of another name
    assert find_bags([str(kitchen / 'tue')]) == {'tue': kitchen / 'tue'}
    assert sorted(find_bags([str(kitchen / 'late')])) == ['late_0', 'other']
    for path in find_bags([str(kitchen)]).values():
        assert find_files(path).files  # as Bag reads it
    monkeypatch.chdir(kitchen / 'tue')
    assert find_bags(['.']) == {'tue': kitchen / 'tue'}
    assert sorted(find_bags(['..'])) == sorted(every)


@pytest.mark.parametrize(('span', 'windows', 'ends'), [
    ((0, 10), 5, [2, 4, 6, 8, 10]), ((0, 1), 5, [1]), ((0, 2), 5, [2]), ((0, 10), 1, [6]),
    ((4, 6), 2, [6]), ((0, 4), 2, [2, 4]),
])
def test_windows_are_spread_over_a_segment(span, windows, ends):
    assert window_ends(*span, 2, windows) == ends
