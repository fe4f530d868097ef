"""`karmma reproduce`: train and score every system of the paper, and write its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
import shlex
import sys

from karmma_ros.cli.options import (
    add_output_option,
    add_worker_options,
    command_parser,
    CommandParser,
    cores,
    this_machine,
    to_path,
    workers_of,
)
from karmma_ros.cli.progress import Bars
from karmma_ros.errors import InvalidSettingError
from karmma_ros.reproduce import NEEDED, reproduce
from karmma_ros.reproduce.paper_tables import PARTS
from karmma_ros.reproduce.systems import budget, BUDGETS
from karmma_ros.training.checkpoints import TrainingStopped


def main(arguments: Sequence[str]) -> int:
    """Run `karmma reproduce DATASET …`."""
    options = _parser().parse_args(list(arguments))
    if options.dataset != 'synthetic_kitchen':
        raise InvalidSettingError(
            'data set', options.dataset, 'synthetic_kitchen',
            'the systems of the paper are trained on others by `karmma train`')
    plan = budget(options.budget)
    workers = workers_of(options, plan.jobs if cores() > 1 else 1, plan.device)
    plan = replace(plan, jobs=workers.count)
    command = shlex.join(['karmma', 'reproduce', *arguments])
    try:
        reproduce(plan, options.budget, options.only, options.out, options.cache,
                  {'command': command, 'date': str(date.today()), 'machine': this_machine()}, Bars,
                  workers)
    except (TrainingStopped, KeyboardInterrupt):
        print('karmma reproduce: stopped; the same command resumes', file=sys.stderr)
        return 130
    return 0


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma reproduce', 'Train and score every system of the paper at tiny size, and write '
        'its tables and figures with our numbers. A stopped run resumes, what was being trained '
        'from its last epoch; a finished one is written again in seconds.', 'DATASET [OPTION ...]')
    parser.add_argument('dataset', type=str, metavar='DATASET',
                        help='data set to train and score on: synthetic_kitchen')
    parser.add_argument(
        '--budget', type=str, default='quick', help=f'how much to train, {", ".join(BUDGETS)}: '
        'ten minutes on two cores (a test that everything runs; nothing is trained to '
        'convergence), an hour on two cores, or a GPU')
    parser.add_argument(
        '--only', nargs='+', type=str, default=[], metavar='PART', choices=sorted(
            {*PARTS, *NEEDED}), help=f'of {", ".join(NEEDED)}: train what these need and print '
        'them')
    add_output_option(parser, 'directory for results.json, results.md and the figures; results '
                      'that it holds are reused', 'reproduction')
    parser.add_argument('--cache', type=to_path, default=Path('.cache'), metavar='DIR',
                        help='directory for clips and networks')
    add_worker_options(parser, 'experiments', 'of the budget, if Ray is installed')
    return parser
