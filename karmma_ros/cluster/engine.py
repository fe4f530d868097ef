"""
Map tasks over workers: processes of this machine, or of all machines of a Ray cluster.

The only module that uses Ray, with `actor.py` and `connection.py`. A worker is set up once (loads
the model) and then runs one task after another. Tasks are given out one by one, so that a slow one
holds up nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
import os
from pathlib import Path
import pickle
import socket
import time
from typing import Any

from karmma_ros.cluster.actor import Failure, source_digest, TaskActor
from karmma_ros.cluster.connection import connected
from karmma_ros.errors import (
    BagError,
    InvalidSettingError,
    KarmmaError,
    printable,
    SENTENCE_LENGTH,
)

_POLL_S = 0.5
"""How often a busy worker is queried for its progress; rarer with more than 50 workers."""
_WAIT_NOTE_S = 15
_ATTEMPTS = 2
JOB_CPUS = 2
"""Cores of a cluster for each bag: one reads and decodes, one computes."""
_FAILED_STARTS = 3
"""Workers that may end while they start, without one that starts in between."""

Report = Callable[[int, int], None]
"""Called by a task with how much of it is done, and its total."""


@dataclass(frozen=True)
class Workers:
    """What the tasks run on."""

    address: str = ''
    """Of a Ray cluster: `ray://head:10001`, or `head:6379` on one of its machines; empty: one of
    this machine alone, which is started and ended here."""
    count: int = 0
    """Most workers; 0: as many as the cluster has resources for."""
    cpus: int = 1
    """Processor cores that each worker claims."""
    gpus: float = 0
    """GPUs that each worker claims, and sees; a fraction shares one."""
    start_timeout_s: float = 600
    """How long to wait for the first worker."""


ONE = Workers(count=1)
"""This process."""


class WorkerStoppedError(KarmmaError):
    """The workers that ran a task ended before it was done."""

    def of_bag(self, path: Path) -> BagError:
        """Return the error that names the bag of the task."""
        return BagError(path, str(self), 'free some memory, or give a smaller --jobs')


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


@dataclass(frozen=True)
class _Attempt:
    """A task that is to be run, and where it failed before."""

    index: int
    number: int = 1
    avoid: str = ''
    """Id of the node on which it failed, maybe for it took too much memory."""


@dataclass(eq=False)
class _Remote:
    """A worker, as it is seen from here."""

    handle: Any
    node: str = ''
    """Id of its node; empty until it has started."""
    attempt: _Attempt | None = None
    polling: bool = False


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
    that is not run again is its result.

    Where there is only one task or one worker, on this machine, it runs in this process.

    :param work: called with what `setup` returned, the task, and what reports its progress. It,
        `setup` and the tasks are pickled.
    :param setup: called once by each worker.
    :param progress: called with the index of a task, how much of it is done, and its total.
    :param on_result: called with the index and the result of each task as it is done.
    :param needs: index of a task → those that must be done before.
    :param note: called with sentences on workers that end, and on waiting for the first one.
    :raises KarmmaError: of the setup, if no worker can be set up, and when there is no cluster.
    :raises Exception: what else a task raises, twice.
    """
    if not workers.address and min(len(tasks), workers.count) <= 1:
        return _in_this_process(work, tasks, setup, progress, on_result, needs or {})
    with connected(workers.address, workers.count, workers.gpus) as ray:
        run = _Run(ray, workers, (work, tasks, setup), needs or {}, note)
        return run.results(progress, on_result)


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


