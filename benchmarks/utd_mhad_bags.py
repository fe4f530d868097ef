"""
Add classes to a model by few labelled segments of bags of UTD-MHAD.

`python benchmarks/utd_mhad_bags.py DATA` expects DATA as `utd_mhad.py` does, and writes a bag of
each person: inertial sensor and skeleton of all trials, one after another. Each draw leaves five
of the 27 actions out. Every step after that is a command of the package: a model of the other 22
is trained on the bags of the persons who train, the means of its classes are computed, and
`karmma finetune --add-classes` adds the five by five segments of each, of the same persons. All
27 are scored on the bags of the persons who test; no score of them decides anything. The unknown
score of the model of 22 is to be greater for the trials of the other five: the table has the area
under its ROC curve. What is there is not computed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
import csv
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from karmma_ros.bags.writer import BagWriter
from karmma_ros.calibration import unknown_score
from karmma_ros.cli.open_data import open_data
from karmma_ros.clip import NANOSECONDS
from karmma_ros.data.datasets import DataSettings
from karmma_ros.data.labels.label_file import ActionLabel, write_label_file
from karmma_ros.data.recordings import BagSettings
from karmma_ros.evaluation.inference import collect
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.modalities.imu import STANDARD_GRAVITY
from karmma_ros.model.bundle import load_bundle
from karmma_ros.training.loaders import scoring_loader
from logged_commands import added_scores, LoggedCommands
import numpy as np
from unknown_actions import auroc
from utd_mhad import CONFIG, EPOCHS, FUSION_EPOCHS, ROOT, TEST, TRAIN, UNIMODAL, WINDOWS
from utd_mhad_page import machine

SENSORS = ('imu', 'skeleton')
BEGIN, END = '<!-- added classes -->', '<!-- /added classes -->'
NEW, SHOTS = 5, 5
_START_NS = 1_735_689_600 * NANOSECONDS
_PAUSE_S = 3.0
"""Between two trials: the inertial sensor recorded up to 1.4 s before and after each."""
_SKELETON_RATE = 30.0
_VALIDATION = '7'
"""Person of the validation split that `karmma calibrate` needs; this person trains, too."""


@dataclass(frozen=True)
class Trial:
    """One trial in the bag of its person."""

    name: str
    action: str
    person: str
    start_s: float
    seconds: float

    def label(self, split: str) -> ActionLabel:
        """Return its label."""
        return ActionLabel(f'person_{self.person}', self.start_s, self.start_s + self.seconds,
                           {'action': self.action}, split)


def read_trials(data: Path) -> list[Trial]:
    """Return the trials of all persons, in the order of their bags."""
    with open(data / 'trials.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    trials, now = [], dict[str, float]()
    for row in rows:
        person, seconds = row['person'], float(row['seconds'])
        if person not in now:  # times count from the first message of the bag
            first = Trial(row['name'], row['action'], person, 0.0, seconds)
            now[person] = -min(second for second, _, _ in _samples(data, first))
        trials.append(Trial(row['name'], row['action'], person, now[person], seconds))
        now[person] += seconds + _PAUSE_S
    return trials


def write_bag(data: Path, trials: Iterable[Trial], path: Path) -> None:
    """Write the bag of a person."""
    with BagWriter(path) as bag:
        for trial in trials:
            for second, sensor, values in sorted(
                    _samples(data, trial), key=lambda sample: sample[:2]):
                stamp_ns = _START_NS + round((trial.start_s + second) * NANOSECONDS)
                if sensor == 'imu':
                    bag.imu(stamp_ns, values[:3] * STANDARD_GRAVITY, np.deg2rad(values[3:]))
                else:
                    bag.skeleton(stamp_ns, values)


def _samples(data: Path, trial: Trial) -> Iterator[tuple[float, str, np.ndarray]]:
    """Yield time since the start of a trial, sensor and values; both have the same middle."""
    imu = np.loadtxt(data / 'imu' / f'{trial.name}.csv', delimiter=',', skiprows=1)
    shift = (imu[-1, 0] - trial.seconds) / 2
    for row in imu:
        yield float(row[0] - shift), 'imu', row[1:]
    for i, joints in enumerate(np.load(data / 'skeleton' / f'{trial.name}.npy')):
        yield i / _SKELETON_RATE, 'skeleton', joints


class Draw:
    """The commands of one draw of the classes that are left out at first."""

    def __init__(self, number: int, trials: Sequence[Trial], bags: Path, work: Path) -> None:
        self.number, self.bags, self.work = number, bags, work / f'draw_{number}'
        self.command = LoggedCommands(self.work)
        rng = np.random.default_rng(number)
        actions = sorted({trial.action for trial in trials})
        self.added = sorted(rng.choice(actions, NEW, replace=False).tolist())
        self._known = [x for x in trials if x.action not in self.added]
        self._test = [x for x in trials if x.person in TEST]
        self._few = []
        for action in self.added:
            own = [x for x in trials if x.action == action and x.person in TRAIN]
            self._few += [own[i] for i in sorted(rng.permutation(len(own))[:SHOTS])]

    def run(self) -> tuple[float, float, float]:
        """Run all commands; return accuracy in percent: added, known before, known after."""
        self.work.mkdir(parents=True, exist_ok=True)
        own = [x for x in self._known if x.person in TRAIN]
        test = [x.label('test') for x in self._known if x.person in TEST]
        base = self._labels('base', [*(x.label('train') for x in own), *test])
        means = self._labels('means', [*(
            x.label('validation' if x.person == _VALIDATION else 'train') for x in own), *test])
        few = self._labels('few', [*(x.label('train') for x in self._few),
                                   *(x.label('test') for x in self._test)])
        for sensor in SENSORS:
            self._train(sensor, base, 'pretrain', '--modality', sensor, '--run.epochs',
                        str(EPOCHS[sensor]), '--run.optimizer.modality_dropout', '0')
        self._train('base', base, 'student', *(
            word for sensor in SENSORS
            for word in (f'--weights.{sensor}', str(self.work / sensor))),
            '--run.epochs', str(FUSION_EPOCHS), *UNIMODAL)
        self.command('class_means', 'calibrate', str(self.work / 'base'), '--class-means', 'all',
                      *self._data(means))
        return added_scores(self.command(
            'finetune', 'finetune', str(self.bags), '--labels', str(few), '--from',
            str(self.work / 'base'), '--add-classes', '--out', str(self.work / 'more'), '--cache',
            str(self.work / 'cache')))

    def unknown_area(self) -> float:
        """Return how well the base detects the test trials of the other classes, percent."""
        bundle = load_bundle(self.work / 'base')
        labels = self._labels('unknown', [
            *(x.label('train') for x in self._known if x.person in TRAIN),
            *(x.label('train') for x in self._few), *(x.label('test') for x in self._test)])
        files = tuple(str(path) for path in sorted(self.bags.glob('*.mcap')))
        splits = open_data(DataSettings('bags', bags=BagSettings(files, str(labels))),
                           bundle.spec, self.work / 'cache')
        predictions = collect(
            bundle.network, scoring_loader(splits.test, bundle.network.modalities, 32),
            chosen=[tuple(bundle.network.modalities)])
        logits, = predictions.logits.values()
        score, actions = unknown_score(logits), splits.vocabulary.heads['action']
        added = np.array([actions[i] in self.added for i in predictions.labels['action']])
        return 100 * auroc(score[~added], score[added])

    def _labels(self, name: str, labels: Sequence[ActionLabel]) -> Path:
        path = self.work / f'{name}.csv'
        write_label_file(path, labels)
        return path

    def _data(self, labels: Path) -> tuple[str, ...]:
        bags = ','.join(str(path) for path in sorted(self.bags.glob('*.mcap')))
        return ('--data.dataset', 'bags', '--data.bags.files', f'[{bags}]', '--data.bags.labels',
                str(labels), '--data.bags.windows', str(WINDOWS), '--data.bags.title', 'UTD-MHAD',
                '--cache', str(self.work / 'cache'))

    def _train(self, name: str, labels: Path, stage: str, *words: str) -> None:
        self.command(
            name, 'train', stage, '--config', str(CONFIG), '--modalities',
            f'[{",".join(SENSORS)}]', *self._data(labels), '--data.windows', '0', '--run.seed',
            str(self.number), '--run.progress', 'false', '--out', str(self.work / name),
            '--run-dir', str(self.work / f'{name}.run'), *words)


def table(draws: Sequence[Sequence[str]], scores: Sequence[Sequence[float]]) -> str:
    """
    Return the table of all draws, with their mean.

    :param scores: of each draw: added, known before, known after, area of the unknown score.
    """
    rows = [[', '.join(added), *_figures(each)] for added, each in zip(draws, scores)]
    rows.append(['mean', *_figures(np.mean(scores, axis=0).tolist())])
    return markdown_table(['added actions', 'added, %', 'known before, %', 'known after, %',
                           'difference, points', 'area of the unknown score, %'], rows)


def _figures(scores: Sequence[float]) -> list[str]:
    added, before, after, area = scores
    return [f'{added:.1f}', f'{before:.1f}', f'{after:.1f}', f'{after - before:+.1f}',
            f'{area:.1f}']


def main() -> None:
    """Run all draws, and write their table into a page."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n\n')[0])
    parser.add_argument('data', type=Path, help='folder with trials.csv')
    parser.add_argument('--draws', type=int, default=3, help='draws of the classes to add')
    parser.add_argument('--work', type=Path, default=ROOT / 'build' / 'utd_mhad_bags',
                        help='folder for bags, labels and models')
    parser.add_argument('--page', type=Path, default=ROOT / 'docs' / 'real_data.md',
                        help='page to write the table into')
    options = parser.parse_args()
    trials, bags = read_trials(options.data), options.work / 'bags'
    for person in sorted({trial.person for trial in trials}):
        if not (bags / f'person_{person}.mcap').exists():
            write_bag(options.data, [x for x in trials if x.person == person],
                      bags / f'person_{person}.mcap')
    draws = [Draw(number, trials, bags, options.work) for number in range(options.draws)]
    scores = [(*draw.run(), draw.unknown_area()) for draw in draws]
    this, text = machine(), options.page.read_text(encoding='utf-8')
    origin = (f'`python benchmarks/utd_mhad_bags.py DATA --draws {options.draws}`, '
              f'{this["processor"]}, {this["cores"]} cores, Python {this["python"]}, torch '
              f'{this["torch"]}, {date.today().isoformat()}')
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f'{options.page} has no text between {BEGIN} and {END}')
    options.page.write_text(
        f'{before}{BEGIN}\n{origin}.\n\n{table([x.added for x in draws], scores)}\n{END}{after}',
        encoding='utf-8')


if __name__ == '__main__':
    main()
