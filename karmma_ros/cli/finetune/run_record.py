"""The folder `run` of a fine-tuned model: arguments, losses, figures, scores, failure cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
import csv
from dataclasses import dataclass, replace
import io
from pathlib import Path
from typing import Any

from karmma_ros.bags.bag_message import BagFrames
from karmma_ros.bags.report.findings import small_jpeg
from karmma_ros.bags.topics import choose_topics, parse_topics
from karmma_ros.bags.training_clips import find_bags, open_bag
from karmma_ros.calibration import Calibration
from karmma_ros.cli.finetune.head_choice import every_sensor, FittedHeads
from karmma_ros.cli.finetune.labelled_bags import LabelledBags
from karmma_ros.clip import NANOSECONDS
from karmma_ros.data.folds import TEST
from karmma_ros.data.labels.label_file import ActionLabel, write_label_file
from karmma_ros.errors import KarmmaError
from karmma_ros.evaluation.bootstrap import accuracy_interval, ENOUGH_GROUPS
from karmma_ros.evaluation.classification import confusion, joint_key, PredictedActions
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.evaluation.report import MARKDOWN, ScoredData, ScoredModel, write_report
from karmma_ros.evaluation.tables import escape_cell, markdown_table
from karmma_ros.modality import Modality
from karmma_ros.prediction import Vocabulary
from karmma_ros.storage import write_atomically
import numpy as np
from numpy.typing import NDArray
import yaml

RUN = 'run'
"""Folder of the record in that of the model."""
ARGUMENTS, LABELS, RESULTS, FAILURES = 'args.yaml', 'labels.csv', 'results.csv', 'failures.md'
_MOST_FAILURES, _IMAGES = 12, 3


@dataclass(frozen=True)
class ScoredSegments:
    """The predictions that a model is scored by."""

    predictions: DatasetPredictions
    segments: NDArray[np.int64]
    """`[n]`: which of the labels they are of."""
    text: str
    """What they are, in words."""


def write_run(
    folder: Path, labelled: LabelledBags, fitted: FittedHeads, scored: ScoredSegments | None,
    calibration: Calibration, options: Mapping[str, Any], model_id: str,
) -> None:
    """Write the folder; `scored` is None for a model that nothing validates."""
    write_atomically(folder / ARGUMENTS, yaml.safe_dump(dict(options), sort_keys=False))
    write_label_file(folder / LABELS, [
        replace(label, split=split)
        for label, split in zip(labelled.labels, labelled.division.splits)])
    write_atomically(folder / RESULTS, _results(fitted))
    # Tables need no matplotlib, which takes a second to load.
    from karmma_ros.evaluation import plots

    balance = {head: {name: dict(Counter(
        split for x, split in zip(labelled.labels, labelled.division.splits)
        if x.classes[head] == name)) for name in names}
        for head, names in labelled.vocabulary.heads.items()}
    plots.plot_class_balance(folder / 'class_balance.png', balance, where=labelled.title)
    if scored is None:
        return
    split = 'test' if TEST in labelled.division.splits else 'cross-validation'
    data = ScoredData(labelled.title, split, len(scored.segments))
    write_report(folder, data, [
        ScoredModel('fine-tuned', model_id, scored.predictions, calibration)])
    actions = _with_every_sensor(scored.predictions, calibration)
    parts = [f'\n## Intervals\n\n{intervals(labelled, scored)}', '\n## Classes\n',
             '![segments of each class](class_balance.png)']
    for head, names in labelled.vocabulary.heads.items():
        counts = np.zeros((len(names), len(names)), np.int64)
        for (true, best), n in confusion(actions, head).items():
            counts[true, best] = n
        plots.plot_confusion(folder / f'confusion_{head}.png', counts, names, where=scored.text,
                             title=f'Which {head} is predicted for which, %')
        parts.append(f'![confusion of {head}](confusion_{head}.png)')
    failures = list(_failures(folder, labelled, scored, actions))
    if failures:
        write_atomically(folder / FAILURES, '# Failure cases, the surest first\n\n'
                         + '\n\n'.join(failures) + '\n')
        parts.append(f'\n[Failure cases]({FAILURES})')
    path = folder / MARKDOWN
    write_atomically(path, path.read_text(encoding='utf-8') + '\n'.join(parts) + '\n')


def _results(fitted: FittedHeads) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['training', 'step', 'loss'])
    writer.writerows([name, step, f'{loss:.4f}'] for name, step, loss in fitted.losses)
    return text.getvalue()


def intervals(labelled: LabelledBags, scored: ScoredSegments) -> str:
    """Return a table of the action's accuracy by subset with its 95 % interval, in percent."""
    table, rows = scored.predictions, []
    recordings = [labelled.labels[i].recording for i in scored.segments]
    for name, subset in table.subsets():
        has = table.has(subset)
        actions = PredictedActions.of_subset(table, subset)
        correct = actions.hits()[joint_key(table.heads)]
        low, high = accuracy_interval(correct, [r for r, x in zip(recordings, has) if x])
        rows.append([name, str(int(has.sum())), f'{100 * correct.mean():.1f}',
                     f'{100 * low:.0f} to {100 * high:.0f}'])
    method = ('whole recordings resampled' if len(set(recordings)) >= ENOUGH_GROUPS else
            'segments taken for independent, which they are not within a recording')
    return (markdown_table(['sensors', 'segments', 'right, %', '95 % interval'], rows)
            + f'\n\nIntervals: {method}.')


