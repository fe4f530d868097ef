"""
The process that uses Ray: it gives out tasks, and sends how they end to the command's process.

Ray ends a process whose node is lost, and may crash one that closes a session and opens another
(https://github.com/ray-project/ray/issues/31145): the command's process must not end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
import os
from pathlib import Path
import pickle
import signal
import sys
import time
from typing import Any

from karmma_ros.cluster.actor import Ended, failed, Outcome, source_digest, TaskActor
from karmma_ros.cluster.connection import connected
from karmma_ros.errors import BagError, KarmmaError, printable, SENTENCE_LENGTH

_POLL_S = 0.5
"""How often a busy worker is queried for its progress; rarer with more than 50 workers."""
_WAIT_NOTE_S = 15
_ATTEMPTS = 2
_FAILED_STARTS = 3
"""Workers that may end while they start, without one that starts in between."""


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


class WorkerStoppedError(KarmmaError):
    """The workers that ran a task ended before it was done."""

    def of_bag(self, path: Path) -> BagError:
        """Return the error that names the bag of the task."""
        return BagError(path, str(self), 'free some memory, or give a smaller --jobs')


@dataclass(frozen=True)
class TaskSet:
    """What a driver is to do: pickles, and how the tasks depend on each other."""

    work: bytes
    setup: bytes
    tasks: Mapping[int, bytes]
    """Index → task."""
    needs: Mapping[int, Sequence[int]]
    """Index of a task → those that must be done before."""
    workers: Workers


@dataclass(frozen=True)
class Note:
    """A sentence on workers that end, or on waiting for the first one; empty: all is well."""

    sentence: str = ''


@dataclass(frozen=True)
class TaskProgress:
    """How much of a task is done, and its total."""

    index: int
    done: int
    total: int


@dataclass(frozen=True)
class TaskEnd:
    """How a task ended; without an index, how the job did."""

    ended: Ended
    index: int | None = None


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


class _ClosedError(Exception):
    """The command does not wait for results any more."""


@dataclass
class _Run:
    """The tasks, which worker runs which of them, and which are done."""

    ray: Any
    job: TaskSet
    connection: Connection
    done: set[int] = field(default_factory=set)
    _waiting: list[_Attempt] = field(default_factory=list)
    _remotes: list[_Remote] = field(default_factory=list)
    _calls: dict[Any, tuple[_Remote, Callable[[_Remote, Any], None]]] = field(
        default_factory=dict)
    """Reference of a call → its worker, and what takes its result."""
    _failed_starts: int = 0

    def run(self) -> None:
        """Run all tasks; end the workers in any case."""
        self._work, self._setup = self.ray.put(self.job.work), self.ray.put(self.job.setup)
        self._waiting = [_Attempt(index) for index in self.job.tasks]
        try:
            for _ in range(min(len(self.job.tasks), self._count())):
                self._start()
            self._began, self._noted, self._polled = time.monotonic(), False, 0.0
            while len(self.done) < len(self.job.tasks):
                if self.connection.poll():
                    raise _ClosedError
                self._assign()
                self._poll()
                self._take()
        finally:
            for remote in self._remotes:
                self._end(remote)

    def _count(self) -> int:
        """Return how many workers the cluster has resources for, at most as many as wanted."""
        workers = self.job.workers
        if not workers.address:
            return workers.count
        total = self.ray.cluster_resources()
        fit = int(total.get('CPU', 0) // workers.cpus)
        if workers.gpus:
            fit = min(fit, int(total.get('GPU', 0) / workers.gpus))
        return min(workers.count or fit, fit) or workers.count or 1

    def _start(self) -> None:
        actor = self.ray.remote(TaskActor).options(
            num_cpus=self.job.workers.cpus, num_gpus=self.job.workers.gpus, max_restarts=0,
            max_concurrency=2)
        remote = _Remote(actor.remote(self._setup, source_digest(), os.getcwd()))
        self._remotes.append(remote)
        self._call(remote, 'start', self._started)

    def _call(
        self, remote: _Remote, method: str, take: Callable[[_Remote, Any], None], *given: Any,
    ) -> None:
        self._calls[getattr(remote.handle, method).remote(*given)] = remote, take

    def _started(self, remote: _Remote, ended: Ended) -> None:
        outcome, content = ended
        if outcome != Outcome.RETURNED:
            error = pickle.loads(content)
            self._drop(remote)
            if not self._remotes:
                raise error
            self._note(f'a worker cannot start: {error}')
            return
        remote.node, self._failed_starts = pickle.loads(content), 0

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
                           self.job.tasks[attempt.index])

    def _fits(self, attempt: _Attempt, remote: _Remote) -> bool:
        needed = set(self.job.needs.get(attempt.index, ())) & self.job.tasks.keys()
        if not self.done >= needed:
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
        self.connection.send(Note())
        self._check_wait()

    def _check_wait(self) -> None:
        """Note that no worker has started for long; raise an error when it is too long."""
        if any(remote.node for remote in self._remotes):
            self._began = time.monotonic()
            return
        workers, waited = self.job.workers, time.monotonic() - self._began
        wanted = f'{workers.cpus} CPU' + (f' and {workers.gpus:g} GPU' if workers.gpus else '')
        total = self.ray.cluster_resources()
        offered = f'{total.get("CPU", 0):g} CPU and {total.get("GPU", 0):g} GPU'
        if waited > workers.start_timeout_s:
            raise KarmmaError(
                f'no worker has started within {waited:.0f} s: each needs {wanted} of one '
                f'machine, and the cluster has {offered} in all: free or add machines, or give '
                'smaller --job-cpus or --job-gpus')
        if waited > _WAIT_NOTE_S and not self._noted:
            self._noted = True
            self._note(f'waiting for a worker with {wanted}; the cluster has {offered} in all')

    def _note(self, sentence: str) -> None:
        self.connection.send(Note(printable(sentence, SENTENCE_LENGTH)))

    def _progressed(self, remote: _Remote, result: tuple[int, int]) -> None:
        remote.polling = False
        if remote.attempt is not None and result[1]:
            self.connection.send(TaskProgress(remote.attempt.index, *result))

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

    def _finished(self, remote: _Remote, ended: Ended) -> None:
        attempt, remote.attempt = remote.attempt, None
        assert attempt is not None
        if (ended[0] != Outcome.RETURNED and attempt.number < _ATTEMPTS
                and self.job.workers.address
                and any(other.node != remote.node for other in self._remotes)):
            self._retry(attempt, remote.node)
        else:
            self._done(attempt, ended)

    def _done(self, attempt: _Attempt, ended: Ended) -> None:
        self.done.add(attempt.index)
        self.connection.send(TaskEnd(ended, attempt.index))

    def _retry(self, attempt: _Attempt, node: str) -> None:
        self._waiting.append(_Attempt(attempt.index, attempt.number + 1, node))

    def _stopped(self, remote: _Remote, error: Exception) -> None:
        """Replace a worker that has ended, maybe with its node, and run its task again."""
        if remote not in self._remotes:
            return
        attempt, started = remote.attempt, bool(remote.node)
        self._drop(remote)
        if attempt is not None and attempt.number < _ATTEMPTS:
            self._note('a worker ended: its task is run again')
            self._retry(attempt, remote.node)
        elif attempt is not None:
            self._done(attempt, failed(WorkerStoppedError(
                'the processes that ran it ended, twice: '
                + str(error).strip().splitlines()[0])))
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


def main() -> None:
    """Receive a job from the descriptor that is given, run it, and send how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command has it, and closes the connection
    connection = Connection(int(sys.argv[1]))
    with suppress(_ClosedError, BrokenPipeError, EOFError):
        job: TaskSet = connection.recv()
        try:
            with connected(job.workers.address, job.workers.count, job.workers.gpus) as ray:
                connection.send(Note())
                # Before Ray is shut down, which may fail.
                connection.send(TaskEnd(_end_of(_Run(ray, job, connection))))
        except (_ClosedError, BrokenPipeError):
            raise
        except Exception as error:
            connection.send(TaskEnd(failed(error)))


def _end_of(run: _Run) -> Ended:
    try:
        run.run()
    except (_ClosedError, BrokenPipeError):
        raise
    except Exception as error:
        return failed(error)
    return Outcome.RETURNED, pickle.dumps(None)
