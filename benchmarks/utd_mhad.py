"""
Train and score networks of depth, inertial sensor and skeleton on UTD-MHAD.

Every step is a command of the package.

`python benchmarks/utd_mhad.py DATA` expects DATA/trials.csv with the columns name, action, person,
seconds, depth, imu and skeleton, the last three being paths of a grey video, a .csv file (time,
acceleration in g, rotation in °/s) and a .npy file [frames, 20, 3] (metres) of each trial. What is
trained is not trained again: a stopped run resumes.

Persons with odd numbers train, those with even numbers test, as in the literature. The numbers of
epochs are fixed: no score of a test person decides anything. Each person who trains is a fold of
the manifest: networks that are trained without that person are the cross-fitted teachers, and
their scores on that person choose the encoders.

Teachers are trained with the first seed alone; students with every seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
import csv
from dataclasses import dataclass
import io
import json
from pathlib import Path
import subprocess
import sys
import time

from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.model.bundle import load_bundle
import utd_mhad_page

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'config' / 'train' / 'utd_mhad_student.yaml'
SENSORS = ('imu', 'depth', 'skeleton')
TRAIN, TEST = '1357', '2468'
EPOCHS = {'imu': 70, 'depth': 48, 'skeleton': 60}
FUSION_EPOCHS, TEACHER_EPOCHS = 14, 14
WINDOWS = 8
"""Windows of each trial that are prepared once."""


@dataclass(frozen=True)
class Command:
    """One command of the package, and the model directory that it writes."""

    out: Path
    words: tuple[str, ...]

    def run(self, log: Path) -> None:
        """Run it unless its model is there; its output goes to `log`."""
        if (self.out / 'README.md').is_file():
            return
        started = time.monotonic()
        words = [sys.executable, '-m', 'karmma_ros.cli.main', 'train', *self.words, '--out',
                 str(self.out), '--run-dir', f'{self.out}.run', '--run.progress', 'false']
        with open(log, 'a', encoding='utf-8') as file:
            subprocess.run(words, check=True, stdout=file, stderr=file)
        seconds = round(time.monotonic() - started)
        self.duration.write_text(f'{seconds}\n', encoding='utf-8')
        print(f'{self.out.name}: {seconds} s', flush=True)

    @property
    def duration(self) -> Path:
        """Return the file that keeps the seconds that the command took."""
        return Path(f'{self.out}.run', 'seconds.txt')


class Plan:
    """The commands on one manifest."""

    def __init__(self, work: Path, manifest: Path) -> None:
        self.work, self.manifest = work, manifest

    def pretrain(
        self, sensor: str, seed: int, preset: str = 'tiny', held_out: str = '',
    ) -> Command:
        """Return the training of one encoder alone."""
        return self._command('pretrain', f'{preset}_{sensor}_{seed}', seed, preset, held_out, (
            '--modality', sensor, '--run.epochs', str(EPOCHS[sensor]),
            '--run.optimizer.modality_dropout', '0'))

    def student(
        self, name: str, seed: int, encoders: Iterable[Command], preset: str = 'tiny',
        options: Sequence[str] = (), held_out: str = '',
    ) -> Command:
        """Return the training of encoders and fusion block together."""
        return self._command('student', f'{name}_{seed}', seed, preset, held_out, (
            *_weights(encoders), '--run.epochs', str(FUSION_EPOCHS), *options))

    def teacher(self, seed: int, encoders: Iterable[Command]) -> Command:
        """Return the training of the fusion block over frozen, larger encoders."""
        return self._command('teacher', f'teacher_{seed}', seed, 'tiny_teacher', '', (
            *_weights(encoders), '--run.epochs', str(TEACHER_EPOCHS)))

    def _command(
        self, stage: str, name: str, seed: int, preset: str, held_out: str, words: Sequence[str],
    ) -> Command:
        suffix = f'_without_{held_out}' if held_out else ''
        return Command(self.work / f'{name}{suffix}', (
            stage, '--config', str(CONFIG), '--preset', preset, '--cache',
            str(self.work / f'cache{suffix}'), '--data.manifest.file', str(self.manifest),
            '--data.windows', str(WINDOWS), '--run.seed', str(seed),
            *(('--data.manifest.held_out_fold', held_out) if held_out else ()), *words))


def _weights(encoders: Iterable[Command]) -> list[str]:
    return [word for sensor, each in zip(SENSORS, encoders)
            for word in (f'--weights.{sensor}', str(each.out))]


SYSTEMS: dict[str, dict[str, tuple[str, ...]]] = {
    'tiny': {'none': ('baseline', 'delta', 'delta_unimodal'), 'frozen': ('karmma',),
             'all': ('karmma_cross_fitted',)},
    'tiny_causal': {'none': ('causal', 'causal_slow'),
                    'frozen': ('karmma_causal', 'karmma_causal_slow'), 'all': ()}}
"""Preset → teachers → networks that are trained with each seed, beside those of fewer teachers."""
TEACHERS = ('none', 'frozen', 'all')

STUDENTS = {'tiny': ('delta_unimodal',), 'tiny_causal': ('causal', 'causal_slow')}
"""Preset → students that are trained without each person who trains, and scored on that person.
The last is the cross-fitted teacher, and is calibrated by that person."""
LATE_FUSION = {'tiny': 'late fusion', 'tiny_causal': 'causal late fusion'}

UNIMODAL = ('--run.optimizer.unimodal_weight', '0.3')
"""Each modality is also trained alone through the fusion block."""
SLOW = ('--run.optimizer.encoder_lr_mult', '0.1')
"""The encoders keep more of what they learned alone."""


def systems(presets: Iterable[str], teachers: str) -> list[str]:
    """Return the networks that are trained with each seed."""
    counted = TEACHERS[:TEACHERS.index(teachers) + 1]
    return [name for preset in presets for each in counted for name in SYSTEMS[preset][each]]


def commands(plan: Plan, seed: int, teachers: str, presets: Sequence[str]) -> list[Command]:
    """
    Return every command of one seed, dependencies first.

    :param teachers: none; frozen: a larger one; all: cross-fitted ones, too.
    """
    trained: list[Command] = []
    distilled: tuple[str, ...] = ()
    if teachers != 'none':
        large = [plan.pretrain(sensor, 0, 'tiny_teacher') for sensor in SENSORS]
        teacher = plan.teacher(0, large)
        trained += [*large, teacher]
        distilled = ('--teacher', str(teacher.out))
    fold_teachers: list[str] = []
    if teachers == 'all':
        for preset in presets:
            for person in TRAIN:
                trained += commands_without(plan, person, preset)
                if preset == 'tiny':
                    fold_teachers += [f'--fold_teachers.{person}', str(trained[-1].out)]
    options: dict[str, tuple[str, ...]] = {
        'baseline': ('--run.optimizer.modality_dropout', '0'),
        'delta': (), 'delta_unimodal': UNIMODAL, 'karmma': (*UNIMODAL, *distilled),
        'karmma_cross_fitted': (*UNIMODAL, *fold_teachers),
        'causal': UNIMODAL, 'causal_slow': (*UNIMODAL, *SLOW),
        'karmma_causal': (*UNIMODAL, *distilled),
        'karmma_causal_slow': (*UNIMODAL, *SLOW, *distilled)}
    for preset in presets:
        encoders = [plan.pretrain(sensor, seed, preset) for sensor in SENSORS]
        trained += encoders
        for name in systems([preset], teachers):
            built = 'tiny_baseline' if name == 'baseline' else preset
            trained.append(plan.student(name, seed, encoders, built, options[name]))
    return trained


def commands_without(plan: Plan, person: str, preset: str) -> list[Command]:
    """Return the trainings of students without one of the persons who train."""
    encoders = [plan.pretrain(sensor, 0, preset, person) for sensor in SENSORS]
    return [*encoders, *(
        plan.student(name, 0, encoders, preset,
                     (*UNIMODAL, *SLOW) if name.endswith('slow') else UNIMODAL, person)
        for name in STUDENTS[preset])]


def write_manifest(data: Path, path: Path, splits: Mapping[str, str]) -> Path:
    """
    Write the manifest of the trials of some persons.

    The inertial sensor recorded 0.7 to 2.8 s longer than the camera and has no common clock with
    it: its times are shifted so that both recordings have the same middle.

    :param splits: person → split.
    """
    with open(data / 'trials.csv', newline='', encoding='utf-8') as file:
        trials = [row for row in csv.DictReader(file) if row['person'] in splits]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator='\n')
    writer.writerow(['split', 'fold', 'name', 'start', 'stop', 'action', *SENSORS])
    for row in trials:
        imu = _centred(data / row['imu'], path.parent / row['imu'], float(row['seconds']))
        writer.writerow([
            splits[row['person']], row['person'], row['name'], 0, row['seconds'], row['action'],
            imu, (data / row['depth']).resolve(), (data / row['skeleton']).resolve()])
    return _written(path, table.getvalue())


def _centred(source: Path, path: Path, seconds: float) -> Path:
    header, *lines = source.read_text(encoding='utf-8').split()
    cells = [line.split(',', 1) for line in lines]
    shift = (float(cells[-1][0]) - seconds) / 2
    path.parent.mkdir(parents=True, exist_ok=True)
    return _written(path, '\n'.join([header, *(
        f'{float(time) - shift:.4f},{rest}' for time, rest in cells)]) + '\n').resolve()


def _written(path: Path, text: str) -> Path:
    """Write a file unless it has the text: the cached windows of a changed file are void."""
    if not path.exists() or path.read_text(encoding='utf-8') != text:
        path.write_text(text, encoding='utf-8')
    return path


def evaluate(
    plan: Plan, seeds: int, teachers: str, presets: Sequence[str], out: Path,
) -> None:
    """Score all networks for every subset, late fusion of the encoders' own among them."""
    models = []
    for seed in range(seeds):
        models += [*_late_fusion(plan, seed, presets), *(
            f'{name}={plan.work / f"{name}_{seed}"}' for name in systems(presets, teachers))]
    if teachers != 'none':
        models.append(f'teacher={plan.work / "teacher_0"}')
    if teachers == 'all' and 'tiny_causal' in presets:
        models += [f'calibrated={commands_without(plan, person, "tiny_causal")[-1].out}'
                   for person in TRAIN]
    _evaluate(plan, models, out)


