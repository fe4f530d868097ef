"""
Label files of other tools: Audacity, BORIS, ELAN, VIA, Label Studio, CVAT and EPIC-KITCHENS.

The text of a label is its class of the head `action`, or `verb/noun`. Tiers of ELAN and
attributes of VIA and CVAT that are named like heads give the classes of these heads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from karmma_ros.data.labels.label_file import (
    ACTION,
    ActionLabel,
    checked,
    HEADS,
    LabelTable,
    media_recording,
    read_label_file,
    recording_name,
    split_table,
)
from karmma_ros.errors import DataError
from karmma_ros.files import read_data_file
from karmma_ros.media.csv_table import parse_time, read_csv
from karmma_ros.prediction import NOUN, VERB

_MOST_BYTES = 1 << 28
_Result = Iterator['ActionLabel | str']


@dataclass(frozen=True)
class ImportOptions:
    """What a file does not state itself."""

    recording: str = ''
    """Recording of a file that names none; empty: the name of the file."""
    frame_rate: float = 0.0
    """Frames a second, where times are numbers of frames; 0: not known."""


def classes_of(text: str) -> dict[str, str]:
    """Return head → class of the text of a label: `verb/noun`, or an action."""
    words = [word.strip() for word in text.split('/')]
    if len(words) == 2 and all(words):
        return dict(zip((VERB, NOUN), words))
    return {ACTION: text.strip()} if text.strip() else {}


def _audacity(path: Path, options: ImportOptions) -> _Result:
    """Read a label track: start, stop and text of a line, divided by tabs."""
    name = options.recording or recording_name(path.name)
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip() or line.startswith('\\'):  # frequencies of the label before
            continue
        where = f'{path.name}: line {number}'
        cells = line.split('\t')
        try:
            start_s, stop_s = (float(parse_time(cell)) for cell in cells[:2])
        except ValueError:
            yield (f'{where}: got {line[:60]!r}; expected start, stop and text, divided by tabs')
            continue
        text = cells[2] if len(cells) > 2 else ''
        yield checked(ActionLabel(name, start_s, stop_s, classes_of(text)), where)


def _elan(path: Path, options: ImportOptions) -> _Result:
    """Read an .eaf file; spans of several tiers that are equal are one action."""
    root = _xml(path)
    media = root.find('HEADER/MEDIA_DESCRIPTOR')
    url = '' if media is None else media.get('MEDIA_URL') or media.get('RELATIVE_MEDIA_URL') or ''
    name = options.recording or (media_recording(url, True) if url else recording_name(path.name))
    times = {slot.get('TIME_SLOT_ID'): slot.get('TIME_VALUE')
             for slot in root.iterfind('TIME_ORDER/TIME_SLOT')}
    actions: dict[tuple[float, float], list[dict[str, str]]] = defaultdict(list)
    own: dict[ElementTree.Element, dict[str, str]] = {}  # of an annotation that has times
    for tier, each, aligned in _elan_annotations(root):
        where = f'{path.name}: {each.get("ANNOTATION_ID")} of tier {tier}'
        if aligned is None:
            yield (f'{where}: it refers to {each.get("ANNOTATION_REF")}; expected an annotation '
                   'that has times, or refers to one')
            continue
        ends = [times.get(aligned.get(f'TIME_SLOT_REF{i}')) for i in (1, 2)]
        if not all(end and end.isdigit() for end in ends):
            yield f'{where}: got no time; expected a span with both ends'
            continue
        start_s, stop_s = (int(end or 0) / 1000 for end in ends)
        text = (each.findtext('ANNOTATION_VALUE') or '').strip()
        if tier.casefold() in HEADS:
            own[aligned] = _with_class(
                actions[start_s, stop_s], own.get(aligned), tier.casefold(), text)
        else:
            yield checked(ActionLabel(name, start_s, stop_s, classes_of(text)), where)
    for (start_s, stop_s), each_classes in actions.items():
        for classes in each_classes:
            yield checked(ActionLabel(name, start_s, stop_s, classes),
                          f'{path.name}: {start_s:g} to {stop_s:g} s')


def _elan_annotations(
    root: ElementTree.Element,
) -> Iterator[tuple[str, ElementTree.Element, ElementTree.Element | None]]:
    """Yield tier, annotation and the one that has its times, None where none has."""
    every = [(tier.get('TIER_ID') or '', each) for type_name in ('ALIGNABLE', 'REF')
             for tier in root.iterfind('TIER')
             for each in tier.iterfind(f'ANNOTATION/{type_name}_ANNOTATION')]
    by_id = {each.get('ANNOTATION_ID'): each for _, each in every}
    for tier, each in every:
        aligned: ElementTree.Element | None = each
        passed = set[ElementTree.Element]()
        while aligned is not None and aligned.tag == 'REF_ANNOTATION':
            passed.add(aligned)
            aligned = by_id.get(aligned.get('ANNOTATION_REF'))
            aligned = None if aligned in passed else aligned
        yield tier, each, aligned


def _with_class(
    actions: list[dict[str, str]], own: dict[str, str] | None, head: str, text: str,
) -> dict[str, str]:
    """
    Add a class to one of the actions of a span and return that action.

    :param own: action that the annotation belongs to; None: the first that has no other class.
    """
    action = next((x for x in ([] if own is None else [own]) + actions
                   if not text or x.get(head, text) == text), None)
    if action is None:
        action = {}
        actions.append(action)
    if text:
        action[head] = text
    return action


def _boris(path: Path, options: ImportOptions) -> _Result:
    """Read a project of BORIS: state events begin and end by turns."""
    content = _json(path)
    types = {each.get('code'): str(each.get('type', '')).casefold()
             for each in _values(content, 'behaviors_conf')}
    for name, observation in _items(content, 'observations'):
        begun: dict[tuple[str, str], float] = {}
        for event in observation.get('events', ()):
            where = f'{path.name}: {name}: {event!r:.80}'
            if not isinstance(event, list) or len(event) < 3:
                yield f'{where}: expected time, subject and behavior'
                continue
            time_s, key = float(event[0]), (str(event[1]), str(event[2]))
            if 'state' not in types.get(event[2], 'state'):
                yield f'{where}: a point event has no duration: not used'
            elif key in begun:
                yield checked(
                    ActionLabel(
                        options.recording or recording_name(name),
                        begun.pop(key),
                        time_s,
                        classes_of(key[1]),
                    ),
                    where,
                )
            else:
                begun[key] = time_s
        for (_, behavior), start_s in begun.items():
            yield f'{path.name}: {name}: {behavior} begins at {start_s:g} s and does not end'


def _boris_table(path: Path, options: ImportOptions) -> _Result:
    """Read aggregated events that BORIS exports as a table."""
    table = read_csv(path)
    column = {name.casefold(): i for i, name in enumerate(table.header)}
    for number, cells in table.rows:
        where = f'{path.name}: line {number}'
        cells = [*cells, *[''] * len(column)]
        try:
            start_s, stop_s = (float(parse_time(cells[column[c]]))
                               for c in ('start (s)', 'stop (s)'))
        except ValueError as error:
            yield f'{where}: {error}'
            continue
        name = options.recording or recording_name(cells[column.get('observation id', 0)])
        yield checked(
            ActionLabel(name, start_s, stop_s, classes_of(cells[column['behavior']])), where
        )


def _via(path: Path, options: ImportOptions) -> _Result:
    """Read a project of VIA 3: metadata with two times (z) and attributes (av)."""
    content = _json(path)
    attributes = dict(_items(content, 'attribute'))
    files, views = dict(_items(content, 'file')), dict(_items(content, 'view'))
    for key, each in _items(content, 'metadata'):
        where = f'{path.name}: metadata {key}'
        times = each.get('z', ())
        if len(times) != 2 or each.get('xy'):
            yield f'{where}: got {len(times)} times; expected a span of time without a region'
            continue
        members = views.get(str(each.get('vid')), {}).get('fid_list', ())
        name = files.get(str(members[0]), {}).get('fname', '') if members else ''
        classes = {}
        for attribute_id, value in each.get('av', {}).items():
            attribute = attributes.get(attribute_id, {})
            head = str(attribute.get('aname', '')).casefold()
            text = str(attribute.get('options', {}).get(str(value), value)).strip()
            classes.update({head: text} if head in HEADS and text else classes_of(text))
        yield checked(ActionLabel(options.recording or media_recording(str(name) or path.name),
                            float(times[0]), float(times[1]), classes), where)


def _label_studio(path: Path, options: ImportOptions) -> _Result:
    """Read tasks of Label Studio: spans of audio, of time series, and of a video's timeline."""
    tasks = _json(path)
    for task in tasks if isinstance(tasks, list) else [tasks]:
        data = task.get('data', {})
        source = next((str(v) for v in data.values() if isinstance(v, str) and '.' in v), '')
        name = options.recording or media_recording(source or str(task.get('id', path.name)))
        done = [each for each in task.get('annotations', ()) if not each.get('was_cancelled')]
        for region in (r for each in done[:1] for r in each.get('result', ())):
            where = f'{path.name}: task {task.get("id")}, region {region.get("id")}'
            value = region.get('value', {})
            region_type = str(region.get('type', ''))
            text = '/'.join(map(str, value.get(region_type, ())))
            spans = [(value['start'], value['end'], 1.0)] if 'start' in value else [
                (span['start'] - 1, span['end'], options.frame_rate)  # frames count from 1
                for span in value.get('ranges', ())]
            if not spans:
                yield f'{where}: got a region of type {region_type!r}; expected a span of time'
            for first, last, rate in spans:
                if not rate:
                    yield _no_rate(where)
                    continue
                yield checked(ActionLabel(name, float(first) / rate, float(last) / rate,
                                    classes_of(text)), where)