@dataclass
class _Run:
    """The tasks, which worker runs which of them, and what they returned."""

    ray: Any
    workers: Workers
    work: tuple[Callable[[Any, Any, Report], Any], Sequence[Any], Callable[[], Any]]
    needs: Mapping[int, Sequence[int]]
    note: Callable[[str], None]
    outcomes: dict[int, Any] = field(default_factory=dict)
    _waiting: list[_Attempt] = field(default_factory=list)
    _remotes: list[_Remote] = field(default_factory=list)
    _calls: dict[Any, tuple[_Remote, Callable[[_Remote, Any], None]]] = field(
        default_factory=dict)
    """Reference of a call → its worker, and what takes its result."""
    _failed_starts: int = 0

    def results(
        self, progress: Callable[[int, int, int], None], on_result: Callable[[int, Any], None],
    ) -> list[Any]:
        """Run all tasks; end the workers in any case."""
        self._progress, self._on_result = progress, on_result
        work, tasks, setup = self.work
        self._work = self.ray.put(self.ray.cloudpickle.dumps(work))
        self._setup = self.ray.put(self.ray.cloudpickle.dumps(setup))
        self._waiting = [_Attempt(index) for index in range(len(tasks))]
        try:
            for _ in range(min(len(tasks), self._count())):
                self._start()
            self._began, self._noted, self._polled = time.monotonic(), False, 0.0
            while len(self.outcomes) < len(tasks):
                self._assign()
                self._poll()
                self._take()
        finally:
            for remote in self._remotes:
                self._end(remote)
        return [self.outcomes[index] for index in range(len(tasks))]

    def _count(self) -> int:
        """Return how many workers the cluster has resources for, at most as many as wanted."""
        if not self.workers.address:
            return self.workers.count
        total = self.ray.cluster_resources()
        fit = int(total.get('CPU', 0) // self.workers.cpus)
        if self.workers.gpus:
            fit = min(fit, int(total.get('GPU', 0) / self.workers.gpus))
        return min(self.workers.count or fit, fit) or self.workers.count or 1

    def _start(self) -> None:
        actor = self.ray.remote(TaskActor).options(
            num_cpus=self.workers.cpus, num_gpus=self.workers.gpus, max_restarts=0,
            max_concurrency=2)
        remote = _Remote(actor.remote(self._setup, source_digest(), os.getcwd()))
        self._remotes.append(remote)
        self._call(remote, 'start', self._started)

    def _call(
        self, remote: _Remote, method: str, take: Callable[[_Remote, Any], None], *given: Any,
    ) -> None:
        self._calls[getattr(remote.handle, method).remote(*given)] = remote, take

    def _started(self, remote: _Remote, result: bytes) -> None:
        outcome = pickle.loads(result)
        if isinstance(outcome, Failure):
            self._drop(remote)
            if not self._remotes:
                raise outcome.error
            self.note(printable(f'a worker cannot start: {outcome.error}', SENTENCE_LENGTH))
            return
        remote.node, self._failed_starts = outcome, 0

    def _assign(self) -> None:
        """Give each idle worker a task that it can run."""
        for remote in self._remotes:
            if remote.node and remote.attempt is None:
                attempt = next((x for x in self._waiting if self._fits(x, remote)), None)
                if attempt is None:
                    continue
                self._waiting.remove(attempt)
                remote.attempt = attempt
                self._call(remote, 'run', self._finished, self._work,
                           pickle.dumps(self.work[1][attempt.index]))

    def _fits(self, attempt: _Attempt, remote: _Remote) -> bool:
        if not self.outcomes.keys() >= set(self.needs.get(attempt.index, ())):
            return False
        if attempt.avoid != remote.node:
            return True
        elsewhere = any(other.node not in ('', attempt.avoid) for other in self._remotes)
        return not elsewhere and all(each.avoid for each in self._waiting) and not any(
            other.attempt for other in self._remotes)

    def _poll(self) -> None:
        if time.monotonic() - self._polled < max(_POLL_S, len(self._remotes) / 100):
            return
        self._polled = time.monotonic()
        for remote in self._remotes:
            if remote.attempt is not None and not remote.polling:
                remote.polling = True
                self._call(remote, 'progress', self._progressed)
        self._check_wait()

    def _check_wait(self) -> None:
        """Note that no worker has started for long; raise an error when it is too long."""
        if any(remote.node for remote in self._remotes):
            self._began = time.monotonic()
            return
        waited = time.monotonic() - self._began
        wanted = f'{self.workers.cpus} CPU' + (
            f' and {self.workers.gpus:g} GPU' if self.workers.gpus else '')
        total = self.ray.cluster_resources()
        offered = f'{total.get("CPU", 0):g} CPU and {total.get("GPU", 0):g} GPU'
        if waited > self.workers.start_timeout_s:
            raise KarmmaError(
                f'no worker has started within {waited:.0f} s: each needs {wanted} of one '
                f'machine, and the cluster has {offered} in all: free or add machines, or give '
                'smaller --job-cpus or --job-gpus')
        if waited > _WAIT_NOTE_S and not self._noted:
            self._noted = True
            self.note(f'waiting for a worker with {wanted}; the cluster has {offered} in all')

    def _progressed(self, remote: _Remote, result: tuple[int, int]) -> None:
        remote.polling = False
        if remote.attempt is not None and result[1]:
            self._progress(remote.attempt.index, *result)

    def _take(self) -> None:
        """Wait for calls that have returned, and take their results."""
        timeout = max(_POLL_S, len(self._remotes) / 100)
        ready, _ = self.ray.wait(list(self._calls), num_returns=1, timeout=timeout)
        if ready:
            ready, _ = self.ray.wait(
                list(self._calls), num_returns=len(self._calls), timeout=0)
        for reference in ready:
            if reference not in self._calls:  # its worker was dropped
                continue
            remote, take = self._calls.pop(reference)
            try:
                result = self.ray.get(reference)
            except self.ray.exceptions.RayError as error:
                self._stopped(remote, error)
            else:
                take(remote, result)

    def _finished(self, remote: _Remote, result: bytes) -> None:
        attempt, remote.attempt = remote.attempt, None
        assert attempt is not None
        outcome = pickle.loads(result)
        if not isinstance(outcome, Failure):
            self._done(attempt, outcome)
        elif attempt.number < _ATTEMPTS and self.workers.address and any(
                other.node != remote.node for other in self._remotes):
            self._retry(attempt, remote.node)
        elif isinstance(outcome.error, KarmmaError):
            self._done(attempt, outcome.error)
        else:
            raise outcome.error

    def _done(self, attempt: _Attempt, outcome: Any) -> None:
        self.outcomes[attempt.index] = outcome
        self._on_result(attempt.index, outcome)

    def _retry(self, attempt: _Attempt, node: str) -> None:
        self._waiting.append(_Attempt(attempt.index, attempt.number + 1, node))

    def _stopped(self, remote: _Remote, error: Exception) -> None:
        """Replace a worker that has ended, maybe with its node, and run its task again."""
        if remote not in self._remotes:
            return
        attempt, started = remote.attempt, bool(remote.node)
        self._drop(remote)
        if attempt is not None and attempt.number < _ATTEMPTS:
            self.note('a worker ended: its task is run again')
            self._retry(attempt, remote.node)
        elif attempt is not None:
            self._done(attempt, WorkerStoppedError(
                'the processes that ran it ended, twice: '
                + str(error).strip().splitlines()[0]))
        self._failed_starts += not started
        if self._failed_starts >= _FAILED_STARTS:
            raise KarmmaError('the workers end while they start: '
                              + printable(str(error).strip(), SENTENCE_LENGTH))
        self._start()

    def _drop(self, remote: _Remote) -> None:
        self._remotes.remove(remote)
        self._calls = {call: other for call, other in self._calls.items()
                       if other[0] is not remote}
        self._end(remote)

    def _end(self, remote: _Remote) -> None:
        with suppress(Exception):  # it has ended already
            self.ray.kill(remote.handle)
