"""A full disk for everything that is written: logs, standard output, standard error."""

from __future__ import annotations

from pathlib import Path
import resource
import subprocess
from tempfile import TemporaryDirectory
import time

from fault_suite.case import case, Trial
from fault_suite.models import make_model
from fault_suite.monitor import node_monitor, NodeMonitor
from fault_suite.processes import ALL, node_process, NodeProcess, sender_process, SENSORS
from fault_suite.ros import domain

# Causes warnings: an image in an unknown encoding, beside the valid ones.
NUISANCE = {'name': 'nuisance', 'message': 'flow', 'topic': 'image', 'rate': 5}
_FULL_DISK = 'mount -t tmpfs -o size=64k none "$0" && ' \
    '{ head -c 1M /dev/zero > "$0/ballast" 2> /dev/null; exec "$@"; }'


def _can_mount(folder: Path) -> bool:
    """Return whether a small file system can be mounted in a namespace of one's own."""
    return subprocess.run(
        ['unshare', '-rm', 'sh', '-c', _FULL_DISK, str(folder), 'true'],
        stderr=subprocess.DEVNULL, check=False).returncode == 0


def _no_file_grows() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def _check(
    trial: Trial, monitor: NodeMonitor, node: NodeProcess, what: str, seconds: float
) -> None:
    first = monitor.result(60)
    trial.require(f'{what}: there are results', first, 'results' if first else 'none in 60 s')
    before, since = len(monitor.results), time.monotonic()
    monitor.spin(seconds)
    times = [since, *(h.time for h in monitor.results[before:]), time.monotonic()]
    gap = max(b - a for a, b in zip(times, times[1:]))
    trial.require(f'{what}: they continue without a pause of more than 1.5 s', gap < 1.5,
                  f'{len(monitor.results) - before} results, longest pause {gap:.2f} s')
    status = node.end()
    trial.require(f'{what}: on SIGINT it exits with 0', status == 0, f'exit {status}')


@case('disk', 'A full disk', (
    'The node’s log directory is on a full disk, standard output and error are /dev/full, and '
    'warnings '
    'are provoked for {seconds:g} s by images in an unknown encoding; first with a full file '
    'system where one can be mounted (in a user namespace), then with a file size limit of zero '
    'bytes.'),
    full={'seconds': 15.0}, quick={'seconds': 3.0}, limit_s=200)
def run(trial: Trial, seconds: float) -> None:
    """Fill the disk in two ways."""
    with TemporaryDirectory() as name, domain(), node_monitor() as monitor, \
            sender_process((*SENSORS, NUISANCE)) as sender, open('/dev/full', 'w') as nowhere:
        model, log = make_model(Path(name, 'random')), Path(name, 'log')
        log.mkdir()
        parameters = {'model': model, 'threads': 1, 'autostart': True, 'rate': 10.0}
        options = {'environment': {'ROS_LOG_DIR': str(log)}, 'stdout': nowhere, 'stderr': nowhere}
        sender.switch(*ALL, 'nuisance')
        if _can_mount(log):
            with node_process(parameters, prefix=(
                    'unshare', '-rm', 'sh', '-c', _FULL_DISK, str(log)), **options) as node:
                _check(trial, monitor, node, 'full file system', seconds)
            monitor.spin(1.0)  # its last results, which are not those of the next node
        trial.figures['full file system'] = bool(trial.requirements)
        with node_process(parameters, preexec_fn=_no_file_grows, **options) as node:
            _check(trial, monitor, node, 'file size limit', seconds)