def cross_validate(plan: Plan, presets: Sequence[str], out: Path) -> list[Path]:
    """Score the networks without each person who trains on that person."""
    scores = []
    for person in TRAIN:
        students = [
            f'{name}={command.out}' for preset in presets for name, command in zip(
                STUDENTS[preset], commands_without(plan, person, preset)[len(SENSORS):])]
        _evaluate(plan, [*_late_fusion(plan, 0, presets, person), *students], out / person,
                  '--split', 'validation', '--data.manifest.held_out_fold', person)
        scores.append(out / person / 'scores.json')
    return scores


def _late_fusion(
    plan: Plan, seed: int, presets: Iterable[str], held_out: str = '',
) -> list[str]:
    models = []
    for preset in presets:
        alone = (str(plan.pretrain(sensor, seed, preset, held_out).out) for sensor in SENSORS)
        models.append(f'{LATE_FUSION[preset]}={"+".join(alone)}')
    return models


def _evaluate(plan: Plan, models: Iterable[str], out: Path, *options: str) -> None:
    subprocess.run([
        sys.executable, '-m', 'karmma_ros.cli.main', 'evaluate', *models, '--out', str(out),
        '--config', str(CONFIG), '--data.manifest.file', str(plan.manifest), *options],
        check=True)


def write_page(
    plan: Plan, trained: Iterable[Command], validated: Iterable[Path], options: str,
    student: str, page: Path,
) -> None:
    """
    Write tables and figures.

    :param validated: scores of `cross_validate`.
    :param options: of this program, that decide the figures.
    :param student: name of the model whose confusion matrices are drawn.
    """
    scores = plan.work / 'scores'
    # A training that was stopped and resumed has no duration.
    seconds = {command.out.name: float(command.duration.read_text(encoding='utf-8'))
               for command in trained if command.duration.is_file()}
    figures = utd_mhad_page.collect(
        [json.loads(path.read_text(encoding='utf-8')) for path in (
            scores / 'scores.json', *validated)], seconds, options)
    runs = utd_mhad_page.add_run(utd_mhad_page.load_runs(), figures)
    utd_mhad_page.FIGURES.write_text(
        json.dumps({'runs': runs}, indent=1) + '\n', encoding='utf-8')
    page.write_text(utd_mhad_page.written(page.read_text(encoding='utf-8'), runs),
                    encoding='utf-8')
    images = page.parent / 'images'
    utd_mhad_page.plot_dropout(images / 'real_data_dropout.png', runs)
    # One shard, for there are fewer trials than a shard has; the newest, if trained again.
    shards = (scores / 'predictions').glob(f'{student}_*/00000.npz')
    newest = max(shards, key=lambda path: path.stat().st_mtime)
    utd_mhad_page.plot_confusion(
        images / 'real_data_confusion.png', DatasetPredictions.load(newest),
        load_bundle(plan.work / student).vocabulary.heads['action'])


