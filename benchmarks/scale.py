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
from concurrent.futures import ProcessPoolExecutor
from datetime import date
import json
import multiprocessing
import os
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, NamedTuple

from karmma_ros.bags import report as report_writer
from karmma_ros.bags.bag_run import BagRun
from karmma_ros.bags.evaluate import evaluate_bag, Settings
from karmma_ros.cli.main import main as karmma
from karmma_ros.cli.options import this_machine
from karmma_ros.cluster.engine import map_tasks, Report, Workers
from karmma_ros.evaluation.ground_truth import Truth
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.model.bundle import load_bundle
from karmma_ros.model.registry import find_model
from karmma_ros.stream.settings import event_settings, node_parameters

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'test' / 'helpers'))

from clusters import two_nodes  # noqa: E402

BEGIN, END = '<!-- measured -->', '<!-- /measured -->'
SECONDS, EPISODES, DISTINCT = 2, 2, 20
TASKS = 2000
BAGS, NODES, NODE_JOBS, BAG_MINUTES, REAL_TIME = 10_000, 100, 8, 10, 37
"""What is computed: as docs/bags.md measures, a job evaluates 37 s of a bag a second."""
RATE, CLASSES = 5, 397
"""Windows a second of the node; verbs and nouns of EPIC-KITCHENS-100."""


class Cost(NamedTuple):
    """What a command took."""

    wall_s: float
    cpu_s: float
    """Of the process of the command, and of the one that uses Ray for it."""
    memory_mb: float
    """Most of the former."""


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
        reports, per_window_s = report_costs(Path(folder))
        text = '\n\n'.join([
            f'{this_machine()}; {len(bags)} bags of '
            f'{SECONDS * EPISODES} s with images of 48x32; {date.today().isoformat()}.',
            markdown_table(('`karmma bag evaluate`', 'seconds', "of the command's "
                            'processor', 'its memory, MB', 'report'), rows),
            markdown_table(('engine', 'time'), tasks),
            markdown_table(('report of bags with 1,500 windows each', 'seconds'), reports),
            markdown_table(('computed: 10,000 bags of 10 minutes on 100 machines of 8 jobs', ''),
                           computed(costs, engine, per_window_s, len(bags)))])
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


def pool_start() -> float:
    """Return the seconds that a pool of two processes takes to start and end."""
    began = time.perf_counter()
    with ProcessPoolExecutor(2, multiprocessing.get_context('spawn')) as pool:
        list(pool.map(abs, [0, 0]))
    return time.perf_counter() - began


def _processor_s() -> float:
    """Return what this process and those that it has started have computed, in seconds."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def engine_costs() -> tuple[list[tuple[str, str]], Mapping[str, float]]:
    """Measure the engine without bags: seconds by name."""
    def timed(tasks: Sequence[int], workers: Workers) -> tuple[float, float]:
        began, cpu = time.perf_counter(), _processor_s()
        map_tasks(return_bytes, tasks, nothing, workers)
        return time.perf_counter() - began, _processor_s() - cpu
    start = min(timed([0, 0], Workers(count=2))[0] for _ in range(3))
    pool = min(pool_start() for _ in range(3))
    with two_nodes() as (address, _):
        workers = Workers(address)
        connect = min(timed([0, 0], workers)[0] for _ in range(3))
        small = timed([0] * TASKS, workers)
        large = timed([1_000_000] * (TASKS // 10), workers)
    each = (small[0] - connect) / TASKS, small[1] / TASKS, (large[0] - connect) / (TASKS // 10)
    rows = [
        ('start and end of two workers on this machine', f'{start:.1f} s'),
        ('the same with a pool of processes of the standard library', f'{pool:.1f} s'),
        ('connecting to a cluster, and two workers on it', f'{connect:.1f} s'),
        (f'each of {TASKS:,} empty tasks', f'{1000 * each[0]:.2f} ms'),
        ('of it the processor of the command', f'{1000 * each[1]:.2f} ms'),
        ('each task that returns 1 MB', f'{1000 * each[2]:.2f} ms')]
    return rows, {'task': small[0] / TASKS, 'megabyte': each[2]}


def report_costs(folder: Path) -> tuple[list[tuple[str, str]], float]:
    """Measure the report of more and more bags; return rows, and seconds for each window."""
    path = folder / 'long.mcap'
    karmma(['bag', 'synthetic', str(path), '--episodes', '15', '--seconds', '4', '--size', '48x32',
            '--rate', '25'])
    bundle = load_bundle(find_model('synthetic_kitchen'))
    one = evaluate_bag(path, bundle, Settings({**node_parameters(), 'rate': 25.0}), None)
    truth = Truth.from_messages(
        [(*each, *ids) for each, ids in zip(one.truths, one.truth_ids)], one.info,
        bundle.vocabulary, one.truth_topic)
    run = BagRun(one.info, one.predictions, truth, bundle.vocabulary, bundle.spec,
                 lambda times_ns: [None] * len(times_ns))
    windows, seconds, counts = len(next(iter(one.predictions.values()))), [], (10, 40)
    for count in counts:
        began = time.process_time()
        report_writer.write(folder / 'report', [run] * count, {}, {},
                            event_settings(node_parameters()))
        seconds.append(time.process_time() - began)
    rows = [(f'{count} bags of {windows:,} windows', f'{each:.1f}')
            for count, each in zip(counts, seconds)]
    return rows, (seconds[1] - seconds[0]) / ((counts[1] - counts[0]) * windows)


def computed(
    costs: Mapping[str, Cost], engine: Mapping[str, float], per_window_s: float, count: int,
) -> list[tuple[str, str]]:
    """Compute what many bags on many nodes would take."""
    bag_s = max(0.0, costs[f'{count} bags, two nodes'].cpu_s - costs['one bag'].cpu_s) / count
    windows = BAG_MINUTES * 60 * RATE
    mb = windows * (CLASSES * 4 + 50) / 1e6
    compute_s = BAGS * BAG_MINUTES * 60 / REAL_TIME / (NODES * NODE_JOBS)
    return [
        (f'evaluating, at {REAL_TIME} x real time', f'{compute_s / 60:.0f} min'),
        ('giving out the tasks, in the command', f'{BAGS * engine["task"]:.0f} s'),
        ('what else the command does for each bag', f'{BAGS * bag_s / 60:.0f} min'),
        (f'predictions of {CLASSES} classes, {RATE} a second', f'{BAGS * mb / 1000:.0f} GB'),
        ('receiving them, in the command', f'{BAGS * mb * engine["megabyte"] / 60:.0f} min'),
        ('the report, in the command', f'{BAGS * windows * per_window_s / 60:.0f} min')]


if __name__ == '__main__':
    main()
