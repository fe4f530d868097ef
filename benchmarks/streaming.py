"""
The student in chunks, and frame by frame, beside the clip student: accuracy against time.

`python benchmarks/streaming.py --train` trains every row on the Synthetic Kitchen, on the same
clips with the same settings, seeds and logits of a teacher, from encoders that were each trained
alone; exports it and scores the exports beside it, and scores the networks on a video of actions
in a row. Encoders and a teacher of docs/training.md are used where they are; encoders that lack
are trained. Finished training and scores are reused, and stopped training resumes. The causal
student against the clip student, by the included model as the teacher:

    python benchmarks/streaming.py --train --rows clip_even causal --seeds 3 \
        --teacher models/synthetic_kitchen

Without `--train` it times the networks live at the paper's size, with random weights, in PyTorch
eager and exported: a camera and a microphone run, inference runs every two frames of a clip, and
only new frames are encoded. The logits of an export are compared with eager's first. All are timed
in turns. The tables and the chart of docs/streaming.md are made of both by run.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
import json
import logging
from pathlib import Path
import time
from typing import Any
import warnings

from exported import calibration_of, exported
from karmma_ros.data.datasets import DataSettings, open_splits
from karmma_ros.data.samples import Splits
from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings
from karmma_ros.evaluation.classification import top1
from karmma_ros.evaluation.inference import (
    BackendNetwork,
    collect,
    collect_sharded,
    LoaderSettings,
)
from karmma_ros.evaluation.robustness import average_accuracy
from karmma_ros.evaluation.window_inference import inference_for
from karmma_ros.model.backends.selection import read_export
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.presets import preset, unimodal
from karmma_ros.model.pretrained import load_pretrained
from karmma_ros.training.loaders import scoring_loader
from karmma_ros.training.module import OptimizerSettings
from karmma_ros.training.precomputed import TeacherLogitCache
from karmma_ros.training.run import RunSettings, train
from karmma_ros.training.teacher import check_teacher
from streaming_bag import EPISODES, recognised, video
from streaming_live import cost_of, HOP, measure
from streaming_page import AS_THE_NODE, EAGER, INDEPENDENT, LARGEST_LOSS, SCORES
import torch

CLIPS = 7200
"""Training clips, as in config/train/synthetic_kitchen_student.yaml."""
EXISTING = Path('runs')
"""Where docs/training.md puts the teacher and the pretrained encoders of `tiny`."""
TEACHER = EXISTING / 'kitchen_teacher'
WORK = Path('.cache/streaming')


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
    """What it is timed and scored in beside eager; None: it costs what the first row does."""


def rows() -> list[Row]:
    """Return the rows of the table."""
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
    """Train what is not trained, or time; print or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--train', action='store_true', help='train and score what is not yet')
    parser.add_argument('--epochs', type=int, default=6, help='of each row [6]')
    parser.add_argument('--seeds', type=int, default=1, help='trainings of each row [1]')
    parser.add_argument('--clips', type=int, default=CLIPS, metavar='N',
                        help=f'training clips; fewer for a trial [{CLIPS}]')
    parser.add_argument('--teacher', type=Path, default=TEACHER, metavar='DIR',
                        help='its model directory [%(default)s]')
    parser.add_argument('--rounds', type=int, default=5, help='timed predictions of each row [5]')
    parser.add_argument('--rows', nargs='+', metavar='ROW', default=[row.name for row in rows()],
                        help=f'these only [{" ".join(row.name for row in rows())}]')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there')
    options = parser.parse_args()
    scores = (train_all(options.rows, options.epochs, range(options.seeds), options.clips,
                        options.teacher) if options.train
             else time_all(options.rows, options.rounds))
    print(json.dumps(scores, indent=1))
    if options.json:
        options.json.write_text(json.dumps(scores), encoding='utf-8')


# -- accuracy --------------------------------------------------------------------------------

