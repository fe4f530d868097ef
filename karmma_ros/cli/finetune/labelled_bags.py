"""The labels and clips of a fine-tuning: read, checked, reported, extracted, encoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from karmma_ros.bags.topics import choose_topics, parse_topics
from karmma_ros.bags.training_clips import extract_recordings, find_bags, labels_of_bags, open_bag
from karmma_ros.cli.progress import Bars
from karmma_ros.clip import ClipSpec
from karmma_ros.cluster.engine import map_tasks, ONE, raising, Report, Workers
from karmma_ros.data.folds import class_ids, divide, Division, TRAIN
from karmma_ros.data.labels.label_check import class_table, refuse, warnings_of
from karmma_ros.data.labels.label_file import (
    ActionLabel,
    background_of,
    completed,
    LabelTable,
    read_classes_map,
    read_label_file,
    with_classes,
)
from karmma_ros.data.recordings import BagSettings, ExtractedRecording, WindowClips
from karmma_ros.errors import BagError, count_text, DataError, InvalidSettingError, printable
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality, registered_types, subset_name
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.karmma import Karmma
from karmma_ros.prediction import Vocabulary
from karmma_ros.stream.settings import node_parameters
from karmma_ros.training.fused_features import build_features, FusedFeatures
from karmma_ros.training.precomputed import Inference
import numpy as np
from numpy.typing import NDArray

_MOST_NOTES = 8


@dataclass(frozen=True)
class LabelledBags:
    """The segments of all labelled recordings, in the order of their clips."""

    settings: BagSettings
    table: LabelTable
    """Without segments of classes that no training segment has."""
    division: Division
    vocabulary: Vocabulary
    ids: dict[str, NDArray[np.int64]]
    """Head → class id of each segment."""
    unlabelled: tuple[str, ...]
    """Recordings without a label."""
    notes: tuple[str, ...] = ()
    are_renamed: bool = False
    """Whether a table has renamed the classes of the label file."""
    cache: Path = Path()
    recordings: tuple[ExtractedRecording, ...] = ()
    clips: tuple[WindowClips, ...] = ()

    @property
    def labels(self) -> tuple[ActionLabel, ...]:
        """Return the label of each segment."""
        return self.table.labels

    @property
    def path(self) -> Path:
        """Return the label file."""
        return Path(self.settings.labels)

    @property
    def title(self) -> str:
        """Return the name of the data set."""
        return self.settings.title or self.path.stem


def open_labels(
    settings: BagSettings, classes_map: str, split_by: str, known: Vocabulary | None = None,
) -> LabelledBags:
    """
    Read the labels, divide them into splits, and name their classes.

    :param classes_map: table that renames classes; empty: none.
    :param known: classes of a model that new ones are added to; None: there is none.
    :raises DataError: for labels that cannot be used.
    :raises BagError: when there is no bag, or two have the same name.
    """
    path = Path(settings.labels)
    bags, table = find_bags(settings.files), read_label_file(path)
    if table.problems:
        raise DataError(path, table.problems[0], 'correct it: no label is dropped in silence')
    if classes_map:
        table = with_classes(table, read_classes_map(Path(classes_map)))
    own, note = labels_of_bags(path, table.labels, bags)
    notes = [*table.problems, *([note] if note else [])]
    background = background_of(own, settings.background)
    complete, note = completed(own, background)
    notes += [note] if note else []
    table = replace(table, labels=tuple(x for x in complete if x is not None))
    labels = sorted(table.labels, key=lambda label: label.recording)  # as they are extracted
    division = divide(path, labels, split_by)
    refuse(path, labels, division.splits, least=2 if known is None else 1)
    training = [labels[i] for i in division.rows(TRAIN)]
    heads = {head: tuple(sorted({x.classes[head] for x in training})) for head in table.heads}
    if known is not None:
        heads = _extended(path, known, heads)
        background = known.background or background
    kept = [i for i, x in enumerate(labels)
            if all(x.classes[head] in names for head, names in heads.items())]
    if len(kept) < len(labels):
        foreign = next(x for i, x in enumerate(labels) if i not in kept)
        notes.append(f'{count_text(len(labels) - len(kept), "label", "are")} not scored, since no '
                     f'training segment has the class: {foreign.text} of {foreign.recording} '
                     'and others')
    labels = [labels[i] for i in kept]
    division = Division(
        tuple(division.splits[i] for i in kept), division.folds[kept], division.text)
    return LabelledBags(
        settings, LabelTable(tuple(labels)), division,
        Vocabulary(heads, background if any(background in n for n in heads.values()) else ''),
        class_ids(labels, heads), tuple(sorted(set(bags) - {x.recording for x in labels})),
        tuple(notes), bool(classes_map))


def _extended(
    path: Path, known: Vocabulary, heads: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return the known classes of each head, in their order, and the new ones after them."""
    if set(heads) != set(known.heads):
        raise DataError(
            path, f'its labels are of {", ".join(heads)}; the model has the heads '
            f'{", ".join(known.heads)}', 'rename the columns, or train without --add-classes')
    extended = {head: (*names, *(name for name in heads[head] if name not in names))
                for head, names in known.heads.items()}
    if extended == dict(known.heads):
        raise DataError(path, 'the model has all classes of its training labels',
                        'label new ones, or train without --add-classes')
    return extended


