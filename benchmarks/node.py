"""
The node end to end, as on a robot: sensors and node in processes of their own, a subscriber here.

`python benchmarks/node.py` publishes VGA images at 30 Hz, audio and boxes (scene.py) over DDS for
the included model, with config/node/fastdds.xml, once without and once with its network, at
several rates, and once without that file. Of each it measures the age and number of results, the
CPU time of the node and the images that it never received. The node is not changed;
watched_node.py records what happens inside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from tempfile import TemporaryDirectory
import time
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
SUITE = HERE.parent / 'test' / 'faults'
PROFILE = HERE.parent / 'config' / 'node' / 'fastdds.xml'
MODEL = 'synthetic_kitchen'
_SETTLE_S, _LATENCY_S, _READY_S = 1.5, 0.25, 120.0
_TICKS = os.sysconf('SC_CLK_TCK')

SHIPPED, FASTEST = 5.0, 60.0
"""The default rate of the node, and the highest that it accepts."""


@dataclass(frozen=True)
class Run:
    """One run of the node, and its rates."""

    name: str
    network: bool = True
    profile: bool = True
    executor: str = 'events'
    rates: tuple[float, ...] = (SHIPPED,)
    seconds: float = 34.0
    """At the first rate: 30 Hz give 1,000 images. The others get a third."""


RUNS = (
    Run('no network', network=False, rates=(SHIPPED, 10.0)),
    Run('no network, SingleThreadedExecutor', network=False, executor='single_threaded',
        rates=(SHIPPED, 10.0)),
    Run('complete node', rates=(SHIPPED, 10.0, 20.0, FASTEST)),
    Run('without the profile', profile=False, seconds=20.0),
)
_DRIFT = 0.997
"""
Factor on the rates: a timer in step with the camera would find every image at the same age. This
one finds all ages within 12 seconds.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each run in processes of its own and print or write the figures."""
    options = _options(arguments)
    if options.run:
        run = next(r for r in RUNS if r.name == options.run)
        figures = measure(replace(run, seconds=3.0) if options.quick else run)
        options.json.write_text(json.dumps(figures), encoding='utf-8')
        # A DDS thread in its destructor must not block the others.
        os._exit(0)
    phases = [phase for run in RUNS for phase in _apart(run, options.quick)]
    for phase in phases:
        print(json.dumps(phase))
    if options.json:
        options.json.write_text(json.dumps({'phases': phases}), encoding='utf-8')
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='three seconds of each')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there')
    parser.add_argument('--run', choices=[r.name for r in RUNS], help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _apart(run: Run, quick: bool) -> list[dict[str, Any]]:
    """Measure in a process of its own, since Fast DDS reads its profile once."""
    print(f'node: {run.name} …', file=sys.stderr, flush=True)
    environment = {k: v for k, v in os.environ.items() if not k.endswith('PROFILES_FILE')}
    if run.profile:
        environment |= dict.fromkeys(
            ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'), str(PROFILE))
    with TemporaryDirectory() as folder:
        file = Path(folder, 'found.json')
        subprocess.run(
            [sys.executable, __file__, '--run', run.name, '--json', str(file),
             *(['--quick'] if quick else [])],
            env=environment, check=True, stdout=sys.stderr, timeout=_READY_S + 4 * run.seconds)
        return list(json.loads(file.read_text(encoding='utf-8')))


def measure(run: Run) -> list[dict[str, Any]]:
    """Return the figures of each rate of a run."""
    sys.path.insert(0, str(SUITE))
    from fault_suite.monitor import node_monitor, used
    from fault_suite.ros import domain

    with TemporaryDirectory() as folder, domain(check_fields=False), node_monitor() as monitor:
        notes = Path(folder, 'notes.json')
        with _process('scene.py', stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sensors, \
                _process('watched_node.py', *_node_arguments(run, notes)) as node:
            wanted = 4 if run.profile else 1  # without it the images may be dropped
            if not monitor.spin_until(
                    lambda: monitor.results and len(used(monitor.results[-1].message)) >= wanted,
                    _READY_S):
                raise RuntimeError('no result from enough sensors came in time')
            phases = []
            for i, rate in enumerate(run.rates):
                monitor.set_parameter('rate', rate * _DRIFT)
                monitor.spin(_SETTLE_S)
                phases.append(_watch(
                    monitor, {'node': node.pid, 'sensors': sensors.pid, 'subscriber': os.getpid()},
                    rate, run.seconds / (3 if i else 1)))
            sent, _ = sensors.communicate()
            node.send_signal(signal.SIGINT)
            node.wait(30)
        recorded = json.loads(notes.read_text(encoding='utf-8'))
        return [_figures(run, phase, monitor.results, np.array(json.loads(sent)), recorded)
                for phase in phases]


def _node_arguments(run: Run, notes: Path) -> list[str]:
    values = {'model': MODEL, 'autostart': 'true', 'rate': run.rates[0],
              'executor': run.executor}
    given = [word for name, value in values.items() for word in ('-p', f'{name}:={value}')]
    return [str(notes), *([] if run.network else ['--no-network']), '--ros-args', *given]


@contextmanager
def _process(name: str, *arguments: str, **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a file beside this one; it does not outlive the block."""
    process = subprocess.Popen([sys.executable, str(HERE / name), *arguments], **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Phase:
    """Measurements at one rate; start and stop are time.monotonic()."""

    rate: float
    start: float
    stop: float
    behind_ns: int
    """Wall clock minus monotonic clock."""
    cpu: dict[str, float]
    """Process → part of a core."""
    threads: dict[int, float]
    """The node's threads → part of a core."""
    rss: int
    peak: int


def _watch(monitor: Any, pids: dict[str, int], rate: float, seconds: float) -> Phase:
    from fault_suite.proc import peak_bytes, usage

    started, cpu = time.monotonic(), {name: usage(pid).cpu_s for name, pid in pids.items()}
    threads = _thread_seconds(pids['node'])
    monitor.spin(seconds)
    stopped, after = time.monotonic(), {name: usage(pid) for name, pid in pids.items()}
    took = stopped - started
    later = _thread_seconds(pids['node'])
    return Phase(
        rate, started, stopped, time.time_ns() - time.monotonic_ns(),
        {name: (after[name].cpu_s - cpu[name]) / took for name in pids},
        {tid: (s - threads.get(tid, 0.0)) / took for tid, s in later.items()},
        after['node'].rss, peak_bytes(pids['node']))


def _thread_seconds(pid: int) -> dict[int, float]:
    """Return the time on the processor of each thread of a process."""
    figures = {}
    for folder in Path('/proc', str(pid), 'task').iterdir():
        try:
            numbers = (folder / 'stat').read_text().rpartition(')')[2].split()
        except OSError:  # it has just ended
            continue
        figures[int(folder.name)] = (int(numbers[11]) + int(numbers[12])) / _TICKS
    return figures


def _figures(
    run: Run, phase: Phase, results: Sequence[Any], sent: np.ndarray, notes: dict[str, Any]
) -> dict[str, Any]:
    """Combine what the subscriber received, the sensors sent and the node recorded in a phase."""
    received = [h for h in results if phase.start < h.time <= phase.stop]
    first, last = (int(t * 1e9) + phase.behind_ns
                   for t in (phase.start, phase.stop - _LATENCY_S))
    within = sent[(sent >= first) & (sent < last)]
    received_ns = {stamp: at for stamp, at in notes['images']}
    network = [s for at, s in notes['network'] if phase.start <= at < phase.stop]
    return {
        'run': run.name, 'rate': phase.rate,
        'requested': ('as fast as possible' if phase.rate == FASTEST
                      else f'{phase.rate:g} a second'),
        'seconds': phase.stop - phase.start,
        'results_per_second': len(received) / (phase.stop - phase.start),
        'with_camera': _fraction_with_camera(received),
        'ages_ms': {name: _percentiles(values) for name, values in _ages(
            received, phase.behind_ns, dict(notes['windows'])).items()},
        'delivery_ms': _percentiles(
            [(received_ns[s] - s) / 1e6 for s in within.tolist() if s in received_ns]),
        'network_ms': _percentiles([1e3 * s for s in network]),
        'images': {'sent': len(within),
                   'dropped': sum(s not in received_ns for s in within.tolist()),
                   'rejected': max((_camera(h.message).dropped for h in received), default=0)},
        'cpu_percent': {name: 100 * part for name, part in phase.cpu.items()},
        'node_threads_percent': _by_task(phase.threads, notes),
        'rss_mb': phase.rss / 1e6, 'peak_mb': phase.peak / 1e6,
    }


def _ages(
    received: Sequence[Any], behind_ns: int, newest_frame: dict[int, int]
) -> dict[str, list[float]]:
    """Return the ages of results at their receipt, by the time they are counted from, ms."""
    from karmma_ros.node.messages import time_ns

    ages: dict[str, list[float]] = {name: [] for name in (
        'newest sample', 'newest image received', 'newest frame in the clip', 'end_to_end_latency',
        'inference')}
    for each in received:
        message, at_ns = each.message, int(each.time * 1e9) + behind_ns
        end_ns, camera = time_ns(message.header.stamp), _camera(message)
        ages['newest sample'].append((at_ns - end_ns) / 1e6)
        ages['end_to_end_latency'].append(1e3 * message.end_to_end_latency)
        ages['inference'].append(1e3 * message.inference_latency)
        if camera.used:
            ages['newest image received'].append((at_ns - time_ns(camera.last_stamp)) / 1e6)
            ages['newest frame in the clip'].append(
                (at_ns - newest_frame.get(end_ns, end_ns)) / 1e6)
    return ages


def _camera(result: Any) -> Any:
    return next(status for status in result.modalities if status.name == 'rgb')


def _fraction_with_camera(received: Sequence[Any]) -> float:
    return float(np.mean([_camera(h.message).used for h in received])) if received else 0.0


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not len(values):
        return {}
    return {f'p{q}': float(np.percentile(values, q)) for q in (5, 25, 50, 75, 95, 99, 100)}


def _by_task(threads: dict[int, float], notes: dict[str, Any]) -> dict[str, float]:
    """Sum the CPU time of the node's threads by task."""
    names = {notes['executor']: 'executor', notes['worker']: 'worker'}
    figures = dict.fromkeys(['executor', 'worker', 'others'], 0.0)
    for tid, part in threads.items():
        figures[names.get(tid, 'others')] += 100 * part
    return figures


if __name__ == '__main__':
    sys.exit(main())
