"""
The student in chunks, and frame by frame, beside the clip student: accuracy against time.

`python benchmarks/streaming.py --train` trains every row on the Synthetic Kitchen, from the
pretrained encoders and the teacher of docs/training.md, with the same settings and the same
teacher's answers; what is trained already is not trained again. Without `--train` it times the
networks live at the paper's size, with random weights: a camera and a microphone run, a window is
answered every two frames of a clip, and only what is new of it is encoded. It prints the table of
docs/streaming.md and draws its chart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
import json
import logging
from pathlib import Path
import platform
import statistics
import time
from typing import Any
import warnings

import cv2
from karmma_ros.clip import ClipSpec
from karmma_ros.data.catalogue import DataSettings, open_splits
from karmma_ros.data.splits import Splits
from karmma_ros.data.synthetic_kitchen.splits import KitchenSettings
from karmma_ros.evaluation.cost import count_operations, setting
from karmma_ros.evaluation.robustness import average_accuracy
from karmma_ros.evaluation.subsets import score_subsets
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.encoders.causal import CausalFrames
from karmma_ros.model.encoders.chunks import ChunkedEncoder
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.presets import preset, unimodal
from karmma_ros.model.pretrained import load_pretrained
from karmma_ros.model.streaming import EagerParts, stretches_of
from karmma_ros.stream.sensors import InputSettings, SensorStream
from karmma_ros.stream.tokens import TokenMemo
from karmma_ros.stream.window import Window
from karmma_ros.training.loading import scoring_loader
from karmma_ros.training.module import Optimisation
from karmma_ros.training.remembered import RememberedTeacher, write_answers
from karmma_ros.training.run import RunSettings, train
import numpy as np
import torch

KITCHEN = KitchenSettings(train=7200, validation=800, test=1600, seed=0)
OTHER_KITCHEN = KitchenSettings(train=4800, validation=400, test=400, seed=1)
"""What encoders are pretrained on, as in config/train/synthetic_kitchen_pretrain.yaml."""
EXISTING = Path('runs')
"""Where docs/training.md puts the teacher and the pretrained encoders of `tiny`."""
WORK = Path('.cache/streaming')
SENSORS = (Modality.RGB, Modality.FLOW, Modality.AUDIO)
HOP = 2
"""Frames of a clip from one answer to the next: 8 answers a second at the paper's 16 frames."""


@dataclass(frozen=True)
class Row:
    """One way to encode a window."""

    name: str
    label: str
    kitchen: ModelConfig
    """Trained and scored."""
    paper: ModelConfig
    """Timed and counted."""


def rows() -> list[Row]:
    """Give the rows of the table."""
    tiny, student = preset('tiny'), preset('karmma_student')
    even = {'reduction': 'even'}
    return [
        Row('clip_tau', 'whole clip, τ-Average (the paper)', tiny, student),
        Row('clip_even', 'whole clip, even groups', replace(tiny, **even),
            replace(student, **even)),
        Row('chunks_half', 'chunks of 16 of 32 frames', preset('tiny_stream_8'),
            preset('karmma_student_stream_16')),
        Row('chunks_quarter', 'chunks of 8 of 32 frames', preset('tiny_stream'),
            preset('karmma_student_stream')),
        Row('causal', 'frame by frame, causal', preset('tiny_causal'),
            preset('karmma_student_causal')),
    ]


def main() -> None:
    """Train what is not trained, or measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--train', action='store_true', help='train and score what is not yet')
    parser.add_argument('--epochs', type=int, default=6, help='of each row [6]')
    parser.add_argument('--seeds', type=int, default=1, help='trainings of each row [1]')
    parser.add_argument('--rounds', type=int, default=5, help='timed answers of each row [5]')
    parser.add_argument('--out', type=Path, default=Path('docs/images/streaming.png'))
    options = parser.parse_args()
    if options.train:
        train_all(options.epochs, range(options.seeds))
        return
    scores = {row.name: scores_of(row, options.epochs, options.seeds) for row in rows()}
    figures = measure(rows(), options.rounds)
    print(table(scores, figures))
    draw(options.out, scores, figures)


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


# -- time ------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Figures:
    """What one answer costs at the paper's size, with V, F and A."""

    network_ms: float
    """Encoding what is new, and fusing; the median."""
    answer_ms: float
    """A live answer: the same, and the frames' flow, the spectrogram and all other preparation."""
    gflops: float
    parameters: int


def measure(which: list[Row], rounds: int) -> dict[str, Figures]:
    """Time the answers of each row in turns, so that a busy moment of the machine meets all."""
    subjects = {row.name: Subject(row.paper) for row in which}
    network_ms: dict[str, list[float]] = {name: [] for name in subjects}
    answer_ms: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            network_ms[name].append(milliseconds(subject.newest))
            window = next(subject.windows)
            answer_ms[name].append(milliseconds(lambda: subject.answer(window)))
    return {
        name: Figures(statistics.median(network_ms[name]), statistics.median(answer_ms[name]),
                      operations(subject.config) / 1e9, subject.parameters)
        for name, subject in subjects.items()}


def milliseconds(run: Callable[[], Any]) -> float:
    """Run once."""
    began = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - began)


