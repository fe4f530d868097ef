"""Labels of other tools: files as these write them, and what cannot be read."""

import json

from karmma_ros.bags.metadata import COMPRESSED, STORAGES
from karmma_ros.data.labels.label_export import write_labels, WRITERS
from karmma_ros.data.labels.label_file import (
    ActionLabel,
    read_classes_map,
    read_label_file,
    recording_name,
    with_classes,
    write_label_file,
)
from karmma_ros.data.labels.label_formats import classes_of, ImportOptions, read_labels
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.media.video_audio import AUDIO_SUFFIXES
from karmma_ros.media.video_file import VIDEO_SUFFIXES
import pytest

EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-01T10:00:00+01:00" FORMAT="3.0" VERSION="3.0"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///home/anna/monday.mp4" MIME_TYPE="video/mp4"/>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1500"/>
    <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="4250"/>
    <TIME_SLOT TIME_SLOT_ID="ts3"/>
  </TIME_ORDER>
  <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="Verb">{verbs}</TIER>
  <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="Noun">{nouns}</TIER>
  <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="default-lt"
    TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>
"""


def annotation(value, first='ts1', last='ts2'):
    return (f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="{first}" '
            f'TIME_SLOT_REF2="{last}"><ANNOTATION_VALUE>{value}</ANNOTATION_VALUE>'
            '</ALIGNABLE_ANNOTATION></ANNOTATION>')


BORIS = {
    'project_format_version': '7.0',
    'behaviors_conf': {'0': {'code': 'cut/bread', 'type': 'State event'},
                       '1': {'code': 'cough', 'type': 'Point event'}},
    'observations': {'monday': {'file': {'1': ['monday.mp4']}, 'events': [
        [1.5, 'anna', 'cut/bread', '', ''], [2.0, 'anna', 'cough', '', ''],
        [4.25, 'anna', 'cut/bread', '', ''], [5.0, 'ben', 'cut/bread', '', '']]}}}
VIA = {
    'project': {'pname': 'kitchen', 'vid_list': ['1']},
    'attribute': {'1': {'aname': 'verb', 'anchor_id': 'FILE1_Z2_XY0', 'type': 4,
                        'options': {'0': 'cut', '1': 'wash'}},
                  '2': {'aname': 'noun', 'anchor_id': 'FILE1_Z2_XY0', 'type': 1, 'options': {}}},
    'file': {'1': {'fid': '1', 'fname': 'monday.mp4', 'type': 4, 'loc': 1, 'src': ''}},
    'metadata': {'1_a': {'vid': '1', 'flg': 0, 'z': [1.5, 4.25], 'xy': [],
                         'av': {'1': '0', '2': 'bread'}},
                 '1_b': {'vid': '1', 'flg': 0, 'z': [2.0], 'xy': [2, 1, 1, 5, 5], 'av': {}}},
    'view': {'1': {'fid_list': ['1']}}}
AUDIO_TASKS = [{
    'id': 7, 'data': {'audio': '/data/upload/1/monday.wav'}, 'annotations': [
        {'was_cancelled': True, 'result': [{'bad': 1}]},
        {'result': [{'id': 'x', 'type': 'labels', 'from_name': 'label', 'to_name': 'audio',
                     'value': {'start': 1.5, 'end': 4.25, 'channel': 0,
                               'labels': ['cut/bread']}},
                    {'id': 'y', 'type': 'choices', 'value': {'choices': ['good']}}]}]}]
VIDEO_TASKS = [{
    'id': 7, 'data': {'video': 'monday.mp4'}, 'annotations': [{'result': [
        {'id': 'x', 'type': 'timelinelabels', 'value': {
            'ranges': [{'start': 31, 'end': 85}], 'timelinelabels': ['cut/bread']}}]}]}]
CVAT_VIDEO = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>kitchen</name><source>monday.mp4</source>
</task></meta>
<track id="0" label="hand" source="manual">
 <box frame="30" outside="0" xtl="1" ytl="1" xbr="9" ybr="9" keyframe="1">
  <attribute name="verb">cut</attribute><attribute name="noun">bread</attribute></box>
 <box frame="85" outside="1" xtl="1" ytl="1" xbr="9" ybr="9" keyframe="1"/>
</track></annotations>
"""
CVAT_TAGS = '<annotations><meta><task><source>monday.mp4</source></task></meta>' + ''.join(
    f'<image id="{i}" name="frame_{i}"><tag label="cut/bread"/></image>'
    for i in (*range(30, 85), 100)) + '</annotations>'