def report_labels(
    labelled: LabelledBags, spec: ClipSpec, known: Vocabulary | None = None
) -> None:
    """
    Print class × split × recording, and a warning for all that makes scores misleading.

    :param known: classes of a model that new ones are added to; None: there is none.
    """
    labels, splits = labelled.labels, labelled.division.splits
    for head in labelled.vocabulary.heads:
        header, rows = class_table(labels, splits, head)
        print(markdown_table(
            header, [[printable(x, 40) for x in row] for row in rows], aligned=True) + '\n')
    shortest = min(x.stop_s - x.start_s for x in labels)
    print(f'{count_text(len(labels), "segment")} of '
          f'{count_text(len({x.recording for x in labels}), "recording")}, the shortest'
          f' of {shortest:.2f} s; validation {labelled.division.text}')
    for line in labelled.notes:
        print(f'note: {printable(line, 1000)}')
    if labelled.unlabelled:
        print(f'note: without labels, and not used: {", ".join(labelled.unlabelled[:8])}')
    for line in warnings_of(labels, splits, labelled.vocabulary.background, spec.duration,
                            known.heads if known else None):
        print(f'warning: {printable(line, 1000)}')


def extract(
    labelled: LabelledBags, base: Bundle, cache: Path, bars: Bars, workers: Workers = ONE,
) -> LabelledBags:
    """
    Extract the clips of the recordings, once.

    :raises DataError: for labels outside of their recording, or of an unknown one.
    :raises BagError: for a bag without any sensor of the model.
    """
    recordings = extract_recordings(
        labelled.settings, base.spec, cache, bars, table=labelled.table,
        modalities=base.network.modalities, workers=workers)
    clips = tuple(WindowClips(each, labelled.settings.windows) for each in recordings)
    labelled = replace(labelled, cache=cache, recordings=tuple(recordings), clips=clips)
    _check_clips(labelled, base.spec)
    return labelled


def _check_clips(labelled: LabelledBags, spec: ClipSpec) -> None:
    """
    Warn of classes that no training segment with a clip has.

    :raises DataError: when that leaves none, or one class alone.
    """
    notes = [line for each in labelled.recordings for line in each.notes]
    reason = '; '.join([_silent(spec), *notes[:1]])
    if not any(map(len, labelled.clips)):
        raise DataError(labelled.path, f'no segment has a clip: {reason}',
                        'check the topics and their times with `karmma bag evaluate`')
    first, present = 0, set[int]()
    for recording, clips in zip(labelled.recordings, labelled.clips):
        present |= {first + int(n) for n in clips.segments}
        first += len(recording.labels)
    training = [i for i in labelled.division.rows(TRAIN).tolist() if i in present]
    for head, names in labelled.vocabulary.heads.items():
        every = {names[n] for n in labelled.ids[head][labelled.division.rows(TRAIN)]}
        own = {names[n] for n in labelled.ids[head][training]}
        if len(every) > 1 >= len(own):
            raise DataError(
                labelled.path, f'training segments with a clip have the {head} '
                f'{", ".join(own) or "of none"}; expected two classes or more: {reason}',
                'check the topics and their times with `karmma bag evaluate`')
        if own < every:
            print(f'warning: no training segment has a clip of the {head} '
                  f'{printable(", ".join(sorted(every - own)[:5]), 200)}: it is never predicted')


def unused_sensors(labelled: LabelledBags, base: Bundle) -> list[str]:
    """Return the modalities, with their topics, of the first bag that the base does not take."""
    bags, unused = find_bags(labelled.settings.files), []
    own = {m.type_name for m in base.network.modalities}
    with open_bag(bags[labelled.labels[0].recording], labelled.settings) as bag:
        for name in registered_types():
            if name in own or modality_type(Modality(name)).source(base.spec) is not None:
                continue
            with suppress(BagError):
                topic = choose_topics(bag, {}, [Modality(name)], spec=base.spec).topics.get(name)
                unused += [f'{name} ({topic.name})'] if topic is not None else []
    return unused


