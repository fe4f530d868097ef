"""Check labels before a training: their table of classes, and what makes scores misleading."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path
import re

from karmma_ros.data.labels.label_file import ActionLabel
from karmma_ros.errors import count_text, DataError

FEW = 5
"""Fewer training segments of a class than this are few."""
_LISTED, _MOST_CLASSES, _MOST_RECORDINGS = 5, 60, 8
_SIMILAR = 0.9
"""Ratio of equal characters from which names of six letters or more are near-duplicates."""


def class_table(
    labels: Sequence[ActionLabel], splits: Sequence[str], head: str
) -> tuple[list[str], list[list[str]]]:
    """
    Return the header and the rows of class × split × recording of a head, in segments.

    :param splits: of each label.
    """
    names = list(dict.fromkeys(splits))
    recordings = sorted({label.recording for label in labels})
    shown = recordings if len(recordings) <= _MOST_RECORDINGS else []
    header = [head, *names, *shown, 'recordings', 'seconds']
    rows = []
    classes = sorted({label.classes[head] for label in labels})
    for each in classes[:_MOST_CLASSES]:
        own = [(x, split) for x, split in zip(labels, splits) if x.classes[head] == each]
        by_split, by_recording = (
            Counter(split for _, split in own), Counter(x.recording for x, _ in own))
        rows.append([
            each, *(str(by_split[name]) for name in names),
            *(str(by_recording[name]) for name in shown), str(len(by_recording)),
            f'{sum(x.stop_s - x.start_s for x, _ in own):.0f}'])
    if len(classes) > _MOST_CLASSES:
        rows.append([f'and {len(classes) - _MOST_CLASSES} more', *[''] * (len(header) - 1)])
    return header, rows


def refuse(
    path: Path, labels: Sequence[ActionLabel], splits: Sequence[str], least: int = 2
) -> None:
    """
    Refuse labels that nothing can be learnt from, or whose scores would be false.

    :param path: of the label file, which the error names.
    :param least: classes of each head that training labels must have.
    :raises DataError: for no training labels, fewer classes, or a segment in two splits.
    """
    training = [label for label, split in zip(labels, splits) if split == 'train']
    if not labels:
        raise DataError(path, 'no label is left', 'label actions with `karmma label`, each with '
                        'a class of every head')
    if not training:
        raise DataError(path, 'no label is for training', 'set the split of some to train')
    for head in training[0].classes:
        names = {label.classes.get(head) for label in training}
        if len(names) < least:
            raise DataError(
                path, f'all labels for training have the {head} {next(iter(names))!r}; expected '
                'two classes or more', 'label other actions, or segments of nothing')
    seen: dict[tuple[str, float, float], str] = {}
    for label, split in zip(labels, splits):
        key = label.recording, round(label.start_s, 3), round(label.stop_s, 3)
        if seen.setdefault(key, split) != split:
            raise DataError(
                path, f'{label.text} of {label.recording} at {label.start_s:g} s is in the splits '
                f'{seen[key]} and {split}', 'leave it in one: scores of it would be too good')


def warnings_of(
    labels: Sequence[ActionLabel], splits: Sequence[str], background: str, window_s: float,
    known: Mapping[str, Collection[str]] | None = None,
) -> Iterator[str]:
    """
    Yield a sentence for each reason why a model of these labels would be worse than it seems.

    :param background: class that stands for no action; empty without one.
    :param window_s: length of a clip.
    :param known: head → classes of a model that others are added to, which few segments suffice
        for; None: there is none.
    """
    training = [label for label, split in zip(labels, splits) if split == 'train']
    if len({label.recording for label in labels}) == 1:
        yield ('All labels are of one recording: scores will be too good, for the people, the '
               'objects and the light of the validation are those of the training. Record again '
               'on another day.')
    yield from _shared(labels, splits)
    yield from _few(training, background, known or {})
    if not background:
        yield ('No segment is labelled as nothing: the model will name an action in an empty '
               'kitchen. Label some segments without an action as nothing.')
    yield from _near_duplicates(labels)
    yield from _short(labels, window_s)
    yield from _twice(labels)
    yield from _overlaps(labels)
    yield from _single_recording(training, known or {})


def _shared(labels: Sequence[ActionLabel], splits: Sequence[str]) -> Iterator[str]:
    by_recording: defaultdict[str, set[str]] = defaultdict(set)
    for label, split in zip(labels, splits):
        by_recording[label.recording].add(split)
    shared = sorted(name for name, own in by_recording.items() if len(own) > 1)
    if shared:
        yield (f'Segments of one recording are in several splits: {_listing(shared)}. Scores will '
               'be too good, for they resemble each other; give all of a recording one split.')


def _few(
    training: Sequence[ActionLabel], background: str, known: Mapping[str, Collection[str]]
) -> Iterator[str]:
    for head in training[0].classes:
        counts = Counter(x.classes.get(head, '') for x in training)
        few = [f'{name} ({count})' for name, count in sorted(counts.items())
               if count < FEW and name != background and name not in known.get(head, ())]
        if few:
            yield (f'Fewer than {FEW} segments to train the {head}: {_listing(few)}. Expect '
                   'errors; label more of them.')


def _near_duplicates(labels: Sequence[ActionLabel]) -> Iterator[str]:
    by_head: defaultdict[str, set[str]] = defaultdict(set)
    for label in labels:
        for head, name in label.classes.items():
            by_head[head].add(name)
    for head, names in by_head.items():
        pairs = [f'{a} and {b}' for a, b in combinations(sorted(names), 2) if _similar(a, b)]
        if pairs:
            yield (f'The {head} names are nearly the same: {_listing(pairs)}. If they are one '
                   'class, rename one with --classes-map.')


def _similar(first: str, second: str) -> bool:
    a, b = (re.sub(r'[\s_-]+', ' ', name).strip().casefold().rstrip('s')
            for name in (first, second))
    return a == b or min(len(a), len(b)) >= 6 and (
        SequenceMatcher(None, a, b).ratio() >= _SIMILAR
        and re.sub(r'\D', '', a) == re.sub(r'\D', '', b))


def _short(labels: Sequence[ActionLabel], window_s: float) -> Iterator[str]:
    shortest = min(labels, key=lambda label: label.stop_s - label.start_s)
    length_s = shortest.stop_s - shortest.start_s
    if length_s < window_s / 4:
        count = sum(x.stop_s - x.start_s < window_s / 4 for x in labels)
        yield (f'{count_text(count, "segment", "are")} shorter than a quarter of the '
               f'window of {window_s:g} s, the shortest {length_s:.2f} s ({shortest.text} of '
               f'{shortest.recording} at {shortest.start_s:g} s): their windows show mostly what '
               'is around them.')


def _twice(labels: Sequence[ActionLabel]) -> Iterator[str]:
    counts = Counter((x.recording, x.start_s, x.stop_s, x.text) for x in labels)
    twice = [each for each, count in counts.items() if count > 1]
    if twice:
        recording, start_s, _, text = twice[0]
        yield (f'{count_text(len(twice), "label", "are")} in the file more than once, such as '
               f'{text} of {recording} at {start_s:g} s: each counts as often. Remove the others.')


def _overlaps(labels: Sequence[ActionLabel]) -> Iterator[str]:
    by_recording: defaultdict[str, list[ActionLabel]] = defaultdict(list)
    for label in labels:
        by_recording[label.recording].append(label)
    pairs = []
    for own in by_recording.values():
        own.sort(key=lambda label: label.start_s)
        pairs += [(a, b) for a, b in zip(own, own[1:])
                  if b.start_s < a.stop_s - 0.05 and a.classes != b.classes]
    if pairs:
        first, second = pairs[0]
        yield (f'{count_text(len(pairs), "segment", "overlap")} the one before them, such as '
               f'{first.text} and {second.text} of {first.recording} at {second.start_s:g} s: '
               'their windows are trained on for both classes.')


def _single_recording(
    training: Sequence[ActionLabel], known: Mapping[str, Collection[str]]
) -> Iterator[str]:
    if len({x.recording for x in training}) == 1:
        return
    for head in training[0].classes:
        recordings: defaultdict[str, set[str]] = defaultdict(set)
        for label in training:
            recordings[label.classes[head]].add(label.recording)
        single = sorted(name for name, own in recordings.items()
                        if len(own) == 1 and name not in known.get(head, ()))
        if single:
            yield (f'The {head} is labelled in one recording alone: {_listing(single)}. '
                   'No validation shows whether it is recognised in another one: label it in '
                   'two or more.')


def _listing(words: Sequence[str]) -> str:
    more = len(words) - _LISTED
    return ', '.join(words[:_LISTED]) + (f' and {more} more' if more > 0 else '')
