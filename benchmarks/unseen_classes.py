"""
Fine-tune models on bags whose classes their bases never saw.

`python benchmarks/unseen_classes.py` divides the classes of the Synthetic Kitchen: three verbs and
five nouns train a base from nothing, the other five verbs and five nouns are in bags of the same
kitchen. Every step is a command of the package. Four bags of all 25 actions train and four others
test; `karmma finetune` is given 25 segments, one of each action and five of each verb and noun, or
all 100, 20 of each verb and noun. Each draw divides the classes anew, with a base and bags of its
own. `--add-classes` instead trains on 20 of the 25 actions, from five bags, and then adds the
other five by five segments of each, without the data of the 20. What is there is not computed
again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
import re

from karmma_ros.data.labels.label_file import ActionLabel, read_label_file, write_label_file
from karmma_ros.data.synthetic_kitchen.vocabulary import NOUNS, VERBS
from karmma_ros.evaluation.tables import markdown_table
from logged_commands import added_scores, LoggedCommands
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
VERBS_OF_BASE, NOUNS_OF_BASE, BAGS = 3, 5, 4
TRAINING = (
    '--run.batch_size', '32', '--run.precision', 'bf16-mixed', '--run.progress', 'false',
    '--run.optimizer.learning_rate', '2e-3', '--run.optimizer.weight_decay', '0.05',
    '--run.optimizer.gradient_clip', '2.0', '--run.optimizer.modality_dropout', '0.5',
    '--run.optimizer.unimodal_weight', '0.3')
SHOTS = {5: 'few', 20: 'all'}
"""Training segments of each verb and noun → label file."""


class Draw:
    """One division of the classes, and its commands."""

    def __init__(self, number: int, work: Path) -> None:
        self.number, self.work = number, work / f'draw_{number}'
        self.command = LoggedCommands(self.work)
        rng = np.random.default_rng(number)
        verbs = set(rng.choice(VERBS, VERBS_OF_BASE, replace=False).tolist())
        nouns = set(rng.choice(NOUNS, NOUNS_OF_BASE, replace=False).tolist())
        self.base = [x for x in VERBS if x in verbs], [x for x in NOUNS if x in nouns]
        self.new = [x for x in VERBS if x not in verbs], [x for x in NOUNS if x not in nouns]
        self.bags = self.work / 'bags'

    def train_base(self, clips: int, epochs: int) -> None:
        """Train the base from nothing."""
        verbs, nouns = (f'[{",".join(names)}]' for names in self.base)
        self.command(
            'base', 'train', 'student', '--preset', 'tiny', '--data.synthetic_kitchen.train',
            str(clips), '--data.synthetic_kitchen.validation', str(clips // 10),
            '--data.synthetic_kitchen.test', str(clips // 10), '--data.synthetic_kitchen.verbs',
            verbs, '--data.synthetic_kitchen.nouns', nouns, '--run.epochs', str(epochs),
            '--run.seed', str(self.number), *TRAINING, '--cache', str(self.work / 'cache'),
            '--out', str(self.work / 'base'), '--run-dir', str(self.work / 'base.run'))

    def write_bags(self) -> None:
        """Write bags of the other classes, and their labels."""
        verbs, nouns = self.new
        for i in range(2 * BAGS):
            self.command(
                f'bag_{i}', 'bag', 'synthetic', str(self.bags / f'day_{i}.mcap'), '--verbs',
                *verbs, '--nouns', *nouns, '--episodes', str(len(verbs) * len(nouns)), '--seed',
                str(1000 + 100 * self.number + i))
        self.command('labels', 'data', 'labels', *map(str, sorted(self.bags.glob('*.mcap'))),
                     '--out', str(self.work / 'every.csv'))
        labels = read_label_file(self.work / 'every.csv').labels
        test = [replace(x, split='test') for x in labels if self._bag(x) >= BAGS]
        training = [replace(x, split='train') for x in labels if self._bag(x) < BAGS]
        actions = sorted({x.text for x in training})
        few = [x for x in training if actions.index(x.text) % BAGS == self._bag(x)]
        for shots, chosen in ((5, few), (20, training)):
            write_label_file(self.work / f'{SHOTS[shots]}.csv', [*chosen, *test])

    def add_classes(self) -> tuple[float, float, float]:
        """Return the accuracy of added actions, and of the others before and after, percent."""
        verbs, nouns = self.new
        fifth = f'day_{2 * BAGS}'
        self.command(
            'bag_fifth', 'bag', 'synthetic', str(self.bags / f'{fifth}.mcap'), '--verbs', *verbs,
            '--nouns', *nouns, '--episodes', str(len(verbs) * len(nouns)), '--seed',
            str(1000 + 100 * self.number + 50))
        self.command('labels_fifth', 'data', 'labels', *map(str, sorted(self.bags.glob('*.mcap'))),
                     '--out', str(self.work / 'nine.csv'))
        added = {f'{verb} {noun}' for verb, noun in zip(sorted(verbs), sorted(nouns))}
        labels = [replace(
            x, classes={'action': ' '.join(x.classes.values())},
            split='test' if BAGS <= self._bag(x) < 2 * BAGS else 'train')
            for x in read_label_file(self.work / 'nine.csv').labels]
        write_label_file(self.work / 'known.csv', [
            x for x in labels if x.classes['action'] not in added])
        write_label_file(self.work / 'added.csv', [
            x for x in labels if x.classes['action'] in added or x.split == 'test'])
        known, log = self.work / 'known', ''
        for name, base, more in (('known', self.work / 'base', ()),
                                 ('added', known, ('--add-classes',))):
            log = self.command(
                name, 'finetune', str(self.bags), '--labels', str(self.work / f'{name}.csv'),
                '--from', str(base), '--out', str(self.work / name), '--cache',
                str(self.work / 'bags_cache'), *more)
        return added_scores(log)

    def _bag(self, label: ActionLabel) -> int:
        return int(label.recording.removeprefix('day_'))

    def finetune(self, shots: int, options: Sequence[str]) -> tuple[float, float, float]:
        """Fine-tune; return the accuracy of verb, noun and action on the test bags, percent."""
        name = '_'.join([SHOTS[shots], *options]).replace('-', '')
        log = self.command(
            name, 'finetune', str(self.bags), '--labels',
            str(self.work / f'{SHOTS[shots]}.csv'), '--from', str(self.work / 'base'), '--out',
            str(self.work / name), '--cache', str(self.work / 'bags_cache'), *options)
        row = re.search(r'^\| V\+F\+A\+D \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|', log, re.M)
        if row is None:
            raise SystemExit(f'{self.work / name}.log has no accuracy of all sensors')
        return float(row[1]), float(row[2]), float(row[3])


def main() -> None:
    """Run all draws, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n\n')[0])
    parser.add_argument('--draws', type=int, default=3, help='divisions of the classes')
    parser.add_argument('--clips', type=int, default=3000, help='that train each base')
    parser.add_argument('--epochs', type=int, default=16, help='of each base')
    parser.add_argument('--unfreeze', nargs='+', default=['none', 'fusion'],
                        help='what to train besides the heads')
    parser.add_argument('--work', type=Path, default=ROOT / 'build' / 'unseen_classes',
                        help='folder for bags, labels and models')
    parser.add_argument('--add-classes', action='store_true',
                        help='add five actions to a model of the 20 others instead')
    options = parser.parse_args()
    added: list[tuple[float, float, float]] = []
    scores: dict[tuple[int, str], list[tuple[float, float, float]]] = {}
    for number in range(options.draws):
        draw = Draw(number, options.work)
        print(f'draw {number}: the base knows', ', '.join([*draw.base[0], *draw.base[1]]))
        draw.train_base(options.clips, options.epochs)
        draw.write_bags()
        if options.add_classes:
            added.append(draw.add_classes())
            continue
        for shots in SHOTS:
            for part in options.unfreeze:
                scores.setdefault((shots, part), []).append(
                    draw.finetune(shots, ['--unfreeze', part]))
    if added:
        print(markdown_table(['added', 'known before', 'known after'], [
            [_spread(column) for column in zip(*added)]]))
        return
    rows = [[str(shots), part, *(_spread(column) for column in zip(*each))]
            for (shots, part), each in scores.items()]
    print(markdown_table(['segments a class', '--unfreeze', 'verb', 'noun', 'action'], rows))


def _spread(values: Sequence[float]) -> str:
    text = f'{np.mean(values):.0f}'
    return f'{text} ({", ".join(f"{x:.0f}" for x in values)})' if len(values) > 1 else text


if __name__ == '__main__':
    main()