def present_modalities(
    labelled: LabelledBags, modalities: Sequence[Modality]
) -> dict[Modality, list[str]]:
    """Return modality → the recordings with a window that has it."""
    return {m: [labels.labels[0].recording for labels, clips in zip(
        labelled.recordings, labelled.clips) if clips.has(m)] for m in modalities}


def check_added(
    labelled: LabelledBags, spec: ClipSpec, added: Iterable[Modality]
) -> None:
    """
    Check that every added modality is in a window.

    :raises InvalidSettingError: for one that is in none, with the reason of its messages.
    :raises BagError: for one without a topic.
    """
    for modality, recordings in present_modalities(labelled, [*added]).items():
        if not recordings:
            raise InvalidSettingError(
                '--add-modalities', modality.value, 'a sensor of the recordings',
                _problem(labelled, spec, modality))


def _problem(labelled: LabelledBags, spec: ClipSpec, modality: Modality) -> str:
    """Return why the messages of the first labelled bag make no window of a modality."""
    bags, settings, own = find_bags(labelled.settings.files), labelled.settings, modality_type(
        modality)
    values = node_parameters(
        Path(settings.parameters) if settings.parameters else None, [modality])
    recording = labelled.labels[0].recording
    with open_bag(bags[recording], settings) as bag:
        choice = choose_topics(bag, parse_topics(settings.topics), [modality], spec=spec)
        topic = choice.topics[modality.value]
        for message in bag.messages([topic]):
            try:
                own.read(bag.reader(message.topic)(message.data), topic.type, spec, values)
            except ValueError as error:
                return f'{topic.name} of {recording}: {error}'
            break
    return f'no window of {recording} has enough messages of {topic.name}'


def report_sensors(labelled: LabelledBags, base: Bundle, modalities: Sequence[Modality]) -> None:
    """
    Print which sensors the model has, and which recordings lack one.

    :param modalities: of the model that it starts from.
    """
    print(f'sensors: {subset_name(base.network.modalities)}')
    left_out = [m for m in modalities if m not in base.network.modalities]
    if left_out:
        print(f'note: no recording has {", ".join(left_out)}: the model is without')
    notes = [line for each in labelled.recordings for line in each.notes]
    for line in notes[:_MOST_NOTES]:
        print(f'warning: {printable(line, 1000)}')
    if len(notes) > _MOST_NOTES:
        print(f'warning: {len(notes) - _MOST_NOTES} more of other recordings; `karmma bag '
              'evaluate` prints those of each')
    silent = [label for each, clips in zip(labelled.recordings, labelled.clips)
              for n, label in enumerate(each.labels) if n not in clips.segments]
    if silent:
        print(f'warning: {count_text(len(silent), "segment", "have")} no clip, such as '
              f'{silent[0].text} of {silent[0].recording} at {silent[0].start_s:g} s: '
              f'{_silent(base.spec)}')
    unused = unused_sensors(labelled, base)
    if unused:
        print(f'note: recorded, and not taken by the model: {", ".join(unused)}. To train '
              'them from nothing, add --unfreeze all --add-modalities and their names')
    recorded = present_modalities(labelled, base.network.modalities)
    every = [each.labels[0].recording for each in labelled.recordings]
    for modality, own in recorded.items():
        missing = [name for name in every if name not in own]
        if missing:
            print(f'warning: {modality} is missing from {len(missing)} of {len(every)} '
                  f'recordings: {", ".join(missing[:5])}')


def _silent(spec: ClipSpec) -> str:
    return (f'the sensors were silent, or cover too little of a window of {spec.duration:g} s, as '
            'in a shorter recording; a line such as audio.min_coverage: 0.1 in a file for '
            '--parameters allows less')


def compute_features(
    labelled: LabelledBags, base: Bundle, inference: Inference, bars: Bars,
    workers: Workers = ONE,
) -> FusedFeatures:
    """
    Return the output of the frozen fusion block for every window, computed once.

    :param workers: what computes it, several recordings at a time.
    """
    names = [each.labels[0].recording for each in labelled.recordings]
    folders = map_tasks(
        partial(_encode, inference, labelled.settings.windows, labelled.cache / 'features'),
        labelled.recordings, partial(_network, base.network), workers,
        on_result=raising(list(map(Path, names))),
        progress=lambda i, done, total: bars(f'encoding {names[i]}', done, total))
    base.network.cpu()
    return FusedFeatures(
        base.network, folders, [len(each.labels) for each in labelled.recordings])


def _network(network: Karmma) -> Karmma:
    return network


def _encode(
    inference: Inference, windows: int, cache: Path, network: Karmma,
    recording: ExtractedRecording, progress: Report,
) -> Path:
    """Compute the features of a recording."""
    return build_features(
        network, WindowClips(recording, windows), recording.folder.name, cache,
        replace(inference, progress=progress))
