"""Many bags at once, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
import signal
import threading
from typing import Any, Union

from karmma_ros.errors import KarmmaError
from karmma_ros.evaluation.rosbag.evaluating import evaluate_bag, Evaluated, Settings
from karmma_ros.model.bundle import Bundle, load_bundle
import torch

_LOOK_S = 0.2

Told = Callable[[int, int, int], None]
"""Called with the place of a bag, what of it is done, and all of it."""
Outcome = Union[Evaluated, KarmmaError]
"""What was found in a bag, or why nothing was."""


@dataclass(frozen=True)
class Job:
    """What is done to every bag."""

    model: Path
    settings: Settings
    work: Path
    device: str = 'cpu'
    threads: int = 0
    """CPU threads of each network; 0 leaves torch's choice."""
    custom_encoders: bool = False


def evaluate_all(
    paths: Sequence[Path], job: Job, jobs: int, told: Told = lambda place, done, total: None,
) -> list[Outcome]:
    """
    Evaluate bags, so many at a time; one that cannot be read gives its error, not an end.

    :raises KarmmaError: when the model cannot be loaded.
    """
    if jobs == 1 or len(paths) == 1:
        bundle = _prepared(job)
        return [_one(path, bundle, job, _teller(told, place)) for place, path in enumerate(paths)]
    return _in_processes(paths, job, min(jobs, len(paths)), told)


def _teller(told: Told, place: int) -> Callable[[int, int], None]:
    return lambda done, total: told(place, done, total)


def _prepared(job: Job) -> Bundle:
    if job.threads:
        torch.set_num_threads(job.threads)
    return load_bundle(job.model, job.device, custom_encoders=job.custom_encoders)


def _one(path: Path, bundle: Bundle, job: Job, told: Callable[[int, int], None]) -> Outcome:
    try:
        return evaluate_bag(path, bundle, job.settings, job.work, told, job.device)
    except KarmmaError as error:
        return error


def _in_processes(paths: Sequence[Path], job: Job, jobs: int, told: Told) -> list[Outcome]:
    # Not forked: torch's threads would not survive that.
    context = get_context('spawn')
    with context.Manager() as manager:
        news = manager.Queue()
        with ProcessPoolExecutor(jobs, context, _start, (job, news)) as pool:
            futures = [pool.submit(_work, place, path) for place, path in enumerate(paths)]
            try:
                while wait(futures, timeout=_LOOK_S).not_done:
                    _pass_on(news, told)
                _pass_on(news, told)
            except BaseException:
                _abandon(pool, futures)
                raise
            return [future.result() for future in futures]


def _pass_on(news: Any, told: Told) -> None:
    while True:
        try:
            told(*news.get_nowait())
        except Empty:
            return


def _abandon(pool: ProcessPoolExecutor, futures: Sequence[Future[Outcome]]) -> None:
    """End what runs: it goes on from its work folder another time."""
    for future in futures:
        future.cancel()
    for process in list((getattr(pool, '_processes', None) or {}).values()):
        process.terminate()


_own: dict[str, Any] = {}
"""What a process keeps from bag to bag."""


def _start(job: Job, news: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    _own.update(job=job, news=news)


def _work(place: int, path: Path) -> Outcome:
    if 'bundle' not in _own:  # not in _start, whose failure would say nothing
        try:
            _own['bundle'] = _prepared(_own['job'])
        except KarmmaError as error:
            return error
    last = -1

    def told(done: int, total: int) -> None:
        nonlocal last
        share = 100 * done // total
        if share != last:
            last = share
            _own['news'].put((place, done, total))
    return _one(path, _own['bundle'], _own['job'], told)
