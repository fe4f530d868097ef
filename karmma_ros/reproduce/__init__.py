"""Train and score every system of the paper in small, and write its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from karmma_ros.cluster.engine import Workers
from karmma_ros.data.synthetic_kitchen.dataset import open_splits
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.reproduce.experiments import (
    ExperimentResult,
    ExperimentRunner,
    Experiments,
    key_of,
    run_all,
    with_dependencies,
)
from karmma_ros.reproduce.paper_tables import costs, PARTS, write_report
from karmma_ros.reproduce.results import FORMAT, Results
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
    """Progress bars by name."""

    def __call__(self, what: str, done: int, total: int) -> None: ...

    def done(self, what: str) -> int: ...

    def print_line(self, line: str) -> None: ...


def reproduce(
    plan: Budget, name: str, only: Sequence[str], out: Path, cache: Path,
    provenance: Mapping[str, str], progress: Callable[[], AbstractContextManager[Progress]],
    workers: Workers,
) -> None:
    """
    Train and score what is missing of the systems, and write the results.

    :param name: of the budget `plan`.
    :param only: parts of the report (keys of `NEEDED`); all when empty.
    :param out: directory of results.json, results.md and the figures.
    :param cache: directory of the clips and the networks.
    :param provenance: command, date and machine of what is trained now.
    :param workers: what the experiments run on.
    """
    experiments = all_experiments(plan)
    keys = {each: key_of(experiment, experiments, plan.data)
            for each, experiment in experiments.items()}
    path = out / RESULTS
    results = Results(FORMAT, name, asdict(plan), {}, costs())
    if path.is_file():
        before = Results.load(path)
        results.experiments = {each: result for each, result in before.experiments.items()
                               if result.key == keys.get(each)}
        results.provenance = before.provenance
    missing = [each for each in _wanted(only, experiments) if each not in results.experiments]
    if missing:
        results.provenance = dict(provenance)
        _run(plan, cache, experiments, missing, results, path, progress, workers)
    results.experiments = {each: results.experiments[each] for each in experiments
                           if each in results.experiments}
    results.save(path)
    for part in only:
        if part in PARTS:
            print(f'{PARTS[part][0]}\n\n{PARTS[part][1](results)}')
    if len(results.experiments) == len(experiments):
        print('\n'.join(f'wrote {path}' for path in write_report(results, out)))


def _wanted(parts: Sequence[str], experiments: Experiments) -> list[str]:
    if not parts:
        return list(experiments)
    systems = tuple(system for part in parts for system in NEEDED[part])
    return [name for name in experiments if name.partition('/')[0].startswith(systems)]


def _run(
    plan: Budget, cache: Path, experiments: Experiments, missing: Sequence[str],
    results: Results, path: Path, progress: Callable[[], AbstractContextManager[Progress]],
    workers: Workers,
) -> None:
    """Run what is missing, and save each result as it comes."""
    clips, names = cache / 'synthetic_kitchen', with_dependencies(missing, experiments)
    runner = ExperimentRunner(cache / 'reproduce', clips, experiments, plan.data)
    title = 'training and scoring'
    with progress() as bars:
        for data in (plan.data, plan.pretraining, plan.garage):
            open_splits(data, clip_spec(), clips, bars)

        def on_result(name: str, result: ExperimentResult) -> None:
            results.experiments[name] = result
            results.save(path)
            bars(title, bars.done(title) + 1, len(names))
            bars.print_line(_line(name, result))

        bars(title, 0, len(names))
        run_all(runner, experiments, names, workers, on_result, bars.print_line)


def _line(name: str, result: ExperimentResult) -> str:
    """Return the result of an experiment in a line."""
    line = f'{name}: {result.minutes:.1f} min'
    if result.top1:
        line += f', {next(iter(result.top1))} {100 * result.accuracy():.1f} %'
    return line
