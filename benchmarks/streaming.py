"""
The student in chunks, and frame by frame, beside the clip student: accuracy against time.

`python benchmarks/streaming.py --train` trains every row on the Synthetic Kitchen, from the
pretrained encoders and the teacher of docs/training.md, with the same settings and the same
teacher's answers; what is trained already is not trained again. Without `--train` it times the
networks live at the paper's size, with random weights, in PyTorch eager and exported: a camera and
a microphone run, a window is answered every two frames of a clip, and only what is new of it is
encoded. What an export answers is held against eager first. All are timed in turns. It prints the
tables of docs/streaming.md and draws its chart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
import json
import logging
import os
from pathlib import Path
import re
import statistics
import time
import warnings

from backends import machine
from karmma_ros.data.catalogue import DataSettings, open_splits
from karmma_ros.data.splits import Splits
from karmma_ros.data.synthetic_kitchen.splits import KitchenSettings
from karmma_ros.evaluation.robustness import average_accuracy
from karmma_ros.evaluation.subsets import score_subsets
from karmma_ros.model.backends.interface import EAGER, INT8
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.presets import preset, unimodal
from karmma_ros.model.pretrained import load_pretrained
from karmma_ros.training.loading import scoring_loader
from karmma_ros.training.module import Optimisation
from karmma_ros.training.remembered import RememberedTeacher, write_answers
from karmma_ros.training.run import RunSettings, train
from page import table, three_digits
from streaming_live import cost_of, Figures, measure
import torch

KITCHEN = KitchenSettings(train=7200, validation=800, test=1600, seed=0)
OTHER_KITCHEN = KitchenSettings(train=4800, validation=400, test=400, seed=1)
"""What encoders are pretrained on, as in config/train/synthetic_kitchen_pretrain.yaml."""
EXISTING = Path('runs')
"""Where docs/training.md puts the teacher and the pretrained encoders of `tiny`."""
WORK = Path('.cache/streaming')
PAGE, PICTURE = Path('docs/streaming.md'), Path('docs/images/streaming.png')


@dataclass(frozen=True)
class Row:
    """One way to encode a window."""

    name: str
    label: str
    kitchen: ModelConfig
    """Trained and scored."""
    paper: ModelConfig
    """Counted, and timed."""
    exports: tuple[str, ...] | None = ()
    """What it is timed in beside eager; None: not timed, as it costs what the first row does."""


def rows() -> list[Row]:
    """Give the rows of the table."""
    tiny, student = preset('tiny'), preset('karmma_student')
    even = {'reduction': 'even'}
    return [
        Row('clip_tau', 'whole clip, τ-Average (the paper)', tiny, student, ('openvino bf16',)),
        Row('clip_even', 'whole clip, even groups', replace(tiny, **even),
            replace(student, **even), None),
        Row('chunks_half', 'chunks of 16 of 32 frames', preset('tiny_stream_8'),
            preset('karmma_student_stream_16'), ('openvino bf16',)),
        Row('chunks_quarter', 'chunks of 8 of 32 frames', preset('tiny_stream'),
            preset('karmma_student_stream'), ('openvino bf16', 'openvino int8', 'onnx fp32')),
        Row('causal', 'frame by frame, causal', preset('tiny_causal'),
            preset('karmma_student_causal'), ('openvino bf16', 'onnx fp32')),
    ]


def main() -> None:
    """Train what is not trained, or measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--train', action='store_true', help='train and score what is not yet')
    parser.add_argument('--epochs', type=int, default=6, help='of each row [6]')
    parser.add_argument('--seeds', type=int, default=1, help='trainings of each row [1]')
    parser.add_argument('--rounds', type=int, default=5, help='timed answers of each row [5]')
    parser.add_argument('--rows', nargs='+', metavar='ROW', default=[row.name for row in rows()],
                        help=f'time these [{" ".join(row.name for row in rows())}]')
    options = parser.parse_args()
    if options.train:
        train_all(options.epochs, range(options.seeds))
        return
    scores = {row.name: scores_of(row, options.epochs, options.seeds) for row in rows()}
    figures = measure({row.name: (row.paper, row.exports) for row in rows()
                       if row.exports is not None and row.name in options.rows}, options.rounds)
    tables = {'recognised': accuracies(scores), 'taken': times(figures)}
    print('\n\n'.join(tables.values()))
    if len(options.rows) == len(rows()):
        write(tables)
        draw(PICTURE, scores, figures)


