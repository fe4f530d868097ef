"""`karmma reproduce`: train and score every system of the paper, and write its tables anew."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
import shlex
import sys
from typing import Any

from karmma_ros.cli.machine import this_machine
from karmma_ros.cli.progress import Bars
from karmma_ros.cli.reproduce.cells import key_of, Workshop
from karmma_ros.cli.reproduce.report import costs, PARTS, write_report
from karmma_ros.cli.reproduce.results import Results
from karmma_ros.cli.reproduce.schedule import make_all, with_needs
from karmma_ros.cli.reproduce.systems import all_cells, Budget, budget, BUDGETS
from karmma_ros.data.synthetic_kitchen.rendering import clip_spec
from karmma_ros.data.synthetic_kitchen.splits import open_splits
from karmma_ros.errors import InvalidSettingError
from karmma_ros.training.keeper import TrainingStopped

RESULTS = 'results.json'
MAIN = ('teacher', 'baseline', 'delta', 'karmma')
NEEDED: Mapping[str, tuple[str, ...]] = {
    'table1': MAIN, 'fig4': MAIN, 'margins': MAIN,
    'table2': ('radevski', 'radevski_student', 'karmma_v', 'karmma', 'teacher'),
    'table3': ('half_baseline', 'half_dropout', 'half_gamma_100', 'half_gamma_70', 'karmma'),
    'table4': ('half_gamma',), 'table5': ('half_teacher',),
    'table6': ('half_teacher',), 'fig5': ('half_teacher',), 'fig6': (),
}
"""Part of the report → the systems it rests on."""


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
        _reproduce(plan, options, command)
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


def _reproduce(plan: Budget, options: Namespace, command: str) -> None:
    cells = all_cells(plan)
    keys = {name: key_of(cell, cells, plan.data) for name, cell in cells.items()}
    place = options.out / RESULTS
    results = Results(options.budget, asdict(plan))
    if place.is_file():
        before = Results.load(place)
        results.cells = {name: cell for name, cell in before.cells.items()
                         if cell['key'] == keys.get(name)}
        results.made = before.made
    missing = [name for name in _wanted(options.only, cells) if name not in results.cells]
    if missing:
        results.made = _made(command)
        _make(plan, options.cache, cells, missing, results, keys, place)
    results.costs = costs()
    results.cells = {name: results.cells[name] for name in cells if name in results.cells}
    results.save(place)
    for part in options.only:
        if part in PARTS:
            print(f'{PARTS[part][0]}\n\n{PARTS[part][1](results)}')
    if len(results.cells) == len(cells):
        print('\n'.join(f'wrote {path}' for path in write_report(results, options.out)))


def _wanted(parts: Sequence[str], cells: Mapping[str, Any]) -> list[str]:
    if not parts:
        return list(cells)
    systems = tuple(system for part in parts for system in NEEDED[part])
    return [name for name in cells if name.partition('/')[0].startswith(systems)]


def _make(
    plan: Budget, cache: Path, cells: Mapping[str, Any], missing: Sequence[str],
    results: Results, keys: Mapping[str, str], place: Path,
) -> None:
    """Make what is missing, and keep each result as it comes."""
    clips, names = cache / 'synthetic_kitchen', with_needs(missing, cells)
    workshop = Workshop(cache / 'reproduce', clips, cells, plan.data)
    with Bars() as bars:
        for data in (plan.data, plan.pretraining):
            open_splits(data, clip_spec(), clips, bars)

        def made(name: str, result: Mapping[str, Any]) -> None:
            results.cells[name] = {'key': keys[name], **result}
            results.save(place)
            bars('training and scoring', bars.done('training and scoring') + 1, len(names))
            bars.console.print(_line(name, result))

        bars('training and scoring', 0, len(names))
        make_all(workshop, cells, names, plan.jobs, made)


def _line(name: str, result: Mapping[str, Any]) -> str:
    """Say what came out of a cell."""
    line = f'{name}: {result["minutes"]:.1f} min'
    if 'top1' in result:
        subset, found = next(iter(result['top1'].items()))
        line += f', {subset} {100 * found["action"]:.1f} %'
    return line


def _made(command: str) -> dict[str, str]:
    return {'command': command, 'date': str(date.today()), 'machine': this_machine()}
