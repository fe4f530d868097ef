"""
What many bags cost on workers: start, throughput, overhead per bag, and of the report.

`python benchmarks/scale.py` evaluates 200 short bags by one process, by two workers of this
machine and on a cluster of two nodes on loopback, once with a node killed on the way, and checks
that all reports are equal but for dates and timings. It then computes from the figures what
10,000 bags on 100 nodes would take. `--page docs/scale.md` writes them into the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import date
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, NamedTuple

from karmma_ros.cli.main import main as karmma
from karmma_ros.cli.options import this_machine
from karmma_ros.cluster.engine import map_tasks, Report, Workers
from karmma_ros.evaluation.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'test' / 'helpers'))

from clusters import two_nodes  # noqa: E402

BEGIN, END = '<!-- measured -->', '<!-- /measured -->'
SECONDS, EPISODES, DISTINCT = 2, 2, 20
TASKS = 2000
BAGS, NODES, NODE_JOBS, BAG_MINUTES, REAL_TIME = 10_000, 100, 8, 10, 37
"""What is computed: as docs/bags.md measures, a job evaluates 37 s of a bag a second."""


class Cost(NamedTuple):
    """What a command took."""

    wall_s: float
    cpu_s: float
    """Of the process of the command."""
    memory_mb: float
    """Most of that process."""


def main() -> None:
    """Measure, print, and write into a page if one is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--bags', type=int, default=200)
    parser.add_argument('--page', type=Path, help='to write the measurements into [none]')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='karmma_bench_') as folder:
        bags = write_bags(Path(folder) / 'bags', options.bags)
        rows, costs = evaluations(bags, Path(folder))
        tasks, engine = engine_costs()
        text = '\n\n'.join([
            f'{this_machine()}, shared with other work; {len(bags)} bags of '
            f'{SECONDS * EPISODES} s with images of 48x32; {date.today().isoformat()}.',
            markdown_table(('`karmma bag evaluate`', 'seconds', "seconds of the command's own "
                            'process', 'its memory, MB', 'report'), rows),
            markdown_table(('engine', 'time'), tasks),
            markdown_table(('10,000 bags of 10 minutes, 100 machines of 8 jobs', ''),
                           computed(costs, engine, len(bags)))])
    print(text)
    if options.page is not None:
        before, _, rest = options.page.read_text(encoding='utf-8').partition(BEGIN)
        after = rest.partition(END)[2]
        options.page.write_text(f'{before}{BEGIN}\n{text}\n{END}{after}', encoding='utf-8')


def write_bags(folder: Path, count: int) -> list[Path]:
    """Write bags: some distinct ones, and copies of them."""
    folder.mkdir()
    paths = [folder / f'kitchen_{i:03d}.mcap' for i in range(count)]
    for i, path in enumerate(paths):
        if i < DISTINCT:
            karmma(['bag', 'synthetic', str(path), '--episodes', str(EPISODES), '--seconds',
                    str(SECONDS), '--size', '48x32', '--rate', '15', '--seed', str(i)])
        else:
            path.write_bytes(paths[i % DISTINCT].read_bytes())
    return paths


