"""Evaluate several bags in parallel, in processes that each load the model once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
import signal
import threading
from traceback import extract_tb
from typing import Any, Union

from karmma_ros.bags.evaluate import evaluate_bag, EvaluatedBag, Settings
from karmma_ros.errors import BagError, DISK_FULL, KarmmaError
from karmma_ros.model.bundle import Bundle, load_bundle
import torch

_POLL_S = 0.2

BagProgress = Callable[[int, int, int], None]
"""Called with the index of a bag, how much of it is done, and its total."""
Outcome = Union[EvaluatedBag, KarmmaError]
"""The results of a bag, or why there are none."""


@dataclass(frozen=True)
class Job:
    """The evaluation of every bag."""

    model: Path
    settings: Settings
    run_dir: Path
    device: str = 'cpu'
    threads: int = 0
    """CPU threads of each network; 0 for torch's default."""
    custom_encoders: bool = False


def evaluate_all(
    paths: Sequence[Path], job: Job, jobs: int,
    progress: BagProgress = lambda index, done, total: None,
) -> list[Outcome]:
    """
    Evaluate bags, up to `jobs` at a time; an error in one does not stop the others.

    :raises KarmmaError: when the model cannot be loaded.
    :raises OSError: when the disk is full.
    """
    if jobs == 1 or len(paths) == 1:
        bundle = _load(job)
        return [_evaluate(path, bundle, job, partial(progress, index))
                for index, path in enumerate(paths)]
    return _in_processes(paths, job, min(jobs, len(paths)), progress)


def _load(job: Job) -> Bundle:
    if job.threads:
        torch.set_num_threads(job.threads)
    return load_bundle(job.model, job.device, custom_encoders=job.custom_encoders)


def _evaluate(
    path: Path, bundle: Bundle, job: Job, progress: Callable[[int, int], None]
) -> Outcome:
    try:
        return evaluate_bag(path, bundle, job.settings, job.run_dir, progress, job.device)
    except KarmmaError as error:
        return error
    except Exception as error:  # a hostile file may break a library anywhere
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        last = extract_tb(error.__traceback__)[-1]
        return BagError(
            path, f'it cannot be evaluated ({type(error).__name__}: {error}, in '
            f'{Path(last.filename).name}:{last.lineno})',
            'check the file; if it is intact, this is an error of karmma_ros: report it')


def _in_processes(
    paths: Sequence[Path], job: Job, jobs: int, progress: BagProgress
) -> list[Outcome]:
    # Not forked: torch's threads would not survive that.
    context = get_context('spawn')
    with context.Manager() as manager:
        queue = manager.Queue()
        outcomes = _in_pool(dict(enumerate(paths)), job, jobs, context, queue, progress)
        for index, path in enumerate(paths):
            if index not in outcomes:  # a process was killed: find its bag by running each alone
                outcomes |= _in_pool({index: path}, job, 1, context, queue, progress)
        return [outcomes.get(index) or _killed(path) for index, path in enumerate(paths)]


def _in_pool(
    paths: Mapping[int, Path], job: Job, jobs: int, context: Any, queue: Any,
    progress: BagProgress,
) -> dict[int, Outcome]:
    """Evaluate bags by index, without those left when a process was killed."""
    with ProcessPoolExecutor(jobs, context, _start_process, (job, queue)) as pool:
        futures: dict[int, Future[Outcome]] = {}
        try:
            with suppress(BrokenProcessPool):
                for index, path in paths.items():
                    futures[index] = pool.submit(_evaluate_in_process, index, path)
            while wait(futures.values(), timeout=_POLL_S).not_done:
                _report_progress(queue, progress)
            _report_progress(queue, progress)
        except BaseException:
            _terminate(pool, list(futures.values()))
            raise
        return {index: future.result() for index, future in futures.items()
                if not isinstance(future.exception(), BrokenProcessPool)}


def _killed(path: Path) -> BagError:
    return BagError(path, 'the system killed the process that evaluated it',
                    'free some memory, or give a smaller --jobs')


def _report_progress(queue: Any, progress: BagProgress) -> None:
    with suppress(Empty):
        while True:
            progress(*queue.get_nowait())


def _terminate(pool: ProcessPoolExecutor, futures: Sequence[Future[Outcome]]) -> None:
    """Terminate the processes; the next run resumes from their folders."""
    for future in futures:
        future.cancel()
    for process in list((getattr(pool, '_processes', None) or {}).values()):
        process.terminate()


_process: dict[str, Any] = {}
"""Job, progress queue and model of this process."""


def _start_process(job: Job, queue: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process terminates the others
    _process.update(job=job, queue=queue)


def _evaluate_in_process(index: int, path: Path) -> Outcome:
    if 'bundle' not in _process:  # not in _start_process, whose error would be hidden
        try:
            _process['bundle'] = _load(_process['job'])
        except KarmmaError as error:
            return error
    last = -1

    def progress(done: int, total: int) -> None:
        nonlocal last
        percent = 100 * done // total
        if percent != last:
            last = percent
            _process['queue'].put((index, done, total))
    return _evaluate(path, _process['bundle'], _process['job'], progress)