def _with_every_sensor(
    table: DatasetPredictions, calibration: Calibration
) -> PredictedActions:
    """Predict each segment with all sensors that it has."""
    output = calibration.apply(
        table.modalities, {head: every_sensor(table, head)[0] for head in table.heads})
    return PredictedActions(output.probabilities, table.labels,
                            np.ones(len(table), np.int64), None, output.action_scale)


def _failures(
    folder: Path, labelled: LabelledBags, scored: ScoredSegments, actions: PredictedActions,
) -> Iterator[str]:
    """Yield Markdown on the surest errors, with frames where the bag has a camera."""
    key = joint_key(actions.heads)
    wrong = np.flatnonzero(~actions.hits()[key])
    wrong = wrong[np.argsort(-actions.confidence[key][wrong], kind='stable')][:_MOST_FAILURES]
    bags = find_bags(labelled.settings.files)
    for number, row in enumerate(wrong.tolist(), 1):
        label = labelled.labels[scored.segments[row]]
        best = '/'.join(_name(labelled.vocabulary, head, int(ids[row, 0]))
                        for head, ids in actions.best.items())
        names = []
        for i, image in enumerate(_frames(bags[label.recording], label, labelled)):
            names.append(f'failure_{number:02d}_{i}.jpg')
            write_atomically(folder / names[-1], small_jpeg(image))
        yield '\n\n'.join([
            f'{number}. {escape_cell(label.text)} of {escape_cell(label.recording)}, '
            f'{label.start_s:.1f} to {label.stop_s:.1f} s: {escape_cell(best)}, '
            f'{100 * actions.confidence[key][row]:.0f} % sure',
            *([' '.join(f'![frame]({name})' for name in names)] if names else [])])


def _name(vocabulary: Vocabulary, head: str, index: int) -> str:
    return vocabulary.heads[head][index]


def _frames(
    path: Path, label: ActionLabel, labelled: LabelledBags
) -> Sequence[NDArray[np.uint8]]:
    """Return the first, middle and last frame of a segment; none without a camera."""
    with suppress(KarmmaError), open_bag(path, labelled.settings) as bag:
        choice = choose_topics(bag, parse_topics(labelled.settings.topics), [Modality.RGB])
        topic = choice.topics.get(Modality.RGB.value)
        if topic is not None:
            times = [bag.start_ns + round(NANOSECONDS * (
                label.start_s + (label.stop_s - label.start_s) * i / (_IMAGES - 1)))
                for i in range(_IMAGES)]
            frames = BagFrames(path, topic.name, topic.type)(times)
            return [frame for frame in frames if frame is not None]
    return []