def evaluate(bags: Sequence[Path], out: Path, *words: str) -> Cost:
    """Run the command in a process of its own."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, '-m', 'karmma_ros.cli.main', 'bag', 'evaluate', *map(str, bags),
         '--model', 'synthetic_kitchen', '--out', str(out), *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f'karmma bag evaluate has ended with {process.returncode}')
    return Cost(time.perf_counter() - began, used.ru_utime + used.ru_stime,
                used.ru_maxrss / 1024)


def evaluations(
    bags: Sequence[Path], folder: Path,
) -> tuple[list[tuple[str, ...]], Mapping[str, Cost]]:
    """Evaluate the bags in every way; return the rows of the table, and what each took."""
    costs: dict[str, Cost] = {}
    rows, reports = [], []

    def run(name: str, number: int, out: str, *words: str) -> None:
        cost = costs[name] = evaluate(bags[:number], folder / out, *words)
        row = [name, f'{cost.wall_s:.1f}', f'{cost.cpu_s:.1f}', f'{cost.memory_mb:.0f}']
        if number == len(bags):
            reports.append(report(folder / out))
            row.append('equal' if reports[-1] == reports[0] else 'DIFFERS')
        rows.append((*row, '')[:5])
        print(*rows[-1], file=sys.stderr)

    count = len(bags)
    run('one bag', 1, 'one')
    run(f'{count} bags', count, 'alone')
    run(f'{count} bags, `--jobs 2`', count, 'jobs', '--jobs', '2')
    with two_nodes() as (address, kill):
        words = '--cluster', address, '--job-cpus', '1'
        run(f'{count} bags, two nodes', count, 'nodes', *words)
        run(f'{count // 4} bags, all is done', count // 4, 'nodes', *words)
        run(f'{count} bags, all is done', count, 'nodes', *words)

        def kill_on_the_way() -> None:
            while len(list((folder / 'killed').glob('work/*/predictions.npz'))) < count // 3:
                time.sleep(0.05)
            kill()
        threading.Thread(target=kill_on_the_way, daemon=True).start()
        run(f'{count} bags, two nodes, one killed on the way', count, 'killed', *words)
    return rows, costs


def report(out: Path) -> str:
    """Return a report without dates and timings."""
    content = json.loads((out / 'report.json').read_text())
    del content['provenance']
    return json.dumps(without_timings(content))


def without_timings(node: Any) -> Any:
    """Remove latencies."""
    if isinstance(node, dict):
        return {k: without_timings(v) for k, v in node.items() if not k.startswith('latency')}
    return [without_timings(each) for each in node] if isinstance(node, list) else node


def nothing() -> None:
    """Set up nothing."""


def return_bytes(state: None, task: int, progress: Report) -> bytes:
    """Return so many bytes."""
    return bytes(task)


def engine_costs() -> tuple[list[tuple[str, str]], Mapping[str, float]]:
    """Measure the engine without bags: seconds by name."""
    def timed(tasks: Sequence[int], workers: Workers) -> tuple[float, float]:
        began, cpu = time.perf_counter(), time.process_time()
        map_tasks(return_bytes, tasks, nothing, workers)
        return time.perf_counter() - began, time.process_time() - cpu
    start = min(timed([0, 0], Workers(count=2))[0] for _ in range(3))
    with two_nodes() as (address, _):
        workers = Workers(address)
        connect = min(timed([0, 0], workers)[0] for _ in range(3))
        small = timed([0] * TASKS, workers)
        large = timed([1_000_000] * (TASKS // 10), workers)
    each = (small[0] - connect) / TASKS, small[1] / TASKS, (large[0] - connect) / (TASKS // 10)
    rows = [
        ('start and end of two workers on this machine', f'{start:.1f} s'),
        ('connecting to a cluster, and two workers on it', f'{connect:.1f} s'),
        (f'each of {TASKS:,} empty tasks', f'{1000 * each[0]:.2f} ms'),
        ('of it the processor of the command', f'{1000 * each[1]:.2f} ms'),
        ('each task that returns 1 MB', f'{1000 * each[2]:.2f} ms')]
    return rows, {'task': each[1], 'megabyte': each[2]}


def computed(
    costs: Mapping[str, Cost], engine: Mapping[str, float], count: int,
) -> list[tuple[str, str]]:
    """Compute what many bags on many nodes would take."""
    fewer, more = (costs[f'{n} bags, all is done'] for n in (count // 4, count))
    step = count - count // 4
    report_s = max(0.0, more.cpu_s - fewer.cpu_s) / step
    memory_mb = max(0.0, more.memory_mb - fewer.memory_mb) / step
    compute_s = BAGS * BAG_MINUTES * 60 / REAL_TIME / (NODES * NODE_JOBS)
    return [
        ('evaluating, at 37 x real time', f'{compute_s / 60:.0f} min'),
        ('giving out the tasks, in the command', f'{BAGS * engine["task"]:.0f} s'),
        ('the report, in the command, after that', f'{BAGS * report_s / 60:.0f} min'),
        ('memory of the command, for bags of 4 s', f'{BAGS * memory_mb / 1024:.1f} GB')]


if __name__ == '__main__':
    main()