SPAN = ActionLabel('monday', 1.5, 4.25, {'verb': 'cut', 'noun': 'bread'})
FILES = {
    'monday.txt': ('1.500000\t4.250000\tcut/bread\n\\\t100.0\t2000.0\n5\t5\tcough\nx\n', {}, [
        'monday.txt: line 3: got 5 to 5 s; expected a stop after the start',
        "monday.txt: line 4: got 'x'; expected start, stop and text, divided by tabs"]),
    'notes.eaf': (EAF.format(
        verbs=annotation('cut') + annotation('wash', 'ts2', 'ts3'), nouns=annotation('bread')), {},
        ['notes.eaf: a1 of tier Verb: got no time; expected a span with both ends']),
    'kitchen.boris': (json.dumps(BORIS), {}, [
        "kitchen.boris: monday: [2.0, 'anna', 'cough', '', '']: a point event has no duration: "
        'not used', 'kitchen.boris: monday: cut/bread begins at 5 s and does not end']),
    'aggregated.tsv': (
        'Observation id\tObservation date\tSubject\tBehavior\tBehavior type\tStart (s)\tStop (s)\n'
        'monday\t2026-01-01\tanna\tcut/bread\tSTATE\t1.500\t4.250\n'
        'monday\t2026-01-01\tanna\tcough\tPOINT\t2\tNA\n', {}, [
            "aggregated.tsv: line 3: a time is 'NA'; expected seconds or a timecode, as 75.5 or "
            '0:01:15.5']),
    'via.json': (json.dumps(VIA), {}, [
        'via.json: metadata 1_b: got 1 times; expected a span of time without a region']),
    'audio.json': (json.dumps(AUDIO_TASKS), {}, [
        "audio.json: task 7, region y: got a region of type 'choices'; expected a span of time"]),
    'video.json': (json.dumps(VIDEO_TASKS), {'frame_rate': 20.0}, []),
    'track.xml': (CVAT_VIDEO, {'frame_rate': 20.0}, []),
    'tags.xml': (CVAT_TAGS, {'frame_rate': 20.0}, []),
    'epic.csv': ('narration_id,participant_id,video_id,start_timestamp,stop_timestamp,verb,noun\n'
                 'P01_01_0,P01,monday,00:00:01.500,00:00:04.250,cut,bread\n', {}, []),
}


@pytest.mark.parametrize('name', FILES)
def test_a_file_of_each_tool(tmp_path, name):
    text, options, problems = FILES[name]
    (tmp_path / name).write_text(text, encoding='utf-8')
    table = read_labels(tmp_path / name, options=ImportOptions(**options))
    actual = [(x.recording, x.start_s, x.stop_s, x.classes) for x in table.labels]
    assert actual[0] == ('monday', SPAN.start_s, SPAN.stop_s, SPAN.classes)
    assert len(actual) == 1 + (name == 'tags.xml')
    assert list(table.problems) == problems


def referring(value, annotation_id, parent):
    return (f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="{annotation_id}" ANNOTATION_REF="{parent}'
            f'"><ANNOTATION_VALUE>{value}</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>')


def read_eaf(path, verbs, nouns, further=''):
    text = EAF.format(verbs=verbs, nouns=nouns).replace(
        '<LINGUISTIC_TYPE ', f'{further}<LINGUISTIC_TYPE ')
    path.write_text(text, encoding='utf-8')
    table = read_labels(path)
    return [(x.start_s, x.stop_s, x.classes) for x in table.labels], list(table.problems)


def test_annotations_of_dependent_tiers_have_the_span_of_their_parent(tmp_path):
    path, span = tmp_path / 'a.eaf', (1.5, 4.25)
    note = f'<TIER TIER_ID="note">{referring("both hands", "a4", "a3")}</TIER>'
    labels, problems = read_eaf(path, annotation('cut'), referring('bread', 'a3', 'a1'), note)
    assert labels == [(*span, {'action': 'both hands'}),
                      (*span, {'verb': 'cut', 'noun': 'bread'})] and not problems
    labels, problems = read_eaf(path, annotation('cut'), ''.join(
        referring('bread', *ids) for ids in (('a3', 'a9'), ('a5', 'a6'), ('a6', 'a5'))))
    assert labels == [(*span, {'verb': 'cut'})]
    assert problems == [f'a.eaf: {name} of tier Noun: it refers to {parent}; expected an '
                        'annotation that has times, or refers to one'
                        for name, parent in (('a3', 'a9'), ('a5', 'a6'), ('a6', 'a5'))]


def test_two_annotations_of_a_head_with_the_same_span_are_two_labels(tmp_path):
    second = annotation('wash').replace('"a1"', '"a2"')
    tier = f'<TIER TIER_ID="verb">{second}</TIER>'
    labels, problems = read_eaf(
        tmp_path / 'a.eaf', annotation('cut'), referring('pan', 'a3', 'a2'), tier)
    assert labels == [(1.5, 4.25, {'verb': 'cut'}), (1.5, 4.25, {'verb': 'wash', 'noun': 'pan'})]
    assert not problems
    labels, _ = read_eaf(tmp_path / 'a.eaf', annotation('cut'), annotation('bread'), tier)
    assert [x[2] for x in labels] == [{'verb': 'cut', 'noun': 'bread'}, {'verb': 'wash'}]


