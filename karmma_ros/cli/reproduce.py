"""`karmma reproduce`: train and score every system of the paper, and write its tables."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
import shlex
import sys

from karmma_ros.cli.options import this_machine
from karmma_ros.cli.progress import Bars
from karmma_ros.errors import InvalidSettingError
from karmma_ros.reproduce import NEEDED, reproduce
from karmma_ros.reproduce.systems import budget, BUDGETS
from karmma_ros.reproduce.tables import PARTS
from karmma_ros.training.checkpoints import TrainingStopped


def main(arguments: Sequence[str]) -> int:
    """Run `karmma reproduce DATASET …`."""
    options = _parser().parse_args(list(arguments))
    if options.dataset != 'synthetic_kitchen':
        raise InvalidSettingError(
            'data set', options.dataset, 'synthetic_kitchen',
            'the systems of the paper are trained on others by `karmma train`')
    plan = budget(options.budget)
    if options.jobs:
        plan = replace(plan, jobs=options.jobs)
    command = shlex.join(['karmma', 'reproduce', *arguments])
    try:
        reproduce(plan, options.budget, options.only, options.out, options.cache,
                  {'command': command, 'date': str(date.today()), 'machine': this_machine()}, Bars)
    except (TrainingStopped, KeyboardInterrupt):
        print('karmma reproduce: stopped; the same command goes on from there', file=sys.stderr)
        return 130
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog='karmma reproduce', description='Train and score every system of the paper at tiny '
        'size, and write its tables and figures in our numbers. What is made is kept: a stopped '
        'run goes on, a finished one is written again in seconds.')
    parser.add_argument('dataset', help='data set to train and score on: synthetic_kitchen')
    parser.add_argument(
        '--budget', default='quick', help=f'how much to train, {", ".join(BUDGETS)}: on two cores '
        'some ten minutes (which shows that everything runs; nothing is trained to its end), an '
        'hour, or a card [quick]')
    parser.add_argument(
        '--only', nargs='+', default=[], metavar='PART', choices=sorted({*PARTS, *NEEDED}),
        help=f'of {", ".join(NEEDED)}: make what these need and print them')
    parser.add_argument('--out', type=Path, default=Path('reproduction'), metavar='DIR',
                        help='where results.json, results.md and the pictures go; results that '
                        'are there already are used [reproduction]')
    parser.add_argument('--cache', type=Path, default=Path('.cache'), metavar='DIR',
                        help='where clips and networks are kept [.cache]')
    parser.add_argument('--jobs', type=int, default=0,
                        help='experiments run at a time [as the budget has it]')
    return parser