# -- accuracy --------------------------------------------------------------------------------

def train_all(epochs: int, seeds: range) -> None:
    """Train every row from the same start; what is there already stays."""
    warnings.filterwarnings('ignore')
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    splits, answers = _lesson()
    for seed in seeds:
        for row in rows():
            folder = _folder(row, epochs, seed)
            if not (folder / 'config.json').is_file():
                train_row(_started(row.kitchen), folder, splits, answers, epochs, seed)


def train_row(
    config: ModelConfig, folder: Path, splits: Splits, answers: RememberedTeacher | None,
    epochs: int, seed: int, **optimisation: float,
) -> None:
    """Train one network as config/train/synthetic_kitchen_student.yaml does, and score it."""
    began = time.monotonic()
    torch.manual_seed(seed)
    network = build(config, splits.spec, splits.vocabulary)
    load_pretrained(network, config)
    settings = Optimisation(**{'learning_rate': 1e-3, 'weight_decay': 0.01, 'clip': 2.0,
                               'modality_dropout': 0.5, 'gamma': 0.7, **optimisation})
    run = RunSettings(epochs=epochs, batch_size=32, seed=seed, precision='bf16-mixed',
                      progress=False, optimisation=settings)
    train(network, splits.train, splits.validation, run, WORK / folder.name, answers)
    scores = score_subsets(network, scoring_loader(splits.test, network.modalities, 64))
    minutes = round((time.monotonic() - began) / 60, 1)
    save_bundle(folder, network, config, splits.spec, splits.vocabulary, dataset=splits.name,
                card=f'# {folder.name}\n', metrics={'test_top1': scores, 'minutes': minutes})
    print(f'{folder.name}: {minutes} minutes, '
          f'{100 * next(iter(scores.values()))["action"]:.1f} % with all sensors', flush=True)


def _started(config: ModelConfig) -> ModelConfig:
    """Let every encoder start from one that was trained alone, for as long."""
    encoders = {}
    for modality, encoder in config.encoders.items():
        folder = EXISTING / f'kitchen_tiny_{modality}'
        if encoder.name == 'causal_frames':
            folder = EXISTING / f'kitchen_tiny_causal_{modality}'
            if not (folder / 'config.json').is_file():
                alone = unimodal(config, modality)
                train_row(alone, folder, _splits(OTHER_KITCHEN), None, 9, 0, weight_decay=0.05,
                          learning_rate=2e-3, modality_dropout=0.0, label_smoothing=0.1)
        encoders[modality] = replace(encoder, weights=str(folder / 'model.safetensors'))
    return replace(config, encoders=encoders)


def _lesson() -> tuple[Splits, RememberedTeacher]:
    """Give the data and what the teacher says of them."""
    data = DataSettings(synthetic_kitchen=KITCHEN)
    splits = _splits(KITCHEN)
    teacher = load_bundle(EXISTING / 'kitchen_teacher')
    write_answers(teacher.network, splits.train, WORK / 'answers', data=repr(data))
    return splits, RememberedTeacher(WORK / 'answers')


def _splits(kitchen: KitchenSettings) -> Splits:
    settings = DataSettings(synthetic_kitchen=kitchen)
    return open_splits(settings, None, Path('.cache/synthetic_kitchen'))


def _folder(row: Row, epochs: int, seed: int) -> Path:
    return EXISTING / 'streaming' / f'{row.name}_{epochs}_{seed}'


def scores_of(row: Row, epochs: int, seeds: int) -> list[dict[str, float]]:
    """Give the action accuracy of each subset, one mapping a seed; none that is not trained."""
    found = []
    for seed in range(seeds):
        path = _folder(row, epochs, seed) / 'config.json'
        if path.is_file():
            scores = json.loads(path.read_text())['metrics']['test_top1']
            found.append({subset: score['action'] for subset, score in scores.items()})
    return found


# -- table and chart -------------------------------------------------------------------------

Scores = Mapping[str, list[dict[str, float]]]


def accuracies(scores: Scores) -> str:
    """Set the table of what each way to encode recognises, and its size."""
    lines = []
    for row in rows():
        operations, parameters = cost_of(row.paper)
        lines.append([row.label, *(_percent(scores[row.name], pick) for pick in _PICKS),
                      f'{operations / 1e9:.1f}', f'{parameters / 1e6:.1f}'])
    return table(['encoded at a time', 'all sensors, %', 'V alone, %', 'mean of subsets, %',
                  'GFLOPs', 'parameters, M'], lines)