class Subject:
    """A student with random weights behind a camera and a microphone that run."""

    def __init__(self, config: ModelConfig) -> None:
        spec, classes = setting('karmma_student')
        torch.manual_seed(0)
        self.config = config
        network = build(config, spec, classes).eval()
        self.parameters = sum(p.numel() for p in network.parameters())
        self.windows = windows(spec)
        self._network, self._memo = network, TokenMemo(EagerParts(network))
        self.newest = newest(network, spec)
        stretches = stretches_of(network).get(Modality.RGB)
        chunk = spec.num_frames // (stretches.count if stretches else 1)
        for _ in range(1 + (spec.num_frames - chunk) // HOP if chunk > 1 else 1):
            self.answer(next(self.windows))  # from now on all but the newest is known
        self.newest()

    @torch.inference_mode()
    def answer(self, window: Window) -> None:
        """Answer a window as the node does."""
        self._network.fuse(self._memo.tokens(window))


def newest(network: Karmma, spec: ClipSpec) -> Callable[[], Any]:
    """Give what encodes the newest of each sensor and fuses it with what is known."""
    device = next(network.parameters()).device
    parts = {m: _newest_of(network, m, torch.zeros(1, *spec.input_shape(m), device=device))
             for m in network.modalities}

    @torch.inference_mode()
    def answer() -> Any:
        return network.fuse({m: tokens() for m, tokens in parts.items()})

    return answer


@torch.inference_mode()
def _newest_of(network: Karmma, modality: Modality, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    encoder, embedding = network.encoders[modality.value], network.embedding(modality)
    if isinstance(encoder, ChunkedEncoder):
        chunk = x[:, :, :x.shape[2] // encoder.parts]
        known = [network.encode_chunks(modality, chunk)] * (encoder.parts - 1)
        return lambda: embedding.in_order(
            torch.cat([*known, network.encode_chunks(modality, chunk)])[None])
    if isinstance(encoder, CausalFrames):
        known, past = network.encode_next(modality, x, None)
        frames = x[:, :, :HOP]
        return lambda: embedding.in_order(torch.cat(
            [known[HOP:], network.encode_next(modality, frames, past)[0]])[None])
    return lambda: network.encode(modality, x)


def operations(config: ModelConfig) -> int:
    """Count the operations of one answer."""
    spec, classes = setting('karmma_student')
    with torch.device('meta'):
        network = build(config, spec, classes).eval()
    return count_operations(newest(network, spec))[0]


def windows(spec: ClipSpec) -> Iterator[Window]:
    """Give windows of a film at 30 Hz with sound, each ending two frames of a clip later."""
    stream = SensorStream(spec, SENSORS, {m: InputSettings(10**9) for m in SENSORS})
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (640, 480))
    period, frame = spec.frame_period_ns, 10_000
    while True:
        frame += 1
        now = frame * period
        stream.add_image(np.roll(picture, 3 * frame, 1), now, now)
        sound = rng.normal(0, 0.1, period * spec.audio.sample_rate // 10**9)
        stream.add_audio(sound.astype(np.float32), spec.audio.sample_rate, now - period, now)
        if frame > 10_000 + spec.num_frames and frame % HOP == 0:
            window = stream.window(now)
            assert window is not None and window.modalities == SENSORS
            yield window


# -- table and chart -------------------------------------------------------------------------

Scores = Mapping[str, list[dict[str, float]]]


def table(scores: Scores, figures: Mapping[str, Figures]) -> str:
    """Set the table of docs/streaming.md."""
    header = ['encoded at a time', 'all sensors, %', 'V alone, %', 'mean of subsets, %',
              'network, ms', 'live answer, ms', 'answers/s', 'faster', 'GFLOPs', 'parameters, M']
    lines = ['| ' + ' | '.join(header) + ' |', '|---|' + '---:|' * (len(header) - 1)]
    slowest = figures['clip_tau'].answer_ms
    for row in rows():
        found = figures[row.name]
        lines.append('| ' + ' | '.join([
            row.label, *(_percent(scores[row.name], pick) for pick in _PICKS),
            f'{found.network_ms:.0f}', f'{found.answer_ms:.0f}', f'{1e3 / found.answer_ms:.1f}',
            f'{slowest / found.answer_ms:.1f} ×', f'{found.gflops:.1f}',
            f'{found.parameters / 1e6:.1f}']) + ' |')
    return '\n'.join([*lines, '', _machine()])


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


def _machine() -> str:
    return (f'{time.strftime("%Y-%m-%d")}, {platform.machine()}, torch {torch.__version__}, '
            f'{torch.get_num_threads()} threads, eager, fp32')


def draw(path: Path, scores: Scores, figures: Mapping[str, Figures]) -> None:
    """Draw accuracy against the time of an answer."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    figure, axis = plt.subplots(figsize=(7.5, 4.2), layout='constrained')
    for pick, label, marker in zip(_PICKS, ('all sensors', 'V alone', 'mean of subsets'), 'osD'):
        points = [(figures[row.name].answer_ms,
                   100 * statistics.mean(pick(column) for column in scores[row.name]))
                  for row in rows() if scores[row.name]]
        axis.plot(*zip(*points), marker, label=label, markersize=7)
    for row in rows():
        axis.axvline(figures[row.name].answer_ms, color='0.85', zorder=0)
    for row in rows():
        if row.name != 'clip_even':  # as slow as the one before: its label would lie on that
            axis.annotate(row.label.replace('whole clip, τ-Average (the paper)', 'whole clip'),
                          (figures[row.name].answer_ms, 1.01), xycoords=('data', 'axes fraction'),
                          rotation=18, fontsize=8)
    axis.set(xscale='log', ylim=(60, 100), ylabel='action accuracy, Synthetic Kitchen, %',
             xlabel="ms for a live answer at the paper's size, V+F+A, eager, two cores")
    times = [found.answer_ms for found in figures.values()]
    ticks = [t * power for power in (10, 100, 1000) for t in (1, 2, 5)]
    axis.set_xticks([t for t in ticks if 0.7 * min(times) < t < 1.5 * max(times)])
    axis.xaxis.set_major_formatter(ticker.ScalarFormatter())
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.legend(loc='center', bbox_to_anchor=(0.5, 0.62))
    axis.grid(axis='y', alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f'wrote {path}')


if __name__ == '__main__':
    main()