def main() -> None:
    """Train and score everything."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n\n')[0])
    parser.add_argument('data', type=Path, help='folder with trials.csv')
    parser.add_argument('--work', type=Path, default=ROOT / 'build' / 'utd_mhad',
                        help='folder for manifests, models and scores')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--teachers', choices=TEACHERS, default='all',
                        help='teachers to train, and students from them: frozen is a larger one; '
                        'all are cross-fitted ones, too, with cross-validation')
    parser.add_argument('--presets', nargs='+', choices=SYSTEMS, default=[*SYSTEMS],
                        help='whose networks are trained; the page keeps the rows of the others')
    parser.add_argument('--page', type=Path, default=ROOT / 'docs' / 'real_data.md',
                        help='page to write the measurements into')
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    splits = {**dict.fromkeys(TRAIN, 'train'), **dict.fromkeys(TEST, 'test')}
    manifest = write_manifest(options.data, options.work / 'segments.csv', splits)
    plan, trained = Plan(options.work, manifest), {}
    for seed in range(options.seeds):
        for command in commands(plan, seed, options.teachers, options.presets):
            command.run(options.work / 'log.txt')
            trained[command.out] = command
    evaluate(plan, options.seeds, options.teachers, options.presets, options.work / 'scores')
    validated = [] if options.teachers != 'all' else cross_validate(
        plan, options.presets, options.work / 'validation')
    student = f'{systems(options.presets, options.teachers)[-1]}_0'
    given = (f'--seeds {options.seeds} --teachers {options.teachers} '
             f'--presets {" ".join(options.presets)}')
    write_page(plan, trained.values(), validated, given, student, options.page)


if __name__ == '__main__':
    main()
