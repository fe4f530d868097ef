"""The label file while it is edited: what is kept, what is refused, and whose changes win."""

from __future__ import annotations

from dataclasses import replace
import errno
import json
from threading import Thread

from karmma_ros.data.labels.label_file import read_label_file
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.labelling import label_store
from karmma_ros.labelling.label_store import ConflictError, EditedLabel, LabelStore
import pytest

CHOP, WASH = {'verb': 'cut', 'noun': 'onion'}, {'verb': 'wash', 'noun': 'pan'}


def save(store, recording, labels):
    return store.save(recording, store.load(recording).revision, labels)


def test_a_new_file_has_the_heads_and_the_labels(tmp_path):
    path = tmp_path / 'labels.csv'
    store = LabelStore(path)
    assert store.load('a').labels == () and not path.exists()
    save(store, 'a', [EditedLabel(2, 3.25, WASH), EditedLabel(0.5, 1, CHOP)])
    assert path.read_text() == ('recording,start,stop,verb,noun\na,0.5,1,cut,onion\n'
                                'a,2,3.25,wash,pan\n')
    action = LabelStore(tmp_path / 'other.csv', ['action'])
    save(action, 'a', [EditedLabel(0, 1, {'action': 'wave'})])
    assert action.path.read_text() == 'recording,start,stop,action\na,0,1,wave\n'


KEPT = """recording;Person;start;stop;verb;noun;split;note
b.mcap;ann;0:00:01.20;2,5;cut;onion;train;"two; words"
a;bob;1;2;cut;bread;test;x
b.mcap;ann;five;6;cut;bread;train;not a time
c;eve;1;2;stir;pot;;
b.mcap;ann;7;8;wash;pan;train;y
"""


def test_what_is_not_edited_is_kept(tmp_path):
    path = tmp_path / 'labels.csv'
    path.write_text(KEPT)
    store = LabelStore(path)
    loaded = store.load('b')
    assert [label.start_s for label in loaded.labels] == [1.2, 7]
    assert len(loaded.problems) == 1 and 'line 4' in loaded.problems[0]
    saved = store.save('b', loaded.revision, [
        loaded.labels[0], replace(loaded.labels[1], stop_s=9), EditedLabel(3, 4, WASH)])
    assert path.read_text().splitlines() == [
        'recording;Person;start;stop;verb;noun;split;note',
        'b.mcap;ann;five;6;cut;bread;train;not a time',
        'b.mcap;ann;0:00:01.20;2,5;cut;onion;train;"two; words"',
        'b.mcap;ann;3;4;wash;pan;train;',
        'b.mcap;ann;7;9;wash;pan;train;y',
        'a;bob;1;2;cut;bread;test;x', 'c;eve;1;2;stir;pot;;']
    assert saved.revision == store.load('b').revision != loaded.revision
    assert store.load('a').labels[0].cells['note'] == 'x'


def test_columns_without_a_name_are_kept(tmp_path):
    path = tmp_path / 'labels.csv'
    path.write_text(',recording,start,stop,verb,noun,,\n0,day_1,0,2,cut,bread,note A,x\n'
                    '1,day_1,3,4,wash,pan,,y\n')
    store = LabelStore(path)
    first, second = (EditedLabel.parse(json.loads(json.dumps(label.to_dict())), store.heads)
                     for label in store.load('day_1').labels)
    save(store, 'day_1', [replace(first, stop_s=2.5), second, EditedLabel(5, 6, WASH)])
    assert path.read_text().splitlines()[1:] == [
        '0,day_1,0,2.5,cut,bread,note A,x', '1,day_1,3,4,wash,pan,,y', ',day_1,5,6,wash,pan,,']


def test_a_label_that_is_deleted_and_restored_keeps_its_columns(tmp_path):
    path = tmp_path / 'labels.csv'
    path.write_text(KEPT)
    store = LabelStore(path)
    first = store.load('b').labels
    save(store, 'b', first[:1])
    save(store, 'b', first)
    assert 'b.mcap;ann;7;8;wash;pan;train;y' in path.read_text().splitlines()


def test_the_file_stays_readable_for_training(tmp_path):
    path = tmp_path / 'labels.csv'
    path.write_text(KEPT.replace('five', '5'))
    store = LabelStore(path)
    save(store, 'd', [EditedLabel(0, 1, {'verb': 'stir, "hot"'})])
    table = read_label_file(path)
    assert not table.problems and len(table.labels) == 6
    assert table.labels[-1].classes == {'verb': 'stir, "hot"'} and table.labels[0].split == 'train'


