"""
Map tasks over workers: processes of this machine, or of all machines of a Ray cluster.

A worker is set up once (loads the model) and then runs one task after another. Tasks are given out
one by one, so that a slow one holds up nobody. A process of its own, the driver, uses Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
import os
from pathlib import Path
import pickle
import signal
import socket
import subprocess
import sys
from typing import Any

from karmma_ros.cluster.actor import Outcome
from karmma_ros.cluster.connection import cloudpickle_of_ray
from karmma_ros.cluster.driver import (
    Note,
    TaskEnd,
    TaskProgress,
    TaskSet,
    Workers,
    WorkerStoppedError,
)
from karmma_ros.errors import InvalidSettingError, KarmmaError

JOB_CPUS = 2
"""Cores of a cluster for each bag: one reads and decodes, one computes."""
_DRIVERS = 2
"""Drivers that may end one after another without a task that is done."""
_SILENT_S = 120.0
"""How long a driver may send nothing; while tasks run, it does twice a second."""
_END_S = 15.0
_RUN_DRIVER = 'from karmma_ros.cluster.driver import main; main()'

Report = Callable[[int, int], None]
"""Called by a task with how much of it is done, and its total."""

ONE = Workers(count=1)
"""This process."""


def raising(paths: Sequence[Path]) -> Callable[[int, Any], None]:
    """Return an `on_result` that raises the first error, for tasks that are bags."""
    def check(index: int, outcome: Any) -> None:
        if isinstance(outcome, WorkerStoppedError):
            raise outcome.of_bag(paths[index])
        if isinstance(outcome, KarmmaError):
            raise outcome
    return check


def workers_of_environment() -> Workers:
    """Return those of the cluster in the variable RAY_ADDRESS; without, this process."""
    address = os.environ.get('RAY_ADDRESS', '')
    return Workers(address, cpus=JOB_CPUS) if address not in ('', 'local') else ONE


def check_shared(setting: str, folder: Path) -> None:
    """
    Check in a worker that its machine has a folder of the one where the command was given.

    :raises InvalidSettingError: when it does not.
    """
    if not folder.is_dir():
        raise InvalidSettingError(
            setting, str(folder), 'a folder that all machines of the cluster have',
            f'{socket.gethostname()} has none of this path: name one on a disk that they share')


def map_tasks(
    work: Callable[[Any, Any, Report], Any], tasks: Sequence[Any], setup: Callable[[], Any],
    workers: Workers, *,
    progress: Callable[[int, int, int], None] = lambda index, done, total: None,
    on_result: Callable[[int, Any], None] = lambda index, result: None,
    needs: Mapping[int, Sequence[int]] | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> list[Any]:
    """
    Return what `work` returns for each task, in their order.

    A task whose worker ends is run once more, and on a cluster also one that raises: on another
    node, or where no worker is on another one, after all others, alone. The KarmmaError of a task
    that is not run again is its result. A driver that ends is started again for what is not done.

    Where there is only one task or one worker, on this machine, it runs in this process.

    :param work: called with what `setup` returned, the task, and what reports its progress. It,
        `setup` and the tasks are pickled.
    :param setup: called once by each worker.
    :param progress: called with the index of a task, how much of it is done, and its total.
    :param on_result: called with the index and the result of each task as it is done.
    :param needs: index of a task → those that must be done before.
    :param note: called with sentences on workers that end, and on waiting for the first one.
    :raises KarmmaError: of the setup, if no worker can be set up, when there is no cluster, and
        when drivers end or send nothing.
    :raises Exception: what else a task raises, twice.
    """
    if not workers.address and min(len(tasks), workers.count) <= 1:
        return _in_this_process(work, tasks, setup, progress, on_result, needs or {})
    cloudpickle = cloudpickle_of_ray(workers.address, workers.count)
    job = TaskSet(
        cloudpickle.dumps(work), cloudpickle.dumps(setup),
        dict(enumerate(map(pickle.dumps, tasks))), needs or {}, workers)
    results: dict[int, Any] = {}
    ends = 0
    while left := {i: task for i, task in job.tasks.items() if i not in results}:
        stopped = _run(replace(job, tasks=left), results, progress, on_result, note)
        if len(results) == len(tasks):
            break
        ends = ends + 1 if len(tasks) - len(results) == len(left) else 1
        if ends >= _DRIVERS:
            raise KarmmaError(f'{stopped}, twice: give the same command again, and check that '
                              '`ray status` works where the command is given')
        note(f'{stopped}: it is started again')
    return [results[index] for index in range(len(tasks))]


def _in_this_process(
    work: Callable[[Any, Any, Report], Any], tasks: Sequence[Any], setup: Callable[[], Any],
    progress: Callable[[int, int, int], None], on_result: Callable[[int, Any], None],
    needs: Mapping[int, Sequence[int]],
) -> list[Any]:
    results: dict[int, Any] = {}
    state = setup()
    while len(results) < len(tasks):
        index = next(i for i in range(len(tasks))
                     if i not in results and results.keys() >= set(needs.get(i, ())))
        try:
            results[index] = work(state, tasks[index], partial(progress, index))
        except KarmmaError as error:
            results[index] = error
        on_result(index, results[index])
    return [results[index] for index in range(len(tasks))]


def _run(
    job: TaskSet, results: dict[int, Any], progress: Callable[[int, int, int], None],
    on_result: Callable[[int, Any], None], note: Callable[[str], None],
) -> str:
    """Run a job and add to the results; return how its driver stopped too early, if it did."""
    with _driver() as (process, connection):
        with suppress(ConnectionError):  # it has ended: there is no message
            connection.send(job)
        while not isinstance(message := _next_message(process, connection), str):
            if isinstance(message, TaskProgress):
                progress(message.index, message.done, message.total)
            elif isinstance(message, Note) and message.sentence:
                note(message.sentence)
            elif isinstance(message, TaskEnd):
                outcome, content = message.ended
                result = pickle.loads(content)
                if outcome == Outcome.FAILED or (
                        outcome == Outcome.REFUSED and message.index is None):
                    raise result
                if message.index is None:
                    return ''
                results[message.index] = result
                on_result(message.index, result)
        return message


def _next_message(process: subprocess.Popen[bytes], connection: Connection) -> Any:
    """Return the next message of a driver, or a sentence on why there is none."""
    try:
        if connection.poll(_SILENT_S):
            return connection.recv()
    except (EOFError, ConnectionError):
        code = process.wait()
        reason = signal.Signals(-code).name if code < 0 else f'code {code}'
        return f'the process that uses Ray ended ({reason})'
    return f'the process that uses Ray has sent nothing for {_SILENT_S:g} s'


@contextmanager
def _driver() -> Iterator[tuple[subprocess.Popen[bytes], Connection]]:
    """Start a driver; end it afterwards, with the cluster of this machine if it started one."""
    ours, its = Pipe()
    paths = [path or os.getcwd() for path in sys.path]
    with its:
        process = subprocess.Popen(
            [sys.executable, '-c', _RUN_DRIVER, str(its.fileno())],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[its.fileno()],
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(dict.fromkeys(paths))})
    try:
        yield process, ours
    finally:
        ours.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