@pytest.mark.parametrize(('url', 'name'), [
    ('file:///C:/My%20Videos/k%C3%BCche%201.mp4', 'k\u00fcche 1'), ('./day%231.wav', 'day#1'),
    ('file:///C:/My Videos/day #1.mp4', 'day #1'), ('file:///x/100% rye.mp4', '100% rye'),
])
def test_the_url_of_elan_is_decoded(tmp_path, url, name):
    (tmp_path / 'a.eaf').write_text(EAF.format(verbs=annotation('cut'), nouns='').replace(
        'file:///home/anna/monday.mp4', url), encoding='utf-8')
    assert read_labels(tmp_path / 'a.eaf').labels[0].recording == name


@pytest.mark.parametrize('name', ['k\u00fcche 1', '100%25', 'a?b#c&d', '2026.11.28'])
@pytest.mark.parametrize('format_name', ['elan', 'via', 'label-studio', 'csv'])
def test_names_of_recordings_are_read_as_they_were_written(tmp_path, name, format_name):
    write_labels(tmp_path / 'out', [ActionLabel(name, 0, 1, {'action': 'cut'})], format_name)
    assert read_labels(tmp_path / 'out', format_name).labels[0].recording == name


@pytest.mark.parametrize(('source', 'name'), [
    ('/data/upload/3/1a2b3c4d-day_1.wav', 'day_1'), ('1a2b3c4d-day_1.wav', '1a2b3c4d-day_1'),
    ('http://localhost:8080/data/upload/3/1a2b3c4d-day%201.wav', 'day 1'),
    ('/data/local-files/?d=day_1.wav', 'day_1'), ('/data/local-files/?d=a%2Fk%C3%BCche.wav',
                                                  'k\u00fcche'),
    ('https://host/day_1.wav?token=a.b', 'day_1'), ('s3://bucket/day_1.wav', 'day_1'),
])
def test_the_files_of_label_studio_name_recordings(tmp_path, source, name):
    tasks = [{**AUDIO_TASKS[0], 'data': {'audio': source}}]
    (tmp_path / 'a.json').write_text(json.dumps(tasks))
    assert read_labels(tmp_path / 'a.json').labels[0].recording == name


@pytest.mark.parametrize('name', ['video.json', 'track.xml'])
def test_numbers_of_frames_need_a_rate(tmp_path, name):
    (tmp_path / name).write_text(FILES[name][0])
    table = read_labels(tmp_path / name)
    assert not table.labels and 'give the frames a second: --frame-rate 30' in table.problems[0]


@pytest.mark.parametrize(('name', 'text', 'complaint'), [
    ('a.eaf', '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaa">]><x>&a;</x>',
     'it has a document type definition; expected none'),
    ('a.eaf', '<x>', 'it is no XML'),
    ('a.json', '[' * 100_000, 'it is no JSON'),
    ('a.json', '{"metadata": 3, "attribute": 4}', 'it is no file of the format via'),
    ('a.json', '[3]', 'it is no file of the format label-studio'),
    ('a.boris', '{"observations": {"a": {"events": [["x", "", "cut"]]}}}',
     'it is no file of the format boris'),
    ('a.boris', '[]', 'it is no file of the format boris'),
    ('a.xml', '<annotations><image id="x"><tag label="a"/></image></annotations>',
     'it is no file of the format cvat'),
    ('a.csv', 'from,to\n1,2\n', 'its columns are from, to; expected start or'),
    ('a.csv', 'start,stop\n1,2\n', 'its columns are start, stop; expected verb and noun, or'),
    ('a.csv', '', 'its columns are none'),
    ('a.csv', 'start,stop,verb,Verb\n1,2,cut,pan\n', 'it has 2 columns verb; expected each name'),
    ('a.pdf', '', 'its suffix is .pdf; expected .csv'),
    ('a.txt', None, 'No such file or directory'),
])
def test_what_is_no_label_file_is_named(tmp_path, name, text, complaint):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path / name)
    assert complaint in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / 'a.txt').write_bytes(b'\xff\xfe\x00\xd8')
    with pytest.raises(DataError, match='it is no text in UTF-8'):
        read_labels(tmp_path / 'a.txt')


LABELS = (
    SPAN, ActionLabel('monday', 5.0, 6.125, {'verb': 'wash', 'noun': 'größe "L", <2>'}),
    ActionLabel('tuesday', 0.0, 2.0, {'action': 'nothing'}),
)