def times(figures: Mapping[tuple[str, str], Figures]) -> str:
    """Set the table of what an answer takes."""
    labels, lines = {row.name: row.label for row in rows()}, []
    slowest = next(iter(figures.values()))
    for (name, runs), found in figures.items():
        lines.append([
            labels[name], runs, three_digits(found.network_ms), three_digits(found.answer_ms),
            f'{1e3 / found.answer_ms:.1f}', f'{slowest.answer_ms / found.answer_ms:.1f} ×',
            three_digits(found.cpu_ms), f'{slowest.cpu_ms / found.cpu_ms:.1f} ×',
            f'{found.difference:.2%}' if runs != EAGER else '–'])
    return _measured() + '\n\n' + table(
        ['encoded at a time', 'runs in', 'network, ms', 'live answer, ms', 'answers/s', 'faster',
         'CPU ms', 'less', 'differs by'], lines, left=2)


def write(tables: Mapping[str, str]) -> None:
    """Put tables between their marks in the page."""
    page = PAGE.read_text()
    for name, lines in tables.items():
        page, places = re.subn(
            rf'(<!-- bench: {name} -->\n).*?(<!-- end -->)',
            lambda match, lines=lines: f'{match[1]}{lines}\n{match[2]}', page, flags=re.DOTALL)
        if places != 1:
            raise ValueError(f'{PAGE} has {places} places for {name}; one is due')
    PAGE.write_text(page)


_PICKS: tuple[Callable[[dict[str, float]], float], ...] = (
    lambda column: column['V+F+A+D'], lambda column: column['V'], average_accuracy)


def _percent(
    columns: list[dict[str, float]], pick: Callable[[dict[str, float]], float]
) -> str:
    values = [100 * pick(column) for column in columns]
    if not values:
        return '–'
    spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def _measured() -> str:
    runtimes = ', '.join(f'{name} {version(name)}' for name in ('openvino', 'onnxruntime'))
    return (f'`python benchmarks/streaming.py`, {time.strftime("%Y-%m-%d")}: {machine()}, '
            f'{runtimes}; load average {os.getloadavg()[0]:.1f} afterwards.')


def draw(path: Path, scores: Scores, figures: Mapping[tuple[str, str], Figures]) -> None:
    """
    Draw accuracy against the time of an answer, in eager PyTorch and in what is fastest.

    int8 is left out: it may cost accuracy.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    figure, axis = plt.subplots(figsize=(7.5, 4.2), layout='constrained')
    timed = [row for row in rows() if row.exports is not None and scores[row.name]]
    eager = {row.name: figures[row.name, EAGER].answer_ms for row in timed}
    fastest = {row.name: min(found.answer_ms for (name, runs), found in figures.items()
                             if name == row.name and not runs.endswith(INT8)) for row in timed}
    for pick, label, marker in zip(_PICKS, ('all sensors', 'V alone', 'mean of subsets'), 'osD'):
        heights = [100 * statistics.mean(pick(column) for column in scores[row.name])
                   for row in timed]
        drawn, = axis.plot(list(fastest.values()), heights, marker, label=label, markersize=7)
        axis.plot(list(eager.values()), heights, marker, color=drawn.get_color(), markersize=7,
                  fillstyle='none')
    for row in timed:
        axis.axvline(fastest[row.name], color='0.85', zorder=0)
        axis.annotate(row.label.replace(', τ-Average (the paper)', ''),
                      (fastest[row.name], 1.01), xycoords=('data', 'axes fraction'),
                      rotation=18, fontsize=8)
    axis.plot([], [], 'o', color='0.4', fillstyle='none', label='the same in eager PyTorch')
    axis.set(xscale='log', ylim=(60, 100), ylabel='action accuracy, Synthetic Kitchen, %',
             xlabel="ms for a live answer at the paper's size, V+F+A, two cores")
    taken = [*eager.values(), *fastest.values()]
    ticks = [t * power for power in (10, 100, 1000) for t in (1, 2, 5)]
    axis.set_xticks([t for t in ticks if 0.7 * min(taken) < t < 1.5 * max(taken)])
    axis.xaxis.set_major_formatter(ticker.ScalarFormatter())
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.legend(loc='center', bbox_to_anchor=(0.6, 0.62), fontsize=8)
    axis.grid(axis='y', alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f'wrote {path}')


if __name__ == '__main__':
    main()