def train_all(
    chosen: Collection[str], epochs: int, seeds: range, clips: int = CLIPS,
    teacher: Path = TEACHER,
) -> dict[str, Any]:
    """
    Train rows from the same start; finished ones are reused.

    :param clips: of the training split; the others and those of pretraining are in proportion.
    :param teacher: its model directory.
    :returns: `clips`: row → backend → scores, for each seed; `video`: row → how windows are
        processed → scores, for each seed.
    """
    warnings.filterwarnings('ignore')
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    splits, logits = _data_and_teacher(clips, teacher)
    scored: dict[str, dict[str, list[dict[str, float]]]] = {}
    videos: dict[str, dict[str, list[dict[str, float]]]] = {}
    for seed in seeds:
        for row in rows():
            if row.name not in chosen:
                continue
            folder = _folder(
                f'streaming/{teacher.name}_{row.name}_{epochs}_{seed}', clips)
            if not _is_trained(folder, row.kitchen):
                train_row(_started(row.kitchen, clips), folder, splits, logits, epochs, seed)
            for runs, scores in scores_of(folder, splits, row.exports or ()).items():
                scored.setdefault(row.name, {}).setdefault(runs, []).append(scores)
            for mode, scores in video_scores_of(folder, clips).items():
                videos.setdefault(row.name, {}).setdefault(mode, []).append(scores)
    return {'clips': scored, 'video': videos}


def train_row(
    config: ModelConfig, folder: Path, splits: Splits, teacher: TeacherLogitCache | None,
    epochs: int, seed: int, **optimizer: float,
) -> None:
    """Train one network as config/train/synthetic_kitchen_student.yaml, without corruption."""
    began = time.monotonic()
    torch.manual_seed(seed)
    network = build(config, splits.spec, splits.vocabulary)
    load_pretrained(network, config, splits.spec)
    settings = OptimizerSettings(**{
        'learning_rate': 1e-3, 'weight_decay': 0.01, 'gradient_clip': 2.0,
        'modality_dropout': 0.5, 'gamma': 0.7, **optimizer})
    run = RunSettings(epochs=epochs, batch_size=32, seed=seed, precision='bf16-mixed',
                      progress=False, optimizer=settings)
    train(network, splits.train, splits.validation, run, WORK / folder.name, teacher)
    scores = top1(collect(network, scoring_loader(splits.test, network.modalities, 64)))
    minutes = round((time.monotonic() - began) / 60, 1)
    save_bundle(folder, network, config, splits.spec, splits.vocabulary, dataset=splits.name,
                card=f'# {folder.name}\n', metrics={'test_top1': scores, 'minutes': minutes})
    print(f'{folder.name}: {minutes} minutes, '
          f'{100 * next(iter(scores.values()))["action"]:.1f} % with all sensors', flush=True)


def _is_trained(folder: Path, config: ModelConfig) -> bool:
    """Return whether the network was trained; one that its preset had before does not count."""
    path = folder / 'config.json'
    if not path.is_file():
        return False
    stored = ModelConfig.from_dict(json.loads(path.read_text())['architecture']).to_dict()
    wanted = json.loads(json.dumps(config.to_dict()))
    for each in (stored, wanted):
        for encoder in each['encoders'].values():
            del encoder['weights']
    return bool(json.loads(json.dumps(stored)) == wanted)


def _started(config: ModelConfig, clips: int) -> ModelConfig:
    """Let every encoder start from one that was trained alone, for as long."""
    encoders = {}
    for modality, encoder in config.encoders.items():
        causal = encoder.name in ('causal_frames', 'causal_mel')
        origin = config if causal else preset('tiny')
        folder = _folder(f'kitchen_{origin.preset}_{modality}', clips)
        alone = unimodal(origin, modality)
        if not _is_trained(folder, alone):
            train_row(alone, folder, _splits(_other_kitchen(clips)), None, 9, 0,
                      weight_decay=0.05, learning_rate=2e-3, modality_dropout=0.0,
                      label_smoothing=0.1)
        encoders[modality] = replace(encoder, weights=str(folder / 'model.safetensors'))
    return replace(config, encoders=encoders)


def _data_and_teacher(clips: int, folder: Path) -> tuple[Splits, TeacherLogitCache]:
    """Return the data and the cached logits of the teacher on them."""
    kitchen = _kitchen(clips)
    splits, teacher = _splits(kitchen), load_bundle(folder)
    check_teacher(teacher, teacher.network, splits.spec, splits.vocabulary)
    return splits, TeacherLogitCache.build(
        _folder('logits', clips, WORK), teacher.network, splits.train,
        repr(DataSettings(synthetic_kitchen=kitchen)))


