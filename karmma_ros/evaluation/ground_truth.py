"""
The ground truth of a bag: actions with start, stop and classes, from a table or a topic.

What cannot be used is left out, counted and reported; it never stops an evaluation that has an
action to score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
import re
from typing import Any, Protocol
from unicodedata import normalize

from karmma_ros.data.labels.label_file import recording_name
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.ground_truth_table import (
    ClassNames,
    Labels,
    read_table,
    Row,
    Table,
    UNKNOWN,
)
from karmma_ros.prediction import action_heads, further_heads, NOUN, VERB, Vocabulary

TIMES = ('auto', 'bag', 'clock')
"""Times of a table count from the start of the bag, or are those of its clock; auto: judged."""
TruthMessage = Sequence[Any]
"""Start, stop, verb and noun of an annotation, and the ids of both where they are known."""


class Recorded(Protocol):
    """What has to be known of a bag, such as `bags.bag_run.BagInfo`."""

    @property
    def path(self) -> str:
        """Return its path."""

    @property
    def start_ns(self) -> int:
        """Return its first stamp."""

    @property
    def end_ns(self) -> int:
        """Return its last stamp."""


@dataclass(frozen=True)
class TrueAction:
    """One action, from `start_ns` until before `end_ns` of the bag's clock."""

    start_ns: int
    end_ns: int
    names: Mapping[str, str]
    """Head → class, by the model's name where it has one; '' where the truth leaves it open."""
    ids: Mapping[str, int]
    """Head → class id, or `UNKNOWN`."""

    @property
    def known(self) -> bool:
        """Return whether the model has a name for every part of it."""
        return all(i != UNKNOWN for i in self.ids.values())

    @property
    def label(self) -> tuple[str, ...]:
        """Return the classes in the order of the heads."""
        return tuple(self.names.values())


@dataclass(frozen=True)
class Truth:
    """The actions of one bag, in the order of their starts."""

    actions: tuple[TrueAction, ...]
    source: str
    """File or topic."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Why rows were not used, or not as they are → how many."""
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(
        cls, path: Path | str, bag: Recorded, vocabulary: Vocabulary, *, times: str = 'auto',
        recording: str | None = None,
    ) -> Truth:
        """
        Read a table for one bag.

        :param times: see `TIMES`. On auto, the reading by which more actions fall into the bag.
        :param recording: of a table of several, which one this bag is; else it is found in the
            bag's name.
        :raises InvalidSettingError: when the table cannot be read, or names other bags only.
        """
        if times not in TIMES:
            raise InvalidSettingError('--ground-truth-times', times, ', '.join(TIMES))
        path = Path(path)
        table = read_table(path, vocabulary)
        if table.broken and not table.rows:
            raise InvalidSettingError(
                '--ground-truth', str(path), f'a table with usable rows ({table.broken[0]})')
        rows, notes = _of_recording(table.rows, bag, recording, path)
        shift, remark = _shift(rows, table, bag, times)
        notes += table.remarks
        if remark:
            notes += (remark,)
        left_out = Counter({'broken rows': len(table.broken)})
        if table.broken:
            notes += (f'{_rows(len(table.broken))} of {path.name} cannot be read; the first: '
                      f'{table.broken[0]}',)
        labels = [row.labels for row in rows]
        if table.parts:
            pairs = [(each[VERB], each.get(NOUN, '')) for each in labels]
            notes += tuple(_part_remarks(pairs, vocabulary, path.name))
            labels = list(map(_by_part(vocabulary), pairs))
        actions = [(row.start + shift, row.stop + shift, each)
                   for row, each in zip(rows, labels)]
        return _settle(actions, path.name, bag, vocabulary, left_out, notes)

    @classmethod
    def from_messages(
        cls, messages: Iterable[TruthMessage], bag: Recorded, vocabulary: Vocabulary, topic: str,
    ) -> Truth:
        """Take the messages of a topic of `karmma_msgs/ActionAnnotation`."""
        of_parts = _by_part(vocabulary)
        distinct = list(dict.fromkeys(map(tuple, messages)))  # a latched one comes again
        actions = [(start_ns, end_ns, of_parts((verb, noun)))
                   for start_ns, end_ns, verb, noun, *_ in distinct]
        notes = [*_part_remarks([(each[2], each[3]) for each in distinct], vocabulary, topic),
                 *_id_remarks(distinct, vocabulary, topic)]
        return _settle(actions, topic, bag, vocabulary, Counter(), tuple(notes))


