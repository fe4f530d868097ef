"""Train and score every system of the paper in small, and write its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from karmma_ros.data.synthetic_kitchen.dataset import open_splits
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.reproduce.cells import ExperimentRunner, key_of, make_all, with_needs
from karmma_ros.reproduce.paper_tables import costs, PARTS, write_report
from karmma_ros.reproduce.results import Results
from karmma_ros.reproduce.systems import all_experiments, Budget

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


class Progress(Protocol):
    """What shows how far the work has come: a bar for each name."""

    def __call__(self, what: str, done: int, total: int) -> None: ...

    def done(self, what: str) -> int: ...

    def print_line(self, line: str) -> None: ...


def reproduce(
    plan: Budget, name: str, only: Sequence[str], out: Path, cache: Path,
    provenance: Mapping[str, str], progress: Callable[[], AbstractContextManager[Progress]],
) -> None:
    """
    Train and score what is missing of the systems, and write the results.

    :param name: of the budget `plan`.
    :param only: parts of the report (keys of `NEEDED`); all when empty.
    :param out: directory of results.json, results.md and the figures.
    :param cache: directory of the clips and the networks.
    :param provenance: command, date and machine of what is trained now.
    """
    cells = all_experiments(plan)
    keys = {each: key_of(cell, cells, plan.data) for each, cell in cells.items()}
    place = out / RESULTS
    results = Results(name, asdict(plan))
    if place.is_file():
        before = Results.load(place)
        results.cells = {each: cell for each, cell in before.cells.items()
                         if cell['key'] == keys.get(each)}
        results.made = before.made
    missing = [each for each in _wanted(only, cells) if each not in results.cells]
    if missing:
        results.made = dict(provenance)
        _make(plan, cache, cells, missing, results, keys, place, progress)
    results.costs = costs()
    results.cells = {each: results.cells[each] for each in cells if each in results.cells}
    results.save(place)
    for part in only:
        if part in PARTS:
            print(f'{PARTS[part][0]}\n\n{PARTS[part][1](results)}')
    if len(results.cells) == len(cells):
        print('\n'.join(f'wrote {path}' for path in write_report(results, out)))


def _wanted(parts: Sequence[str], cells: Mapping[str, Any]) -> list[str]:
    if not parts:
        return list(cells)
    systems = tuple(system for part in parts for system in NEEDED[part])
    return [name for name in cells if name.partition('/')[0].startswith(systems)]


def _make(
    plan: Budget, cache: Path, cells: Mapping[str, Any], missing: Sequence[str],
    results: Results, keys: Mapping[str, str], place: Path,
    progress: Callable[[], AbstractContextManager[Progress]],
) -> None:
    """Make what is missing, and keep each result as it comes."""
    clips, names = cache / 'synthetic_kitchen', with_needs(missing, cells)
    workshop = ExperimentRunner(cache / 'reproduce', clips, cells, plan.data)
    with progress() as bars:
        for data in (plan.data, plan.pretraining):
            open_splits(data, clip_spec(), clips, bars)

        def made(name: str, result: Mapping[str, Any]) -> None:
            results.cells[name] = {'key': keys[name], **result}
            results.save(place)
            bars('training and scoring', bars.done('training and scoring') + 1, len(names))
            bars.print_line(_line(name, result))

        bars('training and scoring', 0, len(names))
        make_all(workshop, cells, names, plan.jobs, made)


def _line(name: str, result: Mapping[str, Any]) -> str:
    """Say what came out of a cell."""
    line = f'{name}: {result["minutes"]:.1f} min'
    if 'top1' in result:
        subset, found = next(iter(result['top1'].items()))
        line += f', {subset} {100 * found["action"]:.1f} %'
    return line