@pytest.mark.parametrize('change', [
    lambda text: text.replace('7;8', '7;8.5'), lambda text: text + 'b;x;9;10;cut;pan;;\n',
    lambda text: text.replace('note', 'remark'), lambda text: ''])
def test_changes_of_others_to_the_recording_are_not_overwritten(tmp_path, change):
    path = tmp_path / 'labels.csv'
    path.write_text(KEPT)
    store = LabelStore(path)
    loaded = store.load('b')
    path.write_text(changed := change(KEPT))
    with pytest.raises(ConflictError, match='labels of b in labels.csv were changed elsewhere'):
        store.save('b', loaded.revision, loaded.labels)
    assert path.read_text() == changed


def test_changes_to_other_recordings_are_no_conflict(tmp_path):
    path = tmp_path / 'labels.csv'
    path.write_text(KEPT)
    store, other = LabelStore(path), LabelStore(path)
    loaded, others = store.load('b'), other.load('a')
    other.save('a', others.revision, [EditedLabel(5, 6, CHOP)])
    store.save('b', loaded.revision, [])
    assert [label.start_s for label in store.load('a').labels] == [5]
    assert [problem for problem in store.load('b').problems] and not store.load('b').labels


def test_of_two_pages_that_save_at_once_one_gets_an_error(tmp_path):
    store = LabelStore(tmp_path / 'labels.csv')
    revision, outcomes = store.load('a').revision, []

    def write(start):
        try:
            outcomes.append(store.save('a', revision, [EditedLabel(start, start + 1, CHOP)]))
        except ConflictError:
            outcomes.append(None)

    threads = [Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each is not None for each in outcomes) == 1
    assert len(store.load('a').labels) == 1


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / 'labels.csv'
    path.write_text(KEPT)
    store = LabelStore(path)
    loaded = store.load('b')

    def full(target, content):
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(label_store, 'write_atomically', full)
    with pytest.raises(OSError, match='No space left'):
        store.save('b', loaded.revision, [])
    assert path.read_text() == KEPT
    monkeypatch.undo()
    assert store.save('b', loaded.revision, []).labels == ()


def test_a_link_to_the_file_stays_a_link(tmp_path):
    (tmp_path / 'real.csv').write_text(KEPT)
    (tmp_path / 'labels.csv').symlink_to('real.csv')
    store = LabelStore(tmp_path / 'labels.csv')
    save(store, 'a', [])
    assert store.path.is_symlink() and 'bob' not in (tmp_path / 'real.csv').read_text()


@pytest.mark.parametrize('given, match', [
    ({'start': 2, 'stop': 1, 'classes': CHOP}, 'label is .2 to 1 s.; expected a stop after'),
    ({'start': -1, 'stop': 1, 'classes': CHOP}, '0 s or more'),
    ({'start': float('nan'), 'stop': 1, 'classes': CHOP}, 'a stop after its start'),
    ({'start': 0, 'stop': 1, 'classes': {}}, 'expected a class of verb or noun'),
    ({'start': 0, 'stop': 1, 'classes': {'adverb': 'fast'}}, 'expected a class of verb or noun'),
    ({'start': 0, 'stop': 1, 'classes': {'verb': 'a\u202eb'}}, 'printable characters'),
    ({'start': 0, 'stop': 1, 'classes': {'verb': 'a' * 201}}, 'at most 200'),
    ({'start': 0, 'classes': CHOP}, 'an object with start, stop and classes'),
    ('x', 'an object with start'), (None, 'an object with start')])
def test_a_label_that_cannot_be_used_is_refused(given, match):
    with pytest.raises(InvalidSettingError, match=match):
        EditedLabel.parse(given, ('verb', 'noun'))


def test_files_that_are_no_label_files_are_refused(tmp_path):
    path = tmp_path / 'labels.csv'
    path.write_text('start,stop,verb\n0,1,cut\n')
    with pytest.raises(DataError, match='it has no column recording: add one with the name'):
        LabelStore(path)
    path.write_text('a,b\n1,2\n')
    with pytest.raises(DataError, match='expected start'):
        LabelStore(path)
    with pytest.raises(InvalidSettingError, match="--heads is 'gesture'; expected verb or noun"):
        LabelStore(tmp_path / 'new.csv', ['gesture'])


def test_classes_are_counted_in_all_recordings(tmp_path):
    path = tmp_path / 'labels.csv'
    path.write_text(KEPT)
    counts = LabelStore(path).counts()
    assert counts == {('cut', 'onion'): {'b': 1}, ('cut', 'bread'): {'a': 1},
                      ('stir', 'pot'): {'c': 1}, ('wash', 'pan'): {'b': 1}}