def _kitchen(clips: int) -> KitchenSettings:
    """Return the clips of students, as in config/train/synthetic_kitchen_student.yaml."""
    return KitchenSettings(train=clips, validation=-(-clips // 9), test=-(-2 * clips // 9),
                           idle=0.1)


def _other_kitchen(clips: int) -> KitchenSettings:
    """Return those of pretraining, as in config/train/synthetic_kitchen_pretrain.yaml."""
    return KitchenSettings(train=-(-2 * clips // 3), validation=-(-clips // 18),
                           test=-(-clips // 18), seed=1, idle=0.1)


def _splits(kitchen: KitchenSettings) -> Splits:
    settings = DataSettings(synthetic_kitchen=kitchen)
    return open_splits(settings, None, Path('.cache/synthetic_kitchen'))


def _folder(name: str, clips: int, parent: Path = EXISTING) -> Path:
    return parent / (name if clips == CLIPS else f'{name}_of_{clips}_clips')


def scores_of(
    folder: Path, splits: Splits, exports: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Return backend → summary of the action accuracies of a trained network, percent."""
    description = json.loads((folder / 'config.json').read_text())
    eager = _actions(description['metrics']['test_top1'])
    scores = {EAGER: _summary(eager)}
    for words in exports:
        label, own = _exported_scores(folder, splits, words)
        loss = max(eager[subset] - own[subset] for subset in own)
        scores[label] = {**_summary(own), LARGEST_LOSS: loss}
        print(f'{folder.name}, {label}: loses at most {loss:.2f} points', flush=True)
    return scores


def _exported_scores(
    folder: Path, splits: Splits, words: str
) -> tuple[str, dict[str, float]]:
    """Score an export of a trained network: its label, and subset → actions right, percent."""
    bundle = load_bundle(folder)
    export_ = exported(bundle, words, lambda: calibration_of(bundle, splits.train))
    predictions = collect_sharded(
        BackendNetwork(read_export(bundle, export_)), splits.test, range(len(splits.test)),
        WORK / 'predictions' / f'{folder.name}_{export_.sha256[:16]}', LoaderSettings())
    return export_.label, _actions(top1(predictions))


def video_scores_of(folder: Path, clips: int) -> dict[str, dict[str, float]]:
    """Return how windows are processed → summary of the accuracies in a video, percent."""
    bundle = load_bundle(folder)
    scores = {}
    for mode in (AS_THE_NODE, INDEPENDENT) if inference_for(bundle).stateful else (AS_THE_NODE,):
        file = WORK / 'video' / f'{bundle.sha256[:16]}_{mode.replace(" ", "_")}.json'
        if not file.is_file():
            path = _folder('video', clips, WORK).with_suffix('.mcap')
            right = recognised(video(path, -(-EPISODES * clips // CLIPS)), bundle, HOP,
                               independent=mode == INDEPENDENT)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(right))
        scores[mode] = _summary(json.loads(file.read_text()))
        print(f'{folder.name}, a video, {mode}: {scores[mode]}', flush=True)
    return scores


def _actions(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {subset: 100 * own['action'] for subset, own in scores.items()}


def _summary(right: Mapping[str, float]) -> dict[str, float]:
    return dict(zip(SCORES, (right['V+F+A+D'], right['V'], average_accuracy(right))))


# -- time ------------------------------------------------------------------------------------

def time_all(chosen: Collection[str], rounds: int) -> dict[str, Any]:
    """Time the rows that are chosen; give what the network of each row costs, too."""
    figures = measure({row.name: (row.paper, row.exports) for row in rows()
                       if row.exports is not None and row.name in chosen}, rounds)
    scores = {}
    for row in rows():
        operations, parameters = cost_of(row.paper)
        scores[row.name] = {
            'label': row.label, 'gflops': operations / 1e9, 'parameters_m': parameters / 1e6,
            'taken': {runs: asdict(own) for (name, runs), own in figures.items()
                      if name == row.name}}
    return {'rows': scores}


if __name__ == '__main__':
    main()