def _cvat(path: Path, options: ImportOptions) -> _Result:
    """Read CVAT for video 1.1 (tracks) or for images 1.1 (tags of consecutive frames)."""
    root = _xml(path)
    name = options.recording or recording_name(
        root.findtext('meta/task/source') or root.findtext('meta/task/name') or path.name)
    spans = [*_tracks(root), *_tags(root)]
    if spans and not options.frame_rate:
        yield _no_rate(path.name)
        return
    for first, last, classes in spans:
        yield checked(
            ActionLabel(
                name, first / options.frame_rate, (last + 1) / options.frame_rate, classes
            ),
            f'{path.name}: frames {first} to {last}',
        )


def _tracks(root: ElementTree.Element) -> Iterator[tuple[int, int, dict[str, str]]]:
    """Yield first and last frame and classes of each track's visible part."""
    for track in root.iterfind('track'):
        shapes = [each for each in track if each.get('frame') is not None]
        frames = [int(each.get('frame', 0)) for each in shapes if each.get('outside') != '1']
        ends = [int(each.get('frame', 0)) - 1 for each in shapes if each.get('outside') == '1']
        if frames:
            yield min(frames), max([*frames, *ends]), _named_attributes(track)


def _tags(root: ElementTree.Element) -> Iterator[tuple[int, int, dict[str, str]]]:
    """Yield the runs of consecutive frames with equal tags."""
    runs: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for image in sorted(root.iterfind('image'), key=lambda each: int(each.get('id', 0))):
        frame = int(image.get('id', 0))
        for tag in image.iterfind('tag'):
            key = tuple(_named_attributes(tag).items())
            if key in runs and runs[key][1] == frame - 1:
                runs[key][1] = frame
                continue
            if key in runs:
                yield runs[key][0], runs[key][1], dict(key)
            runs[key] = [frame, frame]
    yield from ((first, last, dict(key)) for key, (first, last) in runs.items())