def _by_part(vocabulary: Vocabulary) -> Callable[[tuple[str, str]], dict[str, str]]:
    """
    Return what turns verb and noun of a truth into classes of the model's heads.

    A model with one head has one class for both: "verb noun" if that is one, else the verb;
    a head called `verb` or `noun` takes its own word.
    """
    heads = action_heads(tuple(vocabulary.heads))
    if len(heads) > 1:
        return lambda words: dict(zip(heads, words))
    head, find = heads[0], ClassNames(vocabulary.heads[heads[0]])

    def of_one_head(words: tuple[str, str]) -> dict[str, str]:
        verb, noun = words
        if head == VERB:
            return {head: verb}
        if head == NOUN:
            return {head: noun or verb}
        both = f'{verb} {noun}'.strip()
        alone = find(both)[1] == UNKNOWN and find(verb)[1] != UNKNOWN
        return {head: verb if alone else both}
    return of_one_head


def _part_remarks(
    words: Sequence[tuple[str, str]], vocabulary: Vocabulary, source: str
) -> Iterable[str]:
    """Describe how verb and noun of a truth are read for heads that are not these two."""
    heads = action_heads(tuple(vocabulary.heads))
    both = any(verb and noun for verb, noun in words)
    if len(heads) > 1 and heads != (VERB, NOUN):
        yield f'{source}: the verb is read as a class of {heads[0]}, the noun as one of {heads[1]}'
    elif heads in ((VERB,), (NOUN,)) and both:
        other = NOUN if heads == (VERB,) else VERB
        yield f'{source} names verb and noun: the model has no head {other}, it is not scored'
    elif len(heads) == 1 and both:
        yield (f'{source} names verb and noun, the model has the one head {heads[0]}: read as its '
               'class "verb noun", or as the verb alone where only that is a class')
    for head in further_heads(tuple(vocabulary.heads)):
        yield f'{source} names no {head}: that head is not scored'


def _id_remarks(
    messages: Sequence[TruthMessage], vocabulary: Vocabulary, topic: str,
) -> Iterable[str]:
    """Describe ids of annotations that contradict the names, which are used."""
    heads = action_heads(tuple(vocabulary.heads))
    ids = [each[4:] for each in messages]
    if len(heads) != 2 or not any(map(any, ids)):  # left at 0, as one who knows names only does
        return
    for i, head in enumerate(heads):
        pairs = [(each[2 + i], str(each[4 + i])) for each in messages
                 if len(each) > 4 and each[2 + i] and each[4 + i] >= 0]
        yield from Labels(pairs, ClassNames(vocabulary.heads[head]), head, names_only=True
                          ).remarks(topic)


def _of_recording(
    rows: Sequence[Row], bag: Recorded, wanted: str | None, path: Path
) -> tuple[Sequence[Row], tuple[str, ...]]:
    """Keep the rows of this bag, if the table has several recordings."""
    names = {row.recording for row in rows if row.recording}
    if wanted is not None and wanted not in names:
        raise InvalidSettingError(
            '--ground-truth-recording', wanted, f'one that {path.name} names ({_few(names)})')
    if not names:
        return rows, ()
    if wanted is None:
        wanted = _named_by(bag.path, names, path)
    if wanted is None and len(names) > 1:
        raise InvalidSettingError(
            '--ground-truth', str(path), f'a table that names this bag, {bag.path}',
            f'it names {_few(names)}: put one of them into the name of the bag')
    if wanted is None:
        return rows, (f'{path.name} names the recording {next(iter(names))}, the bag does not: '
                      'taken to be the same',)
    return [row for row in rows if row.recording == wanted], ()


def _named_by(bag: str, names: Collection[str], path: Path) -> str | None:
    """
    Return the recording that the name of a bag is or contains, else that of its folder.

    :raises InvalidSettingError: when it contains two of the same length.
    """
    parts = [normalize('NFC', part) for part in re.split(r'[\\/]', bag.rstrip('\\/'))[-2:]]
    own = parts[-1]
    exact = [n for n in names if normalize('NFC', n) in (recording_name(own), own)]
    for inside in (exact, *([n for n in names if re.search(
            rf'(?<![^\W_]){re.escape(normalize("NFC", n))}(?![^\W_])', part)]
            for part in reversed(parts))):
        longest = [n for n in inside if len(n) == max(map(len, inside))]
        if len(longest) > 1:
            raise InvalidSettingError(
                '--ground-truth', str(path), f'a table that names this bag, {bag}, once',
                f'its name contains {_few(longest)}: give one by --ground-truth-recording')
        if longest:
            return longest[0]
    return None


