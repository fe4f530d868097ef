"""Label files for other tools: Audacity, ELAN, VIA and Label Studio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from karmma_ros.data.labels.label_file import ActionLabel, label_text, LabelTable
from karmma_ros.errors import InvalidSettingError
from karmma_ros.storage import write_atomically

_EAF = 'http://www.mpi.nl/tools/elan/EAFv3.0.xsd'
_SCHEMA = '{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation'


def _audacity(labels: Sequence[ActionLabel]) -> str:
    return ''.join(f'{label.start_s:.6f}\t{label.stop_s:.6f}\t{label.text}\n' for label in labels)


def _elan(labels: Sequence[ActionLabel]) -> str:
    root = ElementTree.Element('ANNOTATION_DOCUMENT', {
        'AUTHOR': '', 'DATE': '2000-01-01T00:00:00+00:00', 'FORMAT': '3.0', 'VERSION': '3.0',
        _SCHEMA: _EAF})
    header = ElementTree.SubElement(root, 'HEADER', MEDIA_FILE='', TIME_UNITS='milliseconds')
    ElementTree.SubElement(
        header, 'MEDIA_DESCRIPTOR', MEDIA_URL=quote(labels[0].recording), MIME_TYPE='unknown')
    times = sorted({round(1000 * t) for label in labels for t in (label.start_s, label.stop_s)})
    order = ElementTree.SubElement(root, 'TIME_ORDER')
    slots = {value: f'ts{i}' for i, value in enumerate(times, 1)}
    for value, slot in slots.items():
        ElementTree.SubElement(order, 'TIME_SLOT', TIME_SLOT_ID=slot, TIME_VALUE=str(value))
    number = 0
    for head in LabelTable(tuple(labels)).heads:
        tier = ElementTree.SubElement(
            root, 'TIER', LINGUISTIC_TYPE_REF='default-lt', TIER_ID=head)
        for label in labels:
            if head not in label.classes:
                continue
            number += 1
            annotation = ElementTree.SubElement(
                ElementTree.SubElement(tier, 'ANNOTATION'), 'ALIGNABLE_ANNOTATION',
                ANNOTATION_ID=f'a{number}', TIME_SLOT_REF1=slots[round(1000 * label.start_s)],
                TIME_SLOT_REF2=slots[round(1000 * label.stop_s)])
            ElementTree.SubElement(annotation, 'ANNOTATION_VALUE').text = label.classes[head]
    ElementTree.SubElement(root, 'LINGUISTIC_TYPE', GRAPHIC_REFERENCES='false',
                           LINGUISTIC_TYPE_ID='default-lt', TIME_ALIGNABLE='true')
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(
        root, encoding='unicode') + '\n'


def _via(labels: Sequence[ActionLabel]) -> str:
    heads = LabelTable(tuple(labels)).heads
    recordings = list(dict.fromkeys(label.recording for label in labels))
    numbers = {name: str(i) for i, name in enumerate(recordings, 1)}
    names = {h: sorted({x.classes[h] for x in labels if h in x.classes}) for h in heads}
    content: dict[str, Any] = {
        'project': {'pid': '__VIA_PROJECT_ID__', 'rev': '__VIA_PROJECT_REV_ID__',
                    'rev_timestamp': '__VIA_PROJECT_REV_TIMESTAMP__', 'pname': 'karmma',
                    'creator': 'karmma_ros', 'created': 0, 'vid_list': [*numbers.values()]},
        'config': {'file': {'loc_prefix': {'1': '', '2': '', '3': '', '4': ''}},
                   'ui': {'file_content_align': 'center'}},
        'attribute': {str(i): {
            'aname': head, 'anchor_id': 'FILE1_Z2_XY0', 'type': 4, 'desc': '',
            'options': {str(j): name for j, name in enumerate(names[head])},
            'default_option_id': ''} for i, head in enumerate(heads, 1)},
        'file': {number: {'fid': number, 'fname': name, 'type': 4, 'loc': 1, 'src': ''}
                 for name, number in numbers.items()},
        'metadata': {f'{numbers[label.recording]}_{i}': {
            'vid': numbers[label.recording], 'flg': 0, 'z': [label.start_s, label.stop_s],
            'xy': [], 'av': {str(k): str(names[head].index(label.classes[head]))
                             for k, head in enumerate(heads, 1) if head in label.classes}}
            for i, label in enumerate(labels)},
        'view': {number: {'fid_list': [number]} for number in numbers.values()},
    }
    return json.dumps(content, indent=1) + '\n'


def _label_studio(labels: Sequence[ActionLabel]) -> str:
    tasks = []
    for number, name in enumerate(dict.fromkeys(label.recording for label in labels), 1):
        result = [{
            'id': f'{number}_{i}', 'from_name': 'labels', 'to_name': 'audio', 'type': 'labels',
            'value': {'start': label.start_s, 'end': label.stop_s, 'channel': 0,
                      'labels': [label.text]}}
            for i, label in enumerate(labels) if label.recording == name]
        tasks.append({'id': number, 'data': {'audio': f'{name}.wav'},
                      'annotations': [{'result': result}]})
    return json.dumps(tasks, indent=1) + '\n'


WRITERS: dict[str, Callable[[Sequence[ActionLabel]], str]] = {
    'audacity': _audacity, 'csv': label_text, 'elan': _elan, 'label-studio': _label_studio,
    'via': _via,
}
"""Name of a format → the text of its file."""
SUFFIXES = {'.txt': 'audacity', '.csv': 'csv', '.eaf': 'elan'}
_OF_ONE_RECORDING = ('audacity', 'elan')


def write_labels(path: Path, labels: Sequence[ActionLabel], format: str = '') -> None:
    """
    Write labels for a tool, atomically.

    :param format: one of `WRITERS`; empty: that of the suffix.
    :raises InvalidSettingError: for an unknown format, no label, or labels of several recordings
        in a format that holds one.
    """
    name = format or SUFFIXES.get(path.suffix.casefold(), '')
    if name not in WRITERS:
        raise InvalidSettingError('--to', format or path.suffix, ', '.join(WRITERS))
    recordings = sorted({label.recording for label in labels})
    if not labels:
        raise InvalidSettingError('labels', 0, 'at least one')
    if len(recordings) > 1 and name in _OF_ONE_RECORDING:
        raise InvalidSettingError(
            'recordings', ', '.join(recordings[:4]), f'one, since a file of {name} is for one',
            'choose one with --only')
    write_atomically(path, WRITERS[name](labels))