def _named_attributes(element: ElementTree.Element) -> dict[str, str]:
    """Return the classes of a track or tag: attributes named like heads, else its label."""
    classes = {(each.get('name') or '').casefold(): (each.text or '').strip()
               for each in element.iter('attribute')}
    named = {head: classes[head] for head in HEADS if classes.get(head)}
    return named or classes_of(element.get('label') or '')


def _table(path: Path, options: ImportOptions) -> _Result:
    """Read our own label file, or annotations of EPIC-KITCHENS."""
    table = read_label_file(path)
    yield from table.problems
    for label in table.labels:
        yield label if label.recording or not options.recording else ActionLabel(
            options.recording, label.start_s, label.stop_s, label.classes, label.split,
            label.groups)


READERS: dict[str, Callable[[Path, ImportOptions], _Result]] = {
    'audacity': _audacity, 'boris': _boris, 'boris-table': _boris_table, 'csv': _table,
    'cvat': _cvat, 'elan': _elan, 'label-studio': _label_studio, 'via': _via,
}
"""Name of a format → its reader."""


def read_labels(
    path: Path, format: str = '', options: ImportOptions | None = None,
) -> LabelTable:
    """
    Read the labels of a file of any of these tools.

    :param format: one of `READERS`; empty: found by the suffix and the content of the file.
    :raises DataError: when it cannot be read, or is of no such format.
    """
    name = format or detect(path)
    try:
        return split_table(READERS[name](path, options or ImportOptions()))
    except FileNotFoundError as error:
        raise DataError(path, 'No such file or directory', 'check the path') from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            path, f'it is no file of the format {name} ({type(error).__name__}: {error})',
            f'name its format: {", ".join(READERS)}') from error


