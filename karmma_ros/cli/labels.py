"""`karmma data labels`: convert labels of actions from and for other tools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from jsonargparse import Namespace
from karmma_ros.bags.metadata import storage_suffix
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.video_messages import is_media
from karmma_ros.bags.writer import TRUTH_TYPE
from karmma_ros.cli.options import command_parser, CommandParser, to_path
from karmma_ros.clip import NANOSECONDS
from karmma_ros.data.labels.label_export import write_labels, WRITERS
from karmma_ros.data.labels.label_file import (
    ActionLabel,
    checked,
    LabelTable,
    read_classes_map,
    split_table,
    with_classes,
)
from karmma_ros.data.labels.label_formats import ImportOptions, read_labels, READERS
from karmma_ros.errors import BagError, count_text, InvalidSettingError, printable, SENTENCE_LENGTH
from karmma_ros.prediction import NOUN, VERB


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma data labels', 'Read labels of actions from files of other tools or from bags, and '
        'write them as one label file, or for another tool.', 'SOURCE [SOURCE ...] --out OUT')
    parser.add_argument('sources', metavar='SOURCE', nargs='+', type=to_path, help='files of '
                        'Audacity, BORIS, CVAT, ELAN, Label Studio or VIA, tables, and bags with '
                        'ActionAnnotation messages')
    parser.add_argument('--out', required=True, metavar='OUT', type=to_path, help='file to write')
    parser.add_argument('--from', dest='format', type=str, default='', metavar='FORMAT',
                        help='format of the sources, found by suffix and content otherwise: '
                        + ', '.join(READERS))
    parser.add_argument('--to', type=str, default='', metavar='FORMAT', help='format to write, '
                        'found by the suffix otherwise: ' + ', '.join(WRITERS))
    parser.add_argument('--recording', type=str, default='', metavar='NAME', help='recording that '
                        'the labels belong to, instead of the one that the sources name')
    parser.add_argument('--only', type=str, default='', metavar='NAME',
                        help='write the labels of this recording alone')
    parser.add_argument('--frame-rate', type=float, default=0.0, metavar='HZ', help='frames a '
                        'second, where times are numbers of frames (CVAT, video of Label Studio)')
    parser.add_argument('--classes-map', type=str, default='', metavar='FILE', help='table with '
                        'the columns label, verb, noun or label, action that renames classes; a '
                        'label without a class there is dropped')
    return parser


def labels(arguments: Sequence[str]) -> int:
    """
    Run `karmma data labels SOURCE … --out OUT`.

    :returns: 0; 1 when something in the sources was not used.
    """
    given = _parser().parse_args(list(arguments))
    if given.format and given.format not in READERS:
        raise InvalidSettingError('--from', given.format, ', '.join(READERS))
    if not given.frame_rate >= 0:
        raise InvalidSettingError('--frame-rate', given.frame_rate, 'frames a second, above 0')
    tables = [_read(path, given) for path in given.sources]
    table = LabelTable(tuple(x for t in tables for x in t.labels),
                       tuple(x for t in tables for x in t.problems))
    if given.classes_map:
        table = with_classes(table, read_classes_map(Path(given.classes_map)))
    kept = tuple(x for x in table.labels if given.only in ('', x.recording))
    if given.only and not kept:
        raise InvalidSettingError(
            '--only', given.only,
            'one of ' + ', '.join(sorted({x.recording for x in table.labels})[:8]))
    for problem in table.problems:
        print(printable(problem, SENTENCE_LENGTH))
    write_labels(given.out, kept, given.to)
    recordings = len({label.recording for label in kept})
    print(f'{given.out}: {count_text(len(kept), "label")} of {count_text(recordings, "recording")}'
          + (f', {len(table.problems)} not used' if table.problems else ''))
    return 1 if table.problems else 0


def _read(path: Path, given: Namespace) -> LabelTable:
    if given.format or not (path.is_dir() or storage_suffix(path)):
        return read_labels(path, given.format, ImportOptions(given.recording, given.frame_rate))
    from karmma_ros.bags.training_clips import find_bags  # which loads the replay

    every = find_bags([str(path)])
    bags = {name: each for name, each in every.items() if not is_media(each)}
    if given.recording and len(bags) > 1:
        raise InvalidSettingError('--recording', given.recording, f'none for the {len(bags)} '
                                  f'bags in {path}', 'give it with the path of one bag')
    if not bags:
        raise BagError(path, 'it has videos or audio files alone, which have no annotations',
                       'name bags, or the files of labels')
    return split_table(each for name, bag in bags.items()
                       for each in _annotations(bag, given.recording or name))


def _annotations(path: Path, recording: str) -> Iterator[ActionLabel | str]:
    """Yield the labels of the ActionAnnotation messages of a bag, then what is wrong with it."""
    seen = set()
    with Bag(path) as bag:
        topics = [topic for topic in bag.topics.values() if topic.type == TRUTH_TYPE]
        if not topics:
            yield f'{path.name}: no topic of {TRUTH_TYPE}'
        for message in bag.messages(topics):
            where = f'{path.name}: {message.topic.name}'
            try:
                each = bag.reader(message.topic)(message.data)
                start_ns, end_ns = (stamp.sec * NANOSECONDS + stamp.nanosec
                                    for stamp in (each.header.stamp, each.end))
                verb, noun = str(each.verb), str(each.noun)
            except (ValueError, AttributeError) as error:
                yield f'{where}: a message cannot be read ({error})'
                continue
            key = start_ns, end_ns, verb, noun
            if key in seen:  # a latched one comes again
                continue
            seen.add(key)
            classes = {head: name for head, name in ((VERB, verb), (NOUN, noun)) if name}
            yield checked(ActionLabel(
                recording, (start_ns - bag.start_ns) / NANOSECONDS,
                (end_ns - bag.start_ns) / NANOSECONDS, classes), where)
        yield from (text if text.startswith(path.name) else f'{path.name}: {text}'
                    for text in bag.warnings)
        yield from (f'{path.name}: not read: {reason}: {count:,}'
                    for reason, count in bag.missing.items())