def _shift(
    rows: Sequence[Row], table: Table, bag: Recorded, times: str
) -> tuple[int, str]:
    """Return what to add to the table's times, and a remark where that was judged by few."""
    if times == 'bag' or (times == 'auto' and table.from_start):
        return bag.start_ns, ''
    if times == 'clock':
        return 0, ''
    inside = {shift: sum(row.start + shift < bag.end_ns and row.stop + shift > bag.start_ns
                         for row in rows) for shift in (bag.start_ns, 0)}
    if bag.start_ns and inside[0] == inside[bag.start_ns] > 0:
        return bag.start_ns, ('times of the truth may count from the start of the bag or be '
                              'those of its clock, both fit: taken from the start; '
                              '--ground-truth-times decides')
    return max(inside, key=lambda shift: inside[shift]), ''


def _settle(
    actions: Iterable[tuple[int, int, Mapping[str, str]]], source: str, bag: Recorded,
    vocabulary: Vocabulary, left_out: Counter[str], notes: tuple[str, ...],
) -> Truth:
    """Keep the actions within the bag, with the classes of the vocabulary."""
    names = {head: ClassNames(classes) for head, classes in vocabulary.heads.items()}
    kept: list[TrueAction] = []
    unknown: Counter[str] = Counter()
    unnamed: Counter[str] = Counter()
    for start_ns, end_ns, labels in actions:
        if end_ns <= start_ns:
            left_out['stop not after start'] += 1
        elif end_ns <= bag.start_ns or start_ns >= bag.end_ns:
            left_out['outside the bag'] += 1
        else:
            left_out['cut at the ends of the bag'] += (
                start_ns < bag.start_ns or end_ns > bag.end_ns)
            both = {head: find(labels.get(head, '')) for head, find in names.items()}
            unnamed.update(head for head in names if labels.get(head) == '')
            unknown.update(f'{head} {name!r}' for head, (name, i) in both.items()
                           if i == UNKNOWN and name)
            kept.append(TrueAction(
                max(start_ns, bag.start_ns), min(end_ns, bag.end_ns),
                {head: name for head, (name, _) in both.items()},
                {head: i for head, (_, i) in both.items()}))
    kept.sort(key=lambda action: (action.start_ns, action.end_ns, action.label))
    left_out['of a class that the model lacks'] = sum(
        any(i == UNKNOWN and a.names[h] for h, i in a.ids.items()) for a in kept)
    left_out['overlapping another'] = _overlapping(kept)
    counts = {why: n for why, n in left_out.items() if n}
    return Truth(tuple(kept), source, counts,
                 notes + tuple(_warnings(counts, unknown, kept, source, bag))
                 + tuple(f'{source} names no {head}: that head is not scored'
                         for head, count in unnamed.items() if kept and count == len(kept)))


def _warnings(
    counts: Mapping[str, int], unknown: Counter[str], kept: Sequence[TrueAction], source: str,
    bag: Recorded,
) -> Iterable[str]:
    few = ', '.join(f'{what} ({n})' for what, n in sorted(
        unknown.items(), key=lambda item: (-item[1], item[0]))[:5])
    more = f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''
    for why, text in (
            ('stop not after start', 'with a stop that is not after the start: left out'),
            ('outside the bag', f'outside the bag of {(bag.end_ns - bag.start_ns) / 1e9:.1f} s: '
             'left out'),
            ('cut at the ends of the bag', 'in part outside the bag: cut at its ends'),
            ('of a class that the model lacks',
             f'with a class that the model lacks, which is not scored: {few}{more}'),
            ('overlapping another', 'in overlap with another: each is scored by itself')):
        if why in counts:
            yield f'{_rows(counts[why])} of {source} {text}'
    if not kept:
        yield f'{source} has no action within this bag: nothing of it is scored'


def _overlapping(actions: Sequence[TrueAction]) -> int:
    """Count the actions that share time with an earlier one."""
    count, latest = 0, None
    for action in actions:
        count += latest is not None and action.start_ns < latest
        latest = action.end_ns if latest is None else max(latest, action.end_ns)
    return count


def _few(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ', '.join(ordered[:4]) + (f' and {len(ordered) - 4} more' if len(ordered) > 4 else '')


def _rows(count: int) -> str:
    return '1 row' if count == 1 else f'{count:,} rows'