def detect(path: Path) -> str:
    """
    Return the format of a file.

    :raises DataError: when it is none of `READERS`.
    """
    suffix = path.suffix.casefold()
    if suffix in ('.eaf', '.boris', '.txt', '.xml'):
        return {'.eaf': 'elan', '.boris': 'boris', '.txt': 'audacity', '.xml': 'cvat'}[suffix]
    if suffix in ('.csv', '.tsv'):
        header = {name.casefold() for name in read_csv(path).header}
        return 'boris-table' if {'behavior', 'start (s)'} <= header else 'csv'
    if suffix == '.json':
        content = _json(path)
        if isinstance(content, dict) and {'metadata', 'attribute'} <= content.keys():
            return 'via'
        if isinstance(content, dict) and 'observations' in content:
            return 'boris'
        return 'label-studio'
    raise DataError(path, f'its suffix is {suffix or "missing"}; expected .csv, .tsv, .txt, .eaf, '
                    '.boris, .json or .xml', f'name its format: {", ".join(READERS)}')


def _no_rate(where: str) -> str:
    return f'{where}: times are numbers of frames; give the frames a second: --frame-rate 30'


def _text(path: Path) -> str:
    try:
        return read_data_file(path, _MOST_BYTES).decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise DataError(path, f'it is no text in UTF-8 ({error})', 'save it in UTF-8') from error


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(path, f'it is no JSON ({error})', 'export it again') from error


def _xml(path: Path) -> ElementTree.Element:
    text = _text(path)
    if '<!DOCTYPE' in text or '<!ENTITY' in text:  # entities may expand to gigabytes
        raise DataError(path, 'it has a document type definition; expected none',
                        'export it again')
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(path, f'it is no XML ({error})', 'export it again') from error


def _items(content: Mapping[str, Any], key: str) -> Iterable[tuple[str, Any]]:
    return dict(content.get(key) or {}).items()


def _values(content: Mapping[str, Any], key: str) -> Sequence[Any]:
    return [value for _, value in _items(content, key)]