@pytest.mark.parametrize('name', WRITERS)
def test_what_is_written_is_read_again(tmp_path, name):
    path = tmp_path / f'out.{ {"audacity": "txt", "csv": "csv", "elan": "eaf"}.get(name, "json") }'
    labels = LABELS[:2] if name in ('audacity', 'elan') else LABELS
    write_labels(path, labels, name)
    table = read_labels(path, options=ImportOptions('monday' if name == 'audacity' else ''))
    assert table.labels == labels and not table.problems


def test_splits_and_groups_are_kept(tmp_path):
    path = tmp_path / 'labels.csv'
    label = ActionLabel('a', 0, 1, {'action': 'cut'}, 'train', {'person': 'anna', 'place': ''})
    write_label_file(path, [label])
    assert path.read_text().splitlines() == [
        'recording,start,stop,action,split,person,place', 'a,0,1,cut,train,anna,']
    assert read_label_file(path).labels == (label,)


@pytest.mark.parametrize(('row', 'problem'), [
    ('a,2,1,cut,pan', 'got 2 to 1 s; expected a stop after the start'),
    ('a,-1,1,cut,pan', 'got a start of -1 s; expected 0 s or more'),
    ('a,0,1,,', 'got no class; expected verb and noun, or action'),
    ('a,0,x,cut,pan', "a time is 'x'; expected seconds or a timecode"),
    ('a,0', "a time is ''; expected seconds or a timecode"),
    ('a,0,2,5,cut,pan', 'got 6 cells; expected the 5 of the header: is there a decimal comma'),
])
def test_a_row_that_cannot_be_used_is_a_sentence(tmp_path, row, problem):
    path = tmp_path / 'labels.csv'
    path.write_text(f'recording,start,stop,verb,noun\n{row}\na,0,1,cut,pan\n')
    table = read_label_file(path)
    assert len(table.labels) == 1 and len(table.problems) == 1
    assert table.problems[0].startswith(f'labels.csv: line 2: {problem}')


@pytest.mark.parametrize(('path', 'name'), [
    ('/data/monday.mcap', 'monday'), ('C:\\bags\\monday', 'monday'), ('a.b.wav', 'a.b'),
    ('file:///x/y.mp4', 'y'), ('bags/monday/', 'monday'), ('.hidden', '.hidden'), ('', ''),
    ('2026.11.28', '2026.11.28'), ('subject.03', 'subject.03'), ('run_0.5m', 'run_0.5m'),
    ('run_0.5m.db3', 'run_0.5m'), ('x.mcap.zstd', 'x'), ('x.DB3.ZST', 'x'), ('x.zst', 'x.zst'),
    ('2026.11.28.MP4', '2026.11.28'), ('day.eaf', 'day'), ('.mcap', '.mcap'),
])
def test_a_recording_is_named_without_folder_and_suffix(path, name):
    assert recording_name(path) == name


def test_the_suffixes_of_every_bag_and_media_file_are_no_part_of_a_name():
    assert {recording_name(f'x{suffix}') for suffix in (
        *STORAGES, *VIDEO_SUFFIXES, *AUDIO_SUFFIXES)} == {'x'}
    assert {recording_name(f'x{storage}{zstd}') for storage in STORAGES for zstd in COMPRESSED} \
        == {'x'}


def test_a_text_is_verb_and_noun_or_an_action():
    assert classes_of('cut / bread') == {'verb': 'cut', 'noun': 'bread'}
    assert classes_of('cut bread') == {'action': 'cut bread'}
    assert classes_of('a/b/c') == {'action': 'a/b/c'} and classes_of(' ') == {}


def test_classes_are_renamed_and_dropped(tmp_path):
    path = tmp_path / 'map.csv'
    path.write_text('label,verb,noun\ncut/bread,slice,loaf\nNothing,,\n')
    table = with_classes(read_labels_of(tmp_path), read_classes_map(path))
    assert [x.classes for x in table.labels] == [
        {'verb': 'slice', 'noun': 'loaf'}, LABELS[1].classes]
    assert table.problems == ('1 label is dropped by the map of classes',)
    path.write_text('verb,noun\ncut,bread\n')
    for columns in ('verb,noun', 'label', 'label,verb,noun,comment'):
        path.write_text(f'{columns}\ncut,bread\n')
        with pytest.raises(DataError, match=f'its columns are {columns.replace(",", ", ")}; '
                           'expected label and'):
            read_classes_map(path)


def read_labels_of(folder):
    write_label_file(folder / 'labels.csv', LABELS)
    return read_label_file(folder / 'labels.csv')


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InvalidSettingError, match='one, since a file of elan is for one'):
        write_labels(tmp_path / 'a.eaf', LABELS)
    with pytest.raises(InvalidSettingError, match="--to is '.json'; expected audacity"):
        write_labels(tmp_path / 'a.json', LABELS)
    with pytest.raises(InvalidSettingError, match='labels is 0; expected at least one'):
        write_labels(tmp_path / 'a.csv', [])
